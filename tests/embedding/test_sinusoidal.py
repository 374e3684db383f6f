"""Sines and cosines of a number compared with the positions of a sequence, and the errors."""

import pytest
import torch

import funcnet as fn


@pytest.mark.parametrize("base", [10.0, 10000.0])
def test_of_the_steps_it_is_what_positions_add(base):
    """The vectors agree bit for bit in float64."""
    added = fn.SinusoidalPositions(base)({}, torch.zeros(9, 6, dtype=torch.float64))
    assert torch.equal(fn.SinusoidalEmbedding(6, base)({}, torch.arange(9, dtype=torch.float64)), added)


def test_the_gradient_is_that_of_autograd():
    """Any shape is tried, including a 0-d one and empty ones."""
    for shape in ((), (0,), (3,), (2, 1, 4)):
        x = fn.random.normal(1, shape, std=20.0, dtype=torch.float64).requires_grad_()
        y, cache = fn.SinusoidalEmbedding(8).apply({}, x)
        gy = fn.random.normal(2, tuple(y.shape), dtype=torch.float64)
        torch.testing.assert_close(fn.SinusoidalEmbedding(8).vjp({}, cache, gy)[1], torch.autograd.grad(y, x, gy)[0])


def test_half_precision_is_computed_in_single():
    """Step 999, rounded to 1000 by bfloat16, has the sines of 1000."""
    y = fn.SinusoidalEmbedding(4)({}, torch.tensor([999.0], dtype=torch.bfloat16))
    want = fn.SinusoidalEmbedding(4)({}, torch.tensor([1000.0], dtype=torch.float64))
    torch.testing.assert_close(y.double(), want, atol=2**-8, rtol=0)


MESSAGES = {
    "SinusoidalEmbedding: dim must be even, got 3": lambda: fn.SinusoidalEmbedding(3),
    "SinusoidalEmbedding: base must be a finite number above 0.0, got 0": lambda: fn.SinusoidalEmbedding(2, 0),
    "SinusoidalEmbedding(dim=2): x must be a floating tensor, got a tensor of shape (1,) and dtype torch.int64": lambda: fn.SinusoidalEmbedding(2)({}, torch.tensor([1])),
    "SinusoidalEmbedding(dim=2): gy must have the shape of y, (3, 2), got gy of shape (3,)": lambda: fn.SinusoidalEmbedding(2).vjp({}, torch.ones(3), torch.ones(3)),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
