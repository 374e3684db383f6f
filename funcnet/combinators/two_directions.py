"""Two directions: one layer forward along a sequence, and another backward."""

from typing import Any, Self

from attrs import field
from torch import Tensor

from funcnet import tree
from funcnet.combinator import Children, Combinator, child_key, errors_at, layers_only, tuple_of_layers
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.errors import describe, value_error, whole
from funcnet.layers.operands.picking import Concat
from funcnet.value import frozen


def _pair_of_layers(value: Any, attribute: Any, got: Any) -> None:
    tuple_of_layers(value, attribute, got)
    if len(got) != 2:
        raise value_error("bidirectional", "layers must be a pair, (forward, backward)", got)


@frozen
class Bidirectional(Combinator):
    """One layer forward along a sequence and another backward; made by ``bidirectional``.

        y = merge(f(x), flip g(flip x))      gx = g_f + flip g_g

    Args:
        layers: The pair (f, g): the layer that goes forward and the layer that goes backward.
        merge: A layer that takes the pair of outputs.
        dim: Axis of time.

    Params:
        A tuple with the params of f, g and ``merge``.

    Cache:
        A tuple of their caches.

    Raises:
        ValueError: If x has no axis ``dim``, or is a tuple other than (xs, (carry, carry)).
    """

    label = "bidirectional"
    passes_gradients_on = True

    layers: tuple[Layer, Layer] = field(validator=_pair_of_layers)
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
        ys, carries = self._outputs([y for y, _ in pairs])
        with errors_at(self, 2):
            y, cache = self.merge.apply(entries[2], ys, child_key(self.merge, rng, 2))
        return (y if carries is None else (y, carries)), (pairs[0][1], pairs[1][1], cache)

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        entries, sides, found = self.entries(params), self._sides(x), []
        for i, layer in enumerate(self.layers):
            with errors_at(self, i):
                found.append(layer(entries[i], sides[i], child_key(layer, rng, i)))
        ys, carries = self._outputs(found)
        with errors_at(self, 2):
            y = self.merge(entries[2], ys, child_key(self.merge, rng, 2))
        return y if carries is None else (y, carries)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        with errors_at(self, 2):
            gmerge, gs = self.merge.vjp(self.entries(params)[2], cache[2], _split(gy)[0])
        (gp, gx), (gq, more) = self._back("vjp", params, cache, gy, gs)
        return (gp, gq, gmerge), self._add_directions(gx, more)

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        with errors_at(self, 2):
            gmerge, gs = self.merge.vjp(self.entries(params)[2], cache[2], _split(gy)[0])
        return (*self._back("grads", params, cache, gy, gs), gmerge)

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        with errors_at(self, 2):
            gs = self.merge.input_grad(self.entries(params)[2], cache[2], _split(gy)[0])
        return self._add_directions(*self._back("input_grad", params, cache, gy, gs))

    def _back(self, verb: str, params: Params, cache: Cache, gy: Any, gs: Any) -> list[Any]:
        """Call a backward method of both layers with the gradients of their outputs and, if they have any, of their carries."""
        entries, (one, other), rest = self.entries(params), gs, _split(gy)[1]
        sides = (one, self._flip_output(other)) if rest is None else ((one, rest[0]), self._flip_output((other, rest[1])))
        found = []
        for i, (layer, g) in enumerate(zip(self.layers, sides, strict=True)):
            with errors_at(self, i):
                found.append(getattr(layer, verb)(entries[i], cache[i], g))
        return found

    def _add_directions(self, gx: Any, more: Any) -> Any:
        """Add the gradients of the sequence from both layers."""
        (a, ga), (b, gb) = _split(gx), _split(self._flip_output(more))
        return (tree.add(a, b), (ga, gb)) if isinstance(gx, tuple) else tree.add(a, b)

    def __repr__(self) -> str:
        words = [*map(repr, self.layers if self.layers[0] != self.layers[1] else self.layers[:1])]
        words += [f"merge={self.merge!r}"] * (self.merge != Concat()) + [f"dim={self.dim}"] * (self.dim != 0)
        return f"bidirectional({', '.join(words)})"

    def _sides(self, x: Any) -> tuple[Any, Any]:
        xs, carries = self._checked(x)
        if carries is None:
            return xs, self._flip(xs)
        if not isinstance(carries, tuple) or len(carries) != 2:
            raise value_error("bidirectional", "x must be a sequence, or a pair (sequence, (carry, carry))", describe(carries))
        return (xs, carries[0]), (self._flip(xs), carries[1])

    def _checked(self, x: Any) -> tuple[Any, Any]:
        """Return the sequence and the carries, after checking that the sequence can be flipped."""
        leaves = tree.leaves(x[0] if isinstance(x, tuple) and x else x)
        if (isinstance(x, tuple) and len(x) != 2) or not leaves:
            raise value_error("bidirectional", "x must be a sequence, or a pair (sequence, (carry, carry))", describe(x))
        for leaf in leaves:
            if not isinstance(leaf, Tensor) or leaf.dim() <= self.dim:
                raise value_error("bidirectional", f"x must have an axis of steps, dim={self.dim}", describe(leaf))
        return _split(x)

    def _outputs(self, found: list[Any]) -> tuple[tuple[Any, Any], Any]:
        """Return the pair of outputs in the order of x, and the pair of carries, ``None`` for layers without a carry."""
        (one, rest), (other, more) = _split(found[0]), _split(self._flip_output(found[1]))
        return (one, other), (rest, more) if isinstance(found[0], tuple) else None

    def _flip_output(self, y: Any) -> Any:
        return (self._flip(y[0]), *y[1:]) if isinstance(y, tuple) else self._flip(y)

    def _flip(self, values: Any) -> Any:
        return tree.map(lambda leaf: leaf.flip(self.dim), values)


def _split(x: Any) -> tuple[Any, Any]:
    """Split (sequence, carry); the carry of a lone sequence is ``None``."""
    return x if isinstance(x, tuple) else (x, None)


def bidirectional(layer: Layer, backward: Layer | None = None, *, merge: Layer | None = None, dim: int = 0) -> Bidirectional:
    """Run one layer forward along a sequence and another backward, and merge the outputs.

        y  = merge(f(x), flip g(flip x))      flip along ``dim``
        gx = g_f + flip g_g                   gp_f, g_f = f.vjp(..., g₁)      gp_g, g_g = g.vjp(..., flip g₂)

    (g₁, g₂) is the gradient of the merged pair. For recurrent layers x is (xs, (carry, carry)) and y is (ys, (carry, carry)),
    with one carry for each direction.

    Args:
        layer: The layer f, which goes forward.
        backward: The layer g, which goes backward. By default the same layer, with separate params.
        merge: A layer that takes the pair of outputs. By default ``Concat()``.
        dim: Axis of time.

    Params:
        A tuple of the params of f, g and ``merge``.

    Cache:
        A tuple of their caches.

    >>> import torch
    >>> from funcnet.combinators.recurrence import scan
    >>> from funcnet.layers.recurrent.cells import GRUCell
    >>> net = bidirectional(scan(GRUCell(3, 4), output_is_carry=True))
    >>> ys, _ = net(net.init(0), (torch.ones(5, 2, 3), (torch.zeros(2, 4), torch.zeros(2, 4))))
    >>> ys.shape
    torch.Size([5, 2, 8])
    """
    return Bidirectional((layer, layer if backward is None else backward), Concat() if merge is None else merge, dim)
