"""Recurrence: a layer along an axis of steps.

    scan            yₜ, sₜ = f(xₜ, sₜ₋₁)                gxₜ, gₜ₋₁ = f's vjp at t of (gyₜ, gₜ)      gp = Σₜ of its params' part
    bidirectional   y = merge(f(x), flip g(flip x))     gx = f's of its part + flip g's of flip of its part

s is the carry of a scan, g what goes back along it, from the gradient of the last one; gs₀ = g₀.
"""

from collections.abc import Callable
from typing import Any, Self

import torch
from attrs import field
from torch import Tensor

from funcnet import tree
from funcnet.combinator import Children, Combinator, add_gradients, child_key, errors_at, layers_only, tuple_of_layers
from funcnet.contract import Cache, Layer, Params, Rng
from funcnet.errors import describe, flag, value_error, whole
from funcnet.layers.operands.arithmetic import Concat
from funcnet.value import frozen
from funcnet.wrapper import Wrapper


def _stack(trees: list[Any]) -> Any:
    return tree.map(lambda *leaves: torch.stack(leaves), *trees)


def _at(values: Any, t: int) -> Any:
    return tree.map(lambda leaf: leaf[t], values)


@frozen
class Scan(Wrapper):
    """A layer from (x, carry) to (y, carry), run along the first axis of the first; made by ``scan``.

    Params   the layer's: one set for all steps. Step t has the key ``fold_in(rng, t)``.
    Cache    a tuple, the layer's for each step.
    Raises   ``ValueError`` when ``x`` is not a pair of a tree with steps and a carry; the layer's own errors get a note.
    """

    label = "scan"

    layer: Layer = field(validator=layers_only)
    reverse: bool = field(default=False, validator=flag)
    output_is_carry: bool = field(default=False, validator=flag)

    def location(self, name: Any) -> str:
        return f"scan, step {name}" if name != "" else "scan"

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        caches: list[Cache] = []

        def step(one: Any, key: Rng) -> Any:
            y, cache = self.layer.apply(params, one, key)
            caches.append(cache)
            return y

        return self._run(step, x, rng), tuple(caches)

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        return self._run(lambda one, key: self.layer(params, one, key), x, rng)

    def _run(self, step: Callable[[Any, Rng], Any], x: Any, rng: Rng) -> tuple[Any, Any]:
        ys = []
        xs, carry = self._pair(x)
        for t in self._steps(xs):
            with errors_at(self, t):
                y = step((_at(xs, t), carry), child_key(self.layer, rng, t))
            y, carry = (y, y) if self.output_is_carry else y
            ys.append(y)
        return _stack(ys[::-1] if self.reverse else ys), carry

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Params, Any]:
        total: Any = None
        gxs, (gys, g) = [], self._gradients(cache, gy)
        for t, one in self._backward(cache):
            with errors_at(self, t):
                gp, (gx, g) = self.layer.vjp(params, one, self._given(_at(gys, t), g))
            total = gp if total is None else tree.add(total, gp)
            gxs.append(gx)
        return total, (_stack(gxs if self.reverse else gxs[::-1]), g)

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        gxs, (gys, g) = [], self._gradients(cache, gy)
        for t, one in self._backward(cache):
            with errors_at(self, t):
                gx, g = self.layer.input_grad(params, one, self._given(_at(gys, t), g))
            gxs.append(gx)
        return _stack(gxs if self.reverse else gxs[::-1]), g

    def update_stats(self, params: Params, cache: Cache) -> Params:
        for t, one in enumerate(cache):
            with errors_at(self, t):
                params = self.layer.update_stats(params, one)
        return params

    def __repr__(self) -> str:
        words = [repr(self.layer)] + [f"{name}=True" for name in ("reverse", "output_is_carry") if getattr(self, name)]
        return f"scan({', '.join(words)})"

    def _pair(self, x: Any) -> Any:
        if not isinstance(x, tuple) or len(x) != 2 or not tree.leaves(x[0]):
            raise value_error("scan", "x must be a pair (xs, carry), steps along the first axis of xs", x)
        lengths = {leaf.shape[0] if isinstance(leaf, Tensor) and leaf.dim() else 0 for leaf in tree.leaves(x[0])}
        if len(lengths) > 1 or 0 in lengths:
            raise value_error("scan", "xs must have one number of steps, 1 or more", " and ".join(map(str, sorted(lengths))))
        return x

    def _steps(self, xs: Any) -> Any:
        steps = range(tree.leaves(xs)[0].shape[0])
        return reversed(steps) if self.reverse else steps

    def _backward(self, cache: Cache) -> Any:
        """Yield the number and the cache of each step, the last that was taken first."""
        steps = range(len(cache))
        return zip(steps if self.reverse else reversed(steps), reversed(cache), strict=True)

    def _gradients(self, cache: Cache, gy: Any) -> Any:
        """Return gy, which must be a pair with as many steps in its first part as were taken."""
        if not isinstance(gy, tuple) or len(gy) != 2:
            raise value_error("scan", "gy must be a pair, the gradients of ys and of the last carry", describe(gy))
        for leaf in tree.leaves(gy[0]):
            if leaf.shape[:1] != (len(cache),):
                raise value_error("scan", f"the gradients of ys must have {len(cache)} steps", describe(leaf))
        return gy

    def _given(self, gy: Any, g: Any) -> Any:
        return add_gradients("scan", gy, g) if self.output_is_carry else (gy, g)


