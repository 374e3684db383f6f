"""Losses of nets with named outputs: y and target are dicts of tensors with any shapes (...).

    losses_of   ℓ  = Σ fᵢ ℓᵢ(yᵢ, tᵢ)
                gy = {i: fᵢ ∂ℓᵢ/∂yᵢ}         gt = {i: fᵢ ∂ℓᵢ/∂tᵢ}

where fᵢ is the factor of the loss ℓᵢ.
"""

from typing import Any, Self

from attrs import Factory, field
from torch import Tensor

from funcnet import tree
from funcnet.combinator import errors_at
from funcnet.contract import Cache
from funcnet.errors import is_number, value_error
from funcnet.losses.composite import Composite, factors_of
from funcnet.losses.loss import Loss, rows_of
from funcnet.losses.parts import Part
from funcnet.losses.sums import common_reduction
from funcnet.naming import named_arguments, require_names
from funcnet.value import frozen


def _reduction(terms: Any) -> str:
    """Return the reduction of named losses after checking each term."""
    for entry in terms if isinstance(terms, tuple) and terms else (terms,):
        if not (isinstance(entry, tuple) and len(entry) == 3 and is_number(entry[1]) and isinstance(entry[2], Loss)):
            raise value_error("losses_of", "the terms must be losses, or pairs of a finite factor and a loss", repr(entry))
    reduction = common_reduction("losses_of", [loss for _, _, loss in terms])
    if reduction == "none":
        raise value_error("losses_of", 'each loss must return one value: reduction "mean", "sum" or "batch"', "reduction 'none'")
    return reduction


@frozen
class NamedLosses(Composite):
    """A loss for each of several named outputs; made by ``losses_of``.

    Args:
        terms: For each output its name, the factor of its loss, and the loss.

    Cache:
        The cache of each loss, and the target.
    """

    label = "losses_of"

    terms: tuple[tuple[str, float, Loss], ...]
    reduction: str = field(init=False, eq=False, default=Factory(lambda one: _reduction(one.terms), takes_self=True))
    _factors: tuple[float, ...] = field(init=False, eq=False, default=Factory(factors_of, takes_self=True))

    def with_reduction(self, reduction: str) -> Self:
        return self.replace(terms=tuple([(name, f, loss.with_reduction(reduction)) for name, f, loss in self.terms]))

    def factors_and_losses(self) -> tuple[tuple[float, Loss], ...]:
        return tuple([(f, loss) for _, f, loss in self.terms])

    def pick(self, i: int, values: Any) -> Any:
        return values.get(self.terms[i][0])

    def joined(self, gradients: list[Any]) -> dict[str, Any]:
        return dict(zip(self._names(), gradients, strict=True))

    def term(self, i: int, loss: Loss, y: Any, target: Any) -> tuple[tuple[Tensor, ...], Cache]:
        with errors_at(self, self.terms[i][0]):
            return super().term(i, loss, y, target)

    def require_inputs(self, y: Any, target: Any) -> None:
        names = self._names()
        for what, got in {"y": y, "target": target}.items():
            if not isinstance(got, dict) or set(got) != set(names):
                raise value_error(self, f"{what} must be a dict with the keys {', '.join(map(repr, names))}", got)

    def part_list(self) -> tuple[Part, ...]:
        found = []
        for i, (name, f, loss) in enumerate(self.terms):
            inner = loss.part_list()
            found += [self._part(i, name if len(inner) == 1 else f"{name}.{part.name}", f, part) for part in inner]
        return tuple(found)

    def _part(self, i: int, name: str, f: float, part: Part) -> Part:
        """Return a part of term i as a part of the whole; if its target is ``None``, the rows of the other targets count."""
        weight_of = lambda target: part.weight_of(self.pick(i, target)) if tree.leaves(self.pick(i, target)) else rows_of(target)
        return Part(name, f * part.factor, part.reduction, weight_of)

    def location(self, name: str) -> str:
        """Return the note for an error in the loss of this name."""
        return f"losses_of, {name!r}"

    def _names(self) -> list[str]:
        return [name for name, _, _ in self.terms]

    def __repr__(self) -> str:
        words = {name: repr(loss if f == 1 else (f, loss)) for name, f, loss in self.terms}
        return f"losses_of({', '.join(named_arguments(words))})"


def losses_of(**losses: Loss | tuple[float, Loss]) -> NamedLosses:
    """Make the loss of a net with several named outputs: the sum of one loss per output.

        ℓ  = Σ fᵢ ℓᵢ(yᵢ, tᵢ)         fᵢ the factor of the loss ℓᵢ
        gy = {i: fᵢ ∂ℓᵢ/∂yᵢ}         gt = {i: fᵢ ∂ℓᵢ/∂tᵢ}

    y and the target are dicts with the same names, and the gradient is such a dict too. The target of a loss that needs none,
    like ``GaussianKL`` from the standard normal, is ``None``. ``fit`` and ``evaluate`` also return the value of each loss,
    without its factor, as ``loss.<name>``. Every loss keeps its own reduction and its own mean over batches.

    Args:
        losses: ``name=loss`` or ``name=(factor, loss)``.

    Shape:
        y and target: dicts with the y and the target of each loss → ()

    Cache:
        The cache of each loss, and the target.

    Raises:
        ValueError: If there are no losses, a factor is not a finite number, or a ``reduction`` is ``"none"``; from a call if y or
            target have other names. An error inside a loss gets a note with its name.

    >>> import torch
    >>> from funcnet.losses.regression import L1, MSE
    >>> loss = losses_of(mean=MSE(), spread=(0.5, L1()))
    >>> y = {"mean": torch.tensor([1.0, 2.0]), "spread": torch.tensor([1.0, 1.0])}
    >>> loss(y, {"mean": torch.tensor([1.0, 4.0]), "spread": torch.tensor([0.0, 0.0])})
    tensor(2.5000)
    """
    if not losses:
        raise value_error("losses_of", "there must be at least one loss", "none")
    require_names("losses_of", losses)
    pairs = {name: given if isinstance(given, tuple) else (1.0, given) for name, given in losses.items()}
    return NamedLosses(tuple([(name, *given) for name, given in pairs.items()]))
