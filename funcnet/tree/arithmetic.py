"""Arithmetic of whole trees, and conversions of their leaves."""

from typing import Any

import torch
from torch import Tensor

from funcnet.errors import value_error
from funcnet.flattening import Tree, flatten_together, unflatten
from funcnet.precision import in_single
from funcnet.tree.argument_errors import explain_tensor_errors
from funcnet.tree.mapping import leaves, map  # noqa: A004 (the usual name)
from funcnet.tree.measuring import whole_result


@explain_tensor_errors(2)
def dot(a: Tree, b: Tree) -> Tensor:
    """Return the sum of the products of corresponding elements; half precision is summed in float32.

        value = Σ a ⊙ b over all leaves

    Args:
        a: A tree of tensors.
        b: A tree of the same structure.

    Returns:
        A 0-d tensor.

    >>> dot({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 4.0])})
    tensor(11.)
    """
    terms = leaves(map(lambda x, y: (in_single(x) * in_single(y)).sum(), a, b))
    return whole_result(sum(terms[1:], terms[0])) if terms else torch.zeros(())


@explain_tensor_errors(2)
def add(a: Tree, b: Tree) -> Tree:
    """Add two trees leaf by leaf; where one leaf is absent, the result is the other.

    Args:
        a: A tree of tensors.
        b: A tree of the same structure.

    Returns:
        The tree a + b.

    >>> add({"w": torch.tensor(1.0), "b": None}, {"w": torch.tensor(2.0), "b": torch.tensor(3.0)})
    {'w': tensor(3.), 'b': tensor(3.)}
    """
    one, other = flatten_together(a, b)
    return unflatten(a, iter([y if x is None else x if y is None else x + y for x, y in zip(one, other, strict=True)]))


@explain_tensor_errors(2)
def sub(a: Tree, b: Tree) -> Tree:
    """Subtract the tree ``b`` from ``a`` leaf by leaf; an absent leaf counts as zero.

    Args:
        a: A tree of tensors.
        b: A tree of the same structure.

    Returns:
        The tree a - b.

    >>> sub({"w": torch.tensor(1.0), "b": None}, {"w": torch.tensor(2.0), "b": torch.tensor(3.0)})
    {'w': tensor(-1.), 'b': tensor(-3.)}
    """
    rows = zip(*flatten_together(a, b), strict=True)
    return unflatten(a, iter([_difference(x, y) for x, y in rows]))


def _difference(x: Any, y: Any) -> Any:
    if x is None or y is None:
        return x if y is None else -y
    return x - y


@explain_tensor_errors(2)
def mul(a: Tree, b: Tree) -> Tree:
    """Multiply two trees leaf by leaf; a leaf that is absent from one is absent from the product.

    Args:
        a: A tree of tensors.
        b: A tree of the same structure.

    Returns:
        The tree a ⊙ b.

    >>> mul({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 4.0])})
    {'w': tensor([3., 8.])}
    """
    return map(lambda x, y: x * y, a, b)


@explain_tensor_errors(1, "factor must be a number, or a tensor that fits the leaves")
def scale(tree: Tree, factor: float | Tensor) -> Tree:
    """Multiply every leaf of a tree by the same factor.

    Args:
        tree: A tree of tensors.
        factor: A number, or a tensor that broadcasts to the leaves.

    Returns:
        The scaled tree.

    >>> scale({"w": torch.tensor([1.0, 2.0])}, 3)
    {'w': tensor([3., 6.])}
    """
    return map(lambda leaf: leaf * factor, tree)


@explain_tensor_errors(2, "weight must be a number, or a tensor that fits the leaves")
def lerp(a: Tree, b: Tree, weight: float | Tensor) -> Tree:
    """Interpolate between two trees, exactly at the ends 0 and 1.

        y = a + weight (b - a)

    ``lerp(average, params, 1 - decay)`` is a step of an exponential moving average.

    Args:
        a: The tree at weight 0.
        b: The tree at weight 1, of the same structure.
        weight: A number, or a tensor that broadcasts to the leaves.

    Returns:
        The interpolated tree.

    >>> lerp({"w": torch.tensor(0.0)}, {"w": torch.tensor(4.0)}, 0.25)
    {'w': tensor(1.)}
    """
    return map(lambda x, y: torch.lerp(x, y, weight), a, b)


