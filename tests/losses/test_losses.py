"""Losses compared with torch.nn's and autograd, and their limits."""

import math

import pytest
import torch
from drawn import ELEMENTWISE, F64, INF, NAN, REDUCTIONS, assert_agrees, assert_loss_twins, by_layer, by_torch, normal, shares
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twins import twin_of

from funcnet import random
from funcnet.losses.binary import BCE, BCEWithLogits
from funcnet.losses.classification import CrossEntropy
from funcnet.losses.regression import L1, L2, MSE

quick = settings(deadline=None, max_examples=40)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", ELEMENTWISE)
@quick
@given(leading=st.lists(st.integers(1, 4), min_size=1, max_size=3), seed=st.integers(0, 2**30))
def test_elementwise_losses_are_torchs(name, reduction, leading, seed):
    """Value, gy and gtarget match torch.nn and autograd, in float64, for any shape."""
    ours, theirs, draw_y, draw_target = ELEMENTWISE[name]
    shape = (*leading, 3)
    y, target = draw_y(2 * seed, *shape), draw_target(2 * seed + 1, *shape)
    assert_agrees(ours(reduction), lambda reduction: theirs(reduction=reduction), y, target)


@twin_of("{kind}")
@pytest.mark.parametrize("kind", ["MSELoss", "L1Loss", "BCELoss", "BCEWithLogitsLoss"])
@quick
@given(
    reduction=st.sampled_from(["mean", "sum", "none"]),
    shape=st.lists(st.integers(1, 4), max_size=3),
    weight=st.sampled_from([None, 2.5, 0.0]),
    seed=st.integers(0, 99),
)
def test_an_elementwise_loss_agrees_with_its_twin(kind, reduction, shape, weight, seed):
    """As a layer on (y, target) it has the same value and gradients, for any shape, including one number."""
    ours, theirs, draw_y, draw_target = ELEMENTWISE[kind.removesuffix("Loss")]
    weighted = weight is not None and ours is BCEWithLogits
    module = theirs(reduction=reduction, **({"pos_weight": torch.tensor(weight)} if weighted else {}))
    loss = ours(reduction, **({"pos_weight": weight} if weighted else {}))
    assert_loss_twins(loss, module, draw_y(2 * seed, *shape), draw_target(2 * seed + 1, *shape))


@pytest.mark.parametrize("name", ["MSE", "L1", "L2", "BCE", "BCEWithLogits"])
def test_one_number_is_a_loss_too(name):
    """A 0-d y and target have torch's value and gradients."""
    ours, theirs, _, _ = ELEMENTWISE[name]
    y, target = torch.tensor(0.25, dtype=F64), torch.tensor(0.75, dtype=F64)
    assert_agrees(ours("mean"), lambda reduction: theirs(reduction=reduction), y, target)
    torch.testing.assert_close(ours("batch").value_and_grad(y, target), ours("sum").value_and_grad(y, target))


@pytest.mark.parametrize("name", ["MSE", "L1", "L2", "BCE", "BCEWithLogits"])
def test_a_vector_is_a_batch_of_numbers(name):
    """The only axis of y is the batch, and "batch" equals the mean."""
    ours, _, draw_y, draw_target = ELEMENTWISE[name]
    y, target = draw_y(1, 5), draw_target(2, 5)
    torch.testing.assert_close(ours("batch").value_and_grad(y, target), ours("mean").value_and_grad(y, target))


