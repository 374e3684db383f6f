"""Recurrent modules of torch.nn as layers, and how code calls them.

A converted net takes a sequence, (sequence, state) or (sequence, state, lengths), and a cell the input or (input, state), as the
layers ``RNN``, ``LSTM``, ``GRU`` and their cells do. Sequences have the axes of the module: (N, T, features) with its
``batch_first``, else (T, N, features), or (T, features). y is (outputs, last state), for a cell the next state.
"""

from typing import Any

from torch import nn

from funcnet.contract import Layer, Params
from funcnet.interop.torch_nn.importing.registry import Converted, call, layer
from funcnet.interop.torch_nn.importing.values import Node, Parts, Ref, UnsupportedError, require_value
from funcnet.interop.torch_nn.importing.weights import weights_of
from funcnet.layers.recurrent.cells import GRUCell, LSTMCell, RNNCell
from funcnet.layers.recurrent.nets import GRU, LSTM, RNN
from funcnet.layers.shape.reshaping import Identity

_PAIR = (None, None)


def _options(module: nn.RNNBase) -> dict[str, Any]:
    """Return the arguments that RNN, LSTM and GRU share."""
    names = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "bidirectional")
    return {**{name: getattr(module, name) for name in names}, "dropout": float(module.dropout)}


def _with_weights(made: Layer, module: nn.Module) -> Converted:
    return made, weights_of(module, made)


@layer(nn.RNN)
def convert_rnn(module: nn.RNN) -> Converted:
    """Convert to ``RNN``."""
    return _with_weights(RNN(**_options(module), nonlinearity=module.nonlinearity), module)


@layer(nn.LSTM)
def convert_lstm(module: nn.LSTM) -> Converted:
    """Convert to ``LSTM``."""
    return _with_weights(LSTM(**_options(module), proj_size=module.proj_size), module)


@layer(nn.GRU)
def convert_gru(module: nn.GRU) -> Converted:
    """Convert to ``GRU``."""
    return _with_weights(GRU(**_options(module)), module)


@layer(nn.RNNCell)
def convert_rnn_cell(module: nn.RNNCell) -> Converted:
    """Convert to ``RNNCell``."""
    return _with_weights(RNNCell(module.input_size, module.hidden_size, module.bias, module.nonlinearity), module)


@layer(nn.LSTMCell)
def convert_lstm_cell(module: nn.LSTMCell) -> Converted:
    """Convert to ``LSTMCell``."""
    return _with_weights(LSTMCell(module.input_size, module.hidden_size, module.bias), module)


@layer(nn.GRUCell)
def convert_gru_cell(module: nn.GRUCell) -> Converted:
    """Convert to ``GRUCell``."""
    return _with_weights(GRUCell(module.input_size, module.hidden_size, module.bias), module)


@call(nn.LSTM)
def call_lstm(module: nn.LSTM, made: Layer, params: Params, input: Any, hx: Any = None) -> Node:  # noqa: A002 (torch's name)
    """Apply the layer to the sequence, and to the pair of states where they are given; y is (outputs, (h, c))."""
    return _call(made, params, input, _pair(hx), (None, _PAIR))


@call(nn.RNN, nn.GRU)
def call_recurrent(module: nn.Module, made: Layer, params: Params, input: Any, hx: Any = None) -> Node:  # noqa: A002
    """Apply the layer to the sequence, and to the state where it is given; y is (outputs, h)."""
    return _call(made, params, input, hx, _PAIR)


@call(nn.LSTMCell)
def call_lstm_cell(module: nn.LSTMCell, made: Layer, params: Params, input: Any, hx: Any = None) -> Node:  # noqa: A002
    """Apply the cell to the input, and to the pair of states where they are given; y is (h, c)."""
    return _call(made, params, input, _pair(hx), _PAIR)


@call(nn.RNNCell, nn.GRUCell)
def call_cell(module: nn.Module, made: Layer, params: Params, input: Any, hx: Any = None) -> Node:  # noqa: A002
    """Apply the cell to the input, and to the state where it is given; y is h."""
    return _call(made, params, input, hx, None)


def _call(made: Layer, params: Params, x: Any, state: Any, parts: Parts) -> Node:
    inputs = (require_value("the input", x), *([] if state is None else [require_value("the state", state)]))
    return Node(made, inputs, params, parts)


def _pair(hx: Any) -> "Ref | Node | None":
    """Return the pair of an LSTM's states as one value."""
    if hx is None or isinstance(hx, (Ref, Node)):
        return hx
    if not isinstance(hx, (tuple, list)) or len(hx) != 2:
        raise UnsupportedError(f"the state must be a pair (h, c), got {type(hx).__name__}")
    h, c = (require_value("the state", one) for one in hx)
    return Node(Identity(), (h, c), parts=_PAIR)
