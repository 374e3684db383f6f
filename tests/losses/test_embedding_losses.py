"""Losses of embeddings compared with torch.nn's or with formulas and autograd; equal and zero vectors, and the errors."""

import math

import pytest
import torch
from drawn import F64, REDUCTIONS, assert_as_torch, assert_derived, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy
from twins import twin_of

import funcnet as fn
from funcnet import random

quick = settings(deadline=None, max_examples=40)
SEEDS = st.integers(0, 2**20)
SHARED = st.sampled_from(["mean", "sum", "none"])
ROWS = st.sampled_from([(), (1,), (4,)])
MINUS_COSINE = fn.serial(fn.CosineSimilarity(), fn.Rescale(-1.0))
DISTANCES = {
    fn.PairwiseDistance(1.0): nn.PairwiseDistance(1.0),
    MINUS_COSINE: lambda a, b: 1 - cosine_similarity(a, b),
}


def several(count, seed, *shape):
    return tuple([normal(seed + i, *shape) for i in range(count)])


@twin_of("CosineEmbeddingLoss")
@quick
@given(rows=ROWS, features=st.integers(1, 4), margin=st.floats(-1, 1), reduction=SHARED, seed=SEEDS)
def test_cosine_embedding_is_torchs(rows, features, margin, reduction, seed):
    """Both signs are tried, including a single pair."""
    target = random.randint(seed, rows, 0, 2) * 2 - 1
    y = several(2, seed, *rows, features)
    assert_as_torch(fn.CosineEmbedding(margin, reduction), nn.CosineEmbeddingLoss(margin, reduction=reduction), y, target)


@twin_of("TripletMarginLoss")
@quick
@given(
    rows=ROWS,
    features=st.integers(1, 4),
    margin=st.floats(0.1, 3),
    p=st.sampled_from([1.0, 2.0, 3.5, math.inf]),
    eps=st.sampled_from([0.0, 1e-6, 0.1]),
    swap=st.booleans(),
    reduction=SHARED,
    seed=SEEDS,
)
def test_triplet_margin_is_torchs(rows, features, margin, p, eps, swap, reduction, seed):
    """Every option agrees, including a single triplet."""
    options = {"margin": margin, "p": p, "eps": eps, "swap": swap, "reduction": reduction}
    assert_as_torch(fn.TripletMargin(**options), nn.TripletMarginLoss(**options), several(3, seed, *rows, features), None)


@twin_of("TripletMarginWithDistanceLoss")
@quick
@given(
    n=st.integers(1, 4),
    distance=st.sampled_from([*DISTANCES]),
    margin=st.floats(0.1, 3),
    swap=st.booleans(),
    reduction=SHARED,
    seed=SEEDS,
)
def test_triplet_margin_with_a_distance_is_torchs(n, distance, margin, swap, reduction, seed):
    """The distance is a layer, or layers in series, whose vjp gives the gradients."""
    options = {"margin": margin, "swap": swap, "reduction": reduction}
    module = nn.TripletMarginWithDistanceLoss(distance_function=DISTANCES[distance], **options)
    assert_as_torch(fn.TripletMarginWithDistance(distance, **options), module, several(3, seed, n, 3), None)


def test_the_distance_is_by_default_that_of_triplet_margin():
    """The default distance is the p-norm with p = 2."""
    y = several(3, 1, 4, 3)
    want = fn.TripletMargin().value_and_grad(y, None)
    torch.testing.assert_close(fn.TripletMarginWithDistance().value_and_grad(y, None), want, rtol=0, atol=0)


def test_the_layer_of_a_distance_is_reached():
    """``walk`` and ``map_layers`` find the distance in the loss as a layer."""
    layer = fn.TripletMarginWithDistance(MINUS_COSINE).as_layer()
    assert [name for name, _ in fn.walk(layer)][:2] == ["", "distance_function"]
    other = fn.map_layers(lambda one: fn.Rescale(-2.0) if one == fn.Rescale(-1.0) else one, layer)
    assert other.loss.distance_function == fn.serial(fn.CosineSimilarity(), fn.Rescale(-2.0))


def normalize(u):
    """Divide rows by their length as the losses define it, which is not 0 for a row of zeros."""
    return u / ((u * u).sum(-1, keepdim=True) + 1e-16).sqrt()


def by_cosines(temperature, symmetric):
    """Compute InfoNCE's terms with torch functions."""

    def terms(y):
        s = normalize(y[0]) @ normalize(y[1]).T / temperature
        own = torch.arange(len(s))
        one = cross_entropy(s, own, reduction="none")
        return (one + cross_entropy(s.T, own, reduction="none")) / 2 if symmetric else one

    return lambda y, _: terms(y)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@quick
