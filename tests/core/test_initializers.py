"""Initializers: each is compared with its formula, gains and fans with ``torch.nn.init``."""

import itertools
import math
import pickle
from typing import get_args

import pytest
import torch
from torch.nn import init

import funcnet as fn
from funcnet import initializers, random
from funcnet.initializers.elementary import Constant, Initializer, Normal, Ones, TruncatedNormal, Uniform, Zeros
from funcnet.initializers.gains import calculate_gain, fans
from funcnet.initializers.names import NAMES
from funcnet.initializers.scaled import (
    KaimingNormal,
    KaimingUniform,
    LecunNormal,
    LecunUniform,
    Orthogonal,
    VarianceScaling,
    XavierNormal,
    XavierUniform,
)
from funcnet.layers.linear.linear import Linear

SHAPE = (200, 100, 3, 2)  # fan_in 600, fan_out 1200
IN, OUT = 600, 1200
CUT = 0.8796256610342398  # the standard deviation of a standard normal within ±2

SCALED = {
    XavierNormal(): math.sqrt(2 / (IN + OUT)),
    XavierNormal(gain=2.0): 2 * math.sqrt(2 / (IN + OUT)),
    XavierUniform(): math.sqrt(2 / (IN + OUT)),
    XavierUniform(gain=0.5): 0.5 * math.sqrt(2 / (IN + OUT)),
    KaimingNormal(): math.sqrt(2 / IN),
    KaimingNormal(mode="fan_out", nonlinearity="relu"): math.sqrt(2 / OUT),
    KaimingNormal(a=0.5): math.sqrt(2 / 1.25 / IN),
    KaimingNormal(nonlinearity="tanh"): 5 / 3 / math.sqrt(IN),
    KaimingUniform(): math.sqrt(2 / IN),
    KaimingUniform(a=math.sqrt(5)): math.sqrt(1 / 3 / IN),
    KaimingUniform(mode="fan_out", nonlinearity="linear"): math.sqrt(1 / OUT),
    LecunNormal(): math.sqrt(1 / IN),
    LecunNormal(gain=3.0): 3 * math.sqrt(1 / IN),
    LecunUniform(): math.sqrt(1 / IN),
    VarianceScaling(): math.sqrt(1 / IN),
    VarianceScaling(2.0, "fan_out", "normal"): math.sqrt(2 / OUT),
    VarianceScaling(3.0, "fan_avg", "uniform"): math.sqrt(3 / 900),
    Normal(): 1.0,
    Normal(0.0, 0.02): 0.02,
    Uniform(-1.0, 1.0): math.sqrt(1 / 3),
    TruncatedNormal(): CUT,
    TruncatedNormal(0.0, 0.5, -1.0, 1.0): 0.5 * CUT,
}
UNIFORM = [value for value in SCALED if "niform" in repr(value)]
NORMAL = [KaimingNormal(), XavierNormal(), LecunNormal(), Normal(), VarianceScaling(2.0, "fan_out", "normal")]
CUT_OFF = [TruncatedNormal(), VarianceScaling()]
EVERY = [*SCALED, Zeros(), Ones(), Constant(-2.5), Orthogonal(), Orthogonal(gain=1.5)]


@pytest.mark.parametrize(("initializer", "std"), SCALED.items(), ids=map(repr, SCALED))
def test_mean_and_spread_follow_the_formula(initializer, std):
    """For 120 000 draws, mean and standard deviation agree within 5 standard errors, at most std/√(2n) for the deviation."""
    x = initializer(1, SHAPE).double()
    assert x.shape == SHAPE
    assert abs(x.mean().item()) < 5 * std / math.sqrt(x.numel())
    assert x.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * x.numel()))


@pytest.mark.parametrize("initializer", UNIFORM, ids=repr)
def test_uniform_ones_fill_their_bounds(initializer):
    """The bounds are ±√3 std, reached to within a thousandth."""
    bound = math.sqrt(3) * SCALED[initializer]
    largest = initializer(2, SHAPE).abs().max().item()
    assert 0.999 * bound < largest <= bound * (1 + 1e-6)


