"""Connectionist temporal classification compared with torch's and with a sum over all alignments, and its limits."""

import itertools
import math

import pytest
import torch
from drawn import F64, INF, REDUCTIONS, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twins import assert_twins, twin_of

import funcnet as fn
from funcnet import random, tree

LABELS, STEPS, COUNTS = torch.tensor([[1, 2, 2, 1], [2, 0, 0, 0], [1, 1, 0, 0]]), torch.tensor([6, 4, 5]), torch.tensor([4, 0, 2])
TARGET = LABELS, STEPS, COUNTS


@twin_of("CTCLoss")
@settings(deadline=None, max_examples=60)
@given(
    blank=st.integers(0, 3),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    zero_infinity=st.booleans(),
    steps=st.integers(4, 7),
    n=st.integers(1, 4),
    form=st.sampled_from(["padded", "joined", "one"]),
    seed=st.integers(0, 999),
)
def test_it_agrees_with_its_twin(blank, reduction, zero_infinity, steps, n, form, seed):
    """Value and gradient agree after log_softmax, for padded labels, concatenated labels, and one sequence."""
    n = 1 if form == "one" else n
    others = torch.tensor([c for c in range(4) if c != blank])
    labels = others[random.randint(seed, (n, 3), 0, 3)]
    counts = random.randint(seed + 1, (n,), 0, 4)
    lengths = random.randint(seed + 2, (n,), 0 if zero_infinity else steps, steps + 1)
    if not zero_infinity:
        counts = counts.clamp_max(2)  # the number that always fits, with a blank between equal ones
    y = normal(seed, steps, n, 4)
    target = {
        "padded": (labels, lengths, counts),
        "joined": (torch.cat([row[:count] for row, count in zip(labels, counts, strict=True)]), lengths, counts),
        "one": (labels[0, : counts[0]], lengths[0], counts[0]),
    }[form]
    ours = fn.serial(fn.parallel(fn.LogSoftmax(-1), fn.Identity()), fn.CTC(blank, reduction, zero_infinity).as_layer())
    x = (y[:, 0] if form == "one" else y, target)
    module = nn.CTCLoss(blank, reduction, zero_infinity)
    assert_twins(ours, module, x, call=lambda module, x: module(x[0].log_softmax(-1), *x[1]))


def likelihood(y, labels, blank):
    """Return the log of the sum over all alignments that collapse to the labels, one by one."""
    total = y.new_full((), -INF)
    for path in itertools.product(range(y.shape[1]), repeat=len(y)):
        merged = [c for c, _ in itertools.groupby(path) if c != blank]
        if merged == labels:
            total = torch.logaddexp(total, y[torch.arange(len(y)), torch.tensor(path)].sum())
    return total


@pytest.mark.parametrize("labels", [[], [1], [1, 1], [2, 1, 2], [1, 1, 2]])
def test_it_is_the_sum_over_all_alignments(labels):
    """Value and derivative agree for a y that holds no log-probabilities; 1, 1, 2 has one alignment in 4 steps."""
    y = normal(3, 4, 3).requires_grad_()
    want = -likelihood(y, labels, 0)
    target = torch.tensor([labels], dtype=torch.long), torch.tensor([4]), torch.tensor([len(labels)])
    value, gy = fn.CTC(reduction="sum").value_and_grad(y.detach().unsqueeze(1), target)
    torch.testing.assert_close(value, want.detach())
    torch.testing.assert_close(gy.squeeze(1), torch.autograd.grad(want, y)[0])


def test_it_has_all_derivatives():
    """The Hessian matches the sum over all alignments, even if classes are impossible."""
    y = normal(4, 4, 3)
    target = torch.tensor([[1, 2]]), torch.tensor([4]), torch.tensor([2])
    want = torch.func.hessian(lambda y: -likelihood(y, [1, 2], 0))(y)
    got = torch.func.jacrev(lambda y: fn.CTC(0, "sum").value_and_grad(y.unsqueeze(1), target)[1].squeeze(1))(y)
    torch.testing.assert_close(got, want)
    impossible = y.index_fill(1, torch.tensor([1]), -INF)
    second = torch.func.hessian(lambda y: fn.CTC(zero_infinity=True)(y.unsqueeze(1), target))(impossible)
    assert second.isfinite().all()


