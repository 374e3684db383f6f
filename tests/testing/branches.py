"""Choose which cases to compile: each that takes a path through the code of funcnet that no earlier one takes."""

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import CodeType, FrameType
from typing import Any
from unittest import mock

import attrs
from cases.making import Case

import funcnet as fn
from funcnet import random
from funcnet.testing.comparison import everything, noise_like, prepared, run
from funcnet.value import Value

PACKAGE = str(Path(fn.__file__).parent)
Step = tuple[CodeType, int, int]
"""A step goes from one instruction of a function to the next; where steps differ, a branch was taken."""


def compiled_names(cases: Mapping[str, Case]) -> set[str]:
    """Return the names of the cases to compile.

    ``Case.compiled`` decides where it is given. Otherwise a case is compiled if it has a layer of a new type, or if its layer
    takes a step in funcnet that no case before it takes, while ``torch.compiler.is_compiling()``.
    """
    seen: set[Any] = set()
    chosen = set()
    for name, case in cases.items():
        new = steps_of(case) | {type(value) for value in values_in(case.layer)}
        if case.compiled or (case.compiled is None and not new <= seen):
            chosen.add(name)
            seen |= new
    return chosen


def steps_of(case: Case) -> set[Step]:
    """Return the steps that the layer's methods take in compiled code."""
    params, x = prepared(case.layer, case.x, case.params, 0)
    gy = noise_like(run(case.layer, params, x, 0)[0], 1)
    work = functools.partial(everything, case.layer, params, x, gy, random.as_key(0))
    with mock.patch("torch.compiler.is_compiling", return_value=True):
        return traced(work)


def traced(work: Callable[[], Any]) -> set[Step]:
    """Return the steps within funcnet, without its tests, while ``work`` runs."""
    steps: set[Step] = set()

    def enter(frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        code, last = frame.f_code, -1
        if not code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False

        def follow(frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
            nonlocal last
            if event == "opcode":
                steps.add((code, last, frame.f_lasti))
                last = frame.f_lasti
            return follow

        return follow

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        work()
    finally:
        sys.settrace(before)
    return steps


def values_in(value: Any) -> Iterator[Value]:
    """Yield a value and the values in its fields, at any depth."""
    if isinstance(value, tuple):
        for one in value:
            yield from values_in(one)
    elif isinstance(value, Value):
        yield value
        for name in attrs.fields_dict(type(value)):
            yield from values_in(getattr(value, name))
