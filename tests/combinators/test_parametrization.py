"""Reparametrization: compared with torch's parametrizations, what stays unchanged, and the error messages."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from twins import assert_twins, draw, params_of

import funcnet as fn
from funcnet import tree

SEEDS = st.integers(0, 10**6)
LAYERS = {
    "Linear": (lambda: fn.Linear(3, 4), lambda: nn.Linear(3, 4), (5, 3)),
    "Conv2d": (lambda: fn.Conv2d(2, 4, (2, 3), groups=2), lambda: nn.Conv2d(2, 4, (2, 3), groups=2), (3, 2, 4, 5)),
    "ConvTranspose1d": (lambda: fn.ConvTranspose1d(2, 3, 2), lambda: nn.ConvTranspose1d(2, 3, 2), (2, 2, 4)),
    "Bilinear": (lambda: fn.Bilinear(3, 2, 4), lambda: nn.Bilinear(3, 2, 4), ((5, 3), (5, 2))),
}


def drawn(shapes, seed):
    return draw(shapes, seed) if isinstance(shapes[0], int) else tuple([draw(shape, seed) for shape in shapes])


def called(module, x):
    return module(*x) if isinstance(x, tuple) else module(x)


@settings(max_examples=30)
@given(st.sampled_from(sorted(LAYERS)), st.sampled_from([0, 1, None]), SEEDS)
def test_weight_norm_is_torchs(name, dim, seed):
    """With its state_dict as params, values and gradients of magnitudes and directions agree."""
    ours, theirs, shapes = LAYERS[name]
    module = parametrizations.weight_norm(theirs(), dim=dim)
    with torch.no_grad():
        module.parametrizations.weight.original0.mul_(1.7)
    assert_twins(fn.weight_norm(ours(), dim=dim), module, drawn(shapes, seed), call=called)


@settings(max_examples=30)
@given(st.sampled_from(sorted(LAYERS)), st.sampled_from([0, 1, None]), SEEDS)
def test_spectral_norm_is_torchs_with_the_vectors_held(name, dim, seed):
    """In evaluation torch does not change the vectors; the default axis is torch's too."""
    ours, theirs, shapes = LAYERS[name]
    module = parametrizations.spectral_norm(theirs(), dim=dim).eval()
    assert_twins(fn.spectral_norm(ours(), dim=dim), module, drawn(shapes, seed), call=called)


