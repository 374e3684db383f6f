"""Noise: the elements dropped together, the preserved moments, torch.nn's formula with the same mask, and the errors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twins import assert_twins, draw, twin_of

import funcnet as fn
from funcnet import random, tree

ONES = torch.ones(40, 50, 2, 3)


def share_of_zeros(y):
    return float((y == 0).double().mean())


@pytest.mark.parametrize(
    ("layer", "x", "axes"),
    [
        (fn.Dropout1d(0.3), ONES[..., 0], (2,)),
        (fn.Dropout1d(0.3), ONES[0, :, :, 0].repeat(40, 1), (1,)),
        (fn.Dropout2d(0.3), ONES, (2, 3)),
        (fn.Dropout2d(0.3), ONES.flatten(0, 1), (1, 2)),
        (fn.Dropout3d(0.3), ONES.unsqueeze(2), (2, 3, 4)),
        (fn.DropPath(0.3), ONES.flatten(0, 1), (1, 2)),
    ],
    ids=repr,
)
def test_parts_are_dropped_as_a_whole(layer, x, axes):
    """Each channel or row is dropped or kept as a whole; about p of them are dropped, and the mean is kept."""
    y, cache = layer.apply({}, x, 1)
    assert torch.equal(y.amin(axes), y.amax(axes))
    assert abs(share_of_zeros(y.amax(axes)) - 0.3) < 0.04
    torch.testing.assert_close(y[y > 0], torch.full_like(y[y > 0], 1 / 0.7))
    assert torch.equal(layer.vjp({}, cache, x)[1], y)
    assert layer.inference() == fn.Identity()


AXES = {"Dropout": 3, "Dropout1d": 3, "Dropout2d": 4, "Dropout3d": 5, "AlphaDropout": 3, "FeatureAlphaDropout": 3}


@twin_of("{name}")
@pytest.mark.parametrize("name", AXES)
@given(p=st.floats(0.0, 1.0), sizes=st.lists(st.integers(0, 3), min_size=5, max_size=5), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_in_inference_a_layer_agrees_with_its_twin(name, p, sizes, seed):
    """In evaluation torch.nn drops nothing either; in training its generator differs."""
    layer, module = getattr(fn, name)(p), getattr(nn, name)(p)
    assert_twins(layer.inference(), module.eval(), draw(sizes[: AXES[name]], seed))


def by_torch(x, keep, p):
    """Return what ``torch.nn.AlphaDropout`` computes from x with this mask, by its source."""
    alpha = 1.7580993408473766
    a = 1 / ((alpha * alpha * p + 1) * (1 - p)) ** 0.5
    return x * keep * a + (keep.double() - 1) * alpha * a + alpha * a * p


@pytest.mark.parametrize("name", [*AXES, "DropPath"])
def test_without_dropout_no_key_is_needed(name):
    """With p = 0 a layer is the identity, forward and backward."""
    layer, x = getattr(fn, name)(0.0), draw((2, 3, 4, 4, 4)[: AXES.get(name, 3)])
    assert not layer.stochastic
    y, cache = layer.apply({}, x)
    assert torch.equal(y, x)
    assert torch.equal(layer.vjp({}, cache, 2 * x)[1], 2 * x)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", [fn.AlphaDropout, fn.FeatureAlphaDropout])
def test_alpha_dropout_has_torchs_formula(kind, p):
    """Value and gradient agree, with the mask drawn from the key."""
    layer, x = kind(p), draw((4, 5, 3)).requires_grad_()
    y, cache = layer.apply({}, x.detach(), 1)
    keep = cache[0]
    want = by_torch(x, keep, p)
    (gx,) = torch.autograd.grad(want, x, draw((4, 5, 3), 2))
    torch.testing.assert_close(y, want.detach())
    torch.testing.assert_close(layer.vjp({}, cache, draw((4, 5, 3), 2))[1], gx)


@pytest.mark.parametrize(("dims", "shape"), [((1,), (30, 1, 40)), ((-1, 0), (1, 5, 1)), ((), (30, 5, 40))], ids=str)
def test_along_broadcast_dims_all_is_dropped_together(dims, shape):
    """The mask has one entry there, forward and backward, and its mean elsewhere."""
    layer, x = fn.Dropout(0.4, dims), torch.ones(30, 5, 40)
    y, cache = layer.apply({}, x, 1)
    keep = cache[0]
    assert keep.shape == shape
    assert torch.equal(y, keep / 0.6 * x)
    assert torch.equal(layer.vjp({}, cache, 2 * x)[1], 2 * y)
    assert layer.inference() == fn.Identity()


def test_axes_that_are_not_there_are_refused():
    """The message has the rule for axes."""
    assert fn.Dropout(0.4, 1) == fn.Dropout(0.4, (1,))
    with pytest.raises(ValueError, match="Dropout: broadcast_dims must be a tuple of whole numbers, got 'all'"):
        fn.Dropout(0.4, "all")
    with pytest.raises(ValueError, match="x must have an axis 2, got x of shape"):
        fn.Dropout(0.4, 2)({}, torch.ones(2, 3), 0)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_alpha_dropout_keeps_mean_and_variance(p):
    """The inputs have mean 0 and variance 1."""
    y = fn.AlphaDropout(p)({}, random.normal(1, (200_000,)), 2)
    assert abs(float(y.mean())) < 0.01
    assert abs(float(y.var()) - 1) < 0.02


def test_alpha_dropout_of_all_gives_zeros():
    """torch.nn gives zeros too."""
    x = random.normal(1, (4, 3))
    assert torch.equal(fn.AlphaDropout(1.0)({}, x, 1), torch.nn.AlphaDropout(1.0)(x))


def test_feature_alpha_dropout_drops_channels():
    """A dropped channel has the same number everywhere."""
    y, (keep, *_) = fn.FeatureAlphaDropout(0.4).apply({}, random.normal(1, (30, 40, 5)), 2)
    assert keep.shape == (30, 40, 1)
    assert abs(float(keep.double().mean()) - 0.6) < 0.05
    dropped = y[~keep.expand_as(y)]
    assert torch.equal(dropped.amin(), dropped.amax())


def test_gaussian_noise_has_its_deviation():
    """Its mean is 0; another key draws other noise, and inference draws none."""
    layer, x = fn.GaussianNoise(0.5), torch.full((100_000,), 3.0)
    noise = layer({}, x, 1) - x
    assert abs(float(noise.mean())) < 0.01
    assert abs(float(noise.std()) - 0.5) < 0.01
    assert not torch.equal(layer({}, x, 1), layer({}, x, 2))
    assert layer.inference() == fn.Identity()
    assert layer({}, x.bfloat16(), 1).dtype == torch.bfloat16


def test_drop_connect_is_linear_with_a_part_of_its_weights():
    """About p of the weights are dropped, the same ones for all rows, and the others are divided by 1 - p."""
    layer = fn.DropConnect(30, 40, 0.25)
    params, x, gy = layer.init(0), random.normal(1, (5, 30)), random.normal(2, (5, 40))
    y, cache = layer.apply(params, x, 3)
    assert abs(float(cache[1].double().mean()) - 0.75) < 0.04
    dropped = {**params, "weight": params["weight"] * cache[1] / 0.75}
    torch.testing.assert_close(y, fn.Linear(30, 40)(dropped, x))
    gparams, gx = fn.Linear(30, 40).vjp(dropped, x, gy)
    want = {**gparams, "weight": gparams["weight"] * cache[1] / 0.75}
    torch.testing.assert_close(layer.vjp(params, cache, gy), (want, gx))


def test_drop_connect_is_its_linear_in_inference():
    """The params are the same, drawn by the same initializer."""
    layer = fn.DropConnect(3, 2, 0.3, bias=False, initializer="torch")
    assert layer.inference() == fn.Linear(3, 2, bias=False, initializer="torch")
    assert tree.equal(layer.init(1), layer.inference().init(1))
    assert layer.replace(in_features=4).inference() == fn.Linear(4, 2, bias=False, initializer="torch")


@pytest.mark.parametrize("dim", [-1, 0, 1])
@pytest.mark.parametrize("tau", [0.1, 1, 3.0])
def test_gumbel_softmax_is_torchs_of_the_same_noise(tau, dim, monkeypatch):
    """Value and gradient agree when torch uses the numbers drawn from the key."""
    layer, x, gy = fn.GumbelSoftmax(tau, dim), draw((4, 5, 3)).requires_grad_(), draw((4, 5, 3), 2)
    noise = random.gumbel(7, (4, 5, 3), torch.float64)
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda self: torch.exp(-noise))
    want = nn.functional.gumbel_softmax(x, tau, dim=dim)
    y, cache = layer.apply({}, x.detach(), 7)
    torch.testing.assert_close(y, want.detach())
    torch.testing.assert_close(layer.vjp({}, cache, gy)[1], torch.autograd.grad(want, x, gy)[0])
    assert layer.inference() == fn.Softmax(dim, tau)


def test_the_largest_share_of_a_gumbel_softmax_is_drawn_by_the_shares_of_a_softmax():
    """Frequencies are within 5 standard errors of the shares."""
    x = torch.tensor([1.0, 0.0, -1.0, 2.0]).log_softmax(0)
    y = fn.GumbelSoftmax(0.01)({}, x.expand(100_000, 4), 3)
    found = torch.bincount(y.argmax(1), minlength=4) / 100_000
    assert ((found - x.exp()).abs() < 5 * (x.exp() / 100_000).sqrt()).all()
    assert float(y.amax(1).mean()) > 0.98


NO_KEY = "apply must be given a key, apply(params, x, rng); for evaluation use inference(), got no key"
STOCHASTIC = [
    fn.Dropout(),
    fn.Dropout1d(),
    fn.Dropout2d(),
    fn.Dropout3d(),
    fn.DropPath(),
    fn.AlphaDropout(),
    fn.FeatureAlphaDropout(),
    fn.GaussianNoise(),
    fn.DropConnect(3, 2),
    fn.GumbelSoftmax(),
]


@pytest.mark.parametrize("layer", STOCHASTIC, ids=repr)
def test_without_a_key_all_of_them_refuse(layer):
    """No layer passes x through silently."""
    with pytest.raises(ValueError, match="key") as caught:
        layer(layer.init(0), torch.ones(2, 3))
    assert str(caught.value) == f"{layer}: {NO_KEY}"


X = torch.ones(2, 3)
MESSAGES = {
    "DropPath: p must be a finite number at least 0.0 and at most 1.0, got -0.1": lambda: fn.DropPath(-0.1),
    "DropPath(): x must have the axes (N, ...), got x of shape ()": lambda: fn.DropPath()({}, X[0, 0], 1),
    "Dropout1d(): x must have the axes (N, channels, length) or (channels, length), got x of shape (3,)": lambda: fn.Dropout1d()({}, X[0], 1),
    "Dropout2d(): x must have the axes (N, channels, height, width) or (channels, height, width), got x of shape (2, 3)": lambda: fn.Dropout2d()({}, X, 1),
    "Dropout3d(): x must have the axes (N, channels, depth, height, width) or (channels, depth, height, width), got": lambda: fn.Dropout3d()({}, X, 1),
    "Dropout1d(): x must be a floating tensor": lambda: fn.Dropout1d()({}, X.long(), 1),
    "Dropout1d(): params must be an empty dict, got weight (2, 3)": lambda: fn.Dropout1d()({"weight": X}, X, 1),
    "Dropout1d(): gy must have the shape of y, (2, 3), got gy of shape (1, 3)": lambda: fn.Dropout1d().vjp({}, fn.Dropout1d().apply({}, X, 1)[1], X[:1]),
    "AlphaDropout(): gy must have the shape of y, (2, 3), got gy of shape (1, 3)": lambda: fn.AlphaDropout().vjp({}, fn.AlphaDropout().apply({}, X, 1)[1], X[:1]),
    "FeatureAlphaDropout(): x must have the axes (N, channels, ...), got x of shape (3,)": lambda: fn.FeatureAlphaDropout()({}, X[0], 1),
    "GaussianNoise: std must be a finite number at least 0.0, got -1.0": lambda: fn.GaussianNoise(-1.0),
    "GaussianNoise(): x must be a floating tensor": lambda: fn.GaussianNoise()({}, X.long(), 1),
    "DropConnect: p must be a finite number at least 0.0 and at most 1.0, got 2": lambda: fn.DropConnect(3, 2, 2),
    "GumbelSoftmax: tau must be a finite number above 0.0, got 0": lambda: fn.GumbelSoftmax(0),
    "GumbelSoftmax: dim must be a whole number, got None": lambda: fn.GumbelSoftmax(dim=None),
    "GumbelSoftmax(dim=2): x must have an axis 2, got x of shape (2, 3)": lambda: fn.GumbelSoftmax(dim=2)({}, X, 1),
    "GumbelSoftmax(): x must be a floating tensor": lambda: fn.GumbelSoftmax()({}, X.long(), 1),
    "the last axis of x must be in_features=4, got x of shape (2, 3)": lambda: fn.DropConnect(4, 2)(fn.Linear(4, 2).init(0), X, 1),
    "params must be a dict of weight (2, 3), bias (2,), got weight (2, 4), bias (2,)": lambda: fn.DropConnect(3, 2)(fn.Linear(4, 2).init(0), X, 1),
    "params must be a dict of weight (2, 3), bias (2,), got an empty dict": lambda: fn.DropConnect(3, 2)({}, X, 1),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
