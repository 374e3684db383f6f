"""Branching: layers side by side, with one common input or one input each.

    parallel   y = (f₁(x₁), ..., fₙ(xₙ))      gx = (g₁, ..., gₙ)
    branch     y = m(f₁(x), ..., fₙ(x))       gx = g₁ + ... + gₙ      m = merge; without it y is the tuple
    residual   y = f(x) + s(x)                gx = g_f + g_s          s = shortcut

gᵢ is the gradient that layer i returns for its input, from the gradient of its output.
"""

from functools import reduce
from typing import Any, Self

from attrs import field
from torch import Tensor

from funcnet import tree
from funcnet.checks import kind_of
from funcnet.combinator import Children, Combinator, child_key, errors_at, layer_or_none, tuple_of_layers
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.errors import describe, flag, value_error
from funcnet.layers.operands.arithmetic import Add
from funcnet.layers.shape.reshaping import Identity
from funcnet.plans import Unchecked
from funcnet.value import frozen

_SUM = Add(broadcast=False)


@frozen
class Branching(Combinator):
    """Layers side by side, and optionally a layer that merges their outputs; made by ``parallel``, ``branch`` and ``residual``.

        y = (f₁(x₁), ..., fₙ(xₙ))  or  m(f₁(x), ..., fₙ(x))        gx = (g₁, ..., gₙ)  or  g₁ + ... + gₙ

    Args:
        layers: The layers f₁, ..., fₙ.
        merge: A layer m that takes the tuple of outputs, or ``None`` to return the tuple.
        one_input: Whether all layers get the same x; otherwise x is a tuple with one entry per layer.

    Params:
        A tuple with one entry per layer, then the params of ``merge``, if given.

    Cache:
        A tuple in the same order.

    Raises:
        ValueError: If ``one_input`` is set without layers, or if ``params``, or ``x`` or ``gy`` of parallel layers, is not a
            tuple with one entry per layer.
    """

    passes_gradients_on = True

    layers: tuple[Layer, ...] = field(validator=tuple_of_layers)
    merge: Layer | None = field(default=None, validator=layer_or_none)
    one_input: bool = field(default=False, validator=flag)

    def __attrs_post_init__(self) -> None:
        if self.one_input and not self.layers:
            raise value_error("branch", "there must be at least one layer", "none")

    @property
    def label(self) -> str:
        return "residual" if self._is_residual() else "branch" if self.one_input else "parallel"

    def _is_residual(self) -> bool:
        """Return whether this is a residual; ``merge`` is compared by repr, since a stand-in has the repr of its layer."""
        return self.one_input and len(self.layers) == 2 and repr(self.merge) == repr(_SUM)

    def location(self, name: Any) -> str:
        return f"{self.label}, {'merge' if int(name) == len(self.layers) else f'layer {name}'}"

    def children(self) -> Children:
        layers = self.layers if self.merge is None else (*self.layers, self.merge)
        return {str(i): layer for i, layer in enumerate(layers)}

    def with_children(self, children: Children) -> Self:
        layers = (*children.values(), None) if self.merge is None else tuple(children.values())
        return self.replace(layers=layers[:-1], merge=layers[-1])

    def wires(self) -> list[tuple[str | None, str | None]]:
        if self.merge is None:
            return super().wires()
        *names, merge = self.children()
        return [wire for name in names for wire in ((None, name), (name, merge))] + [(merge, None)]

    def entries(self, params: Params) -> Any:
        """Return the entries. A tuple of the right length is returned directly, since every step calls this."""
        count = len(self.layers) + (self.merge is not None)
        return params if type(params) is tuple and len(params) == count else super().entries(params)

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        ys: list[Any] = []
        caches: list[Cache] = []
        entries = self.entries(params)
        rows = zip(self.layers, entries[: len(self.layers)], self._inputs(x), strict=True)
        try:
            for layer, p, entry in rows:
                y, cache = layer.apply(p, entry) if rng is None else layer.apply(p, entry, child_key(layer, rng, len(ys)))
                ys.append(y)
                caches.append(cache)
            if self.merge is None:
                return tuple(ys), tuple(caches)
            y, cache = self.merge.apply(entries[-1], tuple(ys), child_key(self.merge, rng, len(ys)))
        except Exception as error:
            self.locate(error, len(caches))
            raise
        return y, (*caches, cache)

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        ys: list[Any] = []
        entries = self.entries(params)
        rows = zip(self.layers, entries[: len(self.layers)], self._inputs(x), strict=True)
        try:
            for layer, p, entry in rows:
                ys.append(layer(p, entry) if rng is None else layer(p, entry, child_key(layer, rng, len(ys))))
            return tuple(ys) if self.merge is None else self.merge(entries[-1], tuple(ys), child_key(self.merge, rng, len(ys)))
        except Exception as error:
            self.locate(error, len(ys))
            raise

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        entries = self.entries(params)
        merged, gys = self._unmerge(entries, cache, gy)
        pairs = self._back("vjp", entries, cache, gys)
        return (*[gp for gp, _ in pairs], *merged), self._gathered([gx for _, gx in pairs])

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        entries = self.entries(params)
        merged, gys = self._unmerge(entries, cache, gy)
        return (*self._back("grads", entries, cache, gys), *merged)

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        entries = self.entries(params)
        if self.merge is not None:
            with errors_at(self, len(self.layers)):
                gy = self.merge.input_grad(entries[-1], cache[-1], gy)
        return self._gathered(self._back("input_grad", entries, cache, gy))

    def unchecked(self, params: Params, cache: Cache) -> Unchecked | None:
        """Return the verbs of a residual without checks; ``None`` for other branches, which are rare in nets of small layers.

        ``merge`` must be exactly an ``Add``: a stand-in has the same repr but overrides the verbs.
        """
        if not self._is_residual() or type(self.merge) is not Add:
            return None
        f, s = [layer.unchecked(p, c) for layer, p, c in zip(self.layers, params[:2], cache[:2], strict=True)]
        return None if f is None or s is None else _unchecked_residual(f, s)

    def _unmerge(self, entries: Params, cache: Cache, gy: Any) -> tuple[list[Grads], Any]:
        """Go back through ``merge``: return the gradients of its params, as a list of at most one, and of the layers' outputs."""
        if self.merge is None:
            return [], gy
        with errors_at(self, len(self.layers)):
            gp, gys = self.merge.vjp(entries[-1], cache[-1], gy)
        return [gp], gys

    def _back(self, verb: str, entries: Any, cache: Cache, gys: Any) -> list[Any]:
        """Call a backward method of every layer."""
        n = len(self.layers)
        found: list[Any] = []
        rows = zip(self.layers, entries[:n], cache[:n], self._one_each("gy", gys), strict=True)
        try:
            for layer, p, c, g in rows:
                found.append(getattr(layer, verb)(p, c, g))
        except Exception as error:
            self.locate(error, len(found))
            raise
        return found

    def _gathered(self, gxs: list[Any]) -> Any:
        return reduce(_sum, gxs) if self.one_input else tuple(gxs)

    def __repr__(self) -> str:
        if self._is_residual():
            shown = self.layers if self.layers[1] != Identity() else self.layers[:1]
            return f"residual({', '.join(map(repr, shown))})"
        words = [*map(repr, self.layers)] + [f"merge={self.merge!r}"] * (self.merge is not None)
        return f"{self.label}({', '.join(words)})"

    def _inputs(self, x: Any) -> tuple[Any, ...]:
        return (x,) * len(self.layers) if self.one_input else self._one_each("x", x)

    def _one_each(self, name: str, values: Any) -> tuple[Any, ...]:
        if not isinstance(values, tuple) or len(values) != len(self.layers):
            rule = f"{name} must be a tuple of {len(self.layers)}, one entry per layer"
            raise value_error(self.label, rule, describe(values))
        return values


