"""Schedules: against torch.optim.lr_scheduler, and that ints and tensors, eager and compiled, give the same numbers."""

import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

from funcnet.optim.schedules import (
    ConstantSchedule,
    CosineSchedule,
    JoinedSchedule,
    LinearSchedule,
    Schedule,
    StepSchedule,
    WarmupCosineSchedule,
)

ALL = [
    ConstantSchedule(0.3),
    LinearSchedule(0.1, 0.7, 5),
    CosineSchedule(0.3, 7),
    CosineSchedule(0.3, 7, end=0.05),
    StepSchedule(0.3, 3),
    StepSchedule(0.3, 2, gamma=0.5),
    JoinedSchedule((LinearSchedule(0.0, 0.3, 4), ConstantSchedule(0.3), StepSchedule(0.3, 2)), (4, 6)),
    WarmupCosineSchedule(0.3, 4, 10, end=0.01),
]
each_schedule = pytest.mark.parametrize("schedule", ALL, ids=repr)
scheduler = torch.optim.lr_scheduler


def torch_rates(lr: float, make: Callable[[Any], Any], steps: int) -> list[float]:
    """Return the rate that torch uses at each step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=lr)
    schedule, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def cosine_then_constant(optimizer: Any) -> Any:
    parts = [scheduler.LinearLR(optimizer, 0.1, 1.0, 4), scheduler.StepLR(optimizer, 3, 0.5)]
    return scheduler.SequentialLR(optimizer, parts, [4])


@pytest.mark.parametrize(
    ("schedule", "lr", "theirs", "steps"),
    [
        (ConstantSchedule(0.3), 0.3, lambda o: scheduler.ConstantLR(o, 1.0), 10),
        (LinearSchedule(0.1, 0.7, 5), 1.0, lambda o: scheduler.LinearLR(o, 0.1, 0.7, 5), 12),
        (CosineSchedule(0.3, 7), 0.3, lambda o: scheduler.CosineAnnealingLR(o, 7), 8),
        (CosineSchedule(0.3, 7, end=0.05), 0.3, lambda o: scheduler.CosineAnnealingLR(o, 7, 0.05), 8),
        (StepSchedule(0.3, 3), 0.3, lambda o: scheduler.StepLR(o, 3), 12),
        (StepSchedule(0.3, 2, gamma=0.5), 0.3, lambda o: scheduler.StepLR(o, 2, 0.5), 12),
        (JoinedSchedule((LinearSchedule(0.1, 1.0, 4), StepSchedule(1.0, 3, 0.5)), (4,)), 1.0, cosine_then_constant, 12),
    ],
    ids=lambda value: repr(value) if isinstance(value, Schedule) else "",
)
def test_the_rates_are_those_of_torch(schedule: Schedule, lr: float, theirs: Any, steps: int) -> None:
    """At every step the schedule gives what torch.optim.lr_scheduler's formula gives."""
    assert [schedule(step) for step in range(steps)] == pytest.approx(torch_rates(lr, theirs, steps), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("schedule", [LinearSchedule(0.1, 0.7, 5), CosineSchedule(0.3, 7, end=0.7)], ids=repr)
def test_the_end_is_held(schedule: Schedule) -> None:
    """After its steps a schedule stays at its end, where CosineAnnealingLR would climb again."""
    assert [schedule(step) for step in (7, 8, 14, 10**9)] == [0.7] * 4


def test_a_cosine_is_half_way_at_half_time() -> None:
    """At half its steps a cosine schedule is at the mean of start and end."""
    assert CosineSchedule(0.3, 10, end=0.1)(5) == pytest.approx(0.2)


def test_a_warmup_climbs_to_its_peak_and_ends_at_its_end() -> None:
    """WarmupCosineSchedule is start at step 0, peak at ``warmup`` and end at ``steps``."""
    schedule = WarmupCosineSchedule(0.3, 4, 10, end=0.01, start=0.1)
    assert [schedule(step) for step in (0, 4, 10, 99)] == pytest.approx([0.1, 0.3, 0.01, 0.01])


def test_a_joined_schedule_counts_each_part_from_its_beginning() -> None:
    """At a boundary the next schedule is at its step 0."""
    first, second = LinearSchedule(1.0, 2.0, 100), LinearSchedule(5.0, 6.0, 10)
    joined = JoinedSchedule((first, second), (3,))
    assert [joined(step) for step in range(5)] == [first(0), first(1), first(2), second(0), second(1)]


@each_schedule
def test_an_int_gives_a_float(schedule: Schedule) -> None:
    """Called with an int, a schedule gives a Python float."""
    assert {type(schedule(step)) for step in range(12)} == {float}


@each_schedule
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_a_tensor_gives_the_same_number_as_a_tensor(schedule: Schedule, dtype: torch.dtype) -> None:
    """Called with a 0-d tensor, a schedule gives a 0-d float64 tensor of the value for the int."""
    got = [schedule(torch.tensor(step, dtype=dtype)) for step in range(12)]
    expected = [torch.tensor(schedule(step), dtype=torch.float64) for step in range(12)]
    torch.testing.assert_close(got, expected, rtol=1e-14, atol=1e-16)


@pytest.mark.compiled
@each_schedule
def test_schedules_compile_whole(schedule: Schedule) -> None:
    """One graph serves every step."""
    torch._dynamo.reset()
    compiled = torch.compile(schedule, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        got = [compiled(torch.tensor(step)) for step in range(12)]
    assert [float(value) for value in got] == pytest.approx([schedule(step) for step in range(12)], rel=1e-14)


@each_schedule
def test_schedules_map_over_steps(schedule: Schedule) -> None:
    """Under vmap a schedule gives each step its value."""
    got = torch.func.vmap(schedule)(torch.arange(12))
    assert got.tolist() == pytest.approx([schedule(step) for step in range(12)], rel=1e-14)


@each_schedule
def test_schedules_are_values(schedule: Schedule) -> None:
    """Repr evaluates back, equal ones hash alike, and pickle keeps them."""
    names = {type(one).__name__: type(one) for one in ALL}
    again = eval(repr(schedule), names)
    assert again == schedule == pickle.loads(pickle.dumps(schedule))
    assert hash(again) == hash(schedule)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ConstantSchedule(math.nan), "ConstantSchedule: value must be a finite number, got nan"),
        (lambda: LinearSchedule(0.1, 0.2, 0), "LinearSchedule: steps must be a whole number of at least 1, got 0"),
        (lambda: LinearSchedule(0.1, "0.2", 5), "LinearSchedule: end must be a finite number, got '0.2'"),
        (lambda: CosineSchedule(0.1, 2.5), "CosineSchedule: steps must be a whole number of at least 1, got 2.5"),
        (lambda: StepSchedule(0.1, 5, gamma=-0.1), "StepSchedule: gamma must be a finite number at least 0.0, got -0.1"),
        (lambda: StepSchedule(math.inf, 5), "StepSchedule: start must be a finite number, got inf"),
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
    ],
)
def test_a_wrong_argument_is_refused_by_sentence(make: Callable[[], Any], sentence: str) -> None:
    """The error says which field of which value breaks which rule, and what came."""
    with pytest.raises(ValueError, match=r".") as caught:
        make()
    assert str(caught.value) == sentence
