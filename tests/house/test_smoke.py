"""The smoke test of the wheel, which CI runs separately, detects missing files and versions other than the oldest."""

import importlib.util
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def smoke():
    """Return the script as a module."""
    spec = importlib.util.spec_from_file_location("smoke", ROOT / ".ci" / "smoke.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("file", ["py.typed", "layers/linear/adaptive_softmax.py", "kernels/__init__.py"])
def test_a_file_that_is_missing_is_named(file, smoke, tmp_path):
    """This includes files that are not modules."""
    installed = tmp_path / "funcnet"
    shutil.copytree(ROOT / "funcnet", installed, ignore=shutil.ignore_patterns("__pycache__"))
    smoke.check_files(ROOT, installed)
    (installed / file).unlink(missing_ok=False)
    with pytest.raises(AssertionError, match=rf"only one of them has .*{file}"):
        smoke.check_files(ROOT, installed)


def test_newer_versions_than_the_oldest_are_refused(smoke, tmp_path):
    """Otherwise the environment would not test the lower bound in pyproject.toml."""
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["torch>=2", "attrs>=1.0"]')
    with pytest.raises(AssertionError, match=r"attrs must be of version 1\.0, got"):
        smoke.check_versions(tmp_path)


def test_only_modules_that_subclass_an_extra_may_need_it(smoke, monkeypatch):
    """Without scikit-learn, only the modules of the estimators may fail to import."""
    names = ["funcnet.interop.sklearn", "funcnet.interop.sklearn.rows", "funcnet.interop.sklearn_more", "funcnet.interop"]
    assert [smoke.lacks_extra(name) for name in names] == [False] * 4
    monkeypatch.setitem(smoke.SUBCLASSED, "funcnet.interop.sklearn", "no_such_package")
    assert [smoke.lacks_extra(name) for name in names] == [True, True, False, False]
