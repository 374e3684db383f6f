"""The layers against torch.nn and autograd, the oracle of these tests, in float64; and the errors they raise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import funcnet as fn

CLOSE = {"rtol": 1e-10, "atol": 1e-11}


def draw(shape, seed=0, dtype=torch.float64):
    return fn.random.normal(seed, tuple(shape), dtype=dtype)


def by_autograd(f, gy_seed, *leaves):
    """Return the output of f and the gradients of its arguments, by autograd."""
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    y = f(*leaves)
    return y.detach(), torch.autograd.grad(y, leaves, draw(y.shape, gy_seed))


def agree(layer, module, x):
    """Check that a layer and a torch module with the same weights have the same output and gradients."""
    params = fn.tree.cast(layer.init(1), torch.float64)
    trained = {name: leaf for name, leaf in params.items() if leaf.is_floating_point() and not name.startswith("running")}
    want, (gx, *gs) = by_autograd(
        lambda x, *ps: torch.func.functional_call(module, {**params, **dict(zip(trained, ps, strict=True))}, (x,)),
        2,
        x,
        *trained.values(),
    )
    y, cache = layer.apply(params, x)
    gparams, got = layer.vjp(params, cache, draw(y.shape, 2))
    torch.testing.assert_close(y, want, **CLOSE)
    torch.testing.assert_close(got, gx, **CLOSE)
    for name, g in zip(trained, gs, strict=True):
        torch.testing.assert_close(gparams[name], g, **CLOSE)


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
    (fn.Flatten(), nn.Flatten()),
    (fn.Flatten(0, 1), nn.Flatten(0, 1)),
    (fn.Identity(), nn.Identity()),
]


@pytest.mark.parametrize(("layer", "module"), ACTIVATIONS, ids=[repr(layer) for layer, _ in ACTIVATIONS])
@given(
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=4), scale=st.sampled_from([1e-8, 1.0, 30.0]), seed=st.integers(0, 99)
)
@settings(max_examples=20)
def test_a_layer_without_params_agrees_with_torch(layer, module, shape, scale, seed):
    """Value and gradient are torch's, on any shape and scale, at the kink too."""
    x = draw(shape, seed) * scale
    agree(layer, module, x)
    agree(layer, module, x * (x > 0))


@pytest.mark.parametrize(("layer", "module"), ACTIVATIONS, ids=[repr(layer) for layer, _ in ACTIVATIONS])
def test_extreme_values_give_what_torch_gives(layer, module):
    """No overflow at ±1000, and infinities go where the formula sends them."""
    x = torch.tensor([[1e3, -1e3, 0.0], [500.0, 500.0, -500.0]], dtype=torch.float64)
    y = layer({}, x)
    assert fn.tree.all_finite(y)
    torch.testing.assert_close(y, module(x), **CLOSE)


@st.composite
def convolutions(draw_from):
    """Draw the options of a Conv1d and an input's length and batch that fit them."""
    groups = draw_from(st.integers(1, 3))
    kernel, dilation = draw_from(st.integers(1, 4)), draw_from(st.integers(1, 3))
    padding = draw_from(st.sampled_from([0, 1, 2, "same", "valid"]))
    stride = 1 if padding == "same" else draw_from(st.integers(1, 3))
    reach = dilation * (kernel - 1) + 1
    length = draw_from(st.integers(reach, reach + 5))
    batch = draw_from(st.sampled_from([(), (1,), (3,), (0,)]))
    channels = groups * draw_from(st.integers(1, 2)), groups * draw_from(st.integers(1, 2))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "bias": draw_from(st.booleans())}
    return (*channels, kernel), options, (*batch, channels[0], length)


@given(convolutions(), st.integers(0, 99))
@settings(max_examples=60)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
def test_conv1d_agrees_with_torch(case, seed):
    """Value and gradients are torch.nn.Conv1d's, for all its options, without a batch axis and on an empty batch."""
    sizes, options, shape = case
    agree(fn.Conv1d(*sizes, **options), nn.Conv1d(*sizes, **options), draw(shape, seed))


