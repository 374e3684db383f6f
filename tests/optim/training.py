"""Params, gradients, and steps with our optimizers or torch's."""

import pytest
import torch
from optimizer_cases import OPTIMIZERS

from funcnet import tree
from funcnet.flattening import Tree
from funcnet.optim.base import Optimizer, State
from funcnet.optim.sgd import SGD
from funcnet.random import fold_in, key, normal

STEPS = 12


def leaves(seed: int, dtype: torch.dtype = torch.float64) -> Tree:
    """Make params or gradients: a matrix, a vector that fills no whole register, a 0-d leaf and an empty node."""
    shapes = {"weight": (5, 7), "bias": (5,), "scale": ()}
    drawn = {
        name: normal(fold_in(key(seed), i), shape, dtype=torch.float64).to(dtype)
        for i, (name, shape) in enumerate(shapes.items())
    }
    return ({"weight": drawn["weight"], "bias": drawn["bias"]}, {}, {"inner": {"scale": drawn["scale"]}})


def run(optimizer: Optimizer, params: Tree, steps: int = STEPS, state: State = None, first: int = 0) -> tuple[Tree, State]:
    """Take steps with gradients that depend on the step only."""
    state = optimizer.init(params) if state is None else state
    dtype = tree.leaves(params)[0].dtype
    for step in range(first, first + steps):
        params, state = optimizer.update(leaves(100 + step, dtype), state, params)
    return params, state


each_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
SEPARATE = [one for one in OPTIMIZERS if one.acts_on != "tree"]
each_separate_optimizer = pytest.mark.parametrize("optimizer", SEPARATE, ids=repr)
"""Optimizers whose step of a leaf depends on this leaf only."""


def misfit(grads: Tree = None, state: State = None, params: Tree = None, optimizer: Optimizer | None = None) -> ValueError:
    """Update with gradients, params or state that do not fit, and return the error."""
    optimizer = optimizer or SGD(momentum=0.9)
    with pytest.raises(ValueError, match=r".") as caught:
        optimizer.update(grads or leaves(1), state or optimizer.init(leaves(0)), params or leaves(0))
    return caught.value
