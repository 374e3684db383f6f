"""Normalization layers compared with torch.nn and autograd in float64, and the error messages."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twins import CLOSE, assert_twins, draw, params_of, twin_of, varied

import funcnet as fn
from funcnet import tree

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)
BATCHES = st.lists(st.integers(0, 4), max_size=2).map(tuple)
SPACE = st.lists(st.integers(1, 4), max_size=3).map(tuple)
EPS = st.sampled_from([1e-5, 0.1])


@twin_of("LayerNorm")
@given(BATCHES, SHAPES, EPS, st.booleans(), st.booleans(), st.integers(0, 99))
@settings(max_examples=30)
def test_layer_norm_is_torchs(batch, shape, eps, affine, bias, seed):
    """Value and gradients agree over one axis or several, without a batch axis and for an empty batch."""
    options = {"eps": eps, "elementwise_affine": affine, "bias": bias}
    module = varied(nn.LayerNorm(shape, **options), seed)
    assert_twins(fn.LayerNorm(shape, **options), module, draw(batch + shape, seed) * 3 + 1)


@twin_of("RMSNorm")
@given(BATCHES, SHAPES, st.sampled_from([None, 1e-5, 0.1]), st.booleans(), st.integers(0, 99))
@settings(max_examples=30)
def test_rms_norm_is_torchs(batch, shape, eps, affine, seed):
    """Value and gradients agree over one axis or several, without a batch axis and for an empty batch."""
    module = varied(nn.RMSNorm(shape, eps=eps, elementwise_affine=affine), seed)
    assert_twins(fn.RMSNorm(shape, eps=eps, elementwise_affine=affine), module, draw(batch + shape, seed) * 3 + 1)


def by_kernel(module, x):
    """Call a GroupNorm without torch.nn's check, which refuses one row with one number a group, but not two such rows."""
    return torch.group_norm(x, module.num_groups, module.weight, module.bias, module.eps)


@twin_of("GroupNorm")
@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    SPACE,
    st.booleans(),
    st.booleans(),
    st.booleans(),
    EPS,
    st.integers(0, 99),
)
@settings(max_examples=30)
def test_group_norm_is_torchs(n, groups, share, space, affine, bias, last, eps, seed):
    """Value and gradients agree, with and without axes after the channels, and with channels last in memory."""
    options = {"eps": eps, "affine": affine, "bias": bias}
    channels = groups * share
    x = draw((n, channels, *space), seed) * 3 + 1
    x = x.movedim(1, -1).contiguous().movedim(-1, 1) if last else x
    module = varied(nn.GroupNorm(groups, channels, **options), seed)
    assert_twins(fn.GroupNorm(groups, channels, **options), module, x, call=by_kernel)


@pytest.mark.parametrize("affine", [False, True])
def test_a_large_group_norm_with_channels_last_is_torchs(affine):
    """That kernel has a separate path, which needs all gradients at once and gy in the same memory format."""
    x = draw((4, 16, 9, 7)).to(memory_format=torch.channels_last)
    layer, module = fn.GroupNorm(4, 16, affine=affine), varied(nn.GroupNorm(4, 16, affine=affine), 1)
    assert_twins(layer, module, x)
    params = params_of(layer, module)
    cache, gy = layer.apply(params, x)[1], draw(x.shape, 5)
    gparams, gx = layer.vjp(params, cache, gy)
    torch.testing.assert_close(layer.grads(params, cache, gy), gparams)
    torch.testing.assert_close(layer.input_grad(params, cache, gy), gx)


INSTANCE_NORMS = {
    1: (fn.InstanceNorm1d, nn.InstanceNorm1d, (4,)),
    2: (fn.InstanceNorm2d, nn.InstanceNorm2d, (3, 2)),
    3: (fn.InstanceNorm3d, nn.InstanceNorm3d, (2, 1, 3)),
}


