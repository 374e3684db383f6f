"""Unshared and masked convolutions: compared with shared ones, which pixels they see, and the errors they raise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import draw

import funcnet as fn

LOCAL = {n: (getattr(fn, f"ConvLocal{n}d"), getattr(fn, f"Conv{n}d")) for n in (1, 2, 3)}


@st.composite
def options(pick, axes):
    """Draw options of both, an input size that fits, and a batch."""
    kernel, dilation = pick(st.integers(1, 3)), pick(st.integers(1, 2))
    padding = pick(st.sampled_from([0, 1, "same", "causal", ((1, 2),) * axes]))
    stride = 1 if padding == "same" else pick(st.integers(1, 2))
    reach = dilation * (kernel - 1) + 1
    lengths = tuple(pick(st.integers(reach, reach + 2)) for _ in range(axes))
    how = {"stride": stride, "padding": padding, "dilation": dilation, "bias": pick(st.booleans())}
    return kernel, how, lengths, pick(st.sampled_from([(), (1,), (2,), (0,)]))


@pytest.mark.parametrize("axes", LOCAL)
@given(st.data())
@settings(max_examples=25, deadline=None)
def test_with_the_same_kernel_at_each_place_it_is_a_convolution(axes, data):
    """y and gx agree; the gradients of its params, summed over places, are the convolution's."""
    kernel, how, lengths, batch = data.draw(options(axes))
    kind, shared = LOCAL[axes]
    local, conv = kind(2, 3, kernel, lengths, **how), shared(2, 3, kernel, **how)
    params, x = fn.tree.cast(conv.init(0), torch.float64), draw((*batch, 2, *lengths))
    y, cache = conv.apply(params, x)
    places = y.shape[-axes:]
    spread = {"weight": params["weight"].expand(*places, *params["weight"].shape)}
    spread |= {"bias": draw((3,), 1).reshape(3, *[1] * axes).expand(3, *places)} if how["bias"] else {}
    params |= {"bias": draw((3,), 1)} if how["bias"] else {}
    y, cache = conv.apply(params, x)
    got, kept = local.apply(spread, x)
    gy = draw(y.shape, 2)
    (gparams, gx), (want_gparams, want_gx) = local.vjp(spread, kept, gy), conv.vjp(params, cache, gy)
    torch.testing.assert_close((got, gx), (y, want_gx))
    torch.testing.assert_close(gparams["weight"].sum(tuple(range(axes))), want_gparams["weight"])
    assert not how["bias"] or torch.allclose(gparams["bias"].flatten(1).sum(1), want_gparams["bias"])


def test_each_place_has_separate_initial_weights():
    """Weights differ between places, with the standard deviation of a convolution's."""
    params = fn.ConvLocal1d(8, 16, 5, 54).init(0)
    assert abs(float(params["weight"].std()) / (2 / (8 * 5 + 16 * 5)) ** 0.5 - 1) < 0.02
    assert len(params["weight"][:, 0, 0, 0].unique()) == 50
    bound = 40**-0.5
    assert 0.9 * bound < float(fn.ConvLocal1d(8, 16, 5, 54, initializer="torch").init(0)["bias"].abs().max()) <= bound


@pytest.mark.parametrize("mask", ["A", "B"])
def test_a_masked_convolution_sees_what_comes_before_in_reading_order(mask):
    """With "B" it also sees the pixel itself, and never one after it, to the right or below."""
    layer, x = fn.MaskedConv(fn.Conv2d(1, 1, 3, padding="same", bias=False), mask), torch.ones(1, 1, 4, 5)
    params = {"weight": torch.ones(1, 1, 3, 3)}
    y, cache = layer.apply(params, x)
    for i in range(20):
        gx = layer.input_grad(params, cache, torch.eye(20)[i].reshape(y.shape)).flatten()
        assert not gx[i + 1 :].any()
        assert bool(gx[i]) == (mask == "B")
        assert i == 0 or gx[:i].any()


def test_masked_weights_are_0_and_stay_0():
    """Initial params and gradients are 0 there; other numbers at these places have no effect."""
    layer, x = fn.MaskedConv(fn.Conv2d(2, 3, (3, 5)), "A"), draw((2, 2, 4, 6)).float()
    params = layer.init(0)
    y, cache = layer.apply(params, x)
    for weight in (params["weight"], layer.grads(params, cache, y)["weight"]):
        assert weight[:, :, :1].all()
        assert weight[:, :, 1, :2].all()
        assert not weight[:, :, 1, 2:].any()
        assert not weight[:, :, 2].any()
    other = {**params, "weight": torch.where(params["weight"] == 0, torch.inf, params["weight"])}
    assert torch.equal(layer(other, x), y)


def called(layer, *shape, gy=None):
    """Call a layer on zeros, and its vjp on a gy of another shape."""
    params = layer.init(0)
    cache = layer.apply(params, torch.zeros(shape))[1]
    layer.vjp(params, cache, torch.zeros(gy))


MESSAGES = {
    "ConvLocal2d: input_size must be at least (3, 3) for these windows and padding, got input_size=(4, 2)": lambda: fn.ConvLocal2d(1, 1, 3, (4, 2)),
    'ConvLocal1d: padding="same" must have stride 1, got stride=2': lambda: fn.ConvLocal1d(1, 1, 3, 4, 2, "same"),
    "the axes (-2, -1) of x must be (in_channels, *input_size)=(2, 4), got x of shape (1, 2, 5)": lambda: called(fn.ConvLocal1d(2, 1, 3, 4), 1, 2, 5),
    "the axes (-2, -1) of x must be (in_channels, *input_size)=(2, 4), got x of shape (1, 3, 4)": lambda: called(fn.ConvLocal1d(2, 1, 3, 4), 1, 3, 4),
    "params must be a dict of weight (2, 1, 2, 3), bias (1, 2), got an empty dict": lambda: fn.ConvLocal1d(2, 1, 3, 4)({}, torch.zeros(1, 2, 4)),
    "x must have the dtype of the params, torch.float32, got torch.float64": lambda: fn.ConvLocal1d(2, 1, 3, 4)(fn.ConvLocal1d(2, 1, 3, 4).init(0), draw((1, 2, 4))),
    "gy must have the shape of y, (2, 1, 2), got gy of shape (1, 1, 2)": lambda: called(fn.ConvLocal1d(2, 1, 3, 4), 2, 2, 4, gy=(1, 1, 2)),
    "MaskedConv: layer must be a Conv1d, Conv2d or Conv3d, got Tanh()": lambda: fn.MaskedConv(fn.Tanh(), "A"),
    "MaskedConv: mask must be one of 'A', 'B', got 'C'": lambda: fn.MaskedConv(fn.Conv1d(1, 1, 1), "C"),
    "params must be a dict of weight (1, 1, 1), bias (1,), got an empty dict": lambda: fn.MaskedConv(fn.Conv1d(1, 1, 1), "B")({}, torch.zeros(1, 1, 1)),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_what_does_not_fit_is_refused_with_its_message(message):
    """Options, x, params and gy are tried; the message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
