"""Convolution (cross-correlation, as everywhere in the field): a window slides along x, and each output is a weighted sum of it.

    y[n, o, t]  = b[o] + Σ_{c, k} w[o, c, k] x[n, c, s t + d k - p]        s = stride, d = dilation, p = padding before x
    gw[o, c, k] = Σ_{n, t} gy[n, o, t] x[n, c, s t + d k - p]
    gb[o]       = Σ_{n, t} gy[n, o, t]
    gx[n, c, i] = Σ_{o, k, t: s t + d k - p = i} gy[n, o, t] w[o, c, k]

with t, k, i one number for each axis (one to three), and x outside its range zero, or by ``padding_mode`` a copy of what is
inside, whose gradient then goes there; with groups, c runs over the channels of o's group.
"""

from typing import Any, ClassVar

from attrs import field
from torch import Tensor

from funcnet import initializers
from funcnet.checks import check_gy, check_param, require_kind, require_params
from funcnet.contract import Grads, Params, Rng, Shape, Size
from funcnet.errors import MOST, divides, fields_error, flag, is_whole, one_of, size, size_or_none, valid_if, whole_numbers
from funcnet.initializers.elementary import Initializer
from funcnet.kernels import conv as kernels
from funcnet.layers.conv.window import Sizes, Window, Windowed, each, hashable, kernel_fans
from funcnet.random.keys import Key
from funcnet.value import frozen

Pad = int | str | tuple[int, int]

_WORDS = ("same", "valid", "causal")


def _is_pad(entry: Any) -> bool:
    pair = entry if isinstance(entry, tuple) and len(entry) == 2 else (entry,)
    return entry in _WORDS or all(is_whole(n) and n >= 0 for n in pair)


_RULE = 'a whole number of at least 0, "same", "valid" or "causal" (in a tuple also a pair (before, after))'
padding_rule = valid_if(_is_pad, _RULE, several=True, most=MOST)
"""Validate a padding: a number, a pair or a word, for all axes or in a tuple for each."""


def _ends(pad: Pad, reach: int) -> tuple[int, int]:
    """Return how many elements of padding are before and after x along one axis."""
    if isinstance(pad, str):
        total = 0 if pad == "valid" else reach - 1
        before = total if pad == "causal" else total // 2
        return before, total - before
    return pad if isinstance(pad, tuple) else (pad, pad)


