"""Linear maps and distances between two inputs as torch.nn modules."""

from funcnet.interop.torch_nn.exporting.registry import same_names
from funcnet.layers.linear.bilinear import Bilinear
from funcnet.layers.linear.linear import Linear
from funcnet.layers.operands.distances import PairwiseDistance

same_names([Linear, Bilinear, PairwiseDistance])
