"""LossScale: torch's rule for the factor, and a float16 net whose gradients would vanish without it."""

import math
from typing import Any

import pytest
import torch

import funcnet as fn
from funcnet import tree
from funcnet.optim.base import State

X = fn.random.normal(1, (256, 8)).half()
RIGHT = fn.random.normal(2, (1, 8))
# The last layer makes y small, so the gradients before it, about 1e-9, are 0 in float16.
NET = fn.serial(fn.Linear(8, 1, bias=False), fn.freeze(fn.Linear(1, 1, bias=False)))
PARAMS = ({"weight": torch.zeros(1, 8, dtype=torch.float16)}, {"weight": torch.full((1, 1), 3e-4, dtype=torch.float16)})
TARGET = NET(tree.replace(PARAMS, "0.weight", RIGHT.half()), X)
LR = 2e6


def trained(net: fn.Layer, opt: fn.Optimizer, params: Any, steps: int = 100, compiled: bool = False) -> tuple[Any, State]:
    """Take steps with ``train_step``."""
    step, state = fn.train_step(net, fn.MSE(), opt), opt.init(params)
    step = torch.compile(step, fullgraph=True, backend="aot_eager") if compiled else step
    for _ in range(steps):
        params, state, _ = step(params, state, X, TARGET)
    return params, state


def test_gradients_that_vanish_in_float16_are_found() -> None:
    """Without a factor the net never moves; with one it finds the right weights."""
    still, _ = trained(NET, fn.MasterWeights(fn.SGD(LR)), PARAMS)
    assert tree.equal(still, PARAMS)
    found, state = trained(NET, fn.MasterWeights(fn.chain(fn.LossScale(growth_interval=40), fn.SGD(LR))), PARAMS)
    torch.testing.assert_close(found[0]["weight"].float(), RIGHT, rtol=0, atol=0.02)
    assert float(state["optimizer"][0]["scale"]) == 2.0**18


def test_float32_params_of_a_net_in_float16_need_no_masters() -> None:
    """The gradients that ``cast`` returns are float32 already."""
    net, params = fn.cast(NET, torch.float16), tree.cast(PARAMS, torch.float32)
    found, _ = trained(net, fn.chain(fn.LossScale(), fn.SGD(LR)), params)
    torch.testing.assert_close(found[0]["weight"], RIGHT, rtol=0, atol=0.02)


def test_a_factor_changes_no_step_of_float32() -> None:
    """A power of two is divided out without rounding, and the value of the loss is not multiplied."""
    params, x = tree.cast(PARAMS, torch.float32), X.float()
    plain, scaled = [fn.train_step(NET, fn.MSE(), fn.chain(*more, fn.SGD(1.0))) for more in ((), (fn.LossScale(),))]
    want = plain(params, plain.opt.init(params), x, TARGET.float())
    got = scaled(params, scaled.opt.init(params), x, TARGET.float())
    assert tree.equal(got[0], want[0])
    assert torch.equal(got[2], want[2])


def test_the_factor_follows_the_rule_of_torch() -> None:
    """Some of the updates have gradients with infinities or NaNs."""
    transform = fn.LossScale(64.0, growth_factor=3.0, backoff_factor=0.25, growth_interval=3)
    scaler = torch.amp.GradScaler("cpu", 64.0, 3.0, 0.25, 3)
    p = torch.nn.Parameter(torch.ones(2))
    optimizer, state = torch.optim.SGD([p], lr=0.0), transform.init({"w": torch.ones(2)})
    for g in (1.0, 1.0, 1.0, 1.0, math.inf, 1.0, 1.0, math.nan, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -math.inf):
        scaler.scale(p.sum() * 0)
        p.grad = torch.tensor([1.0, g])
        scaler.step(optimizer)
        scaler.update()
        _, state = transform.update({"w": torch.tensor([1.0, g])}, state, {})
        assert float(state["scale"]) == scaler.get_scale()
        assert int(state["growth_tracker"]) == scaler._get_growth_tracker()


def test_the_factor_stays_finite() -> None:
    """The factor does not grow beyond the range of float32."""
    transform = fn.LossScale(2.0**127, growth_interval=1)
    _, state = transform.update({"w": torch.ones(1)}, transform.init({}), {})
    assert float(state["scale"]) == 2.0**127


def test_gradients_are_divided_and_what_is_infinite_passes() -> None:
    """The optimizer, or a wrapper, can then skip the update."""
    transform = fn.LossScale(4.0)
    new, _ = transform.update({"a": torch.full((1,), 8.0), "b": torch.tensor([math.inf])}, transform.init({}), {})
    assert tree.equal(new, {"a": torch.full((1,), 2.0), "b": torch.tensor([math.inf])})


