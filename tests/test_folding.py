<<<<<<< HEAD
"""Folding of batch norms: the folded net against the net in inference, and which norms are gone."""

import pytest
import torch

import funcnet as fn
from funcnet import tree

BN = fn.BatchNorm1d
BLOCK = fn.serial(fn.Linear(3, 4), BN(4), fn.ReLU())


def moved(net):
    """Return params off their first values, running variances and all, in float64."""
    leaves = tree.names(net.init(0))
    drawn = {
        path: leaf
        if leaf.dtype == torch.int64
        else leaf.double() + fn.random.uniform(i, tuple(leaf.shape), 0.2, 0.9, torch.float64)
        for i, (path, leaf) in enumerate(leaves.items())
    }
    return tree.from_names(drawn, net.init(0))


NETS = {
    "linear": (BLOCK, fn.serial(fn.Linear(3, 4), fn.ReLU()), (5, 3)),
    "without bias": (fn.serial(fn.Linear(3, 4, bias=False), BN(4)), fn.serial(fn.Linear(3, 4)), (5, 3)),
    "not affine": (fn.serial(fn.Linear(3, 4), BN(4, eps=0.1, affine=False)), fn.serial(fn.Linear(3, 4)), (5, 3)),
    "convolution": (
        fn.serial(fn.Conv1d(4, 6, 3, groups=2, bias=False), BN(6), fn.Tanh()),
        fn.serial(fn.Conv1d(4, 6, 3, groups=2), fn.Tanh()),
        (2, 4, 5),
    ),
    "instance norm": (
        fn.serial(fn.Conv1d(2, 3, 3), fn.InstanceNorm1d(3, affine=True, track_running_stats=True)),
        fn.serial(fn.Conv1d(2, 3, 3)),
        (2, 2, 5),
    ),
    "two norms": (fn.serial(fn.Linear(3, 4), BN(4), BN(4)), fn.serial(fn.Linear(3, 4)), (5, 3)),
    "dropout between": (
        fn.serial(fn.Linear(3, 4), fn.Dropout(), BN(4)),
        fn.serial(fn.Linear(3, 4), fn.Identity()),
        (5, 3),
    ),
    "by name": (
        fn.serial(a=fn.Linear(3, 4), n=BN(4), b=fn.Tanh()),
        fn.serial(a=fn.Linear(3, 4), b=fn.Tanh()),
        (5, 3),
    ),
    "behind a serial": (
        fn.serial(fn.serial(fn.Tanh(), fn.Linear(3, 4)), BN(4)),
        fn.serial(fn.serial(fn.Tanh(), fn.Linear(3, 4))),
        (5, 3),
    ),
    "behind a named serial": (
        fn.serial(fn.serial(t=fn.Tanh(), l=fn.Linear(3, 4)), BN(4)),
        fn.serial(fn.serial(t=fn.Tanh(), l=fn.Linear(3, 4))),
        (5, 3),
    ),
    "residual": (
        fn.residual(BLOCK, fn.serial(fn.Linear(3, 4, bias=False), BN(4))),
        fn.residual(fn.serial(fn.Linear(3, 4), fn.ReLU()), fn.serial(fn.Linear(3, 4))),
        (5, 3),
    ),
    "branch": (
        fn.branch(BLOCK, fn.Identity(), merge=fn.serial(fn.Concat(), fn.Linear(7, 2), BN(2))),
        fn.branch(fn.serial(fn.Linear(3, 4), fn.ReLU()), fn.Identity(), merge=fn.serial(fn.Concat(), fn.Linear(7, 2))),
        (5, 3),
    ),
    "branch without merge": (
        fn.branch(BLOCK, fn.Tanh()),
        fn.branch(fn.serial(fn.Linear(3, 4), fn.ReLU()), fn.Tanh()),
        (5, 3),
    ),
    "graph": (
        fn.graph("x", h=(BLOCK, "x"), y=(fn.Mul(), "h", "h")),
        fn.graph("x", h=(fn.serial(fn.Linear(3, 4), fn.ReLU()), "x"), y=(fn.Mul(), "h", "h")),
        (5, 3),
    ),
    "ensemble": (fn.ensemble(BLOCK, 2), fn.ensemble(fn.serial(fn.Linear(3, 4), fn.ReLU()), 2), (5, 3)),
    "norm first": (fn.serial(BN(3), fn.Linear(3, 4)), fn.serial(BN(3).inference(), fn.Linear(3, 4)), (5, 3)),
    "activation between": (
        fn.serial(fn.Linear(3, 4), fn.Tanh(), BN(4)),
        fn.serial(fn.Linear(3, 4), fn.Tanh(), BN(4).inference()),
        (5, 3),
    ),
    "channels that are no features": (
        fn.serial(fn.Linear(3, 4), BN(2)),
        fn.serial(fn.Linear(3, 4), BN(2).inference()),
        (5, 2, 3),
    ),
    "behind a branch": (
        fn.serial(fn.residual(fn.Linear(3, 3)), BN(3)),
        fn.serial(fn.residual(fn.Linear(3, 3)), BN(3).inference()),
        (5, 3),
    ),
    "no statistics": (
        fn.serial(fn.Linear(3, 4), BN(4, track_running_stats=False)),
        fn.serial(fn.Linear(3, 4), BN(4, track_running_stats=False)),
        (5, 3),
    ),
    "a layer alone": (fn.Linear(3, 4), fn.Linear(3, 4), (5, 3)),
    "nothing": (fn.serial(), fn.serial(), (5, 3)),
}


