"""Checks in traced code: ``assert condition`` and ``if condition: raise ...`` are assumed to pass.

Sizes are unknown during tracing, so the condition has no value when Python asks for its truth. The instructions that follow show
whether it is a check or another branch.
"""

import dis
from functools import lru_cache
from types import CodeType, FrameType

_BEFORE_JUMP = ("UNARY_NOT", "TO_BOOL", "CACHE", "NOP")
"""Instructions that can precede the conditional jump; before Python 3.13 the jump itself evaluates the truth of the condition."""


@lru_cache(maxsize=64)
def _instructions(code: CodeType) -> list[dis.Instruction]:
    return [*dis.get_instructions(code)]


def passing(frame: FrameType) -> bool | None:
    """Return the truth value that makes a check in a frame pass, or ``None`` if the code is not a check."""
    steps = _instructions(frame.f_code)
    at = next((i for i, step in enumerate(steps) if step.offset == frame.f_lasti), None)
    if at is None:
        return None
    negated = False
    while at < len(steps) and steps[at].opname in _BEFORE_JUMP:
        negated, at = negated ^ (steps[at].opname == "UNARY_NOT"), at + 1
    jump = steps[at] if at < len(steps) else None
    if jump is None or "JUMP" not in jump.opname or "_IF_" not in jump.opname or "NONE" in jump.opname:
        return None
    found = _passing(steps, at, jumps_if="TRUE" in jump.opname)
    return None if found is None else found ^ negated


def is_unpacked_with_star(frame: FrameType) -> bool:
    """Return whether the code in a frame unpacks a value to pass all entries on: ``f(*value)``, ``(1, *value)``."""
    step = next((one for one in _instructions(frame.f_code) if one.offset == frame.f_lasti), None)
    return step is not None and step.opname in ("LIST_EXTEND", "CALL_FUNCTION_EX")


def counts_beside_star(frame: FrameType) -> tuple[int, int] | None:
    """Return the numbers of names before and after the starred one in ``first, *others, last = value``."""
    step = next((one for one in _instructions(frame.f_code) if one.offset == frame.f_lasti), None)
    return (step.arg & 255, step.arg >> 8) if step is not None and step.opname == "UNPACK_EX" and step.arg is not None else None


def _passing(steps: list[dis.Instruction], at: int, *, jumps_if: bool) -> bool | None:
    """Return the value that avoids the block that raises, which is after the jump or its target."""
    target = next((i for i, step in enumerate(steps) if step.offset == steps[at].argval), len(steps))
    if _only_raises(steps[at + 1 :]):
        return jumps_if
    return not jumps_if if _only_raises(steps[target:]) else None


def _only_raises(block: list[dis.Instruction]) -> bool:
    """Return whether a block raises before it jumps, returns or stores anything."""
    for step in block:
        if step.opname in ("RAISE_VARARGS", "LOAD_ASSERTION_ERROR"):
            return True
        if "JUMP" in step.opname or "RETURN" in step.opname or "STORE" in step.opname:
            return False
    return False
