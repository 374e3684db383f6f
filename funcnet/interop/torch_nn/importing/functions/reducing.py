"""Sums, means, largest elements and norms along axes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from funcnet.contract import Layer
from funcnet.interop.torch_nn.importing.functions.arguments import Tensor, constant, is_tensor, named, node, refuse_out, whole
from funcnet.interop.torch_nn.importing.functions.choosing import cast, larger, smaller
from funcnet.interop.torch_nn.importing.registry import function
from funcnet.interop.torch_nn.importing.values import Node, UnsupportedError
from funcnet.layers.activation.softmaxes import LogSumExp
from funcnet.layers.norm.standardize import Normalize
from funcnet.layers.operands.distances import CosineSimilarity, PairwiseDistance
from funcnet.layers.operands.extreme_reductions import Max, Min
from funcnet.layers.operands.norms import VectorNorm
from funcnet.layers.operands.ranking import CumSum, GatherElements, MaxWithIndices, MinWithIndices, TopK
from funcnet.layers.operands.reductions import Mean, Prod, Sum
from funcnet.layers.operands.spread_reductions import Std, Var

_PAIR = (None, None)


def axes(dim: Any) -> Any:
    """Return the axes of a reduction as a field: a number, a tuple, or ``None`` for all."""
    dim = constant(dim, "dim")
    return (tuple(dim) or None) if isinstance(dim, (tuple, list)) else dim


def _register(name: str, kind: Callable[[Any, bool], Layer]) -> None:
    @function(*named(name))
    def convert(input: Tensor, *dims: Any, keepdim: bool = False, dtype: Any = None, out: Any = None, **keywords: Any) -> Node:
        refuse_out(out)
        if dims and isinstance(dims[-1], bool):
            dims, keepdim = dims[:-1], dims[-1]
        dim = keywords.pop("dim", keywords.pop("axis", dims[0] if len(dims) == 1 else dims or None))
        return node(kind(axes(dim), keepdim), input if dtype is None else cast(input, dtype))


for _name, _kind in {"sum": Sum, "mean": Mean, "amax": Max, "amin": Min, "prod": Prod}.items():
    _register(_name, _kind)


def _moment(
    kind: Callable[[Any, bool, int], Layer], input: Tensor, dim: Any, unbiased: Any, correction: Any, keepdim: bool
) -> Node:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    n = correction if correction is not None else 1 if unbiased is None else int(unbiased)
    return node(kind(axes(dim), keepdim, whole(n, "correction")), input)


@function(*named("var"))
def _var(input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None) -> Node:
    return _moment(Var, input, dim, unbiased, correction, keepdim)


@function(*named("std"))
def _std(input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None) -> Node:
    return _moment(Std, input, dim, unbiased, correction, keepdim)


@function(torch.var_mean)
def _var_mean(input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None) -> Any:
    return _moment(Var, input, dim, unbiased, correction, keepdim), node(Mean(axes(dim), keepdim), input)


@function(torch.std_mean)
def _std_mean(input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None) -> Any:
    return _moment(Std, input, dim, unbiased, correction, keepdim), node(Mean(axes(dim), keepdim), input)


@function(*named("max"))
def _max_(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None, out: Any = None) -> Node:
    refuse_out(out)
    if other is not None or is_tensor(dim):
        return larger(input, dim if other is None else other)
    return node(Max(), input) if dim is None else node(MaxWithIndices(whole(dim, "dim"), keepdim), input, parts=_PAIR)


@function(*named("min"))
def _min_(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None, out: Any = None) -> Node:
    refuse_out(out)
    if other is not None or is_tensor(dim):
        return smaller(input, dim if other is None else other)
    return node(Min(), input) if dim is None else node(MinWithIndices(whole(dim, "dim"), keepdim), input, parts=_PAIR)


@function(*named("topk"))
def _topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True, *, out: Any = None) -> Node:
    refuse_out(out)
    return node(TopK(whole(dim, "dim"), whole(k, "k"), largest, sorted), input, parts=_PAIR)


@function(*named("cumsum"))
def _cumsum(input: Tensor, dim: int, *, dtype: Any = None, out: Any = None) -> Node:
    refuse_out(out)
    return node(CumSum(whole(dim, "dim")), input if dtype is None else cast(input, dtype))


@function(*named("gather"))
def _gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False, out: Any = None) -> Node:
    refuse_out(out)
    return node(GatherElements(whole(dim, "dim")), input, index)


@function(*named("logsumexp"))
def _logsumexp(input: Tensor, dim: Any, keepdim: bool = False, *, out: Any = None) -> Node:
    refuse_out(out)
    if isinstance(dim, (tuple, list)) and len(dim) != 1:
        raise UnsupportedError("logsumexp must be along one axis")
    return node(LogSumExp(whole(dim[0] if isinstance(dim, (tuple, list)) else dim, "dim"), keepdim), input)


@function(torch.norm, "norm", torch.linalg.vector_norm, torch.functional.norm)
def _norm(input: Tensor, p: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, out: Any = None) -> Node:
    refuse_out(out)
    degree = 2.0 if p in ("fro", None) else float(p)
    return node(VectorNorm(axes(dim), keepdim, degree), input if dtype is None else cast(input, dtype))


@function(torch.linalg.norm)
def _linalg_norm(input: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Node:
    if ord is not None and not isinstance(dim, int):
        raise UnsupportedError("linalg.norm with ord must be along one axis, where it is no norm of matrices")
    return _norm(input, 2 if ord is None else ord, dim, keepdim, dtype=dtype)


@function(nn.functional.normalize)
def _normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None) -> Node:
    refuse_out(out)
    return node(Normalize(p, whole(dim, "dim"), eps), input)


@function(nn.functional.cosine_similarity)
def _cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Node:
    return node(CosineSimilarity(whole(dim, "dim"), eps), x1, x2)


@function(nn.functional.pairwise_distance)
def _pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Node:
    return node(PairwiseDistance(p, eps, keepdim), x1, x2)
