"""Helpers to make the catalogue."""

import sys
from collections import Counter
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor

import funcnet as fn
from funcnet import random, tree


class Case(NamedTuple):
    """A layer, an input and params.

    ``batched`` says whether the first axis of the input is a batch, ``compiled`` whether law 8 compiles the layer; by default it
    does if the layer is of a new type or takes another branch than the cases before it.
    """

    layer: fn.Layer
    x: Any
    params: Any
    batched: bool = True
    compiled: bool | None = None


_drawn: Counter[str] = Counter()


def normal(*shape: int) -> Tensor:
    """Draw normal numbers, different ones in every call."""
    return random.normal(_key("normal", shape), shape)


def between(low: float, high: float, *shape: int) -> Tensor:
    """Draw uniform numbers between two bounds, different ones in every call."""
    return random.uniform(_key(f"between {low} {high}", shape), shape, low, high)


def _key(kind: str, shape: tuple[int, ...]) -> Tensor:
    """Return a key from the caller's file, the draw, and its number among equal draws: a new case does not change others."""
    draw = f"{sys._getframe(2).f_globals['__name__']} {kind} {shape}"
    _drawn[draw] += 1
    return random.fold_in(_drawn[draw], draw)


def stirred(layer: fn.Layer) -> Any:
    """Return initial params with floating leaves moved by 0.2 to 0.8; the numbers depend on the layer only."""
    numbers, rng = count(), random.fold_in(0, repr(layer))
    return tree.map(lambda leaf: _moved(leaf, random.fold_in(rng, next(numbers))), layer.init(0))


def _moved(leaf: Tensor, key: Tensor) -> Tensor:
    return leaf + random.uniform(key, leaf.shape, 0.2, 0.8) if leaf.is_floating_point() else leaf


def case(layer: fn.Layer, x: Any, *, batched: bool = True, compiled: bool | None = None) -> Case:
    return Case(layer, x, stirred(layer), batched, compiled)


def loose(layer: fn.Layer, x: Any, *, compiled: bool | None = None) -> Case:
    """Make a case whose first axis is not a batch."""
    return case(layer, x, batched=False, compiled=compiled)


# Zeros beside numbers of both signs, and beside numbers closer than every step of a difference; zeros of both signs.
KINKS = torch.tensor([[0.0, 1.0, -1.0, 1e-9, -1e-9], [0.0, 0.0, -0.0, 1e-4, -2.0]])
LARGE = torch.tensor([[50.0, -50.0, 0.0, 49.0], [-50.0, -50.0, -50.0, -50.0], [50.0, 50.0, 50.0, -1.0]])
