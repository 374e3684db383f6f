"""Errors: each message names the caller, the rule with its names and numbers, and the argument."""

import math
import signal
from fractions import Fraction

import pytest
import torch
from attrs import field

import funcnet as fn
from funcnet import errors
from funcnet.value import Value, frozen


@frozen
class Sample(Value):
    """A value with a field for every validator."""

    size: int = field(default=1, validator=errors.size)
    index: int = field(default=0, validator=errors.whole(0))
    axis: int = field(default=-1, validator=errors.whole_number)
    flag: bool = field(default=True, validator=errors.flag)
    rate: float = field(default=0.5, validator=errors.number(0.0, below=1.0))
    slope: float = field(default=1.0, validator=errors.number(above=0.0, at_most=2.0))
    anything: float = field(default=0.0, validator=errors.number())
    mode: str = field(default="mean", validator=errors.one_of("mean", "sum"))
    parts: tuple[str, ...] = field(default=("a",), validator=errors.instances(str, "words", several=True))
    part: str = field(default="a", validator=errors.instances(str, "a word"))
    f: object = field(default=len, validator=errors.function)


DESCRIPTIONS = [
    (torch.zeros(2, 3), "a tensor of shape (2, 3) and dtype torch.float32"),
    (torch.tensor(1), "a tensor of shape () and dtype torch.int64"),
    ({"weight": 1, "bias": 2}, "a dict with the keys 'weight', 'bias'"),
    ({}, "an empty dict"),
    ((1, 2), "a tuple of 2"),
    ([1], "a list of 1"),
    ((), "a tuple of 0"),
    ("relu", "'relu'"),
    (None, "None"),
    (1.5, "1.5"),
]


@pytest.mark.parametrize(("value", "words"), DESCRIPTIONS)
def test_describe_describes_the_argument(value, words):
    """A tensor is described by shape and dtype, a container by its type and length, everything else by its repr."""
    assert errors.describe(value) == words


def test_value_error_says_who_the_rule_and_what_it_got():
    """The message is ``who: rule, got what``."""
    assert str(errors.value_error("Linear", "x must be floating", torch.zeros(2))) == (
        "Linear: x must be floating, got a tensor of shape (2,) and dtype torch.float32"
    )


def test_value_error_uses_words_unchanged():
    """A string given as ``got`` is used unchanged."""
    assert (
        str(errors.value_error("Linear", "x must be floating", "x of shape (2,)"))
        == "Linear: x must be floating, got x of shape (2,)"
    )


def test_value_error_makes_a_value_error():
    """Every such error is a ``ValueError``."""
    assert type(errors.value_error("a", "b", 1)) is ValueError


def test_value_error_shows_a_value_by_its_repr():
    """``who`` may be a value: its repr comes first."""
    assert str(errors.value_error(Sample(size=2), "rule", 1)).startswith("Sample(size=2): rule, got 1")


def test_add_location_adds_one_line_per_level():
    """Each combinator on the way out adds a line, the innermost first."""
    error = ValueError("x")
    errors.add_location(error, "serial, layer 2")
    errors.add_location(error, "branch, layer 'left'")
    assert error.__notes__ == ["  in serial, layer 2", "  in branch, layer 'left'"]


