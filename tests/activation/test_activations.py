"""Activations compared with torch.nn in float64, their values for large and infinite inputs, and their errors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twins import assert_twins, draw, twin_of

import funcnet as fn

# Numbers that are exact in float32: torch rounds CELU's alpha to float32, but only in the backward pass.
slopes = st.floats(0.0625, 3.0, width=32) | st.floats(-3.0, -0.0625, width=32)

# By name: strategies for the arguments, and the kinks of the function, at which gradients must equal torch's too.
ELEMENTWISE = {
    "ReLU": (st.just(()), lambda: (0,)),
    "LeakyReLU": (st.tuples(slopes), lambda slope: (0,)),
    "Sigmoid": (st.just(()), lambda: (-50, 50)),
    "Tanh": (st.just(()), lambda: (-50, 50)),
    "ReLU6": (st.just(()), lambda: (0, 6)),
    "ELU": (st.tuples(slopes), lambda alpha: (0,)),
    "CELU": (st.tuples(slopes), lambda alpha: (0,)),
    "SELU": (st.just(()), lambda: (0,)),
    "Threshold": (st.tuples(slopes, slopes), lambda threshold, value: (threshold,)),
    "Hardtanh": (st.tuples(st.floats(-3.0, 0.0), st.floats(0.5, 3.0)), lambda low, high: (low, high)),
    "Hardswish": (st.just(()), lambda: (-3, 3)),
    "Softsign": (st.just(()), lambda: (0,)),
    "LogSigmoid": (st.just(()), lambda: (-50, 50)),
    "Softplus": (st.tuples(st.floats(0.1, 4.0), st.floats(1.0, 30.0)), lambda beta, threshold: (threshold / beta,)),
    "Softshrink": (st.tuples(st.floats(0.0, 2.0)), lambda lambd: (lambd, -lambd)),
    "Hardshrink": (st.tuples(st.floats(-0.5, 2.0)), lambda lambd: (lambd, -lambd)),
    "Tanhshrink": (st.just(()), lambda: ()),
    "Mish": (st.just(()), lambda: (-50, 50)),
    "GELU": (st.tuples(st.sampled_from(["none", "tanh"])), lambda approximate: ()),
    "SiLU": (st.just(()), lambda: ()),
}
shapes = st.lists(st.integers(0, 4), min_size=0, max_size=4)


class Hardsigmoid(nn.Module):
    """Torch's function without its kernel, whose gradient in float64 uses the float32 value of 1/6."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.hardtanh(x, -3.0, 3.0) / 6 + 0.5


EXACT = {"Hardsigmoid": Hardsigmoid}


@twin_of("{name}")
@pytest.mark.parametrize("name", ELEMENTWISE)
@given(data=st.data())
@settings(max_examples=40)
def test_an_activation_agrees_with_its_twin(name, data):
    """Value and gradient are torch.nn's for any shape, scale and arguments, and at every kink."""
    arguments, kinks = ELEMENTWISE[name]
    chosen = data.draw(arguments)
    x = draw(data.draw(shapes), data.draw(st.integers(0, 99))) * data.draw(st.sampled_from([1e-8, 1.0, 8.0]))
    layer, module = getattr(fn, name)(*chosen), EXACT.get(name, getattr(nn, name))(*chosen)
    assert_twins(layer, module, x)
    assert_twins(layer, module, torch.tensor([*kinks(*chosen), -0.0, 1.0], dtype=torch.float64))


