"""Pooling: a window slides along x, and each output is the largest, the mean, the sum or the norm of what it sees.

    MaxPool   y[t] = max_k x[s t + d k - p]             gx[i] = Σ gy[t] over the t whose maximum stands at i
    AvgPool   y[t] = Σ_k x[s t + k - p] / m[t]          gx[i] = Σ_{k, t: s t + k - p = i} gy[t] / m[t]
    SumPool   y[t] = Σ_k x[s t + k - p]                 gx[i] = Σ_{k, t: s t + k - p = i} gy[t]
    LPPool    y[t] = (Σ_k x[s t + k]ᵖ)^(1/p)            gx[i] = x[i]ᵖ⁻¹ Σ_{k, t: s t + k = i} gy[t] y[t]¹⁻ᵖ

for each row and channel; t, k, i one number for each axis (one to three), s = stride, d = dilation, p = padding (of LPPool the
exponent, ``norm_type``), and m[t] the elements in the window. With ``ceil_mode`` a last window may reach beyond the end.
"""

import math
from typing import Any, ClassVar

import torch
from attrs import field, validators
from torch import Tensor

from funcnet.errors import flag, number, size, wrong
from funcnet.kernels import pooling as kernels
from funcnet.layer import Params, explained, fitting, frozen
from funcnet.layers.window import Sizes, Windowed, each, hashable, of_axes, of_shape, sizes

Numbers = tuple[int, ...]

Mean = tuple[kernels.Origin, Numbers]
"""The cache of a mean or sum: what was kept of x, and the shape of y."""


def _settle(layer: Any, padding: Sizes, *more: Any) -> None:
    """Set what the kernels take: kernel, stride (the kernel's size unless given), padding, and more."""
    kernel, pads = each(layer.kernel_size, layer.axes), each(padding, layer.axes)
    if any(2 * p > k for p, k in zip(pads, kernel, strict=True)):
        got = f"padding={padding}, kernel_size={layer.kernel_size}"
        raise wrong(type(layer).__name__, "padding must be at most half of kernel_size", got)
    stride = kernel if layer.stride is None else each(layer.stride, layer.axes)
    object.__setattr__(layer, "_how", (kernel, stride, pads, *more))


def _too_short(x: Tensor, how: tuple[Any, ...], dilation: Numbers) -> str | None:
    """Return the rule that an x shorter than the window breaks."""
    reach = tuple([d * (k - 1) + 1 for k, d in zip(how[0], dilation, strict=True)])
    if any(n + 2 * p < r for n, p, r in zip(x.shape[-len(reach) :], how[2], reach, strict=True)):
        return f"x with its padding must be as long as the window, {reach}"
    return None


@frozen
class _MaxPool(Windowed):
    """Largest of each window."""

    kernel_size: Sizes = field(converter=hashable, validator=sizes(1))
    stride: Sizes | None = field(default=None, converter=hashable, validator=sizes(1, optional=True))
    padding: Sizes = field(default=0, converter=hashable, validator=sizes(0))
    dilation: Sizes = field(default=1, converter=hashable, validator=sizes(1))
    return_indices: bool = field(default=False, validator=flag)
    ceil_mode: bool = field(default=False, validator=flag)
    _how: tuple[Any, ...] = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        _settle(self, self.padding, each(self.dilation, self.axes), self.ceil_mode)

    def __call__(self, params: Params, x: Tensor, rng: Any = None) -> Any:
        if not self._tiles() or not kernels.tiles_pay(of_axes(self, params, x), self._how[0], 9):
            return self.apply(params, x)[0]
        return kernels.tile_max(x, self._how[0])

    def apply(self, params: Params, x: Tensor) -> tuple[Any, tuple[Tensor, Any]]:
        of_axes(self, params, x)
        if self._tiles() and kernels.tiles_pay(x, self._how[0]):
            y = kernels.tile_max(x, self._how[0])
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
            return params, kernels.tile_max_backward(gy, of, kept, self._how[0])
        return params, kernels.max_pool_backward(gy, kept, of, *self._how)

    def _tiles(self) -> bool:
        """Tell whether the windows lie side by side, and y is all that is asked for."""
        kernel, stride, padding, dilation, ceil = self._how
        return not (self.return_indices or ceil or any(padding)) and stride == kernel and max(dilation) == 1

    def _fault(self, x: Tensor) -> str | None:
        return _too_short(x, self._how, self._how[3])


