"""Fixtures of the tests of compilation."""

import pytest

from funcnet.compilation import inductor


@pytest.fixture
def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run graphs as Dynamo traced them, where the kernels do not matter: Inductor and g++ take three seconds for each."""
    monkeypatch.setattr(inductor, "kernel_of", lambda graph, examples: graph)
