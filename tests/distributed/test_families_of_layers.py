"""Data parallelism for every family: ten steps of several workers equal ten steps of one process on the whole batch."""

import io
from typing import Any, NamedTuple

import pytest
import torch
from distributed.families import NETS, ROWS, VECTORS, double, normal, whole
from distributed.launching import run

import funcnet as fn
from funcnet import random, tree
from funcnet.distributed import data_parallel, pipeline, shard_optimizer, shard_rows, sync_batch_norm
from funcnet.distributed.replicas.sync_norms import SyncBatchNorm

STEPS, EXACT = 10, 1e-12


class Task(NamedTuple):
    """A net, its loss and its optimizer, and a batch."""

    net: fn.Layer
    loss: fn.Loss
    opt: fn.Optimizer
    x: Any
    target: Any
    accumulate: int = 1


MOMENTUM = fn.SGD(lr=0.02, momentum=0.9)

LABELS = whole(6, 3, ROWS)
IGNORED = torch.where(torch.arange(ROWS) < 4, -100, LABELS)
"""Labels of which the first of two workers has none."""

PERCEPTRON = fn.mlp([4, 6, 3], fn.Tanh())
NORMED = fn.serial(fn.Linear(4, 6), fn.BatchNorm1d(6), fn.Tanh(), fn.Linear(6, 3))
WANTED, WEIGHTS = normal(7, ROWS, 3), normal(8, ROWS).abs()

LOSSES = {
    "labels": (fn.CrossEntropy(weight=(0.2, 1.0, 3.0), label_smoothing=0.1), LABELS),
    "ignored labels": (fn.CrossEntropy(), IGNORED),
    "no label at all": (fn.CrossEntropy(), torch.full((ROWS,), -100)),
    "sum": (fn.MSE(reduction="sum"), WANTED),
    "batch": (fn.Huber(reduction="batch"), WANTED),
    "weighted": (fn.weighted(fn.MSE()), (WANTED, WEIGHTS)),
    "masked": (fn.weighted(fn.CrossEntropy()), (LABELS, (torch.arange(ROWS) % 3 > 0).double())),
    "sum of losses": (fn.MSE() + 0.1 * fn.L1(reduction="sum") - 0.3 * fn.LogCosh(reduction="batch"), WANTED),
}

ADAM = fn.Adam(lr=0.01)
OPTIMIZERS = {
    "Adam": ADAM,
    "AdamW": fn.AdamW(lr=0.01, weight_decay=0.1),
    "SAM": fn.SAM(MOMENTUM),
    "EMA": fn.Averaged(ADAM, fn.EMA(0.9)),
    "ClipByGlobalNorm": fn.chain(fn.ClipByGlobalNorm(0.1), MOMENTUM),
    "LossScale": fn.chain(fn.LossScale(2.0**10, growth_interval=3), MOMENTUM),
    "by_path": fn.by_path({"*.bias": fn.SGD(lr=0.1), "0.*": None, "*": ADAM}),
    "LBFGS": fn.LBFGS(lr=0.01, max_iter=2),
    "MultiSteps": fn.MultiSteps(ADAM, 2),
    "Muon": fn.by_path({fn.is_matrix: fn.Muon(lr=0.01), "*": ADAM}),
}


def tasks() -> dict[str, Task]:
    """Return the tasks: each net, and each loss and each optimizer with one or two nets."""
    nets = {f"net: {name}": Task(sync_batch_norm(net), fn.MSE(), MOMENTUM, x, WANTED) for name, (net, x) in NETS.items()}
    losses = {
        f"loss: {name}, {k} at a time": Task(net, loss, MOMENTUM, VECTORS, target, k)
        for name, (loss, target) in LOSSES.items()
        for net, k in ((PERCEPTRON, 1), (PERCEPTRON, 3))
    }
    normed = sync_batch_norm(NORMED)
    losses |= {f"loss: {name}, normed": Task(normed, loss, MOMENTUM, VECTORS, target) for name, (loss, target) in LOSSES.items()}
    opts = {f"optimizer: {name}": Task(PERCEPTRON, fn.MSE(), opt, VECTORS, WANTED) for name, opt in OPTIMIZERS.items()}
    few = {f"{name}, {n} rows": one._replace(x=one.x[:n], target=one.target[:n]) for n in (1, 3) for name, one in opts.items()}
    return {**nets, **losses, **opts, **few}


