"""Max pooling: a window slides along x, and each output is the largest element it covers.

    MaxPool   y[t] = max_k x[s t + d k - p]      gx[i] = Σ gy[t] over the t whose maximum is at i

for each row and channel; t, k, i are one number per axis (one to three), s is the stride, d the dilation, p the padding. With
``ceil_mode`` the last window may reach beyond the end.
"""

from typing import Any, ClassVar

from attrs import field
from torch import Tensor

from funcnet.checks import check_gy, kind_of
from funcnet.contract import Params, Rng
from funcnet.errors import flag, whole_numbers
from funcnet.kernels import pooling as kernels
from funcnet.kernels.windows import origin
from funcnet.layers.conv.window import Sizes, each, hashable, require_axes
from funcnet.layers.pooling.sliding import SlidingPool
from funcnet.value import frozen


@frozen
class _MaxPool(SlidingPool):
    """Largest of each window."""

    ensemble_mode = "loop if large"

    kernel_size: Sizes = field(converter=hashable, validator=whole_numbers(1))
    stride: Sizes | None = field(default=None, converter=hashable, validator=whole_numbers(1, optional=True))
    padding: Sizes = field(default=0, converter=hashable, validator=whole_numbers(0))
    dilation: Sizes = field(default=1, converter=hashable, validator=whole_numbers(1))
    return_indices: bool = field(default=False, validator=flag)
    ceil_mode: bool = field(default=False, validator=flag)

    def __attrs_post_init__(self) -> None:
        self._set_options(self.kernel_size, self.stride, self.padding, each(self.dilation, self.axes), self.ceil_mode)

    def __call__(self, params: Params, x: Tensor, rng: Rng = None) -> Any:
        if not self._tiles() or not kernels.tiles_pay(require_axes(self, params, x), self._options[0], 9):
            return self.apply(params, x)[0]
        return kernels.tile_max(x, self._options[0])

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Any, tuple[Tensor, Any, Tensor]]:
        require_axes(self, params, x)
        if self._tiles() and kernels.tiles_pay(x, self._options[0]):
            y = kernels.tile_max(x, self._options[0])
            return y, (y, x, kind_of(x))
        y, indices = kernels.max_pool(x, *self._options)
        return (y, indices) if self.return_indices else y, (indices, origin(x, self.axes), kind_of(x))

    def vjp(self, params: Params, cache: tuple[Tensor, Any, Tensor], gy: Any) -> tuple[Params, Tensor]:
        first, second, kind = cache  # the indices and the origin of x, or y and x
        gy = check_gy(self, gy[0] if self.return_indices else gy, first.shape, kind)
        if isinstance(second, Tensor):
            return params, kernels.tile_max_backward(gy, second, first, self._options[0])
        return params, kernels.max_pool_backward(gy, first, second, *self._options)

    def _tiles(self) -> bool:
        """Tell whether the windows lie side by side, and y is all that is asked for."""
        kernel, stride, padding, dilation, ceil = self._options
        return not (self.return_indices or ceil or any(padding)) and stride == kernel and max(dilation) == 1


@frozen
class MaxPool1d(_MaxPool):
    """Largest element of each window of (N, channels, length), or (channels, length); arguments as in ``torch.nn.MaxPool1d``.

    The output has length ⌊(length + 2 padding - dilation (kernel_size - 1) - 1) / stride⌋ + 1, with ``ceil_mode`` ⌈⌉, but no
    window begins in the padding at the end. The padding is -∞. With ``return_indices`` y is a pair: the largest elements, and
    their indices in the flattened axes behind the channels, as ``MaxUnpool1d`` takes them. Of equal elements the first counts,
    of NaNs the last.

    Params   none.
    Cache    the indices, and the shape of ``x``; for windows side by side on a large ``x``, ``y`` and ``x``; and an empty tensor
             of the dtype and device of ``x``.
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
    Cache    the indices, and the shape of ``x``; for windows side by side on a large ``x``, ``y`` and ``x``; and an empty tensor
             of the dtype and device of ``x``.
    Raises   ``ValueError`` as ``MaxPool1d`` does.
    Source   ``torch.nn.MaxPool2d``'s formula.
    """

    axes: ClassVar[int] = 2


@frozen
class MaxPool3d(_MaxPool):
    """Largest element of each window of (N, channels, depth, height, width), or without N; as ``torch.nn.MaxPool3d``.

    Each size is one number for all axes, or a tuple of three; else as ``MaxPool1d``.

    Params   none.
    Cache    the indices, and the shape of ``x``; for windows side by side on a large ``x``, ``y`` and ``x``; and an empty tensor
             of the dtype and device of ``x``.
    Raises   ``ValueError`` as ``MaxPool1d`` does.
    Source   ``torch.nn.MaxPool3d``'s formula.
    """

    axes: ClassVar[int] = 3
