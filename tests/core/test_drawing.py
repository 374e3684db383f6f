"""Drawings: every layer is a node, every connection an edge, in two languages."""

import re
import stat
from pathlib import Path

import pytest
import torch
from cases import CASES

import funcnet as fn
from funcnet.combinator import Combinator

NODE = re.compile(r'(\w+)(?:\[|\(\[)"(.*)"(?:\]\)|\])')
EDGE = re.compile(r"(\w+) --> (\w+)")


def edges(net: fn.Layer) -> set[tuple[str, str]]:
    """Return the edges of the flowchart between the first lines of the nodes: paths, and x and y."""
    lines = fn.draw(net).mermaid.splitlines()
    nodes = [NODE.fullmatch(line.strip()) for line in lines if "subgraph" not in line]
    names = {node[1]: node[2].partition("<br/>")[0] for node in nodes if node}
    found = [EDGE.fullmatch(line.strip()) for line in lines]
    return {(names[edge[1]], names[edge[2]]) for edge in found if edge}


A, B = fn.Linear(4, 4), fn.Tanh()

WIRED = {
    "serial": (fn.serial(A, B), "x-0 0-1 1-y"),
    "nested": (fn.serial(A, fn.serial(B, A), B), "x-0 0-1.0 1.0-1.1 1.1-2 2-y"),
    "residual": (fn.residual(A), "x-0 0-2 x-2 2-y"),
    "residuals in series": (fn.serial(fn.residual(A), B), "x-0.0 0.0-0.2 x-0.2 0.2-1 1-y"),
    "branch": (fn.branch(A, B), "x-0 x-1 0-y 1-y"),
    "parallel": (fn.parallel(A, B), "x-0 x-1 0-y 1-y"),
    "merged": (fn.branch(A, B, merge=fn.Concat()), "x-0 x-1 0-2 1-2 2-y"),
    "nothing": (fn.serial(fn.Identity()), "x-y"),
    "named": (fn.serial(body=fn.serial(A, B), head=A), "x-body.0 body.0-body.1 body.1-head head-y"),
    "tied": (fn.tied(fn.serial(A, B, A), ("0.weight", "2.weight")), "x-0 0-1 1-2 2-y"),
    "both ways": (fn.bidirectional(fn.LSTM(4, 4)), "x-0 x-1 0-2 1-2 2-y"),
    "graph": (fn.graph("a", "b", s=(fn.Add(), "h", "b"), h=(A, "a"), output=("s", "h", "b")), "x-h h-s x-s s-y h-y x-y"),
    "reversible": (fn.reversible(A, B), "x-0 x-1 0-1 x-y 0-y 1-y"),
    "reversible in a serial": (fn.serial(fn.reversible(A, B), fn.Select(0)), "x-0.0 x-0.1 0.0-0.1 x-1 0.0-1 0.1-1 1-y"),
    "gradient rules": (fn.serial(fn.scale_gradient(0.5), A, fn.clip_gradient(1.0)), "x-0 0-1 1-2 2-y"),
    "branches of nothing": (fn.serial(fn.branch(fn.Identity(), fn.Identity()), fn.Add()), "x-1 1-y"),
    "attention": (fn.serial(fn.MultiHeadAttention(4, 2, qk_norm=fn.LayerNorm(2)), B), "x-0 0-1 1-y"),
}


@pytest.mark.parametrize("name", WIRED)
def test_the_edges_are_the_connections(name: str) -> None:
    """Edges go into and out of combinators; ``Identity`` is only an edge."""
    net, wanted = WIRED[name]
    assert edges(net) == {tuple(edge.split("-")) for edge in wanted.split()}


def test_a_wrapper_of_one_layer_is_a_node_and_of_several_a_box() -> None:
    """The box shows the combinator's arguments."""
    assert 'n1["weight_norm(Linear(in_features=4, out_fea..."]' in fn.draw(fn.weight_norm(A)).mermaid
    assert 'n1["shared(Tanh())"]' in fn.draw(fn.shared(B)).mermaid
    assert 'subgraph n1["ensemble, n=3"]' in fn.draw(fn.ensemble(fn.serial(A, B), 3)).mermaid
    assert 'subgraph n2["1 residual"]' in fn.draw(fn.serial(A, fn.residual(A))).mermaid