@pytest.mark.parametrize("name", ["MSE", "L1", "L2", "BCEWithLogits"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_integers_and_booleans_are_targets_without_gradient(name, dtype):
    """The targets are converted to numbers, and their gradient is None."""
    loss = ELEMENTWISE[name][0]("mean")
    y, target = normal(1, 4, 3), shares(2, 4, 3) > 0.5
    value, gy, gtarget = by_layer(loss, y, target.to(dtype), torch.tensor(0.7, dtype=F64))
    torch.testing.assert_close((value, gy), by_layer(loss, y, target.double(), torch.tensor(0.7, dtype=F64))[:2])
    assert gtarget is None


def test_the_edges_of_probability_are_torchs_or_limits():
    """BCE at y = 0 and 1 has torch's clamped values and slopes, but limits if y = t; the target's slopes use clamped logs."""
    y, target = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=F64), torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=F64)
    value, g, gy, _ = by_torch(lambda reduction: nn.BCELoss(reduction=reduction), "none", y, target)
    got = by_layer(BCE("none"), y, target, g)
    gy = torch.where(y == target, g * (1 - 2 * y), gy)
    # torch's 1e-12 is a float32
    torch.testing.assert_close(got, (value, gy, g * torch.tensor([100, 100, -100, -100])), rtol=1e-8, atol=0)


# Cross-entropy


@st.composite
def cross_entropies(draw, soft: bool):
    """Draw a loss with any options, torch's loss, logits of shape (N, C, ...) or (C,), and a target."""
    classes, inner = draw(st.integers(2, 5)), draw(st.lists(st.integers(1, 3), max_size=3))
    shape = draw(st.sampled_from([(classes,), (draw(st.integers(1, 5)), classes, *inner)]))
    seed, reduction = draw(st.integers(0, 2**30)), draw(st.sampled_from(REDUCTIONS))
    weight = draw(st.sampled_from([None, tuple((shares(seed + 1, classes) + 0.1).tolist())]))
    smoothing = draw(st.sampled_from([0.0, 0.1, 1.0]))
    labels = random.bits(seed + 2, shape[: 1 if len(shape) > 1 else 0] + shape[2:]).remainder(classes)
    # the first row is never ignored, since torch's mean over no rows is NaN
    ignored = draw(st.sampled_from([-100, (int(labels.reshape(-1)[0]) + 1) % classes]))
    ignore = -100 if soft else ignored

    def theirs(reduction: str) -> nn.Module:
        tensor = None if weight is None else torch.tensor(weight, dtype=F64)
        return nn.CrossEntropyLoss(tensor, reduction=reduction, ignore_index=ignore, label_smoothing=smoothing)

    target = shares(seed + 3, *shape) if soft else labels
    return CrossEntropy(weight, ignore, reduction, smoothing), theirs, normal(seed, *shape), target


@settings(deadline=None, max_examples=200)
@given(case=cross_entropies(soft=False))
def test_cross_entropy_of_labels_is_torchs(case):
    """Value and gy match torch.nn and autograd for every shape, weight, ignored label, smoothing and reduction."""
    assert_agrees(*case)


@twin_of("CrossEntropyLoss")
@settings(deadline=None, max_examples=60)
@given(case=st.booleans().flatmap(lambda soft: cross_entropies(soft=soft)))
def test_cross_entropy_agrees_with_its_twin(case):
    """The layer on (y, target) agrees, for labels and for probabilities, which have a gradient."""
    loss, theirs, y, target = case
    if loss.reduction != "batch":  # torch lacks this
        assert_loss_twins(loss, theirs(loss.reduction), y, target)


@settings(deadline=None, max_examples=100)
@given(case=cross_entropies(soft=True))
def test_cross_entropy_of_probabilities_is_torchs(case):
    """Value, gy and gtarget match torch.nn and autograd for every shape, weight, smoothing and reduction."""
    assert_agrees(*case)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_class_weight_of_zero_is_torchs(smoothing):
    """Rows of such a class contribute only through the smoothing."""
    weight, target = (0.5, 0.0, 2.0), torch.tensor([0, 1, 2, 1])
    tensor = torch.tensor(weight, dtype=F64)
    assert_agrees(
        CrossEntropy(weight, label_smoothing=smoothing),
        lambda reduction: nn.CrossEntropyLoss(tensor, reduction=reduction, label_smoothing=smoothing),
        normal(1, 4, 3),
        target,
    )


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.bool])
def test_labels_may_be_of_any_integer_type(dtype):
    """Labels of a narrower type give the results of int64."""
    y, target = normal(1, 4, 2), torch.tensor([0, 1, 1, 0])
    got = CrossEntropy().value_and_grad(y, target.to(dtype))
    torch.testing.assert_close(got, CrossEntropy().value_and_grad(y, target), rtol=0, atol=0)


