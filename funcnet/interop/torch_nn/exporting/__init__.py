"""Nets as torch.nn modules."""
