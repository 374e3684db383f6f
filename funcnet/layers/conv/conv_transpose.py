"""Transposed convolution: each element of x is spread over a window, as in the input gradient of a convolution.

x (N, in, ...), w (in, out / groups, *kernel), b (out,), y (N, out, ...), or x and y without N. The indices t, k and i have one
number for each axis (one to three). gy is zero outside its range.
"""

from typing import Any, ClassVar

from attrs import field
from torch import Tensor

from funcnet import initializers
from funcnet.checks import Misfit, check_gy, check_param, require_kind, require_params
from funcnet.contract import Grads, Params, Rng, Shape, Size
from funcnet.errors import divides, fields_error, flag, size, size_or_none, whole_numbers
from funcnet.initializers.elementary import Initializer
from funcnet.kernels import conv as kernels
from funcnet.layers.conv.window import Sizes, Windowed, each, hashable, kernel_fans
from funcnet.random.keys import Key
from funcnet.value import frozen

Cache = Tensor | tuple[Tensor, Shape]
"""x; if y takes its lengths from another tensor, the pair of x and the output padding."""


@frozen
class _ConvTranspose(Windowed):
    """Transposed convolution along ``axes`` axes."""

    weight_output_axis = 1

    in_channels: Size = field(validator=size_or_none)
    out_channels: int = field(validator=size)
    kernel_size: Sizes = field(converter=hashable, validator=whole_numbers(1))
    stride: Sizes = field(default=1, converter=hashable, validator=whole_numbers(1))
    padding: Sizes = field(default=0, converter=hashable, validator=whole_numbers(0))
    output_padding: Sizes = field(default=0, converter=hashable, validator=whole_numbers(0))
    groups: int = field(default=1, validator=[size, divides("in_channels", "out_channels")])
    bias: bool = field(default=True, validator=flag)
    dilation: Sizes = field(default=1, converter=hashable, validator=whole_numbers(1))
    initializer: str | Initializer = field(default="xavier_normal", validator=initializers.known)
    _options: tuple[Shape, ...] = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        options = ("kernel_size", "stride", "padding", "output_padding", "dilation")
        object.__setattr__(self, "_options", tuple([each(getattr(self, option), self.axes) for option in options]))
        if any(extra >= max(s, d) for _, s, _, extra, d in zip(*self._options, strict=True)):
            rule = "output_padding must be smaller than stride or dilation"
            raise fields_error(self, rule, "output_padding", "stride", "dilation")

    @property
    def inferred_sizes(self) -> dict[str, int]:
        return {"in_channels": -1 - self.axes}

    def init(self, rng: Key | int) -> Params:
        fans = kernel_fans(self.in_channels, self.out_channels, self.groups, self._options[0])
        return initializers.weight_and_bias(rng, self.param_shapes(), self.initializer, fans)

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Tensor, Cache]:
        if isinstance(x, tuple):
            z, extra = self._with_lengths_of(*x)
            return self._spread(params, z, extra), (z, extra)
        return self._spread(params, x, self._options[3]), x

    def _spread(self, params: Any, x: Tensor, extra: Shape) -> Tensor:
        """Return y for the output padding ``extra``."""
        require_params(self, params)
        require_kind(self, params, x)
        _, stride, padding, _, dilation = self._options
        convolve = kernels.transposed[self.axes]
        y: Tensor = convolve(x, params["weight"], params.get("bias"), stride, padding, extra, self.groups, dilation)
        return y

    def _with_lengths_of(self, x: Any, like: Any) -> tuple[Tensor, Shape]:
        """Return x, and the output padding that gives y the lengths of ``like``."""
        extra = self._extra(x, like)
        if any([not 0 <= n < s for n, s in zip(extra, self._options[1], strict=True)]):  # noqa: C419
            raise Misfit
        return x, extra

    def _extra(self, x: Tensor, like: Tensor) -> Shape:
        least = self._lengths_from(x.shape[-self.axes :], (0,) * self.axes)
        return tuple([n - shortest for n, shortest in zip(like.shape[-self.axes :], least, strict=True)])

    def vjp(self, params: Params, cache: Cache, gy: Tensor) -> tuple[Grads, Any]:
        gx, gparams = self._backward(params, cache, gy, needs_x=True, needs_params=True)
        return gparams, (gx, None) if isinstance(cache, tuple) else gx

    def grads(self, params: Params, cache: Cache, gy: Tensor) -> Grads:
        return self._backward(params, cache, gy, needs_x=False, needs_params=True)[1]

    def input_grad(self, params: Params, cache: Cache, gy: Tensor) -> Any:
        gx = self._backward(params, cache, gy, needs_x=True, needs_params=False)[0]
        return (gx, None) if isinstance(cache, tuple) else gx

    def _backward(self, params: Params, cache: Cache, gy: Tensor, *, needs_x: bool, needs_params: bool) -> tuple[Tensor, Params]:
        x, extra = cache if isinstance(cache, tuple) else (cache, self._options[3])
        lengths = self._lengths_from(x.shape[-self.axes :], extra)
        gy = check_gy(self, gy, (*x.shape[: -self.axes - 1], self.out_channels, *lengths), x)
        w = check_param(self, params, "weight", self._weight_shape(), x)
        _, stride, padding, _, dilation = self._options
        mask = [needs_x, needs_params, needs_params and self.bias]
        batch = x.dim() == self.axes + 2
        x, gy = (x, gy) if batch else (x.unsqueeze(0), gy.unsqueeze(0))
        options = (stride, padding, dilation, True, extra, self.groups, mask)
        gx, gw, gb = kernels.convolution_backward(gy, x, w, [self.out_channels], *options)
        return gx if batch or not needs_x else gx.squeeze(0), {"weight": gw, "bias": gb} if self.bias else {"weight": gw}

    def _lengths_from(self, lengths: Shape, extra: Shape) -> Shape:
        """Return the lengths of y for given lengths of x and output padding."""
        columns = zip(lengths, *self._options, extra, strict=True)
        return tuple([(n - 1) * s - 2 * p + d * (k - 1) + more + 1 for n, k, s, p, _, d, more in columns])

    def complaint(self, x: Any) -> str | None:
        if not isinstance(x, tuple):
            return super().complaint(x)
        if len(x) != 2 or not isinstance(x[1], Tensor) or x[1].dim() < self.axes:
            return "x must be a tensor, or a pair (x, like), where the tensor like has the lengths of y"
        return super().complaint(x[0]) or self._like_complaint(*x)

    def _like_complaint(self, x: Tensor, like: Tensor) -> str | None:
        if all(0 <= n < s for n, s in zip(self._extra(x, like), self._options[1], strict=True)):
            return None
        least = self._lengths_from(x.shape[-self.axes :], (0,) * self.axes)
        return f"like must be {least} long, or longer by less than stride={self.stride}, not {tuple(like.shape[-self.axes :])}"

    def param_shapes(self) -> dict[str, Shape]:
        weight = self._weight_shape()
        return {"weight": weight, "bias": (self.out_channels,)} if self.bias else {"weight": weight}

    def _weight_shape(self) -> Shape:
        return (self.in_channels, self.out_channels // self.groups, *self._options[0])

    @property
    def least_lengths(self) -> Shape:
        """The least lengths of x for which the padding leaves an element of y."""
        starts = zip(self._lengths_from((1,) * self.axes, self._options[3]), self._options[1], strict=True)
        return tuple([max(1 - (n - 1) // s, 1) for n, s in starts])


@frozen
class ConvTranspose1d(_ConvTranspose):
    """Transposed convolution along one axis: each element of x is spread over a window of y.

        y[n, o, i]  = b[o] + Σ_{c, k, t: s t + d k - p = i} w[c, o, k] x[n, c, t]        s = stride, d = dilation, p = padding
        gw[c, o, k] = Σ_{n, t} x[n, c, t] gy[n, o, s t + d k - p]
        gb[o]       = Σ_{n, i} gy[n, o, i]
        gx[n, c, t] = Σ_{o, k} w[c, o, k] gy[n, o, s t + d k - p]

    With ``groups``, c runs over the channels of o's group. L_out = (L - 1) stride - 2 padding + dilation (kernel_size - 1) +
    output_padding + 1. x can be a pair (x, like): y then has the length of the tensor ``like``, which gets no gradient, and
    ``output_padding`` is not used.

    Args:
        in_channels: Number of channels of x; ``None`` to infer it with ``infer_sizes``.
        out_channels: Number of channels of y.
        kernel_size: Size of the window.
        stride: Step in y from one window to the next.
        padding: Number of elements removed from both ends of y.
        output_padding: Number of elements added at the end of y: a convolution with a stride maps several lengths to one, and
            this selects one of them. Must be below ``stride`` or ``dilation``.
        groups: Number of groups of channels; each group of y sees one group of x. Must divide both numbers of channels.
        bias: Whether to add a learned offset to each channel.
        dilation: Step between the elements of a window.
        initializer: Initializer of ``weight``, by name or value; ``"torch"`` initializes both like ``torch.nn.ConvTranspose1d``.

    Shape:
        x (N, in_channels, L) → y (N, out_channels, L_out), or both without N.

    Params:
        weight: (in_channels, out_channels / groups, kernel_size), Xavier normal.
        bias: (out_channels,), zeros; absent with ``bias=False``.

    Cache:
        ``x``, not copied; for a pair also the output padding.

    Raises:
        ValueError: If ``output_padding`` is not below ``stride`` or ``dilation``, if y would be empty, or if ``like`` is too
            short, or too long by a stride or more.

    References:
        Zeiler et al. 2010, "Deconvolutional networks"; ``torch.nn.ConvTranspose1d``.

    >>> import torch
    >>> layer = ConvTranspose1d(8, 3, kernel_size=4, stride=2, padding=1)
    >>> layer(layer.init(0), torch.ones(2, 8, 10)).shape
    torch.Size([2, 3, 20])
    """

    axes: ClassVar[int] = 1


@frozen
class ConvTranspose2d(_ConvTranspose):
    """Transposed convolution over two axes: each element of x is spread over a window of y.

        y[n, o, i]  = b[o] + Σ_{c, k, t: s t + d k - p = i} w[c, o, k] x[n, c, t]        s = stride, d = dilation, p = padding
        gw[c, o, k] = Σ_{n, t} x[n, c, t] gy[n, o, s t + d k - p]
        gb[o]       = Σ_{n, i} gy[n, o, i]
        gx[n, c, t] = Σ_{o, k} w[c, o, k] gy[n, o, s t + d k - p]

    t, k and i are pairs of indices, one for each axis. With ``groups``, c runs over the channels of o's group. Along each axis,
    the length of y is (length - 1) stride - 2 padding + dilation (kernel_size - 1) + output_padding + 1. x can be a pair (x,
    like): y then has the length of the tensor ``like``, which gets no gradient, and ``output_padding`` is not used.

    Args:
        in_channels: Number of channels of x; ``None`` to infer it with ``infer_sizes``.
        out_channels: Number of channels of y.
        kernel_size: Size of the window; one number for both axes, or a tuple of two.
        stride: Step in y from one window to the next; one number for both axes, or a tuple of two.
        padding: Number of elements removed from both ends of y; one number for both axes, or a tuple of two.
        output_padding: Number of elements added at the end of y; one number for both axes, or a tuple of two: a convolution with
            a stride maps several lengths to one, and this selects one of them. Must be below ``stride`` or ``dilation``.
        groups: Number of groups of channels; each group of y sees one group of x. Must divide both numbers of channels.
        bias: Whether to add a learned offset to each channel.
        dilation: Step between the elements of a window; one number for both axes, or a tuple of two.
        initializer: Initializer of ``weight``, by name or value; ``"torch"`` initializes both like ``torch.nn.ConvTranspose2d``.

    Shape:
        x (N, in_channels, H, W) → y (N, out_channels, H_out, W_out), or both without N.

    Params:
        weight: (in_channels, out_channels / groups, *kernel_size), Xavier normal.
        bias: (out_channels,), zeros; absent with ``bias=False``.

    Cache:
        ``x``, not copied; for a pair also the output padding.

    Raises:
        ValueError: If ``output_padding`` is not below ``stride`` or ``dilation``, if y would be empty, or if ``like`` is too
            short, or too long by a stride or more.

    References:
        Zeiler et al. 2010, "Deconvolutional networks"; ``torch.nn.ConvTranspose2d``.

    >>> import torch
    >>> layer = ConvTranspose2d(8, 3, kernel_size=4, stride=2, padding=1)
    >>> layer(layer.init(0), torch.ones(2, 8, 16, 16)).shape
    torch.Size([2, 3, 32, 32])
    """

    axes: ClassVar[int] = 2


@frozen
class ConvTranspose3d(_ConvTranspose):
    """Transposed convolution over three axes: each element of x is spread over a window of y.

        y[n, o, i]  = b[o] + Σ_{c, k, t: s t + d k - p = i} w[c, o, k] x[n, c, t]        s = stride, d = dilation, p = padding
        gw[c, o, k] = Σ_{n, t} x[n, c, t] gy[n, o, s t + d k - p]
        gb[o]       = Σ_{n, i} gy[n, o, i]
        gx[n, c, t] = Σ_{o, k} w[c, o, k] gy[n, o, s t + d k - p]

    t, k and i are triples of indices, one for each axis. With ``groups``, c runs over the channels of o's group. Along each axis,
    the length of y is (length - 1) stride - 2 padding + dilation (kernel_size - 1) + output_padding + 1. x can be a pair (x,
    like): y then has the length of the tensor ``like``, which gets no gradient, and ``output_padding`` is not used.

    Args:
        in_channels: Number of channels of x; ``None`` to infer it with ``infer_sizes``.
        out_channels: Number of channels of y.
        kernel_size: Size of the window; one number for all axes, or a tuple of three.
        stride: Step in y from one window to the next; one number for all axes, or a tuple of three.
        padding: Number of elements removed from both ends of y; one number for all axes, or a tuple of three.
        output_padding: Number of elements added at the end of y; one number for all axes, or a tuple of three: a convolution with
            a stride maps several lengths to one, and this selects one of them. Must be below ``stride`` or ``dilation``.
        groups: Number of groups of channels; each group of y sees one group of x. Must divide both numbers of channels.
        bias: Whether to add a learned offset to each channel.
        dilation: Step between the elements of a window; one number for all axes, or a tuple of three.
        initializer: Initializer of ``weight``, by name or value; ``"torch"`` initializes both like ``torch.nn.ConvTranspose3d``.

    Shape:
        x (N, in_channels, D, H, W) → y (N, out_channels, D_out, H_out, W_out), or both without N.

    Params:
        weight: (in_channels, out_channels / groups, *kernel_size), Xavier normal.
        bias: (out_channels,), zeros; absent with ``bias=False``.

    Cache:
        ``x``, not copied; for a pair also the output padding.

    Raises:
        ValueError: If ``output_padding`` is not below ``stride`` or ``dilation``, if y would be empty, or if ``like`` is too
            short, or too long by a stride or more.

    References:
        Zeiler et al. 2010, "Deconvolutional networks"; ``torch.nn.ConvTranspose3d``.

    >>> import torch
    >>> layer = ConvTranspose3d(8, 3, kernel_size=2, stride=2)
    >>> layer(layer.init(0), torch.ones(2, 8, 2, 4, 4)).shape
    torch.Size([2, 3, 4, 8, 8])
    """

    axes: ClassVar[int] = 3