def _unchecked_residual(f: Unchecked, s: Unchecked) -> Unchecked:
    """Join the unchecked verbs of both branches; the cache of the sum is the same as in ``Add``."""

    def apply(params: Params, x: Any) -> tuple[Any, Cache]:
        (one, kept), (other, kept_too) = f.apply(params[0], x), s.apply(params[1], x)
        shape = tuple(one.shape)
        y = one + other
        return y, (kept, kept_too, ((shape, shape), shape, kind_of(y)))

    def vjp(params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        (gp, gx), (gp_too, gx_too) = f.vjp(params[0], cache[0], gy), s.vjp(params[1], cache[1], gy)
        return (gp, gp_too, params[2]), gx + gx_too

    def grads(params: Params, cache: Cache, gy: Any) -> Grads:
        return f.grads(params[0], cache[0], gy), s.grads(params[1], cache[1], gy), params[2]

    return Unchecked(apply, vjp, grads)


def _sum(a: Any, b: Any) -> Any:
    """Add two trees. Adding two tensors directly saves 1 µs in every residual."""
    return a + b if type(a) is Tensor and type(b) is Tensor else tree.add(a, b)


def parallel(*layers: Layer) -> Branching:
    """Apply each layer to its own entry of a tuple.

        y  = (f₁(x₁), ..., fₙ(xₙ))
        gx = (g₁, ..., gₙ)            gpᵢ, gᵢ = fᵢ.vjp(pᵢ, cᵢ, gyᵢ)

    Args:
        layers: One layer for each entry of x.

    Params:
        A tuple with one entry per layer.

    Cache:
        A tuple with one entry per layer.

    Raises:
        ValueError: If x or gy is not a tuple with one entry per layer.

    >>> import torch
    >>> from funcnet.layers.activation.sigmoids import Sigmoid, Tanh
    >>> parallel(Tanh(), Sigmoid())(({}, {}), (torch.zeros(1), torch.zeros(1)))
    (tensor([0.]), tensor([0.5000]))
    """
    return Branching(layers)


def branch(*layers: Layer, merge: Layer | None = None) -> Branching:
    """Apply several layers to one input; return the tuple of their outputs, or merge them.

        y  = (f₁(x), ..., fₙ(x))      or, with a merge layer m,  y = m(f₁(x), ..., fₙ(x))
        gx = g₁ + ... + gₙ            gpᵢ, gᵢ = fᵢ.vjp(pᵢ, cᵢ, gradient of the output of fᵢ)

    Args:
        layers: The layers, at least one.
        merge: A layer that takes a tuple, such as ``Add()`` or ``Concat(-1)``. By default y is the tuple of outputs.

    Params:
        A tuple with one entry per layer, then the params of ``merge``, if given.

    Cache:
        A tuple in the same order.

    Raises:
        ValueError: If there are no layers.

    >>> import torch
    >>> from funcnet.layers.linear.linear import Linear
    >>> from funcnet.layers.operands.arithmetic import Add
    >>> net = branch(Linear(3, 4), Linear(3, 4), merge=Add())
    >>> net(net.init(0), torch.ones(2, 3)).shape
    torch.Size([2, 4])
    """
    return Branching(layers, merge, one_input=True)


def residual(layer: Layer, shortcut: Layer = Identity()) -> Branching:  # noqa: B008 (a frozen value)
    """Add the output of a layer to its input.

        y  = f(x) + s(x)
        gx = g_f + g_s      gp_f, g_f = f.vjp(p_f, c_f, gy)      gp_s, g_s = s.vjp(p_s, c_s, gy)

    To put several layers in the residual branch, pass a ``serial``: the second argument is the shortcut, not the next layer.

    Args:
        layer: The layer f; its output has the shape of s(x).
        shortcut: The layer s, for example a 1x1 convolution if f changes the channels. Default: ``Identity()``.

    Params:
        A tuple of three: the params of ``layer``, the params of ``shortcut``, and ``{}`` for the sum.

    Cache:
        A tuple in the same order.

    References:
        He et al. 2016, eq. 1 and 2.

    >>> import torch
    >>> from funcnet.combinators.sequential import serial
    >>> from funcnet.layers.activation.sigmoids import Tanh
    >>> from funcnet.layers.linear.linear import Linear
    >>> net = residual(serial(Linear(4, 8), Tanh(), Linear(8, 4)))
    >>> net(net.init(0), torch.ones(2, 4)).shape
    torch.Size([2, 4])
    """
    return Branching((layer, shortcut), _SUM, one_input=True)
