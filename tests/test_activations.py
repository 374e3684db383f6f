"""Activations against torch.nn in float64, what they give at the ends of the number line, and their errors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twins import assert_twins, draw

import funcnet as fn

# Numbers that float32 has too: torch rounds CELU's alpha to it, in the backward pass alone.
slopes = st.floats(0.0625, 3.0, width=32) | st.floats(-3.0, -0.0625, width=32)

# For each: how its arguments are drawn, and the kinks of the function that they make, where gradients are torch's too.
ELEMENTWISE = {
    "ReLU6": (st.just(()), lambda: (0, 6)),
    "ELU": (st.tuples(slopes), lambda alpha: (0,)),
    "CELU": (st.tuples(slopes), lambda alpha: (0,)),
    "SELU": (st.just(()), lambda: (0,)),
    "GELU": (st.tuples(st.sampled_from(["none", "tanh"])), lambda approximate: ()),
    "SiLU": (st.just(()), lambda: ()),
}
shapes = st.lists(st.integers(0, 4), min_size=0, max_size=4)


@pytest.mark.parametrize("name", ELEMENTWISE)
@given(data=st.data())
@settings(max_examples=20)
def test_an_activation_agrees_with_its_twin(name, data):
    """Value and gradient are torch.nn's on any shape and scale, for any arguments, and on every kink."""
    arguments, kinks = ELEMENTWISE[name]
    chosen = data.draw(arguments)
    x = draw(data.draw(shapes), data.draw(st.integers(0, 99))) * data.draw(st.sampled_from([1e-8, 1.0, 8.0]))
    layer, module = getattr(fn, name)(*chosen), getattr(nn, name)(*chosen)
    assert_twins(layer, module, x)
    assert_twins(layer, module, torch.tensor([*kinks(*chosen), -0.0, 1.0], dtype=torch.float64))


PLAIN = [fn.ReLU6(), fn.ELU(), fn.CELU(2.0), fn.SELU(), fn.GELU(), fn.GELU("tanh"), fn.SiLU()]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layer", PLAIN, ids=repr)
def test_nothing_overflows_at_a_thousand(layer, dtype):
    """Value and gradient are finite at ±1000, ±100 and near 0, and of the dtype of x."""
    x = torch.tensor([1e3, -1e3, 100.0, -100.0, 1e-7, -1e-7, 0.0], dtype=dtype)
    y, cache = layer.apply({}, x)
    gx = layer.vjp({}, cache, torch.ones_like(y))[1]
    assert fn.tree.all_finite((y, gx))
    assert y.dtype is gx.dtype is dtype


@pytest.mark.parametrize("layer", PLAIN, ids=repr)
def test_a_gradient_of_another_shape_is_refused(layer):
    """No kernel broadcasts it, or reads beyond its end."""
    _, cache = layer.apply({}, torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"gy must have the shape of y, \(2, 3\), got gy of shape \(3,\)"):
        layer.vjp({}, cache, torch.ones(3))


X = torch.ones(2, 3)
MESSAGES = {
    "ELU: alpha must be a finite number, got nan": lambda: fn.ELU(float("nan")),
    "CELU: alpha must not be 0, got 0.0": lambda: fn.CELU(0.0),
    "GELU: approximate must be one of 'none', 'tanh', got 'erf'": lambda: fn.GELU("erf"),
    "SiLU(): x must be a floating tensor, got a tensor of shape (2, 3) and dtype torch.int64": lambda: fn.SiLU()({}, X.long()),
    "GELU(): params must be an empty dict, got weight (2, 3)": lambda: fn.GELU()({"weight": X}, X),
}


@pytest.mark.parametrize("sentence", MESSAGES)
def test_bad_input_is_refused_with_its_sentence(sentence):
    """Each message says who, the rule with its numbers, and what came."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[sentence]()
    assert str(caught.value) == sentence


def test_an_ensemble_takes_activations_as_they_are():
    """What is done to each element needs no vmap over members."""
    net = fn.ensemble(fn.serial(fn.Linear(3, 4), fn.GELU()), 2)
    params, x = net.init(0), torch.ones(5, 3)
    alone = [fn.serial(fn.Linear(3, 4), fn.GELU())(fn.tree.map(lambda leaf, i=i: leaf[i], params), x) for i in range(2)]
    torch.testing.assert_close(net(params, x), torch.stack(alone))
