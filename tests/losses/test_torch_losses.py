"""The losses of ``robust``, ``divergences``, ``likelihoods``, ``soft_margin`` and ``NLL`` compared with torch.nn's."""

import pytest
import torch
from drawn import F64, assert_loss_twins, normal, reduced, shares
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twins import twin_of

import funcnet as fn
from funcnet import random

quick = settings(deadline=None, max_examples=40)
torchs_reductions = st.sampled_from(["mean", "sum", "none"])
shapes = st.lists(st.integers(1, 4), max_size=3).map(tuple)
seeds = st.integers(0, 2**30)
flags = st.booleans()
sizes = st.sampled_from([1.0, 0.3, 2.5])


def signs(seed, *shape):
    """Draw labels of 1 and -1."""
    return 2 * random.bits(seed, shape).remainder(2) - 1


OPTIONS = {
    "HuberLoss": {"delta": sizes},
    "SmoothL1Loss": {"beta": st.sampled_from([0.0, 0.3, 2.5])},
    "KLDivLoss": {"log_target": flags},
    "PoissonNLLLoss": {"log_input": flags, "full": flags, "eps": st.sampled_from([1e-8, 0.1])},
    "SoftMarginLoss": {},
    "HingeEmbeddingLoss": {"margin": sizes},
}
DRAWN = {
    "KLDivLoss": (normal, shares),
    "SoftMarginLoss": (normal, signs),
    "PoissonNLLLoss": (shares, lambda seed, *shape: 3 * shares(seed, *shape)),
    "HingeEmbeddingLoss": (normal, signs),
}


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@twin_of("{kind}")
@pytest.mark.parametrize("kind", OPTIONS)
@quick
@given(data=st.data(), shape=shapes, seed=seeds, reduction=torchs_reductions)
def test_an_elementwise_loss_agrees_with_its_twin(kind, data, shape, seed, reduction):
    """Value and gradients agree for any options and shape, including one number."""
    options = {name: data.draw(drawn, name) for name, drawn in OPTIONS[kind].items()} | {"reduction": reduction}
    draw_y, draw_target = DRAWN.get(kind, (normal, normal))
    loss = getattr(fn, kind.removesuffix("Loss"))(**options)
    assert_loss_twins(loss, getattr(nn, kind)(**options), draw_y(seed, *shape), draw_target(seed + 1, *shape))


def variances(shape):
    """Return a strategy for the shapes that a variance may have."""
    shared = [(*shape[:i], 1, *shape[i + 1 :]) for i in range(len(shape))]
    return st.sampled_from([shape, *shared, *([shape[:-1]] if shape else [])])


@twin_of("GaussianNLLLoss")
@quick
@given(data=st.data(), shape=shapes, seed=seeds, full=flags, eps=st.sampled_from([1e-6, 0.5]), reduction=torchs_reductions)
def test_gaussian_nll_agrees_with_its_twin(data, shape, seed, full, eps, reduction):
    """The gradients of mean, variance and target agree, including variances below eps."""
    var = shares(seed + 1, *data.draw(variances(shape)))
    options = {"full": full, "eps": eps, "reduction": reduction}
    y, target = (normal(seed, *shape), var), normal(seed + 2, *shape)
    assert_loss_twins(fn.GaussianNLL(**options), nn.GaussianNLLLoss(**options), y, target, lambda m, x: m(x[0][0], x[1], x[0][1]))


def weights(draw, seed, classes):
    """Draw no weights, or weights with perhaps one 0."""
    return draw(st.sampled_from([None, tuple(shares(seed, classes).tolist()), (*shares(seed, classes - 1).tolist(), 0.0)]))


def as_tensor(weight):
    return None if weight is None else torch.tensor(weight, dtype=F64)


@st.composite
def labels(draw):
    """Draw options of NLL, log-probabilities, and labels, at least one of them not ignored."""
    classes, inner, seed = draw(st.integers(2, 5)), draw(st.lists(st.integers(1, 3), max_size=2)), draw(seeds)
    shape = draw(st.sampled_from([(classes,), (draw(st.integers(1, 5)), classes, *inner)]))
    weight, found = weights(draw, seed, classes), random.bits(seed, shape[: len(shape) > 1] + shape[2:]).remainder(classes)
    found.view(-1)[0] = 0  # torch's mean over no rows is NaN
    ignored = draw(st.sampled_from([-100, 1]))
    return {"weight": weight, "ignore_index": ignored}, normal(seed + 1, *shape), found


@twin_of("NLLLoss")
@quick
@given(case=labels(), reduction=torchs_reductions)
def test_nll_agrees_with_its_twin(case, reduction):
    """All weights and ignored labels are tried, for rows, pixels and one vector."""
    options, y, target = case
    options["reduction"] = reduction
    assert_loss_twins(fn.NLL(**options), nn.NLLLoss(**options | {"weight": as_tensor(options["weight"])}), y, target)


@quick
@given(case=labels(), reduction=st.sampled_from(["mean", "sum", "none", "batch"]))
def test_nll_of_log_softmax_is_cross_entropy(case, reduction):
    """Values agree, and gradients agree after the vjp of LogSoftmax."""
    options, y, target = case
    softmax = fn.LogSoftmax(dim=min(1, y.dim() - 1))
    logp, cache = softmax.apply({}, y)
    value, glogp = fn.NLL(**options, reduction=reduction).value_and_grad(logp, target)
    got = value, softmax.input_grad({}, cache, glogp)
    torch.testing.assert_close(got, fn.CrossEntropy(**options, reduction=reduction).value_and_grad(y, target))


