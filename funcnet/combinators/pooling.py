"""Pooling with any layer: a window slides along x, and a layer reduces its contents to one number.

    y[t]   = f(x[s t + d k - p], k = 0 ... K - 1)         f reduces the last axis
    gx[i]  = Σ g[t, k] over s t + d k - p = i             g[t] = gradient of f at window t, from gy[t]

The formulas hold for each row and channel, with s = stride, d = dilation, p = padding. The layer gets the K elements of a window
along one axis.
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
"""The layer's cache and the shapes of x and y."""


def _validate_padding_value(pool: Any, attribute: Any, got: Any) -> None:
    if not isinstance(got, (int, float)) or isinstance(got, bool) or math.isnan(got):
        raise value_error(type(pool).__name__, "padding_value must be a number", repr(got))


class Reduced(Wrapper):
    """Base of the poolings: windows over ``axes`` axes, each reduced by a layer. The params are the layer's."""

    __slots__ = ()

    axes: ClassVar[int]

    def inner_cache(self, cache: Any) -> Cache:
        return cache[0]

    def _rows(self, x: Any) -> Tensor:
        """Return x with a batch axis, after checking its dtype and axes."""
        rule = axes_complaint(x, self.axes)
        if rule:
            raise value_error(self, rule, f"x of shape {tuple(x.shape)}" if "axes" in rule else describe(x))
        rows: Tensor = x if x.dim() == self.axes + 2 else x.unsqueeze(0)
        return rows

    def _require_numbers(self, y: Any, seen: Tensor) -> Tensor:
        """Return y, after checking that it has one number for each window."""
        if not isinstance(y, Tensor) or y.shape != seen.shape[:-1]:
            rule = f"{self.layer!r} must reduce only the last axis of windows of shape {tuple(seen.shape)}"
            raise value_error(self, rule, f"an output of shape {tuple(y.shape)}" if isinstance(y, Tensor) else describe(y))
        return y

    def _columns(self, gy: Tensor, shape: Shape) -> Tensor:
        """Return gy with the axes of the layer's output."""
        rows = check_gy(self, gy, shape) if len(shape) == self.axes + 2 else check_gy(self, gy, shape).unsqueeze(0)
        return rows.flatten(2)


@frozen
class _Pool(Reduced):
    """Base of poolings with a sliding window."""

    layer: Layer = field(validator=layers_only)
    kernel_size: Sizes = field(converter=hashable, validator=whole_numbers(1))
    stride: Sizes | None = field(default=None, converter=hashable, validator=whole_numbers(1, optional=True))
    padding: Sizes = field(default=0, converter=hashable, validator=whole_numbers(0))
    dilation: Sizes = field(default=1, converter=hashable, validator=whole_numbers(1))
    padding_value: float = field(default=0.0, validator=_validate_padding_value)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, _Kept]:
        seen, shape = self._extract_windows(x)
        with errors_at(self, ""):
            y, cache = self.layer.apply(params, seen, rng)
        return self._require_numbers(y, seen).reshape(shape), (cache, tuple(x.shape), shape)

    def __call__(self, params: Params, x: Tensor, rng: Rng = None) -> Tensor:
        seen, shape = self._extract_windows(x)
        with errors_at(self, ""):
            y = self.layer(params, seen, rng)
        return self._require_numbers(y, seen).reshape(shape)

    def vjp(self, params: Params, cache: _Kept, gy: Tensor) -> tuple[Grads, Tensor]:
        with errors_at(self, ""):
            gparams, g = self.layer.vjp(params, cache[0], self._columns(gy, cache[2]))
        return gparams, self._fold(g, cache[1])

    def grads(self, params: Params, cache: _Kept, gy: Tensor) -> Grads:
        with errors_at(self, ""):
            return self.layer.grads(params, cache[0], self._columns(gy, cache[2]))

    def input_grad(self, params: Params, cache: _Kept, gy: Tensor) -> Tensor:
        with errors_at(self, ""):
            g = self.layer.input_grad(params, cache[0], self._columns(gy, cache[2]))
        return self._fold(g, cache[1])

    def _extract_windows(self, x: Tensor) -> tuple[Tensor, Shape]:
        """Return the windows, (N, channels, windows, elements), with N = 1 if x has no batch, and the shape of y."""
        rows = self._rows(x)
        window, lengths = self._window(), tuple(x.shape[-self.axes :])
        places = window.places(lengths)
        if min(places) < 1:
            rule = f"x with its padding must be as long as the window's reach, {window.reach()}"
            raise value_error(self, rule, f"x of shape {tuple(x.shape)}")
        padded = kernels.pad_by(rows, window.before, window.after, self.padding_value)
        seen = kernels.windows(padded, window.kernel, window.stride, window.dilation, places)
        return seen.transpose(2, 3), (*x.shape[: x.dim() - self.axes], *places)

    def _fold(self, g: Tensor, shape: Shape) -> Tensor:
        """Add up the gradients of each element of x over the windows that contain it."""
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
    """Reduce each window of a sequence with a layer.

        y[t]  = f(x[s t + d k - p], k = 0 ... K - 1)      f reduces the last axis
        gx[i] = Σ g[t, k] over s t + d k - p = i          g[t] = gradient of f at window t, from gy[t]

    The layer sees (N, channels, windows, elements), and reduces the last axis: ``Prod(-1)``, ``LogSumExp()``, or a layer with
    params such as ``serial(Linear(3, 1), Squeeze(-1))``. The windows are copied, so a dedicated pooling layer is faster: the mean
    over 2×2 windows of 64×16×28×28 takes 1.0 ms, and 0.5 ms with ``AvgPool2d``.

    Args:
        layer: The layer f, which reduces the last axis.
        kernel_size: Size of a window.
        stride: Step from one window to the next; by default ``kernel_size``.
        padding: Number of elements added on both sides.
        dilation: Distance between the elements of a window.
        padding_value: Value of the added elements; it can be infinite.

    Shape:
        x (N, channels, length) → y (N, channels, length'), each with or without N, where
        size' = ⌊(size + 2 padding - dilation (kernel_size - 1) - 1) / stride⌋ + 1.

    Params:
        The layer's params.

    Cache:
        The layer's cache, and the shapes of x and y.

    Raises:
        ValueError: If the layer does not reduce exactly the last axis, or x is shorter than a window.

    References:
        ``flax.linen.pool``, whose ``reduce_fn`` combines two numbers.

    >>> import torch
    >>> from funcnet.layers.operands.spread_reductions import Std
    >>> Pool1d(Std(-1), 2)({}, torch.tensor([[1.0, 3.0, 5.0, 5.0]]))
    tensor([[1.4142, 0.0000]])
    """

    axes: ClassVar[int] = 1


