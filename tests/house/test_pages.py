"""The pages for people from elsewhere: each section runs by itself, after the imports of its page."""

import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
FOREIGN = re.compile(r"\b(?:jax|jnp|optax|stax|eqx)\b")
"""What a snippet mentions that needs the extra ``bench``."""
INSTALLED = all(importlib.util.find_spec(name) for name in ("jax", "equinox", "optax"))


def snippets(text: str) -> list[str]:
    """Return the Python snippets of a text, without those of libraries that are not installed."""
    found = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return [snippet for snippet in found if INSTALLED or not FOREIGN.search(snippet)]


def programs() -> dict[str, str]:
    """Return the programs by page and section: the page's first snippets, the imports, and then those of the section."""
    found = {}
    for page in ("from_torch_nn", "from_jax", "interop"):
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
    """With the assertions on the page that both ways give the same numbers."""
    monkeypatch.chdir(tmp_path)
    assert "assert" in PROGRAMS[name]
    exec(compile(PROGRAMS[name], name, "exec"), {"__name__": "page"})