@twin_of("MultiLabelSoftMarginLoss")
@quick
@given(data=st.data(), leading=st.lists(st.integers(1, 4), max_size=2), seed=seeds, reduction=torchs_reductions)
def test_multi_label_soft_margin_agrees_with_its_twin(data, leading, seed, reduction):
    """All weights are tried, for one row, several rows, and several axes of rows."""
    weight, shape = weights(data.draw, seed, 3), (*leading, 3)
    module = nn.MultiLabelSoftMarginLoss(as_tensor(weight), reduction=reduction)
    assert_loss_twins(fn.MultiLabelSoftMargin(weight, reduction), module, normal(seed, *shape), shares(seed + 1, *shape))


@quick
@given(
    leading=st.lists(st.integers(1, 4), max_size=2),
    dim=st.integers(-1, 0),
    seed=seeds,
    reduction=st.sampled_from(["mean", "sum", "none"]),
)
def test_cosine_distance_is_one_minus_torchs_similarity(leading, dim, seed, reduction):
    """Value and both gradients agree, along the last axis and the first."""
    y, target = normal(seed, *leading, 3), normal(seed + 1, *leading, 3)
    module = reduced(lambda y, t: 1 - torch.nn.functional.cosine_similarity(y, t, dim=dim))
    assert_loss_twins(fn.CosineDistance(dim, reduction=reduction), module(reduction), y, target)


@quick
@given(case=labels(), epsilon=st.sampled_from([2.0, -0.5]), soft=flags, reduction=torchs_reductions)
def test_poly_cross_entropy_is_its_formula(case, epsilon, soft, reduction):
    """Value and autograd's gradients agree, for labels and for probabilities."""
    (_, y, target), axis = case, min(1, case[1].dim() - 1)
    shares_of_y = torch.nn.functional.one_hot(target, y.shape[axis]).movedim(-1, axis).double()
    target = y.sigmoid() if soft else target

    def terms(y, t):
        t = t if soft else shares_of_y
        return (t * (-y.log_softmax(axis) + epsilon * (1 - y.softmax(axis)))).sum(axis)

    assert_loss_twins(fn.PolyCrossEntropy(epsilon, reduction), reduced(terms)(reduction), y, target)


BATCH = {
    "PolyCrossEntropy": (fn.PolyCrossEntropy(), normal(1, 4, 3, 2), torch.tensor([[0, 1], [2, 2], [1, 0], [0, 0]])),
    "CosineDistance": (fn.CosineDistance(), normal(1, 4, 2, 3), normal(2, 4, 2, 3)),
    "NLL": (fn.NLL((0.5, 2.0, 1.0), 1), normal(1, 4, 3), torch.tensor([0, 1, 2, 2])),
    "GaussianNLL": (fn.GaussianNLL(), (normal(1, 4, 3), shares(2, 4, 1)), normal(3, 4, 3)),
    "MultiLabelSoftMargin": (fn.MultiLabelSoftMargin(), normal(1, 4, 2, 3), shares(2, 4, 2, 3)),
    "HingeEmbedding": (fn.HingeEmbedding(), normal(1, 4, 3), signs(2, 4, 3)),
    "GeneralizedKL": (fn.GeneralizedKL(), normal(1, 4, 3), shares(2, 4, 3)),
    "LogCosh": (fn.LogCosh(), normal(1, 4, 3), normal(2, 4, 3)),
}


@pytest.mark.parametrize(("loss", "y", "target"), BATCH.values(), ids=BATCH)
def test_batch_is_the_sum_divided_by_the_number_of_rows(loss, y, target):
    """The gradient is divided too."""
    value, gy = loss.replace(reduction="sum").value_and_grad(y, target)
    quarter = fn.tree.map(lambda x: x / 4, (value, gy))
    torch.testing.assert_close(loss.replace(reduction="batch").value_and_grad(y, target), quarter)


@pytest.mark.parametrize(("loss", "y", "target"), BATCH.values(), ids=BATCH)
def test_batches_count_as_the_mean_of_all_rows_needs_it(loss, y, target):
    """Σ w value / Σ w over batches of one and of three rows is the value of all; also if there are no rows."""
    for reduction in ("mean", "batch"):
        loss = loss.replace(reduction=reduction)
        batches = [fn.tree.map(lambda x, at=at: x[at], (y, target)) for at in (slice(0, 1), slice(1, 4))]
        pairs = [(loss.weight_of(target), loss(y, target)) for y, target in batches]
        torch.testing.assert_close(sum(w * value for w, value in pairs) / sum(w for w, _ in pairs), loss(y, target))
        assert loss.weight_of(fn.tree.map(lambda x: x[:0], target)) == 0


@pytest.mark.parametrize("name", BATCH)
def test_an_empty_batch_is_torchs(name):
    """A mean is NaN, the sum 0, and terms and gradients are empty."""
    loss, y, target = BATCH[name]
    y, target = fn.tree.map(lambda x: x[:0], (y, target))
    found = {
        reduction: loss.replace(reduction=reduction).value_and_grad(y, target) for reduction in ("mean", "sum", "none", "batch")
    }
    assert [value.isnan().all().item() for value, _ in found.values()] == [True, False, True, True]
    assert found["sum"][0] == 0
    assert found["none"][0].numel() == 0
    assert all(g.shape == x.shape for _, gy in found.values() for g, x in zip(fn.tree.leaves(gy), fn.tree.leaves(y), strict=True))
