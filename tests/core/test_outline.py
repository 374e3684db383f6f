"""The display of a net in a notebook: its layers as foldable lists, with the numbers of params."""

import re
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

import funcnet as fn


def words_of(net: fn.Layer) -> list[str]:
    """Return the lines that a notebook shows, without their style."""
    page = ElementTree.fromstring(net._repr_html_())
    page.remove(page.find("style"))
    lines = [one for one in page.iter() if one.tag == "summary" or (one.tag == "div" and one.find("code") is not None)]
    return ["".join(line.itertext()) for line in lines]


def test_a_net_is_shown_layer_by_layer() -> None:
    """A combinator is a list of its layers, with its own arguments; each line has the params at and below it."""
    net = fn.serial(fn.Linear(4, 3), fn.lora(fn.Linear(3, 2), rank=1), fn.residual(fn.serial(fn.Tanh(), fn.Linear(2, 2))))
    lines = words_of(net)
    assert lines[0].startswith("serial")
    assert lines[0].endswith(f"{fn.tree.size(net.init(0))} params")
    assert lines[1] == "0: Linear(in_features=4, out_features=3)15 params"
    assert lines[2].startswith("1: lora(rank=1")
    assert [line for line in lines if "Tanh" in line] == ["0: Tanh()"]
    assert "1: Linear(in_features=2, out_features=2)6 params" in lines


def test_the_first_two_levels_are_open() -> None:
    """Deeper levels unfold with a click."""
    net: fn.Layer = fn.Tanh()
    for _ in range(4):
        net = fn.serial(net, fn.Tanh())
    page = ElementTree.fromstring(net._repr_html_())
    assert [one.get("open") for one in page.iter("details")] == ["", "", None, None]


def test_a_net_with_missing_sizes_says_so() -> None:
    """Its params cannot be counted yet, but its layers are still listed."""
    lines = words_of(fn.serial(fn.Linear(None, 3), fn.Tanh()))
    assert lines[0].endswith("sizes not inferred yet")
    assert len(lines) == 3


@pytest.mark.parametrize(
    "net",
    [
        fn.Linear(2, 3),
        fn.serial(),
        fn.repeat(fn.Linear(3, 3), 4),
        fn.ensemble(fn.Linear(3, 1), 5),
        fn.remat(fn.transformer_encoder(8, 2, 2, 16)),
        fn.graph("x", a=(fn.Linear(2, 2), "x"), b=(fn.Add(), "a", "x")),
    ],
    ids=lambda net: type(net).__name__,
)
def test_every_kind_of_net_is_well_formed(net: fn.Layer) -> None:
    """The HTML also loads nothing from outside."""
    page = net._repr_html_()
    ElementTree.fromstring(page)
    assert not re.search(r"src=|href=|url\(|https?:|<script", page)
    total = fn.tree.size(net.init(0))
    assert f"{total:,} param" in page or not total


def test_names_are_escaped() -> None:
    """Names of nodes and of functions are tried."""
    net: Any = fn.serial(**{"<script>": fn.elementwise(torch.sin, torch.cos)})
    assert "<script>" not in net._repr_html_()
    assert "&lt;script&gt;" in net._repr_html_()
