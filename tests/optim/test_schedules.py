"""Schedules: their contract, and the rates of torch.optim.lr_scheduler at 200 steps."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from schedule_cases import ALL, halved

import funcnet as fn
from funcnet import (
    ConstantSchedule,
    CosineAnnealingSchedule,
    CosineRestartsSchedule,
    CosineSchedule,
    CyclicSchedule,
    ExponentialSchedule,
    InverseSquareRootSchedule,
    JoinedSchedule,
    LambdaSchedule,
    LinearSchedule,
    MultiStepSchedule,
    OneCycleMomentumSchedule,
    OneCycleSchedule,
    PiecewiseConstantSchedule,
    PiecewiseInterpolateSchedule,
    PolynomialSchedule,
    ProductSchedule,
    Schedule,
    SlantedTriangularSchedule,
    StepSchedule,
    SumSchedule,
    WarmupConstantSchedule,
    WarmupCosineSchedule,
    WarmupLinearSchedule,
    WarmupSchedule,
    WarmupStableDecaySchedule,
)

STEPS = 200
HUGE = (10**6, 10**9, 10**12, 10**15, 10**18)
each_schedule = pytest.mark.parametrize("schedule", ALL, ids=repr)
scheduler = torch.optim.lr_scheduler


def test_every_schedule_is_in_the_catalogue() -> None:
    """Each is there by itself or within another one."""
    public = {value for value in vars(fn).values() if isinstance(value, type) and issubclass(value, Schedule)}
    within = [part for one in ALL for part in fn.value.parts(one)]
    assert {type(part) for part in within} >= public - {Schedule, fn.FormulaSchedule}


# the contract


@each_schedule
def test_a_schedule_keeps_the_contract(schedule: Schedule) -> None:
    """Numbers, tensors, numpy, vmap and the meta device work, and schedules are values."""
    fn.testing.check_schedule(schedule, STEPS)


@pytest.mark.compiled
def test_schedules_compile_whole() -> None:
    """One graph of each serves every step."""
    torch._dynamo.reset()
    compiled = torch.compile(lambda step: tuple(schedule(step) for schedule in ALL), fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        got = [[float(rate) for rate in compiled(torch.tensor(step))] for step in (0, 1, 5, 7, 50, 63, 199, 10**12)]
    for rates, step in zip(got, (0, 1, 5, 7, 50, 63, 199, 10**12), strict=True):
        assert rates == pytest.approx([schedule(step) for schedule in ALL], rel=1e-12, abs=1e-15)


@pytest.mark.compiled
def test_a_compiled_step_follows_its_schedules() -> None:
    """One program serves all steps: the rate and momentum of one cycle, and a product with a function."""
    lr, momentum = OneCycleSchedule(0.3, 9), OneCycleMomentumSchedule(9)
    opt = fn.SGD(lr * LambdaSchedule(inverse), momentum, weight_decay=0.01 * CosineRestartsSchedule(1.0, 1, 2))
    step = fn.train_step(fn.Linear(3, 2), fn.MSE(), opt)
    compiled, x, target = fn.compile(step), fn.random.normal(0, (5, 3)), fn.random.normal(1, (5, 2))
    params = step.net.init(0)
    ours, theirs = (params, opt.init(params)), (params, opt.init(params))
    for _ in range(7):
        ours, theirs = compiled(*ours, x, target)[:2], step(*theirs, x, target)[:2]
    fn.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert compiled.programs == 1


@each_schedule
def test_a_tensor_gets_the_bits_of_its_number(schedule: Schedule) -> None:
    """Eager mode is tried, even at steps far beyond the end."""
    for step in (*range(70), *HUGE):
        assert schedule(torch.tensor(step)).item() == schedule(step)


@each_schedule
def test_vmap_agrees_far_beyond_the_end(schedule: Schedule) -> None:
    """Steps up to 10¹⁸ are tried."""
    got = torch.func.vmap(schedule)(torch.tensor(HUGE)).tolist()
    assert got == pytest.approx([schedule(step) for step in HUGE], rel=1e-12, abs=1e-18)


NO_STEPS = [-1, torch.tensor(-1), math.nan, math.inf, torch.tensor(math.nan), True, torch.tensor(True), "3", None, torch.ones(2), torch.tensor(1j), np.int64(-2), np.ones(2)]  # fmt: skip


@each_schedule
def test_a_step_that_is_none_is_refused(schedule: Schedule) -> None:
    """Steps below 0 are refused too, and the message names the schedule."""
    for step in NO_STEPS:
        with pytest.raises(
            ValueError, match=r"Schedule\(.*\): step must be a number of at least 0, or a 0-d tensor of one, got "
        ):
            schedule(step)


@each_schedule
def test_a_schedule_is_the_call_that_makes_it(schedule: Schedule) -> None:
    """Its repr has the names of funcnet and of the functions that it holds."""
    assert eval(repr(schedule), {**vars(fn), "halved": halved}) == schedule


# torch.optim.lr_scheduler


def torch_rates(lr: float, make: Callable[[Any], Any], steps: int, name: str = "lr") -> list[float]:
    """Return the rate that torch uses at each step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=lr, momentum=0.9)
    schedule, rates = make(optimizer), []
    for step in range(steps):
        rates.append(optimizer.param_groups[0][name])
        optimizer.step()
        if step < steps - 1:
            schedule.step()
    return rates


