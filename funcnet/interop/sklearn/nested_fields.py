"""Fields of values by path, in scikit-learn's notation: ``lr`` of an optimizer, ``0__out_features`` of a net.

A name is a field of a value, or a layer in a combinator. Two underscores separate it from an inner name.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from funcnet.combinator import Combinator
from funcnet.errors import describe, value_error
from funcnet.value import Value


def parts(value: Value) -> dict[str, Any]:
    """Return the fields of a value by name, and the layers in a combinator."""
    kind: Any = type(value)
    fields = {one.alias: getattr(value, one.name) for one in attrs.fields(kind) if one.init}
    return fields | (dict(value.children()) if isinstance(value, Combinator) else {})


def nested(value: Value, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the path, beginning with ``prefix``, and the content of every field, including the fields of inner values."""
    for name, inner in parts(value).items():
        yield f"{prefix}__{name}", inner
        if isinstance(inner, Value):
            yield from nested(inner, f"{prefix}__{name}")


def with_fields(value: Any, changes: Mapping[str, Any], who: str) -> Any:
    """Return the value with new contents at some paths; all fields of a value are replaced together.

    Args:
        value: A value, such as a net or an optimizer.
        changes: The new contents by path.
        who: The path of the value itself, for errors.

    Raises:
        ValueError: If a path does not exist, or a value rejects its new content.

    >>> from funcnet.blocks.perceptron import mlp
    >>> with_fields(mlp([2, 25, 1]), {"0__out_features": 9, "2__in_features": 9}, "net")
    serial(Linear(in_features=2, out_features=9), ReLU(), Linear(in_features=9, out_features=1))
    """
    grouped: dict[str, dict[str, Any]] = {}
    for path, new in changes.items():
        name, _, rest = path.partition("__")
        grouped.setdefault(name, {})[rest] = new
    if not isinstance(value, Value):
        raise value_error(who, f"only a value has fields, such as {next(iter(grouped))!r}", describe(value))
    known = parts(value)
    missing = [name for name in grouped if name not in known]
    if missing:
        raise value_error(who, f"a parameter must be one of {', '.join(known)}", repr(missing[0]))
    return _replaced(value, {name: _content(known[name], found, f"{who}__{name}") for name, found in grouped.items()})


def _content(inner: Any, changes: dict[str, Any], who: str) -> Any:
    """Return the new content of a field, from a whole value under the path ``""``, inner fields, or both."""
    inner = changes.pop("", inner)
    return with_fields(inner, changes, who) if changes else inner


def _replaced(value: Any, new: dict[str, Any]) -> Any:
    layers = dict(value.children()) if isinstance(value, Combinator) else {}
    inner = {name: content for name, content in new.items() if name in layers}
    fields = {name: content for name, content in new.items() if name not in layers}
    value = value.with_children(layers | inner) if inner else value
    return value.replace(**fields) if fields else value
