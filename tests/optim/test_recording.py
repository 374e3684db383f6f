"""Recorded norms: the optimizer's step is unchanged bit for bit, and the means match a hand-written loop."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from optimizer_cases import OPTIMIZERS, one_of_each
from training import leaves

import funcnet as fn
from funcnet import tree
from funcnet.flattening import Tree
from funcnet.optim.recording import recorded

NET = fn.serial(fn.Linear(3, 8), fn.BatchNorm1d(8), fn.Tanh(), fn.Linear(8, 2))
X, TARGET, LOSS = fn.random.normal(0, (16, 3)), fn.random.normal(1, (16, 2)), fn.MSE()
each_form = pytest.mark.parametrize("form", [lambda opt: opt, fn.donate], ids=["pure", "donated"])


def norm(values: Tree) -> float:
    """Return the norm of all leaves in float64."""
    return math.sqrt(sum(float(leaf.double().square().sum()) for leaf in tree.leaves(values)))


def difference(new: Tree, old: Tree) -> Tree:
    """Subtract in float64."""
    return tree.map(lambda p, q: p.double() - q.double(), new, old)


@each_form
@pytest.mark.parametrize("opt", one_of_each(OPTIMIZERS), ids=lambda opt: type(opt).__name__)
def test_every_optimizer_steps_as_without_it(opt: fn.Optimizer, form: Callable[[fn.Optimizer], Any]) -> None:
    """Steps agree bit for bit, and the norms are computed from each gradient and each change of params."""
    recorder, params, got = form(recorded(opt)), leaves(0, torch.float32), leaves(0, torch.float32)
    state, inner = recorder.init(got), opt.init(params)
    grad_norms, update_norms = [], []
    for i in range(1, 4):
        grads, old = leaves(i, torch.float32), params
        params, inner = opt.update(grads, inner, old)
        got, state = recorder.update(grads, state, got)
        grad_norms.append(norm(grads))
        update_norms.append(norm(difference(params, old)))
    assert tree.equal((got, state["optimizer"]), (params, inner))
    assert recorder.rates(state) == opt.rates(inner)
    assert tree.equal(recorder.eval_params(state, got), opt.eval_params(inner, params))
    norms, _ = recorder.read(state)
    assert norms == pytest.approx({"grad_norm": sum(grad_norms) / 3, "update_norm": sum(update_norms) / 3}, rel=1e-6)


def test_it_keeps_the_contract_of_optimizers() -> None:
    """The recorder works under vmap, on the meta device and donated, and refuses the same arguments as optimizers."""
    params = {"w": torch.ones(2, 3), "n": torch.tensor(1), "b": torch.ones(3)}
    for opt in (fn.Adam(0.1), fn.MasterWeights(fn.chain(fn.LossScale(), fn.SGD(0.1))), fn.SAM(fn.SGD(0.1))):
        fn.testing.check_optimizer(recorded(opt), params, compiled=False)


def test_a_state_is_wrapped_and_read() -> None:
    """The optimizer's state is unchanged, a read resets the sums, and before the first update there is no mean."""
    opt, params = fn.Adam(0.1), {"w": torch.ones(4)}
    plain, recorder = opt.init(params), recorded(opt)
    state = recorder.wrap(plain)
    assert state["optimizer"] is plain
    assert all(map(math.isnan, recorder.read(state)[0].values()))
    _, state = recorder.update({"w": torch.full((4,), 3.0)}, state, params)
    norms, state = recorder.read(state)
    assert norms["grad_norm"] == 6.0
    assert all(map(math.isnan, recorder.read(state)[0].values()))
    assert tree.equal({**recorder.wrap(state["optimizer"])}, state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_norms_do_not_overflow_or_vanish(dtype: torch.dtype) -> None:
    """Squares may exceed the range of the dtype; half-precision updates may exceed the range of float16."""
    huge, tiny = {"float64": (1e200, 1e-200), "float16": (6e4, 6e-8)}.get(str(dtype)[6:], (1e30, 1e-30))
    for size in (huge, tiny):
        grads, recorder = {"w": torch.full((10_000,), size, dtype=dtype)}, recorded(fn.SGD(1.0))
        params = tree.zeros_like(grads)
        _, state = recorder.update(grads, recorder.init(params), params)
        want = pytest.approx(100 * float(grads["w"][0]), rel=1e-6)
        assert recorder.read(state)[0] == {"grad_norm": want, "update_norm": want}


@each_form
def test_a_loss_scale_is_divided_out(form: Callable[[fn.Optimizer], Any]) -> None:
    """Norms are of the gradient of the loss, without the factor of the loss scale."""
    scaled = form(recorded(fn.chain(fn.LossScale(), fn.SGD(0.1))))
    plain = recorded(fn.SGD(0.1))
    found = []
    for opt in (scaled, plain):
        params = NET.init(0)
        state = opt.init(params)
        for _ in range(3):
            params, state, _ = fn.train_step(NET, LOSS, opt)(params, state, X, TARGET)
        found.append(opt.read(state)[0])
    assert found[0] == pytest.approx(found[1], rel=1e-12)


def test_gradients_that_a_loss_scale_made_infinite_are_left_out() -> None:
    """The update is skipped and the factor halved; without a loss scale an infinite gradient is recorded."""
    params, skipping = {"w": torch.ones(1)}, fn.SkipNonFinite(fn.SGD(1.0))
    for opt, g, want in ((fn.chain(fn.LossScale(4.0), skipping), 2.0, 1.0), (skipping, 1.0, math.inf)):
        recorder = recorded(opt)
        after, state = recorder.update({"w": torch.full((1,), torch.inf)}, recorder.init(params), params)
        _, state = recorder.update({"w": torch.full((1,), g)}, state, after)
        assert recorder.read(state)[0] == {"grad_norm": want, "update_norm": 0.5}


@each_form
@pytest.mark.parametrize("opt", [fn.SAM(fn.Adam(0.1), 0.2), fn.LBFGS(line_search_fn="strong_wolfe", max_iter=4)], ids=repr)
def test_an_optimizer_that_evaluates_has_the_norm_of_the_first_gradient(opt: Any, form: Callable[[fn.Optimizer], Any]) -> None:
    """The recorded update is its whole step, which is unchanged bit for bit."""
    recorder, params = form(recorded(opt)), NET.init(0)
    want, inner, value = fn.train_step(NET, LOSS, opt)(params, opt.init(params), X, TARGET)
    _, grads, _ = fn.value_and_grads(NET, LOSS)(params, X, TARGET)
    start = tree.map(torch.clone, params)
    got, state, seen = fn.train_step(NET, LOSS, recorder)(start, recorder.init(start), X, TARGET)
    assert tree.equal((got, state["optimizer"], seen), (want, inner, value))
    moved = [norm(difference(want[i], params[i])) for i in (0, 3)]
    moved += [norm(difference([want[1][name] for name in ("weight", "bias")], [params[1][name] for name in ("weight", "bias")]))]
    assert recorder.read(state)[0] == pytest.approx({"grad_norm": norm(grads), "update_norm": math.hypot(*moved)}, rel=1e-5)


def test_a_step_records_the_accumulated_gradient() -> None:
    """The recorded norm is of the gradient of all micro-batches together."""
    net, recorder = fn.Linear(3, 2), recorded(fn.SGD(0.1))
    params = net.init(0)
    _, state, _ = fn.train_step(net, LOSS, recorder, accumulate=4)(params, recorder.init(params), X, TARGET)
    _, grads, _ = fn.value_and_grads(net, LOSS)(params, X, TARGET)
    assert recorder.read(state)[0] == pytest.approx({"grad_norm": norm(grads), "update_norm": 0.1 * norm(grads)}, rel=1e-5)


def test_a_donated_optimizer_is_recorded() -> None:
    """The optimizer may be donated before or after; arguments that it will not write to are not copied."""
    params, frozen = {"w": torch.ones(4), "big": torch.ones(4)}, {"w": torch.ones(4), "big": None}
    for recorder in (recorded(fn.donate(fn.SGD(0.5))), fn.donate(recorded(fn.SGD(0.5)))):
        given = tree.map(torch.clone, params)
        after, state = recorder.update(frozen, recorder.init(given), given)
        assert after["w"] is given["w"]
        assert after["big"] is given["big"]
        assert recorder.read(state)[0] == {"grad_norm": 2.0, "update_norm": 1.0}


def test_no_graph_is_kept() -> None:
    """Gradients and params may require grad."""
    recorder, w = recorded(fn.SGD(0.5)), torch.ones(4).requires_grad_()
    _, state = recorder.update({"w": w * 2}, recorder.init({"w": w}), {"w": w})
    assert not any(leaf.requires_grad for leaf in tree.leaves(state))


def test_it_refuses_updates_in_the_backward_pass_and_other_states() -> None:
    """Each has its message; the optimizer refuses gradients that do not fit, with nothing written."""
    with pytest.raises(
        ValueError, match=r"in_backward=True updates each layer before .*Recorder\(.*which acts on the whole tree"
    ):
        fn.train_step(NET, LOSS, recorded(fn.SGD()), in_backward=True)
    recorder, params = recorded(fn.SGD(0.1)), {"w": torch.ones(2)}
    with pytest.raises(ValueError, match=r"state must be a dict of optimizer, steps, .*, as wrap returns it"):
        recorder.update(params, fn.SGD(0.1).init(params), params)
    for form in (recorder, recorder.donate()):
        with pytest.raises(ValueError, match="grads at 'w' must match params"):
            form.update({"w": torch.ones(3)}, form.init(params), params)
        with pytest.raises(ValueError, match="v"):
            form.update({"v": torch.ones(2)}, form.init(params), params)
    with pytest.raises(ValueError, match="must be an optimizer"):
        recorded(fn.MSE())  # type: ignore[arg-type]


@pytest.mark.compiled
def test_a_recorded_step_compiles_whole() -> None:
    """One graph serves all donated steps."""
    recorder = fn.donate(recorded(fn.chain(fn.LossScale(), fn.SGD(0.1, momentum=0.9))))
    step, params = fn.train_step(fn.Linear(3, 2), LOSS, recorder), fn.Linear(3, 2).init(0)
    torch._dynamo.reset()
    compiled: Any = torch.compile(step, fullgraph=True, backend="aot_eager")
    found = []
    for one in (step, compiled):
        p = tree.map(torch.clone, params)
        state = recorder.init(p)
        for _ in range(3):
            p, state, _ = one(p, state, X, TARGET)
        found.append((p, recorder.read(state)[0]))
    fn.testing.assert_close(found[1][0], found[0][0])
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-5)