def sequential(o: Any) -> Any:
    return scheduler.SequentialLR(o, [scheduler.LinearLR(o, 0.1, 1.0, 4), scheduler.StepLR(o, 30, 0.5)], [4])


def chained(o: Any) -> Any:
    return scheduler.ChainedScheduler([scheduler.StepLR(o, 30, 0.5), scheduler.ExponentialLR(o, 0.99)], o)


def cyclic(*args: Any, **options: Any) -> Callable[[Any], Any]:
    return lambda o: scheduler.CyclicLR(o, 0.1, 0.3, *args, cycle_momentum=False, **options)


def inverse(t: Any) -> Any:
    return 1 / (1 + t)


def one_cycle(**options: Any) -> Callable[[Any], Any]:
    return lambda o: scheduler.OneCycleLR(o, 0.3, STEPS, **options)


TORCH = [
    (ConstantSchedule(0.3), 0.3, lambda o: scheduler.ConstantLR(o, 1.0)),
    (PiecewiseConstantSchedule((0.1, 0.3), (5,)), 0.3, lambda o: scheduler.ConstantLR(o, 1 / 3, 5)),
    (LinearSchedule(0.1, 0.7, 5), 1.0, lambda o: scheduler.LinearLR(o, 0.1, 0.7, 5)),
    (PolynomialSchedule(0.3, 150, 2.5), 0.3, lambda o: scheduler.PolynomialLR(o, 150, 2.5)),
    (PolynomialSchedule(0.3, 150), 0.3, lambda o: scheduler.PolynomialLR(o, 150)),
    (ExponentialSchedule(0.3, 0.9), 0.3, lambda o: scheduler.ExponentialLR(o, 0.9)),
    (StepSchedule(0.3, 3), 0.3, lambda o: scheduler.StepLR(o, 3)),
    (StepSchedule(0.3, 2, gamma=0.5), 0.3, lambda o: scheduler.StepLR(o, 2, 0.5)),
    (MultiStepSchedule(0.3, (10, 50, 50, 120)), 0.3, lambda o: scheduler.MultiStepLR(o, [10, 50, 50, 120])),
    (MultiStepSchedule(0.3, (0, 7), 0.5), 0.3, lambda o: scheduler.MultiStepLR(o, [0, 7], 0.5)),
    (CosineSchedule(0.3, 199, end=0.05), 0.3, lambda o: scheduler.CosineAnnealingLR(o, 199, 0.05)),
    (CosineAnnealingSchedule(0.3, 7), 0.3, lambda o: scheduler.CosineAnnealingLR(o, 7)),
    (CosineAnnealingSchedule(0.3, 30, end=0.05), 0.3, lambda o: scheduler.CosineAnnealingLR(o, 30, 0.05)),
    (CosineRestartsSchedule(0.3, 7), 0.3, lambda o: scheduler.CosineAnnealingWarmRestarts(o, 7)),
    (CosineRestartsSchedule(0.3, 1, 2, 0.05), 0.3, lambda o: scheduler.CosineAnnealingWarmRestarts(o, 1, 2, 0.05)),
    (CosineRestartsSchedule(0.3, 5, 3), 0.3, lambda o: scheduler.CosineAnnealingWarmRestarts(o, 5, 3)),
    (CyclicSchedule(0.1, 0.3, 20), 0.1, cyclic(20)),
    (CyclicSchedule(0.1, 0.3, 7, 12, "triangular2"), 0.1, cyclic(7, 12, "triangular2")),
    (CyclicSchedule(0.1, 0.3, 7, 12, "exp_range", 0.99), 0.1, cyclic(7, 12, "exp_range", 0.99)),
    (CyclicSchedule(0.1, 0.3, 7, scale_fn=inverse), 0.1, cyclic(7, scale_fn=inverse)),
    (CyclicSchedule(0.1, 0.3, 7, scale_fn=inverse, scale_mode="iterations"), 0.1, cyclic(7, scale_fn=inverse, scale_mode="iterations")),
    (OneCycleSchedule(0.3, STEPS), 0.3, one_cycle()),
    (OneCycleSchedule(0.3, STEPS, 0.1, "linear", 10.0, 100.0), 0.3, one_cycle(pct_start=0.1, anneal_strategy="linear", div_factor=10.0, final_div_factor=100.0)),
    (OneCycleSchedule(0.3, STEPS, 0.4, three_phase=True), 0.3, one_cycle(pct_start=0.4, three_phase=True)),
    (OneCycleSchedule(0.3, STEPS, 0.0), 0.3, one_cycle(pct_start=0.0)),
    (OneCycleSchedule(0.3, STEPS, 1.0), 0.3, one_cycle(pct_start=1.0)),
    (OneCycleSchedule(0.3, STEPS, 0.7, three_phase=True), 0.3, one_cycle(pct_start=0.7, three_phase=True)),
    (JoinedSchedule((LinearSchedule(0.1, 1.0, 4), StepSchedule(1.0, 30, 0.5)), (4,)), 1.0, sequential),
    (StepSchedule(0.3, 30, 0.5) * ExponentialSchedule(1.0, 0.99), 0.3, chained),
    (0.3 * LambdaSchedule(inverse), 0.3, lambda o: scheduler.LambdaLR(o, inverse)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("schedule", "lr", "theirs"), TORCH, ids=lambda value: repr(value) if isinstance(value, Schedule) else ""
)
def test_the_rates_are_those_of_torch(schedule: Schedule, lr: float, theirs: Any) -> None:
    """Each of 200 steps is compared."""
    ours = [schedule(step) for step in range(STEPS)]
    assert ours == pytest.approx(torch_rates(lr, theirs, STEPS), rel=1e-12, abs=1e-15)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Schedule, Any]:
    """Draw a schedule with phases of any length, and torch's schedule."""
    n, m = draw(st.integers(1, 90)), draw(st.integers(1, 5))
    part, three = draw(st.floats(0.0, 1.0).filter(lambda part: part * 99 != 1)), draw(st.booleans())  # torch divides 0 by 0
    steps = sorted(draw(st.lists(st.integers(0, 99), max_size=5)))
    mode = draw(st.sampled_from(["triangular", "triangular2", "exp_range"]))
    return draw(st.sampled_from([
        (OneCycleSchedule(0.3, 99, part, three_phase=three), lambda o: scheduler.OneCycleLR(o, 0.3, 99, pct_start=part, three_phase=three)),
        (CyclicSchedule(0.3, 0.9, n, m, mode, 0.99), lambda o: scheduler.CyclicLR(o, 0.3, 0.9, n, m, mode, 0.99, cycle_momentum=False)),
        (CosineRestartsSchedule(0.3, n, m, 0.01), lambda o: scheduler.CosineAnnealingWarmRestarts(o, n, m, 0.01)),
        (CosineAnnealingSchedule(0.3, n, 0.01), lambda o: scheduler.CosineAnnealingLR(o, n, 0.01)),
        (PolynomialSchedule(0.3, n, part + 0.1), lambda o: scheduler.PolynomialLR(o, n, part + 0.1)),
        (MultiStepSchedule(0.3, steps, 0.5), lambda o: scheduler.MultiStepLR(o, steps, 0.5)),
    ]))  # fmt: skip


