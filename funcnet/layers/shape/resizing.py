"""Resizing of images, sequences and volumes to more or fewer elements.

y = A x and gx = Aᵀ gy, where each row of A holds the interpolation weights of one element of y.
"""

import math
from abc import abstractmethod
from typing import Any

from attrs import field
from attrs.validators import optional
from torch import Tensor

from funcnet.checks import Misfit, check_gy, kind_of, require_floating
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import MOST, fields_error, flag, is_number, is_whole_tuple, one_of, valid_if
from funcnet.kernels.shape import resizing as kernels
from funcnet.layers.shape.reshaping import Shaped
from funcnet.value import frozen

_MODES = ("nearest", "linear", "bilinear", "bicubic", "trilinear", "nearest-exact", "area")


_is_size = valid_if(
    lambda got: is_whole_tuple(got if isinstance(got, tuple) else (got,), 1) and got != (),
    "a whole number of at least 1, or a tuple of them",
    most=MOST,
)
_is_scale = valid_if(
    lambda got: got != () and all(is_number(s) and s > 0 for s in (got if isinstance(got, tuple) else (got,))),
    "a number above 0, or a tuple of them",
)


@frozen
class Resize(Layer):
    """Base of layers that resize the axes after (N, C) to ``size``, or scale them by ``scale_factor``."""

    size: int | Shape | None = field(default=None, validator=optional(_is_size))
    scale_factor: float | tuple[float, ...] | None = field(default=None, validator=optional(_is_scale))

    def __attrs_post_init__(self) -> None:
        if (self.size is None) is (self.scale_factor is None):
            raise fields_error(self, "exactly one of size and scale_factor must be given", "size", "scale_factor")

    @abstractmethod
    def interpolation(self) -> tuple[str, bool]:
        """Return the mode, and whether corners are aligned."""

    def scaled(self) -> bool:
        """Return whether sample positions follow from the scale factor instead of the sizes of x and y."""
        return self.scale_factor is not None

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Shaped]:
        (mode, align), shape = self.interpolation(), tuple(require_floating(self, params, x).shape)
        if len(shape) - 2 not in self.axes():
            raise Misfit
        y_size, scales = self._sizes(shape[2:])
        return kernels.resize(x, mode, y_size, align, scales), (shape, kind_of(x))

    def vjp(self, params: Params, cache: Shaped, gy: Tensor) -> tuple[Grads, Tensor]:
        shape, kind = cache
        (mode, align), (y_size, scales) = self.interpolation(), self._sizes(shape[2:])
        check_gy(self, gy, shape[:2] + y_size, kind)
        return params, kernels.resize_backward(gy, mode, y_size, shape, align, scales)

    def complaint(self, x: Tensor) -> str:
        counts = " or ".join(str(n + 2) for n in self.axes())
        return (
            f"x must have {counts} axes" if x.dim() - 2 not in self.axes() else "no axis of x or y except the batch may be empty"
        )

    def axes(self) -> tuple[int, ...]:
        """Return the numbers of axes after (N, C) that the layer can resize."""
        given = self.size if self.size is not None else self.scale_factor
        possible = kernels.axes_of(self.interpolation()[0])
        return tuple([n for n in possible if n == len(given)]) if isinstance(given, tuple) else possible

    def _sizes(self, steps: Shape) -> tuple[Shape, tuple[float | None, ...]]:
        """Return the size of y along each axis, and the scales if sample positions follow from them."""
        if self.size is not None:
            return self.size if isinstance(self.size, tuple) else (self.size,) * len(steps), (None,) * len(steps)
        given: Any = self.scale_factor
        scales = given if isinstance(given, tuple) else (float(given),) * len(steps)
        y_size = tuple([math.floor(n * s) for n, s in zip(steps, scales, strict=True)])
        return y_size, scales if self.scaled() else (None,) * len(steps)


def _validate_align_corners(layer: "Upsample", attribute: Any, got: Any) -> None:
    rule = "True or False, and None for area, nearest and nearest-exact"
    has_corners = not layer.mode.startswith(("nearest", "area"))
    valid_if(lambda got: got is None or (isinstance(got, bool) and has_corners), rule)(layer, attribute, got)


def _validate_recompute(layer: "Upsample", attribute: Any, got: Any) -> None:
    rule = "True or False, and True only with a scale_factor"
    valid_if(lambda got: got in (None, False) or layer.scale_factor is not None, rule)(layer, attribute, got)


