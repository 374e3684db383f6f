"""Divided params: steps on pieces equal steps on whole params, a worker holds only its part, and layers are gathered in turn."""

import pytest
import torch
from distributed.launching import run

import funcnet as fn
from funcnet.distributed import data_parallel, shard, shard_optimizer, shard_rows, unshard
from funcnet.distributed.sharding.layouts import Layout

STEPS = 10


def normal(seed, *shape):
    return fn.random.normal(fn.key(seed), shape, dtype=torch.float64)


def mesh_of_all():
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh("cpu", (dist.get_world_size(),))


def in_small_groups():
    """Make groups of a few leaves, so that small nets have three groups."""
    from funcnet.distributed.replicas import buckets

    buckets.LEAVES = 2


@fn.frozen
class Scale(fn.Layer):
    """A layer with a 0-d param, which is whole on every worker."""

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
    """Return a net with a tied embedding at both ends, and a separate optimizer for biases."""
    net = fn.serial(fn.Embedding(11, 8), fn.transformer_encoder(8, 2, 2, 12), fn.Linear(8, 11, bias=False), fn.Transpose(1, 2))
    opt = fn.by_path({"*bias": fn.SGD(lr=0.1), "*": fn.AdamW(lr=0.01)})
    tokens = torch.arange(8 * 5).reshape(8, 5) * 7 % 11
    return fn.tied(net, ("0.weight", "2.weight")), fn.CrossEntropy(), opt, tokens, tokens.flip(0)


def recurrent():
    net = fn.serial(fn.LSTM(4, 5, batch_first=True), fn.Select(0), fn.Linear(5, 3))
    return net, fn.MSE(), fn.SAM(fn.SGD(lr=0.1), rho=0.05), normal(1, 8, 6, 4), normal(2, 8, 6, 3)


def recomputed():
    """Return a frozen layer, recomputed segments, stacked copies, and a run of invertible layers."""
    block, half = fn.serial(fn.Linear(6, 6), fn.Tanh()), fn.serial(fn.Linear(3, 3), fn.Tanh())
    inverses = fn.serial(fn.reversible(half, half), fn.reversible(half, half))
    recomputed = fn.remat(fn.serial(*[block] * 4), segments=2)
    net = fn.serial(fn.freeze(fn.Linear(6, 6)), recomputed, fn.repeat(block, 3), fn.Chunk(2), inverses, fn.Concat())
    return net, fn.MSE(), fn.Adam(lr=0.01), normal(1, 5, 6), normal(2, 5, 6)


def noisy():
    """Return a net with dropout and batch statistics on shards that can be empty, and a frozen net with statistics."""
    frozen = fn.freeze(fn.serial(fn.Conv1d(4, 6, 1), fn.BatchNorm1d(6)))
    net = fn.serial(frozen, fn.Conv1d(6, 5, 1), fn.BatchNorm1d(5), fn.Dropout(0.5), fn.Flatten(), fn.Linear(25, 3))
    return net, fn.MSE(), fn.SGD(lr=0.1), normal(1, 3, 4, 5), normal(2, 3, 3)


def rounded():
    """Return a net in half precision with statistics, whose params stay float64."""
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
    """Compare with workers that hold whole params, if noise and statistics depend on the shards."""
    in_small_groups()
    from torch.distributed.tensor import Replicate, Shard

    columns = {"*.bias": Replicate(), "0.*": Shard(0), "*": Shard(1)}
    found = [largest_difference(train(case), train(case, divided=True)) for case in (noisy(), rounded())]
    found[1] *= 1e-6  # gradients of half precision are summed in float32, in another order
    return [*found, largest_difference(train(perceptron()), train(perceptron(), divided=True, placements=columns))]


def test_the_step_is_that_of_whole_params_on_the_whole_batch():
    """This covers every family of layers, uneven and empty pieces and shards, micro-batches, and norms of all gradients."""
    for size in (1, 2, 4):
        for found in run(size, against_one_process):
            assert max(found) < 1e-12, (size, found)


def test_noise_and_statistics_are_those_of_whole_params():
    """Placements along other axes, and whole leaves, also give the same step."""
    for size in (2, 4):
        for found in run(size, against_whole_params):
            assert max(found) < 1e-12, (size, found)


def values_and_gradients():
    """Return the differences of values and gradients from one process; a donated optimizer then uses them."""
    net, loss, opt, x, target = perceptron()
    params = fn.tree.cast(net.init(0), torch.float64)
    alone, own = fn.value_and_grads(net, loss)(params, x, target), shard_rows((x, target))
    pieces, found = shard(params, mesh_of_all()), []
    for step in (fn.value_and_grads(net, loss), fn.accumulate(net, loss, 2)):
        value, grads, _ = data_parallel(step)(pieces, *own)
        found.append(largest_difference(alone[:2], (value, unshard(grads))))
    donated = train((net, loss, fn.donate(opt), x, target), divided=True)
    return [*found, largest_difference(train(perceptron(), parallel=False), donated)]


