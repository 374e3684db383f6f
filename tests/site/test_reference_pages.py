"""The pages of the site: each group of public names has one, navigation lists every page once, and links are rewritten."""

import re
from pathlib import Path

import pytest

import funcnet as fn
from docs._ext import public_names
from docs._ext.page_links import expanded, rewritten

DOCS = Path(__file__).parents[2] / "docs"
API = {path.stem: path.read_text() for path in sorted((DOCS / "api").glob("*.md"))}
TREE = re.compile(r"^```{toctree}\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_each_group_has_a_page_that_shows_it():
    """The page has the name of the group, and no other page shows the group."""
    shown = {name: re.findall(r"^```{family} (.+)$", text, re.MULTILINE) for name, text in API.items() if name != "index"}
    assert shown == {public_names.slug(group): [group] for group in public_names.groups()}


def test_the_overview_has_each_group_once():
    """The overview is on the first page of the reference."""
    shown = [group for line in re.findall(r"^```{overview} (.+)$", API["index"], re.MULTILINE) for group in line.split(", ")]
    assert sorted(shown) == sorted(public_names.groups())


def test_the_groups_have_all_public_names():
    """The groups follow the order of ``funcnet.__all__``."""
    assert [name for names in public_names.groups().values() for name in names] == fn.__all__


def test_each_module_with_public_names_is_on_a_page():
    """Modules of ``interop`` are tried too."""
    shown = re.findall(r"^```{public-names} (.+)$", "\n".join(API.values()), re.MULTILINE)
    wanted = [*public_names.MODULES, "interop", *[f"interop.{name}" for name in public_names.INTEROP]]
    assert sorted(shown) == sorted(f"funcnet.{name}" for name in wanted)


def in_trees(page: Path) -> list[Path]:
    """Return the pages in the tables of contents of a page."""
    trees = TREE.findall(page.read_text())
    names = [line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")]
    return [page.parent / f"{name}.md" for name in names]


def test_every_page_is_in_the_navigation_once():
    """None is missing, and every listed page exists."""
    pages = {*DOCS.rglob("*.md")}
    listed = [one for page in sorted(pages) for one in in_trees(page)]
    assert sorted(listed) == sorted(pages - {DOCS / "index.md"})


def test_members_are_those_that_a_class_adds():
    """The verbs of the contract are documented once; members of private bases for subclasses are shown with public bases."""
    assert public_names.members(fn.Linear) == []
    assert public_names.members(fn.MultiHeadAttention)[-1] == "decode"
    assert {"init", "apply", "vjp"} <= {*public_names.members(fn.Layer)}
    assert {"formula", "moments"} <= {*public_names.members(fn.MomentOptimizer)}


def test_data_is_documented_by_the_string_after_it():
    """Without a string its type documents it."""
    assert public_names.docstring("funcnet.stop").startswith("The value that a callback returns")
    assert public_names.kind(fn.stop) == "data"


@pytest.mark.parametrize("name", public_names.TYPES)
def test_a_type_in_signatures_is_explained(name):
    """The module that defines it has the explanation."""
    assert public_names.said_of_type(name).rstrip().endswith(".")
    assert len(public_names.said_of_type(name)) > 10


@pytest.fixture
def tree(tmp_path):
    """Return the docs of a small repository, whose page ``contributing`` includes a file."""
    files = {
        "README.md": "",
        "C.md": "[a](docs/a.md#x) ![p](pics/p.png)",
        "pics/p.png": "",
        "code.py": "",
        "docs/a.md": "",
        "docs/sub/b.md": "",
    }
    files["docs/contributing.md"] = "```{include} ../C.md\n```\n"
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path / "docs"


@pytest.mark.parametrize(
    ("page", "written", "shown"),
    [
        ("a.md", "[x](../C.md#here)", "[x](contributing.md#here)"),
        ("sub/b.md", "[x](../../C.md)", "[x](../contributing.md)"),
        ("a.md", "[x](../README.md#here)", "[x](index.md)"),
        ("a.md", "[`x`](../pics) and", "`x` and"),
        ("a.md", "[x](../code.py)", "[x](../code.py)"),
        ("a.md", "[x](sub/b.md#y)", "[x](sub/b.md#y)"),
        ("a.md", "x[0](y), [x](https://y.org) [x](#y)", "x[0](y), [x](https://y.org) [x](#y)"),
    ],
)
def test_a_link_is_rewritten(tree, page, written, shown):
    """A link leads to a page that includes the file, or becomes a download or text; other links stay."""
    assert rewritten(written, tree / page, tree / page, tree) == shown


def test_links_of_an_included_file_are_seen_from_the_page(tree):
    """Pictures are rewritten too."""
    page = tree / "contributing.md"
    assert expanded(page.read_text(), page, tree) == "[a](a.md#x) ![p](../pics/p.png)\n"
