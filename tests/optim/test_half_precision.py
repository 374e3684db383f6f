"""Half precision: moments and arithmetic are float32, and a step is rounded once."""

from typing import Any

import pytest
import torch

import funcnet as fn
from funcnet import tree

HALVES = [torch.float16, torch.bfloat16]
OPTIMIZERS = [
    *[fn.SGD(0.1), fn.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.1), fn.Adam(1e-2), fn.Adam(1e-2, amsgrad=True)],
    *[fn.AdamW(fn.LinearSchedule(1e-2, 1e-3, 10)), fn.donate(fn.SGD(0.1, momentum=0.9)), fn.donate(fn.Adam(1e-2))],
]


def trained(opt: fn.Optimizer, params: Any, grads: list[Any]) -> Any:
    """Return the params and the state after a step with each gradient."""
    params = tree.map(torch.clone, params)
    state = opt.init(params)
    for g in grads:
        params, state = opt.update(g, state, params)
    return params, state


@pytest.mark.parametrize("half", HALVES, ids=str)
@pytest.mark.parametrize("opt", OPTIMIZERS, ids=repr)
def test_a_step_in_half_is_the_step_in_single_rounded(opt: fn.Optimizer, half: torch.dtype) -> None:
    """Both start from the same numbers; a parameter in float32 beside takes its own step."""
    params = {"a": fn.random.normal(0, (6, 5)).to(half), "b": fn.random.normal(1, (3,))}
    grads = {"a": fn.random.normal(2, (6, 5)).to(half), "b": fn.random.normal(3, (3,))}
    got, state = trained(opt, params, [grads])
    want, right = trained(opt, *tree.cast((params, [grads]), torch.float32))
    assert got["a"].dtype is half
    torch.testing.assert_close(got["a"], want["a"].to(half), rtol=torch.finfo(half).eps, atol=0)
    torch.testing.assert_close(got["b"], want["b"])
    torch.testing.assert_close(state, right)


@pytest.mark.parametrize("half", HALVES, ids=str)
def test_squares_of_small_gradients_do_not_vanish(half: torch.dtype) -> None:
    """Adam(1e-3) moves by about the rate, as in the formula; squares in float16 would be 0."""
    grads = [{"w": torch.full((1,), g, dtype=half)} for g in (1e-3, 0.0, 0.0, 0.0)]
    params, state = trained(fn.Adam(1e-3), {"w": torch.zeros(1, dtype=half)}, grads)
    assert params["w"].item() == pytest.approx(-0.0026, rel=0.03)
    assert {leaf.dtype for leaf in tree.leaves(state["exp_avg_sq"])} == {torch.float32}


@pytest.mark.compiled
def test_a_compiled_step_in_half_is_the_eager_one() -> None:
    """The moments it takes and returns are float32."""
    opt, params = fn.Adam(1e-2), {"w": fn.random.normal(0, (4, 3)).bfloat16()}
    grads, state = {"w": fn.random.normal(1, (4, 3)).bfloat16()}, fn.Adam(1e-2).init(params)
    got = torch.compile(opt.update, fullgraph=True, backend="aot_eager")(grads, state, params)
    torch.testing.assert_close(got, opt.update(grads, state, params))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("opt", [fn.SGD(0.1), fn.Adam(), fn.donate(fn.Adam())], ids=repr)
def test_gradients_that_are_no_dense_tensors_are_refused(opt: fn.Optimizer) -> None:
    """The message has the path; in the guard a nested tensor would end the process."""
    params = {"w": torch.ones(3), "b": torch.ones(2)}
    state = opt.init(params)
    opt.update(tree.map(torch.ones_like, params), state, params)
    before = tree.map(torch.clone, (params, state))
    for odd in (torch.nested.nested_tensor([torch.ones(3)]), torch.ones(3).to_sparse(), torch.ones(3, device="meta")):
        with pytest.raises(ValueError, match="grads at 'w' must match params"):
            opt.update({"w": odd, "b": torch.ones(2)}, state, params)
    assert tree.equal((params, state), before)