@twin_of("Hardsigmoid")
@given(shapes, st.integers(0, 99), st.sampled_from([1e-8, 1.0, 8.0]))
@settings(max_examples=80)
def test_hardsigmoid_agrees_with_its_twin(shape, seed, scale):
    """In float64 torch still multiplies by the float32 value of 1/6, which is 3e-8 off; our gradient follows the formula."""
    kinks = torch.tensor([-3.0, 3.0, -0.0, 0.0, 1e4, -1e4], dtype=torch.float64)
    x = torch.cat((draw(shape, seed).flatten() * scale, kinks))
    layer = fn.Hardsigmoid()
    assert_twins(layer, nn.Hardsigmoid(), x, tolerance={"rtol": 2.0**-24, "atol": 1e-10})
    slope = torch.where((x > -3) & (x < 3), torch.ones_like(x), 0.0) / 6
    assert torch.equal(layer.vjp({}, layer.apply({}, x)[1], torch.ones_like(x))[1], slope)
    single = x.float().requires_grad_()
    theirs = torch.autograd.grad(nn.Hardsigmoid()(single).sum(), single)[0]
    assert torch.equal(layer.vjp({}, single.detach(), torch.ones_like(theirs))[1], theirs)


PLAIN = [
    *[fn.ReLU6(), fn.ELU(), fn.CELU(2.0), fn.SELU(), fn.ClippedLinear(0.2, 0.5), fn.ReLUK(3.0), fn.Threshold(0.1, 20.0)],
    *[fn.GELU(), fn.GELU("tanh"), fn.SiLU(), fn.Mish(), fn.Dish(), fn.Hardswish()],
    *[fn.Hardtanh(), fn.Hardsigmoid(), fn.SparseSigmoid(), fn.Softsign(), fn.LogSigmoid()],
    *[fn.Softplus(), fn.Softplus(2.0, 5.0), fn.Squareplus(), fn.SparsePlus()],
    *[fn.Softshrink(), fn.Hardshrink(), fn.Tanhshrink()],
    *[fn.Sin(), fn.Cos(), fn.Abs(), fn.Sign(), fn.Erf(), fn.Gaussian(), fn.RandomFourier()],
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layer", PLAIN, ids=repr)
def test_nothing_overflows_at_a_thousand(layer, dtype):
    """Value and gradient are finite at ±1000, ±100 and near 0, and have the dtype of x."""
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


BOUNDED = ["Hardtanh", "Threshold", "Softshrink", "Hardshrink", "ReLU6", "Hardsigmoid", "Hardswish", "ELU", "LeakyReLU"]
ARGUMENTS = {"Hardtanh": lambda v: (-v, v), "Threshold": lambda v: (v, v), "ReLU6": lambda v: (), "Hardsigmoid": lambda v: (), "Hardswish": lambda v: ()}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("bound", [0.1, 0.3, 0.7, 1.1, 2.3])
@pytest.mark.parametrize("name", BOUNDED)
def test_a_bound_that_the_dtype_rounds_still_bounds(name, bound, dtype):
    """If 0.7 becomes 0.6992 in y, the gradient beyond the bound is still 0, as in torch, and also at the bound."""
    arguments = ARGUMENTS.get(name, lambda v: (v,))(bound)
    x = torch.cat([torch.linspace(-7, 7, 141), torch.tensor([bound, -bound])]).to(dtype)
    y, cache = getattr(fn, name)(*arguments).apply({}, x)
    gx = getattr(fn, name)(*arguments).vjp({}, cache, torch.ones_like(y))[1]
    x.requires_grad_()
    want = getattr(nn, name)(*arguments)(x)
    torch.testing.assert_close(y, want.detach(), rtol=0.0, atol=0.0)
    torch.testing.assert_close(gx, torch.autograd.grad(want.sum(), x)[0], rtol=0.0, atol=0.01)


def test_a_clipped_line_stays_clipped_in_half_precision():
    """Beyond its bounds the gradient is 0, however these are rounded."""
    x = torch.linspace(-7, 7, 141)
    for bound in (0.1, 0.3, 0.7, 1.1, 2.3):
        for layer in (fn.ClippedLinear(max_val=bound, min_val=-bound), fn.ReLUK(bound)):
            for dtype in (torch.bfloat16, torch.float16):
                y, cache = layer.apply({}, x[x.abs() > bound * 1.01].to(dtype))
                assert not layer.vjp({}, cache, torch.ones_like(y))[1].any()


# Functions that torch.nn lacks, as formulas in torch, some of them from JAX.
FORMULAS = {
    fn.ClippedLinear(0.2, 0.5): lambda x: (0.2 * x + 0.5).clamp(0, 1),
    fn.ReLUK(3.0): lambda x: x.clamp(0, 3),
    fn.Dish(): lambda x: 0.5 * x * (x / torch.sqrt(1 + x * x) + 1),
    fn.SparseSigmoid(): lambda x: 0.5 * (x + 1).clamp(0, 2),
    fn.Squareplus(2.0): lambda x: 0.5 * (x + torch.sqrt(x * x + 2)),
    fn.SparsePlus(): lambda x: torch.where(x >= 1, x, torch.where(x <= -1, 0, (x + 1) ** 2 / 4)),
    fn.Sin(): torch.sin,
    fn.Cos(): torch.cos,
    fn.Exp(): torch.exp,
    fn.Square(): torch.square,
    fn.Monomial(4): lambda x: x**4,
    fn.Abs(): torch.abs,
    fn.Sign(): torch.sign,
    fn.Erf(): torch.erf,
    fn.Gaussian(2.0, -0.5): lambda x: 2 * torch.exp(-0.5 * x * x),
    fn.RandomFourier(0.7): lambda x: 2**0.5 * torch.sin(1.4**0.5 * x + torch.pi / 4),
    fn.SwiGLU(): lambda x: x[..., :2] * nn.functional.silu(x[..., 2:]),
    fn.GEGLU(): lambda x: x[..., :2] * nn.functional.gelu(x[..., 2:]),
    fn.ReGLU(): lambda x: x[..., :2] * torch.relu(x[..., 2:]),
    fn.MultiSoftmax((3, 1)): lambda x: torch.cat([torch.softmax(x[..., :3], -1), torch.ones_like(x[..., 3:])], -1),
    fn.Softmax(temperature=3.0): lambda x: torch.softmax(x / 3, -1),
    fn.LogSumExp(): lambda x: torch.logsumexp(x, -1),
    fn.LogSumExp(keepdim=True): lambda x: torch.logsumexp(x, -1, keepdim=True),
}


class Formula(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)


@pytest.mark.parametrize("layer", FORMULAS, ids=repr)
def test_functions_that_torch_lacks_agree_with_their_formulas(layer):
    """Value and autograd's gradient agree for small and large numbers."""
    assert_twins(layer, Formula(FORMULAS[layer]), draw((5, 4)) * torch.tensor([[1e-6], [0.1], [1.0], [3.0], [10.0]]))


@twin_of("PReLU")
@given(st.integers(1, 4), st.sampled_from([(5,), (3, 2), (2, 2, 3), (0,), (0, 2)]), st.floats(-1, 1), st.integers(0, 99))
@settings(max_examples=30)
def test_prelu_agrees_with_its_twin(channels, sizes, first, seed):
    """Value and gradients, including those of the slopes, agree for one slope and for one per channel."""
    x = draw((sizes[0], channels, *sizes[1:]), seed)
    for count in {1, channels}:
        assert_twins(fn.PReLU(count, init=first), nn.PReLU(count, init=first), x)
        assert_twins(fn.PReLU(count), nn.PReLU(count), torch.zeros_like(x))


@pytest.mark.parametrize("shape", [(), (3,)])
def test_prelu_with_one_slope_takes_any_shape(shape):
    """Numbers and vectors work, as in torch.nn.PReLU."""
    assert_twins(fn.PReLU(), nn.PReLU(), draw(shape) - 1)


def test_prelu_begins_as_torchs_does():
    """Slopes are initially 0.25, or ``init``."""
    torch.testing.assert_close(fn.PReLU(3).init(0), dict(nn.PReLU(3).state_dict()))
    assert torch.equal(fn.PReLU(2, init=0.1).init(0)["weight"], torch.tensor([0.1, 0.1]))


@twin_of("GLU")
@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.integers(-4, 3), st.integers(0, 99))
@settings(max_examples=30)
def test_glu_agrees_with_its_twin(sizes, dim, seed):
    """Every axis of even size is tried."""
    dim = dim % len(sizes)
    x = draw([n * 2 if i == dim else n for i, n in enumerate(sizes)], seed)
    assert_twins(fn.GLU(dim), nn.GLU(dim), x)
    assert_twins(fn.GLU(dim - len(sizes)), nn.GLU(dim), x)


