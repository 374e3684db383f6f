"""The outputs of all layers by path, and Jacobians compared with ``torch.func``."""

import pytest
import torch

import funcnet as fn
from funcnet import random, tree


def test_intermediates_are_the_outputs_of_the_layers():
    """Outputs are named by path, the net's by ``""``; the same key gives the same noise."""
    net = fn.serial(enc=fn.serial(fn.Linear(3, 4), fn.Dropout(0.5)), out=fn.residual(fn.serial(fn.Tanh(), fn.Linear(4, 4))))
    params, x = net.init(0), random.normal(0, (5, 3))
    found = fn.intermediates(net, params, x, 7)
    assert next(iter(found)) == ""
    assert found.keys() == {path for path, _ in fn.walk(net)}
    assert torch.equal(found[""], net(params, x, 7))
    assert torch.equal(found["enc"], net["enc"](params["enc"], x, random.fold_in(7, 0)))
    assert torch.equal(found["enc.0"], fn.Linear(3, 4)(params["enc"][0], x))
    assert torch.equal(found["out.0.0"], found["enc"].tanh())


def test_layers_that_run_several_times_have_a_tuple():
    """A scan's cell has one for each step; a wrapper counts instead of its layer; ``vmap`` hides the rest."""
    cell = fn.serial(fn.GRUCell(3, 2), fn.Tanh())
    net = fn.scan(cell, output_is_carry=True)
    params, x = net.init(0), (random.normal(0, (4, 2, 3)), random.normal(1, (2, 2)))
    found = fn.intermediates(net, params, x)
    assert tree.equal(found[""], net(params, x))
    assert len(found["0"]) == len(found["1"]) == 4
    assert torch.equal(torch.stack(found["1"]), found[""][0])
    members = fn.serial(fn.ensemble(fn.serial(fn.Linear(3, 2), fn.BatchNorm1d(2)), 3), fn.Mean(0))
    found = fn.intermediates(members, members.init(0), random.normal(0, (4, 3)))
    assert found.keys() == {"", "0", "1"}
    assert found["0"].shape == (3, 4, 2)


def test_intermediates_work_within_vmap():
    """The outer transform does not hide them."""
    net = fn.serial(fn.Linear(3, 4), fn.Tanh())
    params, x = net.init(0), random.normal(0, (5, 3))
    found = torch.func.vmap(lambda row: fn.intermediates(net, params, row)["0"])(x)
    torch.testing.assert_close(found, fn.Linear(3, 4)(params[0], x))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 3)])
def test_the_jacobian_is_that_of_torch(shape: tuple[int, ...]):
    """Its shape is y.shape + x.shape, including x without axes or elements."""
    net = fn.serial(fn.Linear(3, 2), fn.Softmax()) if shape else fn.Tanh()
    params, x = tree.cast(net.init(0), torch.float64), random.normal(0, shape, dtype=torch.float64)
    got = fn.jacobian(net, params, x)
    assert got.shape == net(params, x).shape + x.shape
    if x.numel():
        torch.testing.assert_close(got, torch.func.jacrev(lambda one: net(params, one))(x))


def test_what_has_no_jacobian_is_refused():
    """Noise, integers, and a value that is no layer are refused."""
    with pytest.raises(ValueError, match="the net must not be stochastic"):
        fn.jacobian(fn.Dropout(), {}, torch.ones(3))
    with pytest.raises(ValueError, match="x must be a floating tensor"):
        fn.jacobian(fn.Embedding(3, 2), fn.Embedding(3, 2).init(0), torch.tensor([1]))
    with pytest.raises(ValueError, match="a layer is required"):
        fn.intermediates(torch.tanh, {}, torch.ones(3))


def test_a_net_that_takes_one_layer_only_for_two_places_is_seen_from_outside():
    """Attention normalizes queries and keys with one layer, which cannot become two recorders."""
    net, x = fn.serial(fn.MultiHeadAttention(4, 2, qk_norm=fn.LayerNorm(2)), fn.Tanh()), random.normal(1, (2, 3, 4))
    params = net.init(0)
    found = fn.intermediates(net, params, x)
    assert {*found} == {"", "0", "1"}
    assert torch.equal(found[""], net(params, x))
