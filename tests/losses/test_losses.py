"""Losses against torch.nn's with autograd, at the edges of the numbers, and in words when misused."""

import math
import pickle
import re

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import vmap
from twins import assert_twins, twin_of

from funcnet import random
from funcnet.contract import frozen
from funcnet.losses.classification import BCE, BCEWithLogits, CrossEntropy
from funcnet.losses.loss import ElementwiseLoss, LossLayer
from funcnet.losses.regression import L1, L2, MSE

F64 = torch.float64
REDUCTIONS = ("mean", "sum", "none", "batch")
INF, NAN = math.inf, math.nan
quick = settings(deadline=None, max_examples=40)


class HalfMSE(nn.Module):
    """Half of torch's squared error: the reference for ``L2``."""

    def __init__(self, reduction: str) -> None:
        super().__init__()
        self.whole = nn.MSELoss(reduction=reduction)

    def forward(self, y: Tensor, target: Tensor) -> Tensor:
        return 0.5 * self.whole(y, target)


def normal(seed: int, *shape: int) -> Tensor:
    return random.normal(seed, shape, dtype=F64)


def shares(seed: int, *shape: int) -> Tensor:
    """Numbers within 0 to 1, away from both."""
    return random.uniform(seed, shape, 0.05, 0.95, dtype=F64)


# name: our loss, torch's, how to draw y, how to draw the target; the last axis has 3 entries
ELEMENTWISE = {
    "MSE": (MSE, nn.MSELoss, normal, normal),
    "L1": (L1, nn.L1Loss, normal, normal),
    "L2": (L2, HalfMSE, normal, normal),
    "BCE": (BCE, nn.BCELoss, shares, shares),
    "BCEWithLogits": (BCEWithLogits, nn.BCEWithLogitsLoss, normal, shares),
    "BCEWithLogits of one weight": (
        lambda reduction: BCEWithLogits(reduction, 2.5),
        lambda reduction: nn.BCEWithLogitsLoss(reduction=reduction, pos_weight=torch.tensor(2.5, dtype=F64)),
        normal,
        shares,
    ),
    "BCEWithLogits of three weights": (
        lambda reduction: BCEWithLogits(reduction, (2.5, 0.0, 0.5)),
        lambda reduction: nn.BCEWithLogitsLoss(reduction=reduction, pos_weight=torch.tensor([2.5, 0.0, 0.5], dtype=F64)),
        normal,
        shares,
    ),
}


