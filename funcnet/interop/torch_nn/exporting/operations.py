"""Layers that consist of torch functions, such as sums and changes of shape: autograd differentiates the layer itself."""

from typing import Any

from torch import nn

from funcnet.contract import Params
from funcnet.errors import describe, value_error
from funcnet.interop.torch_nn.exporting.modules import Applied, Detached
from funcnet.interop.torch_nn.exporting.registry import native
from funcnet.layers.activation.bounds import Ceil, Clamp, Floor, Round
from funcnet.layers.activation.elementary import Abs, Cos, Erf, Exp, Sign, Sin, Square
from funcnet.layers.activation.powers import Expm1, Log, Log1p, PowScalar, Reciprocal, Rsqrt, Sqrt
from funcnet.layers.activation.softmaxes import LogSumExp
from funcnet.layers.attention.mask_layers import FullMask, JointMask, VisibleMask
from funcnet.layers.linear.rescaling import Rescale
from funcnet.layers.operands.arithmetic import Add, Div, Mul, Pow, Sub
from funcnet.layers.operands.choices import Maximum, Minimum, TypeAs, Where
from funcnet.layers.operands.distances import CosineSimilarity
from funcnet.layers.operands.extreme_reductions import Max, Min
from funcnet.layers.operands.matmul import MatMul
from funcnet.layers.operands.picking import Concat, Pick, Stack, Unbind
from funcnet.layers.operands.ranking import CumSum, GatherElements, MaxWithIndices, MinWithIndices, TopK
from funcnet.layers.operands.reductions import Mean, Prod, Sum
from funcnet.layers.operands.spread_reductions import Std, Var
from funcnet.layers.pooling.global_pool import GlobalAvgPool, GlobalMaxPool, GlobalSumPool
from funcnet.layers.shape.axes import Permute, Squeeze, Transpose, Unsqueeze
from funcnet.layers.shape.casting import Cast
from funcnet.layers.shape.indexing import Chunk, Index, OneHot, Split
from funcnet.layers.shape.moving import Flip, RepeatInterleave, Roll, SlidingWindow
from funcnet.layers.shape.pattern_reduction import Reduce, Repeat
from funcnet.layers.shape.rearrangement import Rearrange
from funcnet.layers.shape.reshaping import Reshape
from funcnet.layers.shape.selecting import Gather, Select
from funcnet.layers.shape.sized import ConstantPad, Expand, RescaleBySize, View
from funcnet.layers.shape.sized_indexing import GetItem, Narrow
from funcnet.layers.shape.sources import ConstantTensor
from funcnet.layers.shape.without_gradient import NoGradient

OPERATIONS = (
    *(Add, Sub, Mul, Div, MatMul, Pow, Concat, Sum, Mean, Prod, Max, Min, Var, Std),
    *(Reshape, Permute, Transpose, Squeeze, Unsqueeze, Index, Split, Chunk, Select, Gather, OneHot, Cast),
    *(Rearrange, Reduce, Repeat, GlobalAvgPool, GlobalMaxPool, GlobalSumPool),
    *(Round, Floor, Ceil, Clamp, Reciprocal, PowScalar, Log, Expm1, Rsqrt, Sqrt, Log1p),
    *(Maximum, Minimum, Where, TypeAs, Stack, Pick, Unbind, GatherElements, TopK, CumSum, MaxWithIndices, MinWithIndices),
    *(Flip, Roll, RepeatInterleave, SlidingWindow, Expand, RescaleBySize, View, ConstantPad, GetItem, Narrow, ConstantTensor),
    *(VisibleMask, JointMask, FullMask),
    *(Sin, Cos, Exp, Erf, Abs, Sign, Square, LogSumExp, Rescale, CosineSimilarity),
)
"""The layers that are stored and called by their modules."""


@native(*OPERATIONS)
def _operation(layer: Any, params: Params) -> nn.Module:
    if params != {}:
        raise value_error(layer, "params must be an empty dict", describe(params))
    return Applied(layer)


@native(NoGradient)
def _without_gradient(layer: NoGradient, params: Params) -> nn.Module:
    _operation(layer, params)
    return Detached(layer)
