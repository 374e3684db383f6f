"""Renaming: new names for the paths of a file."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from funcnet.errors import describe, value_error
from funcnet.paths import renamed
from funcnet.saving.agreement import MOST_LISTED

Rename = Mapping[str, str | None] | Callable[[str], str | None]
"""New names by pattern, or a function from a path to its new name; ``None`` drops the path."""


def with_new_names(found: dict[str, Any], rename: Rename | None, who: str = "load") -> dict[str, Any]:
    """Map the new names of paths to their values, without dropped paths; errors name ``who``."""
    if rename is None:
        return found
    if isinstance(rename, Mapping):
        rename = _by_patterns(rename, found, who)
    if not callable(rename):
        raise value_error(who, "rename must be a dict of new names by pattern, or a function of a path", describe(rename))
    named: dict[str, Any] = {}
    olds: dict[str, str] = {}
    for old, leaf in found.items():
        new = _new_name(rename, old, who)
        if new in named:
            raise value_error(who, "rename must give every path its own name", f"{new!r} for {olds[new]!r} and {old!r}")
        if new is not None:
            named[new], olds[new] = leaf, old
    return named


def _new_name(rename: Callable[[str], Any], path: str, who: str) -> str | None:
    new = rename(path)
    if new is not None and not isinstance(new, str):
        raise value_error(who, "rename must return a path or None", f"{describe(new)} for {path!r}")
    return new


def _by_patterns(patterns: Mapping[str, str | None], found: dict[str, Any], who: str) -> Callable[[str], str | None]:
    """Return a function that renames with the first matching pattern; each pattern must match a path."""
    for old, new in patterns.items():
        if not isinstance(old, str) or not (new is None or isinstance(new, str)):
            raise value_error(who, "rename must be a dict from patterns to new names or None", f"{old!r}: {new!r}")
        if new is not None and old.count("*") != new.count("*"):
            raise value_error(who, "a new name must have as many * as its pattern", f"{new!r} for {old!r}")
    news = {path: _first(path, patterns) for path in found}
    used = {old for old, _ in news.values()}
    if unused := [old for old in patterns if old not in used]:
        rule = f"every pattern of rename must match a path that no earlier pattern matches; the paths are {_listed(found)}"
        raise value_error(who, rule, f"{unused[0]!r}")
    return lambda path: news[path][1]


def _listed(paths: Iterable[str]) -> str:
    words = [*paths]
    return ", ".join(words[:MOST_LISTED]) + f" and {len(words) - MOST_LISTED} more" * (len(words) > MOST_LISTED)


def _first(path: str, patterns: Mapping[str, str | None]) -> tuple[str | None, str | None]:
    """Return the first pattern that matches a path, and the path's new name."""
    for old, new in patterns.items():
        named = renamed(path, old, new or "")
        if named is not None:
            return old, None if new is None else named
    return None, path
