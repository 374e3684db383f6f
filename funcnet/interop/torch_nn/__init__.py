"""torch.nn: modules as nets, nets as modules, modules as layers."""

from funcnet.interop.torch_nn.exporting.conversion import to_torch as to_torch
