"""Ensembles: each of n members computes the same as by itself."""

import pickle
from typing import Any

import pytest
import torch
from members import NETS, N, mlp
from torch import Tensor

import funcnet as fn
from funcnet import random, tree
from funcnet.combinators import batching as members

TIGHT = {torch.float32: 1e-6, torch.float64: 1e-12}


def drawn(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return random.normal(seed, shape, dtype=dtype)


def member(values: Any, i: int) -> Any:
    return tree.map(lambda leaf: leaf[i], values)


def assert_close(got: Any, want: Any, dtype: torch.dtype = torch.float64) -> None:
    assert tree.structure(got) == tree.structure(want)
    for ours, theirs in zip(tree.leaves(got), tree.leaves(want), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=TIGHT[dtype] * max([1.0, *theirs.abs().flatten().tolist()]))


@pytest.fixture
def no_vmap(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("vmap was called")

    monkeypatch.setattr(torch.func, "vmap", refuse)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_member_i_is_initialized_with_the_key_folded_with_i(net: fn.Layer) -> None:
    """Member i has the params that the layer draws from ``fold_in(rng, i)``."""
    params = fn.ensemble(net, N).init(7)
    for i in range(N):
        assert tree.equal(member(params, i), net.init(fn.fold_in(7, i)))


@pytest.mark.parametrize("dtype", TIGHT, ids=str)
@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_each_member_equals_the_separate_net(net: fn.Layer, dtype: torch.dtype) -> None:
    """Output, prediction and gradients of params are the member's own; the gradient of the shared x is the sum."""
    many = fn.ensemble(net, N)
    params, x = tree.cast(many.init(0), dtype), drawn(1, 6, 3, dtype=dtype)
    y, cache = many.apply(params, x)
    gy = drawn(2, *y.shape, dtype=dtype)
    gparams, gx = many.vjp(params, cache, gy)
    total = torch.zeros_like(x)
    for i in range(N):
        one, kept = net.apply(member(params, i), x)
        gp, g = net.vjp(member(params, i), kept, gy[i])
        total = total + g
        assert_close((y[i], many(params, x)[i], member(gparams, i)), (one, one, gp), dtype)
    assert_close(gx, total, dtype)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_members_with_separate_inputs(net: fn.Layer) -> None:
    """With ``shared_input=False`` member i gets x[i], and gx[i] is its gradient."""
    many = fn.ensemble(net, N, shared_input=False)
    params, x = tree.cast(many.init(0), torch.float64), drawn(1, N, 6, 3)
    y, cache = many.apply(params, x)
    gy = drawn(2, *y.shape)
    gparams, gx = many.vjp(params, cache, gy)
    for i in range(N):
        one, kept = net.apply(member(params, i), x[i])
        assert_close((y[i], (member(gparams, i), gx[i])), (one, net.vjp(member(params, i), kept, gy[i])))


APART: dict[str, tuple[fn.Layer, tuple[int, ...]]] = {
    "LSTM": (fn.LSTM(3, 4, 2, bidirectional=True), (5, 2, 3)),
    "LSTM with dropout": (fn.LSTM(3, 4, 2, dropout=0.5), (5, 2, 3)),
    "GRU": (fn.GRU(3, 4), (5, 2, 3)),
    "RNN": (fn.RNN(3, 4), (5, 2, 3)),
    "MultiHeadAttention": (fn.MultiHeadAttention(4, 2, is_causal=True), (2, 3, 4)),
    "attention with dropout": (fn.MultiHeadAttention(4, 2, 0.3, need_weights=True), (2, 3, 4)),
    "MaxPool2d": (fn.MaxPool2d(2), (2, 3, 4, 4)),
    "AvgPool1d": (fn.AvgPool1d(2), (2, 3, 4)),
}


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize(("layer", "shape"), APART.values(), ids=APART)
def test_members_one_after_the_other_give_what_they_give_at_once(
    layer: fn.Layer, shape: tuple[int, ...], shared: bool, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """A large x is computed without vmap; output, gradients and dropped elements agree, even for RNNs and attention."""
    at_once = members.Mapped(layer, N, shared)
    params, x = tree.cast(fn.ensemble(layer, N).init(0), torch.float64), drawn(1, *(shape if shared else (N, *shape)))
    key = (fn.key(5),) if layer.stochastic else ()
    want, cache = at_once.apply(params, x, *key)
    gy = tree.map(lambda leaf: drawn(2, *leaf.shape), want)
    wanted = (*at_once.vjp(params, cache, gy), at_once.grads(params, cache, gy), at_once.input_grad(params, cache, gy))
    monkeypatch.setattr(members, "_LARGE", 0)
    many = fn.ensemble(layer, N, shared_input=shared)
    request.getfixturevalue("no_vmap")
    y, cache = many.apply(params, x, *key)
    assert_close(y, want)
    assert_close((*many.vjp(params, cache, gy), many.grads(params, cache, gy), many.input_grad(params, cache, gy)), wanted)


def test_only_much_of_x_is_taken_one_after_the_other() -> None:
    """A small x uses vmap, except for an LSTM; under vmap itself every x does."""
    small, large = torch.ones(2, 3, 4), torch.ones(2, 3000, 8)
    gru, lstm, pool = fn.GRU(4, 2), fn.LSTM(4, 2), fn.MaxPool1d(2)
    forms = [fn.ensemble(layer, N).apply(fn.ensemble(layer, N).init(0), x)[1].keys() for layer, x in
             [(gru, small), (lstm, small), (pool, small), (pool, large)]]  # fmt: skip
    assert [*map(list, forms)] == [["all"], ["each"], ["all"], ["each"]]
    many = fn.ensemble(lstm, N)
    params, inner = many.init(0), []
    got = torch.func.vmap(lambda x: inner.append(many.apply(params, x)) or inner[0][0][0])(torch.stack((small, small)))
    assert list(inner[0][1]) == ["all"]
    torch.testing.assert_close(got[1], many(params, small)[0])


def test_an_error_of_a_member_run_by_itself_is_located() -> None:
    """A note says where it is, and params of other members are named with their numbers."""
    many = fn.ensemble(fn.LSTM(4, 2), N)
    with pytest.raises(ValueError, match="input_size=4") as caught:
        many(many.init(0), torch.ones(5, 2, 3))
    assert caught.value.__notes__ == ["  in ensemble"]
    with pytest.raises(ValueError, match="the first axis of every tensor that is not shared must be n=3, got sizes 2"):
        many(fn.ensemble(fn.LSTM(4, 2), 2).init(0), torch.ones(5, 2, 4))


@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 4, 3), (2, 1, 4, 3), (0, 3)], ids=str)
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_rows_may_have_any_axes(shape: tuple[int, ...], shared: bool) -> None:
    """The Linears take a vector, a batch, a batch of sequences and an empty batch as a single Linear does."""
    net = fn.serial(fn.Linear(3, 4), fn.Tanh(), fn.Linear(4, 2))
    many = fn.ensemble(net, N, shared_input=shared)
    params, x = tree.cast(many.init(0), torch.float64), drawn(1, *(shape if shared else (N, *shape)))
    y, cache = many.apply(params, x)
    gy = drawn(2, *y.shape)
    gparams, gx = many.vjp(params, cache, gy)
    rows = [x if shared else x[i] for i in range(N)]
    alone = [net.apply(member(params, i), rows[i]) for i in range(N)]
    back = [net.vjp(member(params, i), alone[i][1], gy[i]) for i in range(N)]
    inputs = torch.stack([g for _, g in back])
    assert_close((y, gx), (torch.stack([one for one, _ in alone]), inputs.sum(0) if shared else inputs))
    for i in range(N):
        assert_close(member(gparams, i), back[i][0])


