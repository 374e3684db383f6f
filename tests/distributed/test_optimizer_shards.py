"""shard_optimizer: the same params as without sharding, with only the state of its pieces on each worker."""

import functools
import pickle
from pathlib import Path

import pytest
import torch
from distributed.launching import run

import funcnet as fn
import funcnet.distributed.workers as collectives
from funcnet.distributed.replicas.buckets import weighed
from funcnet.distributed.sharding import shard_plans
from funcnet.distributed.sharding.cutting import cuts
from funcnet.distributed.sharding.leaf_scopes import leaf_scopes, on_whole
from funcnet.distributed.sharding.matrices import Matrix
from funcnet.distributed.sharding.optimizer_shards import Pieces, ShardedOptimizer, pieces_of, shard_optimizer, with_pieces
from funcnet.optim.recording import recorded

STEPS = 10
ANY = {
    "sgd": fn.SGD(lr=0.1, momentum=0.9, nesterov=True),
    "adam": fn.Adam(lr=fn.CosineSchedule(0.1, 8)),
    "adamw": fn.AdamW(lr=0.1),
    "lion": fn.Lion(lr=0.01),
    "rmsprop": fn.RMSprop(lr=0.01),
    "lamb": fn.LAMB(lr=0.1),
    "adafactor": fn.Adafactor(lr=0.1),
    "clipped": fn.chain(fn.ClipByGlobalNorm(0.5), fn.AdamW(lr=fn.LinearSchedule(0.1, 0.0, 10))),
    "decayed": fn.chain(fn.ScaleByAdam(), fn.AddDecayedWeights(0.1), fn.SGD(lr=0.1)),
    "noise": fn.chain(fn.AddNoise(0.01, seed=3), fn.SGD(lr=0.1)),
    "by path": fn.by_path({lambda path, leaf: leaf.numel() > 20: fn.Muon(lr=0.1, ns_dtype=None), "*": fn.AdamW(lr=0.1)}),
    "frozen": fn.by_path({"short": None, "*": fn.Adam(lr=0.1)}),
    "averaged": fn.Averaged(fn.AdamW(lr=0.1), fn.EMA(0.9)),
    "several": fn.MultiSteps(fn.AdamW(lr=0.1), 2),
    "lookahead": fn.Lookahead(fn.SGD(lr=0.1), sync_period=3),
    "schedule free": fn.ScheduleFree(fn.SGD(lr=0.1)),
    "masters": fn.MasterWeights(fn.AdamW(lr=0.1)),
    "skip": fn.SkipNonFinite(fn.Adam(lr=0.1)),
    "prodigy": fn.Prodigy(),
}
AROUND = {
    "clipped": lambda opt: fn.chain(fn.ClipByGlobalNorm(0.5), opt(fn.AdamW(lr=0.1))),
    "several": lambda opt: fn.MultiSteps(opt(fn.AdamW(lr=0.1)), 2),
    "schedule free": lambda opt: fn.ScheduleFree(opt(fn.SGD(lr=0.1))),
    "averaged": lambda opt: fn.Averaged(opt(fn.Lion(lr=0.1)), fn.EMA(0.9)),
    "recorded": lambda opt: recorded(opt(fn.SGD(lr=0.1))),
    "groups": lambda opt: fn.by_path({"short": fn.SGD(lr=0.1), "*": opt(fn.Adam(lr=0.1))}),
}


def draw(i: int, *shape: int) -> torch.Tensor:
    """Return normal numbers in float64."""
    return fn.random.normal(i, shape, dtype=torch.float64)


def params() -> dict:
    """Return params with leaves that are short, empty, 0-d, integer, or have no gradient."""
    leaves = {"short": draw(1, 3), "scalar": draw(2), "empty": draw(0, 0, 3), "count": torch.tensor(4), "still": draw(5, 4)}
    return {**leaves, "weight": draw(6, 7, 3), "layers": (draw(3, 8, 8), draw(4, 8, 2), {})}


def gradients(i: int) -> dict:
    """Return the gradients of update i."""
    leaves = {"short": draw(10 * i, 3), "scalar": draw(10 * i + 1), "empty": draw(0, 0, 3), "count": None, "still": None}
    return {**leaves, "weight": draw(10 * i + 2, 7, 3), "layers": (draw(10 * i + 3, 8, 8), draw(10 * i + 4, 8, 2), {})}


