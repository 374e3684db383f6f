"""Sampling: images read at places that are computed, as in a spatial transformer. Places are from -1 to 1 along each axis.

    AffineGrid   y[n, h, w] = θ[n] (x_w, y_h, 1), with x_w, y_h spread over [-1, 1]
                 gθ[n] = Σ gy[n, h, w] (x_w, y_h, 1)ᵀ, over h and w
    GridSample   y[n, c, h, w] = Σ a x[n, c, i, j], over the neighbours (i, j) of grid[n, h, w]
                 gx[n, c, i, j] = Σ a gy[n, c, h, w], over all places that have the neighbour (i, j)
                 ggrid[n, h, w] = Σ gy[n, c, h, w] x[n, c, i, j] ∂a/∂grid[n, h, w], over channels and neighbours

where a is the weight that a place gives to its neighbour.
"""

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
    """The values of images at places: (images, grid) to y, as ``torch.nn.functional.grid_sample``.

    Images are (N, C, H, W) with a grid (N, h, w, 2), or volumes (N, C, D, H, W) with a grid (N, d, h, w, 3). A place is written
    with the last axis first, -1 for its beginning and 1 for its end: the centres of the outermost elements with
    ``align_corners``, else their edges. ``mode`` is "bilinear", of volumes trilinear, "nearest", which
    gives the grid the gradient 0, or "bicubic"; ``padding_mode`` says what is beyond the edges: "zeros", "border" or
    "reflection".

    Params   none.
    Cache    the images and the grid.
    Raises   ``ValueError`` for options that are not torch's, and when ``x`` is not a pair of floating tensors of one dtype with
             these axes, of which those of the images are not empty, or "bicubic" meets volumes.
    Source   Jaderberg, Simonyan, Zisserman & Kavukcuoglu 2015.
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
        axes = "(N, C, H, W) and (N, h, w, 2), or (N, C, D, H, W) and (N, d, h, w, 3), none of an image empty"
        volumes = x[0].dim() == 5 and self.mode == "bicubic"
        return 'with mode="bicubic" x must be images' if volumes else f"x must have the axes {axes}"


@frozen
class AffineGrid(Layer):
    """Places for ``GridSample`` by affine maps: (N, 2, 3) to (N, h, w, 2), or (N, 3, 4) to (N, d, h, w, 3).

    ``size`` is (h, w) or (d, h, w), where ``torch.nn.functional.affine_grid`` has batch and channels before them;
    ``align_corners`` must be that of the ``GridSample``.

    Params   none.
    Cache    how many rows ``x`` has, and an empty tensor of its kind.
    Raises   ``ValueError`` for a ``size`` that is not 2 or 3 whole numbers of at least 1, and when ``x`` is not a floating tensor
             of matrices for it.
    Source   Jaderberg, Simonyan, Zisserman & Kavukcuoglu 2015, eq. 1; ``torch.nn.functional.affine_grid``.
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
        """Return (x, y, 1), or (x, y, z, 1), of all places, one below the other; a single place is in the middle."""
        spread = [torch.arange(1 - n, n, 2).to(like) / max(n - self.align_corners, 1) for n in self.size]
        grids = torch.meshgrid(*spread, indexing="ij")
        return torch.stack([*reversed(grids), torch.ones_like(grids[0])], -1).reshape(-1, len(self.size) + 1)
