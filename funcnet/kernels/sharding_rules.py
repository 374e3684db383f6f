"""Sharding rules: the axes along which DTensors may be sharded, for the kernels that torch has no rule for.

Without a rule torch rejects a DTensor, even a replicated one. A rule lists combinations of placements of results and arguments,
for one axis of a mesh; arguments with other placements are redistributed first.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Rule = list[tuple[list[Any], list[Any]]]

# Elementwise: the gradient and x of the same shape, and numbers.
_ELEMENTWISE = ("hardtanh_backward", "hardswish_backward", "hardsigmoid_backward", "hardshrink_backward", "softshrink_backward")

# Along the first axis: the batch, or the channels of one example.
_BY_ROWS = (
    *[f"{kind}_pad{n}d{end}" for kind in ("reflection", "replication") for n in (1, 2, 3) for end in ("", "_backward")],
    *[f"avg_pool{n}d{end}" for n in (2, 3) for end in ("", "_backward")],
    *[f"max_pool{n}d_with_indices{end}" for n in (2, 3) for end in ("", "_backward")],
    *[f"_adaptive_avg_pool{n}d{end}" for n in (2, 3) for end in ("", "_backward")],
    *[f"adaptive_max_pool{n}d{end}" for n in (2, 3) for end in ("", "_backward")],
)

_WHOLE = ("im2col", "col2im", "unfold", "_prelu_kernel_backward", "scatter_reduce.two")

# Along examples and heads: the axes 0 and 1 of queries, keys and values.
_ATTENTION = (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention_for_cpu_backward",
)  # fmt: skip


@functools.cache
def register_sharding_rules() -> None:
    """Register rules with torch for the kernels that lack one."""
    for names, axes in ((_ELEMENTWISE, _all_axes), (_BY_ROWS, _first_axis), (_WHOLE, _no_axis)):
        for name in names:
            _register(name, functools.partial(_rule, name, axes))
    for name in _ATTENTION:
        _register(name, functools.partial(_attention_rule, name))


def is_dtensor(x: Any) -> bool:
    """Return whether a tensor is a DTensor, without importing DTensor."""
    return type(x) is not Tensor and hasattr(x, "placements")


def summed(x: Any) -> Any:
    """Return a DTensor with its partial placements reduced; any other tensor unchanged."""
    if not any(placement.is_partial() for placement in getattr(x, "placements", ())):
        return x
    from torch.distributed.tensor import Replicate

    return x.redistribute(placements=[Replicate() if one.is_partial() else one for one in x.placements])


def _operator(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


def _register(name: str, rule: Callable[..., Rule]) -> None:
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor.experimental import register_sharding

    op, known = _operator(name), DTensor._op_dispatcher.sharding_propagator
    tables = ("op_strategy_funcs", "op_single_dim_strategy_funcs", "op_to_rules")
    if not any(op in getattr(known, table, ()) for table in tables):
        register_sharding(op)(rule)


def _all_axes(x: Any) -> Sequence[int]:
    return range(x.ndim)


def _first_axis(x: Any) -> Sequence[int]:
    return (0,) if x.ndim > 1 else ()


def _no_axis(x: Any) -> Sequence[int]:
    return ()


def _rule(name: str, axes: Callable[[Any], Sequence[int]], *args: Any, **options: Any) -> Rule:
    """Return the placements of an operator whose tensors are all sharded along the same axis, or all replicated."""
    from torch.distributed.tensor import Replicate, Shard

    tensors = [one for one in (*args, *options.values()) if hasattr(one, "ndim")]
    results = len(_operator(name)._schema.returns)
    ways = [Replicate(), *[Shard(axis) for axis in axes(tensors[0])]]
    return [([way] * results, [way] * len(tensors)) for way in ways]


def _attention_rule(name: str, *args: Any, attn_mask: Any = None, **options: Any) -> Rule:
    """Return the placements of attention; a mask with a single entry for all examples or heads is replicated."""
    from torch.distributed.tensor import Replicate, Shard

    count, results = len([one for one in args if hasattr(one, "ndim")]), len(_operator(name)._schema.returns)
    found: Rule = []
    for axis in (None, 0, 1):
        way = Replicate() if axis is None else Shard(axis)
        is_common = axis is not None and attn_mask is not None and attn_mask.shape[axis] == 1
        mask = [] if attn_mask is None else [Replicate() if is_common else way]
        found.append(([way] * results, [way] * count + mask))
    return found
