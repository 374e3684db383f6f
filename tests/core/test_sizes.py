"""Sizes inferred from the input, in every layer and combinator."""

import pickle
from typing import Any

import attrs
import pytest
import torch
from cases import CASES
from hypothesis import given, settings
from hypothesis import strategies as st
from lazy import LENET, quarter
from torch import nn

import funcnet as fn
from funcnet import tree
from funcnet.checks import require_sizes
from funcnet.contract import Params, Size
from funcnet.testing import LAWS

LAZY = {
    "Linear": (fn.Linear(None, 3), (4, 5), fn.Linear(5, 3)),
    "Linear, more axes": (fn.Linear(None, 3, bias=False), (4, 2, 5), fn.Linear(5, 3, bias=False)),
    "Maxout": (fn.Maxout(None, 3), (4, 5), fn.Maxout(5, 3)),
    "Bilinear": (fn.Bilinear(None, None, 3), ((4, 5), (4, 6)), fn.Bilinear(5, 6, 3)),
    "Bilinear, one known": (fn.Bilinear(5, None, 3), ((4, 5), (4, 6)), fn.Bilinear(5, 6, 3)),
    "LinearGeneral": (fn.LinearGeneral(None, (2, 3)), (4, 5), fn.LinearGeneral(5, (2, 3))),
    "LinearGeneral, two axes": (
        fn.LinearGeneral(None, 3, axis=(0, -1)),
        (4, 2, 5),
        fn.LinearGeneral((4, 5), 3, axis=(0, -1)),
    ),
    "Conv1d": (fn.Conv1d(None, 4, 3), (2, 5, 9), fn.Conv1d(5, 4, 3)),
    "Conv1d, no batch": (fn.Conv1d(None, 4, 3), (5, 9), fn.Conv1d(5, 4, 3)),
    "Conv2d": (fn.Conv2d(None, 4, 3, groups=2), (2, 6, 5, 5), fn.Conv2d(6, 4, 3, groups=2)),
    "Conv3d": (fn.Conv3d(None, 4, 1), (2, 5, 2, 2, 2), fn.Conv3d(5, 4, 1)),
    "MaskedConv": (fn.MaskedConv(fn.Conv2d(None, 4, 3), "A"), (2, 5, 4, 4), fn.MaskedConv(fn.Conv2d(5, 4, 3), "A")),
    "ConvLocal1d": (fn.ConvLocal1d(None, 4, 3, None), (2, 5, 9), fn.ConvLocal1d(5, 4, 3, (9,))),
    "ConvLocal2d, length known": (fn.ConvLocal2d(None, 4, 1, (3, 2)), (5, 3, 2), fn.ConvLocal2d(5, 4, 1, (3, 2))),
    "ConvLocal3d, channels known": (fn.ConvLocal3d(5, 4, 1, None), (2, 5, 2, 1, 3), fn.ConvLocal3d(5, 4, 1, (2, 1, 3))),
    "ConvTranspose1d": (fn.ConvTranspose1d(None, 4, 3), (2, 5, 9), fn.ConvTranspose1d(5, 4, 3)),
    "ConvTranspose2d": (fn.ConvTranspose2d(None, 4, 3, groups=2), (2, 6, 5, 5), fn.ConvTranspose2d(6, 4, 3, groups=2)),
    "ConvTranspose3d": (fn.ConvTranspose3d(None, 4, 1), (5, 2, 2, 2), fn.ConvTranspose3d(5, 4, 1)),
    "BatchNorm1d": (fn.BatchNorm1d(None), (1, 5), fn.BatchNorm1d(5)),
    "BatchNorm1d, sequence": (fn.BatchNorm1d(None, affine=False), (4, 5, 3), fn.BatchNorm1d(5, affine=False)),
    "BatchNorm1d, inference": (fn.BatchNorm1d(None).inference(), (4, 5), fn.BatchNorm1d(5).inference()),
    "BatchNorm2d": (fn.BatchNorm2d(None), (4, 5, 2, 2), fn.BatchNorm2d(5)),
    "BatchNorm3d": (fn.BatchNorm3d(None), (4, 5, 2, 2, 2), fn.BatchNorm3d(5)),
    "InstanceNorm1d": (fn.InstanceNorm1d(None), (4, 5, 3), fn.InstanceNorm1d(5)),
    "InstanceNorm1d, no batch": (fn.InstanceNorm1d(None, affine=True), (5, 3), fn.InstanceNorm1d(5, affine=True)),
    "InstanceNorm2d": (fn.InstanceNorm2d(None), (4, 5, 2, 2), fn.InstanceNorm2d(5)),
    "InstanceNorm2d, inference": (
        fn.InstanceNorm2d(None, track_running_stats=True).inference(),
        (4, 5, 2, 2),
        fn.InstanceNorm2d(5, track_running_stats=True).inference(),
    ),
    "InstanceNorm3d": (fn.InstanceNorm3d(None), (4, 5, 2, 2, 2), fn.InstanceNorm3d(5)),
    "GroupNorm": (fn.GroupNorm(2, None), (4, 6, 3), fn.GroupNorm(2, 6)),
    "LayerNorm": (fn.LayerNorm(None), (4, 5), fn.LayerNorm(5)),
    "LayerNorm, no params": (fn.LayerNorm(None, elementwise_affine=False), (4, 5), fn.LayerNorm(5, elementwise_affine=False)),
    "RMSNorm": (fn.RMSNorm(None), (4, 5), fn.RMSNorm(5)),
    "Scale": (fn.Scale(None), (4, 5), fn.Scale(5)),
    "Bias": (fn.Bias(None), (4, 5), fn.Bias(5)),
    "PReLU": (fn.PReLU(None), (4, 5, 3), fn.PReLU(5)),
    "CauchySimilarity": (fn.CauchySimilarity(None), ((4, 5), (4, 5)), fn.CauchySimilarity(5)),
    "RNNCell": (fn.RNNCell(None, 3), (4, 5), fn.RNNCell(5, 3)),
    "LSTMCell with state": (fn.LSTMCell(None, 3), ((4, 5), ((4, 3), (4, 3))), fn.LSTMCell(5, 3)),
    "GRUCell": (fn.GRUCell(None, 3), (5,), fn.GRUCell(5, 3)),
    "RNN": (fn.RNN(None, 3), (6, 2, 5), fn.RNN(5, 3)),
    "LSTM": (fn.LSTM(None, 3, 2, dropout=0.5, batch_first=True), (2, 6, 5), fn.LSTM(5, 3, 2, dropout=0.5, batch_first=True)),
    "GRU with state": (fn.GRU(None, 3), ((6, 2, 5), (1, 2, 3)), fn.GRU(5, 3)),
}
"""A layer without a size, the shape of x, and the expected layer."""


