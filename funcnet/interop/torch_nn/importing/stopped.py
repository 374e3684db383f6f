"""Stopped gradients: layers that affect the output of a net only through ``detach`` are frozen.

Autograd leaves the gradients of their parameters ``None``, so torch's optimizers do not decay them either.
"""

from funcnet.combinator import has_params
from funcnet.combinators.dag import Graph
from funcnet.combinators.freezing import Frozen, freeze
from funcnet.combinators.gradient_rules import ScaleGradient
from funcnet.combinators.modes import ByMode
from funcnet.combinators.sequential import Serial
from funcnet.contract import Layer, Params
from funcnet.layers.shape.sources import Parameter

Nodes = dict[str, tuple[Layer | str, tuple[str, ...]]]


def freeze_unreached(nodes: Nodes, params: dict[str, Params], outputs: set[str]) -> None:
    """Freeze the layers that no gradient reaches; a layer that is used several times only if no use is reached."""
    reached = _reached(nodes, outputs)
    owners = {name: layer if isinstance(layer, str) else name for name, (layer, _) in nodes.items()}
    trained = {owners[name] for name in reached if name in owners}
    used = {name for _, inputs in nodes.values() for name in inputs}
    for name, (layer, inputs) in nodes.items():
        if isinstance(layer, Layer) and name not in trained and has_params(params[name]) and layer.trainable and name in used:
            nodes[name] = (layer.replace(trainable=False) if isinstance(layer, Parameter) else freeze(layer), inputs)


def _reached(nodes: Nodes, outputs: set[str]) -> set[str]:
    """Return the names that gradients of the outputs reach; nodes are in the order of computation."""
    reached = set(outputs)
    for name, (layer, inputs) in reversed(nodes.items()):
        owner = nodes[layer][0] if isinstance(layer, str) else layer
        if name in reached and isinstance(owner, Layer):
            reached.update(one for i, one in enumerate(inputs) if not _stops(owner, i))
    return reached


def _stops(layer: Layer, i: int) -> bool:
    """Return whether no gradient of a layer's output reaches its input i."""
    if isinstance(layer, (Frozen, ByMode)):
        return _stops(layer.layer, i)
    if isinstance(layer, Serial):
        return any(_stops(one, i if k == 0 else 0) for k, one in enumerate(layer))
    if isinstance(layer, Graph):
        return layer.inputs[i] not in _reached({name: (f, ins) for name, f, ins in layer.nodes}, {*layer.outputs})
    return isinstance(layer, ScaleGradient) and layer.c == 0
