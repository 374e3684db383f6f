"""Linear maps of other shapes: of two inputs, of several axes, and by an equation.

Bilinear        y[o] = Σ w[o, i, j] a[i] b[j] + c[o]      x = (a, b)
            gw[o, i, j] = Σ gy[o] a[i] b[j]           gc = Σ gy            over rows
            ga[i] = Σ gy[o] w[o, i, j] b[j]           gb[j] = Σ gy[o] w[o, i, j] a[i]
LinearGeneral   y = x wᵀ + b, and so on as Linear, of several axes of x, and w, each taken as one
Einsum          y = x w, summed over what the equation says
            gx = gy w, gw = x gy, by the same equation with the operands' places changed

Bilinear has a (..., in1), b (..., in2), w (out, in1, in2), c (out,) and y (..., out); the shapes of the others are their
arguments.
"""

import math
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import initializers, random
from funcnet.checks import Misfit, check_gy, explain_error, missing_sizes, require_sizes
from funcnet.contract import Layer, Params, Rng, Shape, Size
from funcnet.errors import describe, flag, is_whole, size, size_or_none, value_error
from funcnet.initializers import Initializer, Uniform
from funcnet.kernels import linear as kernels
from funcnet.random import Key
from funcnet.value import frozen

Pair = tuple[Tensor, Tensor]


def _as_tuple(given: Any) -> Any:
    return (given,) if is_whole(given) else tuple(given) if isinstance(given, (tuple, list)) else given


def _sizes(layer: Any, attribute: Any, got: Any) -> None:
    if not isinstance(got, tuple) or not got or not all(is_whole(one) and one >= 1 for one in got):
        rule = f"{attribute.name} must be a whole number of at least 1, or a tuple of them"
        raise value_error(type(layer).__name__, rule, repr(got))


def _sizes_or_none(layer: Any, attribute: Any, got: Any) -> None:
    if got is not None:
        _sizes(layer, attribute, got)


def _axes(layer: Any, attribute: Any, got: Any) -> None:
    if not isinstance(got, tuple) or not got or not all(is_whole(one) for one in got):
        raise value_error(type(layer).__name__, f"{attribute.name} must be a whole number, or a tuple of them", repr(got))


def _require(layer: Layer, params: Params) -> None:
    """Refuse params of other shapes, which reshaping might not see."""
    shapes = layer.param_shapes() or {}
    if len(params) != len(shapes) or any([params[name].shape != shape for name, shape in shapes.items()]):  # noqa: C419
        raise Misfit


@frozen
class Bilinear(Layer):
    """Bilinear map of two inputs, of their last axes; every axis before is batch, and the same in both.

    ``in1_features=None`` and ``in2_features=None`` are for ``infer_sizes`` to find.

    Params   ``weight`` (out, in1, in2), Xavier normal unless ``initializer`` names another; ``bias`` (out,), zeros, absent with
             ``bias=False``. With ``initializer="torch"`` both are drawn as ``torch.nn.Bilinear`` draws them.
    Cache    ``x``, the pair itself.
    Raises   ``ValueError`` for a size below 1, for params that are not this layer's, and for an ``x`` that is not a pair of
             floating tensors with these last axes and one batch.
    Source   the names are ``torch.nn.Bilinear``'s.
    """

    in1_features: Size = field(validator=size_or_none)
    in2_features: Size = field(validator=size_or_none)
    out_features: int = field(validator=size)
    bias: bool = field(default=True, validator=flag)
    initializer: str | Initializer = field(default="xavier_normal", validator=initializers.known)

    @property
    def inferred_sizes(self) -> dict[str, int]:
        return {"in1_features": -1, "in2_features": -1}

    def init(self, rng: Key | int) -> Params:
        if require_sizes(self).initializer != "torch":
            return initializers.weight_and_bias(rng, self.param_shapes(), self.initializer)
        bound = 1 / math.sqrt(self.in1_features)
        draw = Uniform(-bound, bound)
        bias = {"bias": draw(random.fold_in(rng, 1), (self.out_features,))} if self.bias else {}
        return {"weight": draw(random.fold_in(rng, 0), self.param_shapes()["weight"]), **bias}

    def apply(self, params: Params, x: Pair, rng: Rng = None) -> tuple[Tensor, Pair]:
        rule = self.complaint(x)
        if rule:
            raise value_error(require_sizes(self), rule, self._came(x))
        try:
            _require(self, params)
            return kernels.linear(self._outer(x), params["weight"].flatten(1), params.get("bias")), x
        except Exception as error:
            raise explain_error(self, params, x[0], error) from None

    def vjp(self, params: Params, cache: Pair, gy: Tensor) -> tuple[Params, Pair]:
        return self.grads(params, cache, gy), self.input_grad(params, cache, gy)

    def grads(self, params: Params, cache: Pair, gy: Tensor) -> Params:
        gw, gb = kernels.linear_grads(self._outer(cache), gy)
        gw = gw.reshape(params["weight"].shape)
        return {"weight": gw, "bias": gb} if self.bias else {"weight": gw}

    def input_grad(self, params: Params, cache: Pair, gy: Tensor) -> Pair:
        a, b = cache
        sizes = self.in1_features, self.in2_features
        g = torch.matmul(gy, params["weight"].flatten(1)).reshape(*gy.shape[:-1], *sizes)
        return torch.matmul(g, b.unsqueeze(-1)).squeeze(-1), torch.matmul(a.unsqueeze(-2), g).squeeze(-2)

    def _outer(self, x: Pair) -> Tensor:
        """Return the products a[i] b[j], on one axis."""
        return (x[0].unsqueeze(-1) * x[1].unsqueeze(-2)).flatten(-2)

    def param_shapes(self) -> dict[str, Shape]:
        shapes: dict[str, Shape] = {"weight": (self.out_features, self.in1_features, self.in2_features)}
        return {**shapes, "bias": (self.out_features,)} if self.bias else shapes

    def complaint(self, x: Any) -> str | None:
        if not isinstance(x, tuple) or [isinstance(one, Tensor) and one.is_floating_point() for one in x] != [True, True]:
            return "x must be a pair of floating tensors"
        n, m = self.in1_features, self.in2_features
        if x[0].shape[-1:] != (n,) or x[1].shape != (*x[0].shape[:-1], m):
            return f"x must have the last axes in1_features={n} and in2_features={m}, and the same axes before"
        return None

    def _inferred(self, x: Any) -> dict[str, Any]:
        if not isinstance(x, tuple) or [isinstance(one, Tensor) and one.dim() > 0 for one in x] != [True, True]:
            raise value_error(self, "x must be a pair of floating tensors", self._came(x))
        found = dict(zip(self.inferred_sizes, [one.shape[-1] for one in x], strict=True))
        return {name: found[name] for name in missing_sizes(self)}

    def _came(self, x: Any) -> str:
        pair = isinstance(x, tuple) and all(isinstance(one, Tensor) for one in x)
        return "shapes " + " and ".join(str(tuple(one.shape)) for one in x) if pair else describe(x)


