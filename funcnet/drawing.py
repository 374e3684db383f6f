"""Drawings: a net as a graph of its layers, in the languages of Graphviz and Mermaid.

Layers are nodes, each with its path. Combinators are boxes around their layers; their ``wires`` become edges.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import torch

from funcnet.combinator import Combinator
from funcnet.contract import Layer, meta_params
from funcnet.errors import value_error
from funcnet.flattening import join
from funcnet.layers.shape.reshaping import Identity
from funcnet.metering import measure
from funcnet.sizes import infer_sizes, on_meta
from funcnet.summaries import shape_words, shapes_of
from funcnet.walking import require_layer
from funcnet.wrapper import Wrapper

_LONGEST = 44
_RENDERED = (".svg", ".png", ".pdf")
_LANGUAGES = {".dot": "dot", ".gv": "dot", ".mmd": "mermaid", ".mermaid": "mermaid"}


class Node(NamedTuple):
    """A layer: its name in the drawing, and its lines of text."""

    name: str
    lines: tuple[str, ...]


class Box(NamedTuple):
    """A combinator: its name in the drawing, its title, and its contents."""

    name: str
    title: str
    inside: list[Any]


class Drawing(NamedTuple):
    """A net as a graph, returned by ``draw``. Notebooks show it as a picture; ``print`` writes Mermaid text.

    Args:
        dot: The graph in Graphviz's language.
        mermaid: The graph as a Mermaid flowchart, which GitHub shows in Markdown.
    """

    dot: str
    mermaid: str

    @property
    def svg(self) -> str | None:
        """The picture as SVG; ``None`` if Graphviz is not installed."""
        return _render(self.dot, "svg").decode() if shutil.which("dot") else None

    def save(self, path: str | Path) -> None:
        """Write the drawing to a file, in the format of its suffix.

        Args:
            path: A file name that ends in ``.dot``, ``.gv``, ``.mmd`` or ``.mermaid``; with Graphviz installed, also in ``.svg``,
                ``.png`` or ``.pdf``.

        Raises:
            ValueError: For another suffix, and for a picture if Graphviz is not installed.
        """
        end = Path(path).suffix.lower()
        if end in _LANGUAGES:
            Path(path).write_text(getattr(self, _LANGUAGES[end]), encoding="utf-8")
            return
        if end not in _RENDERED:
            ends = ", ".join([*_LANGUAGES, *_RENDERED])
            raise value_error("Drawing.save", f"the path must end in one of {ends}", repr(str(path)))
        if not shutil.which("dot"):
            rule = "a picture requires Graphviz's program dot on the PATH; .dot and .mmd do not"
            raise value_error("Drawing.save", rule, repr(str(path)))
        Path(path).write_bytes(_render(self.dot, end[1:]))

    def __str__(self) -> str:
        return self.mermaid

    def __repr__(self) -> str:
        return self.mermaid

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        svg = self.svg
        return {"text/vnd.mermaid": self.mermaid, "text/plain": self.mermaid, **({"image/svg+xml": svg} if svg else {})}


def draw(net: Layer, x: Any = None, dtype: torch.dtype | None = None) -> Drawing:
    """Draw a net as a graph of its layers, with the shapes of their outputs if an input is given.

    A layer is a node with its path; ``Identity`` becomes an edge. A nested combinator is a box around its layers. A custom
    combinator returns its connections from ``wires``.

    Args:
        net: The net.
        x: An input for it: a tensor, a shape, or a tuple or dict of them; ``None`` for a drawing without shapes.
        dtype: The dtype of inputs given as shapes; for indices ``torch.int64``.

    Returns:
        The drawing, with ``dot``, ``mermaid``, ``svg`` and ``save``.

    Raises:
        ValueError: If ``net`` is not a layer, or x does not fit it.

    >>> from funcnet.combinators.sequential import serial
    >>> from funcnet.layers.activation.sigmoids import Tanh
    >>> from funcnet.layers.linear.linear import Linear
    >>> print(draw(serial(Linear(4, 3), Tanh()), (8, 4)))
    flowchart TD
        x(["x (8, 4)"])
        n1["0<br/>Linear(in_features=4, out_features=3)<br/>(8, 3)"]
        n2["1<br/>Tanh()<br/>(8, 3)"]
        y(["y (8, 3)"])
        x --> n1
        n1 --> n2
        n2 --> y
    """
    require_layer("draw", net)
    shapes: dict[Any, str] = {}
    if x is not None:
        with torch.inference_mode(False):
            x = on_meta(x, dtype, "draw")
            net = infer_sizes(net, x, dtype)
            top, y, _ = measure(net, meta_params(net), x)
        shapes = {(one.path, id(one.layer)): shape_words(shapes_of(one.output)) for one in top.walk() if one.output is not None}
        shapes |= {"x": shape_words(shapes_of(x)), "y": shape_words(shapes_of(y))}
    sketch = Sketch(shapes)
    return sketch.drawn(net)


class Sketch:
    """A drawing in progress: the edges so far, and the number of names in use."""

    def __init__(self, shapes: dict[Any, str]) -> None:
        self.shapes = shapes
        self.edges: dict[tuple[str, str], None] = {}
        self.count = 0

    def drawn(self, net: Layer) -> Drawing:
        """Draw the net between x and y."""
        inside: list[Any] = []
        outs = self.layer(net, "", ["x"], inside, outermost=True)
        self.edges |= {(one, "y"): None for one in outs}
        ends = [Node(name, (" ".join(filter(None, (name, self.shapes.get(name)))),)) for name in ("x", "y")]
        parts = [ends[0], *inside, ends[1]]
        return Drawing("\n".join(_dot(parts, [*self.edges])), "\n".join(_mermaid(parts, [*self.edges])))

    def layer(self, layer: Layer, path: str, sources: list[str], inside: list[Any], *, outermost: bool = False) -> list[str]:
        """Add a layer to a box, after the nodes ``sources``; return the nodes that its output comes from."""
        if type(layer) is Identity:  # gradient rules, which are subclasses, have nodes
            return sources
        if not _is_box(layer):
            return [self.node(layer, path, sources, inside)]
        if not (outermost and not isinstance(layer, Wrapper)):
            return self.box(layer, path, sources, inside)
        return self.children(layer, path, sources, inside)

    def box(self, layer: Layer, path: str, sources: list[str], inside: list[Any]) -> list[str]:
        """Add the box of a combinator, unless it is empty because all its layers are ``Identity``."""
        made = Box(self.name(), _title(layer, path), [])
        outs = self.children(layer, path, sources, made.inside)
        if made.inside:
            inside.append(made)
        return outs

    def node(self, layer: Layer, path: str, sources: list[str], inside: list[Any]) -> str:
        """Add the node of a layer, and its edges."""
        lines = (path, _shorten(repr(layer)), self.shapes.get((path, id(layer)), ""))
        made = Node(self.name(), tuple(filter(None, lines)))
        inside.append(made)
        self.edges |= {(one, made.name): None for one in sources}
        return made.name

    def children(self, layer: Any, path: str, sources: list[str], inside: list[Any]) -> list[str]:
        """Add the children of a combinator, each after its sources."""
        outs: dict[str | None, list[str]] = {}
        children, wires = layer.children(), layer.wires()

        def outs_of(name: str | None) -> list[str]:
            if name is None:
                return sources
            if name not in outs:
                outs[name] = self.layer(children[name], join(path, name) if name else path, given(name), inside)
            return outs[name]

        def given(target: str | None) -> list[str]:
            return [*dict.fromkeys([one for a, b in wires if b == target for one in outs_of(a)])]

        return given(None)

    def name(self) -> str:
        """Return a new name."""
        self.count += 1
        return f"n{self.count}"


def _is_box(layer: Layer) -> bool:
    """Return whether a layer is a box: a combinator, unless it wraps a single layer or computes as one."""
    if isinstance(layer, Wrapper):
        return isinstance(layer.layer, Combinator) and _is_box(layer.layer)
    return isinstance(layer, Combinator) and bool(layer.children()) and not layer.computes_as_one


def _title(layer: Any, path: str) -> str:
    """Return the name of a combinator, with its fields that are numbers, strings or dtypes."""
    fields = [(one.name, getattr(layer, one.name), one.default) for one in attrs.fields(type(layer)) if one.init]
    words = [
        f"{name}={value!r}"
        for name, value, default in fields
        if isinstance(value, (Real, str, torch.dtype)) and not isinstance(value, bool) and value != default
    ]
    return _shorten(" ".join(filter(None, (path, ", ".join([layer.label.partition(",")[0], *words])))))


def _shorten(words: str) -> str:
    return words if len(words) <= _LONGEST else f"{words[: _LONGEST - 3]}..."


Quote = Callable[[str], str]


def _quote_for_dot(words: str) -> str:
    return words.replace("\\", "\\\\").replace('"', '\\"')


def _dot(parts: list[Any], edges: list[tuple[str, str]]) -> Iterator[str]:
    yield "digraph net {"
    yield '    node [shape=box, style=rounded, fontname="Helvetica", fontsize=11];'
    yield '    graph [fontname="Helvetica", fontsize=11, color=gray, style=rounded];'
    yield from _dot_parts(parts, "    ")
    yield from (f"    {one} -> {other};" for one, other in edges)
    yield "}\n"


def _dot_parts(parts: list[Any], pad: str) -> Iterator[str]:
    for part in parts:
        if isinstance(part, Box):
            yield f"{pad}subgraph cluster_{part.name} {{"
            yield f'{pad}    label="{_quote_for_dot(part.title)}";'
            yield from _dot_parts(part.inside, pad + "    ")
            yield f"{pad}}}"
        else:
            shape = ", shape=ellipse" if part.name in ("x", "y") else ""
            label = "\\n".join(map(_quote_for_dot, part.lines))
            yield f'{pad}{part.name} [label="{label}"{shape}];'


def _quote_for_mermaid(words: str) -> str:
    codes = {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;"}
    return "".join([codes.get(letter, letter) for letter in words])


def _mermaid(parts: list[Any], edges: list[tuple[str, str]]) -> Iterator[str]:
    yield "flowchart TD"
    yield from _mermaid_parts(parts, "    ")
    yield from (f"    {one} --> {other}" for one, other in edges)


def _mermaid_parts(parts: list[Any], pad: str) -> Iterator[str]:
    for part in parts:
        if isinstance(part, Box):
            yield f'{pad}subgraph {part.name}["{_quote_for_mermaid(part.title)}"]'
            yield from _mermaid_parts(part.inside, pad + "    ")
            yield f"{pad}end"
        else:
            opening, closing = ("([", "])") if part.name in ("x", "y") else ("[", "]")
            yield f'{pad}{part.name}{opening}"{"<br/>".join(map(_quote_for_mermaid, part.lines))}"{closing}'


def _render(dot: str, kind: str) -> bytes:
    return subprocess.run(["dot", f"-T{kind}"], input=dot.encode(), capture_output=True, check=True).stdout
