"""Wrappers: combinators of one layer that have its params.

A wrapper adds no component to paths, and passes its key on. A ``Rearranging`` wrapper only moves elements of x:

    y = M⁻¹ f(p, M x)      gp, g = f.vjp(p, c, M gy)      gx = M⁻¹ g      M a permutation or a reshape of the elements
"""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Self, TypeVar

from funcnet.combinator import Children, Combinator, Rewrite, errors_at
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.errors import PathError
from funcnet.random.keys import Key

_W = TypeVar("_W", bound="Wrapper")


class Wrapper(Combinator):
    """A combinator of one layer, in the field ``layer``, with the layer's params.

    It adds no component to paths, so the layer inside has the same path. It passes its key on. ``update_stats`` passes the
    wrapper's cache to the layer; override ``inner_cache`` if the layer's cache is only a part of it.
    """

    __slots__ = ()

    layer: Layer

    @property
    def trainable(self) -> bool:
        return self.layer.trainable

    def children(self) -> Children:
        return {"": self.layer}

    def with_children(self, children: Children) -> Self:
        return self.replace(layer=children[""])

    def init(self, rng: Key | int) -> Params:
        with errors_at(self, ""):
            return self.layer.init(rng)

    def update_stats(self, params: Params, cache: Cache) -> Params:
        with errors_at(self, ""):
            return self.layer.update_stats(params, self.inner_cache(cache))

    def inner_cache(self, cache: Cache) -> Cache:
        """Return the layer's part of the cache."""
        return cache

    def map_with_params(self, f: Rewrite, params: Params) -> tuple[Self, Params]:
        layer, params = f(self.layer, params)
        return self.replace(layer=layer), params

    def location(self, name: Any) -> str:
        return self.label

    def __len__(self) -> int:
        return len(self.layer) if isinstance(self.layer, Combinator) else 0

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layer) if isinstance(self.layer, Combinator) else iter(())

    def __getitem__(self, key: int | str) -> Layer:
        if isinstance(self.layer, Combinator):
            return self.layer[key]
        raise PathError(f"{self.label}: no layer {key!r}; {self.layer!r} holds none")


def infer_unchanged(wrapper: _W, x: Any) -> tuple[_W, Any]:
    """Infer the sizes of a wrapper that passes x to its layer, and y from it, unchanged."""
    with errors_at(wrapper, ""):
        layer, y = wrapper.layer.infer(x)
    return wrapper.replace(layer=layer), y


class Rearranging(Wrapper):
    """A wrapper whose layer gets x rearranged; a subclass defines ``enter`` and its inverse ``leave``.

        y = M⁻¹ f(p, M x)      gp, g = f.vjp(p, c, M gy)      gx = M⁻¹ g      M: enter, M⁻¹: leave

    Cache:
        A pair, the layer's cache and the context.
    """

    __slots__ = ()

    passes_gradients_on = True

    @abstractmethod
    def enter(self, values: Any) -> Any:
        """Rearrange x, or a gradient of y, for the layer."""

    @abstractmethod
    def leave(self, values: Any, context: Any) -> Any:
        """Undo the rearrangement for y, or for a gradient of x; the inverse of ``enter``."""

    def context(self, x: Any) -> Any:
        """Check x, and return what ``leave`` needs about it."""
        return ()

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        context = self.context(x)
        with errors_at(self, ""):
            y, cache = self.layer.apply(params, self.enter(x), rng)
        return self.leave(y, context), (cache, context)

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        context = self.context(x)
        with errors_at(self, ""):
            return self.leave(self.layer(params, self.enter(x), rng), context)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        with errors_at(self, ""):
            gparams, g = self.layer.vjp(params, cache[0], self.enter(gy))
        return gparams, self.leave(g, cache[1])

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        with errors_at(self, ""):
            return self.layer.grads(params, cache[0], self.enter(gy))

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        with errors_at(self, ""):
            return self.leave(self.layer.input_grad(params, cache[0], self.enter(gy)), cache[1])

    def inner_cache(self, cache: Cache) -> Cache:
        return cache[0]