@twin_of("{name}")
@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax", "Softmin"])
@given(sizes=st.lists(st.integers(0, 4), min_size=1, max_size=4), dim=st.integers(-4, 3), seed=st.integers(0, 99))
@settings(max_examples=40)
def test_a_softmax_agrees_with_its_twin(name, sizes, dim, seed):
    """Every axis is tried."""
    dim = dim % len(sizes)
    assert_twins(getattr(fn, name)(dim), getattr(nn, name)(dim), draw(sizes, seed) * 5)


@twin_of("Softmax2d")
@given(st.lists(st.integers(0, 4), min_size=3, max_size=4), st.integers(0, 99))
@settings(max_examples=40)
def test_softmax2d_agrees_with_its_twin(sizes, seed):
    """Softmax is over channels, with a batch and without."""
    assert_twins(fn.Softmax2d(), nn.Softmax2d(), draw(sizes, seed))


def test_rrelu_draws_its_slopes_evenly_and_keeps_them():
    """For x ≤ 0 slopes are uniform from lower to upper, equal for one key and in the gradient; inference uses their mean."""
    layer, x = fn.RReLU(0.1, 0.5), torch.cat([-torch.ones(50_000), torch.ones(3)])
    y, cache = layer.apply({}, x, fn.key(0))
    slopes = -y[:-3]
    assert 0.1 <= float(slopes.min()) < 0.101
    assert 0.499 < float(slopes.max()) < 0.5
    assert abs(float(slopes.mean()) - 0.3) < 0.002
    assert torch.equal(y[-3:], torch.ones(3))
    assert torch.equal(layer.vjp({}, cache, x)[1], y)
    assert torch.equal(layer({}, x, 0), y)
    assert not torch.equal(layer({}, x, 1), y)
    assert layer.inference() == fn.LeakyReLU(0.3)


