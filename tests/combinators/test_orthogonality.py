"""Orthogonal weights compared with torch's parametrization, their initial values, and the error messages."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations
from twins import CLOSE, assert_twins, draw, params_of

import funcnet as fn
from funcnet import tree

MAPS = ["matrix_exp", "cayley", "householder"]


def pair(rows, columns, name, trivialization):
    """Return a Linear with an orthogonal weight and torch's, away from the initial values."""
    layer = fn.orthogonal(fn.Linear(columns, rows), orthogonal_map=name, use_trivialization=trivialization)
    module = parametrizations.orthogonal(nn.Linear(columns, rows), "weight", name, use_trivialization=trivialization).double()
    original = module.parametrizations.weight.original
    with torch.no_grad():
        original.add_(draw(original.shape, rows) * (1 - torch.eye(rows, columns)))
    return layer, module


@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from([None, *MAPS]), st.booleans(), st.integers(0, 99))
@settings(max_examples=80)
def test_it_is_torch_s(rows, columns, name, trivialization, seed):
    """Values and gradients agree by the state_dict, for wide, square and tall weights, with a base and without."""
    layer, module = pair(rows, columns, name, trivialization)
    assert_twins(layer, module, draw((3, columns), seed), tolerance={"rtol": 1e-9, "atol": 1e-9})


@pytest.mark.parametrize("name", MAPS)
def test_of_more_axes_it_is_a_matrix_for_each_place(name):
    """As in torch, the last two axes of a convolution's weight are the axes of the matrices."""
    layer = fn.orthogonal(fn.Conv2d(2, 3, (3, 2)), orthogonal_map=name)
    module = parametrizations.orthogonal(nn.Conv2d(2, 3, (3, 2)).double(), "weight", name)
    assert_twins(layer, module, draw((2, 2, 4, 4)))
    w = layer.merged(params_of(layer, module))["weight"]
    torch.testing.assert_close(w.mT @ w, torch.eye(2).double().expand(3, 2, 2, 2), **CLOSE)


@pytest.mark.parametrize("trivialization", [True, False])
@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("shape", [(4, 3), (3, 3), (3, 4)], ids=str)
def test_the_weight_is_orthogonal_and_stays_so(shape, name, trivialization):
    """The weight stays orthogonal during training, while the loss falls."""
    rows, columns = shape
    layer = fn.orthogonal(fn.Linear(columns, rows), orthogonal_map=name, use_trivialization=trivialization)
    x, target, opt = draw((9, columns)).float(), draw((9, rows), 1).float(), fn.AdamW(lr=0.05)
    params, step, values = layer.init(0), fn.train_step(layer, fn.MSE(), opt), []
    state = opt.init(params)
    for _ in range(40):
        params, state, value = step(params, state, x, target)
        values.append(float(value))
    w = layer.merged(params)["weight"]
    small = w.mT @ w if rows >= columns else w @ w.mT
    torch.testing.assert_close(small, torch.eye(min(shape)), rtol=1e-5, atol=1e-5)
    assert values[-1] < 0.95 * values[0]


@pytest.mark.parametrize("shape", [(4, 3), (3, 3), (3, 4)], ids=str)
def test_it_begins_as_the_drawn_weight_made_orthonormal(shape):
    """With a base by any map, and by householder without one, it is Q of the weight's QR decomposition, as in torch."""
    rows, columns = shape
    drawn = fn.Linear(columns, rows).init(fn.fold_in(0, 0))["weight"]
    tall = drawn if rows >= columns else drawn.mT
    q, r = torch.linalg.qr(tall)
    want = q * r.diagonal().sign()
    for name, trivialization in [*[(name, True) for name in MAPS], ("householder", False)]:
        layer = fn.orthogonal(fn.Linear(columns, rows), orthogonal_map=name, use_trivialization=trivialization)
        w = layer.merged(layer.init(0))["weight"]
        torch.testing.assert_close(w if rows >= columns else w.mT, want, rtol=1e-5, atol=1e-5)
    bare = fn.orthogonal(fn.Linear(columns, rows), orthogonal_map="cayley", use_trivialization=False).init(0)
    assert torch.equal(bare["parametrizations"]["weight"]["original"], drawn)


def test_a_diagonal_that_weight_decay_shrank_keeps_its_sign():
    """torch truncates it to 0, and the columns vanish."""
    layer = fn.orthogonal(fn.Linear(2, 3))
    params = layer.init(0)
    shrunk = tree.replace(params, "parametrizations.weight.original", params["parametrizations"]["weight"]["original"] * 0.3)
    torch.testing.assert_close(layer.merged(shrunk)["weight"], layer.merged(params)["weight"])


MESSAGES = {
    "orthogonal: orthogonal_map must be one of 'matrix_exp', 'cayley', 'householder', None, got 'qr'": lambda: fn.orthogonal(fn.Linear(3, 4), orthogonal_map="qr"),
    "orthogonal: use_trivialization must be True or False, got 1": lambda: fn.orthogonal(fn.Linear(3, 4), use_trivialization=1),
    "orthogonal: the weight must have at least two axes, got a tensor of shape (3,)": lambda: fn.orthogonal(fn.LayerNorm(3)).init(0),
    "parametrize: the layer's params must have a tensor weight, got an empty dict": lambda: fn.orthogonal(fn.Tanh()).init(0),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_wrong_use_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
