"""Every way to divide the work, for nets of every family: ten steps equal ten steps of one process on the whole batch."""

from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from distributed.families import NETS, ROWS, double, normal
from distributed.launching import run
from torch.distributed.device_mesh import init_device_mesh

import funcnet as fn
from funcnet import distributed, tree

STEPS, EXACT = 10, 1e-12
WANTED = normal(7, ROWS, 3)
MOMENTUM = fn.SGD(lr=0.02, momentum=0.9)
ADAM = fn.chain(fn.ClipByGlobalNorm(0.5), fn.Adam(lr=0.01, eps=1e-3))
"""eps is large, since Adam would turn rounding errors of a zero gradient, such as that of a key's bias, into full steps."""

STRATEGIES = {"optimizer": ADAM, "params": MOMENTUM, "tensor": ADAM, "pipeline": ADAM, "tensor, every leaf": MOMENTUM}
"""The optimizer and loss for each net."""


def nets() -> dict[str, tuple[fn.Layer, Any]]:
    """Return the nets, with more layers, so that each of four workers has a stage."""
    return {name: (longer(net), x) for name, (net, x) in NETS.items()}


def longer(net: fn.Layer) -> fn.Layer:
    """Return a serial net of at least five layers; a net within ``tied`` already has them."""
    layers = tuple(net.layers) if isinstance(net, type(fn.serial())) else (net,)
    return net if hasattr(net, "groups") else fn.serial(*layers, fn.Tanh(), fn.Linear(3, 4), fn.SiLU(), fn.Linear(4, 3))


class Training(NamedTuple):
    """A step on several workers with its params, optimizer and batch, and functions that gather params and state."""

    step: Any
    params: Any
    opt: fn.Optimizer
    batch: Any
    whole: Any = distributed.unshard
    whole_state: Any = distributed.unshard


def begun(how: str, net: fn.Layer, x: Any) -> Training:
    """Divide the work in the given way."""
    opt, params, batch = STRATEGIES[how], double(net), (x, WANTED)
    synced, rows = distributed.sync_batch_norm(net), distributed.shard_rows(batch)
    if how == "pipeline":
        step = pipelined(net, fn.train_step(net, fn.MSE(), opt))
        return Training(step, params, opt, batch, step.whole, step.whole_state)
    if how == "optimizer":
        opt = distributed.shard_optimizer(opt)
        step = distributed.data_parallel(fn.train_step(synced, fn.MSE(), opt))
        return Training(step, params, opt, rows, lambda one: one, lambda state: ())
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    pieces = distributed.shard(params, mesh, distributed.tensor_parallel_plan(net, mesh) if how == "tensor" else None)
    if how == "params":
        return Training(distributed.data_parallel(fn.train_step(synced, fn.MSE(), opt)), pieces, opt, rows)
    return Training(distributed.tensor_parallel(fn.train_step(net, fn.MSE(), opt), mesh), pieces, opt, batch)


def pipelined(net: fn.Layer, step: Any) -> Any:
    """Cut a net into stages of equal numbers of layers; with batch statistics, the whole batch is one micro-batch."""
    size, n = dist.get_world_size(), len(inner(net).layers)
    kind, k = ("1f1b", 1) if net.batch_dependent else ("zero_bubble", 3)
    return distributed.pipeline(step, [n * i // size for i in range(1, size)], kind, k)


def inner(net: Any) -> Any:
    """Return the serial within a net."""
    return net if hasattr(net, "layers") else inner(net.layer)


def trained(step: Any, opt: fn.Optimizer, params: Any, batch: Any) -> tuple[Any, Any, list[torch.Tensor]]:
    """Return params, state and values after the steps."""
    state, values = opt.init(params), []
    for i in range(STEPS):
        params, state, value = step(params, state, *batch, fn.fold_in(0, i))
        values.append(value)
    return params, state, values


def alone(how: str, net: fn.Layer, x: Any) -> Any:
    """Return the result of one process with the whole batch."""
    opt = STRATEGIES[how]
    params, state, values = trained(fn.train_step(net, fn.MSE(), opt), opt, double(net), (x, WANTED))
    return params, values, () if how == "optimizer" else state


def together(how: str, net: fn.Layer, x: Any) -> Any:
    """Return the results of several workers, each with its part of the work."""
    one = begun(how, net, x)
    params, state, values = trained(one.step, one.opt, one.params, one.batch)
    return one.whole(params), values, one.whole_state(state)


def leaves(found: Any) -> list[Any]:
    return [leaf.detach().numpy() for leaf in tree.leaves(found)]


def all_together(pairs: list[tuple[str, str]]) -> dict[tuple[str, str], list[Any]]:
    """Train nets in several ways."""
    return {pair: leaves(together(pair[0], *nets()[pair[1]])) for pair in pairs}


def pairs_for(workers: int) -> list[tuple[str, str]]:
    """Return pairs of nets and ways: on two workers all but the slow last way, alternating on one and on four."""
    ways = list(STRATEGIES) if workers == 1 else list(STRATEGIES)[:-1]
    in_turn = [(ways[i % len(ways)], name) for i, name in enumerate(NETS)]
    return [(how, name) for how in ways for name in NETS] if workers == 2 else in_turn


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_ten_steps_are_those_of_one_process(workers):
    """Params, states and values agree to 1e-12, with the same bits on all workers."""
    pairs = pairs_for(workers)
    first, *others = run(workers, all_together, pairs)
    for pair in pairs:
        want = leaves(alone(pair[0], *nets()[pair[1]]))
        for found, leaf in zip(first[pair], want, strict=True):
            assert found.shape == leaf.shape, pair
            assert found.dtype == leaf.dtype, pair
            most = max(1.0, float(abs(leaf).max())) if leaf.size else 1.0
            assert (abs(found - leaf) <= EXACT * most).all(), pair
        for other in others:
            assert all((a == b).all() for a, b in zip(first[pair], other[pair], strict=True)), pair
