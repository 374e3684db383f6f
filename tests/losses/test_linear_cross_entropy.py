"""Cross-entropy of logits computed within the loss: compared with torch's, by blocks, at the limits, and in training."""

import math
from itertools import product

import pytest
import torch
from drawn import F64, INF, NAN, REDUCTIONS, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from twins import assert_twins, twin_of

import funcnet as fn
from funcnet import random, tree
from funcnet.kernels import vocabulary_blocks as kernels
from funcnet.kernels.linear import matmul_library

WORDS, FEATURES = 7, 5
WEIGHT = (0.5, 2.0, 1.5, 0.0, 1.0, 3.0, 0.25)
LABELS = torch.tensor([[0, 6, -100], [3, 3, 2], [-100, 1, 5], [4, 2, 2]])


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use blocks of three rows with seven words, and tiles of two words."""
    monkeypatch.setattr(kernels.BLOCKS, "value", 3 * WORDS)
    monkeypatch.setattr(kernels, "_TILE", 2 * FEATURES)


def operands(*shape: int, bias: bool = True):
    """Draw h, w and b."""
    return (normal(1, *shape, FEATURES), normal(2, WORDS, FEATURES), normal(3, WORDS))[: 2 + bias]


def in_two_steps(loss: fn.LinearCrossEntropy, y, target):
    """Compute the loss from all logits."""
    z = nn.functional.linear(*y)
    plain = fn.CrossEntropy(loss.weight, loss.ignore_index, "none", loss.label_smoothing)
    counts = target != loss.ignore_index
    of_rows = torch.ones(WORDS, dtype=z.dtype) if loss.weight is None else torch.tensor(loss.weight, dtype=z.dtype)
    of_rows = of_rows[torch.where(counts, target, 0)] * counts
    terms = plain(z.reshape(-1, WORDS), target.reshape(-1)).reshape(target.shape)
    terms = terms + loss.z_loss * of_rows * z.logsumexp(-1) ** 2
    if loss.reduction == "none":
        return terms
    return terms.sum() / {"mean": of_rows.sum(), "sum": 1, "batch": len(target)}[loss.reduction]


def by_autograd(loss, y, target, g=None):
    """Return the value for all logits, and autograd's gradients."""
    leaves = tuple([one.clone().requires_grad_() for one in y])
    value = in_two_steps(loss, leaves, target)
    return value.detach(), torch.autograd.grad(value, leaves, torch.ones_like(value) if g is None else g)


ALL_OPTIONS = [
    fn.LinearCrossEntropy(*options) for options in product((None, WEIGHT), (-100, 2), REDUCTIONS, (0.0, 0.2), (0.0, 0.3))
]


