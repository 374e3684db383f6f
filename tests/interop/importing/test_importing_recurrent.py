"""Recurrent torch.nn modules, converted and called: every option, with and without a state in several forms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sequence_twins import assert_called, assert_converts, called, converted
from torch import nn
from twins import draw

import funcnet as fn
from funcnet.interop.torch_nn import from_torch, lift
from funcnet.interop.torch_nn.importing.values import Ref, UnsupportedError

KINDS = {nn.RNN: fn.RNN, nn.LSTM: fn.LSTM, nn.GRU: fn.GRU}
CELLS = {nn.RNNCell: fn.RNNCell, nn.LSTMCell: fn.LSTMCell, nn.GRUCell: fn.GRUCell}
STEPS, ROWS = 3, 2


@st.composite
def nets(draw_from):
    """Draw a recurrent module, a sequence, and a state for it."""
    flags, kind = st.booleans(), draw_from(st.sampled_from([*KINDS]))
    features, hidden, layers = draw_from(st.integers(1, 3)), draw_from(st.integers(2, 3)), draw_from(st.integers(1, 2))
    options = {name: draw_from(flags) for name in ("bias", "batch_first", "bidirectional")}
    options |= {"nonlinearity": draw_from(st.sampled_from(["tanh", "relu"]))} if kind is nn.RNN else {}
    options |= {"proj_size": draw_from(st.integers(0, 1))} if kind is nn.LSTM else {}
    module, batched = kind(features, hidden, layers, **options), draw_from(flags)
    axes = (ROWS, STEPS) if options["batch_first"] else (STEPS, ROWS)
    x = draw((*(axes if batched else axes[:1]), features))
    count, rows = layers * (1 + options["bidirectional"]), (ROWS,) * batched
    states = [draw((count, *rows, width), i) for i, width in enumerate((options.get("proj_size") or hidden, hidden))]
    return module, x, tuple(states) if kind is nn.LSTM else states[0]


@given(nets(), st.booleans())
@settings(max_examples=40)
def test_a_recurrent_net_is_converted(case, stated):
    """The flat weights keep their names, with every option; the input is a sequence, or a sequence and a state."""
    module, x, state = case
    layer = assert_converts(module, (x, state), call=lambda m, x: m(*x)) if stated else assert_converts(module, x)
    assert type(layer) is KINDS[type(module)]


def with_pair(input, h, c):  # noqa: A002 (the name in torch)
    """Arrange an input and both states as an LSTM's arguments."""
    return {"input": input, "hx": (h, c)}


@given(nets(), st.booleans())
@settings(max_examples=25)
def test_a_recurrent_net_is_called(case, stated):
    """The state is an input; for an LSTM it is a pair of values."""
    module, x, state = case
    if isinstance(state, tuple) and stated:
        assert_called(module, {"input": x, "h": state[0], "c": state[1]}, with_pair)
    else:
        assert_called(module, {"input": x, **({"hx": state} if stated else {})})


@st.composite
def cells(draw_from):
    """Draw a cell, an input, and a state for it."""
    flags, kind = st.booleans(), draw_from(st.sampled_from([*CELLS]))
    features, hidden, bias = draw_from(st.integers(1, 3)), draw_from(st.integers(1, 3)), draw_from(flags)
    options = {"nonlinearity": draw_from(st.sampled_from(["tanh", "relu"]))} if kind is nn.RNNCell else {}
    rows = (ROWS,) * draw_from(flags)
    states = draw((*rows, hidden), 1), draw((*rows, hidden), 2)
    return kind(features, hidden, bias, **options), draw((*rows, features)), states if kind is nn.LSTMCell else states[0]


@given(cells(), st.booleans())
@settings(max_examples=30)
def test_a_cell_is_converted_and_called(case, stated):
    """The state is given, or zeros."""
    module, x, state = case
    layer = assert_converts(module, (x, state), call=lambda m, x: m(*x)) if stated else assert_converts(module, x)
    assert type(layer) is CELLS[type(module)]
    if isinstance(state, tuple) and stated:
        assert_called(module, {"input": x, "h": state[0], "c": state[1]}, with_pair)
    else:
        assert_called(module, {"input": x, **({"hx": state} if stated else {})})


def test_dropout_and_structures():
    """Dropout between layers is converted, and results of calls have torch's structure."""
    assert converted(nn.GRU(2, 3, 2, dropout=0.25))[0] == fn.GRU(2, 3, 2, dropout=0.25)
    sequence, pair = Ref("x"), (None, None)
    parts = {kind: called(kind(2, 3), sequence).parts for kind in [*KINDS, *CELLS]}
    assert parts == {
        nn.RNN: pair,
        nn.LSTM: (None, pair),
        nn.GRU: pair,
        nn.RNNCell: None,
        nn.LSTMCell: pair,
        nn.GRUCell: None,
    }
    handed_on = Ref("state", pair)
    assert called(nn.LSTM(2, 3), sequence, handed_on).inputs == (sequence, handed_on)


def test_gradients_of_one_output_alone():
    """With only the last hidden or cell state of an LSTM, the other gradients are ``None``."""
    module = nn.LSTM(2, 3, 2, batch_first=True, bidirectional=True).double()
    layer, params = converted(module)
    x = draw((2, 4, 2)).requires_grad_()
    _, (h, c) = module(x)
    (_, ends), cache = layer.apply(params, x.detach())
    for i, end in enumerate((h, c)):
        g = draw(end.shape, i)
        want = torch.autograd.grad(end, x, g, retain_graph=True)[0]
        gy = (None, tuple([g if j == i else None for j in range(2)]))
        torch.testing.assert_close(layer.input_grad(params, cache, gy), want, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(ends[i], end.detach(), rtol=1e-10, atol=1e-10)


REFUSALS = {
    "the state must be a pair (h, c), got int": lambda: called(nn.LSTM(2, 3), Ref("x"), 3),
    "the state must be a tensor that the code gets or computes, got int": lambda: called(nn.GRU(2, 3), Ref("x"), 3),
    "the input must be a tensor that the code gets or computes, got Tensor": lambda: called(nn.GRU(2, 3), torch.ones(2, 2)),
    "weight_ih_l0 must have the shape (9, 2) for GRU, got (9, 4)": lambda: converted(widened()),
}


def widened():
    """Return a module with a parameter of another shape than at construction."""
    module = nn.GRU(2, 3)
    module.weight_ih_l0 = nn.Parameter(torch.ones(9, 4))
    return module


@pytest.mark.parametrize("sentence", REFUSALS)
def test_refusals(sentence):
    """Examples are constants instead of tensors, and params of another layer."""
    with pytest.raises(UnsupportedError) as raised:
        REFUSALS[sentence]()
    assert str(raised.value) == sentence


class Packing(nn.Module):
    """An LSTM on sequences of different lengths."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(2, 3, batch_first=True)

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.lstm(packed)[1][0][-1]


def test_packed_sequences_are_refused():
    """The error names two working alternatives: ``lift``, and an LSTM with lengths."""
    module, x, lengths = Packing().double(), draw((3, 4, 2)), torch.tensor([4, 1, 2])
    with pytest.raises(
        ValueError, match=r"^from_torch: Packing cannot .*pack_padded_sequence: .*\(sequence, state, lengths\); lift"
    ):
        from_torch(module)
    layer, params = lift(module, (x, lengths))
    torch.testing.assert_close(layer(params, (x, lengths)), module(x, lengths).detach())
    y = fn.LSTM(2, 3, batch_first=True)(params["lstm"], (x, None, lengths))[1][0][-1]
    torch.testing.assert_close(y, module(x, lengths).detach())
