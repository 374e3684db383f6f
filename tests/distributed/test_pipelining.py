"""Pipelines: a net in stages on several workers makes the same step as one process that accumulates micro-batches."""

import pickle

import numpy as np
import pytest
import torch
from distributed.launching import outcomes, run, wait_for_all

import funcnet as fn
from funcnet.distributed import WorkerError, bubble, pipeline, timeline
from funcnet.distributed.pipelining.schedules import SCHEDULES, actions_of
from funcnet.distributed.pipelining.stages import Halves

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
    return fn.serial(*layers), fn.CrossEntropy(), opt, normal(1, rows, 6), labels(rows), (1, 2, 7)


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
    opt = fn.chain(fn.ClipByGlobalNorm(0.1), fn.AdamW(lr=0.01, eps=1e-4))  # not 1e-8, since some gradients are 0 up to rounding
    return net, fn.CrossEntropy(), opt, x, labels(rows, 3), (1, 2, 4)


@fn.frozen
class WithMask(fn.Layer):
    """Return x with a mask, which has no gradient; stages exchange a pair."""

    def apply(self, params, x, rng=None):
        return (x, x > 0), ()

    def vjp(self, params, cache, gy):
        return params, gy[0]


@fn.frozen
class Masked(fn.Layer):
    """Multiply x with its mask."""

    def apply(self, params, x, rng=None):
        return x[0] * x[1], x[1]

    def vjp(self, params, cache, gy):
        return params, (gy * cache, None)


def masked(rows):
    layers = [fn.Linear(4, 8), WithMask(), fn.parallel(fn.Linear(8, 8), fn.Identity()), Masked(), fn.Linear(8, 2)]
    return fn.serial(*layers), fn.MSE(), fn.Averaged(fn.Adam(0.01), fn.EMA(0.9)), normal(1, rows, 4), normal(2, rows, 2), (2,)


def frozen(rows):
    """In the first stage only the last layer is trained; the optimizer evaluates two gradients."""
    half = fn.weight_norm(fn.Linear(8, 8))
    layers = [
        fn.freeze(fn.Linear(4, 8)),
        fn.Tanh(),
        fn.residual(half),
        fn.BatchNorm1d(8),
        fn.repeat(fn.Linear(8, 8), 2),
        fn.Linear(8, 5),
    ]
    target = torch.arange(rows) * 4 // rows  # all labels of the first micro-batches are ignored
    return fn.serial(*layers), fn.CrossEntropy(ignore_index=0), fn.SAM(fn.SGD(0.1)), normal(1, rows, 4), target, (3,)


def invertible(rows):
    """Cut a run of invertible layers."""
    layers = [fn.Chunk(2, -1), *[fn.reversible(fn.Linear(4, 4), fn.Tanh())] * 5, fn.Add(), fn.Linear(4, 2)]
    opt = fn.by_path({"*.bias": fn.SGD(1e-3), "*": fn.chain(fn.AddNoise(0.01), fn.AdamW(0.01, eps=1e-4))})
    return fn.serial(*layers), fn.MSE(reduction="sum"), opt, normal(1, rows, 8), normal(2, rows, 2), (3,)


def wide(rows):
    """float64 within float32: messages have the dtype of the computation; a weight is used three times in two stages."""
    net = fn.serial(
        a=fn.Linear(4, 4), b=fn.Tanh(), c=fn.Linear(4, 4), d=fn.Linear(4, 4), e=fn.cast(fn.Linear(4, 4), torch.float64)
    )
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
    """Return all numbers and dtypes of a training, as objects that processes can send."""
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
    """This includes dropout, tied embeddings, running statistics, global clipping, ignored labels and uneven micro-batches."""
    require_equal(CASES, run(size, in_stages, [*CASES], size, microbatches, rows), microbatches, rows)


def test_the_step_is_that_of_one_process_for_other_nets_and_optimizers():
    """Examples are pairs with masks, frozen layers, invertible layers, mixed precision, and every kind of optimizer."""
    require_equal(OTHERS, run(2, in_stages, [*OTHERS], 2, 4, 9), 4, 9)


def require_equal(cases, found, microbatches, rows):
    for name, case in cases.items():
        net, loss, opt, x, target, _ = case(rows)
        wanted = flat(*train(fn.train_step(net, loss, opt, accumulate=microbatches), net, opt, x, target))
        for got in found:
            for schedule in SCHEDULES:
                for (one, dtype), (other, like) in zip(got[name, schedule], wanted, strict=True):
                    close = CLOSE if like is not torch.float32 else 1e-6
                    torch.testing.assert_close(
                        torch.tensor(one, dtype=dtype), torch.tensor(other, dtype=like), rtol=0, atol=close
                    )