@pytest.mark.parametrize(("net", "want", "shape"), NETS.values(), ids=NETS)
def test_the_folded_net_is_the_net_in_inference(net, want, shape):
    """The norms that can be folded are gone, and what is left gives the same, with params that fit it."""
    params, x = moved(net), fn.random.normal(9, shape, dtype=torch.float64)
    folded, p = fn.fold_batch_norm(net, params)
    assert folded == want
    assert tree.structure(p) == tree.structure(folded.init(0))
    torch.testing.assert_close(folded(p, x), net.inference()(params, x), rtol=1e-12, atol=1e-12)


def test_folding_leaves_the_params_alone():
    """New ones are made, of the dtype of the old."""
    params = BLOCK.init(0)
    before = tree.map(torch.clone, params)
    folded = fn.fold_batch_norm(BLOCK, params)[1]
    assert tree.equal(params, before)
    assert {leaf.dtype for leaf in tree.leaves(folded)} == {torch.float32}


def test_params_that_do_not_fit_are_refused():
    """By the serial that they do not fit."""
    with pytest.raises(ValueError, match="serial: params must be a tuple of 3, one entry per layer, got a tuple of 1"):
        fn.fold_batch_norm(BLOCK, ({},))
=======
"""Windows as columns beside torch.nn's, separable convolutions, and the errors they raise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twins import assert_twins, draw

import funcnet as fn


def pair(low, high):
    return st.one_of(st.integers(low, high), st.tuples(st.integers(low, high), st.integers(low, high)))


def both(value):
    return value if isinstance(value, tuple) else (value, value)


@st.composite
def folds(pick):
    """Draw all options, an image size that fits, and a batch."""
    options = {
        "kernel_size": pick(pair(1, 3)),
        "dilation": pick(pair(1, 2)),
        "padding": pick(pair(0, 2)),
        "stride": pick(pair(1, 3)),
    }
    reach = [d * (k - 1) + 1 for k, d in zip(both(options["kernel_size"]), both(options["dilation"]), strict=True)]
    return options, tuple(pick(st.integers(r, r + 3)) for r in reach), pick(st.sampled_from([(), (1,), (2,)]))


@given(folds(), st.integers(1, 2))
@settings(max_examples=30, deadline=None)
def test_unfolding_is_torch_s(options, channels):
    """Values and gradients, for all options, with and without a batch."""
    options, size, batch = options
    assert_twins(fn.Unfold(**options), nn.Unfold(**options), draw((*batch, channels, *size)))


@given(folds(), st.integers(1, 2))
@settings(max_examples=30, deadline=None)
def test_folding_is_torch_s(options, channels):
    """Values and gradients, for all options, with and without a batch."""
    options, size, batch = options
    columns = fn.Unfold(**options)({}, draw((*batch, channels, *size)))
    assert_twins(fn.Fold(size, **options), nn.Fold(size, **options), columns)


def test_a_convolution_is_a_product_with_columns():
    """Weight, flattened, times the columns of Unfold."""
    conv, x = fn.Conv2d(2, 3, (2, 3), padding=1, bias=False), draw((2, 2, 4, 5)).float()
    params = conv.init(0)
    columns = fn.Unfold((2, 3), padding=1)({}, x)
    torch.testing.assert_close((params["weight"].flatten(1) @ columns).reshape(2, 3, 5, 5), conv(params, x))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_separable_convolution_is_one_with_a_product_for_its_weight(axes):
    """Its two weights multiplied are a convolution's; the options go to the layers that they mean."""
    net = getattr(fn, f"separable_conv{axes}d")(2, 3, 3, 2, 1, multiplier=2, padding_mode="circular", initializer="torch")
    params, x = fn.tree.cast(net.init(0), torch.float64), draw((2, 2, *(5,) * axes))
    first, then = params["depthwise"]["weight"], params["pointwise"]["weight"]
    weight = (then.flatten(1).reshape(3, 2, 2, *[1] * axes) * first.reshape(2, 2, *first.shape[2:])).sum(2)
    conv = getattr(fn, f"Conv{axes}d")(2, 3, 3, 2, 1, padding_mode="circular")
    torch.testing.assert_close(net(params, x), conv({"weight": weight, "bias": params["pointwise"]["bias"]}, x))
    assert net["pointwise"].initializer == net["depthwise"].initializer == "torch"
    assert "bias" not in params["depthwise"]


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_depthwise_convolution_is_one_with_as_many_groups_as_channels(axes):
    """And a multiple of them out; other options go on."""
    layer = getattr(fn, f"depthwise_conv{axes}d")(3, 2, 4, stride=2, bias=False)
    assert layer == getattr(fn, f"Conv{axes}d")(3, 12, 2, 2, groups=3, bias=False)


