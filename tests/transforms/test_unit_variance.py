"""LSUV: the output of every layer with a weight has variance 1, in nets of all forms, and some params do not change."""

import pytest
import torch

import funcnet as fn

X = fn.random.normal(0, (64, 6))
IMAGES = fn.random.normal(1, (16, 3, 8, 8))


def residual_block(channels):
    """Return two convolutions beside the identity."""
    conv = fn.Conv2d(channels, channels, 3, padding="same")
    return fn.residual(fn.serial(conv, fn.ReLU(), conv))


CONVOLUTIONS = fn.serial(
    fn.Conv2d(3, 8, 3), fn.BatchNorm2d(8), fn.ReLU(), residual_block(8), fn.ConvTranspose2d(8, 4, 2), fn.Flatten()
)
NETS = {
    "serial": (fn.mlp([6, 30, 30, 30, 3], fn.ReLU()), X),
    "convolutions": (CONVOLUTIONS, IMAGES),
    "branches": (fn.serial(fn.Linear(6, 5), fn.branch(fn.Linear(5, 4), fn.Linear(5, 3))), X),
    "graph": (fn.graph("x", h=(fn.Linear(6, 4), "x"), y=(fn.Linear(4, 2), "h"), output="y"), X),
    "stochastic": (fn.serial(fn.Linear(6, 40), fn.Dropout(0.5), fn.Linear(40, 20)), X),
    "recomputed": (fn.remat(fn.serial(fn.Linear(6, 4), fn.Tanh(), fn.Linear(4, 3))), X),
}


@pytest.mark.parametrize("with_key", [True, False])
@pytest.mark.parametrize("name", NETS)
def test_every_output_has_variance_one(name, with_key):
    """The tolerance applies to layers with weights; biases and everything else stay."""
    net, x = NETS[name]
    if net.stochastic and not with_key:
        net = fn.map_layers(lambda layer: fn.Identity() if isinstance(layer, fn.Dropout) else layer, net)
    params = fn.tree.map(lambda p: p * 3 if p.is_floating_point() else p, net.init(0))
    scaled = fn.lsuv(net, params, x, 2 if with_key else None, tolerance=1e-4)
    outputs = fn.intermediates(net, scaled, x, fn.split(2)[1])
    layers = {path: layer for path, layer in fn.walk(net) if layer.weight_output_axis is not None}
    assert len(layers) >= 2
    for path in layers:
        assert outputs[path].var(correction=0).item() == pytest.approx(1, abs=1e-4), path
    changed = {path for path, p in flat(params).items() if not torch.equal(p, flat(scaled)[path])}
    assert changed == {f"{path}.weight" for path in layers}


def flat(params):
    """Return the leaves by path."""
    found = {}
    fn.tree.map_with_path(found.setdefault, params)
    return found


def test_weights_are_orthonormal_up_to_a_factor():
    """Orthonormal weights need a key; without one the direction of the weights in params stays."""
    net = fn.mlp([6, 4, 3], fn.Tanh())
    params = net.init(0)
    for path, w in flat(fn.lsuv(net, params, X, 1)).items():
        if path.endswith("weight"):
            gram = w @ w.T
            torch.testing.assert_close(gram, gram[0, 0] * torch.eye(len(w)), atol=1e-5, rtol=1e-5)
    for path, w in flat(fn.lsuv(net, params, X)).items():
        ratio = w / flat(params)[path]
        assert path.endswith("bias") or ratio.std() < 1e-5 * ratio.mean()


def test_a_bias_is_scaled_around():
    """A bias needs several steps, because the variance is then not proportional to the weight."""
    net = fn.Linear(6, 4)
    params = net.init(0) | {"bias": torch.tensor([0.3, -0.3, 0.5, 0.0])}
    assert net(fn.lsuv(net, params, X, tolerance=1e-3), X).var(correction=0).item() == pytest.approx(1, abs=1e-3)


