"""Long sequences of an LSTM: pieces give the same results as the whole, use smaller blocks, and do not modify the cache."""

import pytest
import torch

import funcnet as fn
from funcnet import random, tree
from funcnet.kernels.choices import forced
from funcnet.kernels.recurrent import pieces

LAYER = fn.LSTM(3, 4)
PARAMS = LAYER.init(0)
KEPT = 2 * (3 + 16 * 4)
"""The number of elements kept for a step of two rows."""


def both_passes(x, limit):
    """Return outputs, gradients and the workspace, with pieces that keep at most ``limit`` numbers."""
    with forced("long LSTM", limit):
        y, cache = LAYER.apply(PARAMS, x)
        before = tree.map(torch.clone, cache)
        found = LAYER.vjp(PARAMS, cache, y)
        assert tree.equal(cache, before)
        assert tree.equal(LAYER.vjp(PARAMS, cache, y), found)
    return y, found


@pytest.mark.parametrize(("steps", "limit", "lengths"), [(10, 3 * KEPT, [3, 3, 3, 1]), (7, 0, [1] * 7), (9, 5 * KEPT, [5, 4])])
def test_pieces_give_what_the_whole_gives(steps, limit, lengths, monkeypatch):
    """All have about the same length; the backward pass can be repeated."""
    seen, kernel = [], pieces.lstm_operators.run
    x = random.normal(0, (steps, 2, 3), dtype=torch.float32)
    want = both_passes(x, "whole")
    monkeypatch.setattr(pieces.lstm_operators, "run", lambda x, *given: seen.append(len(x)) or kernel(x, *given))
    got = both_passes(x, limit)
    assert seen == lengths
    fn.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_prediction_is_never_in_pieces():
    """Prediction keeps nothing, so the bits match the whole sequence."""
    x = random.normal(0, (10, 2, 3), dtype=torch.float32)
    with forced("long LSTM", "pieces"):
        got = LAYER(PARAMS, x)
    assert tree.equal(got, LAYER(PARAMS, x))