@given(
    st.integers(1, 4),
    st.sampled_from([(2,), (5,), (1, 3), (4, 2), (0,), (0, 3)]),
    st.booleans(),
    st.sampled_from([1e-5, 0.1]),
    st.integers(0, 99),
)
@settings(max_examples=40)
def test_batch_norm_agrees_with_torch(channels, sizes, affine, eps, seed):
    """Value, gradients, and the moved running statistics are torch.nn.BatchNorm1d's in training."""
    layer = fn.BatchNorm1d(channels, eps=eps, affine=affine)
    module = nn.BatchNorm1d(channels, eps=eps, affine=affine, dtype=torch.float64)
    x = draw((sizes[0], channels, *sizes[1:]), seed) * 3 + 1
    agree(layer, module, x)
    params = fn.tree.cast(layer.init(0), torch.float64)
    moved = layer.update_stats(params, layer.apply(params, x)[1]) if sizes[0] else params
    module.load_state_dict(params)
    _ = module(x) if sizes[0] else None
    torch.testing.assert_close(moved, dict(module.state_dict()), **CLOSE)


@pytest.mark.parametrize("momentum", [0.1, 1.0, 0.0, None])
def test_running_statistics_follow_torch_over_batches(momentum):
    """update_stats moves them as torch does, by a rate or as the mean of all batches; inference() reads them."""
    layer = fn.BatchNorm1d(3, momentum=momentum)
    module = nn.BatchNorm1d(3, momentum=momentum, dtype=torch.float64)
    params = fn.tree.cast(layer.init(0), torch.float64)
    for seed in range(4):
        x = draw((6, 3), seed) * (seed + 1)
        params = layer.update_stats(params, layer.apply(params, x)[1])
        module(x)
    torch.testing.assert_close(params, dict(module.state_dict()), **CLOSE)
    agree(layer.inference(), module.eval(), x)
    torch.testing.assert_close(layer.inference()(params, x), module.eval()(x), **CLOSE)


def test_batch_norm_without_running_statistics_goes_by_the_batch_in_inference():
    """As torch's, it has no statistics to read, so its params hold none and its inference is itself."""
    layer = fn.BatchNorm1d(3, track_running_stats=False)
    assert layer.inference() == layer
    assert set(layer.init(0)) == {"weight", "bias"}
    params, x = layer.init(0), draw((4, 3)).float()
    assert layer.update_stats(params, layer.apply(params, x)[1]) is params


def test_a_constant_channel_keeps_its_running_variance_at_least_0():
    """The variance that comes back from 1 / √(σ² + ε) is never negative by rounding."""
    layer = fn.BatchNorm1d(1, momentum=1.0)
    params = layer.init(0)
    moved = layer.update_stats(params, layer.apply(params, torch.full((5, 1), 3.0))[1])
    assert 0 <= float(moved["running_var"]) < 1e-6


def test_dropout_drops_the_fraction_p_and_keeps_the_mean():
    """About p of the elements become 0, the others are divided by 1 - p, and the backward pass has the same mask."""
    layer, x = fn.Dropout(0.3), torch.ones(100_000)
    y, cache = layer.apply({}, x, fn.key(0))
    assert abs(float((y == 0).double().mean()) - 0.3) < 0.01
    torch.testing.assert_close(y[y > 0], torch.full_like(y[y > 0], 1 / 0.7))
    assert torch.equal(layer.vjp({}, cache, x)[1], y)


@pytest.mark.parametrize(("p", "value"), [(0.0, 1.0), (1.0, 0.0)])
def test_dropout_of_nothing_and_of_all(p, value):
    """p = 0 keeps everything as it is, and p = 1 gives zeros, not NaN."""
    assert torch.equal(fn.Dropout(p)({}, torch.ones(4, 4), 0), torch.full((4, 4), value))


