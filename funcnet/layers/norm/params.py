"""Params of normalization: what all of its layers draw, mirror and validate alike.

y = γ x̂ + β      at first weight γ = 1 and bias β = 0; running_mean = 0, running_var = 1, num_batches_tracked = 0
"""

from typing import Any

import torch
from attrs import validators
from torch import Tensor

from funcnet.checks import Misfit, require_sizes
from funcnet.contract import Layer, Params
from funcnet.errors import describe, number, value_error
from funcnet.precision import HALF
from funcnet.random.keys import Key, as_key

Shapes = dict[str, tuple[int, ...]]

STATS = ("running_mean", "running_var", "num_batches_tracked")

positive = number(above=0.0)
"""Validate an ε."""

momentum = number(0.0, at_most=1.0)
"""Validate the rate at which running statistics move."""

momentum_or_none: Any = validators.optional(momentum)
"""Validate such a rate, or ``None``, for the mean of all batches."""

SPACE = {0: "", 1: ", length", 2: ", height, width", 3: ", depth, height, width"}
"""The names of the axes after the channels."""


def shapes_of_channels(channels: Any, affine: bool, bias: bool, tracked: bool) -> Shapes:
    """Return the names and shapes of params with one entry per channel; there is a bias where there is a weight to go with."""
    both: Shapes = {"weight": (channels,), "bias": (channels,)} if bias else {"weight": (channels,)}
    weights = both if affine else {}
    return {**weights, "running_mean": (channels,), "running_var": (channels,), "num_batches_tracked": ()} if tracked else weights


def initialize(rng: Key | int, layer: Layer) -> Params:
    """Make weight and running_var ones, and the rest zeros; the key says only on which device."""
    device, shapes = as_key(rng).device, require_sizes(layer).param_shapes() or {}  # no params are no sign of missing sizes
    floating = {name: shape for name, shape in shapes.items() if name != "num_batches_tracked"}
    made = {name: torch.full(shape, float(name in ("weight", "running_var")), device=device) for name, shape in floating.items()}
    count = {"num_batches_tracked": torch.zeros((), dtype=torch.int64, device=device)}
    return {**made, **count} if len(floating) < len(shapes) else made


def gparams(params: Params, gw: Tensor, gb: Tensor) -> Params:
    """Mirror params: gradients for weight and bias, ``None`` for the statistics, which are not trained."""
    known = {"weight": gw, "bias": gb}
    return {name: known.get(name) for name in params}


def backward_params(layer: Any, params: Params, channels: Any, *, running: bool = False) -> Any:
    """Return what a backward method reads: the weight, ``None`` where there is none, and the running mean and variance.

    Kernels notice other dtypes and devices, but read beyond a weight that is too short, and take ``None`` for ones.
    """
    w = _per_channel(params["weight"], channels) if layer.affine else None
    return (w, *[_per_channel(params[name], channels) for name in STATS[:2]]) if running else (w,)


def _per_channel(leaf: Tensor, channels: int) -> Tensor:
    """Return a leaf, which must have a number for each channel; under ``vmap``, kernels take whole ones."""
    if leaf.shape != (channels,) or not leaf.is_floating_point():
        raise Misfit
    return leaf


def require_dtypes(x: Tensor, *leaves: Tensor | None) -> None:
    """Raise ``Misfit`` unless params have the dtype of x, or float32 beside a half x: under ``vmap`` kernels promote."""
    for leaf in leaves:
        if leaf is not None and leaf.dtype is not x.dtype and not (leaf.dtype is torch.float32 and x.dtype in HALF):
            raise Misfit


def running_stats(layer: Any, params: Params) -> tuple[Tensor, Tensor]:
    """Return the running mean and variance for ``update_stats``, which would broadcast them, or move complex ones."""
    mean, var = params["running_mean"], params["running_var"]
    if mean.shape != (layer.num_features,) or var.shape != mean.shape or not mean.is_floating_point():
        raise Misfit
    return mean, var


def batch_count(layer: Any, params: Params, like: Tensor) -> Tensor:
    """Return ``num_batches_tracked`` for ``update_stats``: an integer on the device of ``like``."""
    count: Tensor = params["num_batches_tracked"]
    if count.dtype is not torch.int64 or count.dim() or count.is_cpu is not like.is_cpu:
        rule = f"num_batches_tracked must be a tensor of shape () and dtype torch.int64 on {like.device}"
        raise value_error(layer, rule, f"{describe(count)} on {count.device}")
    return count
