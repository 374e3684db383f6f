"""Distances, scalings and reductions compared with torch in float64, and their errors."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twins import assert_twins, draw, twin_of

import funcnet as fn

seeds = st.integers(0, 99)
degrees = st.sampled_from([1.0, 1.5, 2.0, 2.5, 3.0, 0.5, 0.0, -1.0, math.inf, -math.inf])


class Function(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, *x):
        return self.f(*x)


def on_pair(module, x):
    return module(*x)


@st.composite
def pairs(draw_from):
    """Draw two shapes that broadcast together, with 1 to 3 axes, and the number of their axes."""
    shape = draw_from(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    ones = [[1 if draw_from(st.booleans()) and i < len(shape) - 1 else n for i, n in enumerate(shape)] for _ in range(2)]
    return ones[0], ones[1], len(shape)


@twin_of("CosineSimilarity")
@given(pairs(), st.integers(0, 2), seeds)
@settings(max_examples=30)
def test_cosine_similarity_agrees_with_its_twin(shapes, dim, seed):
    """Any axis, tensors that broadcast, and a zero vector are tried."""
    first, second, count = shapes
    dim = dim % count
    x = draw(first, seed), draw(second, seed + 1)
    assert_twins(fn.CosineSimilarity(dim), nn.CosineSimilarity(dim), x, call=on_pair)
    assert_twins(fn.CosineSimilarity(dim - count, 1e-3), nn.CosineSimilarity(dim, 1e-3), x, call=on_pair)
    assert_twins(fn.CosineSimilarity(dim), nn.CosineSimilarity(dim), (x[0] * 0, x[1]), call=on_pair)


@twin_of("PairwiseDistance")
@given(pairs(), degrees, st.sampled_from([1e-6, 0.0, 0.1]), st.booleans(), seeds)
@settings(max_examples=60)
def test_pairwise_distance_agrees_with_its_twin(shapes, p, eps, keepdim, seed):
    """Any degree and tensors that broadcast are tried."""
    x = draw(shapes[0], seed), draw(shapes[1], seed + 1)
    assert_twins(fn.PairwiseDistance(p, eps, keepdim), nn.PairwiseDistance(p, eps, keepdim), x, call=on_pair)


def test_a_deviation_whose_square_overflows_does_not():
    """The dtype is float16, whose largest number is 65504."""
    y, cache = fn.Std().apply({}, torch.tensor([300.0, -300.0], dtype=torch.float16))
    assert abs(float(y) - 424.3) < 0.5
    gx = fn.Std().vjp({}, cache, torch.ones_like(y))[1]
    torch.testing.assert_close(gx.float(), torch.tensor([0.5**0.5, -(0.5**0.5)]), rtol=0.0, atol=1e-3)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, math.inf])
def test_the_distance_of_equal_vectors_has_torchs_gradient(p):
    """The gradient is 0, or a share of it for the largest among equals, but never NaN."""
    x = draw((4, 3))
    assert_twins(fn.PairwiseDistance(p, 0.0), nn.PairwiseDistance(p, 0.0), (x, x), call=on_pair)


def test_cauchy_similarity_is_its_formula():
    """The formula is 1 / (1 + Σ w d²), with gradients by autograd, including those of the weight, which is initially ones."""
    layer = fn.CauchySimilarity(3)
    assert torch.equal(layer.init(0)["weight"], torch.ones(3))
    module = Function(lambda u, v: 1 / (1 + (module.weight * (u - v) ** 2).sum(-1)))
    module.weight = nn.Parameter(draw((3,), 5).abs())
    for first, second in [((4, 3), (4, 3)), ((3,), (3,)), ((2, 1, 3), (4, 3)), ((0, 3), (3,))]:
        assert_twins(layer, module, (draw(first, 1), draw(second, 2)), call=on_pair)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(0, 2), degrees, st.sampled_from([1e-12, 0.5]), seeds)
@settings(max_examples=60)
def test_normalize_agrees_with_torch(shape, dim, p, eps, seed):
    """Any axis and degree are tried, including lengths below ``eps``."""
    dim = dim % len(shape)
    twin = Function(lambda x: nn.functional.normalize(x, p, dim, eps))
    assert_twins(fn.Normalize(p, dim, eps), twin, draw(shape, seed))
    assert_twins(fn.Normalize(p, dim - len(shape), eps), twin, draw(shape, seed) * 0.05)


def test_normalize_of_zeros_is_zeros():
    """The gradient is torch's, gy / eps."""
    assert_twins(fn.Normalize(eps=0.1), Function(lambda x: nn.functional.normalize(x, eps=0.1)), torch.zeros(2, 3).double())


