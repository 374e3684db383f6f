"""Sampling of images at computed locations, as in a spatial transformer. Locations run from -1 to 1 along each axis."""

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import check_gy, kind_of, require_floating
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import MOST, flag, is_whole_tuple, one_of, valid_if
from funcnet.kernels.shape import grid_sampling as kernels
from funcnet.layers.operands.arithmetic import Operation
from funcnet.value import frozen


@frozen
class GridSample(Operation):
    """Sample images at the locations in a grid, as ``torch.nn.functional.grid_sample`` does.

        y[n, c, h, w]     = Σ a x[n, c, i, j]          over the neighbours (i, j) of grid[n, h, w], with their weights a
        gx[n, c, i, j]    = Σ a gy[n, c, h, w]         over all locations with the neighbour (i, j)
        ggrid[n, h, w]    = Σ gy[n, c, h, w] x[n, c, i, j] ∂a/∂grid[n, h, w]      over channels and neighbours

    The first coordinate of a location is along the last axis, as in (x, y); -1 is the beginning of an axis, 1 its end.

    Args:
        mode: ``"bilinear"`` (trilinear for volumes), ``"nearest"``, whose gradient for the grid is 0, or ``"bicubic"``.
        padding_mode: Values outside the image: ``"zeros"``, ``"border"`` or ``"reflection"``.
        align_corners: Whether -1 and 1 are the centers of the outermost elements, instead of their edges.

    Shape:
        (x (N, C, H, W), grid (N, h, w, 2)) → y (N, C, h, w), or (x (N, C, D, H, W), grid (N, d, h, w, 3)) → y (N, C, d, h, w)

    Cache:
        The images and the grid, not copied.

    Raises:
        ValueError: If an image is empty, or ``"bicubic"`` is used with volumes.

    References:
        Jaderberg, Simonyan, Zisserman & Kavukcuoglu 2015.

    >>> image, places = torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[0.0, 0.0]]]])
    >>> GridSample()({}, (image, places))
    tensor([[[[2.]]]])
    """

    contents = "images and a grid"

    mode: str = field(default="bilinear", validator=one_of(*kernels.MODES))
    padding_mode: str = field(default="zeros", validator=one_of(*kernels.PADDINGS))
    align_corners: bool = field(default=False, validator=flag)

    def apply(self, params: Params, x: tuple[Tensor, Tensor], rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        images, grid = self.operands(params, x)
        return kernels.grid_sample(images, grid, self.mode, self.padding_mode, self.align_corners), (images, grid)

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor) -> tuple[Grads, tuple[Tensor, Tensor]]:
        images, grid = cache
        check_gy(self, gy, tuple(images.shape[:2]) + tuple(grid.shape[1:-1]), images)
        return params, kernels.grid_sample_backward(gy, images, grid, self.mode, self.padding_mode, self.align_corners)

    def complaint(self, x: tuple[Tensor, Tensor]) -> str:
        axes = "(N, C, H, W) and (N, h, w, 2), or (N, C, D, H, W) and (N, d, h, w, 3), and no axis of an image may be empty"
        volumes = x[0].dim() == 5 and self.mode == "bicubic"
        return 'with mode="bicubic" x must be images' if volumes else f"x must have the axes {axes}"


@frozen
class AffineGrid(Layer):
    """Compute a grid for ``GridSample`` from affine matrices, as ``torch.nn.functional.affine_grid`` does.

        y[n, h, w] = x[n] (x_w, y_h, 1)               with x_w, y_h spread over [-1, 1]
        gx[n]      = Σ gy[n, h, w] (x_w, y_h, 1)ᵀ     over h and w

    Args:
        size: (h, w) for images or (d, h, w) for volumes, without the batch and channels that torch expects.
        align_corners: As in the ``GridSample`` that follows.

    Shape:
        x (N, 2, 3) → y (N, h, w, 2), or x (N, 3, 4) → y (N, d, h, w, 3)

    Cache:
        The number of rows of ``x``, and an empty tensor of its dtype.

    Raises:
        ValueError: If the matrices do not fit ``size``.

    References:
        Jaderberg, Simonyan, Zisserman & Kavukcuoglu 2015, eq. 1; ``torch.nn.functional.affine_grid``.

    >>> AffineGrid((1, 2))({}, torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]))
    tensor([[[[-0.5000,  0.0000],
              [ 0.5000,  0.0000]]]])
    """

    size: Shape = field(
        validator=valid_if(
            lambda got: is_whole_tuple(got, 1) and len(got) in (2, 3), "a tuple of 2 or 3 whole numbers of at least 1", most=MOST
        )
    )
    align_corners: bool = field(default=False, validator=flag)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[int, Tensor]]:
        rows, _, _ = require_floating(self, params, x).shape
        y = torch.matmul(self._locations(x), x.mT)
        return y.reshape(rows, *self.size, len(self.size)), (rows, kind_of(x))

    def vjp(self, params: Params, cache: tuple[int, Tensor], gy: Tensor) -> tuple[Grads, Tensor]:
        rows, kind = cache
        check_gy(self, gy, (rows, *self.size, len(self.size)), kind)
        return params, torch.matmul(gy.flatten(1, -2).mT, self._locations(gy))

    def complaint(self, x: Tensor) -> str:
        return f"x must have the axes (N, {len(self.size)}, {len(self.size) + 1})"

    def _locations(self, like: Tensor) -> Tensor:
        """Return (x, y, 1), or (x, y, z, 1), of all locations as rows; a single location along an axis is at its center."""
        spread = [torch.arange(1 - n, n, 2).to(like) / max(n - self.align_corners, 1) for n in self.size]
        grids = torch.meshgrid(*spread, indexing="ij")
        return torch.stack([*reversed(grids), torch.ones_like(grids[0])], -1).reshape(-1, len(self.size) + 1)