def trained(opt: fn.Optimizer, *, donated: bool = False, steps: int = STEPS) -> tuple:
    """Return the params after some updates, the params for evaluation, and the state."""
    now = params()
    state = opt.init(now)
    opt = fn.donate(opt) if donated else opt
    for i in range(1, steps + 1):
        now, state = opt.update(gradients(i), state, now)
    return fn.tree.map(torch.clone, now), opt.eval_params(state, now), state


@functools.cache
def of_one_process(opt: fn.Optimizer) -> tuple:
    """Return the result of training with the optimizer in one process."""
    return trained(opt)


def donated_on_each() -> dict:
    """Return whether donated and pure steps have the same bits, for each optimizer."""
    found = {}
    for name, opt in ANY.items():
        one, two = trained(shard_optimizer(opt), steps=3), trained(shard_optimizer(opt), steps=3, donated=True)
        found[name] = all(fn.tree.equal(a, b) for a, b in zip(one, two, strict=True))
    return found


def test_donated_steps_have_the_same_bits() -> None:
    """A donated optimizer writes the values that a pure one returns to its pieces."""
    assert run(2, donated_on_each) == [dict.fromkeys(ANY, True)] * 2


def numbers(tree) -> dict:
    """Return the leaves of a tree by path, as lists."""
    return {path: leaf.tolist() for path, leaf in fn.tree.names(tree).items()}


def on_each(names) -> dict:
    """Train with sharded optimizers; return params, params for evaluation, and the bytes and pieces of the state."""
    found = {}
    for name in names:
        one = trained(shard_optimizer(ANY[name]))
        found[name] = numbers(one[0]), numbers(one[1]), fn.tree.nbytes(one[2].tree), named(one[2])
    for name, around in AROUND.items():
        found[f"around: {name}"] = (*[numbers(tree) for tree in trained(around(shard_optimizer))[:2]],)
    return found


def named(state) -> dict:
    """Return the pieces of a state by path: their numbers, the shape of the whole leaf, and the first row."""
    return {path: (None if leaf is None else leaf.tolist(), shape, first) for path, leaf, shape, first in pieces_of(state)}


def close(found: dict, wanted: dict) -> bool:
    """Return whether two trees of numbers by path agree to 1e-12."""
    pairs = [(torch.tensor(found[path]), torch.tensor(one)) for path, one in wanted.items()]
    return found.keys() == wanted.keys() and all(torch.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in pairs)


def fits(found: list, state) -> bool:
    """Return whether the pieces of all workers together are the state of a single process."""
    whole = fn.tree.names(state)
    for path in found[0]:
        if path not in whole:
            assert all(one[path][0] is None for one in found)
            continue
        rows = [
            (first, torch.tensor(leaf, dtype=whole[path].dtype))
            for leaf, _, first in (one[path] for one in found)
            if leaf is not None
        ]
        shape = found[0][path][1]
        if shape is None:
            assert len(rows) == len(found)
            assert all(torch.equal(leaf, rows[0][1]) for _, leaf in rows)
            rows = rows[:1]
        else:
            assert shape == whole[path].shape
        joined = torch.cat([leaf for _, leaf in sorted(rows, key=lambda row: row[0])]) if rows[0][1].dim() else rows[0][1]
        assert torch.allclose(joined.view_as(whole[path]), whole[path], rtol=1e-12, atol=1e-12), path
    return whole.keys() <= found[0].keys()


@pytest.mark.parametrize("size", [1, 2, 4])
def test_shards_equal_the_whole(size: int) -> None:
    """Params, averages and the joined states equal those of one process."""
    found = run(size, on_each, list(ANY))
    for name, opt in ANY.items():
        now, best, state = of_one_process(opt)
        for worker in found:
            assert close(worker[name][0], numbers(now)), name
            assert close(worker[name][1], numbers(best)), name
        assert all(worker[name][0] == found[0][name][0] for worker in found), name
        assert fits([worker[name][3] for worker in found], state), name
    for name, around in AROUND.items():
        now, best, _ = of_one_process(around(lambda opt: opt))
        assert all(close(worker[f"around: {name}"][0], numbers(now)) for worker in found), name
        assert all(close(worker[f"around: {name}"][1], numbers(best)) for worker in found), name


