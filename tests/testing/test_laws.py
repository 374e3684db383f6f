"""Every law on every entry of the catalogue."""

from typing import Any

import attrs
import pytest
from cases import CASES, Case

import funcnet as fn
from funcnet.testing import LAWS
from funcnet.value import Value

TRIALS = [
    pytest.param(law, case, id=f"{law}: {name}")
    for law in LAWS
    for name, case in CASES.items()
    if case.batched or law != "rows"  # without a batch there are no rows
]


@pytest.mark.parametrize(("law", "case"), TRIALS)
def test_the_law_holds(law: str, case: Case) -> None:
    """The layer keeps the law, with params that are neither 0 nor 1."""
    LAWS[law](case.layer, case.x, case.params)


def layers_within(value: Any) -> set[type]:
    """Return the types of a layer and of the layers that its fields hold."""
    if isinstance(value, tuple):
        return set().union(*map(layers_within, value))
    if not isinstance(value, Value):
        return set()
    fields = [getattr(value, name) for name in attrs.fields_dict(type(value))]
    return {type(value)}.union(*map(layers_within, fields))


PUBLIC = [
    value for value in vars(fn).values() if isinstance(value, type) and issubclass(value, fn.Layer) and value is not fn.Layer
]


@pytest.mark.parametrize("layer", PUBLIC)
def test_every_public_layer_is_in_the_catalogue(layer: type) -> None:
    """By itself or inside of another, so that no layer escapes the laws."""
    assert layer in set().union(*[layers_within(case.layer) for case in CASES.values()])