def test_dropout_is_the_identity_in_inference_and_depends_on_the_key_alone():
    """The same key drops the same elements, another key others, and inference() none."""
    layer, x = fn.Dropout(0.5), torch.ones(64)
    assert torch.equal(layer({}, x, 1), layer({}, x, fn.key(1)))
    assert not torch.equal(layer({}, x, 1), layer({}, x, 2))
    assert layer.inference() == fn.Identity()


PAIRS = {
    "Add": (fn.Add(), torch.add),
    "Sub": (fn.Sub(), torch.sub),
    "Mul": (fn.Mul(), torch.mul),
    "Div": (fn.Div(), torch.div),
    "Pow": (fn.Pow(), torch.pow),
}
BROADCASTS = [
    ((3, 4), (3, 4)),
    ((3, 4), (4,)),
    ((4,), (3, 4)),
    ((3, 1), (1, 4)),
    ((2, 3, 4), ()),
    ((), ()),
    ((0, 4), (4,)),
    ((1,), (5,)),
]


@pytest.mark.parametrize("shapes", BROADCASTS, ids=str)
@pytest.mark.parametrize("name", PAIRS)
def test_an_operation_agrees_with_torch_and_sums_over_repeated_axes(name, shapes):
    """Value and both gradients are torch's, and each gradient has its operand's shape."""
    layer, f = PAIRS[name]
    a, b = draw(shapes[0], 1).abs() + 0.5, draw(shapes[1], 2)
    want, gs = by_autograd(f, 3, a, b)
    y, cache = layer.apply({}, (a, b))
    torch.testing.assert_close(y, want, **CLOSE)
    torch.testing.assert_close(layer.vjp({}, cache, draw(y.shape, 3))[1], tuple(gs), **CLOSE)


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((3,), (3, 2)), ((2, 3), (3,)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)),
                                    ((3,), (5, 3, 4)), ((5, 2, 3), (3,)), ((2, 1, 2, 3), (4, 3, 5)), ((0, 3), (3, 2))], ids=str)  # fmt: skip
def test_matmul_agrees_with_torch(shapes):
    """Vectors, matrices and batches of them, with broadcast batch axes."""
    a, b = draw(shapes[0], 1), draw(shapes[1], 2)
    want, gs = by_autograd(torch.matmul, 3, a, b)
    y, cache = fn.MatMul().apply({}, (a, b))
    torch.testing.assert_close(y, want, **CLOSE)
    torch.testing.assert_close(fn.MatMul().vjp({}, cache, draw(y.shape, 3))[1], tuple(gs), **CLOSE)


@pytest.mark.parametrize("layer", [fn.Add(), fn.Mul(), fn.Concat(), fn.Concat(0)], ids=repr)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_operations_on_any_number_of_operands(layer, count):
    """Sum, product and concatenation take one operand or more."""
    functions = {
        fn.Add: lambda *xs: sum(xs),
        fn.Mul: lambda *xs: torch.stack(xs).prod(0),
        fn.Concat: lambda *xs: torch.cat(xs, layer.dim),
    }
    xs = tuple(draw((3, 2), i) for i in range(count))
    want, gs = by_autograd(functions[type(layer)], 9, *xs)
    y, cache = layer.apply({}, xs)
    torch.testing.assert_close(y, want, **CLOSE)
    torch.testing.assert_close(layer.vjp({}, cache, draw(y.shape, 9))[1], tuple(gs), **CLOSE)


def test_a_product_with_zeros_has_exact_gradients():
    """Nothing is divided by a factor, so two zeros in a product of three leave no NaN."""
    xs = tuple(torch.tensor([0.0, 0.0, 2.0]) if i < 2 else torch.tensor([0.0, 5.0, 3.0]) for i in range(3))
    cache = fn.Mul().apply({}, xs)[1]
    gs = fn.Mul().vjp({}, cache, torch.ones(3))[1]
    assert torch.equal(torch.stack(gs), torch.tensor([[0.0, 0.0, 6.0], [0.0, 0.0, 6.0], [0.0, 0.0, 4.0]]))