def test_an_impossible_class_costs_nothing_where_it_is_not_needed():
    """Its log-probability is -∞. If it is needed, the value is ∞, or 0 with gradient 0 if ``zero_infinity``."""
    y = normal(5, 6, 3, 3).log_softmax(2)
    y[:, 1, 1] = -INF
    value, gy = fn.CTC(reduction="none").value_and_grad(y, TARGET)
    assert value.isfinite().all()
    assert gy.isfinite().all()
    y[:, :, 1] = -INF
    assert fn.CTC(reduction="none")(y, TARGET).isinf().tolist() == [True, False, True]
    value, gy = fn.CTC(reduction="none", zero_infinity=True).value_and_grad(y, TARGET)
    assert value[[0, 2]].tolist() == [0, 0]
    assert not gy[:, [0, 2]].any()
    assert gy[:, 1].any()


def test_labels_that_do_not_fit_are_as_torch_has_them():
    """The value is ∞ and the gradient NaN in that sequence only; zero steps give no labels the likelihood 1."""
    y = normal(6, 3, 3, 3).log_softmax(2)
    target = torch.tensor([[1, 1], [1, 2], [0, 0]]), torch.tensor([2, 3, 0]), torch.tensor([2, 2, 0])
    value, gy = fn.CTC(reduction="none").value_and_grad(y, target)
    torch.testing.assert_close(value, nn.CTCLoss(reduction="none")(y, *target))
    assert gy[:, 0, :2].isnan().all()
    assert gy[:, 1].isfinite().all()
    assert (value[2], gy[:, 2].any()) == (0, False)


def test_long_sequences_are_exact_in_single():
    """For 600 steps the value has 6 correct digits, and the gradient 4."""
    y = normal(7, 600, 2, 5).log_softmax(2)
    labels = random.randint(8, (2, 100), 1, 5)
    target = labels, torch.tensor([600, 450]), torch.tensor([100, 80])
    value, gy = fn.CTC().value_and_grad(y.float(), target)
    want, wanted = fn.CTC().value_and_grad(y, target)
    torch.testing.assert_close(value.double(), want, rtol=1e-6, atol=0)
    assert (gy - wanted).abs().max() < 1e-4 * wanted.abs().max()


def test_a_sequence_does_not_see_the_others():
    """Steps and labels beyond its lengths may hold anything too."""
    y = normal(9, 6, 3, 3)
    value, gy = fn.CTC(reduction="none").value_and_grad(y, TARGET)
    for i, (steps, count) in enumerate(zip(STEPS.tolist(), COUNTS.tolist(), strict=True)):
        alone = LABELS[i, :count], torch.tensor(steps), torch.tensor(count)
        own, g = fn.CTC(reduction="none").value_and_grad(y[:steps, i], alone)
        torch.testing.assert_close((own, g), (value[i], gy[:steps, i]))
        assert not gy[steps:, i].any()
    other = LABELS.index_put((torch.tensor([1]), torch.tensor([2])), torch.tensor(77))
    torch.testing.assert_close(fn.CTC(reduction="none").value_and_grad(y, (other, *TARGET[1:])), (value, gy), rtol=0, atol=0)


def test_lengths_may_be_tuples():
    """torch takes tuples too."""
    y = normal(10, 6, 3, 3)
    assert torch.equal(fn.CTC()(y, (LABELS, (6, 4, 5), (4, 0, 2))), fn.CTC()(y, TARGET))


def test_half_precision_is_computed_in_single():
    """The result is rounded once."""
    y = normal(11, 6, 3, 3).bfloat16()
    value, gy = fn.CTC().value_and_grad(y, TARGET)
    want = fn.CTC().value_and_grad(y.float(), TARGET)
    assert torch.equal(value, want[0].bfloat16())
    assert torch.equal(gy, want[1].bfloat16())


def test_a_batch_counts_for_its_sequences():
    """Concatenated labels are tried too; the mean of no sequences is NaN."""
    joined = torch.tensor([1, 2, 2, 1, 1, 1]), STEPS, COUNTS
    assert [fn.CTC().weight_of(target) for target in (TARGET, joined, (LABELS, (6, 4, 5), (4, 0, 2)))] == [3, 3, 3]
    none = torch.zeros(0, 2, dtype=torch.long), torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    values = [fn.CTC(reduction=reduction)(torch.zeros(4, 0, 3), none) for reduction in ("mean", "batch", "sum")]
    assert [math.isnan(value) for value in values] == [True, True, False]


