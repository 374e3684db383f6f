"""Batch norms compared with torch.nn's, their running statistics, and the errors they raise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twins import assert_twins, draw, params_of, twin_of, varied

import funcnet as fn

CLOSE = {"rtol": 1e-10, "atol": 1e-11}
SAMPLES = {1: [(4,), (3, 2)], 2: [(2, 2, 3), (3, 1, 1)], 3: [(2, 1, 2, 3), (3, 2, 1, 1)]}


@twin_of("BatchNorm{axes}d")
@pytest.mark.parametrize("axes", SAMPLES)
@given(
    data=st.data(),
    n=st.integers(2, 4),
    affine=st.booleans(),
    bias=st.booleans(),
    track=st.booleans(),
    eps=st.sampled_from([1e-5, 0.1]),
    momentum=st.sampled_from([0.3, None]),
    seed=st.integers(0, 99),
)
@settings(max_examples=25)
def test_batch_norm_of_any_axes_is_torchs(axes, data, n, affine, bias, track, eps, momentum, seed):
    """Value, gradients and moved statistics agree, including ``inference()``."""
    row = data.draw(st.sampled_from(SAMPLES[axes]))
    kind, twin = (getattr(package, f"BatchNorm{axes}d") for package in (fn, nn))
    options = {"eps": eps, "momentum": momentum, "affine": affine, "track_running_stats": track, "bias": bias}
    layer, module = kind(row[0], **options), varied(twin(row[0], **options), seed)
    x = draw((n, *row), seed) * 3 + 1
    params = params_of(layer, module)
    moved = layer.update_stats(params, layer.apply(params, x)[1])
    assert_twins(layer, module, x)  # the module's statistics move by this one call
    torch.testing.assert_close(moved, dict(module.state_dict()), **CLOSE)
    assert_twins(layer.inference(), module.eval(), x)


@given(
    st.integers(1, 4),
    st.sampled_from([(2,), (5,), (1, 3), (4, 2), (0,), (0, 3)]),
    st.booleans(),
    st.sampled_from([1e-5, 0.1]),
    st.integers(0, 99),
)
@settings(max_examples=40)
def test_batch_norm_agrees_with_torch(channels, sizes, affine, eps, seed):
    """Value, gradients and moved running statistics match torch.nn.BatchNorm1d in training."""
    layer = fn.BatchNorm1d(channels, eps=eps, affine=affine)
    module = nn.BatchNorm1d(channels, eps=eps, affine=affine, dtype=torch.float64)
    x = draw((sizes[0], channels, *sizes[1:]), seed) * 3 + 1
    assert_twins(layer, module, x, tolerance=CLOSE)
    params = fn.tree.cast(layer.init(0), torch.float64)
    moved = layer.update_stats(params, layer.apply(params, x)[1]) if sizes[0] else params
    module.load_state_dict(params)
    _ = module(x) if sizes[0] else None
    torch.testing.assert_close(moved, dict(module.state_dict()), **CLOSE)


@pytest.mark.parametrize("momentum", [0.1, 1.0, 0.0, None])
def test_running_statistics_follow_torch_over_batches(momentum):
    """update_stats moves them as torch does, by a rate or as the mean of all batches; inference() uses them."""
    layer = fn.BatchNorm1d(3, momentum=momentum)
    module = nn.BatchNorm1d(3, momentum=momentum, dtype=torch.float64)
    params = fn.tree.cast(layer.init(0), torch.float64)
    for seed in range(4):
        x = draw((6, 3), seed) * (seed + 1)
        params = layer.update_stats(params, layer.apply(params, x)[1])
        module(x)
    torch.testing.assert_close(params, dict(module.state_dict()), **CLOSE)
    assert_twins(layer.inference(), module.eval(), x, tolerance=CLOSE)
    torch.testing.assert_close(layer.inference()(params, x), module.eval()(x), **CLOSE)


def test_batch_norm_without_running_statistics_uses_the_batch_in_inference():
    """Like torch's, it has no statistics: its params hold none, and its inference is itself."""
    layer = fn.BatchNorm1d(3, track_running_stats=False)
    assert layer.inference() == layer
    assert set(layer.init(0)) == {"weight", "bias"}
    params, x = layer.init(0), draw((4, 3)).float()
    assert layer.update_stats(params, layer.apply(params, x)[1]) is params


