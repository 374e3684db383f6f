"""Adapters: add low-rank adapters to a trained net, and merge them into its weights."""

from collections.abc import Callable

from torch import Tensor

from funcnet import tree
from funcnet.combinator import Combinator
from funcnet.combinators.low_rank import LoRA, lora
from funcnet.contract import Layer, Params
from funcnet.errors import adds_location, describe, value_error
from funcnet.flattening import join
from funcnet.layers.linear.linear import Linear
from funcnet.random.keys import Key
from funcnet.walking import map_layers, require_layer, walk


def _is_linear(path: str, layer: Layer) -> bool:
    return type(layer) is Linear


@adds_location("add_lora")
def add_lora(
    net: Layer,
    params: Params,
    rank: int,
    rng: Key | int,
    *,
    alpha: float | None = None,
    where: Callable[[str, Layer], bool] = _is_linear,
) -> tuple[Layer, Params]:
    """Add low-rank adapters to the layers of a trained net, and their params to its params.

        y = f(w, x) → f(w + (alpha / rank) b a, x)      a random, b = 0 at first

    The adapted net predicts the same at first. Params of layers without an adapter still train; ``freeze`` the layers that should
    not. ``merge_lora`` is the inverse.

    Args:
        net: The net.
        params: Its params.
        rank: Rank of the update of each weight.
        rng: A key or an int seed, for the random ``lora_A``.
        alpha: The update is multiplied by alpha / rank. By default alpha = rank.
        where: A function of path and layer that chooses the layers to adapt. By default each ``Linear``.

    Returns:
        The adapted net and its params.

    Raises:
        ValueError: If a chosen layer has no ``weight`` of at least two axes.
        LookupError: If ``params`` lack the weight of a chosen layer.

    References:
        Hu et al. 2022, section 4.1.

    >>> from funcnet.combinators.sequential import serial
    >>> net = serial(Linear(8, 8), Linear(8, 2))
    >>> adapted, params = add_lora(net, net.init(0), 1, rng=1, where=lambda path, layer: path == "0")
    >>> adapted
    serial(lora(Linear(in_features=8, out_features=8), 1, alpha=1), Linear(in_features=8, out_features=2))
    >>> params[0]["lora_A"].shape
    torch.Size([1, 8])
    """
    before = _adapters(require_layer("add_lora", net))
    adapted = map_layers(lambda path, one: lora(one, rank, alpha) if where(path, one) else one, net, with_path=True)
    fresh = adapted.init(rng)
    for path in [path for path in _adapters(adapted) if path not in before]:
        w, drawn = tree.at(params, join(path, "weight") if path else "weight"), tree.at(fresh, path)
        if not isinstance(w, Tensor):
            raise value_error("add_lora", f"params must have a tensor at {join(path, 'weight')!r}", describe(w))
        adapters = {name: drawn[name].to(w) for name in ("lora_A", "lora_B")}
        params = tree.replace(params, path, {"layer": tree.at(params, path), **adapters})
    return adapted, params


def _adapters(net: Layer) -> list[str]:
    return [path for path, layer in walk(net) if isinstance(layer, LoRA)]


@adds_location("merge_lora")
def merge_lora(net: Layer, params: Params) -> tuple[Layer, Params]:
    """Remove the adapters of a net, and add their updates to its weights.

        w' = w + (alpha / rank) b a

    The merged net predicts the same, and costs no more than the net without adapters. Adapters inside ``tied`` and
    ``parametrize`` stay; all others are merged. A stochastic layer that had an adapter draws different noise than before.

    Args:
        net: The net.
        params: Its params.

    Returns:
        The net without adapters and its params.

    Raises:
        ValueError: If ``net`` is not a layer, or ``params`` do not match the net.

    >>> from funcnet.combinators.sequential import serial
    >>> net = serial(lora(Linear(4, 3), 1), lora(Linear(3, 2), 1))
    >>> merge_lora(net, net.init(0))[0]
    serial(Linear(in_features=4, out_features=3), Linear(in_features=3, out_features=2))
    """
    return _merge(require_layer("merge_lora", net), params)


def _merge(net: Layer, params: Params) -> tuple[Layer, Params]:
    if not isinstance(net, Combinator):
        return net, params
    net, params = net.map_with_params(_merge, params)
    return (net.layer, net.merged(params)) if isinstance(net, LoRA) else (net, params)
