"""Unshared convolution: like a convolution, with separate weights at each position.

x (N, in, *lengths), w (*positions, out, in, *kernel), b (out, *positions), y (N, out, *positions), or x and y without N. The
indices t, k and i have one number for each axis. x is zero outside its range.
"""

import math
from typing import Any, ClassVar

import torch
from attrs import field
from torch import Tensor

from funcnet import initializers, random
from funcnet.checks import check_gy, check_param, require_arguments, require_kind, require_sizes, several_sizes_complaint
from funcnet.contract import Grads, Params, Rng, Shape, Size
from funcnet.errors import fields_error, flag, size, size_or_none, whole_numbers
from funcnet.initializers.elementary import Initializer
from funcnet.kernels import conv as kernels
from funcnet.layers.conv.padding import Pad, padding_of, padding_rule
from funcnet.layers.conv.window import Sizes, Window, Windowed, axes_complaint, each, hashable
from funcnet.random.keys import Key
from funcnet.value import frozen


def _in_own_memory(leaf: Tensor) -> Tensor:
    """Return a contiguous copy."""
    return leaf.clone(memory_format=torch.contiguous_format)


@frozen
class _ConvLocal(Windowed):
    """Unshared convolution along ``axes`` axes."""

    in_channels: Size = field(validator=size_or_none)
    out_channels: int = field(validator=size)
    kernel_size: Sizes = field(converter=hashable, validator=whole_numbers(1))
    input_size: Sizes | Any = field(converter=hashable, validator=whole_numbers(1, optional=True))
    stride: Sizes = field(default=1, converter=hashable, validator=whole_numbers(1))
    padding: Pad | tuple[Pad, ...] = field(default=0, converter=hashable, validator=padding_rule)
    dilation: Sizes = field(default=1, converter=hashable, validator=whole_numbers(1))
    bias: bool = field(default=True, validator=flag)
    initializer: str | Initializer = field(default="xavier_normal", validator=initializers.known)
    _window: Window = field(init=False, eq=False)
    _places: Shape = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_window", padding_of(self))
        places = () if self.input_size is None else self._window.places(self._lengths())
        object.__setattr__(self, "_places", places)
        if places and min(places) < 1:
            rule = f"input_size must be at least {self._window.least_lengths()} for these windows and padding"
            raise fields_error(self, rule, "input_size")

    @property
    def inferred_sizes(self) -> dict[str, int | Shape]:
        return {"in_channels": -1 - self.axes, "input_size": tuple(range(-self.axes, 0))}

    def init(self, rng: Key | int) -> Params:
        """Initialize the weights of each position like those of a convolution."""
        shapes = {
            "weight": (self.out_channels, require_sizes(self).in_channels, *self._window.kernel),
            "bias": (self.out_channels,),
        }
        draw = lambda key: initializers.weight_and_bias(key, shapes, self.initializer)
        drawn = torch.func.vmap(draw)(random.split(random.as_key(rng), math.prod(self._places)))
        places = {"weight": drawn["weight"], "bias": drawn["bias"].t()} if self.bias else {"weight": drawn["weight"]}
        # vmap returns a constant as an expanded tensor, which a donating optimizer could not write to
        return {name: _in_own_memory(leaf).reshape(self.param_shapes()[name]) for name, leaf in places.items()}

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        require_arguments(self, params, x)
        require_kind(self, params, x)
        y = torch.bmm(self._columns_of(params["weight"]), self._columns(x)).movedim(0, -1).transpose(0, 1)
        y = y.reshape(*x.shape[: -self.axes - 1], self.out_channels, *self._places)
        return y + params["bias"] if self.bias else y, x

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        return self.grads(params, cache, gy), self.input_grad(params, cache, gy)

    def grads(self, params: Params, cache: Tensor, gy: Tensor) -> Grads:
        g, shapes = self._rows(cache, gy), self.param_shapes()
        gw = torch.bmm(g.movedim(-1, 0).transpose(1, 2), self._columns(cache).transpose(1, 2)).reshape(shapes["weight"])
        return {"weight": gw, "bias": g.sum(0).reshape(shapes["bias"])} if self.bias else {"weight": gw}

    def input_grad(self, params: Params, cache: Tensor, gy: Tensor) -> Tensor:
        g = self._rows(cache, gy).movedim(-1, 0).transpose(1, 2)
        w = self._columns_of(check_param(self, params, "weight", self.param_shapes()["weight"], cache))
        columns = torch.bmm(w.transpose(1, 2), g).movedim(0, -1).transpose(0, 1)
        columns = columns.reshape(g.shape[2], self.in_channels, math.prod(self._window.kernel), math.prod(self._places))
        padded = [n + b + a for n, b, a in zip(self._lengths(), *self._window[3:], strict=True)]
        gx = kernels.windows_backward(columns, padded, *self._window[:3], self._places)
        return kernels.pad_backward(gx, *self._window[3:], "zeros").reshape(cache.shape)

    def _columns(self, x: Tensor) -> Tensor:
        """Return the elements that each window sees: (windows, in · kernel, N)."""
        x = kernels.pad(x if x.dim() == self.axes + 2 else x.unsqueeze(0), *self._window[3:], "zeros")
        return kernels.windows(x, *self._window[:3], self._places).flatten(1, 2).permute(2, 1, 0)

    def _rows(self, x: Tensor, gy: Tensor) -> Tensor:
        """Return gy as (N, out, windows)."""
        want = (*x.shape[: -self.axes - 1], self.out_channels, *self._places)
        g = check_gy(self, gy, want, x).flatten(-self.axes)
        return g if x.dim() == self.axes + 2 else g.unsqueeze(0)

    def _columns_of(self, weight: Tensor) -> Tensor:
        """Return the weight as (windows, out, in · kernel)."""
        return weight.reshape(math.prod(self._places), self.out_channels, self.in_channels * math.prod(self._window.kernel))

    def _lengths(self) -> Shape:
        return each(self.input_size, self.axes)

    def param_shapes(self) -> dict[str, Shape]:
        weight = (*self._places, self.out_channels, self.in_channels, *self._window.kernel)
        return {"weight": weight, "bias": (self.out_channels, *self._places)} if self.bias else {"weight": weight}

    def complaint(self, x: Tensor) -> str | None:
        axes, sizes = tuple(range(-1 - self.axes, 0)), (self.in_channels, *self._lengths())
        return axes_complaint(x, self.axes) or several_sizes_complaint(x, axes, "(in_channels, *input_size)", sizes)


