"""Long or large sums in half precision agree with float32; everything else about dtypes is in ``test_laws``."""

from typing import Any

import pytest
import torch
from torch import Tensor

import funcnet as fn
from funcnet import random, tree
from funcnet.testing.comparison import largest, named, noise_like, run

HALVES = (torch.bfloat16, torch.float16)
UNITS = 16  # the tolerance in units of rounding of the largest number


def results(layer: fn.Layer, params: Any, x: Any, gy: Any) -> dict[str, Tensor]:
    """Return y and all gradients by path."""
    y, cache = run(layer, params, x, 0)
    return tree.names({"y": y, **named(layer.vjp(params, cache, gy))})


def in_both(layer: fn.Layer, x: Any, half: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the results in half precision, and in float32 for the same numbers."""
    params, x = tree.cast((layer.init(0), x), half)
    gy = tree.cast(noise_like(run(layer, params, x, 0)[0], random.key(1)), half)
    want = results(layer, *tree.cast((params, x, gy), torch.float32))
    return results(layer, params, x, gy), want


def near(got: Tensor, want: Tensor, units: float) -> Tensor:
    """Return, for each element, whether it equals float32's up to rounding, or neither is finite."""
    allowed = units * torch.finfo(got.dtype).eps * largest(want) if got.is_floating_point() else 0.0
    return torch.isclose(got.double(), want.double(), rtol=0.0, atol=allowed, equal_nan=True)


def rows(*shape: int) -> Tensor:
    return random.normal(len(shape), shape) + 1


def ids(*shape: int) -> Tensor:
    return torch.arange(torch.Size(shape).numel()).reshape(shape) % 3


# Sums over thousands of numbers, forward or backward: a large sum in half precision stops growing.
LONG = {
    "Linear": (fn.Linear(4, 3), rows(5000, 4)),
    "Linear of many": (fn.Linear(3000, 4), rows(5, 3000)),
    "Bias": (fn.Bias(4), rows(5000, 4)),
    "Scale": (fn.Scale(4), rows(5000, 4)),
    "Bilinear": (fn.Bilinear(3, 4, 2), (rows(2000, 3), rows(2000, 4))),
    "Conv1d": (fn.Conv1d(2, 3, 3), rows(50, 2, 100)),
    "BatchNorm1d": (fn.BatchNorm1d(3), 30 * rows(5000, 3)),
    "BatchNorm1d, running": (fn.BatchNorm1d(3).inference(), rows(5000, 3)),
    "BatchNorm2d": (fn.BatchNorm2d(4), rows(16, 4, 32, 32)),
    "BatchNorm2d not affine": (fn.BatchNorm2d(4, affine=False), rows(16, 4, 32, 32) + 30),
    "LayerNorm": (fn.LayerNorm(16), rows(5000, 16)),
    "LayerNorm of many": (fn.LayerNorm(1000), rows(6, 1000)),
    "RMSNorm": (fn.RMSNorm(16), rows(5000, 16)),
    "GroupNorm": (fn.GroupNorm(2, 4), rows(500, 4, 10)),
    "GroupNorm of images": (fn.GroupNorm(2, 4), rows(16, 4, 32, 32) + 30),
    "InstanceNorm1d": (fn.InstanceNorm1d(3, affine=True), rows(500, 3, 100)),
    "PReLU": (fn.PReLU(3), rows(5000, 3)),
    "Embedding": (fn.Embedding(3, 4), ids(3000)),
    "EmbeddingBag": (fn.EmbeddingBag(3, 4), ids(3, 1000)),
    "LearnedPositions": (fn.LearnedPositions(5, 3), rows(2000, 4, 3)),
    "GRU": (fn.GRU(3, 2), rows(100, 20, 3)),
    "MultiHeadAttention": (fn.MultiHeadAttention(4, 2), rows(20, 50, 4)),
    "AvgPool2d": (fn.AvgPool2d(16), rows(2, 3, 64, 64)),
    "SumPool2d": (fn.SumPool2d(16), rows(2, 3, 64, 64)),
    "GlobalAvgPool": (fn.GlobalAvgPool(), rows(2, 3, 64, 64)),
    "Mean": (fn.Mean(0), rows(3000, 5)),
    "Sum": (fn.Sum(0), rows(3000, 5)),
    "Var": (fn.Var(0), rows(3000, 5)),
    "Add": (fn.Add(), (rows(3000, 3), rows(3))),
    "Softmax": (fn.Softmax(), rows(5, 3000)),
    "CosineSimilarity": (fn.CosineSimilarity(), (rows(5, 3000), rows(5, 3000).exp())),
    "MSE": (fn.MSE().as_layer(), (rows(3000, 5), rows(3000, 5).exp())),
    "CrossEntropy": (fn.CrossEntropy().as_layer(), (rows(3000, 3), ids(3000))),
}


@pytest.mark.parametrize("half", HALVES, ids=str)
@pytest.mark.parametrize("name", LONG)
def test_long_sums_lose_no_more_than_short_ones(name: str, half: torch.dtype) -> None:
    """Sums over thousands of rows or features are compared element by element, relative to the largest of the leaf."""
    layer, x = LONG[name]
    got, want = in_both(layer, x, half)
    assert {path: bool(near(got[path], want[path], 4).all()) for path in want} == dict.fromkeys(want, True)


LARGE = 300 * (1 + rows(20, 4, 8, 8) / 10)
OVERFLOWING = {
    "BatchNorm2d": (fn.BatchNorm2d(4), LARGE),
    "LayerNorm": (fn.LayerNorm(8), LARGE),
    "RMSNorm": (fn.RMSNorm(8), LARGE),
    "GroupNorm": (fn.GroupNorm(2, 4), LARGE),
    "InstanceNorm2d": (fn.InstanceNorm2d(4), LARGE),
    "LocalResponseNorm": (fn.LocalResponseNorm(3, k=0.1), LARGE),
    "LPPool2d": (fn.LPPool2d(2, 4), LARGE),
    "LPPool1d of p 3": (fn.LPPool1d(3.0, 2), LARGE.abs()[..., 0]),
    "Std": (fn.Std(-1), LARGE),
    "Normalize": (fn.Normalize(), LARGE),
    "Standardize": (fn.Standardize(), LARGE),
    "CosineSimilarity": (fn.CosineSimilarity(), (LARGE, LARGE.flip(0))),
    "PairwiseDistance": (fn.PairwiseDistance(), (LARGE, LARGE.flip(0))),
}


@pytest.mark.parametrize("name", OVERFLOWING)
def test_squares_beyond_float16_are_no_limit(name: str) -> None:
    """Numbers near 300, whose squares overflow float16, give the results of float32."""
    layer, x = OVERFLOWING[name]
    got, want = in_both(layer, x, torch.float16)
    assert {path: bool(near(got[path], want[path], UNITS).all()) for path in want} == dict.fromkeys(want, True)


def test_a_sum_in_half_precision_is_distinguished_from_one_in_single() -> None:
    """The comparison in the two tests above accepts a rounded exact sum, but not rounded partial sums."""
    terms = rows(3000).to(torch.bfloat16)
    want = terms.float().sum()
    assert near(terms.sum(), want, 4)
    assert not near(_by_steps(terms), want, UNITS)


def _by_steps(terms: Tensor) -> Tensor:
    """Add one after the other, rounding each time."""
    total = terms.new_zeros(())
    for term in terms:
        total = total + term
    return total
