"""Sizes of trees, comparisons, and statistics of all their numbers."""

from builtins import map as each
from typing import Any

import torch
from torch import Tensor

from funcnet.errors import is_number, value_error
from funcnet.flattening import Tree, differences, flatten_together
from funcnet.statistics import Description, statistics_of
from funcnet.tree.argument_errors import explain_tensor_errors
from funcnet.tree.mapping import leaves, map, names, same_leaf  # noqa: A004 (the usual name)


@explain_tensor_errors(2)
def _tensors(tree: Tree) -> list[Tensor]:
    return [leaf for leaf in leaves(tree) if isinstance(leaf, Tensor)]


def size(tree: Tree) -> int:
    """Count the elements of all tensors in a tree.

    Args:
        tree: A tree.

    Returns:
        The number of elements.

    >>> size({"w": torch.ones(2, 3), "b": torch.ones(3)})
    9
    """
    return sum(leaf.numel() for leaf in _tensors(tree))


def nbytes(tree: Tree) -> int:
    """Count the bytes of all tensors in a tree.

    A tensor that occurs several times counts each time. A DTensor counts only with the local part of this process.

    Args:
        tree: A tree.

    Returns:
        The number of bytes.

    >>> nbytes({"w": torch.ones(2, 3)})
    24
    """
    return sum(leaf.numel() * leaf.element_size() for leaf in map(_local_part, _tensors(tree)))


def _local_part(leaf: Tensor) -> Tensor:
    """Return the part of a DTensor in this process; any other tensor is returned unchanged."""
    piece: Tensor = leaf if type(leaf) is Tensor else getattr(leaf, "_local_tensor", leaf)
    return piece


def all_finite(tree: Tree) -> Tensor:
    """Return whether all elements of all leaves are finite.

    Args:
        tree: A tree.

    Returns:
        A 0-d bool tensor, ``False`` if a leaf holds a NaN or an infinity.

    >>> all_finite({"w": torch.tensor([1.0, torch.inf])})
    tensor(False)
    """
    parts = [torch.isfinite(leaf).all() for leaf in _tensors(tree)]
    return whole_result(torch.stack(parts).all()) if parts else torch.tensor(True)


def whole_result(x: Tensor) -> Tensor:
    """Return the result combined over all workers if the leaves are DTensors, which hold only numbers of this worker."""
    return x if type(x) is Tensor else getattr(x, "full_tensor", lambda: x)()


@explain_tensor_errors(2)
def equal(a: Tree, b: Tree) -> bool:
    """Return whether two trees have the same structure, absent leaves, dtypes, shapes and values; NaN equals nothing.

    Args:
        a: A tree.
        b: Another tree.

    Returns:
        ``True`` if they are equal.

    >>> equal({"w": torch.ones(2)}, {"w": torch.ones(2)})
    True
    """
    return not any(True for _ in differences("", a, b)) and all(each(same_leaf, *flatten_together(a, b)))


@explain_tensor_errors(2)
def allclose(a: Tree, b: Tree, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Return whether two trees have the same structure and shapes, and nearly the same values.

        |a - b| ≤ atol + rtol |b| everywhere

    Leaves of two dtypes are compared in their common dtype. Leaves that are not tensors must be equal.

    Args:
        a: A tree.
        b: Another tree.
        rtol: The relative tolerance.
        atol: The absolute tolerance.
        equal_nan: Whether NaN equals NaN.

    Returns:
        ``True`` if all leaves are close.

    Raises:
        ValueError: If a tolerance is not a finite number of at least 0.

    >>> allclose({"w": torch.tensor(1.0)}, {"w": torch.tensor(1.000001)})
    True
    """
    if not all(is_number(one) and one >= 0 for one in (rtol, atol)):
        raise value_error("allclose", "rtol and atol must be finite numbers of at least 0", f"rtol={rtol!r}, atol={atol!r}")
    if not isinstance(equal_nan, bool):
        raise value_error("allclose", "equal_nan must be True or False", repr(equal_nan))
    if any(True for _ in differences("", a, b)):
        return False
    return all(_are_close(x, y, float(rtol), float(atol), equal_nan) for x, y in zip(*flatten_together(a, b), strict=True))


def _are_close(x: Any, y: Any, rtol: float, atol: float, equal_nan: bool) -> bool:
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        return type(x) is type(y) and bool(x == y)
    common = torch.promote_types(x.dtype, y.dtype)
    return x.shape == y.shape and torch.allclose(x.to(common), y.to(common), rtol, atol, equal_nan)


@explain_tensor_errors()
def describe(tree: Tree) -> Description:
    """Describe the numbers of each leaf: mean, standard deviation, minimum, maximum, and the numbers of NaNs and zeros.

    The result maps paths to statistics, and prints as a table. The standard deviation is computed as in ``torch.std``, and 0
    for a single number. NaNs count only in ``nans``.

    Args:
        tree: A tree of tensors of real numbers.

    Returns:
        A mapping from paths to statistics.

    Raises:
        ValueError: If a leaf is not a tensor of real numbers, or is on the meta device.

    >>> describe({"w": torch.tensor([0.0, 3.0, 6.0])})["w"].mean
    3.0
    >>> print(describe({"w": torch.tensor([0.0, 3.0, 6.0]), "b": torch.tensor([1.0, torch.nan])}))
    path  shape  mean  std  min  max  NaNs  zeros
    w     (3,)      3    3    0    6     0      1
    b     (2,)      1    0    1    1     1      0
    """
    return Description({path: statistics_of(path, leaf) for path, leaf in names(tree).items()})
