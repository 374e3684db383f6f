"""Prediction: ``net(params, x)`` calls the layers within, so that only one layer's cache exists at a time."""

from typing import Any

import pytest
import torch
from cases import CASES

import funcnet as fn
from funcnet.combinator import Combinator
from funcnet.contract import Layer
from funcnet.stand_ins import StandIn, stand_in_for

AS_ONE = fn.ensemble(fn.Tanh(), 1), fn.MultiHeadAttention(2, 1), fn.MaskedConv(fn.Conv1d(1, 1, 1), "A")
"""Kinds of layers that run their children for all members at once, or as part of their formula."""


class Spy(StandIn):
    """A layer that must not be applied."""

    def apply(self, params: Any, x: Any, rng: Any = None) -> Any:
        raise AssertionError(f"{self.original!r} was applied, and makes a cache")

    def __call__(self, params: Any, x: Any, rng: Any = None) -> Any:
        return self.original(params, x, rng)


def spied(layer: Layer) -> Layer:
    """Return the net with spies in place of the layers that hold no others."""
    if isinstance(layer, Combinator) and layer.children():
        return layer.with_children({name: spied(child) for name, child in layer.children().items()})
    return stand_in_for(layer, Spy)


def runs_its_layers(layer: Layer) -> bool:
    kinds = [type(one) for _, one in fn.walk(layer)]
    return isinstance(layer, Combinator) and len(kinds) > 1 and not {*map(type, AS_ONE)} & {*kinds}


@pytest.mark.parametrize("name", [name for name in CASES if runs_its_layers(CASES[name].layer)])
def test_prediction_applies_no_layer_within(name: str) -> None:
    """Every combinator of the catalogue is tried."""
    layer, x, params = CASES[name][:3]
    torch.testing.assert_close(spied(layer)(params, x, fn.key(0)), layer(params, x, fn.key(0)), equal_nan=True)


@pytest.mark.parametrize("layer", [fn.LayerNorm(3), fn.Dropout(0.5), fn.LSTM(3, 3), fn.MaxPool2d(2)], ids=repr)
@pytest.mark.parametrize("shared_input", [True, False])
def test_prediction_of_an_ensemble_keeps_no_cache(layer: Layer, shared_input: bool) -> None:
    """Members are called, by vmap or in turn; applying them would return or keep the caches of all members."""
    net = fn.ensemble(layer, 2, shared_input=shared_input)
    params, key = net.init(0), fn.key(1)
    for side in (4, 200):
        x = fn.random.normal(2, (*[2] * (not shared_input), *([5, 3, side, side] if "Pool" in repr(layer) else [5, side, 3])))
        want = net.apply(params, x, key)[0]
        spy = fn.ensemble(stand_in_for(layer, Spy), 2, shared_input=shared_input)
        assert fn.tree.equal(spy(params, x, key), want)