WRONG_FIELDS = [
    ({"size": 0}, "Sample: size must be a whole number of at least 1, got 0"),
    ({"size": -3}, "Sample: size must be a whole number of at least 1, got -3"),
    ({"size": 2.0}, "Sample: size must be a whole number of at least 1, got 2.0"),
    ({"size": True}, "Sample: size must be a whole number of at least 1, got True"),
    ({"size": "4"}, "Sample: size must be a whole number of at least 1, got '4'"),
    ({"size": None}, "Sample: size must be a whole number of at least 1, got None"),
    ({"index": -1}, "Sample: index must be a whole number of at least 0, got -1"),
    ({"axis": 0.0}, "Sample: axis must be a whole number, got 0.0"),
    ({"axis": False}, "Sample: axis must be a whole number, got False"),
    ({"flag": 1}, "Sample: flag must be True or False, got 1"),
    ({"flag": None}, "Sample: flag must be True or False, got None"),
    ({"rate": 1.0}, "Sample: rate must be a finite number at least 0.0 and below 1.0, got 1.0"),
    ({"rate": -0.1}, "Sample: rate must be a finite number at least 0.0 and below 1.0, got -0.1"),
    ({"rate": math.nan}, "Sample: rate must be a finite number at least 0.0 and below 1.0, got nan"),
    ({"rate": True}, "Sample: rate must be a finite number at least 0.0 and below 1.0, got True"),
    ({"slope": 0.0}, "Sample: slope must be a finite number above 0.0 and at most 2.0, got 0.0"),
    ({"slope": 2.1}, "Sample: slope must be a finite number above 0.0 and at most 2.0, got 2.1"),
    ({"anything": math.inf}, "Sample: anything must be a finite number, got inf"),
    ({"anything": "1"}, "Sample: anything must be a finite number, got '1'"),
    ({"anything": 1j}, "Sample: anything must be a finite number, got 1j"),
    ({"size": 2**31}, "Sample: size must be below 2**31, got 2147483648"),
    ({"mode": "none"}, "Sample: mode must be one of 'mean', 'sum', got 'none'"),
    ({"mode": ["mean"]}, "Sample: mode must be one of 'mean', 'sum', got ['mean']"),
    ({"parts": ("a", 1)}, "Sample: parts must be words, got 1"),
    ({"parts": ["a"]}, "Sample: parts must be a tuple of words, got ['a']"),
    ({"part": ("a",)}, "Sample: part must be a word, got ('a',)"),
    ({"part": ()}, "Sample: part must be a word, got ()"),
    ({"f": "len"}, "Sample: f must be a function, got 'len'"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG_FIELDS)
def test_a_validator_refuses_with_its_message(fields, message):
    """The message names the class, the field, the rule and what it got."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the whole message is compared)
        Sample(**fields)
    assert str(caught.value) == message


RIGHT_FIELDS = [
    {"size": 1},
    {"size": 2**31 - 1},
    {"index": 0},
    {"axis": -5},
    {"flag": False},
    {"rate": 0.0},
    {"rate": 0},
    {"rate": Fraction(1, 4)},
    {"slope": 2.0},
    {"slope": 5e-324},
    {"anything": -1e308},
    {"mode": "sum"},
    {"parts": ()},
    {"parts": ("a", "b")},
    {"part": "b"},
    {"f": int},
]


@pytest.mark.parametrize("fields", RIGHT_FIELDS)
def test_a_validator_takes_what_its_rule_allows(fields):
    """The bounds themselves, and every kind of number, pass."""
    assert all(getattr(Sample(**fields), name) == value for name, value in fields.items())


@pytest.mark.parametrize(("value", "whole"), [(1, True), (-1, True), (True, False), (1.0, False), ("1", False), (None, False)])
def test_is_whole_accepts_only_integers(value, whole):
    """Integers are whole numbers; bools and integral floats are not."""
    assert errors.is_whole(value) is whole


@pytest.mark.parametrize(
    ("value", "number"),
    [(1, True), (1.5, True), (True, False), (math.nan, False), (-math.inf, False), (10**400, False), (1j, False), ("1", False)],
)
def test_is_number_accepts_only_finite_reals(value, number):
    """Finite real numbers are numbers; bools, NaN, infinities and ints beyond float64 are not."""
    assert errors.is_number(value) is number


@pytest.mark.parametrize("verb", ["apply", "vjp", "add"])
def test_the_error_of_a_signal_handler_is_not_explained_away(verb, monkeypatch):
    """A handler can raise in any line; a DataLoader's error about a dead worker is a RuntimeError, like a kernel's."""

    def handler(number, frame):
        raise RuntimeError("a worker died")

    def strike(*arguments):
        signal.raise_signal(signal.SIGUSR1)

    net, x = fn.Linear(2, 3), torch.ones(4, 2)
    params = net.init(0)
    y, cache = net.apply(params, x)
    calls = {
        "apply": lambda: net.apply(params, x),
        "vjp": lambda: net.vjp(params, cache, y),
        "add": lambda: fn.tree.add(params, params),
    }
    before = signal.signal(signal.SIGUSR1, handler)
    for name in ("linear", "linear_vjp"):
        monkeypatch.setattr(f"funcnet.layers.linear.linear.kernels.{name}", strike)
    monkeypatch.setattr("funcnet.tree.arithmetic.unflatten", strike)
    try:
        with pytest.raises(RuntimeError, match=r"^a worker died$"):
            calls[verb]()
    finally:
        signal.signal(signal.SIGUSR1, before)
