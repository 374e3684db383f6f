"""The pages in docs: each section of each page runs by itself, names exist, links are valid, and tables are complete."""

import importlib
import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

import funcnet as fn
from funcnet.interop import torch_nn

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {path.stem: path.read_text() for path in sorted(DOCS.glob("*.md"))}
TUTORIALS = {"start"}
"""Pages whose snippets together are one program."""
RUN_ELSEWHERE = {"distributed": "tests/distributed/test_distributed_page.py"}
"""Pages that need several processes, and the test file that runs them."""
COMPILES = ("compile(", "scan_steps(", "compiled=True", "donate(")


def snippets(text: str) -> list[str]:
    """Return the Python snippets of a text."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def programs() -> dict[str, str]:
    """Return the programs by page and section: the page's first snippets, with imports, and the section's snippets."""
    found = {}
    for page, text in PAGES.items():
        first, *sections = text.split("\n## ")
        if page in TUTORIALS:
            found[f"{page}: all"] = "\n".join(snippets(text))
        elif page not in RUN_ELSEWHERE:
            parts = {section.splitlines()[0]: snippets(section) for section in sections}
            found |= {f"{page}: {name}": "\n".join([*snippets(first), *part]) for name, part in parts.items() if part}
    return found


PROGRAMS = programs()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs a program as a module in a file, as a reader would, or ``torchrun`` with one worker."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)

    def run(text: str) -> None:
        (tmp_path / "a_page.py").write_text(text)
        importlib.import_module("a_page")

    yield run
    sys.modules.pop("a_page", None)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.compiled] * any(word in text for word in COMPILES))
        for name, text in PROGRAMS.items()
    ],
)
def test_a_section_runs(name, run):
    """The assertions or checks on the page run too."""
    assert re.search(r"assert |testing\.check_", PROGRAMS[name])
    run(PROGRAMS[name])


def test_every_snippet_of_every_page_is_in_a_program():
    """Pages that another file runs are named in it, and every other page with snippets has some in a section."""
    for page, text in PAGES.items():
        if page in RUN_ELSEWHERE:
            assert f"{page}.md" in (ROOT / RUN_ELSEWHERE[page]).read_text()
        else:
            run_here = "\n".join(text for name, text in PROGRAMS.items() if name.startswith(f"{page}: "))
            assert [snippet for snippet in snippets(text) if snippet not in run_here] == [], page


TASKS = {
    "train": "Train a net",
    "save": "Save and load",
    "load": "Save and load",
    "freeze": "Freeze layers",
    "write a layer": "Write a layer",
    "write a loss": "Write a loss",
    "per-group rates": "Give groups of parameters their own rates",
    "mask a transformer": "Mask a transformer",
    "import a torch.nn module": "Import a module of torch.nn",
    "find where a NaN arises": "Find where a NaN arises",
    "use a GPU": "Use a GPU",
    "use torch.func": "Use torch.func",
    "take RNN outputs": "Take the outputs of an RNN",
}


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_two_clicks_from_the_readme(task):
    """README links to the how-to page, whose section has a snippet that runs."""
    assert "](docs/howto.md" in (ROOT / "README.md").read_text()
    assert f"howto: {TASKS[task]}" in PROGRAMS
    assert snippets(PAGES["howto"].split("\n## ")[0]) == []  # the section's snippet runs without others


def rows(text: str) -> list[tuple[str, str]]:
    """Return the rows of the tables of two columns in a text, without their heads."""
    found = re.findall(r"^\| (.+?) \| (.+) \|$", text, re.MULTILINE)
    heads = [i - 1 for i, row in enumerate(found) if row[0] == "---"]
    return [row for i, row in enumerate(found) if i not in heads and row[0] != "---"]


def test_the_names_of_funcnet_in_the_tables_exist():
    """Every name in backquotes in the right columns exists."""
    homes = (fn, fn.tree, fn.random, fn.testing)
    spoken = {"apply", "vjp", "params", "net", "print", "None", "False", "True", "load_state_dict", "step"}
    for page in ("from_torch_nn", "from_jax"):
        names = {name for _, right in rows(PAGES[page]) for name in re.findall(r"`([A-Za-z]\w+)(?=[`(])", right)}
        assert len(names) > 15
        assert [name for name in sorted(names - spoken) if not any(hasattr(home, name) for home in homes)] == []


def test_the_names_of_torch_in_the_tables_exist():
    """They are names of classes and functions, in the left columns of the page's last section."""
    table = rows(PAGES["from_torch_nn"].partition("\n## Names\n")[2])
    homes = (torch, torch.nn, torch.optim, torch.optim.lr_scheduler, torch.optim.swa_utils, torch.nn.utils, torch.amp)
    theirs = {name for left, _ in table for name in re.findall(r"`(?:nn\.)?([A-Z]\w+|\w+_\w+)(?=[`(.])", left)}
    assert len(theirs) > 20
    assert [name for name in sorted(theirs) if not any(hasattr(home, name) for home in homes)] == []