def squeeze(shape: torch.Size) -> fn.Layer:
    """Make a net that returns to the size of its input, which it infers."""
    return fn.serial(fn.Linear(None, 2), fn.ReLU(), fn.Linear(None, shape[-1]), fn.Sigmoid())


def both(shapes: Any) -> fn.Layer:
    """Make a layer from the shapes of two inputs."""
    return fn.Bilinear(shapes[0][-1], shapes[1][-1], 2)


LAZY_NETS = {
    "serial": (
        fn.serial(fn.Linear(None, 3), fn.Tanh(), fn.Linear(None, 2)),
        (4, 5),
        "serial(Linear(5, 3), Tanh(), Linear(3, 2))",
    ),
    "serial, named": (fn.serial(a=fn.Linear(None, 3), b=fn.LayerNorm(None)), (4, 5), "serial(a=Linear(5, 3), b=LayerNorm(3))"),
    "serial, dropped": (fn.serial(fn.Dropout(0.3), fn.Linear(None, 2)), (4, 5), "serial(Dropout(0.3), Linear(5, 2))"),
    "serial of integers": (
        fn.serial(fn.Embedding(9, 5), fn.Linear(None, 2)),
        torch.tensor([[1, 2]]),
        "serial(Embedding(9, 5), Linear(5, 2))",
    ),
    "mlp": (fn.mlp([None, 4, 2]), (3, 5), "mlp([5, 4, 2])"),
    "parallel": (
        fn.parallel(fn.Linear(None, 3), fn.Conv1d(None, 2, 1)),
        ((4, 5), (4, 6, 2)),
        "parallel(Linear(5, 3), Conv1d(6, 2, 1))",
    ),
    "branch": (
        fn.branch(fn.Linear(None, 3), fn.Identity(), merge=fn.serial(fn.Concat(), fn.Linear(None, 2))),
        (4, 5),
        "branch(Linear(5, 3), Identity(), merge=serial(Concat(), Linear(8, 2)))",
    ),
    "residual": (
        fn.residual(fn.serial(fn.Linear(None, 7), fn.Linear(None, 5))),
        (4, 5),
        "residual(serial(Linear(5, 7), Linear(7, 5)))",
    ),
    "residual, shortcut": (fn.residual(fn.Linear(None, 2), fn.Linear(None, 2)), (4, 5), "residual(Linear(5, 2), Linear(5, 2))"),
    "graph": (
        fn.graph(
            "u", "v", y=(fn.Linear(None, 2), "h"), h=(fn.Concat(), "u", "a"), a=(fn.Linear(None, 3), "v"), output=("y", "a")
        ),
        ((4, 5), (4, 6)),
        "graph('u', 'v', y=(Linear(8, 2), 'h'), h=(Concat(), 'u', 'a'), a=(Linear(6, 3), 'v'), output=('y', 'a'))",
    ),
    "ensemble": (
        fn.serial(fn.ensemble(fn.Linear(None, 3), 2), fn.ensemble(fn.Linear(None, 2), 2, shared_input=False)),
        (4, 5),
        "serial(ensemble(Linear(5, 3), 2), ensemble(Linear(3, 2), 2, shared_input=False))",
    ),
    "shared": (
        fn.serial(fn.shared(fn.Linear(None, 3)), fn.Concat(), fn.Linear(None, 2)),
        ((4, 5), (4, 5)),
        "serial(shared(Linear(5, 3)), Concat(), Linear(6, 2))",
    ),
    "tied": (
        fn.serial(fn.tied(fn.parallel(fn.Linear(None, 3), fn.Linear(None, 3)), ("0", "1")), fn.Concat(), fn.Linear(None, 2)),
        ((4, 5), (4, 5)),
        "serial(tied(parallel(Linear(5, 3), Linear(5, 3)), ('0', '1')), Concat(), Linear(6, 2))",
    ),
    "lora": (
        fn.serial(fn.lora(fn.Linear(None, 3), 2), fn.Linear(None, 2)),
        (4, 5),
        "serial(lora(Linear(5, 3), 2), Linear(3, 2))",
    ),
    "scan": (
        fn.serial(fn.scan(fn.GRUCell(None, 3), output_is_carry=True), fn.parallel(fn.Linear(None, 2), fn.Identity())),
        ((6, 4, 5), (4, 3)),
        "serial(scan(GRUCell(5, 3), output_is_carry=True), parallel(Linear(3, 2), Identity()))",
    ),
    "scan in reverse": (
        fn.scan(fn.parallel(fn.Linear(None, 2), fn.Tanh()), reverse=True),
        ((6, 4, 5), (4, 3)),
        "scan(parallel(Linear(5, 2), Tanh()), reverse=True)",
    ),
    "bidirectional": (
        fn.serial(fn.bidirectional(fn.RNN(None, 3)), fn.parallel(fn.Linear(None, 2), fn.parallel(fn.Tanh(), fn.Tanh()))),
        (6, 4, 5),
        "serial(bidirectional(RNN(5, 3)), parallel(Linear(6, 2), parallel(Tanh(), Tanh())))",
    ),
    "bidirectional, merged": (
        fn.bidirectional(fn.Linear(None, 3), fn.Linear(None, 2), merge=fn.serial(fn.Concat(), fn.Linear(None, 2))),
        (6, 4),
        "bidirectional(Linear(4, 3), Linear(4, 2), merge=serial(Concat(), Linear(5, 2)))",
    ),
    "attention with a norm": (
        fn.MultiHeadAttention(6, 2, qk_norm=fn.RMSNorm(None)),
        (2, 4, 6),
        "MultiHeadAttention(6, 2, qk_norm=RMSNorm(3))",
    ),
    "map_over": (
        fn.serial(fn.map_over(fn.serial(fn.Conv1d(None, 2, 3), fn.Flatten())), fn.Linear(None, 2)),
        (4, 6, 5, 7),
        "serial(map_over(serial(Conv1d(5, 2, 3), Flatten())), Linear(10, 2))",
    ),
    "shape_dependent": (fn.serial(fn.shape_dependent(quarter), fn.Linear(None, 2)), (4, 8), "serial(Linear(8, 2), Linear(2, 2))"),
    "shape_dependent, lazy": (
        fn.branch(fn.Identity(), fn.shape_dependent(squeeze), merge=fn.Mul()),
        (4, 6),
        "branch(Identity(), serial(Linear(6, 2), ReLU(), Linear(2, 6), Sigmoid()), merge=Mul())",
    ),
    "shape_dependent, two inputs": (fn.shape_dependent(both), ((4, 3), (4, 5)), "Bilinear(3, 5, 2)"),
}
"""A net without sizes, the shape of x, and the expected net as code."""

