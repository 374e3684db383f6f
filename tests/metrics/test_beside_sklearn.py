"""Metrics compared with sklearn's on drawn data with ties and absent classes, added up over batches."""

import math
import warnings

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

import funcnet as fn

quick = settings(max_examples=25, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)


def in_batches(metric, y, target, seed):
    """Return the value for rows that are split at random places."""
    ends = sorted(numpy.random.default_rng(seed).integers(0, len(target) + 1, 3))
    total = metric.start()
    for rows in torch.arange(len(target)).tensor_split([int(end) for end in ends]):
        total = metric.add(total, y[rows], target[rows])
    return metric.value(total)


def drawn(seed, classes):
    """Draw 1 to 30 rows of predicted and true classes, some of which may be absent."""
    rng = numpy.random.default_rng(seed)
    rows, most = rng.integers(1, 31), rng.integers(1, classes + 1)
    return rng.integers(0, classes, rows), rng.integers(0, most, rows)


def agrees(got, want):
    """Assert that a value is sklearn's, NaN included."""
    numpy.testing.assert_allclose(got.numpy(), want, rtol=1e-12, atol=1e-12)


def silent(function, *arguments, **options):
    """Call a function of sklearn without its warnings about absent classes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments, **options)


SCORES = {
    fn.Precision: sk.precision_score,
    fn.Recall: sk.recall_score,
    fn.F1: sk.f1_score,
    fn.IoU: sk.jaccard_score,
}


@quick
@given(
    SEEDS,
    st.sampled_from([*SCORES]),
    st.sampled_from(["macro", "micro", "weighted", None]),
    st.sampled_from([0.0, 1.0]),
    st.integers(2, 5),
)
def test_scores_of_labels_are_sklearns(seed, kind, average, zero, classes):
    """Every average and every value for 0 / 0 agrees, with all classes in ``labels``."""
    said, true = drawn(seed, classes)
    options = {"average": average, "zero_division": zero, "labels": range(classes)}
    got = in_batches(kind(average, num_classes=classes, zero_division=zero), torch.tensor(said), torch.tensor(true), seed)
    agrees(got, silent(SCORES[kind], true, said, **options))


@quick
@given(SEEDS, st.sampled_from(["macro", None]), st.integers(2, 5))
def test_what_divides_by_zero_may_be_left_out(seed, average, classes):
    """Precision and recall leave it out where sklearn gives NaN."""
    said, true = drawn(seed, classes)
    for kind in (fn.Precision, fn.Recall):
        got = in_batches(kind(average, num_classes=classes, zero_division=None), torch.tensor(said), torch.tensor(true), seed)
        options = {"average": average, "zero_division": numpy.nan, "labels": range(classes)}
        agrees(got, silent(SCORES[kind], true, said, **options))


@quick
@given(SEEDS, st.sampled_from([*SCORES]), st.sampled_from(["macro", "micro", "weighted", None]), st.floats(-1, 1))
def test_scores_of_many_labels_are_sklearns(seed, kind, average, threshold):
    """Each column above a threshold is a label by itself."""
    rng = numpy.random.default_rng(seed)
    y, true = rng.normal(size=(11, 3)), rng.integers(0, 2, (11, 3))
    got = in_batches(kind(average, multilabel=True, threshold=threshold), torch.tensor(y), torch.tensor(true), seed)
    agrees(got, silent(SCORES[kind], true, y > threshold, average=average, zero_division=0.0))


@quick
@given(SEEDS, st.sampled_from([0.5, 1.0, 2.0]))
def test_binary_scores_are_sklearns(seed, beta):
    """Logits are in one column, and both classes are scored."""
    rng = numpy.random.default_rng(seed)
    y, true = rng.normal(size=11), rng.integers(0, 2, 11)
    want = silent(sk.fbeta_score, true, y > 0, beta=beta, zero_division=0.0)
    agrees(in_batches(fn.FBeta(beta=beta), torch.tensor(y)[:, None], torch.tensor(true), seed), want)
    both = torch.tensor(numpy.stack((0 * y, y), 1))
    agrees(in_batches(fn.FBeta("binary", beta=beta), both, torch.tensor(true), seed), want)


@quick
@given(SEEDS, st.integers(2, 5))
def test_what_comes_from_the_confusion_matrix_is_sklearns(seed, classes):
    """The matrix and its shares, balanced accuracy, kappa with every weight, and Matthews' correlation agree."""
    said, true = drawn(seed, classes)
    y, t, labels = torch.tensor(said), torch.tensor(true), range(classes)
    for normalize in (None, "true", "pred", "all"):
        want = silent(sk.confusion_matrix, true, said, labels=labels, normalize=normalize)
        agrees(in_batches(fn.ConfusionMatrix(classes, normalize), y, t, seed), want)
    agrees(in_batches(fn.BalancedAccuracy(classes), y, t, seed), silent(sk.balanced_accuracy_score, true, said))
    agrees(in_batches(fn.MatthewsCorrelation(classes), y, t, seed), silent(sk.matthews_corrcoef, true, said))
    for weights in (None, "linear", "quadratic"):
        want = silent(sk.cohen_kappa_score, true, said, weights=weights, labels=labels)
        agrees(in_batches(fn.CohenKappa(classes, weights=weights), y, t, seed), want)
    agrees(in_batches(fn.Accuracy(num_classes=classes), y, t, seed), sk.accuracy_score(true, said))