def labels(n: int, classes: int) -> Tensor:
    return random.bits(5, (n,)) % classes


LOSSES: dict[str, tuple[fn.Loss, fn.Layer, Tensor]] = {
    "MSE": (fn.MSE(), mlp(fn.ReLU()), drawn(3, 8, 2)),
    "MSE, summed": (fn.MSE("sum"), mlp(fn.Tanh()), drawn(3, 8, 2) / 8),
    "MSE, batch": (fn.MSE("batch"), mlp(fn.Tanh()), drawn(3, 8, 2)),
    "MSE of integers": (fn.MSE(), mlp(fn.Tanh()), labels(16, 2).reshape(8, 2)),
    "L1": (fn.L1(), mlp(fn.Tanh()), drawn(3, 8, 2)),
    "BCE": (fn.BCE(), fn.serial(mlp(fn.Tanh(), 1), fn.Sigmoid()), labels(8, 2)[:, None].double()),
    "BCE with logits": (fn.BCEWithLogits(pos_weight=2.0), mlp(fn.Tanh(), 1), labels(8, 2)[:, None].double()),
    "cross-entropy": (fn.CrossEntropy(), mlp(fn.ReLU(), 4), labels(8, 4)),
    "cross-entropy, int32": (fn.CrossEntropy(), mlp(fn.ReLU(), 4), labels(8, 4).int()),
    "cross-entropy, summed": (fn.CrossEntropy(reduction="sum"), mlp(fn.Tanh(), 4), labels(8, 4)),
    "cross-entropy, batch": (fn.CrossEntropy(reduction="batch"), mlp(fn.Tanh(), 4), labels(8, 4)),
    "cross-entropy, weighted": (fn.CrossEntropy((1.0, 2.0, 3.0, 0.5)), mlp(fn.Tanh(), 4), labels(8, 4)),
    "cross-entropy, a weight 0": (fn.CrossEntropy((1.0, 0.0, 3.0, 0.5)), mlp(fn.Tanh(), 4), labels(8, 4)),
    "cross-entropy, ignoring": (fn.CrossEntropy(ignore_index=1), mlp(fn.Tanh(), 4), labels(8, 4)),
    "cross-entropy, smoothed": (fn.CrossEntropy(label_smoothing=0.1), mlp(fn.Tanh(), 4), labels(8, 4)),
    "cross-entropy, probabilities": (fn.CrossEntropy(), mlp(fn.Tanh(), 4), drawn(3, 8, 4).softmax(1)),
}


