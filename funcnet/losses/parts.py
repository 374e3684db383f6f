"""Parts: a loss as a sum of parts, each with its own mean over batches.

    loss = Σ fᵢ ℓᵢ                    fᵢ the factor and ℓᵢ the value of part i
    gy   = Σ fᵢ ∂ℓᵢ/∂y
    all rows: Σ fᵢ (Σ wᵢ ℓᵢ / Σ wᵢ)   the inner sums over batches; wᵢ is part i's ``weight_of``

The parts of a sum count batches differently: cross-entropy counts labels, a squared error elements. One weight for their sum
would be wrong, so ``evaluate``, ``fit`` and ``accumulate`` combine batches part by part.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Self

from torch import Tensor

from funcnet.contract import Cache
from funcnet.explanations import explain_loss_error, raise_explained
from funcnet.value import Value

Weight = float | Tensor


class Part(NamedTuple):
    """What is needed for the mean of one part of a loss over batches."""

    name: str
    factor: float
    reduction: str
    weight_of: Callable[[Any], Weight]


class Summand(Value, ABC):
    """What losses have to do with sums; the base of ``Loss``.

    ``loss + other``, ``loss - other``, ``2 * loss``, ``loss / 3``, ``-loss`` and ``sum([...])`` are losses too.
    """

    __slots__ = ()

    reduction: str
    is_sum: ClassVar[bool] = False
    """Whether the ``repr`` is a sum or a product, which needs parentheses before a method."""

    __add__: ClassVar[Callable[..., Any]]
    __radd__: ClassVar[Callable[..., Any]]
    __sub__: ClassVar[Callable[..., Any]]
    __mul__: ClassVar[Callable[..., Any]]
    __rmul__: ClassVar[Callable[..., Any]]
    __truediv__: ClassVar[Callable[..., Any]]
    __neg__: ClassVar[Callable[..., Any]]

    @abstractmethod
    def forward(self, y: Tensor, target: Tensor) -> tuple[Tensor, Cache]:
        """Return the value, and what ``backward`` will need."""

    @abstractmethod
    def backward(self, cache: Cache, g: Tensor | None = None) -> Tensor:
        """Return the gradient of y, from that of the value: a tensor, a number, or by default ones."""

    @abstractmethod
    def weight_of(self, target: Any) -> Weight:
        """Return how much a batch with this target counts for in a mean over batches."""

    @property
    def batch_dependent(self) -> bool:
        """Whether a term depends on other rows, as in contrastive losses: its mean over batches is not that of all rows."""
        return False

    def with_reduction(self, reduction: str) -> Self:
        """Return the loss with another reduction, also where that is a field of the losses within."""
        return self.replace(reduction=reduction)

    @property
    def part_name(self) -> str:
        """The name of the loss among the parts of a sum."""
        return type(self).__name__

    @property
    def part_count(self) -> int:
        """The number of parts."""
        return 1

    def part_list(self) -> tuple[Part, ...]:
        """Return the parts; a loss that is no sum is the only one."""
        return (Part(self.part_name, 1.0, self.reduction, self.weight_of),)

    def parts(self, y: Any, target: Any) -> dict[str, tuple[Tensor, Weight]]:
        """Return by name the value of each part, without its factor, and the weight of this batch in the part's mean."""
        values = self.part_values(y, target)
        return {part.name: (v, part.weight_of(target)) for part, v in zip(self.part_list(), values, strict=True)}

    def part_values(self, y: Any, target: Any) -> tuple[Tensor, ...]:
        """Return the value of each part, without its factor."""
        try:
            return self.forward_parts(y, target)[0]
        except Exception as error:
            raise_explained(explain_loss_error(self, y, target, error), error)

    def forward_parts(self, y: Any, target: Any) -> tuple[tuple[Tensor, ...], Cache]:
        """Return the value of each part, without its factor, and what ``backward_parts`` will need."""
        value, cache = self.forward(y, target)
        return (value,), cache

    def backward_parts(self, cache: Cache, gs: tuple[Weight, ...]) -> Any:
        """Return the gradient of y, from that of the value of each part."""
        (g,) = gs
        return self.backward(cache, None if isinstance(g, (int, float)) and g == 1 else g)  # type: ignore[arg-type]

    def value_of_parts(self, values: Sequence[Tensor]) -> Tensor:
        """Return the value of the loss from that of each part: Σ fᵢ ℓᵢ."""
        first, *others = [part.factor * value for part, value in zip(self.part_list(), values, strict=True)]
        return sum(others, start=first)

    def parts_and_grad(self, y: Any, target: Any, shares: tuple[Weight, ...] | None = None) -> tuple[tuple[Tensor, ...], Any]:
        """Return the value of each part, without its factor, and the gradient of y: that of Σ fᵢ shareᵢ ℓᵢ."""
        factors = [part.factor for part in self.part_list()]
        try:
            values, cache = self.forward_parts(y, target)
            gs = factors if shares is None else [f * s for f, s in zip(factors, shares, strict=True)]
            return values, self.backward_parts(cache, tuple(gs))
        except Exception as error:
            raise_explained(explain_loss_error(self, y, target, error), error)