@given(st.lists(st.integers(1, 4), min_size=2, max_size=3), st.sampled_from([-1, 0, 1, (0, 1), (0, -1)]), seeds)
@settings(max_examples=20)
def test_standardize_is_a_layer_norm_along_any_axes(shape, dim, seed):
    """Mean, variance and autograd agree, and a constant gives 0."""
    dims = dim if isinstance(dim, tuple) else (dim,)
    twin = Function(lambda x: (x - x.mean(dims, True)) / (x.var(dims, correction=0, keepdim=True) + 1e-5).sqrt())
    assert_twins(fn.Standardize(dim), twin, draw(shape, seed))
    assert not fn.Standardize(dim)({}, torch.full(shape, 0.1)).any()


REDUCTIONS = {
    "Sum": torch.sum,
    "Max": torch.amax,
    "Min": torch.amin,
    "Mean": torch.mean,
}
some_axes = st.sampled_from([None, 0, 1, -1, (0,), (1, 2), (0, -1), (0, 1, 2)])
three = st.tuples(*[st.integers(1, 3)] * 3)


@pytest.mark.parametrize("name", REDUCTIONS)
@given(three, some_axes, st.booleans(), seeds)
@settings(max_examples=20)
def test_a_reduction_agrees_with_torch(name, shape, dim, keepdim, seed):
    """All axes, one or several are reduced, kept or not; equal elements share the gradient."""
    twin = Function(lambda x: REDUCTIONS[name](x, (0, 1, 2) if dim is None else dim, keepdim=keepdim))
    assert_twins(getattr(fn, name)(dim, keepdim), twin, draw(shape, seed))
    assert_twins(getattr(fn, name)(dim, keepdim), twin, draw(shape, seed).sign())


@given(three, some_axes, st.booleans(), st.booleans(), seeds)
@settings(max_examples=40)
def test_a_product_agrees_with_torch(shape, dim, keepdim, zeros, seed):
    """All axes, one or several are reduced, kept or not, with none, one or more zeros among the factors."""

    def product(x):
        for one in sorted(
            [i % 3 for i in (range(3) if dim is None else dim if isinstance(dim, tuple) else (dim,))], reverse=True
        ):
            x = x.prod(one, keepdim=keepdim)
        return x

    x = draw(shape, seed)
    assert_twins(fn.Prod(dim, keepdim), Function(product), torch.where(x > 0, x, 0) if zeros else x)


def test_a_product_of_many_in_half_precision_is_rounded_once():
    """Its gradients are too; a product of rounded products would be a tenth off."""
    x = 1 + draw((20, 256)).to(torch.bfloat16) / 10
    y, cache = fn.Prod(1).apply({}, x)
    want = x.double().prod(1)
    gx = fn.Prod(1).vjp({}, cache, torch.ones_like(y))[1]
    torch.testing.assert_close(y.double(), want, rtol=0.005, atol=0)
    torch.testing.assert_close(gx.double(), want.unsqueeze(1) / x.double(), rtol=0.01, atol=0)


@pytest.mark.parametrize("name", ["Var", "Std"])
@given(st.tuples(*[st.integers(2, 4)] * 3), some_axes, st.booleans(), st.integers(0, 1), seeds)
@settings(max_examples=20)
def test_a_spread_agrees_with_torch(name, shape, dim, keepdim, correction, seed):
    """Biased and unbiased spreads over any axes are tried; the gradient of equal elements is 0."""
    f = getattr(torch, name.lower())
    twin = Function(lambda x: f(x, dim, correction=correction, keepdim=keepdim))
    assert_twins(getattr(fn, name)(dim, keepdim, correction), twin, draw(shape, seed))
    assert_twins(getattr(fn, name)(dim, keepdim, correction), twin, torch.full(shape, 0.5, dtype=torch.float64))
    y, cache = fn.Std(dim, keepdim, correction).apply({}, torch.full(shape, 0.1))
    assert not fn.Std(dim, keepdim, correction).vjp({}, cache, y + 1)[1].any()  # torch gives the rounding error as the spread


