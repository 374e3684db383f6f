"""LSUV initialization: initial params computed from data so that the output of every layer has variance 1."""

from typing import Any

import torch
from torch import Tensor

from funcnet import random, tree
from funcnet.contract import Cache, Layer, Params, Rng
from funcnet.errors import describe, is_number, is_whole, value_error
from funcnet.flattening import join
from funcnet.initializers.scaled import Orthogonal
from funcnet.kernels.tracing import is_plain, transform_level
from funcnet.paths import named_leaves
from funcnet.precision import in_single
from funcnet.random.keys import Key
from funcnet.stand_ins import StandIn, stand_in_for, with_stand_ins
from funcnet.walking import children_of, require_layer


class _Search:
    """The settings of one call of ``lsuv``, and the weights found so far, by path."""

    def __init__(self, params: Params, key: Any, tolerance: float, iterations: int) -> None:
        self.weights = {path: leaf for path, leaf in named_leaves("", params) if isinstance(leaf, Tensor)}
        self.key, self.tolerance, self.iterations, self.level = key, tolerance, iterations, transform_level()
        self.found: dict[str, Tensor] = {}

    def first(self, path: str) -> Tensor:
        """Return the weight to scale: an orthonormal weight if there is a key, else the given weight."""
        w = self.weights[path]
        return w if self.key is None else Orthogonal()(random.fold_in(self.key, path), tuple(w.shape), w.dtype).to(w.device)


class _Scaling(StandIn):
    """A layer that scales its weight in its first run, so that its output has variance 1, and then keeps it."""

    path: str
    search: _Search

    def apply(self, params: Any, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        search, given = self.search, params.get("weight") if isinstance(params, dict) else None
        stored = search.weights.get(self.path)
        if stored is None or given is None or stored.shape != given.shape or transform_level() != search.level:
            return self.original.apply(params, x, rng)
        if self.path not in search.found:
            search.found[self.path] = self._scaled(params, x, rng)
        return self.original.apply({**params, "weight": search.found[self.path].to(given.dtype)}, x, rng)

    def _scaled(self, params: Any, x: Any, rng: Rng) -> Tensor:
        """Divide the weight by the standard deviation of the output until it is near 1; with zero biases, once is enough."""
        w = self.search.first(self.path)
        for _ in range(self.search.iterations):
            y = self.original.apply({**params, "weight": w.to(params["weight"].dtype)}, x, rng)[0]
            variance = in_single(y).var(correction=0)
            if is_plain(variance) and not (variance > 0 and variance.isfinite()):
                rule = f"the output of the layer at {self.path.rpartition('.')[0]!r} must vary over x"
                raise value_error("lsuv", rule, f"the variance {variance.item():g}")
            near = (variance - 1).abs() <= self.search.tolerance
            if is_plain(near) and near:
                break
            w = torch.where(near, w, (w / variance.sqrt()).to(w.dtype))
        return w


def lsuv(
    net: Layer,
    params: Params,
    x: Any,
    rng: Key | int | None = None,
    *,
    tolerance: float = 0.01,
    iterations: int = 10,
) -> Params:
    """Return params that give the output of every linear layer and convolution variance 1: LSUV initialization.

        w ← orthonormal        w ← w / √var(y)        for one layer after the other, in the order in which they run

    The net runs once. Each layer draws an orthonormal weight and scales it, and the layers after it see its scaled output. Layers
    in branches and residuals take part. Layers in ``freeze`` keep their weights, and so do layers whose weight is stored in
    another form, as in ``ensemble``, ``repeat`` and ``weight_norm``. All other params stay the same.

    Args:
        net: The net for training, not its ``inference()``.
        params: Its params.
        x: A batch of its input.
        rng: The key of the orthonormal weights, and of a stochastic net; with ``None`` the weights in ``params`` are scaled.
        tolerance: Largest accepted distance of a variance from 1.
        iterations: Largest number of times that a weight is scaled.

    Returns:
        The new params.

    Raises:
        ValueError: If the net has no linear layer or convolution to scale, or an output does not vary.

    References:
        Mishkin & Matas 2016, algorithm 1, with a tolerance of 0.1.

    >>> from funcnet.combinators.sequential import serial
    >>> from funcnet.layers.activation.sigmoids import Tanh
    >>> from funcnet.layers.linear.linear import Linear
    >>> net, x = serial(Linear(8, 32), Tanh(), Linear(32, 16)), random.normal(1, (64, 8))
    >>> params = lsuv(net, net.init(0), x, 2)
    >>> round(net(params, x).var().item(), 1)
    1.0
    """
    require_layer("lsuv", net)
    if not is_number(tolerance) or tolerance < 0 or not is_whole(iterations) or iterations < 1:
        rule = "tolerance must be a finite number of at least 0, and iterations a whole number of at least 1"
        raise value_error("lsuv", rule, f"{describe(tolerance)} and {describe(iterations)}")
    draws, noise = (None, None) if rng is None else random.split(rng)
    search = _Search(params, draws, float(tolerance), iterations)
    _with_scaling(net, "", search).apply(params, x, noise if net.stochastic else None)
    if not search.found:
        raise value_error("lsuv", "the net must have a linear layer or convolution to scale", repr(net))
    made: Params = tree.map_with_path(search.found.get, params)
    return made


def _with_scaling(layer: Layer, path: str, search: _Search) -> Layer:
    """Return a net whose layers with weights scale them."""
    if not layer.trainable:
        return layer
    inner = {name: _with_scaling(child, join(path, name) if name else path, search) for name, child in children_of(layer).items()}
    layer = with_stand_ins(layer, inner)
    if inner or layer.weight_output_axis is None:
        return layer
    return stand_in_for(layer, _Scaling, path=join(path, "weight"), search=search)
