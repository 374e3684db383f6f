"""Norms, lengths, spreads and powers of numbers whose squares overflow or underflow float32, against float64; and of zeros."""

import pytest
import torch
from torch import Tensor

import funcnet as fn
from funcnet import random, tree

HALVES = (torch.bfloat16, torch.float16)
X = random.normal(0, (6, 4, 8, 8))
ROWS = X.reshape(6, -1)
SCALES = (1e-30, 1e-20, 1e14, 1e20, 1e30, 2e37)

LAYERS = {
    "BatchNorm1d": (fn.BatchNorm1d(4), X[..., 0]),
    "BatchNorm2d": (fn.BatchNorm2d(4), X),
    "BatchNorm2d without statistics": (fn.BatchNorm2d(4, affine=False, track_running_stats=False), X),
    "BatchNorm2d, mean of all batches": (fn.BatchNorm2d(4, momentum=None), X),
    "LayerNorm": (fn.LayerNorm(8), X),
    "LayerNorm not affine": (fn.LayerNorm((8, 8), elementwise_affine=False), X),
    "RMSNorm": (fn.RMSNorm(8, eps=1e-6), X),
    "RMSNorm not affine": (fn.RMSNorm(8, eps=1e-6, elementwise_affine=False), X),
    "GroupNorm": (fn.GroupNorm(2, 4), X),
    "GroupNorm, channels last": (fn.GroupNorm(2, 4), X.to(memory_format=torch.channels_last)),
    "InstanceNorm2d": (fn.InstanceNorm2d(4, affine=True, track_running_stats=True), X),
    "LocalResponseNorm": (fn.LocalResponseNorm(3, beta=0.25), X),
    "CrossMapLRN2d": (fn.CrossMapLRN2d(3, beta=0.5), X),
    "Standardize": (fn.Standardize(), X),
    "Normalize": (fn.Normalize(), X),
    "Normalize of p 3": (fn.Normalize(3.0, eps=1e-36), X),
    "Normalize of p 0.5": (fn.Normalize(0.5), X),
    "Normalize of p -2": (fn.Normalize(-2.0, eps=1e-36), X),
    "Std": (fn.Std(-1), X),
    "LPPool2d": (fn.LPPool2d(2, 4), X),
    "LPPool2d of p 6": (fn.LPPool2d(6, 2, 1), X),
    "CosineSimilarity": (fn.CosineSimilarity(eps=1e-36), (ROWS, ROWS.flip(0))),
    "PairwiseDistance": (fn.PairwiseDistance(eps=0.0), (ROWS[:, :20], ROWS[:, :20].flip(0))),
    "PairwiseDistance of p 3": (fn.PairwiseDistance(3.0, eps=0.0), (ROWS[:, :9], ROWS[:, :9].flip(0))),
}


def results(layer: fn.Layer, params: object, x: object, gy: Tensor) -> dict[str, Tensor]:
    """Return y and the gradients by path."""
    y, cache = layer.apply(params, x)
    return tree.names({"y": y, "gradients": layer.vjp(params, cache, gy)})


def assert_as_in_double(layer: fn.Layer, x: object) -> None:
    """Compare values and gradients in float32 with those in float64, to 8 ulps of the largest."""
    params = layer.init(0)
    gy = random.normal(1, layer(params, x).shape)
    got = results(layer, params, x, gy)
    want = results(layer, *tree.cast((params, x, gy), torch.float64))
    for path, leaf in want.items():
        ulp = max(leaf.abs().max().item() * 2**-24, 2**-149)
        assert got[path].dtype is torch.float32
        torch.testing.assert_close(
            got[path].double(), leaf, rtol=0.0, atol=16 * ulp, msg=lambda text, path=path: f"{path}: {text}"
        )


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", LAYERS)
def test_numbers_whose_squares_overflow_or_underflow_float32(name: str, scale: float) -> None:
    """A norm does not depend on the size of x, and a length is as large as x: no square may overflow."""
    layer, x = LAYERS[name]
    assert_as_in_double(layer, tree.map(lambda leaf: leaf * scale, x))


@pytest.mark.parametrize("name", LAYERS)
def test_one_row_far_out_leaves_the_others_right(name: str) -> None:
    """The rows of one batch may have very different sizes."""
    layer, x = LAYERS[name]
    scales = (
        torch.tensor([1e25, 1.0, 1.0, 1e15, 1.0, 1.0]) if layer.batch_dependent else torch.tensor([1e25, 1, 1e-3, 1e15, 1, 10])
    )
    assert_as_in_double(layer, tree.map(lambda leaf: leaf * scales.reshape(-1, *[1] * (leaf.dim() - 1)), x))


