"""Sampling at points compared with torch in float64, and its errors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twins import assert_twins, draw

import funcnet as fn


class Function(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)


modes, paddings = st.sampled_from(["bilinear", "nearest", "bicubic"]), st.sampled_from(["zeros", "border", "reflection"])
steps = st.lists(st.integers(1, 4), min_size=2, max_size=3)


@given(modes, paddings, st.booleans(), steps, st.integers(1, 3), st.sampled_from([0, 1, 2]), st.integers(0, 99))
@settings(max_examples=40)
def test_grid_sample_agrees_with_torch(mode, padding, corners, sizes, places, rows, seed):
    """Images and volumes, every mode, padding and alignment of corners agree, including an empty batch."""
    mode = "bilinear" if len(sizes) == 3 and mode == "bicubic" else mode
    x = draw((rows, 2, *sizes), seed), draw((rows, *[places] * len(sizes), len(sizes)), seed + 1)
    if rows == 0:
        assert fn.GridSample(mode, padding, corners)({}, x).shape == (0, 2, *[places] * len(sizes))
        return
    twin = Function(lambda x: nn.functional.grid_sample(*x, mode, padding, corners))
    assert_twins(fn.GridSample(mode, padding, corners), twin, x)


@given(steps, st.booleans(), st.integers(1, 3), st.integers(0, 99))
@settings(max_examples=20)
def test_affine_grid_agrees_with_torch(sizes, corners, rows, seed):
    """Two and three dimensions agree; a single point is in the middle."""
    corners = corners and min(sizes) > 1  # otherwise torch warns about its old default
    twin = Function(lambda x: nn.functional.affine_grid(x, [rows, 1, *sizes], corners))
    assert_twins(fn.AffineGrid(tuple(sizes), corners), twin, draw((rows, len(sizes), len(sizes) + 1), seed))


def test_the_identity_map_reads_an_image_as_it_is():
    """The grid of (1 0 0; 0 1 0) has the points of the elements themselves."""
    x, theta = draw((1, 2, 3, 4)), torch.eye(2, 3, dtype=torch.float64)[None]
    torch.testing.assert_close(fn.GridSample()({}, (x, fn.AffineGrid((3, 4))({}, theta))), x)


IMAGES, GRID = torch.ones(2, 3, 4, 4), torch.zeros(2, 5, 5, 2)
AXES = "x must have the axes (N, C, H, W) and (N, h, w, 2), or (N, C, D, H, W) and (N, d, h, w, 3), and no axis of an image may be empty"
MESSAGES = {
    "GridSample: mode must be one of 'bilinear', 'nearest', 'bicubic', got 'linear'": lambda: fn.GridSample("linear"),
    "GridSample: padding_mode must be one of 'zeros', 'border', 'reflection', got 'circular'": lambda: fn.GridSample(padding_mode="circular"),
    "GridSample(): x must be a tuple of images and a grid, got a tensor of shape (2, 3, 4, 4) and dtype torch.float32": lambda: fn.GridSample()({}, IMAGES),
    f"GridSample(): {AXES}, got shapes (2, 3, 4, 4) and (1, 5, 5, 2)": lambda: fn.GridSample()({}, (IMAGES, GRID[:1])),
    "GridSample(): the operands must have the same dtype, got torch.float32 and torch.float64": lambda: fn.GridSample()({}, (IMAGES, GRID.double())),
    "GridSample(mode='bicubic'): with mode=\"bicubic\" x must be images, got shapes (2, 3, 1, 4, 4) and (2, 1, 1, 1, 3)": lambda: fn.GridSample("bicubic")({}, (IMAGES[:, :, None], torch.zeros(2, 1, 1, 1, 3))),
    "AffineGrid: size must be a tuple of 2 or 3 whole numbers of at least 1, got (2,)": lambda: fn.AffineGrid((2,)),
    "AffineGrid(size=(2, 2)): x must have the axes (N, 2, 3), got x of shape (2, 3, 4, 4)": lambda: fn.AffineGrid((2, 2))({}, IMAGES),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert str(caught.value) == message


@pytest.mark.parametrize(("layer", "x"), [(fn.GridSample(), (IMAGES, GRID)), (fn.AffineGrid((2, 2)), torch.ones(3, 2, 3))])
def test_a_gradient_of_another_shape_is_refused(layer, x):
    """No kernel reads beyond its end."""
    y, cache = layer.apply({}, x)
    with pytest.raises(ValueError, match="gy must have the shape of y"):
        layer.vjp({}, cache, y[:1])


@pytest.mark.parametrize("padding_mode", ["border", "reflection"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e38])
@pytest.mark.parametrize("align_corners", [False, True])
def test_a_place_that_is_no_number_is_not_read(padding_mode, bad, align_corners):
    """torch's kernel reads and writes out of bounds there; other points keep their values and gradients."""
    layer = fn.GridSample("bilinear", padding_mode, align_corners)
    images, grid = draw((2, 3, 40, 40)).float(), draw((2, 4, 4, 2)).float()
    strange = grid.clone()
    strange[:, 1, 2, 0] = bad
    (y, cache), (right, kept) = layer.apply({}, (images, strange)), layer.apply({}, (images, grid))
    gy = torch.ones_like(y)
    gy[:, :, 1, 2] = 0.0
    (gx, ggrid), (want, _) = layer.vjp({}, cache, gy)[1], layer.vjp({}, kept, gy)[1]
    y[:, :, 1, 2] = right[:, :, 1, 2]
    torch.testing.assert_close((y, gx), (right, want))
    assert not ggrid[:, 1, 2].any()
    assert torch.isfinite(layer.vjp({}, cache, torch.ones_like(y))[1][0]).all()
