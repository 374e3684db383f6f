"""Pooling to a given size: windows that cover x, as even as they can be, and one window for all of it.

    AdaptiveAvgPool   y[t] = Σ_{i in W[t]} x[i] / |W[t]|         gx[i] = Σ gy[t] / |W[t]| over the t whose window has i
    AdaptiveMaxPool   y[t] = max_{i in W[t]} x[i]                gx[i] = Σ gy[t] over the t whose maximum stands at i
    GlobalAvgPool     y = Σ x / m                                gx = gy / m
    GlobalSumPool     y = Σ x                                    gx = gy
    GlobalMaxPool     y = max x                                  gx = gy at the first maximum, else 0

W[t] runs from ⌊t L / T⌋ to before ⌈(t + 1) L / T⌉ along each axis, for T windows on a length L; m elements stand behind the
channel.
"""

import math
from typing import Any, ClassVar

from attrs import field
from torch import Tensor

from funcnet.checks import Misfit, check_gy, floating_complaint, kind_of, require_dense_floating
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import MOST, flag, is_whole, valid_if
from funcnet.kernels import adaptive_pooling as kernels
from funcnet.kernels.index_pooling import scatter_to_index
from funcnet.kernels.windows import Origin, origin
from funcnet.layers.conv.window import Windowed, axes_complaint, each, hashable, require_axes
from funcnet.value import frozen


def _is_output_size(entry: Any) -> bool:
    return entry is None or (is_whole(entry) and entry >= 1)


output_sizes = valid_if(_is_output_size, "a whole number of at least 1 or None", several=True, most=MOST)
"""Validate output sizes, one for all axes or a tuple with one for each; ``None`` is the length of x."""


def sizes_for(layer: Any, x: Tensor) -> Shape:
    """Return the output sizes, with the lengths of x where they are ``None``."""
    pairs = zip(each(layer.output_size, layer.axes), x.shape[-layer.axes :], strict=True)
    return tuple([length if n is None else n for n, length in pairs])


def empty_complaint(x: Tensor, axes: int) -> str | None:
    """Complain of an x with an empty axis, of which there is nothing to reduce."""
    return "x must have no empty axis but the batch" if 0 in x.shape[-axes - 1 :] else None


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
    """Mean of each of ``output_size`` windows over (N, channels, length), or (channels, length); as in ``torch.nn``.

    The windows are as even as they can be, and may share elements; ``output_size=None`` is the length of x.

    Params   none.
    Cache    the shapes of ``x`` and ``y``, and an empty tensor of the dtype and device of ``x``.
    Raises   ``ValueError`` for a size below 1, an ``x`` that is not floating, or has other axes, or an empty one but the batch,
             and a ``gy`` that has not the shape of ``y``.
    Source   ``torch.nn.AdaptiveAvgPool1d``'s formula.
    """

    axes: ClassVar[int] = 1


@frozen
class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """Mean of each of ``output_size`` windows over (N, channels, height, width), or without N; as in ``torch.nn``.

    The size is one number for both axes, or a tuple of two; ``None`` is the length of x.

    Params   none.
    Cache    the shapes of ``x`` and ``y``, and an empty tensor of the dtype and device of ``x``.
    Raises   ``ValueError`` as ``AdaptiveAvgPool1d`` does.
    Source   ``torch.nn.AdaptiveAvgPool2d``'s formula.
    """

    axes: ClassVar[int] = 2


