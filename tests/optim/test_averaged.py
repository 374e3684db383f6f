"""Averaged: compared with a hand-written loop with ``EMA`` or ``SWA``, for every leaf and in every form of a step."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import funcnet as fn
from funcnet import tree
from funcnet.flattening import Tree

AVERAGES = [fn.EMA(0.8), fn.EMA(0.9, debias=True, warmup=True), fn.EMA(fn.LinearSchedule(0.5, 0.9, 4)), fn.SWA(1, 2)]
each_average = pytest.mark.parametrize("average", AVERAGES, ids=repr)

X, TARGET, LOSS = fn.random.normal(0, (16, 3)), fn.random.normal(1, (16, 2)), fn.MSE()
NORMED = fn.serial(
    fn.BatchNorm1d(3, affine=False),
    fn.freeze(fn.serial(fn.Linear(3, 8), fn.BatchNorm1d(8))),
    fn.repeat(fn.serial(fn.Linear(8, 8), fn.BatchNorm1d(8), fn.Tanh()), 2),
    fn.Linear(8, 2),
)
"""A net with running statistics beside trained params, in a frozen layer, and in a layer without other params."""


def trained(opt: fn.Optimizer, steps: int = 4, **how: Any) -> tuple[Tree, Tree]:
    """Return params and state after some steps of the net."""
    step, params = fn.train_step(NORMED, LOSS, opt, **how), NORMED.init(0)
    state = opt.init(params)
    for i in range(steps):
        params, state, _ = step(params, state, X + i, TARGET)
    return params, state


def by_hand(average: Any, inner: fn.Optimizer, steps: int = 4) -> tuple[Tree, Tree]:
    """Return params and their average after some steps; the loop updates the average itself."""
    step, params = fn.train_step(NORMED, LOSS, inner), NORMED.init(0)
    state, kept = inner.init(params), average.init(params)
    for i in range(steps):
        params, state, _ = step(params, state, X + i, TARGET)
        kept = average.update(kept, params)
    return params, average.params(kept)


@each_average
@pytest.mark.parametrize("form", [lambda opt: opt, fn.donate], ids=["pure", "donated"])
@pytest.mark.parametrize("in_backward", [False, True])
def test_it_averages_as_a_loop_by_hand(average: Any, form: Callable[[fn.Optimizer], fn.Optimizer], in_backward: bool) -> None:
    """Averages agree bit for bit, including running statistics in trained or frozen layers and in layers without other params."""
    opt = fn.Averaged(fn.Adam(0.1), average)
    params, state = trained(form(opt), in_backward=in_backward)
    assert tree.equal((params, opt.eval_params(state, params)), by_hand(average, fn.Adam(0.1)))


def test_a_part_of_an_optimizer_averages_too() -> None:
    """The part may be in a chain, in a group of params, and around float32 masters, whose params it sees before rounding."""
    average = fn.EMA(0.5)
    params, want = by_hand(average, fn.chain(fn.ClipByValue(0.01), fn.SGD(0.1)))
    opt: fn.Optimizer = fn.chain(fn.ClipByValue(0.01), fn.Averaged(fn.SGD(0.1), average))
    got, state = trained(opt)
    assert tree.equal((got, opt.eval_params(state, got)), (params, want))
    params, want = by_hand(average, fn.SGD(0.1))
    opt = fn.by_path({"3.*": fn.Averaged(fn.SGD(0.1), average), "*": fn.SGD(0.1)})
    got, state = trained(opt)
    assert tree.equal(opt.eval_params(state, got), (*params[:3], want[3]))


def test_masters_are_averaged_in_float32() -> None:
    """Steps below the last bit of bfloat16 reach the average, which is rounded for evaluation."""
    opt, params = fn.MasterWeights(fn.Averaged(fn.SGD(1e-3), fn.SWA())), {"w": torch.ones(1, dtype=torch.bfloat16)}
    state = opt.init(params)
    for _ in range(8):
        params, state = opt.update({"w": torch.ones(1, dtype=torch.bfloat16)}, state, params)
    torch.testing.assert_close(state["optimizer"]["average"]["w"], torch.full((1,), 1 - 0.0045), rtol=0, atol=1e-6)
    assert torch.equal(opt.eval_params(state, params)["w"], torch.full((1,), 1 - 0.0045).bfloat16())


def test_sam_averages_running_statistics_from_before_its_step() -> None:
    """Trained params are averaged after the step."""
    net, opt = fn.serial(fn.Linear(3, 2), fn.BatchNorm1d(2)), fn.SAM(fn.Averaged(fn.SGD(0.1), fn.SWA()))
    first = net.init(0)
    params, state, _ = fn.train_step(net, LOSS, opt)(first, opt.init(first), X, TARGET)
    average = opt.eval_params(state, params)
    assert tree.equal(average[0], params[0])
    assert tree.equal(average[1]["running_mean"], first[1]["running_mean"])
    assert not tree.equal(params[1]["running_mean"], first[1]["running_mean"])


def test_members_are_averaged_one_by_one() -> None:
    """Under ``vmap`` each member has the average that it has by itself."""
    opt, members = fn.Averaged(fn.SGD(0.1), fn.EMA(0.9, warmup=True)), [{"w": fn.random.normal(i, (3,))} for i in range(3)]

    def run(params: Tree) -> Tree:
        state = opt.init(params)
        for _ in range(3):
            params, state = opt.update(params, state, params)
        return opt.eval_params(state, params)

    found = torch.func.vmap(run)(tree.map(lambda *xs: torch.stack(xs), *members))
    torch.testing.assert_close(found["w"], torch.stack([run(one)["w"] for one in members]))


def test_counters_and_other_leaves_have_their_last_value() -> None:
    """Absent leaves stay absent; a state that comes from elsewhere is read by name."""
    opt, params = fn.Averaged(fn.SGD(1.0), fn.EMA(0.5)), {"w": torch.zeros(2), "n": torch.tensor(1), "none": None}
    state = opt.init(params)
    later = {**params, "n": torch.tensor(7)}
    params, state = opt.update({"w": -torch.ones(2), "n": None, "none": None}, state, later)
    assert tree.equal(opt.eval_params(state, params), {"w": torch.full((2,), 0.5), "n": torch.tensor(7), "none": None})
    assert tree.at(state, "average.w").tolist() == [0.5, 0.5]


def test_fit_validates_the_average() -> None:
    """The last row of the history is what ``evaluate`` gives for the average, which the returned state holds."""
    data, net, opt = (X, TARGET), fn.Linear(3, 2), fn.Averaged(fn.SGD(0.1), fn.EMA(0.9))
    found = fn.fit(net, LOSS, opt, data, epochs=2, batch_size=5, key=0, validation=data, progress=False)
    judged = fn.evaluate(net, opt.eval_params(found.state, found.params), data, loss=LOSS)
    assert found.history["validation_loss"][-1] == judged["loss"] != fn.evaluate(net, found.params, data, loss=LOSS)["loss"]


def test_it_refuses_what_does_not_fit() -> None:
    """Another kind of average, a missing or unexpected gradient, and a decay out of range are refused; nothing is written."""
    with pytest.raises(ValueError, match="average must be an EMA or an SWA, got"):
        fn.Averaged(fn.SGD(), 0.9)
    params = {"w": torch.ones(2), "mean": torch.ones(3)}
    grads = {"w": torch.ones(2), "mean": None}
    for opt in (fn.Averaged(fn.SGD(0.1), fn.SWA()), fn.donate(fn.Averaged(fn.SGD(0.1), fn.SWA()))):
        state = opt.init(params)
        for bad, rule in (
            (tree.replace(state, "average.mean", torch.ones(4)), "average at 'mean' must match params"),
            ({**state, "count": torch.tensor(0.0)}, "state must have a 0-d int64 tensor as count"),
            (tree.replace(state, "average.mean", torch.ones(3, dtype=torch.float64)), "average at 'mean' must"),
        ):
            with pytest.raises(ValueError, match=rule):
                opt.update(grads, bad, params)
    wild = fn.donate(fn.Averaged(fn.SGD(0.1), fn.EMA(lambda t: 1.5)))
    with pytest.raises(ValueError, match="a schedule must return a finite number of at least 0 and below"):
        wild.update(grads, wild.init(params), params)
    assert tree.equal(params, {"w": torch.ones(2), "mean": torch.ones(3)})


def test_a_debiased_average_needs_an_update_first() -> None:
    """``EMA.params`` requires one too."""
    opt = fn.Averaged(fn.SGD(), fn.EMA(debias=True))
    with pytest.raises(ValueError, match="with debias, update must be called before params"):
        opt.eval_params(opt.init({"w": torch.ones(1)}), {"w": torch.ones(1)})


def test_an_average_in_the_memory_of_params_is_refused_before_it_is_written() -> None:
    """A donated update would write to the average through params."""
    opt, params = fn.donate(fn.Averaged(fn.SGD(0.1), fn.EMA())), {"w": torch.ones(2)}
    state = {**opt.init(params), "average": params}
    with pytest.raises(ValueError, match="in which no two elements may share memory"):
        opt.update({"w": torch.ones(2)}, state, params)
    assert torch.equal(params["w"], torch.ones(2))
