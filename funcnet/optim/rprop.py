"""Rprop: steps in the direction of the gradient's sign, whose sizes adapt to sign changes."""

from typing import Any

from attrs import field
from torch import Tensor

from funcnet.errors import describe, flag, is_number, value_error
from funcnet.optim.columns import Columns
from funcnet.optim.formulas import along, sign
from funcnet.optim.moment_rule import Numbers
from funcnet.optim.moments import MomentOptimizer
from funcnet.optim.rates import Rate, rate, rate_field
from funcnet.value import frozen


def _first_size(value: Any, attribute: Any, got: Any) -> None:
    rate()(value, attribute, got)
    if callable(got) and not isinstance(got, Tensor):
        raise value_error("Rprop", "lr is the initial step size, and must be a number or a 0-d tensor", describe(got))


def _etas(value: Any, attribute: Any, got: Any) -> None:
    if not (_is_pair(got) and 0 < got[0] < 1 < got[1]):
        raise value_error("Rprop", "etas must be a tuple of a number between 0 and 1 and one above 1", repr(got))


def _step_sizes(value: Any, attribute: Any, got: Any) -> None:
    if not (_is_pair(got) and 0 <= got[0] <= got[1]):
        raise value_error("Rprop", "step_sizes must be a tuple of two numbers of at least 0, the smaller one first", repr(got))


def _is_pair(got: Any) -> bool:
    return isinstance(got, tuple) and len(got) == 2 and all(map(is_number, got))


@frozen
class Rprop(MomentOptimizer):
    """Sign descent with an adaptive step size for each element: ``torch.optim.Rprop``.

        s ← clip(s η⁺, s_min, s_max)  where g g′ > 0
        s ← clip(s η⁻, s_min, s_max), g ← 0  where g g′ < 0       g′ the previous g, 0 where it changed its sign
        p ← p - s sign(g)

    Use it with full batches: with small batches the signs of gradients change by chance.

    Args:
        lr: The initial step size s, in the unit of p, a number or a 0-d tensor. Later sizes depend on the gradients only.
        etas: (η⁻, η⁺), the factors of a step size after a sign change and without one.
        step_sizes: (s_min, s_max), the limits of the step sizes, in the unit of p.
        donated: Whether params and state may be overwritten; set by ``donate``.
        maximize: Whether to maximize the loss.

    State:
        step: Number of updates made.
        prev: g′, like params.
        step_size: s, like params.

    Raises:
        ValueError: If ``lr`` is negative, not finite or a schedule, if not 0 < η⁻ < 1 < η⁺, or if not 0 ≤ s_min ≤ s_max.

    References:
        Riedmiller & Braun 1993, "A direct adaptive method for faster backpropagation learning: the RPROP algorithm"; like torch
        it skips a step after a sign change instead of undoing the last one.

    >>> import torch
    >>> opt, params = Rprop(lr=0.1), {"w": torch.ones(2)}
    >>> opt.update({"w": torch.tensor([5.0, -0.01])}, opt.init(params), params)[0]
    {'w': tensor([0.9000, 1.1000])}
    """

    acts_on = "elements"
    moments = ("prev", "step_size")

    lr: Rate = rate_field(1e-2, validator=_first_size)
    etas: tuple[float, float] = field(default=(0.5, 1.2), validator=_etas)
    step_sizes: tuple[float, float] = field(default=(1e-6, 50.0), validator=_step_sizes)
    maximize: bool = field(default=False, kw_only=True, validator=flag)

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"lr": self.lr}

    def initial(self, name: str, p: Tensor) -> Tensor:
        zeros = super().initial(name, p)
        return zeros if name == "prev" else zeros + self._first(zeros)

    def _first(self, like: Tensor) -> Any:
        return self.lr.to(like) if isinstance(self.lr, Tensor) else self.lr

    def coefficients(self, t: Any, rates: Numbers, scalars: Numbers, columns: Columns) -> tuple[Numbers, Numbers]:
        return {}, scalars

    def formula(self, p: Tensor, g: Tensor, before: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        g, (smaller, larger) = along(g, self.maximize), self.etas
        kept = g * before
        size = (size * larger).where(kept > 0, (size * smaller).where(kept < 0, size)).clamp(*self.step_sizes)
        g = g.masked_fill(kept < 0, 0.0)
        return p - sign(g) * size, g, size
