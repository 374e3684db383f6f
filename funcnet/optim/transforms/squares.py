"""Gradient transforms that divide by the root of a mean or a sum of squares: the first parts of RMSprop and Adagrad.

    n ← ρ n + (1 - ρ) g²      n̂ = n / (1 - ρᵗ) with bias_correction, else n
    m ← ρ m + (1 - ρ) g       m̂ the same, for centered gradients

They act on each element separately.
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import flag, number
from funcnet.optim.columns import Columns
from funcnet.optim.moment_rule import Numbers
from funcnet.optim.moments import MomentTransform
from funcnet.optim.rates import Rate, rate_field
from funcnet.value import frozen


class _MeanOfSquares(MomentTransform):
    """The common part of ``ScaleByRMS`` and ``ScaleByStddev``."""

    __slots__ = ()

    decay: Rate
    eps: float
    initial_scale: float
    eps_in_sqrt: bool
    bias_correction: bool
    acts_on = "elements"
    rates_below = (1.0,)

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"decay": self.decay}

    def coefficients(self, t: Any, rates: Numbers, scalars: Numbers, columns: Columns) -> tuple[Numbers, Numbers]:
        return {**rates, "c": 1 - rates["decay"] ** t if self.bias_correction else 1.0}, {}

    def initial(self, name: str, p: Tensor) -> Tensor:
        zeros = super().initial(name, p)
        return zeros + self.initial_scale if name == "square_avg" else zeros

    def root(self, n: Tensor) -> Tensor:
        """Return √(n + ε), or √n + ε."""
        return (n + self.eps).sqrt() if self.eps_in_sqrt else n.sqrt() + self.eps


@frozen
class ScaleByRMS(_MeanOfSquares):
    """Divide by the root of a running mean of squares: ``optax.scale_by_rms``.

        n ← ρ n + (1 - ρ) g²      n̂ = n / (1 - ρᵗ) with bias_correction, else n
        g ← g / √(n̂ + ε),         g / (√n̂ + ε) with eps_in_sqrt=False

    ``chain(ScaleByRMS(0.99, eps_in_sqrt=False), SGD(lr))`` is torch's RMSprop.

    Args:
        decay: ρ, the decay rate of n: a number, a schedule of the number of updates made, or a 0-d tensor.
        eps: ε, in the unit of g², or of g outside the root.
        initial_scale: The initial value of n.
        eps_in_sqrt: Whether ε is inside the root.
        bias_correction: Whether to divide n by 1 - ρᵗ.

    State:
        step: Number of updates made.
        square_avg: n, like params.

    Raises:
        ValueError: If ``decay`` is outside 0 ≤ ρ < 1, or if a number is negative or not finite.

    References:
        Tieleman & Hinton 2012, "Neural networks for machine learning", lecture 6.5.

    >>> ScaleByRMS(0.99, eps_in_sqrt=False)
    ScaleByRMS(decay=0.99, eps_in_sqrt=False)
    """

    moments = ("square_avg",)

    decay: Rate = rate_field(0.9, below=1.0)
    eps: float = field(default=1e-8, validator=number(0.0))
    initial_scale: float = field(default=0.0, validator=number(0.0))
    eps_in_sqrt: bool = field(default=True, validator=flag)
    bias_correction: bool = field(default=False, validator=flag)

    def formula(self, _: Tensor, g: Tensor, n: Tensor, *, decay: Any, c: Any) -> tuple[Tensor, Tensor]:
        n = decay * n + (1 - decay) * g * g
        return g / self.root(n / c), n


@frozen
class ScaleByStddev(_MeanOfSquares):
    """Divide by a running standard deviation, as centered RMSprop does: ``optax.scale_by_stddev``.

        n ← ρ n + (1 - ρ) g²      m ← ρ m + (1 - ρ) g
        g ← g / √(n̂ - m̂² + ε),    g / (√(n̂ - m̂²) + ε) with eps_in_sqrt=False

    n̂ and m̂ are n and m, divided by 1 - ρᵗ with bias_correction.

    Args:
        decay: ρ, the decay rate of n and m: a number, a schedule of the number of updates made, or a 0-d tensor.
        eps: ε, in the unit of g², or of g outside the root.
        initial_scale: The initial value of n.
        eps_in_sqrt: Whether ε is inside the root.
        bias_correction: Whether to divide n and m by 1 - ρᵗ.

    State:
        step: Number of updates made.
        square_avg: n, like params.
        grad_avg: m, like params.

    Raises:
        ValueError: If ``decay`` is outside 0 ≤ ρ < 1, or if a number is negative or not finite.

    References:
        Graves 2013, "Generating sequences with recurrent neural networks", equations 38 to 41.

    >>> [*ScaleByStddev().init({})]
    ['step', 'square_avg', 'grad_avg']
    """

    moments = ("square_avg", "grad_avg")

    decay: Rate = rate_field(0.9, below=1.0)
    eps: float = field(default=1e-8, validator=number(0.0))
    initial_scale: float = field(default=0.0, validator=number(0.0))
    eps_in_sqrt: bool = field(default=True, validator=flag)
    bias_correction: bool = field(default=False, validator=flag)

    def formula(self, _: Tensor, g: Tensor, n: Tensor, m: Tensor, *, decay: Any, c: Any) -> tuple[Tensor, Tensor, Tensor]:
        n = decay * n + (1 - decay) * g * g
        m = decay * m + (1 - decay) * g
        variance = (n / c - (m / c) * (m / c)).clamp(min=0.0)  # rounding may make it negative for equal gradients
        return g / self.root(variance), n, m


@frozen
class ScaleByRSS(MomentTransform):
    """Divide by the root of the sum of squares of all gradients so far, as Adagrad does: ``optax.scale_by_rss``.

        s ← s + g²
        g ← g / √(s + ε), 0 where s is 0

    Args:
        initial_accumulator_value: The initial value of s, in the unit of g².
        eps: ε, inside the root, in the unit of g².

    State:
        step: Number of updates made.
        sum: s, like params.

    Raises:
        ValueError: If a number is negative or not finite.

    References:
        Duchi, Hazan & Singer 2011, "Adaptive subgradient methods for online learning and stochastic optimization", figure 1.

    >>> import torch
    >>> ScaleByRSS().init({"w": torch.ones(2)})["sum"]
    {'w': tensor([0.1000, 0.1000])}
    """

    acts_on = "elements"
    moments = ("sum",)

    initial_accumulator_value: float = field(default=0.1, validator=number(0.0))
    eps: float = field(default=1e-7, validator=number(0.0))

    def initial(self, name: str, p: Tensor) -> Tensor:
        return super().initial(name, p) + self.initial_accumulator_value

    def formula(self, _: Tensor, g: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        s = s + g * g
        return torch.where(s > 0, g * (s + self.eps).rsqrt(), torch.where(g.isnan(), g, 0.0)), s
