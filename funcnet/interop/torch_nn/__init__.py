"""torch.nn: modules as nets, nets as modules, modules as layers."""

<<<<<<< HEAD
from funcnet.interop.torch_nn.importing.conversion import from_torch

__all__ = ["from_torch"]
=======
from funcnet.interop.torch_nn.autograd import differentiable as differentiable
from funcnet.interop.torch_nn.exporting.conversion import to_torch as to_torch
from funcnet.interop.torch_nn.modules import as_module as as_module
>>>>>>> i16-module
