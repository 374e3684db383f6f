"""The page distributed.md and a section of scale.md: two workers run their snippets, including the assertions."""

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
SCALE = (ROOT / "docs" / "scale.md").read_text()
SECTION = SCALE.partition("\n## Several workers\n")[2].partition("\n## ")[0]


def snippets(text):
    """Return the Python snippets of a text."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def programs():
    """Return the programs by section: the imports of the page, then the snippets of the section."""
    first, *sections = PAGE.split("\n## ")
    start = snippets(first)
    found = {section.splitlines()[0]: "\n".join([*start, *parts]) for section in sections if (parts := snippets(section))}
    return found | {"scale": "\n".join([*snippets(SCALE)[:1], *snippets(SECTION)])}


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
    """It runs on both; the snippets assert that the numbers are correct."""
    assert "assert" in PROGRAMS[name]
    assert [one.get(name) for one in failed] == [None, None]


def test_the_pages_name_every_function():
    """Functions are names that start with a lowercase letter."""
    assert len(PROGRAMS) > 9
    functions = [name for name in distributed.__all__ if name[0].islower()]
    assert [name for name in functions if not re.search(rf"\b{name}\b", PAGE)] == []
    assert [name for name in functions if not re.search(rf"\b{name}\b", SCALE)] == []
