"""Check a built site: no link is broken, nothing loads from other hosts, and every public name has exactly one entry.

    python docs/check_site.py out/site

Links are followed to files and to anchors in them. Everything that a page loads (scripts, styles, fonts, pictures) must be part
of the site. Links for the reader may lead to other sites; they are not checked. Prints every fault, and exits with status 1 if
there are any.
"""

import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

LOADS = {("script", "src"), ("img", "src"), ("link", "href"), ("source", "src"), ("iframe", "src"), ("image", "href")}
GENERATED = {"genindex.html", "search.html", "py-modindex.html"}


class Page(HTMLParser):
    """The contents of a page: the names of its anchors, the targets of its links, and the files that it loads."""

    def __init__(self, text: str) -> None:
        """Read a page."""
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record the relevant attributes."""
        given = {name: value for name, value in attrs if value}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        self.loads += [given[name] for name in given if (tag, name) in LOADS]


def pages_of(site: Path) -> dict[Path, Page]:
    """Return the pages of a site by their files."""
    return {path.resolve(): Page(path.read_text()) for path in sorted(site.rglob("*.html"))}


def broken_links(site: Path) -> Iterator[str]:
    """Yield the links and loaded files whose file or anchor is missing."""
    pages = pages_of(site)
    for path, page in pages.items():
        for link in dict.fromkeys([*page.links, *page.loads]):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                yield f"{path.relative_to(site.resolve())}: no file for {link}"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{path.relative_to(site.resolve())}: no anchor for {link}"


def loads_from_elsewhere(site: Path) -> Iterator[str]:
    """Yield everything that pages, styles and scripts of a site fetch from other hosts."""
    outside = re.compile(r"(https?:)?//")
    for path, page in pages_of(site).items():
        yield from (f"{path.relative_to(site.resolve())} loads {one}" for one in page.loads if outside.match(one))
    for path in sorted(site.rglob("*.css")):
        fetched = re.findall(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]+)""", path.read_text())
        yield from (f"{path.relative_to(site)} loads {one}" for one in fetched)


def entries(inventory: bytes) -> Counter[str]:
    """Return the names of Python objects in an ``objects.inv``, with the number of their entries on pages."""
    header, _, rest = inventory.partition(b"zlib.\n")
    assert header.startswith(b"# Sphinx inventory version 2"), "not a Sphinx inventory"
    rows = [line.split(" ", 4) for line in zlib.decompress(rest).decode().splitlines()]
    return Counter(name for name, role, *_ in rows if role.startswith("py:"))


def wrong_names(found: Counter[str], wanted: Iterable[str]) -> Iterator[str]:
    """Yield the names that have no entry, or more than one."""
    yield from (f"{name} has {found[name]} entries" for name in sorted(wanted) if found[name] != 1)


def faults(site: Path) -> list[str]:
    """Return all faults of a site."""
    from docs._ext.public_names import documented

    found = entries((site / "objects.inv").read_bytes())
    return [*broken_links(site), *loads_from_elsewhere(site), *wrong_names(found, documented())]


def main(arguments: list[str]) -> int:
    """Print the faults of the site in a folder, and return the exit status."""
    if len(arguments) != 1:
        print("usage: python docs/check_site.py FOLDER", file=sys.stderr)
        return 2
    site = Path(arguments[0])
    found = faults(site)
    print(*found, f"{len(pages_of(site))} pages, {len(found)} faults", sep="\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
