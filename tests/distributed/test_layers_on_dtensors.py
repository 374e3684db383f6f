"""Layers, losses and optimizers accept DTensors directly: only the params and the batch depend on the workers."""

from typing import Any

import torch
import torch.distributed as dist
from cases import CASES
from distributed.launching import run
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.experimental import implicit_replication

import funcnet as fn
from funcnet import distributed, random, tree

E = 8


def whole_on_each(values: Any, mesh: Any) -> Any:
    return tree.map(lambda leaf: DTensor.from_local(leaf, mesh, [Replicate()], run_check=False), values)


def steps() -> list[float]:
    """Return the differences of three steps on divided params from three steps of one process."""
    mesh, found = init_device_mesh("cpu", (dist.get_world_size(),)), []
    x, words = random.normal(1, (3, 5, E), dtype=torch.float64), random.randint(2, (3, 5), 0, 12)
    blocks = fn.transformer_encoder(E, 4, 2, hidden=16, is_causal=True)
    dropping = fn.transformer_encoder(E, 4, 1, hidden=16, dropout=0.2)
    layers = fn.Embedding(12, E), fn.transformer_encoder(E, 4, 1, hidden=16), fn.Linear(E, 12, bias=False), fn.Transpose(1, -1)
    tied = fn.tied(fn.serial(*layers), ("0.weight", "2.weight"))
    cases = [(fn.mlp([E, 16, E], dropout=0.3), x, x, fn.MSE()), (blocks, x, x, fn.MSE()), (dropping, x, x, fn.MSE()),
             (tied, words, words, fn.CrossEntropy())]  # fmt: skip
    for net, x, target, loss in cases:
        opt = fn.chain(fn.ClipByGlobalNorm(0.1), fn.SGD(0.1, momentum=0.9))
        step = fn.train_step(net, loss, opt)
        params = tree.map(torch.Tensor.double, net.init(1))
        mine = distributed.shard(params, mesh, distributed.tensor_parallel_plan(net, mesh))
        state, own, apart = opt.init(params), opt.init(mine), 0.0
        for i in range(3):
            params, state, value = step(params, state, x, target, fn.key(i))
            with implicit_replication():  # keys, masks and constants are the same on all workers
                mine, own, got = step(mine, own, *whole_on_each((x, target), mesh), fn.key(i))
            apart = max(apart, (value - got.full_tensor()).abs().item())
        pairs = zip(tree.leaves(params), tree.leaves(distributed.unshard(mine)), strict=True)
        found.append(max(apart, *[(one - other).abs().max().item() for one, other in pairs]))
    return found


def test_steps_on_divided_params_equal_those_of_one_process():
    """Params are divided by columns, rows and heads, and a shared table by rows, with dropout from one key."""
    assert max(run(2, steps)[0]) <= 1e-12


def first_cases() -> list[str]:
    """Return the name of the first case of each type of layer."""
    found: dict[type, str] = {}
    for name, case in CASES.items():
        found.setdefault(type(case.layer), name)
    return list(found.values())


def trials(names: list[str]) -> dict[str, str]:
    """Return the failures of each layer on replicated DTensors: methods and results."""
    mesh, _ = init_device_mesh("cpu", (dist.get_world_size(),)), distributed.shard  # importing it registers funcnet's rules
    return {name: wrong for name in names if (wrong := trial(name, mesh))}


def trial(name: str, mesh: Any) -> str:
    layer, x, params, *_ = CASES[name]
    key = fn.key(3) if layer.stochastic else None
    y, cache = layer.apply(params, x, key)
    gy = tree.map(torch.ones_like, y)
    expected = y, *layer.vjp(params, cache, gy), layer.update_stats(params, cache)
    try:
        with implicit_replication():
            mine, x, gy = (whole_on_each(one, mesh) for one in (params, x, gy))
            y, cache = layer.apply(mine, x, None if key is None else whole_on_each(key, mesh))
            found = y, *layer.vjp(mine, cache, gy), layer.update_stats(mine, cache)
            layer.grads(mine, cache, gy)
            layer.input_grad(mine, cache, gy)
    except Exception as error:
        return repr(error)
    return "" if tree.allclose(expected, distributed.unshard(found), rtol=1e-4, atol=1e-5) else "other numbers"


def test_layers_take_dtensors():
    """The first case of each type in the catalogue is tested, with DTensor keys too."""
    assert run(1, trials, first_cases()) == [{}]


def mixed() -> str:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    layer = fn.Linear(E, E)
    try:
        layer(distributed.shard(layer.init(0), mesh), torch.ones(3, E))
    except ValueError as error:
        return str(error)
    return "no error"


def test_plain_tensors_beside_dtensors():
    """The error names steps that accept divided params, and how to make them whole, without blaming x or params."""
    said = run(1, mixed)[0]
    assert "need a step of distributed.data_parallel or distributed.tensor_parallel; distributed.unshard(params)" in said
    assert "got a DTensor of shape" in said