@explain_tensor_errors(1, "low and high must be numbers, or tensors that fit the leaves, or None")
def clip(tree: Tree, low: float | Tensor | None = None, high: float | Tensor | None = None) -> Tree:
    """Clamp every element of a tree to [``low``, ``high``].

    Args:
        tree: A tree of tensors.
        low: The lower bound, a number or a tensor that broadcasts to the leaves; ``None`` for no bound.
        high: The upper bound, like ``low``.

    Returns:
        The clamped tree.

    Raises:
        ValueError: If both bounds are numbers, and ``low`` is above ``high``.

    >>> clip({"w": torch.tensor([-3.0, 0.5])}, -1, 1)
    {'w': tensor([-1.0000,  0.5000])}
    """
    if low is None or high is None:
        return tree if low is high else map(lambda leaf: torch.clamp(leaf, low, high), tree)  # type: ignore[arg-type]
    if isinstance(low, Tensor) or isinstance(high, Tensor):  # torch.clamp rejects a tensor together with a number
        return map(lambda leaf: torch.clamp(torch.clamp(leaf, min=low), max=high), tree)
    if low > high:
        raise value_error("clip", "low must be at most high", f"low={low!r}, high={high!r}")
    return map(lambda leaf: torch.clamp(leaf, low, high), tree)


@explain_tensor_errors(3, "condition must be a bool tensor that fits the leaves, or a tree of them")
def where(condition: Tree, a: Tree, b: Tree) -> Tree:
    """Choose elements of ``a`` where a condition holds, and of ``b`` elsewhere.

    ``where(all_finite(grads), new, old)`` keeps the old params if a gradient is not finite.

    Args:
        condition: A tree of bool tensors, or one bool tensor for all leaves.
        a: The tree to take elements from where the condition holds.
        b: The tree to take elements from elsewhere, of the same structure.

    Returns:
        A tree of the same structure.

    >>> where(torch.tensor(True), {"w": torch.tensor(1.0)}, {"w": torch.tensor(2.0)})
    {'w': tensor(1.)}
    """
    if isinstance(condition, Tensor) and not isinstance(a, Tensor):
        return map(lambda x, y: torch.where(condition, x, y), a, b)
    return map(torch.where, condition, a, b)


@explain_tensor_errors()
def norm(tree: Tree) -> Tensor:
    """Return the norm of all leaves together, in float64: float32 could overflow in the squares.

        value = √Σ x² over all leaves

    Args:
        tree: A tree of tensors.

    Returns:
        A 0-d float64 tensor.

    >>> norm({"w": torch.tensor([3.0]), "b": torch.tensor([4.0])})
    tensor(5., dtype=torch.float64)
    """
    wide = [leaf if leaf.is_floating_point() else leaf.double() for leaf in leaves(tree)]
    parts = [torch.linalg.vector_norm(leaf.contiguous(), dtype=torch.float64) for leaf in wide]
    return whole_result(torch.linalg.vector_norm(torch.stack(parts))) if parts else torch.zeros((), dtype=torch.float64)


@explain_tensor_errors()
def zeros_like(tree: Tree) -> Tree:
    """Return a tree of zeros with the shapes, dtypes and devices of the leaves.

    Args:
        tree: A tree of tensors.

    Returns:
        A tree of the same structure.

    >>> zeros_like({"w": torch.tensor([1.0, 2.0])})
    {'w': tensor([0., 0.])}
    """
    return map(torch.zeros_like, tree)


@explain_tensor_errors(1, "dtype must be a torch.dtype")
def cast(tree: Tree, dtype: torch.dtype) -> Tree:
    """Convert the floating leaves of a tree to a dtype; integers, like labels and counters, stay unchanged.

    Args:
        tree: A tree of tensors.
        dtype: The new dtype.

    Returns:
        The converted tree.

    >>> cast({"w": torch.tensor(1.0), "steps": torch.tensor(3)}, torch.float64)
    {'w': tensor(1., dtype=torch.float64), 'steps': tensor(3)}
    """
    return map(lambda leaf: leaf.to(dtype) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf, tree)


@explain_tensor_errors(1, "device must be a torch.device, or the name of one")
def to(tree: Tree, device: torch.device | str) -> Tree:
    """Move every tensor of a tree to a device.

    Args:
        tree: A tree.
        device: A device, or the name of one.

    Returns:
        The tree on that device.

    >>> to({"w": torch.tensor(1.0)}, "meta")["w"].device
    device(type='meta')
    """
    return map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, tree)