@pytest.mark.parametrize("initializer", NORMAL, ids=repr)
def test_normal_ones_have_the_tails(initializer):
    """4.55 % of the draws are beyond 2 std, and 0.27 % beyond 3."""
    x = initializer(3, SHAPE).double().abs() / SCALED[initializer]
    for std, share in [(2, 0.0455003), (3, 0.0026998)]:
        assert (x > std).double().mean().item() == pytest.approx(share, abs=5 * math.sqrt(share / x.numel()))


@pytest.mark.parametrize("initializer", CUT_OFF, ids=repr)
def test_truncated_ones_are_cut_at_two_std_of_the_whole_normal(initializer):
    """The bounds are 2 / 0.8796 of the truncated standard deviation, as in ``jax.nn.initializers``."""
    largest = (initializer(4, SHAPE).abs() / SCALED[initializer]).max().item()
    assert 0.999 * 2 / CUT < largest <= 2 / CUT * (1 + 1e-6)


def test_normal_and_uniform_take_their_place():
    """``Normal`` accepts a mean, and ``Uniform`` bounds on one side of zero."""
    assert Normal(3.0, 0.1)(0, (10_000,)).mean().item() == pytest.approx(3, abs=0.005)
    x = Uniform(2.0, 5.0)(0, (10_000,))
    assert 2 <= x.min() < 2.01
    assert 4.99 < x.max() < 5


@pytest.mark.parametrize(("initializer", "value"), [(Zeros(), 0.0), (Ones(), 1.0), (Constant(-2.5), -2.5)])
def test_constants_are_what_they_say(initializer, value):
    """Constants do not depend on the key."""
    assert torch.equal(initializer(0, (2, 3)), torch.full((2, 3), value))


@pytest.mark.parametrize("initializer", EVERY, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_draws_have_the_dtype_and_the_shape(initializer, dtype):
    """Narrow dtypes are supported too."""
    x = initializer(random.key(0), (6, 4), dtype)
    assert (x.dtype, x.shape, x.is_contiguous()) == (dtype, (6, 4), True)


@pytest.mark.parametrize("initializer", EVERY, ids=repr)
def test_draws_are_functions_of_the_key(initializer):
    """Draws have torch's default dtype, and a seed gives the same draws as its key."""
    x = initializer(random.key(7), (6, 4))
    assert x.dtype is torch.get_default_dtype()
    assert torch.equal(x, initializer(7, (6, 4)))


@pytest.mark.parametrize("initializer", EVERY, ids=repr)
def test_initializers_work_under_vmap(initializer):
    """Each row equals the draw of its key by itself; the params of an ensemble are drawn in this way."""
    keys = random.split(1, 3)
    mapped = torch.func.vmap(lambda key: initializer(key, (5, 3)) + 0 * key)(keys)
    torch.testing.assert_close(mapped, torch.stack([initializer(key, (5, 3)) for key in keys]))


# gains and fans

NAMES_OF_GAINS = get_args(init._NonlinearityType)


@pytest.mark.parametrize("nonlinearity", NAMES_OF_GAINS)
def test_gains_are_torchs(nonlinearity):
    """Every name in torch is tried."""
    assert calculate_gain(nonlinearity) == pytest.approx(init.calculate_gain(nonlinearity), rel=1e-15)


@pytest.mark.parametrize("slope", [None, 0, 0.0, 0.2, 1, math.sqrt(5)])
def test_the_gain_of_leaky_relu_is_torchs(slope):
    """Any slope is tried."""
    assert calculate_gain("leaky_relu", slope) == pytest.approx(init.calculate_gain("leaky_relu", slope), rel=1e-15)


def test_an_unknown_gain_is_refused():
    """The error lists the known names."""
    with pytest.raises(
        ValueError, match=r"calculate_gain: nonlinearity must be one of linear, conv1d, .*, leaky_relu, got 'swish'"
    ):
        calculate_gain("swish")


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5), (3, 4, 5, 2), (1, 1, 3, 3, 3), (8, 1, 3), (0, 2), (2, 0)])
def test_fans_are_torchs(shape):
    """Linear maps and convolutions in 1, 2 and 3 dimensions are tried."""
    assert fans(shape) == init._calculate_fan_in_and_fan_out(torch.empty(shape))


@pytest.mark.parametrize("shape", [(), (3,)])
def test_fans_refuse_a_vector(shape):
    """The error has the shape."""
    with pytest.raises(ValueError, match="fans") as caught:
        fans(shape)
    assert str(caught.value) == f"fans: a weight must have at least 2 axes, (out, in, *kernel), got shape {shape}"


