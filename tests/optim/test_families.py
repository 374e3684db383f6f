"""Optimizers: late gradients in all of them, and arguments that some of them refuse."""

from typing import Any

import pytest
import torch
from test_steps_of_papers import PAPERS
from test_steps_of_torch import GRIDS
from torch import Tensor
from training import each_optimizer, leaves

import funcnet as fn
from funcnet import tree

NAMES = [*GRIDS, *PAPERS]
each_name = pytest.mark.parametrize("name", NAMES)


@each_name
def test_a_late_gradient_is_one_of_the_update_that_it_comes_at(name: str) -> None:
    """A leaf without gradients for five updates then steps as in a separate run from step 5, with the moments of ``init``."""
    optimizer, params = getattr(fn, name)(lr=0.1), {"early": leaves(0), "late": leaves(1)}
    state = optimizer.init(params)
    fresh = {**optimizer.init(params["late"]), "step": torch.tensor(5)}
    for seed in range(5):
        params, state = optimizer.update({"early": leaves(seed), "late": tree.map(lambda _: None, leaves(1))}, state, params)
    scalars = {scalar: state[scalar] for scalar in optimizer.scalars}
    params, _ = optimizer.update({"early": leaves(5), "late": leaves(6)}, state, params)
    wanted, _ = optimizer.update(leaves(6), {**fresh, **scalars}, leaves(1))
    assert tree.equal(params["late"], wanted)


def test_a_late_gradient_of_adam_is_corrected_by_the_count_of_all_updates() -> None:
    """Step 6 uses (1 - β⁶); torch.optim counts the gradients of the leaf, and uses (1 - β)."""
    optimizer, p, g = fn.Adam(lr=0.1, eps=0.0), torch.ones((), dtype=torch.float64), torch.tensor(3.0, dtype=torch.float64)
    state = optimizer.init(p)
    for _ in range(5):
        p, state = optimizer.update(None, state, p)
    p, _ = optimizer.update(g, state, p)
    mean, square = 0.1 * 3.0 / (1 - 0.9**6), 0.001 * 9.0 / (1 - 0.999**6)
    torch.testing.assert_close(p.item(), 1 - 0.1 * mean / square**0.5, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            {"lr": fn.ConstantSchedule(0.1)},
            "Rprop: lr is the initial step size, and must be a number or a 0-d tensor, got ConstantSchedule(value=0.1)",
        ),
        ({"lr": -0.1}, "Rprop: lr must be a finite number at least 0.0, got -0.1"),
        ({"etas": (0.5, 0.9)}, "Rprop: etas must be a tuple of a number between 0 and 1 and one above 1, got (0.5, 0.9)"),
        (
            {"step_sizes": (1.0, 0.1)},
            "Rprop: step_sizes must be a tuple of two numbers of at least 0, the smaller one first, got (1.0, 0.1)",
        ),
    ],
)
def test_rprop_refuses_what_it_cannot_use(how: dict[str, Any], message: str) -> None:
    """The message has the rule, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        fn.Rprop(**how)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "form", [lambda optimizer: optimizer, fn.donate, lambda optimizer: optimizer.replace(lr=torch.tensor(0.01))]
)
def test_a_constant_gradient_leaves_the_centered_rmsprop_finite(form: Any) -> None:
    """A variance that rounding makes negative counts as 0; torch.optim's params become NaN."""
    optimizer, g = form(fn.RMSprop(centered=True, alpha=0.5)), fn.random.normal(0, (100,))
    params, theirs = torch.zeros(100), torch.nn.Parameter(torch.zeros(100))
    state, other = optimizer.init(params), torch.optim.RMSprop([theirs], centered=True, alpha=0.5)
    theirs.grad = g
    for _ in range(50):
        params, state = optimizer.update(g, state, params)
        other.step()
    assert theirs.isnan().any()
    assert params.isfinite().all()


def test_the_averaged_params_of_asgd_are_the_mean_of_the_last() -> None:
    """The average begins at step t₀ + 1; before, it equals the params, in separate memory."""
    optimizer, params, trace = fn.ASGD(lr=0.1, t0=3), leaves(0), []
    state = optimizer.init(params)
    for seed in range(8):
        params, state = optimizer.update(leaves(seed), state, params)
        trace.append(tree.ravel(params))
        wanted = trace[-1] if seed < 4 else torch.stack(trace[4:]).mean(0)
        torch.testing.assert_close(tree.ravel(state["ax"]), wanted, rtol=1e-12, atol=1e-12)


@each_optimizer
def test_a_gradient_may_lie_in_the_memory_of_its_param(optimizer: fn.Optimizer) -> None:
    """A donated update reads each element before it writes: four steps give the bits of the pure optimizer."""
    params, donated = leaves(0), fn.donate(optimizer)
    given, state = tree.map(torch.clone, params), optimizer.init(params)
    held = donated.init(given)
    for _ in range(4):
        params, state = optimizer.update(params, state, params)
        given, held = donated.update(tree.map(Tensor.detach, given), held, given)
        assert tree.equal((given, held), (params, state))