ALL = {**LAZY, **{name: (net, x, eval(code, vars(fn).copy())) for name, (net, x, code) in LAZY_NETS.items()}}
EVERY = pytest.mark.parametrize(("net", "x", "want"), ALL.values(), ids=ALL)
LEAVES = pytest.mark.parametrize(("layer", "x", "want"), LAZY.values(), ids=LAZY)


def drawn(x: Any) -> Any:
    """Return a tensor of a shape, or tensors of the shapes in a tuple."""
    if isinstance(x, torch.Tensor):
        return x
    return fn.random.normal(0, x) if all(isinstance(n, int) for n in x) else tuple(map(drawn, x))


@EVERY
def test_every_size_is_found(net, x, want):
    """Sizes are inferred from shapes and from tensors."""
    assert fn.infer_sizes(net, x) == want
    assert fn.infer_sizes(net, drawn(x)) == want


@EVERY
def test_a_net_of_known_sizes_comes_back_equal(net, x, want):
    """Inferring again changes nothing."""
    assert fn.infer_sizes(want, x) == want


@EVERY
def test_the_shape_of_the_output_is_inferred_without_computing(net, x, want):
    """A net without sizes gives the same shape as the net with sizes."""
    net_of_one_row = want.inference()
    shapes = tree.map(lambda leaf: leaf.shape, net_of_one_row(net_of_one_row.init(0), drawn(x)))
    assert fn.output_shape(net, x) == shapes
    assert fn.output_shape(want, x) == shapes


