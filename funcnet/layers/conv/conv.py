"""Convolution (technically cross-correlation): a window slides along x, and each output is a weighted sum of the window.

x (N, in, ...), w (out, in / groups, *kernel), b (out,), y (N, out, ...), or x and y without N. The indices t, k and i have one
number for each axis (one to three). Outside its range, x is zero or, with another ``padding_mode``, a copy of its elements, whose
gradient goes to the originals.
"""

from typing import Any, ClassVar

from attrs import field
from torch import Tensor

from funcnet import initializers
from funcnet.checks import check_gy, check_param, require_kind, require_params
from funcnet.contract import Grads, Params, Rng, Shape, Size
from funcnet.errors import divides, fields_error, flag, one_of, size, size_or_none, whole_numbers
from funcnet.initializers.elementary import Initializer
from funcnet.kernels import conv as kernels
from funcnet.layers.conv.padding import Pad, padding_of, padding_rule
from funcnet.layers.conv.window import Sizes, Window, Windowed, each, hashable, kernel_fans
from funcnet.random.keys import Key
from funcnet.value import frozen


@frozen
class _Conv(Windowed):
    """Convolution along ``axes`` axes."""

    weight_output_axis = 0

    in_channels: Size = field(validator=size_or_none)
    out_channels: int = field(validator=size)
    kernel_size: Sizes = field(converter=hashable, validator=whole_numbers(1))
    stride: Sizes = field(default=1, converter=hashable, validator=whole_numbers(1))
    padding: Pad | tuple[Pad, ...] = field(default=0, converter=hashable, validator=padding_rule)
    dilation: Sizes = field(default=1, converter=hashable, validator=whole_numbers(1))
    groups: int = field(default=1, validator=[size, divides("in_channels", "out_channels")])
    bias: bool = field(default=True, validator=flag)
    padding_mode: str = field(default="zeros", validator=one_of("zeros", "reflect", "replicate", "circular"))
    initializer: str | Initializer = field(default="xavier_normal", validator=initializers.known)
    _window: Window = field(init=False, eq=False)
    _inside: tuple[int, ...] = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        if "causal" in each(self.padding, self.axes) and self.padding_mode in ("reflect", "circular"):
            rule = 'padding="causal" must have padding_mode="zeros" or "replicate", which do not look ahead'
            raise fields_error(self, rule, "padding_mode")
        window = padding_of(self)
        object.__setattr__(self, "_window", window)
        # the kernel itself pads both ends equally with zeros; any other padding is added before it runs
        inside = tuple(map(min, window.before, window.after)) if self.padding_mode == "zeros" else (0,) * self.axes
        object.__setattr__(self, "_inside", inside)

    @property
    def inferred_sizes(self) -> dict[str, int]:
        return {"in_channels": -1 - self.axes}

    def init(self, rng: Key | int) -> Params:
        fans = kernel_fans(self.in_channels, self.out_channels, self.groups, self._window.kernel)
        return initializers.weight_and_bias(rng, self.param_shapes(), self.initializer, fans)

    def apply(self, params: Any, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        require_params(self, params)
        require_kind(self, params, x)
        x = kernels.pad(x, *self._outside(), self.padding_mode)
        options = (self._window.stride, self._inside, self._window.dilation, self.groups)
        return kernels.convolution(x, params["weight"], params.get("bias"), *options)

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        gx, gparams = self._backward(params, cache, gy, needs_x=True, needs_params=True)
        return gparams, kernels.pad_backward(gx, *self._outside(), self.padding_mode)

    def grads(self, params: Params, cache: Tensor, gy: Tensor) -> Grads:
        return self._backward(params, cache, gy, needs_x=False, needs_params=True)[1]

    def input_grad(self, params: Params, cache: Tensor, gy: Tensor) -> Tensor:
        gx = self._backward(params, cache, gy, needs_x=True, needs_params=False)[0]
        return kernels.pad_backward(gx, *self._outside(), self.padding_mode)

    def _backward(self, params: Params, x: Tensor, gy: Tensor, *, needs_x: bool, needs_params: bool) -> tuple[Tensor, Params]:
        places = self._window._replace(before=self._inside, after=self._inside).places(x.shape[-self.axes :])
        gy = check_gy(self, gy, (*x.shape[: -self.axes - 1], self.out_channels, *places), x)
        w = check_param(self, params, "weight", self._weight_shape(), x)
        options = (self._window.stride, self._inside, self._window.dilation, False, (0,) * self.axes, self.groups)
        mask = [needs_x, needs_params, needs_params and self.bias]
        batch = x.dim() == self.axes + 2
        x, gy = (x, gy) if batch else (x.unsqueeze(0), gy.unsqueeze(0))
        gx, gw, gb = kernels.convolution_backward(gy, x, w, [self.out_channels], *options, mask)
        return gx if batch or not needs_x else gx.squeeze(0), {"weight": gw, "bias": gb} if self.bias else {"weight": gw}

    @property
    def options(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """The stride, padding and dilation that the kernel uses on the cached tensor."""
        return self._window.stride, self._inside, self._window.dilation

    def columns(self, x: Tensor) -> Tensor:
        """Return the elements that each window sees.

        Args:
            x: Input with a batch axis, as in the cache.

        Returns:
            A tensor (N, channels · kernel, windows).
        """
        window = self._window._replace(before=self._inside, after=self._inside)
        places = window.places(x.shape[-self.axes :])
        x = kernels.pad_by(x, self._inside, self._inside, 0.0)
        return kernels.windows(x, window.kernel, window.stride, window.dilation, places).flatten(1, 2)

    def _outside(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the numbers of elements added before and after x before the kernel runs."""
        before, after = ([n - i for n, i in zip(ends, self._inside, strict=True)] for ends in self._window[3:])
        return tuple(before), tuple(after)

    def param_shapes(self) -> dict[str, Shape]:
        weight = self._weight_shape()
        return {"weight": weight, "bias": (self.out_channels,)} if self.bias else {"weight": weight}

    def _weight_shape(self) -> Shape:
        return (self.out_channels, self.in_channels // self.groups, *self._window.kernel)

    @property
    def least_lengths(self) -> Shape:
        """The least lengths for one window, and for the padding: "reflect" needs one element more than it copies."""
        window, copies = self._window.least_lengths(), {"reflect": 1, "circular": 0}
        if self.padding_mode not in copies:
            return window
        padding = [max(ends) + copies[self.padding_mode] for ends in zip(*self._window[3:], strict=True)]
        return tuple(map(max, window, padding))


@frozen
class Conv1d(_Conv):
    """Convolution along one axis: a window slides along x, and each output is a weighted sum of the window.

        y[n, o, t]  = b[o] + Σ_{c, k} w[o, c, k] x[n, c, s t + d k - p]        s = stride, d = dilation, p = padding before x
        gw[o, c, k] = Σ_{n, t} gy[n, o, t] x[n, c, s t + d k - p]
        gb[o]       = Σ_{n, t} gy[n, o, t]
        gx[n, c, i] = Σ_{o, k, t: s t + d k - p = i} gy[n, o, t] w[o, c, k]

    With ``groups``, c runs over the channels of o's group. L_out = ⌊(L + 2 padding - dilation (kernel_size - 1) - 1) / stride⌋ +
    1; with ``padding="causal"`` ⌈L / stride⌉, and y[t] sees only x[: stride t + 1].

    Args:
        in_channels: Number of channels of x; ``None`` to infer it with ``infer_sizes``.
        out_channels: Number of channels of y.
        kernel_size: Size of the window.
        stride: Step from one window to the next.
        padding: Number of elements added before and after x. ``"same"`` keeps the length, for stride 1, with an odd element at
            the end; ``"valid"`` is 0; ``"causal"`` pads only before x. A tuple can contain a pair (before, after): ``((2, 0),)``.
        dilation: Step between the elements of a window.
        groups: Number of groups of channels; each group of y sees one group of x. Must divide both numbers of channels.
        bias: Whether to add a learned offset to each channel.
        padding_mode: Values of the padding: ``"zeros"``; ``"reflect"``, x mirrored at its ends; ``"replicate"``, its end
            elements; or ``"circular"``, x wrapped around. The gradient of a copied element goes to its original.
        initializer: Initializer of ``weight``, by name or value; ``"torch"`` initializes both like ``torch.nn.Conv1d``.

    Shape:
        x (N, in_channels, L) → y (N, out_channels, L_out), or both without N.

    Params:
        weight: (out_channels, in_channels / groups, kernel_size), Xavier normal.
        bias: (out_channels,), zeros; absent with ``bias=False``.

    Cache:
        ``x``, not copied; with its padding, if that is uneven or not zeros.

    Raises:
        ValueError: If ``padding="same"`` has a stride above 1, if ``"causal"`` has the mode ``"reflect"`` or ``"circular"``,
            which look ahead, or if x is shorter than the window.

    References:
        ``torch.nn.Conv1d``; van den Oord et al. 2016, "WaveNet", section 2.1, for ``"causal"``.

    >>> import torch
    >>> layer = Conv1d(3, 8, kernel_size=5, padding="causal")
    >>> layer(layer.init(0), torch.ones(2, 3, 20)).shape
    torch.Size([2, 8, 20])
    """

    axes: ClassVar[int] = 1


@frozen
class Conv2d(_Conv):
    """Convolution over two axes: a window slides along x, and each output is a weighted sum of the window.

        y[n, o, t]  = b[o] + Σ_{c, k} w[o, c, k] x[n, c, s t + d k - p]        s = stride, d = dilation, p = padding before x
        gw[o, c, k] = Σ_{n, t} gy[n, o, t] x[n, c, s t + d k - p]
        gb[o]       = Σ_{n, t} gy[n, o, t]
        gx[n, c, i] = Σ_{o, k, t: s t + d k - p = i} gy[n, o, t] w[o, c, k]

    t, k and i are pairs of indices, one for each axis. With ``groups``, c runs over the channels of o's group. Along each axis,
    the length of y is ⌊(length + 2 padding - dilation (kernel_size - 1) - 1) / stride⌋ + 1; with ``padding="causal"`` ⌈length /
    stride⌉, and y[t] sees only x[: stride t + 1].

    On the CPU, large float32 batches of images with 2 to 4 channels are converted to the memory format ``channels_last``. y and
    later layers keep it, and later convolutions are faster in it. The values are the same up to rounding.

    Args:
        in_channels: Number of channels of x; ``None`` to infer it with ``infer_sizes``.
        out_channels: Number of channels of y.
        kernel_size: Size of the window; one number for both axes, or a tuple of two.
        stride: Step from one window to the next; one number for both axes, or a tuple of two.
        padding: Number of elements added before and after x; one entry for both axes, or a tuple of two. An entry is a number, a
            pair (before, after) if it is in a tuple, or a word: ``"same"`` keeps the length, for stride 1, with an odd element at
            the end; ``"valid"`` is 0; ``"causal"`` pads only before x. ``("causal", "same")`` is causal along the first axis
            only.
        dilation: Step between the elements of a window; one number for both axes, or a tuple of two.
        groups: Number of groups of channels; each group of y sees one group of x. Must divide both numbers of channels.
        bias: Whether to add a learned offset to each channel.
        padding_mode: Values of the padding: ``"zeros"``; ``"reflect"``, x mirrored at its ends; ``"replicate"``, its end
            elements; or ``"circular"``, x wrapped around. The gradient of a copied element goes to its original.
        initializer: Initializer of ``weight``, by name or value; ``"torch"`` initializes both like ``torch.nn.Conv2d``.

    Shape:
        x (N, in_channels, H, W) → y (N, out_channels, H_out, W_out), or both without N.

    Params:
        weight: (out_channels, in_channels / groups, *kernel_size), Xavier normal.
        bias: (out_channels,), zeros; absent with ``bias=False``.

    Cache:
        ``x``, not copied; with its padding, if that is uneven or not zeros, and in the format ``channels_last`` if y is.

    Raises:
        ValueError: If ``padding="same"`` has a stride above 1, if ``"causal"`` has the mode ``"reflect"`` or ``"circular"``,
            which look ahead, or if x is shorter than the window.

    References:
        ``torch.nn.Conv2d``.

    >>> import torch
    >>> layer = Conv2d(3, 8, kernel_size=3, stride=2, padding=1)
    >>> layer(layer.init(0), torch.ones(2, 3, 32, 32)).shape
    torch.Size([2, 8, 16, 16])
    """

    axes: ClassVar[int] = 2


@frozen
class Conv3d(_Conv):
    """Convolution over three axes: a window slides along x, and each output is a weighted sum of the window.

        y[n, o, t]  = b[o] + Σ_{c, k} w[o, c, k] x[n, c, s t + d k - p]        s = stride, d = dilation, p = padding before x
        gw[o, c, k] = Σ_{n, t} gy[n, o, t] x[n, c, s t + d k - p]
        gb[o]       = Σ_{n, t} gy[n, o, t]
        gx[n, c, i] = Σ_{o, k, t: s t + d k - p = i} gy[n, o, t] w[o, c, k]

    t, k and i are triples of indices, one for each axis. With ``groups``, c runs over the channels of o's group. Along each axis,
    the length of y is ⌊(length + 2 padding - dilation (kernel_size - 1) - 1) / stride⌋ + 1; with ``padding="causal"`` ⌈length /
    stride⌉, and y[t] sees only x[: stride t + 1].

    Args:
        in_channels: Number of channels of x; ``None`` to infer it with ``infer_sizes``.
        out_channels: Number of channels of y.
        kernel_size: Size of the window; one number for all axes, or a tuple of three.
        stride: Step from one window to the next; one number for all axes, or a tuple of three.
        padding: Number of elements added before and after x; one entry for all axes, or a tuple of three. An entry is a number, a
            pair (before, after) if it is in a tuple, or a word: ``"same"`` keeps the length, for stride 1, with an odd element at
            the end; ``"valid"`` is 0; ``"causal"`` pads only before x. ``("causal", "same", "same")`` is causal along the first
            axis only.
        dilation: Step between the elements of a window; one number for all axes, or a tuple of three.
        groups: Number of groups of channels; each group of y sees one group of x. Must divide both numbers of channels.
        bias: Whether to add a learned offset to each channel.
        padding_mode: Values of the padding: ``"zeros"``; ``"reflect"``, x mirrored at its ends; ``"replicate"``, its end
            elements; or ``"circular"``, x wrapped around. The gradient of a copied element goes to its original.
        initializer: Initializer of ``weight``, by name or value; ``"torch"`` initializes both like ``torch.nn.Conv3d``.

    Shape:
        x (N, in_channels, D, H, W) → y (N, out_channels, D_out, H_out, W_out), or both without N.

    Params:
        weight: (out_channels, in_channels / groups, *kernel_size), Xavier normal.
        bias: (out_channels,), zeros; absent with ``bias=False``.

    Cache:
        ``x``, not copied; with its padding, if that is uneven or not zeros.

    Raises:
        ValueError: If ``padding="same"`` has a stride above 1, if ``"causal"`` has the mode ``"reflect"`` or ``"circular"``,
            which look ahead, or if x is shorter than the window.

    References:
        ``torch.nn.Conv3d``.

    >>> import torch
    >>> layer = Conv3d(3, 8, kernel_size=3, padding="same")
    >>> layer(layer.init(0), torch.ones(2, 3, 4, 8, 8)).shape
    torch.Size([2, 8, 4, 8, 8])
    """

    axes: ClassVar[int] = 3
