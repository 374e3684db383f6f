"""Adafactor: second moments of a matrix stored as means of its rows and columns."""

from math import sqrt
from typing import Any

import torch
from attrs import field
from torch import Size, Tensor

from funcnet.errors import flag, is_number, number, valid_if
from funcnet.optim.columns import Columns
from funcnet.optim.formulas import along, shrink, smaller
from funcnet.optim.moment_rule import Numbers
from funcnet.optim.moments import MomentOptimizer
from funcnet.optim.rates import Rate, rate_field
from funcnet.value import frozen


def _is_pair(got: Any) -> bool:
    is_pair = isinstance(got, tuple) and len(got) == 2
    return is_pair and all([(one is None and i == 0) or (is_number(one) and one >= 0) for i, one in enumerate(got)])  # noqa: C419


@frozen
class Adafactor(MomentOptimizer):
    """Adaptive steps with a second moment stored as one row and one column per matrix: ``torch.optim.Adafactor``.

        β = 1 - t^beta2_decay      ρ = min(η, 1 / √t)      α = ρ max(ε₂, rms(p))
        r ← β r + (1 - β) mean of g² along rows      c ← β c + (1 - β) mean of g² along columns
        v = r c / max(mean r, ε₁)                    v ← β v + (1 - β) g² for leaves without rows and columns
        u = g / √max(v, ε₁²)
        p ← (1 - η λ) p - α u / max(1, rms(u) / d)   -g in place of g with maximize

    Args:
        lr: η, the upper bound of the relative step size ρ. Like ``weight_decay``, it is a number, a schedule of the number of
            updates made, or a 0-d tensor.
        beta2_decay: The exponent of t in 1 - β, at most 0: the closer to 0, the faster old gradients are forgotten.
        eps: (ε₁, ε₂), the lower bounds of √v and of rms(p). ``None`` as ε₁ is the eps of the dtype in which the step is computed.
        d: The upper bound of the root mean square of u.
        weight_decay: λ, in the unit of 1 / ``lr``: each update multiplies p by 1 - η λ.
        donated: Whether params and state may be overwritten; set by ``donate``.
        maximize: Whether to maximize the loss.

    State:
        step: Number of updates made.
        row_var: r, for the last two axes of leaves with two or more axes; for others a tensor without elements.
        col_var: c, for the same leaves as r.
        variance: v, for leaves with fewer than two axes; for others a tensor without elements.

    Raises:
        ValueError: If a rate is negative or not finite, or another argument is outside its bounds.

    References:
        Shazeer & Stern 2018, "Adafactor: Adaptive learning rates with sublinear memory cost", algorithms 4 and 5.

    >>> tuple(Adafactor().init({"w": torch.ones(3, 5)})["row_var"]["w"].shape)
    (3, 1)
    """

    acts_on = "leaves"
    moments = ("row_var", "col_var", "variance")

    lr: Rate = rate_field(1e-2)
    beta2_decay: float = field(default=-0.8, validator=number(at_most=0.0))
    eps: tuple[float | None, float] = field(
        default=(None, 1e-3), validator=valid_if(_is_pair, "a tuple of two numbers of at least 0; the first may be None")
    )
    d: float = field(default=1.0, validator=number(1.0))
    weight_decay: Rate = rate_field(0.0)
    maximize: bool = field(default=False, kw_only=True, validator=flag)

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"lr": self.lr, "weight_decay": self.weight_decay}

    def moment_shape(self, name: str, shape: Size) -> Size:
        if (len(shape) > 1) == (name == "variance"):
            return Size((0,))
        return {"variance": shape, "row_var": Size((*shape[:-1], 1)), "col_var": Size((*shape[:-2], 1, *shape[-1:]))}[name]

    def coefficients(self, t: Any, rates: Numbers, scalars: Numbers, columns: Columns) -> tuple[Numbers, Numbers]:
        lr, decay = rates.values()
        return {"lr": lr, "decay": decay, "rho": smaller(t**-0.5, lr), "a": t**self.beta2_decay}, scalars

    def formula(self, p: Tensor, g: Tensor, *moments: Tensor, lr: Any, decay: Any, rho: Any, a: Any) -> tuple[Tensor, ...]:
        if not p.numel():
            return p, *moments
        g = along(g, self.maximize)
        least = torch.finfo(p.dtype).eps if self.eps[0] is None else self.eps[0]
        v, *moments = self._second(g, *moments, a=a, least=least)  # type: ignore[assignment]
        u = g * v.clamp(min=least * least).rsqrt()
        alpha = rho * _rms(p).clamp(min=self.eps[1])
        return shrink(p, lr, decay) - alpha / (_rms(u) / self.d).clamp(min=1.0) * u, *moments

    def _second(self, g: Tensor, r: Tensor, c: Tensor, v: Tensor, *, a: Any, least: float) -> tuple[Tensor, ...]:
        """Return the second moment of g, and the new moments."""
        if g.dim() < 2:
            v = v + a * (g * g - v)
            return v, r, c, v
        r = r + a * ((g * g).mean(-1, keepdim=True) - r)
        c = c + a * ((g * g).mean(-2, keepdim=True) - c)
        return r * c / r.mean(-2, keepdim=True).clamp(min=least), r, c, v


def _rms(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x)
    return norm / sqrt(max(x.numel(), 1))
