"""The page about several workers and README's section: two workers run their snippets with the assertions on the page."""

import re
import traceback
from pathlib import Path
from unittest import mock

import pytest
import torch.distributed as dist
from distributed.launching import run

from funcnet import distributed

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "distributed.md").read_text()
README = (ROOT / "README.md").read_text().partition("\n## Several workers\n")[2].partition("\n## ")[0]


def snippets(text):
    """Return the Python snippets of a text."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def programs():
    """Return the programs by section: the imports of the page, followed by the snippets of the section."""
    first, *sections = PAGE.split("\n## ")
    start = snippets(first)
    found = {section.splitlines()[0]: "\n".join([*start, *parts]) for section in sections if (parts := snippets(section))}
    return found | {"README": "\n".join(snippets(README))}


PROGRAMS = programs()


def outcomes():
    """Run all programs in order in the current process group, and return the failures by section."""
    found = {}
    for name, text in PROGRAMS.items():
        with mock.patch.multiple(dist, init_process_group=mock.DEFAULT, destroy_process_group=mock.DEFAULT):
            try:
                exec(compile(text, name, "exec"), {"__name__": "page"})
            except Exception as error:
                found[name] = "".join(traceback.format_exception(error))
    return found


@pytest.fixture(scope="module")
def failed():
    """Return the failures on each of two workers, by section."""
    return run(2, outcomes)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_section_runs_on_two_workers(name, failed):
    """The sections of the page assert that the numbers are right, on both workers."""
    assert name == "README" or "assert" in PROGRAMS[name]
    assert [one.get(name) for one in failed] == [None, None]


def test_the_page_and_the_readme_name_every_function():
    """The page names the functions, README all names."""
    assert len(PROGRAMS) > 9
    row = re.search(r"^\| several workers \| (.*) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)[1]
    assert [name for name in distributed.__all__ if not re.search(rf"`{name}`", row)] == []
    assert [name for name in distributed.__all__ if name[0].islower() and not re.search(rf"\b{name}\b", PAGE)] == []
