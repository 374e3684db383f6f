"""Synchronized batch norms: the statistics and gradients of the whole batch, for any distribution of rows over workers."""

import pickle
from typing import Any

import pytest
import torch
import torch.distributed as dist
from distributed.launching import run

import funcnet as fn
from funcnet import random, tree
from funcnet.distributed import SyncBatchNorm1d, SyncBatchNorm2d, SyncBatchNorm3d, pipeline, sync_batch_norm
from funcnet.testing import check_laws

EXACT = 1e-12
SHARES = {1: (7,), 2: (3, 4), 4: (2, 0, 4, 1)}
"""The rows of each worker, 7 in total: one shard is empty, and one has a single row."""

NORMS = {
    "1d": (fn.BatchNorm1d(3), (7, 3)),
    "1d with length": (fn.BatchNorm1d(3, momentum=None), (7, 3, 2)),
    "2d": (fn.BatchNorm2d(3, eps=0.1, momentum=0.3), (7, 3, 2, 3)),
    "3d": (fn.BatchNorm3d(3, bias=False), (7, 3, 2, 1, 2)),
    "not affine": (fn.BatchNorm1d(3, affine=False), (7, 3)),
    "without statistics": (fn.BatchNorm1d(3, track_running_stats=False), (7, 3)),
}


def numbers(n: int, *shape: int) -> torch.Tensor:
    """Sample numbers far from 0 and of different scales, so that an error in a moment is visible."""
    return random.normal(random.key(n), shape).double() * torch.arange(1.0, 4.0).reshape(-1, *[1] * (len(shape) - 2)) + 5


def stirred(norm: fn.Layer) -> Any:
    """Return params in float64 with weights other than 1 and biases other than 0."""
    params = tree.map(lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, norm.init(0))
    return {name: leaf + numbers(9, 3, 3)[0].abs() / 9 if leaf.dim() else leaf for name, leaf in params.items()}


def everything(norm: fn.Layer, params: Any, x: torch.Tensor, gy: torch.Tensor) -> dict[str, Any]:
    """Run all methods."""
    y, cache = norm.apply(params, x)
    gparams, gx = norm.vjp(params, cache, gy)
    moved = norm.update_stats(params, cache)
    assert tree.equal(norm.grads(params, cache, gy), gparams)
    assert torch.equal(norm.input_grad(params, cache, gy), gx)
    return {"y": y, "gx": gx, "gparams": gparams, "moved": moved}


def mine(x: torch.Tensor) -> torch.Tensor:
    """Return this worker's rows."""
    sizes = SHARES[dist.get_world_size()]
    return x.split(sizes)[dist.get_rank()]


def in_parts(dtype: torch.dtype, scale: float = 1.0) -> dict[str, Any]:
    """Run all methods of every norm on this worker's rows."""
    found = {}
    for name, (norm, shape) in NORMS.items():
        x, gy = (numbers(n, *shape).mul(scale).to(dtype) for n in (1, 2))
        params = tree.map(lambda leaf: leaf.to(dtype) if leaf.is_floating_point() else leaf, stirred(norm))
        found[name] = tree.map(torch.Tensor.clone, everything(sync_batch_norm(norm), params, mine(x), mine(gy)))
    return tree.map(lambda leaf: leaf.double().numpy(), found)