@frozen
class LinearGeneral(Layer):
    """Affine map of several axes into several: the axes ``axis`` of x go, and those of ``out_features`` come last.

    ``LinearGeneral(6, (2, 3))`` makes heads of features, and ``LinearGeneral((2, 3), 6, axis=(-2, -1))`` features of heads.
    ``in_features=None`` is for ``infer_sizes`` to find.

    Params   ``weight`` (*out, *in), Xavier normal of the sizes taken together, unless ``initializer`` names another; ``bias``
             (*out), zeros, absent with ``bias=False``.
    Cache    ``x`` with the axes at the end and made one: a copy only where they are not there already.
    Raises   ``ValueError`` for a size below 1, as many axes as ``in_features`` has not, params that are not this layer's, and
             an ``x`` with other axes or another dtype.
    Source   ``flax.nnx.LinearGeneral``; ``weight`` is the other way round, as in ``torch.nn.Linear``.
    """

    in_features: Shape | Any = field(converter=_as_tuple, validator=_sizes_or_none)
    out_features: Shape = field(converter=_as_tuple, validator=_sizes)
    axis: Shape = field(default=(-1,), converter=_as_tuple, validator=_axes)
    bias: bool = field(default=True, validator=flag)
    initializer: str | Initializer = field(default="xavier_normal", validator=initializers.known)

    def __attrs_post_init__(self) -> None:
        if self.in_features is not None and len(self.axis) != len(self.in_features):
            got = f"in_features={self.in_features}, axis={self.axis}"
            raise value_error("LinearGeneral", "there must be an axis for each of in_features", got)

    @property
    def inferred_sizes(self) -> dict[str, Shape]:
        return {"in_features": self.axis}

    def init(self, rng: Key | int) -> Params:
        sizes = math.prod(self.out_features), math.prod(require_sizes(self).in_features)
        shapes: dict[str, Shape] = {"weight": sizes, "bias": sizes[:1]} if self.bias else {"weight": sizes}
        flat = initializers.weight_and_bias(rng, shapes, self.initializer)
        return {name: leaf.reshape(self.param_shapes()[name]) for name, leaf in flat.items()}

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Any]:
        try:
            _require(self, params)
            moved = x.movedim(self.axis, self._ends())
            batch = moved.shape[: -len(self.axis)]
            if moved.shape != (*batch, *self.in_features):
                raise Misfit
            flat, b = moved.flatten(len(batch)), params["bias"].flatten() if self.bias else None
            return kernels.linear(flat, self._matrix(params), b).reshape(*batch, *self.out_features), flat
        except Exception as error:
            raise explain_error(self, params, x, error) from None

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Params, Tensor]:
        return self.grads(params, cache, gy), self.input_grad(params, cache, gy)

    def grads(self, params: Params, cache: Tensor, gy: Tensor) -> Params:
        gw, gb = kernels.linear_grads(cache, gy.flatten(-len(self.out_features)))
        found = {"weight": gw, "bias": gb}
        return {name: found[name].reshape(shape) for name, shape in self.param_shapes().items()}

    def input_grad(self, params: Params, cache: Tensor, gy: Tensor) -> Tensor:
        flat = torch.matmul(gy.flatten(-len(self.out_features)), self._matrix(params))
        return flat.reshape(*flat.shape[:-1], *self.in_features).movedim(self._ends(), self.axis)

    def _ends(self) -> Shape:
        return tuple(range(-len(self.axis), 0))

    def _matrix(self, params: Params) -> Tensor:
        w: Tensor = params["weight"].reshape(math.prod(self.out_features), math.prod(self.in_features))
        return w

    def param_shapes(self) -> dict[str, Shape]:
        weight = (*self.out_features, *self.in_features)
        return {"weight": weight, "bias": self.out_features} if self.bias else {"weight": weight}

    def complaint(self, x: Tensor) -> str | None:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return "x must be a floating tensor"
        n = x.dim()
        there = all(-n <= axis < n for axis in self.axis) and len({axis % n for axis in self.axis}) == len(self.axis)
        if not there or tuple(x.shape[axis] for axis in self.axis) != self.in_features:
            return f"the axes {self.axis} of x must be in_features={self.in_features}"
        return None


