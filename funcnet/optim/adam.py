"""Adam and AdamW, with the formulas of torch.optim: t = 1, 2, ... counts the updates, p is a parameter and g its gradient.

    g ← ±g + λ p          AdamW: p ← (1 - η λ) p instead      λ weight_decay; minus with maximize
    m ← β₁ m + (1 - β₁) g
    v ← β₂ v + (1 - β₂) g²                       amsgrad: x ← max(x, v), used in place of v below
    p ← p - η m̂ / (√v̂ + ε)                       m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ), η lr

With ``donated``, set by ``donate``, the results are the same, but they can overwrite params and state.
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
    """The common part of Adam and AdamW."""

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
        """Whether weight decay shrinks p directly instead of adding to the gradient."""

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

        g ← ±g + λ p                                minus with maximize
        m ← β₁ m + (1 - β₁) g      v ← β₂ v + (1 - β₂) g²
        p ← p - η m̂ / (√v̂ + ε)                      m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ)

    Args:
        lr: η, the learning rate, in the unit of p, which changes by about η per step. Like ``betas`` and ``weight_decay``, it is
            a number, a schedule of the number of updates made, or a 0-d tensor.
        betas: (β₁, β₂), the decay rates of m and v.
        eps: ε, added to the denominator, in the unit of g.
        weight_decay: λ, the coefficient of an L2 penalty, in the unit of g / p; ``AdamW`` shrinks p directly instead.
        amsgrad: Whether the denominator uses the largest v so far.
        maximize: Whether to maximize the loss.
        donated: Whether params and state may be overwritten; set by ``donate``.
        decoupled_weight_decay: Whether to shrink p directly, as ``AdamW`` does, instead of adding λ p to the gradient.

    State:
        step: Number of updates made.
        exp_avg: m, like params.
        exp_avg_sq: v, like params.
        max_exp_avg_sq: The largest v so far, with ``amsgrad``.

    Raises:
        ValueError: If a rate or ``eps`` is negative or not finite, or if a beta is outside 0 ≤ β < 1.

    References:
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

        p ← (1 - η λ) p
        m ← β₁ m + (1 - β₁) g      v ← β₂ v + (1 - β₂) g²      -g in place of g with maximize
        p ← p - η m̂ / (√v̂ + ε)                                 m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ)

    All params decay, as in torch. To exclude biases and norms, use a chain that computes the same steps:
    ``chain(ScaleByAdam(), AddDecayedWeights(λ, mask=net), SGD(lr))``.

    Args:
        lr: η, the learning rate, in the unit of p, which changes by about η per step. Like ``betas`` and ``weight_decay``, it is
            a number, a schedule of the number of updates made, or a 0-d tensor.
        betas: (β₁, β₂), the decay rates of m and v.
        eps: ε, added to the denominator, in the unit of g.
        weight_decay: λ, in the unit of 1 / ``lr``: each update multiplies p by 1 - η λ.
        amsgrad: Whether the denominator uses the largest v so far.
        maximize: Whether to maximize the loss.
        donated: Whether params and state may be overwritten; set by ``donate``.

    State:
        step: Number of updates made.
        exp_avg: m, like params.
        exp_avg_sq: v, like params.
        max_exp_avg_sq: The largest v so far, with ``amsgrad``.

    Raises:
        ValueError: If a rate or ``eps`` is negative or not finite, or if a beta is outside 0 ≤ β < 1.

    References:
        Loshchilov & Hutter 2019, "Decoupled weight decay regularization", algorithm 2, with the decay multiplied by ``lr`` as in
        ``torch.optim.AdamW``.

    >>> import torch
    >>> opt, params = AdamW(lr=0.1, weight_decay=1.0), {"w": torch.ones(2)}
    >>> opt.update({"w": torch.tensor([5.0, 0.0])}, opt.init(params), params)[0]
    {'w': tensor([0.8000, 0.9000])}
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
