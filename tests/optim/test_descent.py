"""Descent: matrix, second-order and composite optimizers come down a bowl and Rosenbrock's valley."""

import pytest
import torch
from torch import Tensor

import funcnet as fn
from funcnet.flattening import Tree

OPTIMIZERS = [
    fn.Muon(fn.CosineSchedule(0.05, 500), weight_decay=0.0),
    fn.Adafactor(0.1),
    fn.Prodigy(),
    fn.LBFGS(0.3, history_size=5),
    fn.SAM(fn.Adam(0.05), 1e-3),
    fn.Lookahead(fn.Adam(0.1)),
    fn.MultiSteps(fn.Adam(0.1), 2),
    fn.SkipNonFinite(fn.Adam(0.1)),
    fn.ScheduleFree(fn.Adam(0.1, betas=(0.0, 0.99))),
    fn.by_path({fn.is_matrix: fn.Adam(0.1)}),
]


def bowl(params: Tree) -> tuple[Tensor, Tree]:
    """Return half the squared distance from 3, and its gradient."""
    return 0.5 * ((params["w"] - 3) ** 2).sum(), {"w": params["w"] - 3}


def rosenbrock(params: Tree) -> tuple[Tensor, Tree]:
    """Return Rosenbrock's function, 24.2 at (-1.2, 1) and 0 at (1, 1), and its gradient."""
    x, y = params["w"].flatten()
    slopes = torch.stack([2 * (x - 1) - 400 * x * (y - x * x), 200 * (y - x * x)])
    return (1 - x) ** 2 + 100 * (y - x * x) ** 2, {"w": slopes.view(1, 2)}


def lowest(opt: fn.Optimizer, f: object, steps: int) -> float:
    """Return the value after some steps, at the params for evaluation where an optimizer has others."""
    params = {"w": torch.tensor([[-1.2, 1.0]], dtype=torch.float64)}
    state = opt.init(params)
    for _ in range(steps):
        if isinstance(opt, fn.SAM):
            params, state, _ = opt.step(f, state, params)
        else:
            params, state = opt.update(f(params)[1], state, params)
    return f(opt.eval_params(state, params) if hasattr(opt, "eval_params") else params)[0].item()


@pytest.mark.parametrize("opt", OPTIMIZERS, ids=repr)
def test_it_comes_down(opt: fn.Optimizer) -> None:
    """To the bottom of the bowl, and well into the valley."""
    assert lowest(opt, bowl, 500) < 1e-3
    assert lowest(opt, rosenbrock, 500) < 2.0
