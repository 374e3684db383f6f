"""ReduceOnPlateau has the rate of torch's ReduceLROnPlateau at every metric of random sequences, pure, mapped, compiled."""

import math
import pickle
from typing import Any

import pytest
import torch

import funcnet as fn
from funcnet import ReduceOnPlateau, tree

OPTIONS: list[dict[str, Any]] = [
    {},
    {"patience": 0},
    {"patience": 2, "factor": 0.5},
    {"patience": 2, "threshold": 0.05, "cooldown": 3},
    {"patience": 1, "threshold": 0.05, "threshold_mode": "abs", "min_lr": 0.003},
    {"patience": 1, "factor": 0.7, "cooldown": 1, "eps": 1e-3},
    {"patience": 3, "factor": 0.0},
]


def metrics_of(seed: int, count: int = 200) -> list[float]:
    """Draw metrics that fall and rise, some of them not finite or repeated."""
    values = fn.random.normal(seed, (count,), dtype=torch.float64) + torch.linspace(2.0, -2.0, count, dtype=torch.float64).sin()
    values[::17] = values[::17].round()
    values[40], values[41] = math.nan, math.inf
    return values.tolist()


def torch_rates(metrics: list[float], lr: float, **options: Any) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=lr)
    schedule, rates = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options), []
    for metric in metrics:
        schedule.step(metric)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def rates_of(plateau: ReduceOnPlateau, metrics: list[Any]) -> list[float]:
    state, rates = plateau.init(), []
    for metric in metrics:
        state = plateau.update(metric, state)
        rates.append(plateau.rate(state).item())
    return rates


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_rates_are_those_of_torch(mode: str, options: dict[str, Any]) -> None:
    """The rates agree after each of 200 metrics, bit for bit."""
    for seed in range(3):
        metrics = metrics_of(seed)
        assert rates_of(ReduceOnPlateau(0.1, mode, **options), metrics) == torch_rates(metrics, 0.1, mode=mode, **options)


def test_the_rate_falls_in_these_tests() -> None:
    """The tests therefore compare more than a constant."""
    for options in OPTIONS:
        assert min(rates_of(ReduceOnPlateau(0.1, **options), metrics_of(0))) < 0.1


def test_a_metric_may_be_any_number_or_a_scalar_tensor() -> None:
    """The metric may have any dtype; the state does not change."""
    plateau = ReduceOnPlateau(0.1, patience=0)
    state = plateau.init()
    before = tree.map(torch.clone, state)
    for metric in (1, 1.0, torch.tensor(1), torch.tensor(1.0), torch.tensor(1.0, dtype=torch.float16)):
        assert plateau.update(metric, state)["best"].item() == 1.0
    assert tree.equal(state, before)


@pytest.mark.parametrize("metric", ["1", None, True, torch.ones(2), torch.tensor(1j), torch.tensor(True)], ids=repr)
def test_a_metric_that_is_no_number_is_refused(metric: Any) -> None:
    """The message has the value."""
    plateau = ReduceOnPlateau(0.1)
    with pytest.raises(ValueError, match=r"^ReduceOnPlateau\(lr=0.1\): metric must be a number, or a 0-d tensor, got "):
        plateau.update(metric, plateau.init())


@pytest.mark.parametrize("state", [{}, None, {"rate": torch.tensor(0.1)}], ids=str)
def test_a_state_of_something_else_is_refused(state: Any) -> None:
    """Both update and rate refuse it."""
    plateau = ReduceOnPlateau(0.1)
    for call in (lambda: plateau.update(1.0, state), lambda: plateau.rate(state)):
        with pytest.raises(ValueError, match=r"state must be a dict of rate, best, bad, cooldown, as init returns it, got "):
            call()


