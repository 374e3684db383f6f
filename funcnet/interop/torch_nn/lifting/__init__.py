"""Modules of torch.nn as layers, differentiated by ``torch.func`` and autograd."""