@settings(max_examples=30)
@given(st.sampled_from(sorted(LAYERS)), st.integers(1, 3), SEEDS)
def test_moved_by_update_stats_spectral_norm_is_torchs_in_training(name, iterations, seed):
    """torch iterates before it divides, so its training equals ours after ``update_stats``, which changes nothing else."""
    ours, theirs, shapes = LAYERS[name]
    layer, module = fn.spectral_norm(ours(), n_power_iterations=iterations), theirs().double()
    module, x = parametrizations.spectral_norm(module, n_power_iterations=iterations), drawn(shapes, seed)
    params = tree.map(torch.clone, params_of(layer, module))
    params = layer.update_stats(params, layer.apply(params, x)[1])
    torch.testing.assert_close(layer(params, x), called(module, x).detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(tree.names(params), dict(module.state_dict()), rtol=1e-10, atol=1e-10)


class _Exp(nn.Module):
    def forward(self, x):
        return x.exp()


def test_any_layer_is_a_parametrization():
    """As in torch, the original is initially the drawn weight, from which the layer computes the weight."""
    module = nn.Linear(3, 4)
    parametrize.register_parametrization(module, "weight", _Exp())
    layer = fn.parametrize(fn.Linear(3, 4), fn.Exp())
    assert_twins(layer, module, draw((5, 3)))
    params = layer.init(0)
    first = fn.Linear(3, 4).init(fn.fold_in(0, 0))
    assert torch.equal(params["parametrizations"]["weight"]["original"], first["weight"])
    assert torch.equal(layer.merged(params)["weight"], first["weight"].exp())


def test_at_first_weight_norm_changes_nothing():
    """Spectral norm divides by an estimate of the largest singular value."""
    first = fn.Linear(30, 20).init(fn.fold_in(0, 0))
    layer = fn.weight_norm(fn.Linear(30, 20))
    torch.testing.assert_close(layer.merged(layer.init(0)), first)
    layer = fn.spectral_norm(fn.Linear(30, 20))
    assert 0.99 < float(torch.linalg.matrix_norm(layer.merged(layer.init(0))["weight"], 2)) < 1.1


def test_training_moves_the_originals_and_the_vectors():
    """Its estimate follows the weight through the steps of ``train_step``, and the loss falls."""
    layer = fn.spectral_norm(fn.Linear(3, 4))
    params, x, target = layer.init(0), draw((5, 3)).float(), draw((5, 4), 1).float()
    step, opt = fn.train_step(layer, fn.MSE(), fn.Adam(lr=0.1)), fn.Adam(lr=0.1)
    state, losses = opt.init(params), []
    for _ in range(30):
        params, state, value = step(params, state, x, target)
        losses.append(float(value))
    assert losses[-1] < 0.9 * losses[0]
    assert 0.9 < float(torch.linalg.matrix_norm(layer.merged(params)["weight"], 2)) < 1.1


def test_running_statistics_of_the_layer_within_are_moved():
    """The parametrization may have none; ``has_running_stats`` is False if nothing has any."""
    layer = fn.weight_norm(fn.BatchNorm1d(3))
    params = layer.init(0)
    moved = layer.update_stats(params, layer.apply(params, draw((5, 3)).float())[1])
    assert int(moved["num_batches_tracked"]) == 1
    assert layer.has_running_stats
    assert not fn.weight_norm(fn.Linear(3, 4)).has_running_stats
    assert type(layer.inference().layer) is fn.RunningBatchNorm1d


def test_sizes_are_inferred_within():
    """The layer within gets the same sizes as by itself."""
    assert fn.infer_sizes(fn.weight_norm(fn.Linear(None, 4)), torch.ones(2, 3)) == fn.weight_norm(fn.Linear(3, 4))


LAYER = fn.weight_norm(fn.Linear(3, 4))
MESSAGES = {
    "parametrize: the layer's params must have a tensor weight, got an empty dict": lambda: fn.weight_norm(fn.Tanh()).init(0),
    "parametrize: the layer's params must have a tensor w, got a dict with the keys 'weight', 'bias'": lambda: fn.weight_norm(fn.Linear(3, 4), "w").init(0),
    "parametrize: name must be a name in the layer's params, got 3": lambda: fn.weight_norm(fn.Linear(3, 4), 3),
    "weight_norm: dim must be a whole number of at least 0, got -1": lambda: fn.weight_norm(fn.Linear(3, 4), dim=-1),
    "weight_norm: the weight must have an axis dim=2, got a tensor of shape (4, 3)": lambda: fn.weight_norm(fn.Linear(3, 4), dim=2).init(0),
    "spectral_norm: the weight must have at least two axes, and an axis dim=0, got a tensor of shape (3,)": lambda: fn.spectral_norm(fn.LayerNorm(3)).init(0),
    "spectral_norm: n_power_iterations must be a whole number of at least 1, got 0": lambda: fn.spectral_norm(fn.Linear(3, 4), n_power_iterations=0),
    "spectral_norm: eps must be a finite number above 0.0, got 0": lambda: fn.spectral_norm(fn.Linear(3, 4), eps=0),
    "parametrize: the parametrization must not be stochastic, got Dropout(p=0.4)": lambda: fn.parametrize(fn.Linear(3, 4), fn.Dropout(0.4)),
    "parametrize: Flatten() must return a weight of shape (2, 3, 4), got a tensor of shape (2, 12)": lambda: fn.parametrize(fn.Conv1d(3, 2, 4), fn.Flatten()).init(0),
    "parametrize: params must have a dict parametrizations.weight with the originals, and params under 0, got a dict with the keys 'weight', 'bias'": lambda: LAYER(fn.Linear(3, 4).init(0), torch.ones(2, 3)),
    "weight_norm: original0 must have the size of original1 along dim, and 1 along its other axes, got a tensor of shape (4,)": lambda: LAYER(tree.replace(LAYER.init(0), "parametrizations.weight.original0", torch.ones(4)), torch.ones(2, 3)),
    "the last axis of x must be in_features=3, got x of shape (2, 4)": lambda: LAYER(LAYER.init(0), torch.ones(2, 4)),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_wrong_use_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
