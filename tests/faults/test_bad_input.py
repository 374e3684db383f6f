"""Bad input, as a property: one argument of a working call of each public callable is replaced, and the error must explain it."""

import inspect
from typing import Any

import pytest
import torch
from calling import Call
from calls_of_distributed import CALLS as DISTRIBUTED
from calls_of_functions import all_of_functions
from calls_of_interop import CALLS as INTEROP
from calls_of_training import CALLS as TRAINING
from calls_of_values import all_of_values
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spoiling import in_place_of
from verdicts import judge, written

import funcnet as fn
from funcnet import distributed

CALLS = [*all_of_values(), *all_of_functions(), *TRAINING, *INTEROP, *DISTRIBUTED]
PLACES = [(call, argument) for call in CALLS for argument in call.arguments]

ABSTRACT = {
    name
    for name, value in vars(fn).items()
    if inspect.isclass(value) and (inspect.isabstract(value) or value in (fn.Value, fn.Callback))
}
RESULTS = {"Summary", "Drawing", "Fit", "RateRange", "Epoch", "Step"}
"""Classes that only functions of the package instantiate."""


def faults(count: int) -> list[str]:
    """Draw calls with a replaced argument, and return the faults."""
    found: list[str] = []

    @settings(max_examples=count, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def one(data: st.DataObject) -> None:
        call, argument = data.draw(st.sampled_from(PLACES))
        bad = data.draw(in_place_of(call.name, argument, call.arguments[argument]))
        verdict = judge(call, argument, bad)
        found.extend([f"{written(call, argument, bad)}: {verdict}"] if verdict else [])

    one()
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.long)])
def test_a_spoilt_argument_gives_a_right_result_or_a_right_error(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    """A ``ValueError`` or ``TypeError`` names caller, rule and value; other errors, and NaN from finite numbers, are faults."""
    found = faults(count)
    capsys.readouterr()  # discard the output of ``print``, which is one of the arguments
    assert not found, "\n".join(found)


def test_every_public_callable_has_a_call() -> None:
    """Add a new name to a catalogue of cases or to ``calls_of_functions``."""
    known = {word.partition(".")[0].partition("(")[0] for call in CALLS for word in (call.name, *call.names)}
    public = {name for name in fn.__all__ if callable(getattr(fn, name))}
    assert sorted(public - known - ABSTRACT - RESULTS) == []
    assert {*distributed.__all__} - {call.name for call in DISTRIBUTED} == {"WorkerError"}


@pytest.mark.filterwarnings("ignore")
def test_every_call_works_unspoilt(capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise an error could be about an argument other than the replaced one."""
    for call in CALLS:
        call()
    capsys.readouterr()


def _refused(words: str, kind: type[Exception] = ValueError) -> Any:
    def f(x: Any) -> None:
        if x != 1:
            raise kind(words)

    return f


@pytest.mark.parametrize(
    ("f", "verdict"),
    [
        (_refused("f: x must be 1, got 2"), ""),
        (_refused("f: x must be 1, got 2", TypeError), ""),
        (_refused("g: x must be 1, got 2"), "of someone else"),
        (_refused("wrong x"), "no sentence"),
        (_refused("f: x must be 1, got 2", KeyError), "bare KeyError"),
        (_refused("f: x must be 1, got 2", RuntimeError), "bare RuntimeError"),
        (lambda x: torch.tensor(0.0 if x == 1 else float("nan")), "NaN"),
        (lambda x: torch.tensor(1.0), ""),
    ],
)
def test_the_judge_tells_right_from_wrong(f: Any, verdict: str) -> None:
    """The property can therefore fail."""
    found = judge(Call("f", f, {"x": 1}), "x", 2)
    assert found.startswith(verdict)
    assert bool(found) is bool(verdict)
