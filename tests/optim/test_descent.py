"""Every optimizer descends a quadratic bowl and Rosenbrock's valley."""

from collections.abc import Callable

import pytest
import torch
from optimizer_cases import DESCENDING, MATRICES, OPTIMIZERS
from torch import Tensor

import funcnet as fn
from funcnet.flattening import Tree
from funcnet.optim.evaluating import EvaluatingOptimizer

Function = Callable[[Tree], tuple[Tensor, Tree]]


def bowl(params: Tree) -> tuple[Tensor, Tree]:
    """Return ½ (x - 1)² + 5 (y - 1)² and its gradient."""
    away, slopes = params["w"] - 1, torch.tensor([[1.0, 10.0]], dtype=torch.float64)
    return (slopes * away * away).sum() / 2, {"w": slopes * away}


def rosenbrock(params: Tree) -> tuple[Tensor, Tree]:
    """Return (1 - x)² + 100 (y - x²)² and its gradient."""
    x, y = params["w"].flatten()
    slopes = torch.stack([2 * (x - 1) - 400 * x * (y - x * x), 200 * (y - x * x)])
    return (1 - x) ** 2 + 100 * (y - x * x) ** 2, {"w": slopes.view(1, 2)}


def lowest(opt: fn.Optimizer, f: Function, start: tuple[float, float], below: float) -> float:
    """Return the value, at the params for evaluation, after as many steps as reach a bound, at most 2000."""
    params = {"w": torch.tensor([start], dtype=torch.float64)}
    state, value = opt.init(params), torch.inf
    for _ in range(2000):
        value = f(opt.eval_params(state, params) if hasattr(opt, "eval_params") else params)[0].item()
        if value < below:
            break
        if isinstance(opt, EvaluatingOptimizer):
            params, state, _ = opt.step(f, state, params)
        else:
            params, state = opt.update(f(params)[1], state, params)
    return value


def test_every_optimizer_comes_down() -> None:
    """The list contains one of each kind."""
    assert {*map(type, DESCENDING)} == {*map(type, OPTIMIZERS), *map(type, MATRICES)}


@pytest.mark.parametrize("opt", DESCENDING, ids=repr)
def test_it_comes_down(opt: fn.Optimizer) -> None:
    """Each optimizer descends a bowl from (-1, 2), with value 7, and the valley from (-0.5, 0.25), with value 2.25."""
    assert lowest(fn.donate(opt), bowl, (-1.0, 2.0), 1e-2) < 1e-2
    assert lowest(fn.donate(opt), rosenbrock, (-0.5, 0.25), 0.1) < 0.1
