"""Conv1d compared with torch.nn.Conv1d, its initial weights, and the errors it raises."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twins import assert_twins, draw

import funcnet as fn

CLOSE = {"rtol": 1e-10, "atol": 1e-11}


@st.composite
def convolutions(draw_from):
    """Draw the options of a Conv1d, and a length and batch of an input that fits."""
    groups = draw_from(st.integers(1, 3))
    kernel, dilation = draw_from(st.integers(1, 4)), draw_from(st.integers(1, 3))
    padding = draw_from(st.sampled_from([0, 1, 2, "same", "valid"]))
    stride = 1 if padding == "same" else draw_from(st.integers(1, 3))
    reach = dilation * (kernel - 1) + 1
    length = draw_from(st.integers(reach, reach + 5))
    batch = draw_from(st.sampled_from([(), (1,), (3,), (0,)]))
    channels = groups * draw_from(st.integers(1, 2)), groups * draw_from(st.integers(1, 2))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "bias": draw_from(st.booleans())}
    return (*channels, kernel), options, (*batch, channels[0], length)


@given(convolutions(), st.integers(0, 99))
@settings(max_examples=60)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
def test_conv1d_agrees_with_torch(case, seed):
    """Value and gradients are torch.nn.Conv1d's for all its options, without a batch axis and for an empty batch."""
    sizes, options, shape = case
    assert_twins(fn.Conv1d(*sizes, **options), nn.Conv1d(*sizes, **options), draw(shape, seed), tolerance=CLOSE)


def test_the_initial_weights_of_a_convolution_by_name():
    """The default is Xavier normal with zero bias; "torch" is within torch's bounds, including the bias."""
    xavier, torch_like = fn.Conv1d(8, 16, 5).init(0), fn.Conv1d(8, 16, 5, initializer="torch").init(0)
    assert abs(float(xavier["weight"].std()) / (2 / (8 * 5 + 16 * 5)) ** 0.5 - 1) < 0.1
    assert not xavier["bias"].any()
    for leaf in torch_like.values():
        assert 0.8 / 40**0.5 < float(leaf.abs().max()) <= 1 / 40**0.5


X = torch.ones(2, 3)
MESSAGES = {
    "Conv1d: groups must divide in_channels and out_channels, got groups=2, in_channels=3, out_channels=4": lambda: fn.Conv1d(3, 4, 1, groups=2),
    'Conv1d: padding="same" must have stride 1, got stride=2': lambda: fn.Conv1d(3, 4, 3, stride=2, padding="same"),
    'Conv1d: padding must be a whole number of at least 0, "same", "valid" or "causal" (in a tuple also a pair (before, after)), got \'full\'': lambda: fn.Conv1d(3, 4, 3, padding="full"),
    "Conv1d: kernel_size must be a whole number of at least 1, got 0": lambda: fn.Conv1d(3, 4, 0),
    "the last axis but one of x must be in_channels=4, got x of shape (2, 3)": lambda: fn.Conv1d(4, 4, 1)(fn.Conv1d(4, 4, 1).init(0), X),
    "x must have the axes (N, channels, length) or (channels, length), got x of shape (3,)": lambda: fn.Conv1d(3, 4, 1)(fn.Conv1d(3, 4, 1).init(0), X[0]),
    "x must be at least (4,) long for these windows and padding, got x of shape (2, 3)": lambda: fn.Conv1d(2, 4, 4)(fn.Conv1d(2, 4, 4).init(0), X),
    "params must be a dict of weight (4, 2, 1), bias (4,), got weight (4, 2, 2), bias (4,)": lambda: fn.Conv1d(2, 4, 1)(fn.Conv1d(2, 4, 2).init(0), X),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
