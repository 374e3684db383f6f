"""``to_torch``: a net and its params as a module of torch.nn, of native modules wherever torch.nn has them."""

import torch
from torch import nn

from funcnet.contract import Layer, Params
from funcnet.interop.torch_nn.autograd.modules import as_module
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

FAMILIES = (activation, containers, conv, embedding, linear, noise, norm, operations, pooling, recurrent, shape)
"""The files that fill the table of converters."""


def to_torch(net: Layer, params: Params) -> nn.Module:
    """Convert a net and its params to a module of torch.nn with the same outputs and gradients.

        module(x) = net(params, x, key)      module.eval()(x) = net.inference()(params, x)

    A layer that torch.nn has becomes torch's own module, which autograd differentiates. An unnamed or named ``serial`` becomes an
    ``nn.Sequential``; branches, graphs and transformer blocks become modules that call the modules of their layers. Any other
    layer becomes what ``as_module`` makes of it, whose backward pass is the layer's own. In train mode running statistics move
    with each call, and noise is drawn from torch's generator.

    ``nn.Hardsigmoid`` rounds 1/6 to float32 in its gradient, so that in float64 its gradients differ by 3e-8 of their size.

    Args:
        net: The net. One for evaluation, after ``inference()``, becomes a module that evaluates in train mode too.
        params: Its params, which are copied. Floating leaves become parameters, those of ``freeze`` with
            ``requires_grad=False``; running statistics become buffers. A tensor at several places becomes one parameter, as do
            the places of ``tied``.

    Returns:
        The module. It takes x as the net does, and the entries of a tuple as separate arguments; a single module of torch.nn
        takes torch's arguments. The keys of its ``state_dict`` are the paths of params. A tied parameter has only its first key
        there; ``load_state_dict`` also takes one with all keys. The module can be pickled and copied.

    Raises:
        ValueError: For anything but a layer, and for params of another net; it says where in the net.

    >>> from funcnet.combinators.sequential import serial
    >>> from funcnet.layers.activation.sigmoids import Tanh
    >>> from funcnet.layers.linear.linear import Linear
    >>> net = serial(Linear(2, 3), Tanh())
    >>> to_torch(net, net.init(0))
    Sequential(
      (0): Linear(in_features=2, out_features=3, bias=True)
      (1): Tanh()
    )
    """
    require_layer("to_torch", net)
    with torch.inference_mode(mode=False):
        module = _converted(net, params)
        tie_equal_leaves(module, params)
    return module


def _converted(layer: Layer, params: Params) -> nn.Module:
    """Return the native module of a layer, or the layer as a module where there is none."""
    convert = MODULES.get(type(layer))
    module = None if convert is None else convert(layer, params, _converted)
    return as_module(layer, params) if module is None else module