@frozen
class Pool2d(_Pool):
    """Reduce each window of an image with a layer.

        y[t]  = f(x[s t + d k - p], k over the window)      f reduces the last axis
        gx[i] = Σ g[t, k] over s t + d k - p = i            g[t] = gradient of f at window t, from gy[t]

    The layer sees (N, channels, windows, elements), the elements row by row, and reduces the last axis: ``Prod(-1)``,
    ``LogSumExp()``, or a layer with params such as ``serial(Linear(4, 1), Squeeze(-1))``. The windows are copied, so a dedicated
    pooling layer is faster: the mean over 2×2 windows of 64×16×28×28 takes 1.0 ms, and 0.5 ms with ``AvgPool2d``.

    Args:
        layer: The layer f, which reduces the last axis.
        kernel_size: Size of a window, one number or one for each axis.
        stride: Step from one window to the next; by default ``kernel_size``.
        padding: Number of elements added on both sides, one number or one for each axis.
        dilation: Distance between the elements of a window.
        padding_value: Value of the added elements; it can be infinite.

    Shape:
        x (N, channels, height, width) → y (N, channels, height', width'), each with or without N, where
        size' = ⌊(size + 2 padding - dilation (kernel_size - 1) - 1) / stride⌋ + 1.

    Params:
        The layer's params.

    Cache:
        The layer's cache, and the shapes of x and y.

    Raises:
        ValueError: If the layer does not reduce exactly the last axis, or x is shorter than a window.

    References:
        ``flax.linen.pool``, whose ``reduce_fn`` combines two numbers.

    >>> import torch
    >>> from funcnet.layers.operands.reductions import Prod
    >>> Pool2d(Prod(-1), 2)({}, torch.full((1, 4, 6), 2.0)).shape
    torch.Size([1, 2, 3])
    """

    axes: ClassVar[int] = 2


@frozen
class Pool3d(_Pool):
    """Reduce each window of a volume with a layer.

        y[t]  = f(x[s t + d k - p], k over the window)      f reduces the last axis
        gx[i] = Σ g[t, k] over s t + d k - p = i            g[t] = gradient of f at window t, from gy[t]

    The layer sees (N, channels, windows, elements), the elements row by row, and reduces the last axis: ``Prod(-1)``,
    ``LogSumExp()``, or a layer with params such as ``serial(Linear(8, 1), Squeeze(-1))``. The windows are copied, so a dedicated
    pooling layer is faster: the mean over 2×2 windows of 64×16×28×28 takes 1.0 ms, and 0.5 ms with ``AvgPool2d``.

    Args:
        layer: The layer f, which reduces the last axis.
        kernel_size: Size of a window, one number or one for each axis.
        stride: Step from one window to the next; by default ``kernel_size``.
        padding: Number of elements added on both sides, one number or one for each axis.
        dilation: Distance between the elements of a window.
        padding_value: Value of the added elements; it can be infinite.

    Shape:
        x (N, channels, depth, height, width) → y (N, channels, depth', height', width'), each with or without N, where
        size' = ⌊(size + 2 padding - dilation (kernel_size - 1) - 1) / stride⌋ + 1.

    Params:
        The layer's params.

    Cache:
        The layer's cache, and the shapes of x and y.

    Raises:
        ValueError: If the layer does not reduce exactly the last axis, or x is shorter than a window.

    References:
        ``flax.linen.pool``, whose ``reduce_fn`` combines two numbers.

    >>> import torch
    >>> from funcnet.layers.operands.reductions import Prod
    >>> Pool3d(Prod(-1), 2)({}, torch.full((1, 2, 4, 6), 2.0)).shape
    torch.Size([1, 1, 2, 3])
    """

    axes: ClassVar[int] = 3
