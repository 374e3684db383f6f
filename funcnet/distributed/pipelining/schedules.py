"""Schedules: the order in which each stage of a pipeline works on the micro-batches.

A schedule is a tuple of actions on micro-batches for each stage: ``F`` forward, ``B`` backward, ``W`` gradients of params.

    gpipe, 1f1b     B is the whole backward pass            bubble (p - 1) / (m + p - 1)
    zero_bubble     B computes only gx, W the rest later    bubble (p - 1)(F + B - W) / (m (F + B + W) + (p - 1)(F + B - W))

p is the number of stages and m the number of micro-batches; F, B and W are the times of the three actions. Stage s (from 0) has
at most p - s micro-batches between F and B with 1f1b and zero_bubble, and all m with gpipe. zero_bubble keeps the data for W of
at most p micro-batches, as many as the first stage of 1f1b keeps.

References: Huang et al. 2019 (GPipe); Narayanan et al. 2021 (1F1B); Qi et al. 2023, "Zero bubble pipeline parallelism" (ZB-H1).
"""

from collections.abc import Callable
from math import prod
from typing import NamedTuple

from funcnet.errors import describe, is_number, is_whole, value_error

_MOST_ACTIONS = 1_000_000
"""Largest product of stages and micro-batches that is simulated, which takes seconds."""


class Action(NamedTuple):
    """An action of a stage on one micro-batch: ``F``, ``B`` or ``W``."""

    kind: str
    batch: int

    def __str__(self) -> str:
        return f"{self.kind}{self.batch}"


class Timed(NamedTuple):
    """An action with its start and end times."""

    action: Action
    start: float
    end: float


def _gpipe(stage: int, stages: int, batches: int) -> list[Action]:
    """All forward passes, then all backward passes."""
    return [Action(kind, i) for kind in "FB" for i in range(batches)]


def _one_forward_one_backward(stage: int, stages: int, batches: int) -> list[Action]:
    """One forward pass for each later stage, then alternating forward and backward passes."""
    ahead = min(stages - 1 - stage, batches)
    actions = [Action("F", i) for i in range(ahead)]
    for i in range(batches):
        actions += [Action("F", ahead + i)] * (ahead + i < batches) + [Action("B", i)]
    return actions


def _zero_bubble(stage: int, stages: int, batches: int) -> list[Action]:
    """Like 1f1b, with W of a micro-batch delayed by one backward pass for each earlier stage; the remaining Ws come last."""
    actions = []
    for one in _one_forward_one_backward(stage, stages, batches):
        actions.append(one)
        if one.kind == "B" and one.batch >= stage:
            actions.append(Action("W", one.batch - stage))
    return actions + [Action("W", i) for i in range(max(0, batches - stage), batches)]


SCHEDULES: dict[str, Callable[[int, int, int], list[Action]]] = {
    "gpipe": _gpipe,
    "1f1b": _one_forward_one_backward,
    "zero_bubble": _zero_bubble,
}


def has_halves(schedule: str) -> bool:
    """Return whether a schedule computes the halves of the backward pass separately."""
    return schedule == "zero_bubble"


def require_schedule(who: str, schedule: object) -> None:
    """Raise ``ValueError`` for a schedule with an unknown name."""
    if not isinstance(schedule, str) or schedule not in SCHEDULES:
        names = ", ".join(map(repr, SCHEDULES))
        raise value_error(who, f"schedule must be one of {names}", repr(schedule))


def _require_counts(who: str, **counts: object) -> None:
    for name, count in counts.items():
        if not is_whole(count) or count < 1:  # type: ignore[operator]  # it is a number
            raise value_error(who, f"{name} must be a whole number of at least 1", describe(count))
    if prod([int(count) for count in counts.values()]) > _MOST_ACTIONS:  # type: ignore[call-overload]  # they are numbers
        rule = f"{' times '.join(counts)} must be at most {_MOST_ACTIONS}"
        raise value_error(who, rule, " times ".join(map(describe, counts.values())))


def actions_of(schedule: str, stages: int, microbatches: int) -> tuple[tuple[Action, ...], ...]:
    """Return the actions of each stage, in order."""
    return tuple([tuple(SCHEDULES[schedule](stage, stages, microbatches)) for stage in range(stages)])


def timed_by(costs: dict[str, float], actions: tuple[tuple[Action, ...], ...]) -> list[list[Timed]]:
    """Return the start and end of each action, if an action takes the cost of its kind and messages take no time."""
    ends: dict[tuple[str, int, int], float] = {}
    done: list[list[Timed]] = [[] for _ in actions]
    while any(len(row) < len(own) for row, own in zip(done, actions, strict=True)):
        for stage, own in enumerate(actions):
            while len(done[stage]) < len(own):
                action = own[len(done[stage])]
                needed = _needed(action, stage, len(actions))
                if needed is not None and needed not in ends:
                    break
                start = max(done[stage][-1].end if done[stage] else 0, ends.get(needed, 0) if needed else 0)
                end = ends[action.kind, action.batch, stage] = start + costs[action.kind]
                done[stage].append(Timed(action, start, end))
    return done


