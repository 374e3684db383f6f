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
from funcnet.checks import (
    Misfit,
    check_gy,
    check_param,
    floating_complaint,
    missing_sizes,
    pair_complaint,
    require_arguments,
    require_pair,
    require_params,
    several_sizes_complaint,
    size_in,
)
from funcnet.contract import Grads, Layer, Params, Rng, Shape, Size
from funcnet.errors import as_tuple, fields_error, flag, size, size_or_none, valid_if, whole_numbers
from funcnet.initializers.elementary import Initializer, Uniform
from funcnet.kernels import linear as kernels
from funcnet.random.keys import Key
from funcnet.value import frozen

Pair = tuple[Tensor, Tensor]


@frozen
class Bilinear(Layer):
    """Bilinear map of two inputs, of their last axes; every axis before is batch, and the same in both.

    ``in1_features=None`` and ``in2_features=None`` are for ``infer_sizes`` to find.

    Params   ``weight`` (out, in1, in2), Xavier normal unless ``initializer`` names another; ``bias`` (out,), zeros, absent with
             ``bias=False``. With ``initializer="torch"`` both are drawn as ``torch.nn.Bilinear`` draws them.
    Cache    ``x``, the pair itself.
    Raises   ``ValueError`` for a size below 1, for params of another layer, and for an ``x`` that is not a pair of
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
        if self.initializer != "torch":
            fans = self.in1_features * self.in2_features, self.out_features
            return initializers.weight_and_bias(rng, self.param_shapes(), self.initializer, fans)
        bound = 1 / math.sqrt(self.in1_features)
        draw = Uniform(-bound, bound)
        bias = {"bias": draw(random.fold_in(rng, 1), (self.out_features,))} if self.bias else {}
        return {"weight": draw(random.fold_in(rng, 0), self.param_shapes()["weight"]), **bias}

    def apply(self, params: Any, x: Pair, rng: Rng = None) -> tuple[Tensor, Pair]:
        require_arguments(self, params, x)
        if x[0].dtype is not x[1].dtype:
            raise Misfit
        return kernels.linear(self._outer(x), params["weight"].flatten(1), params.get("bias")), x

    def vjp(self, params: Params, cache: Pair, gy: Tensor) -> tuple[Grads, Pair]:
        return self.grads(params, cache, gy), self.input_grad(params, cache, gy)

    def grads(self, params: Params, cache: Pair, gy: Tensor) -> Grads:
        gw, gb = kernels.linear_grads(self._outer(cache), self._checked(gy, cache[0]))
        gw = gw.reshape(self._weight_shape)
        return {"weight": gw, "bias": gb} if self.bias else {"weight": gw}

    def input_grad(self, params: Params, cache: Pair, gy: Tensor) -> Pair:
        a, b = cache
        sizes = self.in1_features, self.in2_features
        w = check_param(self, params, "weight", self._weight_shape, a)
        g = torch.matmul(self._checked(gy, a), w.flatten(1)).reshape(*gy.shape[:-1], *sizes)
        return torch.matmul(g, b.unsqueeze(-1)).squeeze(-1), torch.matmul(a.unsqueeze(-2), g).squeeze(-2)

    def _checked(self, gy: Tensor, a: Tensor) -> Tensor:
        return check_gy(self, gy, (*a.shape[:-1], self.out_features), a)

    @property
    def _weight_shape(self) -> Shape:
        return self.out_features, self.in1_features, self.in2_features

    def _outer(self, x: Pair) -> Tensor:
        """Return the products a[i] b[j], on one axis."""
        return (x[0].unsqueeze(-1) * x[1].unsqueeze(-2)).flatten(-2)

    def param_shapes(self) -> dict[str, Shape]:
        shapes: dict[str, Shape] = {"weight": self._weight_shape}
        return {**shapes, "bias": (self.out_features,)} if self.bias else shapes

    def complaint(self, x: Any) -> str | None:
        if pair_complaint(x):
            return pair_complaint(x)
        n, m, a, b = self.in1_features, self.in2_features, *[tuple(one.shape) for one in x]
        rule = f"x must have the last axes in1_features={n} and in2_features={m}, and the same axes before, not {a} and {b}"
        return None if a[-1:] == (n,) and b == (*a[:-1], m) else rule

    def _inferred(self, x: Any) -> dict[str, Any]:
        parts = dict(zip(self.inferred_sizes, require_pair(self, x), strict=True))
        return {name: size_in(self, parts[name], name) for name in missing_sizes(self)}


@frozen
class LinearGeneral(Layer):
    """Affine map of several axes into several: the axes ``axis`` of x go, and those of ``out_features`` come last.

    ``LinearGeneral(6, (2, 3))`` makes heads of features, and ``LinearGeneral((2, 3), 6, axis=(-2, -1))`` features of heads.
    ``in_features=None`` is for ``infer_sizes`` to find.

    Params   ``weight`` (*out, *in), Xavier normal of the sizes taken together, unless ``initializer`` names another; ``bias``
             (*out), zeros, absent with ``bias=False``.
    Cache    ``x`` with the axes at the end and made one: a copy only where they are not there already.
    Raises   ``ValueError`` for a size below 1, as many axes as ``in_features`` has not, params of another layer, and
             an ``x`` with other axes or another dtype.
    Source   ``flax.nnx.LinearGeneral``; ``weight`` is the other way round, as in ``torch.nn.Linear``.
    """

    in_features: Shape | Any = field(converter=as_tuple, validator=whole_numbers(1, optional=True))
    out_features: Shape = field(converter=as_tuple, validator=whole_numbers(1))
    axis: Shape = field(default=(-1,), converter=as_tuple, validator=whole_numbers())
    bias: bool = field(default=True, validator=flag)
    initializer: str | Initializer = field(default="xavier_normal", validator=initializers.known)

    def __attrs_post_init__(self) -> None:
        if self.in_features is not None and len(self.axis) != len(self.in_features):
            raise fields_error(self, "there must be an axis for each of in_features", "in_features", "axis")

    @property
    def inferred_sizes(self) -> dict[str, Shape]:
        return {"in_features": self.axis}

    def init(self, rng: Key | int) -> Params:
        sizes = math.prod(self.out_features), math.prod(self.in_features)
        shapes: dict[str, Shape] = {"weight": sizes, "bias": sizes[:1]} if self.bias else {"weight": sizes}
        flat = initializers.weight_and_bias(rng, shapes, self.initializer)
        return {name: leaf.reshape(self.param_shapes()[name]) for name, leaf in flat.items()}

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Any]:
        require_params(self, params)
        moved = x.movedim(self.axis, self._ends())
        batch = moved.shape[: -len(self.axis)]
        if moved.shape != (*batch, *self.in_features):
            raise Misfit
        flat, b = moved.flatten(len(batch)), params["bias"].flatten() if self.bias else None
        return kernels.linear(flat, self._matrix(params), b).reshape(*batch, *self.out_features), flat

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        return self.grads(params, cache, gy), self.input_grad(params, cache, gy)

    def grads(self, params: Params, cache: Tensor, gy: Tensor) -> Grads:
        gw, gb = kernels.linear_grads(cache, self._flat(gy, cache))
        found = {"weight": gw, "bias": gb}
        return {name: found[name].reshape(shape) for name, shape in self.param_shapes().items()}

    def input_grad(self, params: Params, cache: Tensor, gy: Tensor) -> Tensor:
        check_param(self, params, "weight", (*self.out_features, *self.in_features), cache)
        flat = torch.matmul(self._flat(gy, cache), self._matrix(params))
        return flat.reshape(*flat.shape[:-1], *self.in_features).movedim(self._ends(), self.axis)

    def _flat(self, gy: Tensor, x: Tensor) -> Tensor:
        return check_gy(self, gy, (*x.shape[:-1], *self.out_features), x).flatten(-len(self.out_features))

    def _ends(self) -> Shape:
        return tuple(range(-len(self.axis), 0))

    def _matrix(self, params: Params) -> Tensor:
        w: Tensor = params["weight"].reshape(math.prod(self.out_features), math.prod(self.in_features))
        return w

    def param_shapes(self) -> dict[str, Shape]:
        weight = (*self.out_features, *self.in_features)
        return {"weight": weight, "bias": self.out_features} if self.bias else {"weight": weight}

    def complaint(self, x: Tensor) -> str | None:
        return floating_complaint(x) or several_sizes_complaint(x, self.axis, "in_features", self.in_features)


def _is_equation(equation: Any) -> bool:
    x, w, y = _operands(equation)
    letters = x.replace("...", ""), w, y.replace("...", "")
    distinct = all(len(set(one)) == len(one) and (one.isalpha() or not one) for one in letters)
    twice = all(sum(letter in one for one in letters) > 1 for letter in "".join(letters))
    return bool(w) and distinct and twice and x.count("...") == y.count("...") <= 1


def _operands(equation: Any) -> tuple[str, str, str]:
    """Split "x,w->y" into its three operands; empty strings for anything else."""
    left, arrow, y = str(equation).replace(" ", "").partition("->")
    x, comma, w = left.partition(",")
    return (x, w, y) if arrow and comma else ("", "", "")


@frozen
class Einsum(Layer):
    """Linear map by an equation "x,w->y" of letters for axes: ``Einsum("...tc,hcd->...htd", (4, 16, 8))``.

    Each letter stands once in an operand, and in two of the three at least, so that every sum is of products.

    Params   ``weight``, of ``shape``, Xavier normal, with the product of the sizes that y has too for the outputs, and of the
             others for the inputs, unless ``initializer`` names another.
    Cache    ``x``.
    Raises   ``ValueError`` for another kind of equation, a shape that does not fit it, params of another layer, and an
             ``x`` that does not fit.
    Source   ``flax.linen.Einsum``; for its bias see ``Bias``.
    """

    equation: str = field(
        validator=valid_if(
            _is_equation, 'like "...ij,jk->...ik", each letter once in an operand, and in at least two of the three'
        )
    )
    shape: Shape = field(converter=as_tuple, validator=whole_numbers(1))
    initializer: str | Initializer = field(default="xavier_normal", validator=initializers.known)

    _operands: tuple[str, str, str] = field(init=False, eq=False)  # read once: 1 µs each time, in a step five times

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_operands", _operands(self.equation))
        if len(self._operands[1]) != len(self.shape):
            raise fields_error(self, "shape must have a size for each letter of w in the equation", "equation", "shape")

    def init(self, rng: Key | int) -> Params:
        _, w, y = self._operands
        out = math.prod([n for letter, n in zip(w, self.shape, strict=True) if letter in y])
        flat = initializers.weight_and_bias(rng, {"weight": (out, math.prod(self.shape) // out)}, self.initializer)
        return {"weight": flat["weight"].reshape(self.shape)}

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        require_arguments(self, params, x)  # torch would broadcast axes of size 1
        w = params["weight"]
        if w.dtype is not x.dtype or w.is_cpu is not x.is_cpu or w.layout is not torch.strided or x.layout is not torch.strided:
            raise Misfit
        return torch.einsum(self.equation, x, w), x

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        return self.grads(params, cache, gy), self.input_grad(params, cache, gy)

    def grads(self, params: Params, cache: Tensor, gy: Tensor) -> Grads:
        x, w, y = self._operands
        return {"weight": torch.einsum(f"{x},{y}->{w}", cache, self._checked(gy, cache))}

    def input_grad(self, params: Params, cache: Tensor, gy: Tensor) -> Tensor:
        x, w, y = self._operands
        weight = check_param(self, params, "weight", self.shape, cache)
        return torch.einsum(f"{y},{w}->{x}", self._checked(gy, cache), weight)

    def _checked(self, gy: Tensor, cache: Tensor) -> Tensor:
        x, w, y = self._operands
        before, _, after = x.partition("...")
        first, last = len(before), cache.dim() - len(after)
        batch = cache.shape[first:last]
        letters, shape = w + before + after, (*self.shape, *cache.shape[:first], *cache.shape[last:])
        sizes = dict(zip(letters, shape, strict=True))
        left, _, right = y.partition("...")
        return check_gy(self, gy, (*[sizes[a] for a in left], *batch, *[sizes[a] for a in right]), cache)

    def param_shapes(self) -> dict[str, Shape]:
        return {"weight": self.shape}

    def complaint(self, x: Tensor) -> str | None:
        operand, w, _ = self._operands
        sizes = {letter: n for letter, n in zip(w, self.shape, strict=True) if letter in operand}
        rule = f"x must have the axes {operand}" + " with " * bool(sizes) + ", ".join([f"{a}={n}" for a, n in sizes.items()])
        return floating_complaint(x) or (None if _has_axes(x, operand, sizes) else rule)


def _has_axes(x: Tensor, operand: str, sizes: dict[str, int]) -> bool:
    """Tell whether x has the axes of an operand such as "...ij", with these sizes of letters."""
    letters = operand.replace("...", "." * (x.dim() - len(operand) + 3))
    return len(letters) == x.dim() and [n for a, n in zip(letters, x.shape, strict=True) if sizes.get(a, n) != n] == []
