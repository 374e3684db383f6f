"""Linear maps: ``Linear``, ``Bilinear``, ``Identity`` and ``AdaptiveLogSoftmaxWithLoss``."""

from typing import Any

from torch import nn

from funcnet.contract import Layer, Params
from funcnet.interop.torch_nn.importing.conversion import made, same
from funcnet.interop.torch_nn.importing.registry import Converted, call, layer
from funcnet.interop.torch_nn.importing.values import Node, Ref
from funcnet.layers.linear.adaptive_softmax import AdaptiveLogSoftmaxWithLoss
from funcnet.layers.linear.bilinear import Bilinear
from funcnet.layers.linear.linear import Linear
from funcnet.layers.shape.reshaping import Identity

same(nn.Identity, Identity)


@layer(nn.Linear, nn.modules.linear.NonDynamicallyQuantizableLinear)
def linear(module: nn.Linear) -> Converted:
    """Convert a linear map."""
    return made(Linear, module, in_features=module.in_features, out_features=module.out_features, bias=module.bias is not None)


@layer(nn.Bilinear)
def bilinear(module: nn.Bilinear) -> Converted:
    """Convert a bilinear map."""
    sizes = {name: getattr(module, name) for name in ("in1_features", "in2_features", "out_features")}
    return made(Bilinear, module, **sizes, bias=module.bias is not None)


@layer(nn.AdaptiveLogSoftmaxWithLoss)
def adaptive_softmax(module: nn.AdaptiveLogSoftmaxWithLoss) -> Converted:
    """Convert an adaptive softmax; the last cutoff of the module is the number of classes."""
    names = ("in_features", "n_classes", "div_value", "head_bias")
    options = {name: getattr(module, name) for name in names}
    converted, params = made(AdaptiveLogSoftmaxWithLoss, module, cutoffs=tuple(module.cutoffs[:-1]), **options)
    return converted, by_number(params)


def by_number(params: Params) -> Params:
    """Return the params with the clusters, and the two maps of each cluster, in dicts with numeric keys, as in the layer."""
    clusters = [dict(zip("01", maps, strict=True)) for maps in params["tail"]]
    return {"head": params["head"], "tail": {str(i): maps for i, maps in enumerate(clusters)}}


@call(nn.Bilinear)
def call_bilinear(module: nn.Bilinear, layer: Layer, params: Params, input1: Ref | Node, input2: Ref | Node) -> Node:
    """Apply the layer to both inputs."""
    return Node(layer, (input1, input2), params)


@call(nn.AdaptiveLogSoftmaxWithLoss)
def call_adaptive_softmax(module: Any, layer: Layer, params: Params, input_: Ref | Node, target_: Ref | Node) -> Node:
    """Apply the layer to the features and their labels; the output is a pair."""
    return Node(layer, (input_, target_), params, parts=(None, None))
