"""Einsum: a linear map given by an equation.

The equation "x,w->y" has a letter for each axis of x, of the weight w and of y; ``...`` is any number of axes that x and y share.
"""

import math
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import initializers
from funcnet.checks import Misfit, check_gy, check_param, floating_complaint, require_arguments
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import as_tuple, fields_error, valid_if, whole_numbers
from funcnet.initializers.elementary import Initializer
from funcnet.random.keys import Key
from funcnet.value import frozen


def _is_equation(equation: Any) -> bool:
    x, w, y = _operands(equation)
    letters = x.replace("...", ""), w, y.replace("...", "")
    distinct = all(len(set(one)) == len(one) and (one.isalpha() or not one) for one in letters)
    twice = all(sum(letter in one for one in letters) > 1 for letter in "".join(letters))
    return bool(w) and distinct and twice and x.count("...") == y.count("...") <= 1


def _operands(equation: Any) -> tuple[str, str, str]:
    """Split "x,w->y" into its three operands; return empty strings for anything else."""
    left, arrow, y = str(equation).replace(" ", "").partition("->")
    x, comma, w = left.partition(",")
    return (x, w, y) if arrow and comma else ("", "", "")


@frozen
class Einsum(Layer):
    """Linear map given by an equation of letters for axes.

        y  = Σ x w          sum over the letters that y lacks
        gw = Σ x gy         by the equation "x,y->w"
        gx = Σ gy w         by the equation "y,w->x"

    Each letter occurs at most once in an operand, and in at least two of the three: every sum is then a sum of products. For a
    bias, add ``Bias`` after it.

    Args:
        equation: The equation "x,w->y", such as ``"...tc,hcd->...htd"``.
        shape: Shape of ``weight``, with a size for each letter of w.
        initializer: Initializer of ``weight``, by name or value.

    Shape:
        x and y have the axes of the equation, (..., *letters).

    Params:
        weight: ``shape``, Xavier normal; the fan-out is the product of the sizes that y has too, the fan-in that of the others.

    Cache:
        ``x``, not copied.

    Raises:
        ValueError: If the equation has another form, ``shape`` does not fit it, or x does not.

    References:
        ``flax.linen.Einsum``, without its bias.

    >>> layer = Einsum("...tc,hcd->...htd", (4, 16, 8))
    >>> layer(layer.init(0), torch.ones(2, 10, 16)).shape
    torch.Size([2, 4, 10, 8])
    """

    equation: str = field(
        validator=valid_if(
            _is_equation, 'like "...ij,jk->...ik", each letter once in an operand, and in at least two of the three'
        )
    )
    shape: Shape = field(converter=as_tuple, validator=whole_numbers(1))
    initializer: str | Initializer = field(default="xavier_normal", validator=initializers.known)

    # parsed once: parsing takes 1 µs, and a step would do it five times
    _operands: tuple[str, str, str] = field(init=False, eq=False)

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
    """Return whether x has the axes of an operand such as "...ij", with these sizes of letters."""
    letters = operand.replace("...", "." * (x.dim() - len(operand) + 3))
    return len(letters) == x.dim() and [n for a, n in zip(letters, x.shape, strict=True) if sizes.get(a, n) != n] == []
