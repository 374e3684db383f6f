"""Walking: the layers of nets by path, and nets with replaced layers."""

import re
from typing import Any

import pytest
import torch

import funcnet as fn
from funcnet.combinator import Combinator
from funcnet.combinators.ensembles import Ensemble
from funcnet.combinators.sharing import Tied

LINEAR, NORM, DROPOUT = fn.Linear(3, 3), fn.BatchNorm1d(3), fn.Dropout(0.5)
INNER = fn.serial(LINEAR, NORM, DROPOUT)

NETS: dict[str, tuple[fn.Layer, list[str]]] = {
    "a layer": (LINEAR, [""]),
    "serial": (INNER, ["", "0", "1", "2"]),
    "serial by names": (fn.serial(a=LINEAR, b=INNER), ["", "a", "b", "b.0", "b.1", "b.2"]),
    "parallel": (fn.parallel(LINEAR, NORM), ["", "0", "1"]),
    "branch with merge": (fn.branch(LINEAR, NORM, merge=fn.Add()), ["", "0", "1", "2"]),
    "residual": (fn.residual(INNER), ["", "0", "0.0", "0.1", "0.2", "1", "2"]),
    "graph": (fn.graph("x", h=(LINEAR, "x"), y=(NORM, "h")), ["", "h", "y"]),
    "ensemble": (fn.ensemble(INNER, 2), ["", "", "0", "1", "2"]),
    "shared": (fn.shared(INNER), ["", "", "0", "1", "2"]),
    "tied": (fn.tied(fn.serial(LINEAR, LINEAR), ("0", "1")), ["", "", "0", "1"]),
    "lora": (fn.lora(LINEAR, 2, alpha=1.0), ["", "layer"]),
    "parametrize": (fn.parametrize(LINEAR, fn.Tanh()), ["", "", "parametrizations.weight.0"]),
    "weight_norm": (fn.serial(fn.weight_norm(LINEAR)), ["", "0", "0", "0.parametrizations.weight.0"]),
    "scan": (fn.scan(fn.GRUCell(3, 3), output_is_carry=True), ["", ""]),
    "bidirectional": (fn.bidirectional(fn.Identity()), ["", "0", "1", "2"]),
    "channels_last": (fn.channels_last(INNER), ["", "", "0", "1", "2"]),
    "map_over": (fn.map_over(INNER), ["", "", "0", "1", "2"]),
    "uniqued": (fn.uniqued(fn.serial(fn.Embedding(5, 3), LINEAR)), ["", "", "0", "1"]),
    "Pool1d": (fn.Pool1d(fn.serial(LINEAR, fn.Mean(-1)), 3), ["", "", "0", "1"]),
    "AdaptivePool1d": (fn.AdaptivePool1d(fn.Mean(-1), 2), ["", ""]),
    "MaskedConv": (fn.MaskedConv(fn.Conv1d(1, 2, 3, padding=1), "A"), ["", ""]),
    "MultiHeadAttention": (
        fn.MultiHeadAttention(8, 2, rotary=fn.RotaryEmbedding(4), qk_norm=fn.RMSNorm(4)),
        ["", "q_norm", "k_norm", "rotary"],
    ),
}
each_net = pytest.mark.parametrize(("net", "paths"), NETS.values(), ids=NETS)


@each_net
def test_walk_yields_the_paths_of_the_params_outermost_first(net: fn.Layer, paths: list[str]) -> None:
    """A wrapper shares its path with the layer it holds."""
    assert [path for path, _ in fn.walk(net)] == paths


@each_net
def test_a_layer_with_params_is_at_their_path(net: fn.Layer, paths: list[str]) -> None:
    """The entry of params at a layer's path has the names and shapes that the layer declares."""
    params, stacked = net.init(0), isinstance(net, Ensemble)
    for path, layer in fn.walk(net):
        if layer.param_shapes() and not isinstance(net, Tied) and "parametrizations" not in str(fn.tree.structure(params)):
            found = fn.tree.names(_at(params, path))
            assert {name: tuple(leaf.shape)[stacked:] for name, leaf in found.items()} == layer.param_shapes()


def _at(params: Any, path: str) -> Any:
    for name in path.split(".") if path else ():
        params = params[name] if isinstance(params, dict) else params[int(name)]
    return params


@each_net
def test_at_returns_the_outermost_layer_of_a_path(net: fn.Layer, paths: list[str]) -> None:
    """Among layers with the same path, it is the first one that ``walk`` yields."""
    for path in paths:
        assert fn.at(net, path) is next(layer for one, layer in fn.walk(net) if one == path)


@each_net
def test_replacing_a_layer_by_itself_gives_the_net(net: fn.Layer, paths: list[str]) -> None:
    """Every path is tried; a map that changes nothing gives an equal net too."""
    for path in paths:
        if path not in ("q_norm", "k_norm"):  # one field, two paths
            assert fn.replace(net, path, fn.at(net, path)) == net
    assert fn.map_layers(lambda layer: layer, net) is net