@EVERY
def test_a_net_without_sizes_is_a_value(net, x, want):
    """The net prints as the call that makes it, pickles, compares and hashes; inferring does not change it."""
    before, names = repr(net), {**vars(fn), "quarter": quarter, "squeeze": squeeze, "both": both}
    fn.infer_sizes(net, x)
    assert repr(net) == before
    assert eval(before, names) == net
    assert hash(eval(before, names)) == hash(net)
    assert pickle.loads(pickle.dumps(net)) == net
    assert net != want


@LEAVES
def test_a_layer_without_a_size_says_how_to_infer_it(layer, x, want):
    """The error appears in ``init`` and in ``apply``."""
    message = "must be inferred first, with fn.infer_sizes\\(net, x\\), got None"
    with pytest.raises(ValueError, match=message):
        layer.init(0)
    with pytest.raises(ValueError, match=message):
        layer.inference()(want.init(0), drawn(x))


@EVERY
def test_no_net_without_sizes_has_params(net, x, want):
    """A combinator that holds one has no params either."""
    with pytest.raises(ValueError, match="infer_sizes"):
        net.init(0)


TWINS = [(nn.LazyLinear(3), fn.Linear(None, 3), (4, 5))]
for n in (1, 2, 3):
    there = (4, 6, *[5] * n)
    TWINS += [
        (getattr(nn, f"LazyConv{n}d")(4, 3, groups=2), getattr(fn, f"Conv{n}d")(None, 4, 3, groups=2), there),
        (getattr(nn, f"LazyConvTranspose{n}d")(4, 3, stride=2), getattr(fn, f"ConvTranspose{n}d")(None, 4, 3, stride=2), there),
        (getattr(nn, f"LazyBatchNorm{n}d")(), getattr(fn, f"BatchNorm{n}d")(None), there),
        (
            getattr(nn, f"LazyInstanceNorm{n}d")(affine=True, track_running_stats=True),
            getattr(fn, f"InstanceNorm{n}d")(None, affine=True, track_running_stats=True),
            there,
        ),
    ]


