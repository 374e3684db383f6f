"""Max pooling: a window slides along x, and each output is the largest element it covers.

    MaxPool   y[t] = max_k x[s t + d k - p]      gx[i] = Σ gy[t] over the t whose maximum is at i

for each row and channel; t, k, i are one number per axis (one to three), s is the stride, d the dilation, p the padding. With
``ceil_mode`` the last window may reach beyond the end.
"""

from typing import Any, ClassVar

from attrs import field
from torch import Tensor

from funcnet.checks import check_gy, explain_error
from funcnet.contract import Params, Rng, Shape
from funcnet.errors import flag, value_error
from funcnet.kernels import pooling as kernels
from funcnet.layers.conv.window import Sizes, Windowed, each, hashable, require_axes, sizes
from funcnet.value import frozen


def _settle(layer: Any, padding: Sizes, *more: Any) -> None:
    """Set what the kernels take: kernel, stride (the kernel's size unless given), padding, and more."""
    kernel, pads = each(layer.kernel_size, layer.axes), each(padding, layer.axes)
    if any(2 * p > k for p, k in zip(pads, kernel, strict=True)):
        got = f"padding={padding}, kernel_size={layer.kernel_size}"
        raise value_error(type(layer).__name__, "padding must be at most half of kernel_size", got)
    stride = kernel if layer.stride is None else each(layer.stride, layer.axes)
    object.__setattr__(layer, "_how", (kernel, stride, pads, *more))


def _too_short(x: Tensor, how: tuple[Any, ...], dilation: Shape) -> str | None:
    """Return the rule that an x shorter than the window breaks."""
    reach = tuple([d * (k - 1) + 1 for k, d in zip(how[0], dilation, strict=True)])
    if any(n + 2 * p < r for n, p, r in zip(x.shape[-len(reach) :], how[2], reach, strict=True)):
        return f"x with its padding must be as long as the window, {reach}"
    return None


@frozen
class _MaxPool(Windowed):
    """Largest of each window."""

    ensemble_mode = "loop if large"

    kernel_size: Sizes = field(converter=hashable, validator=sizes(1))
    stride: Sizes | None = field(default=None, converter=hashable, validator=sizes(1, optional=True))
    padding: Sizes = field(default=0, converter=hashable, validator=sizes(0))
    dilation: Sizes = field(default=1, converter=hashable, validator=sizes(1))
    return_indices: bool = field(default=False, validator=flag)
    ceil_mode: bool = field(default=False, validator=flag)
    _how: tuple[Any, ...] = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        _settle(self, self.padding, each(self.dilation, self.axes), self.ceil_mode)

    def __call__(self, params: Params, x: Tensor, rng: Rng = None) -> Any:
        if not self._tiles() or not kernels.tiles_pay(require_axes(self, params, x), self._how[0], 9):
            return self.apply(params, x)[0]
        return kernels.tile_max(x, self._how[0])

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Any, tuple[Tensor, Any]]:
        require_axes(self, params, x)
        if self._tiles() and kernels.tiles_pay(x, self._how[0]):
            y = kernels.tile_max(x, self._how[0])
            return y, (y, x)
        try:
            y, indices = kernels.max_pool(x, *self._how)
        except Exception as error:
            raise explain_error(self, params, x, error) from None
        return (y, indices) if self.return_indices else y, (indices, kernels.origin(x, self.axes))

    def vjp(self, params: Params, cache: tuple[Tensor, Any], gy: Any) -> tuple[Params, Tensor]:
        kept, of = cache
        gy = check_gy(self, gy[0] if self.return_indices else gy, kept.shape)
        if isinstance(of, Tensor):
            return params, kernels.tile_max_backward(gy, of, kept, self._how[0])
        return params, kernels.max_pool_backward(gy, kept, of, *self._how)

    def _tiles(self) -> bool:
        """Tell whether the windows lie side by side, and y is all that is asked for."""
        kernel, stride, padding, dilation, ceil = self._how
        return not (self.return_indices or ceil or any(padding)) and stride == kernel and max(dilation) == 1

    def complaint(self, x: Tensor) -> str | None:
        return _too_short(x, self._how, self._how[3])


@frozen
class MaxPool1d(_MaxPool):
    """Largest element of each window of (N, channels, length), or (channels, length); arguments as in ``torch.nn.MaxPool1d``.

    The output has length ⌊(length + 2 padding - dilation (kernel_size - 1) - 1) / stride⌋ + 1, with ``ceil_mode`` ⌈⌉, but no
    window begins in the padding at the end. The padding is -∞. With ``return_indices`` y is a pair: the largest elements, and
    their indices in the flattened axes behind the channels, as ``MaxUnpool1d`` takes them. Of equal elements the first counts,
    of NaNs the last.

    Params   none.
    Cache    the indices, and the shape of ``x``; for windows side by side on a large ``x``, ``y`` and ``x``.
    Raises   ``ValueError`` for sizes below 1, a padding of more than half the kernel, and an ``x`` that is not floating, or has
             other axes, or is shorter than the window.
    Source   ``torch.nn.MaxPool1d``'s formula.
    """

    axes: ClassVar[int] = 1


@frozen
class MaxPool2d(_MaxPool):
    """Largest element of each window of (N, channels, height, width), or without N; arguments as in ``torch.nn.MaxPool2d``.

    Each size is one number for both axes, or a tuple of two; else as ``MaxPool1d``.

    Params   none.
    Cache    the indices, and the shape of ``x``; for windows side by side on a large ``x``, ``y`` and ``x``.
    Raises   ``ValueError`` as ``MaxPool1d`` does.
    Source   ``torch.nn.MaxPool2d``'s formula.
    """

    axes: ClassVar[int] = 2


@frozen
class MaxPool3d(_MaxPool):
    """Largest element of each window of (N, channels, depth, height, width), or without N; as ``torch.nn.MaxPool3d``.

    Each size is one number for all axes, or a tuple of three; else as ``MaxPool1d``.

    Params   none.
    Cache    the indices, and the shape of ``x``; for windows side by side on a large ``x``, ``y`` and ``x``.
    Raises   ``ValueError`` as ``MaxPool1d`` does.
    Source   ``torch.nn.MaxPool3d``'s formula.
    """

    axes: ClassVar[int] = 3
