"""Parametrization: compute one param w of a layer from other, trained tensors r.

    w  = h(r)               y = f(w, x)
    gr = h.vjp of gw        gw, gx = f.vjp of gy

h is any layer, and r starts as the initial w of f. A ``Parametrization`` computes the r that gives this w; ``weight_norms`` and
``orthogonality`` define some.
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
    """Base of layers that compute a weight, and that find the original tensors for a given weight.

    Subclass it with ``@frozen``; define ``apply`` from the originals to the weight, ``vjp``, ``initial`` and ``call``.
    """

    __slots__ = ()

    def param_shapes(self) -> dict[str, Shape] | None:
        return None

    @abstractmethod
    def initial(self, rng: Key | int, w: Tensor) -> tuple[Params, Any]:
        """Return params and originals from which ``apply`` computes w, exactly or nearly.

        Args:
            rng: A key or seed, for random params.
            w: The initial weight of the parametrized layer.
        """

    @abstractmethod
    def call(self, layer: Layer, name: str) -> str:
        """Return the call that builds the parametrized layer, as source code, for its ``repr``.

        Args:
            layer: The layer whose weight is computed.
            name: Name of the weight in its params.
        """


@frozen
class Parametrized(Combinator):
    """A layer with one param that another layer computes; made by ``parametrize``, ``weight_norm`` and others.

        w  = h(r)               y = f(w, x)
        gr = h.vjp of gw        gw, gx = f.vjp of gy

    Its children are the layer, at the same path, and the parametrization, at ``parametrizations.weight.0``.

    Args:
        layer: The layer f.
        parametrization: The layer h from the originals to the param.
        name: Name of the param in the params of ``layer``.

    Params:
        The layer's params without the computed param, and ``parametrizations.weight`` (or another name) with ``original``, or
        ``original0`` and ``original1``, and under ``0`` the params of the parametrization: the names of ``torch.nn.utils``.

    Cache:
        The layer's cache, the computed weight, and the cache of the parametrization.

    Raises:
        ValueError: If the layer has no param of this name, or the parametrization is stochastic or returns another shape.
    """

    label = "parametrize"
    computes_as_one = True

    layer: Layer = field(validator=layers_only)
    parametrization: Layer = field(validator=layers_only)
    name: str = field(default="weight", validator=instances(str, "a name in the layer's params"))

    def __attrs_post_init__(self) -> None:
        if self.parametrization.stochastic:
            raise value_error("parametrize", "the parametrization must not be stochastic", repr(self.parametrization))

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
            raise value_error("parametrize", f"{maker} must return a {self.name} of shape {tuple(w.shape)}", made)
        return self._joined(inner, raw, p)

    def merged(self, params: Params) -> Params:
        """Return params for the layer itself, with the computed weight.

        Args:
            params: Params of the parametrized layer.
        """
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
        """Change nothing: the weight is computed, so the layer cannot be rewritten together with its params."""
        return self, params

    def __repr__(self) -> str:
        if isinstance(self.parametrization, Parametrization):
            return self.parametrization.call(self.layer, self.name)
        return f"parametrize({self.layer!r}, {self.parametrization!r}, {self.name!r})"

    def _sources(self, params: Params) -> tuple[Any, Params]:
        """Return the originals and the params of the parametrization."""
        entry = params.get(_GROUP, {}).get(self.name) if isinstance(params, dict) else None
        if not isinstance(entry, dict) or "0" not in entry or not entry.keys() & {"original", "original0"}:
            rule = f"params must have a dict {_GROUP}.{self.name} with the originals, and params under 0"
            raise value_error("parametrize", rule, describe(params))
        if "original" in entry:
            return entry["original"], entry["0"]
        return tuple([entry[f"original{i}"] for i in range(len(entry) - 1)]), entry["0"]

    def _made(self, params: Params) -> tuple[Tensor, Cache]:
        raw, p = self._sources(params)
        with errors_at(self, self.name):
            return self.parametrization.apply(p, raw)

    def _inner(self, params: Any, w: Tensor) -> Params:
        """Return the layer's params, including other parametrizations, for a layer with several."""
        others = {name: entry for name, entry in params[_GROUP].items() if name != self.name}
        rest = {name: leaf for name, leaf in params.items() if name != _GROUP}
        return {**rest, self.name: w, **({_GROUP: others} if others else {})}

    def _joined(self, inner: Any, raw: Any, p: Grads) -> Params:
        """Put the originals and the params of the parametrization in their place; the inverse of ``_inner``."""
        originals = {f"original{i}": one for i, one in enumerate(raw)} if isinstance(raw, tuple) else {"original": raw}
        rest = {name: leaf for name, leaf in inner.items() if name not in (self.name, _GROUP)}
        return {**rest, _GROUP: {**inner.get(_GROUP, {}), self.name: {**originals, "0": p}}}

    def _gparams(self, params: Params, made: Cache, ginner: Grads) -> Params:
        with errors_at(self, self.name):
            gp, graw = self.parametrization.vjp(self._sources(params)[1], made, ginner[self.name])
        return self._joined(ginner, graw, gp)


def parametrize(layer: Layer, parametrization: Layer, name: str = "weight") -> Parametrized:
    """Compute one param of a layer from another, trained tensor.

        w  = h(r)               y = f(w, x)
        gr = h.vjp of gw        gw, gx = f.vjp of gy

    ``merged(params)`` of the result returns params for ``layer`` itself.

    Args:
        layer: The layer f.
        parametrization: The layer h from the original r to the param w. r starts as the initial w, unless h is a
            ``Parametrization``, which computes the initial r from w.
        name: Name of the param in the params of ``layer``.

    Params:
        The layer's params without w, and ``parametrizations.weight.original``, as in ``torch.nn.utils.parametrize``.

    Cache:
        The layer's cache, the computed param, and the cache of the parametrization.

    Raises:
        ValueError: If the layer has no param of this name, or the parametrization is stochastic or returns another shape.

    >>> from funcnet.layers.activation.elementary import Exp
    >>> from funcnet.layers.linear.linear import Linear
    >>> net = parametrize(Linear(4, 3), Exp())
    >>> bool((net.merged(net.init(0))["weight"] > 0).all())
    True
    """
    return Parametrized(layer, parametrization, name)
