"""Series: function composition, and the chain rule backward through it."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, Self

from attrs import field

from funcnet.checks import check_gys
from funcnet.combinator import Children, Combinator, absent, child_key, errors_at, has_params, tuple_of_layers
from funcnet.combinators import runs, straight
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.errors import describe, value_error
from funcnet.naming import named_arguments, require_names
from funcnet.plans import Plans, Unchecked
from funcnet.value import frozen


def _own_names(value: Any, attribute: Any, got: tuple[str, ...] | None) -> None:
    right = isinstance(got, tuple) and all(isinstance(name, str) for name in got)
    if got is not None and (not right or len(got) != len(value.layers)):
        raise value_error("serial", f"there must be a name for each of the {len(value.layers)} layers", got)


@frozen
class Serial(Combinator):
    """Layers in series, first to last; made by ``serial``. Without layers it is the identity.

        x₀ = x     xᵢ, cᵢ = fᵢ.apply(pᵢ, xᵢ₋₁)       y  = xₙ
        gₙ = gy    gpᵢ, gᵢ₋₁ = fᵢ.vjp(pᵢ, cᵢ, gᵢ)    gx = g₀

    Args:
        layers: The layers f₁, ..., fₙ.
        names: A name for each layer, or ``None``.

    Cache:
        A tuple with one entry per layer; ``(x,)`` without layers. In a run of several invertible layers the last entry is the
        output and the key, and the others are empty: the backward pass restores x and their caches.
    """

    label = "serial"
    computes = False
    passes_gradients_on = True

    layers: tuple[Layer, ...] = field(validator=tuple_of_layers)
    names: tuple[str, ...] | None = field(default=None, validator=_own_names)
    _ends: runs.Ends = field(init=False, eq=False)
    _trainable: tuple[bool, ...] = field(init=False, eq=False)  # asking the layers in each step would take 0.3 to 2.4 µs each
    _keeping_stats: tuple[int, ...] = field(init=False, eq=False)
    _forward: Plans[Unchecked] | None = field(init=False, eq=False)
    _backward: Plans[Unchecked] | None = field(init=False, eq=False)
    _half: Plans[Unchecked] | None = field(init=False, eq=False)  # for ``grads``, which accepts more than ``vjp``

    def __attrs_post_init__(self) -> None:
        has_plans = not runs.ends_of(self.layers) and all(map(straight.may_be_unchecked, self.layers))
        for name in ("_forward", "_backward", "_half"):
            object.__setattr__(self, name, Plans() if has_plans else None)
        object.__setattr__(self, "_ends", runs.ends_of(self.layers))
        object.__setattr__(self, "_trainable", tuple([layer.trainable for layer in self.layers]))
        object.__setattr__(self, "_keeping_stats", tuple([i for i, one in enumerate(self.layers) if one.has_running_stats]))

    @property
    def invertible(self) -> bool:
        return all([layer.invertible for layer in self.layers])  # noqa: C419 (compiled code has no generators)

    def children(self) -> Children:
        return dict(zip(self.names or map(str, range(len(self.layers))), self.layers, strict=True))

    def with_children(self, children: Children) -> Self:
        return self.replace(layers=tuple(children.values()))

    def wires(self) -> list[tuple[str | None, str | None]]:
        return [*pairwise([None, *self.children(), None])]

    def entries(self, params: Params) -> Any:
        """Return the layers' entries. A tuple for unnamed layers is returned directly, since every step calls this."""
        unnamed = self.names is None and type(params) is tuple and len(params) == len(self.layers)
        return params if unnamed else super().entries(params)

    def pack(self, entries: Iterable[Any]) -> Any:
        return tuple(entries) if self.names is None else dict(zip(self.names, entries, strict=True))

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        known = None if self._forward is None else self._forward.find((params, x))
        if known is not None:
            try:
                return known.apply(params, x)
            except Exception:
                known = None  # run again with checks, which explain the error
        y, cache = self._apply(params, x, rng)
        if self._forward is not None and self._forward.is_due():
            self._forward.learn((params, x), lambda: straight.unchecked(self, params, cache), (y, cache))
        return y, cache

    def _apply(self, params: Params, x: Any, rng: Rng) -> tuple[Any, Cache]:
        if self._ends:
            return runs.apply(self, self._ends, params, x, rng)
        caches: list[Cache] = []
        rows = zip(self.layers, self.entries(params), strict=True)
        try:
            for layer, p in rows:
                x, cache = layer.apply(p, x) if rng is None else layer.apply(p, x, child_key(layer, rng, len(caches)))
                caches.append(cache)
        except Exception as error:
            self.locate(error, len(caches))
            raise
        return x, tuple(caches) if caches else (x,)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        known = None if self._backward is None else self._backward.find((params, cache, gy))
        if known is not None:
            try:
                return known.vjp(params, cache, gy)
            except Exception:
                known = None  # as in ``apply``
        found = self._vjp(params, cache, gy)
        if self._backward is not None and self._backward.is_due():
            self._backward.learn((params, cache, gy), lambda: straight.unchecked(self, params, cache), found)
        return found

    def _vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Params, Any]:
        entries = self.entries(params)
        if not self.layers:
            return params, check_gys(self.label, gy, cache[0])
        gparams, gx = self._back(entries, self._checked(cache), gy)
        return self.pack(gparams), gx

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        i = 0
        rows = zip(self.layers, self.entries(params), strict=True)
        try:
            for layer, p in rows:
                x = layer(p, x) if rng is None else layer(p, x, child_key(layer, rng, i))
                i += 1
        except Exception as error:
            self.locate(error, i)
            raise
        return x

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        """Go back to the first layer with trainable params, and compute only the gradients of params there."""
        known = None if self._half is None else self._half.find((params, cache, gy))
        if known is not None:
            try:
                made: Params = known.grads(params, cache, gy)
                return made
            except Exception:
                known = None  # as in ``apply``
        found = self._grads(params, cache, gy)
        if self._half is not None and self._half.is_due():
            self._half.learn((params, cache, gy), lambda: straight.unchecked(self, params, cache), found)
        return found

    def _grads(self, params: Params, cache: Cache, gy: Any) -> Params:
        entries, cache = self.entries(params), self._checked(cache)
        for first, p in enumerate(entries):
            if p and has_params(p) and self._trainable[first]:
                break
        else:
            return absent(params)
        before = [p and absent(p) for p in entries[:first]]
        made: Params = self.pack([*before, *self._back(entries, cache, gy, first)[0]])
        return made

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        if not self.layers:
            return self.vjp(params, cache, gy)[1]
        cache = self._checked(cache)
        if self._ends:
            return runs.input_grad(self, self._ends, self.entries(params), cache, gy)
        rows = [*zip(self.layers, self.entries(params), cache, strict=True)]
        i = len(rows)
        try:
            for layer, p, c in reversed(rows):
                i -= 1
                gy = layer.input_grad(p, c, gy)
        except Exception as error:
            self.locate(error, i)
            raise
        return gy

    def unchecked(self, params: Params, cache: Cache) -> Unchecked | None:
        return None if self._forward is None else straight.unchecked(self, params, cache)

    def update_stats(self, params: Params, cache: Cache) -> Params:
        if self._ends:
            if not self.has_running_stats:
                return params
            cache = runs.all_caches(self, self._ends, self.entries(params), self._checked(cache))
        if self.names is not None:
            return super().update_stats(params, cache)
        moved, caches, i = [*self.entries(params)], self._checked(cache), 0
        try:
            for i in self._keeping_stats:
                moved[i] = self.layers[i].update_stats(moved[i], caches[i])
        except Exception as error:
            self.locate(error, i)
            raise
        return tuple(moved)

    def _checked(self, cache: Cache) -> Any:
        """Return the cache, which must have one entry per layer."""
        if self.layers and (not isinstance(cache, tuple) or len(cache) != len(self.layers)):
            rule = f"cache must be what apply returned, a tuple of {len(self.layers)}, one entry per layer"
            raise value_error("serial", rule, describe(cache))
        return cache

    def _back(self, entries: Any, cache: Cache, gy: Any, first: int = -1) -> tuple[list[Grads], Any]:
        """Go back to the input, or to the params of layer ``first``; return the gradients of params in order, and gy there."""
        if self._ends:
            return runs.back(self, self._ends, entries, cache, gy, first)
        gparams: list[Grads] = []
        rows = [*zip(self.layers, entries, cache, strict=True)]
        try:
            for layer, p, c in reversed(rows[first + 1 :]):
                gp, gy = layer.vjp(p, c, gy)
                gparams.append(gp)
            if first >= 0:
                gparams.append(self.layers[first].grads(entries[first], cache[first], gy))
        except Exception as error:
            self.locate(error, len(self.layers) - 1 - len(gparams))
            raise
        return gparams[::-1], gy

    def inverse(self, params: Params, y: Any, rng: Rng = None) -> Any:
        for i, (layer, p) in reversed([*enumerate(zip(self.layers, self.entries(params), strict=True))]):
            with errors_at(self, i):
                y = layer.inverse(p, y, child_key(layer, rng, i))
        return y

    def restore(self, params: Params, y: Any, rng: Rng = None) -> tuple[Any, Cache]:
        """Restore x. With two or more layers the cache is the output again."""
        if len(self.layers) > 1:
            return self.inverse(params, y, rng), (*[()] * (len(self) - 1), runs.kept(y, rng, stochastic=self.stochastic))
        if not self.layers:
            return y, (y,)
        with errors_at(self, 0):
            x, cache = self.layers[0].restore(self.entries(params)[0], y, child_key(self.layers[0], rng, 0))
        return x, (cache,)

    @property
    def trainable(self) -> bool:
        return True in self._trainable

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __getitem__(self, index: int | slice | str) -> Layer:
        if isinstance(index, slice):
            return Serial(self.layers[index], (self.names and self.names[index]) or None)  # an empty tuple of names becomes None
        return super().__getitem__(index)

    def __repr__(self) -> str:
        children = self.children()
        words = named_arguments({name: repr(layer) for name, layer in children.items()}) if self.names else map(repr, self)
        return f"serial({', '.join(words)})"


