"""Means over batches: ``evaluate``, ``fit`` and ``accumulate`` give the value of all rows, for any batch sizes."""

import pytest
import torch
from cases import losses as catalogue
from drawn import normal, shares
from hypothesis import given, settings
from hypothesis import strategies as st

import funcnet as fn
from funcnet import tree
from funcnet.losses.loss import LossLayer

LABELS = torch.tensor([0, 2, 1, -100, 2, -100, -100, 1])
ALL_IGNORED = torch.full((8,), -100)
Y, T, W = normal(1, 8, 3), normal(2, 8, 3), shares(3, 8) * (normal(4, 8) > -0.5)
COUNTED = fn.CrossEntropy((0.5, 1.0, 3.0))
LOSSES = {
    "labels and terms": (fn.weighted(COUNTED) - 0.3 * fn.weighted(fn.CrossEntropy(reduction="sum")), Y, (LABELS, W)),
    "means and sums": (fn.MSE() + 0.5 * fn.L1("sum") + fn.L2("batch"), Y, T),
    "one term": (3 * COUNTED, Y, LABELS),
    "weights": (fn.weighted(fn.MSE()), Y, (T, W)),
    "weights of labels": (fn.weighted(COUNTED), Y, (LABELS, W)),
    "several outputs": (
        fn.losses_of(a=COUNTED, b=(2, fn.weighted(fn.MSE())), c=fn.GaussianKL("batch")),
        {"a": Y, "b": T, "c": (Y, T)},
        {"a": LABELS, "b": (Y, W), "c": None},
    ),
    "no target": (fn.TripletMargin(), (Y, T, Y.flip(0)), None),
    "a prior by default": (fn.GaussianKL(), (Y, T), None),
    "nothing counts": (fn.CrossEntropy(), Y, ALL_IGNORED),
    "nothing counts in a part": (fn.CrossEntropy(ignore_index=1) + 2 * fn.CrossEntropy(), Y, LABELS.clamp(1, 1)),
    "no weight": (fn.weighted(fn.MSE()), Y, (T, torch.zeros(8))),
}
for name, case in catalogue.CASES.items():
    is_mean = isinstance(case.layer, LossLayer) and case.batched and case.layer.loss.reduction != "none"
    if is_mean and not case.layer.loss.batch_dependent and tree.leaves(case.x[1]):
        sizes = {leaf.shape[0] if leaf.dim() else 0 for leaf in tree.leaves(case.x)}
        if len(sizes) == 1 and sizes != {0}:
            LOSSES[name] = (case.layer.loss, *tree.cast(case.x, torch.float64))
"""Losses, each with an output and a target: those of the catalogue, and others that have rows."""


@pytest.mark.parametrize("name", LOSSES)
def test_batches_of_any_size_give_the_value_of_all_rows(name):
    """``evaluate`` and ``fit`` give it as a number, ``accumulate`` for micro-batches, and for each part if there are several."""
    loss, y, target = LOSSES[name]
    want, rows = loss(y, target), len(tree.leaves(y)[0])
    columns = {f"loss.{key}": value.item() for key, (value, _) in loss.parts(y, target).items()}
    columns = {"loss": want.item(), **(columns if len(columns) > 1 else {})}
    for size in sorted({1, 2, 3, rows}):
        found = fn.evaluate(fn.Identity(), {}, (y, target), loss=loss, batch_size=size)
        assert found == pytest.approx(columns, rel=1e-9, abs=1e-12)
        history = fn.fit(
            fn.Identity(), loss, fn.SGD(0.0), (y, target), epochs=1, batch_size=size, key=size, progress=False
        ).history
        assert {key: history[key][0] for key in columns} == pytest.approx(columns, rel=1e-9, abs=1e-12)
        torch.testing.assert_close(fn.accumulate(fn.Identity(), loss, max(1, rows // size))({}, y, target)[0], want)


@settings(max_examples=25)
@given(
    st.sampled_from(["labels and terms", "means and sums", "weights of labels", "nothing counts in a part"]),
    st.integers(1, 9),
    st.integers(0, 99),
)
def test_micro_batches_give_the_gradient_of_all_rows(name, k, seed):
    """Labels and weights may be spread over them in any way."""
    loss, _, target = LOSSES[name]
    order = fn.random.permutation(seed, 8)
    target, x, net = tree.map(lambda leaf: leaf[order], target), normal(seed, 8, 4), fn.Linear(4, 3)
    params = tree.cast(net.init(seed), torch.float64)
    found, want = fn.accumulate(net, loss, k)(params, x, target)[:2], fn.value_and_grads(net, loss)(params, x, target)[:2]
    torch.testing.assert_close(found, want)


def test_half_precision_micro_batches_keep_the_dtype_of_params():
    """Their sums are in float32."""
    net, loss = fn.Linear(4, 3), fn.MSE() + 0.5 * fn.L1()
    params = tree.cast(net.init(0), torch.bfloat16)
    x, target = normal(1, 8, 4).bfloat16(), normal(2, 8, 3).bfloat16()
    value, grads, _ = fn.accumulate(net, loss, 3)(params, x, target)
    want = fn.value_and_grads(net, loss)(params, x, target)[:2]
    assert {leaf.dtype for leaf in tree.leaves(grads)} == {torch.bfloat16}
    torch.testing.assert_close((value, grads), want, rtol=0.02, atol=0.02, check_dtype=False)


def test_a_loss_that_is_a_metric_has_its_weight_too():
    """The metric is listed beside the training loss, under its own name."""
    found = fn.evaluate(fn.Identity(), {}, (Y, LABELS), (COUNTED,), fn.CrossEntropy(), batch_size=3)
    assert found == pytest.approx({"loss": fn.CrossEntropy()(Y, LABELS).item(), str(COUNTED): COUNTED(Y, LABELS).item()})


def test_an_error_in_a_part_is_explained():
    """The note has the loss and what it got."""
    with pytest.raises(ValueError, match="target must have the shape of y"):
        fn.evaluate(fn.Identity(), {}, (Y, T[:, :2]), loss=fn.MSE() + fn.L1())