@pytest.mark.parametrize(("module", "layer", "shape"), TWINS, ids=[type(module).__name__ for module, _, _ in TWINS])
def test_the_sizes_are_those_that_torch_infers(module, layer, shape):
    """torch's lazy modules have params of the same names and shapes after their first x."""
    module(torch.zeros(shape))
    params = fn.infer_sizes(layer, shape).init(0)
    found = {name: tuple(leaf.shape) for name, leaf in tree.names(params).items()}
    assert found == {name: tuple(leaf.shape) for name, leaf in module.state_dict().items()}


sizes = st.integers(1, 4)


@given(n=sizes, channels=sizes, kernel=sizes, stride=sizes, padding=st.integers(0, 2), length=st.integers(8, 12))
@settings(max_examples=20, deadline=None)
def test_a_lazy_net_is_torchs_lazy_net(n, channels, kernel, stride, padding, length):
    """The size after any convolutions and pooling is inferred for a Linear."""
    how = {"stride": stride, "padding": padding}
    net = fn.serial(fn.Conv1d(None, channels, kernel, **how), fn.MaxPool1d(2), fn.Flatten(), fn.Linear(None, 3))
    module = nn.Sequential(nn.LazyConv1d(channels, kernel, **how), nn.MaxPool1d(2), nn.Flatten(), nn.LazyLinear(3))
    length *= stride
    module(torch.zeros(2, n, length))
    found = tree.names(fn.infer_sizes(net, (2, n, length)).init(0))
    assert {name: leaf.shape for name, leaf in found.items()} == {name: p.shape for name, p in module.state_dict().items()}


def test_a_convolutional_net_finds_the_size_after_flatten():
    """The batch may have any size, including one and zero."""
    found = [fn.infer_sizes(LENET, (n, 3, 28, 28)) for n in (64, 1, 0)]
    assert found[0][-1] == fn.Linear(400, 10)
    assert [net[0].in_channels for net in found] == [3, 3, 3]
    assert found[0] == found[1] == found[2]
    assert fn.output_shape(LENET, (64, 3, 28, 28)) == (64, 10)


def test_nothing_is_computed():
    """x and a weight may be larger than any memory."""
    net = fn.infer_sizes(fn.serial(fn.Linear(None, 10**6), fn.ReLU(), fn.Linear(None, 2)), (10**9, 10**7))
    assert net == fn.serial(fn.Linear(10**7, 10**6), fn.ReLU(), fn.Linear(10**6, 2))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_floating_type_of_x_does_not_matter(dtype):
    """New params have the default dtype, whatever x is."""
    assert fn.infer_sizes(fn.Linear(None, 2), torch.zeros(4, 5, dtype=dtype)) == fn.Linear(5, 2)
    assert fn.infer_sizes(fn.Linear(None, 2), (4, 5), dtype) == fn.Linear(5, 2)


def test_shapes_may_be_those_of_indices():
    """``dtype`` selects integers; a ``torch.Size``, a list, and shapes in a tuple or dict are accepted as shapes too."""
    net = fn.serial(fn.Embedding(9, 5), fn.Linear(None, 2))
    for shape in [(4, 3), torch.Size((4, 3)), [4, 3]]:
        assert fn.infer_sizes(net, shape, torch.int64)[1] == fn.Linear(5, 2)
    assert fn.output_shape(fn.parallel(net, net), (torch.Size((4, 3)), [7]), torch.int64) == ((4, 3, 2), (7, 2))
    assert fn.output_shape(fn.Identity(), {"a": (4, 3), "b": ()}) == {"a": (4, 3), "b": ()}


