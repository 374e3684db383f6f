"""Serial: function composition, and the chain rule backward through it.

x₀ = x;   xᵢ, cᵢ = fᵢ(pᵢ, xᵢ₋₁);   y = xₙ
gₙ = gy;  gpᵢ, gᵢ₋₁ = fᵢ's vjp(pᵢ, cᵢ, gᵢ);   gx = g₀
"""

from collections.abc import Iterator
from typing import Any, Self

from attrs import field

from funcnet.combinators import children
from funcnet.contract import Cache, Layer, Params, frozen
from funcnet.errors import add_location, describe, value_error
from funcnet.random import Key


def _own_names(value: Any, attribute: Any, got: tuple[str, ...] | None) -> None:
    if got is not None and len(got) != len(value.layers):
        raise value_error("serial", f"there must be a name for each of the {len(value.layers)} layers", got)


@frozen
class Serial(Layer):
    """Function composition, the first layer first; of no layers, the identity. Made by ``serial``.

    ``net[i]`` or ``net["name"]`` is a layer, ``net[:3]`` the serial of the first three, and ``len`` and iteration go by layers.

    Params   a tuple, one entry per layer; a dict by name where the layers are named.
    Cache    a tuple, one entry per layer.
    Raises   ``ValueError`` when ``params`` does not have one entry per layer; a layer's own error gets a note where it happened.
    """

    layers: tuple[Layer, ...] = field(validator=children.tuple_of_layers)
    names: tuple[str, ...] | None = field(default=None, validator=_own_names)
    # Asked for at every step of each layer, so kept: 1 µs of seven layers.
    _keyed: tuple[bool, ...] = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_keyed", tuple([layer.stochastic for layer in self.layers]))

    @property
    def stochastic(self) -> bool:
        return any(self._keyed)

    @property
    def has_running_stats(self) -> bool:
        return children.has_running_stats(self.layers)

    @property
    def batch_dependent(self) -> bool:
        return children.batch_dependent(self.layers)

    def init(self, rng: Key | int) -> Params:
        return self._pack(children.init(self.layers, rng))

    def apply(self, params: Params, x: Any, rng: Key | int | None = None) -> tuple[Any, Cache]:
        caches: list[Cache] = []
        entries = self._entries(params)
        try:
            for layer, p, keyed in zip(self.layers, entries, self._keyed, strict=True):
                x, cache = children.run(layer, p, x, rng, len(caches)) if keyed else layer.apply(p, x)
                caches.append(cache)
        except Exception as error:
            add_location(error, self._where(len(caches)))
            raise
        return x, tuple(caches)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Params, Any]:
        gparams, gx = self._back(self._entries(params), cache, gy)
        return self._pack(gparams), gx

    def __call__(self, params: Params, x: Any, rng: Key | int | None = None) -> Any:
        i = 0
        entries = self._entries(params)
        try:
            for i, (layer, p, keyed) in enumerate(zip(self.layers, entries, self._keyed, strict=True)):
                x = children.predict(layer, p, x, rng, i) if keyed else layer(p, x)
        except Exception as error:
            add_location(error, self._where(i))
            raise
        return x

    def grads(self, params: Params, cache: Cache, gy: Any) -> Params:
        """Go back only as far as the first layer that has parameters, and of that one take the parameters' half."""
        entries = self._entries(params)
        first = next((i for i, p in enumerate(entries) if p and children.trained(p)), len(entries))
        if first == len(entries):
            return params
        gparams, gy = self._back(entries, cache, gy, first + 1)
        return self._pack([*entries[:first], self.layers[first].grads(entries[first], cache[first], gy), *gparams])

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        for layer, p, c in reversed([*zip(self.layers, self._entries(params), cache, strict=True)]):
            gy = layer.input_grad(p, c, gy)
        return gy

    def update_stats(self, params: Params, cache: Cache) -> Params:
        return self._pack(children.update_stats(self.layers, self._entries(params), cache))

    def infer(self, x: Any) -> tuple[Self, Any]:
        layers = []
        for i, layer in enumerate(self.layers):
            one, x = children.at(self._where(i), layer.infer, x)
            layers.append(one)
        return self.replace(layers=tuple(layers)), x

    def inference(self) -> Self:
        return self.replace(layers=children.inference(self.layers))

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __getitem__(self, index: int | slice | str) -> Layer:
        if isinstance(index, slice):
            return Serial(self.layers[index], self.names and self.names[index])
        if isinstance(index, str):
            if index not in (self.names or ()):
                raise KeyError(f"serial: no layer named {index!r}; there are {', '.join(self.names or ()) or 'no names'}")
            return self.layers[(self.names or ()).index(index)]
        return self.layers[index]

    def __repr__(self) -> str:
        if self.names is None:
            return f"serial({', '.join(map(repr, self.layers))})"
        return f"serial({', '.join(f'{name}={layer!r}' for name, layer in zip(self.names, self.layers, strict=True))})"

    def _back(self, entries: Any, cache: Cache, gy: Any, stop: int = 0) -> tuple[list[Params], Any]:
        """Go back from the last layer to number ``stop``; return the gradients of their params, in order, and of their input."""
        gparams: list[Params] = []
        try:
            for layer, p, c in reversed([*zip(self.layers, entries, cache, strict=True)][stop:]):
                gp, gy = layer.vjp(p, c, gy)
                gparams.append(gp)
        except Exception as error:
            add_location(error, self._where(len(self.layers) - 1 - len(gparams)))
            raise
        return gparams[::-1], gy

    def _entries(self, params: Params) -> Any:
        """Return the children's params in their order, from a tuple or, where they are named, from a dict."""
        if self.names is None:
            return children.entries("serial", params, len(self.layers))
        if not isinstance(params, dict) or params.keys() != set(self.names):
            raise value_error("serial", f"params must be a dict with the keys {', '.join(self.names)}", describe(params))
        return tuple([params[name] for name in self.names])

    def _pack(self, entries: list[Any]) -> Params:
        return tuple(entries) if self.names is None else dict(zip(self.names, entries, strict=True))

    def _where(self, i: int) -> str:
        return f"serial, layer {i if self.names is None else repr(self.names[i])}"

    def param_shapes(self) -> None:
        return None


def serial(*layers: Layer, **named: Layer) -> Serial:
    """Compose layers, the first one first: ``serial(Linear(2, 25), Tanh())``, or by name ``serial(hidden=..., out=...)``."""
    if layers and named:
        raise value_error(
            "serial", "the layers must be all named or all unnamed", f"{len(layers)} unnamed and {len(named)} named"
        )
    children.named_apart("serial", named)
    return Serial(tuple(named.values()), tuple(named)) if named else Serial(layers)
