"""Optimizers compared with torch.optim step by step in float64, as values, and the errors of update."""

import itertools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from training import STEPS, each_optimizer, leaves, misfit, run

import funcnet as fn
from funcnet import tree
from funcnet.flattening import Tree
from funcnet.optim.adam import Adam, AdamW
from funcnet.optim.base import Optimizer, State
from funcnet.optim.chaining import Chain, chain, donate
from funcnet.optim.clipping import ClipByValue
from funcnet.optim.schedules.decay import StepSchedule
from funcnet.optim.schedules.interpolation import CosineSchedule, LinearSchedule
from funcnet.optim.sgd import SGD


def update(optimizer: Optimizer, grads: Tree) -> tuple[Tree, State]:
    """Take one step from the first params."""
    return optimizer.update(grads, optimizer.init(leaves(0)), leaves(0))


def torch_run(
    make: Callable[..., Any], before_step: Callable[[int, Any], None] = lambda step, optimizer: None
) -> list[list[Tensor]]:
    """Take the same steps with an optimizer of torch.optim, and return the parameters after each."""
    params = [torch.nn.Parameter(leaf.clone()) for leaf in tree.leaves(leaves(0))]
    optimizer, trace = make(params), []
    for step in range(STEPS):
        for p, g in zip(params, tree.leaves(leaves(100 + step)), strict=True):
            p.grad = g
        before_step(step, optimizer)
        optimizer.step()
        trace.append([p.detach().clone() for p in params])
    return trace


def assert_same_trace(optimizer: Optimizer, trace: list[list[Tensor]]) -> None:
    params = leaves(0)
    state = optimizer.init(params)
    for step, expected in enumerate(trace):
        params, state = optimizer.update(leaves(100 + step), state, params)
        torch.testing.assert_close(tree.leaves(params), expected, rtol=1e-12, atol=1e-12)


def grid(**choices: tuple[Any, ...]) -> list[dict[str, Any]]:
    return [dict(zip(choices, row, strict=True)) for row in itertools.product(*choices.values())]


SGDS = [
    *grid(momentum=(0, 0.9), weight_decay=(0, 0.1), maximize=(False, True)),
    *grid(momentum=(0.9,), weight_decay=(0, 0.1), dampening=(0.3,), maximize=(False, True)),
    *grid(momentum=(0.9,), weight_decay=(0, 0.1), nesterov=(True,), maximize=(False, True)),
    {"momentum": 0, "dampening": 0.5},
]
ADAMS = grid(betas=((0.9, 0.999), (0.0, 0.5)), weight_decay=(0, 0.1), amsgrad=(False, True), maximize=(False, True))


# Formulas


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("how", SGDS, ids=repr)
def test_sgd_takes_the_steps_of_torch(how: dict[str, Any], fused: bool) -> None:
    """SGD equals torch.optim.SGD after every step, including the first one."""
    assert_same_trace(SGD(lr=0.05, fused=fused, **how), torch_run(lambda params: torch.optim.SGD(params, lr=0.05, **how)))


@pytest.mark.parametrize("how", ADAMS, ids=repr)
@pytest.mark.parametrize(("ours", "theirs"), [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)])
def test_adam_takes_the_steps_of_torch(ours: Any, theirs: Any, how: dict[str, Any]) -> None:
    """Adam and AdamW equal torch.optim's after every step."""
    assert_same_trace(ours(lr=0.05, eps=1e-3, **how), torch_run(lambda params: theirs(params, lr=0.05, eps=1e-3, **how)))


@pytest.mark.parametrize(
    ("ours", "theirs"), [(SGD(), torch.optim.SGD), (Adam(), torch.optim.Adam), (AdamW(), torch.optim.AdamW)], ids=repr
)
def test_the_defaults_are_those_of_torch(ours: Optimizer, theirs: Any) -> None:
    """Without arguments the steps match torch.optim without arguments."""
    assert_same_trace(ours, torch_run(theirs))


