"""Dropout: how much is dropped, with a key and in inference, and the errors it raises."""

import pytest
import torch

import funcnet as fn


def test_dropout_drops_the_fraction_p_and_keeps_the_mean():
    """About p of the elements become 0, the others are divided by 1 - p, and the backward pass uses the same mask."""
    layer, x = fn.Dropout(0.3), torch.ones(100_000)
    y, cache = layer.apply({}, x, fn.key(0))
    assert abs(float((y == 0).double().mean()) - 0.3) < 0.01
    torch.testing.assert_close(y[y > 0], torch.full_like(y[y > 0], 1 / 0.7))
    assert torch.equal(layer.vjp({}, cache, x)[1], y)


@pytest.mark.parametrize(("p", "value"), [(0.0, 1.0), (1.0, 0.0)])
def test_dropout_of_nothing_and_of_all(p, value):
    """p = 0 keeps every element, and p = 1 gives zeros, not NaN."""
    assert torch.equal(fn.Dropout(p)({}, torch.ones(4, 4), 0), torch.full((4, 4), value))


def test_dropout_is_the_identity_in_inference_and_depends_only_on_the_key():
    """The same key drops the same elements, another key drops others, and inference() drops none."""
    layer, x = fn.Dropout(0.5), torch.ones(64)
    assert torch.equal(layer({}, x, 1), layer({}, x, fn.key(1)))
    assert not torch.equal(layer({}, x, 1), layer({}, x, 2))
    assert layer.inference() == fn.Identity()


X = torch.ones(2, 3)
MESSAGES = {
    "Dropout: p must be a finite number at least 0.0 and at most 1.0, got 1.5": lambda: fn.Dropout(1.5),
    "Dropout: p must be a finite number at least 0.0 and at most 1.0, got nan": lambda: fn.Dropout(float("nan")),
    "Dropout(): apply must be given a key, apply(params, x, rng); for evaluation use inference(), got no key": lambda: fn.Dropout()({}, X),
    "rng: it must be a key, fn.key(seed), or an int seed, got 'seed'": lambda: fn.Dropout()({}, X, "seed"),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
