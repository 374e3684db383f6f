"""Recomputation: ``remat`` equals the layer bit for bit, and keeps less."""

import pytest
import torch
from twins import draw

import funcnet as fn
from funcnet import tree

BLOCK = fn.Linear(5, 5), fn.BatchNorm1d(5), fn.Tanh(), fn.Dropout(0.2)
NETS = {
    "serial": fn.serial(*BLOCK * 3),
    "named": fn.serial(a=fn.Tanh(), b=fn.serial(*BLOCK), c=fn.Dropout(0.1), d=fn.Linear(5, 5)),
    "repeat": fn.repeat(fn.serial(*BLOCK), 3),
    "recurrent": fn.serial(fn.Unsqueeze(0), fn.map_over(fn.Linear(5, 5)), fn.Squeeze(0)),
    "residual": fn.residual(fn.serial(*BLOCK)),
}
TRIALS = [(name, None) for name in NETS] + [("serial", 1), ("serial", 4), ("serial", 5), ("serial", 12), ("named", 3)]


@pytest.mark.parametrize(("name", "segments"), TRIALS)
def test_remat_is_the_layer_bit_for_bit(name, segments):
    """Initial params, y, gradients, their halves and moved statistics agree, with one key."""
    plain, key = NETS[name], fn.key(5)
    net = fn.remat(plain, segments)
    params = tree.cast(plain.init(1), torch.float64)
    assert tree.equal(net.init(1), plain.init(1))
    x, gy = draw((6, 5), 1), draw((6, 5), 2)
    (y, cache), (want, caches) = net.apply(params, x, key), plain.apply(params, x, key)
    assert torch.equal(y, want)
    assert torch.equal(net(params, x, key), plain(params, x, key))
    assert tree.equal(net.vjp(params, cache, gy), plain.vjp(params, caches, gy))
    assert tree.equal(net.grads(params, cache, gy), plain.grads(params, caches, gy))
    assert torch.equal(net.input_grad(params, cache, gy), plain.input_grad(params, caches, gy))
    assert tree.equal(net.update_stats(params, cache), plain.update_stats(params, caches))


def test_the_cache_is_the_inputs_and_the_key():
    """The cache has x of each segment, and a key if the layer needs one; x is not copied."""
    params, x = NETS["serial"].init(0), draw((6, 5)).float()
    kept, key = fn.remat(NETS["serial"]).apply(params, x, 7)[1]
    assert kept[0] is x
    assert torch.equal(key, fn.key(7))
    assert fn.remat(fn.Tanh()).apply({}, x, 7)[1] == ((x,), None)
    cache = fn.remat(NETS["serial"], segments=4).apply(params, x, 7)[1]
    assert tree.nbytes(cache) == 4 * x.numel() * 4 + 8


def test_segments_before_the_first_params_are_not_recomputed():
    """``grads`` stops at the first layer with params."""
    net = fn.remat(fn.serial(fn.Tanh(), fn.Tanh(), fn.Linear(5, 5), fn.Tanh()), segments=2)
    params, x = net.init(0), draw((6, 5)).float()
    (first, second), key = net.apply(params, x)[1]
    gy = torch.ones(6, 5)
    assert tree.equal(net.grads(params, ((torch.zeros(0), second), key), gy), net.grads(params, ((first, second), key), gy))


def test_walking_and_inference_reach_the_layer():
    """A wrapper adds no path, and keeps its segments."""
    net = fn.remat(NETS["serial"], segments=3)
    assert fn.at(net, "3") == fn.Dropout(0.2)
    assert net.inference() == fn.remat(NETS["serial"].inference(), segments=3)
    assert fn.infer_sizes(fn.remat(fn.serial(fn.Linear(None, 2))), torch.zeros(1, 3)) == fn.remat(fn.serial(fn.Linear(3, 2)))
    assert eval(repr(net), vars(fn)) == net


@pytest.mark.parametrize(("layer", "segments"), [(fn.Tanh(), 2), (fn.serial(fn.Tanh()), 2), (fn.serial(fn.Tanh()), 0)])
def test_segments_need_a_serial_of_as_many_layers(layer, segments):
    """Anything else is refused when the net is made."""
    with pytest.raises(ValueError, match="segments"):
        fn.remat(layer, segments)


def test_errors_say_where_forward_and_backward():
    """Notes name the layer of the serial, then the remat."""
    net = fn.remat(fn.serial(fn.Tanh(), fn.Linear(3, 3)), segments=2)
    params, x = net.init(0), torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"in_features=3[\s\S]*in serial, layer 1\n  in remat"):
        net.apply(params, torch.zeros(2, 4))
    for verb in (net.vjp, net.grads, net.input_grad):
        with pytest.raises(ValueError, match=r"in serial, layer 1\n  in remat"):
            verb(params, net.apply(params, x)[1], torch.zeros(2, 4))


def test_a_rewrite_to_fewer_layers_has_fewer_segments():
    """The repr must still evaluate: a folded norm leaves one layer, and a single layer is no serial."""
    net = fn.remat(fn.serial(fn.Linear(3, 3), fn.BatchNorm1d(3), fn.Tanh()), segments=3)
    folded, _ = fn.fold_batch_norm(net, net.init(0))
    assert folded == fn.remat(fn.serial(fn.Linear(3, 3), fn.Tanh()), segments=2)
    single = fn.map_layers(lambda layer: fn.Tanh() if isinstance(layer, type(fn.serial())) else layer, net)
    assert single == fn.remat(fn.Tanh())
    for one in (folded, single):
        assert eval(repr(one), vars(fn)) == one
