"""Factors: tensors whose product is a layer's gradient, kept for all examples until ``vmap`` ends.

Under ``vmap``, the kernel that computes a Linear's gradients for each example, and the memory for them, cannot be chosen. A
stand-in for the layer therefore returns the two factors of its gradient, x and gy, which are small. Outside of ``vmap`` one
product computes the gradients of all examples from them, or only their squared norms.
"""

from collections.abc import Callable, Iterator
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet import tree
from funcnet.combinator import has_params
from funcnet.contract import Cache, Grads, Layer, Params
from funcnet.flattening import NODES, Tree
from funcnet.kernels import example_gradients as kernels
from funcnet.kernels.large_memory import empty
from funcnet.layers.conv.conv import Conv1d, Conv2d, Conv3d
from funcnet.layers.embedding.embedding import Embedding
from funcnet.layers.linear.linear import Linear
from funcnet.layers.norm.layer_norm import LayerNorm
from funcnet.precision import in_single, rounded
from funcnet.stand_ins import StandIn


class Factors(NamedTuple):
    """The factors of a layer's gradient, in its place in a tree: the cache of the layer, and gy."""

    layer: Any
    cache: Any
    gy: Tensor


class Factored(StandIn):
    """A layer that returns factors instead of its gradient."""

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        return self.grads(params, cache, gy), self.original.input_grad(params, cache, gy)

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        return Factors(self.original, cache, gy) if has_params(params) else params


def has_factors(layer: Layer) -> bool:
    """Return whether the gradient of a layer's params is a product of factors."""
    return _KNOWN.get(type(layer), lambda layer: False)(layer)


_KNOWN: dict[type, Callable[[Any], bool]] = {
    **dict.fromkeys((Linear, Conv1d, Conv2d, Conv3d), lambda layer: True),
    Embedding: lambda layer: layer.max_norm is None,
    LayerNorm: lambda layer: layer.dim == -1,
}


def replace_factors(values: Tree, f: Callable[[Factors], Any]) -> Tree:
    """Return the tree with ``f(factors)`` in place of factors."""
    if isinstance(values, Factors):
        return f(values)
    if isinstance(values, dict):
        return {key: replace_factors(child, f) for key, child in values.items()}
    return tuple([replace_factors(child, f) for child in values]) if isinstance(values, NODES) else values


def grads_of(factors: Factors) -> Params:
    """Return the gradients of all examples, along a new first axis."""
    layer, _, gy = factors
    if type(layer) is LayerNorm:
        return _affine_grads(*factors)
    if type(layer) is Embedding:
        return {"weight": kernels.table_grads(*_rows(*factors), layer.num_embeddings, layer.padding_row)}
    gw = _weight_grads(*factors).view(len(gy), *layer.param_shapes()["weight"])
    return {"weight": gw, "bias": _bias_grads(layer, gy)} if layer.bias else {"weight": gw}


def squares_of(factors: Factors) -> Tensor:
    """Return the squared norms of these gradients, without computing the gradients if that saves work."""
    layer, cache, gy = factors
    if type(layer) is LayerNorm:
        grads = [in_single(leaf).flatten(1) for leaf in tree.leaves(_affine_grads(*factors))]
        return torch.cat(grads, 1).square().sum(1)
    if type(layer) is Embedding:
        return kernels.table_squares(*_rows(*factors), layer.num_embeddings, layer.padding_row)
    if _uses_convolution(*factors, for_norms=True):
        squares = torch.cat([torch.linalg.vector_norm(part, dim=1) for part in _convolution_grads(*factors)]).square()
        return squares + kernels.bias_squares(_bias_grads(layer, gy)) if layer.bias else squares
    count = _count(*factors)
    pairs = zip(kernels.pieces(cache, count), kernels.pieces(gy, count), strict=True)
    parts = [kernels.squares(*_rows(layer, *pair), bias=layer.bias) for pair in pairs]
    return torch.cat(parts).view(len(gy), -1).sum(1)