def net(norm: fn.Layer) -> fn.Layer:
    """Return a net with this norm, frozen and stacked layers, and a layer without a bias."""
    head = [fn.freeze(fn.Linear(7, 7)), fn.repeat(fn.Linear(7, 7), 3), fn.Linear(7, 3, bias=False)]
    return fn.serial(fn.Conv2d(1, 6, 3), norm, fn.ReLU(), fn.Flatten(), fn.Linear(6 * 4, 7), fn.LayerNorm(7), fn.GELU(), *head)


STEPPED = {
    "adamw": fn.chain(fn.ClipByGlobalNorm(1.0), fn.AdamW(lr=0.01)),
    "muon": fn.by_path({"9.*": fn.Muon(lr=0.01, ns_dtype=None), "*": fn.AdamW(lr=0.01)}),
    "averaged": fn.Averaged(fn.Lion(lr=0.01), fn.EMA(0.9)),
    "scaled": fn.chain(fn.LossScale(), fn.SkipNonFinite(fn.Adam(lr=0.01))),
}


def batches() -> list:
    """Return ten batches of seven images and labels, some of them ignored."""
    x = [fn.random.normal(i, (7, 1, 4, 4), dtype=torch.float64) for i in range(STEPS)]
    return [(one, torch.tensor([0, 1, 2, -100, i % 3, 1, -100])) for i, one in enumerate(x)]


def stepped(opt: fn.Optimizer, parallel, rows, norm: fn.Layer, **options) -> tuple:
    """Return params, params for evaluation, and losses after ten steps."""
    step = parallel(fn.train_step(net(norm), fn.CrossEntropy(), opt, **options))
    now = fn.tree.cast(net(norm).init(0), torch.float64)
    state, values = opt.init(now), []
    for x, target in batches():
        now, state, value = step(now, state, *rows((x, target)))
        values.append(value.item())
    return numbers(now), numbers(opt.eval_params(state, now)), values


def stepped_on_each() -> dict:
    """Train on this worker's rows, also donated, with running statistics and micro-batches, and with whole states."""
    parallel, rows, opt = fn.distributed.data_parallel, fn.distributed.shard_rows, STEPPED["adamw"]
    found = {name: stepped(shard_optimizer(opt), parallel, rows, fn.GroupNorm(2, 6)) for name, opt in STEPPED.items()}
    found["donated"] = stepped(fn.donate(shard_optimizer(opt)), parallel, rows, fn.GroupNorm(2, 6))
    opt = fn.chain(fn.ClipByGlobalNorm(1.0), fn.SGD(lr=0.1, momentum=0.9))
    found["statistics"] = stepped(shard_optimizer(opt), parallel, rows, fn.BatchNorm2d(6), accumulate=2)
    found["whole statistics"] = stepped(opt, parallel, rows, fn.BatchNorm2d(6), accumulate=2)
    return {**found, **alone_on_each()}


def alone_on_each() -> dict:
    """Train with a message for each evenly cut leaf, and count the gathers that use the memory of leaves."""
    shard_plans.ALONE, gather, gathered = 1, shard_plans.gather_into, []
    shard_plans.gather_into = lambda *args: (gathered.append(args[1].shape), gather(*args))[1]
    parallel, rows, opt = fn.distributed.data_parallel, fn.distributed.shard_rows, shard_optimizer(STEPPED["adamw"])
    found = {"alone": stepped(opt, parallel, rows, fn.GroupNorm(2, 6))}
    found["donated alone"] = stepped(fn.donate(opt), parallel, rows, fn.GroupNorm(2, 6))
    return {**found, "gathered alone": len(gathered), "even": evenly(shard_optimizer, parallel, rows)}


def evenly(sharded, parallel, rows) -> dict:
    """Return the params of a net that two and four workers divide evenly, pure and donated."""
    found, net = {}, fn.serial(fn.Linear(8, 8), fn.Tanh(), fn.Linear(8, 4, bias=False))
    for name, wrap in {"pure": lambda opt: opt, "donated": fn.donate}.items():
        now, opt = fn.tree.cast(net.init(0), torch.float64), wrap(sharded(fn.Adam(lr=0.1)))
        step, state = parallel(fn.train_step(net, fn.MSE(), opt)), opt.init(now)
        for i in range(STEPS):
            now, state, _ = step(now, state, rows(draw(i, 7, 8)), rows(draw(i + 20, 7, 4)))
        found |= {f"{name}.{path}": leaf for path, leaf in numbers(now).items()}
    return found


