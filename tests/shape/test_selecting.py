"""Selection of entries and elements compared with indexing, constant affine maps, and the errors they raise."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from twins import draw

import funcnet as fn


def test_a_recurrent_net_hands_on_its_outputs():
    """``Select(0)`` between an LSTM and a Linear gives what indexing gives, forward and backward."""
    net, x = fn.serial(fn.LSTM(4, 6), fn.Select(0), fn.Linear(6, 2)), fn.random.normal(1, (5, 3, 4))
    params = net.init(0)
    y, cache = net.apply(params, x)
    states, inner = net[0].apply(params[0], x)
    want, outer = net[2].apply(params[2], states[0])
    assert torch.equal(y, want)
    gparams, gx = net.vjp(params, cache, torch.ones_like(y))
    gw, gstates = net[2].vjp(params[2], outer, torch.ones_like(y))
    glstm, want_gx = net[0].vjp(params[0], inner, (gstates, fn.tree.zeros_like(states[1])))
    assert fn.tree.equal((gparams, gx), ((glstm, {}, gw), want_gx))


def test_what_is_not_selected_has_the_gradient_zero():
    """Integers have none, and the entry itself may be a tree."""
    x = (torch.ones(2), torch.tensor([1]), (torch.ones(3), torch.ones(1)))
    y, cache = fn.Select(-1).apply({}, x)
    assert y is x[2]
    gx = fn.Select(-1).vjp({}, cache, (torch.full((3,), 2.0), None))[1]
    assert gx[1] is None
    assert fn.tree.equal((gx[0], gx[2]), (torch.zeros(2), (torch.full((3,), 2.0), torch.zeros(1))))


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 3), st.booleans(), st.integers(0, 99))
def test_gather_is_the_indexing_of_torch(shape, axis, from_the_end, seed):
    """Value and gradient agree along every axis."""
    axis %= len(shape)
    q = draw(shape, seed).requires_grad_()
    rest = (*shape[:axis], *shape[axis + 1 :])
    a = fn.random.bits(seed, rest) % shape[axis]
    layer = fn.Gather(axis - len(shape) if from_the_end else axis)
    y, cache = layer.apply({}, (q.detach(), a))
    want = torch.take_along_dim(q, a.unsqueeze(axis), axis).squeeze(axis)
    gy = draw(rest, seed + 1)
    assert torch.equal(y, want)
    assert torch.equal(layer.vjp({}, cache, gy)[1][0], torch.autograd.grad(want, q, gy)[0])


def test_rescale_is_a_fixed_affine_map():
    """A factor comes first, then an offset; either may be omitted."""
    x = torch.tensor([1.0, -2.0])
    assert torch.equal(fn.Rescale(3.0, 0.5)({}, x), 3 * x + 0.5)
    assert torch.equal(fn.Rescale(offset=1)({}, x), x + 1)
    assert torch.equal(fn.Rescale(3.0, 0.5).vjp({}, fn.Rescale(3.0, 0.5).apply({}, x)[1], x)[1], 3 * x)


Q, A = torch.ones(4, 3), torch.tensor([0, 1, 2, 0])
MESSAGES = {
    "Select: index must be a whole number or a name, got 1.5": lambda: fn.Select(1.5),
    "Select(index=2): x must be a tuple of tensors, or trees of them, with an entry 2, got shapes (4, 3) and (4,)": lambda: fn.Select(2)({}, (Q, A)),
    "Select(index=0): x must be a tuple of tensors, or trees of them, with an entry 0, got x of shape (4, 3)": lambda: fn.Select(0)({}, Q),
    "Select(index='b'): x must be a dict of tensors, or trees of them, with the key 'b', got a dict with the keys 'a'": lambda: fn.Select("b")({}, {"a": Q}),
    "Select(index=0): gy must have the shape of y, (4, 3), got gy of shape (4,)": lambda: fn.Select(0).vjp({}, (Q, A), Q[:, 0]),
    "Gather(): a must hold indices from 0 to 2, got indices from 0 to 3": lambda: fn.Gather()({}, (Q, A.clone().fill_(3) * (A > 0))),
    "Gather(): a must hold indices from 0 to 2, got indices from -1 to 1": lambda: fn.Gather()({}, (Q, A - 1)),
    "Gather(): a must have the axes of q without axis -1, got shapes (4, 3) and (4, 1)": lambda: fn.Gather()({}, (Q, A[:, None])),
    "Gather(): x must be a pair (q, a) of a floating tensor and an integer tensor, got shapes (4, 3) and (4, 3)": lambda: fn.Gather()({}, (Q, Q)),
    "Gather(dim=2): q must have an axis 2": lambda: fn.Gather(2)({}, (Q, A)),
    "Gather(): gy must have the shape of y, (4,), got gy of shape (4, 3)": lambda: fn.Gather().vjp({}, fn.Gather().apply({}, (Q, A))[1], Q),
    "Rescale: scale must be a finite number, got nan": lambda: fn.Rescale(float("nan")),
    "Rescale(): x must be a floating tensor, got a tensor of shape (4,) and dtype torch.int64": lambda: fn.Rescale()({}, A),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
