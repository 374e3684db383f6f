"""Optimizers that torch.optim has: 100 steps over a grid of all their options, in float64 to 1e-12."""

import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import funcnet as fn
from funcnet import tree
from funcnet.flattening import Tree
from funcnet.random import fold_in, key, normal, uniform

STEPS = 100
SHAPES = {"kernel": (2, 1, 3, 2), "bias": (7,), "scale": ()}


def grid(**choices: tuple[Any, ...]) -> list[dict[str, Any]]:
    """Return all combinations of options by name."""
    return [dict(zip(choices, row, strict=True)) for row in itertools.product(*choices.values())]


def pairwise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return some combinations in which every two values of every two options occur together: 10 of 64."""
    pairs = lambda row: {*itertools.combinations([(name, str(value)) for name, value in row.items()], 2)}
    missing, found = set().union(*map(pairs, rows)), []
    while missing:
        found.append(max(rows, key=lambda row: len(missing & pairs(row))))
        missing -= pairs(found[-1])
    return found


BETAS, DECAYS, SIGNS = ((0.9, 0.999), (0.0, 0.5)), (0.0, 0.1), (False, True)
MOMENTA = [
    {},
    {"momentum": 0.9},
    {"dampening": 0.3},
    {"momentum": 0.9, "dampening": 0.3},
    {"momentum": 0.9, "nesterov": True},
]
GRIDS: dict[str, list[dict[str, Any]]] = {
    "SGD": [one | more for one in MOMENTA for more in grid(weight_decay=DECAYS, maximize=SIGNS)],
    "Adam": grid(betas=BETAS, eps=(1e-8, 1e-3), weight_decay=DECAYS, amsgrad=SIGNS, maximize=SIGNS, decoupled_weight_decay=SIGNS),
    "AdamW": grid(betas=BETAS, eps=(1e-8, 1e-3), weight_decay=DECAYS, amsgrad=SIGNS, maximize=SIGNS),
    "NAdam": [
        one | more
        for one in grid(betas=BETAS, weight_decay=DECAYS, decoupled_weight_decay=SIGNS, maximize=SIGNS)
        for more in ({}, {"eps": 1e-3, "momentum_decay": 0.1})
    ],
    "RAdam": grid(
        betas=(*BETAS, (0.9, 0.6)), eps=(1e-8, 1e-3), weight_decay=DECAYS, decoupled_weight_decay=SIGNS, maximize=SIGNS
    ),
    "Adamax": grid(betas=BETAS, eps=(1e-8, 1e-3), weight_decay=DECAYS, maximize=SIGNS),
    "Adagrad": grid(
        lr_decay=(0.0, 0.1), weight_decay=DECAYS, initial_accumulator_value=(0.0, 0.5), eps=(1e-10, 1e-3), maximize=SIGNS
    ),
    "Adadelta": grid(rho=(0.9, 0.0), eps=(1e-6, 1e-2), weight_decay=DECAYS, maximize=SIGNS),
    "RMSprop": grid(
        alpha=(0.99, 0.5), eps=(1e-8, 1e-3), momentum=(0.0, 0.9), centered=SIGNS, weight_decay=DECAYS, maximize=SIGNS
    ),
    "Rprop": grid(etas=((0.5, 1.2), (0.3, 1.7)), step_sizes=((1e-6, 50.0), (0.01, 0.1)), maximize=SIGNS),
    "ASGD": grid(lambd=(1e-4, 0.1), alpha=(0.75, 1.5), t0=(1e6, 20.0, 0.0), weight_decay=DECAYS, maximize=SIGNS),
}
AVERAGES = {"exp_avg", "exp_avg_sq", "exp_inf", "sum", "square_avg", "acc_delta", "grad_avg", "prev", "step_size", "ax"}


@pytest.fixture(autouse=True)
def _scalars_in_float64() -> Iterator[None]:
    """Make torch.optim keep its counts and products in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def drawn(seed: int) -> Tree:
    """Draw params or gradients; at odd seeds a third of the rows and elements are 0."""
    keys = {name: fold_in(key(seed), i) for i, name in enumerate(SHAPES)}
    values = {name: normal(one, SHAPES[name], dtype=torch.float64) for name, one in keys.items()}
    if seed % 2:
        values = {name: x * (uniform(fold_in(keys[name], 9), x.shape) > 1 / 3) for name, x in values.items()}
    return values