@given(n=st.integers(1, 5), features=st.integers(1, 4), temperature=st.floats(0.05, 2), symmetric=st.booleans(), seed=SEEDS)
def test_info_nce_is_the_cross_entropy_of_cosines(reduction, n, features, temperature, symmetric, seed):
    """One direction and both are tried."""
    loss = fn.InfoNCE(temperature, symmetric, reduction)
    assert_derived(loss, by_cosines(temperature, symmetric), several(2, seed, n, features), None)


@quick
@given(n=st.integers(1, 6), classes=st.integers(1, 3), temperature=st.floats(0.05, 2), seed=SEEDS)
def test_ntxent_is_the_mean_over_pairs_of_one_label(n, classes, temperature, seed):
    """The reference is written pair by pair; the mean of no pairs is 0."""
    x, labels = normal(seed, n, 3), random.randint(seed + 1, (n,), 0, classes)

    def total(x, labels):
        s = (normalize(x) @ normalize(x).T / temperature).exp()
        other = labels != labels[:, None]
        pairs = [(i, j) for i in range(n) for j in range(n) if i != j and labels[i] == labels[j]]
        return -sum([(s[i, j] / (s[i, j] + s[i][other[i]].sum())).log() for i, j in pairs], (0 * s).sum())

    assert_derived(fn.NTXent(temperature, "sum"), total, x, labels)
    count = (labels == labels[:, None]).sum() - n
    value, gy = fn.NTXent(temperature).value_and_grad(x, labels)
    whole, of_whole = fn.NTXent(temperature, "sum").value_and_grad(x, labels)
    torch.testing.assert_close((value, gy), (whole / count.clamp_min(1), of_whole / count.clamp_min(1)))


def test_equal_examples_have_no_slope():
    """The gradient at distance 0 is 0 for every p; torch's is NaN for p between 1 and 2."""
    a, far = torch.ones(1, 3), torch.zeros(1, 3)
    for p in (1.0, 1.5, 2.0, 3.0, math.inf):
        value, (_, gb, gc) = fn.TripletMargin(9.0, p, 0.0).value_and_grad((a, a, far), None)
        assert value.isfinite()
        assert (gb == 0).all()
        assert gc.isfinite().all()