# Gradients compared with central differences, which do not use torch's formulas

DIFFERENTIABLE = {
    **{name: (make("mean"), draw_y(1, 4, 3), draw_t(2, 4, 3)) for name, (make, _, draw_y, draw_t) in ELEMENTWISE.items()},
    "CrossEntropy": (CrossEntropy((0.5, 2.0, 1.0), label_smoothing=0.2), normal(1, 4, 3), shares(2, 4, 3)),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_are_central_differences(name):
    """The change of the value along a random direction equals its product with the gradients of y and target."""
    loss, y, target = DIFFERENTIABLE[name]
    vy, vt, h = normal(3, 4, 3), normal(4, 4, 3), 1e-6
    _, gy, gtarget = by_layer(loss, y, target, torch.tensor(1.0, dtype=F64))
    measured = (loss(y + h * vy, target + h * vt) - loss(y - h * vy, target - h * vt)) / (2 * h)
    torch.testing.assert_close((gy * vy).sum() + (gtarget * vt).sum(), measured, rtol=1e-7, atol=1e-9)


# Limits

LARGE = torch.tensor([[1000.0, -1000.0, 0.0], [-1000.0, 1000.0, 1000.0]])


@pytest.mark.parametrize(
    "loss", [CrossEntropy(reduction="none"), CrossEntropy(reduction="none", weight=(1.0, 1.0, 1.0))], ids=str
)
def test_large_logits_give_exact_cross_entropies(loss):
    """Logits of ±1000 in float32 give 2000 for the impossible class, log 2 for one of two, and gradients 0, ½ and 1."""
    value, gy = loss.value_and_grad(LARGE, torch.tensor([1, 1]))
    torch.testing.assert_close(value, torch.tensor([2000.0, math.log(2)]))
    torch.testing.assert_close(gy, torch.tensor([[1.0, -1.0, 0.0], [0.0, -0.5, 0.5]]))


def test_large_logits_give_exact_binary_cross_entropies():
    """Logits of ±1000 in float32 cost 1000 on the wrong side and 0 on the right one, with gradients ±1 and 0."""
    y, target = torch.tensor([1000.0, 1000.0, -1000.0, -1000.0]), torch.tensor([0.0, 1.0, 0.0, 1.0])
    value, gy = BCEWithLogits("none").value_and_grad(y, target)
    assert value.tolist() == [1000.0, 0.0, 0.0, 1000.0]
    assert gy.tolist() == [1.0, 0.0, 0.0, -1.0]


def test_small_binary_cross_entropies_keep_their_digits():
    """The cost of being right by a margin of 30 is e⁻³⁰ to full precision, where t y - log(1 + eʸ) would lose it."""
    value = BCEWithLogits("none")(torch.tensor([30.0, -30.0]), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(value, torch.full((2,), math.exp(-30)), rtol=1e-5, atol=0)


@pytest.mark.parametrize("pos_weight", [None, 1.0, 2.0, (1.0, 2.0, 3.0, 4.0)])
def test_infinite_logits_cost_nothing_on_the_right_side(pos_weight):
    """BCEWithLogits of ±inf is 0 where the target agrees and inf where it does not, never NaN; the gradient is finite."""
    y, target = torch.tensor([INF, -INF, INF, -INF]), torch.tensor([1.0, 0.0, 0.0, 1.0])
    value, gy = BCEWithLogits("none", pos_weight).value_and_grad(y, target)
    assert value.tolist() == [0.0, 0.0, INF, INF]
    assert gy[:3].tolist() == [0.0, 0.0, 1.0]
    assert gy[3] < 0
    assert gy.isfinite().all()


MASKED = torch.tensor([[-INF, 1.0, 1.0], [0.0, -INF, -INF]])


@pytest.mark.parametrize("weight", [None, (0.0, 1.0, 1.0), (1.0, 1.0, 1.0)])
def test_masked_classes_take_no_part(weight):
    """A logit of -inf has probability 0 and gradient 0, and the others share the rest."""
    value, gy = CrossEntropy(weight, reduction="none").value_and_grad(MASKED[:1], torch.tensor([1]))
    torch.testing.assert_close(value, torch.tensor([math.log(2)]))
    assert gy.tolist() == [[0.0, -0.5, 0.5]]


def test_masked_classes_may_have_probability_zero():
    """0 · log 0 is 0 in the cross-entropy of probabilities."""
    target = torch.tensor([[0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])
    value, gy = CrossEntropy().value_and_grad(MASKED, target)
    torch.testing.assert_close(value, torch.tensor(math.log(2) / 2))
    assert gy.tolist() == [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


def test_masked_classes_may_have_weight_zero():
    """A row whose label is masked costs nothing when its class has the weight 0."""
    value, gy = CrossEntropy((0.0, 1.0, 1.0)).value_and_grad(MASKED[:1], torch.tensor([0]))
    assert value == 0
    assert gy.tolist() == [[0.0, 0.0, 0.0]]


def test_a_masked_label_costs_infinitely_much():
    """The value is inf, and the gradient still p - one-hot."""
    value, gy = CrossEntropy().value_and_grad(MASKED[:1], torch.tensor([0]))
    assert value == INF
    assert gy.tolist() == [[-1.0, 0.5, 0.5]]


@pytest.mark.parametrize("loss", [MSE(), L1(), L2(), BCEWithLogits(), BCEWithLogits(pos_weight=2.0), CrossEntropy()], ids=str)
@pytest.mark.parametrize("where", [0, 1])
def test_nan_is_not_hidden(loss, where):
    """A NaN in y, or in a target of numbers, makes the value NaN, whatever the other is."""
    pair = [torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]])]
    pair[where] = torch.tensor([[1.0, NAN]])
    assert loss(*pair).isnan()


IGNORING = [
    CrossEntropy(ignore_index=1, reduction=reduction, weight=weight, label_smoothing=smoothing)
    for reduction in ("mean", "sum", "batch")
    for weight in (None, (0.5, 1.0, 2.0), (0.5, 1.0, 0.0))
    for smoothing in (0.0, 0.1)
]


@pytest.mark.parametrize("loss", IGNORING, ids=str)
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_ignored_rows_have_zero_gradient_whatever_they_hold(loss, bad):
    """Rows of NaN and infinities give the same value and gradients as rows of zeros; their own gradient is exactly 0."""
    y, target = normal(1, 4, 3, 2), torch.tensor([[0, 1], [1, 1], [2, 0], [0, 1]])
    ignored = (target == 1).unsqueeze(1).expand(y.shape)
    value, gy = loss.value_and_grad(y.masked_fill(ignored, bad), target)
    torch.testing.assert_close((value, gy), loss.value_and_grad(y.masked_fill(ignored, 0.0), target), rtol=0, atol=0)
    assert (gy[ignored] == 0).all()
    assert (gy[~ignored] != 0).any()


@pytest.mark.parametrize("loss", IGNORING, ids=str)
def test_when_every_row_is_ignored_the_loss_is_zero(loss):
    """Value and gradient are 0, even for the mean, for which torch has NaN."""
    value, gy = loss.value_and_grad(torch.tensor([[NAN, 1.0, 2.0], [0.0, 1.0, 2.0]]), torch.tensor([1, 1]))
    assert value == 0
    assert (gy == 0).all()


NO_ROWS = torch.zeros(0, 3, dtype=F64)
EMPTY = {
    **{name: (ours, theirs, NO_ROWS) for name, (ours, theirs, _, _) in ELEMENTWISE.items()},
    "CrossEntropy of labels": (lambda r: CrossEntropy(reduction=r), nn.CrossEntropyLoss, torch.zeros(0, dtype=torch.int64)),
    "CrossEntropy of probabilities": (lambda r: CrossEntropy(reduction=r), nn.CrossEntropyLoss, NO_ROWS),
    "smoothed CrossEntropy": (
        lambda r: CrossEntropy(reduction=r, label_smoothing=0.1),
        nn.CrossEntropyLoss,
        torch.zeros(0, dtype=torch.int64),
    ),
}


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_batch_works(name, reduction):
    """The gradient is empty, the value torch's: 0 for the sum, NaN for a mean, nothing for none."""
    ours, theirs, target = EMPTY[name]
    value, gy = ours(reduction).value_and_grad(NO_ROWS, target)
    want = by_torch(lambda reduction: theirs(reduction=reduction), reduction, NO_ROWS, target)[0]
    torch.testing.assert_close(value, want, equal_nan=True)
    assert gy.shape == (0, 3)


@pytest.mark.parametrize("loss", [MSE(), L2(), L1(), MSE("batch"), L2("batch"), L1("batch")], ids=str)
def test_a_mean_in_half_precision_does_not_overflow(loss):
    """The sum of the terms is far beyond 65504, their mean is not."""
    y = torch.full((300, 300), 10.0, dtype=torch.float16)
    value, gy = loss.value_and_grad(y, torch.zeros_like(y))
    torch.testing.assert_close(value.double(), loss(y.double(), torch.zeros_like(y).double()), rtol=1e-3, atol=0)
    assert gy.all()


def test_squares_of_many_numbers_are_summed_exactly():
    """The mean square of four million float32 numbers is right to 1e-6."""
    y = random.uniform(1, (2**22,))
    want = MSE()(y.double(), torch.zeros_like(y).double())
    torch.testing.assert_close(MSE()(y, torch.zeros_like(y)).double(), want, rtol=1e-6, atol=0)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"weight": (1.0, 2.0, 3.0, 4.0, 5.0)}], ids=str)
