"""Transposed convolutions compared with torch.nn's, and the errors they raise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twins import assert_twins, draw, twin_of

import funcnet as fn

TRANSPOSED = {n: (getattr(fn, f"ConvTranspose{n}d"), getattr(nn, f"ConvTranspose{n}d")) for n in (1, 2, 3)}


@st.composite
def transposed(pick, axes):
    """Draw all arguments of a transposed convolution, a tuple for each option, and the shape of an input that fits."""
    numbers = lambda low, high: pick(st.tuples(*[st.integers(low, high)] * axes))
    kernel, stride, dilation = numbers(1, 3), numbers(1, 3), numbers(1, 2)
    extra = tuple(pick(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    padding, groups = numbers(0, 2), pick(st.integers(1, 2))
    columns = zip(kernel, stride, padding, extra, dilation, strict=True)
    least = [max(-(-(2 * p - d * (k - 1) - e) // s) + 1, 1) for k, s, p, e, d in columns]
    channels = groups * pick(st.integers(1, 2)), groups * pick(st.integers(1, 2))
    options = {"stride": stride, "padding": padding, "output_padding": extra, "dilation": dilation, "groups": groups}
    batch = pick(st.sampled_from([(), (1,), (2,)]))
    lengths = [pick(st.integers(n, n + 2)) for n in least]
    return (*channels, kernel), {**options, "bias": pick(st.booleans())}, (*batch, channels[0], *lengths)


@twin_of("ConvTranspose{axes}d")
@pytest.mark.parametrize("axes", TRANSPOSED)
@given(st.data())
@settings(max_examples=30, deadline=None)
def test_a_transposed_convolution_is_torch_s(axes, data):
    """Values and gradients agree for all arguments, with and without a batch."""
    sizes, options, shape = data.draw(transposed(axes))
    kind, twin = TRANSPOSED[axes]
    assert_twins(kind(*sizes, **options), twin(*sizes, **options), draw(shape))


@pytest.mark.parametrize("axes", TRANSPOSED)
def test_the_length_of_another_tensor_is_torch_s_output_size(axes):
    """Every length that a stride of 3 allows is tried; output_padding is not used."""
    kind, twin = TRANSPOSED[axes]
    x = draw((2, 3, *(2, 4, 3)[:axes]))
    for more in range(3):
        like = torch.zeros([1, *[(n - 1) * 3 + 2 + more for n in x.shape[2:]]], dtype=torch.bool)
        call = lambda module, pair: module(pair[0], output_size=pair[1].shape[1:])
        assert_twins(kind(3, 2, 4, 3, 1, output_padding=1), twin(3, 2, 4, 3, 1), (x, like), call=call)


@pytest.mark.parametrize("axes", TRANSPOSED)
def test_it_is_the_transpose_of_a_convolution(axes):
    """With the same weight and no bias, y is the input gradient of the convolution that maps y's channels to x's."""
    spread = TRANSPOSED[axes][0](3, 2, 3, stride=2, padding=1, bias=False)
    conv = getattr(fn, f"Conv{axes}d")(2, 3, 3, stride=2, padding=1, bias=False)
    params, x = fn.tree.cast(spread.init(0), torch.float64), draw((2, 3, *(3,) * axes))
    y = spread(params, x)
    torch.testing.assert_close(conv.input_grad(params, torch.zeros_like(y), x), y)


def test_channels_last_gives_the_same_numbers_and_stays():
    """Both y and gx keep the memory format."""
    layer, x = fn.ConvTranspose2d(3, 4, 3, 2, 1, 1), draw((2, 3, 4, 5))
    params, last = fn.tree.cast(layer.init(0), torch.float64), x.to(memory_format=torch.channels_last)
    (y, cache), (y_last, cache_last) = layer.apply(params, x), layer.apply(params, last)
    got = layer.vjp(params, cache_last, y_last)
    torch.testing.assert_close((y_last, got), (y, layer.vjp(params, cache, y)))
    assert y_last.is_contiguous(memory_format=torch.channels_last)
    assert got[1].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("axes", TRANSPOSED)
def test_first_weights_are_drawn_within_torch_s_bounds(axes):
    """With initializer="torch" they are within ±1 / √(out / groups · kernel), torch's fan_in, including the bias."""
    layer = TRANSPOSED[axes][0](32, 64, 3, initializer="torch", groups=16)
    bound = (4 * 3**axes) ** -0.5
    for leaf in layer.init(0).values():
        assert 0.8 * bound < float(leaf.abs().max()) <= bound


def called(layer, *shape, gy=None):
    """Call a layer on zeros, and its vjp on a gy of another shape."""
    params = layer.init(0)
    cache = layer.apply(params, torch.zeros(shape))[1]
    layer.vjp(params, cache, torch.zeros(gy))


MESSAGES = {
    "ConvTranspose2d: output_padding must be smaller than stride or dilation, got output_padding=(1, 2), stride=2, dilation=1": lambda: fn.ConvTranspose2d(1, 1, 1, 2, 0, (1, 2)),
    "ConvTranspose1d: groups must divide in_channels and out_channels, got groups=2, in_channels=2, out_channels=3": lambda: fn.ConvTranspose1d(2, 3, 1, groups=2),
    "ConvTranspose3d: kernel_size must be a whole number of at least 1, or a tuple of 3 of them, one for each axis, got (1, 2)": lambda: fn.ConvTranspose3d(2, 3, (1, 2)),
    "the last axis but one of x must be in_channels=2, got x of shape (1, 3, 4)": lambda: called(fn.ConvTranspose1d(2, 3, 1), 1, 3, 4),
    "x must have the axes (N, channels, length) or (channels, length), got x of shape (4,)": lambda: called(fn.ConvTranspose1d(2, 3, 1), 4),
    "x must be at least (5,) long for these windows and padding, got x of shape (1, 2, 3)": lambda: called(fn.ConvTranspose1d(2, 3, 1, padding=2), 1, 2, 3),
    "like must be (4,) long, or longer by less than stride=2, not (6,), got shapes (1, 2, 2) and (1, 6)": lambda: fn.ConvTranspose1d(2, 3, 2, 2)(fn.ConvTranspose1d(2, 3, 2).init(0), (torch.zeros(1, 2, 2), torch.zeros(1, 6))),
    "x must be a tensor, or a pair (x, like), where the tensor like has the lengths of y, got shapes (1, 2, 2)": lambda: fn.ConvTranspose1d(2, 3, 2, 2)(fn.ConvTranspose1d(2, 3, 2).init(0), (torch.zeros(1, 2, 2),)),
    "params must be a dict of weight (2, 3, 1), bias (3,), got weight (2, 3, 2), bias (3,)": lambda: fn.ConvTranspose1d(2, 3, 1)(fn.ConvTranspose1d(2, 3, 2).init(0), torch.zeros(1, 2, 3)),
    "gy must have the shape of y, (2, 3, 4), got gy of shape (1, 3, 4)": lambda: called(fn.ConvTranspose1d(2, 3, 2), 2, 2, 3, gy=(1, 3, 4)),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_what_does_not_fit_is_refused_with_its_message(message):
    """Options, x, params and gy are tried; the message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
