"""Random nets: any combinator around any other, over layers of the catalogue; and their gradients by autograd.

A net is grown from the shape of its input. ``Grower.net`` draws a layer with any output, ``Grower.endo`` a layer whose output has
the shape of its input. A combinator that does not fit a shape falls back to a leaf.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from cases import CASES
from hypothesis import strategies as st
from torch import Tensor

import funcnet as fn
from funcnet import tree
from funcnet.combinators.ensembles import Ensemble
from funcnet.combinators.freezing import Frozen
from funcnet.combinators.gradient_rules import ClipGradient, ScaleGradient, StraightThrough
from funcnet.combinators.mixed_precision import MixedPrecision
from funcnet.contract import Cache, Layer, Params, Rng
from funcnet.layers.custom import ElementwiseFunction, FunctionLayer, ShapeDependent
from funcnet.testing.surrogates import is_own_surrogate
from funcnet.value import parts

Shape = tuple[int, ...]

INPUTS: tuple[Shape, ...] = ((4, 3), (3, 2), (2, 3, 5), (2, 2, 4, 4), (3, 2, 2))
"""Initial shapes of x: those of many cases of the catalogue."""

_MOST = 400


RULES = ScaleGradient, ClipGradient, StraightThrough
"""Gradient rules whose derivative ``declared`` knows."""


def _is_leaf(layer: Layer) -> bool:
    """Return whether a layer can be a leaf: it never rounds to a lower precision, and refuses wrong shapes with its own error."""
    kinds = MixedPrecision, fn.Cast, FunctionLayer, ElementwiseFunction, ShapeDependent
    layers = [one for one in parts(layer) if isinstance(one, Layer)]
    return not any(isinstance(one, kinds) or (is_own_surrogate(one) and not isinstance(one, RULES)) for one in layers)


LEAVES: tuple[Layer, ...] = tuple(dict.fromkeys(case.layer for case in CASES.values() if _is_leaf(case.layer)))
"""The layers of the catalogue and the layers within its combinators, each once."""

EMBEDDINGS = (fn.Embedding(5, 3), fn.uniqued(fn.serial(fn.Embedding(5, 3), fn.Tanh())), fn.HashEmbed(6, 3))


def look(value: Any) -> None:
    """Read an output or a gradient without changing it."""


@functools.cache
def shape_after(layer: Layer, shape: Any) -> Shape | None:
    """Return the shape of the output; ``None`` if the layer does not accept the input, or does not return one tensor."""
    try:
        found: Any = fn.output_shape(layer, shape)
    except ValueError:
        return None
    small = isinstance(found, torch.Size) and found.numel() <= _MOST
    return tuple(found) if small and _is_floating(layer, shape) else None


def _is_floating(layer: Layer, shape: Any) -> bool:
    """Return whether the output is floating with non-empty rows, in training too: a norm may need several rows."""
    try:
        y = layer.apply(layer.init(0), torch.zeros(shape), 0)[0]
    except (ValueError, FloatingPointError):  # ``checked`` refuses the infinities that some layers have at 0
        return False
    return isinstance(y, Tensor) and y.is_floating_point() and y.numel() > 0


@st.composite
def nets(draw: Any, depth: int = 6) -> tuple[Layer, Any]:
    """Draw a net of combinators within combinators, and the shape of its input."""
    shape, depth = draw(st.sampled_from(INPUTS)), draw(st.integers(1, depth))
    if draw(st.integers(0, 9)) == 9:
        table = draw(st.sampled_from(EMBEDDINGS))
        return fn.serial(table, Grower(draw).net((4, 3), depth - 1)), torch.int64
    return Grower(draw).net(shape, depth), shape


class Grower:
    """Draws layers that fit a shape."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw

    def pick(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def number(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def net(self, shape: Shape, depth: int) -> Layer:
        """Draw a layer on a tensor, with a tensor as its output."""
        if depth < 1:
            return self.leaf(shape)
        kind = self.pick(*KINDS, *ENDO_KINDS)
        return self._fitting(kind(self, shape, depth - 1), shape)

    def endo(self, shape: Shape, depth: int) -> Layer:
        """Draw a layer whose output has the shape of x."""
        if depth < 1:
            return self.leaf(shape, shape)
        return self._fitting(self.pick(*ENDO_KINDS)(self, shape, depth - 1), shape, shape)

    def leaf(self, shape: Shape, to: Shape | None = None) -> Layer:
        """Draw a case of the catalogue, or the next one that fits."""
        start = self.number(0, len(LEAVES) - 1)
        rotated = (*LEAVES[start:], *LEAVES[:start])
        return next((one for one in rotated if _fits(one, shape, to)), fn.Identity())

    def weighted(self, shape: Shape, to: Shape | None = None) -> Layer:
        """Draw a layer with a weight matrix, for the combinators that change it."""
        made = [fn.Linear(shape[-1], n) for n in (shape[-1], 2) if to is None or n == to[-1]]
        made += [one for one in WEIGHTED if _fits(one, shape, to)]
        return self.pick(*made)

    def _fitting(self, made: Layer | None, shape: Shape, to: Shape | None = None) -> Layer:
        return made if made is not None and _fits(made, shape, to) else self.leaf(shape, to)


def _fits(layer: Layer, shape: Shape, to: Shape | None) -> bool:
    after = shape_after(layer, shape)
    return after is not None and to in (None, after)


WEIGHTED = tuple(one for one in LEAVES if type(one) in (fn.Linear, fn.Conv1d, fn.Conv2d, fn.ConvTranspose1d, fn.DropConnect))

Kind = Callable[[Grower, Shape, int], Layer | None]


def _serial(g: Grower, shape: Shape, depth: int) -> Layer:
    layers: list[Layer] = []
    for _ in range(g.number(0, 3)):
        layers.append(g.net(shape, depth))
        shape = shape_after(layers[-1], shape) or shape
    return _named(layers) if g.pick(False, True) else fn.serial(*layers)


def _named(layers: list[Layer]) -> Layer:
    return fn.serial(**{f"layer{i}": one for i, one in enumerate(layers)})


def _endo_serial(g: Grower, shape: Shape, depth: int) -> Layer:
    return fn.serial(*[g.endo(shape, depth) for _ in range(g.number(0, 3))])


def _branch(g: Grower, shape: Shape, depth: int) -> Layer:
    return fn.branch(g.endo(shape, depth), g.endo(shape, depth), merge=g.pick(fn.Add(), fn.Mul(), fn.Sub(), MERGED))


MERGED = fn.serial(fn.Sub(), fn.Tanh())


def _concat(g: Grower, shape: Shape, depth: int) -> Layer:
    return fn.branch(g.endo(shape, depth), g.endo(shape, depth), merge=fn.Concat(g.number(0, len(shape) - 1)))


def _residual(g: Grower, shape: Shape, depth: int) -> Layer:
    return fn.residual(g.endo(shape, depth))


def _residual_with_shortcut(g: Grower, shape: Shape, depth: int) -> Layer:
    one = g.net(shape, depth)
    return fn.residual(one, g.pick(one, fn.freeze(one)))


def _parallel(g: Grower, shape: Shape, depth: int) -> Layer:
    return fn.serial(
        fn.branch(fn.Identity(), g.endo(shape, 0)), fn.parallel(g.endo(shape, depth), g.endo(shape, depth)), fn.Mul()
    )


def _select(g: Grower, shape: Shape, depth: int) -> Layer:
    return fn.serial(fn.branch(g.net(shape, depth), g.net(shape, depth)), fn.Select(g.number(0, 1)))


def _shared(g: Grower, shape: Shape, depth: int) -> Layer:
    return fn.serial(fn.branch(fn.Identity(), g.endo(shape, 0)), fn.shared(g.net(shape, depth)), fn.Sub())


def _graph(g: Grower, shape: Shape, depth: int) -> Layer:
    """Draw values of one shape, each computed from one or two earlier ones; unused ones are added at the end."""
    values, unused, nodes = ["x"], ["x"], {}
    for i in range(g.number(1, 4)):
        ins = [g.pick(*values) for _ in range(g.number(1, 2))]
        nodes[f"n{i}"] = (g.endo(shape, depth) if len(ins) == 1 else g.pick(fn.Add(), fn.Mul()), *ins)
        values.append(f"n{i}")
        unused = [*[one for one in unused if one not in ins], f"n{i}"]
    return fn.graph("x", **nodes, y=(fn.Add() if len(unused) > 1 else fn.Identity(), *unused), output="y")


def _ensemble(g: Grower, shape: Shape, depth: int) -> Layer:
    return fn.ensemble(g.net(shape, depth), g.number(1, 3))


def _mean_of_ensemble(g: Grower, shape: Shape, depth: int) -> Layer:
    return fn.serial(fn.ensemble(g.endo(shape, depth), g.number(1, 3)), fn.Mean(0))


def _ensemble_of_inputs(g: Grower, shape: Shape, depth: int) -> Layer | None:
    return fn.ensemble(g.net(shape[1:], depth), shape[0], shared_input=False) if len(shape) > 1 else None


def _tied(g: Grower, shape: Shape, depth: int) -> Layer | None:
    layer = g.endo(shape, depth)
    if not tree.leaves(layer.init(0)) or shape_after(layer, shape) != shape:
        return None
    return fn.tied(fn.serial(layer, fn.Tanh(), layer), ("0", "2"))


def _lora(g: Grower, shape: Shape, depth: int) -> Layer:
    return fn.lora(g.weighted(shape), 1, alpha=2.0)


def _weight_norm(g: Grower, shape: Shape, depth: int) -> Layer:
    return fn.weight_norm(g.weighted(shape))


def _spectral_norm(g: Grower, shape: Shape, depth: int) -> Layer:
    return fn.spectral_norm(g.weighted(shape, shape))


def _orthogonal(g: Grower, shape: Shape, depth: int) -> Layer:
    return fn.orthogonal(fn.Linear(shape[-1], shape[-1]))


def _parametrize(g: Grower, shape: Shape, depth: int) -> Layer:
    return fn.parametrize(g.weighted(shape), g.pick(fn.Softplus(), fn.serial(fn.Tanh(), fn.Sin()), fn.Square()))


def _scan(g: Grower, shape: Shape, depth: int) -> Layer | None:
    """Draw a recurrence along the first axis, whose initial carry and constants are the mean over it."""
    if len(shape) < 2:
        return None
    step = g.endo(shape[1:], depth)
    cell = g.pick(
        fn.graph("x", "h", z=(fn.Add(), "x", "h"), a=(step, "z"), b=(fn.Tanh(), "a"), output=("a", "b")),
        fn.graph("x", "h", "e", z=(fn.Add(), "x", "h", "e"), a=(step, "z"), b=(fn.Tanh(), "z"), output=("a", "b")),
        fn.graph("x", "h", z=(fn.Add(), "x", "h"), a=(step, "z"), output="a"),
    )
    start = [fn.Mean(0)] * (len(cell.inputs) - 1)
    options = {"reverse": g.pick(False, True), "checkpoint_every": g.pick(None, 1, 2), "output_is_carry": len(cell.outputs) == 1}
    return fn.serial(fn.branch(fn.Identity(), *start), fn.scan(cell, **options), fn.Select(g.number(0, 1)))


def _bidirectional(g: Grower, shape: Shape, depth: int) -> Layer:
    merge = g.pick(None, fn.Add(), fn.Mul())
    return fn.bidirectional(g.endo(shape, depth), g.endo(shape, depth), merge=merge, dim=g.number(0, len(shape) - 1))


def _map_over(g: Grower, shape: Shape, depth: int) -> Layer | None:
    flat = (shape[0] * shape[1], *shape[2:]) if len(shape) > 2 else ()
    return g.pick(fn.map_over, fn.time_distributed)(g.endo(flat, depth)) if flat else None


def _channels_last(g: Grower, shape: Shape, depth: int) -> Layer:
    dim = g.number(0, min(1, len(shape) - 1))
    return fn.channels_last(g.endo((*shape[:dim], shape[-1], *shape[dim:-1]), depth), dim)


def _repeat(g: Grower, shape: Shape, depth: int) -> Layer:
    return fn.repeat(g.endo(shape, depth), g.number(1, 3))


def _remat_in_segments(g: Grower, shape: Shape, depth: int) -> Layer:
    n = g.number(1, 4)
    return fn.remat(fn.serial(*[g.endo(shape, depth) for _ in range(n)]), segments=g.number(1, n))


def _reversible(g: Grower, shape: Shape, depth: int) -> Layer:
    """Draw a run of one to three pairs of steps, on x and a value computed from x."""
    steps = [fn.reversible(g.endo(shape, depth), g.endo(shape, depth)) for _ in range(g.number(1, 3))]
    return fn.serial(fn.branch(fn.Identity(), g.endo(shape, 0)), *steps, fn.Mul())


def _wrapped(wrapper: Callable[[Layer], Layer]) -> Kind:
    return lambda g, shape, depth: wrapper(g.net(shape, depth))


def _endo_wrapped(wrapper: Callable[[Layer], Layer]) -> Kind:
    return lambda g, shape, depth: wrapper(g.endo(shape, depth))


def _rule(g: Grower, shape: Shape, depth: int) -> Layer:
    rule = g.pick(fn.scale_gradient(0.5), fn.reverse_gradient(), fn.clip_gradient(0.3), fn.scale_gradient(0.0))
    return fn.serial(g.endo(shape, depth), rule)


def _tapped(layer: Layer) -> Layer:
    return fn.tap(layer, look, look)


def _cast(layer: Layer) -> Layer:
    return fn.cast(layer, torch.float64)


def _inference(layer: Layer) -> Layer:
    return layer.inference()


WRAPPERS = fn.freeze, fn.checked, fn.remat, _tapped, _cast, _inference

KINDS: tuple[Kind, ...] = (
    *(_serial, _serial, _concat, _residual_with_shortcut, _select, _shared, _ensemble, _ensemble_of_inputs, _lora, _weight_norm),
    *(_parametrize, *map(_wrapped, WRAPPERS)),
)
ENDO_KINDS: tuple[Kind, ...] = (
    *(_endo_serial, _endo_serial, _branch, _residual, _parallel, _graph, _mean_of_ensemble, _tied, _spectral_norm, _orthogonal),
    *(_scan, _scan, _bidirectional, _map_over, _channels_last, _repeat, _repeat, _remat_in_segments, _reversible, _rule),
    *map(_endo_wrapped, (*WRAPPERS, fn.straight_through)),
)


def declared(net: Layer) -> Layer:
    """Return the net whose autograd derivative follows its gradient rules, and which keeps frozen params fixed."""
    return fn.map_layers(_declared, net)


def _declared(layer: Layer) -> Layer:
    if isinstance(layer, ScaleGradient):
        return Ruled(lambda g: layer.c * g)
    if isinstance(layer, ClipGradient):
        return Ruled(lambda g: g.clamp(-layer.bound, layer.bound))
    if isinstance(layer, StraightThrough):
        return Passed(layer.layer)
    if isinstance(layer, Ensemble) and layer.shared_input:
        return Expanded(layer.replace(shared_input=False))
    return Detached(layer.layer) if isinstance(layer, Frozen) else layer


class _Rule(torch.autograd.Function):
    """The identity with another derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, rule: Callable[[Tensor], Tensor]) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.rule = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.rule(gradients[0]), None


class ForAutograd(Layer):
    """A layer whose autograd derivative is not the derivative of its values; it has no ``vjp``."""

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Params, Any]:
        raise NotImplementedError


@fn.frozen
class Ruled(ForAutograd):
    rule: Callable[[Tensor], Tensor]

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        return tree.map(lambda leaf: _Rule.apply(leaf, self.rule), x), ()


@fn.frozen
class Passed(ForAutograd):
    """A layer that passes the gradient of y on to x."""

    layer: Layer

    @property
    def stochastic(self) -> bool:
        return self.layer.stochastic

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        y = self.layer.apply(params, x.detach(), rng)[0]
        return y + _Rule.apply(x, lambda g: g) - x.detach(), ()


@fn.frozen
class Expanded(ForAutograd):
    """An ensemble that gives each member an x, so that ``vmap`` applies a gradient rule once for each."""

    layer: Layer

    @property
    def stochastic(self) -> bool:
        return self.layer.stochastic

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        each = tree.map(lambda leaf: leaf.expand(self.layer.n, *leaf.shape), x)
        return self.layer.apply(params, each, rng)


@fn.frozen
class Detached(ForAutograd):
    """A layer whose params are kept fixed."""

    layer: Layer

    @property
    def stochastic(self) -> bool:
        return self.layer.stochastic

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        return self.layer.apply(tree.map(lambda leaf: leaf.detach(), params), x, rng)


def moved(params: Params) -> Params:
    """Return params changed from their initial values, with running variances above 0."""
    seeds = iter(range(len(tree.leaves(params))))
    shifted = lambda leaf: leaf.double() + 0.3 * fn.random.uniform(next(seeds), leaf.shape, dtype=torch.float64)
    return tree.map(lambda leaf: shifted(leaf) if leaf.is_floating_point() else leaf, params)


def by_autograd(net: Layer, params: Params, x: Any, gy: Tensor, rng: Rng) -> tuple[Tensor, list[Tensor | None]]:
    """Return y, and the gradient of every tensor in params and x in order; ``None`` if y does not depend on it."""
    arguments = tree.map(lambda leaf: leaf.clone().requires_grad_() if leaf.is_floating_point() else leaf, (params, x))
    y = declared(net).apply(*arguments, rng)[0]
    leaves = [leaf for leaf in tree.leaves(arguments) if leaf.requires_grad]
    if not leaves or not y.requires_grad:
        return y, [None] * len(tree.leaves(arguments))
    found = iter(torch.autograd.grad(y, leaves, gy, allow_unused=True))
    return y.detach(), [next(found) if leaf.requires_grad else None for leaf in tree.leaves(arguments)]