@quick
@given(SEEDS, st.integers(1, 4))
def test_top_k_is_sklearns(seed, k):
    """The outputs have no ties."""
    rng = numpy.random.default_rng(seed)
    y, true = rng.normal(size=(9, 4)), rng.integers(0, 4, 9)
    want = silent(sk.top_k_accuracy_score, true, y, k=k, labels=range(4))
    agrees(in_batches(fn.Accuracy(k), torch.tensor(y), torch.tensor(true), seed), want)


def test_of_equal_outputs_the_first_are_the_largest():
    """Therefore top_k counts no more than k of them, and top 1 is argmax."""
    y = torch.zeros(4, 4)
    assert [fn.Accuracy(k)(y, torch.arange(4)).item() for k in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1.0]


def ranked(seed, columns):
    """Draw scores with ties, and targets with both classes in each column."""
    rng = numpy.random.default_rng(seed)
    rows = rng.integers(4, 40)
    true = rng.integers(0, 2, (rows, columns))
    true[:2] = [[0], [1]]
    return rng.normal(size=(rows, columns)).round(rng.integers(0, 3)), true


@quick
@given(SEEDS, st.sampled_from(["macro", "micro", "weighted", None]))
def test_areas_are_sklearns_with_ties(seed, average):
    """Each label is scored by itself, with every average."""
    y, true = ranked(seed, 3)
    for kind, theirs in ((fn.AUROC, sk.roc_auc_score), (fn.AveragePrecision, sk.average_precision_score)):
        got = in_batches(kind(average=average), torch.tensor(y), torch.tensor(true), seed)
        agrees(got, theirs(true, y, average=average))


@quick
@given(SEEDS, st.integers(2, 12))
def test_between_thresholds_scores_are_ties(seed, n):
    """The area is sklearn's for the number of thresholds that each probability reaches."""
    y, true = ranked(seed, 1)
    p = 1 / (1 + numpy.exp(-y))
    reached = (p[:, :1] >= numpy.linspace(0, 1, n)).sum(1)
    for kind, theirs in ((fn.AUROC, sk.roc_auc_score), (fn.AveragePrecision, sk.average_precision_score)):
        agrees(in_batches(kind(n), torch.tensor(y), torch.tensor(true), seed), theirs(true[:, 0], reached))
        agrees(in_batches(kind(n, from_logits=False), torch.tensor(p), torch.tensor(true), seed), theirs(true[:, 0], reached))


@quick
@given(SEEDS, st.sampled_from(["macro", "weighted"]))
def test_the_area_of_classes_is_sklearns_one_against_the_rest(seed, average):
    """The scores are logits, and sklearn gets their softmax."""
    rng = numpy.random.default_rng(seed)
    y, true = rng.normal(size=(14, 3)), numpy.append(numpy.arange(3), rng.integers(0, 3, 11))
    want = sk.roc_auc_score(true, torch.tensor(y).softmax(1).numpy(), multi_class="ovr", average=average)
    agrees(in_batches(fn.AUROC(average=average), torch.tensor(y), torch.tensor(true), seed), want)