PARAMS, GRADS = drawn(0), [drawn(1 + i) for i in range(STEPS)]


def with_torch(make: Callable[[list[Tensor]], Any]) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Return the params after steps of torch's optimizer, and its state for each."""
    params = [torch.nn.Parameter(leaf.clone()) for leaf in tree.leaves(PARAMS)]
    optimizer = make(params)
    for grads in GRADS:
        for p, g in zip(params, tree.leaves(grads), strict=True):
            p.grad = g
        optimizer.step()
    return [p.detach() for p in params], [optimizer.state[p] for p in params]


def with_ours(optimizer: fn.Optimizer, grads: list[Tree] = GRADS) -> tuple[Tree, Tree]:
    """Return the params and the state after as many steps of our optimizer, which may be donated."""
    params, optimizer = tree.map(torch.clone, PARAMS), fn.donate(optimizer)
    state = optimizer.init(params)
    for g in grads:
        params, state = optimizer.update(g, state, params)
    return params, state


def assert_close(found: list[Tensor], wanted: list[Tensor], how: Any) -> None:
    """Require equal numbers to 1e-12."""
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12, msg=lambda text: f"{how}: {text}")


@pytest.mark.parametrize("name", GRIDS)
def test_all_options_take_the_steps_of_torch(name: str) -> None:
    """Params, and the moments with torch's names, agree after 100 steps; also with the defaults."""
    for how in ({}, *[{"lr": 0.02, **one} for one in pairwise(GRIDS[name])]):
        params, state = with_ours(getattr(fn, name)(**how))
        wanted, held = with_torch(lambda params, how=how: getattr(torch.optim, name)(params, **how))
        assert_close(tree.leaves(params), wanted, how)
        for moment in AVERAGES & state.keys():
            assert_close(tree.leaves(state[moment]), [one[moment] for one in held], (how, moment))


@pytest.mark.parametrize("name", GRIDS)
def test_every_option_of_torch_is_an_option(name: str) -> None:
    """Options that choose how torch computes are left out."""
    ways = {"params", "foreach", "fused", "capturable", "differentiable"}
    theirs = set(getattr(torch.optim, name).__init__.__annotations__) - ways - {"return"}
    assert theirs <= {one.name for one in getattr(fn, name).__attrs_attrs__}
    assert theirs - {"lr"} <= set().union(*GRIDS[name])


@pytest.mark.parametrize("name", [*GRIDS, "Adafactor", "Muon", "LBFGS"])
def test_arguments_have_the_order_and_defaults_of_torch(name: str) -> None:
    """``RMSprop(0.1, 0.9)`` means the same; the order holds up to the first option that chooses how torch computes."""
    ways = {"foreach", "fused", "capturable", "differentiable"}
    theirs = dict([*inspect.signature(getattr(torch.optim, name)).parameters.items()][1:])
    ours = inspect.signature(getattr(fn, name)).parameters
    by_place = [one for one, how in theirs.items() if how.kind is how.POSITIONAL_OR_KEYWORD]
    by_place = [*itertools.takewhile(lambda one: one not in ways, by_place)]
    assert [*ours][: len(by_place)] == by_place
    assert {one: ours[one].default for one in theirs.keys() - ways} == {one: theirs[one].default for one in theirs.keys() - ways}


@pytest.mark.parametrize("name", ["RMSprop", "Adagrad", "Adamax", "Lion"])
def test_formulas_take_the_steps_of_kernels(name: str) -> None:
    """``vmap`` runs the formula, and eager mode a kernel in place; they agree for all options."""
    options = GRIDS.get(name) or grid(betas=((0.9, 0.99), (0.0, 0.5)), weight_decay=DECAYS, maximize=SIGNS)
    for how in options:
        optimizer = getattr(fn, name)(lr=0.02, **how)
        params, state = with_ours(optimizer, GRADS[:3])
        arguments = tree.map(lambda x: x[None], (GRADS[3], state, params))
        mapped = torch.func.vmap(optimizer.update)(*arguments)
        found, wanted = tree.leaves(mapped), tree.leaves(optimizer.update(GRADS[3], state, params))
        assert_close([x[0] for x in found], wanted, how)
