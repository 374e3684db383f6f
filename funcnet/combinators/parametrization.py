"""Parametrization: a layer one of whose params, w, is computed from other, trained tensors; y = f(w, x).

    w = h(r)      gr = h's vjp of gw      r the original, at first what the layer drew for w

gw, gx = f's vjp of gy, and h is any layer. ``weight_norms`` and ``orthogonality`` have some that find r for the w drawn.
"""

from abc import abstractmethod
from typing import Any, Self

from attrs import field
from torch import Tensor

from funcnet import random
from funcnet.combinator import Children, Combinator, Rewrite, child_key, errors_at, layers_only
from funcnet.contract import Cache, Grads, Layer, Params, Rng, Shape
from funcnet.errors import describe, instances, value_error
from funcnet.random.keys import Key
from funcnet.value import frozen

_GROUP = "parametrizations"


class Parametrization(Layer):
    """A layer that makes a weight, with originals that it finds for the weight that the parametrized layer drew."""

    __slots__ = ()

    def param_shapes(self) -> dict[str, Shape] | None:
        return None

    @abstractmethod
    def initial(self, rng: Key | int, w: Tensor) -> tuple[Params, Any]:
        """Return params and originals that give w, or nearly."""

    @abstractmethod
    def call(self, layer: Layer, name: str) -> str:
        """Return the call that makes the parametrized layer."""