# orthogonal


@pytest.mark.parametrize("gain", [1.0, 1.5])
@pytest.mark.parametrize("shape", [(5, 5), (8, 3), (3, 8), (4, 2, 3, 3), (20, 2, 3), (1, 6), (6, 1)])
def test_orthogonal_has_orthonormal_rows_or_columns(shape, gain):
    """The shorter side of the matrix (out, in · Π kernel) is orthonormal."""
    w = Orthogonal(gain)(0, shape, torch.float64).reshape(shape[0], -1)
    small = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    torch.testing.assert_close(small, gain**2 * torch.eye(len(small), dtype=torch.float64))


def test_orthogonal_is_drawn_evenly():
    """Half are rotations and half reflections, and elements have mean 0 and variance 1/n: QR's signs are corrected."""
    w = torch.func.vmap(lambda key: Orthogonal()(key, (3, 3), torch.float64))(random.split(0, 20_000))
    assert torch.linalg.det(w).mean().abs() < 5 / math.sqrt(20_000)
    assert w.mean(0).abs().max() < 5 / math.sqrt(3 * 20_000)
    assert ((w**2).mean(0) - 1 / 3).abs().max() < 5 * math.sqrt(4 / 45 / 20_000)


# torch's own


@pytest.mark.parametrize("fan_in", [1, 4, 100])
def test_torchs_initializer_has_the_bounds_of_nn_linear(fan_in):
    """Weight and bias both fill ±1/√fan_in uniformly, like those of ``torch.nn.Linear``."""
    bound = 1 / math.sqrt(fan_in)
    params = Linear(fan_in, 20_000, initializer="torch").init(0)
    theirs = dict(torch.nn.Linear(fan_in, 20_000).named_parameters())
    for name, leaf in params.items():
        assert leaf.shape == theirs[name].shape
        assert 0.999 * bound < leaf.abs().max().item() <= bound * (1 + 1e-6)
        assert leaf.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
        assert theirs[name].std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)


def test_weight_and_bias_are_drawn_from_different_keys():
    """The bias is zero for all initializers except torch's."""
    params = Linear(1, 500, initializer="torch").init(3)
    assert not torch.equal(params["weight"][:, 0], params["bias"])
    assert torch.equal(Linear(4, 3, initializer="kaiming_uniform").init(3)["bias"], torch.zeros(3))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "torch"])
def test_a_name_means_its_value(name):
    """A layer with the name draws the same as a layer with the value."""
    layer = fn.Conv1d(3, 4, 3) if name in ("dirac", "delta_orthogonal") else Linear(4, 3)
    drawn = [layer.replace(initializer=one).init(1)["weight"] for one in (name, NAMES[name])]
    assert torch.equal(*drawn)


@pytest.mark.parametrize("name", ["foo", "", "Torch", ["torch"], None, 1.0, {}])
def test_what_is_no_initializer_is_refused(name):
    """The error lists the known names; unhashable values are refused in the same way."""
    with pytest.raises(ValueError, match="initializer must be") as caught:
        Linear(4, 3, initializer=name)
    assert str(caught.value) == f"Linear: initializer must be an initializer or one of {', '.join(NAMES)}, got {name!r}"


# fans

FANS = {
    fn.Conv2d(64, 32, 3): (64 * 9, 32 * 9),
    fn.Conv2d(64, 32, 3, groups=4): (16 * 9, 8 * 9),
    fn.ConvTranspose2d(64, 16, 3): (64 * 9, 16 * 9),
    fn.ConvTranspose1d(64, 48, 5, groups=2): (32 * 5, 24 * 5),
    fn.ConvLocal1d(16, 24, 5, 30): (16 * 5, 24 * 5),
    fn.Bilinear(20, 30, 40): (20 * 30, 40),
    fn.Linear(100, 200): (100, 200),
    fn.LinearGeneral((4, 30), (2, 100), axis=(-2, -1)): (120, 200),
    fn.Einsum("...tc,hcd->...htd", (4, 100, 50)): (100, 200),
}


