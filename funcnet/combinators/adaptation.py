"""Adaptation: a layer with its params held, and a change of low rank of its weight that is trained.

w' = w + s b a      w as a matrix (out, rest), a (rank, rest), b (out, rank), s = alpha / rank;      y = f(w', x)
ga = s bᵀ gw'       gb = s gw' aᵀ      gw' and gx by f's vjp; there is no gradient of w and the rest of f's params
"""

from typing import Any, Self

from attrs import field
from torch import Tensor

from funcnet import initializers, random, tree
from funcnet.combinators import children
from funcnet.errors import describe, located, number, size, wrong
from funcnet.layer import Cache, Layer, Params, frozen
from funcnet.random import Key


@frozen
class LoRA(children.Wrapper):
    """A layer whose weight is changed by a product of two narrow matrices, which alone are trained; made by ``lora``.

    Params   ``layer``, the layer's; ``lora_A`` (rank, rest of the weight), drawn as ``torch.nn.Linear`` draws its weight, and
             ``lora_B`` (out, rank), zeros, so that at first nothing is changed.
    Cache    the layer's.
    Raises   ``ValueError`` for a rank below 1, a layer whose params have no ``weight`` of two axes at least, and ``params`` of
             other names; the layer's own errors get a note.
    Source   Hu et al. 2022, section 4.1.
    """

    layer: Layer = field(validator=children.layers_only)
    rank: int = field(validator=size)
    alpha: float = field(validator=number())

    untrained = ("layer",)

    def init(self, rng: Key | int) -> Params:
        params = self.layer.init(random.fold_in(rng, 0))
        w = params.get("weight") if isinstance(params, dict) else None
        if not isinstance(w, Tensor) or w.dim() < 2:
            raise wrong("lora", "the layer's params must have a weight of two axes at least", describe(params))
        a = initializers.drawn(random.fold_in(rng, 1), (self.rank, w[0].numel()), "torch")
        return {"layer": params, "lora_A": a.to(w.dtype), "lora_B": w.new_zeros(len(w), self.rank)}

    def merged(self, params: Params) -> Params:
        """Return params for the layer itself, with the change in its weight."""
        if not isinstance(params, dict) or params.keys() != {"layer", "lora_A", "lora_B"}:
            raise wrong("lora", "params must be a dict with the keys layer, lora_A, lora_B", describe(params))
        inner = params["layer"]
        change = (params["lora_B"] @ params["lora_A"]).reshape(inner["weight"].shape)
        return {**inner, "weight": inner["weight"] + change * self._scale()}

    def apply(self, params: Params, x: Any, rng: Key | int | None = None) -> tuple[Any, Cache]:
        arguments: Any = (x,) if rng is None else (x, rng)
        try:
            y, cache = self.layer.apply(self.merged(params), *arguments)
            return y, cache
        except Exception as error:
            located(error, "lora")
            raise

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Params, Any]:
        ginner, gx = self.layer.vjp(self.merged(params), cache, gy)
        return self._gparams(params, ginner), gx

    def grads(self, params: Params, cache: Cache, gy: Any) -> Params:
        return self._gparams(params, self.layer.grads(self.merged(params), cache, gy))

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        return self.layer.input_grad(self.merged(params), cache, gy)

    def update_stats(self, params: Params, cache: Cache) -> Params:
        return {**params, "layer": self.layer.update_stats(params["layer"], cache)}

    def _sized(self, x: Any) -> tuple[Self, Any]:
        layer, y = children.at("lora", self.layer._sized, x)
        return self.replace(layer=layer), y

    def inference(self) -> Self:
        return self.replace(layer=self.layer.inference())

    def __repr__(self) -> str:
        return f"lora({self.layer!r}, {self.rank}, alpha={self.alpha!r})"

    def _gparams(self, params: Params, ginner: Params) -> Params:
        gw = ginner["weight"].flatten(1) * self._scale()
        held = tree.map(lambda _: None, params["layer"])
        return {"layer": held, "lora_A": params["lora_B"].mT @ gw, "lora_B": gw @ params["lora_A"].mT}

    def _scale(self) -> float:
        return self.alpha / self.rank

    def _shapes(self) -> None:
        return None


def lora(layer: Layer, rank: int, alpha: float | None = None) -> LoRA:
    """Hold a layer's params, and train a change of rank ``rank`` of its weight, times alpha / rank (1 where it is not given).

    For any layer with a ``weight``: ``lora(Linear(64, 64), 4)``. ``merged(params)`` are params for the layer itself.
    """
    return LoRA(layer, rank, rank if alpha is None else alpha)
