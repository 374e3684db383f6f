"""Layers with another backward rule: their formulas, their errors, and broken surrogates under laws 1, 2, 10 and 11."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

import funcnet as fn
from funcnet.testing import LAWS, check_laws

X = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.25, -1.0]])
GY = torch.tensor([[0.4, -3.0, 0.0], [float("inf"), 0.5, float("-inf")]])


def back(layer: fn.Layer, gy: Tensor, x: Tensor = X) -> Tensor:
    """Return gx of a layer without params, after reading y."""
    y, cache = layer.apply({}, x)
    assert torch.equal(y, x)
    params, gx = layer.vjp({}, cache, gy)
    assert params == {}
    return gx


def test_the_gradient_is_scaled_reversed_and_clipped():
    """y is x; gx is c gy, -c gy, and gy limited to the bounds."""
    assert torch.equal(back(fn.scale_gradient(0.5), GY), 0.5 * GY)
    assert torch.equal(back(fn.reverse_gradient(), GY), -GY)
    assert torch.equal(back(fn.reverse_gradient(2.0), GY), -2 * GY)
    assert torch.equal(back(fn.clip_gradient(0.5), GY), torch.tensor([[0.4, -0.5, 0.0], [0.5, 0.5, -0.5]]))
    assert torch.equal(back(fn.scale_gradient(0), X), torch.zeros_like(X))


def test_straight_through_hands_the_gradient_on():
    """gx = gy, params get the layer's own gradient, and an inner layer without params does no work."""
    layer = fn.straight_through(fn.Sign())
    y, cache = layer.apply({}, X)
    assert torch.equal(y, X.sign())
    assert torch.equal(layer.vjp({}, cache, GY)[1], GY)
    inner = fn.serial(fn.Linear(3, 3), fn.Tanh())
    params = inner.init(0)
    y, cache = fn.straight_through(inner).apply(params, X)
    gparams, gx = fn.straight_through(inner).vjp(params, cache, X)
    assert fn.tree.equal(gparams, inner.grads(params, inner.apply(params, X)[1], X))
    assert torch.equal(gx, X)


def test_surrogates_say_so_and_so_do_nets_that_hold_one():
    """``surrogate`` is True at any depth, and False for other nets."""
    net = fn.serial(fn.Linear(3, 3), fn.residual(fn.serial(fn.clip_gradient(1.0))))
    assert all(one.surrogate for one in (net, fn.straight_through(fn.Tanh()), fn.scale_gradient(1.0)))
    assert not fn.serial(fn.Linear(3, 3), fn.Tanh()).surrogate


def test_swapping_a_rule_is_one_line():
    """``map_layers`` clips after every activation."""
    net = fn.serial(fn.Linear(3, 4), fn.Tanh(), fn.Linear(4, 2), fn.Tanh())
    clipped = fn.map_layers(lambda one: one >> fn.clip_gradient(0.1) if isinstance(one, fn.Tanh) else one, net)
    assert sum(one == fn.clip_gradient(0.1) for _, one in fn.walk(clipped)) == 2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: fn.scale_gradient(float("nan")), "c must be a finite number, got nan"),
        (lambda: fn.reverse_gradient("1"), "reverse_gradient: c must be a finite number, got '1'"),
        (lambda: fn.clip_gradient(0), "bound must be a finite number above 0.0, got 0"),
        (lambda: fn.straight_through(torch.sign), "layer must be a layer"),
        (lambda: fn.straight_through(fn.Linear(3, 2)).apply(fn.Linear(3, 2).init(0), X), "y must have the shape and dtype of x"),
        (lambda: fn.scale_gradient(2.0).vjp({}, X, X[:1]), "gy must have the shape of y"),
        (lambda: fn.straight_through(fn.Sign()).vjp({}, ((), X), X[:1]), "gy must have the shape of y"),
        (lambda: fn.clip_gradient(1.0).apply({"w": X}, X), "params must be an empty dict"),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, words: str):
    """The message has the rule, and what it got."""
    with pytest.raises(ValueError, match=re.escape(words)):
        make()


@fn.frozen
class Misdeclared(fn.Layer):
    """A surrogate whose vjp is not the one it declares."""

    surrogate = True

    def apply(self, params, x, rng=None):
        return x, ()

    def vjp(self, params, cache, gy):
        return params, 3 * gy

    def declared_vjp(self, params, x, gy, rng=None):
        return params, 2 * gy


@fn.frozen
class Guided(fn.Layer):
    """A custom surrogate without a formula: the ReLU of guided backpropagation."""

    surrogate = True

    def apply(self, params, x, rng=None):
        return x.relu(), x

    def vjp(self, params, cache, gy):
        return params, gy.relu() * (cache > 0)


@fn.frozen
class Forgetful(fn.Wrapper):
    """A wrapper that ignores the rule of its layer."""

    layer: fn.Layer

    def apply(self, params, x, rng=None):
        return self.layer.apply(params, x, rng)

    def vjp(self, params, cache, gy):
        self.layer.vjp(params, cache, gy)
        return params, gy


@fn.frozen
class Silent(Forgetful):
    """A wrapper that does not declare that its layer is a surrogate."""

    surrogate = False

    def vjp(self, params, cache, gy):
        return self.layer.vjp(params, cache, gy)


def test_law_1_compares_with_the_declared_rule():
    """A layer has its formula, a net the chain rule over the rules of its layers; a custom layer needs no formula."""
    x = fn.random.normal(0, (4, 3))
    check_laws(fn.serial(fn.Linear(3, 4), Guided(), fn.Linear(4, 2)), x, compiled=False)
    with pytest.raises(AssertionError, match="law 1, transpose: vjp must agree with declared_vjp"):
        LAWS["transpose"](Misdeclared(), x)
    with pytest.raises(AssertionError, match="law 1, transpose: the gradient of x"):
        LAWS["transpose"](Forgetful(fn.scale_gradient(0.5)), x)


def test_law_10_finds_a_combinator_that_hides_a_surrogate():
    """``surrogate`` must be true if it is for any layer within."""
    with pytest.raises(AssertionError, match="law 10, reach: surrogate must be True"):
        LAWS["reach"](Silent(fn.scale_gradient(0.5)), fn.random.normal(0, (4, 3)))


def test_straight_through_counts_an_absent_gradient_as_zeros_in_every_verb():
    """The identity, which replaces the layer in the backward pass, counts it the same way."""
    layer = fn.straight_through(fn.Linear(3, 3))
    params, x = layer.init(0), torch.ones(2, 3)
    cache = layer.apply(params, x)[1]
    gparams, gx = layer.vjp(params, cache, None)
    assert torch.equal(gx, torch.zeros(2, 3))
    assert torch.equal(layer.input_grad(params, cache, None), gx)
    assert fn.tree.equal(layer.grads(params, cache, None), gparams)