@pytest.mark.parametrize("size", [1, 2, 4])
def test_steps_equal_those_of_one_process(size: int) -> None:
    """Under ``data_parallel``, with pieces of gradients, ten steps equal those of one process on the whole batch."""
    found = run(size, stepped_on_each)
    whole = {name: stepped(opt, lambda step: step, lambda batch: batch, fn.GroupNorm(2, 6)) for name, opt in STEPPED.items()}
    whole |= dict.fromkeys(("donated", "alone", "donated alone"), whole["adamw"])
    whole |= {"statistics": found[0]["whole statistics"]}
    for name, (now, best, values) in whole.items():
        for worker in found:
            assert close(worker[name][0], now), name
            assert close(worker[name][1], best), name
            assert torch.allclose(torch.tensor(worker[name][2]), torch.tensor(values), rtol=1e-12), name
    even = evenly(lambda opt: opt, lambda step: step, lambda batch: batch)
    assert all(close(worker["even"], even) and (worker["gathered alone"] > 0) == (size == 2) for worker in found)


def of_large_params() -> tuple:
    """Return the bytes of the state, the messages of a step, the bits of a repeated step, and the errors for wrong arguments."""
    large = {f"{i}": torch.ones(40, 16) for i in range(25)} | {f"b{i}": torch.ones(40) for i in range(75)}
    opt = shard_optimizer(fn.chain(fn.ClipByGlobalNorm(1.0), fn.Adam(lr=0.1)))
    state, grads = opt.init(large), fn.tree.map(lambda p: fn.random.normal(3, tuple(p.shape)), large)
    sent: list[str] = []
    for name in ("all_gather_single", "all_reduce", "broadcast", "all_to_all_single", "all_gather_into_tensor"):
        patch(name, sent)
    first, again = opt.update(grads, state, large), opt.update(grads, state, large)
    errors = [said(lambda bad=bad: opt.update({**grads, "0": bad}, state, large)) for bad in (torch.ones(16, 40), 3.0)]
    errors.append(said(lambda: opt.update(grads, fn.Adam().init(large), large)))
    errors.append(
        said(
            lambda: opt.update(
                {"n": torch.ones(2)}, opt.init({"n": torch.ones(2, dtype=torch.int64)}), {"n": torch.ones(2, dtype=torch.int64)}
            )
        )
    )
    same = fn.tree.equal(first[0], again[0]) and fn.tree.equal(first[1], again[1])
    deep = fn.serial(*[fn.Linear(4, 4) for _ in range(50)])
    step, state_of_deep = fn.distributed.data_parallel(fn.train_step(deep, fn.MSE(), opt)), opt.init(deep.init(0))
    step(deep.init(0), state_of_deep, torch.ones(3, 4), torch.ones(3, 4))
    return fn.tree.nbytes(state), len(sent), same, errors, repr(pickle.loads(pickle.dumps(opt))), opt.rates(state)


def patch(name: str, sent: list[str]) -> None:
    """Count the calls of a collective."""
    whole = getattr(collectives.dist, name, None)
    if whole is not None:
        setattr(collectives.dist, name, lambda *args, **more: (sent.append(name), whole(*args, **more))[1])


def said(f) -> str:
    """Return the message of the error that a function raises."""
    try:
        f()
    except ValueError as error:
        return " ".join([str(error), *getattr(error, "__notes__", [])])
    return "no error"


def test_bytes_messages_and_errors() -> None:
    """A hundred leaves need half the bytes and two messages; the same step has the same bits; errors name path and rule."""
    large = {f"{i}": torch.ones(40, 16) for i in range(25)} | {f"b{i}": torch.ones(40) for i in range(75)}
    whole = fn.tree.nbytes(fn.Adam().init(large))
    for nbytes, sent, same, errors, text, rates in run(2, of_large_params):
        assert nbytes <= 0.55 * whole
        assert sent == 4 + 5  # norm and params in three steps, and three buckets of gradients in one
        assert same
        assert "grads must have at '0' the same as params, a tensor of shape (40, 16)" in errors[0]
        assert "grads must have at '0'" in errors[1]
        assert "state must be that of this worker's pieces" in errors[2]
        assert "grads must have at 'n' None" in errors[3]
        assert text == "shard_optimizer(chain(ClipByGlobalNorm(max_norm=1.0), Adam(lr=0.1)))"
        assert rates["lr"] == 0.1


