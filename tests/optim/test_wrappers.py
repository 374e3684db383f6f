"""Optimizers around others, compared with the algorithms of their papers."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch

import funcnet as fn
from funcnet import tree
from funcnet.flattening import Tree

STEPS = 100


def start() -> Tree:
    """Return params in float64."""
    return {"w": fn.random.normal(0, (4, 3), dtype=torch.float64), "b": fn.random.normal(1, (3,), dtype=torch.float64)}


def gradient(step: int, params: Tree) -> Tree:
    """Return the noisy gradient of half the squares."""
    return {name: p + fn.random.normal(fn.fold_in(step, name), tuple(p.shape), dtype=torch.float64) for name, p in params.items()}


def run(
    opt: fn.Optimizer, steps: int = STEPS, change: Callable[[int, Tree], Tree] = lambda step, grads: grads
) -> tuple[Tree, Tree]:
    """Take steps."""
    params = start()
    state = opt.init(params)
    for step in range(steps):
        params, state = opt.update(change(step, gradient(step, params)), state, params)
    return params, state


def close(got: Tree, want: Tree) -> None:
    """Require equality to rounding."""
    fn.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_lookahead_is_the_papers() -> None:
    """A hundred steps of algorithm 1 agree."""
    opt, inner = fn.Lookahead(fn.AdamW(0.1), 7, 0.3), fn.AdamW(0.1)
    fast = slow = start()
    state = inner.init(fast)
    for step in range(STEPS):
        fast, state = inner.update(gradient(step, fast), state, fast)
        if step % 7 == 6:
            fast = slow = tree.map(lambda s, f: s + 0.3 * (f - s), slow, fast)
    params, after = run(opt)
    close(params, fast)
    close(opt.eval_params(after, params), slow)


@pytest.mark.parametrize("k", [1, 4])
def test_multi_steps_is_one_step_with_the_mean(k: int) -> None:
    """Between two steps neither params nor the inner state change."""
    opt, inner = fn.MultiSteps(fn.AdamW(fn.LinearSchedule(0.1, 0.0, 25)), k), fn.AdamW(fn.LinearSchedule(0.1, 0.0, 25))
    params, want = start(), start()
    state, reference = opt.init(params), inner.init(want)
    for step in range(STEPS):
        params, state = opt.update(gradient(step, want), state, params)
        if step % k == k - 1:
            grads = [gradient(i, want) for i in range(step - k + 1, step + 1)]
            want, reference = inner.update(tree.map(lambda *gs: sum(gs) / k, *grads), reference, want)
        close(params, want)
        close(state["optimizer"], reference)


def test_multi_steps_keeps_what_a_leaf_missed() -> None:
    """A gradient that is absent at the step is used at the next one; one that is absent before adds nothing."""
    opt, params = fn.MultiSteps(fn.SGD(1.0), 2), {"a": torch.zeros(1), "b": torch.zeros(1)}
    state, one = opt.init(params), torch.ones(1)
    for grads in ({"a": one, "b": None}, {"a": None, "b": one}):
        params, state = opt.update(grads, state, params)
    assert (params["a"].item(), params["b"].item()) == (0.0, -0.5)
    for grads in ({"a": one, "b": one}, {"a": one, "b": one}):
        params, state = opt.update(grads, state, params)
    assert (params["a"].item(), params["b"].item()) == (-1.5, -1.5)


def test_skipped_updates_change_nothing_but_counts() -> None:
    """A hundred updates, every third with a NaN or an infinity, equal the updates without them."""

    def spoil(step: int, grads: Tree) -> Tree:
        bad = float("nan") if step % 2 else float("inf")
        return {**grads, "b": torch.full_like(grads["b"], bad)} if step % 3 == 0 else grads

    inner, want = fn.Adam(fn.LinearSchedule(0.1, 0.0, STEPS)), start()
    reference = inner.init(want)
    for step in range(STEPS):
        if step % 3:
            want, reference = inner.update(gradient(step, want), reference, want)
    params, state = run(fn.SkipNonFinite(inner), change=spoil)
    assert tree.equal(params, want)
    assert tree.equal(state["optimizer"], reference)
    assert (state["step"].item(), state["skipped"].item(), state["consecutive"].item()) == (100, 34, 1)


def test_large_finite_gradients_are_no_reason_to_skip() -> None:
    """Their sum may overflow; an infinity that cancels in the sum, and a NaN in half precision, are skipped."""
    most = torch.finfo(torch.float32).max
    opt, params = fn.SkipNonFinite(fn.Lion(0.1)), {"w": torch.zeros(4)}
    for g, skipped in [([most] * 4, 0), ([torch.inf, -torch.inf, 1.0, 1.0], 1), ([0.0, 0.0, 0.0, torch.nan], 1)]:
        _, state = opt.update({"w": torch.tensor(g)}, opt.init(params), params)
        assert state["skipped"] == skipped
    half = {"w": torch.full((4,), 6e4, dtype=torch.float16)}
    assert opt.update(half, opt.init(half), half)[1]["skipped"] == 0


@pytest.mark.parametrize("form", ["eager", "vmap", pytest.param("compiled", marks=pytest.mark.compiled)])
def test_at_most_a_given_number_of_updates_in_a_row_is_skipped(form: str) -> None:
    """The next update is made even with NaN; a finite gradient resets the count."""
    opt, params = fn.SkipNonFinite(fn.SGD(1.0), max_consecutive=2), {"w": torch.zeros(2)}
    update: Any = fn.compile(opt.update) if form == "compiled" else opt.update
    state, one, bad = opt.init(params), torch.ones(2), torch.tensor([1.0, torch.nan])
    if form == "vmap":
        params, state, one, bad = tree.map(lambda x: x[None], (params, state, one, bad))
        update = torch.func.vmap(opt.update)
    seen = []
    for g in (bad, bad, one, bad, bad, bad):
        params, state = update({"w": g}, state, params)
        seen.append((state["skipped"].item(), state["consecutive"].item(), params["w"].isfinite().all().item()))
    assert seen == [(1, 1, True), (2, 2, True), (2, 0, True), (3, 1, True), (4, 2, True), (4, 3, False)]


@pytest.mark.parametrize("power", [0.0, 2.0])
def test_schedule_free_is_that_of_its_paper(power: float) -> None:
    """A hundred steps with AdamW without momentum at a constant rate agree: params and those for evaluation."""
    lr, decay, beta, total = 0.1, 0.1, 0.8, 0.0
    x, y, z, v = start(), start(), start(), tree.zeros_like(start())
    for step in range(STEPS):
        g = gradient(step, y)
        v = {name: 0.999 * v[name] + 0.001 * g[name] ** 2 for name in g}
        root = {name: (v[name] / (1 - 0.999 ** (step + 1))).sqrt() for name in g}
        z = {name: z[name] - lr * (g[name] / (root[name] + 1e-8) + decay * y[name]) for name in g}
        total += lr**power
        x = {name: x[name] + lr**power / total * (z[name] - x[name]) for name in g}
        y = {name: beta * x[name] + (1 - beta) * z[name] for name in g}
    opt = fn.ScheduleFree(fn.AdamW(lr, betas=(0.0, 0.999), weight_decay=decay), beta, power)
    params, after = run(opt)
    for got, want in ((params, y), (opt.eval_params(after, params), x)):
        fn.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def test_schedule_free_weighs_a_warm_up_less() -> None:
    """The weights are squares of the largest rate so far, summed in the state; at rate 0 nothing moves."""
    opt, params = fn.ScheduleFree(fn.SGD(fn.LinearSchedule(0.0, 0.4, 4))), {"w": torch.ones(1)}
    state = opt.init(params)
    first, state = opt.update(params, state, params)
    torch.testing.assert_close(first, params)
    for _ in range(6):
        params, state = opt.update(params, state, params)
    assert state["max_lr"].item() == pytest.approx(0.4)
    assert state["weight_sum"].item() == pytest.approx(0.1**2 + 0.2**2 + 0.3**2 + 3 * 0.4**2)


@pytest.mark.parametrize("adaptive", [False, True])
def test_sam_is_the_papers(adaptive: bool) -> None:
    """A hundred steps on a curved function agree, each with the gradient at the worst params nearby."""
    opt, inner, rho = fn.SAM(fn.SGD(0.05, momentum=0.9), 0.1, adaptive), fn.SGD(0.05, momentum=0.9), 0.1
    params = want = start()
    state, reference = opt.init(params), inner.init(want)
    for step in range(STEPS):
        grads_at = functools.partial(gradient, step)
        params, state, value = opt.step(lambda p, grads_at=grads_at: (tree.ravel(p).sum(), grads_at(p)), state, params)
        assert value.dim() == 0
        g = grads_at(want)
        t = tree.map(torch.abs, want) if adaptive else tree.map(torch.ones_like, want)
        norm = tree.ravel(tree.map(lambda a, b: a * b, t, g)).norm() + 1e-12
        worst = tree.map(lambda p, a, b, norm=norm: p + rho * a * a * b / norm, want, t, g)
        want, reference = inner.update(grads_at(worst), reference, want)
    close(params, want)


def test_sam_trains_within_train_step() -> None:
    """Its step is the two halves by hand; statistics come from the first evaluation, and both use one key."""
    net = fn.serial(fn.Linear(3, 8), fn.BatchNorm1d(8), fn.Dropout(0.5), fn.Tanh(), fn.Linear(8, 2))
    x, target, params, opt = fn.random.normal(0, (16, 3)), fn.random.normal(1, (16, 2)), net.init(0), fn.SAM(fn.Adam(0.1), 0.2)
    got = fn.train_step(net, fn.MSE(), opt)(params, opt.init(params), x, target, fn.key(3))
    evaluate = fn.value_and_grads(net, fn.MSE())
    value, grads, cache = evaluate(params, x, target, fn.key(3))
    _, grads, _ = evaluate(opt.climb(grads, params), x, target, fn.key(3))
    want, state = opt.update(grads, opt.init(params), net.update_stats(params, cache))
    assert tree.equal(got, (want, state, value))


@pytest.mark.compiled
def test_a_step_with_sam_compiles_whole() -> None:
    """The step compiles to one graph, pure and donated, and agrees up to rounding."""
    net, opt = fn.mlp([3, 8, 2]), fn.SAM(fn.SGD(0.1, momentum=0.9))
    x, target, params = fn.random.normal(0, (16, 3)), fn.random.normal(1, (16, 2)), net.init(0)
    step = fn.train_step(net, fn.MSE(), opt)
    want = step(params, opt.init(params), x, target)
    fn.testing.assert_close(fn.compile(step)(params, opt.init(params), x, target), want)
    donated = fn.compile(fn.train_step(net, fn.MSE(), fn.donate(opt)))
    fn.testing.assert_close(donated(tree.map(torch.clone, params), opt.init(params), x, target), want)


def test_sam_refuses_gradients_that_do_not_fit() -> None:
    """The message has the path."""
    opt, params = fn.SAM(fn.SGD()), {"w": torch.ones(2)}
    with pytest.raises(ValueError, match=r"SAM\(.*grads at 'w' must match params"):
        opt.climb({"w": torch.ones(3)}, params)
    assert opt.climb({"w": None}, params)["w"] is params["w"]


def test_an_update_that_makes_no_step_returns_no_graph() -> None:
    """Params that require grad are returned without a graph, between steps of ``MultiSteps`` and for a NaN gradient."""
    params = {"w": torch.ones(2).requires_grad_()}
    for opt in (fn.MultiSteps(fn.SGD(), 2), fn.SkipNonFinite(fn.SGD())):
        after, _ = opt.update({"w": torch.full((2,), torch.nan)}, opt.init(params), params)
        assert not after["w"].requires_grad
        assert torch.equal(after["w"], params["w"])


SWEPT: list[Callable[[Any], fn.Optimizer]] = [
    lambda lr: fn.by_path({fn.is_matrix: fn.Muon(lr, ns_dtype=None), "*": fn.SGD(lr)}),
    fn.Adafactor,
    lambda lr: fn.Prodigy(lr, d0=1e-2),
    lambda lr: fn.LBFGS(lr, history_size=2),
    lambda lr: fn.ScheduleFree(fn.SGD(lr)),
    lambda lr: fn.MultiSteps(fn.SGD(lr), 2),
    lambda lr: fn.SkipNonFinite(fn.Adam(lr)),
    lambda lr: fn.Lookahead(fn.Adam(lr), 2),
    lambda lr: fn.Averaged(fn.Adam(lr), fn.EMA(0.5)),
    lambda lr: fn.SAM(fn.Adam(lr)),
]


def test_rates_are_swept_and_differentiated() -> None:
    """A 0-d tensor as the rate gives what its number does; ``vmap`` and ``torch.func.grad`` work over it."""
    rates = torch.tensor([0.01, 0.3], dtype=torch.float64)
    for make in SWEPT:
        swept = torch.func.vmap(lambda lr, make=make: run(make(lr), 3)[0])(rates)
        for i, rate in enumerate(rates):
            close(tree.map(lambda x, i=i: x[i], swept), run(make(rate.item()), 3)[0])
            close(run(make(rate), 3)[0], run(make(rate.item()), 3)[0])
        total = lambda lr, make=make: tree.ravel(run(make(lr), 3)[0]).sum()
        slope = (total(rates[0] + 1e-6) - total(rates[0] - 1e-6)) / 2e-6
        torch.testing.assert_close(torch.func.grad(total)(rates[0]), slope, rtol=1e-5, atol=1e-6)


WRAPPERS: list[Callable[[Any], fn.Optimizer]] = [
    fn.Lookahead,
    lambda inner: fn.MultiSteps(inner, 2),
    fn.SkipNonFinite,
    fn.ScheduleFree,
    lambda inner: fn.Averaged(inner, fn.EMA(0.5)),
]
each_wrapper = pytest.mark.parametrize(
    "wrap", WRAPPERS, ids=["Lookahead", "MultiSteps", "SkipNonFinite", "ScheduleFree", "Averaged"]
)


@each_wrapper
def test_wrappers_refuse_what_they_cannot_hold(wrap: Any) -> None:
    """Examples are other values, donated optimizers, and optimizers whose ``update`` is not their whole step."""
    for inner, rule in [
        (fn.MSE(), "must be an optimizer"),
        (fn.donate(fn.SGD()), "must not be donated; donate the wrapper instead"),
        (fn.chain(fn.ClipByValue(1.0), fn.SGD()).donate(), "must not be donated"),
        (fn.SAM(fn.SGD()), "must be the outermost, where train_step calls its step"),
        (fn.LBFGS(), "must be the outermost"),
    ]:
        with pytest.raises(ValueError, match=rule):
            wrap(inner)


@pytest.mark.parametrize("outer", [fn.MasterWeights, lambda opt: fn.chain(fn.ClipByValue(1.0), opt)], ids=["masters", "chain"])
def test_an_optimizer_that_evaluates_is_the_outermost(outer: Any) -> None:
    """A wrapper would call only its ``update``, which is not its step."""
    with pytest.raises(ValueError, match="must be the outermost"):
        outer(fn.SAM(fn.SGD()))


@each_wrapper
@pytest.mark.parametrize("form", [lambda o: o, fn.donate], ids=["pure", "donated"])
def test_wrappers_refuse_before_they_write(wrap: Any, form: Any) -> None:
    """Gradients, a wrapper's trees and counts, and the inner state are checked, each with its name."""
    opt, params = form(wrap(fn.Adam(0.1))), {"a": torch.ones(3), "b": torch.ones(4, 3)}
    for _ in range(2):
        params, state = opt.update(tree.map(torch.cos, params), opt.init(params), params)
        grads, own = (
            tree.map(torch.sin, params),
            [name for name in state if isinstance(state[name], dict) and name != "optimizer"],
        )
        bad = [({**grads, "b": torch.ones(3)}, state, "grads at 'b' must")]
        bad += [(grads, tree.replace(state, f"{name}.b", torch.ones(3)), f"{name} at 'b' must") for name in own]
        bad += [(grads, tree.replace(state, "optimizer.exp_avg.b", torch.ones(3)), "exp_avg at 'b' must")]
        bad += [(grads, {**state, "step": torch.tensor(1.0)}, "state must have a 0-d int64 tensor as step")]
        bad += [(grads, {"step": state["step"]}, "state must be a dict of step, ")]
        for g, s, rule in bad:
            before = tree.map(torch.clone, (s, params))
            with pytest.raises(ValueError, match=rule):
                opt.update(g, s, params)
            assert tree.equal((s, params), before)