@frozen
class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """Mean of each of ``output_size`` windows over (N, channels, depth, height, width), or without N; as in ``torch.nn``.

    The size is one number for all axes, or a tuple of three; ``None`` is the length of x.

    Params   none.
    Cache    the shapes of ``x`` and ``y``, and an empty tensor of the dtype and device of ``x``.
    Raises   ``ValueError`` as ``AdaptiveAvgPool1d`` does.
    Source   ``torch.nn.AdaptiveAvgPool3d``'s formula.
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
    """Largest element of each of ``output_size`` windows over (N, channels, length), or (channels, length); as in ``torch.nn``.

    The windows are those of ``AdaptiveAvgPool1d``. With ``return_indices`` y is a pair, as that of ``MaxPool1d``. Of equal
    elements the first counts.

    Params   none.
    Cache    the indices, the shape of ``x``, and an empty tensor of the dtype and device of ``x``.
    Raises   ``ValueError`` as ``AdaptiveAvgPool1d`` does.
    Source   ``torch.nn.AdaptiveMaxPool1d``'s formula.
    """

    axes: ClassVar[int] = 1


@frozen
class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """Largest element of each of ``output_size`` windows over (N, channels, height, width), or without N; as in ``torch.nn``.

    The size is one number for both axes, or a tuple of two; ``None`` is the length of x.

    Params   none.
    Cache    the indices, the shape of ``x``, and an empty tensor of the dtype and device of ``x``.
    Raises   ``ValueError`` as ``AdaptiveAvgPool1d`` does.
    Source   ``torch.nn.AdaptiveMaxPool2d``'s formula.
    """

    axes: ClassVar[int] = 2


@frozen
class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """Largest element of each of ``output_size`` windows over (N, channels, depth, height, width), or without N.

    As in ``torch.nn``: the size is one number for all axes, or a tuple of three; ``None`` is the length of x.

    Params   none.
    Cache    the indices, the shape of ``x``, and an empty tensor of the dtype and device of ``x``.
    Raises   ``ValueError`` as ``AdaptiveAvgPool1d`` does.
    Source   ``torch.nn.AdaptiveMaxPool3d``'s formula.
    """

    axes: ClassVar[int] = 3


@frozen
class _Global(Layer):
    """Pooling over all axes after the channels."""

    keepdim: bool = field(default=False, validator=flag)

    def complaint(self, x: Tensor) -> str | None:
        rule = "x must have the axes (N, channels, ...), with one or more after the channels"
        return floating_complaint(x) or (rule if x.dim() < 3 else None)

    def _pooled_axes(self, params: Params, x: Tensor) -> Shape:
        """Return the axes after the channels."""
        if require_dense_floating(self, params, x).dim() < 3:
            raise Misfit  # without axes torch reduces all
        return tuple(range(2, x.dim()))

    def _column(self, gy: Tensor, shape: Shape, kind: Tensor) -> Tensor:
        """Return gy as (N, channels, 1)."""
        want = (*shape[:2], *[1] * (len(shape) - 2)) if self.keepdim else shape[:2]
        return check_gy(self, gy, want, kind).reshape(*shape[:2], 1)


@frozen
class GlobalAvgPool(_Global):
    """Mean over all axes behind the channels: (N, channels, ...) to (N, channels), or with ``keepdim`` 1 for each of them.

    Params   none.
    Cache    the shape of ``x``, and an empty tensor of its dtype and device.
    Raises   ``ValueError`` when ``x`` is not a floating tensor, or has no axis behind the channels, and when ``gy`` has not the
             shape of ``y``.
    Source   Lin, Chen & Yan 2014, "Network in network", section 3.2.
    """

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Shape, Tensor]]:
        axes = self._pooled_axes(params, x)
        return x.mean(axes, self.keepdim), (tuple(x.shape), kind_of(x))

    def vjp(self, params: Params, cache: tuple[Shape, Tensor], gy: Tensor) -> tuple[Grads, Tensor]:
        g, (shape, _) = self._column(gy, *cache), cache
        return params, (g / math.prod(shape[2:])).reshape(*shape[:2], *[1] * (len(shape) - 2)).expand(shape)


@frozen
class GlobalSumPool(_Global):
    """Sum over all axes behind the channels: (N, channels, ...) to (N, channels), or with ``keepdim`` 1 for each of them.

    Params   none.
    Cache    the shape of ``x``, and an empty tensor of its dtype and device.
    Raises   ``ValueError`` as ``GlobalAvgPool`` does.
    Source   elementary.
    """

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Shape, Tensor]]:
        axes = self._pooled_axes(params, x)
        return x.sum(axes, self.keepdim), (tuple(x.shape), kind_of(x))

    def vjp(self, params: Params, cache: tuple[Shape, Tensor], gy: Tensor) -> tuple[Grads, Tensor]:
        g, (shape, _) = self._column(gy, *cache), cache
        return params, g.reshape(*shape[:2], *[1] * (len(shape) - 2)).expand(shape)


@frozen
class GlobalMaxPool(_Global):
    """Largest element over all axes behind the channels: (N, channels, ...) to (N, channels), or with ``keepdim`` 1 for each.

    Of equal elements the first has the gradient.

    Params   none.
    Cache    the index of the largest in the flattened axes, the shape of ``x``, and an empty tensor of its dtype and device.
    Raises   ``ValueError`` as ``GlobalAvgPool`` does, and when one of these axes is empty.
    Source   elementary; ``GlobalAvgPool`` with the largest element in place of the mean.
    """

    def __call__(self, params: Params, x: Tensor, rng: Rng = None) -> Tensor:
        return x.amax(self._pooled_axes(params, x), self.keepdim)  # on 64×16×28×28 a twentieth of the time that indices take

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Shape, Tensor]]:
        axes = self._pooled_axes(params, x)
        y, index = x.flatten(2).max(2, keepdim=True)
        return y.reshape(*y.shape[:2], *[1] * len(axes) * self.keepdim), (index, tuple(x.shape), kind_of(x))

    def vjp(self, params: Params, cache: tuple[Tensor, Shape, Tensor], gy: Tensor) -> tuple[Grads, Tensor]:
        index, shape, kind = cache
        return params, scatter_to_index(self._column(gy, shape, kind), index, (math.prod(shape[2:]),)).reshape(shape)

    def complaint(self, x: Tensor) -> str | None:
        return super().complaint(x) or ("x must have no empty axis after the channels" if 0 in x.shape[2:] else None)
