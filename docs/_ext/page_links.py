"""Rewrites links to files outside ``docs``, which work on GitHub, into links that work on the site.

Pages are also read in the repository, where a link to ``../CONTRIBUTING.md`` works. On the site it leads to the page that
includes this file. Files that are not pages become downloads. Folders cannot: a link to a folder becomes plain text.
"""

import os
import re
from functools import cache
from pathlib import Path

LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
INCLUDE = re.compile(r"^```{include} (\S+)\n(?:[:%].*\n)*```$", re.MULTILINE)

PAGES = {"README.md": "index.md", "examples/README.md": "gallery.md", "docs": "index.md"}
"""Paths in the repository that no page includes, and the pages that replace them."""


def rewritten(text: str, origin: Path, page: Path, docs: Path) -> str:
    """Return Markdown from the file ``origin``, as part of ``page``, with its links to files rewritten for the site."""

    def link(match: re.Match[str]) -> str:
        mark, label, path, anchor = match[1], match[2], match[3], match[4] or ""
        target = (origin.parent / path).resolve()
        if ":" in path or not target.exists():
            return match[0]
        shown = site_page(target, docs.resolve())
        if shown is None and target.is_dir():
            return label
        there = os.path.relpath(docs.resolve() / shown if shown else target, page.resolve().parent)
        return f"{mark}[{label}]({there}{anchor if shown not in PAGES.values() else ''})"

    return LINK.sub(link, text)


def site_page(target: Path, docs: Path) -> str | None:
    """Return the page in ``docs`` that is, or includes, a file of the repository."""
    if target.is_relative_to(docs) and target.suffix == ".md":
        return target.relative_to(docs).as_posix()
    path = os.path.relpath(target, docs.parent)
    return PAGES.get(path) or including(docs).get(path)


@cache
def including(docs: Path) -> dict[str, str]:
    """Return the pages that include a file, by the file's path in the repository."""
    found = [(page, path) for page in sorted(docs.rglob("*.md")) for path in INCLUDE.findall(page.read_text())]
    return {
        os.path.relpath((page.parent / path).resolve(), docs.parent): page.relative_to(docs).as_posix() for page, path in found
    }


def expanded(text: str, page: Path, docs: Path) -> str:
    """Return the text of a page, with the files that it includes, and all links rewritten."""

    def included(match: re.Match[str]) -> str:
        file = (page.parent / match[1]).resolve()
        return rewritten(file.read_text(), file, page, docs)

    own, end = [], 0
    for match in INCLUDE.finditer(text):
        own += [rewritten(text[end : match.start()], page, page, docs), included(match)]
        end = match.end()
    return "".join([*own, rewritten(text[end:], page, page, docs)])
