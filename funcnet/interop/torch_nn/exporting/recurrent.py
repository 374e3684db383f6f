"""Recurrent nets as torch.nn modules that also accept lengths."""

from typing import Any

import torch
from torch import nn

from funcnet.contract import Params
from funcnet.interop.torch_nn.exporting.modules import entry
from funcnet.interop.torch_nn.exporting.registry import namesake, native, same_names
from funcnet.layers.recurrent.cells import GRUCell, LSTMCell, RNNCell
from funcnet.layers.recurrent.nets import GRU, LSTM, RNN

same_names([RNNCell, LSTMCell, GRUCell])


class _TakesLengths(nn.RNNBase):
    """A recurrent module with an optional third input, the lengths of rows; with it, autograd differentiates the layer."""

    layer: Any

    def forward(self, *xs: Any) -> Any:
        """Return the outputs and the last state for a sequence, an optional state and optional lengths."""
        x = entry(xs)
        if not isinstance(x, tuple) or len(x) < 3:
            return super().forward(*x) if isinstance(x, tuple) else super().forward(x)
        layer = self.layer if self.training else self.layer.inference()
        key = torch.randint(2**62, (), device=x[0].device) if layer.stochastic else None
        return layer.apply(dict(self._parameters), x, key)[0]


class RNNModule(_TakesLengths, nn.RNN):
    """``nn.RNN`` that accepts lengths."""


class LSTMModule(_TakesLengths, nn.LSTM):
    """``nn.LSTM`` that accepts lengths."""


class GRUModule(_TakesLengths, nn.GRU):
    """``nn.GRU`` that accepts lengths."""


_MODULES: dict[type, type] = {RNN: RNNModule, LSTM: LSTMModule, GRU: GRUModule}


@native(*_MODULES)
def _recurrent(layer: Any, params: Params) -> Any:
    module = namesake(_MODULES[type(layer)], layer, params)
    module.layer = layer
    return module
