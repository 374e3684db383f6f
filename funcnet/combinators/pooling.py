"""Pooling by any layer: a window slides along x, and a layer reduces what it sees to one number.

    y[t]   = f(x[s t + d k - p], k = 0 ... K - 1)         f reduces the last axis
    gx[i]  = Σ g[t, k] over the t, k with s t + d k - p = i,  where g[t] is f's vjp of gy[t]

for each row and channel; s = stride, d = dilation, p = padding, the K elements of a window in one axis. ``Reduced`` is what
``adaptive_windows`` has in common with it.
"""

import math
from typing import Any, ClassVar

from attrs import field
from torch import Tensor

from funcnet.checks import check_gy
from funcnet.combinator import errors_at, layers_only
from funcnet.contract import Cache, Grads, Layer, Params, Rng, Shape
from funcnet.errors import describe, value_error, whole_numbers
from funcnet.kernels import conv as kernels
from funcnet.layers.conv.window import Sizes, Window, axes_complaint, each, hashable
from funcnet.value import frozen
from funcnet.wrapper import Wrapper

_Kept = tuple[Cache, Shape, Shape]
"""The layer's cache, and the shapes of x and y."""


def _a_number(pool: Any, attribute: Any, got: Any) -> None:
    if not isinstance(got, (int, float)) or isinstance(got, bool) or math.isnan(got):
        raise value_error(type(pool).__name__, "padding_value must be a number", repr(got))


class Reduced(Wrapper):
    """Windows over ``axes`` axes, each reduced by a layer, whose params are the pooling's."""

    __slots__ = ()

    axes: ClassVar[int]

    def inner_cache(self, cache: Any) -> Cache:
        return cache[0]

    def _rows(self, x: Any) -> Tensor:
        """Return x, which must be floating and have the axes, with a batch axis."""
        rule = axes_complaint(x, self.axes)
        if rule:
            raise value_error(self, rule, f"x of shape {tuple(x.shape)}" if "axes" in rule else describe(x))
        rows: Tensor = x if x.dim() == self.axes + 2 else x.unsqueeze(0)
        return rows

    def _placed(self, y: Any, seen: Tensor) -> Tensor:
        """Return y, which must have one number for each window, as it is."""
        if not isinstance(y, Tensor) or y.shape != seen.shape[:-1]:
            rule = f"{self.layer!r} must reduce the last axis of windows of shape {tuple(seen.shape)} alone"
            raise value_error(self, rule, f"an output of shape {tuple(y.shape)}" if isinstance(y, Tensor) else describe(y))
        return y

    def _columns(self, gy: Tensor, shape: Shape) -> Tensor:
        """Return gy with the axes that y has of the reducer."""
        rows = check_gy(self, gy, shape) if len(shape) == self.axes + 2 else check_gy(self, gy, shape).unsqueeze(0)
        return rows.flatten(2)


