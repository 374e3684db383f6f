"""Affine couplings: formula, determinant and inverse against torch.func; runs in a serial; the error messages."""

import pytest
import torch
from twins import draw

import funcnet as fn
from funcnet import tree

F, G = fn.serial(fn.Linear(3, 4), fn.Sin(), fn.Chunk(2)), fn.serial(fn.Linear(2, 6), fn.Tanh(), fn.Chunk(2))
LAYER = fn.affine_coupling(F, G)
X = draw((4, 2)), draw((4, 3)), draw((4,))
GY = draw((4, 2)), draw((4, 3)), draw((4,))


def doubled(layer):
    """Return fresh params in float64."""
    return tree.cast(layer.init(0), torch.float64)


def formula(params, x):
    """Return the two couplings by the formula of the paper."""
    s, t = F(params[0], x[1])
    y1 = x[0] * torch.exp(s) + t
    u, v = G(params[1], y1)
    return y1, x[1] * torch.exp(u) + v, x[2] + s.sum(1) + u.sum(1)


def through(params, x):
    """Return the formula applied once for each entry of params."""
    for one in params:
        x = formula(one, x)
    return x


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_the_gradients_are_those_of_the_formula(depth):
    """Autograd agrees, for one layer and for runs, in all backward methods."""
    net = fn.serial(*[LAYER] * depth)
    params = doubled(net)
    y, cache = net.apply(params, X)
    want, pulled = torch.func.vjp(through, params, X)
    torch.testing.assert_close(y, want)
    torch.testing.assert_close(net.vjp(params, cache, GY), pulled(GY))
    torch.testing.assert_close(net.grads(params, cache, GY), pulled(GY)[0])
    torch.testing.assert_close(net.input_grad(params, cache, GY), pulled(GY)[1])


def test_the_last_entry_is_the_logarithm_of_the_determinant():
    """The determinant is of each row's Jacobian, through three couplings."""
    net = fn.serial(*[LAYER] * 3)
    params = doubled(net)

    def row(x):
        y1, y2, _ = net(params, (x[None, :2], x[None, 2:], x.new_zeros(1)))
        return torch.cat((y1[0], y2[0]))

    jacobians = torch.stack([torch.func.jacrev(row)(x) for x in torch.cat(X[:2], 1)])
    torch.testing.assert_close(net(params, (*X[:2], torch.zeros_like(X[2])))[2], torch.linalg.slogdet(jacobians)[1])


@pytest.mark.parametrize("net", [LAYER, fn.serial(LAYER, fn.freeze(LAYER)), fn.serial(a=LAYER, b=fn.serial(LAYER))])
def test_the_inverse_restores_x(net):
    """Layers, nets and log_det are tried; the cache of ``restore`` gives the same gradients as ``apply``'s."""
    params = doubled(net)
    y, cache = net.apply(params, X)
    assert net.invertible
    torch.testing.assert_close(net.inverse(params, y), X)
    x, restored = net.restore(params, y)
    torch.testing.assert_close(x, X)
    torch.testing.assert_close(net.vjp(params, restored, GY), net.vjp(params, cache, GY))


def test_the_inverse_of_a_stochastic_net_takes_the_key_of_apply():
    """Each layer gets the key that it has in ``apply``."""
    net = fn.serial(*[fn.affine_coupling(fn.serial(fn.Dropout(0.5), F), G)] * 3)
    params = doubled(net)
    torch.testing.assert_close(net.inverse(params, net(params, X, 7), 7), X)
    assert not torch.allclose(net.inverse(params, net(params, X, 7), 8)[0], X[0])


def test_a_run_keeps_one_output_whatever_its_depth():
    """64 couplings keep as many bytes as 2."""

    def kept(depth):
        net = fn.serial(*[LAYER] * depth)
        return tree.nbytes(net.apply(doubled(net), X)[1])

    assert kept(64) == kept(2) == tree.nbytes(X)


def test_the_determinant_may_have_several_axes():
    """Its axes are the first axes of both halves; the scales along the other axes are summed."""
    layer = fn.affine_coupling(*[fn.branch(fn.Sin(), fn.Cos())] * 2)
    x = draw((2, 3, 5)), draw((2, 3, 5)), torch.zeros(2, 3, dtype=torch.float64)
    y = layer(layer.init(0), x)
    torch.testing.assert_close(y[2], torch.sin(x[1]).sum(-1) + torch.sin(y[0]).sum(-1))


def test_sizes_are_inferred():
    """f's come from the second half, g's from the first."""
    lazy = fn.affine_coupling(fn.Linear(None, 4) >> fn.Chunk(2), fn.Linear(None, 6) >> fn.Chunk(2))
    assert fn.infer_sizes(lazy, X) == fn.affine_coupling(fn.Linear(3, 4) >> fn.Chunk(2), fn.Linear(2, 6) >> fn.Chunk(2))


SINGLE = tree.cast(X, torch.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: LAYER(LAYER.init(0), SINGLE[:2]),
            r"affine_coupling: x must be a tuple \(x1, x2, log_det\) of .*, got a tuple of 2",
        ),
        (lambda: LAYER.inverse(LAYER.init(0), SINGLE[0]), r"affine_coupling: y must be a tuple \(x1, x2, log_det\) of three"),
        (
            lambda: LAYER(LAYER.init(0), (*SINGLE[:2], SINGLE[2][:1])),
            r"log_det, the last of x, must have the dtype and the first axes of both halves, got .*shape \(1,\)",
        ),
        (
            lambda: LAYER(LAYER.init(0), (SINGLE[0][:, :1], *SINGLE[1:])),
            r"f\(x2\) must be a pair \(log_scale, shift\), each with the shape and dtype of x1, a tensor of shape \(4, 1\)",
        ),
        (
            lambda: fn.affine_coupling(fn.Linear(3, 2), G)(fn.affine_coupling(fn.Linear(3, 2), G).init(0), SINGLE),
            r"affine_coupling: f\(x2\) must be a pair \(log_scale, shift\), .*, got a tensor of shape \(4, 2\)",
        ),
        (lambda: LAYER.vjp(doubled(LAYER), LAYER.apply(doubled(LAYER), X)[1], X[:2]), "gy must be a tuple of three tensors"),
        (
            lambda: LAYER.grads(doubled(LAYER), LAYER.apply(doubled(LAYER), X)[1], (*X[:2], X[2][:1])),
            r"gy must have the shape of y, \(4,\), got gy of shape \(1,\)",
        ),
        (lambda: fn.affine_coupling(3, G), "f must be a layer"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    """The message names the layer, the rule, and what it got."""
    with pytest.raises(ValueError, match=message):
        call()


def test_an_error_says_where():
    """A note names one of the two layers, and the layer of the serial."""
    net = fn.serial(LAYER, fn.affine_coupling(F, fn.Linear(4, 6) >> fn.Chunk(2)))
    with pytest.raises(ValueError, match="must be in_features=4") as error:
        net.apply(net.init(0), SINGLE)
    assert error.value.__notes__ == ["  in serial, layer 0", "  in affine_coupling, g", "  in serial, layer 1"]


def test_the_second_layer_follows_the_first():
    """``draw`` shows it: g gets y₁, which comes from f and x; each half of y comes from x and its layer."""
    assert {*LAYER.wires()} == {(None, "0"), (None, "1"), ("0", "1"), (None, None), ("0", None), ("1", None)}