def test_instance_norm_without_momentum_keeps_the_mean_of_all_batches():
    """BatchNorm does the same; torch's InstanceNorm stops moving."""
    layer, batches = fn.InstanceNorm1d(3, momentum=None, track_running_stats=True), [draw((4, 3, 5), seed) for seed in range(3)]
    params = fn.tree.cast(layer.init(0), torch.float64)
    for x in batches:
        params = layer.update_stats(params, layer.apply(params, x)[1])
    mean = torch.stack([x.mean((0, 2)) for x in batches]).mean(0)
    var = torch.stack([x.var(2).mean(0) for x in batches]).mean(0)
    torch.testing.assert_close(params["running_mean"], mean, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(params["running_var"], var, rtol=1e-12, atol=1e-15)
    assert params["num_batches_tracked"] == 3


@twin_of("InstanceNorm{axes}d")
@pytest.mark.parametrize("axes", INSTANCE_NORMS)
@given(
    batch=st.sampled_from([(), (1,), (3,)]),
    channels=st.integers(1, 3),
    affine=st.booleans(),
    bias=st.booleans(),
    track=st.booleans(),
    momentum=st.sampled_from([0.3, 0.05]),
    eps=EPS,
    seed=st.integers(0, 99),
)
@settings(max_examples=25)
def test_instance_norm_is_torchs(axes, batch, channels, affine, bias, track, momentum, eps, seed):
    """Value, gradients and moved statistics agree, including ``inference()``, with and without a batch axis."""
    kind, twin, space = INSTANCE_NORMS[axes]
    options = {"eps": eps, "momentum": momentum, "affine": affine, "track_running_stats": track, "bias": bias}
    layer, module = kind(channels, **options), varied(twin(channels, **options), seed)
    x = draw((*batch, channels, *space), seed) * 3 + 1
    params = params_of(layer, module)
    moved = layer.update_stats(params, layer.apply(params, x)[1])
    assert_twins(layer, module, x)  # the module's statistics move by this one call
    torch.testing.assert_close(moved, dict(module.state_dict()), **CLOSE)
    assert_twins(layer.inference(), module.eval(), x)


def test_the_statistics_of_no_rows_move_nothing():
    """If there is no mean, the running one stays."""
    layer = fn.InstanceNorm1d(2, track_running_stats=True)
    params = layer.init(0)
    assert layer.update_stats(params, layer.apply(params, torch.ones(0, 2, 3))[1]) is params


@twin_of("LocalResponseNorm")
@given(
    st.integers(1, 6),
    st.integers(1, 5),
    st.sampled_from([(3,), (2, 3), (2, 1, 2)]),
    st.integers(0, 2),
    st.floats(-0.01, 1.0),
    st.floats(-1.0, 2.0),
    st.integers(0, 99),
)
@settings(max_examples=30)
def test_local_response_norm_is_torchs(size, channels, space, n, alpha, beta, seed):
    """Value and gradient agree for windows of even and odd size, even larger than the channels."""
    options = {"alpha": alpha, "beta": beta, "k": 1.0 + seed % 3}
    assert_twins(
        fn.LocalResponseNorm(size, **options), nn.LocalResponseNorm(size, **options), draw((n, channels, *space), seed) * 2
    )


@twin_of("CrossMapLRN2d")
@given(st.integers(2, 9), st.data(), st.floats(0.1, 2), st.floats(-1, 2), st.floats(0.5, 3), st.integers(0, 9999))
@settings(max_examples=40)
def test_cross_map_normalization_of_few_channels_is_torchs(size, data, alpha, beta, k, seed):
    """Up to size // 2 channels agree; beyond, torch's sums keep the first channel, and its gradient does not match."""
    shape = data.draw(st.tuples(st.integers(1, 2), st.integers(1, size // 2), st.integers(1, 3), st.integers(1, 3)))
    layer, twin = fn.CrossMapLRN2d(size, alpha, beta, k), nn.CrossMapLRN2d(size, alpha, beta, k)
    assert_twins(layer, twin, draw(shape, seed))


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_cross_map_normalization_is_the_local_one(size):
    """y and gx agree for sizes up to six and nine channels."""
    x, options = draw((2, 9, 3, 2)), (size, 0.5, 0.6, 2.0)
    got, want = (kind(*options).apply({}, x) for kind in (fn.CrossMapLRN2d, fn.LocalResponseNorm))
    assert torch.equal(got[0], want[0])
    assert torch.equal(fn.CrossMapLRN2d(*options).vjp({}, got[1], x)[1], fn.LocalResponseNorm(*options).vjp({}, want[1], x)[1])


def halves(layer, module, x):
    """Return y and gx of a layer and of its twin; gy is x flipped."""
    params = {name: leaf.detach() for name, leaf in module.state_dict().items()}
    y, cache = layer.apply(params, x)
    leaf = x.clone().requires_grad_()
    want = module(leaf)
    (gx,) = torch.autograd.grad(want, leaf, x.flip(-1))
    return (y, layer.vjp(params, cache, x.flip(-1))[1]), (want.detach(), gx)


ROWS = [(fn.LayerNorm(8), nn.LayerNorm), (fn.RMSNorm(8), nn.RMSNorm)]


@pytest.mark.parametrize(("layer", "twin"), ROWS, ids=["LayerNorm", "RMSNorm"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
def test_rows_of_half_precision_are_torchs(layer, twin, dtype, scale):
    """Sums of squares and the default ε of RMSNorm are in single precision."""
    got, want = halves(layer, varied(twin(8), 1).to(dtype), (draw((4, 8)) * scale).to(dtype))
    torch.testing.assert_close(got, want, rtol=0.02, atol=0.02 * float(want[1].abs().max()))


MIXED = [
    fn.BatchNorm2d(3),
    fn.BatchNorm2d(3, affine=False),
    fn.BatchNorm2d(3).inference(),
    fn.GroupNorm(1, 3),
    fn.InstanceNorm2d(3),
    fn.InstanceNorm2d(3, affine=True, track_running_stats=True).inference(),
]


@pytest.mark.compiled
@pytest.mark.parametrize("layer", MIXED, ids=repr)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_beside_moments_in_single_goes_through_vmap_and_compile(layer, dtype):
    """Numbers and dtypes match eager code."""
    params, x, gy = tree.cast((layer.init(0), draw((4, 3, 5, 2)), draw((4, 3, 5, 2), 1)), dtype)

    def work(x, gy):
        y, cache = layer.apply(params, x)
        return tuple(tree.leaves((y, layer.vjp(params, cache, gy))))

    want = work(x, gy)
    torch._dynamo.reset()
    compiled = torch.compile(work, fullgraph=True, backend="aot_eager")(x, gy)
    mapped = torch.func.vmap(work)(x[None], gy[None])
    for got in (compiled, [leaf[0] for leaf in mapped]):
        torch.testing.assert_close(tuple(got), want)


@pytest.mark.parametrize(("layer", "twin"), ROWS, ids=["LayerNorm", "RMSNorm"])
@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e11])
def test_rows_of_extreme_size_are_torchs(layer, twin, scale):
    """Tiny rows vanish beside ε, and large rows give the same size as any."""
    got, want = halves(layer, twin(8), (draw((4, 8)) * scale).float())
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5 * float(want[1].abs().max()))


@pytest.mark.parametrize("layer", [layer for layer, _ in ROWS], ids=["LayerNorm", "RMSNorm"])
def test_a_constant_row_has_finite_gradients(layer):
    """Its variance, or mean square, is 0, and ε keeps the root above 0."""
    x = torch.zeros(2, 8)
    y, cache = layer.apply(layer.init(0), x)
    assert tree.all_finite((y, layer.vjp(layer.init(0), cache, x + 1)))


def test_a_size_is_a_shape_of_one_axis():
    """The size may be an int, a tuple or a list, as in torch.nn; the repr has a tuple."""
    assert fn.LayerNorm(3) == fn.LayerNorm((3,)) == fn.LayerNorm([3])
    assert repr(fn.RMSNorm(3)) == "RMSNorm(normalized_shape=(3,))"


X = torch.ones(2, 3)
MESSAGES = {
    "LayerNorm: normalized_shape must be a whole number of at least 1, or a tuple of them, got (0,)": lambda: fn.LayerNorm(0),
    "LayerNorm: normalized_shape must be a whole number of at least 1, or a tuple of them, got ()": lambda: fn.LayerNorm(()),
    "RMSNorm: normalized_shape must be a whole number of at least 1, or a tuple of them, got 2.5": lambda: fn.RMSNorm(2.5),
    "LayerNorm: eps must be a finite number above 0.0, got 0.0": lambda: fn.LayerNorm(3, eps=0.0),
    "RMSNorm: eps must be a finite number above 0.0, got -1": lambda: fn.RMSNorm(3, eps=-1),
    "LayerNorm: bias must be True or False, got 1": lambda: fn.LayerNorm(3, bias=1),
    "LayerNorm(normalized_shape=(4,)): the last axes of x must be normalized_shape=(4,), got x of shape (2, 3)": lambda: fn.LayerNorm(4)(fn.LayerNorm(4).init(0), X),
    "RMSNorm(normalized_shape=(1,)): the last axes of x must be normalized_shape=(1,), got x of shape (2, 3)": lambda: fn.RMSNorm(1)(fn.RMSNorm(1).init(0), X),
    "LayerNorm(normalized_shape=(3,)): x must be a floating tensor, not torch.int64, got x of shape (2, 3)": lambda: fn.LayerNorm(3)(fn.LayerNorm(3).init(0), X.long()),
    "x must have the dtype of the params, torch.float32, got torch.float64": lambda: fn.LayerNorm(3)(fn.LayerNorm(3).init(0), X.double()),
    "RMSNorm(normalized_shape=(3,)): x must have the dtype of the params, torch.float32, got torch.bfloat16": lambda: fn.RMSNorm(3)(fn.RMSNorm(3).init(0), X.bfloat16()),
    "params must be a dict of weight (3,), bias (3,), got weight (3,)": lambda: fn.LayerNorm(3)(fn.RMSNorm(3).init(0), X),
    "RMSNorm(normalized_shape=(3,)): params must be a dict of weight (3,), got weight (1,)": lambda: fn.RMSNorm(3)(fn.RMSNorm(1).init(0), X),
    "RMSNorm(normalized_shape=(3,), elementwise_affine=False): params must be an empty dict": lambda: fn.RMSNorm(3, elementwise_affine=False)(fn.RMSNorm(3).init(0), X),
    "gy must have the shape of y, (2, 3), got gy of shape (1, 3)": lambda: fn.LayerNorm(3).vjp(fn.LayerNorm(3).init(0), fn.LayerNorm(3).apply(fn.LayerNorm(3).init(0), X)[1], X[:1]),
    "GroupNorm: num_groups must divide num_channels, got num_groups=2, num_channels=3": lambda: fn.GroupNorm(2, 3),
    "GroupNorm(num_groups=1, num_channels=4): x must have the axes (N, num_channels=4, ...), got x of shape (2, 3)": lambda: fn.GroupNorm(1, 4)(fn.GroupNorm(1, 4).init(0), X),
    "GroupNorm(num_groups=1, num_channels=3): x must have the dtype of the params, torch.float32, got torch.float64": lambda: fn.GroupNorm(1, 3)(fn.GroupNorm(1, 3).init(0), X.double()),
    "GroupNorm(num_groups=1, num_channels=3): params must be a dict of weight (3,), bias (3,), got weight (2,), bias (2,)": lambda: fn.GroupNorm(1, 3)(fn.GroupNorm(1, 2).init(0), X),
    "GroupNorm(num_groups=1, num_channels=3): x must be a floating tensor": lambda: fn.GroupNorm(1, 3)(fn.GroupNorm(1, 3).init(0), X.long()),
    "InstanceNorm2d(num_features=2): x must have the axes (N, num_features=2, height, width) or (num_features=2, height, width), got x of shape (2, 3)": lambda: fn.InstanceNorm2d(2)({}, X),
    "InstanceNorm1d(num_features=3): x must have the axes (N, num_features=3, length) or (num_features=3, length), got x of shape (2, 3)": lambda: fn.InstanceNorm1d(3)({}, X),
    "InstanceNorm1d(num_features=2): x must have more than one value per channel and row, got x of shape (2, 1)": lambda: fn.InstanceNorm1d(2)({}, X[:, :1]),
    "InstanceNorm1d(num_features=2): params must be an empty dict, got weight (2,), bias (2,)": lambda: fn.InstanceNorm1d(2)(fn.InstanceNorm1d(2, affine=True).init(0), X),
    "RunningInstanceNorm1d(num_features=3): x must have the axes": lambda: fn.InstanceNorm1d(3, track_running_stats=True).inference()(fn.InstanceNorm1d(3, track_running_stats=True).init(0), X),
    "InstanceNorm1d: momentum must be a finite number at least 0.0 and at most 1.0, got 2.0": lambda: fn.InstanceNorm1d(3, momentum=2.0),
    "LocalResponseNorm: size must be a whole number of at least 1, got 0": lambda: fn.LocalResponseNorm(0),
    "LocalResponseNorm(size=2): x must have the axes (N, channels, length, ...), got x of shape (2, 3)": lambda: fn.LocalResponseNorm(2)({}, X),
    "CrossMapLRN2d(size=2): x must have the axes (N, channels, height, width), got x of shape (2, 3)": lambda: fn.CrossMapLRN2d(2)({}, X),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
