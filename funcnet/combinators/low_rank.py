"""Adaptation: a layer with its params held, and a change of low rank of its weight that is trained.

w' = w + s b a      w as a matrix (out, rest), a (rank, rest), b (out, rank), s = alpha / rank;      y = f(w', x)
ga = s bᵀ gw'       gb = s gw' aᵀ      gw' and gx by f's vjp; there is no gradient of w and the rest of f's params

of a Linear, where neither w' nor gw' is made:      y = f(w, x) + s h bᵀ, h = x aᵀ
ga = s (gy b)ᵀ x    gb = s gyᵀ h       gx = gy w + s (gy b) a
"""

from collections.abc import Callable
from typing import Any, Self

import torch
from attrs import field
from torch import Tensor

from funcnet import initializers, random, tree
from funcnet.checks import check_gy, require_kind
from funcnet.combinator import Children, Combinator, Rewrite, child_key, errors_at, layers_only
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.errors import adds_location, describe, number, size, value_error
from funcnet.flattening import join
from funcnet.kernels import linear
from funcnet.layers.linear.linear import Linear
from funcnet.random.keys import Key
from funcnet.value import frozen
from funcnet.walking import map_layers, require_layer, walk


@frozen
class LoRA(Combinator):
    """A layer whose weight is changed by a product of two narrow matrices, which alone are trained; made by ``lora``.

    Params   ``layer``, the layer's; ``lora_A`` (rank, rest of the weight), drawn as ``torch.nn.Linear`` draws its weight, and
             ``lora_B`` (out, rank), zeros, so that at first nothing is changed.
    Cache    the layer's; of a Linear ``x`` and ``x`` times ``lora_A``.
    Raises   ``ValueError`` for a rank below 1, a layer whose params have no ``weight`` of two axes at least, and ``params`` of
             other names; the layer's own errors get a note.
    Source   Hu et al. 2022, section 4.1.
    """

    label = "lora"

    layer: Layer = field(validator=layers_only)
    rank: int = field(validator=size)
    alpha: float = field(validator=number())

    non_trainable = ("layer",)
    computes_as_one = True

    def location(self, name: Any) -> str:
        return "lora"

    def children(self) -> Children:
        return {"layer": self.layer}

    def with_children(self, children: Children) -> Self:
        return self.replace(layer=children["layer"])

    def init(self, rng: Key | int) -> Params:
        with errors_at(self, "layer"):
            params = self.layer.init(random.fold_in(rng, 0))
        w = params.get("weight") if isinstance(params, dict) else None
        if not isinstance(w, Tensor) or w.dim() < 2:
            raise value_error("lora", "the layer's params must have a weight of two axes at least", describe(params))
        a = initializers.initialize(random.fold_in(rng, 1), (self.rank, w[0].numel()), "torch")
        return {"layer": params, "lora_A": a.to(w.dtype), "lora_B": w.new_zeros(len(w), self.rank)}

    def merged(self, params: Any) -> Params:
        """Return params for the layer itself, with the change in its weight."""
        inner, a, b = self._parts(params)
        change = (b @ a).reshape(inner["weight"].shape)
        return {**inner, "weight": inner["weight"] + change * self._scale()}

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        with errors_at(self, "layer"):
            if self._thin():
                return self._beside(params, x)
            return self.layer.apply(self.merged(params), x, child_key(self.layer, rng, 0))

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        with errors_at(self, "layer"):
            if self._thin():
                return self._beside(params, x)[0]
            return self.layer(self.merged(params), x, child_key(self.layer, rng, 0))

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        if self._thin():
            return self.grads(params, cache, gy), self.input_grad(params, cache, gy)
        with errors_at(self, "layer"):
            ginner, gx = self.layer.vjp(self.merged(params), cache, gy)
        return self._gparams(params, ginner), gx

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        if not self._thin():
            with errors_at(self, "layer"):
                return self._gparams(params, self.layer.grads(self.merged(params), cache, gy))
        (x, h), (_, _, b) = cache, self._parts(params)
        check_gy(self, gy, (*x.shape[:-1], len(b)), x)
        gh = linear.matmul_input_grad(gy * self._scale(), b)
        gb = linear.matmul_weight_grad(gy, h * self._scale())
        return self._held(params["layer"], linear.matmul_weight_grad(gh, x), gb)

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        with errors_at(self, "layer"):
            if not self._thin():
                return self.layer.input_grad(self.merged(params), cache, gy)
            inner, a, b = self._parts(params)
            gx = self.layer.input_grad(inner, cache[0], gy)
            return gx + linear.matmul_input_grad(linear.matmul_input_grad(gy, b) * self._scale(), a)

    def update_stats(self, params: Any, cache: Cache) -> Params:
        with errors_at(self, "layer"):
            return {**params, "layer": self.layer.update_stats(params["layer"], cache)}

    def map_with_params(self, f: Rewrite, params: Any) -> tuple[Self, Params]:
        layer, inner = f(self.layer, self._parts(params)[0])
        return self.with_children({"layer": layer}), {**params, "layer": inner}

    def infer(self, x: Any) -> tuple[Self, Any]:
        with errors_at(self, "layer"):
            layer, y = self.layer.infer(x)
        return self.replace(layer=layer), y

    def __repr__(self) -> str:
        return f"lora({self.layer!r}, {self.rank}, alpha={self.alpha!r})"

    def _thin(self) -> bool:
        """Tell whether x goes through the narrow matrices: of 1024×1024, rank 8, 256 rows 2.9 and 3.3 ms, by w' 4.7 and 10."""
        return type(self.layer) is Linear

    def _beside(self, params: Params, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        inner, a, b = self._parts(params)
        y, h = self.layer.apply(inner, x)[0], linear.linear(x, a)
        return torch.add(y, linear.linear(h, b), alpha=self._scale()), (x, h)

    def _gparams(self, params: Params, ginner: Grads) -> Params:
        gw = ginner["weight"].flatten(1) * self._scale()
        return self._held(ginner, params["lora_B"].mT @ gw, gw @ params["lora_A"].mT)

    def _held(self, inner: Any, ga: Tensor, gb: Tensor) -> Params:
        """Return the gradients, with ``None`` for those of the layer; ``inner`` are its params, or gradients."""
        none = dict.fromkeys(inner) if self._thin() else tree.map(lambda _: None, inner)
        return {"layer": none, "lora_A": ga, "lora_B": gb}

    def _parts(self, params: Params) -> tuple[Any, Tensor, Tensor]:
        """Return the layer's params, ``lora_A`` and ``lora_B``, which must fit the weight: products and sums would broadcast."""
        if not isinstance(params, dict) or params.keys() != {"layer", "lora_A", "lora_B"}:
            raise value_error("lora", "params must be a dict with the keys layer, lora_A, lora_B", describe(params))
        inner, a, b = params["layer"], params["lora_A"], params["lora_B"]
        shapes = (self.rank, inner["weight"].shape[1:].numel()), (inner["weight"].shape[0], self.rank)
        if (a.shape, b.shape) != shapes:
            rule = "lora_A must have the shape {}, and lora_B {}".format(*shapes)
            raise value_error("lora", rule, f"{tuple(a.shape)} and {tuple(b.shape)}")
        require_kind(self, {"lora_A": a, "lora_B": b}, inner["weight"])
        return inner, a, b

    def _scale(self) -> float:
        return self.alpha / self.rank


def lora(layer: Layer, rank: int, alpha: float | None = None) -> LoRA:
    """Hold a layer's params, and train a change of rank ``rank`` of its weight, times alpha / rank (1 where it is not given).

    For any layer with a ``weight``: ``lora(Linear(64, 64), 4)``. ``merged(params)`` are params for the layer itself. A trained
    net gets its adapters with ``add_lora``, and loses them with ``merge_lora``.
    """
    return LoRA(layer, rank, rank if alpha is None else alpha)


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
    """Return a trained net with adapters of low rank around its layers, and its params with theirs: it predicts the same.

        y = f(w, x) → f(w + (alpha / rank) b a, x)      a drawn, b = 0 at first

    The params of layers without an adapter still train; ``freeze`` those that should not. ``merge_lora`` is the way back.

    Args:
        net: The net.
        params: Its params.
        rank: Rank of the change of each weight.
        rng: A key or an int seed, from which each ``lora_A`` is drawn.
        alpha: The change is multiplied by alpha / rank; by default by 1.
        where: A function of the path and the layer that says which layers get an adapter: each ``Linear`` by default.

    Raises:
        ValueError: A layer that ``where`` chooses has no ``weight`` of two axes at least; as ``lora``.
        LookupError: ``params`` lack the weight of such a layer.

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
    """Return the net without its adapters, and params that predict the same: each weight with the change that was trained.

        w' = w + (alpha / rank) b a

    It reaches the layers within every combinator but ``tied`` and ``parametrize``. A net so merged costs no more than before
    ``lora``. A stochastic layer that had an adapter draws other noise than before.

    Args:
        net: The net.
        params: Its params.

    Raises:
        ValueError: ``net`` is no layer, or ``params`` are not those of the net.

    >>> from funcnet.combinators.sequential import serial
    >>> net = serial(lora(Linear(4, 3), 1), lora(Linear(3, 2), 1))
    >>> merge_lora(net, net.init(0))[0]
    serial(Linear(in_features=4, out_features=3), Linear(in_features=3, out_features=2))
    """
    return _merged(require_layer("merge_lora", net), params)


def _merged(net: Layer, params: Params) -> tuple[Layer, Params]:
    if not isinstance(net, Combinator):
        return net, params
    net, params = net.map_with_params(_merged, params)
    return (net.layer, net.merged(params)) if isinstance(net, LoRA) else (net, params)
