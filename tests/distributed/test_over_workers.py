"""over_workers: norms, sums and decisions over the gradients of several workers equal those of one worker with all gradients."""

import pytest
import torch
from distributed.launching import run

import funcnet as fn
from funcnet.distributed.over_workers import over_workers
from funcnet.distributed.workers import Workers, workers_of
from funcnet.optim.recording import recorded

OPTIMIZERS = {
    "clip": fn.chain(fn.ClipByGlobalNorm(0.5), fn.SGD(lr=0.1, momentum=0.9)),
    "scheduled clip": fn.chain(fn.ClipByGlobalNorm(fn.LinearSchedule(0.1, 2.0, 5)), fn.AdamW(lr=0.1)),
    "normalize": fn.chain(fn.NormalizeByUpdateNorm(0.3), fn.SGD(lr=0.1)),
    "prodigy": fn.Prodigy(),
    "skip": fn.SkipNonFinite(fn.Adam(lr=0.1)),
    "loss scale": fn.chain(fn.LossScale(init_scale=2.0, growth_interval=2), fn.SkipNonFinite(fn.SGD(lr=0.1))),
    "by path": fn.by_path({"a*": fn.chain(fn.ClipByGlobalNorm(0.5), fn.SGD(lr=0.1)), "*": fn.Prodigy()}),
    "wrapped": fn.Averaged(fn.MultiSteps(fn.chain(fn.ClipByGlobalNorm(0.1), fn.Lion(lr=0.1)), 2), fn.EMA(0.5)),
    "masters": fn.MasterWeights(fn.chain(fn.ClipByGlobalNorm(0.1), fn.AdamW(lr=0.1))),
    "decay": fn.chain(fn.AddDecayedWeights(0.1), fn.AddNoise(0.01), fn.ClipByGlobalNorm(0.1), fn.SGD(lr=0.1)),
    "monitor": fn.chain(fn.Monitor(), fn.SGD(lr=0.1)),
}


def params_and_grads() -> tuple:
    """Return params and the gradients of six updates, one of which has a NaN in one leaf."""
    draw = lambda i, *shape: fn.random.normal(i, shape, dtype=torch.float64)
    params = {"a": draw(0, 3, 2), "b": draw(1, 5), "weight": draw(2, 4), "n": torch.tensor(3)}
    grads = [{"a": draw(10 * i, 3, 2), "b": draw(10 * i + 1, 5), "weight": draw(10 * i + 2, 4), "n": None} for i in range(1, 7)]
    return params, grads


def own(tree, rank: int, size: int):
    """Return the leaves of one worker: leaf i belongs to worker i of 3, so one of 4 workers has no leaves."""
    owner = {"a": 0, "b": 1 % size, "weight": 2 % size, "n": 0}
    return {name: leaf if owner[name] == rank else None for name, leaf in tree.items()}


def trained(name: str, opt, params, grads) -> tuple:
    """Return the params and the numbers of the state after the updates; update 3 has a NaN for optimizers that skip it."""
    state = opt.init(params)
    for i, g in enumerate(grads):
        is_lost = i == 3 and name in ("skip", "loss scale") and g["b"] is not None
        params, state = opt.update({**g, "b": g["b"] * torch.nan} if is_lost else g, state, params)
    numbers = {path: leaf.item() for path, leaf in fn.tree.names(state).items() if leaf.dim() == 0}
    return fn.tree.map(lambda p: p.tolist(), params), numbers


def on_each() -> dict:
    """Train with each optimizer on this worker's leaves."""
    workers, (params, grads) = workers_of("test"), params_and_grads()
    mine = lambda one: own(one, workers.rank, workers.size)
    return {
        name: trained(name, over_workers(opt, workers), mine(params), [*map(mine, grads)]) for name, opt in OPTIMIZERS.items()
    }


def close(a, b) -> bool:
    """Return whether two nested lists of numbers agree to 1e-12."""
    a, b = (torch.tensor(one, dtype=torch.float64) for one in (a, b))
    return bool(torch.allclose(a, b, rtol=1e-12, atol=1e-12, equal_nan=True))


