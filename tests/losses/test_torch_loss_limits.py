"""Limits of losses: at 0, infinities and NaN, at kinks, for huge and tiny numbers; and refused arguments."""

import math
import re

import mpmath
import pytest
import torch
from drawn import normal
from torch.func import grad, vmap

import funcnet as fn

INF, NAN = math.inf, math.nan


def everywhere(loss, y, target):
    """Return the terms and their slopes in eager mode, under vmap, and by ``torch.func``, which must agree."""
    loss = loss.replace(reduction="none")
    value, gy = loss.value_and_grad(y, target)
    mapped = vmap(loss.value_and_grad)(y[None], target[None])
    torch.testing.assert_close(mapped, (value[None], gy[None]), equal_nan=True)
    torch.testing.assert_close(grad(lambda y: loss(y, target).sum())(y), gy, equal_nan=True)
    if target.is_floating_point():
        gtarget = loss.as_layer().vjp({}, loss.as_layer().apply({}, (y, target))[1], torch.ones_like(value))[1][1]
        found = grad(lambda target: loss(y, target).sum())(target)
        torch.testing.assert_close(found, gtarget, equal_nan=True)
    return value.tolist(), gy.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_cosh_is_exact(dtype):
    """The error is a few units in the last place for 1e-18 to the largest number; cosh itself overflows from 89 on."""
    y = torch.cat([10.0 ** torch.arange(-18, 38, dtype=dtype), torch.linspace(0.5, 1.5, 41, dtype=dtype)])
    with mpmath.workdps(120):
        want = [float(abs(d) + mpmath.log1p(mpmath.expm1(-2 * d) / 2)) for d in map(mpmath.mpf, y.tolist())]
    value = fn.LogCosh("none")(y, torch.zeros_like(y))
    torch.testing.assert_close(value, torch.tensor(want, dtype=dtype), rtol=4 * torch.finfo(dtype).eps, atol=1e-37)
    assert everywhere(fn.LogCosh(), torch.tensor([INF, -INF, 0.0]), torch.zeros(3)) == ([INF, INF, 0.0], [1.0, -1.0, 0.0])


def test_huber_and_smooth_l1_at_kinks_and_infinities():
    """The kernel and the formula both give torch's values."""
    y, zeros = torch.tensor([2.0, -2.0, 1.0, INF, -INF, 0.0]), torch.zeros(6)
    assert everywhere(fn.Huber(delta=2.0), y, zeros) == ([2.0, 2.0, 0.5, INF, INF, 0.0], [2.0, -2.0, 1.0, 2.0, -2.0, 0.0])
    assert everywhere(fn.SmoothL1(beta=2.0), y, zeros) == ([1.0, 1.0, 0.25, INF, INF, 0.0], [1.0, -1.0, 0.5, 1.0, -1.0, 0.0])
    assert everywhere(fn.SmoothL1(beta=0), y, zeros) == ([2.0, 2.0, 1.0, INF, INF, 0.0], [1.0, -1.0, 1.0, 1.0, -1.0, 0.0])


def test_smooth_l1_neither_overflows_nor_underflows():
    """Huge and tiny β are tried; torch has ∞ and 0."""
    (huge,), (slope,) = everywhere(fn.SmoothL1(beta=1e30), torch.tensor([1e25]), torch.zeros(1))
    assert (huge, slope) == (pytest.approx(5e19, rel=1e-6), pytest.approx(1e-5, rel=1e-6))
    (tiny,), (slope,) = everywhere(fn.SmoothL1(beta=1e-30), torch.tensor([1e-31]), torch.zeros(1))
    assert (tiny, slope) == (pytest.approx(5e-33, rel=1e-6), pytest.approx(0.1, rel=1e-6))


def test_what_is_impossible_and_does_not_occur_has_no_divergence():
    """A target probability of 0 adds 0, even if the log-probability is ±∞ or targets are logarithms; torch has NaN."""
    y, t = torch.tensor([-INF, INF, -2.0, -INF]), torch.tensor([0.0, 0.0, 0.0, 0.5])
    assert everywhere(fn.KLDiv(), y, t) == ([0.0, 0.0, 0.0, INF], [0.0, 0.0, 0.0, -0.5])
    logs = torch.tensor([-INF, -200.0, -INF, 0.0])
    assert everywhere(fn.KLDiv(log_target=True), y, logs) == ([0.0, 0.0, 0.0, INF], [0.0, 0.0, 0.0, -1.0])
    assert everywhere(fn.GeneralizedKL(), y[[0, 2]], t[[0, 2]])[0] == [0.0, pytest.approx(math.exp(-2))]