def test_the_names_of_jax_in_the_tables_exist():
    """They are in the left columns of the page ``from_jax``."""
    names = {name for left, _ in rows(PAGES["from_jax"]) for name in re.findall(r"`((?:jax|stax|eqx|optax)\.[\w.]+)", left)}
    assert len(names) > 100
    homes = {"jax": "jax", "stax": "jax.example_libraries.stax", "eqx": "equinox", "optax": "optax"}
    for name in sorted(names):
        first, _, rest = name.partition(".")
        assert found(homes[first], rest), name


def found(home: str, path: str) -> bool:
    """Return whether a module has the attribute or submodule of a dotted path."""
    *outer, last = path.split(".")
    try:
        module = importlib.import_module(".".join([home, *outer]))
    except ImportError:
        return False
    return hasattr(module, last) or importlib.util.find_spec(f"{module.__name__}.{last}") is not None


def whole(page: Path) -> str:
    """Return the text of a page, including the files it includes."""
    include = r"```\{include\} (\S+)\n.*?```"
    return re.sub(include, lambda one: (page.parent / one[1]).read_text(), page.read_text(), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub generates them."""
    heads = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", whole(page), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_links_between_pages_lead_somewhere():
    """They lead to existing files and headings; ``tests/site`` checks the galleries."""
    pages = [
        *[page for page in DOCS.glob("*.md") if "gallery" not in page.name],
        *ROOT.glob("*.md"),
        ROOT / "examples" / "README.md",
    ]
    links = [(page, link) for page in pages for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text())]
    assert len(links) > 100
    for page, link in links:
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), (page.name, link)
        assert not anchor or anchor in anchors(target), (page.name, link)


def test_the_page_of_interop_names_every_function():
    """Every name that ``funcnet.interop.torch_nn`` exports is in a heading or the table."""
    exported = re.findall(r"import (\w+) as \1", Path(torch_nn.__file__).read_text())
    assert len(exported) >= 6
    assert [name for name in exported if f"`{name}`" not in PAGES["interop"]] == []


def test_the_page_of_laws_has_every_law():
    """Each law has a row with its number and name."""
    numbered = re.findall(r"^\| (\d+) \| ([\w ]+) \|", PAGES["laws"], re.MULTILINE)
    assert numbered == [(str(i), name) for i, name in enumerate(fn.testing.LAWS, 1)]


def test_the_files_of_the_architecture_exist():
    """They are in the folder that their table names; in interop every file has its own row or the row of its family."""
    tables = re.findall(
        r"\| `(funcnet/\S+)` \| holds \|\n\| --- \| --- \|\n((?:\|.*\n)+)", (ROOT / "ARCHITECTURE.md").read_text()
    )
    assert len(tables) > 8
    for folder, lines in tables:
        named = {name for row in lines.splitlines() for name in re.findall(r"`(\w+(?:\.py|/))`", row.split(" | ")[0])}
        there = {one.name + "/" * one.is_dir() for one in (ROOT / folder).iterdir() if one.name[:2] != "__"}
        assert named <= there, folder
        assert "interop" not in folder or "| the others |" in lines or there - named <= {"state_dicts.py"}, (
            folder,
            there - named,
        )


def _choices_in(cell: str) -> list[str]:
    """Return the names in a cell of the table of choices."""
    return [cell] if cell in fn.kernels.CHOICES else cell.split(", ")


def test_the_page_of_kernels_has_every_choice():
    """The options are in order. A choice that fails here needs a row in the table of docs/kernels.md."""
    text = PAGES["kernels"].partition("## All choices")[2]
    table = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]
    found = {name: row[1].strip(" |").split(", ") for row in table for name in _choices_in(row[0])}
    assert found == {name: [*one.options] for name, one in fn.kernels.CHOICES.items()}


CITED = re.compile(r"(\w[\w-]*(?:(?:, [\w-]+)* & [\w-]+| et al\.)?) ((?:19|20)\d\d)\b")
"""Authors and year, of which "van den" is no part."""


def test_the_page_of_papers_has_every_paper_that_is_cited_without_its_title():
    """A citation that fails here needs a row in docs/papers.md, or its title in quotes."""
    listed = {citation for row in rows(PAGES["papers"]) for citation in CITED.findall(row[0])}
    cited = set()
    for path in (ROOT / "funcnet").rglob("*.py"):
        for section in re.findall(r"References:\n((?: {8,}.*\n)+)", path.read_text()):
            cited |= set() if '"' in section else set(CITED.findall(" ".join(section.split())))
    assert len(cited) > 60
    assert sorted(cited - listed) == []
