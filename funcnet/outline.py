"""Outlines: how notebooks show a net, as nested, collapsible lists of its layers with their numbers of params.

Importing this module defines ``_repr_html_`` of all layers, as ``combinators.sequential`` defines ``f >> g``.
"""

from typing import Any

import attrs

from funcnet import tree
from funcnet.contract import Layer, meta_params
from funcnet.flattening import join
from funcnet.markup import Markup, element, folded, joined, output
from funcnet.walking import children_of

_OPEN_LEVELS, _LONGEST = 2, 200

Counts = dict[str, int]
"""The number of elements of each leaf of the params, by path."""


def outline_of(net: Layer) -> Markup:
    """Return a net as nested lists; the first two levels are expanded.

    Args:
        net: The net. If sizes are missing, its params cannot be counted, and no numbers are shown.
    """
    return _entry("", net, "", _counts(net), 0)


def _counts(net: Layer) -> Counts | None:
    try:
        return {path: leaf.numel() for path, leaf in tree.names(meta_params(net)).items()}
    except Exception:  # sizes are missing, or a custom ``init`` does not work on the meta device
        return None


def _entry(name: str, layer: Layer, path: str, counts: Counts | None, level: int) -> Markup:
    children = children_of(layer)
    title = joined([*[element("code", f"{name}:"), " "][: 2 * bool(name)], element("code", _words(layer)), _note(path, counts)])
    if not children:
        return element("div", title)
    inside = [_entry(n, child, join(path, n) if n else path, counts, level + 1) for n, child in children.items()]
    return folded(title, element("div", *inside, class_="inside"), is_open=level < _OPEN_LEVELS)


def _note(path: str, counts: Counts | None) -> Markup:
    """Return the number of params at and below a path, if there are any."""
    if counts is None:
        return element("span", "sizes not inferred yet", class_="note") if not path else Markup()
    found = sum([n for leaf, n in counts.items() if not path or leaf == path or leaf.startswith(path + ".")])
    return element("span", f"{found:,} param{'s' * (found != 1)}", class_="note") if found else Markup()


def _words(layer: Any) -> str:
    """Return the call that creates a layer; for a combinator, its name and its arguments that are not layers or defaults."""
    if not children_of(layer):
        call = repr(layer)
        return call if len(call) <= _LONGEST else f"{call[:_LONGEST]}..."
    fields = [one for one in attrs.fields(type(layer)) if one.init and not one.name.startswith("_")]
    given = [(one.name, getattr(layer, one.name)) for one in fields if getattr(layer, one.name) != one.default]
    words = [f"{name}={value!r}" for name, value in given if isinstance(value, (int, float, str)) and value is not True]
    return f"{layer.label}({', '.join(words)})" if words else str(layer.label)


def _repr_html_(self: Layer) -> str:
    return output(outline_of(self))


Layer._repr_html_ = _repr_html_