@twin_of("RReLU")
@given(st.floats(0.0, 0.5), st.floats(0.5, 1.0), shapes, st.integers(0, 99))
@settings(max_examples=30)
def test_rrelu_in_inference_agrees_with_its_twin(lower, upper, shape, seed):
    """In evaluation torch.nn.RReLU is a LeakyReLU with the mean slope."""
    assert_twins(fn.RReLU(lower, upper).inference(), nn.RReLU(lower, upper).eval(), draw(shape, seed))


@pytest.mark.parametrize("layer", [fn.Dish(), fn.Squareplus()], ids=repr)
@pytest.mark.parametrize("x", [-1e20, 1e20, -3e3, 3e3])
def test_nothing_cancels_and_nothing_overflows_in_float32(layer, x):
    """Even if the usual formula overflows or cancels, the result has the digits of float64."""
    y, cache = layer.apply({}, torch.tensor([x]))
    wide, wide_cache = layer.apply({}, torch.tensor([x], dtype=torch.float64))
    torch.testing.assert_close(y.double(), wide, rtol=1e-6, atol=0.0)
    gx, wide_gx = (layer.vjp({}, c, torch.ones_like(out))[1] for c, out in ((cache, y), (wide_cache, wide)))
    torch.testing.assert_close(gx.double(), wide_gx, rtol=1e-6, atol=1e-7)


