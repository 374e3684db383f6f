"""Pooling to a given size by any layer: windows cover x, as even as they can be, and a layer reduces what each sees to a number.

    y[t]   = f(x[i], i in W[t])                         f reduces the last axis
    gx[i]  = Σ g[t, i] over the t whose window has i,   where g[t] is f's vjp of gy[t]

for each row and channel; W[t] runs from ⌊t L / T⌋ to before ⌈(t + 1) L / T⌉ along each axis, for T windows on a length L, and
its elements stand in one axis.
"""

import itertools
import math
from typing import Any, ClassVar

import torch
from attrs import field
from torch import Tensor

from funcnet.combinator import errors_at, layers_only
from funcnet.combinators.pooling import Reduced
from funcnet.combinators.sharing import Shared
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import MANY, value_error
from funcnet.layers.conv.window import hashable
from funcnet.layers.pooling.adaptive import empty_complaint, output_sizes, sizes_for
from funcnet.value import frozen


@frozen
class _EachWindow(Shared):
    """The layer on every window, in turn."""

    def location(self, name: Any) -> str:
        return f"window {name}"


@frozen
class _AdaptivePool(Reduced):
    """Windows that cover x, as even as they can be, one after the other: they are not all of one size."""

    layer: Layer = field(validator=layers_only)
    output_size: int | tuple[int | None, ...] | None = field(converter=hashable, validator=output_sizes)
    _each: "_EachWindow" = field(init=False, eq=False)  # no value can be made in compiled code

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_each", _EachWindow(self.layer))

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Any]:
        seen, shape = self._seen(x)
        with errors_at(self, ""):
            ys, cache = self._each.apply(params, seen, rng)
        return self._joined(ys, seen, shape), (cache, tuple(x.shape), shape)

    def __call__(self, params: Params, x: Tensor, rng: Rng = None) -> Tensor:
        seen, shape = self._seen(x)
        with errors_at(self, ""):
            ys = self._each(params, seen, rng)
        return self._joined(ys, seen, shape)

    def vjp(self, params: Params, cache: Any, gy: Tensor) -> tuple[Grads, Tensor]:
        with errors_at(self, ""):
            gparams, gs = self._each.vjp(params, cache[0], self._columns(gy, cache[2]).unbind(2))
        return gparams, self._gathered(gs, *cache[1:])

    def grads(self, params: Params, cache: Any, gy: Tensor) -> Grads:
        with errors_at(self, ""):
            return self._each.grads(params, cache[0], self._columns(gy, cache[2]).unbind(2))

    def input_grad(self, params: Params, cache: Any, gy: Tensor) -> Tensor:
        with errors_at(self, ""):
            gs = self._each.input_grad(params, cache[0], self._columns(gy, cache[2]).unbind(2))
        return self._gathered(gs, *cache[1:])

    def update_stats(self, params: Params, cache: Any) -> Params:
        with errors_at(self, ""):
            return self._each.update_stats(params, cache[0])

    def _seen(self, x: Tensor) -> tuple[tuple[Tensor, ...], Shape]:
        """Return what each window sees, (N, channels, elements), N = 1 where x has none; and the shape of y."""
        rows, rule = self._rows(x), empty_complaint(x, self.axes)
        if rule:
            raise value_error(self, rule, f"x of shape {tuple(x.shape)}")
        counts, lengths = sizes_for(self, x), tuple(x.shape[-self.axes :])
        if math.prod(counts) > MANY:
            rule = f"output_size must be at most {MANY} windows, which go through the layer in turn"
            raise value_error(self, rule, str(counts))
        seen = tuple([rows[(..., *at)].flatten(2) for at in _cells(lengths, counts)])
        return seen, (*x.shape[: x.dim() - self.axes], *counts)

    def _joined(self, ys: tuple[Any, ...], seen: tuple[Tensor, ...], shape: Shape) -> Tensor:
        placed = [self._placed(y, one) for y, one in zip(ys, seen, strict=True)]
        return torch.stack(placed, -1).reshape(shape)

    def _gathered(self, gs: tuple[Tensor, ...], shape: Shape, counts: Shape) -> Tensor:
        """Add up what each element of x has from all windows that see it."""
        gx = gs[0].new_zeros((*gs[0].shape[:2], *shape[-self.axes :]))
        for at, g in zip(_cells(shape[-self.axes :], counts[-self.axes :]), gs, strict=True):
            part = gx[(..., *at)]
            part.add_(g.reshape(part.shape))
        return gx.reshape(shape)


def _cells(lengths: Shape, counts: Shape) -> list[Any]:
    """Return where each window is along each axis, the last axis first to move."""
    along = [
        [slice(t * n // count, -(-(t + 1) * n // count)) for t in range(count)] for n, count in zip(lengths, counts, strict=True)
    ]
    return list(itertools.product(*along))


@frozen
class AdaptivePool1d(_AdaptivePool):
    """What ``layer`` makes of each of ``output_size`` windows that cover (N, channels, length), or (channels, length).

    The windows are those of ``AdaptiveAvgPool1d``, and of different sizes where the length does not divide; the reducer, a
    layer that reduces the last of the axes (N, channels, elements), takes one after the other, as ``shared`` does. For means
    and maxima of many windows there are faster layers.

    Params   the reducer's.
    Cache    the reducer's for each window, and the shapes of ``x`` and ``y``.
    Raises   ``ValueError`` for a reducer that is no layer, or reduces anything but the last axis, for a size below 1, and an
             ``x`` that is not floating, or has other axes, or an empty one but the batch; the reducer's own errors get a note.
    Source   ``torch.nn.AdaptiveAvgPool1d``'s windows; the reducer as in Equinox's ``AdaptivePool``, Kidger & Garcia 2021.
    """

    axes: ClassVar[int] = 1


@frozen
class AdaptivePool2d(_AdaptivePool):
    """What ``layer`` makes of each window that covers a part of (N, channels, height, width), or without N.

    The size is one number for both axes, or a tuple of two, ``None`` for the length of x; else as ``AdaptivePool1d``.

    Params   the reducer's.
    Cache    the reducer's for each window, and the shapes of ``x`` and ``y``.
    Raises   ``ValueError`` as ``AdaptivePool1d`` does.
    Source   ``torch.nn.AdaptiveAvgPool2d``'s windows; the reducer as in Equinox's ``AdaptivePool``, Kidger & Garcia 2021.
    """

    axes: ClassVar[int] = 2


@frozen
class AdaptivePool3d(_AdaptivePool):
    """What ``layer`` makes of each window that covers a part of (N, channels, depth, height, width), or without N.

    The size is one number for all axes, or a tuple of three, ``None`` for the length of x; else as ``AdaptivePool1d``.

    Params   the reducer's.
    Cache    the reducer's for each window, and the shapes of ``x`` and ``y``.
    Raises   ``ValueError`` as ``AdaptivePool1d`` does.
    Source   ``torch.nn.AdaptiveAvgPool3d``'s windows; the reducer as in Equinox's ``AdaptivePool``, Kidger & Garcia 2021.
    """

    axes: ClassVar[int] = 3
