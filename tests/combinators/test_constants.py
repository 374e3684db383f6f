"""Constants that layers in series share: values and gradients by hand, paths, and replacing a layer."""

import pytest
import torch
from twins import CLOSE, draw

import funcnet as fn

X, C, D = (draw((3, 2), i) for i in range(3))
MUL = fn.Mul()


def test_layers_in_series_see_the_same_constants():
    """Three products by c and d give x c³ d³, whose gradients are known."""
    net = fn.serial_with_constants(MUL, MUL, MUL)
    y, cache = net.apply(({}, {}, {}), (X, C, D))
    torch.testing.assert_close(y, X * C**3 * D**3, **CLOSE)
    want = C**3 * D**3, 3 * X * C**2 * D**3, 3 * X * C**3 * D**2
    torch.testing.assert_close(net.input_grad(({}, {}, {}), cache, torch.ones_like(y)), want, **CLOSE)


def test_an_output_is_followed_by_its_constants():
    """The gradient of a constant is the sum of the layer's and the output's."""
    net = fn.keep_constants(MUL)
    (y, kept), cache = net.apply({}, (X, C))
    torch.testing.assert_close((y, kept), (X * C, C), **CLOSE)
    torch.testing.assert_close(net.input_grad({}, cache, (D, D)), (D * C, D * X + D), **CLOSE)
    assert net.input_grad({}, cache, (D, None))[1] is not None
    assert torch.equal(fn.keep_constants(fn.Tanh())({}, X), fn.Tanh()({}, X))


def test_it_is_a_serial_of_layers_that_keep_them():
    """Params, draws and gradients agree, even with frozen layers."""
    block = fn.serial(fn.Mul(), fn.Linear(2, 2), fn.Dropout(0.5))
    layers = fn.freeze(block), block, fn.serial(fn.Add(), fn.Linear(2, 1))
    net, plain = fn.serial_with_constants(*layers), fn.serial(*map(fn.keep_constants, layers[:2]), layers[2])
    params, x = net.init(0), (X.float(), C.float())
    assert fn.tree.equal(params, plain.init(0))
    (y, cache), (want, of_plain) = net.apply(params, x, 1), plain.apply(params, x, 1)
    assert torch.equal(y, want)
    assert fn.tree.equal(net.grads(params, cache, y), plain.grads(params, of_plain, y))
    assert net.grads(params, cache, y)[0][1]["weight"] is None


def test_a_replaced_layer_sees_the_constants_too():
    """Paths are the numbers of the layers."""
    net = fn.replace(fn.serial_with_constants(MUL, MUL), "0", fn.Add())
    torch.testing.assert_close(net(({}, {}), (X, C)), (X + C) * C, **CLOSE)
    assert [path for path, _ in fn.walk(net)] == ["", "0", "1"]
    assert net[1] == MUL


def test_there_must_be_a_layer():
    """Without a layer the constants would have no use."""
    with pytest.raises(ValueError, match="serial_with_constants: there must be at least one layer, got none"):
        fn.serial_with_constants()
