"""Recomputation: the backward pass recomputes what the forward pass did not keep."""

from collections.abc import Iterator
from types import TracebackType
from typing import Any, NamedTuple, Self

from attrs import field

from funcnet import random
from funcnet.combinator import Children, Combinator, Rewrite, absent, child_key, errors_at, has_params, layers_only
from funcnet.combinators.sequential import Serial
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.errors import add_location, number_of_parts, value_error
from funcnet.value import frozen
from funcnet.wrapper import Wrapper, infer_unchanged


class Stage(NamedTuple):
    """A layer to run, with its params and its key."""

    layer: Layer
    params: Params
    key: Rng


def _validate_segments(value: Any, attribute: Any, got: Any) -> None:
    if got is not None:
        number_of_parts(value, attribute, got)


@frozen
class Remat(Wrapper):
    """A layer that keeps only x and its key, and recomputes the rest in the backward pass; made by ``remat``.

        y = f(p, x)      c = (x, key)
        gp, gx = f.vjp(p, cache of f.apply(p, x, key), gy)

    Args:
        layer: The layer f.
        segments: Number of parts of a ``serial``, each of which keeps its input; ``None`` for one part. Only one part has its
            cache in memory at a time.

    Shape:
        The same as the layer.

    Params:
        The layer's params.

    Cache:
        A pair: a tuple of the inputs of the segments, and the key, ``None`` if the layer needs none.
    """

    label = "remat"
    passes_gradients_on = True

    computes_as_one = True  # a serial is cut only if its class is exactly Serial

    layer: Layer = field(validator=layers_only)
    segments: int | None = field(default=None, validator=_validate_segments)

    def with_children(self, children: Children) -> Self:
        """Return ``remat`` of another layer, with fewer segments if it has fewer layers, and with one if it is not a serial."""
        layer = children[""]
        most = len(layer) if isinstance(layer, Serial) else 0
        return self.replace(layer=layer, segments=min(self.segments, most) if self.segments and most else None)

    def map_with_params(self, f: Rewrite, params: Params) -> tuple[Self, Params]:
        layer, params = f(self.layer, params)
        return self.with_children({"": layer}), params

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        key = None if rng is None or not self.layer.stochastic else random.as_key(rng)
        stages, kept = self._stages(params, key), []
        for start, end in self._bounds(stages):
            kept.append(x)
            for i, stage in self._located(stages, start, end):
                with self._at(i):
                    x = stage.layer.apply(stage.params, x, stage.key)[0]
        return x, (tuple(kept), key)

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        with errors_at(self, ""):
            return self.layer(params, x, rng)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        gparams, gx = self._back(params, cache, gy, -1)
        return self._packed(gparams), gx

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        """Go back to the first stage with trainable params, and recompute nothing before its segment."""
        stages = self._stages(params, cache[1])
        for first, stage in enumerate(stages):  # noqa: B007 (the number is used after the loop)
            if has_params(stage.params) and stage.layer.trainable:
                break
        else:
            return absent(params)
        later, _ = self._back(params, cache, gy, first)
        made: Params = self._packed([*[absent(stage.params) for stage in stages[:first]], *later])
        return made

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        stages = self._stages(params, cache[1])
        for x, (start, end) in reversed([*zip(cache[0], self._bounds(stages), strict=True)]):
            caches = self._again(stages, start, end, x)
            for i, stage in reversed([*self._located(stages, start, end)]):
                with self._at(i):
                    gy = stage.layer.input_grad(stage.params, caches.pop(), gy)
        return gy

    def update_stats(self, params: Params, cache: Cache) -> Params:
        """Recompute the batch statistics with these params, which must be the params that ``apply`` got."""
        if not self.has_running_stats:
            return params
        stages, moved, x = self._stages(params, cache[1]), [], cache[0][0]
        for i, stage in self._located(stages, 0, len(stages)):
            with self._at(i):
                x, one = stage.layer.apply(stage.params, x, stage.key)
                moved.append(stage.layer.update_stats(stage.params, one))
        made: Params = self._packed(moved)
        return made

    def infer(self, x: Any) -> tuple[Self, Any]:
        return infer_unchanged(self, x)

    def __repr__(self) -> str:
        return f"remat({self.layer!r}{'' if self.segments is None else f', segments={self.segments!r}'})"

    def _is_serial(self) -> bool:
        return type(self.layer) is Serial and len(self.layer) > 0

    def _stages(self, params: Params, key: Rng) -> list[Stage]:
        """Return the layers of a serial with their params and keys; any other layer is the only stage."""
        serial: Any = self.layer
        if not self._is_serial():
            return [Stage(serial, params, key)]
        with errors_at(self, ""):
            rows = zip(serial.layers, serial.entries(params), strict=True)
        return [Stage(layer, p, child_key(layer, key, i)) for i, (layer, p) in enumerate(rows)]

    def _bounds(self, stages: list[Stage]) -> list[tuple[int, int]]:
        """Return the first stage of each segment and the stage after its last. Segments differ in length by at most one."""
        n, k = len(stages), self.segments or 1
        return [(i * n // k, (i + 1) * n // k) for i in range(k)]

    def _located(self, stages: list[Stage], start: int, end: int) -> Iterator[tuple[int, Stage]]:
        return zip(range(start, end), stages[start:end], strict=True)

    def _at(self, i: int) -> "_ErrorsAt":
        return _ErrorsAt(self, i)

    def _packed(self, entries: list[Any]) -> Any:
        """Pack the entries of the stages like the layer's params."""
        inner: Any = self.layer
        return inner.pack(entries) if isinstance(inner, Combinator) and self._is_serial() else entries[0]

    def _again(self, stages: list[Stage], start: int, end: int, x: Any) -> list[Cache]:
        """Recompute the caches of the stages of a segment from its input."""
        caches: list[Cache] = []
        for i, stage in self._located(stages, start, end):
            with self._at(i):
                x, cache = stage.layer.apply(stage.params, x, stage.key)
            caches.append(cache)
        return caches

    def _back(self, params: Params, cache: Cache, gy: Any, first: int) -> tuple[list[Grads], Any]:
        """Go back to the input, or to the params of stage ``first``; return the gradients of params in order, and gy there."""
        stages, gparams = self._stages(params, cache[1]), []
        for x, (start, end) in reversed([*zip(cache[0], self._bounds(stages), strict=True)]):
            if end <= first:
                break
            caches = self._again(stages, start, end, x)
            for i, stage in reversed([*self._located(stages, max(start, first), end)]):
                with self._at(i):
                    if i == first:
                        gparams.append(stage.layer.grads(stage.params, caches.pop(), gy))
                    else:
                        gp, gy = stage.layer.vjp(stage.params, caches.pop(), gy)
                        gparams.append(gp)
        return gparams[::-1], gy


class _ErrorsAt(errors_at):
    """Add to an error its location: this combinator, and the layer of a serial."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, Exception):
            if self.combinator._is_serial():
                add_location(error, self.combinator.layer.location(self.name))
            add_location(error, self.combinator.location(""))


def remat(layer: Layer, segments: int | None = None) -> Remat:
    """Keep only a layer's input and key, and recompute its cache in the backward pass, bit for bit.

        y = f(p, x)      c = (x, key)
        gp, gx = f.vjp(p, cache of f.apply(p, x, key), gy)

    The backward pass takes one more forward pass. With ``segments=k`` a ``serial`` of n layers keeps k inputs, and one of k parts
    has its cache in memory at a time: k = √n needs the least memory. In ``repeat(remat(block), n)`` each copy keeps its input.

    A compiler may detect that a value was computed before, and keep it instead of recomputing it. A step compiled as one graph
    therefore saves memory only if the layer is in a ``repeat`` that compiles to a loop.

    Args:
        layer: The layer f. It draws the same noise as without ``remat``.
        segments: Number of parts of a ``serial``, at most its number of layers. By default one part.

    Params:
        The layer's params.

    Cache:
        A pair: a tuple of the inputs of the segments, and the key, ``None`` if the layer needs none.

    Raises:
        ValueError: If ``segments`` is given for a layer that is not a ``serial``, or has fewer layers.

    >>> from funcnet.combinators.sequential import serial
    >>> from funcnet.layers.activation.sigmoids import Tanh
    >>> remat(serial(Tanh(), Tanh(), Tanh()), segments=2)
    remat(serial(Tanh(), Tanh(), Tanh()), segments=2)
    """
    made = Remat(layer, segments)
    if segments is not None and not (isinstance(layer, Serial) and segments <= len(layer)):
        raise value_error("remat", f"segments={segments} needs a serial of at least as many layers", repr(layer))
    return made
