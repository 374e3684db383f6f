"""Steps on params that are divided over workers equal the step of one process."""

from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from distributed.launching import run
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.placement_types import _StridedShard

import funcnet as fn
from funcnet import distributed, random, tree
from funcnet.distributed.parting.parts_of_nets import part_of
from funcnet.distributed.parting.passages import Cut, Move
from funcnet.distributed.sharding.param_shards import local_pieces
from funcnet.distributed.workers import Workers

E = 8
THREE, TWO = _StridedShard(0, split_factor=3), _StridedShard(0, split_factor=2)
EVERY_LEAF = "every leaf along its first axis"
BLOCKS = fn.transformer_encoder(E, 4, 2, hidden=16, dropout=0.2, is_causal=True)
TIED = fn.tied(
    fn.serial(fn.Embedding(12, E, padding_idx=5), fn.transformer_encoder(E, 4, 1, hidden=16), fn.Linear(E, 12, bias=False)),
    ("0.weight", "2.weight"),
)
CONVS = fn.serial(
    fn.Conv2d(2, 8, 3, padding=1), fn.Dropout(0.3), fn.ReLU(), fn.Conv2d(8, 4, 3), fn.BatchNorm2d(4),
    fn.Conv2d(4, 4, 3, groups=2), fn.GlobalAvgPool(), fn.Linear(4, 3),
)  # fmt: skip
COPIES = fn.repeat(fn.residual(fn.serial(fn.LayerNorm(E), fn.Linear(E, 16), fn.GELU(), fn.Linear(16, E))), 3)
WORDS = fn.serial(fn.Embedding(12, E, padding_idx=5), fn.Linear(E, E))
# The gradient of a key's bias consists of rounding errors, which Adam with the usual eps would turn into steps.
ADAM, ADAMW = fn.Adam(1e-2, eps=1e-3), fn.AdamW(1e-2, eps=1e-3)


class Case(NamedTuple):
    """A net with its training; ``plan`` is the net's own plan by default."""

    net: Any
    x: Any
    target: Any
    opt: Any = fn.SGD(0.05, momentum=0.9)
    loss: Any = fn.MSE()
    plan: Any = None


def numbers(*shape: int) -> torch.Tensor:
    return random.normal(len(shape), shape, dtype=torch.float64)


def words(*shape: int) -> torch.Tensor:
    return random.randint(5, shape, 0, 12)


def attention(x: Any = None, plan: Any = None, **options: Any) -> Case:
    return Case(fn.MultiHeadAttention(E, 4, **options), numbers(2, 3, E) if x is None else x, numbers(2, 3, E), plan=plan)


def trained() -> dict[str, Case]:
    """Return the cases that are trained for ten steps."""
    gated = fn.serial(fn.Linear(6, 16), fn.SwiGLU(), fn.Linear(8, 4))
    logits = fn.serial(TIED, fn.Transpose(1, -1))
    return {
        "mlp, dropout, clipped": Case(
            fn.mlp([6, 8, 12, 8], fn.GELU(), dropout=0.3), numbers(5, 6), numbers(5, 8), fn.chain(fn.ClipByGlobalNorm(0.1), ADAM)
        ),
        "blocks, dropout": Case(BLOCKS, numbers(3, 5, E), numbers(3, 5, E), ADAMW),
        "tied words": Case(logits, words(3, 5), words(3, 5), loss=fn.CrossEntropy()),
        "gated": Case(gated, numbers(2, 5, 6), numbers(2, 5, 4), fn.LAMB(1e-2)),
    }


