"""Families: the directives that fill the pages of the reference from the package itself, so that no public name can be missing.

    {family} linear maps         a table of a group of ``funcnet.__all__`` with summaries, and then every name of it
    {public-names} funcnet.tree  the same for the public names of a module
    {overview} GROUP, GROUP      links to the pages of groups and to all their names
    {types}                      the meaning of ``Params`` and of other type names in signatures

The rest of a page is written by hand. A group without a page, or a page without a group, fails the build.
"""

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

from docs._ext import public_names
from docs._ext.api_signatures import signature_of
from docs._ext.docstring_rst import converted, prose

INDENT = "   "


class Names(SphinxDirective):
    """A table of names, followed by autodoc's entry for each."""

    required_arguments = 1
    final_argument_whitespace = True

    def names(self) -> list[str]:
        """Return the full names to show."""
        raise NotImplementedError

    def before(self) -> list[str]:
        """Return the lines before the table."""
        return [".. py:currentmodule:: funcnet", ""]

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(public_names.ROOT / "funcnet" / "__init__.py"))
        names = self.names()
        lines = [*self.before(), *table(names), *[line for name in names for line in entry(name)]]
        return self.parse_text_to_nodes("\n".join(["`````{eval-rst}", *lines, "`````"]))


class Family(Names):
    """A group of ``funcnet.__all__``; its modules have their own directives."""

    def names(self) -> list[str]:
        group = self.arguments[0]
        if group not in public_names.groups():
            raise self.error(f"no group of funcnet.__all__ is called {group!r}")
        return [f"funcnet.{name}" for name in public_names.groups()[group]]


class Module(Names):
    """The docstring of a module, followed by its public names."""

    def names(self) -> list[str]:
        return public_names.names_in(self.arguments[0])

    def before(self) -> list[str]:
        return [f".. py:module:: {self.arguments[0]}", "", *converted(public_names.docstring(self.arguments[0]).split("\n")), ""]


class Overview(SphinxDirective):
    """The pages of some groups, given as a comma-separated list, and all their names."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        lines = [".. list-table::", f"{INDENT}:class: names overview", f"{INDENT}:widths: auto", ""]
        for group in " ".join(self.arguments[0].split()).split(", "):
            names = " ".join(link(f"funcnet.{name}") for name in public_names.groups()[group])
            lines += [f"{INDENT}* - :doc:`{group[0].upper()}{group[1:]} <{public_names.slug(group)}>`", f"{INDENT}  - {names}"]
        return self.parse_text_to_nodes("\n".join(["`````{eval-rst}", *lines, "`````"]))


class Types(SphinxDirective):
    """The meaning of the types in signatures."""

    def run(self) -> list[nodes.Node]:
        lines = []
        for name, home in public_names.TYPES.items():
            said = converted(public_names.said_of_type(name).split("\n"))
            lines += [f".. py:type:: {name}", f"{INDENT}:module: {home}", "", *[f"{INDENT}{line}" for line in said], ""]
        return self.parse_text_to_nodes("\n".join(["`````{eval-rst}", *lines, "`````"]))


def resolve_type(app: Sphinx, env: Any, node: Any, shown: Any) -> nodes.reference | None:
    """Return the link from a type in a signature to its explanation."""
    name = node["reftarget"].rpartition(".")[2] if node.get("refdomain") == "py" else ""
    entry = env.domains["py"].objects.get(f"{public_names.TYPES.get(name)}.{name}")
    return entry and make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, shown, name)


def table(names: list[str]) -> list[str]:
    """Return a table of names, which are links, with their summaries."""
    if not names:
        return []
    head = [".. list-table::", f"{INDENT}:class: names", f"{INDENT}:widths: auto", ""]
    rows = [(name, prose(public_names.summary(name))) for name in names]
    return [*head, *[f"{INDENT}{line}" for name, said in rows for line in (f"* - {link(name)}", f"  - {said}")], ""]


def link(name: str) -> str:
    """Return a link to a name, shown without ``funcnet``."""
    role = "py:mod" if public_names.kind(public_names.value_of(name)) == "module" else "py:obj"
    return f":{role}:`{name.removeprefix('funcnet.')} <{name}>`"


def entry(name: str) -> list[str]:
    """Return the directive that shows a name; a module has a separate directive on the page."""
    value = public_names.value_of(name)
    kind = public_names.kind(value)
    if kind == "module":
        return []
    if kind == "data":
        said = [f"{INDENT}{line}" for line in converted(public_names.docstring(name).split("\n"), linker(name))]
        home, _, last = name.rpartition(".")
        return [f".. py:data:: {last}", f"{INDENT}:module: {home}", "", *said, ""]
    shown = public_names.members(value) if kind == "class" else []
    inner = [f"{INDENT}.. auto{role}:: {name}.{member}" for member, role in roles(value, shown)]
    return [f".. auto{kind}:: {name}", "", *[line for one in inner for line in (one, "")]]


def roles(cls: type, members: list[str]) -> list[tuple[str, str]]:
    """Return the members of a class by role: methods in their order, then properties."""
    found = [(one, "method" if callable(getattr(cls, one, None)) else "property") for one in members]
    return sorted(found, key=lambda pair: pair[1])


def linker(name: str) -> Any:
    """Return a function that resolves the literals in the docstring of ``name`` to public names."""

    def linked(code: str) -> str | None:
        known = public_names.documented()
        bare = code.removeprefix("fn.").removeprefix("funcnet.")
        full = f"funcnet.{bare}"
        is_name = code != bare or bare[:1].isupper() or "_" in bare
        return full if is_name and full in known and full != name else None

    return linked


def process_docstring(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Convert a docstring in place; napoleon would read the first line of a property as its type."""
    lines[:] = [*[""] * (what in ("property", "attribute")), *converted(lines, linker(name))]


def process_signature(app: Sphinx, what: str, name: str, value: Any, *rest: Any) -> tuple[str, str | None] | None:
    """Return the signature as written in the source."""
    if what in ("class", "function", "method"):
        try:
            return signature_of(value)
        except (TypeError, ValueError):
            return None
    return None


def require_pages(app: Sphinx) -> None:
    """Raise an error unless every group has a page and every page has a group."""
    pages = {path.stem for path in (Path(app.srcdir) / "api").glob("*.md")} - {"index"}
    groups = {public_names.slug(group) for group in public_names.groups()}
    if pages != groups:
        raise ValueError(f"docs/api must have a page for each group of funcnet.__all__, and differs in {sorted(pages ^ groups)}")


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directives, and convert docstrings before napoleon sees them."""
    app.add_directive("family", Family)
    app.add_directive("public-names", Module)
    app.add_directive("overview", Overview)
    app.add_directive("types", Types)
    app.connect("missing-reference", resolve_type)
    app.connect("builder-inited", require_pages)
    app.connect("autodoc-process-docstring", process_docstring, priority=400)
    app.connect("autodoc-process-signature", process_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