@pytest.mark.parametrize("exponent", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_powers_of_zero_have_torch_s_gradients(exponent):
    """At base 0 the gradients are those of torch.pow, infinities included."""
    a, b = torch.tensor([0.0, 2.0], dtype=torch.float64), torch.full((2,), exponent, dtype=torch.float64)
    want, gs = by_autograd(torch.pow, 3, a, b)
    y, cache = fn.Pow().apply({}, (a, b))
    torch.testing.assert_close((y, *fn.Pow().vjp({}, cache, draw((2,), 3))[1]), (want, *gs), **CLOSE)


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", [None, 0, 1, -1, (0, 2), (-1, -2)], ids=str)
def test_mean_agrees_with_torch(dim, keepdim):
    """Over all axes, one, or several, kept or not."""
    x = draw((2, 3, 4))
    want, (gx,) = by_autograd(
        lambda x: x.mean(dim, keepdim=keepdim) if dim is not None else x.mean((0, 1, 2), keepdim=keepdim), 3, x
    )
    layer = fn.Mean(dim, keepdim)
    y, cache = layer.apply({}, x)
    torch.testing.assert_close(y, want, **CLOSE)
    torch.testing.assert_close(layer.vjp({}, cache, draw(y.shape, 3))[1], gx, **CLOSE)


def test_elementwise_is_a_function_with_its_derivative():
    """elementwise(sin, cos) has the value and gradient of torch.sin."""
    layer = fn.elementwise(torch.sin, torch.cos)
    agree(layer, type("Sin", (nn.Module,), {"forward": lambda self, x: x.sin()})(), draw((3, 2)))
    assert repr(layer) == "elementwise(torch.sin, torch.cos)"


def test_the_initial_weights_of_a_convolution_by_name():
    """Xavier normal by default with zero bias; "torch" within torch's bounds, bias too."""
    xavier, torch_like = fn.Conv1d(8, 16, 5).init(0), fn.Conv1d(8, 16, 5, initializer="torch").init(0)
    assert abs(float(xavier["weight"].std()) / (2 / (8 * 5 + 16 * 5)) ** 0.5 - 1) < 0.1
    assert not xavier["bias"].any()
    for leaf in torch_like.values():
        assert 0.8 / 40**0.5 < float(leaf.abs().max()) <= 1 / 40**0.5


X = torch.ones(2, 3)
MESSAGES = {
    "Conv1d: groups must divide in_channels and out_channels, got groups=2, in_channels=3, out_channels=4": lambda: fn.Conv1d(3, 4, 1, groups=2),
    'Conv1d: padding="same" must have stride 1, got stride=2': lambda: fn.Conv1d(3, 4, 3, stride=2, padding="same"),
    'Conv1d: padding must be a whole number of at least 0, "same" or "valid", got \'full\'': lambda: fn.Conv1d(3, 4, 3, padding="full"),
    "Conv1d: kernel_size must be a whole number of at least 1, got 0": lambda: fn.Conv1d(3, 4, 0),
    "the last axis but one of x must be in_channels=4, got x of shape (2, 3)": lambda: fn.Conv1d(4, 4, 1)(fn.Conv1d(4, 4, 1).init(0), X),
    "x must have the axes (N, channels, length) or (channels, length), got x of shape (3,)": lambda: fn.Conv1d(3, 4, 1)(fn.Conv1d(3, 4, 1).init(0), X[0]),
    "x with its padding must be as long as the kernel's reach, 4, got x of shape (2, 3)": lambda: fn.Conv1d(2, 4, 4)(fn.Conv1d(2, 4, 4).init(0), X),
    "params must be a dict of weight (4, 2, 1), bias (4,), got weight (4, 2, 2), bias (4,)": lambda: fn.Conv1d(2, 4, 1)(fn.Conv1d(2, 4, 2).init(0), X),
    "BatchNorm1d: eps must be a finite number above 0.0, got 0.0": lambda: fn.BatchNorm1d(3, eps=0.0),
    "BatchNorm1d: momentum must be a finite number at least 0.0 and at most 1.0, got 1.5": lambda: fn.BatchNorm1d(3, momentum=1.5),
    "a batch must have more than one value per channel, got x of shape (1, 3)": lambda: fn.BatchNorm1d(3)(fn.BatchNorm1d(3).init(0), X[:1]),
    "x must have the axes (N, num_features=4) or (N, num_features=4, length), got x of shape (2, 3)": lambda: fn.BatchNorm1d(4)(fn.BatchNorm1d(4).init(0), X),
    "RunningBatchNorm1d(num_features=4): x must have the axes": lambda: fn.BatchNorm1d(4).inference()(fn.BatchNorm1d(4).init(0), X),
    "BatchNorm1d(num_features=3): params must be a dict of weight (3,), bias (3,), running_mean (3,)": lambda: fn.BatchNorm1d(3)({}, X),
    "Dropout: p must be a finite number at least 0.0 and at most 1.0, got 1.5": lambda: fn.Dropout(1.5),
    "Dropout: p must be a finite number at least 0.0 and at most 1.0, got nan": lambda: fn.Dropout(float("nan")),
    "Dropout(): apply must be given a key, apply(params, x, rng); for evaluation use inference(), got no key": lambda: fn.Dropout()({}, X),
    "rng: it must be a key, fn.key(seed), or an int seed, got 'seed'": lambda: fn.Dropout()({}, X, "seed"),
    "Tanh(): x must be a floating tensor, got a tensor of shape (2, 3) and dtype torch.int64": lambda: fn.Tanh()({}, X.long()),
    "ReLU(): params must be an empty dict, got weight (2, 3)": lambda: fn.ReLU()({"weight": X}, X),
    "Softmax(dim=2): x must have an axis 2, got x of shape (2, 3)": lambda: fn.Softmax(2)({}, X),
    "Softmax: dim must be a whole number, got None": lambda: fn.Softmax(None),
    "Flatten(): x must have an axis 1, got x of shape (3,)": lambda: fn.Flatten()({}, X[0]),
    "LeakyReLU: negative_slope must be a finite number, got nan": lambda: fn.LeakyReLU(float("nan")),
    "Add(): the operands must broadcast together, got shapes (2, 3) and (3, 2)": lambda: fn.Add()({}, (X, X.T)),
    "Add(broadcast=False): the operands must have one shape, got shapes (2, 3) and (3,)": lambda: fn.Add(broadcast=False)({}, (X, X[0])),
    "Sub(): x must be a tuple of 2 tensors, got a tuple of 3": lambda: fn.Sub()({}, (X, X, X)),
    "Mul(): x must be a tuple of one or more tensors, got a tensor of shape (2, 3) and dtype torch.float32": lambda: fn.Mul()({}, X),
    "Div(): the operands must have one dtype, got torch.float32 and torch.float64": lambda: fn.Div()({}, (X, X.double())),
    "MatMul(): the last axis of a must be the last but one of b, and those before must broadcast, got shapes (2, 3) and (2, 3)": lambda: fn.MatMul()({}, (X, X)),
    "Concat(): the operands must agree in every axis but -1, got shapes (2, 3) and (1, 3)": lambda: fn.Concat()({}, (X, X[:1])),
    "Mean(dim=5): x must have an axis 5, got x of shape (2, 3)": lambda: fn.Mean(5)({}, X),
}  # fmt: skip


@pytest.mark.parametrize("sentence", MESSAGES)
def test_bad_input_is_refused_with_its_sentence(sentence):
    """Each message says who, the rule with its numbers, and what came."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[sentence]()
    assert sentence in str(caught.value)