def others() -> dict[str, Case]:
    """Return the cases for every way, and for gathering."""
    x, y = numbers(3, 2, 6, 6), numbers(3, 3)
    by_rows = {"0.weight": Shard(0), "0.bias": Shard(0), "3.weight": Shard(1), "4.weight": Shard(0), "4.running_mean": Shard(0)}
    hidden = random.bernoulli(7, (2, 4, 3, 3), 0.7), random.normal(8, (2, 4, 3, 3), dtype=torch.float64)
    recurrent = fn.serial(fn.LSTM(3, 5), fn.Pick(0), fn.Linear(5, 2))
    normed = fn.serial(fn.weight_norm(fn.Linear(4, 8)), fn.Tanh(), fn.Linear(8, 3))
    frozen = fn.serial(fn.freeze(fn.Linear(4, 8)), fn.Tanh(), fn.Linear(8, 4))
    casting = fn.cast(fn.remat(fn.mlp([4, 8, 4])), torch.float64)
    return {
        "convolutions by channels": Case(CONVS, x, y, plan=by_rows),
        "convolutions, all divided": Case(CONVS, x, y, plan=EVERY_LEAF),
        "copies": Case(COPIES, numbers(3, E), numbers(3, E)),
        "copies, divided among workers": Case(COPIES, numbers(3, E), numbers(3, E), plan=EVERY_LEAF),
        "remat, cast": Case(casting, numbers(3, 4), numbers(3, 4)),
        "LSTM": Case(recurrent, numbers(2, 4, 3), numbers(2, 4, 2), plan=EVERY_LEAF),
        "weights that are computed, uneven": Case(normed, numbers(2, 4), numbers(2, 3), plan=EVERY_LEAF),
        "frozen": Case(frozen, numbers(2, 4), numbers(2, 4), plan=EVERY_LEAF),
        "grouped heads": attention(num_kv_heads=2, is_causal=True, plan=EVERY_LEAF),
        "norms of heads": attention(qk_norm=fn.RMSNorm(2), rotary=fn.RotaryEmbedding(2), dropout=0.2),
        "heads across pieces": attention(plan=EVERY_LEAF),
        "ALiBi": attention(alibi=True, plan=EVERY_LEAF),
        "other inputs": attention((numbers(2, 3, E), numbers(2, 4, 3), numbers(2, 4, 5)), kdim=3, vdim=5),
        "a mask for each head": attention((numbers(2, 3, E), hidden[0])),
        "a floating mask for each head": attention((numbers(2, 3, E), hidden[1])),
        "words by features": Case(WORDS, words(3, 2), numbers(3, 2, E), plan={"0.weight": Shard(1), "1.weight": Shard(1)}),
        "words by rows": Case(WORDS, words(3, 2), numbers(3, 2, E), plan={"0.weight": Shard(0), "1.weight": TWO}),
        "tied by features": Case(TIED, words(3, 2), numbers(3, 2, 12), plan={"0.weight": Shard(1)}),
    }


def divided(case: Case, params: Any, mesh: Any) -> Any:
    plan = case.plan
    if plan == EVERY_LEAF:
        return distributed.shard(params, mesh)
    return distributed.shard(params, mesh, distributed.tensor_parallel_plan(case.net, mesh) if plan is None else plan)


def start(case: Case) -> Any:
    return tree.map(lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, case.net.init(1))


def key_of(case: Case, i: int) -> Any:
    return fn.fold_in(3, i) if case.net.stochastic else None


def furthest(one: Any, other: Any) -> float:
    pairs = zip(tree.leaves(one), tree.leaves(other), strict=True)
    return max([0.0, *[(a - b).abs().max().item() for a, b in pairs if a.is_floating_point()]])


