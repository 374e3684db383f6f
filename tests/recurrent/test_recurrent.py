"""Recurrent cells and nets compared with torch.nn's in float64; their different implementations; and their errors."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import rnn
from twins import CLOSE, assert_twins, draw, twin_of

import funcnet as fn

CELLS = ("RNNCell", "LSTMCell", "GRUCell")
NETS = {"rnn": (fn.RNN, nn.RNN), "lstm": (fn.LSTM, nn.LSTM), "gru": (fn.GRU, nn.GRU)}


@twin_of("{kind}")
@pytest.mark.parametrize("kind", CELLS)
@given(
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    batch=st.sampled_from([(), (1,), (3,)]),
    bias=st.booleans(),
    stated=st.booleans(),
    nonlinearity=st.sampled_from(["tanh", "relu"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=30)
def test_a_cell_agrees_with_torch(kind, sizes, batch, bias, stated, nonlinearity, seed):
    """New state and all gradients agree, with and without a batch, a bias and a state."""
    options = {"bias": bias} | ({"nonlinearity": nonlinearity} if kind == "RNNCell" else {})
    ours, theirs = getattr(fn, kind), getattr(nn, kind)
    x, h, c = draw((*batch, sizes[0]), seed), draw((*batch, sizes[1]), seed + 1), draw((*batch, sizes[1]), seed + 2)
    x = x if not stated else (x, (h, c)) if kind == "LSTMCell" else (x, h)
    call = (lambda m, x: m(*x)) if stated else None
    assert_twins(ours(*sizes, **options), theirs(*sizes, **options), x, call=call)


@st.composite
def nets(draw_from, kinds=tuple(NETS)):
    """Draw a kind of net, its options, and the shapes of an input and a state."""
    kind = draw_from(st.sampled_from(kinds))
    options = {name: draw_from(st.booleans()) for name in ("bias", "batch_first", "bidirectional")}
    options["num_layers"] = draw_from(st.integers(1, 3))
    options["dropout"] = draw_from(st.sampled_from([0.0, 0.3])) if options["num_layers"] > 1 else 0.0
    size, hidden = draw_from(st.integers(1, 3)), draw_from(st.integers(2, 4))
    options |= {"nonlinearity": draw_from(st.sampled_from(["tanh", "relu"]))} if kind == "rnn" else {}
    options |= {"proj_size": draw_from(st.integers(0, hidden - 1))} if kind == "lstm" else {}
    steps, batch = draw_from(st.integers(1, 4)), draw_from(st.sampled_from([None, 1, 3]))
    lead = (steps,) if batch is None else (batch, steps) if options["batch_first"] else (steps, batch)
    count = options["num_layers"] * (1 + options["bidirectional"])
    widths = (options.get("proj_size") or hidden, hidden)[: 2 if kind == "lstm" else 1]
    return kind, (size, hidden), options, (*lead, size), [(count, *([] if batch is None else [batch]), w) for w in widths]


def joined(parts):
    return parts[0] if len(parts) == 1 else tuple(parts)


@twin_of("{name}")
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
@given(data=st.data(), stated=st.booleans(), seed=st.integers(0, 99))
@settings(max_examples=40)
def test_a_net_agrees_with_torch(name, data, stated, seed):
    """Outputs, last state and all gradients agree by the state_dict for all options."""
    kind, sizes, options, shape, states = data.draw(nets(kinds=(name.lower(),)))
    ours, theirs = NETS[kind]
    x = draw(shape, seed)
    x = (x, joined([draw(one, seed + 1 + i) for i, one in enumerate(states)])) if stated else x
    layer, module = ours(*sizes, **options).inference(), theirs(*sizes, **options).eval()  # nothing is dropped
    assert_twins(layer, module, x, call=(lambda m, x: m(*x)) if stated else None)


@given(nets(), st.lists(st.integers(1, 4), min_size=3, max_size=3), st.integers(0, 99))
@settings(max_examples=40)
def test_lengths_do_what_packed_sequences_do(case, lengths, seed):
    """Outputs are 0 after a row's end, states come from its last step, and gradients match torch.nn's for a packed sequence."""
    kind, sizes, options, _, _ = case
    ours, theirs = NETS[kind]
    options = options | {"batch_first": True, "dropout": 0.0}
    counts = torch.tensor(lengths)

    def call(module, x):
        packed = rnn.pack_padded_sequence(x[0], counts, batch_first=True, enforce_sorted=False)
        y, state = module(packed)
        return rnn.pad_packed_sequence(y, batch_first=True, total_length=4)[0], state

    x = draw((3, 4, sizes[0]), seed)
    layer, module = ours(*sizes, **options), theirs(*sizes, **options)
    wrapped = fn.layer(
        init=layer.init,
        apply=lambda p, x: layer.apply(p, (x[0], None, counts)),
        vjp=lambda p, c, gy: (layer.vjp(p, c, gy)[0], (layer.vjp(p, c, gy)[1][0],)),
    )
    assert_twins(wrapped, module, (x,), call=call)


@pytest.mark.parametrize("layer", [fn.RNN(3, 4), fn.LSTM(3, 4, 2, bidirectional=True), fn.LSTM(3, 4, proj_size=2), fn.GRU(3, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_padding_is_left_out(layer, dtype):
    """NaN in steps after a row's end does not affect outputs, states or gradients."""
    params, x, lengths = fn.tree.cast(layer.init(0), dtype), draw((5, 2, 3)).to(dtype), torch.tensor([5, 3])
    padded = x.clone()
    padded[3:, 1] = torch.nan
    zeros = x.clone()
    zeros[3:, 1] = 0
    given, want = [everything(layer, params, (one, None, lengths)) for one in (padded, zeros)]
    assert fn.tree.equal(given, want)
    assert fn.tree.all_finite(given)


