"""Gradient transforms that divide by moments of past gradients, and Lion's momentum: the first parts of adaptive optimizers.

t = 1, 2, ... counts the updates, and each element has its own moments:

    m ← β₁ m + (1 - β₁) g      m̂ = m / (1 - β₁ᵗ)          in the state as exp_avg
    v ← β₂ v + (1 - β₂) g²     v̂ = v / (1 - β₂ᵗ)          and exp_avg_sq
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import flag, number
from funcnet.optim.columns import Columns
from funcnet.optim.formulas import sign
from funcnet.optim.moment_rule import Numbers
from funcnet.optim.moments import MomentTransform
from funcnet.optim.rates import Rate, pair_of_rates, rate_field
from funcnet.value import frozen


class _TwoBetas(MomentTransform):
    """The common part of transforms with two running averages: betas, and bias corrections."""

    __slots__ = ()

    betas: tuple[Rate, Rate]
    eps: float
    acts_on = "elements"
    moments: tuple[str, ...] = ("exp_avg", "exp_avg_sq")
    rates_below: ClassVar[Sequence[float]] = (1.0, 1.0)

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"beta1": self.betas[0], "beta2": self.betas[1]}

    def coefficients(self, t: Any, rates: Numbers, scalars: Numbers, columns: Columns) -> tuple[Numbers, Numbers]:
        beta1, beta2 = rates.values()
        return {**rates, "c1": 1 - beta1**t, "c2": 1 - beta2**t}, {}


@frozen
class ScaleByAdam(_TwoBetas):
    """Replace gradients with Adam's direction: ``optax.scale_by_adam``.

        m ← β₁ m + (1 - β₁) g      v ← β₂ v + (1 - β₂) g²
        g ← m̂ / (√(v̂ + ε₀) + ε)    m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ)

    ``chain(ScaleByAdam(), SGD(lr))`` is ``Adam(lr)``, and with ``AddDecayedWeights`` between them ``AdamW``:

    >>> from funcnet.optim.chaining import chain
    >>> from funcnet.optim.sgd import SGD
    >>> from funcnet.optim.transforms.decay import AddDecayedWeights
    >>> opt = chain(ScaleByAdam(), AddDecayedWeights(0.01), SGD(lr=1e-3))

    Args:
        betas: (β₁, β₂), the decay rates of m and v: numbers, schedules of the number of updates made, or 0-d tensors.
        eps: ε, added to the root, in the unit of g.
        eps_root: ε₀, added inside the root, in the unit of g².
        nesterov: Whether m̂ looks one step ahead: β₁ m / (1 - β₁ᵗ⁺¹) + (1 - β₁) g / (1 - β₁ᵗ).

    State:
        step: Number of updates made.
        exp_avg: m, like params.
        exp_avg_sq: v, like params.

    Raises:
        ValueError: If a number is negative or not finite, or if a beta is outside 0 ≤ β < 1.

    References:
        Kingma & Ba 2015, algorithm 1; for ``nesterov`` Dozat 2016.
    """

    betas: tuple[Rate, Rate] = rate_field((0.9, 0.999), validator=pair_of_rates())
    eps: float = field(default=1e-8, validator=number(0.0))
    eps_root: float = field(default=0.0, validator=number(0.0))
    nesterov: bool = field(default=False, validator=flag)

    def coefficients(self, t: Any, rates: Numbers, scalars: Numbers, columns: Columns) -> tuple[Numbers, Numbers]:
        numbers, _ = super().coefficients(t, rates, scalars, columns)
        return ({**numbers, "after": 1 - rates["beta1"] ** (t + 1)} if self.nesterov else numbers), {}

    def formula(
        self, _: Tensor, g: Tensor, m: Tensor, v: Tensor, *, beta1: Any, beta2: Any, c1: Any, c2: Any, after: Any = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        ahead = beta1 * m / after + (1 - beta1) * g / c1 if self.nesterov else m / c1
        return ahead / (_root(v / c2, self.eps_root) + self.eps), m, v


@frozen
class ScaleByAMSGrad(_TwoBetas):
    """Replace gradients with Adam's direction for the largest v so far, as in ``torch.optim.Adam(amsgrad=True)``.

        m ← β₁ m + (1 - β₁) g      v ← β₂ v + (1 - β₂) g²      x ← max(x, v)
        g ← m̂ / (√(x / (1 - β₂ᵗ)) + ε)                         m̂ = m / (1 - β₁ᵗ)

    ``optax.scale_by_amsgrad`` takes the maximum of v̂ instead.

    Args:
        betas: (β₁, β₂), the decay rates of m and v: numbers, schedules of the number of updates made, or 0-d tensors.
        eps: ε, added to the root, in the unit of g.

    State:
        step: Number of updates made.
        exp_avg: m, like params.
        exp_avg_sq: v, like params.
        max_exp_avg_sq: x, like params.

    Raises:
        ValueError: If ``eps`` is negative or not finite, or if a beta is outside 0 ≤ β < 1.

    References:
        Reddi, Kale & Kumar 2018, "On the convergence of Adam and beyond", algorithm 2.

    >>> [*ScaleByAMSGrad().init({})]
    ['step', 'exp_avg', 'exp_avg_sq', 'max_exp_avg_sq']
    """

    moments = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")

    betas: tuple[Rate, Rate] = rate_field((0.9, 0.999), validator=pair_of_rates())
    eps: float = field(default=1e-8, validator=number(0.0))

    def formula(
        self, _: Tensor, g: Tensor, m: Tensor, v: Tensor, x: Tensor, *, beta1: Any, beta2: Any, c1: Any, c2: Any
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        x = torch.maximum(x, v)
        return m / c1 / ((x / c2).sqrt() + self.eps), m, v, x


@frozen
class ScaleByBelief(_TwoBetas):
    """Replace gradients with AdaBelief's direction, divided by their deviation from the average: ``optax.scale_by_belief``.

        m ← β₁ m + (1 - β₁) g      s ← β₂ s + (1 - β₂) (g - m)² + ε₀
        g ← m̂ / (√ŝ + ε)           m̂ = m / (1 - β₁ᵗ), ŝ = s / (1 - β₂ᵗ)

    Args:
        betas: (β₁, β₂), the decay rates of m and s: numbers, schedules of the number of updates made, or 0-d tensors.
        eps: ε, added to the root, in the unit of g.
        eps_root: ε₀, added to s at each step, in the unit of g².

    State:
        step: Number of updates made.
        exp_avg: m, like params.
        exp_avg_var: s, like params.

    Raises:
        ValueError: If a number is negative or not finite, or if a beta is outside 0 ≤ β < 1.

    References:
        Zhuang et al. 2020, "AdaBelief optimizer", algorithm 2.

    >>> ScaleByBelief(eps=1e-8)
    ScaleByBelief(eps=1e-08)
    """

    moments = ("exp_avg", "exp_avg_var")

    betas: tuple[Rate, Rate] = rate_field((0.9, 0.999), validator=pair_of_rates())
    eps: float = field(default=1e-16, validator=number(0.0))
    eps_root: float = field(default=1e-16, validator=number(0.0))

    def formula(
        self, _: Tensor, g: Tensor, m: Tensor, s: Tensor, *, beta1: Any, beta2: Any, c1: Any, c2: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        m = beta1 * m + (1 - beta1) * g
        s = beta2 * s + (1 - beta2) * (g - m) * (g - m) + self.eps_root
        return m / c1 / ((s / c2).sqrt() + self.eps), m, s


@frozen
class ScaleByYogi(_TwoBetas):
    """Replace gradients with Yogi's direction: Adam's, with a v that changes by at most (1 - β₂) g²: ``optax.scale_by_yogi``.

        m ← β₁ m + (1 - β₁) g      v ← v - (1 - β₂) sign(v - g²) g²
        g ← m̂ / (√v̂ + ε)           m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ)

    Args:
        betas: (β₁, β₂): numbers, schedules of the number of updates made, or 0-d tensors.
        eps: ε, added to the root, in the unit of g.
        initial_accumulator_value: The initial value of m and v.

    State:
        step: Number of updates made.
        exp_avg: m, like params.
        exp_avg_sq: v, like params.

    Raises:
        ValueError: If a number is negative or not finite, or if a beta is outside 0 ≤ β < 1.

    References:
        Zaheer, Reddi, Sachan, Kale & Kumar 2018, "Adaptive methods for nonconvex optimization", algorithm 2.

    >>> import torch
    >>> ScaleByYogi(initial_accumulator_value=0.5).init({"w": torch.ones(2)})["exp_avg_sq"]
    {'w': tensor([0.5000, 0.5000])}
    """

    betas: tuple[Rate, Rate] = rate_field((0.9, 0.999), validator=pair_of_rates())
    eps: float = field(default=1e-3, validator=number(0.0))
    initial_accumulator_value: float = field(default=1e-6, validator=number(0.0))

    def initial(self, name: str, p: Tensor) -> Tensor:
        return super().initial(name, p) + self.initial_accumulator_value

    def formula(
        self, _: Tensor, g: Tensor, m: Tensor, v: Tensor, *, beta1: Any, beta2: Any, c1: Any, c2: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        m = beta1 * m + (1 - beta1) * g
        v = v - (1 - beta2) * (v - g * g).sign() * g * g
        return m / c1 / ((v / c2).sqrt() + self.eps), m, v


@frozen
class ScaleByLion(_TwoBetas):
    """Replace gradients with Lion's direction: ``optax.scale_by_lion``.

        g ← sign(β₁ m + (1 - β₁) g)
        m ← β₂ m + (1 - β₂) g                  with the original g

    Args:
        betas: (β₁, β₂), the weight of m in the direction, and the decay rate of m: numbers, schedules of the number of updates
            made, or 0-d tensors.

    State:
        step: Number of updates made.
        exp_avg: m, like params.

    Raises:
        ValueError: If a beta is outside 0 ≤ β < 1.

    References:
        Chen et al. 2023, "Symbolic discovery of optimization algorithms", program 1.

    >>> import torch
    >>> transform, params = ScaleByLion(), {"w": torch.ones(2)}
    >>> transform.update({"w": torch.tensor([5.0, -0.01])}, transform.init(params), params)[0]
    {'w': tensor([ 1., -1.])}
    """

    moments = ("exp_avg",)

    betas: tuple[Rate, Rate] = rate_field((0.9, 0.99), validator=pair_of_rates())

    def coefficients(self, t: Any, rates: Numbers, scalars: Numbers, columns: Columns) -> tuple[Numbers, Numbers]:
        return rates, {}

    def formula(self, _: Tensor, g: Tensor, m: Tensor, *, beta1: Any, beta2: Any) -> tuple[Tensor, Tensor]:
        return sign(beta1 * m + (1 - beta1) * g), beta2 * m + (1 - beta2) * g


def _root(v: Tensor, eps_root: float) -> Tensor:
    return (v + eps_root if eps_root else v).sqrt()