@frozen
class Upsample(Resize):
    """Resize x to a size, or by a factor.

        y  = A x         each row of A holds the interpolation weights of one element of y
        gx = Aᵀ gy

    Args:
        size: The size of y along the axes after (N, C): one number for all of them, or a tuple.
        scale_factor: The factor to scale the sizes by, instead of ``size``: a number or a tuple. The sizes are rounded down.
        mode: ``"nearest"``, ``"nearest-exact"`` and ``"area"`` for any x, ``"linear"`` for sequences, ``"bilinear"`` and
            ``"bicubic"`` for images, ``"trilinear"`` for volumes. ``"area"`` takes means of windows that cover x.
        align_corners: Whether the centers of the corner elements stay in place. ``None`` means ``False``, and is required for
            ``"nearest"``, ``"nearest-exact"`` and ``"area"``.
        recompute_scale_factor: Whether sample positions follow from the sizes of x and y, as with ``size``, instead of the
            factor.

    Shape:
        x (N, C, length), (N, C, H, W) or (N, C, D, H, W) → y with other sizes after N and C

    Cache:
        The shape of ``x``, and an empty tensor of its dtype.

    Raises:
        ValueError: Unless exactly one of ``size`` and ``scale_factor`` is given, and the mode fits the axes of x.

    References:
        ``torch.nn.Upsample``; Keys 1981 for ``"bicubic"``, with a = -0.75.

    >>> import torch
    >>> Upsample(scale_factor=2)({}, torch.tensor([[[1.0, 2.0]]]))
    tensor([[[1., 1., 2., 2.]]])
    """

    mode: str = field(default="nearest", validator=one_of(*_MODES))
    align_corners: bool | None = field(default=None, validator=_validate_align_corners)
    recompute_scale_factor: bool | None = field(default=None, validator=[optional(flag), _validate_recompute])

    def interpolation(self) -> tuple[str, bool]:
        return self.mode, bool(self.align_corners)

    def scaled(self) -> bool:
        return self.scale_factor is not None and not self.recompute_scale_factor


@frozen
class UpsamplingNearest2d(Resize):
    """Resize images with nearest-neighbour interpolation.

        y  = x[⌊i H / h⌋, ⌊j W / w⌋] at (i, j), or x[⌊i / scale⌋, ⌊j / scale⌋] with a factor
        gx = Σ gy over the elements of y that are copies

    Args:
        size: (h, w), or one number for both.
        scale_factor: The factor to scale the sizes by, instead of ``size``: a number or a pair. The sizes are rounded down.

    Shape:
        x (N, C, H, W) → y (N, C, h, w)

    Cache:
        The shape of ``x``, and an empty tensor of its dtype.

    Raises:
        ValueError: Unless exactly one of ``size`` and ``scale_factor`` is given.

    References:
        ``torch.nn.UpsamplingNearest2d``.

    >>> import torch
    >>> UpsamplingNearest2d(scale_factor=2)({}, torch.ones(1, 1, 2, 3)).shape
    torch.Size([1, 1, 4, 6])
    """

    def interpolation(self) -> tuple[str, bool]:
        return "nearest", False

    def axes(self) -> tuple[int, ...]:
        return (2,)


@frozen
class UpsamplingBilinear2d(Resize):
    """Resize images with bilinear interpolation; the corner elements stay in place.

        y  = Σ a x over the four neighbours of each element of y, with their bilinear weights a
        gx = Σ a gy over the elements of y with that neighbour

    Args:
        size: (h, w), or one number for both.
        scale_factor: The factor to scale the sizes by, instead of ``size``: a number or a pair. The sizes are rounded down.

    Shape:
        x (N, C, H, W) → y (N, C, h, w)

    Cache:
        The shape of ``x``, and an empty tensor of its dtype.

    Raises:
        ValueError: Unless exactly one of ``size`` and ``scale_factor`` is given.

    References:
        ``torch.nn.UpsamplingBilinear2d``.

    >>> import torch
    >>> UpsamplingBilinear2d((1, 3))({}, torch.tensor([[[[1.0, 2.0]]]]))
    tensor([[[[1.0000, 1.5000, 2.0000]]]])
    """

    def interpolation(self) -> tuple[str, bool]:
        return "bilinear", True