def test_plateaus_map_over_runs() -> None:
    """Each run of a sweep has its own state."""
    plateau = ReduceOnPlateau(0.1, patience=2, factor=0.5, cooldown=1)
    runs = [metrics_of(seed, 60) for seed in range(3)]
    states = tree.map(lambda leaf: leaf.expand(3), plateau.init())
    for metrics in zip(*runs, strict=True):
        states = torch.func.vmap(plateau.update)(torch.tensor(metrics, dtype=torch.float64), states)
    assert states["rate"].tolist() == [rates_of(plateau, metrics)[-1] for metrics in runs]


@pytest.mark.compiled
def test_plateaus_compile() -> None:
    """One graph serves all metrics except NaN, for which Dynamo makes a second one for any 0-d float64 input."""
    plateau = ReduceOnPlateau(0.1, patience=1, factor=0.5)
    update = torch.compile(plateau.update, fullgraph=True, backend="aot_eager")
    state, metrics = plateau.init(), [metric for metric in metrics_of(0, 60) if not math.isnan(metric)]
    with torch._dynamo.config.patch(error_on_recompile=True):
        for metric in metrics:
            state = update(torch.tensor(metric, dtype=torch.float64), state)
    assert state["rate"].item() == rates_of(plateau, metrics)[-1]


def test_a_plateau_is_a_value_whose_state_can_be_saved() -> None:
    """Equal plateaus have equal hashes and reprs, and a run continues from a pickled state."""
    plateau = ReduceOnPlateau(0.1, "max", patience=3)
    assert eval(repr(plateau), vars(fn)) == plateau == pickle.loads(pickle.dumps(plateau))
    state = plateau.update(1.0, plateau.init())
    again = pickle.loads(pickle.dumps(state))
    assert tree.equal(plateau.update(0.5, again), plateau.update(0.5, state))


def test_a_plateau_sets_the_rate_of_an_optimizer() -> None:
    """The loop in the docstring works, and Adam keeps its state."""
    plateau, opt, params = ReduceOnPlateau(0.1, patience=0), fn.Adam(0.1), {"w": torch.ones(3)}
    state, seen = opt.init(params), plateau.init()
    for loss in (1.0, 1.0, 1.0):
        seen = plateau.update(loss, seen)
        opt = opt.replace(lr=float(plateau.rate(seen)))
        params, state = opt.update({"w": torch.ones(3)}, state, params)
    torch.testing.assert_close(params["w"], torch.full((3,), 1 - 0.1 - 0.01 - 0.001))


def test_states_hold_no_graph() -> None:
    """A metric that requires grad would keep the graph of its step, and of all steps before."""
    plateau = fn.ReduceOnPlateau(0.1)
    state = plateau.update(torch.tensor(1.0, requires_grad=True) * 2, plateau.init())
    assert not any(one.requires_grad for one in state.values())


def test_states_of_another_kind_are_refused() -> None:
    """Numbers in place of tensors are refused too."""
    plateau = fn.ReduceOnPlateau(0.1)
    for state in ({}, dict.fromkeys(plateau.init(), 1.0), {**plateau.init(), "best": torch.zeros(2)}):
        with pytest.raises(ValueError, match="state must be a dict of rate, best, bad, cooldown, as init returns it"):
            plateau.update(1.0, state)


@pytest.mark.compiled
def test_a_compiled_step_reads_the_rate_from_a_tensor() -> None:
    """A reduction does not compile it again."""
    torch._dynamo.reset()
    lr, plateau = torch.tensor(0.5), fn.ReduceOnPlateau(0.5, patience=0, factor=0.25)
    opt, params = fn.SGD(lr), {"w": torch.ones(2)}
    update, state = torch.compile(opt.update, fullgraph=True, backend="aot_eager"), plateau.init()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for metric, want in ((1.0, 0.5), (1.0, 0.125), (1.0, 0.03125)):
            state = plateau.update(metric, state)
            lr.copy_(plateau.rate(state))
            assert update(params, opt.init(params), params)[0]["w"].tolist() == [1 - want] * 2