def small(loss=None, opt=None, **options):
    net = fn.serial(one=fn.Linear(3, 4), act=fn.Tanh(), two=fn.Linear(4, 4), last=fn.Linear(4, 2))
    return fn.train_step(net, loss or fn.MSE(), opt or fn.Adam(0.1), **options)


def batch(rows=5):
    return normal(1, rows, 3), normal(2, rows, 2)


def begun(step):
    params = fn.tree.cast(step.net.init(0), torch.float64)
    return params, step.opt.init(params)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"cuts": (0,)},
            "pipeline: each cut must be the number of a layer, from 1 to 3, or the name of one after the first; there are one, act, two, last, got 0",
        ),
        ({"cuts": (4,)}, "got 4"),
        ({"cuts": ("one",)}, "got 'one'"),
        ({"cuts": (True,)}, "got True"),
        ({"cuts": ("two", 1)}, "pipeline: cuts must increase: each begins a stage after the previous one, got ('two', 1)"),
        ({"cuts": (2, "two")}, "cuts must increase"),
        ({"cuts": 1.5}, "pipeline: cuts must be a tuple of layers by number or name, got 1.5"),
        ({"schedule": "2f2b"}, "pipeline: schedule must be one of 'gpipe', '1f1b', 'zero_bubble', got '2f2b'"),
        ({"microbatches": 0}, "pipeline: microbatches must be a whole number of at least 1, got 0"),
        (
            {"step": small().replace(net=fn.Linear(3, 2))},
            "pipeline: the net of the step must be a serial of layers, which may be within tied(...) or cast(...), got Linear(",
        ),
        ({"step": small().replace(net=fn.serial())}, "must be a serial of layers"),
        ({"step": small(in_backward=True)}, "the step must have in_backward=False and accumulate=1"),
        ({"step": small(accumulate=3)}, "got train_step("),
        ({"step": fn.Linear(3, 2)}, "pipeline: step must be a step of train_step, got Linear("),
        (
            {"step": small().replace(net=fn.tied(fn.serial(fn.Linear(2, 2), fn.Linear(2, 2)), ("0", "7"))), "cuts": (1,)},
            "pipeline: each path in tied must begin with one of 0, 1, got '7'",
        ),
    ],
)
def test_what_cannot_be_cut_is_refused(options, sentence):
    """The error has the rule and the value, and occurs without workers."""
    with pytest.raises(ValueError, match=r".") as caught:
        pipeline(**{"step": small(), "cuts": (1,), **options})
    assert sentence in str(caught.value)


def test_a_pipeline_is_a_value():
    """Its repr is the call that creates it, it can be pickled, and it needs workers only when called."""
    step = pipeline(small(), ["two"], "gpipe", 3)
    assert eval(repr(step), {**vars(fn), "pipeline": pipeline}) == step == pickle.loads(pickle.dumps(step))
    with pytest.raises(ValueError, match=r"pipeline: torch\.distributed\.init_process_group must be called first"):
        step(*begun(step.step), *batch())


def said(f):
    try:
        f()
    except ValueError as error:
        return str(error)
    return ""


def refusals():
    """Return this worker's errors for invalid steps, all of which end on all workers."""
    rank = torch.distributed.get_rank()
    params, state = begun(small())
    double = fn.tied(fn.serial(fn.Linear(3, 3), fn.Linear(3, 3)), ("0", "1"))
    tied = pipeline(small().replace(net=double), (1,))
    loose = fn.tree.map(lambda one: one + rank, double.init(0))
    dropping = fn.serial(fn.Linear(3, 2), fn.Dropout(0.5))
    return [
        said(lambda: pipeline(small(), (1, 2))),
        said(lambda: pipeline(small(opt=fn.LBFGS()), (1,))(params, fn.LBFGS().init(params), *batch())),
        said(lambda: pipeline(small(), (1 + rank,))(params, state, *batch())),
        said(lambda: tied(loose, tied.step.opt.init(loose), *batch())),
        said(lambda: pipeline(small(), (1,))(params, state, *batch(4 + rank))),
        said(lambda: pipeline(small(), (1,))(params, state, normal(1, 5, 3), normal(2, 4, 2))),
        said(
            lambda: pipeline(small().replace(net=dropping), (1,))(dropping.init(0), fn.Adam(0.1).init(dropping.init(0)), *batch())
        ),
    ]


