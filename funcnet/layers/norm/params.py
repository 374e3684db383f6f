"""The params of normalization layers: their initial values, gradients and checks.

    y = γ x̂ + β      initially weight γ = 1, bias β = 0, running_mean = 0, running_var = 1, num_batches_tracked = 0

γ and β are trained; the running statistics have the gradient ``None``.
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
"""Validator of an ε."""

momentum = number(0.0, at_most=1.0)
"""Validator of the momentum of running statistics."""

momentum_or_none: Any = validators.optional(momentum)
"""Validator of the same momentum, or ``None`` for the mean over all batches."""

SPACE = {0: "", 1: ", length", 2: ", height, width", 3: ", depth, height, width"}
"""The names of the axes after the channels."""


def shapes_of_channels(channels: Any, affine: bool, bias: bool, tracked: bool) -> Shapes:
    """Return the names and shapes of params with one entry per channel; a bias requires a weight."""
    both: Shapes = {"weight": (channels,), "bias": (channels,)} if bias else {"weight": (channels,)}
    weights = both if affine else {}
    return {**weights, "running_mean": (channels,), "running_var": (channels,), "num_batches_tracked": ()} if tracked else weights


def initialize(rng: Key | int, layer: Layer) -> Params:
    """Fill weight and running_var with ones, the rest with zeros; the key only sets the device."""
    device, shapes = as_key(rng).device, require_sizes(layer).param_shapes() or {}
    floating = {name: shape for name, shape in shapes.items() if name != "num_batches_tracked"}
    made = {name: torch.full(shape, float(name in ("weight", "running_var")), device=device) for name, shape in floating.items()}
    count = {"num_batches_tracked": torch.zeros((), dtype=torch.int64, device=device)}
    return {**made, **count} if len(floating) < len(shapes) else made


def gparams(params: Params, gw: Tensor, gb: Tensor) -> Params:
    """Mirror params: gradients for weight and bias, ``None`` for the statistics."""
    known = {"weight": gw, "bias": gb}
    return {name: known.get(name) for name in params}


def backward_params(layer: Any, params: Params, channels: Any, *, running: bool = False) -> Any:
    """Return the params that a backward method reads: the weight (``None`` if absent), and the running mean and variance.

    Kernels check dtypes and devices, but read past the end of a short weight, and treat ``None`` as ones.
    """
    w = _per_channel(params["weight"], channels) if layer.affine else None
    return (w, *[_per_channel(params[name], channels) for name in STATS[:2]]) if running else (w,)


def _per_channel(leaf: Tensor, channels: int) -> Tensor:
    """Return a leaf, after checking that it has one number per channel."""
    if leaf.shape != (channels,) or not leaf.is_floating_point():
        raise Misfit
    return leaf


def require_dtypes(x: Tensor, *leaves: Tensor | None) -> None:
    """Raise ``Misfit`` unless params have the dtype of x, or float32 with x in half precision: under ``vmap`` kernels promote."""
    for leaf in leaves:
        if leaf is not None and leaf.dtype is not x.dtype and not (leaf.dtype is torch.float32 and x.dtype in HALF):
            raise Misfit


def running_stats(layer: Any, params: Params) -> tuple[Tensor, Tensor]:
    """Return the running mean and variance for ``update_stats``, after checking them: it would broadcast other shapes."""
    mean, var = params["running_mean"], params["running_var"]
    if mean.shape != (layer.num_features,) or var.shape != mean.shape or not mean.is_floating_point():
        raise Misfit
    return mean, var


def batch_count(layer: Any, params: Params, like: Tensor) -> Tensor:
    """Return ``num_batches_tracked`` for ``update_stats``, after checking that it is an int64 on the device of ``like``."""
    count: Tensor = params["num_batches_tracked"]
    if count.dtype is not torch.int64 or count.dim() or count.is_cpu is not like.is_cpu:
        rule = f"num_batches_tracked must be a tensor of shape () and dtype torch.int64 on {like.device}"
        raise value_error(layer, rule, f"{describe(count)} on {count.device}")
    return count
