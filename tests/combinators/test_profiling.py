"""Profiling: the ranges in a profile, and unchanged results."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import funcnet as fn

NET = fn.serial(fn.Linear(3, 4), fn.residual(fn.serial(fn.Tanh(), fn.Linear(4, 4))), fn.Linear(4, 2))
X = fn.random.normal(0, (5, 3))


def ranges(work):
    """Return the names of our ranges in a profile."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        work()
    return [
        event.name
        for event in seen.events()
        if event.name.endswith((".apply", ".vjp", ".grads", ".input_grad", ".inverse", ".restore"))
    ]


def test_every_layer_of_a_net_is_profiled_by_its_path():
    """One line with map_layers gives a range for each layer and direction, nested as the layers are."""
    net = fn.map_layers(lambda path, layer: fn.profiled(layer, path or "net"), NET, with_path=True)
    params = NET.init(0)

    def work():
        y, cache = net.apply(params, X)
        net.vjp(params, cache, torch.ones_like(y))

    found = ranges(work)
    assert found[0] == "net.apply"
    assert {f"{path}.{verb}" for path, _ in fn.walk(NET) for verb in ("apply", "vjp")} <= {
        name.replace("net.", ".") if name.startswith("net.") else name for name in found
    }


def test_each_verb_has_its_range():
    """Without a name it has the layer's class; prediction counts as apply."""
    layer, params = fn.profiled(fn.Linear(3, 2)), fn.Linear(3, 2).init(0)
    y, cache = layer.apply(params, X)
    assert ranges(lambda: layer(params, X)) == ["Linear.apply"]
    assert ranges(lambda: layer.vjp(params, cache, y)) == ["Linear.vjp"]
    assert ranges(lambda: layer.grads(params, cache, y)) == ["Linear.grads"]
    assert ranges(lambda: layer.input_grad(params, cache, y)) == ["Linear.input_grad"]


def test_nothing_else_changes():
    """Results agree bit for bit, as do params and the place named in an error."""
    layer, plain, params = fn.profiled(NET), NET, NET.init(0)
    assert fn.tree.equal(layer.init(0), params)
    y, cache = layer.apply(params, X)
    assert fn.tree.equal((y, layer.vjp(params, cache, y)), (y, plain.vjp(params, plain.apply(params, X)[1], y)))
    with pytest.raises(ValueError, match=r"the last axis of x must be in_features=3") as caught:
        layer.apply(params, X[:, :2])
    assert any("in profiled" in note for note in caught.value.__notes__)


def test_what_is_no_layer_or_no_name_is_refused():
    """The error is raised when it is made."""
    with pytest.raises(ValueError, match="layer"):
        fn.profiled(3)
    with pytest.raises(ValueError, match="name must be a str, or None"):
        fn.profiled(fn.Tanh(), 3)


def test_a_profile_of_invertible_layers_is_that_of_a_run():
    """Profiled layers stay invertible: a serial of them still keeps one output and restores the others."""
    half = fn.serial(fn.Linear(3, 3), fn.Tanh())
    plain = fn.serial(*[fn.reversible(half, half)] * 3)
    net = fn.map_layers(lambda path, layer: fn.profiled(layer, path or "net"), plain, with_path=True)
    params, x = net.init(0), (X, X)
    (y, cache), (want, kept) = net.apply(params, x), plain.apply(params, x)
    assert fn.tree.equal((y, net.vjp(params, cache, y)), (want, plain.vjp(params, kept, y)))
    assert fn.tree.nbytes(cache) == fn.tree.nbytes(kept)
    assert fn.tree.equal(net.inverse(params, y), plain.inverse(params, y))
    assert [name for name in ranges(lambda: net.grads(params, cache, y)) if name.endswith("restore")] == [
        f"{i}.restore" for i in (2, 1, 0)
    ]