@pytest.mark.parametrize("size", [1, 2, 4])
def test_each_rule_equals_one_process(size: int) -> None:
    """Params and numbers of the state equal those of one process with all leaves, also for a worker without leaves."""
    found, (params, grads) = run(size, on_each), params_and_grads()
    for name, opt in OPTIMIZERS.items():
        whole, numbers = trained(name, opt, params, grads)
        for rank in range(size):
            for path, leaf in own(whole, rank, size).items():
                assert (leaf is None) == (found[rank][name][0][path] is None), (name, path)
                assert leaf is None or close(found[rank][name][0][path], leaf), (name, path)
            assert found[rank][name][1].keys() == numbers.keys()
            assert all(close(found[rank][name][1][path], one) for path, one in numbers.items()), (name, rank)


def with_counted() -> list:
    """Clip, skip and record with leaf ``b`` on all workers, counted by the last worker; return params and norms."""
    workers, (params, grads) = workers_of("test"), params_and_grads()
    mine = lambda one: {**own(one, workers.rank, workers.size), "b": one["b"]}
    counted = {name: name != "b" or workers.rank == workers.size - 1 for name in params}
    opt = over_workers(recorded(fn.chain(fn.ClipByGlobalNorm(0.5), fn.Prodigy())), workers, counted)
    part, state = mine(params), opt.init(mine(params))
    for g in grads:
        part, state = opt.update({**mine(g), "weight": None}, state, part)
    return [part["b"].tolist(), opt.read(state)[0]]


def climbing() -> list:
    """Make recorded steps of SAM on this worker's leaves."""
    workers, (params, grads) = workers_of("test"), params_and_grads()
    opt, part = over_workers(recorded(fn.SAM(fn.SGD(lr=0.1), rho=0.3)), workers), own(params, workers.rank, workers.size)
    state = opt.init(part)
    for _ in grads:
        part, state, _ = opt.step(lambda p: (torch.zeros(()), sloping(p)), state, part)
    return [fn.tree.map(lambda p: p.tolist(), part), opt.read(state)[0]]


def sloping(params):
    """Return gradients that depend on params."""
    return fn.tree.map(lambda p: p**3 if p.is_floating_point() else None, params)


@pytest.mark.parametrize("size", [2, 4])
def test_leaves_of_several_workers_count_once(size: int) -> None:
    """A leaf on all workers counts once in a norm and in Prodigy's sums."""
    params, grads = params_and_grads()
    opt = recorded(fn.chain(fn.ClipByGlobalNorm(0.5), fn.Prodigy()))
    state = opt.init(params)
    for g in grads:
        params, state = opt.update({**g, "weight": None}, state, params)
    for b, norms in run(size, with_counted):
        assert close(b, params["b"].tolist())
        assert all(close(norms[name], one) for name, one in opt.read(state)[0].items())


def test_sam_climbs_over_all_workers() -> None:
    """The distance and recorded norms cover the params of all workers."""
    params, grads = params_and_grads()
    opt = recorded(fn.SAM(fn.SGD(lr=0.1), rho=0.3))
    state = opt.init(params)
    for _ in grads:
        params, state, _ = opt.step(lambda p: (torch.zeros(()), sloping(p)), state, params)
    for part, norms in run(2, climbing):
        assert all(leaf is None or close(leaf, params[name].tolist()) for name, leaf in part.items())
        assert all(close(norms[name], one) for name, one in opt.read(state)[0].items())


@pytest.mark.parametrize(
    ("opt", "part"),
    [
        (fn.LBFGS(), "LBFGS()"),
        (recorded(fn.LBFGS()), "LBFGS()"),
        (fn.by_path({"*": fn.chain(fn.Monitor(lambda g: g), fn.SGD(lr=0.1))}), "Monitor("),
    ],
)
def test_parts_without_a_rule_are_named(opt: fn.Optimizer, part: str) -> None:
    """The error names a part that acts on all gradients together and has no rule."""
    with pytest.raises(ValueError, match=r"over_workers: .* several workers") as caught:
        over_workers(opt, Workers(None, 0, 2))
    assert part in str(caught.value)


def test_counted_needs_one_gradient_a_step() -> None:
    """SAM evaluates further gradients, for which there is no tree of counted leaves."""
    with pytest.raises(ValueError, match="counted requires an optimizer that uses one gradient per step"):
        over_workers(fn.SAM(fn.SGD(lr=0.1)), Workers(None, 0, 2), {"w": True})


def test_what_acts_on_elements_stays() -> None:
    """An optimizer that needs no quantities of all gradients is not rewritten."""
    opt = fn.chain(fn.ClipByValue(1.0), fn.AdamW(lr=0.1))
    assert over_workers(opt, Workers(None, 0, 2)) == opt
