"""Linear maps, convolutions, normalizations, embeddings and attention, whose weights are arguments."""

from typing import Any

import torch
from torch import nn

from funcnet.contract import Layer
from funcnet.interop.torch_nn.importing.functions.arguments import Tensor, constant, node, whole
from funcnet.interop.torch_nn.importing.functions.arithmetic import add, mul
from funcnet.interop.torch_nn.importing.registry import function
from funcnet.interop.torch_nn.importing.values import Node, UnsupportedError
from funcnet.layers.activation.rectifiers import ReLU
from funcnet.layers.attention.dot_product import ScaledDotProductAttention
from funcnet.layers.conv.functional_conv import FunctionalConv, FunctionalConvTranspose
from funcnet.layers.embedding.functional_embedding import FunctionalEmbedding
from funcnet.layers.linear.functional_linear import FunctionalLinear
from funcnet.layers.linear.rescaling import Rescale
from funcnet.layers.norm.functional_norms import ChannelAffine, FunctionalBatchNorm, GroupStandardize
from funcnet.layers.norm.layer_norm import LayerNorm, RMSNorm
from funcnet.layers.norm.local_response_norm import LocalResponseNorm
from funcnet.layers.operands.einsum import EinsumOperands

F = nn.functional


def _given(layer: Layer, *tensors: Any) -> Node:
    """Return the node of a layer whose inputs are the tensors other than ``None``."""
    return node(layer, *[one for one in tensors if one is not None])


@function(F.linear)
def _linear(input: Tensor, weight: Tensor, bias: Any = None) -> Node:
    return _given(FunctionalLinear(), input, weight, bias)


def _register_conv(axes: int, *functions: Any) -> None:
    @function(*functions)
    def convert(
        input: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
    ) -> Node:
        layer = FunctionalConv(axes, _sizes(stride), _sizes(padding), _sizes(dilation), groups)
        return _given(layer, input, weight, bias)


def _register_conv_transpose(axes: int, *functions: Any) -> None:
    @function(*functions)
    def convert(
        input: Tensor,
        weight: Tensor,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Node:
        sizes = _sizes(stride), _sizes(padding), _sizes(output_padding)
        return _given(FunctionalConvTranspose(axes, *sizes, groups, _sizes(dilation)), input, weight, bias)


def _sizes(value: Any) -> Any:
    """Return an option of a convolution as a field: lists become tuples, and tuples of one number become the number."""
    value = constant(value, "an option of a convolution")
    value = tuple(value) if isinstance(value, (tuple, list)) else value
    return value[0] if isinstance(value, tuple) and len(value) == 1 else value


_register_conv(1, F.conv1d)
_register_conv(2, F.conv2d)
_register_conv(3, F.conv3d)
_register_conv_transpose(1, F.conv_transpose1d)
_register_conv_transpose(2, F.conv_transpose2d)
_register_conv_transpose(3, F.conv_transpose3d)


def _scaled(x: Node, weight: Any, bias: Any) -> Node:
    """Return x times weight plus bias, over the last axes."""
    x = x if weight is None else mul(x, weight)
    return x if bias is None else add(x, bias)


@function(F.layer_norm, torch.layer_norm)
def _layer_norm(input: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Node:
    shape = tuple(constant(normalized_shape, "normalized_shape"))
    return _scaled(node(LayerNorm(shape, eps, elementwise_affine=False), input), weight, bias)


@function(F.rms_norm, torch.rms_norm)
def _rms_norm(input: Tensor, normalized_shape: Any, weight: Any = None, eps: Any = None) -> Node:
    shape = tuple(constant(normalized_shape, "normalized_shape"))
    return _scaled(node(RMSNorm(shape, eps, elementwise_affine=False), input), weight, None)


def _affine(x: Node, weight: Any, bias: Any) -> Node:
    if weight is None:
        if bias is not None:
            raise UnsupportedError("a bias requires a weight")
        return x
    return _given(ChannelAffine(), x, weight, bias)


@function(F.group_norm, torch.group_norm)
def _group_norm(input: Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Node:
    return _affine(node(GroupStandardize(whole(num_groups, "num_groups"), eps), input), weight, bias)


@function(F.instance_norm)
def _instance_norm(
    input: Tensor,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Node:
    if not use_input_stats:
        return _batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    if running_mean is not None:
        raise UnsupportedError("running statistics of a function would not be updated; use a module, nn.InstanceNorm2d")
    return _affine(node(GroupStandardize(None, eps), input), weight, bias)


@function(F.batch_norm)
def _batch_norm(
    input: Tensor,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Node:
    if training:
        raise UnsupportedError("running statistics of F.batch_norm would not be updated; use a module, nn.BatchNorm2d")
    if bias is not None and weight is None:
        raise UnsupportedError("a bias requires a weight")
    return _given(FunctionalBatchNorm(eps), input, running_mean, running_var, weight, bias)


@function(F.local_response_norm)
def _local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Node:
    return node(LocalResponseNorm(size, alpha, beta, k), input)


@function(F.embedding)
def _embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Node:
    if max_norm is not None or scale_grad_by_freq:
        raise UnsupportedError("F.embedding with max_norm writes to its weight, and scale_grad_by_freq has no layer here")
    return node(FunctionalEmbedding(padding_idx), input, weight)


@function(F.prelu, torch.prelu, "prelu")
def _prelu(input: Tensor, weight: Tensor) -> Node:
    negative = node(Rescale(-1.0), node(ReLU(), node(Rescale(-1.0), input)))
    return add(node(ReLU(), input), node(ChannelAffine(), negative, weight))  # type: ignore[no-any-return]


@function(F.bilinear)
def _bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Any = None) -> Node:
    y = node(EinsumOperands("...i,oij,...j->...o"), input1, weight, input2)
    return y if bias is None else add(y, bias)


@function(torch.einsum, torch.functional.einsum)
def _einsum(equation: str, *operands: Any) -> Node:
    tensors = operands[0] if len(operands) == 1 and isinstance(operands[0], (tuple, list)) else operands
    try:
        layer = EinsumOperands(equation.replace(" ", ""))
    except ValueError as error:
        raise UnsupportedError(f"einsum({equation!r}): {error}") from None
    if len(tensors) == 1:
        raise UnsupportedError("einsum of one tensor has no layer; use permute or sum")
    return node(layer, *tensors)


@function(F.scaled_dot_product_attention)
def _scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Node:
    layer = ScaledDotProductAttention(is_causal, scale, constant(dropout_p, "dropout_p"), enable_gqa)
    return _given(layer, query, key, value, attn_mask)