@pytest.mark.parametrize("dtype", TIGHT, ids=str)
@pytest.mark.parametrize(("loss", "net", "target"), LOSSES.values(), ids=LOSSES)
def test_ten_batched_steps_equal_ten_separate_steps(loss: fn.Loss, net: fn.Layer, target: Tensor, dtype: torch.dtype) -> None:
    """``train_step`` of an ensemble gives each member the params and loss of a separate training with the same keys."""
    many, opt, x = fn.ensemble(net, N), fn.SGD(lr=0.05, momentum=0.5), drawn(1, 8, 3, dtype=dtype)
    target = tree.cast(target, dtype)
    batched, alone = fn.train_step(many, fn.ensemble(loss, N), opt), fn.train_step(net, loss, opt)
    params = tree.cast(many.init(0), dtype)
    state, singles = opt.init(params), [member(params, i) for i in range(N)]
    states = [opt.init(one) for one in singles]
    for _ in range(10):
        params, state, value = batched(params, state, x, target)
        steps = [alone(one, own, x, target) for one, own in zip(singles, states, strict=True)]
        singles, states = [step[0] for step in steps], [step[1] for step in steps]
        assert_close(value, torch.stack([step[2] for step in steps]), dtype)
    for i in range(N):
        assert_close(member(params, i), singles[i], dtype)


@pytest.mark.parametrize("reduction", ["mean", "sum", "batch", "none"])
@pytest.mark.parametrize("shape", [(8, 4), (8, 4, 5), (8, 4, 5, 2), (0, 4)], ids=str)
def test_cross_entropy_takes_any_axes(shape: tuple[int, ...], reduction: str) -> None:
    """Labels of sequences and images, and an empty batch, give each member its separate loss."""
    loss, y = fn.CrossEntropy(reduction=reduction, ignore_index=2), drawn(1, N, *shape)
    target = (random.bits(5, (shape[0], *shape[2:])) % 4).abs()
    value, gy = fn.ensemble(loss, N).value_and_grad(y, target)
    for i in range(N):
        torch.testing.assert_close((value[i], gy[i]), loss.value_and_grad(y[i], target), rtol=0, atol=1e-12, equal_nan=True)


