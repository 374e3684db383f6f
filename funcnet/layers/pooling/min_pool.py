"""Pooling of the smallest element: a window slides along x, as in ``MaxPool``, whose kernels serve on -x.

MinPool   y[t] = min_k x[s t + d k - p] = -max_k (-x)[s t + d k - p]        gx[i] = Σ gy[t] over the t whose minimum stands at i
"""

from typing import Any, ClassVar

from torch import Tensor

from funcnet.contract import Params, Rng
from funcnet.kernels.windows import Origin
from funcnet.layers.conv.window import require_axes
from funcnet.layers.pooling.max_pool import _MaxPool
from funcnet.value import frozen


@frozen
class _MinPool(_MaxPool):
    """Smallest of each window; the gradient goes where that of the largest of -x goes, its sign twice changed."""

    def __call__(self, params: Params, x: Tensor, rng: Rng = None) -> Any:
        if self.return_indices:
            return self.apply(params, x)[0]
        return -super().__call__(params, -require_axes(self, params, x))

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Any, tuple[Tensor, Origin, Tensor]]:
        y, cache = super().apply(params, -require_axes(self, params, x))
        return self._negated(y), cache

    def _negated(self, y: Any) -> Any:
        return (-y[0], y[1]) if self.return_indices else -y


@frozen
class MinPool1d(_MinPool):
    """Smallest element of each window of (N, channels, length), or (channels, length); arguments and lengths as ``MaxPool1d``.

    The padding is ∞. Of equal elements the first counts.

    Params   none.
    Cache    the indices, the shape of ``x``, and an empty tensor of the dtype and device of ``x``.
    Raises   ``ValueError`` as ``MaxPool1d`` does.
    Source   elementary: -``MaxPool1d`` of -x.
    """

    axes: ClassVar[int] = 1


@frozen
class MinPool2d(_MinPool):
    """Smallest element of each window of (N, channels, height, width), or without N; arguments as of ``MaxPool2d``.

    Params   none.
    Cache    the indices, the shape of ``x``, and an empty tensor of the dtype and device of ``x``.
    Raises   ``ValueError`` as ``MaxPool1d`` does.
    Source   elementary: -``MaxPool2d`` of -x.
    """

    axes: ClassVar[int] = 2


@frozen
class MinPool3d(_MinPool):
    """Smallest element of each window of (N, channels, depth, height, width), or without N; arguments as of ``MaxPool3d``.

    Params   none.
    Cache    the indices, the shape of ``x``, and an empty tensor of the dtype and device of ``x``.
    Raises   ``ValueError`` as ``MaxPool1d`` does.
    Source   elementary: -``MaxPool3d`` of -x.
    """

    axes: ClassVar[int] = 3
