"""Initializers with structure: Eye, Dirac, DeltaOrthogonal and Sparse draw a weight (out, in, *kernel) that is mostly 0.

Eye, Dirac        w[o, i] = 1 where o and i agree, of convolutions at the middle of the kernel: the layer passes x on
DeltaOrthogonal   an orthonormal matrix at the middle of the kernel: the layer keeps the norm of x
Sparse            normal, with a share of zeros in each column
"""

import math

import torch
from attrs import field
from torch import Tensor

from funcnet import random
from funcnet.errors import number, size, value_error
from funcnet.initializers.elementary import Initializer, Shape
from funcnet.initializers.scaled import Orthogonal
from funcnet.random.keys import Key
from funcnet.value import frozen


def _require_axes(initializer: Initializer, shape: Shape, least: int, most: int) -> None:
    if not least <= len(shape) <= most:
        axes = "2 axes, (out, in)" if most == 2 else "3 to 5 axes, (out, in, *kernel)"
        raise value_error(initializer, f"a weight must have {axes}", f"shape {tuple(shape)}")


def _at_the_middle(matrix: Tensor, kernel: Shape, middle: Shape) -> Tensor:
    """Return a weight (out, in, *kernel) with a matrix (out, in) at one place of the kernel, and else 0."""
    there = torch.zeros(kernel, dtype=torch.bool, device=matrix.device)
    there[middle] = True
    return torch.where(there, matrix.reshape(*matrix.shape, *[1] * len(kernel)), 0.0)


def _diagonal(rng: Key | int, rows: int, columns: int, every: int, dtype: torch.dtype | None) -> Tensor:
    """Return a matrix with 1 where the column is the row's place in its group of ``every`` rows."""
    device, dtype = random.as_key(rng).device, torch.get_default_dtype() if dtype is None else dtype
    places = torch.arange(rows, device=device) % every
    return (places.unsqueeze(1) == torch.arange(columns, device=device)).to(dtype)


@frozen
class Eye(Initializer):
    """Identity matrix times ``gain``: x = gain where the axes agree, else 0.

    Args:
        gain: The number on the diagonal.

    Shape:
        (out, in); of other rows than columns what there is of the diagonal.

    Raises:
        ValueError: For a ``gain`` that is not finite, and another number of axes.

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
    """Identity of a convolution: x = 1 at the middle of the kernel where the channels agree, else 0.

    The middle of a kernel of size k is at k // 2, so that a convolution with ``padding="same"`` and an odd kernel passes on as
    many channels as it can.

    Args:
        groups: The groups of the convolution; each passes its channels on.

    Shape:
        (out, in / groups, *kernel), of one to three kernel axes.

    Raises:
        ValueError: For another number of axes, and ``groups`` that do not divide ``out``.

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
        return _at_the_middle(matrix, shape[2:], tuple([k // 2 for k in shape[2:]]))


@frozen
class DeltaOrthogonal(Initializer):
    """Orthonormal columns times ``gain`` at the middle of the kernel, else x = 0: from the QR of ``Orthogonal``.

    Deep convolutional nets without normalization keep the norm of their signals with it.

    Args:
        gain: A factor.

    Shape:
        (out, in, *kernel), of one to three kernel axes, with in at most out; the middle is at (k - 1) // 2.

    Raises:
        ValueError: For a ``gain`` that is not above 0 and finite, another number of axes, and more inputs than outputs.

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
        return _at_the_middle(matrix, shape[2:], tuple([(k - 1) // 2 for k in shape[2:]]))


@frozen
class Sparse(Initializer):
    """Normal with mean 0 and this ``std``, but x = 0 at random places of each column.

    Args:
        sparsity: The share of each column that is 0, from 0 to 1, rounded up to whole numbers.
        std: The standard deviation of the others.

    Shape:
        (out, in).

    Raises:
        ValueError: For a ``sparsity`` outside 0 to 1, an ``std`` below 0 or not finite, and another number of axes.

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
