"""MasterWeights: half-precision params that follow float32 masters, compared with the same optimizer in float32."""

from typing import Any

import pytest
import torch

import funcnet as fn
from funcnet import tree

HALVES = [torch.bfloat16, torch.float16]
INNER = [
    fn.SGD(1e-4),
    fn.SGD(1e-2, momentum=0.9, nesterov=True, weight_decay=0.1),
    fn.Adam(1e-3, amsgrad=True),
    fn.AdamW(fn.CosineSchedule(1e-2, 50)),
    fn.chain(fn.ClipByGlobalNorm(0.5), fn.Adam(1e-3)),
]
each_inner = pytest.mark.parametrize("inner", INNER, ids=repr)
each_half = pytest.mark.parametrize("half", HALVES, ids=str)
each_form = pytest.mark.parametrize("form", [lambda o: o, fn.donate], ids=["pure", "donated"])


def leaves(seed: int, half: torch.dtype) -> Any:
    """Return a tree with two leaves in half precision, one in float32 and one in float64."""
    drawn = [fn.random.normal(10 * seed + i, shape) for i, shape in enumerate([(5, 7), (), (3,), (2, 2)])]
    return ({"weight": drawn[0].to(half), "scale": drawn[1].to(half)}, {}, {"bias": drawn[2], "last": drawn[3].double()})


def widened(params: Any) -> Any:
    """Return copies of the leaves, those in half precision in float32."""
    return tree.map(lambda x: x.float() if x.dtype in HALVES else x.clone(), params)


def rounded(params: Any, like: Any) -> Any:
    """Return the leaves in the dtypes of others."""
    return tree.map(lambda x, y: x.to(y.dtype), params, like)


@each_half
@each_form
@each_inner
def test_params_are_those_of_the_run_in_float32_rounded(inner: fn.Optimizer, form: Any, half: torch.dtype) -> None:
    """Params agree at every step, bit for bit; the inner optimizer updates float32 and float64 leaves itself."""
    opt, params = form(fn.MasterWeights(inner)), leaves(0, half)
    state, wide = opt.init(params), widened(params)
    wide_state = inner.init(wide)
    for i in range(1, 60):
        grads = leaves(i, half)
        params, state = opt.update(grads, state, params)
        wide, wide_state = inner.update(widened(grads), wide_state, wide)
        assert tree.equal(params, rounded(wide, params))
        assert tree.equal(state["optimizer"], wide_state)
        assert tree.equal(state["masters"][0], wide[0])


@each_half
def test_steps_below_half_an_ulp_add_up(half: torch.dtype) -> None:
    """1000 steps of 1e-4 from 1.0 give the float32 result rounded; the plain optimizer stays at 1."""
    plain, opt, one = fn.SGD(1e-4), fn.MasterWeights(fn.SGD(1e-4)), {"w": torch.ones(1)}
    ends = []
    for optimizer, dtype in ((plain, half), (opt, half), (plain, torch.float32)):
        params = tree.cast(one, dtype)
        state = optimizer.init(params)
        for _ in range(1000):
            params, state = optimizer.update(tree.cast(one, dtype), state, params)
        ends.append(params["w"])
    assert torch.equal(ends[1], ends[2].to(half))
    assert ends[1].item() == pytest.approx(0.9, rel=2**-8)
    assert ends[0].item() == 1


@each_form
def test_params_changed_outside_win_over_their_masters(form: Any) -> None:
    """A step begins from each element that is not its master rounded, and from the master for the others."""
    opt = form(fn.MasterWeights(fn.SGD(1.0)))
    params = {"w": torch.ones(3, dtype=torch.bfloat16)}
    state = opt.init(params)
    params, state = opt.update({"w": torch.full((3,), 1e-3, dtype=torch.bfloat16)}, state, params)
    params = {"w": torch.tensor([1.0, 5.0, 1.0], dtype=torch.bfloat16)}
    _, state = opt.update({"w": torch.zeros(3, dtype=torch.bfloat16)}, state, params)
    step = torch.tensor(1e-3, dtype=torch.bfloat16).float()
    assert torch.equal(state["masters"]["w"], torch.stack([1 - step, torch.tensor(5.0), 1 - step]))


