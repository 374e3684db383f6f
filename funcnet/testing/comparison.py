"""Helpers of all checks: run a layer on inputs in one dtype, and compare trees leaf by leaf.

Every ``check`` raises ``LawError``, an ``AssertionError`` with the broken rule, the path of the leaf, and the layer.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from funcnet import flattening, random, tree
from funcnet.contract import Grads, Layer, Params
from funcnet.errors import describe, value_error
from funcnet.flattening import Tree
from funcnet.random.keys import Key

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

ROUNDINGS = 8
"""By how many ulps of the largest number the results of two kernels, or of two orders of summation, can differ."""

MARGIN = 4
"""Rounding within a layer can move a result this many times as far as rounding of its arguments does."""

# In float64 rounding in a deep net is far smaller than any mistake, so its size is not measured.
_TOLERANCE = {dtype: 1e-10 if dtype is torch.float64 else ROUNDINGS * torch.finfo(dtype).eps for dtype in DTYPES}

_SHOWN = 200


def shown(layer: object) -> str:
    """Return the repr, shortened if it is long, like that of a large net."""
    words = repr(layer)
    return words if len(words) <= _SHOWN else f"{words[: _SHOWN - 3]}..."


class LawError(AssertionError):
    """A rule that a layer breaks; the message starts with the rule and ends with the layer."""

    def __init__(self, rule: str, layer: object) -> None:
        super().__init__(f"{rule}; in {shown(layer)}")
        self.rule = rule


def require_dtypes(who: str, dtypes: Any) -> None:
    """Raise ``ValueError`` for anything but a tuple of floating dtypes."""
    if not isinstance(dtypes, tuple) or not all(isinstance(one, torch.dtype) and one.is_floating_point for one in dtypes):
        raise value_error(who, "dtypes must be a tuple of floating dtypes", repr(dtypes))


def run(layer: Layer, params: Params, x: Any, rng: Key | int) -> tuple[Any, Any]:
    """Apply a layer, with the key if it is stochastic."""
    apply: Callable[..., tuple[Any, Any]] = layer.apply
    return apply(params, x, rng) if layer.stochastic else apply(params, x)


def prepared(
    layer: Layer, x: Any, params: Params | None, rng: Key | int, dtype: torch.dtype = torch.float64
) -> tuple[Params, Any]:
    """Return params (fresh ones for ``None``) and x, both in the dtype."""
    return tree.cast(layer.init(rng) if params is None else params, dtype), tree.cast(x, dtype)


def noise_like(values: Tree, rng: Key | int) -> Tree:
    """Sample a normal number for each floating element; return ``None`` for leaves that are not floating."""
    seeds = iter(range(len(tree.leaves(values))))

    def draw(leaf: Tensor) -> Tensor | None:
        drawn = random.normal(random.fold_in(rng, next(seeds)), tuple(leaf.shape), dtype=torch.float64)
        return drawn.to(leaf) if leaf.is_floating_point() else None

    return tree.map(draw, values)


def named(pair: tuple[Grads, Any]) -> dict[str, Tree]:
    """Combine params and x, or their gradients, into one tree whose paths start with ``params`` or ``x``."""
    params, x = pair
    return {"params": params, "x": x}


def everything(layer: Layer, params: Params, x: Any, gy: Any, rng: Key | int) -> dict[str, Tree]:
    """Return the results of all methods: both forms of the output, both forms of each gradient, and the statistics."""
    y, cache = run(layer, params, x, rng)
    return {
        "y": y,
        "layer(params, x)": layer(params, x, rng) if layer.stochastic else layer(params, x),
        **backward(layer, params, cache, gy),
    }


def backward(layer: Layer, params: Params, cache: Any, gy: Any) -> dict[str, Tree]:
    """Return the results of all methods that take a cache: both forms of each gradient, and the statistics."""
    return {
        **named(layer.vjp(params, cache, gy)),
        "grads": layer.grads(params, cache, gy),
        "input_grad": layer.input_grad(params, cache, gy),
        "update_stats": layer.update_stats(params, cache),
    }


def require(holds: bool | Tensor, layer: Layer, rule: str) -> None:
    """Raise ``LawError`` with the rule unless it holds."""
    if not holds:
        raise LawError(rule, layer)


def require_structure(layer: Layer, rule: str, like: Tree, got: Tree) -> None:
    """Require that two trees have the same structure; the message says where they differ."""
    try:
        flattening.flatten_together(like, got)
    except ValueError as error:
        raise LawError(f"{rule}; {error}", layer) from None


def _pairs(layer: Layer, rule: str, got: Tree, want: Tree) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield the path and both leaves; the trees must agree in structure and in the places of ``None``."""
    require_structure(layer, rule, want, got)
    ours, theirs = tree.names(got), tree.names(want)
    for path in sorted(ours.keys() ^ theirs.keys()):
        words = "is None and should be a tensor" if path in theirs else "is a tensor and should be None"
        require(False, layer, f"{rule}; {path} {words}")
    yield from ((path, ours[path], theirs[path]) for path in theirs)


