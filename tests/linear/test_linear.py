"""Linear compared with ``torch.nn.functional.linear`` and autograd in float64, and every error message."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from twins import assert_twins, draw, twin_of

from funcnet import random, tree
from funcnet.layers.linear.linear import Linear

shapes = st.one_of(st.just(()), st.lists(st.integers(0, 4), min_size=1, max_size=3).map(tuple))
sizes = st.integers(1, 5)


def drawn(seed, *shape):
    return random.normal(seed, shape, dtype=torch.float64)


def oracle(params, x, gy):
    """Return y, gparams and gx by autograd."""
    leaves = {name: leaf.detach().requires_grad_() for name, leaf in params.items()}
    x = x.detach().requires_grad_()
    y = torch.nn.functional.linear(x, leaves["weight"], leaves.get("bias"))
    *gleaves, gx = torch.autograd.grad(y, [*leaves.values(), x], gy)
    return y.detach(), dict(zip(leaves, gleaves, strict=True)), gx


def assert_agrees(layer, x, gy):
    """Compare everything that the layer computes with autograd."""
    params = tree.cast(layer.init(1), torch.float64)
    y, cache = layer.apply(params, x)
    gparams, gx = layer.vjp(params, cache, gy)
    wanted_y, wanted_gparams, wanted_gx = oracle(params, x, gy)
    torch.testing.assert_close(y, wanted_y)
    torch.testing.assert_close(gx, wanted_gx)
    torch.testing.assert_close(gparams, wanted_gparams)
    assert torch.equal(layer(params, x), y)
    assert tree.equal(layer.grads(params, cache, gy), gparams)
    assert torch.equal(layer.input_grad(params, cache, gy), gx)


@given(shapes, sizes, sizes, st.booleans())
def test_linear_agrees_with_autograd(batch, in_features, out_features, bias):
    """Results agree to rounding in float64 for every batch shape: none, empty, one axis, several."""
    assert_agrees(Linear(in_features, out_features, bias=bias), drawn(2, *batch, in_features), drawn(3, *batch, out_features))


@twin_of("Linear")
@given(shapes, sizes, sizes, st.booleans(), st.integers(0, 99))
def test_linear_agrees_with_its_twin(batch, in_features, out_features, bias, seed):
    """The weights come from torch.nn.Linear's state_dict; every batch shape agrees."""
    module = torch.nn.Linear(in_features, out_features, bias)
    assert_twins(Linear(in_features, out_features, bias), module, draw((*batch, in_features), seed))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("axes", [1, 2])
def test_linear_takes_strided_tensors(axes, bias):
    """x and gy may be transposed, or take every second element."""
    x = drawn(4, 4, *[6, 10][:axes]).movedim(0, -1)[::2]
    gy = drawn(5, 3, *[6, 10][:axes]).movedim(0, -1)[::2]
    assert not x.is_contiguous()
    assert_agrees(Linear(4, 3, bias=bias), x, gy)


