"""The check of wheel and sdist that CI runs on its builds, tested on lists with missing or extra files."""

import importlib.util
from email.message import Message
from pathlib import Path
from types import ModuleType

import pytest

import funcnet

ROOT = Path(__file__).parents[2]
WHEEL = ["funcnet/__init__.py", "funcnet/py.typed", "funcnet-0.2.0.dist-info/METADATA"]


@pytest.fixture
def archives() -> ModuleType:
    """Return the script as a module."""
    spec = importlib.util.spec_from_file_location("archives", ROOT / ".ci" / "archives.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_wheel_holds_the_typed_package_and_nothing_else(archives: ModuleType) -> None:
    """There are no tests, examples or compiled files."""
    assert archives.wheel_problems(WHEEL) == []
    assert archives.wheel_problems([*WHEEL, "tests/conftest.py"]) == ["the wheel holds tests"]
    assert archives.wheel_problems([*WHEEL, "funcnet/a.pyc"]) == ["the wheel holds funcnet/a.pyc"]
    assert archives.wheel_problems([WHEEL[0], WHEEL[2]]) == ["the wheel lacks funcnet/py.typed"]


def test_an_sdist_can_be_tested(archives: ModuleType) -> None:
    """It contains the tests, the documentation and the pinned versions, and these files exist."""
    names = [f"funcnet-0.2.0/{name}" for name in archives.IN_SDIST]
    assert archives.sdist_problems(names) == []
    assert archives.sdist_problems(names[1:]) == ["the sdist lacks README.md"]
    assert [name for name in archives.IN_SDIST if not (ROOT / name).is_file()] == []


def test_the_metadata_is_complete(archives: ModuleType) -> None:
    """It has the version of the source, and the README as Markdown."""
    metadata = Message()
    for field in archives.FIELDS:
        metadata[field] = "0.2.0"
    metadata["Description-Content-Type"] = "text/markdown"
    metadata.set_payload("# funcnet")
    assert archives.metadata_problems(metadata, "0.2.0") == []
    assert archives.metadata_problems(metadata, "0.3.0") == ["the version must be 0.3.0, got 0.2.0"]
    del metadata["Keywords"]
    assert archives.metadata_problems(metadata, "0.2.0") == ["the metadata lacks Keywords"]


def test_the_version_is_read_from_the_source(archives: ModuleType) -> None:
    """The source contains it once."""
    assert archives.version_of((ROOT / "funcnet" / "__init__.py").read_text(encoding="utf-8")) == funcnet.__version__
