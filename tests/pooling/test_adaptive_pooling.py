"""Pooling to a given size, global pooling, and unpooling, compared with torch.nn's; and the errors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twins import assert_twins, draw, twin_of

import funcnet as fn

AXES = (1, 2, 3)


def twins_of(name, axes):
    """Return our layer and torch's by name."""
    return getattr(fn, f"{name}{axes}d"), getattr(nn, f"{name}{axes}d")


@st.composite
def covers(pick, axes):
    """Draw an output size, one number or one for each axis, some of them None, and the shape of an input."""
    entry = st.one_of(st.integers(1, 5), st.none()) if axes > 1 else st.integers(1, 5)
    size = pick(st.one_of(st.integers(1, 4), st.tuples(*[entry] * axes)))
    batch = pick(st.sampled_from([(), (1,), (2,)]))
    return size, (*batch, pick(st.integers(1, 3)), *[pick(st.integers(1, 6)) for _ in range(axes)])


@twin_of("AdaptiveAvgPool{axes}d")
@pytest.mark.parametrize("axes", AXES)
@given(st.data())
@settings(max_examples=30, deadline=None)
def test_adaptive_means_are_torch_s(axes, data):
    """Values and gradients agree, for windows that share elements, and for more windows than elements."""
    size, shape = data.draw(covers(axes))
    layer, module = twins_of("AdaptiveAvgPool", axes)
    assert_twins(layer(size), module(size), draw(shape))


@twin_of("AdaptiveMaxPool{axes}d")
@pytest.mark.parametrize("axes", AXES)
@given(st.data(), st.booleans(), st.booleans())
@settings(max_examples=30, deadline=None)
def test_adaptive_maxima_are_torch_s(axes, data, indices, ties):
    """Values, indices and gradients agree; of equal elements the first counts."""
    size, shape = data.draw(covers(axes))
    layer, module = twins_of("AdaptiveMaxPool", axes)
    assert_twins(layer(size, indices), module(size, return_indices=indices), draw(shape).round() if ties else draw(shape))


