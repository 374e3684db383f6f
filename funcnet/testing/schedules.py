"""The check of schedules: ``check_schedule`` checks their contract, for custom schedules too."""

import importlib.util
import math
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcnet.arguments import require_whole
from funcnet.errors import MANY, describe, value_error
from funcnet.optim.schedules.base import Schedule

_TOLERANCE = 1e-12


def check_schedule(schedule: Callable[[Any], Any], steps: int = 200, *, compiled: bool = False) -> None:
    """Check the contract of a schedule, at the steps 0 to ``steps - 1``.

    An int gives a finite float, a 0-d tensor a 0-d float64 tensor with the same value to 1e-12, and a numpy number the same float
    as its int. The same step gives the same bits, regardless of earlier calls. Torch's generator is not used, and a tensor of the
    step is not written to. ``torch.func.vmap`` over the steps gives the same as a loop, and the meta device a 0-d float64 tensor.
    A ``Schedule`` also equals its pickled copy, including hash and ``repr``.

    Args:
        schedule: A ``Schedule``, or any function of the step.
        steps: Number of steps to check.
        compiled: Whether to trace it with ``torch.compile`` too, where one graph must work for all steps. This takes seconds.

    Raises:
        AssertionError: If the schedule breaks the contract; the message starts with the rule.
        ValueError: If ``schedule`` is not a function, or ``steps`` is not a whole number from 1 to 2²⁰.

    >>> from funcnet.optim.schedules.interpolation import CosineSchedule
    >>> check_schedule(CosineSchedule(0.1, 100))
    """
    if not callable(schedule):
        raise value_error("check_schedule", "schedule must be a function of the step", schedule)
    require_whole("check_schedule", "steps", 1, steps, at_most=MANY)
    chance = torch.random.get_rng_state()
    rates = [_try(schedule, f"step {step} must have a rate", schedule, step) for step in range(steps)]
    used = not torch.equal(chance, torch.random.get_rng_state())
    _require(not used, schedule, "a schedule must not use torch's global generator", "but it draws from it")
    for step, rate in enumerate(rates):
        right = type(rate) is float and math.isfinite(rate)
        _require(right, schedule, "an int must give a finite float", f"but step {step} gives {describe(rate)}")
    _check_again(schedule, rates)
    _check_tensors(schedule, rates)
    _check_numpy(schedule, rates)
    _check_vmap(schedule, rates)
    _check_meta(schedule)
    if isinstance(schedule, Schedule):
        _check_value(schedule)
    if compiled:
        _check_compiled(schedule, rates)


def _require(condition: bool, schedule: Any, rule: str, got: str) -> None:
    if not condition:
        raise AssertionError(f"{rule}, {got}: {schedule!r}")


def _try(schedule: Any, rule: str, run: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of a function; an error breaks the rule."""
    try:
        return run(*arguments)
    except Exception as error:
        got = f"got {type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise AssertionError(f"{rule}, {got}: {schedule!r}") from error


def _same(rate: float, other: float) -> bool:
    return abs(rate - other) <= _TOLERANCE * max(abs(rate), abs(other), 1e-3)


def _check_again(schedule: Any, rates: list[float]) -> None:
    """Call the schedule in reverse order, to detect one that counts its calls."""
    for step in reversed(range(len(rates))):
        again = schedule(step)
        got = f"but step {step} gives {rates[step]!r}, then {again!r}"
        _require(again == rates[step], schedule, "the same step must give the same number", got)


def _check_scalar(schedule: Any, rule: str, rate: Any) -> None:
    right = isinstance(rate, Tensor) and rate.dim() == 0 and rate.dtype is torch.float64
    _require(right, schedule, rule, f"got {describe(rate)}")


def _check_tensors(schedule: Any, rates: list[float]) -> None:
    for dtype in (torch.int64, torch.int32):
        for step, rate in enumerate(rates):
            now = torch.tensor(step, dtype=dtype)
            found = _try(schedule, "a 0-d tensor must give a 0-d float64 tensor", schedule, now)
            _check_scalar(schedule, "a 0-d tensor must give a 0-d float64 tensor", found)
            got = f"but step {step} gives {rate!r} and {found.item()!r}"
            _require(_same(found.item(), rate), schedule, "a tensor must give the same number as its int", got)
            _require(now.item() == step, schedule, "a schedule must not write to the step", f"step {step} became {now.item()}")


def _check_numpy(schedule: Any, rates: list[float]) -> None:
    if importlib.util.find_spec("numpy") is None:
        return
    import numpy as np  # optional, as for torch

    for step, rate in enumerate(rates):
        found = _try(schedule, "a numpy number must give the same float as its int", schedule, np.int64(step))
        right = isinstance(found, float) and _same(found, rate)
        got = f"but step {step} gives {rate!r} and {describe(found)}"
        _require(right, schedule, "a numpy number must give the same float as its int", got)


def _check_vmap(schedule: Any, rates: list[float]) -> None:
    mapped: Callable[[Tensor], Tensor] = torch.func.vmap(schedule)
    found = _try(schedule, "vmap must agree with a loop", mapped, torch.arange(len(rates)))
    _require(found.dtype is torch.float64, schedule, "vmap must give float64", f"got {describe(found)}")
    for step, (rate, one) in enumerate(zip(rates, found.tolist(), strict=True)):
        got = f"but step {step} gives {one!r} instead of {rate!r}"
        _require(_same(one, rate), schedule, "vmap must agree with a loop", got)


def _check_meta(schedule: Any) -> None:
    rule = "a 0-d tensor on the meta device must give a 0-d float64 tensor there"
    found = _try(schedule, rule, schedule, torch.zeros((), dtype=torch.int64, device="meta"))
    _check_scalar(schedule, rule, found)
    _require(found.is_meta, schedule, rule, f"got one on {found.device}")


def _check_value(schedule: Schedule) -> None:
    try:
        copy = pickle.loads(pickle.dumps(schedule))
    except Exception as error:
        rule = "a schedule must pickle; a function in it must be defined with def in a module, not a lambda"
        raise AssertionError(f"{rule}, got {error}: {schedule!r}") from error
    _require(
        copy == schedule and hash(copy) == hash(schedule), schedule, "a schedule must equal its pickled copy", f"got {copy!r}"
    )
    _require(repr(copy) == repr(schedule), schedule, "a pickled copy must have the repr of the schedule", f"got {copy!r}")


def _check_compiled(schedule: Any, rates: list[float]) -> None:
    try:
        traced: Callable[[Tensor], Any] = torch.compile(schedule, fullgraph=True, backend="aot_eager")
        with torch._dynamo.config.patch(error_on_recompile=True):
            rule = "a schedule must compile as one graph, which serves all steps"
            found = [_try(schedule, rule, traced, torch.tensor(step)) for step in range(len(rates))]
    finally:
        torch.compiler.reset()
    for step, (rate, one) in enumerate(zip(rates, found, strict=True)):
        _check_scalar(schedule, "compiled code must give a 0-d float64 tensor", one)
        got = f"but step {step} gives {one.item()!r} instead of {rate!r}"
        _require(_same(one.item(), rate), schedule, "compiled code must agree with eager code", got)
