"""Initializers with structure: weights (out, in, *kernel) that are mostly 0."""

import math

import torch
from attrs import field
from torch import Tensor

from funcnet import random
from funcnet.errors import number, size, value_error
from funcnet.initializers.elementary import Initializer, Shape
from funcnet.initializers.scaled import Orthogonal
from funcnet.random.keys import Key, count_of
from funcnet.value import frozen


def _require_axes(initializer: Initializer, shape: Shape, least: int, most: int) -> None:
    if not least <= len(shape) <= most:
        axes = "2 axes, (out, in)" if most == 2 else "3 to 5 axes, (out, in, *kernel)"
        raise value_error(initializer, f"a weight must have {axes}", f"shape {tuple(shape)}")
    count_of(shape, initializer)


def _center_in_kernel(matrix: Tensor, kernel: Shape, middle: Shape) -> Tensor:
    """Return a weight (out, in, *kernel) with a matrix (out, in) at the position ``middle`` of the kernel, else zeros."""
    there = torch.zeros(kernel, dtype=torch.bool, device=matrix.device)
    there[middle] = True
    return torch.where(there, matrix.reshape(*matrix.shape, *[1] * len(kernel)), 0.0)


def _diagonal(rng: Key | int, rows: int, columns: int, every: int, dtype: torch.dtype | None) -> Tensor:
    """Return a matrix with a 1 in each row, at the row's position in its group of ``every`` rows."""
    device, dtype = random.as_key(rng).device, torch.get_default_dtype() if dtype is None else dtype
    places = torch.arange(rows, device=device) % every
    return (places.unsqueeze(1) == torch.arange(columns, device=device)).to(dtype)


@frozen
class Eye(Initializer):
    """Identity matrix times ``gain``.

        x[i, j] = gain for i = j, else 0

    Args:
        gain: The number on the diagonal.

    Shape:
        (out, in); if the sizes differ, the diagonal has the smaller size.

    Raises:
        ValueError: If the shape does not have two axes.

    References:
        ``torch.nn.init.eye_``.

    >>> Eye()(0, (2, 3))
    tensor([[1., 0., 0.],
            [0., 1., 0.]])
    """

    gain: float = field(default=1.0, validator=number())

    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        _require_axes(self, shape, 2, 2)
        return _diagonal(rng, shape[0], shape[1], max(shape[0], 1), dtype) * self.gain


@frozen
class Dirac(Initializer):
    """Identity weight of a convolution, which then returns as many channels unchanged as possible.

        x[o, i] = 1 for o = i at the middle k // 2 of the kernel, else 0        o counted within its group

    It is the identity for an odd kernel with ``padding="same"``.

    Args:
        groups: Number of groups of the convolution; each group returns its own channels.

    Shape:
        (out, in / groups, *kernel), with one to three kernel axes.

    Raises:
        ValueError: If ``groups`` does not divide ``out``, or the shape has another number of axes.

    References:
        ``torch.nn.init.dirac_``.

    >>> Dirac()(0, (2, 2, 3))[0]
    tensor([[0., 1., 0.],
            [0., 0., 0.]])
    """

    groups: int = field(default=1, validator=size)

    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        _require_axes(self, shape, 3, 5)
        if shape[0] % self.groups:
            raise value_error(self, f"groups={self.groups} must divide the output channels", f"shape {tuple(shape)}")
        matrix = _diagonal(rng, shape[0], shape[1], max(shape[0] // self.groups, 1), dtype)
        return _center_in_kernel(matrix, shape[2:], tuple([k // 2 for k in shape[2:]]))


@frozen
class DeltaOrthogonal(Initializer):
    """Orthonormal columns at the middle of the kernel, 0 elsewhere: the convolution preserves the norm of x.

        x = gain Q at the middle (k - 1) // 2 of the kernel, else 0        Q from the QR decomposition of ``Orthogonal``

    Deep convolutional nets without normalization thereby preserve the norm of their signals.

    Args:
        gain: A factor.

    Shape:
        (out, in, *kernel), with one to three kernel axes, and in at most out.

    Raises:
        ValueError: If there are more inputs than outputs, or the shape has another number of axes.

    References:
        Xiao et al. 2018; ``jax.nn.initializers.delta_orthogonal``.

    >>> w = DeltaOrthogonal()(0, (3, 2, 5))
    >>> torch.allclose(w[..., 2].T @ w[..., 2], torch.eye(2), atol=1e-6), w.count_nonzero().item()
    (True, 6)
    """

    gain: float = field(default=1.0, validator=number(above=0.0))

    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        _require_axes(self, shape, 3, 5)
        if shape[1] > shape[0]:
            raise value_error(self, "a weight must have at most as many inputs as outputs", f"shape {tuple(shape)}")
        matrix = Orthogonal(self.gain)(rng, shape[:2], dtype)
        return _center_in_kernel(matrix, shape[2:], tuple([(k - 1) // 2 for k in shape[2:]]))


@frozen
class Sparse(Initializer):
    """Normal distribution with zeros at random positions of each column.

        x ~ N(0, std²), and 0 for ⌈sparsity · out⌉ elements of each column

    Args:
        sparsity: Fraction of zeros in each column, from 0 to 1.
        std: Standard deviation of the other elements.

    Shape:
        (out, in).

    Raises:
        ValueError: If the shape does not have two axes.

    References:
        Martens 2010; ``torch.nn.init.sparse_``.

    >>> (Sparse(0.5)(0, (4, 3)) == 0).sum(0)
    tensor([2, 2, 2])
    """

    sparsity: float = field(validator=number(0.0, at_most=1.0))
    std: float = field(default=0.01, validator=number(0.0))

    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        _require_axes(self, shape, 2, 2)
        values, places = random.split(rng)
        order = random.uniform(places, shape, dtype=torch.float64).argsort(dim=0, stable=True).argsort(dim=0, stable=True)
        zero = order < math.ceil(self.sparsity * shape[0])
        return torch.where(zero, 0.0, random.normal(values, shape, 0.0, self.std, dtype))