def test_the_averaged_momentum_is_a_running_average_from_zero() -> None:
    """With averaged, v ← m v + (1 - m) g from v = 0, and p ← p - lr v."""
    p, v, optimizer = leaves(0), tree.zeros_like(leaves(0)), SGD(lr=0.1, momentum=0.9, averaged=True)
    for step in range(STEPS):
        v = tree.map(lambda v, g: 0.9 * v + (1 - 0.9) * g, v, leaves(100 + step))
        p = tree.map(lambda p, v: p - 0.1 * v, p, v)
    torch.testing.assert_close(tree.leaves(run(optimizer, leaves(0))[0]), tree.leaves(p), rtol=1e-12, atol=1e-12)


def test_the_first_step_is_undamped() -> None:
    """The first buffer is the gradient itself, whatever the dampening."""
    _, state = run(SGD(momentum=0.9, dampening=0.7), leaves(0), steps=1)
    assert tree.equal(state["momentum_buffer"], leaves(100))


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_rates_of_sgd_follow_schedules(nesterov: bool) -> None:
    """lr, momentum and weight_decay at a step are the schedules' values for the number of steps before."""
    rates = {"lr": CosineSchedule(0.1, 8), "momentum": LinearSchedule(0.5, 0.9, 6), "weight_decay": StepSchedule(0.1, 4)}

    def set_rates(step: int, optimizer: Any) -> None:
        optimizer.param_groups[0].update({name: schedule(step) for name, schedule in rates.items()})

    trace = torch_run(lambda params: torch.optim.SGD(params, lr=1.0, momentum=0.9, nesterov=nesterov), set_rates)
    assert_same_trace(SGD(**rates, nesterov=nesterov), trace)


def test_the_dampening_follows_a_schedule() -> None:
    """A schedule of dampening equals torch.optim.SGD with the dampening set before each step."""
    schedule = LinearSchedule(0.1, 0.8, 10)
    trace = torch_run(
        lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9, dampening=0.1),
        lambda step, optimizer: optimizer.param_groups[0].update(dampening=schedule(step)),
    )
    assert_same_trace(SGD(lr=0.05, momentum=0.9, dampening=schedule), trace)


@pytest.mark.parametrize(("ours", "theirs"), [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)])
def test_the_rates_of_adam_follow_schedules(ours: Any, theirs: Any) -> None:
    """lr, both betas and weight_decay at a step are the schedules' values for the number of steps before."""
    lr, beta, decay = CosineSchedule(0.1, 8), LinearSchedule(0.5, 0.9, 6), StepSchedule(0.1, 4)

    def set_rates(step: int, optimizer: Any) -> None:
        optimizer.param_groups[0].update(lr=lr(step), betas=(beta(step), 0.99), weight_decay=decay(step))

    assert_same_trace(ours(lr=lr, betas=(beta, 0.99), weight_decay=decay), torch_run(theirs, set_rates))


@pytest.mark.parametrize("optimizer", [SGD(lr=0.3, momentum=0.5), Adam(lr=0.3), AdamW(lr=CosineSchedule(0.3, 300))], ids=repr)
def test_a_quadratic_is_minimized(optimizer: Optimizer) -> None:
    """300 steps on ½ (p - c)² reach c."""
    params, goal = leaves(0), leaves(1)
    state = optimizer.init(params)
    for _ in range(300):
        params, state = optimizer.update(tree.map(torch.sub, params, goal), state, params)
    assert tree.norm(tree.map(torch.sub, params, goal)) < 0.05


# Values


@each_optimizer
def test_optimizers_are_values(optimizer: Optimizer) -> None:
    """Plain and donated optimizers are tried: the repr evaluates to an equal one, hashes are equal, and pickle keeps them."""
    for one in (optimizer, donate(optimizer)):
        again = eval(repr(one), {**vars(fn), "Chain": Chain})
        assert again == one == pickle.loads(pickle.dumps(one))
        assert hash(again) == hash(one)


