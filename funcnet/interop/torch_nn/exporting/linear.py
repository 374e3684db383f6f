"""Linear maps as modules of torch.nn."""

from funcnet.interop.torch_nn.exporting.registry import same_names
from funcnet.layers.linear.linear import Linear
from funcnet.layers.linear.multilinear import Bilinear

same_names([Linear, Bilinear])