def test_reductions_of_none():
    """A sum is 0, a product 1, a maximum -∞, a minimum ∞, and a spread NaN."""
    none = torch.ones(0, 3)
    assert float(fn.Sum()({}, none)) == 0
    assert torch.equal(fn.Prod(0)({}, none), torch.ones(3))
    assert torch.equal(fn.Max(0)({}, none), torch.full((3,), -math.inf))
    assert torch.equal(fn.Min(0)({}, none), torch.full((3,), math.inf))
    assert fn.Std()({}, none).isnan()


X = torch.ones(2, 3)
MESSAGES = {
    "CosineSimilarity(): x must be a tuple of 2 tensors, got a tensor of shape (2, 3) and dtype torch.float32": lambda: fn.CosineSimilarity()({}, X),
    "CosineSimilarity(): the operands must broadcast together, got shapes (2, 3) and (3, 2)": lambda: fn.CosineSimilarity()({}, (X, X.T)),
    "CosineSimilarity(dim=2): x must have an axis 2, got x of shape (2, 3)": lambda: fn.CosineSimilarity(2)({}, (X, X)),
    "CosineSimilarity: eps must be a finite number above 0.0, got 0": lambda: fn.CosineSimilarity(eps=0),
    "PairwiseDistance(): the operands must have the same dtype, got torch.float32 and torch.float64": lambda: fn.PairwiseDistance()({}, (X, X.double())),
    "PairwiseDistance(): the operands must broadcast together, got shapes (2, 3) and (2, 2)": lambda: fn.PairwiseDistance()({}, (X, X[:, :2])),
    "PairwiseDistance(): the operands must have a last axis that is not empty, got shapes () and ()": lambda: fn.PairwiseDistance()({}, (X[0, 0], X[0, 0])),
    "PairwiseDistance: p must be a finite number, or infinity, got nan": lambda: fn.PairwiseDistance(float("nan")),
    "PairwiseDistance(): params must be an empty dict, got weight (2, 3)": lambda: fn.PairwiseDistance()({"weight": X}, (X, X)),
    "CauchySimilarity(in_features=3): params must be a dict of weight (3,), got an empty dict": lambda: fn.CauchySimilarity(3)({}, (X, X)),
    "CauchySimilarity(in_features=2): the last axis of x must be in_features=2, got shapes (2, 3) and (2, 3)": lambda: fn.CauchySimilarity(2)(fn.CauchySimilarity(2).init(0), (X, X)),
    "CauchySimilarity(in_features=3): x must have the dtype of the params, torch.float32, got torch.float64": lambda: fn.CauchySimilarity(3)(fn.CauchySimilarity(3).init(0), (X.double(), X.double())),
    "Normalize(dim=2): x must have an axis 2, got x of shape (2, 3)": lambda: fn.Normalize(dim=2)({}, X),
    "Standardize: dim must be a whole number, a tuple of them, or None for all axes, got 'all'": lambda: fn.Standardize("all"),
    "Sum(dim=2): x must have an axis 2, got x of shape (2, 3)": lambda: fn.Sum(2)({}, X),
    "Max: dim must be a whole number, a tuple of them, or None for all axes, got ()": lambda: fn.Max(()),
    "Max(): x must be a floating tensor, got a tensor of shape (2, 3) and dtype torch.int64": lambda: fn.Max()({}, X.long()),
    "Std(dim=0, correction=2): x must have more than correction=2 elements along the axes, got x of shape (2, 3)": lambda: fn.Std(0, correction=2)({}, X),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the caller, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "layer", [fn.Sum(1), fn.Prod(1), fn.Max(1), fn.Var(1), fn.Std(1), fn.Normalize(), fn.Standardize()], ids=repr
)
def test_a_gradient_of_another_shape_is_refused(layer):
    """The gradient is not broadcast."""
    y, cache = layer.apply({}, X)
    with pytest.raises(ValueError, match="gy must have the shape of y"):
        layer.vjp({}, cache, y[:1])