@pytest.mark.parametrize("layer", FANS, ids=repr)
@pytest.mark.parametrize("name", ["kaiming_normal", "xavier_uniform", VarianceScaling(1.0, "fan_out")])
def test_a_layer_passes_its_fans(layer, name):
    """Fans account for groups and for the axes of the weight; the spread follows from them."""
    fan_in, fan_out = FANS[layer]
    variance = {"kaiming_normal": 2 / fan_in, "xavier_uniform": 2 / (fan_in + fan_out)}.get(name, 1 / fan_out)
    w = layer.replace(initializer=name).init(0)["weight"]
    assert w.std().item() == pytest.approx(math.sqrt(variance), rel=5 / math.sqrt(2 * w.numel()))


def test_the_fans_of_stacked_projections_are_those_of_one():
    """Queries, keys and values share a weight, but an output belongs to one of them."""
    w = fn.MultiHeadAttention(100, 4, initializer="xavier_normal").init(0)["in_proj_weight"]
    assert w.std().item() == pytest.approx(math.sqrt(2 / 200), rel=0.02)


@pytest.mark.parametrize("kind", ["Conv2d", "ConvTranspose2d"])
def test_torchs_initializer_stays_torchs(kind):
    """Its fans come from the shape, even for a transposed convolution."""
    arguments = {"kernel_size": 3, "groups": 2}
    ours = getattr(fn, kind)(64, 16, **arguments, initializer="torch").init(0)
    theirs = dict(getattr(torch.nn, kind)(64, 16, **arguments).named_parameters())
    bound = 1 / math.sqrt(ours["weight"][0].numel())
    for leaf in (ours["weight"], theirs["weight"]):
        assert 0.99 * bound < leaf.abs().max().item() <= bound * (1 + 1e-6)
    for leaf in (ours["bias"], theirs["bias"]):
        assert leaf.abs().max().item() <= bound


class Fixed(initializers.Initializer):
    """A custom initializer without fans."""

    def __call__(self, rng, shape, dtype=None):
        return torch.full(shape, 0.5, dtype=dtype)


def test_a_custom_initializer_need_not_know_of_fans():
    """The initializer is called with only the shape."""
    layer = fn.ConvTranspose1d(2, 3, 2, initializer=fn.frozen(Fixed)())
    assert torch.equal(layer.init(0)["weight"], torch.full((2, 3, 2), 0.5))


# values


@pytest.mark.parametrize("initializer", EVERY, ids=repr)
def test_an_initializer_is_a_value(initializer):
    """Its repr evaluates back, it pickles, and equal values have equal hashes."""
    again = eval(repr(initializer), vars(initializers))
    assert again == initializer == pickle.loads(pickle.dumps(initializer))
    assert hash(again) == hash(initializer)


def test_different_initializers_differ():
    """No two of the values above are equal."""
    assert all(one != other for one, other in itertools.combinations(EVERY, 2))


def test_the_base_class_alone_draws_nothing():
    """The base class has no formula."""
    with pytest.raises(TypeError, match="abstract"):
        Initializer()


WRONG = [
    (lambda: Normal(std=-1.0), "Normal: std must be a finite number at least 0.0, got -1.0"),
    (lambda: Normal(mean=math.nan), "Normal: mean must be a finite number, got nan"),
    (lambda: Uniform(1.0, 0.0), "Uniform: high must be a finite number at least 1.0, got 0.0"),
    (lambda: Uniform(low=2), "Uniform: high must be a finite number at least 2, got 1.0"),
    (lambda: TruncatedNormal(std=0.0), "TruncatedNormal: std must be a finite number above 0.0, got 0.0"),
    (lambda: TruncatedNormal(low=3.0), "TruncatedNormal: high must be a finite number at least 3.0, got 2.0"),
    (lambda: VarianceScaling(mode="fan"), "VarianceScaling: mode must be one of 'fan_in', 'fan_out', 'fan_avg', got 'fan'"),
    (lambda: VarianceScaling(0.0), "VarianceScaling: scale must be a finite number above 0.0, got 0.0"),
    (lambda: XavierNormal(-1), "XavierNormal: gain must be a finite number above 0.0, got -1"),
    (lambda: KaimingNormal(mode="fan_avg"), "KaimingNormal: mode must be one of 'fan_in', 'fan_out', got 'fan_avg'"),
    (lambda: Constant("0"), "Constant: value must be a finite number, got '0'"),
]


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_a_wrong_field_is_refused(make, message):
    """The constructor raises the error."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the whole message is compared)
        make()
    assert str(caught.value) == message
