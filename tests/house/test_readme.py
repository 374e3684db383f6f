"""README has its two commands word for word, every Python snippet runs, and all names in it exist."""

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest
from house import docstring_rules as rules

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
    """Return a function that runs a snippet as a file, like a reader would, or with ``torchrun`` and one worker."""
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
    """These are the loop and a layer in README, and two files in CONTRIBUTING."""
    assert sum(name.startswith("readme") for name in SNIPPETS) == 2
    assert sum(name.startswith("contributing") for name in SNIPPETS) == 2


@pytest.mark.parametrize(("number", "name", "kind"), [(0, "Swish", "layer"), (1, "Halved", "layer"), (1, "halved", "combinator")])
def test_a_recipe_is_documented_as_public_names_must_be(number, name, kind, run):
    """The layer and the combinator satisfy the rules for their kinds, and each file has a docstring."""
    module = run(f"contributing_snippet_{number}")
    assert module.__doc__
    value = getattr(module, name)
    assert rules.problems(kind, inspect.getdoc(value), value) == []


KINDS = {
    "layer": fn.Linear,
    "combinator": fn.residual,
    "block": fn.mlp,
    "loss": fn.MSE,
    "optimizer": fn.SGD,
    "transform": fn.Trace,
    "schedule": fn.CosineSchedule,
    "initializer": fn.Normal,
    "metric": fn.F1,
}
"""A public name of each kind."""


@pytest.mark.parametrize("kind", KINDS)
def test_contributing_lists_the_sections_that_are_demanded(kind):
    """For each kind, the list equals the sections that the rules miss in a docstring without sections."""
    table = dict(re.findall(r"^\| (\w+) \|.*\| (.*?) ?\|$", PAGES["CONTRIBUTING"].partition("\n## Docstrings")[2], re.MULTILINE))
    found = " ".join(rules.problems(kind, "Do something.", KINDS[kind]))
    assert re.findall(r"`(\w+)`", table[kind]) == [
        name for name in re.findall(r"section (\w+) is missing", found) if name != "Raises"
    ]


def test_the_layer_of_the_recipe_keeps_the_laws(run):
    """It also refuses inputs that kernels would accept."""
    swish, x = run("contributing_snippet_0").Swish(), fn.random.normal(0, (5, 3))
    fn.testing.check_laws(swish, x, compiled=False)
    for params, got in (({"b": fn.random.normal(0, (3,))}, x), (swish.init(0), x.long())):
        with pytest.raises(ValueError, match=r"^Swish\(\): (params|x) must"):
            swish.apply(params, got)


def test_the_combinator_of_the_recipe_keeps_the_laws_and_says_where(run):
    """The laws include reach; an error inside has a note from every combinator."""
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


def test_the_table_names_what_exists():
    """This covers the table of families, and funcnet's functions in tables of other sections."""
    table = README.partition("## What is in it")[2]
    known = {*vars(fn), *dir(fn)}
    names = re.findall(r"`(?:fn\.)?([A-Za-z_0-9]+)`", table)
    assert len(names) > 60
    assert [name for name in names if name not in known] == []
    called = re.findall(r"fn\.(\w+)", README)
    assert [name for name in called if name not in known] == []


def test_the_changelog_has_the_form_of_keepachangelog():
    """Unreleased changes come first, then the package's version with its date; the kinds of changes are in order."""
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert versions[0] == "[Unreleased]"
    assert re.fullmatch(rf"\[{re.escape(fn.__version__)}\] - \d{{4}}-\d\d-\d\d", versions[1])
    kinds = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert kinds == [kind for kind in ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security") if kind in kinds]


def test_the_readme_is_short():
    """Longer text goes into docs."""
    assert len(README.splitlines()) <= 170


def test_the_time_of_a_step_is_that_of_the_benchmark():
    """README has the smallest and largest ratio to torch.nn on one thread, for the three small nets, pure and donated."""
    page = (ROOT / "examples" / "benchmarks" / "results" / "BENCHMARKS.md").read_text()
    row = r"^\| (?:disk_mlp|mlp_adam|pychrot) +\| 1 thread \| +time of funcnet eager, \w+ ÷ torch.nn eager \| +([\d.]+) \|"
    measured = sorted(map(float, re.findall(row, page, re.MULTILINE)))
    said = re.search(r"takes (0\.\d\d) to (0\.\d\d) of torch\.nn's time", README).groups()
    assert len(measured) == 6
    assert [float(ratio) for ratio in said] == pytest.approx([measured[0], measured[-1]], abs=0.0051)
