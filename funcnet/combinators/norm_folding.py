"""Folding: a linear map followed by a normalization with running statistics is one linear map.

    γ r (w x + b - μ) + β = (γ r w) x + (γ r (b - μ) + β)      r = 1 / √(σ² + ε), each per output channel

In inference a batch norm right after a Linear or a convolution therefore costs nothing.
"""

from typing import Any

import torch
from torch import Tensor

from funcnet import tree
from funcnet.combinator import Combinator
from funcnet.combinators.sequential import Serial
from funcnet.contract import Layer, Params
from funcnet.errors import adds_location, describe, value_error
from funcnet.layers.shape.reshaping import Identity
from funcnet.walking import require_layer

Folded = tuple[Layer, Params]


@adds_location("fold_batch_norm")
def fold_batch_norm(net: Layer, params: Params) -> Folded:
    """Fold each batch norm of a net into the linear map right before it, for inference.

        w' = γ r w      b' = γ r (b - μ) + β      r = 1 / √(σ² + ε), each per output channel

    ``folded(folded_params, x)`` equals ``net.inference()(params, x)`` up to rounding. Layers inside ``tied`` and ``parametrize``
    are not folded. Identities, such as dropout in inference, can be in between. A norm without a linear map before it, or without
    running statistics, stays. After a Linear the channels must be the last axis, as they are for x of shape (N, features).

    Args:
        net: The net, in training form.
        params: Its params.

    Returns:
        The net for inference and its params.

    Raises:
        ValueError: If ``params`` do not match the net, or are on several devices.

    >>> from funcnet.combinators.sequential import serial
    >>> from funcnet.layers.linear.linear import Linear
    >>> from funcnet.layers.norm.batch_norm import BatchNorm1d
    >>> net = serial(Linear(3, 4, bias=False), BatchNorm1d(4))
    >>> fold_batch_norm(net, net.init(0))[0]
    serial(Linear(in_features=3, out_features=4))
    """
    return _fold(require_layer("fold_batch_norm", net).inference(), params)


def _fold(net: Layer, params: Params) -> Folded:
    if not isinstance(net, Combinator):
        return net, params
    net, params = net.map_with_params(_fold, params)
    return _join_in_series(net, params) if isinstance(net, Serial) else (net, params)


def _join_in_series(net: Serial, params: Params) -> Folded:
    names: list[str] = []
    kept: list[Folded] = []
    for name, layer, p in zip(net.children(), net, net.entries(params), strict=True):
        before = _join_last(kept, (layer, p))
        kept = before or [*kept, (layer, p)]
        names += [] if before else [name]
    folded = Serial(tuple([layer for layer, _ in kept]), net.names and tuple(names))
    return folded, folded.pack([p for _, p in kept])


def _join_last(kept: list[Folded], norm: Folded) -> list[Folded] | None:
    """Join the last layer that is not an identity with a norm; return all layers with params, or ``None``."""
    at = next((i for i in reversed(range(len(kept))) if not isinstance(kept[i][0], Identity)), None)
    joined = None if at is None or not norm[0].channelwise_affine else _join(kept[at], norm)
    return None if joined is None or at is None else [*kept[:at], joined, *kept[at + 1 :]]


def _join(one: Folded, norm: Folded) -> Folded | None:
    layer, params = one
    if isinstance(layer, Serial):
        kept = _join_last([*zip(layer, layer.entries(params), strict=True)], norm)
        return None if kept is None else (layer.replace(layers=tuple([k for k, _ in kept])), layer.pack([p for _, p in kept]))
    for part, p in (one, norm):
        _require_shapes(part, p)
    devices = sorted({str(leaf.device) for leaf in tree.leaves((params, norm[1]))})
    if len(devices) > 1:
        raise value_error("fold_batch_norm", "params must be on one device", " and ".join(devices))
    if layer.weight_output_axis is not None and _channels(layer, params) == len(norm[1]["running_mean"]):
        return layer.replace(bias=True), _scale_params(layer, params, *norm)
    return None


def _require_shapes(layer: Any, params: Params) -> None:
    """Raise ``ValueError`` unless the params of a layer are dense tensors of the right shapes."""
    for name, shape in (layer.param_shapes() or {}).items():
        leaf = params.get(name) if isinstance(params, dict) else None
        if not isinstance(leaf, Tensor) or leaf.layout is not torch.strided or leaf.shape != shape:
            raise value_error("fold_batch_norm", f"{name} must be the dense tensor {shape} of {layer!r}", describe(leaf))


def _channels(layer: Any, params: Params) -> int:
    """Return the number of channels of y. If they are the second axis of the weight, it has the channels of one group."""
    w: Tensor = params["weight"]
    return w.shape[0] if layer.weight_output_axis == 0 else w.shape[1] * layer.groups


def _scale_params(layer: Layer, params: Any, norm: Any, stats: Params) -> Params:
    r = torch.rsqrt(stats["running_var"] + norm.eps)
    scale = r * stats["weight"] if norm.affine else r
    b = params.get("bias", 0.0) - stats["running_mean"]
    shift = torch.addcmul(stats["bias"], b, scale) if "bias" in stats else b * scale
    return {"weight": params["weight"] * _factors(layer, params["weight"], scale), "bias": shift}


def _factors(layer: Any, w: Tensor, scale: Tensor) -> Tensor:
    """Return the factor of each entry of the weight, which is (in, out / groups, ...) in a transposed convolution."""
    if layer.weight_output_axis == 1:
        by_group = scale.reshape(layer.groups, 1, -1).expand(-1, len(w) // layer.groups, -1)
        return by_group.reshape(*w.shape[:2], *[1] * (w.dim() - 2))
    return scale.reshape(-1, *[1] * (w.dim() - 1))