def _equation(layer: Any, attribute: Any, got: Any) -> None:
    x, w, y = _operands(got) if isinstance(got, str) else ("", "", "")
    letters = x.replace("...", ""), w, y.replace("...", "")
    once = all(len(set(one)) == len(one) and (one.isalpha() or not one) for one in letters)
    known = set(letters[0]) <= {*w, *letters[2]} and set(w) <= {*letters[0], *letters[2]} and set(letters[2]) <= {*letters[0], *w}
    if not (w and once and known and x.count("...") == y.count("...") <= 1):
        rule = 'equation must be like "...ij,jk->...ik", each letter once in an operand, and in at least two of the three'
        raise value_error("Einsum", rule, repr(got))


def _operands(equation: str) -> tuple[str, str, str]:
    """Part "x,w->y" into its three; empty ones where it is not of that form."""
    left, arrow, y = equation.replace(" ", "").partition("->")
    x, comma, w = left.partition(",")
    return (x, w, y) if arrow and comma else ("", "", "")


@frozen
class Einsum(Layer):
    """Linear map by an equation "x,w->y" of letters for axes: ``Einsum("...tc,hcd->...htd", (4, 16, 8))``.

    Each letter stands once in an operand, and in two of the three at least, so that every sum is of products.

    Params   ``weight``, of ``shape``, Xavier normal, with the product of the sizes that y has too for the outputs, and of the
             others for the inputs, unless ``initializer`` names another.
    Cache    ``x``.
    Raises   ``ValueError`` for another kind of equation, a shape that does not fit it, params that are not this layer's, and an
             ``x`` that does not fit.
    Source   ``flax.linen.Einsum``; for its bias see ``Bias``.
    """

    equation: str = field(validator=_equation)
    shape: Shape = field(converter=_as_tuple, validator=_sizes)
    initializer: str | Initializer = field(default="xavier_normal", validator=initializers.known)

    def __attrs_post_init__(self) -> None:
        if len(self._operands()[1]) != len(self.shape):
            got = f"equation={self.equation!r}, shape={self.shape}"
            raise value_error("Einsum", "shape must have a size for each letter of w in the equation", got)

    def init(self, rng: Key | int) -> Params:
        _, w, y = self._operands()
        out = math.prod([n for letter, n in zip(w, self.shape, strict=True) if letter in y])
        flat = initializers.weight_and_bias(rng, {"weight": (out, math.prod(self.shape) // out)}, self.initializer)
        return {"weight": flat["weight"].reshape(self.shape)}

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        try:
            _require(self, params)
            if self.complaint(x):
                raise Misfit
            return torch.einsum(self.equation, x, params["weight"]), x
        except Exception as error:
            raise explain_error(self, params, x, error) from None

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Params, Tensor]:
        return self.grads(params, cache, gy), self.input_grad(params, cache, gy)

    def grads(self, params: Params, cache: Tensor, gy: Tensor) -> Params:
        x, w, y = self._operands()
        return {"weight": torch.einsum(f"{x},{y}->{w}", cache, gy)}

    def input_grad(self, params: Params, cache: Tensor, gy: Tensor) -> Tensor:
        x, w, y = self._operands()
        return check_gy(self, torch.einsum(f"{y},{w}->{x}", gy, params["weight"]), cache.shape)

    def _operands(self) -> tuple[str, str, str]:
        return _operands(self.equation)

    def param_shapes(self) -> dict[str, Shape]:
        return {"weight": self.shape}

    def complaint(self, x: Tensor) -> str | None:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return "x must be a floating tensor"
        names, w, _ = self._operands()
        sizes = dict(zip(w, self.shape, strict=True))
        before, rest, after = names.partition("...")
        n, m = len(before), len(after)
        if x.dim() < n + m or (x.dim() > n + m and not rest):
            return f"x must have the axes {names}"
        ends = [*zip(before, x.shape[:n], strict=True), *zip(after, x.shape[x.dim() - m :], strict=True)]
        if [got for letter, got in ends if sizes.get(letter, got) != got]:
            return f"x must have the axes {names} with " + ", ".join([f"{a}={n}" for a, n in sizes.items() if a in names])
        return None