def formulas(cell):
    """Return the formulas of the gates in a cell's docstring as Python: {name: expression}, in order."""
    lines = type(cell).__doc__.split("\n\n")[1]
    pairs = [part.strip().split(" = ", 1) for part in re.split(r"\s{3,}|,  or", lines) if " = " in part]
    products = {"p", "s", "gW", "gU", "gb", "gb'", "gx", "gh"}
    kept = {name.strip(): one for name, one in pairs if name.strip() not in products}
    return {name: one.replace("⊙", "*").replace("²", "**2").replace("'", "_") for name, one in kept.items()}


@pytest.mark.parametrize(("cell", "gates"), [(fn.RNNCell(3, 4), ""), (fn.LSTMCell(3, 4), "ifuo"), (fn.GRUCell(3, 4), "rzn")])
def test_the_formulas_are_right_as_they_are_written(cell, gates):
    """The docstring, executed line by line, gives the outputs and the gradients of the cell."""
    params, x, h, c = fn.tree.cast(cell.init(0), torch.float64), draw((2, 3)), draw((2, 4), 1), draw((2, 4), 2)
    y, cache = cell.apply(params, (x, (h, c) if gates == "ifuo" else h))
    gy = fn.tree.map(lambda leaf: draw(leaf.shape, 5), y)
    parts = dict.fromkeys("ps")
    parts["p"], parts["s"] = x @ params["weight_ih"].T + params["bias_ih"], h @ params["weight_hh"].T + params["bias_hh"]
    names = {"h": h, "c": c, "tanh": torch.tanh, "σ": torch.sigmoid, **parts}
    names["gh_"], names["gc_"] = gy if gates == "ifuo" else (gy, None)
    for name, formula in formulas(cell).items():
        if name in gates:  # p and s are the gate's parts
            names |= {part: whole.chunk(len(gates), -1)[gates.index(name)] for part, whole in parts.items()}
        found = eval(formula, {}, names)
        names[name.replace("'", "_")] = torch.cat(found, -1) if isinstance(found, list) else found
    gparams, gx = cell.vjp(params, cache, gy)
    gh = names["gs"] @ params["weight_hh"] + (names["gh_"] * names["z"] if gates == "rzn" else 0)
    want = {
        "weight_ih": names["gp"].T @ x,
        "weight_hh": names["gs"].T @ h,
        "bias_ih": names["gp"].sum(0),
        "bias_hh": names["gs"].sum(0),
    }
    torch.testing.assert_close(y, (names["h_"], names["c_"]) if gates == "ifuo" else names["h_"], **CLOSE)
    torch.testing.assert_close(gparams, want, **CLOSE)
    gstate = (gh, names["gc"]) if gates == "ifuo" else gh
    torch.testing.assert_close(gx, (names["gp"] @ params["weight_ih"], gstate), **CLOSE)


