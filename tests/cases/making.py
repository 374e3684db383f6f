"""What the catalogue is made with."""

from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor

import funcnet as fn
from funcnet import random, tree


class Case(NamedTuple):
    """A layer, an input and params.

    ``batched`` says whether the first axis of the input is a batch, ``compiled`` whether law 8 compiles the layer; by default it
    does where the layer is of a new type or takes another branch than the cases before it.
    """

    layer: fn.Layer
    x: Any
    params: Any
    batched: bool = True
    compiled: bool | None = None


_seeds = count(1)


def normal(*shape: int) -> Tensor:
    """Draw normal numbers, others at every call."""
    return random.normal(next(_seeds), shape)


def between(low: float, high: float, *shape: int) -> Tensor:
    """Draw evenly between two bounds, others at every call."""
    return random.uniform(next(_seeds), shape, low, high)


def stirred(params: Any) -> Any:
    """Move the floating leaves by 0.2 to 0.8 each."""
    return tree.map(lambda leaf: leaf + between(0.2, 0.8, *leaf.shape) if leaf.is_floating_point() else leaf, params)


def case(layer: fn.Layer, x: Any, *, batched: bool = True, compiled: bool | None = None) -> Case:
    return Case(layer, x, stirred(layer.init(0)), batched, compiled)


def loose(layer: fn.Layer, x: Any, *, compiled: bool | None = None) -> Case:
    """Make a case whose first axis is no batch."""
    return case(layer, x, batched=False, compiled=compiled)


# 0 among positive and negative numbers, at a distance below every step of a difference, and alone.
KINKS = torch.tensor([[0.0, 1.0, -1.0, 1e-9, -1e-9], [0.0, 0.0, -0.0, 1e-4, -2.0]])
LARGE = torch.tensor([[50.0, -50.0, 0.0, 49.0], [-50.0, -50.0, -50.0, -50.0], [50.0, 50.0, 50.0, -1.0]])