@pytest.mark.parametrize("form", [lambda o: o, fn.donate], ids=["pure", "donated"])
def test_wrappers_step_layer_by_layer(form: Any) -> None:
    """Wrappers that act on leaves update in the backward pass, bit for bit, with counts and the copies of ``repeat``."""
    net = fn.serial(fn.Linear(3, 8), fn.repeat(fn.serial(fn.Linear(8, 8), fn.Tanh()), 3), fn.Linear(8, 2))
    x, target = fn.random.normal(0, (16, 3)), fn.random.normal(1, (16, 2))
    inner = fn.Adam(0.1, betas=(0.0, 0.9))
    for opt in (fn.Lookahead(inner, 2), fn.MultiSteps(inner, 2), fn.ScheduleFree(inner), fn.Adafactor(0.1)):
        ends = []
        for in_backward in (False, True):
            params, step = net.init(0), fn.train_step(net, fn.MSE(), form(opt), in_backward=in_backward)
            state = opt.init(params)
            for _ in range(3):
                params, state, value = step(params, state, x, target)
            ends.append((params, state, value))
        assert tree.equal(*ends)


@each_wrapper
def test_wrappers_take_names_of_their_state(wrap: Any) -> None:
    """Every leaf of the state can be read and replaced by name, and the next update uses it."""
    opt, params = wrap(fn.Adam(0.1)), {"a": torch.ones(3)}
    state = opt.init(params)
    for path, leaf in tree.names(state).items():
        assert tree.at(tree.replace(state, path, leaf + 1), path).equal(leaf + 1)
    assert {"step", "optimizer.step", "optimizer.exp_avg.a"} <= tree.names(state).keys()
    changed = tree.replace(state, "optimizer.exp_avg.a", torch.full((3,), 5.0))
    assert opt.rates(changed) == {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0}


