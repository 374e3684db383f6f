"""A constant, the table in docs/start.md, the dependency on torch and the classifiers agree; newer versions warn once."""

import importlib
import re
import tomllib
import warnings
from pathlib import Path

import pytest
import torch

from funcnet.kernels import versions

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SECTION = (ROOT / "docs" / "start.md").read_text().partition("\n## Versions\n")[2].partition("\n## ")[0]
HEAD, _, *ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in SECTION.splitlines() if line.startswith("|")]


def test_the_page_has_the_versions_of_torch_that_were_tried():
    """The order is the same, the first version is the oldest supported one, and there is no upper bound."""
    assert tuple(row[0] for row in ROWS) == versions.TRIED_TORCH
    assert f"torch>={versions.TRIED_TORCH[0]}" in PROJECT["dependencies"]
    pinned = re.search(r"^torch==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned[1] in versions.TRIED_TORCH


def test_the_classifiers_are_the_pythons_of_the_table():
    """Each Python version in the table has a release on which all tests passed."""
    pythons = [one.removeprefix("Python ") for one in HEAD[1:]]
    assert [f"Programming Language :: Python :: {one}" for one in pythons] == [
        one for one in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d", one)
    ]
    assert all(any(row[column].startswith("passed") for row in ROWS) for column in range(1, len(HEAD)))


@pytest.mark.parametrize("version", [*versions.TRIED_TORCH, "2.14.9+cpu", "2.0.0", "unknown"])
def test_what_was_tried_is_silent(version):
    """Older releases, and later ones of the same series, are silent too."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        versions.warn_if_newer(version)


@pytest.mark.parametrize("version", ["2.99.0", "3.0.0a0+git1234", "10.1"])
def test_a_newer_torch_warns_at_import_once(version, monkeypatch):
    """The warning names the tested versions and the installed one."""
    monkeypatch.setattr(torch, "__version__", version)
    tried = f"{versions.TRIED_TORCH[0]} to {versions.TRIED_TORCH[-1]}"
    with pytest.warns(UserWarning, match=re.escape(f"tested with torch {tried}, and this is torch {version}, which")) as caught:
        importlib.reload(versions)
    assert len(caught) == 1
