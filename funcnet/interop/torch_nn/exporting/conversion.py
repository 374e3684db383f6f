"""``to_torch``: convert a net and its params to a torch.nn module, with native modules where torch.nn has them."""

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
    """Convert a net and its params to a torch.nn module with the same outputs and gradients.

        module(x) = net(params, x, key)      module.eval()(x) = net.inference()(params, x)

    A layer with a counterpart in torch.nn becomes that module, which autograd differentiates. A ``serial`` becomes an
    ``nn.Sequential``; branches, graphs and transformer blocks become modules that call the modules of their layers. Any other
    layer is wrapped with ``as_module``, so its backward pass is the layer's VJP. In train mode, running statistics are updated at
    each call, and noise is sampled from torch's generator.

    ``nn.Hardsigmoid`` rounds 1/6 to float32 in its gradient; its float64 gradients therefore differ by a relative 3e-8.

    Args:
        net: The net. The result of ``inference()`` becomes a module that evaluates in train mode too.
        params: Its params, which are copied. Floating leaves become parameters, with ``requires_grad=False`` within ``freeze``;
            running statistics become buffers. A tensor at several paths becomes one parameter, as do tied leaves.

    Returns:
        The module. It accepts x like the net, or the entries of a tuple as separate arguments; a single torch.nn module has
        torch's arguments. The keys of its ``state_dict`` are the paths of params. A tied parameter has only its first key;
        ``load_state_dict`` also accepts all of its keys. The module can be pickled and copied.

    Raises:
        ValueError: If ``net`` is not a layer, or ``params`` belong to another net; the error names the path in the net.

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
    """Return the native module of a layer, or the wrapped layer if there is none."""
    convert = MODULES.get(type(layer))
    module = None if convert is None else convert(layer, params, _converted)
    return as_module(layer, params) if module is None else module
