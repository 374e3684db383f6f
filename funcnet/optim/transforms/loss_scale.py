"""LossScale: a factor of the loss that keeps gradients from vanishing in float16, and the rule that adapts it."""

from collections.abc import Sequence
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import number, whole
from funcnet.kernels import optim as kernels
from funcnet.optim.base import State
from funcnet.optim.columns import Columns
from funcnet.optim.moment_rule import Numbers
from funcnet.optim.moments import MomentTransform
from funcnet.value import frozen


@frozen
class LossScale(MomentTransform):
    """Divide gradients by the loss scale, and adapt it: the rule of ``torch.amp.GradScaler``.

        g ← g / s
        s ← b s  if a gradient is infinite or NaN;  s ← a s  after n finite updates;  the count restarts after either

    A gradient below 6e-8 is 0 in float16. If the optimizer contains a ``LossScale``, ``train_step`` multiplies the gradient of
    the loss by s, and the ``LossScale`` divides by it in float32. Infinite gradients pass through it: wrap the optimizer after it
    in ``SkipNonFinite``, which skips such updates.

    - float32 params of a net in ``cast(net, torch.float16)``: ``chain(LossScale(), SkipNonFinite(AdamW(lr)))``.
    - float16 params: ``MasterWeights`` keeps float32 copies, ``MasterWeights(chain(LossScale(), SkipNonFinite(AdamW(lr))))``.

    In a custom loop, multiply gy by ``opt.rates(state)["loss_scale"]`` before ``net.grads``.

    Args:
        init_scale: The initial value of s.
        growth_factor: a, above 1.
        backoff_factor: b, between 0 and 1.
        growth_interval: n, the number of updates between two increases.

    State:
        step: Number of updates made.
        scale: s, a 0-d float64 tensor.
        growth_tracker: Number of updates since s changed, a 0-d float64 tensor.

    Raises:
        ValueError: If an argument is outside its bounds.

    References:
        Micikevicius et al. 2018, "Mixed precision training", section 3.2.

    >>> transform = LossScale()
    >>> transform.rates(transform.init({}))
    {'loss_scale': tensor(65536., dtype=torch.float64)}
    """

    moments = ()

    init_scale: float = field(default=2.0**16, validator=number(above=0.0))
    growth_factor: float = field(default=2.0, validator=number(above=1.0))
    backoff_factor: float = field(default=0.5, validator=number(above=0.0, below=1.0))
    growth_interval: int = field(default=2000, validator=whole(1))

    @property
    def scalars(self) -> dict[str, float]:
        return {"scale": float(self.init_scale), "growth_tracker": 0.0}

    def scale(self, state: State) -> Tensor:
        """Return s, by which a custom loop must multiply the loss or its gradient before the next update.

        Args:
            state: The state of the transform.
        """
        found: Tensor = state["scale"]
        return found

    def rates(self, state: State) -> dict[str, Any]:
        return {**super().rates(state), "loss_scale": self.scale(state)}

    def all_finite(self, gs: Sequence[Tensor]) -> Tensor:
        """Return whether all elements are finite, as a 0-d tensor.

        Args:
            gs: The gradients.
        """
        return kernels.all_finite(gs)

    def coefficients(self, t: Any, rates: Numbers, scalars: Numbers, columns: Columns) -> tuple[Numbers, Numbers]:
        scale, clean = (torch.as_tensor(one, dtype=torch.float64) for one in scalars.values())
        finite = self.all_finite(columns[1])
        grows = finite & (clean + 1 >= self.growth_interval)
        larger = torch.where(scale * self.growth_factor <= kernels.MOST, scale * self.growth_factor, scale)
        after = torch.where(finite, torch.where(grows, larger, scale), scale * self.backoff_factor)
        return {"inverse": 1 / scale}, {"scale": after, "growth_tracker": torch.where(finite & ~grows, clean + 1, 0.0)}

    def formula(self, _: Tensor, g: Tensor, *, inverse: Any) -> tuple[Tensor]:
        return (g * inverse,)
