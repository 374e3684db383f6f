"""Transposed convolution: each element of x is spread over a window, as the gradient of a convolution spreads its own.

    y[n, o, i]  = b[o] + Σ_{c, k, t: s t + d k - p = i} w[c, o, k] x[n, c, t]        s = stride, d = dilation, p = padding
    gw[c, o, k] = Σ_{n, t} x[n, c, t] gy[n, o, s t + d k - p]
    gb[o]       = Σ_{n, i} gy[n, o, i]
    gx[n, c, t] = Σ_{o, k} w[c, o, k] gy[n, o, s t + d k - p]

with t, k, i one number for each axis (one to three), and gy zero outside its range; with groups, c runs over the channels of o's
group.
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
"""x, and where y has the lengths of another tensor the output padding that gives them."""


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
        """Return y with ``extra`` as its output padding."""
        require_params(self, params)
        require_kind(self, params, x)
        _, stride, padding, _, dilation = self._options
        convolve = kernels.transposed[self.axes]
        y: Tensor = convolve(x, params["weight"], params.get("bias"), stride, padding, extra, self.groups, dilation)
        return y

    def _with_lengths_of(self, x: Any, like: Any) -> tuple[Tensor, Shape]:
        """Return x, and the output padding with which y has the lengths of ``like``."""
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
        """Return the lengths of y, from those of x and the output padding."""
        columns = zip(lengths, *self._options, extra, strict=True)
        return tuple([(n - 1) * s - 2 * p + d * (k - 1) + more + 1 for n, k, s, p, _, d, more in columns])

    def complaint(self, x: Any) -> str | None:
        if not isinstance(x, tuple):
            return super().complaint(x)
        if len(x) != 2 or not isinstance(x[1], Tensor) or x[1].dim() < self.axes:
            return "x must be a tensor, or a pair (x, like) with a tensor that has the lengths of y"
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
        """As of which the padding leaves something of y."""
        starts = zip(self._lengths_from((1,) * self.axes, self._options[3]), self._options[1], strict=True)
        return tuple([max(1 - (n - 1) // s, 1) for n, s in starts])


@frozen
class ConvTranspose1d(_ConvTranspose):
    """Transposed convolution over (N, channels, length), or (channels, length); arguments as in ``torch.nn.ConvTranspose1d``.

    The output has length (length - 1) stride - 2 padding + dilation (kernel_size - 1) + output_padding + 1; ``output_padding``
    chooses among the lengths that a convolution with this stride makes one. A pair (x, like) chooses the length of ``like``, a
    tensor that has no gradient; ``output_padding`` is then not used. Padding takes elements off y. ``in_channels=None`` is for
    ``infer_sizes`` to find.

    Params   ``weight`` (in, out / groups, kernel), Xavier normal unless ``initializer`` names another; ``bias`` (out,), zeros,
             absent with ``bias=False``. With ``initializer="torch"`` both are drawn as ``torch.nn.ConvTranspose1d`` draws them.
    Cache    ``x`` itself, not a copy; of a pair also the output padding.
    Raises   ``ValueError`` for sizes below 1, channels that ``groups`` does not divide, an ``output_padding`` that is not below
             stride or dilation, params of another layer, an ``x`` with other channels, axes or dtype, a ``like`` that is too
             short, or longer by a stride, and a ``gy`` that has not the shape of ``y``.
    Source   Zeiler et al. 2010.
    """

    axes: ClassVar[int] = 1


@frozen
class ConvTranspose2d(_ConvTranspose):
    """Transposed convolution over (N, channels, height, width), or without N; arguments as in ``torch.nn.ConvTranspose2d``.

    Each option is one number for both axes, or a tuple of two; else as ``ConvTranspose1d``.

    Params   ``weight`` (in, out / groups, kernel height, kernel width) and ``bias`` (out,), as of ``ConvTranspose1d``.
    Cache    ``x`` itself, not a copy.
    Raises   ``ValueError`` as ``ConvTranspose1d`` does.
    Source   ``torch.nn.ConvTranspose2d``'s formula.
    """

    axes: ClassVar[int] = 2


@frozen
class ConvTranspose3d(_ConvTranspose):
    """Transposed convolution over (N, channels, depth, height, width), or without N; as ``torch.nn.ConvTranspose3d``.

    Each option is one number for all axes, or a tuple of three; else as ``ConvTranspose1d``.

    Params   ``weight`` (in, out / groups, *kernel) and ``bias`` (out,), as of ``ConvTranspose1d``.
    Cache    ``x`` itself, not a copy.
    Raises   ``ValueError`` as ``ConvTranspose1d`` does.
    Source   ``torch.nn.ConvTranspose3d``'s formula.
    """

    axes: ClassVar[int] = 3
