"""Resizings and shuffles compared with torch.nn in float64, and their errors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twins import assert_twins, draw, twin_of

import funcnet as fn

MODES = {
    "area": (1, 2, 3),
    "nearest": (1, 2, 3),
    "nearest-exact": (1, 2, 3),
    "linear": (1,),
    "bilinear": (2,),
    "bicubic": (2,),
    "trilinear": (3,),
}
factors = st.floats(0.5, 3.0)


@twin_of("Upsample")
@given(mode=st.sampled_from(list(MODES)), data=st.data())
@settings(max_examples=120)
def test_upsample_agrees_with_its_twin(mode, data):
    """A size or a factor, for all axes or each, larger and smaller, agrees for every alignment of corners and samples."""
    n = data.draw(st.sampled_from(MODES[mode]))
    steps = data.draw(st.lists(st.integers(2, 4), min_size=n, max_size=n))
    number = data.draw(st.sampled_from([st.integers(1, 6), factors]))
    given_ = data.draw(number | st.lists(number, min_size=n, max_size=n).map(tuple))
    whole = isinstance(given_[0] if isinstance(given_, tuple) else given_, int)
    options = {"size": given_} if whole else {"scale_factor": given_, "recompute_scale_factor": data.draw(st.booleans())}
    options["align_corners"] = None if mode.startswith(("nearest", "area")) else data.draw(st.sampled_from([None, True, False]))
    outer = data.draw(st.sampled_from([(2, 3), (1, 1), (0, 2)]))
    assert_twins(fn.Upsample(mode=mode, **options), nn.Upsample(mode=mode, **options), draw((*outer, *steps)))


@twin_of("UpsamplingNearest2d", "UpsamplingBilinear2d")
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 4)), st.tuples(st.integers(1, 6), st.integers(1, 6)) | st.integers(1, 6), factors
)
@settings(max_examples=20)
def test_upsampling_in_2d_agrees_with_its_twins(steps, size, factor):
    """Nearest and bilinear agree, to a size and by a factor that leaves a remainder."""
    factor = max(factor, 1 / min(steps))
    for ours, theirs in ((fn.UpsamplingNearest2d, nn.UpsamplingNearest2d), (fn.UpsamplingBilinear2d, nn.UpsamplingBilinear2d)):
        assert_twins(ours(size), theirs(size), draw((2, 3, *steps)))
        assert_twins(ours(scale_factor=factor), theirs(scale_factor=factor), draw((1, 2, *steps)))


@twin_of("PixelShuffle", "PixelUnshuffle")
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.sampled_from([(), (2,), (2, 1)]))
@settings(max_examples=20)
def test_pixel_shuffles_agree_with_their_twins(r, c, h, w, outer):
    """Both directions agree, with several batch axes and without any; one inverts the other."""
    x = draw((*outer, c * r * r, h, w))
    assert_twins(fn.PixelShuffle(r), nn.PixelShuffle(r), x)
    assert_twins(fn.PixelUnshuffle(r), nn.PixelUnshuffle(r), draw((*outer, c, h * r, w * r)))
    assert torch.equal(fn.PixelUnshuffle(r)({}, fn.PixelShuffle(r)({}, x)), x)


@twin_of("ChannelShuffle")
@given(st.integers(1, 4), st.integers(1, 4), st.lists(st.integers(1, 3), min_size=1, max_size=3))
@settings(max_examples=20)
def test_channel_shuffle_agrees_with_its_twin(groups, channels, steps):
    """Sequences, images and volumes are tried."""
    assert_twins(fn.ChannelShuffle(groups), nn.ChannelShuffle(groups), draw((2, groups * channels, *steps)))


def test_an_empty_batch_has_the_shape_of_a_full_one():
    """torch's pixel shuffles lose it."""
    assert fn.PixelShuffle(2)({}, torch.ones(0, 8, 3, 2)).shape == (0, 2, 6, 4)
    assert fn.PixelUnshuffle(2)({}, torch.ones(0, 2, 6, 4)).shape == (0, 8, 3, 2)
    assert fn.ChannelShuffle(2)({}, torch.ones(0, 4, 3)).shape == (0, 4, 3)


def test_a_gradient_of_another_shape_is_refused():
    """No kernel reads beyond its end."""
    layer = fn.Upsample(scale_factor=2)
    y, cache = layer.apply({}, torch.ones(2, 3, 4))
    with pytest.raises(ValueError, match=r"gy must have the shape of y, \(2, 3, 8\), got gy of shape \(1, 3, 8\)"):
        layer.vjp({}, cache, y[:1])


X = torch.ones(2, 3)
IMAGES = torch.ones(2, 3, 4, 4)
MESSAGES = {
    "Upsample: exactly one of size and scale_factor must be given, got size=None, scale_factor=None": fn.Upsample,
    "Upsample: exactly one of size and scale_factor must be given, got size=2, scale_factor=2": lambda: fn.Upsample(2, 2),
    "Upsample: size must be a whole number of at least 1, or a tuple of them, got 0": lambda: fn.Upsample(0),
    "Upsample: scale_factor must be a number above 0, or a tuple of them, got -1.0": lambda: fn.Upsample(scale_factor=-1.0),
    "Upsample: mode must be one of 'nearest', 'linear', 'bilinear', 'bicubic', 'trilinear', 'nearest-exact', 'area', got 'cubic'": lambda: fn.Upsample(2, mode="cubic"),
    "Upsample: align_corners must be True or False, and None for area, nearest and nearest-exact, got True": lambda: fn.Upsample(2, align_corners=True),
    "Upsample: recompute_scale_factor must be True or False, and True only with a scale_factor, got True": lambda: fn.Upsample(2, recompute_scale_factor=True),
    "Upsample(size=2): x must have 3 or 4 or 5 axes, got x of shape (2, 3)": lambda: fn.Upsample(2)({}, X),
    "Upsample(size=(2, 2)): x must have 4 axes, got x of shape (2, 3, 3)": lambda: fn.Upsample((2, 2))({}, IMAGES[..., 0, :3]),
    "UpsamplingNearest2d(size=2): x must have 4 axes, got x of shape (2, 3)": lambda: fn.UpsamplingNearest2d(2)({}, X),
    "Upsample(scale_factor=0.1): no axis of x or y except the batch may be empty, got x of shape (2, 3, 4, 4)": lambda: fn.Upsample(scale_factor=0.1)({}, IMAGES),
    "PixelShuffle(upscale_factor=2): x must have the axes (..., C, H, W), and C must be a multiple of 2², got x of shape (2, 3, 4, 4)": lambda: fn.PixelShuffle(2)({}, IMAGES),
    "PixelUnshuffle(downscale_factor=3): x must have the axes (..., C, H, W), and H and W must be multiples of 3, got x of shape (2, 3, 4, 4)": lambda: fn.PixelUnshuffle(3)({}, IMAGES),
    "PixelShuffle: upscale_factor must be a whole number of at least 1, got 0": lambda: fn.PixelShuffle(0),
    "ChannelShuffle(groups=2): x must have the axes (N, C, length, ...), with C a multiple of 2, got x of shape (2, 3, 4, 4)": lambda: fn.ChannelShuffle(2)({}, IMAGES),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert str(caught.value) == message
