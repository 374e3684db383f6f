"""Sums over workers, and plain functions of divided params, which return numbers of the whole or raise a helpful error."""

from functools import cache
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from distributed.launching import run

import funcnet as fn
from funcnet import distributed

NET, LOSS, OPT = fn.mlp([4, 16, 3]), fn.CrossEntropy(), fn.AdamW(1e-2)
METRIC = fn.metrics_of(accuracy=fn.Accuracy(), confusion=fn.ConfusionMatrix(3), loss=fn.Average(LOSS))


def data():
    x = fn.random.normal(1, (23, 4))
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def message(f, *args):
    """Return the message of an error, or the result of a call without one."""
    try:
        return repr(f(*args))
    except ValueError as error:
        return str(error)


def sums(rank, size):
    """Sum a tree of several dtypes, with a different order of keys on rank 1, and half precision that must be rounded once."""
    half = torch.full((3,), 1.0 if rank else 256.0, dtype=torch.bfloat16)
    given = {"f": torch.tensor([1.0, 2.0]) * rank, "i": torch.tensor(rank), "none": None, "half": half}
    given["d"] = (torch.ones(0, 2), torch.ones(2, 1).double())
    before = fn.tree.map(torch.clone, given)
    with mock.patch.object(dist, "all_reduce", wraps=dist.all_reduce) as calls:
        found = distributed.all_reduce(dict(reversed(given.items())) if rank == 1 else given)
    total = sum(range(size))
    expected = {"f": torch.tensor([1.0, 2.0]) * total, "i": torch.tensor(total), "none": None}
    expected["half"] = torch.full((3,), 256.0 + size - 1).bfloat16()
    expected["d"] = (torch.ones(0, 2), size * torch.ones(2, 1).double())
    return fn.tree.equal({key: found[key] for key in expected}, expected), fn.tree.equal(given, before), calls.call_count


def evaluated():
    """Return whether metrics that each worker measured on its rows equal those of one process."""
    params, (x, target) = NET.init(0), data()
    rows, labels = distributed.shard_rows((x, target))
    total = METRIC.add(METRIC.start(), NET(params, rows), labels)
    whole = METRIC.value(METRIC.add(METRIC.start(), NET(params, x), target))
    return fn.tree.allclose(METRIC.value(distributed.all_reduce(total)), whole, rtol=1e-6)


def refusals(rank):
    """Return the errors of all_reduce for different trees, and for leaves that are not numbers."""
    shapes, paths = {"a": torch.zeros(2 + rank)}, {"a" if rank else "b": torch.zeros(2)}
    mixed = {"a": torch.tensor(True) if rank else torch.tensor(1)}
    return [message(distributed.all_reduce, one) for one in (shapes, paths, {"a": 3}, mixed)]


def beside():
    """Return the results or errors of plain functions for divided params."""
    params, (x, target), tree = NET.init(0), data(), fn.tree
    mesh = dist.init_device_mesh("cpu", (dist.get_world_size(),))
    broken = tree.replace(params, "0.weight", torch.zeros(16, 4).index_fill(0, torch.tensor([15]), torch.nan))
    sharded, broken = distributed.shard(params, mesh), distributed.shard(broken, mesh)
    numbers = [
        float(tree.dot(sharded, sharded)) == pytest.approx(float(tree.dot(params, params))),
        float(tree.norm(sharded)) == pytest.approx(float(tree.norm(params))),
        bool(tree.all_finite(sharded)),
        not bool(tree.all_finite(broken)),
        tree.equal(sharded, sharded),
        not tree.equal(sharded, broken),
    ]
    said = {
        "layer": message(NET, sharded, x),
        "step": message(fn.train_step(NET, LOSS, OPT), sharded, OPT.init(sharded), x, target),
        "evaluate": message(lambda: fn.evaluate(NET, sharded, (x, target), loss=LOSS)),
        "fit": message(
            lambda: fn.fit(NET, LOSS, OPT, (x, target), epochs=1, batch_size=8, key=1, params=sharded, progress=False)
        ),
        "ravel": message(tree.ravel, sharded),
        "describe": message(tree.describe, sharded),
        "equal": message(tree.equal, sharded, params),
        "allclose": message(tree.allclose, sharded, sharded),
        "shard": message(distributed.shard, sharded, mesh),
    }
    return numbers, said


def work():
    """Do everything in a single start of the workers."""
    rank, size = dist.get_rank(), dist.get_world_size()
    return sums(rank, size), evaluated(), refusals(rank), beside()


@cache
def found(size):
    """Return the results of the workers, by rank."""
    return run(size, work)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_sum_is_that_of_all_workers_with_one_collective_for_each_dtype(size):
    """Half precision is summed together with float32."""
    assert [one[0] for one in found(size)] == [(True, True, 3)] * size


@pytest.mark.parametrize("size", [1, 2, 4])
def test_metrics_of_rows_on_several_workers_are_those_of_all_rows(size):
    """Their totals are trees that can be summed."""
    assert all(one[1] for one in found(size))


def test_trees_that_differ_and_leaves_without_numbers_are_refused_on_every_worker():
    """The error has the path and both values."""
    for shapes, paths, number, mixed in [one[2] for one in found(2)]:
        assert shapes.endswith(
            "'a' differs, got shape (2,) and torch.float32 on rank 0 and shape (3,) and torch.float32 on rank 1"
        )
        assert paths.endswith("'b' differs, got shape (2,) and torch.float32 on rank 0 and no such leaf on rank 1")
        assert number == "all_reduce: every leaf must be a plain dense tensor of numbers, got 3 at 'a'"
        assert "got a tensor of shape () and dtype torch.bool at 'a', on rank 1" in mixed


def test_numbers_of_a_tree_of_divided_params_are_those_of_the_whole():
    """A number of a divided DTensor would be only this worker's."""
    assert [one[3][0] for one in found(2)] == [[True] * 6] * 2


def test_what_cannot_take_divided_params_says_what_to_do():
    """Torch's own error asks to convert all plain tensors to DTensors."""
    for said in [one[3][1] for one in found(2)]:
        for name in ("layer", "step", "evaluate", "fit"):
            assert "need a step of distributed.data_parallel or distributed.tensor_parallel" in said[name], (name, said[name])
        for name in ("layer", "ravel", "describe", "equal", "allclose"):
            assert "unshard(" in said[name], (name, said[name])
            assert "got a DTensor of shape (16, 4)" in said[name], (name, said[name])
        assert "got a DTensor of shape (16, 4)" in said["shard"]


def test_a_sum_needs_a_process_group():
    """Otherwise it would silently be the sum of one process."""
    with pytest.raises(ValueError, match=r"all_reduce: torch\.distributed\.init_process_group must be called first"):
        distributed.all_reduce({"a": torch.zeros(2)})