@frozen
class MaxPool1d(_MaxPool):
    """Largest element of each window of (N, channels, length), or (channels, length); arguments as in ``torch.nn.MaxPool1d``.

    The output has length ⌊(length + 2 padding - dilation (kernel_size - 1) - 1) / stride⌋ + 1, with ``ceil_mode`` ⌈⌉, but no
    window begins in the padding at the end. The padding is -∞. With ``return_indices`` y is a pair: the largest elements, and
    their indices in the flattened axes behind the channels, as ``MaxUnpool1d`` takes them. Of equal elements the first counts,
    of NaNs the last.

    Params   none.
    Cache    the indices, and the shape of ``x``; for windows side by side on a large ``x``, ``y`` and ``x``.
    Raises   ``ValueError`` for sizes below 1, a padding of more than half the kernel, and an ``x`` that is not floating, or has
             other axes, or is shorter than the window.
    Source   ``torch.nn.MaxPool1d``'s formula.
    """

    axes: ClassVar[int] = 1


@frozen
class MaxPool2d(_MaxPool):
    """Largest element of each window of (N, channels, height, width), or without N; arguments as in ``torch.nn.MaxPool2d``.

    Each size is one number for both axes, or a tuple of two; else as ``MaxPool1d``.

    Params   none.
    Cache    the indices, and the shape of ``x``; for windows side by side on a large ``x``, ``y`` and ``x``.
    Raises   ``ValueError`` as ``MaxPool1d`` does.
    Source   ``torch.nn.MaxPool2d``'s formula.
    """

    axes: ClassVar[int] = 2


@frozen
class MaxPool3d(_MaxPool):
    """Largest element of each window of (N, channels, depth, height, width), or without N; as ``torch.nn.MaxPool3d``.

    Each size is one number for all axes, or a tuple of three; else as ``MaxPool1d``.

    Params   none.
    Cache    the indices, and the shape of ``x``; for windows side by side on a large ``x``, ``y`` and ``x``.
    Raises   ``ValueError`` as ``MaxPool1d`` does.
    Source   ``torch.nn.MaxPool3d``'s formula.
    """

    axes: ClassVar[int] = 3


