"""Prodigy: Adam that estimates its learning rate from the distance to the initial params."""

from collections.abc import Sequence
from math import inf
from typing import Any

import torch
from attrs import field
from attrs.validators import optional
from torch import Tensor

from funcnet.errors import flag, number
from funcnet.kernels import optim as kernels
from funcnet.kernels.optim import narrowed
from funcnet.optim.columns import Columns
from funcnet.optim.formulas import shrink
from funcnet.optim.moment_rule import Numbers
from funcnet.optim.moments import MomentOptimizer
from funcnet.optim.rates import Rate, pair_of_rates, rate_field
from funcnet.value import frozen


@frozen
class Prodigy(MomentOptimizer):
    """AdamW whose learning rate is the estimated distance from the initial params to a solution: ``optax.contrib.prodigy``.

        a = η d √(1 - β₂ᵗ) / (1 - β₁ᵗ)
        m ← β₁ m + (1 - β₁) d g      v ← β₂ v + (1 - β₂) d² g²
        s ← β₃ s + a d g / d₀        n ← β₃ n + d a ⟨g, p₀ - p⟩ / d₀      the product over all leaves
        d ← max(d, c n / ‖s‖₁)                                           the norm over all leaves
        p ← (1 - a λ) p - a m / (√v + d ε)

    The estimate d starts at ``d0`` and only grows; all params share it. ``lr`` multiplies it: leave it at 1.0, or use a schedule
    that decays from 1.0.

    Args:
        lr: η, which multiplies the estimate. Like ``betas`` and ``weight_decay``, it is a number, a schedule of the number of
            updates made, or a 0-d tensor.
        betas: (β₁, β₂), the decay rates of m and v.
        beta3: β₃, the decay rate of s and n; ``None`` for √β₂.
        eps: ε, added to the denominator.
        d0: d₀, the initial estimate, in the unit of p; it should be smaller than any suitable learning rate.
        d_coef: c, which multiplies every new estimate.
        weight_decay: λ, decoupled: each update multiplies p by 1 - a λ.
        safeguard_warmup: Whether d replaces a in the sum s, which keeps a warm-up of ``lr`` from raising the estimate.
        donated: Whether params and state may be overwritten; set by ``donate``.

    State:
        step: Number of updates made.
        d: d, a 0-d float64 tensor.
        numerator: n, a 0-d float64 tensor.
        exp_avg: m, like params.
        exp_avg_sq: v, like params.
        grad_sum: s, like params.
        p0: The initial params.

    Raises:
        ValueError: If a rate or another number is negative or not finite, or if a beta is outside 0 ≤ β < 1.

    References:
        Mishchenko & Defazio 2023, "Prodigy: An expeditiously adaptive parameter-free learner", algorithm 4.

    >>> Prodigy().init({"w": torch.ones(1)})["d"].item()
    1e-06
    """

    moments = ("exp_avg", "exp_avg_sq", "grad_sum", "p0")
    rates_below = (inf, 1.0, 1.0, inf)

    lr: Rate = rate_field(1.0)
    betas: tuple[Rate, Rate] = rate_field((0.9, 0.999), validator=pair_of_rates())
    beta3: float | None = field(default=None, validator=optional(number(0.0, below=1.0)))
    eps: float = field(default=1e-8, validator=number(0.0))
    d0: float = field(default=1e-6, validator=number(above=0.0))
    d_coef: float = field(default=1.0, validator=number(above=0.0))
    weight_decay: Rate = rate_field(0.0)
    safeguard_warmup: bool = field(default=False, validator=flag)

    @property
    def scalars(self) -> dict[str, float]:
        return {"d": self.d0, "numerator": 0.0}

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"lr": self.lr, "beta1": self.betas[0], "beta2": self.betas[1], "weight_decay": self.weight_decay}

    def initial(self, name: str, p: Tensor) -> Tensor:
        return super().initial(name, p) if name != "p0" else p.to(kernels.wide(p.dtype), copy=True)

    def totals(self, *sums: Sequence[Tensor]) -> Sequence[Any]:
        """Return the total of each list of 0-d tensors in float64, as a number in eager mode.

        Args:
            sums: Lists of 0-d tensors, one tensor for each leaf.
        """
        return [_total(one) for one in sums]

    def coefficients(self, t: Any, rates: Numbers, scalars: Numbers, columns: Columns) -> tuple[Numbers, Numbers]:
        lr, beta1, beta2, decay = rates.values()
        d, beta3 = scalars["d"], beta2**0.5 if self.beta3 is None else self.beta3
        a = lr * d * (1 - beta2**t) ** 0.5 / (1 - beta1**t)
        share = (d if self.safeguard_warmup else a) * d / self.d0
        ps, gs, _, _, sums, firsts = ([x.contiguous() for x in column] for column in columns)
        ways = [(g * (q - p)).sum() for p, g, q in zip(ps, gs, firsts, strict=True)]
        sizes = [(narrowed(beta3, s) * s + narrowed(share, s) * g).abs().sum() for s, g in zip(sums, gs, strict=True)]
        way, size = self.totals(ways, sizes)
        numerator = beta3 * scalars["numerator"] + d / self.d0 * a * way
        after = _larger(d, self.d_coef * numerator, size)
        numbers = {"a": a, "d": d, "beta1": beta1, "beta2": beta2, "decay": decay, "beta3": beta3, "share": share}
        return {**numbers, "least": after * self.eps}, {"d": after, "numerator": numerator}

    def formula(self, p: Tensor, g: Tensor, m: Tensor, v: Tensor, s: Tensor, p0: Tensor, **now: Any) -> tuple[Tensor, ...]:
        a, d, beta1, beta2 = now["a"], now["d"], now["beta1"], now["beta2"]
        m = beta1 * m + (1 - beta1) * (d * g)
        v = beta2 * v + (1 - beta2) * (d * g) * (d * g)
        s = now["beta3"] * s + now["share"] * g
        return shrink(p, a, now["decay"]) - a * m / (v.sqrt() + now["least"]), m, v, s, p0


def _total(parts: Sequence[Tensor]) -> Any:
    """Sum 0-d tensors in float64, to a number in eager mode."""
    return kernels.read(torch.stack([one.double() for one in parts]).sum()) if parts else 0.0


def _larger(d: Any, numerator: Any, size: Any) -> Any:
    """Return max(d, numerator / size), or d if the size is 0."""
    if not any([isinstance(one, Tensor) for one in (d, numerator, size)]):  # noqa: C419
        return max(numerator / size, d) if size else d  # NaN if the first argument is
    size = torch.as_tensor(size, dtype=torch.float64)
    found = torch.where(size > 0, numerator / torch.where(size > 0, size, 1.0), 0.0)
    return torch.maximum(torch.as_tensor(d, dtype=torch.float64).to(found.device), found)
