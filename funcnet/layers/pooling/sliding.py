"""SlidingPool: the options that all pooling layers with sliding windows share, in the form that the kernels expect."""

from typing import Any

from attrs import field

from funcnet.contract import Shape
from funcnet.errors import fields_error
from funcnet.layers.conv.window import Sizes, Window, Windowed, each
from funcnet.value import frozen


@frozen
class SlidingPool(Windowed):
    """Base of pooling layers whose windows slide along x."""

    _options: tuple[Any, ...] = field(init=False, eq=False)

    def _set_options(self, kernel_size: Sizes, stride: Sizes | None, padding: Sizes, *more: Any) -> None:
        """Set the kernels' arguments after x; a stride of ``None`` means the kernel size."""
        kernel, pads = each(kernel_size, self.axes), each(padding, self.axes)
        if any(2 * p > k for p, k in zip(pads, kernel, strict=True)):
            raise fields_error(self, "padding must be at most half of kernel_size", "padding", "kernel_size")
        strides = kernel if stride is None else each(stride, self.axes)
        object.__setattr__(self, "_options", (kernel, strides, pads, *more))

    @property
    def least_lengths(self) -> Shape:
        kernel, stride, padding = self._options[:3]
        return Window(kernel, stride, each(getattr(self, "dilation", 1), self.axes), padding, padding).least_lengths()
