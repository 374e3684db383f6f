"""Every law on every case of the catalogue; slow compiling only for cases that take another path through the code."""

import inspect
from collections.abc import Iterable

import pytest
import torch
from branches import compiled_names, values_in
from cases import CASES, Case

import funcnet as fn
from funcnet.testing import LAWS

COMPILED = compiled_names(CASES)
OPTIONS = {"transforms": {"compiled": False}}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_laws_hold(case: Case) -> None:
    """The params of the layer are neither 0 nor 1. A broken law names itself in its error."""
    _try(LAWS, case)


# Sums accumulate in the same way in both half precisions, whose kernels mostly share a template; float16 has its own range, which
# affects numbers. The rest needs --long: strides and transforms take most of the time.
LOWER = {
    torch.float32: ("structure", "pure", "transpose", "rows", "strides", "halves", "transforms", "second order"),
    torch.bfloat16: ("structure", "pure", "transpose", "rows", "halves"),
    torch.float16: ("structure", "transpose"),
}
LONG = {dtype: [law for law in LOWER[torch.float32] if law not in laws] for dtype, laws in LOWER.items()}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("dtype", LOWER, ids=str)
def test_the_laws_hold_below_float64(dtype: torch.dtype, case: Case) -> None:
    """All kernels for these dtypes are tried; law 1 compares with the result in float64."""
    _try(LOWER[dtype], case, dtype=dtype)


@pytest.mark.long
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("dtype", [dtype for dtype, laws in LONG.items() if laws], ids=str)
def test_the_other_laws_hold_in_half_precision(dtype: torch.dtype, case: Case) -> None:
    """These are the laws that the test above leaves out."""
    _try(LONG[dtype], case, dtype=dtype)


def _try(laws: Iterable[str], case: Case, **given: torch.dtype) -> None:
    for law in [law for law in laws if case.batched or law != "rows"]:  # without a batch there are no rows
        LAWS[law](case.layer, case.x, case.params, **given, **OPTIONS.get(law, {}))


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
    """Each is there by itself or within another one."""
    assert layer in {type(value) for name in COMPILED for value in values_in(CASES[name].layer)}
