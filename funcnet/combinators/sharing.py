"""Sharing: one set of params used in several places.

    shared   y = (f(p, x₁), ..., f(p, xₙ))      gp = Σ gpᵢ         gx = (g₁, ..., gₙ)
    tied     y = f(p, x) with p_b = p_a         gp_a += gp_b       for paths a, b of the params of one net

The gradient of shared params is the sum over the places that use them.
"""

from functools import reduce
from typing import Any, Self

from attrs import field

from funcnet import tree
from funcnet.combinator import Rewrite, absent, child_key, errors_at, layers_only
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.errors import describe, value_error
from funcnet.flattening import Tree
from funcnet.random.keys import Key
from funcnet.value import frozen
from funcnet.wrapper import Wrapper, infer_unchanged


@frozen
class Shared(Wrapper):
    """One layer, with one set of params, applied to each entry of a tuple; made by ``shared``.

        y = (f(p, x₁), ..., f(p, xₙ))      gp = Σ gpᵢ      gx = (g₁, ..., gₙ)

    Args:
        layer: The layer f.

    Params:
        The layer's params.

    Cache:
        A tuple with one entry per entry of x.

    Raises:
        ValueError: If x is not a non-empty tuple.
    """

    label = "shared"

    layer: Layer = field(validator=layers_only)

    def location(self, name: Any) -> str:
        return f"shared, entry {name}" if name != "" else "shared"

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        ys, caches = [], []
        for i, one in enumerate(self._entries(x)):
            with errors_at(self, i):
                y, cache = self.layer.apply(params, one, child_key(self.layer, rng, i))
            ys.append(y)
            caches.append(cache)
        return tuple(ys), tuple(caches)

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        ys = []
        for i, one in enumerate(self._entries(x)):
            with errors_at(self, i):
                ys.append(self.layer(params, one, child_key(self.layer, rng, i)))
        return tuple(ys)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        pairs = self._back("vjp", params, cache, gy)
        return reduce(tree.add, [gp for gp, _ in pairs]), tuple([gx for _, gx in pairs])

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        made: Params = reduce(tree.add, self._back("grads", params, cache, gy))
        return made

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        return tuple(self._back("input_grad", params, cache, gy))

    def _back(self, verb: str, params: Params, cache: Cache, gy: Any) -> list[Any]:
        """Call a backward method for every entry."""
        found = []
        for i, (c, g) in enumerate(zip(cache, self._entries(gy, "gy", len(cache)), strict=True)):
            with errors_at(self, i):
                found.append(getattr(self.layer, verb)(params, c, g))
        return found

    def update_stats(self, params: Params, cache: Cache) -> Params:
        for i, one in enumerate(cache):
            with errors_at(self, i):
                params = self.layer.update_stats(params, one)
        return params

    def __repr__(self) -> str:
        return f"shared({self.layer!r})"

    def _entries(self, values: Any, name: str = "x", count: int | None = None) -> tuple[Any, ...]:
        if not isinstance(values, tuple) or not values or count not in (None, len(values)):
            rule = f"must be a tuple of {count or 'at least one'}, each an {'input' if name == 'x' else 'output'} of the layer"
            raise value_error("shared", f"{name} {rule}", describe(values))
        return values


def shared(layer: Layer) -> Shared:
    """Apply one layer to each entry of a tuple, with the same params.

        y  = (f(p, x₁), ..., f(p, xₙ))
        gp = Σᵢ gpᵢ      gx = (g₁, ..., gₙ)      gpᵢ, gᵢ = f.vjp(p, cᵢ, gyᵢ)

    ``serial(shared(encoder), Sub())`` is a siamese net. Entry i of a stochastic layer has the key ``fold_in(rng, i)``. Running
    statistics are updated with each entry in turn.

    Args:
        layer: The layer f.

    Params:
        The layer's params.

    Cache:
        A tuple with one entry per entry of x.

    Raises:
        ValueError: If x is not a non-empty tuple, or gy has another length.

    >>> import torch
    >>> from funcnet.layers.linear.linear import Linear
    >>> net = shared(Linear(3, 4))
    >>> [y.shape for y in net(net.init(0), (torch.ones(2, 3), torch.ones(5, 3)))]
    [torch.Size([2, 4]), torch.Size([5, 4])]
    """
    return Shared(layer)