def test_adam_trains_members_like_separate_nets() -> None:
    """An optimizer that treats each number by itself is not affected by the axis of members."""
    net, loss, opt, x, target = mlp(fn.Tanh()), fn.MSE(), fn.Adam(lr=0.01), drawn(1, 8, 3), drawn(3, 8, 2)
    many = fn.ensemble(net, N)
    params = tree.cast(many.init(0), torch.float64)
    single, state = member(params, 1), opt.init(params)
    own = opt.init(single)
    for _ in range(10):
        params, state, _ = fn.train_step(many, fn.ensemble(loss, N), opt)(params, state, x, target)
        single, own, _ = fn.train_step(net, loss, opt)(single, own, x, target)
    assert_close(member(params, 1), single)


@pytest.mark.parametrize(
    ("loss", "target"), [(fn.MSE(), drawn(3, 8, 2)), (fn.CrossEntropy(), labels(8, 2))], ids=["MSE", "CrossEntropy"]
)
def test_a_step_of_linears_and_activations_needs_no_vmap(loss: fn.Loss, target: Tensor, no_vmap: None) -> None:
    """Such nets, and the usual losses, use kernels for all members: ``vmap`` takes five times as long."""
    many, opt = fn.ensemble(mlp(fn.ReLU()), N), fn.SGD(lr=0.1)
    params = tree.cast(many.init(0), torch.float64)
    _, _, value = fn.train_step(many, fn.ensemble(loss, N), opt)(params, opt.init(params), drawn(1, 8, 3), target)
    assert value.shape == (N,)


@pytest.mark.parametrize("net", [mlp(fn.Tanh()), NETS["batch norm"], fn.serial(fn.Linear(3, 2), fn.Dropout(0.5))], ids=str)
def test_the_cache_is_plain(net: fn.Layer) -> None:
    """No tensor is wrapped by ``vmap``, and all tensors except the shared x have a first axis of n."""
    many, x = fn.ensemble(net, N), drawn(1, 6, 3, dtype=torch.float32)
    arguments = (many.init(0), x, 3) if many.stochastic else (many.init(0), x)
    kept = [leaf for leaf in tree.leaves(many.apply(*arguments)[1]) if isinstance(leaf, Tensor)]
    assert not any(torch._C._functorch.is_functorch_wrapped_tensor(leaf) for leaf in kept)
    assert {leaf.shape[0] for leaf in kept if leaf is not x} == {N}


DROPPED = fn.serial(fn.Linear(3, 8), fn.Dropout(0.5), fn.Linear(8, 2))


def test_members_draw_separate_noise() -> None:
    """Members with equal params have different masks; each has the mask that a separate net draws from ``fold_in(rng, i)``."""
    many, x = fn.ensemble(DROPPED, N), drawn(1, 6, 3)
    one = tree.cast(DROPPED.init(0), torch.float64)
    params = tree.map(lambda leaf: leaf.expand(N, *leaf.shape), one)
    y = many.apply(params, x, fn.key(9))[0]
    assert len({tuple(each.flatten().tolist()) for each in y}) == N
    for i in range(N):
        assert_close(y[i], DROPPED.apply(one, x, fn.fold_in(9, i))[0])


def test_a_stochastic_ensemble_refuses_without_a_key() -> None:
    """Without a key nothing passes."""
    with pytest.raises(ValueError, match="must be given a key"):
        fn.ensemble(DROPPED, N).apply(fn.ensemble(DROPPED, N).init(0), drawn(1, 6, 3, dtype=torch.float32))


def test_inference_of_an_ensemble_is_an_ensemble_of_inference() -> None:
    """Dropout is removed, the params stay."""
    many, x = fn.ensemble(DROPPED, N), drawn(1, 6, 3, dtype=torch.float32)
    params = many.init(0)
    assert many.inference() == fn.ensemble(DROPPED.inference(), N)
    assert_close(many.inference()(params, x)[2], DROPPED.inference()(member(params, 2), x), torch.float32)


def test_batch_statistics_are_each_members_own() -> None:
    """``update_stats`` moves member i's statistics by its own batch, and ``inference`` uses them."""
    net = fn.serial(fn.Linear(3, 4), fn.BatchNorm1d(4), fn.Linear(4, 2))
    many, x = fn.ensemble(net, N), drawn(1, 6, 3)
    params = tree.cast(many.init(0), torch.float64)
    moved = many.update_stats(params, many.apply(params, x)[1])
    for i in range(N):
        one = member(params, i)
        own = net.update_stats(one, net.apply(one, x)[1])
        assert_close((member(moved, i), many.inference()(moved, x)[i]), (own, net.inference()(own, x)))