def scan(layer: Layer, *, reverse: bool = False, output_is_carry: bool = False) -> Scan:
    """Run a layer from (x, carry) to (y, carry) along time: (xs, carry) to (ys, last carry), steps along the first axis.

    With ``output_is_carry`` the layer returns only its next carry, which is also its output, as recurrent cells do; with
    ``reverse`` it goes from the last step to the first. ``scan(LSTMCell(3, 4), output_is_carry=True)``.
    """
    return Scan(layer, reverse, output_is_carry)


@frozen
class Bidirectional(Combinator):
    """One layer along a sequence and another against it; made by ``bidirectional``.

    Params   a tuple, those of the two layers and of merge.
    Cache    a tuple of theirs.
    Raises   ``ValueError`` when ``params`` does not have three entries; a layer's own errors get a note.
    """

    label = "bidirectional"

    layers: tuple[Layer, Layer] = field(validator=tuple_of_layers)
    merge: Layer = field(default=Concat(), validator=layers_only)
    dim: int = field(default=0, validator=whole(0))

    def location(self, name: Any) -> str:
        return f"bidirectional, {('forward', 'backward', 'merge')[int(name)]}"

    def children(self) -> Children:
        return {"0": self.layers[0], "1": self.layers[1], "2": self.merge}

    def with_children(self, children: Children) -> Self:
        return self.replace(layers=(children["0"], children["1"]), merge=children["2"])

    def wires(self) -> list[tuple[str | None, str | None]]:
        *names, merge = self.children()
        return [wire for name in names for wire in ((None, name), (name, merge))] + [(merge, None)]

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        entries, sides, pairs = self.entries(params), self._sides(x), []
        for i, layer in enumerate(self.layers):
            with errors_at(self, i):
                pairs.append(layer.apply(entries[i], sides[i], child_key(layer, rng, i)))
        (one, rest), (other, more) = _parted(pairs[0][0]), _parted(self._turned(pairs[1][0]))
        with errors_at(self, 2):
            y, cache = self.merge.apply(entries[2], (one, other), child_key(self.merge, rng, 2))
        return ((y, (rest, more)) if isinstance(pairs[0][0], tuple) else y), (pairs[0][1], pairs[1][1], cache)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Params, Any]:
        entries = self.entries(params)
        g_y, rest = _parted(gy)
        with errors_at(self, 2):
            gr, (one, other) = self.merge.vjp(entries[2], cache[2], g_y)
        back = ((one, rest[0]), (other, rest[1])) if isinstance(gy, tuple) else (one, other)
        with errors_at(self, 0):
            gp, gx = self.layers[0].vjp(entries[0], cache[0], back[0])
        with errors_at(self, 1):
            gq, more = self.layers[1].vjp(entries[1], cache[1], self._turned(back[1]))
        (a, ga), (b, gb) = _parted(gx), _parted(self._turned(more))
        return (gp, gq, gr), (tree.add(a, b), (ga, gb)) if isinstance(gx, tuple) else tree.add(a, b)

    def __repr__(self) -> str:
        words = [*map(repr, self.layers if self.layers[0] != self.layers[1] else self.layers[:1])]
        words += [f"merge={self.merge!r}"] * (self.merge != Concat()) + [f"dim={self.dim}"] * (self.dim != 0)
        return f"bidirectional({', '.join(words)})"

    def _sides(self, x: Any) -> tuple[Any, Any]:
        xs, carries = self._checked(x)
        if carries is None:
            return xs, self._flip(xs)
        if not isinstance(carries, tuple) or len(carries) != 2:
            raise value_error("bidirectional", "x must be a sequence, or a pair of it and two carries", describe(carries))
        return (xs, carries[0]), (self._flip(xs), carries[1])

    def _checked(self, x: Any) -> tuple[Any, Any]:
        """Return the sequence and the carries; refuse a sequence that cannot be reversed."""
        leaves = tree.leaves(x[0] if isinstance(x, tuple) and x else x)
        if (isinstance(x, tuple) and len(x) != 2) or not leaves:
            raise value_error("bidirectional", "x must be a sequence, or a pair of it and two carries", describe(x))
        for leaf in leaves:
            if not isinstance(leaf, Tensor) or leaf.dim() <= self.dim:
                raise value_error("bidirectional", f"x must have an axis {self.dim}, of steps", describe(leaf))
        return _parted(x)

    def _turned(self, y: Any) -> Any:
        return (self._flip(y[0]), *y[1:]) if isinstance(y, tuple) else self._flip(y)

    def _flip(self, values: Any) -> Any:
        return tree.map(lambda leaf: leaf.flip(self.dim), values)


def _parted(x: Any) -> tuple[Any, Any]:
    """Part a pair of a sequence and a carry; a sequence alone has the carry ``None``."""
    return x if isinstance(x, tuple) else (x, None)


def bidirectional(layer: Layer, backward: Layer | None = None, *, merge: Layer | None = None, dim: int = 0) -> Bidirectional:
    """Run ``layer`` forward along a sequence and another layer backward, and join the outputs.

    By default, ``backward`` is ``layer`` with separate params. ``merge``, a layer on the pair of outputs, concatenates them by
    default. Time is the axis ``dim``. For recurrent layers x is (xs, (carry, carry)) and y is (ys, (carry, carry)), with one
    carry for each direction.
    """
    return Bidirectional((layer, layer if backward is None else backward), Concat() if merge is None else merge, dim)
