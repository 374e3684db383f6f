"""Weights and masks of samples: values compared with plain formulas, gradients checked by ``check_loss``, exact zeros, and errors."""

import pickle

import pytest
import torch
from cases import losses as catalogue
from drawn import INF, NAN, REDUCTIONS, normal, shares
from hypothesis import given
from hypothesis import strategies as st

import funcnet as fn
from funcnet.losses.loss import LossLayer
from funcnet.losses.named import NamedLosses
from funcnet.losses.sample_weights import WeightedLoss
from funcnet.testing import check_loss
from funcnet.testing.losses import check_rules

Y, T = normal(1, 5, 3), normal(2, 5, 3)
LABELS = torch.tensor([0, 2, 1, -100, 2])
W = torch.tensor([0.5, 0.0, 2.0, 1.0, 0.25], dtype=torch.float64)
EACH = shares(3, 5, 3) * (normal(4, 5, 3) > -0.5)


def expected(terms, w, counts, reduction):
    """Return Σ w ℓ divided by the weight of the reduction; ``counts`` is the weight of each term in the mean."""
    w = w.to(terms.dtype).reshape(*w.shape, *[1] * (terms.dim() - w.dim())).expand(terms.shape)
    by = {"mean": (w * counts).sum(), "batch": len(terms), "sum": 1}
    return w * terms if reduction == "none" else (w * terms).sum() / by[reduction]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    "w", [W, W > 0.3, (2 * W).long(), EACH, EACH > 0.5], ids=["rows", "mask", "whole", "terms", "mask of terms"]
)
def test_elementwise_losses_are_weighted_sums_of_their_terms(w, reduction):
    """Weights and masks are per row or per element, for one loss of each file."""
    for loss, y, t in [
        (fn.MSE, Y, T),
        (fn.L1, Y, T),
        (fn.BCEWithLogits, Y, shares(5, 5, 3)),
        (fn.BCE, shares(6, 5, 3), shares(7, 5, 3)),
    ]:
        torch.testing.assert_close(fn.weighted(loss(reduction))(y, (t, w)), expected(loss("none")(y, t), w, 1, reduction))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_weights_multiply(smoothing, reduction):
    """Class weights are in both sums of the mean, ignored rows have weight 0: the result is torch's with a factor per row."""
    class_weight = (0.5, 1.0, 3.0)
    loss = fn.CrossEntropy(class_weight, reduction=reduction, label_smoothing=smoothing)
    counts = torch.tensor([0.5, 3.0, 1.0, 0.0, 3.0], dtype=torch.float64)
    terms = loss.with_reduction("none")(Y, LABELS)
    torch.testing.assert_close(fn.weighted(loss)(Y, (LABELS, W)), expected(terms, W, counts, reduction))
    pixels, labels, w = normal(8, 2, 3, 4), torch.tensor([[0, 1, 2, -100], [1, 1, 0, 2]]), shares(9, 2, 4)
    counts = torch.tensor([[0.5, 1, 3, 0], [1, 1, 0.5, 3]], dtype=torch.float64)
    torch.testing.assert_close(
        fn.weighted(loss)(pixels, (labels, w)), expected(loss.with_reduction("none")(pixels, labels), w, counts, reduction)
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_ones_change_nothing(reduction):
    """A weight of 1 for each row or term gives the loss without weights."""
    for loss, y, t in [
        (fn.MSE(reduction), Y, T),
        (fn.CrossEntropy((1.0, 2.0, 3.0), reduction=reduction), Y, LABELS),
        (fn.GaussianKL(reduction), (Y, T), (T, Y)),
    ]:
        found = fn.weighted(loss).value_and_grad(y, (t, torch.ones(5)))
        torch.testing.assert_close(found, loss.value_and_grad(y, t))


@given(st.lists(st.integers(0, 3), min_size=5, max_size=5), st.sampled_from(REDUCTIONS[:2]))
def test_whole_weights_repeat_rows(counts, reduction):
    """A row of weight n counts as n rows."""
    w = torch.tensor(counts)
    loss, rows = fn.CrossEntropy((1.0, 0.5, 2.0), reduction=reduction), torch.arange(5).repeat_interleave(w)
    if (LABELS[rows] >= 0).any():
        want = loss(Y[rows], LABELS[rows])
        torch.testing.assert_close(fn.weighted(loss)(Y, (LABELS, w)), want)


@pytest.mark.parametrize("worst", [NAN, INF, -INF])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_weight_of_zero_counts_for_nothing(worst, reduction):
    """The term may be infinite or NaN: value and gradients are those with another number there, and its own gradient is 0."""
    for loss, t in [(fn.MSE(reduction), T), (fn.CrossEntropy(reduction=reduction), LABELS)]:
        bad = Y.clone()
        bad[1] = worst
        layer = fn.weighted(loss).as_layer()
        value, cache = layer.apply({}, (bad, (t, W)))
        gy, gtarget = layer.vjp({}, cache, torch.ones_like(value))[1]
        want, gwant = fn.weighted(loss).value_and_grad(Y, (t, W))
        torch.testing.assert_close((value, gy), (want, gwant))
        assert not gy[1].any()
        assert gtarget[0] is None or not gtarget[0][1].any()
        assert gtarget[1].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bool])