def padding_of(layer: Any) -> Window:
    """Return a convolution's window, with its padding in numbers."""
    kernel, stride, dilation, pads = (
        each(option, layer.axes) for option in (layer.kernel_size, layer.stride, layer.dilation, layer.padding)
    )
    if any(pad == "same" and s != 1 for pad, s in zip(pads, stride, strict=True)):
        raise fields_error(layer, 'padding="same" must have stride 1', "stride")
    window = Window(kernel, stride, dilation, (), ())
    before, after = zip(*map(_ends, pads, window.reach()), strict=True)
    return window._replace(before=before, after=after)


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
        # the kernel itself puts zeros, as many before as after; the rest is put there ahead of it
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
        """The stride, the padding and the dilation of the kernel, which convolves what is in the cache."""
        return self._window.stride, self._inside, self._window.dilation

    def columns(self, x: Tensor) -> Tensor:
        """Return what each window sees of x, which must have a batch and be as in the cache: (N, channels · kernel, windows)."""
        window = self._window._replace(before=self._inside, after=self._inside)
        places = window.places(x.shape[-self.axes :])
        x = kernels.pad_by(x, self._inside, self._inside, 0.0)
        return kernels.windows(x, window.kernel, window.stride, window.dilation, places).flatten(1, 2)

    def _outside(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return how many elements are put before and after x ahead of the kernel."""
        before, after = ([n - i for n, i in zip(ends, self._inside, strict=True)] for ends in self._window[3:])
        return tuple(before), tuple(after)

    def param_shapes(self) -> dict[str, Shape]:
        weight = self._weight_shape()
        return {"weight": weight, "bias": (self.out_channels,)} if self.bias else {"weight": weight}

    def _weight_shape(self) -> Shape:
        return (self.out_channels, self.in_channels // self.groups, *self._window.kernel)

    @property
    def least_lengths(self) -> Shape:
        """For one window, and for what the padding copies: "reflect" needs one element more, the end itself."""
        window, copies = self._window.least_lengths(), {"reflect": 1, "circular": 0}
        if self.padding_mode not in copies:
            return window
        padding = [max(ends) + copies[self.padding_mode] for ends in zip(*self._window[3:], strict=True)]
        return tuple(map(max, window, padding))


@frozen
class Conv1d(_Conv):
    """Convolution over (N, channels, length), or (channels, length) without a batch; arguments as in ``torch.nn.Conv1d``.

    The output has length ⌊(length + 2 padding - dilation (kernel_size - 1) - 1) / stride⌋ + 1. ``padding="same"`` keeps the
    length, for stride 1; where the padding is odd the end gets the one more. ``padding="valid"`` is 0. ``padding="causal"`` is
    before x alone, so that y[t] sees x[: stride t + 1] and no more; with a stride the length is ⌈length / stride⌉. A pair
    (before, after) for each axis, ``padding=((2, 0),)``, says both ends. ``in_channels=None`` is for ``infer_sizes`` to find.

    Params   ``weight`` (out, in / groups, kernel), Xavier normal unless ``initializer`` names another; ``bias`` (out,), zeros,
             absent with ``bias=False``. With ``initializer="torch"`` both are drawn as ``torch.nn.Conv1d`` draws them.
    Cache    ``x`` itself, with its padding where that is uneven or of another ``padding_mode`` than ``"zeros"``.
    Raises   ``ValueError`` for sizes below 1, channels that ``groups`` does not divide, ``"same"`` with a stride, ``"causal"``
             with a mode that looks ahead, params of another layer, an ``x`` with other channels, axes or dtype, or
             shorter than the kernel, and a ``gy`` that has not the shape of ``y``.
    Source   ``torch.nn.Conv1d``'s formula; van den Oord et al. 2016, "WaveNet", section 2.1, for ``"causal"``.
    """

    axes: ClassVar[int] = 1


@frozen
class Conv2d(_Conv):
    """Convolution over (N, channels, height, width), or without N; arguments as in ``torch.nn.Conv2d``.

    Each option is one number for both axes, or a tuple of two. So is the padding, whose entries are numbers, pairs (before,
    after), ``"same"``, ``"valid"`` or ``"causal"``, as of ``Conv1d``: ``"causal"`` alone is causal along both axes,
    ``("causal", "same")`` along the first.

    Of many images of 2 to 4 channels, in float32 and main memory, x is put in the order ``channels_last``, which y and all that
    follows keep, since the convolutions after it are quicker so; the values are the same to rounding.

    Params   ``weight`` (out, in / groups, kernel height, kernel width) and ``bias`` (out,), as of ``Conv1d``.
    Cache    ``x`` itself, with its padding where that is uneven or of another mode than ``"zeros"``, and in that order.
    Raises   ``ValueError`` as ``Conv1d`` does.
    Source   ``torch.nn.Conv2d``'s formula.
    """

    axes: ClassVar[int] = 2


@frozen
class Conv3d(_Conv):
    """Convolution over (N, channels, depth, height, width), or without N; arguments as in ``torch.nn.Conv3d``.

    Each option is one number for all axes, or a tuple of three, as of ``Conv2d``.

    Params   ``weight`` (out, in / groups, *kernel) and ``bias`` (out,), as of ``Conv1d``.
    Cache    ``x`` itself, with its padding where that is uneven or of another ``padding_mode`` than ``"zeros"``.
    Raises   ``ValueError`` as ``Conv1d`` does.
    Source   ``torch.nn.Conv3d``'s formula.
    """

    axes: ClassVar[int] = 3
