"""Naming: the entries of children, in a tuple by number or in a dict by name."""

from collections.abc import Iterable
from keyword import iskeyword
from typing import Any

from funcnet.errors import describe, value_error


def entries(who: str, names: tuple[str, ...], params: Any) -> Any:
    """Return the entries of a tuple, or of a dict by name, in the order of ``names``; raise ``ValueError`` for anything else."""
    if _numbered(names):
        if type(params) is not tuple or len(params) != len(names):
            raise value_error(who, f"params must be a tuple of {len(names)}, one entry per layer", describe(params))
        return params
    if not isinstance(params, dict) or params.keys() != {*names}:
        raise value_error(who, f"params must be a dict with the keys {listed(names)}", describe(params))
    return tuple([params[name] for name in names])


def pack(names: tuple[str, ...], entries: Iterable[Any]) -> Any:
    """Make a tuple of entries, or a dict if the children have names."""
    return tuple(entries) if _numbered(names) else dict(zip(names, entries, strict=True))


def _numbered(names: tuple[str, ...]) -> bool:
    return not names or names[0] == "0"


def listed(names: Iterable[str]) -> str:
    """Join names for errors, without the empty names of layers that add no component to paths."""
    return ", ".join(filter(None, names)) or "none"


def named_arguments(values: dict[str, str]) -> list[str]:
    """Format keyword arguments, as ``**{...}`` if one of the names is not an identifier."""
    if all(name.isidentifier() and not iskeyword(name) for name in values):
        return [f"{name}={value}" for name, value in values.items()]
    return [f"**{{{', '.join([f'{name!r}: {value}' for name, value in values.items()])}}}"]


def require_names(who: str, names: Iterable[str], *, numbers: bool = False) -> None:
    """Raise ``ValueError`` for names that cannot be components of a path: empty ones, names with a dot, and numbers."""
    for name in names:
        if not isinstance(name, str) or not name or "." in name or (name.isdigit() and not numbers):
            raise value_error(who, "a name must be a non-empty str without a dot, and not a number", repr(name))
