"""LBFGS compared with torch.optim's, and what its pure form adds."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import funcnet as fn
from funcnet import tree
from funcnet.flattening import Tree

Function = Callable[[Tree], tuple[Tensor, Tree]]
OPTIONS: list[dict[str, Any]] = [
    {"line_search_fn": "strong_wolfe"},
    {},
    {"lr": 0.5, "history_size": 5, "line_search_fn": "strong_wolfe"},
    {"lr": 0.01, "max_iter": 4, "history_size": 3},
    {"max_iter": 1, "lr": 0.05},
    {"max_iter": 30, "max_eval": 31, "tolerance_grad": 1e-3, "tolerance_change": 1e-5},
]


def rosenbrock(params: Tree) -> tuple[Tensor, Tree]:
    """Return Rosenbrock's function of two numbers, and its gradient."""
    x, y = params["w"]
    return (1 - x) ** 2 + 100 * (y - x * x) ** 2, {"w": torch.stack([2 * (x - 1) - 400 * x * (y - x * x), 200 * (y - x * x)])}


def small_net() -> tuple[Function, Tree]:
    """Return the loss of a net with 25 parameters as a function, and its first params."""
    net = fn.serial(fn.Linear(2, 6), fn.Tanh(), fn.Linear(6, 1))
    x = fn.random.normal(0, (16, 2), dtype=torch.float64)
    step, target = fn.value_and_grads(net, fn.MSE()), torch.sin(x.sum(1, keepdim=True))
    return lambda params: step(params, x, target)[:2], tree.cast(net.init(0), torch.float64)


def ours(opt: fn.LBFGS, f: Function, params: Tree, steps: int) -> tuple[Tree, list[Tensor]]:
    """Take steps with our optimizer; return the params and the losses before each."""
    state, values = opt.init(params), []
    for _ in range(steps):
        params, state, value = opt.step(f, state, params)
        values.append(value)
    return params, values


def theirs(options: dict[str, Any], f: Function, params: Tree, steps: int) -> tuple[Tree, list[Tensor]]:
    """Take steps with torch's optimizer."""
    leaves = tree.map(lambda p: torch.nn.Parameter(p.clone()), params)
    opt = torch.optim.LBFGS(tree.leaves(leaves), **options)

    def closure() -> Tensor:
        value, grads = f(tree.map(Tensor.detach, leaves))
        for leaf, g in zip(tree.leaves(leaves), tree.leaves(grads), strict=True):
            leaf.grad = g.clone()
        return value

    values = [opt.step(closure) for _ in range(steps)]
    return tree.map(Tensor.detach, leaves), values


@pytest.mark.parametrize("options", OPTIONS, ids=repr)
def test_a_hundred_steps_are_torchs_on_rosenbrock(options: dict[str, Any]) -> None:
    """Params and losses agree in float64."""
    start = {"w": torch.tensor([-1.2, 1.0], dtype=torch.float64)}
    got, want = (run(one, rosenbrock, start, 100) for run, one in ((ours, fn.LBFGS(**options)), (theirs, options)))
    fn.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", OPTIONS, ids=repr)
def test_steps_are_torchs_on_a_net(options: dict[str, Any]) -> None:
    """At most 100 iterations are compared; after them rounding errors lead to another descent."""
    f, start = small_net()
    steps = 100 // options.get("max_iter", 20)
    got, want = (run(one, f, start, steps) for run, one in ((ours, fn.LBFGS(**options)), (theirs, options)))
    fn.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_an_update_is_an_iteration_without_line_search() -> None:
    """``update`` matches torch with ``max_iter=1``."""
    f, params = small_net()
    opt, start = fn.LBFGS(0.05, history_size=4), params
    state = opt.init(params)
    for _ in range(30):
        params, state = opt.update(f(params)[1], state, params)
    want, _ = theirs({"max_iter": 1, "lr": 0.05, "history_size": 4}, f, start, 30)
    fn.testing.assert_close(params, want, rtol=1e-12, atol=1e-12)


def test_a_donated_step_gives_the_same_bits_in_place() -> None:
    """The new params and state use the memory of the old ones."""
    f, params = small_net()
    opt = fn.LBFGS(history_size=3, line_search_fn="strong_wolfe")
    want = opt.step(f, opt.init(params), params)
    own = tree.map(torch.clone, params)
    state = opt.init(own)
    places = tree.map(Tensor.data_ptr, (own, state))
    got = fn.donate(opt).step(f, state, own)
    assert tree.equal(got, want)
    assert tree.map(Tensor.data_ptr, got[:2]) == places


