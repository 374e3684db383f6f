"""Nets within autograd, as torch.nn modules and as differentiable functions; the backward pass is the VJP."""