def test_without_statistics_params_stay_the_same_objects() -> None:
    """``update_stats`` of linears and activations does no work."""
    many = fn.ensemble(fn.Linear(3, 2), N)
    params = many.init(0)
    assert many.update_stats(params, many.apply(params, torch.ones(4, 3))[1]) is params


@pytest.mark.parametrize("loss", [fn.MSE(), fn.L1("none"), fn.MSE("sum"), fn.CrossEntropy()], ids=str)
def test_the_loss_of_an_ensemble_is_each_members_own(loss: fn.Loss) -> None:
    """Value, both gradients and ``as_layer`` of a member match the loss by itself; a target's gradients add up."""
    many, y, target = fn.ensemble(loss, N), drawn(1, N, 8, 2), drawn(3, 8, 2).softmax(1)
    value, gy = many.value_and_grad(y, target)
    g = drawn(4, *value.shape)
    layer = many.as_layer()
    _, (gys, gtarget) = layer.vjp({}, layer.apply({}, (y, target))[1], g)
    total = torch.zeros_like(target)
    for i in range(N):
        one = loss.as_layer()
        _, (own, toward) = one.vjp({}, one.apply({}, (y[i], target))[1], g[i])
        assert_close((value[i], gy[i], gys[i]), (*loss.value_and_grad(y[i], target), own))
        total = total + toward
    assert_close(gtarget, total)


def test_an_impossible_class_of_weight_0_costs_nothing() -> None:
    """0 times an infinite logarithm is 0, as for one net."""
    loss, y, target = fn.CrossEntropy((1.0, 0.0)), drawn(1, N, 8, 2), labels(8, 2)
    y[:, :, 1] = -torch.inf
    value, gy = fn.ensemble(loss, N).value_and_grad(y, target)
    assert_close((value[1], gy[1]), loss.value_and_grad(y[1], target))


@pytest.mark.compiled
@pytest.mark.parametrize("net", [mlp(fn.ReLU()), NETS["batch norm"]], ids=["kernels", "vmap"])
@pytest.mark.parametrize(
    ("loss", "target"), [(fn.MSE(), drawn(3, 8, 2)), (fn.CrossEntropy(), labels(8, 2))], ids=["MSE", "CrossEntropy"]
)
def test_a_compiled_step_is_the_eager_one(net: fn.Layer, loss: fn.Loss, target: Tensor) -> None:
    """The whole step is one graph, and gives the same numbers."""
    many, opt, x = fn.ensemble(net, N), fn.SGD(lr=0.1, momentum=0.2), drawn(1, 8, 3)
    params = tree.cast(many.init(0), torch.float64)
    step, state = fn.train_step(many, fn.ensemble(loss, N), opt), opt.init(params)
    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=False)
    assert_close(compiled(params, state, x, target), step(params, state, x, target))


def test_an_ensemble_comes_back_from_a_pickle() -> None:
    """Data that it caches for speed is not part of its repr or of equality."""
    many = fn.ensemble(mlp(fn.Tanh()), N, shared_input=False)
    again = pickle.loads(pickle.dumps(many))
    assert again == many
    assert again._batched == many._batched
    assert repr(many) == f"ensemble({mlp(fn.Tanh())!r}, {N}, shared_input=False)"


def test_what_a_serial_holds_is_arranged_one_by_one() -> None:
    """Only a layer without batched kernels uses vmap; the layers around it do not."""
    kinds = [type(one) for one in members.batched(NETS["softmax"], N, shared=True)]
    assert kinds == [members.Linears, members.Mapped, members.Linears]


def test_members_one_after_the_other_move_their_statistics() -> None:
    """Each member in the loop has the same statistics as by itself."""

    @fn.frozen
    class Looped(fn.BatchNorm1d):
        ensemble_mode = "loop"

    one, many, x = Looped(3), fn.ensemble(Looped(3), N, shared_input=False), drawn(1, N, 4, 3)
    params = tree.cast(many.init(0), torch.float64)
    moved = many.update_stats(params, many.apply(params, x)[1])
    for i in range(N):
        alone = member(params, i)
        assert tree.equal(member(moved, i), one.update_stats(alone, one.apply(alone, x[i])[1]))
    assert not tree.equal(moved, params)
