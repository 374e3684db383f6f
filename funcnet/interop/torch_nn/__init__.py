"""torch.nn: modules as nets, nets as modules, modules as layers."""
