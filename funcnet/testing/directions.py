"""Directions: the vectors along which ``check_vjp`` measures slopes, and the scale of a slope along them."""

import math

import torch
from torch import Tensor

from funcnet import random, tree
from funcnet.flattening import Tree


def slope_scale(g: Tensor, v: Tensor) -> float:
    """Return the slope along v of a gradient whose elements are all the root mean square of g.

    Args:
        g: The gradient of a leaf.
        v: A direction, a tensor like g.

    >>> round(slope_scale(torch.ones(4), torch.eye(2).reshape(4)), 6)
    1.414214
    """
    return float(torch.linalg.vector_norm(g) * torch.linalg.vector_norm(v)) / math.sqrt(max(g.numel(), 1))


def direction(leaf: Tensor, indices: Tensor, seed: int) -> Tensor:
    """Return signs at the indices, scaled like the values there but at least by 1, and divided by the root of their number.

    Args:
        leaf: The values.
        indices: Numbers of elements of the flat leaf; elsewhere the direction is 0.
        seed: Seed of the signs.

    >>> direction(torch.tensor([0.5, 3.0, 4.0]), torch.tensor([1]), 0).abs()
    tensor([0., 3., 0.])
    """
    signs = 2.0 * random.bernoulli(random.fold_in(seed, len(indices)), (len(indices),)).to(leaf) - 1
    v = torch.zeros_like(leaf).reshape(-1).index_copy(0, indices, signs / max(len(indices), 1) ** 0.5)
    return v.reshape(leaf.shape) * leaf.abs().clamp_min(1)


def coefficients(n: int, seed: int) -> Tensor:
    """Return n numbers of both signs between 1 and 2 in magnitude, whose products with other numbers do not cancel.

    >>> bool(((coefficients(5, 0).abs() - 1.5).abs() <= 0.5).all())
    True
    """
    drawn = random.uniform(random.fold_in(seed, n), (n,), -1.0, 1.0, torch.float64)
    return drawn.sign() * (1 + drawn.abs())


def flat(values: Tree) -> Tensor:
    """Join the floating leaves into one vector."""
    return tree.ravel(tuple(leaf for leaf in tree.leaves(values) if leaf.is_floating_point()))
