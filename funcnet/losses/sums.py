"""Sums of losses.

    LossSum     ℓ = Σ fᵢ ℓᵢ           y and the target are passed to every term
                gy = Σ fᵢ ∂ℓᵢ/∂y      gt = Σ fᵢ ∂ℓᵢ/∂t

``MSE() + 0.1 * L1()`` makes a sum of losses that take the same y and target, of any shapes (...).
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Self

from attrs import Factory, field
from torch import Tensor

from funcnet.errors import is_number, value_error
from funcnet.losses.composite import Composite, factors_of, total
from funcnet.losses.loss import Loss
from funcnet.losses.parts import Part, Summand
from funcnet.value import frozen


def _reduction(terms: Any) -> str:
    """Return the reduction of a sum of these terms, which must be pairs of a factor and a loss."""
    for pair in terms if isinstance(terms, tuple) and terms else (terms,):
        if not (isinstance(pair, tuple) and len(pair) == 2 and is_number(pair[0]) and isinstance(pair[1], Loss)):
            raise value_error("LossSum", "terms must be a tuple of pairs, each of a finite factor and a loss", pair)
    return common_reduction("LossSum", [loss for _, loss in terms])


def common_reduction(who: str, losses: Iterable[Loss]) -> str:
    """Return the common reduction of losses, or ``"mixed"`` if they differ; raise if only some are "none"."""
    found = {loss.reduction for loss in losses}
    if "none" in found and len(found) > 1:
        rule = 'the losses of a sum must all return one value, or all have reduction "none"'
        raise value_error(who, rule, f"reductions {', '.join(map(repr, sorted(found)))}")
    return found.pop() if len(found) == 1 else "mixed"


@frozen
class LossSum(Composite):
    """Weighted sum of losses on the same y and target: ``MSE() + 0.1 * L1()``.

        ℓ  = Σ fᵢ ℓᵢ
        gy = Σ fᵢ ∂ℓᵢ/∂y      gt = Σ fᵢ ∂ℓᵢ/∂t

    Each term keeps its reduction and is averaged over batches separately. ``fit`` and ``evaluate`` also return each term without
    its factor, as ``loss.MSE`` and ``loss.L1``; further terms of the same class are numbered: ``loss.L1_2``.

    Args:
        terms: Pairs of a factor and a loss.

    Shape:
        y and target in the form that every term accepts → (), or the shape of the terms if all have ``reduction="none"``

    Cache:
        The cache of each term.

    Raises:
        ValueError: If a factor is not a finite number, or if ``reduction="none"`` is mixed with another reduction.

    >>> import torch
    >>> from funcnet.losses.regression import L1
    >>> loss = L1() + 0.5 * L1("sum")
    >>> loss(torch.tensor([1.0, 5.0]), torch.tensor([1.0, 2.0]))
    tensor(3.)
    >>> loss - L1() / 2
    L1() + 0.5 * L1(reduction='sum') - 0.5 * L1()
    """

    is_sum = True

    terms: tuple[tuple[float, Loss], ...]
    reduction: str = field(init=False, eq=False, default=Factory(lambda one: _reduction(one.terms), takes_self=True))
    _factors: tuple[float, ...] = field(init=False, eq=False, default=Factory(factors_of, takes_self=True))

    def with_reduction(self, reduction: str) -> Self:
        return self.replace(terms=tuple([(f, loss.with_reduction(reduction)) for f, loss in self.terms]))

    def term_weights(self, target: Any) -> Tensor | None:
        """Return the weights of the terms of a single scaled loss; ``None`` for a sum of several, each with its own mean."""
        return self.terms[0][1].term_weights(target) if len(self.terms) == 1 else None

    def factors_and_losses(self) -> tuple[tuple[float, Loss], ...]:
        return self.terms

    def pick(self, i: int, values: Any) -> Any:
        return values

    def joined(self, gradients: list[Any]) -> Any:
        return total(gradients)

    def part_list(self) -> tuple[Part, ...]:
        parts = [part._replace(factor=f * part.factor) for f, loss in self.terms for part in loss.part_list()]
        return tuple([part._replace(name=name) for part, name in zip(parts, _numbered(parts), strict=True)])

    def __repr__(self) -> str:
        words = "".join([_word(f, loss) for f, loss in self.terms])
        return words[3:] if words.startswith(" + ") else "-" + words[3:]


def _word(factor: float, loss: Loss) -> str:
    size = abs(factor)
    return f" {'-' if factor < 0 else '+'} {f'{size!r} * ' * (size != 1)}{loss!r}"


def _numbered(parts: list[Part]) -> Iterator[str]:
    """Yield the names of the parts; repeated names get a number."""
    seen: Counter[str] = Counter()
    for part in parts:
        seen[part.name] += 1
        yield part.name if seen[part.name] == 1 else f"{part.name}_{seen[part.name]}"


def scaled(factor: Any, loss: Loss) -> Loss:
    """Return a loss times a number; for the factor 1 the loss itself."""
    if not is_number(factor):
        raise value_error(
            loss, "a loss must be multiplied by a finite number", factor if isinstance(factor, Tensor) else repr(factor)
        )
    return _sum([(factor, loss)])


def _sum(terms: Iterable[tuple[float, Loss]]) -> Loss:
    """Return the sum of scaled losses, with the terms of nested sums merged."""
    flat = [(f * inner, one) for f, loss in terms for inner, one in (loss.terms if isinstance(loss, LossSum) else [(1, loss)])]
    return flat[0][1] if len(flat) == 1 and flat[0][0] == 1 else LossSum(tuple(flat))


def _plus(one: Loss, other: Any) -> Any:
    return _sum([(1, one), (1, other)]) if isinstance(other, Loss) else NotImplemented


def _plus_start(one: Loss, start: Any) -> Any:
    return one if is_number(start) and start == 0 else NotImplemented


def _minus(one: Loss, other: Any) -> Any:
    return _sum([(1, one), (-1, other)]) if isinstance(other, Loss) else NotImplemented


def _over(one: Loss, divisor: Any) -> Any:
    if not is_number(divisor) or divisor == 0:
        raise value_error(
            one,
            "a loss must be divided by a finite number other than 0",
            divisor if isinstance(divisor, Tensor) else repr(divisor),
        )
    return scaled(1 / divisor, one)


Summand.__add__ = _plus
Summand.__radd__ = _plus_start
Summand.__sub__ = _minus
Summand.__mul__ = Summand.__rmul__ = lambda one, factor: scaled(factor, one)
Summand.__truediv__ = _over
Summand.__neg__ = lambda one: scaled(-1, one)