def test_values_and_gradients_are_pieces():
    """The functions that return gradients return DTensors; a donated optimizer writes to its pieces."""
    for found in run(2, values_and_gradients):
        assert max(found) < 1e-12


def deep(width=32, layers=16):
    return fn.serial(*[fn.Linear(width, width) for _ in range(layers)])


def sent(collectives):
    """Return the messages in the second step of a deep net in order, between its layers, which are numbered from 0."""
    import torch.distributed as dist

    events = []

    @fn.frozen
    class Noted(fn.Linear):
        number: int = 0

        def apply(self, params, x, rng=None):
            events.append(("forward", self.number))
            return super().apply(params, x, rng)

        def vjp(self, params, cache, gy):
            events.append(("backward", self.number))
            return super().vjp(params, cache, gy)

        def grads(self, params, cache, gy):
            events.append(("backward", self.number))
            return super().grads(params, cache, gy)

    for name in collectives:
        original = getattr(dist, name)
        setattr(dist, name, lambda *a, original=original, name=name, **k: (events.append(name), original(*a, **k))[1])
    net, opt = fn.serial(*[Noted(8, 8, number=i) for i in range(18)]), fn.SGD(lr=0.1)
    params = shard(net.init(0), mesh_of_all())
    step, state = data_parallel(fn.train_step(net, fn.MSE(), opt)), opt.init(params)
    for _ in range(2):
        events.clear()
        params, state, _ = step(params, state, torch.ones(4, 8), torch.ones(4, 8))
    return events


def test_groups_are_gathered_ahead_and_scattered_behind():
    """Three groups of six layers need five gathers and three scatters; only messages without overlap are awaited."""
    names = ("all_reduce", "all_gather_single", "all_to_all_single", "reduce_scatter_single", "all_gather_object", "broadcast")
    for events in run(2, sent, names):
        gather, scatter = "all_gather_single", "all_to_all_single"
        assert [one for one in events if isinstance(one, str) and one not in (gather, scatter)] == []
        before = {one: events[: events.index(one)] for one in events if isinstance(one, tuple)}
        counts = {one: (row.count(gather), row.count(scatter)) for one, row in before.items()}
        assert [counts["forward", i] for i in (0, 6, 12)] == [(2, 0), (3, 0), (4, 0)]
        assert [counts["backward", i] for i in (17, 11, 5, 0)] == [(4, 0), (5, 1), (5, 2), (5, 2)]
        assert (events.count(gather), events.count(scatter)) == (5, 3)


def memories():
    """Return the bytes of whole params, of this worker's params, gradients and state, and the peak of all tensors."""
    import gc

    from funcnet.distributed.replicas import buckets

    buckets.BYTES, peaks = 1 << 12, []

    def measure():
        storages = {
            one.untyped_storage().data_ptr(): one.untyped_storage().nbytes()
            for one in gc.get_objects()
            if type(one) is torch.Tensor
        }
        return sum(storages.values())

    @fn.frozen
    class Measured(fn.Linear):
        def apply(self, params, x, rng=None):
            peaks.append(measure())
            return super().apply(params, x, rng)

        def vjp(self, params, cache, gy):
            peaks.append(measure())
            return super().vjp(params, cache, gy)

    gc.freeze()  # existing objects are neither counted nor inspected
    net, opt, x = fn.serial(*[Measured(32, 32) for _ in range(16)]), fn.Adam(lr=0.1), torch.ones(1, 32)
    whole = net.init(0)
    size, params = fn.tree.nbytes(whole), shard(whole, mesh_of_all())
    del whole
    state, gradient = opt.init(params), data_parallel(fn.value_and_grads(net, fn.MSE()))
    for _ in range(2):
        held = measure()
        peaks.clear()
        grads = gradient(params, x, x)[1]
    return size, [fn.tree.nbytes(one) for one in (params, grads, state)], max(peaks) - held


