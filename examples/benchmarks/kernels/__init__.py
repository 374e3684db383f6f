"""Single kernels: funcnet's beside torch.nn's and the rejected alternatives."""
