"""Windows reduced by a layer: compared with existing poolings, with autograd, as parts of nets, and the errors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from twins import draw

import funcnet as fn

NAMED = {
    "sum": (fn.Sum(-1), lambda axes: getattr(fn, f"SumPool{axes}d"), 0.0),
    "mean": (fn.Mean(-1), lambda axes: getattr(fn, f"AvgPool{axes}d"), 0.0),
    "max": (fn.Max(-1), lambda axes: getattr(fn, f"MaxPool{axes}d"), -float("inf")),
    "min": (fn.Min(-1), lambda axes: getattr(fn, f"MinPool{axes}d"), float("inf")),
}


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("axes", [1, 2, 3])
@settings(max_examples=20)
@given(st.integers(1, 3), st.none() | st.integers(1, 3), st.integers(0, 1), st.booleans(), st.integers(0, 10**6))
def test_by_a_reduction_it_is_the_pooling_of_that_name(name, axes, kernel, stride, padding, batch, seed):
    """Values and gradients agree, with and without a batch, with the padding of each."""
    reducer, kind, value = NAMED[name]
    how = (kernel, stride, min(padding, kernel // 2))
    ours, theirs = getattr(fn, f"Pool{axes}d")(reducer, *how, padding_value=value), kind(axes)(*how)
    x = draw((*[2] * batch, 2, *range(5, 5 + axes)), seed)
    (y, cache), (want, of) = ours.apply({}, x), theirs.apply({}, x)
    gy = draw(want.shape, seed + 1)
    torch.testing.assert_close(y, want, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.vjp({}, cache, gy)[1], theirs.vjp({}, of, gy)[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("name", ["mean", "max"])
@settings(max_examples=20)
@given(st.none() | st.integers(1, 4), st.booleans(), st.integers(0, 10**6))
def test_by_a_reduction_to_a_given_size_it_is_the_adaptive_pooling_of_that_name(name, axes, size, batch, seed):
    """Values and gradients agree, with and without a batch, for sizes that divide the length or not, including larger ones."""
    reducer, kind = {"mean": (fn.Mean(-1), "Avg"), "max": (fn.Max(-1), "Max")}[name]
    ours, theirs = getattr(fn, f"AdaptivePool{axes}d")(reducer, size), getattr(fn, f"Adaptive{kind}Pool{axes}d")(size)
    x = draw((*[2] * batch, 2, *range(3, 3 + axes)), seed)
    (y, cache), (want, of) = ours.apply({}, x), theirs.apply({}, x)
    gy = draw(want.shape, seed + 1)
    torch.testing.assert_close(y, want, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.vjp({}, cache, gy)[1], theirs.vjp({}, of, gy)[1], rtol=1e-10, atol=1e-10)


def test_an_adaptive_reducer_s_params_and_statistics_are_one_layer_s():
    """As in ``shared``, gradients add up over the windows, and each window moves the statistics in turn."""
    layer = fn.AdaptivePool1d(fn.serial(fn.BatchNorm1d(3), fn.Mean(-1)), 2)
    params = layer.init(0)
    moved = layer.update_stats(params, layer.apply(params, draw((2, 3, 5)).float())[1])
    assert int(moved[0]["num_batches_tracked"]) == 2
    assert layer.inference() == fn.AdaptivePool1d(layer.layer.inference(), 2)
    sized = fn.infer_sizes(fn.AdaptivePool1d(fn.serial(fn.Linear(None, 1), fn.Squeeze(-1)), 2), torch.ones(2, 3, 6))
    assert sized.layer[0].in_features == 3


def test_a_linear_map_of_windows_is_a_convolution_of_each_channel():
    """The elements of a window are row by row, even if dilated."""
    layer = fn.Pool2d(fn.serial(fn.Linear(6, 1), fn.Squeeze(-1)), (2, 3), (2, 1), (1, 0), (1, 2))
    params, x = fn.tree.cast(layer.init(1), torch.float64), draw((2, 1, 5, 7))
    w, b = params[0]["weight"].reshape(1, 1, 2, 3), params[0]["bias"]
    torch.testing.assert_close(layer(params, x), functional.conv2d(x, w, b, (2, 1), (1, 0), (1, 2)))


def test_a_reducer_is_initialized_and_moved_as_by_itself():
    """Its params are the pooling's, drawn with its first child's key; its statistics move, and its size is inferred."""
    layer = fn.Pool1d(fn.serial(fn.Linear(None, 1), fn.Squeeze(-1)), 3)
    assert fn.infer_sizes(layer, torch.ones(2, 4, 9)) == fn.Pool1d(fn.serial(fn.Linear(3, 1), fn.Squeeze(-1)), 3)
    normed = fn.Pool2d(fn.serial(fn.BatchNorm2d(3), fn.Mean(-1)), 2)
    params = normed.init(0)
    assert fn.tree.equal(params, normed.layer.init(fn.fold_in(0, 0)))
    moved = normed.update_stats(params, normed.apply(params, draw((2, 3, 4, 4)).float())[1])
    assert int(moved[0]["num_batches_tracked"]) == 1
    assert normed.inference() == fn.Pool2d(normed.layer.inference(), 2)


X = torch.ones(2, 3, 4)
MESSAGES = {
    "Pool1d: layer must be a layer (a value with init, apply and vjp), got": lambda: fn.Pool1d(torch.amax, 2),
    "Pool2d: kernel_size must be a whole number of at least 1, or a tuple of 2 of them, one for each axis, got (2,)": lambda: fn.Pool2d(fn.Mean(-1), (2,)),
    "AdaptivePool1d: output_size must be a whole number of at least 1 or None, got 0": lambda: fn.AdaptivePool1d(fn.Mean(-1), 0),
    "AdaptivePool1d(layer=Mean(dim=-1), output_size=2): x must have no empty axis except the batch, got x of shape (2, 3, 0)": lambda: fn.AdaptivePool1d(fn.Mean(-1), 2)({}, X[..., :0]),
    "Tanh() must reduce only the last axis of windows of shape (2, 3, 4), got an output of shape (2, 3, 4)": lambda: fn.AdaptivePool1d(fn.Tanh(), 1)({}, X),
    "Pool1d: padding_value must be a number, got nan": lambda: fn.Pool1d(fn.Mean(-1), 2, padding_value=float("nan")),
    "Pool1d(layer=Mean(dim=-1), kernel_size=5): x with its padding must be as long as the window's reach, (5,), got x of shape (2, 3, 4)": lambda: fn.Pool1d(fn.Mean(-1), 5)({}, X),
    "x must have the axes (N, channels, height, width) or (channels, height, width), got x of shape (3, 4)": lambda: fn.Pool2d(fn.Mean(-1), 1)({}, X[0]),
    "x must be a floating tensor, not torch.int64, got a tensor of shape (2, 3, 4) and dtype torch.int64": lambda: fn.Pool1d(fn.Mean(-1), 2)({}, X.long()),
    "Mean() must reduce only the last axis of windows of shape (2, 3, 2, 2), got an output of shape ()": lambda: fn.Pool1d(fn.Mean(), 2)({}, X),
    "Tanh() must reduce only the last axis of windows of shape (2, 3, 2, 2), got an output of shape (2, 3, 2, 2)": lambda: fn.Pool1d(fn.Tanh(), 2)({}, X),
    "gy must have the shape of y, (2, 3, 2), got gy of shape (2, 3, 1)": lambda: fn.Pool1d(fn.Sum(-1), 2).vjp({}, fn.Pool1d(fn.Sum(-1), 2).apply({}, X)[1], X[..., :1]),
    "Std(dim=-1): x must have more than correction=1 elements along the axes, got x of shape (2, 3, 4, 1)": lambda: fn.Pool1d(fn.Std(-1), 1)({}, X),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_wrong_use_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
