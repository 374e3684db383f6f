"""Unused attention weights: torch.nn returns them by default, and most code uses only the first entry of (y, weights).

Without weights, attention uses a faster kernel, whose memory is not proportional to the product of the lengths.
"""

from itertools import pairwise
from typing import Any

from funcnet.combinators.dag import Graph
from funcnet.combinators.sequential import Serial
from funcnet.combinators.wiring import in_order
from funcnet.contract import Layer
from funcnet.interop.torch_nn.importing.attention import with_options
from funcnet.layers.attention.multihead import MultiHeadAttention
from funcnet.layers.operands.picking import Pick
from funcnet.layers.shape.reshaping import Identity
from funcnet.walking import map_layers
from funcnet.wrapper import Wrapper


def without_unused_weights(net: Layer) -> Layer:
    """Return a net whose attention layers do not compute unused weights."""
    return map_layers(_lean, net)


def _lean(layer: Layer) -> Layer:
    """In a graph or serial, replace attention layers with unused weights, and the layers that select y from their output."""
    if not isinstance(layer, (Graph, Serial)):
        return layer
    children, users = layer.children(), _users(layer)
    for name, uses in users.items():
        if _returns_weights(children[name]) and uses and all(children.get(one) == Pick(0) for one in uses):
            children[name] = with_options(children[name], need_weights=False, average_attn_weights=True)
            children |= dict.fromkeys(uses, Identity())
    return layer.with_children(children)


def _users(layer: Any) -> dict[str, list[str]]:
    """Return the users of each layer that is called once; no users for a layer whose output is the net's."""
    if isinstance(layer, Serial):
        return {one: [other] for one, other in pairwise(layer.children())}
    live = in_order(layer.nodes, layer.outputs)
    shared = {name for _, f, _ in layer.nodes if isinstance(f, str) for name in (f,)}
    names = [name for name, f, _ in live if name not in {*shared, *layer.outputs} and not isinstance(f, str)]
    return {name: [user for user, _, ins in live if name in ins] for name in names}


def _returns_weights(layer: Any) -> bool:
    """Return whether a layer is an attention layer that returns (y, weights)."""
    while isinstance(layer, Wrapper):
        layer = layer.layer
    return isinstance(layer, MultiHeadAttention) and layer.need_weights
