"""Linear maps of other shapes compared with torch.nn or autograd in float64, and the error messages."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twins import assert_twins, draw, twin_of

import funcnet as fn
from funcnet import tree

SIZES = st.integers(1, 4)
BATCHES = st.lists(st.integers(0, 3), max_size=2).map(tuple)


def assert_autograd(layer, f, x):
    """Compare a layer with drawn params to a function f(x, **params) and its gradients by autograd."""
    params = tree.map(lambda leaf: draw(leaf.shape, leaf.numel()), layer.init(0))
    y, cache = layer.apply(params, x)
    gy = draw(y.shape, 3)
    leaves = [leaf.clone().requires_grad_() for leaf in (x, *params.values())]
    want = f(leaves[0], **dict(zip(params, leaves[1:], strict=True)))
    gx, *gs = torch.autograd.grad(want, leaves, gy)
    torch.testing.assert_close((y, *layer.vjp(params, cache, gy)), (want.detach(), dict(zip(params, gs, strict=True)), gx))


@twin_of("Bilinear")
@given(BATCHES, SIZES, SIZES, SIZES, st.booleans(), st.integers(0, 99))
@settings(max_examples=40)
def test_bilinear_is_torchs(batch, n, m, out, bias, seed):
    """Value and all gradients agree, for any batch shape, or none."""
    pair = draw((*batch, n), seed), draw((*batch, m), seed + 1)
    assert_twins(fn.Bilinear(n, m, out, bias), nn.Bilinear(n, m, out, bias), pair, call=lambda module, x: module(*x))


def test_bilinear_is_drawn_as_torchs():
    """With ``initializer="torch"`` the weight and the bias are uniform in ±1/√in1."""
    for leaf in fn.Bilinear(25, 40, 200, initializer="torch").init(0).values():
        assert 0.19 < float(leaf.abs().max()) <= 0.2
    assert [*fn.Bilinear(25, 4, 3, bias=False, initializer="torch").init(0)] == ["weight"]
    assert not fn.Bilinear(25, 4, 3).init(0)["bias"].any()


@given(st.permutations(range(4)), st.integers(1, 3), st.integers(1, 3), st.booleans(), st.integers(0, 99))
@settings(max_examples=40)
def test_linear_general_contracts_axes(order, n_in, n_out, bias, seed):
    """Any number of axes, in any order and counted from either end, are contracted to any number of new ones."""
    shape = (2, 3, 1, 4)
    axes = tuple(order[:n_in])
    axis = tuple(a - 4 if (seed >> i) % 2 else a for i, a in enumerate(axes))
    layer = fn.LinearGeneral(tuple(shape[a] for a in axes), (2, 3, 2)[:n_out], axis, bias)
    rest = "".join("abcd"[i] for i in range(4) if i not in axes)
    equation = f"abcd,{'xyz'[:n_out]}{''.join('abcd'[a] for a in axes)}->{rest}{'xyz'[:n_out]}"
    assert_autograd(layer, lambda x, weight, bias=0.0: torch.einsum(equation, x, weight) + bias, draw(shape, seed))


def test_linear_general_is_linear_of_one_axis():
    """Both layers draw the same params from the same key."""
    x = draw((5, 3)).float()
    general, linear = fn.LinearGeneral(3, 2), fn.Linear(3, 2)
    assert tree.equal(general.init(1), linear.init(1))
    assert torch.equal(general(general.init(1), x), linear(linear.init(1), x))


EQUATIONS = {
    "...tc,hcd->...htd": ((2, 3, 4), (2, 5, 3)),
    "bc,cd->bd": ((3, 2), (4, 3)),
    "b...c,cd->b...d": ((3, 2), (4, 2, 1, 3)),
    "bij,ijk->bk": ((2, 3, 4), (5, 2, 3)),
    "bct,ct->bct": ((3, 4), (2, 3, 4)),
    "bt,t->b": ((3,), (2, 3)),
    "b,c->cb": ((3,), (2,)),
    "...,c->...c": ((3,), (2, 4)),
    "ab, bc -> ca": ((3, 2), (0, 3)),
}


@pytest.mark.parametrize("equation", EQUATIONS)
def test_einsum_is_torchs(equation):
    """Sums, outer products, batches and ellipses agree, including an empty batch."""
    shape, x = EQUATIONS[equation]
    assert_autograd(fn.Einsum(equation, shape), lambda x, weight: torch.einsum(equation, x, weight), draw(x))


def test_einsum_is_drawn_by_the_sizes_that_it_sums_over():
    """Xavier normal has standard deviation √(2 / (in + out)); in is the size of the axes that y lacks."""
    w = fn.Einsum("btc,hcd->bthd", (20, 300, 10)).init(0)["weight"]
    assert w.std().item() == pytest.approx((2 / 500) ** 0.5, rel=0.01)


@pytest.mark.parametrize("shape", [(), (4,), (3, 1), (3, 4), (2, 1, 1), (1, 1)], ids=str)
def test_scale_and_bias_repeat_along_the_other_axes(shape):
    """Params broadcast as in torch."""
    assert_autograd(fn.Scale(shape), lambda x, weight: x * weight, draw((2, 3, 4)))
    assert_autograd(fn.Bias(shape), lambda x, bias: x + bias, draw((2, 3, 4)))


@given(BATCHES, SIZES, SIZES, SIZES, st.integers(0, 99))
@settings(max_examples=30)
def test_maxout_is_the_largest_piece(batch, n, out, pieces, seed):
    """Value and gradients agree; only the largest piece gets a gradient."""

    def largest(x, weight, bias):
        return nn.functional.linear(x, weight, bias).reshape(*batch, out, pieces).amax(-1)

    assert_autograd(fn.Maxout(n, out, pieces), largest, draw((*batch, n), seed))


def test_of_equal_pieces_one_gets_the_gradient():
    """The gradient is not given to each of them, nor split between them."""
    layer = fn.Maxout(1, 1, 3, bias=False)
    params = {"weight": torch.ones(3, 1)}
    y, cache = layer.apply(params, torch.ones(2, 1))
    gparams, gx = layer.vjp(params, cache, torch.ones(2, 1))
    assert torch.equal(y, torch.ones(2, 1))
    assert torch.equal(gx, torch.ones(2, 1))
    assert sorted(gparams["weight"].flatten().tolist()) == [0, 0, 2]


def called(layer, x):
    return layer(layer.init(0), x)


X = torch.ones(2, 3)
MESSAGES = {
    "Bilinear: in1_features must be a whole number of at least 1, got 0": lambda: fn.Bilinear(0, 1, 1),
    "Bilinear(in1_features=3, in2_features=2, out_features=1): x must have the last axes in1_features=3 and in2_features=2, and the same axes before, not (2, 3) and (2, 3)": lambda: called(fn.Bilinear(3, 2, 1), (X, X)),
    "and the same axes before, not (2, 3) and (1, 3)": lambda: called(fn.Bilinear(3, 3, 1), (X, X[:1])),
    "x must be a pair of floating tensors, got x of shape (2, 3)": lambda: called(fn.Bilinear(3, 2, 1), X),
    "x must be a pair of floating tensors, not torch.float32 and torch.int64, got shapes (2, 3) and (2, 3)": lambda: called(fn.Bilinear(3, 2, 1), (X, X.long())),
    "params must be a dict of weight (1, 3, 3), bias (1,), got weight (1, 9), bias (1,)": lambda: fn.Bilinear(3, 3, 1)({"weight": torch.ones(1, 9), "bias": torch.ones(1)}, (X, X)),
    "LinearGeneral: out_features must be a whole number of at least 1, or a tuple of them, got (2, 0)": lambda: fn.LinearGeneral(3, (2, 0)),
    "LinearGeneral: axis must be a whole number, or a tuple of them, got ('a',)": lambda: fn.LinearGeneral(3, 2, ("a",)),
    "LinearGeneral: axis must have an entry for each of in_features, got in_features=(3, 2), axis=(-1,)": lambda: fn.LinearGeneral((3, 2), 2),
    "LinearGeneral(in_features=(4,), out_features=(2,)): the axes (-1,) of x must be in_features=(4,), got x of shape (2, 3)": lambda: called(fn.LinearGeneral(4, 2), X),
    "the axes (1, -1) of x must be in_features=(3, 3), got x of shape (2, 3)": lambda: called(fn.LinearGeneral((3, 3), 2, (1, -1)), X),
    "the axes (2,) of x must be in_features=(3,), got x of shape (2, 3)": lambda: called(fn.LinearGeneral(3, 2, 2), X),
    "params must be a dict of weight (2, 3), bias (2,), got weight (3, 2), bias (2,)": lambda: fn.LinearGeneral(3, 2)({"weight": torch.ones(3, 2), "bias": torch.ones(2)}, X),
    'Einsum: equation must be like "...ij,jk->...ik", each letter once in an operand, and in at least two of the three, got \'ij,jk\'': lambda: fn.Einsum("ij,jk", (2, 3)),
    "in at least two of the three, got 'iij,jk->ik'": lambda: fn.Einsum("iij,jk->ik", (2, 3)),
    "in at least two of the three, got 'ij,jk->i'": lambda: fn.Einsum("ij,jk->i", (2, 3)),
    "in at least two of the three, got '...ij,jk->ik'": lambda: fn.Einsum("...ij,jk->ik", (2, 3)),
    "in at least two of the three, got 3": lambda: fn.Einsum(3, (2, 3)),
    "Einsum: shape must have a size for each letter of w in the equation, got equation='ij,jk->ik', shape=(2,)": lambda: fn.Einsum("ij,jk->ik", 2),
    "x must have the axes ij with j=4, got x of shape (2, 3)": lambda: called(fn.Einsum("ij,jk->ik", (4, 2)), X),
    "x must have the axes ij with j=3, got x of shape (2, 1)": lambda: called(fn.Einsum("ij,jk->ik", (3, 2)), X[:, :1]),
    "x must have the axes bij with j=3, got x of shape (2, 3)": lambda: called(fn.Einsum("bij,jk->bik", (3, 2)), X),
    "x must have the dtype of the params, torch.float32, got torch.float64": lambda: called(fn.Einsum("ij,jk->ik", (3, 2)), X.double()),
    "Scale: shape must be a whole number of at least 1, or a tuple of them, got (0,)": lambda: fn.Scale(0),
    "Scale(shape=(4,)): the last axes of x must have the sizes shape=(4,), where 1 matches any size, got x of shape (2, 3)": lambda: called(fn.Scale(4), X),
    "Bias(shape=(1, 1, 1)): the last axes of x must have the sizes shape=(1, 1, 1), where 1 matches any size, got x of shape (2, 3)": lambda: called(fn.Bias((1, 1, 1)), X),
    "Bias(shape=(3,)): x must have the dtype of the params, torch.float32, got torch.float64": lambda: called(fn.Bias(3), X.double()),
    "Maxout: pieces must be a whole number of at least 1, got 0": lambda: fn.Maxout(3, 2, 0),
    "Maxout(in_features=4, out_features=2): the last axis of x must be in_features=4, got x of shape (2, 3)": lambda: called(fn.Maxout(4, 2), X),
    "Maxout(in_features=3, out_features=2): params must be a dict of weight (4, 3), bias (4,), got weight (4, 3), bias (1,)": lambda: fn.Maxout(3, 2)({"weight": torch.ones(4, 3), "bias": torch.ones(1)}, X),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)


def test_a_size_is_a_tuple_of_one():
    """An int becomes a tuple with one size, which the repr shows."""
    assert fn.LinearGeneral(3, 2, -1) == fn.LinearGeneral((3,), [2], (-1,))
    assert repr(fn.Scale(3)) == "Scale(shape=(3,))"