def assert_whole(name: str, parts: list[dict[str, Any]], dtype: torch.dtype, off: float, scale: float = 1.0) -> None:
    """Compare the workers' results with the plain norm on the whole batch: rows concatenated, gradients of params added up."""
    norm, shape = NORMS[name]
    params = tree.map(lambda leaf: leaf.to(dtype).double() if leaf.is_floating_point() else leaf, stirred(norm))
    x, gy = (numbers(n, *shape).mul(scale).to(dtype).double() for n in (1, 2))
    want = everything(norm, params, x, gy)
    found = [tree.map(torch.from_numpy, part[name]) for part in parts]
    summed = found[0]["gparams"]
    for one in found[1:]:
        summed = tree.add(summed, one["gparams"])
    rows = {key: torch.cat([one[key] for one in found]) for key in ("y", "gx")}
    for key, got in {**rows, "gparams": summed, "moved": found[0]["moved"]}.items():
        for path, leaf in tree.names(want[key]).items() if isinstance(want[key], dict) else {key: want[key]}.items():
            other = tree.names(got)[path] if isinstance(got, dict) else got
            assert torch.allclose(other, leaf.double(), rtol=off, atol=off * float(leaf.abs().max() + 1)), (name, path)
    for one in found[1:]:
        assert tree.equal(one["moved"], found[0]["moved"]), "running statistics must agree bit for bit"


@pytest.mark.parametrize("size", [1, 2, 4])
def test_all_verbs_are_those_of_the_whole_batch(size):
    """float64 agrees up to rounding on uneven and empty shards; the halves equal the vjp, and statistics agree."""
    parts = run(size, in_parts, torch.float64)
    for name in NORMS:
        assert_whole(name, parts, torch.float64, EXACT)


@pytest.mark.parametrize(
    ("dtype", "scale", "off"),
    [(torch.float32, 1.0, 1e-5), (torch.float32, 1e18, 1e-5), (torch.bfloat16, 1.0, 0.02), (torch.float16, 1.0, 0.003)],
)
def test_statistics_are_at_least_in_float32(dtype, scale, off):
    """In half precision, y and gx are rounded once; numbers whose cubes overflow float32 are handled too."""
    parts = run(4, in_parts, dtype, scale)
    for name in NORMS:
        assert_whole(name, parts, dtype, off, scale)


def far_from_0() -> list[float]:
    """Return the largest error of x̂, gx and σ², in units of rounding, for x 10⁶ from 0 and a constant channel."""
    x = 1e6 + numbers(1, 7, 3)
    x[:, 0] = 0.1 + 1e6
    norm, gy = SyncBatchNorm1d(3, affine=False), numbers(2, 7, 3)
    found = everything(norm, stirred(norm), mine(x), mine(gy))
    want = everything(fn.BatchNorm1d(3, affine=False), stirred(norm), x, gy)
    others = found["y"], found["gx"], found["moved"]["running_var"]
    wholes = mine(want["y"]), mine(want["gx"]), want["moved"]["running_var"]
    return [float((one - other).abs().div(other.abs().max() + 1e-300).max()) for one, other in zip(others, wholes, strict=True)]


def test_moments_far_from_0_lose_no_digits():
    """Moments of batches are merged without a difference of large squares, which would keep only 4 of 16 digits here."""
    for one in run(2, far_from_0):
        assert max(one) < 1e-8


def nothing_and_little() -> list[Any]:
    """Normalize one value per channel in total, one on each worker, and none."""
    norm, said = SyncBatchNorm1d(3), []
    params, rank = norm.init(0), dist.get_rank()
    for x in (torch.ones(1 - rank, 3), torch.ones(1, 3, 1 - rank)):
        with pytest.raises(ValueError, match="must together have more than one value per channel") as error:
            norm.apply(params, x)
        said.append(str(error.value))
    _, cache = norm.apply(params, torch.full((1, 3), float(rank)))  # one value on each worker
    said.append(norm.update_stats(params, cache)["running_var"].tolist())
    y, cache = norm.apply(params, torch.ones(0, 3))
    gparams, gx = norm.vjp(params, cache, y)
    said.append([y.shape, gx.shape, gparams["weight"].tolist(), norm.update_stats(params, cache)["running_mean"].tolist()])
    with pytest.raises(ValueError, match="several workers cannot normalize together under vmap"):
        torch.func.vmap(lambda x: norm(params, x))(torch.ones(2, 4, 3))
    on_meta = tree.to(params, "meta")
    assert norm(on_meta, torch.ones(4, 3, device="meta")).shape == (4, 3)  # nothing is sent
    return said


