"""Compositions: within chains, wrappers and layerwise steps every optimizer takes the steps that it takes by itself."""

from typing import Any

import pytest
import torch
from optimizer_cases import MATRICES, OPTIMIZERS
from training import each_separate_optimizer, leaves, run

import funcnet as fn
from funcnet import tree
from funcnet.flattening import Tree
from funcnet.optim.evaluating import EvaluatingOptimizer

INNER = [one for one in OPTIMIZERS if not isinstance(one, EvaluatingOptimizer)]
each_inner = pytest.mark.parametrize("optimizer", INNER, ids=repr)
NET = fn.serial(fn.Linear(3, 4), fn.Tanh(), fn.Linear(4, 2))
X, TARGET = fn.random.normal(0, (5, 3)), fn.random.normal(1, (5, 2))


def test_what_asks_for_several_gradients_is_no_inner_optimizer() -> None:
    """Every combination refuses it, with its name."""
    for outer in (
        fn.chain,
        fn.MasterWeights,
        fn.Lookahead,
        fn.SkipNonFinite,
        fn.ScheduleFree,
        lambda opt: fn.Averaged(opt, fn.EMA()),
        lambda opt: fn.by_path({"*": opt}),
    ):
        for optimizer in [one for one in OPTIMIZERS if isinstance(one, EvaluatingOptimizer)]:
            with pytest.raises(ValueError, match="an optimizer that asks for several gradients must be the outermost"):
                outer(optimizer)


@each_separate_optimizer
def test_a_layerwise_step_gives_the_bits_of_a_whole_one(optimizer: fn.Optimizer) -> None:
    """Optimizers that act on elements or leaves update each layer in the backward pass, pure and donated."""
    params = NET.init(0)
    for used in (optimizer, fn.donate(optimizer)):
        found = []
        for in_backward in (False, True):
            step, p = fn.train_step(NET, fn.MSE(), used, in_backward=in_backward), tree.map(torch.clone, params)
            state = used.init(p)
            for _ in range(3):
                p, state, value = step(p, state, X, TARGET)
            found.append((p, state, value))
        assert tree.equal(*found)


@pytest.mark.parametrize("optimizer", [one for one in [*INNER, *MATRICES] if one.acts_on == "tree"], ids=repr)
def test_what_acts_on_the_tree_makes_no_layerwise_step(optimizer: fn.Optimizer) -> None:
    """The optimizer is refused when the step is made."""
    with pytest.raises(ValueError, match="in_backward"):
        fn.train_step(NET, fn.MSE(), optimizer, in_backward=True)


@each_inner
def test_wrappers_that_do_nothing_change_no_bit(optimizer: fn.Optimizer) -> None:
    """A factor of 1, one gradient a step, finite gradients, one group, full precision, an average beside; also donated."""
    wrapped: dict[Any, Any] = {
        fn.chain(fn.ScaleBy(1.0), optimizer): lambda state: state[-1],
        fn.MultiSteps(optimizer, 1): lambda state: state["optimizer"],
        fn.SkipNonFinite(optimizer): lambda state: state["optimizer"],
        fn.by_path({"*": optimizer}): lambda state: state[0],
        fn.MasterWeights(optimizer): lambda state: state["optimizer"],
        fn.Averaged(optimizer, fn.SWA()): lambda state: state["optimizer"],
    }
    for dtype in (torch.float64, torch.float32):
        want = run(optimizer, leaves(0, dtype), steps=4)
        for one, inner in wrapped.items():
            for used in (one, fn.donate(one)):
                params, state = run(used, leaves(0, dtype), steps=4)
                assert tree.equal((params, inner(state)), want), (used, dtype)


@each_inner
def test_two_halves_of_a_gradient_make_one_step(optimizer: fn.Optimizer) -> None:
    """``MultiSteps`` gets the same gradient twice, or the sum of two in halves."""
    params, want = leaves(0), leaves(0)
    twice = fn.MultiSteps(optimizer, 2)
    state, alone = twice.init(params), optimizer.init(want)
    for step in range(3):
        for _ in range(2):
            params, state = twice.update(leaves(10 + step), state, params)
        want, alone = optimizer.update(leaves(10 + step), alone, want)
    assert tree.equal((params, state["optimizer"]), (want, alone))


@each_inner
def test_masters_take_the_steps_of_float32(optimizer: fn.Optimizer) -> None:
    """Params and gradients are in bfloat16; the params are the masters, rounded."""
    if isinstance(optimizer, fn.MasterWeights):
        return
    params, opt = leaves(0, torch.bfloat16), fn.MasterWeights(optimizer)
    state, want = opt.init(params), tree.cast(params, torch.float32)
    alone = optimizer.init(want)
    for step in range(3):
        grads = leaves(10 + step, torch.bfloat16)
        params, state = opt.update(grads, state, params)
        want, alone = optimizer.update(tree.cast(grads, torch.float32), alone, want)
    assert tree.equal((state["masters"], state["optimizer"]), (want, alone))
    assert tree.equal(params, tree.cast(want, torch.bfloat16))


def steps_with_fused_code(optimizer: fn.Optimizer, grads: list[Tree], params: Tree) -> Tree:
    """Take steps with code that Inductor compiled once."""
    torch._dynamo.reset()
    step, state = torch.compile(optimizer.update, fullgraph=True), optimizer.init(params)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for g in grads:
            params, state = step(g, state, params)
    return params, state


@pytest.mark.compiled
@pytest.mark.parametrize("optimizer", [fn.Lion(0.1, weight_decay=0.1), fn.NAdam(0.1), fn.Adafactor(0.1), fn.Prodigy()], ids=repr)
def test_inductor_takes_the_steps_of_eager_mode(optimizer: fn.Optimizer) -> None:
    """No step compiles again."""
    grads = [{"w": leaves(seed)[0]["weight"]} for seed in (1, 2, 3)]
    params, state = want = {"w": leaves(0)[0]["weight"]}, optimizer.init({"w": leaves(0)[0]["weight"]})
    for g in grads:
        params, state = want = optimizer.update(g, state, params)
    fn.testing.assert_close(steps_with_fused_code(optimizer, grads, {"w": leaves(0)[0]["weight"]}), want, rtol=1e-10, atol=1e-10)
