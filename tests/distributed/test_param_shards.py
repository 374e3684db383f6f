"""Divided params: the step of pieces is that of whole params, what a worker holds is its part, and layers are gathered in turn."""

import pytest
import torch
from distributed.launching import outcomes, run

import funcnet as fn
from funcnet.distributed import data_parallel, shard, shard_rows, unshard
from funcnet.distributed.layouts import Layout

STEPS = 10


def normal(seed, *shape):
    return fn.random.normal(fn.key(seed), shape, dtype=torch.float64)


def mesh_of_all():
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh("cpu", (dist.get_world_size(),))


def in_small_groups():
    """Let a few leaves be a group, so that small nets have three."""
    from funcnet.distributed import buckets

    buckets.LEAVES = 2


@fn.frozen
class Scale(fn.Layer):
    """A layer with a param without axes, which every worker has whole."""

    def init(self, rng):
        return {"scale": torch.ones(())}

    def apply(self, params, x, rng=None):
        return params["scale"] * x, x

    def vjp(self, params, cache, gy):
        return {"scale": (gy * cache).sum()}, params["scale"] * gy


def labels(rows):
    target = torch.arange(rows) % 3
    target[::4] = -100
    return target


def perceptron():
    net = fn.serial(fn.Linear(6, 16), fn.Tanh(), fn.residual(fn.serial(fn.Linear(16, 16), fn.GELU())), fn.Linear(16, 3))
    return net, fn.CrossEntropy(), fn.Adam(lr=0.01), normal(1, 7, 6), labels(7)


def convolutional():
    block = fn.serial(fn.Conv2d(4, 4, 3, padding=1), fn.GroupNorm(2, 4), fn.ReLU())
    net = fn.serial(fn.Conv2d(3, 4, 3), fn.residual(block), fn.AdaptiveAvgPool2d(1), fn.Flatten(), Scale(), fn.Linear(4, 3))
    opt = fn.chain(fn.ClipByGlobalNorm(0.1), fn.SGD(lr=0.1, momentum=0.9))
    return net, fn.MSE() + 0.1 * fn.L1(reduction="sum"), opt, normal(1, 8, 3, 6, 6), normal(2, 8, 3)


def transformer():
    """One embedding at both ends, another optimizer for biases."""
    net = fn.serial(fn.Embedding(11, 8), fn.transformer_encoder(8, 2, 2, 12), fn.Linear(8, 11, bias=False), fn.Transpose(1, 2))
    opt = fn.by_path({"*bias": fn.SGD(lr=0.1), "*": fn.AdamW(lr=0.01)})
    tokens = torch.arange(8 * 5).reshape(8, 5) * 7 % 11
    return fn.tied(net, ("0.weight", "2.weight")), fn.CrossEntropy(), opt, tokens, tokens.flip(0)


def recurrent():
    net = fn.serial(fn.LSTM(4, 5, batch_first=True), fn.Select(0), fn.Linear(5, 3))
    return net, fn.MSE(), fn.SAM(fn.SGD(lr=0.1), rho=0.05), normal(1, 8, 6, 4), normal(2, 8, 6, 3)


def recomputed():
    """A frozen layer, segments that are computed again in the backward pass, stacked copies, and a run of inverses."""
    block, half = fn.serial(fn.Linear(6, 6), fn.Tanh()), fn.serial(fn.Linear(3, 3), fn.Tanh())
    inverses = fn.serial(fn.reversible(half, half), fn.reversible(half, half))
    recomputed = fn.remat(fn.serial(*[block] * 4), segments=2)
    net = fn.serial(fn.freeze(fn.Linear(6, 6)), recomputed, fn.repeat(block, 3), fn.Chunk(2), inverses, fn.Concat())
    return net, fn.MSE(), fn.Adam(lr=0.01), normal(1, 5, 6), normal(2, 5, 6)


def noisy():
    """Dropout and batch statistics, on shards of which some are empty, and a frozen net with statistics."""
    frozen = fn.freeze(fn.serial(fn.Conv1d(4, 6, 1), fn.BatchNorm1d(6)))
    net = fn.serial(frozen, fn.Conv1d(6, 5, 1), fn.BatchNorm1d(5), fn.Dropout(0.5), fn.Flatten(), fn.Linear(25, 3))
    return net, fn.MSE(), fn.SGD(lr=0.1), normal(1, 3, 4, 5), normal(2, 3, 3)


def rounded():
    """A net in half precision around which params stay float64, with statistics."""
    net = fn.serial(
        fn.Linear(6, 8), fn.cast(fn.serial(fn.Linear(8, 8), fn.BatchNorm1d(8), fn.Tanh()), torch.bfloat16), fn.Linear(8, 3)
    )
    return net, fn.MSE(), fn.SGD(lr=0.1), normal(1, 8, 6), normal(2, 8, 3)


def train(case, divided=None, parallel=True, accumulate=1, steps=STEPS, placements=None):
    net, loss, opt, x, target = case
    step = fn.train_step(net, loss, opt, accumulate=accumulate)
    step, batch = (data_parallel(step), shard_rows((x, target))) if parallel else (step, (x, target))
    params = fn.tree.cast(net.init(0), torch.float64)
    params = shard(params, mesh_of_all(), placements) if divided else params
    state, values = opt.init(params), []
    for i in range(steps):
        params, state, value = step(params, state, *batch, fn.key(i))
        values.append(value)
    return unshard((params, state)), torch.stack(values)


def largest_difference(one, other):
    pairs = zip(*map(fn.tree.leaves, (one, other)), strict=True)
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs if a.numel())


def against_one_process():
    in_small_groups()
    cases = [make() for make in (perceptron, convolutional, transformer, recurrent, recomputed)]
    found = [largest_difference(train(case, parallel=False), train(case, divided=True)) for case in cases]
    several = [largest_difference(train(case, parallel=False), train(case, divided=True, accumulate=3)) for case in cases[:2]]
    return found + several


def against_whole_params():
    """Compare with workers that hold whole params, where noise and statistics depend on the shards."""
    in_small_groups()
    from torch.distributed.tensor import Replicate, Shard

    columns = {"*.bias": Replicate(), "0.*": Shard(0), "*": Shard(1)}
    found = [largest_difference(train(case), train(case, divided=True)) for case in (noisy(), rounded())]
    found[1] *= 1e-6  # gradients of half precision are summed in float32, in another order
    return [*found, largest_difference(train(perceptron()), train(perceptron(), divided=True, placements=columns))]


def test_the_step_is_that_of_whole_params_on_the_whole_batch():
    """Of every family of layers, on uneven and empty pieces and shards, with micro-batches and norms of all gradients."""
    for size in (1, 2, 4):
        for found in run(size, against_one_process):
            assert max(found) < 1e-12, (size, found)


def test_noise_and_statistics_are_those_of_whole_params():
    """Placements along other axes and of whole leaves give the same step too."""
    for size in (2, 4):
        for found in run(size, against_whole_params):
            assert max(found) < 1e-12, (size, found)
