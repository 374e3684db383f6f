"""Adam and AdamW: torch.optim's formulas, where t = 1, 2, ... counts the updates, p is a parameter and g its gradient.

g ← ±g + λ p          AdamW: p ← (1 - η λ) p instead      λ weight_decay; minus with maximize
m ← β₁ m + (1 - β₁) g
v ← β₂ v + (1 - β₂) g²                       amsgrad: x ← max(x, v), in v's place below
p ← p - η m̂ / (√v̂ + ε)                       m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ), η lr

With ``donated``, as ``donate`` sets it, the numbers are the same, and params and state may be overwritten with them.
"""

from abc import abstractmethod
from collections.abc import Sequence
from math import inf
from typing import Any, ClassVar

from attrs import field
from torch import Tensor

from funcnet.errors import flag, number
from funcnet.kernels import optim_steps as kernels
from funcnet.kernels.optim_rows import RowsStep, adam_in_rows
from funcnet.optim.columns import Columns
from funcnet.optim.moments import MomentOptimizer
from funcnet.optim.rates import Rate, pair_of_rates, rate_field
from funcnet.value import frozen


class _AdamBase(MomentOptimizer):
    """All that Adam and AdamW have in common."""

    __slots__ = ()

    lr: Rate
    betas: tuple[Rate, Rate]
    eps: float
    weight_decay: Rate
    amsgrad: bool
    maximize: bool
    rates_below: ClassVar[Sequence[float]] = (inf, 1.0, 1.0, inf)
    acts_on = "elements"

    @property
    def moments(self) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if self.amsgrad else ("exp_avg", "exp_avg_sq")

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"lr": self.lr, "beta1": self.betas[0], "beta2": self.betas[1], "weight_decay": self.weight_decay}

    @property
    @abstractmethod
    def _decoupled(self) -> bool:
        """Whether p itself decays."""

    def step(self, columns: Columns, step: Tensor, rates: Sequence[Any]) -> Columns:
        how = {"eps": self.eps, "maximize": self.maximize, "decoupled": self._decoupled, "donated": self.donated}
        return kernels.adam(columns, step, rates, **how)

    def rows_step(self, columns: Columns) -> RowsStep | None:
        if self._fixed is None:
            return None
        return adam_in_rows(columns, self._fixed, self.eps, self.maximize, self._decoupled, self.donated)


@frozen
class Adam(_AdamBase):
    """Adam: ``torch.optim.Adam``.

        g ← g + λ p      m ← β₁ m + (1 - β₁) g      v ← β₂ v + (1 - β₂) g²
        p ← p - η m̂ / (√v̂ + ε)                      m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ)

    Args:
        lr: η, a number, a schedule or a 0-d tensor, as are both ``betas`` and ``weight_decay``.
        betas: (β₁, β₂), the shares of m and v that stay.
        eps: ε, added to the denominator.
        weight_decay: λ, added to the gradient times p; ``AdamW`` decays p itself.
        amsgrad: Whether the largest v so far is in the denominator.
        maximize: Whether to ascend.
        decoupled_weight_decay: Whether p itself decays: ``AdamW`` with another default.
        donated: Set by ``donate``.

    State:
        ``step``, the number of updates made; ``exp_avg`` m and ``exp_avg_sq`` v; with ``amsgrad`` also ``max_exp_avg_sq``.

    Units:
        ``lr`` has those of p, which changes by about ``lr`` at a step; ``eps`` those of g, ``weight_decay`` those of g / p. A
        schedule counts updates, from 0.

    Raises:
        ValueError: For rates and an ``eps`` below 0 or not finite, and betas outside 0 ≤ β < 1; from ``update`` for state,
            gradients and params that do not fit each other.

    Source:
        Kingma & Ba 2015, algorithm 1; for ``amsgrad`` Reddi, Kale & Kumar 2018, algorithm 2.

    >>> import torch
    >>> Adam().init({"weight": torch.ones(2)})["exp_avg"]
    {'weight': tensor([0., 0.])}
    """

    lr: Rate = rate_field(1e-3)
    betas: tuple[Rate, Rate] = rate_field((0.9, 0.999), validator=pair_of_rates())
    eps: float = field(default=1e-8, validator=number(0.0))
    weight_decay: Rate = rate_field(0.0)
    amsgrad: bool = field(default=False, validator=flag)
    maximize: bool = field(default=False, validator=flag)
    decoupled_weight_decay: bool = field(default=False, kw_only=True, validator=flag)

    @property
    def _decoupled(self) -> bool:
        return self.decoupled_weight_decay


@frozen
class AdamW(_AdamBase):
    """Adam with decoupled weight decay: ``torch.optim.AdamW``.

        p ← (1 - η λ) p, and then as ``Adam`` without weight decay

    All params decay, as in torch. To leave biases and norms alone, end a chain of the same steps with ``SGD``:
    ``chain(ScaleByAdam(), AddDecayedWeights(λ, mask=net), SGD(lr))``.

    Args:
        lr: η, a number, a schedule or a 0-d tensor, as are both ``betas`` and ``weight_decay``.
        betas: As ``Adam``'s.
        eps: As ``Adam``'s.
        weight_decay: λ.
        amsgrad: As ``Adam``'s.
        maximize: As ``Adam``'s.
        donated: Set by ``donate``.

    State:
        As ``Adam``'s.

    Units:
        As ``Adam``'s, but ``weight_decay`` has those of 1 / ``lr``. A schedule counts updates, from 0.

    Raises:
        ValueError: As ``Adam``.

    Source:
        Loshchilov & Hutter 2019, "Decoupled weight decay regularization", algorithm 2, with the decay times ``lr`` as in
        ``torch.optim.AdamW``.
    """

    lr: Rate = rate_field(1e-3)
    betas: tuple[Rate, Rate] = rate_field((0.9, 0.999), validator=pair_of_rates())
    eps: float = field(default=1e-8, validator=number(0.0))
    weight_decay: Rate = rate_field(1e-2)
    amsgrad: bool = field(default=False, validator=flag)
    maximize: bool = field(default=False, validator=flag)

    @property
    def _decoupled(self) -> bool:
        return True