def serial(*layers: Layer, **named: Layer) -> Serial:
    """Compose layers in series: the output of each is the input of the next.

        x₀ = x     xᵢ, cᵢ = fᵢ.apply(pᵢ, xᵢ₋₁)       y  = xₙ
        gₙ = gy    gpᵢ, gᵢ₋₁ = fᵢ.vjp(pᵢ, cᵢ, gᵢ)    gx = g₀

    ``net[i]`` or ``net["name"]`` is a layer, ``net[:3]`` the serial of the first three; ``f >> g`` is ``serial(f, g)``.

    Args:
        layers: Layers, whose params are then a tuple: ``serial(Linear(2, 25), Tanh())``.
        named: Layers by name, whose params are then a dict: ``serial(hidden=Linear(2, 25), act=Tanh())``.

    Params:
        A tuple with one entry per layer; a dict if the layers have names.

    Cache:
        A tuple with one entry per layer, ``(x,)`` without layers; a run of several invertible layers keeps only its last output.

    Raises:
        ValueError: If both kinds are given, for a list of layers instead of ``*layers``, and for names that are numbers, empty or
            dotted.

    >>> from funcnet.layers.activation.sigmoids import Tanh
    >>> from funcnet.layers.linear.linear import Linear
    >>> net = serial(hidden=Linear(2, 25), act=Tanh())
    >>> net["hidden"], list(net.init(0))
    (Linear(in_features=2, out_features=25), ['hidden', 'act'])
    """
    if layers and named:
        got = f"{len(layers)} unnamed and {len(named)} named"
        raise value_error("serial", "the layers must be all named or all unnamed", got)
    if len(layers) == 1 and isinstance(layers[0], (list, tuple)):
        raise value_error("serial", "the layers must be separate arguments, serial(*layers)", layers[0])
    require_names("serial", named)
    return Serial(tuple(named.values()), tuple(named)) if named else Serial(layers)


def _then(first: Any, second: Any) -> Any:
    return serial(first, second) if isinstance(second, Layer) else NotImplemented


Layer.__rshift__ = _then