@given(pairs())
@settings(max_examples=40)
def test_phases_of_any_length_are_those_of_torch(pair: tuple[Schedule, Any]) -> None:
    """Rates agree for numbers, and under vmap."""
    schedule, theirs = pair
    expected = pytest.approx(torch_rates(0.3, theirs, 99), rel=1e-12, abs=1e-14)
    assert [schedule(step) for step in range(99)] == expected
    assert torch.func.vmap(schedule)(torch.arange(99)).tolist() == expected


@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize("strategy", ["cos", "linear"])
def test_the_momentum_of_one_cycle_is_that_of_torch(strategy: str, three_phase: bool) -> None:
    """Each step is compared."""
    schedule = OneCycleMomentumSchedule(STEPS, 0.8, 0.99, 0.4, strategy, three_phase)
    options = {
        "pct_start": 0.4,
        "anneal_strategy": strategy,
        "three_phase": three_phase,
        "base_momentum": 0.8,
        "max_momentum": 0.99,
    }
    theirs = torch_rates(0.3, one_cycle(**options), STEPS, "momentum")
    assert [schedule(step) for step in range(STEPS)] == pytest.approx(theirs, rel=1e-12)


def test_the_cycled_momentum_is_that_of_torch() -> None:
    """CyclicLR's momentum goes from the largest value to the smallest, so the two arguments are swapped."""
    theirs = torch_rates(0.1, lambda o: scheduler.CyclicLR(o, 0.1, 0.3, 7, 12, "triangular2"), STEPS, "momentum")
    schedule = CyclicSchedule(0.9, 0.8, 7, 12, "triangular2")
    assert [schedule(step) for step in range(STEPS)] == pytest.approx(theirs, rel=1e-12)


