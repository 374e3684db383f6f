"""The contract of metrics: totals add up, for every metric and in every mode; and refused arguments."""

import pickle
import warnings
from functools import reduce

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metrics.metric_cases import CASES, CLASSES, IMAGES, NUMBERS, PIXELS, SAID, T1, TRUE, Y1, N, T, Y, first

import funcnet as fn
from funcnet.testing import check_metric
from funcnet.value import Value

EXACT = ("accuracy", "top", "matrix", "recall", "AUROC", "IoU", "FBeta")


@pytest.mark.parametrize("name", CASES)
def test_a_metric_keeps_the_contract(name):
    """Batches add up, totals merge in any order, nothing is written in place, and it works with vmap and pickle."""
    check_metric(*CASES[name])


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_split_and_any_order_of_merges_give_the_value_of_the_whole(data):
    """Totals are merged in a random tree; counts agree bit for bit."""
    name = data.draw(st.sampled_from([*CASES]))
    metric, y, target = CASES[name]
    rows = torch.tensor(data.draw(st.permutations(range(N))))
    ends = sorted(data.draw(st.lists(st.integers(0, N), max_size=5)))
    parts = [metric.add(metric.start(), y[at], target[at]) for at in rows.tensor_split(ends)]
    while len(parts) > 1:
        one = parts.pop(data.draw(st.integers(0, len(parts) - 1)))
        other = parts.pop(data.draw(st.integers(0, len(parts) - 1)))
        parts.append(metric.merge(one, other))
    tight = {"rtol": 0.0, "atol": 0.0} if any(word in name for word in EXACT) else {"rtol": 1e-12, "atol": 1e-12}
    fn.testing.assert_close(metric.value(parts[0]), metric(y, target), **tight, equal_nan=True)


def test_every_public_metric_is_tried():
    """Each one is in the cases above."""
    kinds = {type(part) for case in CASES.values() for part in getattr(case[0], "metrics", case[:1])}
    public = {kind for kind in vars(fn).values() if isinstance(kind, type) and issubclass(kind, fn.Metric)}
    assert public - kinds == {fn.Metric}


