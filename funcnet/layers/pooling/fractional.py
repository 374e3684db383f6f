"""Fractional pooling: the largest elements of windows at random positions; their number need not divide the length of x.

x (N, channels, ...) or (channels, ...). The indices t, k and i have one number for each axis (two or three).
"""

import itertools
from typing import Any, ClassVar

from attrs import field, validators
from torch import Tensor

from funcnet import random
from funcnet.checks import Misfit, check_gy, kind_of, require_key
from funcnet.contract import Grads, Params, Rng, Shape
from funcnet.errors import fields_error, flag, is_number, number, valid_if, whole_numbers
from funcnet.kernels import index_pooling as kernels
from funcnet.layers.conv.window import Sizes, Windowed, each, hashable, require_axes
from funcnet.random.keys import key_beside
from funcnet.value import frozen

Ratios = float | tuple[float, ...]


def _is_ratio(entry: Any) -> bool:
    return is_number(entry) and 0 < entry < 1


_ratios = valid_if(_is_ratio, "a number above 0 and below 1", several=True, optional=True)


@frozen
class _FractionalMaxPool(Windowed):
    """Largest elements of windows at random positions."""

    kernel_size: Sizes = field(converter=hashable, validator=whole_numbers(1))
    output_size: Sizes | None = field(default=None, converter=hashable, validator=whole_numbers(1, optional=True))
    output_ratio: Ratios | None = field(default=None, converter=hashable, validator=_ratios)
    return_indices: bool = field(default=False, validator=flag)
    sample: float | None = field(default=None, validator=validators.optional(number(0.0, below=1.0)))

    def __attrs_post_init__(self) -> None:
        if (self.output_size is None) == (self.output_ratio is None):
            raise fields_error(self, "exactly one of output_size and output_ratio must be given", "output_size", "output_ratio")

    @property
    def stochastic(self) -> bool:
        return self.sample is None

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Any, tuple[Tensor, Shape, Tensor]]:
        samples = self.samples(require_axes(self, params, x), rng)
        counts = self._window_counts(x.shape[-self.axes :])
        if min(counts) < 1:
            raise Misfit  # the kernels would return an empty y
        y, indices = kernels.fractional_max_pool(x, each(self.kernel_size, self.axes), counts, samples)
        return (y, indices) if self.return_indices else y, (indices, tuple(x.shape), kind_of(x))

    def vjp(self, params: Params, cache: tuple[Tensor, Shape, Tensor], gy: Any) -> tuple[Grads, Tensor]:
        indices, shape, kind = cache
        gy = check_gy(self, gy[0] if self.return_indices else gy, indices.shape, kind)
        return params, kernels.fractional_max_pool_backward(gy, indices, shape[-self.axes :])

    def inference(self) -> "_FractionalMaxPool":
        return self if self.sample is not None else self.replace(sample=0.5)

    def samples(self, x: Tensor, rng: Rng = None) -> Tensor:
        """Return the numbers u that place the windows.

        Args:
            x: Input of the layer.
            rng: Key or int seed; not used if the layer has a ``sample``.

        Returns:
            A tensor (N, channels, axes), the ``_random_samples`` of torch.nn; N is 1 if x has no batch.
        """
        shape = (*(x.shape if x.dim() == self.axes + 2 else (1, *x.shape))[:2], self.axes)
        dtype = kernels.sample_dtype(x)
        if self.sample is not None:
            return x.new_full(shape, self.sample, dtype=dtype)
        return random.uniform(key_beside(require_key(self, rng), x), shape, dtype=dtype)

    def _window_counts(self, lengths: Shape) -> Shape:
        """Return the number of windows along each axis, for an x of these lengths."""
        if self.output_ratio is None:
            return each(self.output_size, self.axes)
        return tuple([int(n * ratio) for n, ratio in zip(lengths, each(self.output_ratio, self.axes), strict=True)])

    @property
    def least_lengths(self) -> Shape:
        """The least lengths of x for all windows, and at least one; over three axes torch requires one more element."""
        margins = [k - (self.axes == 2) for k in each(self.kernel_size, self.axes)]
        if self.output_ratio is None:
            return tuple([n + margin for n, margin in zip(each(self.output_size, self.axes), margins, strict=True)])
        return tuple(map(_least_length, each(self.output_ratio, self.axes), margins))


