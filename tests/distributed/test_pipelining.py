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
    opt = fn.chain(fn.ClipByGlobalNorm(0.1), fn.AdamW(lr=0.01, eps=1e-4))  # not 1e-8: some gradients are 0 but for rounding
    return net, fn.CrossEntropy(), opt, x, labels(rows, 3), (1, 2, 4)


@fn.frozen
class WithMask(fn.Layer):
    """x with a mask, which has no gradient; what goes from stage to stage is a pair."""

    def apply(self, params, x, rng=None):
        return (x, x > 0), ()

    def vjp(self, params, cache, gy):
        return params, gy[0]


@fn.frozen
class Masked(fn.Layer):
    """The pair of x and a mask as x where the mask is true."""

    def apply(self, params, x, rng=None):
        return x[0] * x[1], x[1]

    def vjp(self, params, cache, gy):
        return params, (gy * cache, None)


def masked(rows):
    layers = [fn.Linear(4, 8), WithMask(), fn.parallel(fn.Linear(8, 8), fn.Identity()), Masked(), fn.Linear(8, 2)]
    return fn.serial(*layers), fn.MSE(), fn.Averaged(fn.Adam(0.01), fn.EMA(0.9)), normal(1, rows, 4), normal(2, rows, 2), (2,)


def frozen(rows):
    """Of the first stage only the last layer is trained; the optimizer asks for two gradients."""
    half = fn.weight_norm(fn.Linear(8, 8))
    layers = [fn.freeze(fn.Linear(4, 8)), fn.Tanh(), fn.residual(half), half, fn.repeat(fn.Linear(8, 8), 2), fn.Linear(8, 5)]
    target = torch.arange(rows) * 4 // rows  # all labels of the first micro-batches are ignored
    return fn.serial(*layers), fn.CrossEntropy(ignore_index=0), fn.SAM(fn.SGD(0.1)), normal(1, rows, 4), target, (3,)


def invertible(rows):
    """A run of invertible layers is cut."""
    layers = [fn.Chunk(2, -1), *[fn.reversible(fn.Linear(4, 4), fn.Tanh())] * 5, fn.Add(), fn.Linear(4, 2)]
    opt = fn.by_path({"*.bias": fn.SGD(1e-3), "*": fn.chain(fn.AddNoise(0.01), fn.AdamW(0.01, eps=1e-4))})
    return fn.serial(*layers), fn.MSE(reduction="sum"), opt, normal(1, rows, 8), normal(2, rows, 2), (3,)


def wide(rows):
    """float64 within float32: what is sent has the dtype of the computation; three uses of one weight in two stages."""
    net = fn.serial(a=fn.Linear(4, 4), b=fn.Tanh(), c=fn.Linear(4, 4), d=fn.Linear(4, 4), e=fn.cast(fn.Linear(4, 4), torch.float64))
    net = fn.tied(fn.cast(fn.tied(net, ("c", "e")), torch.float64), ("a", "c"))
    opt = fn.chain(fn.LossScale(8.0), fn.SkipNonFinite(fn.chain(fn.ClipByGlobalNorm(0.1), fn.AdamW(0.01, eps=1e-4))))
    return net, fn.MSE() + fn.L1(), opt, normal(1, rows, 4).float(), normal(2, rows, 4).float(), ("d",)


OTHERS = {one.__name__: one for one in (masked, frozen, invertible, wide)}
CASES = {one.__name__: one for one in (perceptron, convolution, transformer)}


def train(step, net, opt, x, target):
    params = fn.tree.cast(net.init(0), x.dtype if x.is_floating_point() else torch.float64)
    state, values = opt.init(params), []
    for i in range(STEPS):
        params, state, value = step(params, state, x, target, fn.random.fold_in(fn.key(7), i))
        values.append(value)
    return params, state, torch.stack(values)


def flat(params, state, values):
    """Return all numbers of a training and their dtypes, as what another process can send."""
    return [(leaf.tolist(), leaf.dtype) for leaf in fn.tree.leaves((params, state, values))]


def in_stages(cases, size, microbatches, rows):
    """Return the numbers of each case after steps in stages, by schedule."""
    found = {}
    for name in cases:
        net, loss, opt, x, target, cuts = (CASES | OTHERS)[name](rows)
        for schedule in SCHEDULES:
            step = pipeline(fn.train_step(net, loss, opt), cuts[len(cuts) - size + 1 :], schedule, microbatches)
            params, state, values = train(step, net, opt, x, target)
            found[name, schedule] = flat(step.whole(params), step.whole_state(state), values)
    return found


@pytest.mark.parametrize(("size", "microbatches", "rows"), [(1, 3, 7), (2, 3, 8), (4, 5, 7), (4, 4, 3)])
def test_the_step_is_that_of_one_process(size, microbatches, rows):
    """With dropout, tied embeddings, running statistics, clipping by the norm of all, ignored labels and uneven micro-batches."""
    require_equal(CASES, run(size, in_stages, [*CASES], size, microbatches, rows), microbatches, rows)


def test_the_step_is_that_of_one_process_for_other_nets_and_optimizers():
    """Pairs with masks, frozen layers, runs of invertible layers, mixed precision, and optimizers of every kind."""
    require_equal(OTHERS, run(2, in_stages, [*OTHERS], 2, 4, 9), 4, 9)


def require_equal(cases, found, microbatches, rows):
    for name, case in cases.items():
        net, loss, opt, x, target, _ = case(rows)
        wanted = flat(*train(fn.train_step(net, loss, opt, accumulate=microbatches), net, opt, x, target))
        for got in found:
            for schedule in SCHEDULES:
                for (one, dtype), (other, like) in zip(got[name, schedule], wanted, strict=True):
                    close = CLOSE if like is not torch.float32 else 1e-6
                    torch.testing.assert_close(torch.tensor(one, dtype=dtype), torch.tensor(other, dtype=like), rtol=0, atol=close)
