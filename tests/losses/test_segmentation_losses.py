"""Focal and Dice losses compared with formulas, some of them optax's, and autograd; certain predictions, empty masks, errors."""

import math

import pytest
import torch
from drawn import F64, REDUCTIONS, assert_derived, normal, shares
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

import funcnet as fn
from funcnet import random

quick = settings(deadline=None, max_examples=40)
SEEDS = st.integers(0, 2**20)
SHAPES = st.lists(st.integers(1, 3), min_size=1, max_size=3)
reductions = pytest.mark.parametrize("reduction", REDUCTIONS)


@reductions
@quick
@given(shape=SHAPES, alpha=st.none() | st.floats(0, 1), gamma=st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.3]), seed=SEEDS)
def test_focal_is_its_formula(reduction, shape, alpha, gamma, seed):
    """The gradients of y and of targets between 0 and 1 agree too."""

    def formula(y, t):
        known = t * torch.sigmoid(y) + (1 - t) * torch.sigmoid(-y)
        weight = 1 if alpha is None else alpha * t + (1 - alpha) * (1 - t)
        return weight * (1 - known) ** gamma * binary_cross_entropy_with_logits(y, t, reduction="none")

    assert_derived(fn.Focal(alpha, gamma, reduction), formula, normal(seed, *shape), shares(seed + 1, *shape))


@reductions
@quick
@given(
    rest=st.lists(st.integers(1, 3), max_size=2),
    gamma=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    is_weighted=st.booleans(),
    seed=SEEDS,
)
def test_multiclass_focal_is_its_formula(reduction, rest, gamma, is_weighted, seed):
    """Rows and pixels are tried, with weights and without."""
    w = random.uniform(seed, (3,), dtype=F64)
    labels = random.randint(seed + 1, (4, *rest), 0, 3)

    def formula(y, labels):
        logp = torch.log_softmax(y, 1).gather(1, labels[:, None])[:, 0]
        return -(w[labels] if is_weighted else 1) * (1 - logp.exp()) ** gamma * logp

    loss = fn.MulticlassFocal(tuple(w.tolist()) if is_weighted else None, gamma, reduction)
    assert_derived(loss, formula, normal(seed, 4, 3, *rest), labels)


