"""Pooling: a window slides along x, and each output is the largest, the mean, the sum or the norm of what it sees.

    MaxPool   y[t] = max_k x[s t + d k - p]             gx[i] = Σ gy[t] over the t whose maximum stands at i
    AvgPool   y[t] = Σ_k x[s t + k - p] / m[t]          gx[i] = Σ_{k, t: s t + k - p = i} gy[t] / m[t]
    SumPool   y[t] = Σ_k x[s t + k - p]                 gx[i] = Σ_{k, t: s t + k - p = i} gy[t]
    LPPool    y[t] = (Σ_k x[s t + k]ᵖ)^(1/p)            gx[i] = x[i]ᵖ⁻¹ Σ_{k, t: s t + k = i} gy[t] y[t]¹⁻ᵖ

for each row and channel; t, k, i one number for each axis (one to three), s = stride, d = dilation, p = padding (of LPPool the
exponent, ``norm_type``), and m[t] the elements in the window. With ``ceil_mode`` a last window may reach beyond the end.
"""

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import flag, number, wrong
from funcnet.kernels import pooling as kernels
from funcnet.layer import Params, explained, fitting, frozen
from funcnet.layers.window import Sizes, Windowed, each, hashable, of_axes, of_shape, sizes

Numbers = tuple[int, ...]

Mean = tuple[kernels.Origin, Numbers]
"""The cache of a mean or sum: what was kept of x, and the shape of y."""


@frozen
class _Pool(Windowed):
    """Pooling with a kernel, and a stride that is the kernel's size unless given."""

    kernel_size: Sizes = field(converter=hashable, validator=sizes(1))
    stride: Sizes | None = field(default=None, converter=hashable, validator=sizes(1, optional=True))

    def _kernel(self) -> Numbers:
        return each(self.kernel_size, self.axes)

    def _stride(self) -> Numbers:
        return each(self.kernel_size if self.stride is None else self.stride, self.axes)

    def _fault(self, x: Tensor) -> str | None:
        pads, dilations = (each(getattr(self, name, missing), self.axes) for name, missing in (("padding", 0), ("dilation", 1)))
        reach = tuple([d * (k - 1) + 1 for k, d in zip(self._kernel(), dilations, strict=True)])
        lengths = x.shape[-self.axes :]
        if any(n + 2 * p < r for n, p, r in zip(lengths, pads, reach, strict=True)):
            return f"x with its padding must be as long as the window, {reach}"
        return None


@frozen
class _PaddedPool(_Pool):
    """Pooling with a padding, of at most half the kernel."""

    padding: Sizes = field(default=0, converter=hashable, validator=sizes(0))
    _how: tuple[Any, ...] = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        if any(2 * p > k for p, k in zip(each(self.padding, self.axes), self._kernel(), strict=True)):
            got = f"padding={self.padding}, kernel_size={self.kernel_size}"
            raise wrong(type(self).__name__, "padding must be at most half of kernel_size", got)
        object.__setattr__(self, "_how", (self._kernel(), self._stride(), each(self.padding, self.axes), *self._more()))

    @abstractmethod
    def _more(self) -> tuple[Any, ...]:
        """Return what the kernels take beside kernel, stride and padding."""


@frozen
class _MaxPool(_PaddedPool):
    """Largest of each window."""

    dilation: Sizes = field(default=1, converter=hashable, validator=sizes(1))
    return_indices: bool = field(default=False, validator=flag)
    ceil_mode: bool = field(default=False, validator=flag)

    def __call__(self, params: Params, x: Tensor, rng: Any = None) -> Any:
        if not self._tiles() or not kernels.tiles_pay(of_axes(self, params, x), self._kernel(), 9):
            return self.apply(params, x)[0]
        return kernels.tile_max(x, self._kernel())

    def apply(self, params: Params, x: Tensor) -> tuple[Any, tuple[Tensor, Any]]:
        of_axes(self, params, x)
        if self._tiles() and kernels.tiles_pay(x, self._kernel()):
            y = kernels.tile_max(x, self._kernel())
            return y, (y, x)
        try:
            y, indices = kernels.max_pool(x, *self._how)
        except Exception as error:
            raise explained(self, params, x, error) from None
        return (y, indices) if self.return_indices else y, (indices, kernels.origin(x, self.axes))

    def vjp(self, params: Params, cache: tuple[Tensor, Any], gy: Any) -> tuple[Params, Tensor]:
        kept, of = cache
        gy = fitting(self, gy[0] if self.return_indices else gy, kept)
        if isinstance(of, Tensor):
            return params, kernels.tile_max_backward(gy, of, kept, self._kernel())
        return params, kernels.max_pool_backward(gy, kept, of, *self._how)

    def _more(self) -> tuple[Numbers, bool]:
        return each(self.dilation, self.axes), self.ceil_mode

    def _tiles(self) -> bool:
        """Tell whether the windows lie side by side, and y is all that is asked for."""
        kernel, stride, padding, dilation, ceil = self._how
        return not (self.return_indices or ceil or any(padding)) and stride == kernel and max(dilation) == 1