# ends and phases


@pytest.mark.parametrize(
    ("schedule", "start", "end"),
    [
        (LinearSchedule(0.1, 0.7, 5), 0.1, 0.7),
        (PolynomialSchedule(0.3, 9, 3.0, 0.7), 0.3, 0.7),
        (CosineSchedule(0.3, 7, end=0.7), 0.3, 0.7),
        (CosineSchedule(0.1, 49, end=0.7, exponent=0.3), 0.1, 0.7),
        (PiecewiseInterpolateSchedule((0.1, 0.9, 0.7), (3, 9), "cosine"), 0.1, 0.7),
        (OneCycleSchedule(0.3, 11, div_factor=3.0, final_div_factor=7.0), 0.3 / 3.0, 0.3 / 3.0 / 7.0),
        (OneCycleSchedule(0.3, 1), 0.3 / 25.0 / 1e4, 0.3 / 25.0 / 1e4),
        (WarmupLinearSchedule(0.9, 3, 9, 0.7, 0.1), 0.1, 0.7),
        (WarmupCosineSchedule(0.9, 3, 9, 0.7, 0.1), 0.1, 0.7),
        (WarmupConstantSchedule(0.7, 3, 0.1), 0.1, 0.7),
        (WarmupStableDecaySchedule(0.9, 3, 3, 3, 0.7, 0.1), 0.1, 0.7),
        (SlantedTriangularSchedule(0.3, 11, ratio=7.0), 0.3 / 7.0, 0.3 / 7.0),
    ],
    ids=repr,
)
def test_a_schedule_begins_at_its_start_and_stays_at_its_end(schedule: Schedule, start: float, end: float) -> None:
    """Start and end are exact."""
    assert schedule(0) == start
    assert [schedule(step) for step in (49, 50, 98, 10**9, 10**18)] == [end] * 5


@pytest.mark.parametrize("value", [0.1, 0.3, 1e-7])
def test_a_way_from_a_number_to_itself_is_constant(value: float) -> None:
    """The rate is exactly constant, although a sum of fractions of the number would round."""
    for schedule in (LinearSchedule(value, value, 7), CosineSchedule(value, 7, value), PolynomialSchedule(value, 7, 2.0, value)):
        assert {schedule(step) for step in range(9)} == {value}


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (WarmupConstantSchedule(0.3, 0), [0.3, 0.3, 0.3]),
        (WarmupLinearSchedule(0.3, 0, 2, end=0.1), [0.3, 0.2, 0.1]),
        (WarmupCosineSchedule(0.3, 0, 2, end=0.1), [0.3, 0.2, 0.1]),
        (WarmupSchedule(ExponentialSchedule(0.4, 0.5), 0), [0.4, 0.2, 0.1]),
        (fn.WarmupExponentialSchedule(0.4, 0, 0.5), [0.4, 0.2, 0.1]),
        (WarmupStableDecaySchedule(0.3, 0, 0, 2, 0.1, decay_type="linear"), [0.3, 0.2, 0.1]),
        (WarmupStableDecaySchedule(0.3, 0, 1, 1), [0.3, 0.3, 0.0]),
        (InverseSquareRootSchedule(0.3, 0), [0.3, 0.3 / math.sqrt(2), 0.3 / math.sqrt(3)]),
        (SlantedTriangularSchedule(0.4, 2, cut_frac=0.0, ratio=4.0), [0.4, 0.25, 0.1]),
        (OneCycleSchedule(0.4, 3, 1 / 3, "linear", 2.0, 2.0), [0.4, 0.25, 0.1]),
    ],
    ids=repr,
)
def test_a_phase_without_steps_is_left_out(schedule: Schedule, rates: list[float]) -> None:
    """The next phase begins at step 0."""
    assert [schedule(step) for step in range(3)] == pytest.approx(rates, rel=1e-15)
    assert torch.func.vmap(schedule)(torch.arange(3)).tolist() == pytest.approx(rates, rel=1e-15)


