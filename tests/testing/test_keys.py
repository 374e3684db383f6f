"""Keys: a second draw from one key is found, and nothing else is reported."""

import threading

import pytest
import torch

import funcnet as fn
from funcnet.testing import forbid_key_reuse

NET = fn.serial(fn.Linear(3, 4), fn.Dropout(0.5), fn.branch(fn.Dropout(0.5), fn.GaussianNoise(0.1)), fn.Concat())
X = fn.random.normal(0, (5, 3))


@pytest.mark.parametrize(
    "draws",
    [
        lambda key: (fn.random.normal(key, (2,)), fn.random.normal(key, (2,))),
        lambda key: (fn.random.bernoulli(key, (2,)), fn.random.uniform(key, (3,))),
        lambda key: (fn.split(key), fn.split(key, 3)),
        lambda key: [fn.Dropout(0.5)({}, X, key) for _ in range(2)],
        lambda key: (fn.random.normal(fn.fold_in(key, 1)), fn.random.normal(fn.fold_in(key, 1))),
    ],
)
def test_a_second_draw_from_a_key_is_refused(draws):
    """The draw may be of the same or another kind, in layers, or from equal keys made twice; outside the block it is allowed."""
    draws(fn.key(0))
    with forbid_key_reuse(), pytest.raises(ValueError, match="each key must be used only once"):
        draws(fn.key(0))
    draws(fn.key(0))


def test_nets_draw_once_from_each_key():
    """``init`` and ``apply`` of nets with several stochastic children, and steps with keys from fold_in, draw once."""
    params, seen = NET.init(fn.key(0)), []
    with forbid_key_reuse():
        assert fn.tree.equal(NET.init(fn.key(0)), params)
        for step in range(3):
            y, cache = NET.apply(params, X, fn.fold_in(fn.key(1), step))
            NET.vjp(params, cache, torch.ones_like(y))
            seen.append(y)
    assert all(torch.equal(y, NET(params, X, fn.fold_in(fn.key(1), step))) for step, y in enumerate(seen))
    assert not torch.equal(seen[0], seen[1])


def test_what_draws_again_by_design_is_found_in_the_backward_pass_only():
    """The forward pass of remat draws once."""
    net = fn.remat(NET)
    params = net.init(0)
    with forbid_key_reuse():
        y, cache = net.apply(params, X, 1)
        with pytest.raises(ValueError, match="each key must be used only once"):
            net.vjp(params, cache, torch.ones_like(y))


def test_transforms_and_other_threads_are_not_watched():
    """Under vmap keys have no numbers to compare; another thread draws freely."""
    with forbid_key_reuse():
        torch.func.vmap(lambda key: (fn.random.normal(key, (2,)), fn.random.normal(key, (2,))))(fn.split(0, 3))
        drawn = []
        thread = threading.Thread(target=lambda: drawn.extend(fn.random.normal(5, (2,)) for _ in range(2)))
        thread.start()
        thread.join()
    assert fn.tree.equal(drawn[0], drawn[1])


def test_a_block_around_another_sees_its_draws():
    """A fixture may guard all tests while a test has its own block."""
    with forbid_key_reuse():
        with forbid_key_reuse():
            fn.random.normal(0, (2,))
        with pytest.raises(ValueError, match="each key must be used only once"):
            fn.random.normal(0, (2,))
    fn.random.normal(0, (2,))
