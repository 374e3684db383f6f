"""Resizing: images and sequences with more or fewer steps.

    Upsample   y = A x, each row of A holding the weights of the neighbours of one place      gx = Aᵀ gy

UpsamplingNearest2d and UpsamplingBilinear2d are Upsample with a fixed mode.
"""

import math
from abc import abstractmethod
from typing import Any

from attrs import field
from torch import Tensor

from funcnet.checks import check_gy, require_floating
from funcnet.contract import Layer, Params, Rng, Shape
from funcnet.errors import is_number, is_whole, one_of, value_error
from funcnet.kernels.shape import resizing as kernels
from funcnet.value import frozen

_MODES = ("nearest", "linear", "bilinear", "bicubic", "trilinear", "nearest-exact")


def _size(layer: Any, attribute: Any, got: Any) -> None:
    if got is not None and not (got != () and all(is_whole(n) and n >= 1 for n in (got if isinstance(got, tuple) else (got,)))):
        raise value_error(type(layer).__name__, "size must be a whole number of at least 1, or a tuple of them", repr(got))


def _scale(layer: Any, attribute: Any, got: Any) -> None:
    if (got is None) is (layer.size is None):
        raise value_error(
            type(layer).__name__, "one of size and scale_factor must be given", f"size={layer.size}, scale_factor={got}"
        )
    if got is not None and not (got != () and all(is_number(s) and s > 0 for s in (got if isinstance(got, tuple) else (got,)))):
        raise value_error(type(layer).__name__, "scale_factor must be a number above 0, or a tuple of them", repr(got))


@frozen
class Resize(Layer):
    """Resizing of all axes behind (N, C) to ``size``, or by ``scale_factor``: one number for all of them, or a tuple."""

    size: int | Shape | None = field(default=None, validator=_size)
    scale_factor: float | tuple[float, ...] | None = field(default=None, validator=_scale)

    @abstractmethod
    def way(self) -> tuple[str, bool]:
        """Return the mode, and whether corners are aligned."""

    def scaled(self) -> bool:
        """Tell whether the samples are placed by the scale, rather than by the sizes of x and y."""
        return self.scale_factor is not None

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Shape]:
        (mode, align), shape = self.way(), tuple(require_floating(self, params, x).shape)
        if len(shape) - 2 not in self.axes():
            raise value_error(self, f"x must have {' or '.join(str(n + 2) for n in self.axes())} axes", f"x of shape {shape}")
        y_size, scales = self._sizes(shape[2:])
        if not all(shape[1:] + y_size):
            raise value_error(self, "x and y must have channels, and steps along each axis", f"x of shape {shape}")
        return kernels.resize(x, mode, y_size, align, scales), shape

    def vjp(self, params: Params, cache: Shape, gy: Tensor) -> tuple[Params, Tensor]:
        (mode, align), (y_size, scales) = self.way(), self._sizes(cache[2:])
        check_gy(self, gy, cache[:2] + y_size)
        return params, kernels.resize_backward(gy, mode, y_size, cache, align, scales)

    def axes(self) -> tuple[int, ...]:
        """Return over how many axes behind (N, C) the layer goes."""
        given = self.size if self.size is not None else self.scale_factor
        possible = kernels.axes_of(self.way()[0])
        return tuple([n for n in possible if n == len(given)]) if isinstance(given, tuple) else possible

    def _sizes(self, steps: Shape) -> tuple[Shape, tuple[float | None, ...]]:
        """Return the size of y along each axis, and the scales where these place the samples."""
        if self.size is not None:
            return self.size if isinstance(self.size, tuple) else (self.size,) * len(steps), (None,) * len(steps)
        given: Any = self.scale_factor
        scales = given if isinstance(given, tuple) else (float(given),) * len(steps)
        y_size = tuple([math.floor(n * s) for n, s in zip(steps, scales, strict=True)])
        return y_size, scales if self.scaled() else (None,) * len(steps)


def _align(layer: "Upsample", attribute: Any, got: Any) -> None:
    if not isinstance(got, (bool, type(None))) or (got is not None and layer.mode.startswith("nearest")):
        raise value_error("Upsample", "align_corners must be True or False, and None for the modes of the nearest", repr(got))


def _recompute(layer: "Upsample", attribute: Any, got: Any) -> None:
    if not isinstance(got, (bool, type(None))) or (got and layer.scale_factor is None):
        raise value_error(
            "Upsample", "recompute_scale_factor must be True or False, and True with a scale_factor alone", repr(got)
        )


@frozen
class Upsample(Resize):
    """Resize (N, C, length), (N, C, H, W) or (N, C, D, H, W), as ``torch.nn.Upsample``, whose arguments these are.

    Modes: "nearest" and "nearest-exact" for any x, "linear" for a length, "bilinear" and "bicubic" for images, "trilinear" for
    volumes. ``recompute_scale_factor=True`` places the samples by the sizes of x and y, as when ``size`` is given.

    Params   none.
    Cache    the shape of ``x``.
    Raises   ``ValueError`` for arguments that are none of these, both or none of ``size`` and ``scale_factor``, and an ``x`` that
             is not floating, has another number of axes or an empty one, but for the batch.
    Source   ``torch.nn.Upsample``'s formulas; Keys 1981 for "bicubic", with a = -0.75.
    """

    mode: str = field(default="nearest", validator=one_of(*_MODES))
    align_corners: bool | None = field(default=None, validator=_align)
    recompute_scale_factor: bool | None = field(default=None, validator=_recompute)

    def way(self) -> tuple[str, bool]:
        return self.mode, bool(self.align_corners)

    def scaled(self) -> bool:
        return self.scale_factor is not None and not self.recompute_scale_factor


@frozen
class UpsamplingNearest2d(Resize):
    """Resize images (N, C, H, W): each new place gets the value of the nearest old one.

    Params   none.
    Cache    the shape of ``x``.
    Raises   ``ValueError`` as ``Upsample``.
    Source   ``torch.nn.UpsamplingNearest2d``'s formula.
    """

    def way(self) -> tuple[str, bool]:
        return "nearest", False

    def axes(self) -> tuple[int, ...]:
        return (2,)


@frozen
class UpsamplingBilinear2d(Resize):
    """Resize images (N, C, H, W): each new place gets a mixture of the four old ones around it, and corners stay corners.

    Params   none.
    Cache    the shape of ``x``.
    Raises   ``ValueError`` as ``Upsample``.
    Source   ``torch.nn.UpsamplingBilinear2d``'s formula.
    """

    def way(self) -> tuple[str, bool]:
        return "bilinear", True
