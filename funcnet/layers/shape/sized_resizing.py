"""Resizing and pooling to sizes that depend on the shapes of the inputs.

x is a tensor (N, channels, ...), or a tuple of tensors, of which the first is resized to y (N, channels, *sizes). The others have
the gradient ``None``.
"""

from typing import Any

from attrs import field
from torch import Tensor

from funcnet.contract import Shape
from funcnet.errors import flag, one_of
from funcnet.kernels import adaptive_pooling as pooling_kernels
from funcnet.kernels.shape import resizing as kernels
from funcnet.layers.shape.sized import Sized
from funcnet.layers.shape.templates import InputShape, InputSize, SizeArithmetic, sizes
from funcnet.value import frozen

_MODES = ("nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear", "area")


@frozen
class ResizeTo(Sized):
    """Resize the last axes of x to ``sizes``, which can depend on the shapes of x; ``Upsample`` takes plain numbers.

        y  = A x         each row of A holds the interpolation weights of one element of y
        gx = Aᵀ gy

    Args:
        sizes: The sizes of the last axes of y: numbers, and expressions of the shapes of x.
        mode: A mode of ``Upsample``.
        align_corners: Whether the centers of the corner elements stay in place.

    Shape:
        x (N, channels, ...), or a tuple (x, others ...) → y (N, channels, *sizes)

    Cache:
        The shapes of ``x`` and ``y``, and an empty tensor of their dtype.

    Raises:
        ValueError: If x has another number of axes.

    References:
        ``torch.nn.functional.interpolate``.

    >>> import torch
    >>> ResizeTo((InputSize(1, 2), InputSize(1, 3)))({}, (torch.ones(1, 2, 3, 3), torch.ones(1, 1, 6, 5))).shape
    torch.Size([1, 2, 6, 5])
    """

    sizes: tuple[int | InputSize | InputShape | SizeArithmetic, ...] = field(validator=sizes)
    mode: str = field(default="nearest", validator=one_of(*_MODES))
    align_corners: bool = field(default=False, validator=flag)

    @property
    def template(self) -> Any:
        return self.sizes

    def forward(self, x: Tensor, arguments: Any) -> Tensor:
        return kernels.resize(x, self.mode, arguments, self.align_corners, (None,) * len(arguments))

    def backward(self, gy: Tensor, shape: Shape, arguments: Any) -> Tensor:
        return kernels.resize_backward(gy, self.mode, arguments, shape, self.align_corners, (None,) * len(arguments))

    def rule(self, arguments: Any) -> str:
        return f"x must have {len(arguments) + 2} axes, none empty except the batch, and mode={self.mode!r} must fit {arguments}"


@frozen
class AdaptiveAvgPoolTo(Sized):
    """Average pooling to ``sizes``, which can depend on the shapes of x; ``AdaptiveAvgPool2d`` takes plain numbers.

        y  = Σ x / n over each window of n elements
        gx = Σ gy / n over the windows that contain the element

    Args:
        sizes: The sizes of the last axes of y: numbers, and expressions of the shapes of x.

    Shape:
        x (N, channels, ...), or a tuple (x, others ...) → y (N, channels, *sizes)

    Cache:
        The shapes of ``x`` and ``y``, and an empty tensor of their dtype.

    Raises:
        ValueError: If x has another number of axes.

    References:
        ``torch.nn.functional.adaptive_avg_pool2d``.

    >>> import torch
    >>> AdaptiveAvgPoolTo((SizeArithmetic("floordiv", InputSize(0, 2), 2),))({}, torch.ones(1, 2, 6)).shape
    torch.Size([1, 2, 3])
    """

    sizes: tuple[int | InputSize | InputShape | SizeArithmetic, ...] = field(validator=sizes)

    @property
    def template(self) -> Any:
        return self.sizes

    def forward(self, x: Tensor, arguments: Any) -> Tensor:
        return pooling_kernels.adaptive_avg_pool(x, arguments)

    def backward(self, gy: Tensor, shape: Shape, arguments: Any) -> Tensor:
        return pooling_kernels.adaptive_avg_pool_backward(gy, (shape, False), len(arguments))

    def rule(self, arguments: Any) -> str:
        return f"x must have {len(arguments) + 1} axes or one more, none empty except the batch"
