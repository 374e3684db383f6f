"""Margin losses compared with torch.nn's or with formulas and autograd; their kinks, their limits, and the errors."""

import math

import pytest
import torch
from drawn import F64, REDUCTIONS, assert_as_torch, assert_derived, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twins import twin_of

import funcnet as fn
from funcnet import random

quick = settings(deadline=None, max_examples=40)
SEEDS = st.integers(0, 2**20)
SHARED = st.sampled_from(["mean", "sum", "none"])
ROWS = st.sampled_from([(), (1,), (4,)])


def signs(seed, *shape):
    return random.randint(seed, shape, 0, 2) * 2 - 1


def listed(seed, *shape):
    """Draw labels, with duplicates, that end at a -1."""
    return random.randint(seed, shape, -1, shape[-1])


@twin_of("MultiMarginLoss")
@quick
@given(
    rows=ROWS,
    classes=st.integers(1, 4),
    p=st.sampled_from([1, 2]),
    margin=st.floats(-1, 3),
    is_weighted=st.booleans(),
    reduction=SHARED,
    seed=SEEDS,
)
def test_multi_margin_is_torchs(rows, classes, p, margin, is_weighted, reduction, seed):
    """Every option agrees, including a single row."""
    weight = tuple(random.uniform(seed, (classes,), dtype=F64).tolist()) if is_weighted else None
    module = nn.MultiMarginLoss(p, margin, torch.tensor(weight, dtype=F64) if weight else None, reduction=reduction)
    labels = random.randint(seed + 1, rows, 0, classes)
    assert_as_torch(fn.MultiMargin(p, margin, weight, reduction), module, normal(seed, *rows, classes), labels)


@twin_of("MultiLabelMarginLoss")
@quick
@given(rows=ROWS, classes=st.integers(1, 5), reduction=SHARED, seed=SEEDS)
def test_multi_label_margin_is_torchs(rows, classes, reduction, seed):
    """Labels before a -1 may repeat; the kernel agrees, and the formula under vmap too."""
    loss, y, labels = fn.MultiLabelMargin(reduction), normal(seed, *rows, classes), listed(seed + 1, *rows, classes)
    assert_as_torch(loss, nn.MultiLabelMarginLoss(reduction=reduction), y, labels)
    mapped = torch.func.vmap(loss.value_and_grad)(torch.stack([y, -y]), torch.stack([labels, labels]))
    alone = [loss.value_and_grad(one, labels) for one in (y, -y)]
    torch.testing.assert_close(mapped, tuple(map(torch.stack, zip(*alone, strict=True))))


@twin_of("MarginRankingLoss")
@quick
@given(
    shape=st.lists(st.integers(1, 3), max_size=3), margin=st.floats(-1, 3), reduction=SHARED, floating=st.booleans(), seed=SEEDS
)
def test_margin_ranking_is_torchs(shape, margin, reduction, floating, seed):
    """Shapes are arbitrary, and the target has integers or factors."""
    y, target = (normal(seed, *shape), normal(seed + 1, *shape)), normal(seed + 2, *shape) if floating else signs(seed, *shape)
    assert_as_torch(fn.MarginRanking(margin, reduction), nn.MarginRankingLoss(margin, reduction=reduction), y, target)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@quick
@given(shape=st.lists(st.integers(1, 3), min_size=1, max_size=3), margin=st.floats(0, 2), floating=st.booleans(), seed=SEEDS)
def test_hinge_is_its_formula(reduction, shape, margin, floating, seed):
    """Value and both gradients agree; a margin of 0 gives the perceptron's."""
    y, target = normal(seed, *shape), normal(seed + 1, *shape) if floating else signs(seed, *shape)
    assert_derived(fn.Hinge(reduction, margin), lambda y, t: torch.clamp_min(margin - t * y, 0), y, target)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@quick
@given(n=st.integers(1, 4), classes=st.integers(1, 4), margin=st.floats(0, 2), seed=SEEDS)
def test_multiclass_hinge_is_its_formula(reduction, n, classes, margin, seed):
    """The terms are the largest margin over the classes except the label, at least 0."""
    y, labels = normal(seed, n, classes), random.randint(seed + 1, (n,), 0, classes)
    one_hot = nn.functional.one_hot(labels, classes).double()

    def formula(y, _):
        return (y + margin * (1 - one_hot)).amax(-1) - (y * one_hot).sum(-1)

    assert_derived(fn.MulticlassHinge(margin, reduction), formula, y, labels)


def test_slopes_at_the_kinks_are_torchs():
    """With ``clamp_min`` the slope is that inside, with torch's loops that outside; between equal classes it is the mean."""
    zero, one = torch.zeros(1), torch.ones(1)
    assert fn.Hinge().value_and_grad(one, one)[1].tolist() == [-1.0]
    assert fn.Hinge(margin=0.0).value_and_grad(zero, -one)[1].tolist() == [1.0]
    assert [g.tolist() for g in fn.MarginRanking().value_and_grad((one, one), one)[1]] == [[-1.0], [1.0]]
    assert fn.MultiMargin().value_and_grad(torch.tensor([1.0, 0.0]), torch.tensor(0))[1].tolist() == [0.0, 0.0]
    assert fn.MultiLabelMargin().value_and_grad(torch.tensor([1.0, 0.0]), torch.tensor([0, -1]))[1].tolist() == [0.0, 0.0]
    assert fn.MulticlassHinge(0.0).value_and_grad(torch.zeros(2), torch.tensor(0))[1].tolist() == [-0.5, 0.5]


