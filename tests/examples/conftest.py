"""Settings of the tests of examples: the parts of a step are timed in a few rounds; no test asserts on a time."""

import pytest

from examples.reports import parts


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time the parts of a step over 10 rounds instead of 400."""
    monkeypatch.setattr(parts, "ROUNDS", 10)
