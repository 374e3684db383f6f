"""Nets as modules of torch.nn."""
