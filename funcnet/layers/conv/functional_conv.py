"""Convolutions whose weights are part of x, for weights that are computed or used in several places.

x (N, in, ...) or (in, ...), w (out, in / groups, *kernel), for the transposed one (in, out / groups, *kernel), b (out,), y (N,
out, ...). The indices t, k and i have one number for each axis. With ``groups``, c runs over the channels of o's group.
"""

from typing import Any, ClassVar

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import Misfit, check_gy, floating_complaint, require_no_params
from funcnet.contract import Grads, Layer, Params, Rng
from funcnet.errors import MOST, is_whole, size, valid_if, whole_numbers
from funcnet.kernels import conv as kernels
from funcnet.layers.conv.window import Sizes, each, hashable
from funcnet.value import frozen


@frozen
class _Functional(Layer):
    """Base of both convolutions: it checks the tensors of x and computes their gradients."""

    transposed: ClassVar[bool]

    axes: int = field(validator=valid_if(lambda got: is_whole(got) and 1 <= got <= 3, "1, 2 or 3"))

    def checked(self, params: Params, x: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return x, the weight and the bias."""
        require_no_params(self, params)
        if self.complaint(x):
            raise Misfit
        return x[0], x[1], x[2] if len(x) == 3 else None

    def gradients(self, cache: Any, gy: Tensor, options: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the gradients of x, the weight and the bias, computed from the tensors that the kernel got."""
        (x, w, b), of = cache
        gy = check_gy(self, gy, of, x)
        batch = x.dim() == self.axes + 2
        x, gy = (x, gy) if batch else (x.unsqueeze(0), gy.unsqueeze(0))
        mask = [True, True, b is not None]
        gx, gw, gb = kernels.convolution_backward(gy, x, w, [gy.shape[1]], *options, mask)
        gx = gx if batch else gx.squeeze(0)
        return (gx, gw) if b is None else (gx, gw, gb)

    def complaint(self, x: Any) -> str | None:
        rule = f"x must be (x, weight) or (x, weight, bias), floating tensors of one dtype, the weight with {self.axes + 2} axes"
        if not isinstance(x, tuple) or len(x) not in (2, 3) or any([floating_complaint(one) for one in x]):  # noqa: C419
            return rule
        right = x[1].dim() == self.axes + 2 and x[0].dtype is x[1].dtype is x[-1].dtype
        right = right and x[0].is_cpu is x[1].is_cpu is x[-1].is_cpu and all([one.layout is torch.strided for one in x])  # noqa: C419
        return None if right and x[0].dim() - self.axes in (1, 2) else rule


def _is_padding(got: Any) -> bool:
    sizes = got if isinstance(got, tuple) else (got,)
    return got in ("same", "valid") or (sizes != () and all(is_whole(n) and 0 <= n <= MOST for n in sizes))


_padding = valid_if(_is_padding, 'sizes of at least 0, "same" or "valid"')


@frozen
class FunctionalConv(_Functional):
    """Convolution with the weight and the bias as inputs.

        y[n, o, t]  = b[o] + Σ_{c, k} w[o, c, k] x[n, c, s t + d k - p]        s = stride, d = dilation, p = padding before x
        gw[o, c, k] = Σ_{n, t} gy[n, o, t] x[n, c, s t + d k - p]
        gb[o]       = Σ_{n, t} gy[n, o, t]
        gx[n, c, i] = Σ_{o, k, t: s t + d k - p = i} gy[n, o, t] w[o, c, k]

    Args:
        axes: Number of axes that the window slides along: 1, 2 or 3.
        stride: Step from one window to the next; one number for all axes, or a tuple with one for each.
        padding: Number of zeros before and after x; one number for all axes, or a tuple with one for each. ``"same"`` keeps the
            length, for stride 1; ``"valid"`` is 0.
        dilation: Step between the elements of a window; one number for all axes, or a tuple with one for each.
        groups: Number of groups of channels; each group of y sees one group of x.

    Shape:
        x, a tuple of x (N, in, ...), weight (out, in / groups, ...) and optionally bias (out,) → y (N, out, ...), or x and y
        without N.

    Cache:
        The tensors of x as the kernel got them, and the shape of ``y``.

    Raises:
        ValueError: If the tensors do not fit each other.

    References:
        ``torch.nn.functional.conv2d``.

    >>> FunctionalConv(2)({}, (torch.ones(1, 3, 4, 4), torch.ones(2, 3, 3, 3))).shape
    torch.Size([1, 2, 2, 2])
    """

    transposed = False

    stride: Sizes = field(default=1, converter=hashable, validator=whole_numbers(1))
    padding: int | str | tuple[int, ...] = field(default=0, converter=hashable, validator=_padding)
    dilation: Sizes = field(default=1, converter=hashable, validator=whole_numbers(1))
    groups: int = field(default=1, validator=size)

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Tensor, Any]:
        given, w, b = self.checked(params, x)
        stride, padding, dilation, extra = self._options(w)
        y, given = kernels.convolution(
            kernels.pad_by(given, (0,) * self.axes, extra, 0.0), w, b, stride, padding, dilation, self.groups
        )
        return y, ((given, w, b), tuple(y.shape))

    def vjp(self, params: Params, cache: Any, gy: Tensor) -> tuple[Grads, tuple[Any, ...]]:
        stride, padding, dilation, extra = self._options(cache[0][1])
        gx, *rest = self.gradients(cache, gy, (stride, padding, dilation, False, (0,) * self.axes, self.groups))
        return params, (kernels.pad_backward(gx, (0,) * self.axes, extra, "zeros"), *rest)

    def _options(self, w: Tensor) -> tuple[tuple[int, ...], ...]:
        """Return stride, padding, dilation, and the extra element that "same" can add after x."""
        dilation = each(self.dilation, self.axes)
        if isinstance(self.padding, str):
            total = [d * (n - 1) if self.padding == "same" else 0 for d, n in zip(dilation, w.shape[2:], strict=True)]
            return each(self.stride, self.axes), tuple([n // 2 for n in total]), dilation, tuple([n % 2 for n in total])
        return each(self.stride, self.axes), each(self.padding, self.axes), dilation, (0,) * self.axes


@frozen
class FunctionalConvTranspose(_Functional):
    """Transposed convolution with the weight and the bias as inputs.

        y[n, o, i]  = b[o] + Σ_{c, k, t: s t + d k - p = i} w[c, o, k] x[n, c, t]        s = stride, d = dilation, p = padding
        gw[c, o, k] = Σ_{n, t} x[n, c, t] gy[n, o, s t + d k - p]
        gb[o]       = Σ_{n, i} gy[n, o, i]
        gx[n, c, t] = Σ_{o, k} w[c, o, k] gy[n, o, s t + d k - p]

    Args:
        axes: Number of axes that the window slides along: 1, 2 or 3.
        stride: Step in y from one window to the next; one number for all axes, or a tuple with one for each.
        padding: Number of elements removed from both ends of y; one number for all axes, or a tuple with one for each.
        output_padding: Number of elements added at the end of y; one number for all axes, or a tuple with one for each.
        groups: Number of groups of channels; each group of y sees one group of x.
        dilation: Step between the elements of a window; one number for all axes, or a tuple with one for each.

    Shape:
        x, a tuple of x (N, in, ...), weight (in, out / groups, ...) and optionally bias (out,) → y (N, out, ...), or x and y
        without N.

    Cache:
        The tensors of x, not copied, and the shape of ``y``.

    Raises:
        ValueError: If the tensors do not fit each other.

    References:
        ``torch.nn.functional.conv_transpose2d``.

    >>> FunctionalConvTranspose(1, 2)({}, (torch.ones(1, 3, 4), torch.ones(3, 2, 2))).shape
    torch.Size([1, 2, 8])
    """

    transposed = True

    stride: Sizes = field(default=1, converter=hashable, validator=whole_numbers(1))
    padding: Sizes = field(default=0, converter=hashable, validator=whole_numbers(0))
    output_padding: Sizes = field(default=0, converter=hashable, validator=whole_numbers(0))
    groups: int = field(default=1, validator=size)
    dilation: Sizes = field(default=1, converter=hashable, validator=whole_numbers(1))

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Tensor, Any]:
        given, w, b = self.checked(params, x)
        stride, padding, dilation, _, added, groups = self._options()
        y = kernels.transposed[self.axes](given, w, b, stride, padding, added, groups, dilation)
        return y, ((given, w, b), tuple(y.shape))

    def vjp(self, params: Params, cache: Any, gy: Tensor) -> tuple[Grads, tuple[Any, ...]]:
        return params, self.gradients(cache, gy, self._options())

    def _options(self) -> tuple[Any, ...]:
        sizes = [each(one, self.axes) for one in (self.stride, self.padding, self.dilation)]
        return (*sizes, True, each(self.output_padding, self.axes), self.groups)
