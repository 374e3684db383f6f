"""Fractional pooling: the largest elements of windows whose places are drawn, so that they need not divide the length of x.

y[t] = max_k x[a[t] + k]                        gx[i] = Σ gy[t] over the t whose maximum stands at i
a[t] = ⌊(t + u) α⌋ - ⌊u α⌋,  α = (L - K) / (T - 1),  and a[T - 1] = L - K

for T windows of K elements on a length L; 0 ≤ u < 1 is drawn for each row, channel and axis.
"""

from typing import Any, ClassVar

from attrs import field
from torch import Tensor

from funcnet import random
from funcnet.checks import check_gy, explain_error, require_key
from funcnet.contract import Params, Rng
from funcnet.errors import flag, is_number, number, value_error
from funcnet.kernels import pooling as kernels
from funcnet.layers.conv.window import Sizes, Windowed, each, hashable, require_axes, sizes
from funcnet.value import frozen

Ratios = float | tuple[float, ...]


def _ratios(layer: Windowed, attribute: Any, got: Any) -> None:
    """Validate a ratio between 0 and 1, or a tuple with one for each axis."""
    entries = each(got, layer.axes)
    if got is not None and not (len(entries) == layer.axes and all(is_number(r) and 0 < r < 1 for r in entries)):
        rule = f"output_ratio must be a number above 0 and below 1, or a tuple of {layer.axes} of them, one for each axis"
        raise value_error(type(layer).__name__, rule, repr(got))


def _sample(layer: Windowed, attribute: Any, got: Any) -> None:
    if got is not None:
        number(0.0, below=1.0)(layer, attribute, got)


@frozen
class _FractionalMaxPool(Windowed):
    """Largest of windows whose places are drawn."""

    kernel_size: Sizes = field(converter=hashable, validator=sizes(1))
    output_size: Sizes | None = field(default=None, converter=hashable, validator=sizes(1, optional=True))
    output_ratio: Ratios | None = field(default=None, converter=hashable, validator=_ratios)
    return_indices: bool = field(default=False, validator=flag)
    sample: float | None = field(default=None, validator=_sample)

    def __attrs_post_init__(self) -> None:
        if (self.output_size is None) == (self.output_ratio is None):
            got = f"output_size={self.output_size}, output_ratio={self.output_ratio}"
            raise value_error(type(self).__name__, "either output_size or output_ratio must be given", got)

    @property
    def stochastic(self) -> bool:
        return self.sample is None

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Any, tuple[Tensor, tuple[int, ...]]]:
        samples = self.samples(require_axes(self, params, x), rng)
        try:
            y, indices = kernels.fractional_max_pool(x, each(self.kernel_size, self.axes), self._filled(x), samples)
        except Exception as error:
            raise explain_error(self, params, x, error) from None
        return (y, indices) if self.return_indices else y, (indices, tuple(x.shape))

    def vjp(self, params: Params, cache: tuple[Tensor, tuple[int, ...]], gy: Any) -> tuple[Params, Tensor]:
        indices, shape = cache
        gy = check_gy(self, gy[0] if self.return_indices else gy, indices.shape)
        return params, kernels.fractional_max_pool_backward(gy, indices, shape[-self.axes :])

    def inference(self) -> "_FractionalMaxPool":
        return self if self.sample is not None else self.replace(sample=0.5)

    def samples(self, x: Tensor, rng: Rng = None) -> Tensor:
        """Return u, (N, channels, axes) with N = 1 where x has none, as the ``_random_samples`` of ``torch.nn`` have them."""
        shape = (*(x.shape if x.dim() == self.axes + 2 else (1, *x.shape))[:2], self.axes)
        dtype = kernels.sample_dtype(x)
        if self.sample is not None:
            return x.new_full(shape, self.sample, dtype=dtype)
        return random.uniform(require_key(self, rng), shape, dtype=dtype)

    def _places(self, x: Tensor) -> tuple[int, ...]:
        """Return how many windows there are along each axis."""
        if self.output_ratio is None:
            return each(self.output_size, self.axes)
        pairs = zip(x.shape[-self.axes :], each(self.output_ratio, self.axes), strict=True)
        return tuple([int(length * ratio) for length, ratio in pairs])

    def _filled(self, x: Tensor) -> tuple[int, ...]:
        """Return how many windows there are, which the kernels would let be none."""
        places = self._places(x)
        if min(places) < 1:
            raise value_error(
                self, "x must be long enough for a window along each axis", f"{places} for x of shape {tuple(x.shape)}"
            )
        return places

    def complaint(self, x: Tensor) -> str | None:
        places, kernel = self._places(x), each(self.kernel_size, self.axes)
        need = tuple([n + k - (self.axes == 2) for n, k in zip(places, kernel, strict=True)])
        if any(length < n for length, n in zip(x.shape[-self.axes :], need, strict=True)):
            return f"x must be at least {need} long for {places} windows"
        return None


@frozen
class FractionalMaxPool2d(_FractionalMaxPool):
    """Largest element of each of ``output_size`` windows over (N, channels, height, width), or without N; as in ``torch.nn``.

    Instead of the size there may be ``output_ratio``, the size over that of x. Each is one number for both axes, or a tuple of
    two. Where the windows stand is a pure function of the key; with a ``sample``, a number u for all, nothing is drawn, and
    ``inference()`` is the layer with 1/2. With ``return_indices`` y is a pair, as that of ``MaxPool2d``. Of equal elements the
    first counts.

    Params   none.
    Cache    the indices, and the shape of ``x``.
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
    Cache    the indices, and the shape of ``x``.
    Raises   ``ValueError`` as ``FractionalMaxPool2d`` does.
    Source   Graham 2014, section 2, pseudorandom overlapping regions.
    """

    axes: ClassVar[int] = 3