@pytest.mark.parametrize("loss", [fn.MultiMargin(), fn.MulticlassHinge()], ids=str)
def test_infinite_scores_have_their_limits(loss):
    """Infinite scores cost nothing on the right side and ∞ on the wrong one, with finite gradients."""
    y = torch.tensor([math.inf, 0.0, -math.inf])
    assert loss.value_and_grad(y, torch.tensor(0))[0] == 0
    value, gy = loss.value_and_grad(y, torch.tensor(1))
    assert value == math.inf
    assert gy.isfinite().all()
    assert gy[0] > 0 > gy[1]


LOSSES = [
    (fn.Hinge(), normal(1, 6), signs(2, 6)),
    (fn.MarginRanking(0.5), (normal(1, 6), normal(2, 6)), signs(3, 6)),
    (fn.MultiMargin(2, weight=(0.5, 2.0, 1.0)), normal(1, 6, 3), torch.arange(6) % 3),
    (fn.MulticlassHinge(), normal(1, 6, 3), torch.arange(6) % 3),
    (fn.MultiLabelMargin(), normal(1, 6, 3), listed(2, 6, 3)),
]
each = pytest.mark.parametrize(("loss", "y", "target"), LOSSES, ids=[str(loss) for loss, _, _ in LOSSES])


@each
def test_a_mean_over_batches_is_that_of_all_rows(loss, y, target):
    """Batches of 4 and 2 rows are weighted by ``weight_of``."""
    for reduction in ("mean", "batch"):
        one = loss.replace(reduction=reduction)
        parts = [(fn.tree.map(lambda leaf, at=at: leaf[at], (y, target))) for at in (slice(4), slice(4, 6))]
        weights = [one.weight_of(part[1]) for part in parts]
        values = [one(*part) for part in parts]
        mean = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
        torch.testing.assert_close(mean, one(y, target))


@each
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_rounded_once(loss, y, target, half):
    """Value and gradient are those in float32 of the same numbers, rounded."""
    y = fn.tree.cast(y, half)
    got, want = loss.value_and_grad(y, target), loss.value_and_grad(fn.tree.cast(y, torch.float32), target)
    torch.testing.assert_close(got, fn.tree.cast(want, half), rtol=0, atol=0)


@each
def test_nan_is_not_hidden(loss, y, target):
    """Torch's kernel for several labels hides a NaN in a class that is no label."""
    nan = fn.tree.map(lambda leaf: leaf.clone().index_fill(0, torch.tensor([0]), math.nan), y)
    assert loss(nan, target).isnan()


Y, T = torch.zeros(2, 3), torch.tensor([0, 1])
ONES = torch.ones(2, dtype=torch.int64)
MESSAGES = {
    "Hinge(): target must hold -1 and 1, got numbers from 0 to 1": lambda: fn.Hinge()(Y[:, 0], T),
    "Hinge(): target must hold -1 and 1, got torch.bool": lambda: fn.Hinge()(Y[:, 0], T > 0),
    "Hinge(): target must have the shape of y, (2, 3), got shape (2,)": lambda: fn.Hinge()(Y, ONES),
    "Hinge(): target must have the dtype of y, torch.float32, or hold integers or booleans, got torch.float64": lambda: fn.Hinge()(Y, Y.double()),
    "Hinge: reduction must be one of 'mean', 'sum', 'none', 'batch', got 1.0": lambda: fn.Hinge(1.0),
    "MarginRanking(): y must be (x1, x2), dense floating tensors, got a tensor of shape (2, 3)": lambda: fn.MarginRanking()(Y, T),
    "MarginRanking(): x1, x2 must have the same shape, dtype and device, got a tensor of shape (2,)": lambda: fn.MarginRanking()((Y[:, 0], Y), T),
    "MarginRanking(): target must hold -1 and 1, got numbers from 0 to 0": lambda: fn.MarginRanking()((Y, Y), Y),
    "MultiMargin(): every label must be from 0 to 2, got 3": lambda: fn.MultiMargin()(Y, T + 2),
    "MultiMargin(): every label must be from 0 to 2, got -1": lambda: fn.MultiMargin()(Y, T - 1),
    "MultiMargin(): target must be integer labels of shape (2,), got a tensor of shape (2, 3)": lambda: fn.MultiMargin()(Y, Y.long()),
    "MultiMargin(): target must be integer labels of shape (2,), got a tensor of shape (2,) and dtype torch.float32": lambda: fn.MultiMargin()(Y, T.float()),
    "MultiMargin(): y must be a dense floating tensor with the axes (N, classes) or (classes,), got a tensor of shape (1, 2, 3)": lambda: fn.MultiMargin()(Y[None], T[None]),
    "MultiMargin(weight=(1.0, 2.0)): the last axis of y must have the size of weight, 2, got y of shape (2, 3)": lambda: fn.MultiMargin(weight=(1.0, 2.0))(Y, T),
    "MultiMargin: p must be 1 or 2, got 3": lambda: fn.MultiMargin(3),
    "MulticlassHinge(): every label must be from 0 to 2, got 3": lambda: fn.MulticlassHinge()(Y, T + 2),
    "MultiLabelMargin(): every label must be from 0 to 2, or -1 after the last, got numbers from 0 to 3": lambda: fn.MultiLabelMargin()(Y, T[:, None].expand(2, 3) * 3),
    "MultiLabelMargin(): target must be integer labels of shape (2, 3), got a tensor of shape (2,)": lambda: fn.MultiLabelMargin()(Y, T),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the loss, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
