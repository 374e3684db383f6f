"""Fields: every public value refuses, when it is made, a number, a size or a flag of the wrong kind, by a sentence of its own."""

import math
import typing
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
import torch
from cases import CASES

import funcnet as fn
from funcnet.layer import Value

OTHERS = [
    *[fn.SGD(), fn.Adam(), fn.AdamW(), fn.ClipByGlobalNorm(1.0), fn.ClipByValue(1.0)],
    *[fn.ConstantSchedule(1.0), fn.LinearSchedule(1.0, 0.0, 3), fn.CosineSchedule(1.0, 3), fn.StepSchedule(1.0, 3)],
    fn.JoinedSchedule((fn.ConstantSchedule(1.0), fn.ConstantSchedule(2.0)), (3,)),
    *[fn.Constant(1.0), fn.Uniform(), fn.Normal(), fn.TruncatedNormal(), fn.VarianceScaling(), fn.Orthogonal()],
    *[fn.XavierNormal(), fn.XavierUniform(), fn.KaimingNormal(), fn.KaimingUniform(), fn.LecunNormal(), fn.LecunUniform()],
]


def values_within(value: Any) -> Iterator[Value]:
    """Yield a value, and those that its fields hold."""
    if isinstance(value, Value):
        yield value
    parts = value if isinstance(value, tuple) else [getattr(value, name) for name in fields(value)]
    for part in parts:
        yield from values_within(part)


def fields(value: Any) -> dict[str, attrs.Attribute]:
    """Return the fields that are arguments, by name; none of what is no value."""
    return {one.name: one for one in attrs.fields(type(value)) if one.init} if isinstance(value, Value) else {}


def kinds(annotation: Any) -> set[Any]:
    """Return the types in an annotation, those in its unions and tuples too, but not those of a function's arguments."""
    parts = () if typing.get_origin(annotation) is Callable else typing.get_args(annotation)
    return set().union(*map(kinds, parts)) if parts else {annotation}


FOUND = {
    type(value).__name__: value for top in (*[case.layer for case in CASES.values()], *OTHERS) for value in values_within(top)
}
FIELDS = [(name, one.name) for name, value in FOUND.items() for one in fields(value).values()]
NUMBERS = [(name, one) for name, one in FIELDS if kinds(fields(FOUND[name])[one].type) & {int, float}]
FLAGS = [(name, one) for name, one in FIELDS if bool in kinds(fields(FOUND[name])[one].type)]


def changed(name: str, field: str, got: Any) -> Value:
    """Return the value of this name with another field."""
    return FOUND[name].replace(**{fields(FOUND[name])[field].alias: got})


def test_every_public_value_is_tried() -> None:
    """But for the contracts, which nobody makes."""
    public = {name for name, kind in vars(fn).items() if isinstance(kind, type) and issubclass(kind, Value)}
    assert public - FOUND.keys() == {"Layer", "Loss", "Optimizer", "GradientTransform"}
    assert len(NUMBERS) > 400
    assert len(FLAGS) > 100


@pytest.mark.parametrize(("name", "field"), NUMBERS)
def test_a_number_is_a_number(name: str, field: str) -> None:
    """Neither NaN, nor a bool, nor a word, nor a tensor, nor two numbers of which one is none; the sentence names the field."""
    for got in (math.nan, True, False, "2", "", torch.ones(2), {}, (1, math.nan), (True, 1), ["1", 1]):
        with pytest.raises(ValueError, match=rf"^\w+: .*{field.strip('_')}"):
            changed(name, field, got)


@pytest.mark.parametrize(("name", "field"), FLAGS)
def test_a_flag_is_true_or_false(name: str, field: str) -> None:
    """Neither 0, nor 1, nor a word; the sentence names the field."""
    for got in (0, 1, "True", math.nan, (), torch.tensor(True)):
        with pytest.raises(ValueError, match=rf"^\w+: .*{field}"):
            changed(name, field, got)