@frozen
class ConvLocal1d(_ConvLocal):
    """Unshared convolution along one axis: like ``Conv1d``, with separate weights at each position.

        y[n, o, t]     = b[o, t] + Σ_{c, k} w[t, o, c, k] x[n, c, s t + d k - p]   s = stride, d = dilation, p = padding before x
        gw[t, o, c, k] = Σ_n gy[n, o, t] x[n, c, s t + d k - p]
        gb[o, t]       = Σ_n gy[n, o, t]
        gx[n, c, i]    = Σ_{o, k, t: s t + d k - p = i} gy[n, o, t] w[t, o, c, k]

    With T windows it has T times the weights of a ``Conv1d``, and x has a fixed length. L_out = ⌊(L + 2 padding - dilation
    (kernel_size - 1) - 1) / stride⌋ + 1.

    Args:
        in_channels: Number of channels of x; ``None`` to infer it with ``infer_sizes``.
        out_channels: Number of channels of y.
        kernel_size: Size of the window.
        input_size: Length of x; ``None`` to infer it with ``infer_sizes``.
        stride: Step from one window to the next.
        padding: Number of elements added before and after x. ``"same"`` keeps the length, for stride 1, with an odd element at
            the end; ``"valid"`` is 0; ``"causal"`` pads only before x. A tuple can contain a pair (before, after): ``((2, 0),)``.
        dilation: Step between the elements of a window.
        bias: Whether to add a learned offset to each channel at each position.
        initializer: Initializer of ``weight``, by name or value, applied at each position as in ``Conv1d``.

    Shape:
        x (N, in_channels, input_size) → y (N, out_channels, L_out), or both without N.

    Params:
        weight: (L_out, out_channels, in_channels, kernel_size), Xavier normal.
        bias: (out_channels, L_out), zeros; absent with ``bias=False``.

    Cache:
        ``x``, not copied.

    Raises:
        ValueError: If ``padding="same"`` has a stride above 1, if ``input_size`` is shorter than the window, or if x has another
            length.

    References:
        ``flax.linen.ConvLocal``.

    >>> layer = ConvLocal1d(3, 8, kernel_size=3, input_size=10)
    >>> layer.init(0)["weight"].shape
    torch.Size([8, 8, 3, 3])
    """

    axes: ClassVar[int] = 1