@frozen
class MaxPool1d(_MaxPool):
    """Largest element of each window of (N, channels, length), or (channels, length); arguments as in ``torch.nn.MaxPool1d``.

    The output has length ⌊(length + 2 padding - dilation (kernel_size - 1) - 1) / stride⌋ + 1, with ``ceil_mode`` ⌈⌉, but no
    window begins in the padding at the end. The padding is -∞. With ``return_indices`` y is a pair: the largest elements, and
    their indices in the flattened axes behind the channels, as ``MaxUnpool1d`` takes them. Of equal elements the first counts.

    Params   none.
    Cache    the indices, and the shape of ``x``; for windows side by side on a large ``x``, ``y`` and ``x``.
    Raises   ``ValueError`` for sizes below 1, a padding of more than half the kernel, and an ``x`` that is not floating, or has
             other axes, or is shorter than the window.
    """

    axes: ClassVar[int] = 1


@frozen
class MaxPool2d(_MaxPool):
    """Largest element of each window of (N, channels, height, width), or without N; arguments as in ``torch.nn.MaxPool2d``.

    Each size is one number for both axes, or a tuple of two; else as ``MaxPool1d``.

    Params   none.
    Cache    the indices, and the shape of ``x``; for windows side by side on a large ``x``, ``y`` and ``x``.
    Raises   ``ValueError`` as ``MaxPool1d`` does.
    """

    axes: ClassVar[int] = 2


@frozen
class MaxPool3d(_MaxPool):
    """Largest element of each window of (N, channels, depth, height, width), or without N; as ``torch.nn.MaxPool3d``.

    Each size is one number for all axes, or a tuple of three; else as ``MaxPool1d``.

    Params   none.
    Cache    the indices, and the shape of ``x``; for windows side by side on a large ``x``, ``y`` and ``x``.
    Raises   ``ValueError`` as ``MaxPool1d`` does.
    """

    axes: ClassVar[int] = 3


@frozen
class _AvgPool(_PaddedPool):
    """Mean of each window."""

    ceil_mode: bool = field(default=False, validator=flag)
    count_include_pad: bool = field(default=True, validator=flag)
    divisor_override: int | None = field(default=None, validator=sizes(1, optional=True))

    def apply(self, params: Params, x: Tensor) -> tuple[Tensor, Mean]:
        return _averaged(self, params, x, self._how)

    def vjp(self, params: Params, cache: Mean, gy: Tensor) -> tuple[Params, Tensor]:
        of, shape = cache
        return params, kernels.avg_pool_backward(of_shape(self, gy, shape), of, *self._how)

    def _more(self) -> tuple[bool, bool, int | None]:
        return self.ceil_mode, self.count_include_pad, self.divisor_override


def _averaged(layer: Windowed, params: Params, x: Tensor, how: tuple[Any, ...]) -> tuple[Tensor, Mean]:
    of_axes(layer, params, x)
    try:
        y = kernels.avg_pool(x, *how)
    except Exception as error:
        raise explained(layer, params, x, error) from None
    return y, (kernels.origin(x, layer.axes), tuple(y.shape))


@frozen
class AvgPool1d(_AvgPool):
    """Mean of each window of (N, channels, length), or (channels, length); arguments as in ``torch.nn.AvgPool1d``.

    The output is as long as that of ``MaxPool1d``. The padding is 0, and counts as elements with ``count_include_pad``; with
    ``divisor_override``, which of torch's only two and three axes have, the sum is divided by that instead.

    Params   none.
    Cache    the shapes of ``x`` and ``y``.
    Raises   ``ValueError`` for sizes below 1, a padding of more than half the kernel, an ``x`` that is not floating, or has other
             axes, or is shorter than the window, and a ``gy`` that has not the shape of ``y``.
    """

    axes: ClassVar[int] = 1


@frozen
class AvgPool2d(_AvgPool):
    """Mean of each window of (N, channels, height, width), or without N; arguments as in ``torch.nn.AvgPool2d``.

    Each size is one number for both axes, or a tuple of two; else as ``AvgPool1d``.

    Params   none.
    Cache    the shapes of ``x`` and ``y``.
    Raises   ``ValueError`` as ``AvgPool1d`` does.
    """

    axes: ClassVar[int] = 2