def test_a_box_with_nothing_in_it_is_left_out() -> None:
    """An example is a branch whose sides all return x."""
    assert "subgraph" not in fn.draw(fn.serial(fn.branch(fn.Identity(), fn.Identity()), fn.Add())).mermaid


def test_shapes_come_with_an_input() -> None:
    """Every output has its shape, with sizes inferred; without an input there are no shapes."""
    net = fn.serial(fn.Embedding(9, 4), fn.residual(fn.Linear(None, 4)), fn.Flatten())
    text = fn.draw(net, (5, 3), torch.int64).mermaid
    for words in ('x(["x (5, 3)"])', "in_features=4", "(5, 3, 4)", 'Flatten()<br/>(5, 12)"', 'y(["y (5, 12)"])'):
        assert words in text
    assert "in_features=None" in fn.draw(net).dot


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if isinstance(case.layer, Combinator)])
def test_every_combinator_is_drawn(name: str) -> None:
    """There is a path from x to y, each name is declared once, and brackets are balanced, with shapes and without."""
    case = CASES[name]
    for drawing in (fn.draw(case.layer), fn.draw(case.layer, case.x)):
        lines = [line.strip() for line in drawing.dot.splitlines()]
        declared = [line.split(" ")[0] for line in lines if "[label=" in line]
        used = {end for line in lines if " -> " in line for end in line.rstrip(";").split(" -> ")}
        assert len(set(declared)) == len(declared)
        assert used == set(declared) >= {"x", "y"}
        assert sum(line.endswith("{") for line in lines) == lines.count("}")
        assert drawing.mermaid.count("subgraph ") == [line.strip() for line in drawing.mermaid.splitlines()].count("end")


def test_words_are_quoted() -> None:
    """Quotes, arrows and backslashes in labels are escaped in each language."""
    net = fn.serial(fn.graph("x", **{'a"b\\': (fn.rearrange("a b -> b a"), "x")}))
    drawing = fn.draw(net)
    assert r"a\"b\\\nrearrange" in drawing.dot
    assert "a#quot;b" in drawing.mermaid
    assert "-#gt;" in drawing.mermaid


def test_a_drawing_is_saved_in_the_format_of_its_name(tmp_path: Path) -> None:
    """The two languages need no other program."""
    drawing = fn.draw(fn.serial(A, B))
    for end, text in {"dot": drawing.dot, "gv": drawing.dot, "mmd": drawing.mermaid, "mermaid": drawing.mermaid}.items():
        drawing.save(tmp_path / f"net.{end}")
        assert (tmp_path / f"net.{end}").read_text() == text
    with pytest.raises(ValueError, match=r"^Drawing.save: the path must end in one of \.dot, .*\.pdf, got 'net\.txt'"):
        drawing.save("net.txt")


def test_without_graphviz_there_is_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saving a picture raises an error that names what is missing."""
    monkeypatch.setenv("PATH", str(tmp_path))
    drawing = fn.draw(A)
    assert drawing.svg is None
    assert drawing._repr_mimebundle_().keys() == {"text/vnd.mermaid", "text/plain"}
    with pytest.raises(ValueError, match=r"^Drawing.save: a picture requires Graphviz's program dot"):
        drawing.save(tmp_path / "net.svg")


def test_graphviz_makes_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its program gets the format and the graph; here a substitute records both."""
    program = tmp_path / "dot"
    program.write_text('#!/bin/sh\necho "$1"\nwhile read -r line; do echo "$line"; done\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    drawing = fn.draw(fn.serial(B, B))
    assert drawing.svg is not None
    assert drawing.svg.startswith("-Tsvg\ndigraph net {")
    assert drawing._repr_mimebundle_()["image/svg+xml"] == drawing.svg
    drawing.save(tmp_path / "net.pdf")
    assert (tmp_path / "net.pdf").read_text().startswith("-Tpdf\ndigraph")


def test_what_is_no_layer_is_refused() -> None:
    """The error names it."""
    with pytest.raises(ValueError, match=r"^draw: a layer is required"):
        fn.draw(3)
    assert str(fn.draw(A)) == repr(fn.draw(A)) == fn.draw(A).mermaid