@frozen
class ConvLocal2d(_ConvLocal):
    """Unshared convolution over two axes: like ``Conv2d``, with separate weights at each position.

        y[n, o, t]     = b[o, t] + Σ_{c, k} w[t, o, c, k] x[n, c, s t + d k - p]   s = stride, d = dilation, p = padding before x
        gw[t, o, c, k] = Σ_n gy[n, o, t] x[n, c, s t + d k - p]
        gb[o, t]       = Σ_n gy[n, o, t]
        gx[n, c, i]    = Σ_{o, k, t: s t + d k - p = i} gy[n, o, t] w[t, o, c, k]

    t, k and i are pairs of indices, one for each axis. With T windows it has T times the weights of a ``Conv2d``, and x has a
    fixed length. Along each axis, the length of y is ⌊(length + 2 padding - dilation (kernel_size - 1) - 1) / stride⌋ + 1.

    Args:
        in_channels: Number of channels of x; ``None`` to infer it with ``infer_sizes``.
        out_channels: Number of channels of y.
        kernel_size: Size of the window; one number for both axes, or a tuple of two.
        input_size: Length of x; one number for both axes, or a tuple of two; ``None`` to infer it with ``infer_sizes``.
        stride: Step from one window to the next; one number for both axes, or a tuple of two.
        padding: Number of elements added before and after x; one entry for both axes, or a tuple of two. An entry is a number, a
            pair (before, after) if it is in a tuple, or a word: ``"same"`` keeps the length, for stride 1, with an odd element at
            the end; ``"valid"`` is 0; ``"causal"`` pads only before x. ``("causal", "same")`` is causal along the first axis
            only.
        dilation: Step between the elements of a window; one number for both axes, or a tuple of two.
        bias: Whether to add a learned offset to each channel at each position.
        initializer: Initializer of ``weight``, by name or value, applied at each position as in ``Conv2d``.

    Shape:
        x (N, in_channels, *input_size) → y (N, out_channels, H_out, W_out), or both without N.

    Params:
        weight: (H_out, W_out, out_channels, in_channels, *kernel_size), Xavier normal.
        bias: (out_channels, H_out, W_out), zeros; absent with ``bias=False``.

    Cache:
        ``x``, not copied.

    Raises:
        ValueError: If ``padding="same"`` has a stride above 1, if ``input_size`` is shorter than the window, or if x has another
            length.

    References:
        ``flax.linen.ConvLocal``.

    >>> layer = ConvLocal2d(3, 8, kernel_size=3, input_size=(6, 5))
    >>> layer.init(0)["weight"].shape
    torch.Size([4, 3, 8, 3, 3, 3])
    """

    axes: ClassVar[int] = 2


@frozen
class ConvLocal3d(_ConvLocal):
    """Unshared convolution over three axes: like ``Conv3d``, with separate weights at each position.

        y[n, o, t]     = b[o, t] + Σ_{c, k} w[t, o, c, k] x[n, c, s t + d k - p]   s = stride, d = dilation, p = padding before x
        gw[t, o, c, k] = Σ_n gy[n, o, t] x[n, c, s t + d k - p]
        gb[o, t]       = Σ_n gy[n, o, t]
        gx[n, c, i]    = Σ_{o, k, t: s t + d k - p = i} gy[n, o, t] w[t, o, c, k]

    t, k and i are triples of indices, one for each axis. With T windows it has T times the weights of a ``Conv3d``, and x has a
    fixed length. Along each axis, the length of y is ⌊(length + 2 padding - dilation (kernel_size - 1) - 1) / stride⌋ + 1.

    Args:
        in_channels: Number of channels of x; ``None`` to infer it with ``infer_sizes``.
        out_channels: Number of channels of y.
        kernel_size: Size of the window; one number for all axes, or a tuple of three.
        input_size: Length of x; one number for all axes, or a tuple of three; ``None`` to infer it with ``infer_sizes``.
        stride: Step from one window to the next; one number for all axes, or a tuple of three.
        padding: Number of elements added before and after x; one entry for all axes, or a tuple of three. An entry is a number, a
            pair (before, after) if it is in a tuple, or a word: ``"same"`` keeps the length, for stride 1, with an odd element at
            the end; ``"valid"`` is 0; ``"causal"`` pads only before x. ``("causal", "same", "same")`` is causal along the first
            axis only.
        dilation: Step between the elements of a window; one number for all axes, or a tuple of three.
        bias: Whether to add a learned offset to each channel at each position.
        initializer: Initializer of ``weight``, by name or value, applied at each position as in ``Conv3d``.

    Shape:
        x (N, in_channels, *input_size) → y (N, out_channels, D_out, H_out, W_out), or both without N.

    Params:
        weight: (D_out, H_out, W_out, out_channels, in_channels, *kernel_size), Xavier normal.
        bias: (out_channels, D_out, H_out, W_out), zeros; absent with ``bias=False``.

    Cache:
        ``x``, not copied.

    Raises:
        ValueError: If ``padding="same"`` has a stride above 1, if ``input_size`` is shorter than the window, or if x has another
            length.

    References:
        ``flax.linen.ConvLocal``.

    >>> layer = ConvLocal3d(1, 2, kernel_size=2, input_size=3)
    >>> layer.init(0)["weight"].shape
    torch.Size([2, 2, 2, 2, 1, 2, 2, 2])
    """

    axes: ClassVar[int] = 3