def _least_length(ratio: float, margin: int) -> int:
    """Return the least length n with 1 ≤ ⌊n ratio⌋ ≤ n - margin; due to rounding, a quotient is only a first guess."""
    near = max(int(1 / ratio) - 1, int((margin - 1) / (1 - ratio)) - 1, 1)
    return next(n for n in itertools.count(near) if 1 <= int(n * ratio) <= n - margin)


@frozen
class FractionalMaxPool2d(_FractionalMaxPool):
    """Largest element of each of ``output_size`` windows at random positions, over two axes.

        y[t]  = max_k x[a[t] + k]                                a[t] = ⌊(t + u) α⌋ - ⌊u α⌋, and a[T - 1] = L - K
        gx[i] = Σ gy[t] over the t whose maximum is at i         α = (L - K) / (T - 1), u uniform in [0, 1)

    Rows and channels are pooled separately. t, k and i are pairs of indices, one for each axis. Along each axis there are T
    windows of K elements on length L. Each row, channel and axis has its own random number u, a pure function of the key.
    ``inference()`` returns the layer with ``sample=0.5``. Ties go to the first element.

    Args:
        kernel_size: Size K of the window; one number for both axes, or a tuple of two.
        output_size: Number T of windows; one number for both axes, or a tuple of two. Give this or ``output_ratio``.
        output_ratio: Number of windows as a fraction of the length of x, above 0 and below 1; one number for both axes, or a
            tuple of two.
        return_indices: Whether y is a pair (values, indices). The indices are positions in the flattened axes after the channels,
            as ``MaxUnpool2d`` expects.
        sample: A fixed value of every u, at least 0 and below 1, with which the layer needs no key; ``None`` for random values.

    Shape:
        x (N, channels, H, W) → y (N, channels, *output_size), or both without N; with ``return_indices`` a pair of them.

    Cache:
        The indices, the shape of ``x``, and an empty tensor of the dtype and device of ``x``.

    Raises:
        ValueError: If both or neither of ``output_size`` and ``output_ratio`` are given, or if x is shorter than T + K - 1 along
            an axis.

    References:
        Graham 2014, "Fractional max-pooling", section 2, pseudorandom overlapping regions; ``torch.nn.FractionalMaxPool2d``.

    >>> import torch
    >>> FractionalMaxPool2d(2, output_size=5)({}, torch.ones(2, 3, 8, 8), 0).shape
    torch.Size([2, 3, 5, 5])
    """

    axes: ClassVar[int] = 2


@frozen
class FractionalMaxPool3d(_FractionalMaxPool):
    """Largest element of each of ``output_size`` windows at random positions, over three axes.

        y[t]  = max_k x[a[t] + k]                                a[t] = ⌊(t + u) α⌋ - ⌊u α⌋, and a[T - 1] = L - K
        gx[i] = Σ gy[t] over the t whose maximum is at i         α = (L - K) / (T - 1), u uniform in [0, 1)

    Rows and channels are pooled separately. t, k and i are triples of indices, one for each axis. Along each axis there are T
    windows of K elements on length L. Each row, channel and axis has its own random number u, a pure function of the key.
    ``inference()`` returns the layer with ``sample=0.5``. Ties go to the first element.

    Args:
        kernel_size: Size K of the window; one number for all axes, or a tuple of three.
        output_size: Number T of windows; one number for all axes, or a tuple of three. Give this or ``output_ratio``.
        output_ratio: Number of windows as a fraction of the length of x, above 0 and below 1; one number for all axes, or a tuple
            of three.
        return_indices: Whether y is a pair (values, indices). The indices are positions in the flattened axes after the channels,
            as ``MaxUnpool3d`` expects.
        sample: A fixed value of every u, at least 0 and below 1, with which the layer needs no key; ``None`` for random values.

    Shape:
        x (N, channels, D, H, W) → y (N, channels, *output_size), or both without N; with ``return_indices`` a pair of them.

    Cache:
        The indices, the shape of ``x``, and an empty tensor of the dtype and device of ``x``.

    Raises:
        ValueError: If both or neither of ``output_size`` and ``output_ratio`` are given, or if x is shorter than T + K along an
            axis.

    References:
        Graham 2014, "Fractional max-pooling", section 2, pseudorandom overlapping regions; ``torch.nn.FractionalMaxPool3d``.

    >>> import torch
    >>> FractionalMaxPool3d(2, output_size=(2, 4, 4))({}, torch.ones(2, 3, 4, 8, 8), 0).shape
    torch.Size([2, 3, 2, 4, 4])
    """

    axes: ClassVar[int] = 3