def train(task: Task, how: str = "alone", steps: int = STEPS) -> list[Any]:
    """Return the leaves of params after the steps, the values, and the leaves of the state if that is whole."""
    step, params, start, whole = begun(task, how)
    batch = shard_rows((task.x, task.target)) if how in ("data", "optimizer") else (task.x, task.target)
    state, values = start(params), []
    for i in range(steps):
        params, state, value = step(params, state, *batch, random.fold_in(0, i))
        values.append(value)
    found = whole(params), values, state if how in ("alone", "data") else ()
    return [leaf.detach().numpy() for leaf in tree.leaves(found) if isinstance(leaf, torch.Tensor)]


def begun(task: Task, how: str) -> tuple[Any, ...]:
    """Return the step, its params, a function that initializes the state, and a function that makes params whole."""
    params, opt, k = double(task.net), task.opt, 1 if how == "alone" else task.accumulate
    if how == "optimizer":
        opt = shard_optimizer(opt)
    step = fn.train_step(task.net, task.loss, opt, accumulate=k)
    if how == "pipeline":
        step = pipeline(step, [len(task.net) // 2], "zero_bubble", 3)
        return step, params, opt.init, step.whole
    return data_parallel(step) if how != "alone" else step, params, opt.init, lambda one: one


def trained(kinds: tuple[str, ...], how: str) -> dict[str, list[Any]]:
    """Train the tasks of some kinds on several workers."""
    return {name: train(task, how) for name, task in tasks().items() if name.startswith(kinds) and may(task, how)}


def may(task: Task, how: str) -> bool:
    """Return whether a task can be trained in this way: pipelines require serial nets that do not mix rows."""
    return how != "pipeline" or (isinstance(task.net, type(PERCEPTRON)) and not task.net.batch_dependent)


def assert_same(name: str, workers: list[list[Any]], want: list[Any]) -> None:
    """Require the result of one process on all workers, up to rounding, with the same bits on all of them."""
    first, *others = workers
    for found, leaf in zip(first, want, strict=True):
        most = max(1.0, float(abs(leaf).max())) if leaf.size else 1.0
        assert (abs(found - leaf) <= EXACT * most).all(), name
    for other in others:
        assert all((a == b).all() for a, b in zip(first, other, strict=True)), name


ALL = ("net", "loss", "optimizer")


@pytest.mark.parametrize(
    ("how", "size", "kinds"),
    [
        ("data", 1, ("net",)),
        ("data", 2, ALL),
        ("data", 4, ("net", "loss: ignored", "optimizer: Adam")),
        ("optimizer", 2, ("optimizer: Adam", "optimizer: Clip", "optimizer: by_path")),
        ("pipeline", 2, ("loss: sum",)),
    ],
)
def test_ten_steps_are_those_of_the_whole_batch(how, size, kinds):
    """Params, values and states agree in float64, with the same bits on all workers."""
    workers = run(size, trained, kinds, how)
    assert len(workers[0]) > 3
    for name in workers[0]:
        want = train(tasks()[name])
        assert_same(name, [one[name] for one in workers], want[: len(workers[0][name])])


def one_step(net: fn.Layer, params: Any, x: Any, target: torch.Tensor, *, parallel: bool) -> list[Any]:
    """Return the result of a step."""
    step = fn.train_step(net, fn.MSE(), MOMENTUM)
    batch = shard_rows((x, target)) if parallel else (x, target)
    found = (data_parallel(step) if parallel else step)(params, MOMENTUM.init(params), *batch)
    return [leaf.detach().numpy() for leaf in tree.leaves(found) if isinstance(leaf, torch.Tensor)]


def packed(found: Any) -> bytes:
    """Encode layers and tensors as bytes: otherwise workers would share each tensor through a file."""
    file = io.BytesIO()
    torch.save(found, file)
    return file.getvalue()


def catalogued(found: bytes) -> dict[str, list[Any]]:
    """Make a step of every layer on this worker's rows."""
    cases = torch.load(io.BytesIO(found), weights_only=False)
    return {name: one_step(*case, parallel=True) for name, case in cases.items()}


def divisible() -> dict[str, Any]:
    """Return the arguments of a step for combinators and one layer of each type, in float64 and without noise."""
    from cases import CASES  # workers do not need it, and it takes seconds

    found = {}
    first = {type(case.layer): name for name, case in reversed(CASES.items())}
    for name, case in CASES.items():
        if not isinstance(case.layer, fn.Combinator) and first[type(case.layer)] != name:
            continue
        net = sync_batch_norm(case.layer)
        params, x = (tree.map(lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, one) for one in case[2:0:-1])
        if case.batched and not net.stochastic and all(goes_by_row(layer) for _, layer in fn.walk(net)):
            y = net(params, x)
            if has_rows(x, y):
                found[name] = net, params, x, normal(1, *y.shape)
    return found


def goes_by_row(layer: fn.Layer) -> bool:
    """Return whether rows can be computed separately, and in float64."""
    alone = isinstance(layer, (fn.Combinator, SyncBatchNorm)) or not layer.batch_dependent
    return alone and getattr(layer, "dtype", torch.float64) is torch.float64


def has_rows(x: Any, y: Any) -> bool:
    """Return whether y is a tensor with the rows of x, which are more than the numbers of a vector."""
    leaves = tree.leaves((x, y))
    if not isinstance(y, torch.Tensor) or y.dtype is not torch.float64 or len({leaf.shape[:1] for leaf in leaves}) > 1:
        return False
    return y.dim() > 0 and not any(leaf.dim() == 1 and leaf.is_floating_point() for leaf in tree.leaves(x))


def test_a_step_of_every_layer_is_that_of_the_whole_batch():
    """The layers are from the catalogue."""
    cases = divisible()
    assert len(cases) > 300
    workers = run(2, catalogued, packed(cases))
    for name, case in cases.items():
        assert_same(name, [one[name] for one in workers], one_step(*case, parallel=False))


def in_micro_batches() -> list[Any]:
    """Make a step of a net with norms on two micro-batches; the first is empty on workers with one row."""
    net = sync_batch_norm(NORMED)
    step, params = data_parallel(fn.train_step(net, fn.MSE(), fn.SGD(1.0), accumulate=2)), double(net)
    found = step(params, fn.SGD(1.0).init(params), *shard_rows((VECTORS[:6], WANTED[:6])))
    return [leaf.numpy() for leaf in tree.leaves((found[0], found[2]))]


def test_workers_normalize_their_micro_batches_together():
    """The first and second micro-batches are matched, whatever their sizes: of 6 rows, four workers have 1, 2, 1, 2."""
    params, grads, value, cache = double(NORMED), None, 0.0, None
    for rows in ([1, 4], [0, 2, 3, 5]):
        v, g, cache = fn.value_and_grads(NORMED, fn.MSE())(params, VECTORS[rows], WANTED[rows])
        g = tree.scale(g, len(rows) / 6)
        grads, value = g if grads is None else tree.add(grads, g), value + v * len(rows) / 6
    moved = NORMED.update_stats(params, cache)
    want = fn.SGD(1.0).update(grads, fn.SGD(1.0).init(params), moved)[0]
    assert_same("normed", run(4, in_micro_batches), [leaf.numpy() for leaf in tree.leaves((want, value))])