def train(names: list[str], count: int) -> list[Any]:
    """Train with pieces and with whole params; return the differences, the fractions of memory, and the last values."""
    mesh, found = init_device_mesh("cpu", (dist.get_world_size(),)), []
    for case in [(trained() | others())[name] for name in names]:
        step = fn.train_step(case.net, case.loss, case.opt)
        parallel = distributed.tensor_parallel(step, mesh)
        params = start(case)
        state, pieces = case.opt.init(params), divided(case, params, mesh)
        own, before, apart = case.opt.init(pieces), [leaf.placements for leaf in tree.leaves(pieces)], 0.0
        for i in range(count):
            params, state, value = step(params, state, case.x, case.target, key_of(case, i))
            pieces, own, got = parallel(pieces, own, case.x, case.target, key_of(case, i))
            assert type(got) is torch.Tensor
            apart = max(apart, furthest(value, got))
        assert [leaf.placements for leaf in tree.leaves(pieces)] == before
        apart = max(apart, furthest(params, distributed.unshard(pieces)), furthest(state, distributed.unshard(own)))
        share = [sum(leaf.nbytes for leaf in tree.leaves(local_pieces(one))) / tree.nbytes(whole) for one, whole in
                 ((pieces, params), (own, state))]  # fmt: skip
        found.append((apart, *share, got.item()))
    return found


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_steps_equal_those_of_one_process(workers):
    """Ten steps agree to 1e-12, with the same value on all workers; params and state are divided."""
    names = [*trained()]
    by_rank = run(workers, train, names, 10)
    for name, *found in zip(names, *by_rank, strict=True):
        assert max(apart for apart, *_ in found) <= 1e-12, name
        assert len({value for *_, value in found}) == 1, name
        for _, of_params, of_state, _ in found:
            assert of_params <= 1 / workers + 0.1, name
            assert of_state <= 1 / workers + 0.1, name


def test_every_way_equals_one_process():
    """Layers are divided by columns, rows and heads, or gather their params; params keep their placements."""
    names = [*others()]
    for name, (apart, *_) in zip(names, run(2, train, names, 3)[0], strict=True):
        assert apart <= 1e-12, name


def input_gradients() -> list[float]:
    """Return the difference between gx of a worker's part and of the net, for ``vjp`` and ``input_grad``."""
    mesh, found = init_device_mesh("cpu", (dist.get_world_size(),)), []
    workers = distributed.tensor_parallel(fn.value_and_grads(WORDS, fn.MSE()), mesh)._workers
    for case in others().values():
        params = start(case)
        pieces = divided(case, params, mesh)
        part, key = part_of(case.net, pieces, workers), key_of(case, 0)
        own = local_pieces(pieces)
        y, cache = case.net.apply(params, case.x, key)
        gx = case.net.input_grad(params, cache, case.target)
        _, cache = part.apply(own, case.x, key)
        got = part.vjp(own, cache, case.target)[1], part.input_grad(own, cache, case.target)
        found.append(max(furthest(gx, got[0]), furthest(gx, got[1]), furthest(y, part(own, case.x, key))))
    return found


def test_input_gradients_of_parts():
    """``vjp`` and ``input_grad`` agree, and y without a cache equals y."""
    assert max(run(2, input_gradients)[0]) <= 1e-12


