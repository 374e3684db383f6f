"""Parts: a loss as a sum of parts, each with its own mean over batches.

    loss = Σ fᵢ ℓᵢ                    fᵢ the factor and ℓᵢ the value of part i
    gy   = Σ fᵢ ∂ℓᵢ/∂y
    all rows: Σ fᵢ (Σ wᵢ ℓᵢ / Σ wᵢ)   inner sums over batches, wᵢ the ``weight_of`` of part i

The parts of a sum weight batches differently: cross-entropy counts labels, a squared error elements. A single weight for their
sum would be wrong. ``evaluate``, ``fit`` and ``accumulate`` therefore combine batches part by part.
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
    """The data needed to average one part of a loss over batches."""

    name: str
    factor: float
    reduction: str
    weight_of: Callable[[Any], Weight]


class Summand(Value, ABC):
    """The base of ``Loss``: the arithmetic of losses, and the methods that treat a loss as a sum of parts.

    ``loss + other``, ``loss - other``, ``2 * loss``, ``loss / 3``, ``-loss`` and ``sum([...])`` are losses too.
    """

    __slots__ = ()

    reduction: str
    is_sum: ClassVar[bool] = False
    """Whether the ``repr`` is a sum or a product, which needs parentheses before a method call."""

    __add__: ClassVar[Callable[..., Any]]
    __radd__: ClassVar[Callable[..., Any]]
    __sub__: ClassVar[Callable[..., Any]]
    __mul__: ClassVar[Callable[..., Any]]
    __rmul__: ClassVar[Callable[..., Any]]
    __truediv__: ClassVar[Callable[..., Any]]
    __neg__: ClassVar[Callable[..., Any]]

    @abstractmethod
    def forward(self, y: Tensor, target: Tensor) -> tuple[Tensor, Cache]:
        """Return the value, and the cache for ``backward``.

        Args:
            y: The output of a net.
            target: The target, in the form that the loss takes.
        """

    @abstractmethod
    def backward(self, cache: Cache, g: Tensor | None = None) -> Tensor:
        """Return the gradient of y.

        Args:
            cache: The cache that ``forward`` returned.
            g: Gradient of the value: a tensor or a number. Default: ``None``, for ones.
        """

    @abstractmethod
    def weight_of(self, target: Any) -> Weight:
        """Return the weight of a batch with this target in a mean over batches."""

    @property
    def batch_dependent(self) -> bool:
        """Whether a term depends on several rows, as in contrastive losses; batch means then differ from the mean of all rows."""
        return False

    def with_reduction(self, reduction: str) -> Self:
        """Return the loss with another reduction; losses inside a sum get it too.

        Args:
            reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"batch"``.
        """
        return self.replace(reduction=reduction)

    @property
    def part_name(self) -> str:
        """The name of the loss among the parts of a sum."""
        return type(self).__name__

    @property
    def part_count(self) -> int:
        """The number of parts: 1 unless the loss is a sum."""
        return 1

    def part_list(self) -> tuple[Part, ...]:
        """Return the parts; a loss that is not a sum is its only part."""
        return (Part(self.part_name, 1.0, self.reduction, self.weight_of),)

    def parts(self, y: Any, target: Any) -> dict[str, tuple[Tensor, Weight]]:
        """Return, for each part by name, its value without its factor and the weight of this batch in the part's mean.

        Args:
            y: The output of a net.
            target: The target, in the form that the loss takes.
        """
        values = self.part_values(y, target)
        return {part.name: (v, part.weight_of(target)) for part, v in zip(self.part_list(), values, strict=True)}

    def part_values(self, y: Any, target: Any) -> tuple[Tensor, ...]:
        """Return the value of each part, without its factor.

        Args:
            y: The output of a net.
            target: The target, in the form that the loss takes.
        """
        try:
            return self.forward_parts(y, target)[0]
        except Exception as error:
            raise_explained(explain_loss_error(self, y, target, error), error)

    def forward_parts(self, y: Any, target: Any) -> tuple[tuple[Tensor, ...], Cache]:
        """Return the value of each part, without its factor, and the cache for ``backward_parts``.

        Args:
            y: The output of a net.
            target: The target, in the form that the loss takes.
        """
        value, cache = self.forward(y, target)
        return (value,), cache

    def backward_parts(self, cache: Cache, gs: tuple[Weight, ...]) -> Any:
        """Return the gradient of y from the gradients of the parts' values.

        Args:
            cache: The cache that ``forward_parts`` returned.
            gs: For each part, the gradient of its value.
        """
        (g,) = gs
        return self.backward(cache, None if isinstance(g, (int, float)) and g == 1 else g)  # type: ignore[arg-type]

    def value_of_parts(self, values: Sequence[Tensor]) -> Tensor:
        """Return the value of the loss from the values of its parts: Σ fᵢ ℓᵢ.

        Args:
            values: The value of each part, without its factor.
        """
        first, *others = [part.factor * value for part, value in zip(self.part_list(), values, strict=True)]
        return sum(others, start=first)

    def parts_and_grad(self, y: Any, target: Any, shares: tuple[Weight, ...] | None = None) -> tuple[tuple[Tensor, ...], Any]:
        """Return the value of each part, without its factor, and the gradient of Σ fᵢ shareᵢ ℓᵢ with respect to y.

        Args:
            y: The output of a net.
            target: The target, in the form that the loss takes.
            shares: For each part, the share of this batch in its mean. Default: ``None``, for ones.
        """
        factors = [part.factor for part in self.part_list()]
        try:
            values, cache = self.forward_parts(y, target)
            gs = factors if shares is None else [f * s for f, s in zip(factors, shares, strict=True)]
            return values, self.backward_parts(cache, tuple(gs))
        except Exception as error:
            raise_explained(explain_loss_error(self, y, target, error), error)
