"""torch.nn modules and traced code as layers."""