def halves() -> list:
    """Return params and losses of steps in bfloat16 with float32 masters, and of a step on params of different dtypes."""
    found = []
    for opt in (fn.MasterWeights(fn.AdamW(lr=0.1)), fn.AdamW(lr=0.1)):
        for one in (opt, shard_optimizer(opt)):
            now = {"a": torch.ones(5, 3, dtype=torch.bfloat16), "b": torch.ones(7), "c": torch.ones(3, dtype=torch.float64)}
            state = one.init(now)
            for i in range(4):
                grads = fn.tree.map(lambda p, i=i: fn.random.normal(i, tuple(p.shape)).to(p.dtype), now)
                now, state = one.update(grads, state, fn.tree.map(lambda p: p.requires_grad_(), now))
            assert not any(leaf.requires_grad for leaf in fn.tree.leaves((now, state)))
            found.append(numbers(now))
    return found


def test_half_precision_and_several_dtypes_keep_their_bits() -> None:
    """Steps of pieces in bfloat16, float32 and float64 equal those of whole leaves bit for bit, without autograd's graph."""
    for found in run(4, halves):
        assert found[0] == found[1]
        assert found[2] == found[3]


def saved(path: str) -> None:
    """Save params and the sharded state after three steps."""
    for name in SAVED:
        now, _, state = trained(shard_optimizer(ANY[name]), steps=3)
        fn.distributed.save(f"{path}/{name}", {"params": now, "state": state})


def loaded(path: str, *, whole: bool) -> list:
    """Return the params after three more steps from the saved state, loaded whole or in pieces."""
    found = []
    for name in SAVED:
        opt = ANY[name] if whole else shard_optimizer(ANY[name])
        got = fn.distributed.load(f"{path}/{name}", {"params": params(), "state": opt.init(params())})
        now, state = got["params"], got["state"]
        for i in range(4, 7):
            now, state = opt.update(gradients(i), state, now)
        found.append(numbers(now))
    return found


SAVED = ("clipped", "by path", "averaged")


def test_a_saved_state_goes_on_with_any_number_of_workers(tmp_path: Path) -> None:
    """The state of four workers continues on two, in pieces or whole, as without interruption."""
    run(4, saved, str(tmp_path))
    wanted = [numbers(trained(ANY[name], steps=6)[0]) for name in SAVED]
    for whole in (False, True):
        for worker in run(2, functools.partial(loaded, whole=whole), str(tmp_path)):
            assert all(close(*pair) for pair in zip(worker, wanted, strict=True))


@pytest.mark.parametrize("n", [0, 1, 3, 8, 9])
def test_rows_are_those_of_chunk(n: int) -> None:
    """Worker r has chunk r of a divided leaf, and nothing if there are fewer chunks."""
    leaf = torch.arange(2.0 * n).view(n, 2)
    (cut,) = cuts([leaf], ["elements"], 4)
    chunks = [*leaf.chunk(4), *[None] * 4][:4] if n else [leaf, None, None, None]
    for rank, chunk in enumerate(chunks):
        piece = cut.piece(leaf, rank)
        assert (piece is None) == (chunk is None)
        assert chunk is None or torch.equal(piece, chunk)


def test_whole_leaves_are_dealt_out_by_size() -> None:
    """From the largest leaf down, each is assigned to the worker that has least; counters are not cut."""
    leaves = [torch.ones(2, 2), torch.ones(9, 9), torch.ones(8, 8), torch.ones(3), torch.tensor(1), None]
    found = cuts(leaves, ["leaves"] * 6, 2)
    assert [cut and [count for _, count in cut.rows] for cut in found] == [[0, 2], [9, 0], [0, 8], [0, 3], None, None]


def test_matrices_give_back_what_they_hold() -> None:
    """A row contains the pieces of its worker, and all rows together contain whole leaves."""
    leaves = [draw(1, 5, 2), draw(2), draw(3, 9), draw(4, 3, 3)]
    cut = cuts(leaves, ["elements", "elements", "elements", "leaves"], 4)
    matrix = Matrix(cut, 4)
    rows = matrix.of_wholes(leaves)
    assert rows.shape == (4, matrix.width)
    assert all(torch.equal(a, b) for a, b in zip(matrix.wholes(rows), leaves, strict=True))
    for rank in range(4):
        own = [one.piece(leaf, rank) for one, leaf in zip(cut, leaves, strict=True)]
        assert torch.equal(matrix.of_pieces(own, rank, leaves[0]), rows[rank])
    written = [torch.zeros_like(leaf) for leaf in leaves]
    matrix.write(rows, written)
    assert all(torch.equal(a, b) for a, b in zip(written, leaves, strict=True))