def test_donating_makes_another_value() -> None:
    """The donated optimizer is not equal to the pure one."""
    assert donate(Adam()) != Adam()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(lr=-1), "SGD: lr must be a finite number at least 0.0, got -1"),
        (lambda: SGD(lr=float("nan")), "SGD: lr must be a finite number at least 0.0, got nan"),
        (lambda: SGD(lr="0.1"), "SGD: lr must be a number, a schedule, or a real 0-d tensor, got '0.1'"),
        (lambda: SGD(lr=1e39), "SGD: lr must be a finite number at most 3.4028234663852886e+38, got 1e+39"),
        (lambda: SGD(momentum=-0.1), "SGD: momentum must be a finite number at least 0.0, got -0.1"),
        (lambda: SGD(weight_decay=-1), "SGD: weight_decay must be a finite number at least 0.0, got -1"),
        (lambda: SGD(dampening=float("inf")), "SGD: dampening must be a finite number at least 0.0, got inf"),
        (
            lambda: SGD(nesterov=True),
            "SGD: nesterov needs a momentum above 0 and no dampening, got momentum=0.0 and dampening=0.0",
        ),
        (
            lambda: SGD(momentum=0.9, dampening=0.1, nesterov=True),
            "SGD: nesterov needs a momentum above 0 and no dampening, got momentum=0.9 and dampening=0.1",
        ),
        (
            lambda: SGD(momentum=0.9, dampening=0.1, averaged=True),
            (
                "SGD: averaged sets the dampening to the momentum, and excludes nesterov and dampening, "
                "got nesterov=False and dampening=0.1"
            ),
        ),
        (lambda: SGD(maximize=1), "SGD: maximize must be True or False, got 1"),
        (lambda: Adam(lr=-1), "Adam: lr must be a finite number at least 0.0, got -1"),
        (lambda: AdamW(eps=-1.0), "AdamW: eps must be a finite number at least 0.0, got -1.0"),
        (
            lambda: Adam(betas=(0.9, 1.0)),
            "Adam: betas must be a tuple of two numbers of at least 0 and below 1, or schedules, got (0.9, 1.0)",
        ),
        (
            lambda: AdamW(betas=[0.9, 0.99]),
            "AdamW: betas must be a tuple of two numbers of at least 0 and below 1, or schedules, got [0.9, 0.99]",
        ),
        (chain, "chain: the last part must be an optimizer, like SGD(lr=0.1), got no parts"),
        (
            lambda: chain(ClipByValue(1.0)),
            "chain: the last part must be an optimizer, like SGD(lr=0.1), got ClipByValue(clip_value=1.0)",
        ),
        (
            lambda: chain(SGD(), ClipByValue(1.0)),
            "chain: the last part must be an optimizer, like SGD(lr=0.1), got ClipByValue(clip_value=1.0)",
        ),
        (
            lambda: chain(SGD(), SGD()),
            "chain: transforms must be gradient transforms, all before the optimizer, got SGD()",
        ),
    ],
)
def test_a_wrong_argument_is_refused_with_its_message(make: Callable[[], Any], message: str) -> None:
    """The message names the value, the field and the rule, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        make()
    assert str(caught.value) == message


# Errors of update


def test_gradients_of_another_structure_are_refused_with_the_path() -> None:
    """The message has the first path where the trees differ, and says which trees and whose."""
    error = misfit(grads=({"weight": torch.ones(5, 7, dtype=torch.float64)}, {}, {"inner": {"scale": None}}))
    assert str(error) == (
        "tree: the trees must agree, and at '0' one has a dict with the keys 'weight', 'bias', "
        "got a dict with the keys 'weight' in the other"
    )
    assert error.__notes__ == ["  in SGD(momentum=0.9), update: params against grads, momentum_buffer"]


@pytest.mark.parametrize("optimizer", [SGD(), SGD(momentum=0.9), Adam(), donate(Adam())], ids=repr)
def test_a_gradient_of_another_shape_is_refused_with_the_path(optimizer: Optimizer) -> None:
    """A gradient that only broadcasts to its parameter is refused."""
    grads = tree.replace(leaves(1), "0.bias", torch.ones(1, dtype=torch.float64))
    assert str(misfit(grads=grads, optimizer=optimizer)) == (
        f"{optimizer}: grads at '0.bias' must match params, a tensor of shape (5,) and dtype torch.float64, "
        "got a tensor of shape (1,) and dtype torch.float64"
    )


@pytest.mark.parametrize("optimizer", [SGD(), SGD(momentum=0.9), Adam()], ids=repr)
def test_misfits_are_found_whatever_came_before(optimizer: Optimizer) -> None:
    """Leaves are compared with the last ones first: after updates that fit, even of other nets, misfits are refused."""
    other, wide = tree.map(lambda leaf: leaf.unsqueeze(0).float(), leaves(0)), leaves(0, torch.float32)
    grads = tree.replace(leaves(1), "0.weight", leaves(1)[0]["weight"].t().contiguous().t())
    for _ in range(3):
        for params in (leaves(0), other, wide):
            optimizer.update(params, optimizer.init(params), params)
        assert tree.equal(update(optimizer, grads), update(optimizer, leaves(1)))
        for wrong in (other, wide):
            assert "must match params" in str(misfit(grads=wrong, optimizer=optimizer))


@pytest.mark.parametrize("optimizer", [SGD(), SGD(momentum=0.9), Adam(), donate(Adam())], ids=repr)
def test_a_gradient_of_another_dtype_is_refused_with_the_path(optimizer: Optimizer) -> None:
    """A gradient that would promote its parameter is refused."""
    grads = tree.replace(leaves(1), "0.bias", torch.ones(5))
    assert "grads at '0.bias' must match params" in str(misfit(grads=grads, optimizer=optimizer))


def test_a_gradient_on_another_device_is_refused_with_the_path() -> None:
    """The message names the devices where they differ."""
    grads = tree.replace(leaves(1), "0.bias", torch.ones(5, dtype=torch.float64, device="meta"))
    assert str(misfit(grads=grads)).endswith("got a tensor of shape (5,) and dtype torch.float64 on meta")


@pytest.mark.parametrize("optimizer", [SGD(momentum=0.9), Adam(), donate(Adam())], ids=repr)
def test_a_state_of_another_net_is_refused_with_the_path(optimizer: Optimizer) -> None:
    """Moments must have the shapes of params."""
    other = tree.replace(leaves(0), "0.weight", torch.ones(1, 7, dtype=torch.float64))
    message = str(misfit(state=optimizer.init(other), optimizer=optimizer))
    assert "at '0.weight' must match params, a tensor of shape (5, 7)" in message


def test_a_state_of_another_optimizer_is_refused() -> None:
    """The message has the expected keys of the state, and what it got."""
    assert str(misfit(state=SGD().init(leaves(0)))) == (
        "SGD(momentum=0.9): state must be a dict of step, momentum_buffer, as init returns it, got a dict with the keys 'step'"
    )


def test_a_moment_too_many_is_refused() -> None:
    """State of SGD with momentum is refused by SGD without."""
    state = SGD(momentum=0.9).init(leaves(0))
    assert "SGD(): state must be a dict of step, as init returns it" in str(misfit(state=state, optimizer=SGD()))


@pytest.mark.parametrize("optimizer", [SGD(), Adam()], ids=repr)
def test_a_gradient_for_a_counter_is_refused(optimizer: Optimizer) -> None:
    """An integer leaf takes no gradient except None."""
    params, grads = {"n": torch.tensor(3)}, {"n": torch.tensor(1)}
    assert "grads must be None at 'n', where params is a tensor of shape () and dtype torch.int64" in str(
        misfit(grads, optimizer.init(params), params, optimizer)
    )


def test_a_gradient_for_an_absent_parameter_is_refused() -> None:
    """Where params has None, grads must have None."""
    params, grads = {"w": None}, {"w": torch.ones(2)}
    assert "grads must be None at 'w', where params is None" in str(misfit(grads, SGD().init(params), params, SGD()))


@pytest.mark.parametrize("form", [lambda o: o, donate], ids=["pure", "donated"])
def test_a_momentum_may_be_0_at_some_steps(form: Callable[[Optimizer], Optimizer]) -> None:
    """The fused kernel then takes no buffer, and the buffer becomes the gradient."""
    ends = []
    for fused in (False, True):
        optimizer = form(SGD(0.1, momentum=lambda step: 0.9 * (step != 1), fused=fused))
        ends.append(run(optimizer, leaves(0), steps=3))
    torch.testing.assert_close(*map(tree.leaves, ends))