def test_if_all_weights_are_zero_the_mean_is_zero(dtype):
    """Value and gradient are 0; the mean of no rows is NaN, as without weights."""
    value, gy = fn.weighted(fn.MSE()).value_and_grad(Y, (T, torch.zeros(5, dtype=dtype)))
    assert value == 0
    assert not gy.any()
    assert fn.weighted(fn.MSE())(Y[:0], (T[:0], torch.zeros(0, dtype=dtype))).isnan()


V = W + 0.25
LOSSES = {
    "rows": (fn.weighted(fn.MSE()), Y, (T, V)),
    "terms": (fn.weighted(fn.L2("batch")), Y, (T, EACH)),
    "terms themselves": (fn.weighted(fn.L2("none")), Y, (T, V)),
    "a mask": (fn.weighted(fn.BCEWithLogits()), Y, (shares(5, 5, 3), W > 0.3)),
    "labels": (fn.weighted(fn.CrossEntropy((0.5, 1.0, 3.0), 1, label_smoothing=0.1)), Y, (LABELS.clamp_min(1), V)),
    "probabilities": (fn.weighted(fn.CrossEntropy((0.5, 1.0, 3.0))), Y, (shares(5, 5, 3), V)),
    "pairs": (fn.weighted(fn.GaussianKL("sum")), (Y, T), ((T, Y), V)),
    "a sum": (fn.weighted(fn.MSE() - 0.5 * fn.L2("batch")), Y, (T, V)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_it_passes_check_loss(name):
    """The gradients of y, target and weights are checked, and the weight of every split of the rows."""
    loss, y, target = LOSSES[name]
    check_loss(loss, y, target, compiled=False, dtypes=(torch.float64, torch.bfloat16))
    weights = target[1] * torch.tensor([1, 0, 1, 0, 1]).reshape(5, *[1] * (target[1].dim() - 1))
    check_rules(loss, y, (target[0], weights))


@pytest.mark.compiled
@pytest.mark.parametrize("name", ["rows", "labels"])
def test_it_compiles_as_one_graph(name):
    """The graph includes the gradient of the weights."""
    loss, y, target = LOSSES[name]
    check_loss(loss, y, target, dtypes=(torch.float64,))


@pytest.mark.parametrize("name", LOSSES)
def test_a_weighted_loss_is_a_value(name):
    """Its repr is the call that makes it, and it pickles."""
    loss = LOSSES[name][0]
    assert eval(repr(loss), vars(fn)) == loss == pickle.loads(pickle.dumps(loss))


@pytest.mark.parametrize("reduction", ["sum", "batch", "none"])
def test_weights_may_be_negative_where_nothing_is_divided_by_them(reduction):
    """Advantages in policy gradients may be negative."""
    loss = fn.weighted(fn.CrossEntropy(reduction=reduction))
    torch.testing.assert_close(loss(Y, (LABELS, -W)), -loss(Y, (LABELS, W)))


@pytest.mark.parametrize("loss", [fn.weighted(fn.MSE()), fn.weighted(fn.CrossEntropy())], ids=repr)
def test_members_of_an_ensemble_share_the_weights(loss):
    """Members and rows have the same values and gradients as by themselves."""
    target = (T if isinstance(loss.loss, fn.MSE) else LABELS, W)
    ys = torch.stack([Y, 2 * Y])
    values, gy = fn.ensemble(loss, 2).value_and_grad(ys, target)
    for i in range(2):
        torch.testing.assert_close((values[i], gy[i]), loss.value_and_grad(ys[i], target))
    net = fn.Linear(3, 3)
    params = fn.tree.cast(net.init(0), torch.float64)
    values, grads = fn.per_example_grads(net, loss)(params, Y, target)
    for i in range(5):
        row = fn.tree.map(lambda leaf, i=i: leaf[i : i + 1], (Y, target))
        want = fn.value_and_grads(net, loss)(params, *row)[:2]
        torch.testing.assert_close((values[i], fn.tree.map(lambda leaf, i=i: leaf[i], grads)), want)


def test_a_sum_weighs_each_of_its_terms():
    """Each term thus has its own mean."""
    assert fn.weighted(fn.MSE() + 0.5 * fn.L1("sum")) == fn.weighted(fn.MSE()) + 0.5 * fn.weighted(fn.L1("sum"))
    assert repr(fn.weighted(fn.MSE() + 0.5 * fn.L1())) == "weighted(MSE()) + 0.5 * weighted(L1())"


OF_EACH_KIND = {
    type(one.layer.loss): (one.layer.loss, *one.x)
    for one in reversed(catalogue.CASES.values())
    if isinstance(one.layer, LossLayer) and one.batched
}
WITHOUT_WEIGHTS = {NamedLosses, WeightedLoss}
"""Losses whose weights are in the losses within, or which take them by themselves."""


@pytest.mark.parametrize("kind", [kind for kind in OF_EACH_KIND if kind not in WITHOUT_WEIGHTS], ids=lambda kind: kind.__name__)
def test_every_loss_takes_weights(kind):
    """Weights are per row, with every reduction: gradients are measured, and the rules of losses are tested."""
    loss, y, target = OF_EACH_KIND[kind]
    loss = loss if loss.mean_of_terms else loss.with_reduction("sum")
    terms = loss.with_reduction("none")(*fn.tree.cast((y, target), torch.float64))
    target = (target, 0.5 + torch.arange(terms.shape[0] if terms.dim() else 1).reshape(terms.shape[:1]))
    check_rules(fn.weighted(loss), y, target)
    fn.testing.law_transpose(fn.weighted(loss).as_layer(), (y, target))


def test_a_custom_loss_has_weights_if_it_has_terms():
    """The loss has terms for rows, and its ``weight_of`` leaves out some labels."""

    @fn.frozen
    class Rows(fn.Loss):
        reduction: str = "mean"

        def forward(self, y, target):
            w = (target >= 0).double()
            c = {"mean": 1 / w.sum().clamp_min(1), "sum": 1.0, "batch": 1 / max(1, len(y)), "none": 1.0}[self.reduction]
            terms = (y * y).sum(1) * w
            return (terms if self.reduction == "none" else terms.sum() * c), (y * w.unsqueeze(1), c)

        def backward(self, cache, g=None):
            y, c = cache
            g = torch.as_tensor(c if g is None else g * c)
            return 2 * y * (g.unsqueeze(-1) if g.dim() else g)

        def weight_of(self, target):
            return (target >= 0).sum() if self.reduction == "mean" else len(target)

    check_rules(fn.weighted(Rows()), Y, (LABELS, W))
    counted = W * (LABELS >= 0)
    torch.testing.assert_close(fn.weighted(Rows())(Y, (LABELS, W)), (counted * (Y * Y).sum(1)).sum() / counted.sum())


REFUSED = {
    "weighted: loss must be a loss, got 3": lambda: fn.weighted(3),
    "weighted: the loss must have a reduction \"none\", which returns its terms, got weighted(MSE())": lambda: fn.weighted(fn.weighted(fn.MSE())),
    "weighted: weight each loss of a sum: losses_of(name=weighted(loss), ...), got losses_of(a=MSE())": lambda: fn.weighted(fn.losses_of(a=fn.MSE())),
    "weighted: the loss must have a reduction \"none\", which returns its terms, got ensemble(MSE(), 2)": lambda: fn.weighted(fn.ensemble(fn.MSE(), 2)),
    "weighted(MSE()): target must be a pair (target, weight), got a tensor of shape (5, 3) and dtype torch.float64": lambda: fn.weighted(fn.MSE())(Y, T),
    "weighted(MSE()): weight must be a dense tensor of numbers or booleans, got None": lambda: fn.weighted(fn.MSE())(Y, (T, None)),
    "weighted(MSE()): weight must be a dense tensor of numbers or booleans, got a tensor of shape (5,) and dtype torch.complex128": lambda: fn.weighted(fn.MSE())(Y, (T, W.cdouble())),
    "weighted(MSE()): weight must have the shape of the terms, (5, 3), or of their first axes, got shape (3,)": lambda: fn.weighted(fn.MSE())(Y, (T, W[:3])),
    "weighted(MSE()): weight must have the shape of the terms, (5, 3), or of their first axes, got shape (5, 1)": lambda: fn.weighted(fn.MSE())(Y, (T, W[:, None])),
    "weighted(CrossEntropy()): weight must have the shape of the terms, (5,), or of their first axes, got shape (5, 3)": lambda: fn.weighted(fn.CrossEntropy())(Y, (LABELS, EACH)),
    "weighted(MSE()): the weights of a mean must be at least 0; reduction \"sum\" and \"batch\" allow negative weights, got -0.5": lambda: fn.weighted(fn.MSE())(Y, (T, -W[0].expand(5))),
    "MSE(reduction='none'): target must have the shape of y, (5, 3), got shape (5,)": lambda: fn.weighted(fn.MSE())(Y, (W, W)),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the loss, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        REFUSED[message]()
    assert message in str(caught.value)
