"""Windows as columns compared with torch.nn's, separable convolutions, and the errors they raise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twins import assert_twins, draw, twin_of

import funcnet as fn


def pair(low, high):
    return st.one_of(st.integers(low, high), st.tuples(st.integers(low, high), st.integers(low, high)))


def both(value):
    return value if isinstance(value, tuple) else (value, value)


@st.composite
def folds(pick):
    """Draw all options, an image size that fits, and a batch."""
    options = {
        "kernel_size": pick(pair(1, 3)),
        "dilation": pick(pair(1, 2)),
        "padding": pick(pair(0, 2)),
        "stride": pick(pair(1, 3)),
    }
    reach = [d * (k - 1) + 1 for k, d in zip(both(options["kernel_size"]), both(options["dilation"]), strict=True)]
    return options, tuple(pick(st.integers(r, r + 3)) for r in reach), pick(st.sampled_from([(), (1,), (2,)]))


@twin_of("Unfold")
@given(folds(), st.integers(1, 2))
@settings(max_examples=30, deadline=None)
def test_unfolding_is_torch_s(options, channels):
    """Values and gradients agree for all options, with and without a batch."""
    options, size, batch = options
    assert_twins(fn.Unfold(**options), nn.Unfold(**options), draw((*batch, channels, *size)))


@twin_of("Fold")
@given(folds(), st.integers(1, 2))
@settings(max_examples=30, deadline=None)
def test_folding_is_torch_s(options, channels):
    """Values and gradients agree for all options, with and without a batch."""
    options, size, batch = options
    columns = fn.Unfold(**options)({}, draw((*batch, channels, *size)))
    assert_twins(fn.Fold(size, **options), nn.Fold(size, **options), columns)


def test_a_convolution_is_a_product_with_columns():
    """The output is the flattened weight times the columns of Unfold."""
    conv, x = fn.Conv2d(2, 3, (2, 3), padding=1, bias=False), draw((2, 2, 4, 5)).float()
    params = conv.init(0)
    columns = fn.Unfold((2, 3), padding=1)({}, x)
    torch.testing.assert_close((params["weight"].flatten(1) @ columns).reshape(2, 3, 5, 5), conv(params, x))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_separable_convolution_is_one_with_a_product_for_its_weight(axes):
    """The product of its two weights is a convolution's weight; each option goes to the layer to which it applies."""
    net = getattr(fn, f"separable_conv{axes}d")(2, 3, 3, 2, 1, multiplier=2, padding_mode="circular", initializer="torch")
    params, x = fn.tree.cast(net.init(0), torch.float64), draw((2, 2, *(5,) * axes))
    first, then = params["depthwise"]["weight"], params["pointwise"]["weight"]
    weight = (then.flatten(1).reshape(3, 2, 2, *[1] * axes) * first.reshape(2, 2, *first.shape[2:])).sum(2)
    conv = getattr(fn, f"Conv{axes}d")(2, 3, 3, 2, 1, padding_mode="circular")
    torch.testing.assert_close(net(params, x), conv({"weight": weight, "bias": params["pointwise"]["bias"]}, x))
    assert net["pointwise"].initializer == net["depthwise"].initializer == "torch"
    assert "bias" not in params["depthwise"]


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_depthwise_convolution_is_one_with_as_many_groups_as_channels(axes):
    """The number of outputs is a multiple of it; other options are passed on."""
    layer = getattr(fn, f"depthwise_conv{axes}d")(3, 2, 4, stride=2, bias=False)
    assert layer == getattr(fn, f"Conv{axes}d")(3, 12, 2, 2, groups=3, bias=False)


def called(layer, *shape, gy=None, dtype=torch.float32):
    """Call a layer on zeros, and its vjp on a gy of another shape."""
    cache = layer.apply({}, torch.zeros(shape, dtype=dtype))[1]
    layer.vjp({}, cache, torch.zeros(gy))


MESSAGES = {
    "Unfold: kernel_size must be a whole number of at least 1, or a tuple of 2 of them, one for each axis, got (1,)": lambda: fn.Unfold((1,)),
    "Fold: output_size must be at least (3, 3) for these windows and padding, got output_size=(4, 2)": lambda: fn.Fold((4, 2), 2, 2),
    "Unfold(kernel_size=3): x must be at least (3, 3) long for these windows and padding, got x of shape (1, 4, 2)": lambda: called(fn.Unfold(3), 1, 4, 2),
    "Unfold(kernel_size=3): x must have the axes (N, channels, height, width) or (channels, height, width), got x of shape (4, 4)": lambda: called(fn.Unfold(3), 4, 4),
    "Fold(output_size=3, kernel_size=2): x must have the axes (N, channels · 4, 4) or (channels · 4, 4), got x of shape (1, 4, 3)": lambda: called(fn.Fold(3, 2), 1, 4, 3),
    "Fold(output_size=3, kernel_size=2): x must be a floating tensor, got a tensor of shape (4, 4) and dtype torch.int64": lambda: called(fn.Fold(3, 2), 4, 4, dtype=torch.int64),
    "gy must have the shape of y, (1, 4, 4), got gy of shape (1, 4, 3)": lambda: called(fn.Unfold(2), 1, 1, 3, 3, gy=(1, 4, 3)),
    "gy must have the shape of y, (1, 3, 3), got gy of shape (2, 3, 3)": lambda: called(fn.Fold(3, 2), 4, 4, gy=(2, 3, 3)),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_what_does_not_fit_is_refused_with_its_message(message):
    """Options, x and gy are tried; the message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
