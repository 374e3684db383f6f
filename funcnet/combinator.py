"""Combinators: layers that contain layers. A subclass lists them and says how to replace them; the rest follows.

    children()                  the layers, by name: the names are the components of parameter paths
    with_children(children)     the same combinator around other layers

Child number i gets the key ``fold_in(rng, i)``, for its params and its noise. The module ``wrapper`` has the base of combinators
of a single layer.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, ClassVar, Self

from torch import Tensor

from funcnet import random, tree
from funcnet.contract import Cache, Layer, Params, Rng, Shape, output
from funcnet.errors import PathError, add_location, describe, instances, value_error
from funcnet.flattening import flatten_together
from funcnet.guards import verbs
from funcnet.naming import entries, listed, pack
from funcnet.probes import Probe
from funcnet.random.keys import Key
from funcnet.signatures import with_key

layers_only = instances(Layer, "a layer (a value with init, apply and vjp)")
"""Validate a field that holds a layer."""

layer_or_none = instances((Layer, type(None)), "a layer (a value with init, apply and vjp), or None")
"""Validate a field that may hold a layer."""

tuple_of_layers = instances(Layer, "layers (values with init, apply and vjp)", several=True)
"""Validate a field that holds a tuple of layers."""

Children = dict[str, Layer]
Rewrite = Callable[[Layer, Params], tuple[Layer, Params]]
_BASE = "funcnet.combinator"  # the module of the default ``init``, which adds no leaves to the params of the children


class errors_at:  # noqa: N801 (called as a context manager)
    """Add ``combinator.location(name)`` to errors raised in the block; ``name`` can also be a function that returns the name."""

    __slots__ = ("combinator", "name")

    def __init__(self, combinator: Any, name: Any) -> None:
        self.combinator, self.name = combinator, name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, Exception):
            add_location(error, self.combinator.location(self.name() if callable(self.name) else self.name))


def child_key(layer: Layer, rng: Rng, i: int) -> Rng:
    """Return the key of child number i; ``None`` for a layer that needs none."""
    return random.fold_in(rng, i) if rng is not None and layer.stochastic else None


class Combinator(Layer):
    """Base of layers that contain layers. A subclass defines ``children``, ``with_children``, ``apply`` and ``vjp``.

    Keys, ``init``, ``inference``, ``update_stats``, size inference and the properties follow from the children.

    Params:
        A tuple with one entry per child if the names are 0, 1, ..., else a dict by name. A subclass can add other leaves to the
            dict.

    Cache:
        A tuple that starts with the children's caches, or a dict with them by name; ``update_stats`` reads it.
    """

    __slots__ = ()

    computes: ClassVar[bool] = True
    """Whether the combinator computes something beyond calling its children; its own errors are then explained."""

    computes_as_one: ClassVar[bool] = False
    """Whether the layers inside run together rather than one by one: ``summary`` then has one row for all of them."""

    following: ClassVar[tuple[str, ...]] = ()
    """Fields whose layers ``with_children`` rewrites together with the children, such as ``evaluation`` in ``by_mode``."""

    passes_gradients_on: ClassVar[bool] = False
    """Whether params and gradients are exactly those of the layers inside: a step can then update layer by layer."""

    @property
    def calls_each_child_once(self) -> bool:
        """Whether no child is applied twice; read only if ``passes_gradients_on``."""
        return True

    @abstractmethod
    def children(self) -> Children:
        """Return the layers by name."""

    @abstractmethod
    def with_children(self, children: Children) -> Self:
        """Return the same combinator around other layers of the same names."""

    def wires(self) -> list[tuple[str | None, str | None]]:
        """Return the connections of the children as pairs of names (source, target); ``None`` is x as a source, y as a target.

        ``draw`` uses them. By default, every child gets x and contributes to y.
        """
        return [wire for name in self.children() for wire in ((None, name), (name, None))]

    @property
    def stochastic(self) -> bool:
        return any([child.stochastic for child in self.children().values()])  # noqa: C419 (compiled code has no generators)

    @property
    def batch_dependent(self) -> bool:
        return any([child.batch_dependent for child in self.children().values()])  # noqa: C419

    @property
    def has_running_stats(self) -> bool:
        return any([child.has_running_stats for child in self.children().values()])  # noqa: C419

    @property
    def trainable(self) -> bool:
        """Whether a layer inside is trainable, or the class has its own ``init``, which may add leaves."""
        if type(self).init.__module__ != _BASE:
            return True
        for child in self.children().values():  # noqa: SIM110 (compiled code has no generators)
            if child.trainable:
                return True
        return False

    @property
    def surrogate(self) -> bool:
        return any([child.surrogate for child in self.children().values()])  # noqa: C419

    def param_shapes(self) -> dict[str, Shape] | None:
        return None

    def init(self, rng: Key | int) -> Params:
        return self.pack(self.each(lambda i, child: child.init(random.fold_in(rng, i))))  # type: ignore[no-any-return]

    def update_stats(self, params: Params, cache: Cache) -> Params:
        moved: list[Params] = []
        entries = self._child_entries(params)
        rows = zip(self, entries, self._child_caches(cache), strict=True)
        with errors_at(self, lambda: self._nth(len(moved))):
            for child, p, c in rows:
                moved.append(child.update_stats(p, c))
        return self._repacked(params, moved)

    def inference(self) -> Layer:
        return self.with_children(dict(zip(self.children(), self.each(lambda i, child: child.inference()), strict=True)))

    def infer(self, x: Any) -> tuple[Layer, Any]:
        """Run x through probes in place of the children; each probe infers the sizes of its child from its input."""
        probes = {name: Probe(child) for name, child in self.children().items()}
        y = output(self.with_children({**probes}), x)
        return self.with_children({name: probe.layer for name, probe in probes.items()}), y

    def each(self, f: Callable[[int, Layer], Any]) -> list[Any]:
        """Call ``f(i, child)`` for every child; errors name the child."""
        results: list[Any] = []
        with errors_at(self, lambda: self._nth(len(results))):
            for i, child in enumerate(self.children().values()):
                results.append(f(i, child))
        return results

    def entries(self, params: Params) -> Any:
        """Return the children's entries of a tuple or dict, in order."""
        return entries(self.label, tuple(self.children()), params)

    def pack(self, entries: Iterable[Any]) -> Any:
        """Pack the children's entries into a tuple or dict; the inverse of ``entries``."""
        return pack(tuple(self.children()), entries)

    def map_with_params(self, f: "Rewrite", params: Params) -> tuple[Self, Params]:
        """Rewrite the children together with their params: ``f(child, p)`` returns another layer and its params."""
        entries = self._child_entries(params)
        pairs = self.each(lambda i, child: f(child, entries[i]))
        children = dict(zip(self.children(), [child for child, _ in pairs], strict=True))
        return self.with_children(children), self._repacked(params, [p for _, p in pairs])

    def _child_entries(self, params: Params) -> Any:
        """Return the children's entries, without leaves that a subclass has added."""
        names = self.children()
        more = isinstance(params, dict) and params.keys() > names.keys()
        return tuple([params[name] for name in names]) if more else self.entries(params)

    def _child_caches(self, cache: Cache) -> Any:
        """Return the children's caches, in their order."""
        children = self.children()
        return [cache[name] for name in children] if isinstance(cache, dict) else cache[: len(children)]

    def _repacked(self, params: Any, entries: Iterable[Any]) -> Params:
        """Return params with new entries for the children, given in order."""
        packed = self.pack(entries)
        return {**params, **packed} if isinstance(packed, dict) else packed

    @property
    def label(self) -> str:
        """The name of this combinator in errors."""
        return type(self).__name__

    def location(self, name: Any) -> str:
        """Return the location of a child, given by name or number, for errors."""
        name = self._nth(name) if isinstance(name, int) else name
        return f"{self.label}, layer {name if name.isdigit() else repr(name)}"

    def _nth(self, i: int) -> str:
        """Return the name of child number i, or of the last one."""
        names = [*self.children()] or [""]
        return names[min(i, len(names) - 1)]

    def locate(self, error: Exception, name: Any) -> None:
        """Add the location of a child to an error; for hot loops, where ``errors_at`` costs too much."""
        add_location(error, self.location(name))

    def __len__(self) -> int:
        return len(self.children())

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.children().values())

    def __getitem__(self, key: int | str) -> Layer:
        children = self.children()
        if isinstance(key, str) and key in children:
            return children[key]
        if isinstance(key, int) and -len(children) <= key < len(children):
            return [*children.values()][key]
        raise PathError(f"{self.label}: no layer {key!r}; there are {listed(children)}")

    @classmethod
    def _when_frozen(cls) -> None:
        """Guard the verbs, unless the children compute everything and explain their own errors.

        A class that overrides ``vjp`` or ``grads`` must declare again that it passes gradients on.
        """
        backward, declared = ({"vjp", "grads"}, {"passes_gradients_on"})
        first = next(vars(one).keys() for one in cls.__mro__ if not vars(one).keys().isdisjoint(backward | declared))
        cls.passes_gradients_on = cls.passes_gradients_on and not first.isdisjoint(declared)
        for name, verb in verbs(cls).items():
            if name in ("apply", "__call__") and with_key(verb) is not verb:
                setattr(cls, name, with_key(verb))
        if cls.computes:
            super()._when_frozen()


