"""Dtypes: every layer of the catalogue computes in the dtype it is given, and in half precision what it does in float32."""

from typing import Any

import pytest
import torch
from cases import CASES, Case
from torch import Tensor

import funcnet as fn
from funcnet import random, tree
from funcnet.testing.comparison import named, noise_like, run

HALVES = (torch.bfloat16, torch.float16)
DTYPES = (*HALVES, torch.float32, torch.float64)
UNITS = 16  # roundings that the largest number may be off by: the catalogue's deepest nets come to 12, single layers to 7
SHARE = 0.9  # of the elements; the others may have rounded to beyond a kink, or be what cancels in a norm


def results(layer: fn.Layer, params: Any, x: Any, gy: Any) -> dict[str, Tensor]:
    """Return y and all gradients by path."""
    y, cache = run(layer, params, x, 0)
    return tree.names({"y": y, **named(layer.vjp(params, cache, gy))})


def in_both(layer: fn.Layer, params: Any, x: Any, half: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Tensor], float]:
    """Return the results in half precision, those in float32 of the same numbers, and the largest of the numbers."""
    params, x = tree.cast((params, x), half)
    gy = tree.cast(noise_like(run(layer, params, x, 0)[0], random.key(1)), half)
    want = results(layer, *tree.cast((params, x, gy), torch.float32))
    return results(layer, params, x, gy), want, max([0.0, *map(largest, tree.leaves((x, gy)))])


def largest(leaf: Tensor) -> float:
    """Return the largest finite magnitude in a floating tensor; 0 for others."""
    return float(leaf.double().nan_to_num(0.0, 0.0, 0.0).abs().max()) if leaf.is_floating_point() and leaf.numel() else 0.0


def near(got: Tensor, want: Tensor, floor: float, units: float) -> Tensor:
    """Tell of each element whether it is as near as rounding brings it to that of float32, or no number where that is none."""
    allowed = units * torch.finfo(got.dtype).eps * max(floor, largest(want)) if got.is_floating_point() else 0.0
    return torch.isclose(got.double(), want.double(), rtol=0.0, atol=allowed, equal_nan=True)


def dtypes_of(case: Case, dtype: torch.dtype) -> set[torch.dtype]:
    """Return the dtypes that come of one: of y, if anything that it is made of has one, and of the gradients."""
    params, x = tree.cast((case.params, case.x), dtype)
    y, cache = run(case.layer, params, x, 0)
    gradients = case.layer.vjp(params, cache, noise_like(y, 1))
    given = [leaf for leaf in tree.leaves((params, x)) if leaf.is_floating_point()]
    return {leaf.dtype for leaf in tree.leaves((y if given else None, gradients)) if leaf.is_floating_point()}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_layer_keeps_the_dtype_it_is_given(case: Case) -> None:
    """Outputs and gradients have the dtype of params and x; only what is made of integers alone, a one-hot, has its own."""
    assert [dtype for dtype in DTYPES if not dtypes_of(case, dtype) <= {dtype}] == []


@pytest.mark.parametrize("half", HALVES, ids=str)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_half_precision_agrees_with_single(case: Case, half: torch.dtype) -> None:
    """Of the same numbers in float32 it is the rounding, and finite where that is; nine elements in ten at the least."""
    got, want, floor = in_both(case.layer, case.params, case.x, half)
    assert got.keys() == want.keys()
    assert [path for path in want if not torch.equal(got[path].isfinite(), want[path].isfinite())] == []
    agreed = torch.cat([near(got[path], want[path], floor, UNITS).reshape(-1) for path in want])
    assert agreed.double().mean() >= SHARE or not agreed.numel()


def rows(*shape: int) -> Tensor:
    return random.normal(len(shape), shape) + 1


def ids(*shape: int) -> Tensor:
    return torch.arange(torch.Size(shape).numel()).reshape(shape) % 3


# What is summed over thousands of numbers, forward or backward: a sum in half precision stands still where they are many.
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
    """Over thousands of rows or features, in every element, and measured by the largest of the leaf alone."""
    layer, x = LONG[name]
    got, want, _ = in_both(layer, layer.init(0), x, half)
    assert {path: bool(near(got[path], want[path], 0.0, 4).all()) for path in want} == dict.fromkeys(want, True)


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
    """What is squared on the way comes out as in float32, of numbers near 300, whose squares float16 has not."""
    layer, x = OVERFLOWING[name]
    got, want, _ = in_both(layer, layer.init(0), x, torch.float16)
    assert {path: bool(near(got[path], want[path], 0.0, UNITS).all()) for path in want} == dict.fromkeys(want, True)


def test_a_sum_in_half_precision_is_told_from_one_in_single() -> None:
    """The judge of the two tests above lets the rounded sum of exact terms pass, and not that of rounded partial sums."""
    terms = rows(3000).to(torch.bfloat16)
    want = terms.float().sum()
    assert near(terms.sum(), want, 0.0, 4)
    assert not near(_by_steps(terms), want, 0.0, UNITS)


def _by_steps(terms: Tensor) -> Tensor:
    """Add up one after the other, rounding each time."""
    total = terms.new_zeros(())
    for term in terms:
        total = total + term
    return total
