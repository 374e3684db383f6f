"""Adaptive pooling: a given number of windows, as even as possible, covers x.

x (N, channels, ...) or (channels, ...). The indices t and i have one number for each axis (one to three). W[t] is the set of
elements in window t, and |W[t]| their number.
"""

from typing import Any, ClassVar

from attrs import field
from torch import Tensor

from funcnet.checks import check_gy, kind_of
from funcnet.contract import Grads, Params, Rng, Shape
from funcnet.errors import MOST, flag, is_whole, valid_if
from funcnet.kernels import adaptive_pooling as kernels
from funcnet.kernels.windows import Origin, origin
from funcnet.layers.conv.window import Windowed, axes_complaint, each, hashable, require_axes
from funcnet.value import frozen


def _is_output_size(entry: Any) -> bool:
    return entry is None or (is_whole(entry) and entry >= 1)


output_sizes = valid_if(_is_output_size, "a whole number of at least 1 or None", several=True, most=MOST)
"""Validate output sizes: one for all axes, or a tuple with one for each; ``None`` is the length of x."""


def sizes_for(layer: Any, x: Tensor) -> Shape:
    """Return the output sizes, with the lengths of x for ``None``."""
    pairs = zip(each(layer.output_size, layer.axes), x.shape[-layer.axes :], strict=True)
    return tuple([length if n is None else n for n, length in pairs])


def empty_complaint(x: Tensor, axes: int) -> str | None:
    """Complain about an x with an empty axis, which leaves nothing to reduce."""
    return "x must have no empty axis except the batch" if 0 in x.shape[-axes - 1 :] else None


@frozen
class _AdaptivePool(Windowed):
    """Windows that cover x."""

    output_size: int | tuple[int | None, ...] | None = field(converter=hashable, validator=output_sizes)

    def complaint(self, x: Tensor) -> str | None:
        return axes_complaint(x, self.axes) or empty_complaint(x, self.axes)


@frozen
class _AdaptiveAvgPool(_AdaptivePool):
    """Means of windows that cover x."""

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Origin, Shape, Tensor]]:
        require_axes(self, params, x)
        y = kernels.adaptive_avg_pool(x, sizes_for(self, x))
        return y, (origin(x, self.axes), tuple(y.shape), kind_of(x))

    def vjp(self, params: Params, cache: tuple[Origin, Shape, Tensor], gy: Tensor) -> tuple[Grads, Tensor]:
        of, shape, kind = cache
        return params, kernels.adaptive_avg_pool_backward(check_gy(self, gy, shape, kind), of, self.axes)


@frozen
class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """Mean of each of ``output_size`` windows that cover x along one axis.

        y[t]  = Σ_{i in W[t]} x[i] / |W[t]|
        gx[i] = Σ gy[t] / |W[t]| over the t whose window contains i

    Rows and channels are pooled separately. W[t] runs from ⌊t L / T⌋ to ⌈(t + 1) L / T⌉ - 1, for T windows on length L. The
    windows are as even as possible, and can overlap.

    Args:
        output_size: Number of windows; ``None`` for the length of x.

    Shape:
        x (N, channels, L) → y (N, channels, output_size), or both without N.

    Cache:
        The shapes of ``x`` and ``y``, and an empty tensor of the dtype and device of ``x``.

    Raises:
        ValueError: If an axis of x other than the batch is empty.

    References:
        ``torch.nn.AdaptiveAvgPool1d``.

    >>> import torch
    >>> AdaptiveAvgPool1d(3)({}, torch.ones(2, 3, 10)).shape
    torch.Size([2, 3, 3])
    """

    axes: ClassVar[int] = 1


@frozen
class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """Mean of each of ``output_size`` windows that cover x over two axes.

        y[t]  = Σ_{i in W[t]} x[i] / |W[t]|
        gx[i] = Σ gy[t] / |W[t]| over the t whose window contains i

    Rows and channels are pooled separately. t and i are pairs of indices, one for each axis. Along each axis, W[t] runs from ⌊t L
    / T⌋ to ⌈(t + 1) L / T⌉ - 1, for T windows on length L. The windows are as even as possible, and can overlap.

    Args:
        output_size: Number of windows; one number for both axes, or a tuple of two; ``None`` for the length of x.

    Shape:
        x (N, channels, H, W) → y (N, channels, *output_size), or both without N.

    Cache:
        The shapes of ``x`` and ``y``, and an empty tensor of the dtype and device of ``x``.

    Raises:
        ValueError: If an axis of x other than the batch is empty.

    References:
        ``torch.nn.AdaptiveAvgPool2d``.

    >>> import torch
    >>> AdaptiveAvgPool2d((3, None))({}, torch.ones(2, 3, 8, 8)).shape
    torch.Size([2, 3, 3, 8])
    """

    axes: ClassVar[int] = 2


