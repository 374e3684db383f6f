"""Distances: layers of two inputs."""

from typing import Any

from torch import nn

from funcnet.contract import Layer, Params
from funcnet.interop.torch_nn.importing.conversion import same
from funcnet.interop.torch_nn.importing.registry import call
from funcnet.interop.torch_nn.importing.values import Node, Ref
from funcnet.layers.operands.distances import CosineSimilarity, PairwiseDistance

same(nn.CosineSimilarity, CosineSimilarity, "dim", "eps")
same(nn.PairwiseDistance, PairwiseDistance, "eps", "keepdim", p="norm")


@call(nn.CosineSimilarity, nn.PairwiseDistance)
def call_distance(module: Any, layer: Layer, params: Params, x1: Ref | Node, x2: Ref | Node) -> Node:
    """Apply the layer to both inputs."""
    return Node(layer, (x1, x2), params)
