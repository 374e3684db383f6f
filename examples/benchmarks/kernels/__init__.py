"""Single kernels: funcnet's beside torch.nn's and beside the alternatives that a choice rejected."""
