"""Images shifted by a fraction of a window, so that windowed attention connects neighbours across window borders.

x (N, height, width, channels). A shift applies only along an axis with more than one window. After the shift, the last window of
an axis contains pixels from both ends of the image, which are two regions.
"""

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import Misfit, check_gy, floating_complaint, kind_of, require_dense_floating
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import flag, is_whole_tuple, valid_if
from funcnet.value import frozen

_pair = valid_if(lambda got: is_whole_tuple(got, 0) and len(got) == 2, "a pair of whole numbers of at least 0")
_windows = valid_if(lambda got: is_whole_tuple(got, 1) and len(got) == 2, "a pair of whole numbers of at least 1")


@frozen
class _OfWindows(Layer):
    """Base of layers for images (N, height, width, channels) that are divided into windows."""

    window_size: Shape = field(validator=_windows)
    shift_size: Shape = field(validator=_pair)

    def shifts(self, x: Tensor) -> tuple[int, ...]:
        """Return the shifts along height and width: 0 along an axis with one window."""
        sizes = zip(self.shift_size, self.window_size, x.shape[1:3], strict=True)
        return tuple([0 if window >= n else shift for shift, window, n in sizes])

    def checked(self, params: Params, x: Tensor) -> Tensor:
        """Return x after a check of its axes."""
        if require_dense_floating(self, params, x).dim() != 4:
            raise Misfit
        return x

    def complaint(self, x: Tensor) -> str | None:
        rule = f"x must have the axes (N, height, width, channels), height and width divisible by window_size={self.window_size}"
        return floating_complaint(x) or rule


@frozen
class WindowShift(_OfWindows):
    """Shift images cyclically by a fraction of a window, or back, along the axes with more than one window.

        y  = roll(x, -shift)
        gx = roll(gy, shift)         with ``back`` both signs are reversed

    Args:
        window_size: Height and width of a window.
        shift_size: Number of pixels to shift up and to the left.
        back: Whether to shift down and to the right instead, to undo a shift.

    Shape:
        x (N, height, width, channels) → y (N, height, width, channels)

    Cache:
        The shape of ``x``, an empty tensor of its dtype, and the shift.

    Raises:
        ValueError: If a field is not a pair of whole numbers.

    References:
        Liu et al. 2021, "Swin Transformer", section 3.2.

    >>> WindowShift((1, 2), (0, 1))({}, torch.arange(4.0).reshape(1, 1, 4, 1)).flatten()
    tensor([1., 2., 3., 0.])
    """

    back: bool = field(default=False, validator=flag)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Shape, Tensor, Shape]]:
        shift = self.shifts(self.checked(params, x))
        shift = shift if self.back else tuple([-n for n in shift])
        return torch.roll(x, shift, (1, 2)), (tuple(x.shape), kind_of(x), shift)

    def vjp(self, params: Params, cache: tuple[Shape, Tensor, Shape], gy: Tensor) -> tuple[Grads, Tensor]:
        shape, kind, shift = cache
        return params, torch.roll(check_gy(self, gy, shape, kind), tuple([-n for n in shift]), (1, 2))


@frozen
class ShiftedWindowMask(_OfWindows):
    """Return the floating mask for attention within windows of shifted images: -100 between pixels of different regions.

        y  = 0 for two pixels of the same region, else -100
        gx = 0

    Args:
        window_size: Height and width of a window; they must divide height and width of x.
        shift_size: The ``shift_size`` of the ``WindowShift`` that shifted the images.

    Shape:
        x (N, height, width, channels) → y (windows, pixels, pixels), with the number of pixels in a window

    Cache:
        The shape of ``x``, and an empty tensor of its dtype.

    Raises:
        ValueError: If a field is not a pair of whole numbers, or the windows do not divide x.

    References:
        Liu et al. 2021, "Swin Transformer", section 3.2.

    >>> ShiftedWindowMask((1, 2), (0, 1))({}, torch.zeros(1, 1, 4, 1))[1].int()
    tensor([[   0, -100],
            [-100,    0]], dtype=torch.int32)
    """

    batch_dependent = True

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Shape, Tensor]]:
        shift = self.shifts(self.checked(params, x))
        (h, w), (height, width) = self.window_size, x.shape[1:3]
        if height % h or width % w:
            raise Misfit
        rows, columns = (self._regions(x, axis, shift[axis - 1]) for axis in (1, 2))
        regions = (rows.unsqueeze(1) * 3 + columns).reshape(height // h, h, width // w, w)
        regions = regions.permute(0, 2, 1, 3).reshape(-1, h * w)
        apart = regions.unsqueeze(1) != regions.unsqueeze(2)
        return apart.to(x.dtype) * -100.0, (tuple(x.shape), kind_of(x))

    def _regions(self, x: Tensor, axis: int, shift: int) -> Tensor:
        """Return the region of each pixel along an axis: 0 before the last window, 1 within it, 2 from the other end."""
        n, window = x.shape[axis], self.window_size[axis - 1]
        places = torch.arange(n, device=x.device)
        return (places >= n - window).long() + (places >= n - shift).long()

    def vjp(self, params: Params, cache: tuple[Shape, Tensor], gy: Tensor) -> tuple[Grads, Tensor]:
        shape, kind = cache
        return params, kind.new_zeros(()).expand(shape)
