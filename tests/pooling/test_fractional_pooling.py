"""Fractional pooling compared with torch.nn's for equal samples; random samples, half precision, and the errors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twins import assert_twins, draw, twin_of

import funcnet as fn


def pair_of(axes, *options, sample=None):
    """Return our layer and torch's class."""
    name = f"FractionalMaxPool{axes}d"
    return getattr(fn, name)(*options, sample=sample), getattr(nn, name)


@twin_of("FractionalMaxPool{axes}d")
@pytest.mark.parametrize("axes", [2, 3])
@given(st.data(), st.booleans(), st.booleans(), st.floats(0, 1, exclude_max=True))
@settings(max_examples=40, deadline=None)
def test_of_one_sample_it_is_torch_s(axes, data, indices, by_ratio, sample):
    """Values, indices and gradients agree for sizes and ratios, with and without a batch; of equal elements the first counts."""
    kernel = data.draw(st.tuples(*[st.integers(1, 3)] * axes))
    places = data.draw(st.tuples(*[st.integers(1, 3)] * axes))
    lengths = tuple(k + n - 1 + data.draw(st.integers(1, 3)) for k, n in zip(kernel, places, strict=True))
    shape = (*data.draw(st.sampled_from([(), (1,), (2,)])), data.draw(st.integers(1, 2)), *lengths)
    size, ratio = (
        (None, tuple((n + 0.5) / length for n, length in zip(places, lengths, strict=True))) if by_ratio else (places, None)
    )
    layer, twin = pair_of(axes, kernel, size, ratio, indices, sample=sample)
    x = draw(shape).round()
    module = twin(kernel, size, ratio, indices)
    module.register_buffer("_random_samples", layer.samples(x), persistent=False)
    assert_twins(layer, module, x)


@pytest.mark.parametrize("axes", [2, 3])
def test_of_drawn_samples_it_is_torch_s(axes):
    """The key gives a number for each row, channel and axis."""
    layer, twin = pair_of(axes, 2, 4, None, True)
    x = draw((3, 2, *(9,) * axes)).requires_grad_()
    samples = layer.samples(x, 5)
    want, at = twin(2, 4, None, True, _random_samples=samples)(x)
    (y, indices), cache = layer.apply({}, x.detach(), 5)
    gy = draw(y.shape, 1)
    assert torch.equal(y, want)
    assert torch.equal(indices, at)
    torch.testing.assert_close(layer.vjp({}, cache, (gy, None))[1], torch.autograd.grad(want, x, gy)[0])
    assert len(set(samples.flatten().tolist())) == samples.numel()
    assert 0 <= float(samples.min()) <= float(samples.max()) < 1


def test_another_key_gives_other_windows_and_inference_the_same():
    """The draw depends on the key only; ``inference()`` has the sample 1/2, and is its own inference form."""
    layer, x = fn.FractionalMaxPool2d(2, output_ratio=0.7), draw((2, 3, 20, 20))
    assert torch.equal(layer({}, x, 1), layer({}, x, fn.key(1)))
    assert not torch.equal(layer({}, x, 1), layer({}, x, 2))
    still = layer.inference()
    assert still == fn.FractionalMaxPool2d(2, output_ratio=0.7, sample=0.5) == still.inference()
    assert not still.stochastic
    assert layer({}, x, 1).shape == still({}, x).shape == (2, 3, 14, 14)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_has_the_windows_of_single(half):
    """For lengths too large for half precision, every window is where it is in float32."""
    layer, x = fn.FractionalMaxPool2d(2, (3, 700)), draw((1, 2, 7, 3001)).to(half)
    y, (indices, *_) = layer.apply({}, x, 1)
    want, (at, *_) = layer.apply({}, x.float(), 1)
    assert torch.equal(y.float(), want)
    assert torch.equal(indices, at)


POOL = fn.FractionalMaxPool2d(2, 3)
X = torch.ones(1, 1, 4, 5)
MESSAGES = {
    "FractionalMaxPool2d: kernel_size must be a whole number of at least 1, got 0": lambda: fn.FractionalMaxPool2d(0, 2),
    "FractionalMaxPool3d: output_size must be a whole number of at least 1, or a tuple of 3 of them, one for each axis, got (2, 2)": lambda: fn.FractionalMaxPool3d(2, (2, 2)),
    "FractionalMaxPool2d: output_ratio must be a number above 0 and below 1, or a tuple of 2 of them, one for each axis, got (0.5, 1)": lambda: fn.FractionalMaxPool2d(2, None, (0.5, 1)),
    "FractionalMaxPool2d: exactly one of output_size and output_ratio must be given, got output_size=None, output_ratio=None": lambda: fn.FractionalMaxPool2d(2),
    "FractionalMaxPool2d: exactly one of output_size and output_ratio must be given, got output_size=2, output_ratio=0.5": lambda: fn.FractionalMaxPool2d(2, 2, 0.5),
    "FractionalMaxPool2d: sample must be a finite number at least 0.0 and below 1.0, got 1": lambda: fn.FractionalMaxPool2d(2, 2, sample=1),
    "apply must be given a key, apply(params, x, rng); for evaluation use inference(), got no key": lambda: POOL({}, X),
    "x must be at least (4, 4) long for these windows and padding, got x of shape (1, 1, 3, 5)": lambda: POOL({}, X[..., :3, :], 0),
    "x must be at least (4, 4, 4) long for these windows and padding, got x of shape (1, 3, 4, 5)": lambda: fn.FractionalMaxPool3d(2, 2)({}, X.expand(1, 3, 4, 5), 0),
    "x must be at least (5, 2) long for these windows and padding, got x of shape (1, 1, 4, 5)": lambda: fn.FractionalMaxPool2d(2, None, (0.2, 0.5))({}, X, 0),
    "x must have the axes (N, channels, height, width) or (channels, height, width), got x of shape (4, 5)": lambda: POOL({}, X[0, 0], 0),
    "FractionalMaxPool2d(kernel_size=2, output_size=3): params must be an empty dict, got weight 1": lambda: POOL({"weight": 1}, X, 0),
    "gy must have the shape of y, (1, 1, 3, 3), got gy of shape (1, 1, 3, 1)": lambda: POOL.vjp({}, POOL.apply({}, X, 0)[1], torch.ones(1, 1, 3, 1)),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_wrong_use_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
