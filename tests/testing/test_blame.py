"""In a net with one wrong layer, ``check_vjp`` names that layer and its error."""

import re
from typing import Any

import pytest
import torch
from broken_kernels import WrongInFloat32
from broken_layers import Unreversed, WrongScale
from sound_layers import Affine, Chain
from torch import Tensor

import funcnet as fn
from funcnet.testing import LAWS, check_vjp

X = fn.random.normal(0, (4, 3))
SOUND, WRONG = Affine(), WrongScale()
WRONG_HERE = "the gradient of x at "


@fn.frozen
class WrongAbove(Affine):
    """Wrong only for large numbers: a layer may get them within a net, but not when tried on small ones by itself."""

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        gparams, gx = super().vjp(params, cache, gy)
        return gparams, torch.where(cache > 50, 1.01 * gx, gx)


@fn.frozen
class Hundredfold(fn.Layer):
    def apply(self, params: Any, x: Tensor) -> Any:
        return 100 * x, ()

    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        return params, 100 * gy


@fn.frozen
class Within(fn.Layer):
    """A user's layer that holds another one in a field but is no combinator: y = layer(x)."""

    layer: fn.Layer = WRONG

    def init(self, rng: Any) -> Any:
        return self.layer.init(rng)

    def apply(self, params: Any, x: Tensor) -> Any:
        return self.layer.apply(params, x)

    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        return self.layer.vjp(params, cache, gy)


def by_name(layer: fn.Layer) -> fn.Layer:
    return fn.graph("x", a=(fn.Tanh(), "x"), b=(layer, "a"), out=(fn.Add(), "a", "b"))


# A net, and the path of the layer in it that is wrong.
NETS = {
    "serial": (fn.serial(SOUND, fn.Tanh(), WRONG, fn.Tanh()), "2"),
    "serial by name": (fn.serial(a=SOUND, b=WRONG), "b"),
    "serial in serial": (fn.serial(SOUND, fn.serial(fn.Tanh(), WRONG)), "1.1"),
    "branch": (fn.branch(SOUND, WRONG, merge=fn.Add()), "1"),
    "residual": (fn.residual(fn.serial(SOUND, WRONG)), "0.1"),
    "graph": (by_name(WRONG), "b"),
    "a layer of a graph in a serial": (fn.serial(SOUND, by_name(fn.serial(fn.Tanh(), WRONG))), "1.b.1"),
    "tied": (fn.tied(fn.serial(a=SOUND, b=fn.Tanh(), c=WRONG), ("c", "a")), "c"),
    "dropout before": (fn.serial(fn.Linear(3, 3), fn.Dropout(0.5), WRONG), "2"),
    "of a user's": (Chain((SOUND, fn.Tanh(), WRONG)), "2"),
    "the first of two": (fn.serial(SOUND, WRONG, WRONG), "1"),
    "wrong there only": (fn.serial(Hundredfold(), WrongAbove()), "1"),
}


@pytest.mark.parametrize(("net", "path"), NETS.values(), ids=NETS)
def test_the_wrong_layer_in_a_net_is_named(net: fn.Layer, path: str) -> None:
    """The message begins with the error of the net; then come the path, the layer and its own error, and the net last."""
    with pytest.raises(AssertionError) as caught:
        check_vjp(net, X)
    message = str(caught.value)
    assert message.startswith("the gradient of ")
    assert f"; the first wrong layer is {path!r}, {fn.at(net, path)}: {WRONG_HERE}" in message


PAIR = (X, X + 1)
OTHER = {
    "parallel": (fn.parallel(SOUND, WRONG), PAIR, "'1', WrongScale()"),
    "shared": (fn.shared(WRONG), PAIR, "the inner one, WrongScale()"),
    "scan": (fn.scan(fn.serial(fn.Add(), WRONG), output_is_carry=True), (X[:, None], X[:1]), "'1', WrongScale()"),
    "a wrapper": (fn.channels_last(WRONG), X, "the inner one, WrongScale()"),
    "a field": (Within(), X, "'layer', WrongScale()"),
}


@pytest.mark.parametrize(("net", "x", "wrong"), OTHER.values(), ids=OTHER)
def test_it_is_found_whatever_holds_it(net: fn.Layer, x: Any, wrong: str) -> None:
    """The wrong layer may be in combinators of several inputs, in wrappers, which have no name for it, and in users' layers."""
    with pytest.raises(AssertionError, match=f"; the first wrong layer is {re.escape(wrong)}: the gradient of "):
        check_vjp(net, x)


def test_where_all_layers_are_right_the_net_itself_is_wrong() -> None:
    """The message names no layer within."""
    with pytest.raises(AssertionError, match=r"; \d+ of the \d+ there are wrong; in Unreversed\("):
        check_vjp(Unreversed(), X)


def test_below_float64_the_layer_is_named_too() -> None:
    """Law 1 compares with the result in float64, for the net and for its layers."""
    with pytest.raises(
        AssertionError, match=r"^law 1, transpose in float32: y at .*; the first wrong layer is '1', WrongInFloat32"
    ):
        LAWS["transpose"](fn.serial(fn.Tanh(), WrongInFloat32(), SOUND), X, dtype=torch.float32)


# Nets in which the true gradient of the named leaf is 0, because large terms cancel.
ZERO = {
    "the mean of what has mean 0": (fn.serial(fn.InstanceNorm2d(3), fn.GlobalAvgPool()), fn.random.normal(0, (2, 3, 6, 5)), "x"),
    "a norm of one number": (fn.LayerNorm(1), X[:, :1], "x"),
    "a shift before a softmax": (fn.serial(fn.Linear(3, 1), fn.Softmax(0)), X, "params.0.bias"),
    "a shift before a norm": (fn.serial(fn.Linear(3, 2), fn.BatchNorm1d(2)), 100 * X, "params.0.bias"),
    "the sum of probabilities": (fn.serial(fn.Softmax(), fn.Sum(-1)), 10 * X, "x"),
    "the norm of a direction": (fn.serial(fn.Normalize(), fn.Normalize(), fn.LPPool1d(2.0, 3)), X[None], "x"),
}


@pytest.mark.parametrize(("net", "x", "path"), ZERO.values(), ids=ZERO)
def test_a_gradient_of_0_passes(net: fn.Layer, x: Tensor, path: str) -> None:
    """What rounding leaves of cancelling terms is measured, but is no error."""
    assert check_vjp(net, x)[path] is not None


@fn.frozen
class NotQuiteZero(fn.GlobalAvgPool):
    """The mean, with a gradient that does not quite have the right sum."""

    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        gparams, gx = super().vjp(params, cache, gy)
        return gparams, gx + 1e-6 * torch.arange(gx.shape[-1]).to(gx)


def test_a_small_error_is_distinguished_from_rounding() -> None:
    """A gradient of 10⁻⁶ where it should be 0 is wrong: rounding leaves 10⁻¹⁶."""
    with pytest.raises(AssertionError, match="; the first wrong layer is '1', NotQuiteZero"):
        check_vjp(fn.serial(fn.InstanceNorm2d(3), NotQuiteZero()), fn.random.normal(0, (2, 3, 6, 5)))