def test_what_workers_cannot_do_together_is_refused_on_all():
    """Pipelines, shared params or shapes differ; no worker is left waiting."""
    for rank, found in enumerate(run(2, refusals)):
        count, lbfgs, other, shared, shapes, rows, key = found
        assert count == "pipeline: there must be a worker for each of the 3 stages of 2 cuts, got 2 workers"
        assert "LBFGS" in lbfgs
        assert other.startswith("pipeline: all workers must make the same pipeline, got pipeline(")
        assert "params at '0' differ, got different values on rank" in shared
        assert f"and here their shapes, dtypes and key are (((({4 + rank}, 3)" in shapes
        assert "x and target must be dense, and must have the same number of rows" in rows
        assert "pipeline: a stochastic net needs a key, rng, got None" in key


def in_groups():
    """Train in one of two pipelines of two workers each."""
    groups = [torch.distributed.new_group(ranks) for ranks in ([0, 1], [2, 3])]
    opt = fn.chain(fn.ClipByGlobalNorm(0.1), fn.Adam(0.1))
    step = pipeline(small(opt=opt), ("act",), "zero_bubble", 2, groups[torch.distributed.get_rank() // 2])
    params, state = begun(step.step)
    params, state, value = step(params, state, *batch())
    return flat(step.whole(params), step.whole_state(state), value)


def test_a_group_of_processes_is_a_pipeline():
    """Two groups make the same step simultaneously."""
    step = small(opt=fn.chain(fn.ClipByGlobalNorm(0.1), fn.Adam(0.1)), accumulate=2)
    wanted = flat(*step(*begun(step), *batch()))
    for found in run(4, in_groups):
        for (one, _), (other, _) in zip(found, wanted, strict=True):
            torch.testing.assert_close(torch.tensor(one), torch.tensor(other))


def in_parts():
    """Train twice on this worker's part only, and once with whole params."""
    step = pipeline(small(), ("two",), "zero_bubble", 3)
    params, state = begun(step.step)
    own = step.part(params)
    mine = step.step.opt.init(own)
    sizes = fn.tree.size(own), fn.tree.size(mine["exp_avg"])
    done, trace = step.traced(own, mine, *batch())
    again = step(own, mine, *batch())
    whole = step(params, state, *batch())
    equal = fn.tree.equal(done, again) and fn.tree.equal(step.whole(done[0]), step.whole(whole[0]))
    equal = equal and fn.tree.equal(step.whole_state(done[1]), step.whole_state(whole[1]))
    others = fn.tree.equal(step.part(whole[0]), done[0]) and not fn.tree.equal(whole[0], step.whole(whole[0]))
    return sizes, equal, others, [str(one.action) for one in trace], all(one.start <= one.end for one in trace)


def test_a_worker_needs_its_part_only():
    """Params and state in parts give the same step with the same bits; the rest of whole params does not change."""
    found = run(2, in_parts)
    assert [one[0] for one in found] == [(16, 16), (30, 30)]
    assert [one[1:3] for one in found] == [(True, True)] * 2
    assert [one[3] for one in found] == [[*map(str, row)] for row in actions_of("zero_bubble", 2, 3)]
    assert [one[4] for one in found] == [True] * 2


def in_batches():
    """Return whether sending messages in one batch, which NCCL requires, gives the same bits."""
    params, state = begun(small())
    one = pipeline(small(), (2,), "1f1b", 3)(params, state, *batch())
    batched, original, backend = [], torch.distributed.batch_isend_irecv, torch.distributed.get_backend
    torch.distributed.get_backend = lambda group=None: "nccl"
    torch.distributed.batch_isend_irecv = lambda ops: (batched.append(len(ops)), original(ops))[1]
    try:
        step = pipeline(small(), (2,), "1f1b", 3)
        return fn.tree.equal(step(params, state, *batch()), one), sum(batched)
    finally:
        torch.distributed.get_backend, torch.distributed.batch_isend_irecv = backend, original


def test_messages_go_in_batches_where_the_backend_needs_it():
    """Three micro-batches of two shapes need three tensors in each direction, and two headers of two tensors in each."""
    assert run(2, in_batches) == [(True, 14)] * 2


@fn.frozen
class Failing(fn.Layer):
    """A layer that fails on its third micro-batch."""

    rows: int

    def apply(self, params, x, rng=None):
        if x.shape[0] == self.rows:
            raise RuntimeError("out of order")
        return x, ()

    def vjp(self, params, cache, gy):
        return params, gy


@fn.frozen
class Ragged(fn.Layer):
    """A layer whose output shape depends on values."""

    def apply(self, params, x, rng=None):
        return x[:, : 1 + int(x[0, 0] < 1)], x

    def vjp(self, params, cache, gy):
        return params, torch.zeros_like(cache)


def failing(kind):
    """Make a step in which the first or the last stage fails, or the first changes the form of its output."""
    first = Ragged() if kind == "form" else Failing(2 if kind == "first" else 9)
    net = fn.serial(first, fn.Tanh(), fn.Linear(2, 2), Failing(2 if kind == "last" else 9))
    step = pipeline(fn.train_step(net, fn.MSE(), fn.SGD(0.1)), (2,), "1f1b", 3)
    arguments = net.init(0), {"step": torch.tensor(0)}, torch.arange(8.0).reshape(4, 2), torch.ones(4, 2)
    errors = []
    for _ in range(2):
        with pytest.raises((RuntimeError, ValueError)) as error:
            step(*arguments)
        errors.append(error.value)
        wait_for_all(f"failed {len(errors)}")  # this worker continues to run
    return [(isinstance(one, WorkerError), str(one)) for one in errors]


@pytest.mark.parametrize(
    ("kind", "rank", "sentence"),
    [
        ("first", 0, "out of order"),
        ("last", 1, "out of order"),
        ("form", 0, "the form of a stage's output must depend only on the form of x"),
    ],
)
def test_a_stage_that_fails_says_so_and_others_do_not_hang(kind, rank, sentence):
    """It raises its own error, which the other worker quotes immediately; messages are lost, so no further step is possible."""
    found = outcomes(2, failing, kind)
    assert sentence in found[rank][0][1]
    assert not found[rank][0][0]
    is_told, told = found[1 - rank][0]
    assert is_told
    assert f"rank {rank} raised" in told
    assert sentence in told
    for one in found:
        assert one[1][0]
        assert "after a failed collective the workers are out of step" in one[1][1]


def differing():
    """Return the errors if a worker has a different batch or key, or invalid params."""
    rank = torch.distributed.get_rank()
    step = pipeline(small(), (1,))
    params, state = begun(small())
    step(params, state, *batch())
    found = [said(lambda: step(params, state, *batch(4 + rank))), said(lambda: step(params, state, *batch(), rank))]
    value = step(params, state, *batch())[2]
    with pytest.raises((ValueError, WorkerError)) as error:
        step(params if rank else 5, state, *batch())
    wait_for_all("end")
    return [*found, float(value), str(error.value)]


def test_later_steps_must_be_the_same_on_all_workers_too():
    """They are compared before anything is sent, so the next step works; an earlier error ends the waits of others."""
    zero, one = run(2, differing)
    for found in (zero, one):
        assert "x, target and rng must be the same on all workers" in found[0]
        assert "x, target and rng must be the same on all workers" in found[1]
    assert zero[2] == one[2]
    assert "params must be a dict with the keys" in zero[3]
    assert f"rank 0 raised ValueError: {zero[3]}" in one[3]


called = []


@fn.frozen
class Told(fn.Linear):
    """A Linear that records the called methods."""

    def vjp(self, params, cache, gy):
        called.append("vjp")
        return super().vjp(params, cache, gy)

    def grads(self, params, cache, gy):
        called.append("grads")
        return super().grads(params, cache, gy)

    def input_grad(self, params, cache, gy):
        called.append("input_grad")
        return super().input_grad(params, cache, gy)


@fn.frozen
class Whole(Told):
    """A Linear that records the called methods, and whose halves would repeat work."""

    halves_share_work = True


@pytest.mark.parametrize(
    ("layers", "first", "then"),
    [
        (
            [Told(4, 4), fn.Tanh(), fn.residual(fn.serial(Told(4, 4), fn.Tanh())), fn.BatchNorm1d(4)],
            ["input_grad"] * 2,
            ["grads"] * 2,
        ),
        ([Whole(4, 4), fn.freeze(Told(4, 4)), fn.cast(Told(4, 4), torch.float64)], ["input_grad"] * 2 + ["vjp"], ["grads"]),
        ([fn.repeat(Told(4, 4), 2)], ["vjp"] * 2, []),
    ],
)
def test_the_backward_pass_falls_into_halves(layers, first, then):
    """Combinators are split too; other layers compute both halves at the same time, so nothing is computed twice."""
    net = fn.serial(*layers)
    params = fn.tree.cast(net.init(0), torch.float64)
    _, cache = net.apply(params, normal(1, 5, 4))
    halves = Halves(net, is_first=False)
    gparams, gx = net.vjp(params, cache, normal(2, 5, 4))
    called.clear()
    got, later = halves.input_half(params, cache, normal(2, 5, 4))
    assert fn.tree.allclose(got, gx, rtol=1e-12)
    assert called == first
    called.clear()
    assert fn.tree.allclose(halves.params_half(params, later), gparams, rtol=1e-12)
    assert called == then


def test_the_first_stage_needs_no_gradient_of_its_input():
    """Neither do layers before the first trained one."""
    net = fn.serial(fn.freeze(Told(4, 4)), fn.Tanh(), Told(4, 4), Told(4, 4))
    params = fn.tree.cast(net.init(0), torch.float64)
    _, cache = net.apply(params, normal(1, 5, 4))
    halves = Halves(net, is_first=True)
    called.clear()
    _, later = halves.input_half(params, cache, normal(2, 5, 4))
    found = halves.params_half(params, later)
    assert called == ["input_grad", "grads", "grads"]
    assert fn.tree.allclose(found, net.grads(params, cache, normal(2, 5, 4)), rtol=1e-12)


def test_every_action_comes_once_and_in_order():
    """F precedes B and B precedes W, the neighbor's action comes first, and the micro-batches in flight are as documented."""
    for schedule in SCHEDULES:
        for stages in range(1, 6):
            for batches in range(1, 9):
                rows = actions_of(schedule, stages, batches)
                for stage, row in enumerate(rows):
                    kinds = "FBW" if schedule == "zero_bubble" else "FB"
                    assert sorted(row) == sorted((kind, i) for kind in kinds for i in range(batches))
                    for kind in kinds:
                        assert [i for one, i in row if one == kind] == [*range(batches)]
                    kept = {"B": 0, kinds[-1]: 0}
                    for kind, i in row:
                        for last in kept:
                            kept[last] += (kind == "F") - (kind == last)
                        assert kind == "F" or row.index((kinds[kinds.index(kind) - 1], i)) < row.index((kind, i))
                        assert kept["B"] <= (batches if schedule == "gpipe" else stages - stage)
                        assert kept[kinds[-1]] <= (batches if schedule == "gpipe" else stages)


def test_bubbles_are_those_of_the_papers():
    """They agree for GPipe and 1F1B with any counts, and for ZB-H1 with as many micro-batches as stages and a short W."""
    for p in range(1, 6):
        for m in range(1, 9):
            assert bubble("gpipe", p, m) == pytest.approx((p - 1) / (m + p - 1))
            assert bubble("1f1b", p, m, 1, 1.3, 0.4) == pytest.approx((p - 1) / (m + p - 1))
            for f, b, w in ((1, 1, 1), (1, 1.2, 0.8), (2, 2, 1)):
                idle = (p - 1) * (f + b - w)
                if m >= p:
                    assert bubble("zero_bubble", p, m, f, b, w) == pytest.approx(idle / (m * (f + b + w) + idle))


def test_a_timeline_is_drawn():
    """It has a row for each stage and a column for each unit of time."""
    assert timeline("zero_bubble", 2, 3).splitlines() == [
        "stage 0  F0 F1 .  B0 W0 F2 B1 W1 B2 W2",
        "stage 1  .  F0 B0 F1 B1 W0 F2 B2 W1 W2",
    ]
    assert timeline("gpipe", 2, 2) == "stage 0  F0 F1 .  .  .  B0 == B1 ==\nstage 1  .  F0 F1 B0 == B1 == .  ."


def test_counts_may_be_of_numpy():
    """The numbers and drawings are the same."""
    two, three = np.int64(2), np.int64(3)
    assert bubble("1f1b", two, three) == bubble("1f1b", 2, 3)
    assert timeline("1f1b", two, three) == timeline("1f1b", 2, 3)


@pytest.mark.parametrize(
    ("f", "arguments", "sentence"),
    [
        (timeline, ("1b1f",), "timeline: schedule must be one of 'gpipe', '1f1b', 'zero_bubble', got '1b1f'"),
        (timeline, ("1f1b", 0), "timeline: stages must be a whole number of at least 1, got 0"),
        (bubble, ("1f1b", 2, 1.5), "bubble: microbatches must be a whole number of at least 1, got 1.5"),
        (bubble, ("1f1b", 2, 2, 0), "bubble: forward must be a finite number above 0, got 0"),
        (bubble, ([],), "bubble: schedule must be one of"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(f, arguments, sentence):
    """The error lists the known names, or the rule for numbers."""
    with pytest.raises(ValueError, match=r".") as caught:
        f(*arguments)
    assert sentence in str(caught.value)