def test_the_gradient_of_a_target_passes_a_softmax_with_masked_classes():
    """If a target probability is exactly 0, the gradient of its logits is 0, and the others are finite."""
    softmax, logits = fn.Softmax(dim=0), torch.tensor([0.5, 1.0, -INF])
    t, cache = softmax.apply({}, logits)
    layer = fn.KLDiv("sum").as_layer()
    value, kept = layer.apply({}, (torch.tensor([-1.0, -0.5, -INF]), t))
    gtarget = layer.vjp({}, kept, torch.ones(()))[1][1]
    glogits = softmax.input_grad({}, cache, gtarget)
    assert value.isfinite()
    assert glogits.isfinite().all()
    assert glogits[2] == 0


def test_counts_at_rates_of_0_and_infinity():
    """Count 0 at rate 0 costs 0, any other count there ∞, and an infinite rate costs ∞; torch has NaN for three of them."""
    y, t = torch.tensor([-INF, -INF, INF, INF]), torch.tensor([0.0, 2.0, 0.0, 2.0])
    assert everywhere(fn.PoissonNLL(), y, t) == ([0.0, INF, INF, INF], [0.0, -2.0, INF, INF])
    values, slopes = everywhere(fn.PoissonNLL(log_input=False), torch.tensor([0.0, INF, INF]), torch.tensor([0.0, 0.0, 2.0]))
    assert (values, slopes) == ([0.0, INF, INF], [1.0, 1.0, 1.0])


