"""Gradients of each example and their norms, compared with single rows; micro-batches compared with the whole batch."""

from typing import Any

import pytest
import torch

import funcnet as fn
from funcnet import random, tree
from funcnet.kernels import example_gradients

WORDS = random.permutation(0, 35).reshape(7, 5) % 9
LABELS = random.permutation(1, 7) % 3
NETS = {
    "words": (
        fn.serial(
            fn.Embedding(30, 8, padding_idx=3),
            fn.serial(fn.Linear(8, 16), fn.LayerNorm(16), fn.Tanh()),
            fn.residual(fn.Linear(16, 16, bias=False)),
            fn.Flatten(),
            fn.Linear(80, 3),
        ),
        WORDS,
    ),
    "words of a small table": (fn.serial(fn.Embedding(4, 3), fn.Flatten(), fn.Linear(15, 3)), WORDS % 4),
    "convolution": (fn.serial(fn.Conv1d(2, 4, 3), fn.ReLU(), fn.Flatten(), fn.Linear(16, 3)), random.normal(2, (7, 2, 6))),
    "convolutions of groups, with strides, dilation and padding": (
        fn.serial(
            fn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=((1, 0), 2), bias=False),
            fn.Tanh(),
            fn.Conv2d(4, 6, 2, dilation=2, groups=2, padding=1),
            fn.Flatten(),
            fn.Linear(84, 3),
        ),
        random.normal(8, (7, 2, 4, 4)),
    ),
    "volumes": (
        fn.serial(fn.Conv3d(1, 2, 2, padding="same", padding_mode="circular"), fn.Flatten(), fn.Linear(54, 3)),
        random.normal(9, (7, 1, 3, 3, 3)),
    ),
    "images as steps of an example": (
        fn.serial(fn.time_distributed(fn.Conv1d(2, 4, 3)), fn.Flatten(), fn.Linear(32, 3)),
        random.normal(10, (7, 2, 2, 6)),
    ),
    "norms of rows": (
        fn.serial(fn.LayerNorm((2, 4), bias=False), fn.LayerNorm(2, dim=-2), fn.LayerNorm(4), fn.Flatten(), fn.Linear(24, 3)),
        random.normal(11, (7, 3, 2, 4)),
    ),
    "gradients of more than a chunk": (
        fn.serial(fn.Linear(80, 70), fn.Tanh(), fn.Linear(70, 1), fn.Flatten(), fn.Linear(90, 3)),
        random.normal(12, (7, 90, 80)),
    ),
    "a layer that runs twice": (
        fn.serial(fn.branch(fn.Linear(4, 3), fn.Tanh()), fn.parallel(fn.Identity(), fn.Linear(4, 3)), fn.shared(fn.Linear(3, 3)), fn.Add()),
        random.normal(3, (7, 4)),
    ),
    "rows and steps as one axis within": (
        fn.serial(fn.time_distributed(fn.Linear(4, 5)), fn.Flatten(), fn.Linear(10, 3)),
        random.normal(4, (7, 2, 4)),
    ),
    "dropout": (fn.serial(fn.Linear(4, 8), fn.Dropout(0.5), fn.Linear(8, 3)), random.normal(5, (7, 4))),
    "no params": (fn.LogSoftmax(), random.normal(6, (7, 3))),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_gradients_and_norms_are_those_of_each_row_by_itself(name: str):
    """Results match ``value_and_grads`` of a batch of one, with the key ``fold_in(rng, i)``."""
    net, x = NETS[name]
    params, loss = tree.cast(net.init(0), torch.float64), fn.CrossEntropy()
    x = tree.cast(x, torch.float64)
    values, grads = fn.per_example_grads(net, loss)(params, x, LABELS, 5)
    again, norms = fn.per_example_norms(net, loss)(params, x, LABELS, 5)
    assert values.shape == norms.shape == (7,)
    for i in range(7):
        row = slice(i, i + 1)
        value, want, _ = fn.value_and_grads(net, loss)(params, x[row], LABELS[row], random.fold_in(5, i))
        torch.testing.assert_close(values[i], value)
        torch.testing.assert_close(again[i], value)
        torch.testing.assert_close(tree.map(lambda leaf, i=i: leaf[i], grads), want)
        torch.testing.assert_close(norms[i], tree.norm(want), check_dtype=False)


@pytest.mark.parametrize("net", [fn.freeze(fn.Linear(3, 2)), fn.RunningBatchNorm1d(3, affine=False)], ids=repr)
def test_the_norm_of_no_gradients_is_zero(net: fn.Layer):
    """All params are frozen, or running statistics."""
    x = random.normal(0, (4, 3))
    params, target = net.init(0), torch.zeros(4, net(net.init(0), x).shape[1])
    values, norms = fn.per_example_norms(net, fn.MSE())(params, x, target)
    assert torch.equal(norms, torch.zeros(4))
    assert torch.equal(values, fn.per_example_grads(net, fn.MSE())(params, x, target)[0])