def on_two_axes() -> float:
    """Train with the batch divided along one axis of a mesh and params along the other."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    case, rank = trained()["tied words"], mesh["dp"].get_local_rank()
    opt = fn.chain(fn.ClipByGlobalNorm(0.1), case.opt)
    step = fn.train_step(case.net, case.loss, opt, accumulate=2)
    both = distributed.tensor_parallel(distributed.data_parallel(step, mesh["dp"].get_group()), mesh["tp"])
    params = start(case)
    pieces = divided(case, params, mesh["tp"])
    state, own, apart = opt.init(params), opt.init(pieces), 0.0
    mine = slice(0, 2) if rank == 0 else slice(2, 3)
    for _ in range(10):
        params, state, value = step(params, state, case.x, case.target)
        pieces, own, got = both(pieces, own, case.x[mine], case.target[mine])
        apart = max(apart, furthest(value, got))
    return max(apart, furthest(params, distributed.unshard(pieces)))


def test_data_and_tensor_parallel():
    """The mesh has two axes; shards have two rows and one, and there are micro-batches and a norm of all gradients."""
    assert max(run(4, on_two_axes)) <= 1e-12


def other_steps() -> list[float]:
    """Return the differences of the other kinds of steps from one process."""
    mesh, case, found = init_device_mesh("cpu", (dist.get_world_size(),)), trained()["mlp, dropout, clipped"], []
    params, key = start(case), fn.key(2)
    pieces = divided(case, params, mesh)
    for gradient in (fn.value_and_grads(case.net, case.loss), fn.accumulate(case.net, case.loss, 2)):
        value, grads, _ = gradient(params, case.x, case.target, key)
        got, own, _ = distributed.tensor_parallel(gradient, mesh)(pieces, case.x, case.target, key)
        assert [leaf.placements for leaf in tree.leaves(own)] == [leaf.placements for leaf in tree.leaves(pieces)]
        found.append(max(furthest(value, got), furthest(grads, distributed.unshard(own))))
    for opt, more in ((ADAM, {"in_backward": True}), (fn.SAM(fn.SGD(0.1), 0.05), {}), (fn.donate(ADAM), {})):
        step, state = fn.train_step(case.net, case.loss, opt, **more), opt.init(params)
        mine = tree.map(torch.clone, pieces)
        got, *_ = distributed.tensor_parallel(step, mesh)(mine, opt.init(mine), case.x, case.target, key)
        found.append(furthest(step(tree.map(torch.clone, params), state, case.x, case.target, key)[0], distributed.unshard(got)))
    return found


def test_gradients_updates_in_the_backward_pass_and_optimizers_that_evaluate():
    """All kinds of steps equal those of one process."""
    assert max(run(2, other_steps)[0]) <= 1e-12


def counts() -> list[tuple[int, int]]:
    """Count the sums and gathers of the second step."""
    mesh, found = init_device_mesh("cpu", (dist.get_world_size(),)), []
    called: dict[str, int] = {}
    for name in ("all_reduce", "all_gather_single"):
        setattr(dist, name, counted(called, name, getattr(dist, name)))
    for net in (fn.mlp([E, 16, E]), BLOCKS, fn.Linear(E, E)):
        case = Case(net, numbers(3, 5, E), numbers(3, 5, E))
        step = distributed.tensor_parallel(fn.train_step(net, case.loss, case.opt), mesh)
        pieces = divided(case, start(case), mesh)
        pieces, state, _ = step(pieces, case.opt.init(pieces), case.x, case.target, fn.key(1))
        called.clear()
        step(pieces, state, case.x, case.target, fn.key(1))
        found.append((called.get("all_reduce", 0), called.get("all_gather_single", 0)))
    return found


def counted(called: dict[str, int], name: str, f: Any) -> Any:
    def count(*args: Any, **options: Any) -> Any:
        called[name] = called.get(name, 0) + 1
        return f(*args, **options)

    return count


def test_a_pair_of_layers_needs_one_sum_forward_and_one_back():
    """The first layer needs no gx; two blocks have four pairs, and the first norm needs the gradient of the first."""
    assert run(2, counts)[0] == [(1, 0), (8, 0), (0, 1)]


def errors() -> list[str]:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    other = init_device_mesh("cpu", (1, dist.get_world_size()), mesh_dim_names=("a", "b"))
    gradient = fn.value_and_grads(WORDS, fn.MSE())
    case = Case(WORDS, words(3, 2), numbers(3, 2, E), plan={"0.weight": Shard(0)})
    pieces, step = divided(case, start(case), mesh), distributed.tensor_parallel(gradient, mesh)
    calls = [
        lambda: step(pieces, torch.tensor([[3, 12]]), case.target),
        lambda: step(pieces, torch.tensor([[-1, 3]]), case.target),
        lambda: step(divided(case, start(case), other["b"]), case.x, case.target),
        lambda: distributed.tensor_parallel(gradient, other),
        lambda: distributed.tensor_parallel(WORDS, mesh),
    ]
    return [message(call) for call in calls]


def message(call: Any) -> str:
    try:
        call()
    except ValueError as error:
        return str(error)
    return "no error"


def test_errors():
    """Every worker raises them: for an index out of range, and for meshes, params and steps that do not match."""
    for too_large, negative, elsewhere, two_axes, no_step in run(2, errors):
        assert "must be from 0 to" in too_large
        assert "must be from 0 to" in negative
        assert "params must be divided over the mesh of the step" in elsewhere
        assert "a DeviceMesh of one axis" in two_axes
        assert "step must be a result of train_step" in no_step


def test_plans():
    """Linears are paired, gated ones have two stretches, heads three; tied leaves appear once; indivisible leaves stay whole."""
    plan = distributed.tensor_parallel_plan
    gated = fn.serial(fn.Linear(6, 16), fn.SwiGLU(), fn.Linear(8, 4))
    assert plan(gated) == {"0.weight": TWO, "0.bias": TWO, "2.weight": Shard(1)}
    assert plan(fn.mlp([4, 8, 8, 2])) == {
        "0.weight": Shard(0), "0.bias": Shard(0), "2.weight": Shard(1), "4.weight": Shard(0), "4.bias": Shard(0)
    }  # fmt: skip
    block = plan(BLOCKS)
    assert {path for path in block if path.startswith("layers.1.")} == {
        f"layers.1.{name}" for name in ("self_attn.in_proj_weight", "self_attn.in_proj_bias", "self_attn.out_proj.weight",
                                        "linear1.weight", "linear1.bias", "linear2.weight")
    }  # fmt: skip
    assert block["layers.0.self_attn.in_proj_weight"] == THREE
    assert block["layers.0.linear2.weight"] == Shard(1)
    assert plan(COPIES) == {"0.1.weight": Shard(1), "0.1.bias": Shard(1), "0.3.weight": Shard(2)}
    assert [path for path in plan(TIED) if path.startswith(("0", "2"))] == ["0.weight"]
    assert plan(fn.MultiHeadAttention(8, 4, num_kv_heads=2)) == {}
    assert plan(CONVS) == {"7.weight": Shard(0), "7.bias": Shard(0)}
    assert Replicate() not in block.values()


@pytest.mark.parametrize(("net", "mesh"), [(3, None), (WORDS, 2)])
def test_plans_refuse(net, mesh):
    """Anything but a layer, or anything but a mesh, is refused."""
    with pytest.raises(ValueError, match="tensor_parallel_plan"):
        distributed.tensor_parallel_plan(net, mesh)


def test_parts_of_an_axis_and_back():
    """An axis is cut in separate stretches, and concatenated again."""
    x = torch.arange(48.0).reshape(2, 12, 2)
    for cut in (Cut(-2), Cut(-2, 3), Cut(-1), Cut(-2, 2)):
        parts = torch.stack([cut.of(x, Workers(None, rank, 2)) for rank in range(2)])
        assert torch.equal(cut.joined(parts), x)
    assert Cut(-2, 3).of(x, Workers(None, 1, 2))[0, :, 0].tolist() == [4.0, 6.0, 12.0, 14.0, 20.0, 22.0]


def moves() -> list[bool]:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    leaf = distributed.shard({"w": numbers(5, 3)}, mesh)["w"]
    move = Move("w", (mesh, leaf.placements, leaf.shape, leaf.stride()), (Replicate(),), partial=True)
    whole = move.to_layer(leaf.to_local())
    back = move.to_leaf(whole)
    return [
        type(whole) is torch.Tensor,
        type(back) is torch.Tensor,
        torch.equal(whole, numbers(5, 3)),
        torch.equal(back, leaf.to_local() * dist.get_world_size()),
    ]


def test_leaves_that_are_kept_elsewhere_come_as_plain_tensors():
    """Layers get exact tensors; gradients with parts are summed, and returned in the leaf's placement."""
    assert run(2, moves) == [[True] * 4] * 2