def _needed(action: Action, stage: int, stages: int) -> tuple[str, int, int] | None:
    """Return the other stage's action whose message an action needs."""
    if action.kind == "F":
        return ("F", action.batch, stage - 1) if stage else None
    return ("B", action.batch, stage + 1) if action.kind == "B" and stage + 1 < stages else None


def _simulated(
    who: str, schedule: str, stages: int, microbatches: int, forward: float, input_half: float, params_half: float
) -> list[list[Timed]]:
    require_schedule(who, schedule)
    _require_counts(who, stages=stages, microbatches=microbatches)
    for name, cost in {"forward": forward, "input_half": input_half, "params_half": params_half}.items():
        if not is_number(cost) or cost <= 0:
            raise value_error(who, f"{name} must be a finite number above 0", describe(cost))
    back = input_half if has_halves(schedule) else input_half + params_half
    stages, microbatches = int(stages), int(microbatches)  # numpy integers do not repeat lists
    return timed_by({"F": forward, "B": back, "W": params_half}, actions_of(schedule, stages, microbatches))


def idle_share(rows: list[list[Timed]]) -> float:
    """Return the fraction of the time of all stages, from the first start to the last end, that is spent waiting."""
    first, last = min(row[0].start for row in rows), max(row[-1].end for row in rows)
    busy = sum([one.end - one.start for row in rows for one in row])
    return 1 - busy / (len(rows) * (last - first))


def bubble(
    schedule: str = "1f1b",
    stages: int = 4,
    microbatches: int = 4,
    forward: float = 1.0,
    input_half: float = 1.0,
    params_half: float = 1.0,
) -> float:
    """Return the fraction of a step that the stages of a pipeline spend waiting.

        bubble = (p - 1) / (m + p - 1)      for "gpipe" and "1f1b", with p stages and m micro-batches

    It is counted in a simulated step, in which all stages take the same time and messages take none.

    Args:
        schedule: ``"gpipe"``, ``"1f1b"`` or ``"zero_bubble"``.
        stages: Number of stages.
        microbatches: Number of micro-batches.
        forward: Time of the forward pass of a micro-batch in a stage, in any unit.
        input_half: Time of the half of the backward pass that computes the gradient of the stage's input, in the same unit.
        params_half: Time of the half that computes the gradients of params, in the same unit.

    Raises:
        ValueError: If ``schedule`` is unknown, a count is below 1 or their product above 10⁶, or a time is not above 0.

    >>> round(bubble("1f1b", 4, 8), 3), round(bubble("zero_bubble", 4, 8), 3)
    (0.273, 0.111)
    """
    return idle_share(_simulated("bubble", schedule, stages, microbatches, forward, input_half, params_half))


def timeline(schedule: str = "1f1b", stages: int = 4, microbatches: int = 4) -> str:
    """Draw a schedule as text: the actions of each stage of a pipeline over time.

    A row is a stage, and a column is a unit of time. ``F`` is a forward pass and takes one unit; ``B`` is a backward pass and
    takes two. With ``"zero_bubble"``, ``B`` computes the gradient of the input, ``W`` computes the gradients of params, and each
    takes one unit. ``==`` continues an action, and ``.`` is a wait.

    Args:
        schedule: ``"gpipe"``, ``"1f1b"`` or ``"zero_bubble"``.
        stages: Number of stages.
        microbatches: Number of micro-batches.

    Raises:
        ValueError: If ``schedule`` is unknown, or a count is below 1 or their product above 10⁶.

    >>> print(timeline("1f1b", 2, 2))
    stage 0  F0 F1 .  .  B0 == .  B1 ==
    stage 1  .  F0 B0 == F1 B1 == .  .
    """
    rows = _simulated("timeline", schedule, stages, microbatches, 1, 1, 1)
    width, length = len(str(int(microbatches) - 1)) + 1, int(max(row[-1].end for row in rows))
    return "\n".join([f"stage {i:<{len(str(len(rows) - 1))}}  {_drawn(row, width, length)}" for i, row in enumerate(rows)])


def _drawn(row: list[Timed], width: int, length: int) -> str:
    cells = ["."] * length
    for action, start, end in row:
        cells[int(start) : int(end)] = [str(action), *["=" * width] * (int(end - start) - 1)]
    return " ".join([cell.ljust(width) for cell in cells]).rstrip()