def called(layer, *shape, gy=None, dtype=torch.float32):
    """Call a layer on zeros, and its vjp on a gy of another shape."""
    cache = layer.apply({}, torch.zeros(shape, dtype=dtype))[1]
    layer.vjp({}, cache, torch.zeros(gy))


MESSAGES = {
    "Unfold: kernel_size must be a whole number of at least 1, or a tuple of 2 of them, one for each axis, got (1,)": lambda: fn.Unfold((1,)),
    "Fold: output_size with its padding must be as long as the window's reach, (3, 3), got (4, 2)": lambda: fn.Fold((4, 2), 2, 2),
    "Unfold(kernel_size=3): x with its padding must be as long as the window's reach, (3, 3), got x of shape (1, 4, 2)": lambda: called(fn.Unfold(3), 1, 4, 2),
    "Unfold(kernel_size=3): x must have the axes (N, channels, height, width) or (channels, height, width), got x of shape (4, 4)": lambda: called(fn.Unfold(3), 4, 4),
    "Fold(output_size=3, kernel_size=2): x must have the axes (N, channels · 4, 4) or (channels · 4, 4), got x of shape (1, 4, 3)": lambda: called(fn.Fold(3, 2), 1, 4, 3),
    "Fold(output_size=3, kernel_size=2): x must be a floating tensor, got a tensor of shape (4, 4) and dtype torch.int64": lambda: called(fn.Fold(3, 2), 4, 4, dtype=torch.int64),
    "gy must have the shape of y, (1, 4, 4), got gy of shape (1, 4, 3)": lambda: called(fn.Unfold(2), 1, 1, 3, 3, gy=(1, 4, 3)),
    "gy must have the shape of y, (1, 3, 3), got gy of shape (2, 3, 3)": lambda: called(fn.Fold(3, 2), 4, 4, gy=(2, 3, 3)),
}  # fmt: skip


@pytest.mark.parametrize("sentence", MESSAGES)
def test_what_does_not_fit_is_refused_with_its_sentence(sentence):
    """Options, an x and a gy: who, the rule with its numbers, and what came."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[sentence]()
    assert sentence in str(caught.value)
>>>>>>> fam-a