TIGHT = {"rtol": 1e-10, "atol": 1e-11}
ACTIVATIONS = [
    (fn.ReLU(), nn.ReLU()),
    (fn.LeakyReLU(), nn.LeakyReLU()),
    (fn.LeakyReLU(0.3), nn.LeakyReLU(0.3)),
    (fn.LeakyReLU(0.0), nn.LeakyReLU(0.0)),
    (fn.LeakyReLU(-0.5), nn.LeakyReLU(-0.5)),
    (fn.Sigmoid(), nn.Sigmoid()),
    (fn.Tanh(), nn.Tanh()),
    (fn.Softmax(), nn.Softmax(-1)),
    (fn.Softmax(0), nn.Softmax(0)),
    (fn.LogSoftmax(), nn.LogSoftmax(-1)),
    (fn.LogSoftmax(1), nn.LogSoftmax(1)),
]


@pytest.mark.parametrize(("layer", "module"), ACTIVATIONS, ids=[repr(layer) for layer, _ in ACTIVATIONS])
@given(
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=4), scale=st.sampled_from([1e-8, 1.0, 30.0]), seed=st.integers(0, 99)
)
@settings(max_examples=20)
def test_a_layer_without_params_agrees_with_torch(layer, module, shape, scale, seed):
    """Value and gradient are torch's for any shape and scale, including at the kink."""
    x = draw(shape, seed) * scale
    assert_twins(layer, module, x, tolerance=TIGHT)
    assert_twins(layer, module, x * (x > 0), tolerance=TIGHT)


@pytest.mark.parametrize(("layer", "module"), ACTIVATIONS, ids=[repr(layer) for layer, _ in ACTIVATIONS])
def test_extreme_values_give_what_torch_gives(layer, module):
    """Nothing overflows at ±1000, and infinities give the limits of the formula."""
    x = torch.tensor([[1e3, -1e3, 0.0], [500.0, 500.0, -500.0]], dtype=torch.float64)
    y = layer({}, x)
    assert fn.tree.all_finite(y)
    torch.testing.assert_close(y, module(x), **TIGHT)


def test_elementwise_is_a_function_with_its_derivative():
    """elementwise(sin, cos) has the value and gradient of torch.sin."""
    layer = fn.elementwise(torch.sin, torch.cos)
    assert_twins(layer, type("Sin", (nn.Module,), {"forward": lambda self, x: x.sin()})(), draw((3, 2)), tolerance=TIGHT)
    assert repr(layer) == "elementwise(torch.sin, torch.cos)"


