"""Arithmetic of whole trees, and what is counted or told of all their numbers."""

from builtins import map as each
from typing import Any

import torch
from torch import Tensor

from funcnet.errors import is_number, value_error
from funcnet.flattening import Tree, differences, flatten_together, unflatten
from funcnet.precision import in_single
from funcnet.statistics import Description, statistics_of
from funcnet.tree.mapping import leaves, map, names, same_leaf  # noqa: A004 (the field's word for it)
from funcnet.tree.refusals import of_tensors


@of_tensors(2)
def dot(a: Tree, b: Tree) -> Tensor:
    """Sum the products of corresponding elements of a and b, as a 0-d tensor; of half precision the sum is float32."""
    terms = leaves(map(lambda x, y: (in_single(x) * in_single(y)).sum(), a, b))
    return _whole(sum(terms[1:], terms[0])) if terms else torch.zeros(())


@of_tensors(2)
def add(a: Tree, b: Tree) -> Tree:
    """Add two trees, a and b; where a leaf is absent from one, the other's stands."""
    one, other = flatten_together(a, b)
    return unflatten(a, iter([y if x is None else x if y is None else x + y for x, y in zip(one, other, strict=True)]))


@of_tensors(2)
def sub(a: Tree, b: Tree) -> Tree:
    """Subtract the tree b from a; a leaf that is absent from one counts as zero."""
    rows = zip(*flatten_together(a, b), strict=True)
    return unflatten(a, iter([_difference(x, y) for x, y in rows]))


def _difference(x: Any, y: Any) -> Any:
    if x is None or y is None:
        return x if y is None else -y
    return x - y


@of_tensors(2)
def mul(a: Tree, b: Tree) -> Tree:
    """Multiply two trees, a and b, leaf by leaf; a leaf that is absent from one is absent from the product."""
    return map(lambda x, y: x * y, a, b)


@of_tensors(1, "factor must be a number, or a tensor that fits the leaves")
def scale(tree: Tree, factor: float | Tensor) -> Tree:
    """Multiply every leaf of a tree by the number ``factor``."""
    return map(lambda leaf: leaf * factor, tree)


@of_tensors(2, "weight must be a number, or a tensor that fits the leaves")
def lerp(a: Tree, b: Tree, weight: float | Tensor) -> Tree:
    """Interpolate between two trees: a + ``weight`` (b - a), with the exact ends at 0 and 1.

    ``lerp(average, params, 1 - decay)`` is a step of an exponential moving average.
    """
    return map(lambda x, y: torch.lerp(x, y, weight), a, b)


@of_tensors(1, "low and high must be numbers, or tensors that fit the leaves, or None")
def clip(tree: Tree, low: float | Tensor | None = None, high: float | Tensor | None = None) -> Tree:
    """Clamp every element of a tree to [``low``, ``high``], numbers or tensors that fit the leaves; ``None`` is no bound.

    Raises   ``ValueError`` for two numbers of which ``low`` is above ``high``.
    """
    if low is None or high is None:
        return tree if low is high else map(lambda leaf: torch.clamp(leaf, low, high), tree)  # type: ignore[arg-type]
    if isinstance(low, Tensor) or isinstance(high, Tensor):  # torch takes no tensor together with a number
        return map(lambda leaf: torch.clamp(torch.clamp(leaf, min=low), max=high), tree)
    if low > high:
        raise value_error("clip", "low must be at most high", f"low={low!r}, high={high!r}")
    return map(lambda leaf: torch.clamp(leaf, low, high), tree)


@of_tensors(3, "condition must be a bool tensor that fits the leaves, or a tree of them")
def where(condition: Tree, a: Tree, b: Tree) -> Tree:
    """Take the elements of a where ``condition`` is ``True``, and those of b elsewhere.

    ``condition`` is a tree of bool tensors, or one bool tensor for all leaves: ``where(all_finite(grads), new, old)``.
    """
    if isinstance(condition, Tensor) and not isinstance(a, Tensor):
        return map(lambda x, y: torch.where(condition, x, y), a, b)
    return map(torch.where, condition, a, b)


@of_tensors()
def norm(tree: Tree) -> Tensor:
    """Return the norm of all leaves of a tree together, √Σ x², in float64, so that no float32 overflows in the squares."""
    wide = [leaf if leaf.is_floating_point() else leaf.double() for leaf in leaves(tree)]
    parts = [torch.linalg.vector_norm(leaf.contiguous(), dtype=torch.float64) for leaf in wide]
    return _whole(torch.linalg.vector_norm(torch.stack(parts))) if parts else torch.zeros((), dtype=torch.float64)


