"""Folding: a normalization by running statistics, of the output of a linear map, is itself part of a linear map.

    γ r (w x + b - μ) + β = (γ r w) x + (γ r (b - μ) + β)      r = 1 / √(σ² + ε), each per output channel

So in inference a batch norm right behind a Linear or a convolution costs nothing.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcnet import tree
from funcnet.combinators.branching import Branching
from funcnet.combinators.dag import Graph
from funcnet.combinators.ensembles import Ensemble
from funcnet.combinators.sequential import Serial
from funcnet.contract import Layer, Params
from funcnet.layers.conv.conv import Conv1d, Conv2d, Conv3d
from funcnet.layers.conv.conv_transpose import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from funcnet.layers.linear.linear import Linear
from funcnet.layers.norm.batch_norm import RunningBatchNorm
from funcnet.layers.norm.instance_norm import RunningInstanceNorm
from funcnet.layers.shape.reshaping import Identity

Folded = tuple[Layer, Params]

# A layer may enter here when its output channel o is weight[o] applied to x, plus bias[o], when its params are these two, and its
# field bias says whether there is the second; a weight with its channels elsewhere, as a transposed convolution's, needs a way of
# its own in _factors.
_OUT_FIRST = (Linear, Conv1d, Conv2d, Conv3d)
_TRANSPOSED = (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)
_NORMS = (RunningBatchNorm, RunningInstanceNorm)


def fold_batch_norm(net: Layer, params: Params) -> Folded:
    """Return the net for inference, and its params, with each batch norm folded into the linear map right before it.

    ``folded(folded_params, x)`` is ``net.inference()(params, x)`` to rounding. It goes into serials, branches, graphs' nodes and
    ensembles; identities (dropout, in inference) may stand in between; a norm with no such map before it, or without running
    statistics, stays. The channels are taken to be the last axis of a Linear's output, which they are without a length.
    """
    return _fold(net.inference(), params)


def _fold(net: Layer, params: Params) -> Folded:
    inside = _INSIDE.get(type(net))
    return inside(net, params) if inside else (net, params)


def _serial(net: Any, params: Params) -> Folded:
    names: list[str | int] = []
    kept: list[Folded] = []
    for name, layer, p in zip(net.names or range(len(net)), net.layers, net._entries(params), strict=True):
        one = _fold(layer, p)
        before = _joined_last(kept, one)
        kept = before or [*kept, one]
        names += [] if before else [name]
    layers, entries = [layer for layer, _ in kept], [p for _, p in kept]
    folded = Serial(tuple(layers), net.names and tuple(map(str, names)))
    return folded, folded._pack(entries)


def _joined_last(kept: list[Folded], norm: Folded) -> list[Folded] | None:
    """Return layers and their params, the last that is no identity joined with a norm; ``None`` where that cannot be."""
    at = next((i for i in reversed(range(len(kept))) if not isinstance(kept[i][0], Identity)), None)
    joined = None if at is None or not isinstance(norm[0], _NORMS) else _joined(kept[at], norm)
    return None if joined is None or at is None else [*kept[:at], joined, *kept[at + 1 :]]


def _joined(one: Folded, norm: tuple[Any, Params]) -> Folded | None:
    layer, params = one
    if isinstance(layer, (*_OUT_FIRST, *_TRANSPOSED)) and _channels(layer) == norm[0].num_features:
        return layer.replace(bias=True), _scaled(layer, params, *norm)
    if isinstance(layer, Serial):
        kept = _joined_last([*zip(layer.layers, layer._entries(params), strict=True)], norm)
        return None if kept is None else (layer.replace(layers=tuple(k for k, _ in kept)), layer._pack([p for _, p in kept]))
    return None


def _channels(layer: Any) -> int:
    count: int = layer.out_features if isinstance(layer, Linear) else layer.out_channels
    return count


def _scaled(layer: Layer, params: Params, norm: Any, stats: Params) -> Params:
    r = torch.rsqrt(stats["running_var"] + norm.eps)
    scale = r * stats["weight"] if norm.affine else r
    b = params.get("bias", 0.0) - stats["running_mean"]
    shift = torch.addcmul(stats["bias"], b, scale) if "bias" in stats else b * scale
    return {"weight": params["weight"] * _factors(layer, params["weight"], scale), "bias": shift}


def _factors(layer: Any, w: Tensor, scale: Tensor) -> Tensor:
    """Return what each entry of the weight is multiplied by; a transposed one is (in, out / groups, ...), group by group."""
    if isinstance(layer, _TRANSPOSED):
        by_group = scale.reshape(layer.groups, 1, -1).expand(-1, len(w) // layer.groups, -1)
        return by_group.reshape(*w.shape[:2], *[1] * (w.dim() - 2))
    return scale.reshape(-1, *[1] * (w.dim() - 1))


def _branching(net: Any, params: Params) -> Folded:
    pairs = [_fold(layer, p) for layer, p in zip(net.children(), net._entries(params), strict=True)]
    layers = tuple(layer for layer, _ in pairs)
    n = len(net.layers)
    return net.replace(layers=layers[:n], merge=layers[n] if net.merge else None), tuple(p for _, p in pairs)


def _graph(net: Any, params: Params) -> Folded:
    pairs = {name: _fold(layer, params[name]) for name, layer, _ in net.nodes}
    nodes = tuple((name, pairs[name][0], ins) for name, _, ins in net.nodes)
    return net.replace(nodes=nodes), {name: p for name, (_, p) in pairs.items()}


def _ensemble(net: Any, params: Params) -> Folded:
    pairs = [_fold(net.layer, tree.map(lambda leaf, i=i: leaf[i], params)) for i in range(net.n)]
    return net.replace(layer=pairs[0][0]), tree.map(lambda *leaves: torch.stack(leaves), *[p for _, p in pairs])


_INSIDE: dict[type, Callable[[Any, Params], Folded]] = {
    Serial: _serial,
    Branching: _branching,
    Graph: _graph,
    Ensemble: _ensemble,
}