def test_metrics_work_on_the_meta_device():
    """Totals and values have the shapes and dtypes of those in memory."""
    for metric, y, target in CASES.values():
        there = metric.add(metric.add(metric.start(), y.to("meta"), target.to("meta")), y.to("meta"), target.to("meta"))
        here = metric.add(metric.add(metric.start(), y, target), y, target)
        for a, b in zip(fn.tree.leaves((there, metric.value(there))), fn.tree.leaves((here, metric.value(here))), strict=True):
            assert (a.is_meta, a.shape, a.dtype) == (True, b.shape, b.dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_outputs_are_those_of_float32(dtype):
    """The values agree bit for bit: nothing is computed in half precision."""
    for name, (metric, y, target) in CASES.items():
        if y.is_floating_point() and not isinstance(metric, fn.Average):
            assert fn.tree.equal(metric(y.to(dtype), target), metric(y.to(dtype).float(), target)), name


@pytest.mark.compiled
def test_compiled_metrics_give_the_bits_of_eager_ones():
    """Each metric compiles to one graph, in which no value is read."""
    chosen = ["accuracy", "top two", "confusion matrix", "binary F1", "AUROC between thresholds", "calibration", "R2", "AUROC"]
    for name in chosen:
        metric, y, target = CASES[name]
        step = torch.compile(
            lambda total, y, target, m=metric: m.value(m.add(total, y, target)), fullgraph=True, backend="aot_eager"
        )
        total = metric.add(metric.start(), y, target)
        torch.testing.assert_close(step(total, y, target), metric.value(metric.add(total, y, target)), rtol=0, atol=0)
    torch._dynamo.reset()


def test_counts_do_not_stop_where_float32_does():
    """2²⁴ + 1 right answers of 2²⁴ + 2 give the exact share."""
    metric, many = fn.Accuracy(), 2**24
    total = {"right": torch.tensor(many), "counted": torch.tensor(many)}
    for label in (0, 1):
        total = metric.add(total, torch.tensor([[1.0, 0.0]]), torch.tensor([label]))
    assert [leaf.item() for leaf in total.values()] == [many + 1, many + 2]
    assert metric.value(total).item() == (many + 1) / (many + 2)
    for metric, y, target in CASES.values():
        leaves = fn.tree.leaves(metric.add(metric.start(), y, target))
        assert all(leaf.dtype in (torch.int64, torch.float64, torch.int8, y.dtype) for leaf in leaves)


def test_totals_hold_no_graph():
    """The outputs may require gradients."""
    for metric, y, target in CASES.values():
        if y.is_floating_point():
            total = metric.add(metric.start(), y.clone().requires_grad_(), target)
            assert not any(leaf.requires_grad for leaf in fn.tree.leaves(total))


def test_a_metric_is_a_value():
    """Its repr evaluates to it, and it pickles."""
    names = vars(fn) | {"SeveralMetrics": type(fn.metrics_of())}
    for metric, _, _ in CASES.values():
        assert eval(repr(metric), names | {"first": first}) == metric == pickle.loads(pickle.dumps(metric))
        assert isinstance(metric, Value)


@pytest.mark.parametrize(
    ("metric", "column"),
    [
        (fn.Accuracy(), "accuracy"),
        (fn.MeanAbsoluteError(), "mean_absolute_error"),
        (fn.AUROC(), "auroc"),
        (fn.IoU(), "iou"),
        (fn.F1(), "f1"),
        (fn.R2(), "r2"),
        (fn.FBeta(), "fbeta"),
        (fn.Accuracy(5, name="top5"), "top5"),
        (fn.Average(fn.accuracy), "accuracy"),
        (fn.Average(fn.MSE()), "MSE()"),
        (fn.metrics_of(part=fn.metrics_of(fn.R2())).metrics[0], "part.r2"),
    ],
)
def test_a_column_has_the_name_of_the_class_or_the_one_given(metric, column):
    """The name of the class is in snake case."""
    assert metric.column == column


def test_before_the_first_batch_there_is_no_value():
    """Means are NaN, and a metric that needs the number of classes raises an error; nothing warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for metric in (fn.Accuracy(), fn.AUROC(), fn.AUROC(5), fn.R2(), fn.MeanAbsoluteError(), fn.CalibrationError(norm="max")):
            assert metric.value(metric.start()).isnan()
    assert fn.ConfusionMatrix(2).value(fn.ConfusionMatrix(2).start()).tolist() == [[0, 0], [0, 0]]
    with pytest.raises(ValueError, match="the number of classes must be known, from a batch or num_classes"):
        fn.CohenKappa().value(fn.CohenKappa().start())


def test_ranks_merge_their_totals():
    """One of the three ranks has no batch."""
    metric = fn.metrics_of(fn.Accuracy(), fn.AUROC(), fn.ConfusionMatrix())
    ranks = [metric.add(metric.start(), Y[:5], T[:5]), metric.start(), metric.add(metric.start(), Y[5:], T[5:])]
    assert fn.tree.equal(metric.value(reduce(metric.merge, ranks)), metric(Y, T))


def test_labels_of_every_integer_type_are_the_same():
    """A label of uint8 is never ignored: 156 is not -100."""
    for metric in (fn.Accuracy(), fn.Accuracy(2), fn.F1(), fn.AUROC(), fn.CalibrationError(), fn.Perplexity()):
        for dtype in (torch.uint8, torch.int8, torch.int32):
            assert torch.equal(metric(Y, TRUE.to(dtype)), metric(Y, TRUE))
    for metric, y in ((fn.F1(), Y), (fn.Accuracy(2), Y), (fn.AUROC(), Y1), (fn.accuracy, Y1), (fn.Accuracy(num_classes=3), SAID)):
        with pytest.raises(ValueError, match="156"):
            metric(y, torch.full((N,), 156, dtype=torch.uint8))


def test_most_totals_are_sums():
    """``tree.add`` merges them, even with totals of no rows; only four metrics have other totals."""
    for metric, y, target in CASES.values():
        exact = isinstance(metric, (fn.AUROC, fn.AveragePrecision)) and metric.thresholds is None
        if not exact and not isinstance(metric, (fn.R2, fn.ExplainedVariance)):
            parts = [metric.total_of(y[rows], target[rows]) for rows in (slice(0, 5), slice(5, 5), slice(5, N))]
            assert fn.tree.equal(reduce(fn.tree.add, parts), reduce(metric.merge, parts))


BAD = torch.tensor([torch.nan] * N)
REFUSED = {
    "Accuracy(): y must be (N, classes, ...), and target (N, ...) or (N, classes, ...), got shapes (12, 3) and (11,)": lambda: fn.Accuracy()(Y, T[1:]),
    "Accuracy(): y and target must be tensors, got a list of 1": lambda: fn.Accuracy()(Y, [1]),
    "Accuracy(): y must not hold NaN, got 12 of 12 numbers NaN": lambda: fn.Accuracy()(BAD[:, None], T1),
    "Accuracy(): every label must be from 0 to 2 or ignore_index=-100, got 3": lambda: fn.Accuracy()(Y, TRUE.clamp_min(2) + 1),
    "Accuracy(): labels must be integers, got a tensor of shape (12,) and dtype torch.float64": lambda: fn.Accuracy()(Y, Y[:, 0]),
    "Accuracy(): num_classes must be given for predicted classes, got num_classes=None": lambda: fn.Accuracy()(SAID, TRUE),
    "an integer y holds predicted classes, and must have the shape of target, got shapes (12,) and (11,)": lambda: fn.Accuracy(num_classes=3)(SAID, TRUE[1:]),
    "Accuracy(num_classes=2): every label must be from 0 to 1": lambda: fn.Accuracy(num_classes=2)(SAID, TRUE),
    "Accuracy(top_k=4): y must have top_k=4 classes or more, got y of shape (12, 3)": lambda: fn.Accuracy(4)(Y, T),
    "ConfusionMatrix(num_classes=4): y must have num_classes=4 classes, got 3": lambda: fn.ConfusionMatrix(4)(Y, T),
    "Precision(multilabel=True): y and target must have the same shape (N, labels, ...), got shapes (12, 3) and (12,)": lambda: fn.Precision(multilabel=True)(Y, T),
    "Precision(multilabel=True): with multilabel=True y must be a floating tensor": lambda: fn.Precision(multilabel=True)(SAID, TRUE),
    "F1(average='binary'): average=\"binary\" must have two classes, got 3": lambda: fn.F1("binary")(Y, T),
    "AUROC(): target must be from 0 to 1, got numbers from 0 to 2": lambda: fn.AUROC()(IMAGES, PIXELS.unsqueeze(1).expand(-1, 3, -1, -1)),
    "AUROC(): y must be a floating tensor": lambda: fn.AUROC()(SAID, TRUE),
    "AUROC(): y must not hold NaN": lambda: fn.AUROC()(BAD, T1),
    "with thresholds and from_logits=False y must hold probabilities from 0 to 1, got numbers from": lambda: fn.AUROC(5, from_logits=False)(Y1, T1),
    "CalibrationError(from_logits=False): with from_logits=False y must hold probabilities from 0 to 1": lambda: fn.CalibrationError(from_logits=False)(Y, T),
    "R2(): y and target must be real, and have the same shape (N, ...), got shapes (12, 1) and (12,)": lambda: fn.R2()(Y1, T1),
    "MeanAbsoluteError(): y and target must be tensors, got 3": lambda: fn.MeanAbsoluteError()(3, Y),
    "F1(): y and target must be dense tensors, got a tensor of layout torch.sparse_coo": lambda: fn.F1()(Y.to_sparse(), T),
    "F1(): y and target must be dense tensors, got a nested tensor": lambda: fn.F1()(torch.nested.nested_tensor([Y[0]], layout=torch.jagged), T),
    "R2(): y and target must be dense tensors, got a nested tensor": lambda: fn.R2()(Y, torch.nested.nested_tensor([Y[0]], layout=torch.jagged)),
    "Perplexity(): y and target must be tensors, got None": lambda: fn.Perplexity()(Y, None),
    "the function must return a number, got a tensor of shape (12, 3)": lambda: fn.Average(torch.sub)(Y, NUMBERS),
    "Average: f must be a function (y, target) -> number, got the class Accuracy; make a value of it, Accuracy(...)": lambda: fn.Average(fn.Accuracy),
    "metrics_of: each must be a metric, or a function (y, target) -> number, got 3": lambda: fn.metrics_of(3),
    "metrics_of: each metric must have its own name, got 'accuracy' twice": lambda: fn.metrics_of(fn.Accuracy(), fn.accuracy),
    "R2(): totals must have the same keys and shapes": lambda: fn.R2().merge(fn.R2().start(), fn.Accuracy().start()),
    "Precision(): totals must have the same keys and shapes": lambda: fn.Precision().add(fn.Precision().total_of(Y, T), Y1, T1),
    "AUROC(): totals must have the same keys and shapes": lambda: fn.AUROC().add(fn.AUROC().total_of(Y, T), Y1, T1),
    "a total must be a dict with the keys 'r2'": lambda: fn.metrics_of(fn.R2()).merge({}, {}),
    "F1: zero_division must be a number from 0 to 1, got 2": lambda: fn.F1(zero_division=2),
    "F1: average must be one of 'macro', 'micro', 'weighted', 'binary', None, got 'mean'": lambda: fn.F1("mean"),
    "Accuracy: name must be a name, got ''": lambda: fn.Accuracy(name=""),
    "accuracy: every label must be from 0 to 2 or ignore_index=-100, got 3": lambda: fn.accuracy(Y, TRUE.clamp_min(2) + 1),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the metric, the rule, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        REFUSED[message]()
    assert message in str(caught.value)


def test_what_is_ignored_may_be_anything():
    """A predicted class may be out of range or NaN in an ignored row."""
    for metric, y, target in CASES.values():
        if y.is_floating_point() and torch.equal(target, T) and not isinstance(metric, fn.Average):
            broken = torch.where((T == -100).unsqueeze(1), torch.nan, y)
            assert fn.tree.equal(metric(broken, T), metric(y, T)), metric
            with pytest.raises(ValueError, match="NaN"):
                (metric if metric.column != "perplexity" else fn.Accuracy())(broken, TRUE)
    said = torch.where(T == -100, 99, SAID)
    assert fn.Accuracy(num_classes=CLASSES)(said, T) == fn.Accuracy(num_classes=CLASSES)(SAID, T)