def test_a_saved_state_goes_on_bit_for_bit() -> None:
    """Five steps, and five more from the saved state, equal ten."""
    f, start = small_net()
    opt = fn.LBFGS(max_iter=3, history_size=4)
    whole, values = ours(opt, f, start, 10)
    params, state = start, opt.init(start)
    for _ in range(5):
        params, state, _ = opt.step(f, state, params)
    state = tree.from_names({name: leaf.clone() for name, leaf in tree.names(state).items()}, like=state)
    for i in range(5, 10):
        params, state, value = opt.step(f, state, params)
        assert torch.equal(value, values[i])
    assert tree.equal(params, whole)


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_to_maximize_is_to_minimize_the_negated_loss(search) -> None:
    """All bits agree, with line search and without; the returned loss is not negated."""
    f, start = small_net()
    negated = lambda params: tree.map(torch.neg, f(params))
    options: dict[str, Any] = {"max_iter": 4, "line_search_fn": search}
    want, values = ours(fn.LBFGS(**options), f, start, 3)
    got, negatives = ours(fn.LBFGS(**options, maximize=True), negated, start, 3)
    assert tree.equal(got, want)
    assert [-one for one in negatives] == values
    opt, ascending = fn.LBFGS(), fn.LBFGS(maximize=True)
    down, up = opt.update(f(start)[1], opt.init(start), start), ascending.update(negated(start)[1], opt.init(start), start)
    assert tree.equal(up, down)


def test_frozen_leaves_stay() -> None:
    """A leaf without a gradient is returned as the same tensor, and the others step as if it were not there."""
    f, params = small_net()

    def partial(params: Tree) -> tuple[Tensor, Tree]:
        value, grads = f(params)
        return value, tree.replace(grads, "0.weight", None)

    opt = fn.LBFGS(line_search_fn="strong_wolfe")
    after, _, _ = opt.step(partial, opt.init(params), params)
    assert after[0]["weight"] is params[0]["weight"]
    assert f(after)[0] < f(params)[0]


def test_train_step_makes_whole_steps() -> None:
    """``train_step`` evaluates the losses that a step needs: one call makes up to ``max_iter`` iterations."""
    net = fn.serial(fn.Linear(2, 6), fn.BatchNorm1d(6), fn.Tanh(), fn.Linear(6, 1))
    x = fn.random.normal(0, (16, 2))
    target, params = torch.sin(x.sum(1, keepdim=True)), net.init(0)
    opt = fn.LBFGS(line_search_fn="strong_wolfe")
    step = fn.train_step(net, fn.MSE(), opt)
    after, state, value = step(params, opt.init(params), x, target)
    assert state["n_iter"] > 5
    assert fn.MSE()(net(after, x), target) < value / 5
    names = tree.names(params)
    assert {path for path, leaf in tree.names(after).items() if not torch.equal(leaf, names[path])} == {*names}


def test_step_refuses_to_be_traced() -> None:
    """The number of its iterations depends on values."""
    opt, params = fn.LBFGS(), {"w": torch.ones(3, 2)}
    bowl = lambda p: ((p["w"] ** 2).sum(), p)
    mapped = torch.func.vmap(lambda p: opt.step(bowl, opt.init(p), p)[0])
    with pytest.raises(ValueError, match="step reads values as numbers and can be neither compiled nor mapped"):
        mapped(params)


def test_a_gradient_that_does_not_fit_is_refused() -> None:
    """The first evaluation raises the error, with the path."""
    opt, params = fn.LBFGS(), {"w": torch.ones(2)}
    with pytest.raises(ValueError, match=r"LBFGS\(\): grads at 'w' must match params"):
        opt.step(lambda p: (torch.zeros(()), {"w": torch.ones(3)}), opt.init(params), params)


@pytest.mark.compiled
def test_one_graph_serves_all_updates() -> None:
    """The new state has the strides of the old one, even with several leaves."""
    fn.testing.check_optimizer(fn.LBFGS(history_size=2), fn.mlp([2, 3, 2]).init(0))
