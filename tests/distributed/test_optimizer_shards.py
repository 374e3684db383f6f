"""shard_optimizer: the params of the unsharded optimizer, and on each worker the state of its pieces only."""

import pickle

import pytest
import torch
from distributed.launching import run

import funcnet as fn
from funcnet.distributed.optimizer_shards import Pieces, pieces_of, shard_optimizer, with_pieces
from funcnet.optim.recording import recorded

STEPS = 10
ANY = {
    "sgd": fn.SGD(lr=0.1, momentum=0.9, nesterov=True),
    "adam": fn.Adam(lr=fn.CosineSchedule(0.1, 8)),
    "adamw": fn.AdamW(lr=0.1),
    "lion": fn.Lion(lr=0.01),
    "rmsprop": fn.RMSprop(lr=0.01),
    "lamb": fn.LAMB(lr=0.1),
    "adafactor": fn.Adafactor(lr=0.1),
    "clipped": fn.chain(fn.ClipByGlobalNorm(0.5), fn.AdamW(lr=fn.LinearSchedule(0.1, 0.0, 10))),
    "decayed": fn.chain(fn.ScaleByAdam(), fn.AddDecayedWeights(0.1), fn.SGD(lr=0.1)),
    "noise": fn.chain(fn.AddNoise(0.01, seed=3), fn.SGD(lr=0.1)),
    "by path": fn.by_path({lambda path, leaf: leaf.numel() > 20: fn.Muon(lr=0.1, ns_dtype=None), "*": fn.AdamW(lr=0.1)}),
    "frozen": fn.by_path({"short": None, "*": fn.Adam(lr=0.1)}),
    "averaged": fn.Averaged(fn.AdamW(lr=0.1), fn.EMA(0.9)),
    "several": fn.MultiSteps(fn.AdamW(lr=0.1), 2),
    "lookahead": fn.Lookahead(fn.SGD(lr=0.1), sync_period=3),
    "schedule free": fn.ScheduleFree(fn.SGD(lr=0.1)),
    "masters": fn.MasterWeights(fn.AdamW(lr=0.1)),
    "skip": fn.SkipNonFinite(fn.Adam(lr=0.1)),
    "prodigy": fn.Prodigy(),
}
AROUND = {
    "clipped": lambda opt: fn.chain(fn.ClipByGlobalNorm(0.5), opt(fn.AdamW(lr=0.1))),
    "several": lambda opt: fn.MultiSteps(opt(fn.AdamW(lr=0.1)), 2),
    "schedule free": lambda opt: fn.ScheduleFree(opt(fn.SGD(lr=0.1))),
    "averaged": lambda opt: fn.Averaged(opt(fn.Lion(lr=0.1)), fn.EMA(0.9)),
    "recorded": lambda opt: recorded(opt(fn.SGD(lr=0.1))),
    "groups": lambda opt: fn.by_path({"short": fn.SGD(lr=0.1), "*": opt(fn.Adam(lr=0.1))}),
}


def draw(i: int, *shape: int) -> torch.Tensor:
    """Return normal numbers in float64."""
    return fn.random.normal(i, shape, dtype=torch.float64)


def params() -> dict:
    """Return params with leaves that are short, empty, without axes, integer, and without a gradient."""
    leaves = {"short": draw(1, 3), "scalar": draw(2), "empty": draw(0, 0, 3), "count": torch.tensor(4), "still": draw(5, 4)}
    return {**leaves, "weight": draw(6, 7, 3), "layers": (draw(3, 8, 8), draw(4, 8, 2), {})}


def gradients(i: int) -> dict:
    """Return the gradients of update i."""
    leaves = {"short": draw(10 * i, 3), "scalar": draw(10 * i + 1), "empty": draw(0, 0, 3), "count": None, "still": None}
    return {**leaves, "weight": draw(10 * i + 2, 7, 3), "layers": (draw(10 * i + 3, 8, 8), draw(10 * i + 4, 8, 2), {})}


def trained(opt: fn.Optimizer, *, donated: bool = False, steps: int = STEPS) -> tuple:
    """Return the params after some updates, those to evaluate, and the state."""
    now = params()
    state = opt.init(now)
    opt = fn.donate(opt) if donated else opt
    for i in range(1, steps + 1):
        now, state = opt.update(gradients(i), state, now)
    return fn.tree.map(torch.clone, now), opt.eval_params(state, now), state


def numbers(tree) -> dict:
    """Return the leaves of a tree by path, as lists."""
    return {path: leaf.tolist() for path, leaf in fn.tree.names(tree).items()}


def on_each(names) -> dict:
    """Train with sharded optimizers, donated too; return params, those to evaluate, and the bytes of the state."""
    found = {}
    for name in names:
        one, two = trained(shard_optimizer(ANY[name])), trained(shard_optimizer(ANY[name]), donated=True)
        same = all(fn.tree.equal(a, b) for a, b in zip(one[:2], two[:2], strict=True)) and fn.tree.equal(one[2], two[2])
        found[name] = numbers(one[0]), numbers(one[1]), fn.tree.nbytes(one[2].tree), same, named(one[2])
    for name, around in AROUND.items():
        found[f"around: {name}"] = (*[numbers(tree) for tree in trained(around(shard_optimizer))[:2]],)
    return found


def named(state) -> dict:
    """Return the pieces of a state by path: the numbers, the shape of the whole leaf, and the first row."""
    return {path: (None if leaf is None else leaf.tolist(), shape, first) for path, leaf, shape, first in pieces_of(state)}


