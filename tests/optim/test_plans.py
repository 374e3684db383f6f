"""Plans of updates: they give the bits of the general code for the structures that they are made for, and serve no other."""

import copy
import pickle
from collections import OrderedDict, namedtuple
from typing import Any

import pytest
import torch
from optimizer_cases import FAMILIES
from torch import Tensor

import funcnet as fn
from funcnet import tree
from funcnet.flattening import Tree
from funcnet.kernels.choices import forced
from funcnet.optim.plans import PlanCache

PLANNED = [one for one in FAMILIES if hasattr(one, "_plans") and not one.scalars]
EXTRA = [
    fn.SGD(0.1, weight_decay=0.1),
    fn.SGD(0.1, maximize=True),
    fn.SGD(0.1, momentum=0.9, fused=True),
    fn.SGD(0.1, fused=True),
]
each_optimizer = pytest.mark.parametrize("optimizer", [*PLANNED, *EXTRA], ids=repr)
each_form = pytest.mark.parametrize("donated", [False, True], ids=["pure", "donated"])

Pair = namedtuple("Pair", ["left", "right"])


def drawn(seed: int, dtype: torch.dtype = torch.float32) -> Tree:
    """Draw a tree of dicts, tuples, lists and named tuples, with an empty node, and sizes that fill no whole register."""
    draw = lambda i, *shape: fn.random.normal(10 * seed + i, shape).to(dtype)
    norm = {"weight": draw(2, 17), "running_mean": draw(3, 17), "num_batches_tracked": torch.tensor(seed)}
    return ({"weight": draw(0, 17, 5), "bias": draw(1, 17)}, (), norm, [draw(4, 3, 3)], Pair(draw(5, 40), {1: draw(6)}))


def without_stats(grads: Tree) -> Tree:
    """Return gradients as of a batch norm: none for its running statistics."""
    return (*grads[:2], {**grads[2], "running_mean": None, "num_batches_tracked": None}, *grads[3:])


def run(optimizer: fn.Optimizer, steps: int, dtype: torch.dtype = torch.float32, *, planned: bool = True) -> Any:
    """Take steps; without plans each has a new optimizer."""
    params = drawn(0, dtype)
    state = optimizer.init(params)
    for i in range(1, steps + 1):
        one = optimizer if planned else optimizer.replace()
        params, state = one.update(without_stats(drawn(i, dtype)), state, params)
    return params, state


@each_optimizer
@each_form
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_updates_by_a_plan_have_the_bits_of_those_without(optimizer: fn.Optimizer, donated: bool, dtype: torch.dtype) -> None:
    """Params and state agree, in the same kinds of nodes, donated and pure."""
    planned = fn.donate(optimizer) if donated else optimizer.replace()
    got = run(planned, 5, dtype)
    assert len(planned._plans.plans) == 1
    want = run(optimizer, 5, dtype, planned=False)
    assert tree.equal(got, want)
    assert tree.names(got).keys() == tree.names(want).keys()
    assert type(got[0][4]) is Pair


@pytest.mark.parametrize("option", ["list", "fused"])
def test_each_kernel_of_donated_sgd_gives_the_same_bits(option: str) -> None:
    """One thread and two are tried."""
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with forced("SGD without momentum, donated", option):
                assert tree.equal(run(fn.donate(fn.SGD(0.1)), 5), run(fn.SGD(0.1), 5, planned=False))
    finally:
        torch.set_num_threads(before)


@each_form
def test_a_donated_update_by_a_plan_returns_the_memory_that_it_got(donated: bool) -> None:
    """A pure update leaves its arguments unchanged."""
    optimizer = fn.donate(fn.Adam(0.1)) if donated else fn.Adam(0.1)
    params, state = run(optimizer, 3)
    kept, kept_state = copy.deepcopy((params, state))
    moved, after = optimizer.update(without_stats(drawn(9)), state, params)
    same = [x is y for x, y in zip(tree.leaves((moved, after)), tree.leaves((params, state)), strict=True)]
    assert all(same) is donated
    assert tree.equal((params, state), (kept, kept_state)) is not donated
    assert moved[2]["running_mean"] is params[2]["running_mean"]


