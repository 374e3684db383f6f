"""torch.nn: modules as nets, nets as modules, modules as layers."""

from funcnet.interop.torch_nn.importing.conversion import from_torch

__all__ = ["from_torch"]
