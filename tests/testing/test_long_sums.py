"""Sums over many numbers of one sign in half precision equal those in float64, rounded once."""

from typing import Any

import pytest
import torch
from torch import Tensor

import funcnet as fn
from funcnet import random, tree
from funcnet.testing.comparison import run

HALVES = (torch.bfloat16, torch.float16)


def ones(*shape: int) -> Tensor:
    """Return numbers from 1 / 2 to 3 / 2, whose running sum in bfloat16 stops at 512."""
    return random.uniform(len(shape), shape) + 0.5


def ids(*shape: int) -> Tensor:
    return torch.arange(torch.Size(shape).numel()).reshape(shape) % 3


PLACES = 0.01 * ones(1, 40, 40, 2) - 0.2
LENGTHS = torch.tensor([3000, 0, 1900])
LAYERS = {
    "SegmentPool, sum": (fn.SegmentPool("sum"), (ones(5000, 2), LENGTHS)),
    "SegmentPool, sum of numbers": (fn.SegmentPool("sum"), (ones(5000), LENGTHS)),
    "SegmentPool, mean": (fn.SegmentPool("mean"), (ones(5000, 2), LENGTHS)),
    "SegmentPool, max of equals": (fn.SegmentPool("max"), (torch.ones(5000, 2), LENGTHS)),
    "Max of equals": (fn.Max(0), torch.ones(5000, 3)),
    "Min of equals": (fn.Min(), torch.zeros(100000)),
    "AvgPool1d": (fn.AvgPool1d(500, 1), ones(2, 3, 1500)),
    "AvgPool2d": (fn.AvgPool2d(24, 1), ones(2, 3, 64, 64)),
    "AvgPool3d": (fn.AvgPool3d(8, 1), ones(1, 2, 20, 20, 20)),
    "SumPool1d": (fn.SumPool1d(500, 1), ones(2, 3, 1500)),
    "MaxPool1d": (fn.MaxPool1d(900, 1), ones(2, 3, 1800)),
    "MaxPool2d": (fn.MaxPool2d(30, 1), ones(2, 3, 64, 64)),
    "MaxPool3d": (fn.MaxPool3d(9, 1), ones(1, 2, 20, 20, 20)),
    "MinPool2d": (fn.MinPool2d(30, 1), ones(2, 3, 64, 64)),
    "LPPool1d": (fn.LPPool1d(2.0, 500, 1), ones(2, 3, 1500)),
    "AdaptiveAvgPool1d": (fn.AdaptiveAvgPool1d(3000), ones(2, 3, 2)),
    "AdaptiveMaxPool2d": (fn.AdaptiveMaxPool2d(60), ones(2, 3, 2, 2)),
    "Embedding": (fn.Embedding(3, 4), ids(3000)),
    "Embedding, max_norm": (fn.Embedding(3, 4, max_norm=1.0), ids(3000)),
    "HashEmbed": (fn.HashEmbed(3, 4), ids(3000)),
    "EmbeddingBag, sum": (fn.EmbeddingBag(3, 4, mode="sum"), ids(3, 1000)),
    "EmbeddingBag, mean": (fn.EmbeddingBag(3, 4), (ids(3000), torch.tensor([0, 2000]))),
    "EmbeddingBag, max": (fn.EmbeddingBag(3, 4, mode="max"), ids(3000, 3)),
    "uniqued": (fn.uniqued(fn.Embedding(3, 4)), ids(3000)),
    "Unfold": (fn.Unfold(20), ones(1, 1, 60, 60)),
    "Fold": (fn.Fold(40, 20), ones(1, 400, 441)),
    "ReplicationPad1d": (fn.ReplicationPad1d(3000), ones(1, 1, 4)),
    "GridSample": (fn.GridSample(), (ones(1, 1, 4, 4), PLACES)),
    "ConvLocal1d": (fn.ConvLocal1d(2, 3, 9, 30, initializer="ones"), ones(1000, 2, 30)),
    "CosineSimilarity": (fn.CosineSimilarity(), (ones(3, 5000), ones(3, 5000).flip(1))),
    "PairwiseDistance": (fn.PairwiseDistance(), (ones(3, 5000), ones(3, 5000).flip(1))),
    "Normalize": (fn.Normalize(), ones(3, 5000)),
    "AttentionPool": (fn.AttentionPool(4, initializer="ones"), 20 * ones(2, 500, 4)),
    "RBF": (fn.RBF(3, 2), ones(2000, 3)),
    "LearnedPositions": (fn.LearnedPositions(5, 3), ones(2000, 4, 3)),
    "weight_norm": (fn.weight_norm(fn.Linear(4, 3)), ones(3000, 4)),
    "spectral_norm": (fn.spectral_norm(fn.Linear(300, 200)), ones(500, 300)),
}


def results(layer: fn.Layer, params: Any, x: Any, gy: Tensor) -> dict[str, Tensor]:
    """Return y and all gradients by path."""
    y, cache = run(layer, params, x, 0)
    gparams, gx = layer.vjp(params, cache, gy)
    return tree.names({"y": y, "params": gparams, "x": gx})


@pytest.mark.parametrize("half", HALVES, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_a_sum_of_many_is_rounded_once(name: str, half: torch.dtype) -> None:
    """Every element of y and of the gradients is right to two ulps of the largest of its leaf; gy has one sign."""
    layer, x = LAYERS[name]
    params, x = tree.cast((layer.init(0), x), half)
    gy = (random.uniform(7, run(layer, params, x, 0)[0].shape) + 0.5).to(half)
    got, want = results(layer, params, x, gy), results(layer, *tree.cast((params, x, gy), torch.float64))
    ulps = {path: worst(got[path], leaf) for path, leaf in want.items() if leaf.is_floating_point()}
    assert {path: n for path, n in ulps.items() if not n <= 2} == {}


def worst(got: Tensor, want: Tensor) -> float:
    """Return the largest error in ulps of the largest number; subnormal numbers count with the smallest normal ulp."""
    info = torch.finfo(got.dtype)
    largest = max(want.abs().max().item(), info.tiny)
    return (got.double() - want).abs().max().item() / (info.eps * largest)


def test_a_sum_rounded_at_each_step_would_be_found() -> None:
    """Rounding after each of 2000 additions gives far more than two ulps."""
    terms, total = ones(2000).to(torch.bfloat16), torch.zeros((), dtype=torch.bfloat16)
    for term in terms:
        total = total + term
    assert worst(total, terms.double().sum()) > 10