@frozen
class _Pool(Reduced):
    """Windows that slide."""

    layer: Layer = field(validator=layers_only)
    kernel_size: Sizes = field(converter=hashable, validator=whole_numbers(1))
    stride: Sizes | None = field(default=None, converter=hashable, validator=whole_numbers(1, optional=True))
    padding: Sizes = field(default=0, converter=hashable, validator=whole_numbers(0))
    dilation: Sizes = field(default=1, converter=hashable, validator=whole_numbers(1))
    padding_value: float = field(default=0.0, validator=_a_number)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, _Kept]:
        seen, shape = self._seen(x)
        with errors_at(self, ""):
            y, cache = self.layer.apply(params, seen, rng)
        return self._placed(y, seen).reshape(shape), (cache, tuple(x.shape), shape)

    def __call__(self, params: Params, x: Tensor, rng: Rng = None) -> Tensor:
        seen, shape = self._seen(x)
        with errors_at(self, ""):
            y = self.layer(params, seen, rng)
        return self._placed(y, seen).reshape(shape)

    def vjp(self, params: Params, cache: _Kept, gy: Tensor) -> tuple[Grads, Tensor]:
        with errors_at(self, ""):
            gparams, g = self.layer.vjp(params, cache[0], self._columns(gy, cache[2]))
        return gparams, self._folded(g, cache[1])

    def grads(self, params: Params, cache: _Kept, gy: Tensor) -> Grads:
        with errors_at(self, ""):
            return self.layer.grads(params, cache[0], self._columns(gy, cache[2]))

    def input_grad(self, params: Params, cache: _Kept, gy: Tensor) -> Tensor:
        with errors_at(self, ""):
            g = self.layer.input_grad(params, cache[0], self._columns(gy, cache[2]))
        return self._folded(g, cache[1])

    def _seen(self, x: Tensor) -> tuple[Tensor, Shape]:
        """Return what the windows see, (N, channels, windows, elements), N = 1 where x has none; and the shape of y."""
        rows = self._rows(x)
        window, lengths = self._window(), tuple(x.shape[-self.axes :])
        places = window.places(lengths)
        if min(places) < 1:
            rule = f"x with its padding must be as long as the window's reach, {window.reach()}"
            raise value_error(self, rule, f"x of shape {tuple(x.shape)}")
        padded = kernels.pad_by(rows, window.before, window.after, self.padding_value)
        seen = kernels.windows(padded, window.kernel, window.stride, window.dilation, places)
        return seen.transpose(2, 3), (*x.shape[: x.dim() - self.axes], *places)

    def _folded(self, g: Tensor, shape: Shape) -> Tensor:
        """Add up what each element of x has from all windows that see it."""
        window, lengths = self._window(), shape[-self.axes :]
        padded = [n + b + a for n, b, a in zip(lengths, window.before, window.after, strict=True)]
        how = (window.kernel, window.stride, window.dilation, window.places(lengths))
        gx = kernels.windows_backward(g.transpose(2, 3), padded, *how)
        return kernels.pad_backward(gx, window.before, window.after, "zeros").reshape(shape)

    def _window(self) -> Window:
        kernel, padding = each(self.kernel_size, self.axes), each(self.padding, self.axes)
        stride = kernel if self.stride is None else each(self.stride, self.axes)
        return Window(kernel, stride, each(self.dilation, self.axes), padding, padding)


@frozen
class Pool1d(_Pool):
    """What ``layer`` makes of each window of (N, channels, length), or (channels, length): ``Pool1d(Std(-1), 3)``.

    The layer reduces the last of the axes (N, channels, windows, elements): ``Prod(-1)``, ``LogSumExp()``, or
    one with params, ``serial(Linear(3, 1), Squeeze(-1))``. The windows are those of ``MaxPool1d`` without ``ceil_mode``; what
    the padding holds is ``padding_value``, which may be infinite. What the windows see is copied, so that a pooling with a
    name, where there is one, is faster: the mean of 2×2 of 64×16×28×28 takes 1.0 ms, by ``AvgPool2d`` 0.5.

    Params   the reducer's.
    Cache    the reducer's, and the shapes of ``x`` and ``y``.
    Raises   ``ValueError`` for a reducer that is no layer, or reduces anything but the last axis, for sizes below 1, and an ``x``
             that is not floating, or has other axes, or is shorter than the window; the reducer's own errors get a note.
    Source   ``flax.linen.pool``, whose ``reduce_fn`` takes two numbers where ours is a layer.
    """

    axes: ClassVar[int] = 1


@frozen
class Pool2d(_Pool):
    """What ``layer`` makes of each window of (N, channels, height, width), or without N.

    Each size is one number for both axes, or a tuple of two; the elements of a window stand row by row; else as ``Pool1d``.

    Params   the reducer's.
    Cache    the reducer's, and the shapes of ``x`` and ``y``.
    Raises   ``ValueError`` as ``Pool1d`` does.
    Source   ``flax.linen.pool``, whose ``reduce_fn`` takes two numbers where ours is a layer.
    """

    axes: ClassVar[int] = 2


@frozen
class Pool3d(_Pool):
    """What ``layer`` makes of each window of (N, channels, depth, height, width), or without N.

    Each size is one number for all axes, or a tuple of three; else as ``Pool1d``.

    Params   the reducer's.
    Cache    the reducer's, and the shapes of ``x`` and ``y``.
    Raises   ``ValueError`` as ``Pool1d`` does.
    Source   ``flax.linen.pool``, whose ``reduce_fn`` takes two numbers where ours is a layer.
    """

    axes: ClassVar[int] = 3
