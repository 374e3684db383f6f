"""Round trips: every tree that can be saved comes back as it was, bit for bit."""

import math
from collections import OrderedDict
from typing import NamedTuple

import torch

import funcnet as fn


class Point(NamedTuple):
    x: object
    y: object


def test_a_tree_comes_back_as_it_was(tmp_path):
    """Its nodes, keys, their order, and what is no tensor."""
    tree = {
        "b": (1, [2**80, -(2**63), -0.0, 0.1, 1e-320, math.inf, -math.inf], None, True, 'é\n"', {}, (), []),
        1: OrderedDict(z=torch.Size([2, 3]), a=complex(-0.0, math.inf)),
        "": {-2: 0, False: 1},
    }
    fn.save(tmp_path / "a.fn", tree)
    loaded = fn.load(tmp_path / "a.fn")
    assert repr(loaded) == repr(tree)
    assert list(loaded) == list(tree)


def test_named_tuples_get_the_class_of_like(tmp_path):
    """Or else a new class with the same name and fields, the same one at every load."""
    fn.save(tmp_path / "a.fn", {"p": Point(1, torch.ones(2))})
    one, other = fn.load(tmp_path / "a.fn")["p"], fn.load(tmp_path / "a.fn")["p"]
    assert type(one) is type(other) is not Point
    assert type(one).__name__ == "Point"
    assert one.x == 1
    assert type(fn.load(tmp_path / "a.fn", {"p": Point(0, torch.zeros(2))})["p"]) is Point