def has_params(params: Params) -> bool:
    """Return whether params have any leaf, so that gradients are possible; a leaf of ``None`` counts."""
    return Tensor in map(type, params.values() if isinstance(params, dict) else ()) or bool(flatten_together(params)[0])


def add_gradients(who: str, one: Any, other: Any) -> Any:
    """Add two gradients of the same value, like ``tree.add``; raise if shapes or dtypes differ, which torch would broadcast.

    ``None`` means that a tensor or tuple has no gradient. Adding two tensors directly is 8 µs faster than adding them as trees.
    """
    if type(one) is Tensor and type(other) is Tensor and one.shape == other.shape and one.dtype is other.dtype:
        return one + other
    if one is None or other is None:
        return other if one is None else one
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        return tuple([add_gradients(who, a, b) for a, b in zip(one, other, strict=True)])
    for a, b in zip(*flatten_together(one, other), strict=True):
        are_alike = isinstance(a, Tensor) and isinstance(b, Tensor) and (a.shape, a.dtype) == (b.shape, b.dtype)
        if a is not None and b is not None and not are_alike:
            raise value_error(who, f"the gradients of one tensor must be alike, and one is {describe(a)}", describe(b))
    return tree.add(one, other)


def absent(tree_of_params: Params) -> Params:
    """Return a tree of ``None`` for params that have no gradients; every leaf must be a tensor."""
    return tree.map(_no_gradient, tree_of_params)  # type: ignore[no-any-return]


def _no_gradient(leaf: Any) -> None:
    if not isinstance(leaf, Tensor):
        raise value_error("params", "every leaf must be a tensor", leaf)
