"""Recurrent torch.nn modules as layers, and calls of them in code.

The input of a converted net is a sequence, (sequence, state) or (sequence, state, lengths), and that of a cell is an input or
(input, state), as for the layers ``RNN``, ``LSTM``, ``GRU`` and their cells. Sequences have the axes of the module: (N, T,
features) with ``batch_first``, else (T, N, features), or (T, features). y is (outputs, last state), or the next state for a cell.
"""

from typing import Any, NoReturn

from torch import nn
from torch.nn.utils import rnn

from funcnet.contract import Layer, Params
from funcnet.interop.torch_nn.importing.conversion import made
from funcnet.interop.torch_nn.importing.registry import Converted, call, function, layer
from funcnet.interop.torch_nn.importing.values import Node, Parts, Ref, UnsupportedError, require_value
from funcnet.layers.recurrent.cells import GRUCell, LSTMCell, RNNCell
from funcnet.layers.recurrent.nets import GRU, LSTM, RNN
from funcnet.layers.shape.reshaping import Identity

_PAIR = (None, None)


def _options(module: nn.RNNBase) -> dict[str, Any]:
    """Return the arguments that RNN, LSTM and GRU share."""
    names = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "bidirectional")
    return {**{name: getattr(module, name) for name in names}, "dropout": float(module.dropout)}


def _cell_options(module: nn.RNNCellBase) -> dict[str, Any]:
    """Return the arguments that the cells share."""
    return {name: getattr(module, name) for name in ("input_size", "hidden_size", "bias")}


@layer(nn.RNN)
def convert_rnn(module: nn.RNN) -> Converted:
    """Convert to ``RNN``."""
    return made(RNN, module, **_options(module), nonlinearity=module.nonlinearity)


@layer(nn.LSTM)
def convert_lstm(module: nn.LSTM) -> Converted:
    """Convert to ``LSTM``."""
    return made(LSTM, module, **_options(module), proj_size=module.proj_size)


@layer(nn.GRU)
def convert_gru(module: nn.GRU) -> Converted:
    """Convert to ``GRU``."""
    return made(GRU, module, **_options(module))


@layer(nn.RNNCell)
def convert_rnn_cell(module: nn.RNNCell) -> Converted:
    """Convert to ``RNNCell``."""
    return made(RNNCell, module, **_cell_options(module), nonlinearity=module.nonlinearity)


@layer(nn.LSTMCell)
def convert_lstm_cell(module: nn.LSTMCell) -> Converted:
    """Convert to ``LSTMCell``."""
    return made(LSTMCell, module, **_cell_options(module))


@layer(nn.GRUCell)
def convert_gru_cell(module: nn.GRUCell) -> Converted:
    """Convert to ``GRUCell``."""
    return made(GRUCell, module, **_cell_options(module))


@call(nn.LSTM)
def call_lstm(module: nn.LSTM, net: Layer, params: Params, input: Any, hx: Any = None) -> Node:  # noqa: A002 (torch's name)
    """Apply the layer to the sequence and an optional pair of states; y is (outputs, (h, c))."""
    return _call(net, params, input, _pair(hx), (None, _PAIR))


@call(nn.RNN, nn.GRU)
def call_recurrent(module: nn.Module, net: Layer, params: Params, input: Any, hx: Any = None) -> Node:  # noqa: A002
    """Apply the layer to the sequence and an optional state; y is (outputs, h)."""
    return _call(net, params, input, hx, _PAIR)


@call(nn.LSTMCell)
def call_lstm_cell(module: nn.LSTMCell, net: Layer, params: Params, input: Any, hx: Any = None) -> Node:  # noqa: A002
    """Apply the cell to the input and an optional pair of states; y is (h, c)."""
    return _call(net, params, input, _pair(hx), _PAIR)


@call(nn.RNNCell, nn.GRUCell)
def call_cell(module: nn.Module, net: Layer, params: Params, input: Any, hx: Any = None) -> Node:  # noqa: A002
    """Apply the cell to the input and an optional state; y is h."""
    return _call(net, params, input, hx, None)


@function(
    rnn.pack_padded_sequence,
    rnn.pad_packed_sequence,
    rnn.pack_sequence,
    rnn.unpack_sequence,
    rnn.pad_sequence,
    rnn.unpad_sequence,
)
def _refuse_packing(*arguments: Any, **keywords: Any) -> NoReturn:
    raise UnsupportedError(
        "packed sequences are not supported: a recurrent layer takes (sequence, state, lengths); "
        "lift(module, example) makes a layer from the unchanged module"
    )


def _call(net: Layer, params: Params, x: Any, state: Any, parts: Parts) -> Node:
    inputs = (require_value("the input", x), *([] if state is None else [require_value("the state", state)]))
    return Node(net, inputs, params, parts)


def _pair(hx: Any) -> "Ref | Node | None":
    """Return the pair of an LSTM's states as one value."""
    if hx is None or isinstance(hx, (Ref, Node)):
        return hx
    if not isinstance(hx, (tuple, list)) or len(hx) != 2:
        raise UnsupportedError(f"the state must be a pair (h, c), got {type(hx).__name__}")
    h, c = (require_value("the state", one) for one in hx)
    return Node(Identity(), (h, c), parts=_PAIR)
