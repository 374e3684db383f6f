"""The example of a reversible net, run small: its printed memory is right, and it learns."""

import re

import pytest
import torch

import funcnet as fn
from examples import reversible


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """Run eight epochs of a net of eight blocks; return the output and the folder."""
    folder = tmp_path_factory.mktemp("reversible")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reversible, "DEPTHS", (2, 6))
        lines = []
        patch.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(map(str, words))))
        reversible.main(["--epochs", "8", "--blocks", "8", "--out", str(folder)])
    return "\n".join(lines), folder


def test_the_memory_of_reversible_blocks_does_not_grow(printed):
    """Plain blocks keep three times as much for three times the depth, apart from the surrounding layers."""
    rows = re.findall(r"^ +(\d+) +([\d.]+) +([\d.]+)$", printed[0], re.MULTILINE)
    (_, few, one), (_, many, other) = rows
    assert one == other
    assert 2 < float(many) / float(few) < 3


def test_it_learns_and_saves_a_picture(printed):
    """Nearly all test points are classified correctly after eight epochs."""
    assert float(re.search(r"test accuracy ([\d.]+)", printed[0])[1]) > 0.9
    assert (printed[1] / "reversible.png").read_bytes().startswith(b"\x89PNG")


def test_both_kinds_of_blocks_are_one_function():
    """Value and gradients agree for the same params in other places."""
    params = reversible.reversible_block.init(0)
    named = {"f": params[0], "y1": {}, "g": params[1], "y2": {}}
    x = tuple(fn.random.normal(i, (3, reversible.WIDTH)) for i in (1, 2))
    (y, cache), (want, kept) = reversible.reversible_block.apply(params, x), reversible.plain_block.apply(named, x)
    torch.testing.assert_close(y, want)
    (gparams, gx), (gnamed, gwant) = reversible.reversible_block.vjp(params, cache, y), reversible.plain_block.vjp(named, kept, y)
    torch.testing.assert_close((gparams, gx), ((gnamed["f"], gnamed["g"]), gwant))