def check_mirrored(layer: Layer, values: Tree, gradients: Tree) -> None:
    """Require that each gradient has the path and shape of its leaf, or is ``None``, and that integers have ``None``."""
    require_structure(layer, "the gradients must mirror params and x", values, gradients)
    leaves = tree.names(values)
    for path, g in tree.names(gradients).items():
        floating = path in leaves and leaves[path].is_floating_point()
        require(floating, layer, f"the gradient of {path}, which is not floating, must be None, got {describe(g)}")
        shape = tuple(leaves[path].shape)
        require(g.shape == shape, layer, f"the gradient of {path} must have its shape {shape}, got {tuple(g.shape)}")


def check_kept(layer: Layer, rule: str, got: Tree, want: Tree) -> None:
    """Require that leaves other than ``None`` have the shapes, dtypes and devices of ``want``."""
    leaves = tree.names(want)
    for path, leaf in tree.names(got).items():
        ours, theirs = ((tuple(one.shape), one.dtype, str(one.device)) for one in (leaf, leaves[path]))
        require(ours == theirs, layer, f"{rule} {path} must be of {theirs}, got {ours}")


Moves = Callable[[], dict[str, Tensor]]


def check_equal(layer: Layer, rule: str, got: Tree, want: Tree, *, scale: Tree, moves: Moves | None = None) -> None:
    """Require that two trees agree up to rounding of the largest number in the leaf or in ``scale`` (sums cancel).

    ``moves`` returns how far rounding of the arguments moves each element. Below float64, this is allowed in addition.
    """
    floor = max([largest(leaf) for leaf in tree.leaves(scale)], default=0.0)
    moves = moves and functools.cache(moves)
    for path, ours, theirs in _pairs(layer, rule, got, want):
        same = ours.shape == theirs.shape and ours.dtype == theirs.dtype
        require(same, layer, f"{rule}; {path} is {describe(ours)} and should be {describe(theirs)}")
        atol = _TOLERANCE.get(theirs.dtype, 0.0) * max(floor, largest(theirs))
        close = torch.isclose(ours, theirs, rtol=0.0, atol=atol, equal_nan=True)
        if moves is not None and theirs.dtype is not torch.float64 and not close.all():
            close |= (ours.double() - theirs.double()).abs() <= atol + MARGIN * moves()[path]
        gap = float((ours.double() - theirs.double()).abs().max()) if ours.numel() else 0.0
        require(close.all(), layer, f"{rule}; {path} differs by {gap:.3g} at most, where {atol:.3g} is allowed")


def check_same_bits(layer: Layer, rule: str, got: Tree, want: Tree) -> None:
    """Require that two trees are equal bit by bit, in the entries of ``got``."""
    for path, ours, theirs in _pairs(layer, rule, got, {key: want[key] for key in got}):
        require(same_bits(ours, theirs), layer, f"{rule}, but {path} differs")


def largest(leaf: Any) -> float:
    """Return the largest finite magnitude; 0 for anything but a floating tensor."""
    if not isinstance(leaf, Tensor) or not leaf.is_floating_point() or not leaf.numel():
        return 0.0
    return float(leaf.nan_to_num(0.0, 0.0, 0.0).abs().max())


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are equal in shape, dtype and every bit, where NaN equals NaN."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(*(leaf.detach().contiguous().reshape(-1).view(torch.uint8) for leaf in (one, other)))