def test_a_constant_channel_keeps_its_running_variance_at_least_0():
    """The variance recovered from 1 / √(σ² + ε) is not made negative by rounding."""
    layer = fn.BatchNorm1d(1, momentum=1.0)
    params = layer.init(0)
    moved = layer.update_stats(params, layer.apply(params, torch.full((5, 1), 3.0))[1])
    assert 0 <= float(moved["running_var"]) < 1e-6


@pytest.mark.parametrize("momentum", [0.1, None])
def test_statistics_of_two_batches_add_up_though_both_were_applied_with_the_same_params(momentum):
    """Each batch moves the statistics from their current values, as two calls of torch.nn do."""
    layer, twin = fn.BatchNorm1d(3, momentum=momentum), nn.BatchNorm1d(3, momentum=momentum, dtype=torch.float64)
    params, batches = fn.tree.cast(layer.init(0), torch.float64), [draw((5, 3)), 2 * draw((4, 3)) + 1]
    caches = [layer.apply(params, x)[1] for x in batches]
    for x, cache in zip(batches, caches, strict=True):
        twin(x)
        params = layer.update_stats(params, cache)
    torch.testing.assert_close({**params}, {**twin.state_dict()}, rtol=1e-12, atol=1e-12)


@pytest.mark.compiled
def test_an_ensemble_s_statistics_are_those_of_its_members_compiled_too():
    """Under ``vmap`` the kernel that moves them within apply is not used, in eager and in compiled code."""
    layer, x = fn.BatchNorm1d(3), draw((5, 3)).float()
    net = fn.ensemble(layer, 2)
    params = net.init(0)

    def stats(params, x):
        return net.update_stats(params, net.apply(params, x)[1])

    single = layer.init(0)
    want = fn.tree.map(lambda leaf: torch.stack([leaf, leaf]), layer.update_stats(single, layer.apply(single, x)[1]))
    for run in (stats, torch.compile(stats, fullgraph=True, backend="aot_eager")):
        torch.testing.assert_close(run(params, x), want)


X = torch.ones(2, 3)
P3 = fn.BatchNorm1d(3).init(0)
MESSAGES = {
    "BatchNorm1d: eps must be a finite number above 0.0, got 0.0": lambda: fn.BatchNorm1d(3, eps=0.0),
    "BatchNorm1d: momentum must be a finite number at least 0.0 and at most 1.0, got 1.5": lambda: fn.BatchNorm1d(3, momentum=1.5),
    "a batch must have more than one value per channel, got x of shape (1, 3)": lambda: fn.BatchNorm1d(3)(fn.BatchNorm1d(3).init(0), X[:1]),
    "x must have the axes (N, num_features=4) or (N, num_features=4, length), got x of shape (2, 3)": lambda: fn.BatchNorm1d(4)(fn.BatchNorm1d(4).init(0), X),
    "RunningBatchNorm1d(num_features=4): x must have the axes": lambda: fn.BatchNorm1d(4).inference()(fn.BatchNorm1d(4).init(0), X),
    "BatchNorm1d(num_features=3): params must be a dict of weight (3,), bias (3,), running_mean (3,)": lambda: fn.BatchNorm1d(3)({}, X),
    "BatchNorm2d(num_features=3): x must have the axes (N, num_features=3, height, width), got x of shape (2, 3)": lambda: fn.BatchNorm2d(3)(P3, X),
    "BatchNorm3d(num_features=3): x must have the axes (N, num_features=3, depth, height, width), got x of shape (2, 3)": lambda: fn.BatchNorm3d(3)(P3, X),
    "RunningBatchNorm3d(num_features=3): x must have the axes (N, num_features=3, depth, height, width), got": lambda: fn.BatchNorm3d(3).inference()(P3, X),
    "BatchNorm1d(num_features=3): x must have the axes (N, num_features=3) or (N, num_features=3, length), got x of shape (2, 3, 1, 1)": lambda: fn.BatchNorm1d(3)(P3, X[..., None, None]),
    "BatchNorm2d(num_features=3): a batch must have more than one value per channel, got x of shape (1, 3, 1, 1)": lambda: fn.BatchNorm2d(3)(P3, X[:1, :, None, None]),
    "BatchNorm2d: num_features must be a whole number of at least 1, got 0": lambda: fn.BatchNorm2d(0),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