@frozen
class Parametrized(Combinator):
    """A layer one of whose params is made by another layer; made by ``parametrize``, ``weight_norm`` and ``spectral_norm``.

    Its children are the layer, which has the same path, and at ``parametrizations.weight.0`` the layer that makes the weight.

    Params   the layer's without the one that is made, and ``parametrizations.weight`` (or another name) with ``original``, or
             ``original0``, ``original1``, and under ``0`` the params of what makes it: the names of ``torch.nn.utils``.
    Cache    the layer's, the made weight, and the cache of what made it.
    Raises   ``ValueError`` for a layer whose params have no tensor of that name, one that makes a weight of another shape or
             takes a key, and ``params`` of other names; the layer's own errors get a note.
    """

    label = "parametrize"
    computes_as_one = True

    layer: Layer = field(validator=layers_only)
    parametrization: Layer = field(validator=layers_only)
    name: str = field(default="weight", validator=instances(str, "a name in the layer's params"))

    def __attrs_post_init__(self) -> None:
        if self.parametrization.stochastic:
            raise value_error("parametrize", "the parametrization may not be stochastic", repr(self.parametrization))

    def location(self, name: Any) -> str:
        return f"parametrize, {self.name}" if name else "parametrize"

    def children(self) -> Children:
        return {"": self.layer, f"{_GROUP}.{self.name}.0": self.parametrization}

    def with_children(self, children: Children) -> Self:
        layer, parametrization = children.values()
        return self.replace(layer=layer, parametrization=parametrization)

    @property
    def batch_dependent(self) -> bool:
        return self.layer.batch_dependent

    def init(self, rng: Key | int) -> Params:
        with errors_at(self, ""):
            inner = self.layer.init(random.fold_in(rng, 0))
        w = inner.get(self.name) if isinstance(inner, dict) else None
        if not isinstance(w, Tensor):
            raise value_error("parametrize", f"the layer's params must have a tensor {self.name}", describe(inner))
        key, maker = random.fold_in(rng, 1), self.parametrization
        with errors_at(self, self.name):
            p, raw = maker.initial(key, w) if isinstance(maker, Parametrization) else (maker.init(key), w)
            made = maker(p, raw)
        if not isinstance(made, Tensor) or made.shape != w.shape:
            raise value_error("parametrize", f"{maker} must give a {self.name} of shape {tuple(w.shape)}", made)
        return self._joined(inner, raw, p)

    def merged(self, params: Params) -> Params:
        """Return params for the layer itself, with the weight that is made."""
        raw, p = self._sources(params)
        with errors_at(self, self.name):
            w = self.parametrization(p, raw)
        return self._inner(params, w)

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        w, made = self._made(params)
        with errors_at(self, ""):
            y, cache = self.layer.apply(self._inner(params, w), x, child_key(self.layer, rng, 0))
        return y, (cache, w, made)

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        inner = self.merged(params)
        with errors_at(self, ""):
            return self.layer(inner, x, child_key(self.layer, rng, 0))

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        inner, w, made = cache
        with errors_at(self, ""):
            ginner, gx = self.layer.vjp(self._inner(params, w), inner, gy)
        return self._gparams(params, made, ginner), gx

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        inner, w, made = cache
        with errors_at(self, ""):
            ginner = self.layer.grads(self._inner(params, w), inner, gy)
        return self._gparams(params, made, ginner)

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        inner, w, _ = cache
        with errors_at(self, ""):
            return self.layer.input_grad(self._inner(params, w), inner, gy)

    def update_stats(self, params: Params, cache: Cache) -> Params:
        inner, w, made = cache
        raw, p = self._sources(params)
        with errors_at(self, ""):
            moved = self.layer.update_stats(self._inner(params, w), inner)
        with errors_at(self, self.name):
            return self._joined(moved, raw, self.parametrization.update_stats(p, made))

    def infer(self, x: Any) -> tuple[Self, Any]:
        with errors_at(self, ""):
            layer, y = self.layer.infer(x)
        return self.replace(layer=layer), y

    def map_with_params(self, f: Rewrite, params: Params) -> tuple[Self, Params]:
        """Change nothing: the params of the layers within are shared or computed, so none can be rewritten with its params."""
        return self, params

    def __repr__(self) -> str:
        if isinstance(self.parametrization, Parametrization):
            return self.parametrization.call(self.layer, self.name)
        return f"parametrize({self.layer!r}, {self.parametrization!r}, {self.name!r})"

    def _sources(self, params: Params) -> tuple[Any, Params]:
        """Return the originals and the params of what makes the weight."""
        entry = params.get(_GROUP, {}).get(self.name) if isinstance(params, dict) else None
        if not isinstance(entry, dict) or "0" not in entry or not entry.keys() & {"original", "original0"}:
            rule = f"params must have {_GROUP}.{self.name}, a dict with the originals and the params 0"
            raise value_error("parametrize", rule, describe(params))
        if "original" in entry:
            return entry["original"], entry["0"]
        return tuple([entry[f"original{i}"] for i in range(len(entry) - 1)]), entry["0"]

    def _made(self, params: Params) -> tuple[Tensor, Cache]:
        raw, p = self._sources(params)
        with errors_at(self, self.name):
            return self.parametrization.apply(p, raw)

    def _inner(self, params: Any, w: Tensor) -> Params:
        """Return the layer's params; other reparametrizations stay, for a layer that is reparametrized itself."""
        others = {name: entry for name, entry in params[_GROUP].items() if name != self.name}
        rest = {name: leaf for name, leaf in params.items() if name != _GROUP}
        return {**rest, self.name: w, **({_GROUP: others} if others else {})}

    def _joined(self, inner: Any, raw: Any, p: Grads) -> Params:
        """Put what makes the weight in its place: the way back from ``_inner``."""
        originals = {f"original{i}": one for i, one in enumerate(raw)} if isinstance(raw, tuple) else {"original": raw}
        rest = {name: leaf for name, leaf in inner.items() if name not in (self.name, _GROUP)}
        return {**rest, _GROUP: {**inner.get(_GROUP, {}), self.name: {**originals, "0": p}}}

    def _gparams(self, params: Params, made: Cache, ginner: Grads) -> Params:
        with errors_at(self, self.name):
            gp, graw = self.parametrization.vjp(self._sources(params)[1], made, ginner[self.name])
        return self._joined(ginner, graw, gp)


def parametrize(layer: Layer, parametrization: Layer, name: str = "weight") -> Parametrized:
    """Compute one param of a layer from another, trained tensor: the weight of ``parametrize(Linear(4, 3), Exp())`` is > 0.

    ``parametrization`` is the layer that computes the param called ``name``, from an original that begins as what ``layer``
    draws for it. ``merged(params)`` are params for the layer itself.
    """
    return Parametrized(layer, parametrization, name)
