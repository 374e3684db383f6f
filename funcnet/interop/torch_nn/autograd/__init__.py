"""Nets within autograd: as modules of torch.nn, and as differentiable functions, whose backward pass is the VJP."""
