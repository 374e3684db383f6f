"""Freezing: only the gradients of params change, they cost no work, and running statistics still move."""

import pytest
import torch

import funcnet as fn
from funcnet import tree

TRUNK = fn.serial(fn.Linear(3, 4), fn.BatchNorm1d(4), fn.Tanh())
X = fn.random.normal(0, (5, 3))


@fn.frozen
class Untouchable(fn.Layer):
    """y = w x, without a backward pass."""

    def init(self, rng):
        return {"w": torch.ones(())}

    def apply(self, params, x):
        return params["w"] * x, ()

    def vjp(self, params, cache, gy):
        raise AssertionError("work for a gradient that nobody needs")


def test_only_the_gradients_of_params_change():
    """y, the cache, the params, gx and the statistics match the layer's bit for bit."""
    frozen = fn.freeze(TRUNK)
    params = frozen.init(0)
    assert tree.equal(params, TRUNK.init(0))
    (y, cache), (want, kept) = frozen.apply(params, X), TRUNK.apply(params, X)
    assert torch.equal(y, want)
    assert torch.equal(frozen(params, X), want)
    gparams, gx = frozen.vjp(params, cache, y)
    assert torch.equal(gx, TRUNK.vjp(params, kept, y)[1])
    assert tree.structure(gparams) == tree.structure(frozen.grads(params, cache, y)) == tree.structure(tree.map(_none, params))
    moved = frozen.update_stats(params, cache)
    assert tree.equal(moved, TRUNK.update_stats(params, kept))
    assert not tree.equal(moved, params)


def _none(leaf):
    return None


@pytest.mark.parametrize(
    "net",
    [
        fn.serial(fn.freeze(Untouchable()), fn.freeze(fn.serial(Untouchable())), fn.Tanh(), fn.Linear(3, 2)),
        fn.serial(fn.serial(fn.freeze(Untouchable()), fn.ReLU()), fn.residual(fn.freeze(Untouchable())), fn.Linear(3, 2)),
        fn.serial(a=fn.freeze(Untouchable()), b=fn.Linear(3, 2)),
        fn.graph("x", h=(fn.freeze(Untouchable()), "x"), y=(fn.Linear(3, 2), "h")),
        fn.remat(fn.serial(fn.freeze(Untouchable()), fn.Tanh(), fn.Linear(3, 2))),
        fn.remat(fn.serial(a=fn.freeze(Untouchable()), b=fn.Linear(3, 2)), segments=2),
        fn.serial(fn.remat(fn.freeze(Untouchable())), fn.Linear(3, 2)),
        fn.serial(fn.parallel(fn.freeze(Untouchable())), fn.Concat(), fn.Linear(3, 2)),
    ],
    ids=str,
)
def test_grads_stop_where_all_earlier_layers_are_frozen(net):
    """Frozen layers before it may lack a backward pass; their gradients are ``None``, and the others are right."""
    params, x = net.init(0), (X,) if "parallel" in str(net) else X
    y, cache = net.apply(params, x)
    named = tree.names(net.grads(params, cache, torch.ones_like(y)))
    by_name = {path.rpartition(".")[2]: leaf for path, leaf in named.items()}
    assert {*by_name} == {"weight", "bias"}
    assert torch.equal(by_name["bias"], torch.full((2,), 5.0))


def test_a_net_of_frozen_layers_only_has_no_gradients():
    """The net has no backward pass at all."""
    net = fn.serial(fn.freeze(Untouchable()), fn.Tanh())
    params = net.init(0)
    y, cache = net.apply(params, X)
    assert net.grads(params, cache, y) == ({"w": None}, {})
    assert not net.trainable


@pytest.mark.parametrize(
    "wrap", [fn.remat, lambda one: fn.repeat(one, 5), fn.scan, fn.freeze, fn.checked, fn.tap], ids=lambda one: one.__name__
)
def test_grads_of_a_frozen_layer_do_no_work_in_what_holds_it(wrap):
    """No copy, step or recomputation runs backward."""
    net = wrap(fn.serial(fn.freeze(fn.shared(Untouchable()))))
    params, x = net.init(0), (X, X[0])
    gy, cache = net.apply(params, x)
    assert net.grads(params, cache, gy) == tree.map(_none, params)
    assert tree.leaves(params)


def test_training_moves_the_rest_and_running_statistics():
    """The optimizer decays weights and keeps moments: frozen params keep their bits."""
    net = fn.serial(fn.freeze(TRUNK), fn.Linear(4, 2))
    step = fn.train_step(net, fn.MSE(), fn.AdamW(0.1))
    params = net.init(0)
    trained, state = params, fn.AdamW(0.1).init(params)
    for _ in range(3):
        trained, state, _ = step(trained, state, X, torch.zeros(5, 2))
    before, after = tree.names(params), tree.names(trained)
    changed = {path for path in before if not torch.equal(before[path], after[path])}
    assert changed == {"0.1.running_mean", "0.1.running_var", "0.1.num_batches_tracked", "1.weight", "1.bias"}


@pytest.mark.parametrize("in_backward", [False, True])
def test_a_state_of_the_trained_half_has_no_moments_of_the_frozen_one(in_backward):
    """The steps match the steps with a state for all params, bit for bit."""
    net = fn.serial(fn.freeze(TRUNK), fn.Linear(4, 2))
    opt, params = fn.Adam(0.1), net.init(0)
    step = fn.train_step(net, fn.MSE(), opt, in_backward=in_backward)
    trained, _ = tree.partition(params, lambda path: path.startswith("1"))
    (full, full_state), (lean, lean_state) = (params, opt.init(params)), (params, opt.init(trained))
    for _ in range(3):
        full, full_state, _ = step(full, full_state, X, torch.zeros(5, 2))
        lean, lean_state, _ = step(lean, lean_state, X, torch.zeros(5, 2))
    assert tree.equal(full, lean)
    assert tree.size(lean_state["exp_avg"]) == tree.size(trained) < tree.size(full_state["exp_avg"])


def test_freezing_a_layer_within_a_net_is_a_rewrite():
    """The paths of params stay, so the params fit; ``map_layers`` can undo it."""
    net = fn.serial(TRUNK, fn.Linear(4, 2))
    frozen = fn.replace(net, "0", fn.freeze(TRUNK))
    assert {*tree.names(frozen.init(0))} == {*tree.names(net.init(0))}
    assert fn.map_layers(lambda one: one.layer if not one.trainable and hasattr(one, "layer") else one, frozen) == net
    assert repr(fn.freeze(fn.Tanh())) == "freeze(Tanh())"


def test_what_is_no_layer_is_refused():
    """Params are refused too; for the decorator of values the message says where to look."""
    with pytest.raises(ValueError, match=r"freeze: layer must be a layer \(a value with init, apply and vjp\), got {}"):
        fn.freeze({})
    with pytest.raises(
        TypeError, match=r"frozen: it decorates classes, got Tanh\(\); to freeze the params .* use freeze\(layer\)"
    ):
        fn.frozen(fn.Tanh())