@each_net
def test_map_layers_reaches_what_walk_reaches(net: fn.Layer, paths: list[str]) -> None:
    """Each layer is reached once, innermost first."""
    seen: list[tuple[str, fn.Layer]] = []
    fn.map_layers(lambda path, layer: seen.append((path, layer)) or layer, net, with_path=True)
    assert sorted(path for path, _ in seen) == sorted(paths)
    assert [layer for _, layer in seen][-1] is net
    assert {id(layer) for _, layer in seen} == {id(layer) for _, layer in fn.walk(net)}


def test_map_layers_rewrites_bottom_up() -> None:
    """``f`` sees a combinator with its layers already rewritten."""
    half = lambda layer: layer.replace(p=layer.p / 2) if isinstance(layer, fn.Dropout) else layer
    net = fn.residual(fn.graph("x", a=(INNER, "x"), b=(fn.ensemble(DROPOUT, 2), "a")))
    assert fn.map_layers(half, net) == fn.residual(
        fn.graph("x", a=(fn.serial(LINEAR, NORM, fn.Dropout(0.25)), "x"), b=(fn.ensemble(fn.Dropout(0.25), 2), "a"))
    )
    doubled = fn.map_layers(lambda layer: layer if isinstance(layer, Combinator) else fn.serial(layer, layer), fn.serial(LINEAR))
    assert doubled == fn.serial(fn.serial(LINEAR, LINEAR))


def test_replace_puts_a_layer_at_a_path() -> None:
    """The path may be inside wrappers, or belong to a wrapper with all its layers."""
    net = fn.serial(body=fn.channels_last(INNER), head=LINEAR)
    assert fn.replace(net, "body.1", fn.Identity()) == fn.serial(
        body=fn.channels_last(fn.serial(LINEAR, fn.Identity(), DROPOUT)), head=LINEAR
    )
    assert fn.replace(net, "body", fn.Tanh()) == fn.serial(body=fn.Tanh(), head=LINEAR)
    assert fn.replace(net, "", fn.Tanh()) == fn.Tanh()


def test_a_replaced_net_runs_with_replaced_params() -> None:
    """A rewritten net is a net like any other."""
    net, x = fn.serial(LINEAR, fn.Tanh(), LINEAR), fn.random.normal(0, (2, 3))
    wider = fn.replace(fn.replace(net, "0", fn.Linear(3, 7)), "2", fn.Linear(7, 3))
    assert wider(wider.init(0), x).shape == (2, 3)


def test_the_layers_of_a_net_are_indexed_and_counted() -> None:
    """Children are indexed by number, from the end, and by name; a wrapper has its layer's children."""
    net = fn.serial(a=INNER, b=DROPOUT)
    assert (len(net), net[0], net[-1], net["a"], [*net]) == (2, INNER, DROPOUT, INNER, [INNER, DROPOUT])
    assert fn.serial(*INNER)[:2] == fn.serial(LINEAR, NORM)
    assert fn.graph("x", h=(LINEAR, "x"), y=(NORM, "h"))["h"] is LINEAR
    assert fn.branch(LINEAR, NORM, merge=fn.Add())[2] == fn.Add()
    assert (len(fn.map_over(INNER)), fn.map_over(INNER)[1], len(fn.map_over(LINEAR))) == (3, NORM, 0)
    assert bool(fn.serial()), "a net of no layers is a net"


def test_then_is_serial() -> None:
    """``f >> g`` applies f first."""
    assert LINEAR >> fn.Tanh() == fn.serial(LINEAR, fn.Tanh())
    with pytest.raises(TypeError, match="unsupported operand"):
        LINEAR >> 3


SENTENCES = {
    "at: no layer at '3'; there are 0, 1, 2": lambda: fn.at(INNER, "3"),
    "at: no layer at '0.weight'; there are 0, 1, 2": lambda: fn.at(INNER, "0.weight"),
    "replace: no layer at 'head'; there are a, b": lambda: fn.replace(fn.serial(a=LINEAR, b=NORM), "head", LINEAR),
    "at: no layer at '0'; there are none": lambda: fn.at(LINEAR, "0"),
    "serial: no layer 7; there are 0, 1, 2": lambda: INNER[7],
    "graph: no layer 'z'; there are h": lambda: fn.graph("x", h=(LINEAR, "x"))["z"],
    "map_over: no layer 0; Tanh() holds none": lambda: fn.map_over(fn.Tanh())[0],
}


@pytest.mark.parametrize("message", SENTENCES)
def test_a_path_that_does_not_exist_is_a_lookup_error_that_names_those_that_do(message: str) -> None:
    """The error names the net, the path and the existing paths."""
    with pytest.raises(LookupError, match=f"^{re.escape(message)}$"):
        SENTENCES[message]()


def test_only_layers_take_the_places_of_layers() -> None:
    """A function that returns nothing, because of a forgotten ``return``, is named."""
    with pytest.raises(ValueError, match="map_layers: a layer is required"):
        fn.map_layers(lambda layer: None, INNER)
    with pytest.raises(ValueError, match=r"replace: a layer is required .*, got a tensor"):
        fn.replace(INNER, "0", torch.ones(2))
    with pytest.raises(ValueError, match="q_norm and k_norm must be the same layer, qk_norm"):
        fn.replace(NETS["MultiHeadAttention"][0], "q_norm", fn.RMSNorm(4, eps=0.1))
