"""Branching: layers side by side, on one input or on an input each.

parallel   y = (f₁(x₁), ..., fₙ(xₙ))         gx = (g₁, ..., gₙ)          gᵢ = fᵢ's vjp of its output's gradient
branch     y = m(f₁(x), ..., fₙ(x))          gx = g₁ + ... + gₙ          m = merge; without it y is the tuple
residual   y = f(x) + s(x)                   gx = g_f + g_s              s = shortcut
"""

from functools import reduce
from typing import Any, Self

from attrs import field

from funcnet import tree
from funcnet.combinators import children
from funcnet.contract import Cache, Layer, Params, frozen
from funcnet.errors import add_location, describe, flag, value_error
from funcnet.layers.operands.arithmetic import Add
from funcnet.layers.shape.reshaping import Identity
from funcnet.random import Key


@frozen
class Branching(Layer):
    """Layers side by side, and what becomes of their outputs; made by ``parallel``, ``branch`` and ``residual``.

    Params   a tuple, one entry per layer, and last ``merge``'s where there is one.
    Cache    a tuple, likewise.
    Raises   ``ValueError`` for no layers on one input, and when ``params``, or the ``x`` or ``gy`` of parallel layers, is not a
             tuple with one entry per layer; a layer's own error gets a note where it happened.
    """

    layers: tuple[Layer, ...] = field(validator=children.tuple_of_layers)
    merge: Layer | None = field(default=None, validator=children.layer_or_none)
    one_input: bool = field(default=False, validator=flag)

    def __attrs_post_init__(self) -> None:
        if self.one_input and not self.layers:
            raise value_error("branch", "there must be at least one layer", "none")

    @property
    def stochastic(self) -> bool:
        return children.stochastic(self.children())

    @property
    def has_running_stats(self) -> bool:
        return children.has_running_stats(self.children())

    @property
    def batch_dependent(self) -> bool:
        return children.batch_dependent(self.children())

    def children(self) -> tuple[Layer, ...]:
        """Return the layers, and last the merge."""
        return (*self.layers, self.merge) if self.merge else self.layers

    def init(self, rng: Key | int) -> Params:
        return tuple(children.init(self.children(), rng))

    def apply(self, params: Params, x: Any, rng: Key | int | None = None) -> tuple[Any, Cache]:
        entries, xs = self._entries(params), self._inputs(x)
        ys: list[Any] = []
        caches: list[Cache] = []
        try:
            for layer, p, entry in zip(self.layers, entries[: len(xs)], xs, strict=True):
                y, cache = children.run(layer, p, entry, rng, len(ys))
                ys.append(y)
                caches.append(cache)
            return self._merged(entries, tuple(ys), tuple(caches), rng)
        except Exception as error:
            add_location(error, self._where(len(ys)))
            raise

    def _merged(
        self, entries: Params, ys: tuple[Any, ...], caches: tuple[Cache, ...], rng: Key | int | None
    ) -> tuple[Any, Cache]:
        if self.merge is None:
            return ys, caches
        y, cache = children.run(self.merge, entries[-1], ys, rng, len(ys))
        return y, (*caches, cache)

    def __call__(self, params: Params, x: Any, rng: Key | int | None = None) -> Any:
        entries, ys = self._entries(params), []
        try:
            for i, (layer, p, entry) in enumerate(zip(self.layers, entries[: len(self.layers)], self._inputs(x), strict=True)):
                ys.append(children.predict(layer, p, entry, rng, i))
            return tuple(ys) if self.merge is None else children.predict(self.merge, entries[-1], tuple(ys), rng, len(ys))
        except Exception as error:
            add_location(error, self._where(len(ys)))
            raise

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Params, Any]:
        entries = self._entries(params)
        merged, gy = self._unmerged(entries, cache, gy)
        pairs = [layer.vjp(p, c, g) for layer, p, c, g in self._rows(entries, cache, gy)]
        return (*[gp for gp, _ in pairs], *merged), self._gathered([gx for _, gx in pairs])

    def grads(self, params: Params, cache: Cache, gy: Any) -> Params:
        entries = self._entries(params)
        merged, gy = self._unmerged(entries, cache, gy)
        return (*[layer.grads(p, c, g) for layer, p, c, g in self._rows(entries, cache, gy)], *merged)

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        entries = self._entries(params)
        if self.merge is not None:
            gy = self.merge.input_grad(entries[-1], cache[-1], gy)
        return self._gathered([layer.input_grad(p, c, g) for layer, p, c, g in self._rows(entries, cache, gy)])

    def _unmerged(self, entries: Params, cache: Cache, gy: Any) -> tuple[list[Params], Any]:
        """Go back through merge: its params' gradients, as a list of one or none, and those of the layers' outputs."""
        if self.merge is None:
            return [], gy
        gp, gys = self.merge.vjp(entries[-1], cache[-1], gy)
        return [gp], gys

    def _rows(self, entries: Params, cache: Cache, gys: Any) -> list[tuple[Layer, Params, Cache, Any]]:
        n = len(self.layers)
        return list(zip(self.layers, entries[:n], cache[:n], self._one_each("gy", gys), strict=True))

    def _gathered(self, gxs: list[Any]) -> Any:
        return reduce(tree.add, gxs) if self.one_input else tuple(gxs)

    def update_stats(self, params: Params, cache: Cache) -> Params:
        return tuple(children.update_stats(self.children(), self._entries(params), cache))

    def infer(self, x: Any) -> tuple[Self, Any]:
        xs = zip(self.layers, self._inputs(x), strict=True)
        pairs = [children.at(self._where(i), layer.infer, one) for i, (layer, one) in enumerate(xs)]
        layers, ys = tuple([layer for layer, _ in pairs]), tuple([y for _, y in pairs])
        if self.merge is None:
            return self.replace(layers=layers), ys
        merge, y = children.at(self._where(len(layers)), self.merge.infer, ys)
        return self.replace(layers=layers, merge=merge), y

    def inference(self) -> Self:
        return self.replace(layers=children.inference(self.layers), merge=self.merge and self.merge.inference())

    def __repr__(self) -> str:
        words = [*map(repr, self.layers)] + [f"merge={self.merge!r}"] * (self.merge is not None)
        return f"{self._who()}({', '.join(words)})"

    def _who(self) -> str:
        return "branch" if self.one_input else "parallel"

    def _where(self, i: int) -> str:
        return f"{self._who()}, {f'layer {i}' if i < len(self.layers) else 'merge'}"

    def _entries(self, params: Params) -> Params:
        return children.entries(self._who(), params, len(self.layers) + (self.merge is not None))

    def _inputs(self, x: Any) -> tuple[Any, ...]:
        return (x,) * len(self.layers) if self.one_input else self._one_each("x", x)

    def _one_each(self, name: str, values: Any) -> tuple[Any, ...]:
        if not isinstance(values, tuple) or len(values) != len(self.layers):
            raise value_error(self._who(), f"{name} must be a tuple of {len(self.layers)}, one entry per layer", describe(values))
        return values

    def param_shapes(self) -> None:
        return None


def parallel(*layers: Layer) -> Branching:
    """Apply each layer to its own entry of a tuple: a tuple in, a tuple out."""
    return Branching(layers)


def branch(*layers: Layer, merge: Layer | None = None) -> Branching:
    """Give one input to every layer; out comes the tuple of their outputs, or what ``merge`` makes of it.

    ``branch(f, g, merge=Add())``; the gradient of the input is the sum over the layers.
    """
    return Branching(layers, merge, one_input=True)


def residual(layer: Layer, shortcut: Layer = Identity()) -> Branching:  # noqa: B008 (a frozen value)
    """Add a layer's output to its input, or to what ``shortcut`` makes of it; the two must have one shape.

    Source   He et al. 2016, eq. 1 and 2.
    """
    return Branching((layer, shortcut), Add(broadcast=False), one_input=True)