def test_one_value_in_all_raises_on_every_worker():
    """A worker without rows raises it too; one value on each of two workers is a batch of two, and no values are accepted."""
    first, second = run(2, nothing_and_little)
    assert first[2:] == second[2:]
    assert first[2] == pytest.approx([0.9 + 0.1 * 0.5] * 3)
    assert first[3] == [(0, 3), (0, 3), [0.0] * 3, [0.0] * 3]
    assert first[0].startswith("SyncBatchNorm1d(num_features=3): the batches of all workers must")
    assert "x of shape (1, 3) here" in first[0]
    assert "x of shape (0, 3) here" in second[0]


NETS = fn.serial(
    fn.Linear(3, 4),
    fn.repeat(fn.serial(fn.BatchNorm1d(4), fn.Tanh()), 2),
    fn.remat(fn.residual(fn.serial(fn.BatchNorm1d(4), fn.Linear(4, 4)))),
    fn.ensemble(fn.serial(fn.Linear(4, 2), fn.BatchNorm1d(2), fn.residual(fn.serial(fn.BatchNorm1d(2), fn.Sin()))), 2),
)
"""Norms whose methods are called in loops, in copies, and twice in a step."""


def in_float64(net: fn.Layer) -> Any:
    """Return initial params in float64."""
    return tree.map(lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, net.init(0))


def verbs(net: fn.Layer, x: torch.Tensor, gy: torch.Tensor) -> dict[str, Any]:
    """Run ``apply``, ``vjp`` and ``update_stats``."""
    params = in_float64(net)
    y, cache = net.apply(params, x)
    gparams, gx = net.vjp(params, cache, gy)
    return {"y": y, "gx": gx, "gparams": gparams, "moved": net.update_stats(params, cache)}


