"""Triangular parts of matrices: the elements above or below a diagonal, and zeros elsewhere.

x (..., rows, columns) and y have the same shape. A bool or integer x has no gradient.
"""

from abc import abstractmethod

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import check_gy, kind_of, require_dense, require_tensor
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import whole_number
from funcnet.value import frozen


@frozen
class _Triangle(Layer):
    """Base of ``Triu`` and ``Tril``."""

    diagonal: int = field(default=0, validator=whole_number)

    @abstractmethod
    def triangle(self, x: Tensor) -> Tensor:
        """Return the elements of the triangle, and zeros elsewhere."""

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Shape, Tensor]]:
        return self.triangle(require_dense(self, require_tensor(self, params, x))), (tuple(x.shape), kind_of(x))

    def vjp(self, params: Params, cache: tuple[Shape, Tensor], gy: Tensor) -> tuple[Grads, Tensor | None]:
        shape, kind = cache
        return params, self.triangle(check_gy(self, gy, shape, kind)) if kind.is_floating_point() else None

    def complaint(self, x: Tensor) -> str | None:
        return None if x.dim() > 1 else "x must have the axes (..., rows, columns)"


@frozen
class Triu(_Triangle):
    """The upper triangle of a matrix.

        y[i, j]  = x[i, j] for j ≥ i + diagonal, else 0
        gx[i, j] = gy[i, j] for j ≥ i + diagonal, else 0

    Args:
        diagonal: The diagonal where the triangle begins: 0 for the main one, positive above it, negative below.

    Shape:
        x (..., rows, columns) → y (..., rows, columns)

    Cache:
        The shape of ``x``, and an empty tensor of its dtype.

    Raises:
        ValueError: If x has fewer than two axes.

    References:
        ``torch.triu``.

    >>> Triu(1)({}, torch.ones(2, 3))
    tensor([[0., 1., 1.],
            [0., 0., 1.]])
    """

    def triangle(self, x: Tensor) -> Tensor:
        return torch.triu(x, self.diagonal)


@frozen
class Tril(_Triangle):
    """The lower triangle of a matrix.

        y[i, j]  = x[i, j] for j ≤ i + diagonal, else 0
        gx[i, j] = gy[i, j] for j ≤ i + diagonal, else 0

    Args:
        diagonal: The diagonal where the triangle ends: 0 for the main one, positive above it, negative below.

    Shape:
        x (..., rows, columns) → y (..., rows, columns)

    Cache:
        The shape of ``x``, and an empty tensor of its dtype.

    Raises:
        ValueError: If x has fewer than two axes.

    References:
        ``torch.tril``.

    >>> Tril()({}, torch.ones(2, 3))
    tensor([[1., 0., 0.],
            [1., 1., 0.]])
    """

    def triangle(self, x: Tensor) -> Tensor:
        return torch.tril(x, self.diagonal)
