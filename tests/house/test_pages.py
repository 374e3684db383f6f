"""The pages for users of other libraries: each section runs by itself, after the imports of its page."""

import importlib
import importlib.util
import re
from pathlib import Path

import pytest

import funcnet as fn
from funcnet.interop import torch_nn

DOCS = Path(__file__).parents[2] / "docs"


def snippets(text: str) -> list[str]:
    """Return the Python snippets of a text."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def programs() -> dict[str, str]:
    """Return the programs by page and section: the page's first snippets, the imports, followed by those of the section."""
    found = {}
    for page in ("from_torch_nn", "from_jax", "interop", "kernels"):
        first, *sections = (DOCS / f"{page}.md").read_text().split("\n## ")
        for section in sections:
            if parts := snippets(section):
                found[f"{page}: {section.splitlines()[0]}"] = "\n".join([*snippets(first), *parts])
    return found


PROGRAMS = programs()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.compiled] * ("compile(" in text)) for name, text in PROGRAMS.items()]
)
def test_a_section_runs(name, tmp_path, monkeypatch):
    """The assertions on the page, which compare both libraries, hold."""
    monkeypatch.chdir(tmp_path)
    assert "assert" in PROGRAMS[name]
    exec(compile(PROGRAMS[name], name, "exec"), {"__name__": "page"})


def rows(page: str) -> list[tuple[str, str]]:
    """Return the rows of a page's two-column tables, without their headers."""
    found = re.findall(r"^\| (.+?) \| (.+) \|$", (DOCS / f"{page}.md").read_text(), re.MULTILINE)
    heads = [i - 1 for i, row in enumerate(found) if row[0] == "---"]
    return [row for i, row in enumerate(found) if i not in heads and row[0] != "---"]


def test_the_names_of_funcnet_in_the_tables_exist():
    """Every name in backquotes in the right columns exists."""
    homes = (fn, fn.tree, fn.random, fn.testing)
    spoken = {"apply", "vjp", "params", "net", "print", "None", "False", "True"}
    for page in ("from_torch_nn", "from_jax"):
        names = {name for _, right in rows(page) for name in re.findall(r"`([A-Za-z]\w+)(?=[`(])", right)}
        assert len(names) > 15
        assert [name for name in sorted(names - spoken) if not any(hasattr(home, name) for home in homes)] == []


def test_the_names_of_jax_in_the_tables_exist():
    """Every name in the left columns of the JAX page exists."""
    names = {name for left, _ in rows("from_jax") for name in re.findall(r"`((?:jax|stax|eqx|optax)\.[\w.]+)", left)}
    assert len(names) > 100
    homes = {"jax": "jax", "stax": "jax.example_libraries.stax", "eqx": "equinox", "optax": "optax"}
    for name in sorted(names):
        first, _, rest = name.partition(".")
        assert found(homes[first], rest), name


def found(home: str, path: str) -> bool:
    """Tell whether a module has the attribute or submodule of a dotted path."""
    *outer, last = path.split(".")
    try:
        module = importlib.import_module(".".join([home, *outer]))
    except ImportError:
        return False
    return hasattr(module, last) or importlib.util.find_spec(f"{module.__name__}.{last}") is not None


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, in GitHub's format."""
    heads = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_links_between_pages_lead_somewhere():
    """They lead to existing files and headings."""
    pages = [*DOCS.glob("*.md"), *DOCS.parent.glob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text())]
    assert len(links) > 30
    for page, link in links:
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), (page.name, link)
        assert not anchor or anchor in anchors(target), (page.name, link)


def test_the_page_of_interop_names_every_function():
    """Every function exported by ``funcnet.interop.torch_nn`` is in a heading or the table."""
    page = (DOCS / "interop.md").read_text()
    exported = re.findall(r"import (\w+) as \1", Path(torch_nn.__file__).read_text())
    assert len(exported) >= 6
    assert [name for name in exported if f"`{name}`" not in page] == []


def test_the_files_of_the_architecture_exist():
    """The files are in the folder that heads their table; in interop every file has a line of its own or of its family."""
    tables = re.findall(
        r"\| `(funcnet/\S+)` \| holds \|\n\| --- \| --- \|\n((?:\|.*\n)+)", (DOCS.parent / "ARCHITECTURE.md").read_text()
    )
    assert len(tables) > 8
    for folder, lines in tables:
        named = {name for row in lines.splitlines() for name in re.findall(r"`(\w+(?:\.py|/))`", row.split(" | ")[0])}
        there = {one.name + "/" * one.is_dir() for one in (DOCS.parent / folder).iterdir() if one.name[:2] != "__"}
        assert named <= there, folder
        assert "interop" not in folder or "| the others |" in lines or there - named <= {"state_dicts.py"}, (
            folder,
            there - named,
        )


def _choices_in(cell: str) -> list[str]:
    """Return the names in a cell of the table of choices."""
    return [cell] if cell in fn.kernels.CHOICES else cell.split(", ")


def test_the_page_of_kernels_has_every_choice():
    """Each choice lists its options ordered by size. A choice that fails here needs a row in the table of docs/kernels.md."""
    text = (DOCS / "kernels.md").read_text().partition("## All choices")[2]
    table = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]
    found = {name: row[1].strip(" |").split(", ") for row in table for name in _choices_in(row[0])}
    assert found == {name: [*one.options] for name, one in fn.kernels.CHOICES.items()}