def by_torch(module, reduction: str, y: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return torch's value, a gradient of it, and by autograd those of y and of a floating target; ``batch`` is sum / N."""
    y = y.clone().requires_grad_()
    target = target.clone().requires_grad_(target.is_floating_point())
    value = module("sum" if reduction == "batch" else reduction)(y, target)
    value = value / (y.shape[0] if y.dim() > 1 else 1) if reduction == "batch" else value
    g = normal(9, *value.shape)
    gradients = torch.autograd.grad(value, [leaf for leaf in (y, target) if leaf.requires_grad], g)
    return value.detach(), g, gradients[0], dict(enumerate(gradients)).get(1)


def by_layer(loss, y: Tensor, target: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the value and both gradients of the loss as a layer."""
    layer = loss.as_layer()
    value, cache = layer.apply({}, (y, target))
    gparams, (gy, gtarget) = layer.vjp({}, cache, g)
    assert gparams == {}
    return value, gy, gtarget


def assert_agrees(loss, module, y: Tensor, target: Tensor) -> None:
    """Require torch's numbers of the value and the gradients, of the layer and of ``value_and_grad``."""
    value, g, gy, gtarget = by_torch(module, loss.reduction, y, target)
    torch.testing.assert_close(by_layer(loss, y, target, g), (value, gy, gtarget), rtol=1e-9, atol=1e-12)
    ones = by_layer(loss, y, target, torch.ones_like(g))
    torch.testing.assert_close(loss.value_and_grad(y, target), ones[:2], rtol=1e-12, atol=0)
    torch.testing.assert_close(loss(y, target), value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", ELEMENTWISE)
@quick
@given(leading=st.lists(st.integers(1, 4), min_size=1, max_size=3), seed=st.integers(0, 2**30))
def test_elementwise_losses_are_torchs(name, reduction, leading, seed):
    """Value, gy and gtarget are those of torch.nn and autograd, in float64, for any shape."""
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
    """As a layer on (y, target), with all gradients, for any shape, one number too."""
    ours, theirs, draw_y, draw_target = ELEMENTWISE[kind.removesuffix("Loss")]
    weighted = weight is not None and ours is BCEWithLogits
    module = theirs(reduction=reduction, **({"pos_weight": torch.tensor(weight)} if weighted else {}))
    loss = ours(reduction, **({"pos_weight": weight} if weighted else {}))
    assert_loss_twins(loss, module, draw_y(2 * seed, *shape), draw_target(2 * seed + 1, *shape))


def assert_loss_twins(loss, module, y: Tensor, target: Tensor) -> None:
    """Compare the loss as a layer, whose weights are fields: torch's buffers are taken out of its ``state_dict``."""
    module._non_persistent_buffers_set.update(module._buffers)
    assert_twins(loss.as_layer(), module, (y, target), call=lambda module, x: module(*x))


@pytest.mark.parametrize("name", ["MSE", "L1", "L2", "BCE", "BCEWithLogits"])
def test_one_number_is_a_loss_too(name):
    """A 0-d y and target have torch's value and gradients."""
    ours, theirs, _, _ = ELEMENTWISE[name]
    y, target = torch.tensor(0.25, dtype=F64), torch.tensor(0.75, dtype=F64)
    assert_agrees(ours("mean"), lambda reduction: theirs(reduction=reduction), y, target)
    torch.testing.assert_close(ours("batch").value_and_grad(y, target), ours("sum").value_and_grad(y, target))


@pytest.mark.parametrize("name", ["MSE", "L1", "L2", "BCE", "BCEWithLogits"])
def test_a_vector_is_a_batch_of_numbers(name):
    """Of a y with one axis, that axis is the batch, and "batch" is the mean."""
    ours, _, draw_y, draw_target = ELEMENTWISE[name]
    y, target = draw_y(1, 5), draw_target(2, 5)
    torch.testing.assert_close(ours("batch").value_and_grad(y, target), ours("mean").value_and_grad(y, target))


@pytest.mark.parametrize("name", ["MSE", "L1", "L2", "BCEWithLogits"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_integers_and_booleans_are_targets_without_gradient(name, dtype):
    """They count as numbers, and their gradient is None."""
    loss = ELEMENTWISE[name][0]("mean")
    y, target = normal(1, 4, 3), shares(2, 4, 3) > 0.5
    value, gy, gtarget = by_layer(loss, y, target.to(dtype), torch.tensor(0.7, dtype=F64))
    torch.testing.assert_close((value, gy), by_layer(loss, y, target.double(), torch.tensor(0.7, dtype=F64))[:2])
    assert gtarget is None


def test_the_edges_of_probability_are_torchs():
    """BCE at y = 0 and 1 has torch's clamped values and slopes; the target's is of the logs, not infinite."""
    y, target = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=F64), torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=F64)
    value, g, gy, _ = by_torch(lambda reduction: nn.BCELoss(reduction=reduction), "none", y, target)
    got = by_layer(BCE("none"), y, target, g)
    # torch's 1e-12 is a float32
    torch.testing.assert_close(got, (value, gy, g * torch.tensor([100, 100, -100, -100])), rtol=1e-8, atol=0)


# Cross-entropy


@st.composite
def cross_entropies(draw, soft: bool):
    """Draw a loss with any options, torch's, logits and a target: (N, C, ...) or (C,)."""
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
    """Value and gy are those of torch.nn and autograd for every shape, weight, ignored label, smoothing and reduction."""
    assert_agrees(*case)


@twin_of("CrossEntropyLoss")
@settings(deadline=None, max_examples=60)
@given(case=st.booleans().flatmap(lambda soft: cross_entropies(soft=soft)))
def test_cross_entropy_agrees_with_its_twin(case):
    """As a layer on (y, target), of labels and of probabilities, which have a gradient."""
    loss, theirs, y, target = case
    if loss.reduction != "batch":  # which torch has not
        assert_loss_twins(loss, theirs(loss.reduction), y, target)


@settings(deadline=None, max_examples=100)
@given(case=cross_entropies(soft=True))
def test_cross_entropy_of_probabilities_is_torchs(case):
    """Value, gy and gtarget are those of torch.nn and autograd for every shape, weight, smoothing and reduction."""
    assert_agrees(*case)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_class_weight_of_zero_is_torchs(smoothing):
    """Rows of a class of weight 0 count for nothing but the smoothing."""
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
    """Labels of a narrower type mean the same as int64."""
    y, target = normal(1, 4, 2), torch.tensor([0, 1, 1, 0])
    got = CrossEntropy().value_and_grad(y, target.to(dtype))
    torch.testing.assert_close(got, CrossEntropy().value_and_grad(y, target), rtol=0, atol=0)


# The gradient is that of the value: central differences, which know nothing of torch's formulas

DIFFERENTIABLE = {
    **{name: (make("mean"), draw_y(1, 4, 3), draw_t(2, 4, 3)) for name, (make, _, draw_y, draw_t) in ELEMENTWISE.items()},
    "CrossEntropy": (CrossEntropy((0.5, 2.0, 1.0), label_smoothing=0.2), normal(1, 4, 3), shares(2, 4, 3)),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_are_central_differences(name):
    """The change of the value along a random direction of y and target is the product of that with both gradients."""
    loss, y, target = DIFFERENTIABLE[name]
    vy, vt, h = normal(3, 4, 3), normal(4, 4, 3), 1e-6
    _, gy, gtarget = by_layer(loss, y, target, torch.tensor(1.0, dtype=F64))
    measured = (loss(y + h * vy, target + h * vt) - loss(y - h * vy, target - h * vt)) / (2 * h)
    torch.testing.assert_close((gy * vy).sum() + (gtarget * vt).sum(), measured, rtol=1e-7, atol=1e-9)


# Numbers at the edge

LARGE = torch.tensor([[1000.0, -1000.0, 0.0], [-1000.0, 1000.0, 1000.0]])


@pytest.mark.parametrize(
    "loss", [CrossEntropy(reduction="none"), CrossEntropy(reduction="none", weight=(1.0, 1.0, 1.0))], ids=str
)
def test_large_logits_give_exact_cross_entropies(loss):
    """Logits of ±1000 in float32: 2000 nats for the impossible, log 2 for one of two, and gradients of 0, ½ and 1."""
    value, gy = loss.value_and_grad(LARGE, torch.tensor([1, 1]))
    torch.testing.assert_close(value, torch.tensor([2000.0, math.log(2)]))
    torch.testing.assert_close(gy, torch.tensor([[1.0, -1.0, 0.0], [0.0, -0.5, 0.5]]))


def test_large_logits_give_exact_binary_cross_entropies():
    """Logits of ±1000 in float32 cost 1000 on the wrong side and 0 on the right one, with gradients of ±1 and 0."""
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
    """Rows of NaN and infinities leave value and gradient as rows of zeros do, and their own gradient is exactly 0."""
    y, target = normal(1, 4, 3, 2), torch.tensor([[0, 1], [1, 1], [2, 0], [0, 1]])
    ignored = (target == 1).unsqueeze(1).expand(y.shape)
    value, gy = loss.value_and_grad(y.masked_fill(ignored, bad), target)
    torch.testing.assert_close((value, gy), loss.value_and_grad(y.masked_fill(ignored, 0.0), target), rtol=0, atol=0)
    assert (gy[ignored] == 0).all()
    assert (gy[~ignored] != 0).any()


@pytest.mark.parametrize("loss", IGNORING, ids=str)
def test_when_every_row_is_ignored_the_loss_is_zero(loss):
    """Value and gradient are 0, the mean's too, where torch has NaN."""
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


# The house: values, transforms, layers, words

EVERY = {
    **{name: (ours("mean"), draw_y(1, 4, 3), draw_t(2, 4, 3)) for name, (ours, _, draw_y, draw_t) in ELEMENTWISE.items()},
    "none": (MSE("none"), normal(1, 4, 3), normal(2, 4, 3)),
    "batch": (BCEWithLogits("batch"), normal(1, 4, 3), shares(2, 4, 3)),
    "labels": (CrossEntropy(ignore_index=1), normal(1, 4, 3), torch.tensor([0, 1, 2, 2])),
    "weighted labels": (CrossEntropy((0.5, 1.0, 2.0), reduction="none"), normal(1, 4, 3), torch.tensor([0, 1, 2, 2])),
    "smoothed labels": (CrossEntropy(label_smoothing=0.1), normal(1, 4, 3), torch.tensor([0, 1, 2, -100])),
    "labels of pixels": (CrossEntropy(ignore_index=1), normal(1, 4, 3, 2), torch.tensor([[0, 1], [2, 2], [1, 1], [0, 0]])),
    "probabilities": (CrossEntropy((0.5, 1.0, 2.0)), normal(1, 4, 3), shares(2, 4, 3)),
}
everywhere = pytest.mark.parametrize(("loss", "y", "target"), EVERY.values(), ids=EVERY)


@pytest.mark.compiled
@everywhere
def test_compiled_as_one_graph_it_is_the_same(loss, y, target):
    """It compiles with fullgraph, and aot_eager gives the same bits."""
    torch._dynamo.reset()
    compiled = torch.compile(loss.value_and_grad, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(y, target), loss.value_and_grad(y, target), rtol=0, atol=0)


@everywhere
@pytest.mark.parametrize("dims", [(0, 0), (0, None), (None, 0)])
def test_vmap_is_a_loop(dims, loss, y, target):
    """Mapped over both arguments, or over one alone, it gives what each pair gives alone."""
    ys, targets = torch.stack([y, 0.5 * y]), torch.stack([target, target.flip(0)])
    pairs = zip(ys if dims[0] == 0 else (y, y), targets if dims[1] == 0 else (target, target), strict=True)
    alone = [loss.value_and_grad(*pair) for pair in pairs]
    mapped = vmap(loss.value_and_grad, dims)(ys if dims[0] == 0 else y, targets if dims[1] == 0 else target)
    torch.testing.assert_close(mapped, tuple(map(torch.stack, zip(*alone, strict=True))))


@everywhere
def test_meta_tensors_give_the_shapes(loss, y, target):
    """On the meta device value and gradient have their shapes and dtypes."""
    want = loss.value_and_grad(y, target)
    got = loss.value_and_grad(y.to("meta"), target.to("meta"))
    assert [(g.shape, g.dtype, g.is_meta) for g in got] == [(w.shape, w.dtype, True) for w in want]


@everywhere
def test_strides_do_not_matter(loss, y, target):
    """Transposed and expanded tensors give the numbers of contiguous ones."""
    twisted = y.movedim(0, -1).contiguous().movedim(-1, 0)
    g = torch.ones_like(loss(y, target).flatten()[:1]).reshape([1] * loss(y, target).dim()).expand_as(loss(y, target))
    torch.testing.assert_close(by_layer(loss, twisted, target, g), by_layer(loss, y, target, g.contiguous()))


@everywhere
def test_nothing_is_written_to(loss, y, target):
    """Both arguments keep their versions, in value and in both gradients, and a cache serves twice."""
    versions, layer = (y._version, target._version), loss.as_layer()
    value, cache = layer.apply({}, (y, target))
    once, twice = (layer.vjp({}, cache, torch.ones_like(value)) for _ in range(2))
    torch.testing.assert_close(once, twice, rtol=0, atol=0)
    assert (y._version, target._version) == versions


@everywhere
def test_a_loss_is_a_value(loss, y, target):
    """Its repr evaluates back, its pickle too, and equal losses hash alike; so does its layer."""
    for one in (loss, loss.as_layer()):
        again = eval(repr(one))
        assert again == one == pickle.loads(pickle.dumps(one))
        assert hash(again) == hash(one)
    assert loss.as_layer() == LossLayer(loss)


@everywhere
def test_half_precision_keeps_its_dtype(loss, y, target):
    """In bfloat16 the value and both gradients are bfloat16, near those of float64."""
    cast = target.bfloat16() if target.is_floating_point() else target
    got, want = loss.value_and_grad(y.bfloat16(), cast), loss.value_and_grad(y, target)
    torch.testing.assert_close(got, tuple(w.bfloat16() for w in want), rtol=0.1, atol=0.02)


def test_the_layer_has_no_params_and_mixes_the_batch():
    """No params, whatever the seed; a mean depends on every row."""
    assert MSE().as_layer().init(0) == {}
    assert MSE().as_layer().batch_dependent
    assert repr(MSE("sum").as_layer()) == "MSE(reduction='sum').as_layer()"


def test_defaults_are_torchs():
    """The mean, no weights, ignore_index -100 and no smoothing."""
    assert repr(CrossEntropy(None, -100, "mean", 0.0)) == "CrossEntropy()"
    assert repr(BCEWithLogits("mean", None)) == "BCEWithLogits()"


@frozen
class LogCosh(ElementwiseLoss):
    """A user's loss: log cosh (y - t)."""

    def cache(self, y, t):
        return y - t

    def loss(self, kept):
        return kept.cosh().log()

    def dloss_dy(self, kept, c):
        return kept.tanh() * c

    def dloss_dt(self, kept, c):
        return -kept.tanh() * c


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_loss_of_ones_own_is_four_lines(reduction):
    """An Elementwise subclass gets the reductions, the gradients and the layer."""

    class Module(nn.Module):
        def __init__(self, reduction: str) -> None:
            super().__init__()
            self.end = {"mean": torch.mean, "sum": torch.sum, "none": torch.clone}[reduction]

        def forward(self, y: Tensor, target: Tensor) -> Tensor:
            return self.end((y - target).cosh().log())

    assert_agrees(LogCosh(reduction), Module, normal(1, 4, 3), normal(2, 4, 3))


y43, t43, labels4 = torch.zeros(4, 3), torch.zeros(4, 3), torch.tensor([0, 1, 2, 0])
wrong4 = torch.tensor([0, 1, 12, 0])
WORDS = {
    "MSE(): target must have the shape of y, (4, 3), got shape (3,)": lambda: MSE()(y43, t43[0]),
    "MSE(reduction='sum'): target must have the shape of y, (4, 1), got shape (4,)": lambda: MSE("sum")(y43[:, :1], t43[:, 0]),
    "L1(): target must have the shape of y, (4, 3), got shape (4, 1)": lambda: L1().value_and_grad(y43, t43[:, :1]),
    "L2(): target must have the shape of y, (4, 3), got shape ()": lambda: L2().as_layer().apply({}, (y43, t43[0, 0])),
    "MSE(): target must have the dtype of y, torch.float32, or hold integers or booleans, got torch.float64": lambda: MSE()(
        y43, t43.double()
    ),
    "MSE(): y must be a floating tensor, got a tensor of shape (4,) and dtype torch.int64": lambda: MSE()(labels4, labels4),
    "MSE(): y must be a floating tensor, got 1.0": lambda: MSE()(1.0, t43),
    "MSE(): target must be a tensor, got a list of 2": lambda: MSE()(y43, [1.0, 2.0]),
    "BCE(): target must have the shape of y, (4, 3), got shape (4,)": lambda: BCE()(y43, t43[:, 0]),
    "BCE(): y must hold probabilities, from 0 to 1, got numbers from -0.25 to 1.5": lambda: BCE()(
        torch.tensor([-0.25, 1.5]), torch.zeros(2)
    ),
    "BCE(): target must hold probabilities, from 0 to 1, got numbers from 0 to 2": lambda: BCE()(
        torch.zeros(2), torch.tensor([0.0, 2.0])
    ),
    "BCE(): y must hold probabilities, from 0 to 1, got a tensor of shape (3,) and dtype torch.float32": lambda: vmap(BCE())(
        y43 - 1, t43
    ),
    "BCEWithLogits(): target must have the shape of y, (4, 3), got shape (4,)": lambda: BCEWithLogits()(y43, t43[:, 0]),
    "BCEWithLogits(pos_weight=(1.0, 2.0)): the last axis of y must be the 2 numbers of pos_weight, got y of shape (4, 3)": (
        lambda: BCEWithLogits(pos_weight=(1.0, 2.0))(y43, t43)
    ),
    "CrossEntropy(): labels must be integers of shape (4,), that of y (4, 3) without the axis of classes, "
    "got a tensor of shape (4, 1) and dtype torch.int64": lambda: CrossEntropy()(y43, labels4[:, None]),
    "CrossEntropy(): labels must be integers of shape (4, 2), that of y (4, 3, 2) without the axis of classes, "
    "got a tensor of shape (4,) and dtype torch.int64": lambda: CrossEntropy()(torch.zeros(4, 3, 2), labels4),
    "CrossEntropy(): labels must be integers of shape (4,), that of y (4, 3) without the axis of classes, "
    "got a tensor of shape (4,) and dtype torch.complex64": lambda: CrossEntropy()(y43, labels4 + 0j),
    "CrossEntropy(): a floating target is probabilities, of the shape (4, 3) and dtype torch.float32 of y; "
    "labels must be integers, got a tensor of shape (4,) and dtype torch.float32": lambda: CrossEntropy()(y43, labels4.float()),
    "CrossEntropy(): a floating target is probabilities, of the shape (4, 3) and dtype torch.float32 of y; "
    "labels must be integers, got a tensor of shape (4, 3) and dtype torch.float64": lambda: CrossEntropy()(y43, t43.double()),
    "CrossEntropy(ignore_index=0): ignore_index is for labels, and must be negative with probabilities, got 0": lambda: (
        CrossEntropy(ignore_index=0)(y43, t43)
    ),
    "CrossEntropy(): every label must lie in 0 to 2 or be ignore_index=-100, got 12": lambda: CrossEntropy()(y43, wrong4),
    "CrossEntropy(): every label must lie in 0 to 2 or be ignore_index=-100, got -1": lambda: CrossEntropy()(y43, labels4 - 1),
    "CrossEntropy(): every label must lie in 0 to 2 or be ignore_index=-100, got 3": lambda: CrossEntropy()(
        torch.zeros(1, 3, 2), torch.tensor([[0, 3]])
    ),
    "CrossEntropy(label_smoothing=0.1): every label must lie in 0 to 2 or be ignore_index=-100, got 12": lambda: CrossEntropy(
        label_smoothing=0.1
    )(y43, wrong4),
    "CrossEntropy(reduction='none'): every label must lie in 0 to 2 or be ignore_index=-100, got 12": lambda: vmap(
        CrossEntropy(reduction="none")
    )(y43, wrong4),
    "CrossEntropy(weight=(1.0, 2.0)): weight must have one number for each of the 3 classes, got 2 numbers": lambda: CrossEntropy(
        (1.0, 2.0)
    )(y43, labels4),
    "CrossEntropy(): y must be a floating tensor, got a tensor of shape (4,) and dtype torch.int64": lambda: CrossEntropy()(
        labels4, labels4
    ),
    "CrossEntropy(): y must have an axis of classes, got a tensor of shape () and dtype torch.float32": lambda: CrossEntropy()(
        y43[0, 0], labels4[0]
    ),
    "MSE().as_layer(): x must be a pair (y, target), got a tensor of shape (4, 3) and dtype torch.float32": lambda: (
        MSE().as_layer().apply({}, y43)
    ),
    "MSE().as_layer(): params must be an empty dict, got weight (4, 3)": lambda: (
        MSE().as_layer().apply({"weight": y43}, (y43, t43))
    ),
    "MSE: reduction must be one of 'mean', 'sum', 'none', 'batch', got 'average'": lambda: MSE("average"),
    "CrossEntropy: reduction must be one of 'mean', 'sum', 'none', 'batch', got None": lambda: CrossEntropy(reduction=None),
    "BCEWithLogits: pos_weight must be None, a finite number of at least 0, or a tuple of such, got nan": lambda: BCEWithLogits(
        pos_weight=NAN
    ),
    "BCEWithLogits: pos_weight must be None, a finite number of at least 0, or a tuple of such, got -1.0": lambda: BCEWithLogits(
        pos_weight=-1.0
    ),
    "BCEWithLogits: pos_weight must be None, a finite number of at least 0, or a tuple of such, got (1.0, -1.0)": lambda: (
        BCEWithLogits(pos_weight=(1.0, -1.0))
    ),
    "BCEWithLogits: pos_weight must be None, a finite number of at least 0, or a tuple of such, got tensor([1.])": lambda: (
        BCEWithLogits(pos_weight=torch.ones(1))
    ),
    "CrossEntropy: weight must be None or a tuple of finite numbers of at least 0, got [1.0, 2.0]": lambda: CrossEntropy(
        [1.0, 2.0]
    ),
    "CrossEntropy: weight must be None or a tuple of finite numbers of at least 0, got (1.0, nan)": lambda: CrossEntropy(
        (1.0, NAN)
    ),
    "CrossEntropy: weight must be None or a tuple of finite numbers of at least 0, got ()": lambda: CrossEntropy(()),
    "CrossEntropy: label_smoothing must be a finite number at least 0 and at most 1, got 1.5": lambda: CrossEntropy(
        label_smoothing=1.5
    ),
    "CrossEntropy: label_smoothing must be a finite number at least 0 and at most 1, got -0.1": lambda: CrossEntropy(
        label_smoothing=-0.1
    ),
    "CrossEntropy: ignore_index must be a whole number, got 0.5": lambda: CrossEntropy(ignore_index=0.5),
}


@pytest.mark.parametrize("sentence", WORDS)
def test_misuse_is_explained(sentence):
    """The error says who, the rule with its numbers, and what came."""
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        WORDS[sentence]()


def test_a_loss_cannot_be_changed():
    """It is frozen; replace makes another."""
    loss = CrossEntropy()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        loss.reduction = "sum"
    assert loss.replace(reduction="sum") == CrossEntropy(reduction="sum")
