"""Fractional pooling: the largest elements of windows whose places are drawn, so that they need not divide the length of x.

y[t] = max_k x[a[t] + k]                        gx[i] = Σ gy[t] over the t whose maximum stands at i
a[t] = ⌊(t + u) α⌋ - ⌊u α⌋,  α = (L - K) / (T - 1),  and a[T - 1] = L - K

for T windows of K elements on a length L; 0 ≤ u < 1 is drawn for each row, channel and axis.
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
    """Largest of windows whose places are drawn."""

    kernel_size: Sizes = field(converter=hashable, validator=whole_numbers(1))
    output_size: Sizes | None = field(default=None, converter=hashable, validator=whole_numbers(1, optional=True))
    output_ratio: Ratios | None = field(default=None, converter=hashable, validator=_ratios)
    return_indices: bool = field(default=False, validator=flag)
    sample: float | None = field(default=None, validator=validators.optional(number(0.0, below=1.0)))

    def __attrs_post_init__(self) -> None:
        if (self.output_size is None) == (self.output_ratio is None):
            raise fields_error(self, "either output_size or output_ratio must be given", "output_size", "output_ratio")

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
        """Return u, (N, channels, axes) with N = 1 where x has none, as the ``_random_samples`` of ``torch.nn`` have them."""
        shape = (*(x.shape if x.dim() == self.axes + 2 else (1, *x.shape))[:2], self.axes)
        dtype = kernels.sample_dtype(x)
        if self.sample is not None:
            return x.new_full(shape, self.sample, dtype=dtype)
        return random.uniform(key_beside(require_key(self, rng), x), shape, dtype=dtype)

    def _window_counts(self, lengths: Shape) -> Shape:
        """Return how many windows there are along each axis, for an x of these lengths."""
        if self.output_ratio is None:
            return each(self.output_size, self.axes)
        return tuple([int(n * ratio) for n, ratio in zip(lengths, each(self.output_ratio, self.axes), strict=True)])

    @property
    def least_lengths(self) -> Shape:
        """As for a window along each axis, and room for all of them; along three axes torch wants one element more."""
        margins = [k - (self.axes == 2) for k in each(self.kernel_size, self.axes)]
        if self.output_ratio is None:
            return tuple([n + margin for n, margin in zip(each(self.output_size, self.axes), margins, strict=True)])
        return tuple(map(_least_length, each(self.output_ratio, self.axes), margins))


def _least_length(ratio: float, margin: int) -> int:
    """Return the least length n with 1 ≤ ⌊n ratio⌋ ≤ n - margin; products are rounded, so that a quotient only comes near."""
    near = max(int(1 / ratio) - 1, int((margin - 1) / (1 - ratio)) - 1, 1)
    return next(n for n in itertools.count(near) if 1 <= int(n * ratio) <= n - margin)


@frozen
class FractionalMaxPool2d(_FractionalMaxPool):
    """Largest element of each of ``output_size`` windows over (N, channels, height, width), or without N; as in ``torch.nn``.

    Instead of the size there may be ``output_ratio``, the size over that of x. Each is one number for both axes, or a tuple of
    two. Where the windows stand is a pure function of the key; with a ``sample``, a number u for all, nothing is drawn, and
    ``inference()`` is the layer with 1/2. With ``return_indices`` y is a pair, as that of ``MaxPool2d``. Of equal elements the
    first counts.

    Params   none.
    Cache    the indices, the shape of ``x``, and an empty tensor of the dtype and device of ``x``.
    Raises   ``ValueError`` for sizes below 1, ratios that are not between 0 and 1, both or none of the two, a sample outside
             [0, 1), without a key, and an ``x`` that is not floating, or has other axes, or is too short for so many windows.
    Source   Graham 2014, section 2, pseudorandom overlapping regions.
    """

    axes: ClassVar[int] = 2


@frozen
class FractionalMaxPool3d(_FractionalMaxPool):
    """Largest element of each of ``output_size`` windows over (N, channels, depth, height, width), or without N.

    As in ``torch.nn``: each size and ratio is one number for all axes, or a tuple of three, and x must be longer than the windows
    put one element apart; all else is as in ``FractionalMaxPool2d``.

    Params   none.
    Cache    the indices, the shape of ``x``, and an empty tensor of the dtype and device of ``x``.
    Raises   ``ValueError`` as ``FractionalMaxPool2d`` does.
    Source   Graham 2014, section 2, pseudorandom overlapping regions.
    """

    axes: ClassVar[int] = 3
