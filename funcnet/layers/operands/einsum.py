"""Sums of products of several tensors, written as an equation with a letter for each axis.

Each operand (...) has one axis for each letter of its part of the equation.
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import check_gy
from funcnet.contract import Grads, Params, Rng, Shape
from funcnet.errors import valid_if
from funcnet.layers.operands.arithmetic import Operands, Operation
from funcnet.value import frozen


def _is_equation(got: Any) -> bool:
    """Return whether each letter occurs at most once in a part, and in at least two of the parts."""
    left, arrow, y = str(got).replace(" ", "").partition("->")
    parts = [*left.split(","), y]
    letters = {letter for part in parts for letter in part}
    once = all(len(set(part.replace("...", ""))) == len(part.replace("...", "")) for part in parts)
    names = all(letter.isalpha() or letter == "." for letter in letters)
    twice = all(sum(letter in part for part in parts) > 1 for letter in letters)
    return bool(arrow) and once and names and twice and all(part.count(".") in (0, 3) for part in parts)


@frozen
class EinsumOperands(Operation):
    """Sum of products of the operands, given as an equation: ``EinsumOperands("nqd,nkd->nqk")``.

        y   = Σ Π xᵢ                over the letters that y lacks
        gxᵢ = Σ gy Π_{j≠i} xⱼ       over the letters that xᵢ lacks

    Args:
        equation: The letters of each operand and of y. Each letter occurs once in a part, and in at least two parts. ``...``
            matches axes that are the same in all operands that have it.

    Shape:
        (x₁, x₂, ...), tensors (...) → y (...)

    Cache:
        The operands, not copied, and the shape of ``y``.

    Raises:
        ValueError: If the equation is invalid, or the operands do not fit it.

    References:
        ``torch.einsum``.

    >>> EinsumOperands("ij,kj->ik")({}, (torch.eye(2), torch.tensor([[1.0, 2.0]])))
    tensor([[1.],
            [2.]])
    """

    count = None
    contents = "one or more tensors"
    batch_dependent = True

    equation: str = field(
        validator=valid_if(_is_equation, 'like "ij,jk->ik", each letter once in a part, and in at least two of them')
    )

    def apply(self, params: Params, x: Operands, rng: Rng = None) -> tuple[Tensor, tuple[Operands, Shape]]:
        y = torch.einsum(self.equation, *self.operands(params, x))
        return y, (x, tuple(y.shape))

    def vjp(self, params: Params, cache: tuple[Operands, Shape], gy: Tensor) -> tuple[Grads, Operands]:
        operands, of = cache
        gy = check_gy(self, gy, of, operands[0])
        left, _, y = self.equation.replace(" ", "").partition("->")
        parts = left.split(",")
        found = []
        for i, part in enumerate(parts):
            others = [(letters, one) for j, (letters, one) in enumerate(zip(parts, operands, strict=True)) if j != i]
            equation = f"{','.join([y, *[letters for letters, _ in others]])}->{part}"
            found.append(torch.einsum(equation, gy, *[one for _, one in others]))
        return params, tuple(found)

    def complaint(self, x: Operands) -> str | None:
        return f"the operands must have the axes of {self.equation}, with one size for each letter"
