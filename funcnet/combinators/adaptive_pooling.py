"""Pooling to a given size with any layer: windows cover x evenly, and a layer reduces each to one number.

    y[t]   = f(x[i], i in W[t])              f reduces the last axis
    gx[i]  = Σ g[t, i] over i in W[t]        g[t] = gradient of f at window t, from gy[t]

The formulas hold for each row and channel. With T windows over a length L, W[t] contains the indices ⌊t L / T⌋ ≤ i < ⌈(t + 1) L /
T⌉ along each axis. The layer gets the elements of a window along one axis.
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
    """The layer applied to every window in turn."""

    def location(self, name: Any) -> str:
        return f"window {name}"


@frozen
class _AdaptivePool(Reduced):
    """Base of poolings with windows that cover x as evenly as possible, reduced one after the other."""

    layer: Layer = field(validator=layers_only)
    output_size: int | tuple[int | None, ...] | None = field(converter=hashable, validator=output_sizes)
    _each: "_EachWindow" = field(init=False, eq=False)  # built here: compiled code cannot build values

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_each", _EachWindow(self.layer))

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Any]:
        seen, shape = self._extract_windows(x)
        with errors_at(self, ""):
            ys, cache = self._each.apply(params, seen, rng)
        return self._joined(ys, seen, shape), (cache, tuple(x.shape), shape)

    def __call__(self, params: Params, x: Tensor, rng: Rng = None) -> Tensor:
        seen, shape = self._extract_windows(x)
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

    def _extract_windows(self, x: Tensor) -> tuple[tuple[Tensor, ...], Shape]:
        """Return the elements of each window, (N, channels, elements), with N = 1 if x has no batch, and the shape of y."""
        rows, rule = self._rows(x), empty_complaint(x, self.axes)
        if rule:
            raise value_error(self, rule, f"x of shape {tuple(x.shape)}")
        counts, lengths = sizes_for(self, x), tuple(x.shape[-self.axes :])
        if math.prod(counts) > MANY:
            rule = f"output_size must be at most {MANY} windows, since the layer reduces them one by one"
            raise value_error(self, rule, str(counts))
        seen = tuple([rows[(..., *at)].flatten(2) for at in _cells(lengths, counts)])
        return seen, (*x.shape[: x.dim() - self.axes], *counts)

    def _joined(self, ys: tuple[Any, ...], seen: tuple[Tensor, ...], shape: Shape) -> Tensor:
        placed = [self._require_numbers(y, one) for y, one in zip(ys, seen, strict=True)]
        return torch.stack(placed, -1).reshape(shape)

    def _gathered(self, gs: tuple[Tensor, ...], shape: Shape, counts: Shape) -> Tensor:
        """Add up the gradients of each element of x over the windows that contain it."""
        gx = gs[0].new_zeros((*gs[0].shape[:2], *shape[-self.axes :]))
        for at, g in zip(_cells(shape[-self.axes :], counts[-self.axes :]), gs, strict=True):
            part = gx[(..., *at)]
            part.add_(g.reshape(part.shape))
        return gx.reshape(shape)


def _cells(lengths: Shape, counts: Shape) -> list[Any]:
    """Return the slices of each window; the window along the last axis varies fastest."""
    along = [
        [slice(t * n // count, -(-(t + 1) * n // count)) for t in range(count)] for n, count in zip(lengths, counts, strict=True)
    ]
    return list(itertools.product(*along))


@frozen
class AdaptivePool1d(_AdaptivePool):
    """Reduce each of ``output_size`` windows that cover a sequence evenly with a layer.

        y[t]  = f(x[i], i in W[t])           f reduces the last axis; W[t]: ⌊t L / T⌋ ≤ i < ⌈(t + 1) L / T⌉
        gx[i] = Σ g[t, i] over i in W[t]     g[t] = gradient of f at window t, from gy[t]

    T is the number of windows and L the length. The windows are the same as in ``AdaptiveAvgPool1d``. Their sizes differ if T
    does not divide L. The layer is therefore applied to one window after the other, as in ``shared``: it gets (N, channels,
    elements), and reduces the last axis. For means and maxima of many windows the dedicated layers are faster.

    Args:
        layer: The layer f, which reduces the last axis.
        output_size: Number of windows.

    Shape:
        x (N, channels, length) → y (N, channels, output_size), each with or without N.

    Params:
        The layer's params.

    Cache:
        The layer's cache for each window, and the shapes of x and y.

    Raises:
        ValueError: If the layer does not reduce exactly the last axis, or x has an empty axis other than the batch.

    References:
        ``torch.nn.AdaptiveAvgPool1d`` (windows); Kidger & Garcia 2021 (Equinox), ``AdaptivePool1d`` (any reduction).

    >>> import torch
    >>> from funcnet.layers.operands.extreme_reductions import Max
    >>> AdaptivePool1d(Max(-1), 3)({}, torch.ones(2, 4, 10)).shape
    torch.Size([2, 4, 3])
    """

    axes: ClassVar[int] = 1


@frozen
class AdaptivePool2d(_AdaptivePool):
    """Reduce each of ``output_size`` windows that cover an image evenly with a layer.

        y[t]  = f(x[i], i in W[t])           f reduces the last axis; W[t]: ⌊t L / T⌋ ≤ i < ⌈(t + 1) L / T⌉
        gx[i] = Σ g[t, i] over i in W[t]     g[t] = gradient of f at window t, from gy[t]

    T is the number of windows and L the length along each axis. The windows are the same as in ``AdaptiveAvgPool2d``. Their sizes
    differ if T does not divide L. The layer is therefore applied to one window after the other, as in ``shared``: it gets (N,
    channels, elements), and reduces the last axis. For means and maxima of many windows the dedicated layers are faster.

    Args:
        layer: The layer f, which reduces the last axis.
        output_size: Number of windows along each axis: one number, or a tuple with ``None`` for the length of x.

    Shape:
        x (N, channels, height, width) → y (N, channels, *output_size), each with or without N.

    Params:
        The layer's params.

    Cache:
        The layer's cache for each window, and the shapes of x and y.

    Raises:
        ValueError: If the layer does not reduce exactly the last axis, or x has an empty axis other than the batch.

    References:
        ``torch.nn.AdaptiveAvgPool2d`` (windows); Kidger & Garcia 2021 (Equinox), ``AdaptivePool2d`` (any reduction).

    >>> import torch
    >>> from funcnet.layers.operands.extreme_reductions import Max
    >>> AdaptivePool2d(Max(-1), (3, None))({}, torch.ones(2, 4, 10, 5)).shape
    torch.Size([2, 4, 3, 5])
    """

    axes: ClassVar[int] = 2


@frozen
class AdaptivePool3d(_AdaptivePool):
    """Reduce each of ``output_size`` windows that cover a volume evenly with a layer.

        y[t]  = f(x[i], i in W[t])           f reduces the last axis; W[t]: ⌊t L / T⌋ ≤ i < ⌈(t + 1) L / T⌉
        gx[i] = Σ g[t, i] over i in W[t]     g[t] = gradient of f at window t, from gy[t]

    T is the number of windows and L the length along each axis. The windows are the same as in ``AdaptiveAvgPool3d``. Their sizes
    differ if T does not divide L. The layer is therefore applied to one window after the other, as in ``shared``: it gets (N,
    channels, elements), and reduces the last axis. For means and maxima of many windows the dedicated layers are faster.

    Args:
        layer: The layer f, which reduces the last axis.
        output_size: Number of windows along each axis: one number, or a tuple with ``None`` for the length of x.

    Shape:
        x (N, channels, depth, height, width) → y (N, channels, *output_size), each with or without N.

    Params:
        The layer's params.

    Cache:
        The layer's cache for each window, and the shapes of x and y.

    Raises:
        ValueError: If the layer does not reduce exactly the last axis, or x has an empty axis other than the batch.

    References:
        ``torch.nn.AdaptiveAvgPool3d`` (windows); Kidger & Garcia 2021 (Equinox), ``AdaptivePool3d`` (any reduction).

    >>> import torch
    >>> from funcnet.layers.operands.extreme_reductions import Max
    >>> AdaptivePool3d(Max(-1), 2)({}, torch.ones(2, 4, 5, 6, 7)).shape
    torch.Size([2, 4, 2, 2, 2])
    """

    axes: ClassVar[int] = 3
