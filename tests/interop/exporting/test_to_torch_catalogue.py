"""Every layer of the catalogue as a module: how it is converted, and that it agrees with the layer."""

from collections import defaultdict

import pytest
import torch
from cases import CASES, FAMILIES
from module_comparison import assert_module_agrees
from torch import Tensor

import funcnet as fn
from funcnet.interop.torch_nn import to_torch
from funcnet.interop.torch_nn.autograd.modules import NetModule
from funcnet.interop.torch_nn.exporting.modules import Applied, Container
from funcnet.interop.torch_nn.exporting.registry import MODULES

NATIVE = """
    AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d AdaptiveMaxPool2d AdaptiveMaxPool3d AlphaDropout
    AvgPool1d AvgPool2d AvgPool3d BatchNorm1d BatchNorm2d BatchNorm3d Bilinear CELU ChannelShuffle CircularPad1d CircularPad2d
    CircularPad3d ConstantPad1d ConstantPad2d ConstantPad3d Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d
    Dropout Dropout1d Dropout2d Dropout3d ELU Embedding EmbeddingBag FeatureAlphaDropout Flatten Fold Frozen GELU GLU GRU GRUCell
    GroupNorm Hardshrink Hardsigmoid Hardswish Hardtanh Identity InstanceNorm1d InstanceNorm2d InstanceNorm3d LPPool1d LPPool2d
    LPPool3d LSTM LSTMCell LayerNorm LeakyReLU Linear LocalResponseNorm LogSigmoid LogSoftmax MaxPool1d MaxPool2d MaxPool3d
    MaxUnpool1d MaxUnpool2d MaxUnpool3d Mish PReLU PairwiseDistance PixelShuffle PixelUnshuffle RMSNorm RNN RNNCell RReLU ReLU
    ReLU6 ReflectionPad1d ReflectionPad2d ReflectionPad3d ReplicationPad1d ReplicationPad2d ReplicationPad3d RunningBatchNorm1d
    RunningBatchNorm2d RunningBatchNorm3d RunningInstanceNorm1d RunningInstanceNorm2d RunningInstanceNorm3d SELU Serial
    SerialWithConstants SiLU Sigmoid Softmax Softmax2d Softmin Softplus Softshrink Softsign Tanh Tanhshrink Threshold Tied TransformerStack Unflatten Unfold Upsample
    UpsamplingBilinear2d UpsamplingNearest2d ZeroPad1d ZeroPad2d ZeroPad3d
"""
"""Layers whose modules are torch.nn's or subclasses of them, at least for some options."""

WIRED = "Branching ByMode EncoderDecoder Graph TransformerBlock"
"""Combinators whose modules call the modules of their layers."""

APPLIED = """
    Abs Add Cast Ceil Chunk Clamp Concat ConstantPad ConstantTensor Cos CosineSimilarity CumSum Div Erf Exp Expand Expm1 Flip
    Floor FullMask Gather GatherElements GetItem GlobalAvgPool GlobalMaxPool GlobalSumPool Index JointMask Log Log1p LogSumExp
    MatMul Max MaxWithIndices Maximum Mean Min MinWithIndices Minimum Mul Narrow NoGradient OneHot Permute Pick Pow PowScalar Prod
    Rearrange Reciprocal Reduce Repeat RepeatInterleave Rescale RescaleBySize Reshape Roll Round Rsqrt Select Sign Sin
    SlidingWindow Split Sqrt Square Squeeze Stack Std Sub Sum TopK Transpose TypeAs Unbind Unsqueeze Var View VisibleMask Where
"""
"""Layers that autograd differentiates directly."""

LISTS = {"native": NATIVE, "wired": WIRED, "applied": APPLIED}

LOOSE = {"Hardsigmoid": {"rtol": 2.0**-24}}
"""Tolerances of gradients: ``nn.Hardsigmoid`` multiplies by 1/6 in float32."""


def kind_of(module):
    """Return how a layer was converted."""
    if isinstance(module, (Applied, Container)):
        return "applied" if isinstance(module, Applied) else "wired"
    return "wrapped" if isinstance(module, NetModule) else "native"


def test_the_table_of_converters_has_these_layers():
    """Every other layer is wrapped with ``as_module``."""
    assert sorted(one.__name__ for one in MODULES) == sorted(" ".join(LISTS.values()).split())


def test_layers_become_the_modules_that_the_lists_say():
    """The best conversion among a layer's cases counts; layers in no list are always wrapped."""
    found = defaultdict(set)
    for layer, _, params, *_ in CASES.values():
        found[type(layer)].add(kind_of(to_torch(layer, params)))
    want = {kind: next((how for how, names in LISTS.items() if kind.__name__ in names.split()), "wrapped") for kind in found}
    want = {kind: how if kind in MODULES else "wrapped" for kind, how in want.items()}
    assert {kind: next(how for how in (*LISTS, "wrapped") if how in hows) for kind, hows in found.items()} == want


def in_a_graph(layer, params):
    """Wrap a layer whose params are one unnamed tensor in a graph, as ``part``."""
    net = fn.graph("x", part=(layer,), y=(fn.Identity(), "x"), output=("part", "y"))
    return net, {"part": params, "y": {}}, torch.ones(2)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("family", [one.__name__.rpartition(".")[2] for one in FAMILIES])
def test_modules_agree_with_their_layers(family):
    """Outputs, gradients, statistics, keys, copies and evaluation agree in float64."""
    cases = {name: case for one in FAMILIES if one.__name__.endswith(family) for name, case in one.CASES.items()}
    wrong = {}
    for name, (layer, x, params, *_) in cases.items():
        tried = in_a_graph(layer, params) if isinstance(params, Tensor) else (layer, params, x)
        try:
            assert_module_agrees(*tried, **LOOSE.get(type(layer).__name__, {}))
        except Exception as error:
            wrong[name] = str(error)[:300]
    assert cases
    assert wrong == {}