def test_scopes_and_choices_are_those_of_whole_leaves() -> None:
    """Each leaf is cut or not according to its group; masks and groups by size are chosen before cutting."""
    leaves = {"norm": {"weight": torch.ones(8), "bias": torch.ones(8)}, "weight": torch.ones(16, 4)}
    large = lambda path, leaf: leaf.numel() > 40
    opt = fn.by_path({large: fn.Muon(), "*": fn.chain(fn.AddDecayedWeights(0.1), fn.LAMB()), "never": fn.SGD()})
    assert leaf_scopes(opt, leaves) == ["leaves"] * 3
    assert leaf_scopes(fn.by_path({large: fn.Muon(), "*": fn.Adam()}), leaves) == ["elements", "elements", "leaves"]
    assert leaf_scopes(fn.MultiSteps(fn.chain(fn.AddNoise(0.1), fn.SGD()), 2), leaves) == ["leaves"] * 3
    chosen = on_whole(opt, leaves)
    cut = {"norm": {"weight": torch.ones(2), "bias": None}, "weight": torch.ones(4, 4)}
    assert chosen.chosen(cut) == [1, None, 0]
    assert chosen.groups[1][1].transforms[0].mask == {"norm": {"weight": False, "bias": False}, "weight": False}


def test_pieces_are_listed_and_put_back() -> None:
    """The paths are those of the tree without marks, and other leaves can replace the old ones."""
    rows = {"m": torch.tensor([4, 6, 3]), "none": torch.tensor([0, 2]), "step": None}
    state = ({"opt": Pieces({"m": torch.ones(2, 3), "none": None, "step": torch.tensor(1)}, rows)}, torch.zeros(2))
    listed = pieces_of(state)
    assert [(one.path, one.shape, one.first) for one in listed] == [
        *[("0.opt.m", (6, 3), 4), ("0.opt.none", (2,), 0), ("0.opt.step", None, 0), ("1", None, 0)]
    ]
    filled = with_pieces(state, [None if one.leaf is None else one.leaf + 1 for one in listed])
    assert filled[0]["opt"].rows is rows
    assert fn.tree.equal(
        fn.tree.sub(filled[0]["opt"].tree, state[0]["opt"].tree), {"m": torch.ones(2, 3), "none": None, "step": torch.tensor(1)}
    )


@pytest.mark.parametrize(
    ("opt", "rule"),
    [
        (fn.SAM(fn.SGD(lr=0.1)), "must wrap it"),
        (fn.LBFGS(), "must wrap it"),
        (fn.donate(fn.Adam()), "inner optimizer must not be donated"),
        (fn.chain(fn.Monitor(torch.numel), fn.SGD(lr=0.1)), "must measure the norm"),
        (3, "must be an optimizer"),
    ],
)
def test_what_cannot_be_sharded_is_refused(opt: fn.Optimizer, rule: str) -> None:
    """The constructor refuses an optimizer that cannot use pieces, with the reason."""
    with pytest.raises(ValueError, match=rule):
        ShardedOptimizer(opt)


def test_a_process_group_is_needed() -> None:
    """Without ``torchrun`` the error names the function to call."""
    with pytest.raises(ValueError, match="init_process_group must be called first"):
        shard_optimizer(fn.Adam())


def test_what_counts_for_nothing_is_sent_as_zeros() -> None:
    """A leaf in a separate message is weighted in one pass: with weight 0 it becomes 0, even if it is NaN."""
    leaf, nan = torch.ones(4), torch.full((4,), torch.nan)
    assert weighed(leaf, None) is leaf
    assert weighed(leaf, 1.0) is leaf
    assert [weighed(leaf, w).tolist() for w in (3.0, torch.tensor(3.0).double())] == [[3.0] * 4] * 2
    assert [weighed(nan, w).tolist() for w in (0, torch.tensor(0.0))] == [[0.0] * 4] * 2
    assert leaf.tolist() == [1.0] * 4