# "()" would be the shape of a number, so layers without an input are left out.
WITH_INPUT = {name: case for name, case in CASES.items() if not isinstance(case.x, tuple) or case.x}


@pytest.mark.parametrize("case", WITH_INPUT.values(), ids=WITH_INPUT)
def test_every_layer_of_the_catalogue_goes_through_as_it_is(case):
    """Its sizes are known, and its output has the shape that it computes."""
    still = case.layer.inference()
    y = still(case.params, case.x, *[0] * still.stochastic)
    assert fn.infer_sizes(case.layer, case.x) == case.layer
    assert fn.output_shape(case.layer, case.x) == tree.map(lambda leaf: leaf.shape, y)


def layers_in(value: Any) -> list[fn.Layer]:
    """Return the layers in a field: itself, or those in its tuples."""
    return (
        [one for part in value for one in layers_in(part)] if isinstance(value, tuple) else [value] * isinstance(value, fn.Layer)
    )


def holders(layer: fn.Layer) -> set[type]:
    """Return the types of layers that hold layers, among a layer and all layers inside."""
    fields = [one.name for one in attrs.fields(type(layer)) if one.init] if attrs.has(type(layer)) else []
    inner = layers_in(tuple(getattr(layer, name) for name in fields))
    return {type(layer) for _ in inner[:1]}.union(*map(holders, inner))


def test_every_layer_that_holds_layers_rewrites_them():
    """Otherwise missing sizes would remain: a new combinator has to define the shapes that its layers see."""
    found = set().union(*[holders(case.layer) for case in CASES.values()])
    assert len(found) >= 10
    assert [layer for layer in found if layer.infer is fn.Layer.infer] == []


@fn.frozen
class Gain(fn.Layer):
    """A user's layer: y = x w, with a w for each feature, whose ``init`` reads the key."""

    features: Size = None
    noisy: bool = False

    @property
    def stochastic(self) -> bool:
        return self.noisy

    @property
    def inferred_sizes(self) -> dict[str, int]:
        return {"features": -1}

    def init(self, rng: Any) -> Params:
        return {"w": torch.full((require_sizes(self).features,), float(int(rng) % 7), dtype=torch.float64)}

    def apply(self, params: Params, x: Any, rng: Any = None) -> tuple[Any, Any]:
        assert (rng is not None) == self.noisy
        return x * params["w"], x

    def vjp(self, params: Params, cache: Any, gy: Any) -> tuple[Params, Any]:
        return {"w": (gy * cache).flatten(0, -2).sum(0)}, gy * params["w"]


def test_a_custom_layer_declares_where_its_sizes_come_from():
    """``inferred_sizes`` suffices; the layer may read its key, draw in evaluation, and have params of any dtype."""
    net = fn.infer_sizes(fn.serial(Gain(), fn.Tanh(), Gain(noisy=True), fn.Linear(None, 2)), (4, 5))
    assert net == fn.serial(Gain(5), fn.Tanh(), Gain(5, noisy=True), fn.Linear(5, 2))


def test_an_error_in_a_custom_layer_names_the_size():
    """``inferred_sizes`` also says which x its ``apply`` accepts, unless the class has its own ``complaint``."""
    rule = r"Gain\(features=5\): the last axis of x must be features=5, got x of shape \(4, 6\)"
    with pytest.raises(ValueError, match=rule):
        Gain(5).apply(Gain(5).init(0), torch.zeros(4, 6))


def test_a_layer_made_of_functions_goes_through():
    """A layer made of functions has no sizes to infer."""
    double = fn.layer(apply=lambda params, x: (torch.cat((x, x), -1), ()), vjp=lambda params, cache, gy: (params, gy))
    assert fn.infer_sizes(fn.serial(double, fn.Linear(None, 2)), (4, 5))[1] == fn.Linear(10, 2)


@pytest.mark.compiled
def test_a_sized_net_keeps_the_laws():
    """The result is the net that one would write by hand."""
    net = fn.infer_sizes(fn.serial(fn.Linear(None, 3), fn.Tanh(), fn.BatchNorm1d(None), fn.Linear(None, 2)), (4, 5))
    for law in LAWS.values():
        law(net, fn.random.normal(0, (4, 5), dtype=torch.float64))
