"""torch.nn: modules as nets, nets as modules, modules as layers."""

from funcnet.interop.torch_nn.lifting import lift as lift
from funcnet.interop.torch_nn.state_dicts import load_state_dict as load_state_dict