@of_tensors()
def zeros_like(tree: Tree) -> Tree:
    """Return a tree of zeros with the shapes, dtypes and devices of ``tree``."""
    return map(torch.zeros_like, tree)


@of_tensors(1, "dtype must be a torch.dtype")
def cast(tree: Tree, dtype: torch.dtype) -> Tree:
    """Convert the floating leaves of a tree to ``dtype``; integers (labels, counters) stay."""
    return map(lambda leaf: leaf.to(dtype) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf, tree)


@of_tensors(1, "device must be a torch.device, or the name of one")
def to(tree: Tree, device: torch.device | str) -> Tree:
    """Move every tensor of a tree to a ``device``."""
    return map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, tree)


def _tensors(tree: Tree) -> list[Tensor]:
    return [leaf for leaf in leaves(tree) if isinstance(leaf, Tensor)]


def size(tree: Tree) -> int:
    """Count the elements of all tensors in a tree."""
    return sum(leaf.numel() for leaf in _tensors(tree))


def nbytes(tree: Tree) -> int:
    """Count the bytes of all tensors in a tree; a tensor in several places counts in each, and of a DTensor only what is here."""
    return sum(leaf.numel() * leaf.element_size() for leaf in map(_held, _tensors(tree)))


def _held(leaf: Tensor) -> Tensor:
    """Return what this process holds of a tensor: of a DTensor its piece."""
    piece: Tensor = leaf if type(leaf) is Tensor else getattr(leaf, "_local_tensor", leaf)
    return piece


def all_finite(tree: Tree) -> Tensor:
    """Tell, as a 0-d bool tensor, whether no leaf of a tree holds a NaN or an infinity."""
    parts = [torch.isfinite(leaf).all() for leaf in _tensors(tree)]
    return _whole(torch.stack(parts).all()) if parts else torch.tensor(True)


def _whole(x: Tensor) -> Tensor:
    """Return what all workers have found together if the leaves were DTensors, whose numbers are those of this worker only."""
    return x if type(x) is Tensor else getattr(x, "full_tensor", lambda: x)()


@of_tensors(2)
def equal(a: Tree, b: Tree) -> bool:
    """Tell whether two trees, a and b, have the same structure, absent leaves, dtypes, shapes and values; NaN equals nothing."""
    return not any(True for _ in differences("", a, b)) and all(each(same_leaf, *flatten_together(a, b)))


@of_tensors(2)
def allclose(a: Tree, b: Tree, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Tell whether two trees, a and b, have the same structure and shapes, and |a - b| ≤ ``atol`` + ``rtol`` |b| everywhere.

    Leaves of two dtypes are compared in their common one. ``equal_nan`` lets NaN equal NaN. Leaves that are no tensors must be
    equal.

    Raises   ``ValueError`` for tolerances that are no finite numbers of at least 0, and an ``equal_nan`` that is no bool.
    """
    if not all(is_number(one) and one >= 0 for one in (rtol, atol)):
        raise value_error("allclose", "rtol and atol must be finite numbers of at least 0", f"rtol={rtol!r}, atol={atol!r}")
    if not isinstance(equal_nan, bool):
        raise value_error("allclose", "equal_nan must be True or False", repr(equal_nan))
    if any(True for _ in differences("", a, b)):
        return False
    return all(_close(x, y, float(rtol), float(atol), equal_nan) for x, y in zip(*flatten_together(a, b), strict=True))


def _close(x: Any, y: Any, rtol: float, atol: float, equal_nan: bool) -> bool:
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        return type(x) is type(y) and bool(x == y)
    common = torch.promote_types(x.dtype, y.dtype)
    return x.shape == y.shape and torch.allclose(x.to(common), y.to(common), rtol, atol, equal_nan)


@of_tensors()
def describe(tree: Tree) -> Description:
    """Describe the numbers of each leaf of a tree: mean, standard deviation, least and largest, and how many are NaN or 0.

    The result maps paths to statistics, and prints as a table. The standard deviation is that of ``torch.std``, and 0 of a
    single number. NaNs count in ``nans`` only.

    >>> describe({"w": torch.tensor([0.0, 3.0, 6.0])})["w"].mean
    3.0
    >>> print(describe({"w": torch.tensor([0.0, 3.0, 6.0]), "b": torch.tensor([1.0, torch.nan])}))
    path  shape  mean  std  min  max  NaNs  zeros
    w     (3,)      3    3    0    6     0      1
    b     (2,)      1    0    1    1     1      0

    Raises   ``ValueError`` for a leaf that is no tensor of real numbers, or has no numbers, on the meta device.
    """
    return Description({path: statistics_of(path, leaf) for path, leaf in names(tree).items()})
