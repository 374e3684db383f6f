"""``uniqued``: it gives the results of the layer but computes fewer rows; and the error messages."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import draw

import funcnet as fn
from funcnet import tree

TABLE = fn.Embedding(6, 3)
NET = fn.serial(TABLE, fn.Tanh(), fn.Linear(3, 2))


@settings(max_examples=25)
@given(st.lists(st.integers(0, 5), max_size=9), st.sampled_from([(), (1,), (3,), (2, 2)]), st.integers(0, 10**6))
def test_uniqued_is_the_layer(ids, more, seed):
    """Values and gradients of params agree, for rows of any axes and any number of equal rows."""
    x = torch.tensor(ids, dtype=torch.int64).reshape(-1, *[1] * len(more)).expand(-1, *more)
    x = (x + torch.arange(x[:1].numel()).reshape(x[:1].shape)) % 6
    params = tree.cast(NET.init(seed), torch.float64)
    want, inner = NET.apply(params, x)
    y, cache = fn.uniqued(NET).apply(params, x)
    gy = draw(want.shape, seed)
    torch.testing.assert_close(y, want, rtol=1e-10, atol=1e-10)
    gparams, gx = fn.uniqued(NET).vjp(params, cache, gy)
    assert gx is None
    torch.testing.assert_close(gparams, NET.grads(params, inner, gy), rtol=1e-10, atol=1e-10)


def test_equal_rows_are_computed_once():
    """The layer within gets each different row, in order."""
    seen = []
    probe = fn.layer(
        apply=lambda params, x: (seen.append(x.tolist()) or x.float(), None), vjp=lambda params, cache, gy: (params, None)
    )
    x = torch.tensor([[2, 1], [0, 3], [2, 1], [2, 1]])
    assert torch.equal(fn.uniqued(probe)({}, x), x.float())
    assert torch.equal(fn.uniqued(probe)({}, x[:, 0]), x[:, 0].float())
    assert seen == [[[0, 3], [2, 1]], [0, 2]]


def test_uniqued_keeps_what_the_layer_is():
    """Its sizes are inferred, its statistics are kept, and ``inference()`` is applied to the layer."""
    net = fn.serial(TABLE, fn.Linear(None, 2))
    assert fn.infer_sizes(fn.uniqued(net), torch.tensor([1, 2])) == fn.uniqued(fn.serial(TABLE, fn.Linear(3, 2)))
    assert not fn.uniqued(NET).has_running_stats
    assert fn.uniqued(NET).inference() == fn.uniqued(NET)


def refused(layer, x):
    layer = fn.uniqued(layer)
    return layer.apply(layer.init(0), x)


MESSAGES = {
    "uniqued: the layer must be neither stochastic nor batch_dependent, got Dropout(p=0.4)": lambda: fn.uniqued(fn.Dropout(0.4)),
    "uniqued: the layer must be neither stochastic nor batch_dependent, got BatchNorm1d": lambda: fn.uniqued(fn.BatchNorm1d(3)),
    "uniqued: layer must be a layer (a value with init, apply and vjp), got 3": lambda: fn.uniqued(3),
    "uniqued: x must be integers with at least one axis, got a tensor of shape (2,) and dtype torch.float32": lambda: refused(TABLE, torch.ones(2)),
    "uniqued: x must be integers with at least one axis, got a tensor of shape () and dtype torch.int64": lambda: refused(TABLE, torch.tensor(1)),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_wrong_use_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
