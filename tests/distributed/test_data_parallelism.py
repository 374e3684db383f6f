"""Data parallel: the step of all workers is that of one process on the whole batch."""

import torch
from distributed.launching import run

import funcnet as fn
from funcnet.distributed import data_parallel, shard_rows

STEPS = 10


def normal(seed, *shape):
    return fn.random.normal(fn.key(seed), shape, dtype=torch.float64)


def as_lists(tree):
    return {path: leaf.tolist() for path, leaf in fn.tree.names(tree).items()}


def perceptron():
    return fn.serial(fn.Linear(6, 16), fn.Tanh(), fn.residual(fn.serial(fn.Linear(16, 16), fn.GELU())), fn.Linear(16, 3))


def train(net, loss, opt, x, target, *, parallel, accumulate=1):
    step = fn.train_step(net, loss, opt, accumulate=accumulate)
    step = data_parallel(step) if parallel else step
    params = fn.tree.cast(net.init(0), torch.float64)
    state, values = opt.init(params), []
    batch = shard_rows((x, target)) if parallel else (x, target)
    for _ in range(STEPS):
        params, state, value = step(params, state, *batch)
        values.append(value)
    return params, state, torch.stack(values)


def differences(make, rows, accumulate):
    """Return the largest differences of params, state and values from the steps of one process."""
    net, loss, opt, x, target = make(rows)
    alone = train(net, loss, opt, x, target, parallel=False)
    together = train(net, loss, opt, x, target, parallel=True, accumulate=accumulate)
    return [float((a - b).abs().max()) for a, b in zip(*map(fn.tree.leaves, (alone, together)), strict=True) if a.numel()]


def classified(rows):
    target = torch.arange(rows) % 3
    target[::4] = -100
    return perceptron(), fn.CrossEntropy(), fn.Adam(lr=0.01), normal(1, rows, 6), target


def summed(rows):
    loss = fn.MSE() + 0.1 * fn.L1(reduction="sum")
    return perceptron(), loss, fn.SGD(lr=0.01, momentum=0.9), normal(1, rows, 6), normal(2, rows, 3)


def together(accumulate):
    return [max(differences(make, rows, accumulate)) for make in (classified, summed) for rows in (8, 7, 3, 1)]


def test_the_step_is_that_of_the_whole_batch():
    """On uneven and empty shards too, with ignored labels and sums of losses."""
    for size in (1, 2, 4):
        for accumulate in (1, 3):
            for found in run(size, together, accumulate):
                assert max(found) < 1e-12, (size, accumulate, found)


def deep(width=8, layers=50):
    return fn.serial(*[fn.Linear(width, width) for _ in range(layers)])


def counted():
    """Return what was sent in a step of a net of a hundred leaves, before and after the first layer's turn."""
    import torch.distributed as dist

    sent, at_first = [], []

    @fn.frozen
    class First(fn.Linear):
        def grads(self, params, cache, gy):
            at_first.append(len(sent))
            return super().grads(params, cache, gy)

    net = fn.serial(First(8, 8), *deep().layers[1:])
    step, opt = data_parallel(fn.train_step(net, fn.MSE(), fn.SGD(lr=0.1))), fn.SGD(lr=0.1)
    params = net.init(0)
    for name in ("all_reduce", "all_gather_object", "broadcast", "barrier"):
        original = getattr(dist, name)
        setattr(dist, name, lambda *a, original=original, name=name, **k: (sent.append(name), original(*a, **k))[1])
    counts = []
    for _ in range(2):
        sent.clear(), at_first.clear()
        step(params, opt.init(params), torch.ones(4, 8), torch.ones(4, 8))
        counts.append((at_first[0], [*sent]))
    return counts


def climbed():
    """Return how far the weights of a step of SAM are from those of one process; each shard has the statistics of the whole."""
    net, opt = fn.serial(fn.Linear(6, 4), fn.BatchNorm1d(4), fn.Linear(4, 3)), fn.SAM(fn.SGD(lr=0.1), rho=0.1)
    x, target = (torch.cat((one, one)) for one in (normal(1, 4, 6), normal(2, 4, 3)))
    alone, together = (train(net, fn.MSE(), opt, x, target, parallel=parallel)[0] for parallel in (False, True))
    start = fn.tree.cast(net.init(0), torch.float64)
    return [float((one[0]["weight"] - other[0]["weight"]).abs().max()) for one, other in ((alone, together), (alone, start))]


def test_an_optimizer_of_several_gradients_moves_params_and_statistics():
    """The statistics are those of the first gradient, and the params those after the optimizer's step."""
    for difference, step in run(2, climbed):
        assert difference < 1e-12
        assert step > 0.01