def _uses_convolution(layer: Any, x: Tensor, gy: Tensor, *, for_norms: bool = False) -> bool:
    """Return whether the weight gradients of a convolution are computed as another convolution, because that is faster."""
    if type(layer) is Linear or prod(x.shape[1 : x.dim() - layer.axes - 1]) != 1:
        return False
    channels, *sizes = layer.param_shapes()["weight"]
    windows, seen = prod(gy.shape[gy.dim() - layer.axes :]), prod(sizes)
    if for_norms and kernels.has_fewer_products(windows, seen, channels // layer.groups):
        return False
    return kernels.is_for_onednn(gy, x, windows, channels * seen)


def _convolution_grads(layer: Any, x: Tensor, gy: Tensor) -> Iterator[Tensor]:
    """Yield the weight gradients of a convolution, for as many examples at a time as fit in the processor's cache."""
    shape = layer.param_shapes()["weight"]
    x, gy = x.reshape(len(x), *x.shape[-layer.axes - 1 :]), gy.reshape(len(gy), *gy.shape[-layer.axes - 1 :])
    count = kernels.chunk(prod(shape), gy, x)
    for one, g in zip(kernels.pieces(x, count), kernels.pieces(gy, count), strict=True):
        yield kernels.convolution_grads(g, one, shape, layer.groups, *layer.options)


def _count(layer: Any, x: Tensor, gy: Tensor) -> int:
    """Return the number of examples per piece: the windows of a convolution hold more than x."""
    seen = 1 if type(layer) is Linear else prod(layer.param_shapes()["weight"][2:])
    return len(gy) if seen == 1 else kernels.chunk(seen * x[:1].numel(), gy, x)


def _weight_grads(layer: Any, x: Tensor, gy: Tensor) -> Tensor:
    """Return the gradients of a weight, one group after the other."""
    n, count = len(gy), _count(layer, x, gy)
    if _uses_convolution(layer, x, gy):
        return _join(n, _convolution_grads(layer, x, gy))
    if count >= n:
        return kernels.weight_grads(*_rows(layer, x, gy))
    groups, (channels, *sizes) = layer.groups, layer.param_shapes()["weight"]
    out = empty((n * groups, channels // groups, prod(sizes)), gy)
    for i in range(0, n, count):
        kernels.weight_grads(*_rows(layer, x[i : i + count], gy[i : i + count]), out=out[groups * i : groups * (i + count)])
    return out


def _join(n: int, parts: Iterator[Tensor]) -> Tensor:
    """Copy gradients into one tensor as they come, each part from the processor's cache."""
    out, end = torch.empty(0), 0
    for part in parts:
        out = out if end else empty((n, part.shape[1]), part)
        out[end : end + len(part)] = part
        end += len(part)
    return out


def _bias_grads(layer: Any, gy: Tensor) -> Tensor:
    """Return the sums of gy over all axes except examples and channels."""
    if type(layer) is Linear:
        return gy.reshape(len(gy), -1, gy.shape[-1]).sum(1)
    return gy.reshape(len(gy), -1, layer.out_channels, prod(gy.shape[gy.dim() - layer.axes :])).sum((1, 3))


def _affine_grads(layer: LayerNorm, cache: tuple[Tensor, Tensor, Tensor], gy: Tensor) -> Params:
    """Return the gradients of γ and β: Σ gy ⊙ (x - mean) / σ and Σ gy, over the rows of each example."""
    x, mean, r = map(in_single, cache)
    g = in_single(gy)
    grads = {"weight": g * ((x - mean) * r), "bias": g}
    shapes = layer.param_shapes()
    return {name: rounded(grads[name].reshape(len(g), -1, *shapes[name]).sum(1), gy) for name in shapes}


def _rows(layer: Any, x: Tensor, gy: Tensor) -> tuple[Tensor, Tensor]:
    """Return gy (N, t, out) and x (N, t, in), or (N, t) for an Embedding, for t rows of each example.

    For a convolution a row is the content of one window. With groups there are N for each group.
    """
    n = len(x)
    if type(layer) is Embedding:
        return gy.reshape(n, -1, gy.shape[-1]), x.reshape(n, -1)
    if type(layer) is Linear:
        return gy.reshape(n, -1, gy.shape[-1]), x.reshape(n, -1, x.shape[-1])
    axes, groups = layer.axes, layer.groups
    columns = layer.columns(x.reshape(-1, *x.shape[-axes - 1 :]))
    gy = gy.reshape(len(columns), layer.out_channels, -1)
    return _of_groups(gy, n, groups), _of_groups(columns, n, groups)


def _of_groups(columns: Tensor, n: int, groups: int) -> Tensor:
    """Rearrange (N b, groups c, T), with b images for each example, to (N groups, b T, c)."""
    images = columns.view(n, -1, groups, columns.shape[1] // groups, columns.shape[2])
    return images.movedim(1, -2).flatten(-2).flatten(0, 1).mT
