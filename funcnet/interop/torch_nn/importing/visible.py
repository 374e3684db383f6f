"""Masks of a whole net: an input that is used only as a mask follows funcnet's convention, True where attention is allowed.

Code inside can still compute with masks in torch's convention, which a ``VisibleMask`` converts before attention.
"""

from typing import Any

from funcnet.combinators.dag import Graph
from funcnet.combinators.modes import ByMode
from funcnet.contract import Layer
from funcnet.layers.attention.mask_layers import VisibleMask
from funcnet.wrapper import Wrapper

Use = tuple[str, Layer, int]
"""A node that uses an input: its name, its layer, and the position of the input."""


def with_visible_masks(net: Layer) -> Layer:
    """Return a net whose pure mask inputs follow funcnet's convention."""
    graph = _graph(net)
    if graph is None:
        return net
    for i in range(len(graph.inputs)):
        net = _shown(net, i) if _is_mask(net, i) else net
    return net


def _graph(net: Layer) -> Graph | None:
    while isinstance(net, Wrapper):
        net = net.layer
    return net if isinstance(net, Graph) else None


def _is_mask(layer: Layer, i: int) -> bool:
    """Return whether a layer uses its input i only as a torch.nn mask."""
    if isinstance(layer, ByMode):
        return _is_mask(layer.layer, i) and _is_mask(layer.evaluation, i)
    if isinstance(layer, Wrapper):
        return _is_mask(layer.layer, i)
    if isinstance(layer, VisibleMask):
        return layer.hidden
    if not isinstance(layer, Graph) or layer.inputs[i] in layer.outputs:
        return False
    uses = _uses(layer, layer.inputs[i])
    return bool(uses) and all(_is_mask(one, k) for _, one, k in uses) and _agree(layer, uses)


def _uses(graph: Graph, name: str) -> list[Use]:
    layers = graph.children()
    rows = [(node, layers[f if isinstance(f, str) else node], ins) for node, f, ins in graph.nodes]
    return [(node, layer, k) for node, layer, ins in rows for k, one in enumerate(ins) if one == name]


def _agree(graph: Graph, uses: list[Use]) -> bool:
    """Return whether every rewritten layer is always used with this mask."""
    owners = {node: f if isinstance(f, str) else node for node, f, _ in graph.nodes}
    places = {(owners[node], k) for node, _, k in uses}
    counts = sum(1 for node in owners for owner, k in places if owners[node] == owner)
    return counts == len(uses)


def _shown(layer: Any, i: int) -> Any:
    """Return a layer whose input i follows funcnet's convention."""
    if isinstance(layer, ByMode):
        return ByMode(_shown(layer.layer, i), _shown(layer.evaluation, i))
    if isinstance(layer, Wrapper):
        return layer.replace(layer=_shown(layer.layer, i))
    if isinstance(layer, VisibleMask):
        return layer.replace(hidden=False)
    children = layer.children()
    owners = {node: f for node, f, _ in layer.nodes if isinstance(f, str)}
    places = {(owners.get(node, node), k) for node, _, k in _uses(layer, layer.inputs[i])}
    for name, k in places:
        children[name] = _shown(children[name], k)
    return layer.with_children(children)
