"""torch.nn: modules as nets, nets as modules, modules as layers."""

from funcnet.interop.torch_nn.lifting import lift as lift