WAYS = {
    "RNN": fn.RNN(3, 4),
    "relu": fn.RNN(3, 4, nonlinearity="relu", bias=False),
    "LSTM": fn.LSTM(3, 4),
    "projected": fn.LSTM(3, 4, proj_size=2),
    "GRU": fn.GRU(3, 4, bidirectional=True),
}


def everything(layer, params, x):
    """Return y and all gradients, for a gy of ones."""
    y, cache = layer.apply(params, x)
    return y, layer.vjp(params, cache, fn.tree.map(torch.ones_like, y))


@pytest.mark.parametrize("name", WAYS)
def test_buffers_and_new_tensors_give_the_same(name):
    """Eager code with buffers and vmap, which goes step by step, agree to rounding."""
    layer = WAYS[name]
    params, x = fn.tree.cast(layer.init(0), torch.float64), draw((5, 2, 3))
    mapped = torch.func.vmap(lambda x: everything(layer, params, x))(x.unsqueeze(0))
    torch.testing.assert_close(fn.tree.map(lambda leaf: leaf[0], mapped), everything(layer, params, x), **CLOSE)


@pytest.mark.parametrize("name", WAYS)
def test_a_way_back_can_be_mapped_over_many_gradients(name):
    """vmap over vjp gives the rows of a Jacobian, with one cache made outside."""
    layer = WAYS[name]
    params = fn.tree.cast(layer.init(0), torch.float64)
    y, cache = layer.apply(params, draw((3, 2, 3)))
    gys = draw((2, *y[0].shape))
    rows = torch.func.vmap(lambda g: layer.vjp(params, cache, (g, None)))(gys)
    for i, gy in enumerate(gys):
        torch.testing.assert_close(fn.tree.map(lambda leaf, i=i: leaf[i], rows), layer.vjp(params, cache, (gy, None)), **CLOSE)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_lstm_of_float32_is_that_of_float64(context):
    """oneDNN's kernel gives the numbers of the formula in every mode of autograd, and the same bits twice."""
    layer = fn.LSTM(3, 5, 2, bidirectional=True)
    params, x = layer.init(0), draw((6, 4, 3)).float()
    with context():
        found, again = everything(layer, params, x), everything(layer, params, x)
        exact = everything(layer, fn.tree.cast(params, torch.float64), x.double())
    torch.testing.assert_close(found, fn.tree.cast(exact, torch.float32), rtol=1e-5, atol=1e-5)
    assert fn.tree.equal(found, again)
    torch.testing.assert_close(layer(params, x), found[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", WAYS)
def test_a_state_goes_on_in_the_next_piece(name):
    """Two pieces of a sequence, the second from the last state of the first, give the whole."""
    layer = WAYS[name].replace(bidirectional=False)
    params, x = layer.init(0), draw((7, 2, 3)).float()
    first, state = layer(params, x[:4])
    second, last = layer(params, (x[4:], state))
    torch.testing.assert_close((torch.cat((first, second)), last), layer(params, x))


def test_a_gradient_of_none_is_one_of_zeros():
    """A loss on the outputs only, or on the last state only, need not make the other's zeros."""
    layer = fn.LSTM(3, 4)
    params = layer.init(0)
    y, cache = layer.apply(params, draw((5, 2, 3)).float())
    zeros, ones = fn.tree.zeros_like(y), fn.tree.map(torch.ones_like, y)
    for gy, full in (((ones[0], None), (ones[0], zeros[1])), ((None, ones[1]), (zeros[0], ones[1]))):
        torch.testing.assert_close(layer.vjp(params, cache, gy), layer.vjp(params, cache, full))


def test_dropout_is_between_the_layers():
    """Its mask depends on the key; if all is dropped, the second layer gets zeros; one layer has no dropout."""
    layer = fn.RNN(3, 2, 2, dropout=1.0)
    params, x = layer.init(0), draw((4, 2, 3)).float()
    second = fn.RNN(2, 2)
    named = {name.replace("l1", "l0"): leaf for name, leaf in params.items() if "l1" in name}
    torch.testing.assert_close(layer(params, x, 0)[0], second(named, torch.zeros(4, 2, 2))[0])
    half = layer.replace(dropout=0.5)
    assert torch.equal(half(params, x, 1)[0], half(params, x, 1)[0])
    assert not torch.equal(half(params, x, 1)[0], half(params, x, 2)[0])
    torch.testing.assert_close(half.inference()(params, x), fn.RNN(3, 2, 2)(params, x))
    assert not fn.RNN(3, 2, dropout=0.5).stochastic


@pytest.mark.parametrize("layer", [fn.LSTMCell(30, 40), fn.GRU(30, 40, 2)], ids=repr)
def test_the_first_params_are_within_torch_s_bounds(layer):
    """All of them are uniform in ±1 / √hidden_size."""
    for leaf in layer.init(0).values():
        assert 0.8 < float(leaf.abs().max()) * 40**0.5 <= 1


X, H = torch.ones(5, 2, 3), torch.ones(1, 2, 4)
CELL, NET = fn.GRUCell(3, 4), fn.LSTM(3, 4)
MESSAGES = {
    "GRUCell(input_size=3, hidden_size=4): x must have the axes (N, input_size=3) or (input_size=3), got x of shape (2, 4)": lambda: CELL(CELL.init(0), H[0]),
    "GRUCell(input_size=3, hidden_size=4): x must be an input, or (input, h) with states of its dtype and shape (2, 4), got shapes (2, 3) and (2, 3)": lambda: CELL(CELL.init(0), (X[0], X[0])),
    "x must be an input, or (input, h) with states of its dtype and shape (2, 4), got shapes (2, 3) and (2, 3) and (2, 3)": lambda: CELL(CELL.init(0), (X[0], X[0], X[0])),
    "params must be a dict of weight_ih (12, 3), weight_hh (12, 4), bias_ih (12,), bias_hh (12,), got weight_ih (16, 3)": lambda: CELL(fn.LSTMCell(3, 4).init(0), X[0]),
    "GRUCell(input_size=3, hidden_size=4): gy must have the shape of y, (2, 4), got gy of shape (4,)": lambda: CELL.vjp(CELL.init(0), CELL.apply(CELL.init(0), X[0])[1], H[0, 0]),
    "GRUCell(input_size=3, hidden_size=4): x must have the dtype of the params, torch.float32, got torch.float64": lambda: CELL(CELL.init(0), X[0].double()),
    "RNNCell: nonlinearity must be one of 'tanh', 'relu', got 'elu'": lambda: fn.RNNCell(3, 4, nonlinearity="elu"),
    "LSTM: proj_size must be below hidden_size=4, got 4": lambda: fn.LSTM(3, 4, proj_size=4),
    "x must have the axes (T, N, input_size=3) or (T, input_size=3), got x of shape (1, 2, 4)": lambda: NET(NET.init(0), H),
    "the sequence must have a step, got x of shape (0, 2, 3)": lambda: NET(NET.init(0), X[:0]),
    "the state must have the shape (1, 2, 4) and (1, 2, 4), got shapes (5, 2, 3) and (1, 2, 4)": lambda: NET(NET.init(0), (X, H)),
    "lengths must be a tensor with a whole number for each row, got a tuple of 3": lambda: NET(NET.init(0), (X, None, torch.tensor([1, 2, 3]))),
    "lengths must be from 0 to 5, the number of steps, got [9, 1]": lambda: NET(NET.init(0), (X, None, torch.tensor([9, 1]))),
    "lengths must be from 0 to 5, the number of steps, got [-1, 1]": lambda: NET(NET.init(0), (X, None, torch.tensor([-1, 1]))),
    "x must be a sequence, (sequence, state) or (sequence, state, lengths), got shapes (5, 2, 3)": lambda: NET(NET.init(0), (X,)),
    "gy must be a pair with the shapes of y; either part may be None": lambda: NET.vjp(NET.init(0), NET.apply(NET.init(0), X)[1], (X, None)),
    "apply must be given a key, apply(params, x, rng); for evaluation use inference(), got no key": lambda: fn.GRU(3, 4, 2, dropout=0.5)({}, X),
    "params must be a dict of weight_ih_l0 (4, 3), weight_hh_l0 (4, 4), bias_ih_l0 (4,), bias_hh_l0 (4,), got": lambda: fn.RNN(3, 4)({}, X),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
