"""Reversibility: formula and inverse against autograd; runs in a serial; the size of the cache; the error messages."""

import pytest
import torch
from twins import draw

import funcnet as fn
from funcnet import tree

F, G = fn.serial(fn.Linear(3, 2), fn.Tanh()), fn.serial(fn.Linear(2, 3), fn.Sin())
LAYER = fn.reversible(F, G)
X = draw((4, 2)), draw((4, 3))


def doubled(layer):
    """Return fresh params in float64."""
    return tree.cast(layer.init(0), torch.float64)


def formula(params, x):
    """Return (x₁ + f(x₂), x₂ + g(y₁))."""
    y1 = x[0] + F(params[0], x[1])
    return y1, x[1] + G(params[1], y1)


def through(params, x):
    """Return the formula applied once for each entry of params."""
    for one in params:
        x = formula(one, x)
    return x


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_the_gradients_are_those_of_the_formula(depth):
    """Autograd agrees, for one layer and for runs, in all backward methods."""
    net, gy = fn.serial(*[LAYER] * depth), (draw((4, 2)), draw((4, 3)))
    params = doubled(net)
    y, cache = net.apply(params, X)
    want, pulled = torch.func.vjp(through, params, X)
    torch.testing.assert_close(y, want)
    torch.testing.assert_close(net.vjp(params, cache, gy), pulled(gy))
    torch.testing.assert_close(net.grads(params, cache, gy), pulled(gy)[0])
    torch.testing.assert_close(net.input_grad(params, cache, gy), pulled(gy)[1])


@pytest.mark.parametrize("net", [LAYER, fn.serial(), fn.serial(LAYER, fn.freeze(LAYER)), fn.serial(a=LAYER, b=fn.serial(LAYER))])
def test_the_inverse_restores_x(net):
    """A layer and nets are tried; the cache of ``restore`` gives the same gradients as ``apply``'s."""
    params = doubled(net)
    y, cache = net.apply(params, X)
    assert net.invertible
    torch.testing.assert_close(net.inverse(params, y), X)
    x, restored = net.restore(params, y)
    torch.testing.assert_close(x, X)
    torch.testing.assert_close(net.vjp(params, restored, y), net.vjp(params, cache, y))


def test_the_inverse_of_a_stochastic_net_takes_the_key_of_apply():
    """Each layer gets the key that it has in ``apply``."""
    net = fn.serial(*[fn.reversible(fn.serial(fn.Dropout(0.5), F), G)] * 3)
    params = doubled(net)
    torch.testing.assert_close(net.inverse(params, net(params, X, 7), 7), X)
    assert not torch.allclose(net.inverse(params, net(params, X, 7), 8)[0], X[0])


def test_a_run_keeps_one_output_whatever_its_depth():
    """128 layers keep as many bytes as 2, in a serial with other layers around."""

    def kept(depth):
        net = fn.serial(fn.parallel(fn.Linear(2, 2), fn.Linear(3, 3)), *[LAYER] * depth, fn.Concat())
        return tree.nbytes(net.apply(doubled(net), X)[1])

    assert kept(128) == kept(2) == kept(1)


def test_running_statistics_move_in_a_run():
    """The statistics move as in the same layers run one by one, up to rounding."""
    net = fn.serial(*[fn.reversible(fn.serial(fn.BatchNorm1d(3), F), G)] * 3)
    params, x, alone = doubled(net), X, []
    for layer, p in zip(net, params, strict=True):
        y, cache = layer.apply(p, x)
        alone.append(layer.update_stats(p, cache))
        x = y
    moved = net.update_stats(params, net.apply(params, X)[1])
    torch.testing.assert_close(moved, tuple(alone))
    assert moved[2][0][0]["num_batches_tracked"] == 1


def test_sizes_are_inferred():
    """f's come from the second half, g's from the first."""
    lazy = fn.reversible(fn.Linear(None, 2), fn.Linear(None, 3))
    assert fn.infer_sizes(lazy, X) == fn.reversible(fn.Linear(3, 2), fn.Linear(2, 3))


class Doubled(fn.Layer):
    """A custom invertible layer, y = 2 x, in three methods."""

    def apply(self, params, x):
        return 2 * x, ()

    def vjp(self, params, cache, gy):
        return params, 2 * gy

    def inverse(self, params, y):
        return y / 2


Doubled = fn.frozen(Doubled)


def test_a_custom_layer_is_invertible_by_its_inverse():
    """Any class that defines ``inverse`` is invertible; a key is ignored, and ``restore`` works."""
    net, x = fn.serial(Doubled(), Doubled()), torch.ones(3)
    y, cache = net.apply(((), ()), x)
    assert net.invertible
    assert torch.equal(net.inverse(((), ()), y, 0), x)
    assert torch.equal(net.input_grad(((), ()), cache, x), 4 * x)
    assert not fn.Tanh().invertible
    assert not fn.serial(Doubled(), fn.Tanh()).invertible


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LAYER(LAYER.init(0), torch.ones(3)), "x must be a pair of floating tensors, got a tensor of shape"),
        (lambda: LAYER.inverse(LAYER.init(0), torch.ones(3)), "must be a pair of floating tensors, got a tensor of shape"),
        (
            lambda: LAYER(LAYER.init(0), (torch.ones(1, 2), torch.ones(4, 3))),
            r"reversible: f\(x2\) must have the shape and dtype of x1, a tensor of shape \(1, 2\) and dtype torch.float32, got ",
        ),
        (lambda: fn.Tanh().inverse({}, torch.ones(3)), r"Tanh\(\): the layer must have an inverse, got one without"),
        (lambda: LAYER.vjp(doubled(LAYER), LAYER.apply(doubled(LAYER), X)[1], X[0]), "reversible: gy must be a pair, got a tens"),
        (
            lambda: LAYER.grads(doubled(LAYER), LAYER.apply(doubled(LAYER), X)[1], (X[0][:1], X[1])),
            r"gy must have the shape of y, \(4, 2\), got gy of shape \(1, 2\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    """The message names the layer, the rule, and what it got."""
    with pytest.raises(ValueError, match=message):
        call()


def test_an_error_says_where():
    """Notes name one of the two layers, and the layer of the serial, forward and backward."""
    net = fn.serial(LAYER, fn.reversible(F, fn.Linear(4, 3)))
    with pytest.raises(ValueError, match="must be in_features=4") as error:
        net.apply(net.init(0), tree.cast(X, torch.float32))
    assert error.value.__notes__ == ["  in reversible, g", "  in serial, layer 1"]
