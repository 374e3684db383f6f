"""Pipelines: a net in stages on several workers makes the step of one process that accumulates the same micro-batches."""

import pytest
import torch
from distributed.launching import run

import funcnet as fn
from funcnet.distributed import pipeline
from funcnet.distributed.pipelining.schedules import SCHEDULES

STEPS = 10
CLOSE = 1e-12


def normal(seed, *shape):
    return fn.random.normal(fn.key(seed), shape, dtype=torch.float64)


def labels(rows, *more):
    found = torch.arange(rows).reshape(rows, *[1] * len(more)).expand(rows, *more) % 5
    return torch.where(torch.arange(rows).reshape(found.shape[:1] + (1,) * len(more)) % 3 == 0, -100, found)


def perceptron(rows):
    layers = [
        fn.Linear(6, 16),
        fn.Tanh(),
        fn.Linear(16, 16),
        fn.Dropout(0.3),
        fn.GELU(),
        fn.Linear(16, 16),
        fn.Tanh(),
        fn.Linear(16, 5),
    ]
    opt = fn.chain(fn.ClipByGlobalNorm(0.1), fn.Adam(lr=0.01))
    return fn.serial(*layers), fn.CrossEntropy(), opt, normal(1, rows, 6), labels(rows), (2, 4, 7)


def convolution(rows):
    layers = {
        "first": fn.Conv2d(2, 4, 3, padding=1),
        "norm": fn.BatchNorm2d(4),
        "act": fn.ReLU(),
        "block": fn.residual(fn.serial(fn.Conv2d(4, 4, 3, padding=1), fn.BatchNorm2d(4), fn.ReLU())),
        "flat": fn.Flatten(),
        "last": fn.Linear(4 * 25, 3),
    }
    loss = fn.MSE() + 0.1 * fn.L1(reduction="sum")
    return (
        fn.serial(**layers),
        loss,
        fn.SGD(0.01, momentum=0.9),
        normal(1, rows, 2, 5, 5),
        normal(2, rows, 3),
        ("norm", "block", "last"),
    )


def transformer(rows):
    block = fn.transformer_encoder_block(8, 2, 16, dropout=0.1)
    net = fn.tied(
        fn.serial(fn.Embedding(5, 8), block, block, fn.LayerNorm(8), fn.Linear(8, 5, bias=False), fn.Transpose(1, 2)),
        ("0.weight", "4.weight"),
    )
    x = torch.arange(rows * 3).reshape(rows, 3) % 5
    opt = fn.chain(fn.ClipByGlobalNorm(0.1), fn.AdamW(lr=0.01))
    return net, fn.CrossEntropy(), opt, x, labels(rows, 3), (1, 2, 4)


CASES = {"perceptron": perceptron, "convolution": convolution, "transformer": transformer}


def train(step, net, opt, x, target):
    params = fn.tree.cast(net.init(0), torch.float64)
    state, values = opt.init(params), []
    for i in range(STEPS):
        params, state, value = step(params, state, x, target, fn.random.fold_in(fn.key(7), i))
        values.append(value)
    return params, state, torch.stack(values)


def differences(cases, size, microbatches, rows):
    """Return the largest differences of params, state and values, of each case and schedule, from the steps of one process."""
    found = {}
    for name in cases:
        net, loss, opt, x, target, cuts = CASES[name](rows)
        cuts = cuts[len(cuts) - size + 1 :]
        wanted = train(fn.train_step(net, loss, opt, accumulate=microbatches), net, opt, x, target)
        for schedule in SCHEDULES:
            step = pipeline(fn.train_step(net, loss, opt), cuts, schedule, microbatches)
            params, state, values = train(step, net, opt, x, target)
            got = step.whole(params), step.whole_state(state), values
            pairs = zip(*map(fn.tree.leaves, (wanted, got)), strict=True)
            found[name, schedule] = max([float((a - b).abs().max()) for a, b in pairs])
    return found


@pytest.mark.parametrize(("size", "microbatches", "rows"), [(1, 3, 7), (2, 3, 8), (4, 5, 7), (4, 4, 3)])
def test_the_step_is_that_of_one_process(size, microbatches, rows):
    """With dropout, tied embeddings, running statistics, clipping by the norm of all, ignored labels and uneven micro-batches."""
    for found in run(size, differences, [*CASES], size, microbatches, rows):
        assert {name: worst for name, worst in found.items() if worst > CLOSE} == {}