@pytest.mark.parametrize("t_mult", [2, 3, 7])
def test_every_restart_is_at_its_step(t_mult: int) -> None:
    """At t_0 (t_multⁿ - 1) / (t_mult - 1), where a logarithm may round, the rate is the start; a step earlier it is not."""
    for t_0 in (1, 3, 10):
        schedule = CosineRestartsSchedule(1.0, t_0, t_mult)
        begins = [t_0 * (t_mult**n - 1) // (t_mult - 1) for n in range(1, 16)]
        mapped = torch.func.vmap(schedule)
        assert {schedule(begin) for begin in begins} == {1.0}
        assert mapped(torch.tensor(begins)).tolist() == [1.0] * 15
        before = [begin - 1 for begin in begins[4:]]
        assert max(schedule(step) for step in before) <= 0.5
        assert mapped(torch.tensor(before)).tolist() == pytest.approx([schedule(step) for step in before], abs=1e-12)


def test_a_joined_schedule_counts_each_part_from_its_beginning() -> None:
    """At a boundary the next schedule is at its step 0."""
    first, second = LinearSchedule(1.0, 2.0, 100), LinearSchedule(5.0, 6.0, 10)
    joined = JoinedSchedule((first, second), (3,))
    assert [joined(step) for step in range(5)] == [first(0), first(1), first(2), second(0), second(1)]


def test_growth_without_a_bound_ends_at_infinity() -> None:
    """The result is a float or a tensor, and Python raises no error."""
    schedule = ExponentialSchedule(1.0, 1.1)
    assert schedule(10**6) == math.inf
    assert torch.func.vmap(schedule)(torch.tensor([10**6])).tolist() == [math.inf]
    assert ExponentialSchedule(1.0, 1.1, end=7.0)(10**6) == 7.0


# sums, products, functions


def test_schedules_multiply_and_add() -> None:
    """Schedules combine with each other and with numbers on either side; longer products are flat."""
    a, b = LinearSchedule(1.0, 2.0, 10), CosineSchedule(3.0, 7)
    for step in range(12):
        assert (a * b)(step) == a(step) * b(step)
        assert (0.5 * a)(step) == (a * 0.5)(step) == 0.5 * a(step)
        assert (a + b)(step) == a(step) + b(step)
        assert (a + 1)(step) == (1 + a)(step) == a(step) + 1
    assert 2 * a * b * 3 == ProductSchedule((2, a, b, 3))
    assert 2 + a + b == SumSchedule((2, a, b))
    assert (a + b) * b == ProductSchedule((SumSchedule((a, b)), b))


@pytest.mark.parametrize(
    "other", [math.nan, True, "2", None, halved, torch.ones(2), torch.tensor(True)], ids=lambda other: type(other).__name__
)
def test_a_schedule_does_not_multiply_with_anything_else(other: Any) -> None:
    """A function must become a LambdaSchedule first."""
    for operation in (lambda: LinearSchedule(1.0, 2.0, 3) * other, lambda: LinearSchedule(1.0, 2.0, 3) + other):
        with pytest.raises(TypeError, match=r"unsupported operand|can't multiply"):
            operation()


def test_a_function_gets_the_int_that_the_schedule_gets() -> None:
    """The function can therefore index a table; in eager mode it gets an int for a tensor too."""
    table = (0.3, 0.2, 0.1)
    schedule = LambdaSchedule(lambda step: table[step])
    assert [schedule(step) for step in range(3)] == [schedule(torch.tensor(step)).item() for step in range(3)] == [*table]
    assert (2 * schedule)(1) == 0.4
    assert JoinedSchedule((ConstantSchedule(1.0), schedule), (5,))(7) == 0.1


@pytest.mark.parametrize("result", [None, "0.1", math.nan, True, torch.ones(2, dtype=torch.float64), torch.tensor(1j)], ids=repr)
def test_a_function_that_returns_no_number_is_refused(result: Any) -> None:
    """A number and a tensor as the step are tried."""
    schedule = LambdaSchedule(lambda _: result)
    for step in (3, torch.tensor(3), torch.tensor(3, device="meta")):
        with pytest.raises(
            ValueError, match=r"^LambdaSchedule\(.*\): function must return a finite number, or a 0-d tensor, got "
        ):
            schedule(step)


# errors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConstantSchedule(math.nan), "ConstantSchedule: value must be a finite number, got nan"),
        (lambda: LinearSchedule(0.1, 0.2, 0), "LinearSchedule: steps must be a whole number of at least 1, got 0"),
        (lambda: LinearSchedule(0.1, "0.2", 5), "LinearSchedule: end must be a finite number, got '0.2'"),
        (lambda: LinearSchedule(0.1, 0.2, 5, -1), "LinearSchedule: begin must be a whole number of at least 0, got -1"),
        (lambda: PolynomialSchedule(0.1, 5, 0.0), "PolynomialSchedule: power must be a finite number above 0.0, got 0.0"),
        (lambda: ExponentialSchedule(0.1, 0.9, end="0"), "ExponentialSchedule: end must be a finite number, got '0'"),
        (lambda: CosineSchedule(0.1, 2.5), "CosineSchedule: steps must be a whole number of at least 1, got 2.5"),
        (lambda: CosineRestartsSchedule(0.1, 2, 1.5), "CosineRestartsSchedule: t_mult must be a whole number of at least 1, got 1.5"),
        (lambda: CyclicSchedule(0.1, 0.2, mode="square"), "CyclicSchedule: mode must be one of 'triangular', 'triangular2', 'exp_range', got 'square'"),
        (lambda: CyclicSchedule(0.1, 0.2, scale_fn=2), "CyclicSchedule: scale_fn must be a function, or None, got 2"),
        (lambda: OneCycleSchedule(0.1, 9, 1.5), "OneCycleSchedule: pct_start must be a finite number at least 0.0 and at most 1.0, got 1.5"),
        (lambda: InverseSquareRootSchedule(0.1, -1), "InverseSquareRootSchedule: warmup must be a whole number of at least 0, got -1"),
        (lambda: StepSchedule(0.1, 5, gamma=-0.1), "StepSchedule: gamma must be a finite number at least 0.0, got -0.1"),
        (lambda: StepSchedule(math.inf, 5), "StepSchedule: start must be a finite number, got inf"),
        (lambda: MultiStepSchedule(0.1, (5, 3)), "MultiStepSchedule: milestones must be a tuple of whole numbers of at least 0, none below the one before, got (5, 3)"),
        (lambda: PiecewiseConstantSchedule((), ()), "PiecewiseConstantSchedule: values must be a tuple of at least one finite number, got ()"),
        (lambda: PiecewiseConstantSchedule((1.0,), (5,)), "PiecewiseConstantSchedule: boundaries must be a tuple of 0, one between each two values, got (5,)"),
        (lambda: PiecewiseInterpolateSchedule((1.0, 2.0), (0,)), "PiecewiseInterpolateSchedule: boundaries must be whole numbers that grow from above 0, got (0,)"),
        (lambda: ProductSchedule((1.0, 2.0)), "ProductSchedule: factors must be a tuple of schedules, finite numbers and 0-d tensors, with at least one schedule, got (1.0, 2.0)"),
        (lambda: LambdaSchedule(0.1), "LambdaSchedule: function must be a function, got 0.1"),
        (lambda: WarmupStableDecaySchedule(0.1, 5, 5, 0), "WarmupStableDecaySchedule: decay must be a whole number of at least 1, got 0"),
        (
            lambda: JoinedSchedule((ConstantSchedule(1.0), 0.1), (5,)),
            "JoinedSchedule: schedules must be a tuple of at least one schedule, got (ConstantSchedule(value=1.0), 0.1)",
        ),
        (
            lambda: JoinedSchedule((), ()),
            "JoinedSchedule: schedules must be a tuple of at least one schedule, got ()",
        ),
        (
            lambda: JoinedSchedule((ConstantSchedule(1.0), ConstantSchedule(2.0)), (5, 6)),
            "JoinedSchedule: boundaries must be a tuple of 1, one between each two schedules, got (5, 6)",
        ),
        (
            lambda: JoinedSchedule((ConstantSchedule(1.0),) * 3, (5, 5)),
            "JoinedSchedule: boundaries must be whole numbers that grow from above 0, got (5, 5)",
        ),
        (
            lambda: WarmupCosineSchedule(0.1, 10, 10),
            "WarmupCosineSchedule: steps must be a whole number above warmup=10, got 10",
        ),
        (lambda: WarmupLinearSchedule(0.1, -1, 10), "WarmupLinearSchedule: warmup must be a whole number of at least 0, got -1"),
        (lambda: WarmupConstantSchedule(0.1, 0, math.nan), "WarmupConstantSchedule: start must be a finite number, got nan"),
        (lambda: WarmupSchedule(0.1, 5), "WarmupSchedule: schedule must be a schedule, got 0.1"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_refused_with_its_message(make: Callable[[], Any], message: str) -> None:
    """The message names the value, the field and the rule, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        make()
    assert str(caught.value) == message


def test_lists_become_tuples() -> None:
    """A schedule is a value, so it holds tuples."""
    assert MultiStepSchedule(0.1, [2, 3]) == MultiStepSchedule(0.1, (2, 3))
    assert PiecewiseConstantSchedule([1.0, 2.0], [3]) == PiecewiseConstantSchedule((1.0, 2.0), (3,))
    assert JoinedSchedule([ConstantSchedule(1.0)], []) == JoinedSchedule((ConstantSchedule(1.0),), ())


def test_tensors_scale_and_shift_schedules() -> None:
    """Tensors work on both sides, with the bits of their numbers; like rates, they are equal by identity."""
    decay, peak = fn.LinearSchedule(1.0, 0.0, 10), torch.tensor(0.3, dtype=torch.float64)
    for made, want in ((peak * decay, 0.3 * decay), (decay * peak, decay * 0.3), (peak + decay, 0.3 + decay)):
        assert [made(t) for t in range(12)] == [want(t) for t in range(12)]
        assert torch.equal(made(torch.tensor(3)), want(torch.tensor(3)))
        assert made == made.replace()
        assert made != want
    with pytest.raises(TypeError, match="unsupported operand"):
        torch.ones(2) * decay


def test_a_peak_is_swept_by_vmap() -> None:
    """``vmap`` over the peak rate of Adam, with a schedule, equals a loop of runs."""
    net, x = fn.Linear(3, 1), fn.random.normal(0, (8, 3))

    def trained(peak: Any) -> torch.Tensor:
        step = fn.train_step(net, fn.MSE(), fn.Adam(peak * fn.LinearSchedule(1.0, 0.0, 6)))
        params = net.init(0)
        state = step.opt.init(params)
        for _ in range(5):
            params, state, value = step(params, state, x, x.sum(1, keepdim=True))
        return value

    peaks = torch.tensor([0.003, 0.03, 0.3], dtype=torch.float64)
    torch.testing.assert_close(torch.func.vmap(trained)(peaks), torch.stack([trained(peak) for peak in peaks.tolist()]))


def test_a_scale_of_cycles_must_be_a_number() -> None:
    """The result must be a number for an int and for a tensor as the step; a constant works under ``vmap`` too."""
    schedule = fn.CyclicSchedule(0.0, 1.0, 2, scale_fn=lambda cycle: None)
    for run in (lambda: schedule(1), lambda: torch.func.vmap(schedule)(torch.arange(3))):
        with pytest.raises(ValueError, match=r"CyclicSchedule.*scale_fn must return a finite number, or a 0-d tensor, got None"):
            run()
    constant = fn.CyclicSchedule(0.0, 1.0, 2, scale_fn=lambda cycle: 0.5)
    assert torch.func.vmap(constant)(torch.arange(3)).tolist() == [0.0, 0.25, 0.5]


def test_a_step_beyond_floats_is_refused() -> None:
    """An int beyond the range of floats is no number of updates."""
    with pytest.raises(ValueError, match="step must be a number of at least 0"):
        fn.CosineSchedule(0.1, 10)(10**400)
