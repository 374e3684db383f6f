"""Functions of all members of an ensemble at once, with ``torch.func.vmap`` over the first axes of trees."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcnet import flattening, tree
from funcnet.combinators.stacking import with_tensors
from funcnet.errors import describe, value_error
from funcnet.flattening import Tree


def mapped(n: int, f: Callable[..., Any], *arguments: Tree, shares: tuple[int, ...] = ()) -> Any:
    """Call f for all n members at once, with ``vmap`` over the first axes of all arguments except shared arguments.

    ``vmap`` takes only tensors, so all other leaves (shapes in caches, absent gradients) bypass it.
    """
    columns = [flattening.flatten_together(argument)[0] for argument in arguments]
    axes = [None if i in shares else 0 for i, column in enumerate(columns) for leaf in column if isinstance(leaf, Tensor)]
    tensors = [leaf for column in columns for leaf in column if isinstance(leaf, Tensor)]
    require_members(n, [leaf for leaf, axis in zip(tensors, axes, strict=True) if axis == 0])
    _require_one_kind(tensors)
    results: list[Tree] = []

    def on_tensors(members: list[Tensor]) -> list[Tensor]:
        left = iter(members[1:])
        results.append(f(*[with_tensors(argument, left) for argument in arguments]))
        return [leaf for leaf in flattening.flatten_together(results[0])[0] if isinstance(leaf, Tensor)]

    axis = torch.empty(n, 0)  # an axis to map over if all arguments are shared
    out = torch.func.vmap(on_tensors, in_dims=([0, *axes],))([axis, *tensors])
    return with_tensors(results[0], iter(out))


def _require_one_kind(tensors: list[Tensor]) -> None:
    """Raise for sparse tensors, and for a mix of meta and other tensors: ``vmap`` accepts them where kernels do not."""
    odd = [leaf for leaf in tensors if leaf.layout is not torch.strided]
    if odd or len({leaf.is_meta for leaf in tensors if leaf.dim()}) > 1:
        got = describe(odd[0]) if odd else "some on the meta device"
        raise value_error("ensemble", "all tensors must be dense, and on one device", got)


def require_members(n: int, values: Tree) -> None:
    """Raise unless the first axis of every tensor is n."""
    sizes = [tuple(leaf.shape[:1]) for leaf in tree.leaves(values) if isinstance(leaf, Tensor)]  # symbolic ones do not hash
    if any([size != (n,) for size in sizes]):  # noqa: C419
        got = ", ".join(sorted({str(*size) if size else "none" for size in sizes}))
        raise value_error("ensemble", f"the first axis of every tensor that is not shared must be n={n}", f"sizes {got}")
