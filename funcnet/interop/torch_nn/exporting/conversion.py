"""``to_torch``: a net with its params as a module of torch.nn."""

from torch import nn

from funcnet.contract import Layer, Params
from funcnet.interop.torch_nn.exporting import (
    activation,
    containers,
    conv,
    embedding,
    linear,
    noise,
    norm,
    operations,
    pooling,
    recurrent,
    shape,
)
from funcnet.interop.torch_nn.exporting.registry import MODULES
from funcnet.interop.torch_nn.exporting.ties import tie_equal_leaves
from funcnet.walking import require_layer

def to_torch(net: Layer, params: Params) -> nn.Module:
    """Convert a net."""
    module = _converted(require_layer("to_torch", net), params)
    tie_equal_leaves(module, params)
    return module


def _converted(layer: Layer, params: Params) -> nn.Module:
    """Return the native module of a layer, or the layer as a module where there is none."""
    convert = MODULES.get(type(layer))
    module = None if convert is None else convert(layer, params, _converted)
    return _wrapped(layer, params) if module is None else module


def _wrapped(layer: Layer, params: Params) -> nn.Module:
    from funcnet.interop.torch_nn.modules import as_module
    return as_module(layer, params)