CHANGES = {
    "another leaf without a gradient": lambda g, s, p: (({**g[0], "bias": None}, *g[1:]), s, p),
    "a gradient for every leaf": lambda g, s, p: ((*g[:2], {**g[2], "running_mean": p[2]["running_mean"]}, *g[3:]), s, p),
    "keys in another order": lambda g, s, p: ((dict(reversed(g[0].items())), *g[1:]), s, p),
    "an ordered dict": lambda g, s, p: ((OrderedDict(g[0]), *g[1:]), OrderedDict(s), p),
    "strides": lambda g, s, p: (({**g[0], "weight": g[0]["weight"].t().contiguous().t()}, *g[1:]), s, p),
    "params that require grad": lambda g, s, p: (g, s, tree.map(lambda x: x.clone().requires_grad_(x.is_floating_point()), p)),
    "one tensor twice": lambda g, s, p: (({**g[0], "bias": g[2]["weight"]}, *g[1:]), s, p),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@each_form
def test_what_differs_from_the_plan_goes_the_general_way(change: Any, donated: bool) -> None:
    """The result matches an optimizer without plans."""
    optimizer = fn.SGD(0.1, momentum=0.9, donated=donated)
    params, state = run(optimizer, 3)
    assert len(optimizer._plans.plans) == 1
    given = change(without_stats(drawn(7)), state, params)
    want = fn.SGD(0.1, momentum=0.9).update(*copy.deepcopy(given))
    assert tree.equal(optimizer.update(*given), want)


WRONG = {
    "a gradient of another shape": lambda g, s, p: (({**g[0], "bias": g[0]["bias"][:5]}, *g[1:]), s, p),
    "a gradient of another dtype": lambda g, s, p: (({**g[0], "bias": g[0]["bias"].double()}, *g[1:]), s, p),
    "a missing gradient": lambda g, s, p: (({"weight": g[0]["weight"]}, *g[1:]), s, p),
    "one entry too many": lambda g, s, p: (({**g[0], "more": g[0]["bias"]}, *g[1:]), s, p),
    "a number": lambda g, s, p: (({**g[0], "bias": 1.0}, *g[1:]), s, p),
    "a moment of another shape": lambda g, s, p: (
        g,
        {**s, "momentum_buffer": tree.map(lambda x: x[None], s["momentum_buffer"])},
        p,
    ),
    "a state of another optimizer": lambda g, s, p: (g, {**s, "exp_avg": p}, p),
    "a step that is no count": lambda g, s, p: (g, {**s, "step": torch.tensor(1.0)}, p),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG.keys())
@each_form
def test_what_fits_no_plan_is_refused_as_without_one(change: Any, donated: bool) -> None:
    """The message is the same, and nothing is written."""
    optimizer = fn.SGD(0.1, momentum=0.9, donated=donated)
    params, state = run(optimizer, 3)
    given = change(without_stats(drawn(7)), state, params)
    before = copy.deepcopy((params, state))
    with pytest.raises(ValueError, match="SGD") as refused:
        optimizer.update(*given)
    with pytest.raises(ValueError, match="SGD") as want:
        optimizer.replace().update(*given)
    assert str(refused.value) == str(want.value)
    assert tree.equal((params, state), before)


def draw() -> dict[str, torch.Tensor]:
    return {"one": torch.ones(8), "two": torch.ones(8)}


def with_a_plan(optimizer: fn.Optimizer) -> tuple[Any, Any]:
    """Return params and state after enough steps for a plan."""
    params = draw()
    state = optimizer.init(params)
    for _ in range(4):
        params, state = optimizer.update(draw(), state, params)
    return params, state


def test_params_that_share_memory_are_refused_after_a_plan_was_made() -> None:
    """The plan of a donated optimizer checks the addresses of params."""
    optimizer = fn.donate(fn.SGD(0.1))
    _, state = with_a_plan(optimizer)
    whole = torch.zeros(12)
    with pytest.raises(ValueError, match="memory"):
        optimizer.update(draw(), state, {"one": whole[:8], "two": whole[4:]})
    assert not whole.any()


SHARED = {
    "a moment and its param": lambda s, p: {**s, "exp_avg": tree.map(torch.Tensor.detach, p)},
    "two moments": lambda s, p: {**s, "exp_avg": tree.map(torch.Tensor.detach, s["exp_avg_sq"])},
    "parts of two moments": lambda s, p: {**s, "exp_avg": {"one": (whole := torch.zeros(12))[:8], "two": whole[4:]}},
}


@pytest.mark.parametrize("share", SHARED.values(), ids=SHARED.keys())
def test_moments_that_share_memory_are_refused_after_a_plan_was_made(share: Any) -> None:
    """A donated optimizer checks this even if params are where they were."""
    optimizer = fn.donate(fn.Adam(0.1))
    params, state = with_a_plan(optimizer)
    before = copy.deepcopy((params, state))
    with pytest.raises(ValueError, match="shared memory"):
        optimizer.update(draw(), share(state, params), params)
    assert tree.equal((params, state), before)


@pytest.mark.parametrize("optimizer", [fn.SGD(0.1), fn.SGD(0.1, momentum=0.9), fn.Adam(0.1)], ids=repr)
def test_gradients_in_the_memory_of_other_params_are_read_before_it_is_written(optimizer: fn.Optimizer) -> None:
    """In a donated update: each gradient of the product of two params is the other param, and may be a view."""
    donated = fn.donate(optimizer)
    params, grads = {"one": torch.ones(8), "two": 2 * torch.ones(8)}, {"one": torch.ones(8), "two": torch.zeros(8)}
    state = donated.init(params)
    for _ in range(4):
        params, state = donated.update(grads, state, params)
    crossed = {"one": params["two"].detach(), "two": params["one"].detach()}
    want = optimizer.update(*copy.deepcopy((crossed, state, params)))
    assert tree.equal(donated.update(crossed, state, params), want)


@each_form
def test_new_params_have_the_keys_of_the_old_in_their_order(donated: bool) -> None:
    """The order may differ from that in the plan; moments follow it too."""
    optimizer = fn.Adam(0.1, donated=donated)
    names = ("weight", "bias")
    for order in (names, names[::-1], names):
        params = {name: torch.ones(3) for name in order}
        state = optimizer.init(params)
        for _ in range(4):
            params, state = optimizer.update({name: torch.ones(3) for name in names}, state, params)
            assert [[*one] for one in (params, state["exp_avg"])] == [[*order]] * 2


@each_form
def test_groups_by_path_are_those_of_params_whatever_the_order_of_their_keys(donated: bool) -> None:
    """Params with the same names in another order and of other shapes may come before: a bias has the rate of biases."""
    optimizer = fn.by_path({"*bias": fn.SGD(0.0), "*": fn.SGD(1.0)})
    optimizer = fn.donate(optimizer) if donated else optimizer
    for n, names in enumerate([("weight", "bias"), ("bias", "weight"), ("weight", "bias")], 2):
        params = {name: torch.zeros(n) for name in names}
        state = optimizer.init(params)
        for i in range(1, 4):
            params, state = optimizer.update({name: torch.ones(n) for name in names}, state, params)
            assert [*params] == [*names]
            assert {name: x.tolist() for name, x in params.items()} == {"weight": [-i] * n, "bias": [0.0] * n}


def test_a_rate_that_a_schedule_refuses_is_refused_by_a_plan() -> None:
    """Nothing is written before, not even the step."""
    optimizer = fn.SGD(lambda step: 0.1 if step < 3 else -1.0, donated=True)
    params, state = run(optimizer, 3)
    before = copy.deepcopy((params, state))
    with pytest.raises(ValueError, match="a schedule must return"):
        optimizer.update(without_stats(drawn(7)), state, params)
    assert tree.equal((params, state), before)


def test_plans_are_bounded_and_no_part_of_the_value() -> None:
    """An optimizer with plans equals a new one, as does its hash, pickle and copy."""
    optimizer = fn.SGD(0.1, momentum=0.9)
    for n in range(1, 20):
        params = {str(i): torch.ones(2) for i in range(n)}
        state = optimizer.init(params)
        for _ in range(3):
            params, state = optimizer.update(params, state, params)
    assert len(optimizer._plans.plans) == 8
    assert optimizer == fn.SGD(0.1, momentum=0.9)
    assert hash(optimizer) == hash(fn.SGD(0.1, momentum=0.9))
    for other in (pickle.loads(pickle.dumps(optimizer)), copy.deepcopy(optimizer), optimizer.replace()):
        assert type(other._plans) is PlanCache
        assert other._plans.plans == ()
        assert tree.equal(run(other, 3), run(optimizer, 3))


def test_one_update_makes_no_plan_and_nets_in_turns_have_one_each() -> None:
    """Code is written once, the second time that a structure comes."""
    optimizer = fn.Adam(0.1)
    nets = [drawn(0), {"weight": torch.ones(3)}]
    runs = [(params, optimizer.init(params)) for params in nets]
    for count in (0, 2, 2, 2):
        for i, (params, state) in enumerate(runs):
            runs[i] = optimizer.update(without_stats(drawn(9)) if i == 0 else {"weight": torch.zeros(3)}, state, params)
        assert len(optimizer._plans.plans) == count


def test_updates_under_vmap_and_in_inference_mode_after_a_plan() -> None:
    """Transforms use the general code; other modes of autograd have their own plan."""
    optimizer = fn.Adam(0.1)
    step = lambda g: optimizer.update({"w": g}, optimizer.init({"w": torch.ones(3)}), {"w": torch.ones(3)})[0]["w"]
    batch = fn.random.normal(0, (4, 3))
    want = torch.stack([step(g) for g in batch])
    assert len(optimizer._plans.plans) == 1
    torch.testing.assert_close(torch.func.vmap(step)(batch), want)
    with torch.inference_mode():
        assert torch.equal(torch.stack([step(g) for g in batch]), want)
    assert len(optimizer._plans.plans) == 2


def test_compiled_updates_do_not_see_plans() -> None:
    """A program that was traced before the plan was made gives the same numbers afterwards."""
    optimizer = fn.SGD(0.1, momentum=0.9)
    params = {"w": torch.ones(3)}
    state = optimizer.init(params)
    compiled = torch.compile(lambda g: optimizer.update(g, state, params)[0]["w"], backend="eager", fullgraph=True)
    first = compiled(params)
    for _ in range(3):
        want: Tensor = optimizer.update(params, state, params)[0]["w"]
    assert len(optimizer._plans.plans) == 1
    assert torch.equal(compiled(params), first)
    torch.testing.assert_close(first, want)


@pytest.mark.parametrize("rows", [1, 600])
def test_large_params_are_copied_in_groups_with_the_same_bits(rows: int) -> None:
    """Leaves of up to 2.4 MB are grouped, with a last group that is full or not, with a plan and without."""
    for count in (5, 6):
        params = tuple(fn.random.normal(i, (rows, 1000)) for i in range(count))
        for optimizer in (fn.AdamW(0.1), fn.Adam(fn.LinearSchedule(0.1, 0.0, 9)), fn.SGD(0.1, momentum=0.9, fused=True)):
            donated = fn.donate(optimizer)
            own, state = tree.map(torch.clone, params), donated.init(params)
            moved, after = params, optimizer.init(params)
            for _ in range(3):
                own, state = donated.update(params, state, own)
                moved, after = optimizer.update(params, after, moved)
            assert tree.equal((own, state), (moved, after))
