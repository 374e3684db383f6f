"""torch.nn: convert modules to nets and nets to modules, and use modules as layers."""

from funcnet.interop.torch_nn.autograd.functions import differentiable as differentiable
from funcnet.interop.torch_nn.autograd.modules import as_module as as_module
from funcnet.interop.torch_nn.exporting.conversion import to_torch as to_torch
from funcnet.interop.torch_nn.importing.entry import from_torch as from_torch
from funcnet.interop.torch_nn.lifting.entry import lift as lift
from funcnet.interop.torch_nn.state_dicts import load_state_dict as load_state_dict