@frozen
class _AvgPool(Windowed):
    """Mean of each window."""

    kernel_size: Sizes = field(converter=hashable, validator=sizes(1))
    stride: Sizes | None = field(default=None, converter=hashable, validator=sizes(1, optional=True))
    padding: Sizes = field(default=0, converter=hashable, validator=sizes(0))
    ceil_mode: bool = field(default=False, validator=flag)
    count_include_pad: bool = field(default=True, validator=flag)
    divisor_override: int | None = field(default=None, validator=validators.optional(size))
    _how: tuple[Any, ...] = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        _settle(self, self.padding, self.ceil_mode, self.count_include_pad, self.divisor_override)

    def apply(self, params: Params, x: Tensor) -> tuple[Tensor, Mean]:
        return _averaged(self, params, x, self._how)

    def vjp(self, params: Params, cache: Mean, gy: Tensor) -> tuple[Params, Tensor]:
        of, shape = cache
        return params, kernels.avg_pool_backward(of_shape(self, gy, shape), of, *self._how)

    def _fault(self, x: Tensor) -> str | None:
        return _too_short(x, self._how, (1,) * self.axes)


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
    Source   ``torch.nn.AvgPool1d``'s formula.
    """

    axes: ClassVar[int] = 1


@frozen
class AvgPool2d(_AvgPool):
    """Mean of each window of (N, channels, height, width), or without N; arguments as in ``torch.nn.AvgPool2d``.

    Each size is one number for both axes, or a tuple of two; else as ``AvgPool1d``.

    Params   none.
    Cache    the shapes of ``x`` and ``y``.
    Raises   ``ValueError`` as ``AvgPool1d`` does.
    Source   ``torch.nn.AvgPool2d``'s formula.
    """

    axes: ClassVar[int] = 2


@frozen
class AvgPool3d(_AvgPool):
    """Mean of each window of (N, channels, depth, height, width), or without N; arguments as in ``torch.nn.AvgPool3d``.

    Each size is one number for all axes, or a tuple of three; else as ``AvgPool1d``.

    Params   none.
    Cache    the shapes of ``x`` and ``y``.
    Raises   ``ValueError`` as ``AvgPool1d`` does.
    Source   ``torch.nn.AvgPool3d``'s formula.
    """

    axes: ClassVar[int] = 3


@frozen
class _SumPool(Windowed):
    """Sum of each window."""

    kernel_size: Sizes = field(converter=hashable, validator=sizes(1))
    stride: Sizes | None = field(default=None, converter=hashable, validator=sizes(1, optional=True))
    padding: Sizes = field(default=0, converter=hashable, validator=sizes(0))
    ceil_mode: bool = field(default=False, validator=flag)
    _how: tuple[Any, ...] = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        _settle(self, self.padding, self.ceil_mode, True, 1)

    def apply(self, params: Params, x: Tensor) -> tuple[Tensor, Mean]:
        return _averaged(self, params, x, self._how)

    def vjp(self, params: Params, cache: Mean, gy: Tensor) -> tuple[Params, Tensor]:
        of, shape = cache
        return params, kernels.avg_pool_backward(of_shape(self, gy, shape), of, *self._how)

    def _fault(self, x: Tensor) -> str | None:
        return _too_short(x, self._how, (1,) * self.axes)


@frozen
class SumPool1d(_SumPool):
    """Sum of each window of (N, channels, length), or (channels, length); the padding is 0.

    Params   none.
    Cache    the shapes of ``x`` and ``y``.
    Raises   ``ValueError`` as ``AvgPool1d`` does.
    Source   elementary: ``AvgPool1d`` times the size of the window.
    """

    axes: ClassVar[int] = 1


@frozen
class SumPool2d(_SumPool):
    """Sum of each window of (N, channels, height, width), or without N; the padding is 0.

    Params   none.
    Cache    the shapes of ``x`` and ``y``.
    Raises   ``ValueError`` as ``AvgPool1d`` does.
    Source   elementary: ``AvgPool2d`` times the size of the window.
    """

    axes: ClassVar[int] = 2


@frozen
class SumPool3d(_SumPool):
    """Sum of each window of (N, channels, depth, height, width), or without N; the padding is 0.

    Params   none.
    Cache    the shapes of ``x`` and ``y``.
    Raises   ``ValueError`` as ``AvgPool1d`` does.
    Source   elementary: ``AvgPool3d`` times the size of the window.
    """

    axes: ClassVar[int] = 3


@frozen
class _LPPool(Windowed):
    """Norm of each window."""

    norm_type: float = field(validator=number(above=0.0))
    kernel_size: Sizes = field(converter=hashable, validator=sizes(1))
    stride: Sizes | None = field(default=None, converter=hashable, validator=sizes(1, optional=True))
    ceil_mode: bool = field(default=False, validator=flag)
    _how: tuple[Any, ...] = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        _settle(self, 0, self.ceil_mode, True, None)

    def apply(self, params: Params, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        of_axes(self, params, x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # powers overflow float16 where their root does not
        mean, _ = _averaged(self, params, wide**self.norm_type, self._how)
        y = (mean * math.prod(self._how[0])) ** (1 / self.norm_type)
        return y.to(x.dtype), (x, y)

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor) -> tuple[Params, Tensor]:
        x, y = cache
        of, p = kernels.origin(x, self.axes), self.norm_type
        g = torch.where(y == 0, 0, fitting(self, gy, y) * y ** (1 - p)) * math.prod(self._how[0])
        return params, (kernels.avg_pool_backward(g, of, *self._how) * x.to(y.dtype) ** (p - 1)).to(x.dtype)

    def _fault(self, x: Tensor) -> str | None:
        return _too_short(x, self._how, (1,) * self.axes)


@frozen
class LPPool1d(_LPPool):
    """p-norm, p = ``norm_type``, of each window of (N, channels, length), or (channels, length); as ``torch.nn.LPPool1d``.

    As there, nothing takes the absolute value: of negative elements an odd p has a negative sum, whose root is NaN, and a p that
    is not whole has NaN for each. A window whose sum is 0 has gradient 0. With ``ceil_mode``, what a last window has beyond the
    end counts as much as the mean of what it has within.

    Params   none.
    Cache    ``x`` and ``y``, this at least in single precision.
    Raises   ``ValueError`` for sizes below 1, a p that is not above 0, and an ``x`` that is not floating, or has other axes, or
             is shorter than the window.
    Source   ``torch.nn.LPPool1d``'s formula.
    """

    axes: ClassVar[int] = 1


@frozen
class LPPool2d(_LPPool):
    """p-norm of each window of (N, channels, height, width), or without N; as ``torch.nn.LPPool2d``; see ``LPPool1d``.

    Params   none.
    Cache    ``x`` and ``y``, this at least in single precision.
    Raises   ``ValueError`` as ``LPPool1d`` does.
    Source   ``torch.nn.LPPool2d``'s formula.
    """

    axes: ClassVar[int] = 2


@frozen
class LPPool3d(_LPPool):
    """p-norm of each window of (N, channels, depth, height, width), or without N; as ``torch.nn.LPPool3d``; see ``LPPool1d``.

    Params   none.
    Cache    ``x`` and ``y``, this at least in single precision.
    Raises   ``ValueError`` as ``LPPool1d`` does.
    Source   ``torch.nn.LPPool3d``'s formula.
    """

    axes: ClassVar[int] = 3