X = torch.ones(2, 3)
MESSAGES = {
    "Tanh(): x must be a floating tensor, got a tensor of shape (2, 3) and dtype torch.int64": lambda: fn.Tanh()({}, X.long()),
    "ReLU(): params must be an empty dict, got weight (2, 3)": lambda: fn.ReLU()({"weight": X}, X),
    "Softmax(dim=2): x must have an axis 2, got x of shape (2, 3)": lambda: fn.Softmax(2)({}, X),
    "Softmax: dim must be a whole number, got None": lambda: fn.Softmax(None),
    "LeakyReLU: negative_slope must be a finite number, got nan": lambda: fn.LeakyReLU(float("nan")),
    "ELU: alpha must be a finite number, got nan": lambda: fn.ELU(float("nan")),
    "CELU: alpha must be a finite number other than 0, got 0.0": lambda: fn.CELU(0.0),
    "GELU: approximate must be one of 'none', 'tanh', got 'erf'": lambda: fn.GELU("erf"),
    "ClippedLinear: min_val must be below max_val, got min_val=1.0, max_val=1.0": lambda: fn.ClippedLinear(min_val=1.0),
    "Hardtanh: min_val must be below max_val, got min_val=2.0, max_val=1.0": lambda: fn.Hardtanh(2.0),
    "ReLUK: n must be a finite number above 0.0, got 0": lambda: fn.ReLUK(0),
    "RReLU: lower must be at most upper, got lower=0.5, upper=0.3333333333333333": lambda: fn.RReLU(0.5),
    "RReLU(): apply must be given a key, apply(params, x, rng); for evaluation use inference(), got no key": lambda: fn.RReLU()({}, X),
    "PReLU: num_parameters must be a whole number of at least 1, got 0": lambda: fn.PReLU(0),
    "PReLU(num_parameters=2): axis 1 of x must be num_parameters=2, got x of shape (2, 3)": lambda: fn.PReLU(2)(fn.PReLU(2).init(0), X),
    "PReLU(num_parameters=2): axis 1 of x must be num_parameters=2, got x of shape (2,)": lambda: fn.PReLU(2)(fn.PReLU(2).init(0), X[:, 0]),
    "PReLU(): params must be a dict of weight (1,), got weight (2,)": lambda: fn.PReLU()(fn.PReLU(2).init(0), X),
    "PReLU(): x must have the dtype of the params, torch.float32, got torch.float64": lambda: fn.PReLU()(fn.PReLU().init(0), X.double()),
    "GLU(): the axis -1 of x must have an even size, got x of shape (2, 3)": lambda: fn.GLU()({}, X),
    "GLU(dim=2): x must have an axis 2, got x of shape (2, 3)": lambda: fn.GLU(2)({}, X),
    "SwiGLU(): the axis -1 of x must have an even size, got x of shape ()": lambda: fn.SwiGLU()({}, X[0, 0]),
    "Softmax2d(): x must have the axes (N, C, H, W) or (C, H, W), got x of shape (2, 3)": lambda: fn.Softmax2d()({}, X),
    "MultiSoftmax: sizes must be a tuple of whole numbers of at least 1, got [2, 1]": lambda: fn.MultiSoftmax([2, 1]),
    "MultiSoftmax(sizes=(2, 2)): the last axis of x must be the sum of sizes, 4, got x of shape (2, 3)": lambda: fn.MultiSoftmax((2, 2))({}, X),
    "Softmax: temperature must be a finite number above 0.0, got 0": lambda: fn.Softmax(temperature=0),
    "Monomial: degree must be a whole number of at least 1, got 0": lambda: fn.Monomial(0),
    "Softshrink: lambd must be a finite number at least 0.0, got -1": lambda: fn.Softshrink(-1),
    "SiLU(): x must be a floating tensor, got a tensor of shape (2, 3) and dtype torch.int64": lambda: fn.SiLU()({}, X.long()),
    "GELU(): params must be an empty dict, got weight (2, 3)": lambda: fn.GELU()({"weight": X}, X),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert str(caught.value) == message


def test_an_ensemble_takes_activations_as_they_are():
    """Elementwise functions need no vmap over members."""
    net = fn.ensemble(fn.serial(fn.Linear(3, 4), fn.GELU()), 2)
    params, x = net.init(0), torch.ones(5, 3)
    alone = [fn.serial(fn.Linear(3, 4), fn.GELU())(fn.tree.map(lambda leaf, i=i: leaf[i], params), x) for i in range(2)]
    torch.testing.assert_close(net(params, x), torch.stack(alone))


def test_a_hardswish_of_any_slope_is_its_formula():
    """With the slope 1/6 it equals torch's kernel, including the gradient at the kinks."""
    x = torch.tensor([-8.0, -3.0, -2.5, -1.0, 0.0, 1.0, 2.5, 3.0, 8.0], dtype=torch.float64)
    ours, kernel = (fn.Hardswish(slope) for slope in (1 / 6 + 1e-14, 1 / 6))
    (y, cache), (want, kept) = (layer.apply({}, x) for layer in (ours, kernel))
    torch.testing.assert_close(y, want, rtol=1e-10, atol=1e-10)
    inside = x.abs() != 3
    got, wanted = (layer.vjp({}, held, x)[1] for layer, held in ((ours, cache), (kernel, kept)))
    torch.testing.assert_close(got[inside], wanted[inside], rtol=1e-10, atol=1e-10)
    thinc = fn.Hardswish(0.2)
    torch.testing.assert_close(thinc({}, x), x * (0.2 * x + 0.5).clamp(0, 1))
    assert thinc.vjp({}, thinc.apply({}, x)[1], torch.ones_like(x))[1].tolist()[2:7:4] == [0.0, 1.0]