@frozen
class AvgPool3d(_AvgPool):
    """Mean of each window of (N, channels, depth, height, width), or without N; arguments as in ``torch.nn.AvgPool3d``.

    Each size is one number for all axes, or a tuple of three; else as ``AvgPool1d``.

    Params   none.
    Cache    the shapes of ``x`` and ``y``.
    Raises   ``ValueError`` as ``AvgPool1d`` does.
    """

    axes: ClassVar[int] = 3


@frozen
class _SumPool(_PaddedPool):
    """Sum of each window."""

    ceil_mode: bool = field(default=False, validator=flag)

    def apply(self, params: Params, x: Tensor) -> tuple[Tensor, Mean]:
        return _averaged(self, params, x, self._how)

    def vjp(self, params: Params, cache: Mean, gy: Tensor) -> tuple[Params, Tensor]:
        of, shape = cache
        return params, kernels.avg_pool_backward(of_shape(self, gy, shape), of, *self._how)

    def _more(self) -> tuple[bool, bool, int]:
        return self.ceil_mode, True, 1


@frozen
class SumPool1d(_SumPool):
    """Sum of each window of (N, channels, length), or (channels, length); the padding is 0.

    Params   none.
    Cache    the shapes of ``x`` and ``y``.
    Raises   ``ValueError`` as ``AvgPool1d`` does.
    """

    axes: ClassVar[int] = 1


@frozen
class SumPool2d(_SumPool):
    """Sum of each window of (N, channels, height, width), or without N; the padding is 0.

    Params   none.
    Cache    the shapes of ``x`` and ``y``.
    Raises   ``ValueError`` as ``AvgPool1d`` does.
    """

    axes: ClassVar[int] = 2


@frozen
class SumPool3d(_SumPool):
    """Sum of each window of (N, channels, depth, height, width), or without N; the padding is 0.

    Params   none.
    Cache    the shapes of ``x`` and ``y``.
    Raises   ``ValueError`` as ``AvgPool1d`` does.
    """

    axes: ClassVar[int] = 3


@frozen
class _LPPool(Windowed):
    """Norm of each window."""

    norm_type: float = field(validator=number(above=0.0))
    kernel_size: Sizes = field(converter=hashable, validator=sizes(1))
    stride: Sizes | None = field(default=None, converter=hashable, validator=sizes(1, optional=True))
    ceil_mode: bool = field(default=False, validator=flag)
    _mean: _AvgPool = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_mean", _MEANS[self.axes](self.kernel_size, self.stride, 0, self.ceil_mode))

    def apply(self, params: Params, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        of_axes(self, params, x)
        mean, _ = _averaged(self, params, x**self.norm_type, self._mean._how)
        y = (mean * math.prod(self._mean._kernel())) ** (1 / self.norm_type)
        return y, (x, y)

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor) -> tuple[Params, Tensor]:
        x, y = cache
        of, p = kernels.origin(x, self.axes), self.norm_type
        g = torch.where(y == 0, 0, fitting(self, gy, y) * y ** (1 - p)) * math.prod(self._mean._kernel())
        return params, kernels.avg_pool_backward(g, of, *self._mean._how) * x ** (p - 1)

    def _fault(self, x: Tensor) -> str | None:
        return self._mean._fault(x)


_MEANS: dict[int, type[_AvgPool]] = {1: AvgPool1d, 2: AvgPool2d, 3: AvgPool3d}


@frozen
class LPPool1d(_LPPool):
    """p-norm, p = ``norm_type``, of each window of (N, channels, length), or (channels, length); as ``torch.nn.LPPool1d``.

    As there, nothing takes the absolute value: of negative elements an odd p has a negative sum, whose root is NaN, and a p that
    is not whole has NaN for each. A window whose sum is 0 has gradient 0. With ``ceil_mode``, what a last window has beyond the
    end counts as much as the mean of what it has within.

    Params   none.
    Cache    ``x`` and ``y``.
    Raises   ``ValueError`` for sizes below 1, a p that is not above 0, and an ``x`` that is not floating, or has other axes, or
             is shorter than the window.
    """

    axes: ClassVar[int] = 1


@frozen
class LPPool2d(_LPPool):
    """p-norm of each window of (N, channels, height, width), or without N; as ``torch.nn.LPPool2d``; see ``LPPool1d``.

    Params   none.
    Cache    ``x`` and ``y``.
    Raises   ``ValueError`` as ``LPPool1d`` does.
    """

    axes: ClassVar[int] = 2


@frozen
class LPPool3d(_LPPool):
    """p-norm of each window of (N, channels, depth, height, width), or without N; as ``torch.nn.LPPool3d``; see ``LPPool1d``.

    Params   none.
    Cache    ``x`` and ``y``.
    Raises   ``ValueError`` as ``LPPool1d`` does.
    """

    axes: ClassVar[int] = 3
