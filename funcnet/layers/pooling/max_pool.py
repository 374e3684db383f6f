"""Max pooling: a window slides along x, and each output is the largest element it covers.

    MaxPool   y[t] = max_k x[s t + d k - p]      gx[i] = Σ gy[t] over the t whose maximum is at i

for each row and channel; t, k, i are one number per axis (one to three), s is the stride, d the dilation, p the padding. With
``ceil_mode`` the last window may reach beyond the end.
"""

from typing import Any, ClassVar

from attrs import field
from torch import Tensor

from funcnet.checks import check_gy, kind_of
from funcnet.contract import Grads, Params, Rng
from funcnet.errors import flag, whole_numbers
from funcnet.kernels import pooling as kernels
from funcnet.kernels.windows import Origin, origin
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
        if self.return_indices:
            return self.apply(params, x)[0]
        return kernels.max_pool_values(require_axes(self, params, x), *self._options)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Any, tuple[Tensor, Origin, Tensor]]:
        require_axes(self, params, x)
        y, indices = kernels.max_pool(x, *self._options)
        return (y, indices) if self.return_indices else y, (indices, origin(x, self.axes), kind_of(x))

    def vjp(self, params: Params, cache: tuple[Tensor, Origin, Tensor], gy: Any) -> tuple[Grads, Tensor]:
        indices, of, kind = cache
        gy = check_gy(self, gy[0] if self.return_indices else gy, indices.shape, kind)
        return params, kernels.max_pool_backward(gy, indices, of, *self._options)


@frozen
class MaxPool1d(_MaxPool):
    """Largest element of each window of (N, channels, length), or (channels, length); arguments as in ``torch.nn.MaxPool1d``.

    The output has length ⌊(length + 2 padding - dilation (kernel_size - 1) - 1) / stride⌋ + 1, with ``ceil_mode`` ⌈⌉, but no
    window begins in the padding at the end. The padding is -∞. With ``return_indices`` y is a pair: the largest elements, and
    their indices in the flattened axes behind the channels, as ``MaxUnpool1d`` takes them. Of equal elements the first counts,
    of NaNs the last.

    Params   none.
    Cache    the indices, the shape of ``x``, and an empty tensor of the dtype and device of ``x``.
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
    Cache    the indices, the shape of ``x``, and an empty tensor of the dtype and device of ``x``.
    Raises   ``ValueError`` as ``MaxPool1d`` does.
    Source   ``torch.nn.MaxPool2d``'s formula.
    """

    axes: ClassVar[int] = 2


@frozen
class MaxPool3d(_MaxPool):
    """Largest element of each window of (N, channels, depth, height, width), or without N; as ``torch.nn.MaxPool3d``.

    Each size is one number for all axes, or a tuple of three; else as ``MaxPool1d``.

    Params   none.
    Cache    the indices, the shape of ``x``, and an empty tensor of the dtype and device of ``x``.
    Raises   ``ValueError`` as ``MaxPool1d`` does.
    Source   ``torch.nn.MaxPool3d``'s formula.
    """

    axes: ClassVar[int] = 3