@pytest.mark.parametrize(
    "name", ["RMSNorm", "Normalize", "Standardize", "Std", "LPPool2d", "CosineSimilarity", "PairwiseDistance"]
)
def test_extreme_values_are_right_under_vmap(name: str) -> None:
    """Under ``vmap``, where no value can be read, the formula is right for all sizes."""
    layer, x = LAYERS[name]
    params, x = layer.init(0), tree.map(lambda leaf: leaf * 1e25, x)
    gy = random.normal(1, layer(params, x).shape)

    def both(x: object) -> object:
        y, cache = layer.apply(params, x)
        return y, layer.vjp(params, cache, gy)[1]

    want = both(x)
    got = torch.func.vmap(both)(tree.map(lambda leaf: leaf.unsqueeze(0), x))
    for one, other in zip(tree.leaves(got), tree.leaves(want), strict=True):
        torch.testing.assert_close(one[0], other, rtol=1e-5, atol=1e-6 * other.abs().max().item())


def test_running_statistics_of_large_numbers() -> None:
    """The mean moves as usual; a variance beyond float32 is not finite."""
    for momentum in (0.1, None):
        layer = fn.BatchNorm1d(2, momentum=momentum)
        params = layer.init(0)
        moved = layer.update_stats(params, layer.apply(params, torch.tensor([[1e20, 1e15], [3e20, 3e15]]))[1])
        rate = momentum or 1.0
        torch.testing.assert_close(moved["running_mean"], rate * torch.tensor([2e20, 2e15]))
        torch.testing.assert_close(moved["running_var"][1], torch.tensor(rate * 2e30))
        assert moved["running_var"].dtype is torch.float32
        assert not moved["running_var"][0].isfinite()


@pytest.mark.parametrize("half", HALVES, ids=str)
@pytest.mark.parametrize(
    "layer",
    [fn.Normalize(), fn.Normalize(3.0), fn.Standardize(), fn.RMSNorm(4), fn.LayerNorm(4), fn.BatchNorm1d(4), fn.GroupNorm(2, 4)],
    ids=repr,
)
def test_zeros_in_half_precision_are_zeros(layer: fn.Layer, half: torch.dtype) -> None:
    """An ε below the smallest number of float16 does not become 0."""
    params, x = tree.cast((layer.init(0), torch.zeros(3, 4)), half)
    y, cache = layer.apply(params, x)
    assert y.dtype is half
    assert not y.any()
    gx = layer.vjp(params, cache, torch.full_like(y, 1e-6))[1]
    assert gx.dtype is half
    assert not gx.isnan().any()


@pytest.mark.parametrize("half", HALVES, ids=str)
def test_zero_vectors_in_half_precision(half: torch.dtype) -> None:
    """Their cosine is 0 and their distance is ε √n; gradients are finite."""
    x = torch.zeros(2, 4, dtype=half), torch.zeros(2, 4, dtype=half)
    y, cache = fn.CosineSimilarity().apply({}, x)
    assert torch.equal(y, torch.zeros(2, dtype=half))
    assert not any(g.any() for g in fn.CosineSimilarity().vjp({}, cache, y + 1)[1])
    y, cache = fn.PairwiseDistance().apply({}, x)
    torch.testing.assert_close(y.float(), torch.full((2,), 2e-6), rtol=0.05, atol=0.0)
    torch.testing.assert_close(fn.PairwiseDistance().vjp({}, cache, y * 0 + 1)[1][0].float(), torch.full((2, 4), 0.5))


def test_the_mean_of_large_numbers_in_bfloat16_is_kept_in_single() -> None:
    """A layer norm of numbers near 300 subtracts their mean, not the bfloat16 number next to it, which is 2 away."""
    x = (300 + 4 * random.normal(0, (5, 64))).to(torch.bfloat16)
    for layer in (fn.LayerNorm(64), fn.LayerNorm(64, elementwise_affine=False)):
        params = layer.init(0)
        gy = random.normal(1, (5, 64)).to(torch.bfloat16)
        got = results(layer, tree.cast(params, torch.bfloat16), x, gy)
        want = results(layer, params, x.float(), gy.float())
        for path, leaf in want.items():
            torch.testing.assert_close(got[path].float(), leaf, rtol=0.0, atol=2**-8 * leaf.abs().max().item())


@pytest.mark.parametrize("name", LAYERS)
def test_torch_func_finds_the_gradients_of_vjp_and_finite_second_ones(name: str) -> None:
    """The inputs are around 1e20, and their squares overflow float32."""
    layer, v = LAYERS[name]
    x, params = tree.scale(v, 1e20), layer.init(0)
    y, cache = layer.apply(params, x)
    gy = random.normal(1, y.shape)
    _, pull = torch.func.vjp(lambda x: layer.apply(params, x)[0], x)
    for got, want in zip(tree.leaves(pull(gy)[0]), tree.leaves(layer.vjp(params, cache, gy)[1]), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5 * want.abs().max().item())
    _, again = torch.func.vjp(lambda x: layer.vjp(params, layer.apply(params, x)[1], gy)[1], x)
    assert tree.all_finite(again(v)[0])