def test_without_gamma_they_are_cross_entropies():
    """The binary loss and classes are tried."""
    y, t, labels = normal(1, 4, 3), shares(2, 4, 3), torch.tensor([0, 2, 1, 2])
    torch.testing.assert_close(fn.Focal(gamma=0.0).value_and_grad(y, t), fn.BCEWithLogits().value_and_grad(y, t))
    torch.testing.assert_close(
        fn.MulticlassFocal(gamma=0.0).value_and_grad(y, labels), fn.CrossEntropy().value_and_grad(y, labels)
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_certain_logits_cost_nothing_when_right(gamma):
    """When wrong they cost the size of the logit, with gradient ±1: at ±200 in float32, and at ±∞."""
    for far in (200.0, math.inf):
        y, t = torch.tensor([far, -far, -far, far]), torch.tensor([1.0, 0.0, 1.0, 0.0])
        value, gy = fn.Focal(gamma=gamma, reduction="none").value_and_grad(y, t)
        assert value.tolist() == [0.0, 0.0, far, far]
        assert gy.tolist() == [0.0, 0.0, -1.0, 1.0]
        summed = fn.Focal(gamma=gamma, reduction="sum")
        assert torch.func.grad(lambda y, loss=summed, t=t: loss(y, t))(y).tolist() == gy.tolist()
        rows = torch.tensor([[far, 0.0], [0.0, far]])
        value, gy = fn.MulticlassFocal(gamma=gamma, reduction="none").value_and_grad(rows, torch.tensor([0, 0]))
        assert value.tolist() == [0.0, far]
        assert gy.tolist() == [[0.0, 0.0], [-1.0, 1.0]]


def dice(p, t, dims, smooth, alpha, beta):
    """Return the Dice terms of probabilities by optax's formula."""
    both, of_p, of_t = (p * t).sum(dims), p.sum(dims), t.sum(dims)
    return 1 - (both + smooth) / (both + alpha * (of_p - both) + beta * (of_t - both) + smooth)


OPTIONS = {"smooth": st.sampled_from([0.0, 0.1, 1.0]), "alpha": st.floats(0.1, 1), "beta": st.floats(0.1, 1), "seed": SEEDS}


@reductions
@quick
@given(shape=st.lists(st.integers(1, 3), min_size=2, max_size=3), logits=st.booleans(), **OPTIONS)
def test_dice_is_its_formula(reduction, shape, logits, smooth, alpha, beta, seed):
    """There is one foreground class; both gradients agree."""
    loss = fn.Dice(smooth, alpha, beta, logits=logits, reduction=reduction)
    y, t = normal(seed, *shape) if logits else shares(seed, *shape), shares(seed + 1, *shape)
    dims = [*range(1, len(shape))]
    assert_derived(loss, lambda y, t: dice(torch.sigmoid(y) if logits else y, t, dims, smooth, alpha, beta), y, t)


@reductions
@quick
@given(
    rest=st.lists(st.integers(1, 3), min_size=1, max_size=2),
    logits=st.booleans(),
    is_weighted=st.booleans(),
    generalized=st.booleans(),
    ignored=st.booleans(),
    **OPTIONS,
)
def test_dice_of_classes_is_its_formula(reduction, rest, logits, is_weighted, generalized, ignored, smooth, alpha, beta, seed):
    """All options agree: weights, weights by the sizes in the batch, and no background."""
    w = random.uniform(seed, (3,), dtype=F64)
    weight = tuple(w.tolist()) if is_weighted else None
    y, t = normal(seed, 4, 3, *rest) if logits else shares(seed, 4, 3, *rest), shares(seed + 1, 4, 3, *rest)

    def formula(y, t):
        terms = dice(torch.softmax(y, 1) if logits else y, t, [*range(2, y.dim())], smooth, alpha, beta)
        u = 1 / (t.movedim(1, 0).flatten(1).sum(1) ** 2 + 1e-7)
        terms = terms * (w if is_weighted else 1) * (3 * u / u.sum() if generalized else 1)
        return terms[:, 1:] if ignored else terms

    options = {"weight": weight, "generalized": generalized, "ignore_background": ignored, "reduction": reduction}
    assert_derived(fn.Dice(smooth, alpha, beta, True, logits, **options), formula, y, t)


def test_labels_are_one_hot():
    """Labels may be integers without the axis of classes, or have the axis."""
    y, labels = normal(1, 2, 3, 4), torch.tensor([[0, 1, 2, 2], [1, 1, 0, 0]])
    want = fn.Dice(multiclass=True).value_and_grad(y, one_hot(labels, 3).movedim(-1, 1))
    torch.testing.assert_close(fn.Dice(multiclass=True).value_and_grad(y, labels), want, rtol=0, atol=0)


def test_nothing_found_where_there_is_nothing_costs_nothing():
    """Without ``smooth`` the fraction is 0 / 0, and still costs nothing; NaN stays NaN."""
    y = torch.full((1, 4), -math.inf)
    value, gy = fn.Dice(smooth=0.0).value_and_grad(y, torch.zeros(1, 4))
    assert value == 0
    assert (gy == 0).all()
    assert fn.Dice(smooth=0.0)(torch.full((1, 4), math.nan), torch.zeros(1, 4)).isnan()


def test_a_perfect_mask_of_a_million_pixels_in_half_precision():
    """The sums exceed float16, and are computed in float32."""
    t = (torch.arange(2**20) % 2).reshape(1, -1)
    value, gy = fn.Dice().value_and_grad((40.0 * t - 20).half(), t)
    assert value.dtype is gy.dtype is torch.float16
    assert value.item() == pytest.approx(0, abs=1e-6)
    half = fn.Dice().value_and_grad(torch.zeros(1, 2**20).half(), t)[0]
    assert half.item() == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("loss", [fn.Focal(0.25), fn.MulticlassFocal(), fn.Dice(multiclass=True)], ids=str)
def test_a_mean_over_batches_is_that_of_all_rows(loss):
    """Batches of 4 and 2 rows are weighted by ``weight_of``."""
    y, labels = normal(1, 6, 3, 2), random.randint(2, (6, 2), 0, 3)
    target = shares(2, 6, 3, 2) if isinstance(loss, fn.Focal) else labels
    parts = [(y[at], target[at]) for at in (slice(4), slice(4, 6))]
    weights = [loss.weight_of(part[1]) for part in parts]
    mean = sum(w * loss(*part) for w, part in zip(weights, parts, strict=True)) / sum(weights)
    torch.testing.assert_close(mean, loss(y, target))


def test_cross_entropy_is_the_softmax_loss_of_rankings():
    """``optax.ranking_softmax_loss``: the relevance of the items in a list is a target that need not sum to 1."""
    scores, relevance = normal(1, 4, 5), shares(2, 4, 5) * 3
    want = -(relevance * torch.log_softmax(scores, 1)).sum(1).mean()
    torch.testing.assert_close(fn.CrossEntropy()(scores, relevance), want)


Y, T = torch.zeros(2, 3, 4), torch.zeros(2, 4, dtype=torch.int64)
MESSAGES = {
    "Focal: alpha must be a number from 0 to 1, or None, got 2": lambda: fn.Focal(2),
    "Focal(): target must have the shape of y, (2, 3, 4), got shape (2, 4)": lambda: fn.Focal()(Y, T),
    "MulticlassFocal(): every label must be from 0 to 2, got 3": lambda: fn.MulticlassFocal()(Y, T + 3),
    "MulticlassFocal(): target must be integer labels of shape (2, 4), got a tensor of shape (2, 3, 4)": lambda: fn.MulticlassFocal()(Y, Y),
    "MulticlassFocal(weight=(1.0, 2.0)): y must have one class for each weight, 2, got y of shape (2, 3, 4)": lambda: fn.MulticlassFocal((1.0, 2.0))(Y, T),
    "MulticlassFocal(): y must be a dense floating tensor with the axes (N, classes, ...) or (classes,), got": lambda: fn.MulticlassFocal()(Y[0, 0, 0], T[0, 0]),
    "Dice(): y must be a dense floating tensor with the axes (N, ...), with an axis of pixels, got": lambda: fn.Dice()(Y[0, 0], Y[0, 0]),
    "Dice(multiclass=True): y must be a dense floating tensor with the axes (N, classes, ...), with an axis of pixels, got": lambda: fn.Dice(multiclass=True)(Y[0], T[0]),
    "Dice(multiclass=True): every label must be from 0 to 2, got 3": lambda: fn.Dice(multiclass=True)(Y, T + 3),
    "Dice(multiclass=True): target must be integer labels of shape (2, 4), got a tensor of shape (2,)": lambda: fn.Dice(multiclass=True)(Y, T[:, 0]),
    "Dice(): target must have the shape of y, (2, 3, 4), got shape (2, 4)": lambda: fn.Dice()(Y, T),
    "Dice(multiclass=True, weight=(1.0,)): y must have one class for each weight, 1, got y of shape (2, 3, 4)": lambda: fn.Dice(multiclass=True, weight=(1.0,))(Y, T),
    "Dice: weight needs multiclass=True, got weight=(1.0,), multiclass=False": lambda: fn.Dice(weight=(1.0,)),
    "Dice: generalized needs multiclass=True, got generalized=True, multiclass=False": lambda: fn.Dice(generalized=True),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the loss, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
