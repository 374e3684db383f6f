"""Links, for Sphinx: links on pages are rewritten when a page is read, and names in code link to the reference."""

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

from docs._ext import public_names
from docs._ext.page_links import INCLUDE, expanded


def read_page(app: Sphinx, name: str, source: list[str]) -> None:
    """Rewrite a page when it is read, and read it again when a file that it includes has changed."""
    docs = Path(app.srcdir)
    page = docs / f"{name}.md"
    for path in INCLUDE.findall(source[0]):
        app.env.note_dependency(str((page.parent / path).resolve()))
    source[0] = expanded(source[0], page, docs)


class NamesInCode(SphinxTransform):
    """Turns ``fn.Linear`` in a page's prose into a link to its entry in the reference."""

    default_priority = 5

    def apply(self, **options: Any) -> None:
        known = public_names.documented()
        for code in [*self.document.findall(nodes.literal)]:
            match = re.fullmatch(r"(?:fn|funcnet)\.([\w.]+)(\(.*\))?", code.astext())
            inside = isinstance(code.parent, (nodes.reference, nodes.title, pending_xref))
            if match and f"funcnet.{match[1]}" in known and not inside:
                code.replace_self(reference(f"funcnet.{match[1]}", code, self.env.docname))


def reference(name: str, code: nodes.literal, page: str) -> pending_xref:
    """Return a link that Sphinx resolves when all pages are read."""
    found = pending_xref("", refdomain="py", reftype="obj", reftarget=name, refexplicit=True, refdoc=page, refwarn=True)
    return found.__class__(code.rawsource, code.deepcopy(), **found.attributes)


def setup(app: Sphinx) -> dict[str, Any]:
    """Rewrite links as pages are read."""
    app.connect("source-read", read_page)
    app.add_transform(NamesInCode)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
