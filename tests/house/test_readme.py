"""README: its two commands are quoted exactly, every Python snippet runs, and it names all public names."""

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
from test_docstrings import KINDS, missing, told

import funcnet as fn

ROOT = Path(__file__).parents[2]
PAGES = {name: (ROOT / f"{name}.md").read_text() for name in ("README", "CONTRIBUTING", "ARCHITECTURE")}
README = PAGES["README"]
SNIPPETS = {
    f"{page.lower()}_snippet_{i}": snippet
    for page, text in PAGES.items()
    for i, snippet in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs a snippet as a module in a file, as a reader would, or with ``torchrun`` and one worker."""
    monkeypatch.syspath_prepend(tmp_path)
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)

    def run(name: str) -> ModuleType:
        (tmp_path / f"{name}.py").write_text(SNIPPETS[name])
        return importlib.import_module(name)

    return run


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.compiled] * ("compile(" in text)) for name, text in SNIPPETS.items()]
)
def test_a_snippet_runs(name, run):
    """Each snippet runs by itself with its own imports."""
    assert "import" in SNIPPETS[name]
    assert run(name).__file__.endswith(f"{name}.py")


def test_the_snippets_are_found():
    """README has the loop, a layer, a custom loop and fit, and CONTRIBUTING has two files."""
    assert sum(name.startswith("readme") for name in SNIPPETS) >= 4
    assert sum(name.startswith("contributing") for name in SNIPPETS) == 2


@pytest.mark.parametrize(("number", "name", "kind"), [(0, "Swish", "layer"), (1, "halved", "combinator")])
def test_a_recipe_is_documented_as_public_names_must_be(number, name, kind, run):
    """The layer satisfies the rules for layers, the combinator those for combinators, and each file has a docstring."""
    module = run(f"contributing_snippet_{number}")
    assert module.__doc__
    assert missing(kind, told(getattr(module, name))) == []


def test_contributing_lists_the_sections_that_are_demanded():
    """The sections by kind are those in the test of docstrings."""
    table = dict(re.findall(r"^\| ([\w ]+) \|(.*)\|$", PAGES["CONTRIBUTING"].partition("\n## Docstrings")[2], re.MULTILINE))
    demanded = {kind: sorted(name for name in says if name[0].isupper()) for kind, says in KINDS.items()}
    assert {kind: sorted(re.findall(r"`(\w+)`", table[kind])) for kind in table if kind != "kind"} == {
        kind: names for kind, names in demanded.items() if names
    }


def test_the_layer_of_the_recipe_keeps_the_laws(run):
    """It also refuses inputs that kernels would accept."""
    swish, x = run("contributing_snippet_0").Swish(), fn.random.normal(0, (5, 3))
    fn.testing.check_laws(swish, x, compiled=False)
    for params, got in (({"b": fn.random.normal(0, (3,))}, x), (swish.init(0), x.long())):
        with pytest.raises(ValueError, match=r"^Swish\(\): (params|x) must"):
            swish.apply(params, got)


def test_the_combinator_of_the_recipe_keeps_the_laws_and_says_where(run):
    """The laws include reach; an error inside gets the note of every combinator."""
    halved, x = run("contributing_snippet_1").halved, fn.random.normal(0, (5, 3))
    net = fn.serial(halved(fn.serial(fn.Linear(3, 4), fn.BatchNorm1d(4), fn.Dropout(0.5))))
    fn.testing.check_laws(net, x, compiled=False)
    with pytest.raises(ValueError, match="Linear") as caught:
        net.apply(net.init(0), x[:, :2], 0)
    assert caught.value.__notes__ == ["  in serial, layer 0", "  in Halved", "  in serial, layer 0"]


@pytest.mark.parametrize(
    "command",
    [
        'pip install -c constraints.txt -e ".[examples]" && python examples/quickstart.py',
        'pip install -c constraints.txt -e ".[test]" && pytest',
    ],
)
def test_a_command_stands_alone_on_its_line(command):
    """A newcomer can copy it, and .ci/run finds it."""
    assert command in README.splitlines()


TABLE = dict(re.findall(r"^\| ([^|`]+?) \| (.*`.*) \|$", README[README.index("## API overview") :], re.MULTILINE))
"""The rows of the API overview: the names of each group."""


def groups() -> dict[str, list[str]]:
    """Return the names of ``funcnet.__all__`` by group."""
    listed = (ROOT / "funcnet" / "__init__.py").read_text().partition("__all__")[2]
    found = re.split(r"^    # (.+)\n", listed, flags=re.MULTILINE)[1:]
    return {group: re.findall(r'"(\w+)"', names) for group, names in zip(found[::2], found[1::2], strict=True)}


def test_the_table_names_what_there_is():
    """Its groups are those of ``funcnet.__all__``, complete, and every name in the table exists."""
    assert sorted(TABLE) == sorted(groups())
    absent = {group: [name for name in names if not re.search(rf"\b{name}\b", TABLE[group])] for group, names in groups().items()}
    assert {group: names for group, names in absent.items() if names} == {}
    words = {"mean", "sum", "none", "batch", "as_layer", "inference"}
    known = {*vars(fn), *vars(fn.tree), *vars(fn.random), *vars(fn.testing), *dir(fn.distributed), *words}
    named = re.findall(r"`([A-Za-z_0-9]+)(?:\(\))?`", "\n".join(TABLE.values()))
    assert [name for name in named if name not in known] == []


def test_the_time_of_a_step_is_that_of_the_benchmark():
    """It gives the smallest and largest ratio to torch.nn's on one thread for the three small nets, pure and donated."""
    page = (ROOT / "examples" / "benchmarks" / "results" / "BENCHMARKS.md").read_text()
    row = r"^\| (?:disk_mlp|mlp_adam|pychrot) +\| 1 thread \| +time of funcnet eager, \w+ ÷ torch.nn eager \| +([\d.]+) \|"
    measured = sorted(map(float, re.findall(row, page, re.MULTILINE)))
    said = re.search(r"takes (0\.\d\d) to (0\.\d\d) of torch\.nn's time", README).groups()
    assert len(measured) == 6
    assert [float(ratio) for ratio in said] == pytest.approx([measured[0], measured[-1]], abs=0.0051)


def test_the_names_for_users_of_torch_exist():
    """The class names on both sides of the table exist."""
    section = README.partition("## Coming from PyTorch")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", section, re.MULTILINE)[2:]
    assert len(rows) > 12
    ours = {
        name for _, right in rows for name in re.findall(r"\b[A-Z][A-Za-z]{2,}\b|\b[a-z]+_[a-z_]+(?=\()", right) if name != "None"
    }
    assert [name for name in sorted(ours) if not hasattr(fn, name)] == []
    homes = (torch, torch.nn, torch.optim, torch.optim.lr_scheduler, torch.optim.swa_utils, torch.nn.utils, torch.amp)
    theirs = {name for left, _ in rows for name in re.findall(r"`(?:nn\.)?([A-Z]\w+|\w+_\w+)(?=[`(.])", left)}
    assert len(theirs) > 20
    assert [name for name in sorted(theirs) if not any(hasattr(home, name) for home in homes)] == []
