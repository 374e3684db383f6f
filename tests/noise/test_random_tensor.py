"""``RandomTensor``: distributions, sizes taken from x, and dtypes; and ``InputOnes``."""

import pytest
import torch

import funcnet as fn

X = torch.ones(400, 5)


def test_the_distributions():
    """Mean and variance are within four standard errors for 2000 numbers."""
    for name, p, mean, variance in (("normal", 0.5, 0, 1), ("uniform", 0.5, 1 / 2, 1 / 12), ("bernoulli", 0.3, 0.3, 0.21)):
        y = fn.RandomTensor(name, p=p)({}, X, 3)
        assert y.shape == X.shape
        assert abs(y.mean() - mean) < 4 * (variance / 2000) ** 0.5
        assert abs(y.var() - variance) < 0.15 * variance
    assert {*y.unique().tolist()} == {0.0, 1.0}


def test_sizes_and_dtypes_come_from_x_or_are_said():
    """``InputOnes`` gives size 1 to each axis except the first; the dtype is x's, unless x holds tokens."""
    rows = fn.RandomTensor("uniform", (fn.InputSize(), fn.InputOnes(less=1)))
    assert rows({}, torch.ones(4, 3, 2), 0).shape == (4, 1, 1)
    assert rows({}, torch.ones(4, dtype=torch.float64), 0).dtype is torch.float64
    tokens = torch.ones(2, 7, dtype=torch.int64)
    y, cache = fn.RandomTensor(sizes=(fn.InputSize(0, 1), 3), dtype=torch.float16).apply({}, tokens, 0)
    assert (y.shape, y.dtype) == ((7, 3), torch.float16)
    assert fn.RandomTensor(dtype=torch.float16).vjp({}, cache, y) == ({}, None)
    assert fn.View((fn.InputSize(), fn.InputOnes(less=1), -1))({}, X).shape == (400, 1, 5)


def test_it_draws_in_evaluation_too():
    """A module that calls ``torch.randn`` draws there too."""
    layer = fn.RandomTensor()
    assert layer.inference() == layer
    assert torch.equal(layer({}, X, 1), layer({}, X, 1))
    assert not torch.equal(layer({}, X, 1), layer({}, X, 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fn.RandomTensor("gamma"), "distribution must be"),
        (lambda: fn.RandomTensor("bernoulli", p=2.0), "p must be"),
        (lambda: fn.RandomTensor(dtype=torch.int64), "dtype must be a floating dtype, or None"),
        (lambda: fn.RandomTensor()({}, X), "must be given a key"),
        (lambda: fn.RandomTensor()({}, X.long(), 0), "x must be a floating tensor if dtype=None"),
        (lambda: fn.RandomTensor(sizes=(fn.InputSize(0, 4),))({}, X, 0), "x must have the inputs and axes"),
        (lambda: fn.RandomTensor(sizes=(-1,))({}, X, 0), "the sizes must be at least 0"),
    ],
)
def test_bad_arguments(make, message):
    """The message has the broken rule."""
    with pytest.raises(ValueError, match=message):
        make()