@twin_of("MaxUnpool{axes}d")
@pytest.mark.parametrize("axes", AXES)
@given(st.data())
@settings(max_examples=25, deadline=None)
def test_unpooling_is_torch_s(axes, data):
    """Values and gradients agree for the pair from a pooling, even with the original length."""
    kernel, stride = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 2))
    padding = data.draw(st.integers(0, kernel // 2))
    lengths = tuple(data.draw(st.integers(kernel, 7)) for _ in range(axes))
    batch = data.draw(st.sampled_from([(), (1,), (2,)]))
    stride = kernel + stride
    pair = nn.functional.__dict__[f"max_pool{axes}d"](draw((*batch, 2, *lengths)), kernel, stride, padding, return_indices=True)
    layer, module = twins_of("MaxUnpool", axes)
    call = lambda m, x: m(*x, output_size=list(lengths))
    assert_twins(layer(kernel, stride, padding, output_size=lengths), module(kernel, stride, padding), pair, call=call)


@pytest.mark.parametrize("options", [(2,), (2, 3), ((2, 3), (3, 4)), ((2, 3), None, (1, 0))], ids=str)
def test_unpooling_has_torch_s_size(options):
    """The size is (length - 1) stride - 2 padding + kernel_size along each axis."""
    pair = (draw((2, 3, 4, 5)), torch.zeros(2, 3, 4, 5, dtype=torch.int64))
    assert fn.MaxUnpool2d(*options)({}, pair).shape == nn.MaxUnpool2d(*options)(*pair).shape


def test_unpooling_to_the_lengths_of_another_tensor_is_that_to_its_size():
    """That tensor has no gradient."""
    pair, like = fn.MaxPool2d(2, return_indices=True)({}, draw((2, 3, 5, 7))), draw((1, 5, 7))
    (y, cache), want = fn.MaxUnpool2d(2).apply({}, (*pair, like)), fn.MaxUnpool2d(2, output_size=(5, 7))
    assert torch.equal(y, want({}, pair))
    gx = fn.MaxUnpool2d(2).vjp({}, cache, y)[1]
    assert torch.equal(gx[0], want.vjp({}, want.apply({}, pair)[1], y)[1][0])
    assert gx[1:] == (None, None)


def test_an_element_that_two_windows_chose_has_one_gradient():
    """An overlapping pooling writes it once, and only the later of two pairs has a gradient, as by a difference."""
    pair = nn.functional.max_pool1d(torch.tensor([[[0.0, 2.0, 1.0]]]), 2, 1, return_indices=True)
    layer = fn.MaxUnpool1d(2, 1)
    y, cache = layer.apply({}, pair)
    assert y.tolist() == [[[0.0, 2.0, 0.0]]]
    assert layer.vjp({}, cache, torch.ones(1, 1, 3))[1][0].tolist() == [[[0.0, 1.0]]]


class Over(nn.Module):
    """A reduction of all axes after the channels."""

    def __init__(self, name, keepdim):
        super().__init__()
        self.name, self.keepdim = name, keepdim

    def forward(self, x):
        """Reduce; the first of equal elements is the largest."""
        y = x.flatten(2).max(2).values if self.name == "max" else getattr(x, self.name)(tuple(range(2, x.dim())))
        return y.reshape(*y.shape, *[1] * (x.dim() - 2)) if self.keepdim else y


@pytest.mark.parametrize("name", ["mean", "sum", "max"])
@given(st.lists(st.integers(1, 4), min_size=3, max_size=5), st.booleans(), st.booleans())
@settings(max_examples=20, deadline=None)
def test_global_pooling_is_a_reduction(name, shape, keepdim, ties):
    """Mean, sum and maximum reduce all axes after the channels, kept as 1 or removed; ties go to the first."""
    layer = {"mean": fn.GlobalAvgPool, "sum": fn.GlobalSumPool, "max": fn.GlobalMaxPool}[name](keepdim)
    x = draw(shape).round() if ties else draw(shape)
    assert_twins(layer, Over(name, keepdim), x)
    assert_twins(layer, Over(name, keepdim), x.to(memory_format=torch.channels_last) if x.dim() == 4 else x)


def called(layer, *shape, gy=None):
    """Call a layer on zeros, and its vjp on a gy of another shape."""
    cache = layer.apply({}, torch.zeros(shape))[1]
    layer.vjp({}, cache, torch.zeros(gy))


PAIR = torch.zeros(1, 1, 2), torch.tensor([[[0, 4]]])
MESSAGES = {
    "AdaptiveAvgPool2d: output_size must be a whole number of at least 1 or None, or a tuple of 2 of them, one for each axis, got (1, 0)": lambda: fn.AdaptiveAvgPool2d((1, 0)),
    "AdaptiveMaxPool1d: output_size must be a whole number of at least 1 or None, got 1.5": lambda: fn.AdaptiveMaxPool1d(1.5),
    "x must have the axes (N, channels, length) or (channels, length), got x of shape (1, 2, 3, 4)": lambda: called(fn.AdaptiveAvgPool1d(2), 1, 2, 3, 4),
    "x must have no empty axis except the batch, got x of shape (2, 3, 0)": lambda: called(fn.AdaptiveMaxPool1d(2), 2, 3, 0),
    "AdaptiveAvgPool2d(output_size=2): gy must have the shape of y, (1, 1, 2, 2), got gy of shape (1, 1, 3, 2)": lambda: called(fn.AdaptiveAvgPool2d(2), 1, 1, 4, 4, gy=(1, 1, 3, 2)),
    "GlobalAvgPool(): x must have the axes (N, channels, ...), with one or more after the channels, got x of shape (2, 3)": lambda: called(fn.GlobalAvgPool(), 2, 3),
    "GlobalMaxPool(): x must have no empty axis after the channels, got x of shape (2, 3, 0)": lambda: called(fn.GlobalMaxPool(), 2, 3, 0),
    "GlobalSumPool(keepdim=True): gy must have the shape of y, (2, 3, 1, 1), got gy of shape (2, 3)": lambda: called(fn.GlobalSumPool(True), 2, 3, 4, 5, gy=(2, 3)),
    "MaxUnpool1d(kernel_size=2): x must be a pair (x, indices), as max pooling with return_indices=True returns it, got x of shape (1, 2, 3)": lambda: called(fn.MaxUnpool1d(2), 1, 2, 3),
    "MaxUnpool1d(kernel_size=2): x and indices must have the same shape, not (1, 2) and (1, 1, 2), got shapes (1, 2) and (1, 1, 2)": lambda: fn.MaxUnpool1d(2)({}, (PAIR[0][0], PAIR[1])),
    "MaxUnpool1d(kernel_size=2): the indices must be from 0 to 3, not 4, got shapes (1, 1, 2) and (1, 1, 2)": lambda: fn.MaxUnpool1d(2)({}, PAIR),
    "MaxUnpool1d(kernel_size=2): the third tensor must have lengths less than a stride from (4,), not (6,), got shapes (1, 1, 2) and (1, 1, 2) and (6,)": lambda: fn.MaxUnpool1d(2)({}, (PAIR[0], PAIR[1], torch.zeros(6))),
    "MaxUnpool1d(kernel_size=2): x must be a pair (x, indices), as max pooling with return_indices=True returns it, got a tuple of 3": lambda: fn.MaxUnpool1d(2)({}, (*PAIR, 6)),
    "MaxUnpool2d: output_size must be a whole number of at least 1, or a tuple of 2 of them, one for each axis, got (1, 2, 3)": lambda: fn.MaxUnpool2d(2, output_size=(1, 2, 3)),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_what_does_not_fit_is_refused_with_its_message(message):
    """Options, x and gy are tried; the message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