@frozen
class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """Mean of each of ``output_size`` windows that cover x over three axes.

        y[t]  = Σ_{i in W[t]} x[i] / |W[t]|
        gx[i] = Σ gy[t] / |W[t]| over the t whose window contains i

    Rows and channels are pooled separately. t and i are triples of indices, one for each axis. Along each axis, W[t] runs from ⌊t
    L / T⌋ to ⌈(t + 1) L / T⌉ - 1, for T windows on length L. The windows are as even as possible, and can overlap.

    Args:
        output_size: Number of windows; one number for all axes, or a tuple of three; ``None`` for the length of x.

    Shape:
        x (N, channels, D, H, W) → y (N, channels, *output_size), or both without N.

    Cache:
        The shapes of ``x`` and ``y``, and an empty tensor of the dtype and device of ``x``.

    Raises:
        ValueError: If an axis of x other than the batch is empty.

    References:
        ``torch.nn.AdaptiveAvgPool3d``.

    >>> import torch
    >>> AdaptiveAvgPool3d(1)({}, torch.ones(2, 3, 4, 8, 8)).shape
    torch.Size([2, 3, 1, 1, 1])
    """

    axes: ClassVar[int] = 3


@frozen
class _AdaptiveMaxPool(_AdaptivePool):
    """Largest elements of windows that cover x."""

    return_indices: bool = field(default=False, validator=flag)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Any, tuple[Tensor, Origin, Tensor]]:
        require_axes(self, params, x)
        y, indices = kernels.adaptive_max_pool(x, sizes_for(self, x))
        return (y, indices) if self.return_indices else y, (indices, origin(x, self.axes), kind_of(x))

    def vjp(self, params: Params, cache: tuple[Tensor, Origin, Tensor], gy: Any) -> tuple[Grads, Tensor]:
        indices, of, kind = cache
        gy = check_gy(self, gy[0] if self.return_indices else gy, indices.shape, kind)
        return params, kernels.adaptive_max_pool_backward(gy, indices, of, self.axes)


@frozen
class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """Largest element of each of ``output_size`` windows that cover x along one axis.

        y[t]  = max_{i in W[t]} x[i]
        gx[i] = Σ gy[t] over the t whose maximum is at i

    Rows and channels are pooled separately. W[t] runs from ⌊t L / T⌋ to ⌈(t + 1) L / T⌉ - 1, for T windows on length L. The
    windows are as even as possible, and can overlap. Ties go to the first element.

    Args:
        output_size: Number of windows; ``None`` for the length of x.
        return_indices: Whether y is a pair (values, indices). The indices are positions in the flattened axes after the channels.

    Shape:
        x (N, channels, L) → y (N, channels, output_size), or both without N; with ``return_indices`` a pair of them.

    Cache:
        The indices, the shape of ``x``, and an empty tensor of the dtype and device of ``x``.

    Raises:
        ValueError: If an axis of x other than the batch is empty.

    References:
        ``torch.nn.AdaptiveMaxPool1d``.
    """

    axes: ClassVar[int] = 1


@frozen
class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """Largest element of each of ``output_size`` windows that cover x over two axes.

        y[t]  = max_{i in W[t]} x[i]
        gx[i] = Σ gy[t] over the t whose maximum is at i

    Rows and channels are pooled separately. t and i are pairs of indices, one for each axis. Along each axis, W[t] runs from ⌊t L
    / T⌋ to ⌈(t + 1) L / T⌉ - 1, for T windows on length L. The windows are as even as possible, and can overlap. Ties go to the
    first element.

    Args:
        output_size: Number of windows; one number for both axes, or a tuple of two; ``None`` for the length of x.
        return_indices: Whether y is a pair (values, indices). The indices are positions in the flattened axes after the channels.

    Shape:
        x (N, channels, H, W) → y (N, channels, *output_size), or both without N; with ``return_indices`` a pair of them.

    Cache:
        The indices, the shape of ``x``, and an empty tensor of the dtype and device of ``x``.

    Raises:
        ValueError: If an axis of x other than the batch is empty.

    References:
        ``torch.nn.AdaptiveMaxPool2d``.
    """

    axes: ClassVar[int] = 2


@frozen
class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """Largest element of each of ``output_size`` windows that cover x over three axes.

        y[t]  = max_{i in W[t]} x[i]
        gx[i] = Σ gy[t] over the t whose maximum is at i

    Rows and channels are pooled separately. t and i are triples of indices, one for each axis. Along each axis, W[t] runs from ⌊t
    L / T⌋ to ⌈(t + 1) L / T⌉ - 1, for T windows on length L. The windows are as even as possible, and can overlap. Ties go to the
    first element.

    Args:
        output_size: Number of windows; one number for all axes, or a tuple of three; ``None`` for the length of x.
        return_indices: Whether y is a pair (values, indices). The indices are positions in the flattened axes after the channels.

    Shape:
        x (N, channels, D, H, W) → y (N, channels, *output_size), or both without N; with ``return_indices`` a pair of them.

    Cache:
        The indices, the shape of ``x``, and an empty tensor of the dtype and device of ``x``.

    Raises:
        ValueError: If an axis of x other than the batch is empty.

    References:
        ``torch.nn.AdaptiveMaxPool3d``.
    """

    axes: ClassVar[int] = 3