@pytest.mark.parametrize("loss", [fn.CosineEmbedding(-0.5), fn.InfoNCE(), fn.InfoNCE(symmetric=True)], ids=str)
def test_zero_vectors_have_finite_gradients(loss):
    """Their cosines and their part in the gradients of others are 0."""
    u = torch.stack([torch.zeros(3), torch.ones(3)])
    target = torch.tensor([1, -1]) if isinstance(loss, fn.CosineEmbedding) else None
    value, (gu, gv) = loss.value_and_grad((u, u.flip(0)), target)
    assert value.isfinite()
    assert gu.isfinite().all()
    assert gv.isfinite().all()


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1e25])
@pytest.mark.parametrize("loss", [fn.CosineEmbedding(), fn.InfoNCE(), fn.NTXent(), fn.TripletMargin()], ids=str)
def test_float32_is_exact_although_squares_overflow_or_underflow(loss, scale):
    """The value matches float64, and the gradient has the digits of float32, for tiny and for huge vectors."""
    y = several(3 if isinstance(loss, fn.TripletMargin) else 2, 1, 4, 3)
    y, target = (y[0], torch.tensor([0, 1, 0, 1])) if isinstance(loss, fn.NTXent) else (y, None)
    target = torch.tensor([1, -1, 1, -1]) if isinstance(loss, fn.CosineEmbedding) else target
    y = fn.tree.map(lambda leaf: (leaf * scale).float(), y)
    want = loss.value_and_grad(fn.tree.cast(y, F64), target)
    got = loss.value_and_grad(y, target)
    largest = max(leaf.abs().max().item() for leaf in fn.tree.leaves(want[1]))
    torch.testing.assert_close(got[0].double(), want[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(fn.tree.cast(got[1], F64), want[1], rtol=1e-4, atol=1e-5 * largest)


def test_half_precision_is_rounded_once():
    """Distances and cosines of bfloat16 are computed in float32: the gradients match float32's, rounded."""
    y = fn.tree.cast(several(3, 1, 4, 3), torch.bfloat16)
    signs = torch.tensor([1, -1, 1, -1])
    for loss, y, target in [  # noqa: B020
        (fn.TripletMargin(swap=True), y, None),
        (fn.TripletMarginWithDistance(MINUS_COSINE), y, None),
        (fn.CosineEmbedding(), y[:2], signs),
        (fn.InfoNCE(symmetric=True), y[:2], None),
        (fn.NTXent(), y[0], signs),
    ]:
        want = loss.value_and_grad(fn.tree.cast(y, torch.float32), target)
        torch.testing.assert_close(loss.value_and_grad(y, target), fn.tree.cast(want, torch.bfloat16), rtol=0, atol=0)


def test_only_the_sign_of_a_floating_target_counts():
    """torch.nn takes floating-point targets too."""
    y, signs = several(2, 1, 4, 3), torch.tensor([1, -1, 1, -1])
    want = fn.CosineEmbedding().value_and_grad(y, signs)
    torch.testing.assert_close(fn.CosineEmbedding().value_and_grad(y, signs.float()), want, rtol=0, atol=0)


U = torch.ones(2, 3)
MESSAGES = {
    "CosineEmbedding(): target must hold -1 and 1, got numbers from 0 to 1": lambda: fn.CosineEmbedding()((U, U), torch.tensor([0.0, 1.0])),
    "CosineEmbedding(): target must be a tensor of shape (2,), got a tensor of shape (2, 3)": lambda: fn.CosineEmbedding()((U, U), U),
    "CosineEmbedding(): y must be (u, v), dense floating tensors, got a tuple of 3": lambda: fn.CosineEmbedding()((U, U, U), U[:, 0]),
    "CosineEmbedding(): u and v must have an axis of features, got a tensor of shape ()": lambda: fn.CosineEmbedding()((U[0, 0], U[0, 0]), U[0, 0]),
    "TripletMargin(): y must be (anchor, positive, negative), dense floating tensors, got a tuple of 2": lambda: fn.TripletMargin()((U, U), None),
    "TripletMargin(): anchor, positive, negative must have the same shape, dtype and device, got": lambda: fn.TripletMargin()((U, U, U[:1]), None),
    "TripletMargin(): target must be None, got a tensor of shape (2, 3)": lambda: fn.TripletMargin()((U, U, U), U),
    "TripletMargin: margin must be a finite number above 0, got 0": lambda: fn.TripletMargin(0),
    "TripletMarginWithDistance: distance_function must be a layer on a pair, got the class PairwiseDistance": lambda: fn.TripletMarginWithDistance(fn.PairwiseDistance),
    "TripletMarginWithDistance: distance_function must not need a key, got Dropout()": lambda: fn.TripletMarginWithDistance(fn.Dropout()),
    "CauchySimilarity(in_features=3): params must be a dict of weight (3,), got": lambda: fn.TripletMarginWithDistance(fn.CauchySimilarity(3))((U, U, U), None),
    "InfoNCE(): queries, keys must have the same shape, dtype and device, got": lambda: fn.InfoNCE()((U, U.double()), None),
    "InfoNCE(): queries and keys must have the axes (N, features), got a tensor of shape (3,)": lambda: fn.InfoNCE()((U[0], U[0]), None),
    "InfoNCE: temperature must be a finite number above 0, got 0.0": lambda: fn.InfoNCE(0.0),
    "NTXent(): target must be integer labels of shape (2,), got a tensor of shape (2,) and dtype torch.float32": lambda: fn.NTXent()(U, U[:, 0]),
    "NTXent(): y must have the axes (N, features), got a tensor of shape (3,)": lambda: fn.NTXent()(U[0], torch.tensor([0, 1, 0])),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the loss, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)


def test_an_error_in_the_distance_says_where():
    """The layer raises the error, and a note names the loss."""
    with pytest.raises(ValueError, match="Flatten") as caught:
        fn.TripletMarginWithDistance(fn.Flatten())((U, U, U), None)
    assert caught.value.__notes__ == ["  in TripletMarginWithDistance, distance_function"]


@pytest.mark.parametrize("loss", [fn.InfoNCE(0.5, True), fn.NTXent(0.5)], ids=str)
def test_a_row_without_weight_still_has_the_gradient_of_others(loss):
    """The row is a negative example for others: autograd gives the same gradients of the weighted loss."""
    y, target = (
        (several(2, 1, 4, 3), None) if isinstance(loss, fn.InfoNCE) else (several(1, 1, 4, 3)[0], torch.tensor([0, 1, 0, 1]))
    )
    w = torch.tensor([1.0, 0.0, 2.0, 1.0], dtype=F64)
    _, gy = fn.weighted(loss).value_and_grad(y, (target, w))
    leaves = fn.tree.map(lambda leaf: leaf.clone().requires_grad_(), y)
    terms = loss.replace(reduction="none")(leaves, target)
    want = torch.autograd.grad((w * terms).sum() / w.sum(), fn.tree.leaves(leaves))
    torch.testing.assert_close(fn.tree.leaves(gy), list(want))
