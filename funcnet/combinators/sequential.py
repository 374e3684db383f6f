"""Serial: function composition, and the chain rule backward through it.

x₀ = x;   xᵢ, cᵢ = fᵢ(pᵢ, xᵢ₋₁);   y = xₙ
gₙ = gy;  gpᵢ, gᵢ₋₁ = fᵢ's vjp(pᵢ, cᵢ, gᵢ);   gx = g₀
"""

from collections.abc import Iterable
from typing import Any, Self

from attrs import field

from funcnet.combinator import Children, Combinator, child_key, errors_at, has_params, require_names, tuple_of_layers
from funcnet.contract import Cache, Layer, Params, Rng
from funcnet.errors import value_error
from funcnet.value import frozen


def _own_names(value: Any, attribute: Any, got: tuple[str, ...] | None) -> None:
    if got is not None and len(got) != len(value.layers):
        raise value_error("serial", f"there must be a name for each of the {len(value.layers)} layers", got)


@frozen
class Serial(Combinator):
    """Function composition, the first layer first; of no layers, the identity. Made by ``serial``.

    ``net[i]`` or ``net["name"]`` is a layer, ``net[:3]`` the serial of the first three; ``f >> g`` is ``serial(f, g)``.

    Params   a tuple, one entry per layer; a dict by name where the layers are named.
    Cache    a tuple, one entry per layer.
    Raises   ``ValueError`` when ``params`` does not have one entry per layer; a layer's own error gets a note where it happened.
    """

    label = "serial"

    layers: tuple[Layer, ...] = field(validator=tuple_of_layers)
    names: tuple[str, ...] | None = field(default=None, validator=_own_names)
    # Asked for at every step of each layer, so kept: 1 µs of seven layers.
    _keyed: tuple[bool, ...] = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_keyed", tuple([layer.stochastic for layer in self.layers]))

    def children(self) -> Children:
        return dict(zip(self.names or map(str, range(len(self.layers))), self.layers, strict=True))

    def with_children(self, children: Children) -> Self:
        return self.replace(layers=tuple(children.values()))

    def entries(self, params: Params) -> Any:
        """Return the layers' entries; those of layers without names at once, as every step asks for them."""
        unnamed = self.names is None and type(params) is tuple and len(params) == len(self.layers)
        return params if unnamed else super().entries(params)

    def pack(self, entries: Iterable[Any]) -> Any:
        return tuple(entries) if self.names is None else dict(zip(self.names, entries, strict=True))

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        caches: list[Cache] = []
        rows = zip(self.layers, self.entries(params), self._keyed, strict=True)
        with errors_at(self, lambda: self._name(len(caches))):
            for layer, p, keyed in rows:
                x, cache = layer.apply(p, x, child_key(layer, rng, len(caches))) if keyed else layer.apply(p, x)
                caches.append(cache)
        return x, tuple(caches)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Params, Any]:
        gparams, gx = self._back(self.entries(params), cache, gy)
        return self.pack(gparams), gx

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        i = 0
        rows = zip(self.layers, self.entries(params), self._keyed, strict=True)
        with errors_at(self, lambda: self._name(i)):
            for i, (layer, p, keyed) in enumerate(rows):
                x = layer(p, x, child_key(layer, rng, i)) if keyed else layer(p, x)
        return x

    def grads(self, params: Params, cache: Cache, gy: Any) -> Params:
        """Go back only as far as the first layer that has parameters, and of that one take the parameters' half."""
        entries = self.entries(params)
        first = next((i for i, p in enumerate(entries) if p and has_params(p)), len(entries))
        if first == len(entries):
            return params
        gparams, gy = self._back(entries, cache, gy, first + 1)
        with errors_at(self, self._name(first)):
            head = self.layers[first].grads(entries[first], cache[first], gy)
        return self.pack([*entries[:first], head, *gparams])

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        i = 0
        rows = [*enumerate(zip(self.layers, self.entries(params), cache, strict=True))]
        with errors_at(self, lambda: self._name(i)):
            for i, (layer, p, c) in reversed(rows):  # noqa: B007
                gy = layer.input_grad(p, c, gy)
        return gy

    def _back(self, entries: Any, cache: Cache, gy: Any, stop: int = 0) -> tuple[list[Params], Any]:
        """Go back from the last layer to number ``stop``; return the gradients of their params, in order, and of their input."""
        gparams: list[Params] = []
        rows = [*zip(self.layers, entries, cache, strict=True)][stop:]
        with errors_at(self, lambda: self._name(len(self.layers) - 1 - len(gparams))):
            for layer, p, c in reversed(rows):
                gp, gy = layer.vjp(p, c, gy)
                gparams.append(gp)
        return gparams[::-1], gy

    def _name(self, i: int) -> str:
        return str(i) if self.names is None else self.names[i]

    def __getitem__(self, index: int | slice | str) -> Layer:
        if isinstance(index, slice):
            return Serial(self.layers[index], self.names and self.names[index])
        return super().__getitem__(index)

    def __repr__(self) -> str:
        if self.names is None:
            return f"serial({', '.join(map(repr, self.layers))})"
        return f"serial({', '.join(f'{name}={layer!r}' for name, layer in zip(self.names, self.layers, strict=True))})"


def serial(*layers: Layer, **named: Layer) -> Serial:
    """Compose layers, the first one first: ``serial(Linear(2, 25), Tanh())``, or by name ``serial(hidden=..., out=...)``."""
    if layers and named:
        got = f"{len(layers)} unnamed and {len(named)} named"
        raise value_error("serial", "the layers must be all named or all unnamed", got)
    require_names("serial", named)
    return Serial(tuple(named.values()), tuple(named)) if named else Serial(layers)


def _then(first: Any, second: Any) -> Any:
    return serial(first, second) if isinstance(second, Layer) else NotImplemented


Layer.__rshift__ = _then