@pytest.mark.parametrize("chunk", [1 << 18, 5000])
def test_gradients_of_large_convolutions_are_those_of_one_with_groups(chunk: int, monkeypatch: pytest.MonkeyPatch):
    """In float32 oneDNN computes them for a few examples at a time."""
    calls: list[tuple[int, ...]] = []
    original = example_gradients.convolution_backward
    monkeypatch.setattr(example_gradients.PIECES, "value", chunk)
    monkeypatch.setattr(example_gradients, "convolution_backward", lambda *a: calls.append(a[2].shape) or original(*a))
    net = fn.serial(fn.Conv2d(16, 32, 3, groups=2, padding=((1, 1), (2, 0))), fn.Tanh(), fn.Flatten(), fn.Linear(2048, 3))
    params, loss, x = net.init(0), fn.CrossEntropy(), random.normal(1, (7, 16, 8, 8))
    _, grads = fn.per_example_grads(net, loss)(params, x, LABELS)
    assert len(calls) == (1 if chunk > 5000 else 4)
    _, norms = fn.per_example_norms(net, loss)(params, x, LABELS)
    assert len(calls) == (2 if chunk > 5000 else 8)
    for i in range(7):
        _, want, _ = fn.value_and_grads(net, loss)(params, x[i : i + 1], LABELS[i : i + 1])
        torch.testing.assert_close(tree.map(lambda leaf, i=i: leaf[i], grads), want, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(norms[i], tree.norm(want).float(), rtol=1e-5, atol=0.0)


def test_norms_form_no_gradient_of_a_linear(monkeypatch: pytest.MonkeyPatch):
    """Neither ``vjp`` nor ``grads`` of the Linear is called."""
    net = fn.serial(fn.Linear(4, 8), fn.Tanh(), fn.Linear(8, 3))
    monkeypatch.setattr(fn.Linear, "vjp", None)
    monkeypatch.setattr(fn.Linear, "grads", None)
    _, norms = fn.per_example_norms(net, fn.CrossEntropy())(net.init(0), torch.ones(7, 4), LABELS)
    assert norms.min() > 0


IGNORING = fn.CrossEntropy(ignore_index=0, weight=(1.0, 2.0, 0.5))


@pytest.mark.parametrize(
    "loss", [fn.CrossEntropy(), fn.CrossEntropy(reduction="sum"), fn.CrossEntropy(reduction="batch"), IGNORING]
)
@pytest.mark.parametrize("k", [1, 2, 3, 7, 20])
def test_micro_batches_give_what_the_batch_gives(loss: Any, k: int):
    """Value and gradients are weighted by ``weight_of``; a micro-batch of ignored labels has no effect."""
    net = fn.serial(fn.Linear(4, 8), fn.RunningBatchNorm1d(8), fn.Linear(8, 3))
    params, x = tree.cast(net.init(0), torch.float64), random.normal(0, (7, 4), dtype=torch.float64)
    value, grads, _ = fn.value_and_grads(net, loss)(params, x, LABELS.sort()[0])
    got, ours, _ = fn.accumulate(net, loss, k)(params, x, LABELS.sort()[0])
    torch.testing.assert_close(got, value)
    assert tree.names(ours).keys() == tree.names(grads).keys()
    for path, leaf in tree.names(grads).items():
        torch.testing.assert_close(tree.names(ours)[path], leaf)


def test_sums_of_half_precision_round_once():
    """The sum of 64 micro-batches in bfloat16 would be off by far more than its last digit."""
    net, loss = fn.Linear(1, 1, bias=False), fn.MSE(reduction="sum")
    params = {"weight": torch.zeros(1, 1, dtype=torch.bfloat16)}
    x, target = torch.ones(1024, 1, dtype=torch.bfloat16), -torch.ones(1024, 1, dtype=torch.bfloat16)
    _, grads, _ = fn.accumulate(net, loss, 1024)(params, x, target)
    assert grads["weight"].dtype == torch.bfloat16
    assert float(grads["weight"]) == 2048.0


def test_a_stochastic_net_draws_another_key_for_each_micro_batch():
    """Micro-batch i gets the key ``fold_in(rng, i)``."""
    net, loss = fn.Dropout(0.5), fn.MSE(reduction="sum")
    x = torch.ones(2, 50)
    value = fn.accumulate(net, loss, 2)({}, x, torch.zeros_like(x), 3)[0]
    want = [loss(net({}, x[i : i + 1], random.fold_in(3, i)), torch.zeros(1, 50)) for i in range(2)]
    assert float(value) == float(sum(want))


NET, LOSS = fn.Linear(4, 3), fn.CrossEntropy()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: fn.per_example_grads(fn.BatchNorm1d(3), LOSS), "a row of the output must not depend on other rows"),
        (lambda: fn.per_example_norms(NET, fn.CrossEntropy(reduction="none")), "the loss must have one value"),
        (lambda: fn.per_example_grads(NET, LOSS)(NET.init(0), torch.ones(3, 4), LABELS), "must have the same number of rows"),
        (
            lambda: fn.per_example_grads(NET, LOSS)(NET.init(0), torch.ones(7, 5), LABELS),
            "the last axis of x must be in_features=4",
        ),
        (lambda: fn.accumulate(NET, LOSS, 0), "k must be a whole number of at least 1"),
        (lambda: fn.accumulate(NET, LOSS, 2)(NET.init(0), torch.ones(3, 4), LABELS), "must have the same number of rows"),
        (lambda: fn.accumulate(NET, MIXED, 2), "must be a loss"),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, words: str):
    """The message has the rule, and what it got."""
    with pytest.raises(ValueError, match=words):
        make()


