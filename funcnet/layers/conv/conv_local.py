"""Unshared convolution: each place has its own kernel.

    y[n, o, t]     = b[o, t] + Σ_{c, k} w[t, o, c, k] x[n, c, s t + d k - p]
    gw[t, o, c, k] = Σ_n gy[n, o, t] x[n, c, s t + d k - p]
    gb[o, t]       = Σ_n gy[n, o, t]
    gx[n, c, i]    = Σ_{o, k, t: s t + d k - p = i} gy[n, o, t] w[t, o, c, k]

s is the stride, d the dilation, p the padding before x, and x is zero outside its range; t, k, i are one number per axis. x is
(N, in, *lengths) and y (N, out, *places), or both without N.
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
from funcnet.layers.conv.conv import Pad, padding_of, padding_rule
from funcnet.layers.conv.window import Sizes, Window, Windowed, axes_complaint, each, hashable
from funcnet.random.keys import Key
from funcnet.value import frozen


def _in_own_memory(leaf: Tensor) -> Tensor:
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
        """Draw for each place what a convolution draws for all."""
        shapes = {
            "weight": (self.out_channels, require_sizes(self).in_channels, *self._window.kernel),
            "bias": (self.out_channels,),
        }
        draw = lambda key: initializers.weight_and_bias(key, shapes, self.initializer)
        drawn = torch.func.vmap(draw)(random.split(random.as_key(rng), math.prod(self._places)))
        places = {"weight": drawn["weight"], "bias": drawn["bias"].t()} if self.bias else {"weight": drawn["weight"]}
        # A constant comes out of vmap expanded, and an optimizer could not write to it.
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
        """Return what each window sees: (windows, in · kernel, N)."""
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
    """Convolution over (N, channels, input_size), or (channels, input_size), with its own kernel at each place.

    Like ``Conv1d`` without ``groups``, but no weights are shared: L places have L times the weights, and x has a fixed length.
    ``infer_sizes`` infers ``in_channels=None`` and ``input_size=None``.

    Params   ``weight`` (places, out, in, kernel), drawn at each place as in ``Conv1d``; ``bias`` (out, places), zeros, absent
             with ``bias=False``.
    Cache    ``x`` itself, not a copy.
    Raises   ``ValueError`` for sizes below 1, an ``input_size`` shorter than the kernel, ``"same"`` with a stride, params of
             another layer, an ``x`` with other axes, channels, length or dtype, and a ``gy`` without the shape of ``y``.
    Source   ``flax.linen.ConvLocal``.
    """

    axes: ClassVar[int] = 1


@frozen
class ConvLocal2d(_ConvLocal):
    """Convolution over (N, channels, *input_size), or without N, with its own kernel at each place, along two axes.

    Params   ``weight`` (*places, out, in, *kernel) and ``bias`` (out, *places), as in ``ConvLocal1d``.
    Cache    ``x`` itself, not a copy.
    Raises   ``ValueError`` as ``ConvLocal1d`` does.
    Source   ``flax.linen.ConvLocal``.
    """

    axes: ClassVar[int] = 2


@frozen
class ConvLocal3d(_ConvLocal):
    """Convolution over (N, channels, *input_size), or without N, with its own kernel at each place, along three axes.

    Params   ``weight`` (*places, out, in, *kernel) and ``bias`` (out, *places), as in ``ConvLocal1d``.
    Cache    ``x`` itself, not a copy.
    Raises   ``ValueError`` as ``ConvLocal1d`` does.
    Source   ``flax.linen.ConvLocal``.
    """

    axes: ClassVar[int] = 3
