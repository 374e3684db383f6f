"""Settings of all tests: reproducible examples, one thread because workers share the cores, and the option ``--long``."""

import gc

import pytest
import torch
from hypothesis import settings

settings.register_profile("funcnet", deadline=None, derandomize=True, print_blob=False)
settings.load_profile("funcnet")

torch.set_num_threads(1)

collect_ignore = ["house/wrong_types.py"]
"""A module that type checkers read, and that cannot be imported."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--long``."""
    parser.addoption("--long", action="store_true", help="run the tests marked long too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests marked ``long`` unless ``--long`` is given, whatever ``-m`` says."""
    if config.getoption("--long"):
        return
    long = [item for item in items if item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("long")]


def pytest_collection_finish() -> None:
    """Freeze existing objects: the garbage collector need not traverse modules and tests again."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup() -> None:
    """Seed torch's generator: what a test draws from it does not depend on the tests before, which differ from run to run."""
    torch.default_generator.manual_seed(0)  # torch.manual_seed also formats the stack, for a GPU that may be initialized later


@pytest.fixture
def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run graphs as Dynamo traced them, where the kernels do not matter: Inductor and g++ take three seconds for each."""
    monkeypatch.setattr("funcnet.compilation.inductor.kernel_of", lambda graph, examples: graph)
