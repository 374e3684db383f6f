"""Scopes of leaves: how much of a leaf an optimizer needs, and its choices by path and shape, made once from whole params.

    "elements"    the step of an element depends only on its own gradient and moments: the leaf can be cut anywhere
    "leaves"      the step depends on the whole leaf: a worker has all of the leaf or nothing

An optimizer's choices by shape, such as a mask, must not depend on the cuts of leaves.
"""

from typing import Any

from funcnet import tree
from funcnet.contract import Params
from funcnet.distributed.over_workers import is_by_place, is_over_all
from funcnet.flattening import Tree, flatten_together, unflatten
from funcnet.optim.base import GradientTransform, Optimizer
from funcnet.optim.chaining import Chain
from funcnet.optim.groups import ByPath
from funcnet.optim.masks import flags_of
from funcnet.optim.transforms.decay import AddDecayedWeights
from funcnet.paths import named_leaves

ELEMENTS, LEAVES = "elements", "leaves"


def leaf_scopes(part: Any, params: Params) -> list[str]:
    """Return the scope, ``"elements"`` or ``"leaves"``, of each leaf of params, including ``None``, for an optimizer."""
    if isinstance(part, ByPath):
        return _of_groups(part, params)
    inner = [*part.transforms, part.optimizer] if isinstance(part, Chain) else [getattr(part, "optimizer", None)]
    found = [leaf_scopes(one, params) for one in inner if one is not None]
    found.append([_own_scope(part)] * len(flatten_together(params)[0]))
    return [LEAVES if LEAVES in row else ELEMENTS for row in zip(*found, strict=True)]


def _of_groups(part: ByPath, params: Params) -> list[str]:
    chosen, found = part.chosen(params), [ELEMENTS] * len(flatten_together(params)[0])
    for i, (_, opt) in enumerate(part.groups):
        own = leaf_scopes(opt, _group(params, chosen, i)) if opt is not None else found
        found = [scope if j == i else old for scope, old, j in zip(own, found, chosen, strict=True)]
    return found


def _group(params: Params, chosen: list[int | None], i: int) -> Params:
    leaves = zip(flatten_together(params)[0], chosen, strict=True)
    made: Params = unflatten(params, iter([leaf if j == i else None for leaf, j in leaves]))
    return made


def _own_scope(part: Optimizer | GradientTransform) -> str:
    """Return the scope of a part itself, without its inner parts."""
    if isinstance(part, Chain) or is_over_all(part) or isinstance(part, AddDecayedWeights):
        return ELEMENTS
    if is_by_place(part):
        return LEAVES  # noise is sampled for a whole leaf
    return ELEMENTS if hasattr(part, "optimizer") else part.acts_on


def on_whole(part: Any, params: Params) -> Any:
    """Return the optimizer with its choices fixed for the given params: masks and groups are replaced with lists of paths."""
    if isinstance(part, tuple):
        return tuple([on_whole(one, params) for one in part])
    if isinstance(part, ByPath):
        return _with_paths(part, params)
    if isinstance(part, AddDecayedWeights):
        return part.replace(mask=unflatten(params, iter(flags_of(part, part.mask, params))))
    if isinstance(part, Chain):
        return part.replace(transforms=on_whole(part.transforms, params), optimizer=on_whole(part.optimizer, params))
    return part.replace(optimizer=on_whole(part.optimizer, params)) if hasattr(part, "optimizer") else part


class Paths:
    """A chooser for ``by_path`` that selects the leaves at some paths."""

    def __init__(self, name: str, paths: frozenset[str]) -> None:
        self.__name__, self.paths = name, paths

    def __call__(self, path: str, leaf: Any) -> bool:
        return path in self.paths


def _with_paths(part: ByPath, params: Params) -> ByPath:
    chosen, groups = part.chosen(params), []
    paths = [path for path, _ in named_leaves("", params)]
    for i, (chooser, opt) in enumerate(part.groups):
        name = chooser if isinstance(chooser, str) else getattr(chooser, "__name__", repr(chooser))
        taken = frozenset([path for path, j in zip(paths, chosen, strict=True) if j == i])
        groups.append((Paths(name, taken), opt and on_whole(opt, _group(params, chosen, i))))
    return part.replace(groups=tuple(groups))


def as_meta(params: Params) -> Tree:
    """Return params on the meta device: shapes and dtypes without values."""
    return tree.map(lambda p: p.to("meta"), params)
