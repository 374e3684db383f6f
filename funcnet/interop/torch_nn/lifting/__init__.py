"""torch.nn modules as layers, differentiated with ``torch.func`` and autograd."""
