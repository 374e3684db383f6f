"""What holds for every test of an example: the parts of a step are timed over a few rounds; no test judges a time."""

import pytest

from examples.reports import parts


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time the parts of a step over 10 rounds instead of 400."""
    monkeypatch.setattr(parts, "ROUNDS", 10)