def close(found: dict, wanted: dict) -> bool:
    """Tell whether two trees of numbers by path agree to 1e-12."""
    pairs = [(torch.tensor(found[path]), torch.tensor(one)) for path, one in wanted.items()]
    return found.keys() == wanted.keys() and all(torch.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in pairs)


def fits(found: list, state) -> bool:
    """Tell whether the pieces of all workers are the state of a single process."""
    whole = fn.tree.names(state)
    for path in found[0]:
        if path not in whole:
            assert all(one[path][0] is None for one in found)
            continue
        rows = [
            (first, torch.tensor(leaf, dtype=whole[path].dtype))
            for leaf, _, first in (one[path] for one in found)
            if leaf is not None
        ]
        shape = found[0][path][1]
        if shape is None:
            assert all(torch.equal(leaf, rows[0][1]) for _, leaf in rows) and len(rows) == len(found)
            rows = rows[:1]
        else:
            assert shape == whole[path].shape
        joined = torch.cat([leaf for _, leaf in sorted(rows, key=lambda row: row[0])]) if rows[0][1].dim() else rows[0][1]
        assert torch.allclose(joined.view_as(whole[path]), whole[path], rtol=1e-12, atol=1e-12), path
    return whole.keys() <= found[0].keys()


@pytest.mark.parametrize("size", [1, 2, 4])
def test_shards_equal_the_whole(size: int) -> None:
    found = run(size, on_each, list(ANY))
    for name, opt in ANY.items():
        now, best, state = trained(opt)
        for worker in found:
            assert close(worker[name][0], numbers(now)), name
            assert close(worker[name][1], numbers(best)), name
            assert worker[name][3], name
        assert all(worker[name][0] == found[0][name][0] for worker in found), name
        assert fits([worker[name][4] for worker in found], state), name
    for name, around in AROUND.items():
        now, best, _ = trained(around(lambda opt: opt))
        assert all(close(worker[f"around: {name}"][0], numbers(now)) for worker in found), name
        assert all(close(worker[f"around: {name}"][1], numbers(best)) for worker in found), name


def net(norm: fn.Layer) -> fn.Layer:
    """Return a net with this norm, layers that are frozen or stacked, and one without a bias."""
    head = [fn.freeze(fn.Linear(7, 7)), fn.repeat(fn.Linear(7, 7), 3), fn.Linear(7, 3, bias=False)]
    return fn.serial(fn.Conv2d(1, 6, 3), norm, fn.ReLU(), fn.Flatten(), fn.Linear(6 * 4, 7), fn.LayerNorm(7), fn.GELU(), *head)


STEPPED = {
    "adamw": fn.chain(fn.ClipByGlobalNorm(1.0), fn.AdamW(lr=0.01)),
    "muon": fn.by_path({"9.*": fn.Muon(lr=0.01, ns_dtype=None), "*": fn.AdamW(lr=0.01)}),
    "averaged": fn.Averaged(fn.Lion(lr=0.01), fn.EMA(0.9)),
    "scaled": fn.chain(fn.LossScale(), fn.SkipNonFinite(fn.Adam(lr=0.01))),
}


def batches() -> list:
    """Return ten batches of seven images and labels, of which some are ignored."""
    x = [fn.random.normal(i, (7, 1, 4, 4), dtype=torch.float64) for i in range(STEPS)]
    return [(one, torch.tensor([0, 1, 2, -100, i % 3, 1, -100])) for i, one in enumerate(x)]


def stepped(opt: fn.Optimizer, parallel, rows, norm: fn.Layer, **options) -> tuple:
    """Return params, those to evaluate, and losses of ten steps."""
    step = parallel(fn.train_step(net(norm), fn.CrossEntropy(), opt, **options))
    now = fn.tree.cast(net(norm).init(0), torch.float64)
    state, values = opt.init(now), []
    for x, target in batches():
        now, state, value = step(now, state, *rows((x, target)))
        values.append(value.item())
    return numbers(now), numbers(opt.eval_params(state, now)), values


def stepped_on_each() -> dict:
    """Train on this worker's rows, donated too; and with running statistics and micro-batches, with whole states too."""
    parallel, rows, opt = fn.distributed.data_parallel, fn.distributed.shard_rows, STEPPED["adamw"]
    found = {name: stepped(shard_optimizer(opt), parallel, rows, fn.GroupNorm(2, 6)) for name, opt in STEPPED.items()}
    found["donated"] = stepped(fn.donate(shard_optimizer(opt)), parallel, rows, fn.GroupNorm(2, 6))
    opt = fn.chain(fn.ClipByGlobalNorm(1.0), fn.SGD(lr=0.1, momentum=0.9))
    found["statistics"] = stepped(shard_optimizer(opt), parallel, rows, fn.BatchNorm2d(6), accumulate=2)
    found["whole statistics"] = stepped(opt, parallel, rows, fn.BatchNorm2d(6), accumulate=2)
    return found


@pytest.mark.parametrize("size", [1, 2, 4])
def test_steps_equal_those_of_one_process(size: int) -> None:
    found = run(size, stepped_on_each)
    whole = {name: stepped(opt, lambda step: step, lambda batch: batch, fn.GroupNorm(2, 6)) for name, opt in STEPPED.items()}
    whole |= {"donated": whole["adamw"], "statistics": found[0]["whole statistics"]}
    for name, (now, best, values) in whole.items():
        for worker in found:
            assert close(worker[name][0], now), name
            assert close(worker[name][1], best), name
            assert torch.allclose(torch.tensor(worker[name][2]), torch.tensor(values), rtol=1e-12), name
