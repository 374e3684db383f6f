"""Activations and other elementwise functions, and softmaxes."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from funcnet.contract import Layer
from funcnet.interop.torch_nn.importing.functions.arguments import Tensor, constant, is_tensor, named, node, refuse_out, whole
from funcnet.interop.torch_nn.importing.functions.arithmetic import rescale
from funcnet.interop.torch_nn.importing.functions.choosing import larger, smaller
from funcnet.interop.torch_nn.importing.registry import function
from funcnet.interop.torch_nn.importing.values import Node, UnsupportedError
from funcnet.layers.activation.bounds import Ceil, Clamp, Floor, Round
from funcnet.layers.activation.elementary import Abs, Cos, Erf, Exp, Sign, Sin, Square
from funcnet.layers.activation.glu import GLU
from funcnet.layers.activation.leaky import LeakyReLU, RReLU
from funcnet.layers.activation.powers import Expm1, Log, Log1p, Reciprocal, Rsqrt, Sqrt
from funcnet.layers.activation.rectifiers import CELU, ELU, SELU, ReLU, ReLU6, Threshold
from funcnet.layers.activation.self_gated import GELU, Hardswish, Mish, SiLU
from funcnet.layers.activation.shrinkages import Hardshrink, Softshrink, Tanhshrink
from funcnet.layers.activation.sigmoids import Hardsigmoid, Hardtanh, LogSigmoid, Sigmoid, Softsign, Tanh
from funcnet.layers.activation.softmaxes import LogSoftmax, Softmax, Softmin
from funcnet.layers.activation.softpluses import Softplus
from funcnet.layers.shape.casting import Cast

_ELEMENTWISE: dict[str, Layer] = {
    "relu": ReLU(),
    "relu6": ReLU6(),
    "selu": SELU(),
    "silu": SiLU(),
    "mish": Mish(),
    "hardswish": Hardswish(),
    "hardsigmoid": Hardsigmoid(),
    "sigmoid": Sigmoid(),
    "expit": Sigmoid(),
    "logsigmoid": LogSigmoid(),
    "tanh": Tanh(),
    "tanhshrink": Tanhshrink(),
    "softsign": Softsign(),
    "abs": Abs(),
    "absolute": Abs(),
    "exp": Exp(),
    "expm1": Expm1(),
    "log": Log(),
    "log1p": Log1p(),
    "sqrt": Sqrt(),
    "rsqrt": Rsqrt(),
    "reciprocal": Reciprocal(),
    "square": Square(),
    "sin": Sin(),
    "cos": Cos(),
    "erf": Erf(),
    "sign": Sign(),
    "floor": Floor(),
    "ceil": Ceil(),
}
"""Functions that correspond to layers without options; layers ignore ``inplace``."""


def _register(name: str, layer: Layer) -> None:
    @function(*named(name))
    def convert(input: Tensor, inplace: bool = False, *, out: Any = None) -> Node:
        refuse_out(out)
        return node(layer, input)


for _name, _layer in _ELEMENTWISE.items():
    _register(_name, _layer)


@function(abs)
def _abs(input: Tensor) -> Node:
    return node(Abs(), input)


@function(*named("round"), round)
def _round_(input: Tensor, *, decimals: int = 0) -> Node:
    return node(Round(), input) if decimals == 0 else rescale(node(Round(), rescale(input, 10.0**decimals)), 10.0**-decimals)


@function(*named("log2"))
def _log2(input: Tensor) -> Node:
    return rescale(node(Log(), input), 1 / math.log(2))


@function(*named("log10"))
def _log10(input: Tensor) -> Node:
    return rescale(node(Log(), input), 1 / math.log(10))


@function(*named("exp2"))
def _exp2(input: Tensor) -> Node:
    return node(Exp(), rescale(input, math.log(2)))


@function(nn.functional.gelu)
def _gelu(input: Tensor, approximate: str = "none") -> Node:
    return node(GELU(approximate), input)


@function(*named("elu"))
def _elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Node:
    return node(ELU(alpha), input)


@function(*named("celu"))
def _celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Node:
    return node(CELU(alpha), input)


@function(*named("leaky_relu"))
def _leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Node:
    return node(LeakyReLU(negative_slope), input)


@function(*named("rrelu"))
def _rrelu(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False, inplace: bool = False) -> Node:
    return node(RReLU(lower, upper) if training else LeakyReLU((lower + upper) / 2), input)


@function(*named("softplus"))
def _softplus(input: Tensor, beta: float = 1, threshold: float = 20) -> Node:
    return node(Softplus(beta, threshold), input)


@function(*named("hardtanh"))
def _hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Node:
    return node(Hardtanh(min_val, max_val), input)


@function(*named("hardshrink"))
def _hardshrink(input: Tensor, lambd: float = 0.5) -> Node:
    return node(Hardshrink(lambd), input)


@function(*named("softshrink"))
def _softshrink(input: Tensor, lambd: float = 0.5) -> Node:
    return node(Softshrink(lambd), input)


@function(*named("threshold"))
def _threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Node:
    return node(Threshold(threshold, value), input)


@function(*named("glu"))
def _glu(input: Tensor, dim: int = -1) -> Node:
    return node(GLU(whole(dim, "dim")), input)


@function(*named("clamp", "clip"))
def _clamp(input: Tensor, min: Any = None, max: Any = None, *, out: Any = None) -> Node:
    refuse_out(out)
    if is_tensor(min) or is_tensor(max):
        low = input if min is None else larger(input, min)
        return low if max is None else smaller(low, max)  # type: ignore[return-value]
    return node(Clamp(constant(min, "min"), constant(max, "max")), input)


@function(*named("clamp_min"))
def _clamp_min(input: Tensor, min: Any) -> Node:
    return _clamp(input, min)


@function(*named("clamp_max"))
def _clamp_max(input: Tensor, max: Any) -> Node:
    return _clamp(input, None, max)


def _along(kind: Callable[[int], Layer], input: Tensor, dim: Any, dtype: Any) -> Node:
    if dim is None:
        raise UnsupportedError("a softmax needs dim: the implicit axis depends on the number of axes")
    return node(kind(whole(dim, "dim")), input if dtype is None else node(Cast(dtype), input))


@function(torch.softmax, "softmax", torch.special.softmax)
def _softmax(input: Tensor, dim: Any = None, dtype: Any = None) -> Node:
    return _along(Softmax, input, dim, dtype)


@function(nn.functional.softmax)
def _functional_softmax(input: Tensor, dim: Any = None, _stacklevel: int = 3, dtype: Any = None) -> Node:
    return _along(Softmax, input, dim, dtype)


@function(torch.log_softmax, "log_softmax", torch.special.log_softmax)
def _log_softmax(input: Tensor, dim: Any = None, dtype: Any = None) -> Node:
    return _along(LogSoftmax, input, dim, dtype)


@function(nn.functional.log_softmax)
def _functional_log_softmax(input: Tensor, dim: Any = None, _stacklevel: int = 3, dtype: Any = None) -> Node:
    return _along(LogSoftmax, input, dim, dtype)


@function(nn.functional.softmin)
def _softmin(input: Tensor, dim: Any = None, _stacklevel: int = 3, dtype: Any = None) -> Node:
    return _along(Softmin, input, dim, dtype)