def test_deep_nets_keep_their_signal():
    """In 100 layers of ReLU a Xavier net loses 30 powers of ten."""
    net = fn.serial(*[fn.Linear(30, 30) if i % 2 == 0 else fn.ReLU() for i in range(200)])
    x, params = fn.random.normal(0, (50, 30)), net.init(0)
    assert net(params, x).var() < 1e-20
    assert 0.1 < net(fn.lsuv(net, params, x, 1), x).var() < 1


def test_the_same_key_gives_the_same_bits_and_nothing_is_written_to():
    """Half precision is tried too; its weights have unit variance as rounded."""
    net = fn.cast(fn.mlp([6, 8, 3], fn.Tanh()), torch.bfloat16)
    params = net.init(0)
    before = fn.tree.map(torch.clone, params)
    one, other = fn.lsuv(net, params, X, 1), fn.lsuv(net, params, X, 1)
    assert fn.tree.equal(one, other)
    assert fn.tree.equal(params, before)
    assert {leaf.dtype for leaf in fn.tree.leaves(one)} == {torch.float32}
    assert net(one, X).float().var(correction=0).item() == pytest.approx(1, abs=0.02)
    assert not fn.tree.equal(one, fn.lsuv(net, params, X, 2))


def test_it_maps_over_members_and_works_on_the_meta_device():
    """Each member is as by itself."""
    net = fn.mlp([6, 8, 3], fn.Tanh())
    members = [net.init(i) for i in range(3)]
    stacked = fn.tree.map(lambda *leaves: torch.stack(leaves), *members)
    mapped = torch.func.vmap(lambda params: fn.lsuv(net, params, X))(stacked)
    fn.testing.assert_close(mapped, fn.tree.map(lambda *leaves: torch.stack(leaves), *[fn.lsuv(net, one, X) for one in members]))
    there = fn.lsuv(net, fn.tree.to(members[0], "meta"), X.to("meta"))
    assert all(leaf.is_meta for leaf in fn.tree.leaves(there))


def test_what_is_frozen_or_made_of_other_params_stays():
    """The layers beside it are scaled."""
    inner = fn.Linear(6, 6)
    for layer in (fn.freeze(inner), fn.ensemble(inner, 3), fn.repeat(fn.residual(inner), 3), fn.weight_norm(inner)):
        net = fn.serial(fn.Linear(6, 6), layer)
        params = net.init(0)
        scaled = fn.lsuv(net, params, X, 1)
        assert fn.tree.equal(scaled[1], params[1])
        assert not fn.tree.equal(scaled[0], params[0])


def test_a_shared_layer_is_scaled_where_it_runs_first():
    """Later runs use the same weight."""
    net = fn.shared(fn.Linear(6, 6))
    one, other = net(fn.lsuv(net, net.init(0), (X, 3 * X), 1), (X, 3 * X))
    assert [y.std(correction=0).item() for y in (one, other)] == pytest.approx([1, 3], rel=1e-3)


REFUSED = {
    "lsuv: the net must have a linear layer or convolution to scale, got serial(Tanh())": lambda: fn.lsuv(fn.serial(fn.Tanh()), ({},), X),
    "lsuv: the output of the layer at '0' must vary over x, got the variance 0": lambda: fn.lsuv(fn.serial(fn.Linear(6, 2)), fn.serial(fn.Linear(6, 2)).init(0), 0 * X),
    "lsuv: the output of the layer at '' must vary over x, got the variance nan": lambda: fn.lsuv(fn.Linear(6, 2), fn.Linear(6, 2).init(0), X / 0),
    "and iterations a whole number of at least 1, got 0.1 and 0": lambda: fn.lsuv(fn.Linear(6, 2), fn.Linear(6, 2).init(0), X, tolerance=0.1, iterations=0),
    "lsuv: a layer is required": lambda: fn.lsuv(None, {}, X),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_scaled_is_refused(message):
    """The message has the path of the layer."""
    with pytest.raises(ValueError, match=r".") as caught:
        REFUSED[message]()
    assert message in str(caught.value)