def test_a_mean_over_many_rows_in_half_precision_is_the_mean(half, options):
    """Rows are counted in integers and summed in float32: torch's own value is off by a factor of 20."""
    loss = CrossEntropy(**options)
    y, labels = random.normal(0, (30_000, 5)).to(half), torch.arange(30_000) % 5
    labels = torch.where(torch.arange(30_000) % 2 == 0, -100, labels)
    value, gy = loss.value_and_grad(y, labels)
    want, right = loss.value_and_grad(y.float(), labels)
    assert value.dtype is gy.dtype is half
    torch.testing.assert_close(value.float(), want, rtol=2 * torch.finfo(half).eps, atol=0)
    torch.testing.assert_close(gy.float(), right, rtol=2 * torch.finfo(half).eps, atol=1e-7)


def test_where_no_weight_counts_the_mean_is_0_with_smoothing_too():
    """The result is the same as if every row were ignored."""
    loss = CrossEntropy(weight=(0.0, 1.0), label_smoothing=0.1)
    value, gy = loss.value_and_grad(torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([0]))
    assert value == 0
    assert (gy == 0).all()


@pytest.mark.parametrize("pos_weight", [None, 3.0])
def test_the_derivative_of_logits_at_0_is_the_slope(pos_weight):
    """Autograd of the forward formula agrees, which has no kink there."""
    loss, y, t = BCEWithLogits(pos_weight=pos_weight), torch.zeros(3), torch.tensor([0.0, 0.3, 1.0])
    torch.testing.assert_close(torch.func.grad(lambda y: loss(y, t))(y), loss.value_and_grad(y, t)[1])
