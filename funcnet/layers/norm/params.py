"""Params of normalization: what all of its layers draw, mirror and validate alike.

y = γ x̂ + β      at first weight γ = 1 and bias β = 0; running_mean = 0, running_var = 1, num_batches_tracked = 0
"""

from typing import Any

import torch
from torch import Tensor

from funcnet.contract import Params
from funcnet.errors import number
from funcnet.random import Key, as_key

Shapes = dict[str, tuple[int, ...]]

STATS = ("running_mean", "running_var", "num_batches_tracked")

positive = number(above=0.0)
"""Validate an ε."""


def momentum(layer: Any, attribute: Any, got: Any) -> None:
    """Validate the rate at which running statistics move; ``None`` is that of the mean of all batches."""
    if got is not None:
        number(0.0, at_most=1.0)(layer, attribute, got)


def shapes_of_channels(channels: int, affine: bool, bias: bool, tracked: bool) -> Shapes:
    """Return the names and shapes of params with one entry per channel; there is a bias where there is a weight to go with."""
    both: Shapes = {"weight": (channels,), "bias": (channels,)} if bias else {"weight": (channels,)}
    weights = both if affine else {}
    return {**weights, "running_mean": (channels,), "running_var": (channels,), "num_batches_tracked": ()} if tracked else weights


def counted(layer: Any, params: Params, stats: int) -> bool:
    """Tell whether there are as many params as the layer has, with so many statistics, and no bias where it has none."""
    return len(params) == layer.affine * (1 + layer.bias) + stats and (layer.bias or "bias" not in params)


def first(rng: Key | int, shapes: Shapes) -> Params:
    """Make weight and running_var ones, and the rest zeros; the key is read for its device alone."""
    device = as_key(rng).device
    floating = {name: shape for name, shape in shapes.items() if name != "num_batches_tracked"}
    made = {name: torch.full(shape, float(name in ("weight", "running_var")), device=device) for name, shape in floating.items()}
    counted = {"num_batches_tracked": torch.zeros((), dtype=torch.int64, device=device)}
    return {**made, **counted} if len(floating) < len(shapes) else made


def gparams(params: Params, gw: Tensor, gb: Tensor) -> Params:
    """Mirror params: gradients for weight and bias, ``None`` for the statistics, which are not trained."""
    known = {"weight": gw, "bias": gb}
    return {name: known.get(name) for name in params}