@pytest.mark.compiled
def test_scaled_steps_compile_whole() -> None:
    """Compiled steps agree with eager steps, up to rounding."""
    torch._dynamo.reset()
    opt = fn.MasterWeights(fn.chain(fn.LossScale(growth_interval=2), fn.SGD(LR)))
    got, want = trained(NET, opt, PARAMS, 6, compiled=True), trained(NET, opt, PARAMS, 6)
    torch.testing.assert_close(tree.leaves(got), tree.leaves(want), rtol=2e-3, atol=2e-3)


def test_what_does_not_fit_is_explained_as_without_a_factor() -> None:
    """The loss raises its usual error about the target."""
    opt = fn.chain(fn.LossScale(), fn.SGD(1.0))
    step = fn.train_step(NET, fn.MSE(), opt)
    with pytest.raises(ValueError, match=r"MSE\(\): target must have the shape of y"):
        step(PARAMS, opt.init(PARAMS), X, TARGET[:, 0])


def test_a_factor_for_some_params_only_is_refused() -> None:
    """The loss has one factor, so all gradients must be divided by it."""

    @fn.frozen
    class Groups(fn.Optimizer):
        inner: fn.Optimizer

        def init(self, params: Any) -> State:
            return {"inner": self.inner.init(params)}

        def update(self, grads: Any, state: State, params: Any) -> tuple[Any, State]:
            raise AssertionError

        def rates(self, state: State) -> dict[str, Any]:
            return {"group": self.inner.rates(state["inner"])}

    opt = Groups(fn.chain(fn.LossScale(), fn.SGD(1.0)))
    with pytest.raises(ValueError, match="train_step: a LossScale must be in a chain for all params"):
        fn.train_step(NET, fn.MSE(), opt)(PARAMS, opt.init(PARAMS), X, TARGET)


def test_sam_climbs_and_steps_with_scaled_gradients() -> None:
    """The climb follows the gradient, and the step is divided again; in float64 this is exact."""
    params, x, target = tree.cast(PARAMS, torch.float64), X.double(), TARGET.double()
    plain, scaled = [fn.train_step(NET, fn.MSE(), fn.SAM(fn.chain(*more, fn.SGD(1.0)), 0.5)) for more in ((), (fn.LossScale(),))]
    want = plain(params, plain.opt.init(params), x, target)
    got = scaled(params, scaled.opt.init(params), x, target)
    torch.testing.assert_close(tree.leaves(got[0]), tree.leaves(want[0]), rtol=1e-6, atol=0)
    assert not tree.allclose(got[0], params, rtol=1e-6)


def test_a_factor_that_could_not_fall_is_refused() -> None:
    """A wrapper that skips an update would keep the state of a LossScale within, and skip all that follow."""
    with pytest.raises(ValueError, match=r"SkipNonFinite: a LossScale must come before it, chain\(LossScale\(\), SkipNonFinite"):
        fn.SkipNonFinite(fn.MasterWeights(fn.chain(fn.LossScale(), fn.SGD(1.0))))
    fn.chain(fn.LossScale(), fn.SkipNonFinite(fn.SGD(1.0)))


def test_two_factors_are_refused() -> None:
    """Each would divide, but ``train_step`` multiplies once."""
    with pytest.raises(ValueError, match="train_step: an optimizer must have at most one LossScale, got 2 in"):
        fn.train_step(NET, fn.MSE(), fn.chain(fn.LossScale(), fn.LossScale(), fn.SGD(1.0)))


@pytest.mark.parametrize("wrap", [fn.Lookahead, lambda opt: fn.MultiSteps(opt, 2), fn.ScheduleFree])
def test_a_factor_within_a_wrapper_changes_no_step(wrap: Any) -> None:
    """A wrapper holds its optimizer in two forms, but they share one factor."""
    params, x, target = tree.cast(PARAMS, torch.float64), X.double(), TARGET.double()
    ends = []
    for opt in (
        wrap(fn.SGD(1.0)),
        wrap(fn.chain(fn.LossScale(), fn.SGD(1.0))),
        wrap(fn.chain(fn.LossScale(), fn.SGD(1.0))).donate(),
    ):
        step, p = fn.train_step(NET, fn.MSE(), opt), tree.map(torch.clone, params)
        state = opt.init(p)
        for _ in range(4):
            p, state, _ = step(p, state, x, target)
        ends.append(p)
    assert tree.allclose(ends[1], ends[0], rtol=1e-12)
    assert tree.equal(ends[2], ends[1])