def test_masters_beyond_the_range_and_nan_are_kept() -> None:
    """A float16 param at infinity becomes finite when its master does, and a NaN stays."""
    opt = fn.MasterWeights(fn.SGD(1.0))
    params = {"w": torch.tensor([65504.0, 1.0], dtype=torch.float16)}
    state = opt.init(params)
    for g in ([-1000.0, torch.nan], [1000.0, 0.0]):
        params, state = opt.update({"w": torch.tensor(g, dtype=torch.float16)}, state, params)
    torch.testing.assert_close(params["w"], torch.tensor([65504.0, torch.nan], dtype=torch.float16), equal_nan=True)


@each_half
def test_the_state_has_masters_of_the_halves_only(half: torch.dtype) -> None:
    """Masters are float32; a leaf without a gradient and its master stay."""
    opt, params = fn.MasterWeights(fn.Adam()), leaves(0, half)
    state = opt.init(params)
    assert {name: x.dtype for name, x in tree.names(state["masters"]).items()} == dict.fromkeys(
        ("0.weight", "0.scale"), torch.float32
    )
    params, state = opt.update(leaves(1, half), state, params)
    after, then = opt.update(tree.replace(leaves(2, half), "0.weight", None), state, params)
    assert after[0]["weight"] is params[0]["weight"]
    assert then["masters"][0]["weight"] is state["masters"][0]["weight"]


@each_half
@each_form
def test_it_works_within_a_chain(half: torch.dtype, form: Any) -> None:
    """Clipping before it sees the half-precision gradients, and clipping within it the float32 ones."""
    params = leaves(0, half)
    outer, inner = (
        fn.chain(fn.ClipByValue(0.5), fn.MasterWeights(fn.SGD(0.1))),
        fn.MasterWeights(fn.chain(fn.ClipByValue(0.5), fn.SGD(0.1))),
    )
    grads = tree.map(torch.sign, leaves(1, half))  # halves of ones are exact in every dtype
    got = [form(one).update(grads, one.init(params), tree.map(torch.clone, params))[0] for one in (outer, inner)]
    assert tree.equal(*got)


@pytest.mark.compiled
@each_form
def test_a_compiled_train_step_moves_masters(form: Any) -> None:
    """The compiled step agrees with the eager one, up to a rounding of the param."""
    net, opt = fn.serial(fn.Linear(3, 4), fn.Tanh(), fn.Linear(4, 2)), form(fn.MasterWeights(fn.Adam(1e-3)))
    x, target = fn.random.normal(1, (8, 3)).bfloat16(), fn.random.normal(2, (8, 2)).bfloat16()
    step = fn.train_step(net, fn.MSE(), opt)
    compiled, ends = fn.compile(step), []
    for run in (step, compiled):
        params = tree.cast(net.init(0), torch.bfloat16)
        state = opt.init(params)
        for _ in range(3):
            params, state, _ = run(params, state, x, target)
        ends.append(params)
        assert tree.equal(params, rounded(state["masters"], params))
    torch.testing.assert_close(ends[0], ends[1], rtol=2**-7, atol=1e-3)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "state must be a dict of masters and optimizer, as init returns it, got an empty dict"),
        (fn.SGD(0.1).init(torch.ones(1)), "state must be a dict of masters and optimizer"),
        ({"masters": {"w": None}, "optimizer": {"step": torch.tensor(0)}}, "masters at 'w' must match params"),
        ({"masters": {"w": torch.ones(2)}, "optimizer": {}}, "state must be a dict of step"),
    ],
)
def test_a_state_of_another_kind_is_refused(state: Any, message: str) -> None:
    """Examples are the state of the inner optimizer by itself, and a state made for params in float32."""
    half = {"w": torch.ones(2, dtype=torch.bfloat16)}
    with pytest.raises(ValueError, match=message):
        fn.MasterWeights(fn.SGD(0.1)).update(half, state, half)


def test_it_wraps_optimizers_only() -> None:
    """A gradient transform is refused."""
    with pytest.raises(ValueError, match="MasterWeights: optimizer must be an optimizer, got ClipByValue"):
        fn.MasterWeights(fn.ClipByValue(1.0))