def test_poly_cross_entropy_of_masked_and_certain_classes():
    """A logit of -∞ with target 0 costs nothing, and a logit of ∞ is certain."""
    y, t = torch.tensor([[-INF, 1.0, 1.0], [INF, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    for target in (t, t.argmax(1)):
        value, gy = fn.PolyCrossEntropy(1.0, "none").value_and_grad(y, target)
        torch.testing.assert_close(value, torch.tensor([math.log(2) + 0.5, 0.0]))
        torch.testing.assert_close(gy, torch.tensor([[0.0, -0.75, 0.75], [0.0, 0.0, 0.0]]))


@pytest.mark.parametrize("loss", [fn.SoftMargin(), fn.HingeEmbedding(), fn.Hinge()], ids=str)
def test_nan_is_not_hidden_by_signs(loss):
    """NaN in y is not hidden; a target of NaN has no sign, and is refused."""
    assert loss(torch.tensor([NAN, 1.0]), torch.tensor([-1.0, 1.0])).isnan()
    for target in ([NAN, 1.0], [0.0, 1.0]):
        with pytest.raises(ValueError, match="target must hold -1 and 1"):
            loss(torch.ones(2), torch.tensor(target))


def test_soft_margin_of_large_scores():
    """The loss is linear on the wrong side, where torch overflows from 89 on, and 0 on the right one."""
    y, t = torch.tensor([1e30, -1e30, INF, -INF, 104.0]), torch.tensor([-1, 1, 1, 1, -1])
    assert everywhere(fn.SoftMargin(), y, t) == ([y[0].item(), y[0].item(), 0.0, INF, 104.0], [1.0, -1.0, 0.0, -1.0, 1.0])
    assert fn.SoftMargin()(torch.tensor([30.0]), torch.tensor([1])).item() == pytest.approx(math.exp(-30), rel=1e-6)
    layer = fn.SoftMargin("sum").as_layer()
    kept = layer.apply({}, (torch.tensor([INF, -INF]), torch.ones(2)))[1]
    assert layer.vjp({}, kept, torch.ones(()))[1][1].tolist() == [0.0, INF]


def test_hinge_embedding_on_its_kink():
    """At y = margin the slope is torch's, -1."""
    y, t = torch.tensor([1.0, 0.0, 2.0, -INF, INF]), torch.tensor([-1, 1, -1, -1, -1])
    assert everywhere(fn.HingeEmbedding(), y, t) == ([0.0, 0.0, 0.0, INF, 0.0], [-1.0, 1.0, 0.0, -1.0, 0.0])


def test_normal_numbers_far_away_do_not_overflow():
    """d² may exceed the largest number where d²/v does not; torch has ∞."""
    y = torch.tensor([1e25]), torch.tensor([1e30])
    value, (gmean, gvar) = fn.GaussianNLL().value_and_grad(y, torch.zeros(1))
    assert value.item() == pytest.approx(0.5 * (math.log(1e30) + 1e20), rel=1e-6)
    assert gmean.item() == pytest.approx(1e-5, rel=1e-6)
    assert gvar.item() == pytest.approx(-0.5e-10, rel=1e-6)


@pytest.mark.parametrize("var", [0.0, 1e-9])
def test_a_variance_below_eps_has_the_gradient_at_eps(var):
    """``value_and_grad`` and autograd agree with torch."""
    mean, v, target = (torch.tensor([one], dtype=torch.float64) for one in (1.0, var, 0.5))
    loss = fn.GaussianNLL(eps=1e-3)
    value, gy = loss.value_and_grad((mean, v), target)
    assert torch.equal(value, loss((mean, torch.full_like(v, 1e-3)), target))
    assert gy[1].item() == pytest.approx(0.5 * (1e3 - 0.25e6))
    torch.testing.assert_close(grad(lambda v: loss((mean, v), target))(v), gy[1])


def test_a_negative_variance_and_labels_out_of_range_are_nan_where_they_cannot_be_read():
    """Under ``vmap`` they give NaN; in eager mode they raise an error."""
    assert vmap(fn.GaussianNLL())((torch.zeros(2, 1), torch.tensor([[1.0], [-1.0]])), torch.zeros(2, 1)).isnan().tolist() == [
        False,
        True,
    ]
    assert vmap(fn.HingeEmbedding())(torch.zeros(2), torch.tensor([1, 0])).isnan().tolist() == [False, True]


def test_nll_of_ignored_rows_and_of_classes_without_weight():
    """Ignored rows may hold NaN, and a class of weight 0 a log-probability of -∞; if nothing counts, the mean is 0."""
    y = torch.tensor([[NAN, 0.0], [-INF, -1.0], [-3.0, -2.0]])
    value, gy = fn.NLL((0.0, 2.0)).value_and_grad(y, torch.tensor([-100, 0, 1]))
    assert (value.item(), gy.tolist()) == (2.0, [[0.0, 0.0], [0.0, 0.0], [0.0, -1.0]])
    for loss, labels in ((fn.NLL(), [-100, -100, -100]), (fn.NLL((0.0, 1.0)), [0, 0, 0])):
        value, gy = loss.value_and_grad(y, torch.tensor(labels))
        assert (value.item(), gy.any().item()) == (0.0, False)


OF_NUMBERS = [
    fn.Huber(),
    fn.SmoothL1(),
    fn.LogCosh(),
    fn.KLDiv(),
    fn.KLDiv(log_target=True),
    fn.GeneralizedKL(),
    fn.PoissonNLL(),
    fn.MultiLabelSoftMargin(),
    fn.PoissonNLL(log_input=False, full=True),
]


@pytest.mark.parametrize("loss", OF_NUMBERS, ids=str)
def test_nan_is_not_hidden(loss):
    """NaN in the target counts, and NaN in y even if the target is 0."""
    for y, target in (([NAN, 1.0], [0.0, 1.0]), ([0.5, NAN], [0.0, 1.0]), ([0.5, 1.0], [NAN, 1.0])):
        assert loss(torch.tensor(y), torch.tensor(target)).isnan()


@pytest.mark.parametrize(
    "loss", [fn.Huber(), fn.LogCosh("batch"), fn.SmoothL1(), fn.SoftMargin(), fn.PoissonNLL(log_input=False), fn.MSE()], ids=str
)
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_rounded_once(loss, half):
    """Value and both gradients match float32's, rounded; nothing is rounded before."""
    y, target = (normal(seed, 300, 30).abs().mul(10).to(half) for seed in (1, 2))
    g = torch.tensor(0.7, dtype=half)
    layer = loss.as_layer()
    (value, cache), (want, kept) = layer.apply({}, (y, target)), layer.apply({}, (y.float(), target.float()))
    got, right = layer.vjp({}, cache, g)[1], layer.vjp({}, kept, g.float())[1]
    assert torch.equal(value, want.to(half))
    for one, other in zip(got, right, strict=True):
        assert torch.equal(one, other.to(half))


def test_members_in_half_precision_do_not_overflow():
    """The losses of an ensemble are summed in float32 too."""
    y = torch.full((2, 300, 300), 10.0, dtype=torch.float16)
    value, gy = fn.ensemble(fn.MSE(), 2).value_and_grad(y, torch.zeros_like(y[0]))
    assert value.tolist() == [100.0, 100.0]
    assert torch.equal(gy[0], fn.MSE().value_and_grad(y[0], torch.zeros_like(y[0]))[1])


@pytest.mark.compiled
def test_compiled_losses_have_the_limits():
    """The limits at infinities and zeros match eager mode."""
    edge = torch.tensor([-INF, INF, 0.0, 100.0, -100.0])
    zero_or_one = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0])
    losses = [fn.KLDiv("none"), fn.PoissonNLL(reduction="none"), fn.LogCosh("none"), fn.SmoothL1("none", 0.5)]

    def run(y, target):
        return [loss.value_and_grad(y, target) for loss in losses]

    torch.testing.assert_close(torch.compile(run, fullgraph=True)(edge, zero_or_one), run(edge, zero_or_one))


def test_a_shared_variance_is_not_disturbed_by_terms_that_count_for_nothing():
    """Such terms have weight 0 and NaN; a variance that only they share has the gradient 0."""
    mean, var, target = torch.tensor([[1.0, NAN], [NAN, NAN]]), torch.tensor([[2.0], [NAN]]), torch.zeros(2, 2)
    weights = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    value, gy = fn.weighted(fn.GaussianNLL()).value_and_grad((mean, var), (target, weights))
    want, (gmean, gvar) = fn.GaussianNLL().value_and_grad((mean[:1, :1], var[:1]), target[:1, :1])
    assert (value, gy[0].tolist(), gy[1].tolist()) == (want, [[gmean.item(), 0.0], [0.0, 0.0]], [[gvar.item()], [0.0]])


def test_weights_of_rows_leave_out_their_last_axis():
    """The axes are not confused even if y has as many rows as classes."""
    y, target, weights = normal(1, 2, 3, 3), normal(2, 2, 3, 3).sigmoid(), torch.ones(2, 3, dtype=torch.float64)
    y[0, 1], weights[0, 1] = NAN, 0.0
    gy = fn.weighted(fn.MultiLabelSoftMargin(reduction="sum")).value_and_grad(y, (target, weights))[1]
    want = fn.MultiLabelSoftMargin(reduction="sum").value_and_grad(y, target)[1]
    want[0, 1] = 0.0
    torch.testing.assert_close(gy, want)


def test_cosine_distance_of_zeros_and_of_huge_vectors():
    """A zero vector is orthogonal to all, with a finite gradient, and squares do not overflow."""
    y, target = torch.tensor([[0.0, 0.0], [1e30, 0.0]]), torch.tensor([[1.0, 0.0], [1e30, 1e30]])
    value, gy = fn.CosineDistance(reduction="none").value_and_grad(y, target)
    torch.testing.assert_close(value, torch.tensor([1.0, 1 - 0.5**0.5]))
    assert gy.isfinite().all()


X, LABELS = torch.zeros(4, 3), torch.tensor([0, 1, 2, 0])
WORDS = {
    "Huber: delta must be a finite number above 0, got 0": lambda: fn.Huber(delta=0),
    "SmoothL1: beta must be a finite number at least 0, got -1.0": lambda: fn.SmoothL1(beta=-1.0),
    "Huber(): target must have the shape of y, (4, 3), got shape (3,)": lambda: fn.Huber()(X, X[0]),
    "KLDiv: reduction must be one of 'mean', 'sum', 'none', 'batch', got 'rows'": lambda: fn.KLDiv("rows"),
    "PoissonNLL: eps must be a finite number above 0, got 0.0": lambda: fn.PoissonNLL(eps=0.0),
    "GaussianNLL(): y must be a pair (mean, var) of dense floating tensors, got a tensor of shape (4, 3) and dtype torch.float32": lambda: fn.GaussianNLL()(X, X),
    "GaussianNLL(): mean and var must have one dtype and device, got torch.float32 on cpu and torch.float64 on cpu": lambda: fn.GaussianNLL()((X, X.double()), X),
    "GaussianNLL(): var must have the shape of mean, (4, 3), or one axis of size 1, or no last axis, got shape (3,)": lambda: fn.GaussianNLL()((X, X[0]), X),
    "GaussianNLL(): var must have the shape of mean, (4, 3), or one axis of size 1, or no last axis, got shape (1, 1)": lambda: fn.GaussianNLL()((X, X[:1, :1]), X),
    "GaussianNLL(): var must hold variances of at least 0, got -1": lambda: fn.GaussianNLL()((X, X - 1), X),
    "GaussianNLL(): target must have the shape of y, (4, 3), got shape (4,)": lambda: fn.GaussianNLL()((X, X), LABELS),
    "CosineDistance(dim=2): y must have an axis dim=2 of features, got a tensor of shape (4, 3) and dtype torch.float32": lambda: fn.CosineDistance(2)(X, X),
    "PolyCrossEntropy(): every label must be from 0 to 2, got 12": lambda: fn.PolyCrossEntropy()(X, torch.tensor([0, 1, 12, 0])),
    "PolyCrossEntropy(): every label must be from 0 to 2, got -1": lambda: fn.PolyCrossEntropy()(X, LABELS - 1),
    "PolyCrossEntropy: epsilon must be a finite number at least -1, got -2": lambda: fn.PolyCrossEntropy(-2),
    "SoftMargin(): target must hold -1 and 1, got torch.bool": lambda: fn.SoftMargin()(X, X > 0),
    "SoftMargin(): target must hold -1 and 1, got numbers from 0 to 1": lambda: fn.SoftMargin()(X[:, 0], LABELS // 2),
    "SoftMargin(): target must have the shape of y, (4, 3), got shape (4,)": lambda: fn.SoftMargin()(X, LABELS > 0),
    "HingeEmbedding(): target must hold -1 and 1, got numbers from 0 to 0": lambda: fn.HingeEmbedding()(X, 0 * X),
    "HingeEmbedding(): target must hold -1 and 1, got numbers from nan to nan": lambda: fn.HingeEmbedding()(X, NAN * X),
    "HingeEmbedding(): target must hold -1 and 1, got numbers from 1 to 3": lambda: fn.HingeEmbedding()(X[:, 0], LABELS + 1),
    "HingeEmbedding(): target must hold -1 and 1, got torch.bool": lambda: fn.HingeEmbedding()(X[:, 0], LABELS > 0),
    "MultiLabelSoftMargin(weight=(1.0, 2.0)): weight must have one number for each of the 3 classes, got 2 numbers": lambda: fn.MultiLabelSoftMargin((1.0, 2.0))(X, X),
    "MultiLabelSoftMargin(): the last axis of y must hold one or more classes, got a tensor of shape () and dtype torch.float32": lambda: fn.MultiLabelSoftMargin()(X[0, 0], X[0, 0]),
    "NLL(): labels must be integers of shape (4,), the shape of y (4, 3) without axis 1, the classes, got a tensor of shape (4, 3) and dtype torch.float32": lambda: fn.NLL()(X, X),
    "NLL(): every label must be from 0 to 2, or ignore_index=-100, got 12": lambda: fn.NLL()(X, torch.tensor([0, 1, 12, 0])),
    "NLL(weight=(0.0, 1.0, 2.0)): every label must be from 0 to 2, or ignore_index=-100, got -1": lambda: fn.NLL((0.0, 1.0, 2.0))(X, LABELS - 1),
}  # fmt: skip


@pytest.mark.parametrize("message", WORDS)
def test_misuse_is_explained(message):
    """The message names the loss, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        WORDS[message]()


def test_torchs_word_for_batch_is_taken():
    """``batchmean`` is accepted; the repr has our word."""
    assert repr(fn.KLDiv("batchmean")) == "KLDiv(reduction='batch')"


def test_arguments_are_in_torchs_order():
    """Only deprecated arguments are missing."""
    assert repr(fn.PoissonNLL(True, False, 1e-8, "mean")) == "PoissonNLL()"
    assert repr(fn.NLL(None, -100, "mean")) == "NLL()"
    assert repr(fn.HingeEmbedding(1.0, "mean")) == "HingeEmbedding()"
    assert repr(fn.GaussianNLL(False, 1e-6, "mean")) == "GaussianNLL()"
    assert repr(fn.MultiLabelSoftMargin(None, "mean")) == "MultiLabelSoftMargin()"