def test_a_worker_holds_its_part():
    """In addition, at most six of eight groups are in memory: params, and gradients being sent.

    All whole params and gradients would be sixteen. Threads of gloo release a tensor shortly after it has arrived.
    """
    for size in (2, 4):
        for whole, (params, grads, state), peak in run(size, memories):
            assert (params, grads, state) == (whole // size, whole // size, 2 * whole // size + 8)
            assert peak < whole * (1 / size + 6 / 8), (peak, whole)


def refused():
    """Return the errors for indivisible params, and for steps that cannot use pieces."""
    import torch.distributed as dist
    from torch.distributed.tensor import Partial, Shard

    mesh, net = mesh_of_all(), fn.serial(fn.Linear(6, 4), fn.Linear(4, 3))
    params, x = net.init(0), torch.ones(2, 6)
    pieces, own = shard(params, mesh), {"a": torch.full((2,), float(dist.get_rank()))}
    alone = [dist.new_group([rank]) for rank in range(2)][dist.get_rank()]
    step = lambda opt: data_parallel(fn.train_step(net, fn.MSE(), opt))
    calls = [
        lambda: shard(params, None),
        lambda: shard(pieces, mesh),
        lambda: shard({"a": 1}, mesh),
        lambda: shard(params, mesh, {"*": Shard(1)}),
        lambda: shard(params, mesh, {"2.weight": Shard(0)}),
        lambda: shard(params, mesh, {"*": Partial()}),
        lambda: shard(params, mesh, {"*": (Shard(0), Shard(0))}),
        lambda: shard(params, mesh, [Shard(0)]),
        lambda: shard(params, mesh, {3: Shard(0)}),
        lambda: shard(own, mesh),
        lambda: step(fn.Muon())(pieces, None, x, x[:, :3]),
        lambda: step(shard_optimizer(fn.Adam()))(pieces, None, x, x[:, :3]),
        lambda: data_parallel(fn.value_and_grads(net, fn.MSE()), alone)(pieces, x, x[:, :3]),
        lambda: step(fn.chain(fn.AddNoise(0.1), fn.SGD(lr=0.1)))(pieces, None, x, x[:, :3]),
    ]
    found = []
    for call in calls:
        with pytest.raises(ValueError, match=r"^(shard|data_parallel): ") as caught:
            call()
        found.append(str(caught.value))
    return found


def test_what_cannot_be_divided_is_refused():
    """The error is raised on every worker, with the path."""
    for found in run(2, refused):
        words = [
            "mesh must be a DeviceMesh",
            "params must be whole tensors, and the leaf at '0.weight' is not",
            "the leaf at 'a' is not, got 1",
            "Shard(1) needs an axis 1, which the leaf at '0.bias' lacks",
            "the pattern '2.weight' must match a path in params, got the paths '0.weight', '0.bias'",
            "placements must be Shard(axis) or Replicate()",
            "for each of the 1 axes of the mesh",
            "placements must be a dict",
            "by a pattern, or by a function of path and leaf, got 3",
            "params at 'a' differs, got different values on rank 1 than on rank 0",
            "divided params need an optimizer that acts on elements; shard_optimizer accepts those that act on leaves, got Muon",
            "params divided by shard divide the optimizer's state too; remove shard_optimizer, got shard_optimizer(",
            "DTensors must be divided over a mesh of the workers",
            "noise cannot be drawn for divided params",
        ]
        for text, word in zip(found, words, strict=True):
            assert word in text, text


def test_layouts_cut_as_chunk_does():
    """Pieces and whole leaves are restored from messages along every axis, even with more workers than rows."""
    for shape in ((5, 3), (4, 2), (1, 4), (0, 2), (7,), (3, 5, 2)):
        for axis in range(len(shape)):
            for size in (2, 3, 4):
                whole = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
                layouts = [Layout(whole.shape, axis, size, rank) for rank in range(size)]
                chunks = [*whole.chunk(size, axis)] if shape[axis] else []
                chunks += [whole.narrow(axis, 0, 0)] * (size - len(chunks))
                assert all(map(torch.equal, [layout.cut(whole) for layout in layouts], chunks))
                rows = torch.stack([torch.cat(layout.flat(piece)) for layout, piece in zip(layouts, chunks, strict=True)])
                assert all(torch.equal(layout.whole(rows), whole) for layout in layouts)
                assert torch.equal(layouts[0].matrix(whole), rows)
                assert all(
                    torch.equal(layout.piece(row), piece) for layout, row, piece in zip(layouts, rows, chunks, strict=True)
                )


def as_whole():
    """Return a worker's part of a tree, and whether ``unshard`` restores it."""
    params = {"a": normal(1, 5, 2), "n": torch.tensor(3), "s": torch.ones(()), "none": None}
    pieces = shard(params, mesh_of_all())
    held = [tuple(leaf.to_local().shape) for leaf in fn.tree.leaves(pieces)]
    return held, fn.tree.nbytes(pieces), fn.tree.equal(unshard(pieces), params), type(pieces["a"]).__name__


def test_unshard_is_the_way_back():
    """0-d leaves, counters and absent leaves are whole everywhere."""
    found = run(4, as_whole)
    assert found == [([(rows, 2), (), ()], 16 * rows + 16 - 4, True, "DTensor") for rows in (2, 2, 1, 0)]