@pytest.mark.parametrize("batch", [(6,), (2, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_takes_expanded_tensors(batch, bias):
    """x may be one row repeated, and gy the gradient of a sum, which is a single 1 repeated."""
    assert_agrees(Linear(4, 3, bias=bias), drawn(6, 4).expand(*batch, 4), torch.ones((), dtype=torch.float64).expand(*batch, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_linear_keeps_the_dtype(dtype):
    """The results have the dtype of params and x, forward and backward."""
    layer, x = Linear(4, 3), torch.ones(2, 4, dtype=dtype)
    params = tree.cast(layer.init(0), dtype)
    y, cache = layer.apply(params, x)
    assert y.dtype is dtype
    assert {leaf.dtype for leaf in tree.leaves(layer.vjp(params, cache, y))} == {dtype}


def test_the_cache_is_x_itself():
    """x is not copied."""
    x = torch.ones(2, 4)
    assert Linear(4, 3).apply(Linear(4, 3).init(0), x)[1] is x


def test_params_have_torchs_names_shapes_and_order():
    """Params match ``torch.nn.Linear``'s state_dict."""
    assert {name: leaf.shape for name, leaf in Linear(4, 3).init(0).items()} == {
        name: leaf.shape for name, leaf in torch.nn.Linear(4, 3).state_dict().items()
    }
    assert [*Linear(4, 3, bias=False).init(0)] == ["weight"]


@pytest.mark.parametrize("bias", [True, False])
def test_a_state_dict_is_params(bias):
    """The ``OrderedDict`` of ``torch.nn.Linear`` works in every verb without conversion."""
    module, layer, x = torch.nn.Linear(4, 3, bias=bias), Linear(4, 3, bias=bias), torch.ones(5, 4)
    params = module.state_dict()
    y, cache = layer.apply(params, x)
    assert torch.equal(y, module(x).detach())
    assert tree.structure(layer.vjp(params, cache, y)[0]) == tree.structure(params)


def test_init_is_xavier_normal_and_zeros():
    """The default has standard deviation √(2 / (in + out)) and bias 0; another initializer may be named."""
    params = Linear(300, 500).init(0)
    assert params["weight"].std().item() == pytest.approx((2 / 800) ** 0.5, rel=0.01)
    assert torch.equal(params["bias"], torch.zeros(500))


def test_init_takes_a_key_or_its_seed():
    """Both give the same params."""
    assert tree.equal(Linear(4, 3).init(7), Linear(4, 3).init(random.key(7)))


def step(layer, params, x, gy):
    y, cache = layer.apply(params, x)
    return y, *layer.vjp(params, cache, gy)


@pytest.mark.compiled
@pytest.mark.parametrize("bias", [True, False])
def test_linear_compiles_whole(bias):
    """Forward and backward compile to one graph, and the error paths do not break it."""
    layer = Linear(4, 3, bias=bias)
    arguments = layer.init(0), torch.ones(5, 4), torch.ones(5, 3)
    compiled = torch.compile(lambda *xs: step(layer, *xs), fullgraph=True, backend="aot_eager")
    assert tree.equal(compiled(*arguments), step(layer, *arguments))


@pytest.mark.parametrize("bias", [True, False])
def test_linear_works_under_vmap(bias):
    """Each member has its own params."""
    layer = Linear(4, 3, bias=bias)
    params = torch.func.vmap(lambda key: tree.cast(layer.init(key), torch.float64))(random.split(0, 6))
    x, gy = drawn(1, 6, 5, 4), drawn(2, 6, 5, 3)
    mapped = torch.func.vmap(lambda p, a, g: step(layer, p, a, g))(params, x, gy)
    alone = [step(layer, tree.map(lambda leaf, i=i: leaf[i], params), x[i], gy[i]) for i in range(6)]
    torch.testing.assert_close(mapped, tree.map(lambda *leaves: torch.stack(leaves), *alone))


def test_linear_works_on_the_meta_device():
    """The results have shapes without numbers."""
    layer = Linear(4, 3)
    y, gparams, gx = step(layer, tree.to(layer.init(0), "meta"), torch.ones(5, 4, device="meta"), torch.ones(5, 3, device="meta"))
    assert (y.shape, gx.shape) == ((5, 3), (5, 4))
    assert tree.map(lambda leaf: leaf.shape, gparams) == {"weight": (3, 4), "bias": (3,)}


# errors

RIGHT = {"weight": torch.zeros(3, 4), "bias": torch.zeros(3)}
W, B = RIGHT["weight"], RIGHT["bias"]
WHO = "Linear(in_features=4, out_features=3): "
PARAMS_RULE = "params must be a dict of weight (3, 4), bias (3,), got "

WRONG_X = {
    "last axis": (torch.zeros(8, 5), "the last axis of x must be in_features=4, got x of shape (8, 5)"),
    "last axis, no batch": (torch.zeros(5), "the last axis of x must be in_features=4, got x of shape (5,)"),
    "last axis, empty": (torch.zeros(0, 5), "the last axis of x must be in_features=4, got x of shape (0, 5)"),
    "transposed": (torch.zeros(4, 8), "the last axis of x must be in_features=4, got x of shape (4, 8)"),
    "no axis": (torch.tensor(1.0), "the last axis of x must be in_features=4, got x of shape ()"),
    "integers": (torch.zeros(8, 4, dtype=torch.int64), "x must be a floating tensor, not torch.int64, got x of shape (8, 4)"),
    "bools": (torch.zeros(8, 4, dtype=torch.bool), "x must be a floating tensor, not torch.bool, got x of shape (8, 4)"),
    "complex": (
        torch.zeros(8, 4, dtype=torch.complex64),
        "x must be a floating tensor, not torch.complex64, got x of shape (8, 4)",
    ),
    "list": ([[1.0] * 4], "x must be a floating tensor, not list, got a list of 1"),
    "None": (None, "x must be a floating tensor, not NoneType, got None"),
    "float64": (torch.zeros(8, 4).double(), "x must have the dtype of the params, torch.float32, got torch.float64"),
}


@pytest.mark.parametrize(("x", "message"), WRONG_X.values(), ids=WRONG_X)
@pytest.mark.parametrize("verb", [lambda layer, params, x: layer.apply(params, x), lambda layer, params, x: layer(params, x)])
def test_a_wrong_x_is_refused(verb, x, message):
    """``apply`` and the call refuse a wrong shape, dtype or kind."""
    with pytest.raises(ValueError, match="Linear") as caught:
        verb(Linear(4, 3), RIGHT, x)
    assert str(caught.value) == WHO + message


WRONG_PARAMS = {
    "of another layer": ({"weight": W.T, "bias": torch.zeros(4)}, "weight (4, 3), bias (4,)"),
    "wider": ({"weight": torch.zeros(5, 4), "bias": torch.zeros(5)}, "weight (5, 4), bias (5,)"),
    "missing bias": ({"weight": W}, "weight (3, 4)"),
    "missing weight": ({"bias": B}, "bias (3,)"),
    "extra leaf": ({**RIGHT, "scale": B}, "weight (3, 4), bias (3,), scale (3,)"),
    "misnamed": ({"weight": W, "b": B}, "weight (3, 4), b (3,)"),
    "bias that would broadcast": ({"weight": W, "bias": torch.zeros(1)}, "weight (3, 4), bias (1,)"),
    "bias without axis": ({"weight": W, "bias": torch.tensor(0.0)}, "weight (3, 4), bias ()"),
    "bias for each row": ({"weight": W, "bias": torch.zeros(8, 3)}, "weight (3, 4), bias (8, 3)"),
    "absent bias": ({"weight": W, "bias": None}, "weight (3, 4), bias None"),
    "absent weight": ({"weight": None, "bias": B}, "weight None, bias (3,)"),
    "tuple": ((W, B), "a tuple of 2"),
    "empty": ({}, "an empty dict"),
    "None": (None, "None"),
}


@pytest.mark.parametrize(("params", "got"), WRONG_PARAMS.values(), ids=WRONG_PARAMS)
def test_wrong_params_are_refused(params, got):
    """Params of another layer, with missing or extra leaves, are refused, even where the kernel would not notice."""
    with pytest.raises(ValueError, match="Linear") as caught:
        Linear(4, 3).apply(params, torch.zeros(8, 4))
    assert str(caught.value) == WHO + PARAMS_RULE + got


def test_a_bias_is_refused_where_there_is_none():
    """With ``bias=False`` the params have one leaf."""
    with pytest.raises(ValueError, match="Linear") as caught:
        Linear(4, 3, bias=False).apply(RIGHT, torch.zeros(8, 4))
    assert str(caught.value) == (
        "Linear(in_features=4, out_features=3, bias=False): params must be a dict of weight (3, 4), got weight (3, 4), bias (3,)"
    )


WRONG_FIELDS = [
    ({"in_features": 0}, "in_features must be a whole number of at least 1, got 0"),
    ({"out_features": -1}, "out_features must be a whole number of at least 1, got -1"),
    ({"in_features": True}, "in_features must be a whole number of at least 1, got True"),
    ({"in_features": 2.0}, "in_features must be a whole number of at least 1, got 2.0"),
    ({"bias": 1}, "bias must be True or False, got 1"),
    ({"bias": None}, "bias must be True or False, got None"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG_FIELDS)
def test_a_wrong_field_is_refused(fields, message):
    """The error is raised when the layer is made."""
    with pytest.raises(ValueError, match="Linear") as caught:
        Linear(**{"in_features": 4, "out_features": 3, **fields})
    assert str(caught.value) == "Linear: " + message


def test_init_refuses_what_is_no_key():
    """A generator is not a key."""
    with pytest.raises(ValueError, match=r"rng: it must be a key, fn.key\(seed\), or an int seed, got <torch._C.Generator"):
        Linear(4, 3).init(torch.Generator())