@frozen
class Tied(Wrapper):
    """A net that uses some of its params in several places; made by ``tied``.

        y = f(p, x) with p_b = p_a      gp_a += gp_b      for paths a, b in one group

    Args:
        layer: The net.
        groups: Tuples of at least two paths that share params; the first path holds them.

    Params:
        The net's params, with ``None`` at every path of a group except the first.

    Cache:
        The net's cache.

    Raises:
        ValueError: If a path is not in params, if the shapes at the paths of a group differ, or if params has tensors at a path
            that is not the first of its group.
    """

    label = "tied"

    layer: Layer = field(validator=layers_only)
    groups: tuple[tuple[str, ...], ...]

    def __attrs_post_init__(self) -> None:
        for group in self.groups if isinstance(self.groups, tuple) else (self.groups,):
            if not isinstance(group, tuple) or len(group) < 2 or not all(isinstance(path, str) for path in group):
                raise value_error("tied", "each group must be a tuple of at least two paths", repr(group))

    def init(self, rng: Key | int) -> Params:
        params = super().init(rng)
        for first, *others in self.groups:
            for path in others:
                one, other = self._found(params, first), self._found(params, path)
                if _shapes_of(one) != _shapes_of(other):
                    rule = f"{path} must have the same shapes as {first}, {_shapes_of(one)}"
                    raise value_error("tied", rule, repr(_shapes_of(other)))
                params = tree.replace(params, path, absent(other))
        return params

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        with errors_at(self, ""):
            return self.layer.apply(self.filled(params), x, rng)

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        with errors_at(self, ""):
            return self.layer(self.filled(params), x, rng)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        with errors_at(self, ""):
            gparams, gx = self.layer.vjp(self.filled(params), cache, gy)
        return self.gathered(gparams), gx

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        with errors_at(self, ""):
            return self.gathered(self.layer.grads(self.filled(params), cache, gy))

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        with errors_at(self, ""):
            return self.layer.input_grad(self.filled(params), cache, gy)

    def update_stats(self, params: Params, cache: Cache) -> Params:
        with errors_at(self, ""):
            moved: Params = self.without_copies(self.layer.update_stats(self.filled(params), cache))
            return moved

    def map_with_params(self, f: Rewrite, params: Params) -> tuple[Self, Params]:
        """Change nothing: params of the layers inside are shared, so no layer can be rewritten together with its params."""
        return self, params

    infer = infer_unchanged

    def __repr__(self) -> str:
        return f"tied({', '.join(map(repr, (self.layer, *self.groups)))})"

    def _found(self, params: Params, path: str) -> Tree:
        try:
            return tree.at(params, path)
        except LookupError:
            names = ", ".join(tree.names(params))
            raise value_error("tied", f"each path must be one of {names}, or a prefix of them", repr(path)) from None

    def filled(self, params: Params) -> Params:
        """Return the net's params: the params at the first path of each group are put at its other paths too.

        Args:
            params: Params as ``init`` returns them, with ``None`` at the other paths.
        """
        for first, *others in self.groups:
            value = self._found(params, first)
            for path in others:
                if tree.leaves(self._found(params, path)):
                    raise value_error("tied", f"params must have nothing at {path}", describe(tree.at(params, path)))
                params = tree.replace(params, path, value)
        return params

    def gathered(self, gparams: Grads) -> Grads:
        """Sum the gradients of each group at its first path; the transpose of ``filled``.

        Args:
            gparams: Gradients of all params of the net.
        """
        for first, *others in reversed(self.groups):
            total = reduce(tree.add, [tree.at(gparams, path) for path in (first, *others)])
            gparams = tree.replace(gparams, first, total)
        kept: Grads = self.without_copies(gparams)
        return kept

    def without_copies(self, params: Any) -> Any:
        """Replace the leaves at all paths of each group except the first with ``None``.

        Args:
            params: Params, or gradients, of the net.
        """
        for _, *others in self.groups:
            for path in others:
                params = tree.replace(params, path, absent(tree.at(params, path)))
        return params


def _shapes_of(value: Tree) -> Tree:
    return tree.map(lambda leaf: tuple(leaf.shape), value)


def tied(net: Layer, *groups: tuple[str, ...]) -> Tied:
    """Share params between places of one net.

        y    = f(p, x) with p_b = p_a
        gp_a = Σ of the net's gradients at all paths of the group      gp_b = None

    Args:
        net: The net f.
        groups: Tuples of paths in its params. The first path of each group holds the params. A path leads to one tensor, or to
            all params of a layer: ``tied(parallel(f, f), ("0", "1"))``.

    Params:
        The net's params, with ``None`` at every path of a group except the first.

    Cache:
        The net's cache.

    Raises:
        ValueError: For a group of fewer than two paths; in ``init``, if a path is not in params or the shapes differ.

    >>> from funcnet.combinators.sequential import serial
    >>> from funcnet.layers.embedding.embedding import Embedding
    >>> from funcnet.layers.linear.linear import Linear
    >>> net = tied(serial(Embedding(65, 8), Linear(8, 65, bias=False)), ("0.weight", "1.weight"))
    >>> list(tree.names(net.init(0)))
    ['0.weight']
    """
    return Tied(net, groups)