@twin_of("LinearCrossEntropyLoss")
@settings(deadline=None, max_examples=40)
@given(
    reduction=st.sampled_from(["mean", "sum", "none"]),
    weight=st.sampled_from([None, WEIGHT]),
    ignore_index=st.sampled_from([-100, 3]),
    label_smoothing=st.sampled_from([0.0, 0.25]),
    rows=st.sampled_from([(), (1,), (6,)]),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_it_agrees_with_its_twin(reduction, weight, ignore_index, label_smoothing, rows, bias, seed):
    """Value and all gradients agree, with and without a batch axis, for all options."""
    of_words = None if weight is None else torch.tensor(weight)
    module = nn.LinearCrossEntropyLoss(
        FEATURES, WORDS, reduction=reduction, weight=of_words, ignore_index=ignore_index, label_smoothing=label_smoothing
    )
    del module.linear  # its weight is in x
    module._non_persistent_buffers_set.update(module._buffers)
    y = tuple([normal(seed + i, *shape) for i, shape in enumerate([(*rows, FEATURES), (WORDS, FEATURES), (WORDS,)][: 2 + bias])])
    labels = random.randint(seed, rows, 0, 3)  # at least one row counts

    def call(module, x):
        (h, w, *b), target = x
        options = {name: getattr(module, name) for name in ("weight", "reduction", "ignore_index", "label_smoothing")}
        return nn.functional.linear_cross_entropy(h, w, target, linear_bias=b[0] if b else None, **options)

    loss = fn.LinearCrossEntropy(weight, ignore_index, reduction, label_smoothing)
    assert_twins(loss.as_layer(), module, (y, labels), call=call)


@pytest.mark.parametrize("bias", [False, True])
def test_block_by_block_it_is_the_loss_of_all_logits(bias, blocks):
    """Value and gradients agree, in one pass and in two, for all options, with either library for the products."""
    y = operands(4, 3, bias=bias)
    for i, loss in enumerate(ALL_OPTIONS):
        labels = LABELS.clamp_min(loss.ignore_index)
        want = by_autograd(loss, y, labels)
        with matmul_library(("mkl", "onednn")[i % 2]):
            torch.testing.assert_close(loss.value_and_grad(y, labels), want, rtol=1e-10, atol=1e-12)
            g = normal(4, *want[0].shape)
            value, cache = loss.forward(y, labels)
            gradients = by_autograd(loss, y, labels, g)[1]
            torch.testing.assert_close((value, loss.backward(cache, g)), (want[0], gradients), rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(loss(y, labels), want[0], rtol=1e-10, atol=1e-12)


class Largest(TorchDispatchMode):
    """Records the size of the largest tensor that a kernel returns."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, kernel, types, args=(), kwargs=None):
        found = kernel(*args, **(kwargs or {}))
        self.size = max([self.size, *[one.numel() for one in tree.leaves(found) if isinstance(one, torch.Tensor)]])
        return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "z_loss": 1e-4}], ids=["plain", "smoothed"])
def test_the_logits_of_all_rows_are_never_in_memory(dtype, options):
    """With three blocks and more, no intermediate tensor exceeds the limit of a block."""
    rows, words = 300, 50_000
    y = random.normal(1, (rows, 2)).to(dtype), random.normal(2, (words, 2)).to(dtype)
    labels, loss = torch.arange(rows), fn.LinearCrossEntropy(**options)
    limit = kernels.BLOCKS.value * (2 if dtype is torch.bfloat16 else 1)
    assert rows * words > 3 * limit
    for compute in (loss, loss.value_and_grad):
        with Largest() as largest:
            compute(y, labels)
        assert words <= largest.size <= limit


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_lower_precision_is_summed_in_single_and_rounded_once(dtype, blocks):
    """The difference from float64 is the rounding of the dtype, for values and gradients over many blocks."""
    y, labels = tuple([one.to(dtype) for one in operands(60)]), torch.arange(60) % WORDS
    loss = fn.LinearCrossEntropy(label_smoothing=0.1, z_loss=0.01)
    value, gradients = loss.value_and_grad(y, labels)
    want = by_autograd(loss, tuple([one.double() for one in y]), labels)
    for got, exact in zip(tree.leaves((value, gradients)), tree.leaves(want), strict=True):
        assert got.dtype == dtype
        assert (got - exact).abs().max() <= 4 * torch.finfo(dtype).eps * exact.abs().max()


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_share_multiplies_the_gradient(reduction, blocks):
    """The share of a micro-batch is a number or a tensor, in one pass; the value is unchanged."""
    y, loss = operands(4, 3), fn.LinearCrossEntropy(reduction=reduction, z_loss=0.1)
    value, gradients = loss.value_and_grad(y, LABELS)
    for share in (0.25, torch.tensor(0.25, dtype=F64)):
        (got,), gy = loss.parts_and_grad(y, LABELS, (share,))
        torch.testing.assert_close((got, gy), (value, tree.scale(gradients, 0.25)), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_rows_that_do_not_count_may_hold_anything(reduction, blocks):
    """NaN and infinities in their h change no number, and have the gradient 0."""
    loss = fn.LinearCrossEntropy(reduction=reduction, label_smoothing=0.1, z_loss=0.1)
    y = operands(4, 3)
    h = y[0].clone()
    h[0, 2], h[2, 0] = NAN, INF
    value, gradients = loss.value_and_grad((h, *y[1:]), LABELS)
    torch.testing.assert_close((value, gradients), loss.value_and_grad(y, LABELS), rtol=0, atol=0)
    assert not gradients[0][0, 2].any()


def test_a_word_of_weight_zero_may_be_impossible(blocks):
    """With the bias -∞ it has the probability 0, and costs nothing, as in ``CrossEntropy``."""
    h, w, b = operands(4, 3)
    b = b.index_fill(0, torch.tensor([3]), -INF)
    loss, labels = fn.LinearCrossEntropy(WEIGHT, label_smoothing=0.1), torch.where(LABELS == 3, 0, LABELS)
    want = fn.CrossEntropy(WEIGHT, label_smoothing=0.1)(nn.functional.linear(h, w, b).reshape(-1, WORDS), labels.reshape(-1))
    value, gradients = loss.value_and_grad((h, w, b), labels)
    torch.testing.assert_close(value, want)
    assert tree.all_finite(gradients)
    assert not gradients[1][3].any()


def test_of_nothing_the_mean_is_that_of_cross_entropy():
    """The mean is 0 if every row is ignored or has weight 0, and NaN for an empty batch; the gradients are 0."""
    y = operands(2)
    for loss, label in ((fn.LinearCrossEntropy(label_smoothing=0.1), -100), (fn.LinearCrossEntropy(WEIGHT), 3)):
        value, gradients = loss.value_and_grad(y, torch.full((2,), label))
        assert value == 0
        assert not any(one.any() for one in gradients)
    empty = (y[0][:0], *y[1:])
    for reduction in REDUCTIONS:
        value, gradients = fn.LinearCrossEntropy(reduction=reduction).value_and_grad(empty, torch.zeros(0, dtype=torch.long))
        plain = fn.CrossEntropy(reduction=reduction)(torch.zeros(0, WORDS, dtype=F64), torch.zeros(0, dtype=torch.long))
        torch.testing.assert_close(value, plain, equal_nan=True)
        assert [one.shape for one in gradients] == [one.shape for one in empty]
        assert not gradients[1].any()


@pytest.mark.parametrize("dims", [(0, None, None), (None, 0, 0), (0, 0, 0)])
def test_vmap_is_a_loop_over_blocks(dims, blocks):
    """The mapped axis may be one of h, of the weights, or of both."""
    y, loss = operands(4, 3), fn.LinearCrossEntropy(WEIGHT, label_smoothing=0.1, z_loss=0.1)
    several = tuple([one if dim is None else torch.stack([one, 0.5 * one]) for one, dim in zip(y, dims, strict=True)])
    alone = [
        loss.value_and_grad(tuple([one if dim is None else one[i] for one, dim in zip(several, dims, strict=True)]), LABELS)
        for i in range(2)
    ]
    mapped = torch.func.vmap(loss.value_and_grad, (dims, None))(several, LABELS)
    torch.testing.assert_close(mapped, tree.map(lambda *parts: torch.stack(parts), *alone))


def test_it_has_derivatives_of_second_order_across_blocks(blocks):
    """The Hessian by h, and the derivative of the gradient along all operands, are those for all logits."""
    y, loss = operands(4, 3), fn.LinearCrossEntropy(WEIGHT, label_smoothing=0.1, z_loss=0.1)
    hessian = torch.func.jacrev(lambda h: loss.value_and_grad((h, *y[1:]), LABELS)[1][0])(y[0])
    want = torch.func.hessian(lambda h: in_two_steps(loss, (h, *y[1:]), LABELS))(y[0])
    torch.testing.assert_close(hessian, want)
    v = tuple([torch.cos(9 * one) for one in y])
    along = torch.func.jvp(lambda y: loss.value_and_grad(y, LABELS)[1], (y,), (v,))[1]
    gradient = torch.func.grad(lambda y: in_two_steps(loss, y, LABELS))
    torch.testing.assert_close(along, torch.func.jvp(gradient, (y,), (v,))[1])


@pytest.mark.compiled
def test_compiled_blocks_are_those_of_eager_mode():
    """Gradients agree bit for bit; values, and gradients under vmap, to rounding."""
    y = random.normal(1, (100, 3)), random.normal(2, (60_000, 3)), random.normal(3, (60_000,))
    labels, loss = torch.arange(100), fn.LinearCrossEntropy(label_smoothing=0.1, z_loss=0.01)
    compiled = torch.compile(loss.value_and_grad, fullgraph=True)
    (value, gradients), want = compiled(y, labels), loss.value_and_grad(y, labels)
    torch.testing.assert_close(gradients, want[1], rtol=0, atol=0)
    torch.testing.assert_close(value, want[0])
    several = torch.stack([y[0], 0.5 * y[0]])
    mapped = torch.func.vmap(lambda h: loss.value_and_grad((h, *y[1:]), labels)[1][0])
    torch.testing.assert_close(torch.compile(mapped, fullgraph=True)(several), mapped(several), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(torch.compile(loss, fullgraph=True)(y[:2], labels), loss(y[:2], labels))


# Training

WORDS_IN_ROW = random.randint(7, (12, 6), 0, 30)
NET = fn.serial(fn.Embedding(30, 8), fn.Linear(8, 8), fn.Tanh(), fn.DeferredLinear(8, 30, bias=False))


def test_a_net_that_ends_in_a_deferred_product_trains_as_the_plain_net():
    """One step gives the params of ``Linear`` and ``CrossEntropy``, tied to the embedding or not, at the same paths."""
    plain = fn.serial(*[fn.replace(NET, "3", fn.Linear(8, 30, bias=False))[i] for i in range(4)], fn.Flatten(0, 1))
    target = WORDS_IN_ROW.roll(1, 1)
    for ours, theirs in ((NET, plain), *[tuple(fn.tied(net, ("0.weight", "3.weight")) for net in (NET, plain))]):
        params = ours.init(0)
        value, grads, _ = fn.value_and_grads(ours, fn.LinearCrossEntropy())(params, WORDS_IN_ROW, target)
        want = fn.value_and_grads(theirs, fn.CrossEntropy())(theirs.init(0), WORDS_IN_ROW, target.flatten())
        torch.testing.assert_close(value, want[0])
        assert tree.names(grads).keys() == tree.names(want[1]).keys()
        for path, leaf in tree.names(want[1]).items():
            torch.testing.assert_close(tree.names(grads)[path], leaf, rtol=1e-4, atol=1e-6)


def test_fit_and_evaluate_take_it():
    """A small net learns rows by heart, with validation; micro-batches of padded rows count by their labels."""
    net, loss = fn.tied(NET, ("0.weight", "3.weight")), fn.LinearCrossEntropy()
    data = WORDS_IN_ROW, WORDS_IN_ROW
    fit = fn.fit(net, loss, fn.Adam(lr=0.03), data, epochs=40, batch_size=6, key=0, validation=data, progress=False)
    assert fit.history["loss"][0] > 2.0
    assert fit.history["validation_loss"][-1] < 0.1
    target = torch.where(WORDS_IN_ROW < 15, WORDS_IN_ROW, -100)
    whole = fn.value_and_grads(net, loss)(fit.params, WORDS_IN_ROW, target)[:2]
    torch.testing.assert_close(fn.accumulate(net, loss, 4)(fit.params, WORDS_IN_ROW, target)[:2], whole)


def test_a_batch_counts_for_its_labels():
    """The weight of a batch is the same as for ``CrossEntropy``."""
    for options in product((None, WEIGHT), (-100, 2), REDUCTIONS):
        labels = LABELS.clamp_min(options[1])
        assert fn.LinearCrossEntropy(*options).weight_of(labels) == fn.CrossEntropy(*options).weight_of(labels)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_rows_have_weights_and_masks(reduction, blocks):
    """Weights work as in ``CrossEntropy`` of the logits; rows of weight 0 may hold anything, and have the gradient 0."""
    y, w = operands(12), random.uniform(5, (12,), 0.5, 2.0, dtype=F64).index_fill(0, torch.tensor([4]), 0.0)
    labels = torch.arange(12) % WORDS
    options = {"reduction": reduction, "weight": WEIGHT, "label_smoothing": 0.1}
    z = nn.functional.linear(*y)
    want, gz = fn.weighted(fn.CrossEntropy(**options)).value_and_grad(z, (labels, w))
    h = y[0].index_fill(0, torch.tensor([4]), NAN)
    value, (gh, gw, gb) = fn.weighted(fn.LinearCrossEntropy(**options)).value_and_grad((h, *y[1:]), (labels, w))
    torch.testing.assert_close((value, gh, gw, gb), (want, gz @ y[1], gz.T @ y[0], gz.sum(0)), rtol=1e-9, atol=1e-12)
    assert not gh[4].any()


def test_it_keeps_the_laws_and_rules():
    """``check_loss`` passes, with more words than rows."""
    fn.testing.check_loss(fn.LinearCrossEntropy(label_smoothing=0.1), operands(4), torch.tensor([0, 6, -100, 3]), compiled=False)


def test_the_loss_of_many_equal_words_is_the_logarithm_of_their_number():
    """With logits 0 it is ln V; ``z_loss`` adds its square."""
    y = torch.zeros(3, 2), torch.zeros(1000, 2)
    assert fn.LinearCrossEntropy(z_loss=0.5)(y, torch.arange(3)).item() == pytest.approx(
        math.log(1000) + 0.5 * math.log(1000) ** 2, rel=1e-6
    )


H, W, B, T = torch.zeros(4, 3), torch.zeros(5, 3), torch.zeros(5), torch.tensor([0, 1, 2, 0])
LOSS = fn.LinearCrossEntropy()
MESSAGES = {
    "LinearCrossEntropy: z_loss must be a finite number at least 0": lambda: fn.LinearCrossEntropy(z_loss=-1.0),
    "LinearCrossEntropy: reduction must be one of 'mean', 'sum', 'none', 'batch', got 'max'": lambda: fn.LinearCrossEntropy(reduction="max"),
    "LinearCrossEntropy(): y must be (h, w) or (h, w, b), dense floating tensors of one dtype, got a tensor of shape (4, 3)": lambda: LOSS(H, T),
    "LinearCrossEntropy(): y must be (h, w) or (h, w, b), dense floating tensors of one dtype, got a tuple of 1": lambda: LOSS((H,), T),
    "LinearCrossEntropy(): y must be (h, w) or (h, w, b) with shapes (N, ..., features), (words, features), (words,) and one dtype, got a tensor of shape (4, 3) and dtype torch.float32 and a tensor of shape (5,) and dtype torch.float32": lambda: LOSS((H, B), T),
    "and one dtype, got a tensor of shape (4, 3) and dtype torch.float32 and a tensor of shape (5, 3) and dtype torch.float64": lambda: LOSS.value_and_grad((H, W.double()), T),
    "and a tensor of shape (4,) and dtype torch.float32": lambda: LOSS((H, W, B[1:]), T),
    "LinearCrossEntropy(): labels must be integers of shape (4,), the shape of h (4, 3) without the last axis, got a tensor of shape (3,)": lambda: LOSS((H, W), T[1:]),
    "LinearCrossEntropy(): labels must be integers of shape (4,), the shape of h (4, 3) without the last axis, got a tensor of shape (4, 5)": lambda: LOSS((H, W), H @ W.T),
    "LinearCrossEntropy(): every label must be from 0 to 4, or ignore_index=-100, got 5": lambda: LOSS((H, W), T + 5),
    "LinearCrossEntropy(): every label must be from 0 to 4, or ignore_index=-100, got -1": lambda: LOSS.value_and_grad((H, W), T - 1),
    "every label must be from 0 to 4, or ignore_index=-100, got 7": lambda: fn.LinearCrossEntropy((1.0,) * 5).value_and_grad((H, W), T + 7),
    "LinearCrossEntropy(weight=(1.0, 2.0)): weight must have one number for each of the 5 words, got 2 numbers": lambda: fn.LinearCrossEntropy((1.0, 2.0))((H, W), T),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the loss, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
