"""Modules of torch.nn and traced code as layers."""