def test_sequences_have_weights():
    """The sum and "batch" take weights; the mean divides each term by its number of labels, and refuses them."""
    y, w = normal(12, 6, 3, 3), torch.tensor([0.5, 0.0, 2.0], dtype=F64)
    terms = fn.CTC(reduction="none")(y, TARGET)
    broken = y.index_fill(1, torch.tensor([1]), math.nan)
    value, gy = fn.weighted(fn.CTC(reduction="sum")).value_and_grad(broken, (TARGET, w))
    torch.testing.assert_close(value, (w * terms).sum())
    assert not gy[:, 1].any()
    with pytest.raises(ValueError, match="weighted: the mean must be a mean of terms"):
        fn.weighted(fn.CTC())


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_vmap_is_a_loop(reduction):
    """The mapped axis may be one of y and of the lengths."""
    y, loss = normal(13, 2, 6, 3, 3), fn.CTC(reduction=reduction)
    steps = torch.stack([STEPS, STEPS.flip(0)])
    mapped = torch.func.vmap(lambda y, steps: loss.value_and_grad(y, (LABELS, steps, COUNTS)))(y, steps)
    alone = [loss.value_and_grad(y[i], (LABELS, steps[i], COUNTS)) for i in range(2)]
    torch.testing.assert_close(mapped, tree.map(lambda *parts: torch.stack(parts), *alone))


@pytest.mark.compiled
def test_compiled_it_is_the_same():
    """The labels are concatenated, so their largest length cannot be read."""
    y, loss = normal(14, 6, 3, 3), fn.CTC()
    joined = torch.tensor([1, 2, 2, 1, 1, 1]), STEPS, COUNTS
    compiled = torch.compile(loss.value_and_grad, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(y, joined), loss.value_and_grad(y, joined))


Y = torch.zeros(4, 2, 3)
T, S, L = torch.tensor([[1, 2], [1, 0]]), torch.tensor([4, 4]), torch.tensor([2, 1])
MESSAGES = {
    "CTC: blank must be a whole number of at least 0": lambda: fn.CTC(-1),
    "CTC(): y must be log-probabilities (T, N, C) or (T, C) of at least one step, and blank=0 a class, got a tensor of shape (4,)": lambda: fn.CTC()(Y[:, 0, 0], (T, S, L)),
    "CTC(blank=3): y must be log-probabilities (T, N, C) or (T, C) of at least one step, and blank=3 a class": lambda: fn.CTC(3)(Y, (T, S, L)),
    "of at least one step, and blank=0 a class, got a tensor of shape (0, 2, 3)": lambda: fn.CTC()(Y[:0], (T, S, L)),
    "CTC(): target must be a tuple (labels, input_lengths, target_lengths), got a tensor of shape (2, 2)": lambda: fn.CTC()(Y, T),
    "CTC(): input_lengths must be of shape (2,), got a tensor of shape (1,)": lambda: fn.CTC()(Y, (T, S[:1], L)),
    "CTC(): target_lengths must be integers, got a tensor of shape (2,) and dtype torch.float32": lambda: fn.CTC()(Y, (T, S, L.float())),
    "CTC(): input_lengths must be from 0 to 4, got 4 to 5": lambda: fn.CTC()(Y, (T, torch.tensor([4, 5]), L)),
    "CTC(): target_lengths must be from 0 to 2, got -1 to 2": lambda: fn.CTC()(Y, (T, S, torch.tensor([2, -1]))),
    "CTC(): labels must differ from blank=0, got 0": lambda: fn.CTC()(Y, (T, S, torch.tensor([2, 2]))),
    "CTC(): labels must be of shape (2, S), or all in one axis with 3 in all, got a tensor of shape (2,)": lambda: fn.CTC()(Y, (T[0], S, L)),
    "CTC(): labels must be of shape (2, S), or all in one axis with 3 in all, got a tensor of shape (1, 2)": lambda: fn.CTC()(Y, (T[:1], S, L)),
    "CTC(): every label must be from 0 to 2, got 6": lambda: fn.CTC()(Y, (T + 5, S, L)),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the loss, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