def in_pairs() -> dict[str, Any]:
    """Normalize in this worker's pair, with a pickled net; return the errors of other groups."""
    pairs = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    rank = dist.get_rank()
    own, other = pairs[rank // 2], pairs[1 - rank // 2]
    net = pickle.loads(pickle.dumps(sync_batch_norm(NETS, own)))
    assert net == sync_batch_norm(sync_batch_norm(NETS), own) != sync_batch_norm(NETS)
    assert eval(repr(net), {**vars(fn), "SyncBatchNorm1d": SyncBatchNorm1d}) == net
    with pytest.raises(ValueError, match="group must be a process group that this process is in, its name, or None"):
        sync_batch_norm(NETS, other)
    with pytest.raises(ValueError, match="group must name a process group that this process is in, got 'nobody'"):
        sync_batch_norm(NETS, "nobody")(in_float64(NETS), numbers(1, 4, 3))
    rows = slice(3 * rank, 3 * rank + 3)
    found = verbs(net, numbers(1, 12, 3)[rows], numbers(2, 12, 3, 2)[rows, :2].transpose(0, 1))
    return tree.map(lambda leaf: leaf.numpy(), found)


def test_a_group_and_combinators_normalize_together():
    """Pairs of four workers also work within ``repeat``, ``remat``, ``residual`` and ``ensemble``; the layer names the group."""
    parts = [tree.map(torch.from_numpy, one) for one in run(4, in_pairs)]
    for pair in (0, 1):
        first, second = parts[2 * pair : 2 * pair + 2]
        rows = slice(6 * pair, 6 * pair + 6)
        want = verbs(NETS, numbers(1, 12, 3)[rows], numbers(2, 12, 3, 2)[rows, :2].transpose(0, 1))
        assert tree.equal(first["moved"], second["moved"])
        got = {
            "y": torch.cat([first["y"], second["y"]], 1),
            "gx": torch.cat([first["gx"], second["gx"]]),
            "gparams": tree.add(first["gparams"], second["gparams"]),
            "moved": first["moved"],
        }
        assert tree.allclose(got, want, rtol=EXACT, atol=EXACT)


def in_stages() -> str:
    """Return the error of a pipeline for norms that wait for other stages."""
    net = sync_batch_norm(fn.serial(fn.Linear(3, 4), fn.BatchNorm1d(4), fn.Linear(4, 2)))
    step, params = fn.train_step(net, fn.MSE(), fn.SGD(0.1)), in_float64(net)
    with pytest.raises(ValueError, match="pipeline") as error:
        pipeline(step, [2], microbatches=1)(params, step.opt.init(params), numbers(1, 7, 3), numbers(2, 7, 3)[:, :2])
    return str(error.value)


def test_norms_of_a_pipeline_do_not_wait_for_other_stages():
    """They would wait forever, because different stages call different layers."""
    said = "pipeline: norms must be synchronized over workers of one stage, sync_batch_norm(net, group), got SyncBatchNorm1d"
    assert all(one.startswith(said) for one in run(2, in_stages))


def compiled() -> float:
    """Return the difference of a compiled step from the same step in eager mode."""
    net = sync_batch_norm(fn.serial(fn.Linear(3, 4), fn.BatchNorm1d(4), fn.Linear(4, 2)), dist.group.WORLD)
    step = fn.train_step(net, fn.MSE(), fn.SGD(0.1))
    params, x, target = in_float64(net), mine(numbers(1, 7, 3)), mine(numbers(2, 7, 3)[:, :2])
    want = step(params, step.opt.init(params), x, target)
    got = fn.compile(step)(params, step.opt.init(params), x, target)
    return max(float((a - b).abs().max()) for a, b in zip(tree.leaves(got), tree.leaves(want), strict=True))


@pytest.mark.compiled
def test_a_compiled_step_has_the_collectives_in_its_graph():
    """The graph is complete, also for a group given by name."""
    assert max(run(2, compiled, timeout=60.0)) < EXACT


ALONE = {
    SyncBatchNorm1d: (fn.BatchNorm1d, (4, 3)),
    SyncBatchNorm2d: (fn.BatchNorm2d, (2, 3, 2, 3)),
    SyncBatchNorm3d: (fn.BatchNorm3d, (2, 3, 2, 1, 3)),
}


@pytest.mark.parametrize("kind", ALONE)
def test_in_one_process_it_is_a_batch_norm(kind):
    """All laws hold, and bits, params and ``inference()`` equal those of the plain norm, for all options."""
    plain, shape = ALONE[kind]
    x = numbers(1, *shape)
    options = [{}, {"eps": 0.1, "momentum": None}, {"affine": False}, {"bias": False}, {"track_running_stats": False}]
    for more in options:
        norm, other = kind(3, **more), plain(3, **more)
        assert sync_batch_norm(other) == norm
        assert norm.inference() == other.inference()
        assert tree.equal(norm.init(0), other.init(0))
        assert tree.equal(everything(norm, stirred(norm), x, x * x), everything(other, stirred(other), x, x * x))
    check_laws(kind(3), x, stirred(kind(3)), compiled=False, dtypes=(torch.float64, torch.bfloat16))
    check_laws(fn.ensemble(fn.residual(kind(3)), 2), x, batched=False, compiled=False, dtypes=(torch.float64,))


def test_other_layers_stay_as_they_are():
    """A subclass can compute something else; anything but a layer is refused."""

    @fn.frozen
    class Own(fn.BatchNorm1d):
        pass

    net = fn.serial(Own(3), fn.LayerNorm(3), fn.BatchNorm1d(3).inference())
    assert sync_batch_norm(net) is net
    with pytest.raises(ValueError, match="sync_batch_norm: a layer is required"):
        sync_batch_norm("net")
    with pytest.raises(ValueError, match=r"group must be a process group.*, its name, or None for all, got 2"):
        SyncBatchNorm1d(3, group=2)
