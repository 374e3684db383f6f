"""Every law on every entry of the catalogue."""

import pytest
from cases import CASES, Case

from funcnet.testing import LAWS

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
