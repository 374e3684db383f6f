"""The README: its two commands are there word for word, every snippet runs, and its table names what there is."""

import importlib
import re
from pathlib import Path

import pytest

import funcnet as fn

README = (Path(__file__).parents[2] / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize(
    "number",
    [pytest.param(i, marks=[pytest.mark.compiled] * ("compile(" in snippet)) for i, snippet in enumerate(SNIPPETS)],
)
def test_a_snippet_runs(number, tmp_path, monkeypatch):
    """Each one on its own, as it stands, as a module in a file, as a reader would try it."""
    (tmp_path / f"snippet_{number}.py").write_text(SNIPPETS[number])
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.import_module(f"snippet_{number}").fn is fn


def test_the_snippets_are_found():
    """There are snippets to run: the loop, a layer, a loop of one's own, and fit."""
    assert len(SNIPPETS) >= 4


@pytest.mark.parametrize(
    "command",
    [
        'pip install -c constraints.txt -e ".[examples]" && python examples/quickstart.py',
        'pip install -c constraints.txt -e ".[test]" && pytest',
    ],
)
def test_a_command_stands_alone_on_its_line(command):
    """So that a newcomer copies it, and .ci/run finds it."""
    assert command in README.splitlines()


def test_the_table_names_what_there_is():
    """Every name in the table exists, and every public name of the package is in the README."""
    table = re.findall(r"`([A-Za-z_0-9]+)(?:\(\))?`", README[README.index("## API overview") :])
    known = {
        *vars(fn),
        *vars(fn.tree),
        *vars(fn.random),
        *vars(fn.testing),
        "mean",
        "sum",
        "none",
        "batch",
        "as_layer",
        "inference",
        "funcnet",
    }
    assert [name for name in table if name not in known] == []
    assert sorted(name for name in fn.__all__ if not re.search(rf"\b{name}\b", README)) == []
