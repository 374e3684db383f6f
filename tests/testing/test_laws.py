"""Every law on every entry of the catalogue; compiling, which takes longest, on each that takes another way through the code."""

import inspect

import pytest
from branches import compiled_names, values_in
from cases import CASES, Case

import funcnet as fn
from funcnet.testing import LAWS

TRIALS = [
    pytest.param(law, case, id=f"{law}: {name}")
    for law in LAWS
    for name, case in CASES.items()
    if case.batched or law != "rows"  # without a batch there are no rows
]


COMPILED = compiled_names(CASES)
OPTIONS = {"transforms": {"compiled": False}}


@pytest.mark.parametrize(("law", "case"), TRIALS)
def test_the_law_holds(law: str, case: Case) -> None:
    """The layer keeps the law, with params that are neither 0 nor 1."""
    LAWS[law](case.layer, case.x, case.params, **OPTIONS.get(law, {}))


@pytest.mark.compiled
@pytest.mark.parametrize("name", [name for name in CASES if name in COMPILED])
def test_a_layer_compiles(name: str) -> None:
    """Forward and backward compile as one graph, and give the numbers of eager mode."""
    LAWS["transforms"](*CASES[name][:3], compiled=True)


PUBLIC = [
    value
    for value in vars(fn).values()
    if isinstance(value, type) and issubclass(value, fn.Layer) and not inspect.isabstract(value)
]


@pytest.mark.parametrize("layer", PUBLIC)
def test_every_public_layer_is_in_the_catalogue_and_compiled(layer: type) -> None:
    """By itself or inside another, so that no layer escapes the laws."""
    assert layer in {type(value) for name in COMPILED for value in values_in(CASES[name].layer)}