def test_a_label_of_one_kind_has_no_area():
    """The area is NaN, and averages leave it out; infinite scores are the largest."""
    y = torch.tensor([[1.0, -torch.inf], [2.0, 0.0], [3.0, torch.inf]])
    true = torch.tensor([[1, 0], [1, 1], [1, 1]])
    each = fn.AUROC(average=None)(y, true)
    assert each.isnan().tolist() == [True, False]
    assert [fn.AUROC(average=average)(y, true).item() for average in ("macro", "weighted")] == [1.0, 1.0]
    assert fn.AUROC(10)(y, true).item() == 1.0


@quick
@given(SEEDS, st.sampled_from(["uniform_average", "variance_weighted", "raw_values"]))
def test_regression_is_sklearns(seed, multioutput):
    """There are two outputs, one of which may be constant."""
    rng = numpy.random.default_rng(seed)
    y, target = rng.normal(size=(9, 2)), rng.normal(size=(9, 2)) * rng.integers(0, 2, 2) + 0.125
    a, b = torch.tensor(y), torch.tensor(target)
    agrees(in_batches(fn.R2(multioutput), a, b, seed), sk.r2_score(target, y, multioutput=multioutput))
    want = sk.explained_variance_score(target, y, multioutput=multioutput)
    agrees(in_batches(fn.ExplainedVariance(multioutput), a, b, seed), want)
    agrees(in_batches(fn.MeanAbsoluteError(), a, b, seed), sk.mean_absolute_error(target, y))
    agrees(in_batches(fn.MeanSquaredError(), a, b, seed), sk.mean_squared_error(target, y))
    agrees(in_batches(fn.RootMeanSquaredError(), a[:, 0], b[:, 0], seed), sk.root_mean_squared_error(target[:, 0], y[:, 0]))


def test_r2_is_stable_far_from_zero():
    """At 2³⁰ with a spread of 1, Σ t² - (Σ t)² / n loses all digits; the metric keeps seven. Constants have no variance."""
    near = (torch.linspace(-1, 1, 101, dtype=torch.float64) * 2**20).round() / 2**20
    y, target = near.roll(1) + 2**30, near + 2**30
    want = fn.R2()(near.roll(1), near).item()
    total = fn.R2().start()
    for rows in torch.arange(101).split(9):
        total = fn.R2().add(total, y[rows], target[rows])
    assert fn.R2().value(total).item() == pytest.approx(want, rel=1e-7)
    tenths = torch.full((7,), 0.1, dtype=torch.float64)
    total = fn.R2().add(fn.R2().add(fn.R2().start(), tenths + 1e-9, tenths), tenths, tenths)
    assert (fn.R2().value(total).item(), fn.R2()(tenths, tenths).item()) == (0.0, 1.0)


@quick
@given(SEEDS, st.sampled_from(["l1", "l2", "max"]), st.integers(1, 7))
def test_calibration_is_its_formula(seed, norm, bins):
    """The formula is a loop over intervals, for several classes and for one column."""
    rng = numpy.random.default_rng(seed)
    y, true = rng.normal(size=(20, 3)), rng.integers(0, 3, 20)
    p = torch.tensor(y).softmax(1).numpy()
    judged = [(p.max(1), p.argmax(1) == true, torch.tensor(y), torch.tensor(true))]
    one = torch.tensor(y[:, :1])
    judged += [(one.sigmoid().numpy()[:, 0], true > 0, one, torch.tensor(true > 0))]
    for confidence, right, outputs, target in judged:
        parts = [(confidence >= i / bins) & (confidence < (i + 1) / bins) for i in range(bins)]
        apart = [(part.mean(), abs(right[part].mean() - confidence[part].mean())) for part in parts if part.any()]
        want = {
            "l1": sum(share * gap for share, gap in apart),
            "l2": math.sqrt(sum(share * gap**2 for share, gap in apart)),
            "max": max(gap for _, gap in apart),
        }
        agrees(in_batches(fn.CalibrationError(bins, norm), outputs, target, seed), want[norm])


@quick
@given(SEEDS)
def test_perplexity_is_that_of_log_loss(seed):
    """Ignored labels are among them."""
    rng = numpy.random.default_rng(seed)
    y, true = torch.tensor(rng.normal(size=(9, 3))), numpy.append(numpy.arange(3), rng.integers(0, 3, 6))
    want = math.exp(sk.log_loss(true[:7], y[:7].softmax(1).numpy(), labels=range(3)))
    target = torch.tensor(true).index_fill(0, torch.tensor([7, 8]), -100)
    agrees(in_batches(fn.Perplexity(), y, target, seed), want)