MIXED = fn.Adam(0.1)


def test_the_functions_are_values():
    """The functions compare by their net and loss, which their repr shows."""
    for made in (fn.per_example_grads(NET, LOSS), fn.per_example_norms(NET, LOSS), fn.accumulate(NET, LOSS, 3)):
        assert eval(repr(made), vars(fn)) == made


@pytest.mark.parametrize("name", ["words", "convolutions of groups, with strides, dilation and padding", "norms of rows"])
def test_all_of_torch_func_works_on_them(name: str):
    """``vmap`` over two sets of params, the meta device, and derivatives of the norms by x or by params are tried."""
    net, x = NETS[name]
    params, loss = tree.cast(net.init(0), torch.float64), fn.CrossEntropy()
    x = tree.cast(x, torch.float64)
    for made in (fn.per_example_grads(net, loss), fn.per_example_norms(net, loss)):
        want = made(params, x, LABELS)
        both = torch.func.vmap(made, in_dims=(0, None, None))(tree.map(lambda p: torch.stack([p, p + 1]), params), x, LABELS)
        torch.testing.assert_close(tree.map(lambda leaf: leaf[0], both), want)
        on_meta = made(tree.to(params, "meta"), x.to("meta"), LABELS.to("meta"))
        assert tree.names(tree.map(lambda leaf: (leaf.shape, leaf.dtype), on_meta)) == tree.names(
            tree.map(lambda leaf: (leaf.shape, leaf.dtype), want)
        )
    total = lambda p: fn.per_example_norms(net, loss)(p, x, LABELS)[1].sum()
    slope = torch.func.grad(total)(params)
    v = tree.map(lambda p: random.normal(p.numel(), p.shape, dtype=p.dtype), params)
    step = 1e-6
    ends = [total(tree.map(lambda p, d, s=s: p + s * d, params, v)) for s in (step, -step)]
    torch.testing.assert_close(tree.dot(slope, v), (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["words", "convolution", "norms of rows"])
def test_half_precision_is_summed_in_float32(name: str, dtype: torch.dtype):
    """Gradients have the dtype of params, and are as precise as it allows; norms are float32."""
    net, x = NETS[name]
    params, x, loss = tree.cast(net.init(0), dtype), tree.cast(x, dtype), fn.CrossEntropy()
    _, grads = fn.per_example_grads(net, loss)(params, x, LABELS)
    _, norms = fn.per_example_norms(net, loss)(params, x, LABELS)
    assert norms.dtype == torch.float32
    want = [fn.value_and_grads(net, loss)(params, x[i : i + 1], LABELS[i : i + 1])[1] for i in range(7)]
    for path, leaf in tree.names(grads).items():
        rows = torch.stack([tree.names(one)[path] for one in want])
        assert leaf.dtype == dtype
        torch.testing.assert_close(leaf, rows, rtol=0.05, atol=float(0.02 * rows.abs().max()))
    torch.testing.assert_close(norms, torch.stack([tree.norm(one) for one in want]).float(), rtol=0.03, atol=0.0)


@pytest.mark.parametrize("name", NETS)
def test_a_batch_may_have_no_rows(name: str):
    """The structure is the same as for other batches, with no rows."""
    net, x = NETS[name]
    params, loss, key = net.init(0), fn.CrossEntropy(), fn.key(1)
    for made in (fn.per_example_grads(net, loss), fn.per_example_norms(net, loss)):
        want = tree.map(lambda leaf: leaf[:0], made(params, x, LABELS, key))
        assert tree.equal(made(params, x[:0], LABELS[:0], key), want)


@pytest.mark.compiled
@pytest.mark.parametrize("name", ["words", "convolutions of groups, with strides, dilation and padding"])
def test_nets_of_all_kinds_compile_whole(name: str):
    """Factors go through one graph."""
    net, x = NETS[name]
    params, loss = net.init(0), fn.CrossEntropy()
    for made in (fn.per_example_grads(net, loss), fn.per_example_norms(net, loss)):
        got = torch.compile(made, fullgraph=True, backend="eager")(params, x, LABELS)
        torch.testing.assert_close(got, made(params, x, LABELS))


@pytest.mark.compiled
def test_they_compile_whole():
    """Each function is one graph, with the numbers of eager mode."""
    params, x = NET.init(0), random.normal(0, (7, 4))
    for made in (fn.per_example_grads(NET, LOSS), fn.per_example_norms(NET, LOSS), fn.accumulate(NET, LOSS, 3)):
        got = torch.compile(made, fullgraph=True, backend="eager")(params, x, LABELS)
        torch.testing.assert_close(got[:2], made(params, x, LABELS)[:2])