@pytest.mark.parametrize(
    "around",
    [
        lambda opt: fn.chain(fn.ClipByGlobalNorm(1e9), opt),
        lambda opt: fn.by_path({"w": opt, "*": opt}),
        fn.SkipNonFinite,
        fn.SAM,
        fn.MasterWeights,
        fn.donate,
        lambda opt: fn.MultiSteps(opt, 1),
    ],
)
def test_params_for_evaluation_come_from_within(around: Callable[[fn.Optimizer], fn.Optimizer]) -> None:
    """Around an optimizer with an average, wrappers return this average; around others, the params themselves."""
    for opt in (fn.ScheduleFree(fn.SGD(0.1)), fn.Lookahead(fn.SGD(0.1), 7), fn.Averaged(fn.SGD(0.1), fn.EMA(0.5))):
        params, state = run(around(opt), 5)
        theirs, plain = run(opt, 5)
        close(around(opt).eval_params(state, params), opt.eval_params(plain, theirs))
        assert not tree.equal(around(opt).eval_params(state, params), params)
    params, state = run(around(fn.SGD(0.1)), 5)
    assert tree.equal(around(fn.SGD(0.1)).eval_params(state, params), params)


def test_fit_validates_the_params_for_evaluation() -> None:
    """The last row of the history is what ``evaluate`` gives at ``opt.eval_params``; metrics use these params too."""
    x = fn.random.normal(0, (64, 3))
    data, opt, net = (x, x.sum(1, keepdim=True)), fn.ScheduleFree(fn.SGD(0.1)), fn.Linear(3, 1)
    found = fn.fit(net, fn.MSE(), opt, data, epochs=2, batch_size=16, key=0, validation=data, progress=False)
    judged = fn.evaluate(net, opt.eval_params(found.state, found.params), data, loss=fn.MSE())
    assert found.history["validation_loss"][-1] == judged["loss"] != fn.evaluate(net, found.params, data, loss=fn.MSE())["loss"]
