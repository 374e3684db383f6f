"""Fresh running statistics for params that no training step has seen, like averaged params."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import random, tree
from funcnet.combinator import Combinator
from funcnet.contract import Layer, Params
from funcnet.errors import value_error
from funcnet.flattening import join
from funcnet.layers.norm.params import momentum_or_none
from funcnet.random.keys import Key
from funcnet.value import Value, frozen
from funcnet.walking import children_of, map_layers, require_layer


def refresh_stats(
    net: Layer, params: Params, batches: Iterable[Any], momentum: float | None = None, rng: Key | int | None = None
) -> Params:
    """Return params with running statistics recomputed from batches, like ``torch.optim.swa_utils.update_bn``.

        stats ← initial values        stats ← update_stats for each batch

    Averaged params from ``EMA`` or ``SWA`` contain running statistics that do not match the averaged weights. This function runs
    ``net`` on some batches in training form, and collects new statistics. All other params stay the same, and so do statistics
    that training does not move, like those of ``freeze(layer.inference())``.

    Args:
        net: The net for training, not its ``inference()``.
        params: Its params.
        batches: The x of each batch, without targets: ``x.split(100)``.
        momentum: The momentum of all norms while collecting; ``None`` for the mean over all batches.
        rng: The key of a stochastic net; batch i has ``fold_in(rng, i)``.

    Returns:
        The new params.

    Raises:
        ValueError: If there are no batches, or a tensor instead of batches, or ``momentum`` is not from 0 to 1.

    References:
        Izmailov et al. 2018, "Averaging weights leads to wider optima", section 3.2.

    >>> import torch
    >>> from funcnet.layers.norm.batch_norm import BatchNorm1d
    >>> net = BatchNorm1d(1)
    >>> x = torch.tensor([[1.0], [3.0]])
    >>> refresh_stats(net, net.init(0), [x, x + 1])["running_mean"]
    tensor([2.5000])
    """
    require_layer("refresh_stats", net)
    _Momentum(momentum)
    if not net.has_running_stats:
        return params
    fresh = _initial_stats(net)
    params = tree.map_with_path(lambda path, p: fresh[path].to(p).expand_as(p).clone() if path in fresh else p, params)
    collecting, count = map_layers(lambda layer: layer.replace(momentum=momentum) if _is_norm(layer) else layer, net), 0
    with torch.no_grad():
        for count, x in enumerate(_require_batches(batches), 1):
            _, cache = collecting.apply(params, x, None if rng is None else random.fold_in(rng, count - 1))
            params = collecting.update_stats(params, cache)
    if not count:
        raise value_error("refresh_stats", "batches must hold the x of at least one batch", "none")
    return params


def _require_batches(batches: Any) -> Iterable[Any]:
    """Return the batches. A tensor raises ``ValueError``: it would be read as a list of rows."""
    if not isinstance(batches, Iterable) or isinstance(batches, Tensor):
        raise value_error(
            "refresh_stats", "batches must be a list of batches, or an iterable of them, such as x.split(100)", batches
        )
    return batches


@frozen
class _Momentum(Value):
    label = "refresh_stats"

    momentum: float | None = field(validator=momentum_or_none)


def _is_norm(layer: Layer) -> bool:
    return not isinstance(layer, Combinator) and layer.has_running_stats and hasattr(layer, "momentum")


def _initial_stats(net: Layer) -> dict[str, Any]:
    """Return the initial statistics of every norm by path: params that evaluation reads but nothing trains, and counters."""
    found: dict[str, Any] = {}
    for path, layer in _norms(net, ""):
        names = layer.inference().non_trainable
        first: Any = layer.init(0)
        found |= {join(path, name): one for name, one in first.items() if name in names or not one.is_floating_point()}
    return found


def _norms(layer: Layer, path: str) -> Iterator[tuple[str, Layer]]:
    """Yield the norms whose statistics move, with their paths."""
    if _is_norm(layer):
        yield path, layer
    for name, child in children_of(layer).items() if layer.has_running_stats else ():
        yield from _norms(child, join(path, name) if name else path)
