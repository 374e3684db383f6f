"""LossScale: gradients of a loss that was multiplied, so that none vanishes in float16, and the rule that finds the factor."""

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
    """Divide gradients by the factor of the loss, and adapt that factor: the rule of ``torch.amp.GradScaler``.

        g ← g / s
        s ← b s  where a gradient is infinite or NaN;  a s  after n updates without;  n starts anew after either

    A gradient below 6e-8 is 0 in float16. Where the optimizer has a ``LossScale``, ``train_step`` multiplies the gradient of the
    loss by s, and the ``LossScale`` divides by it in float32. It lets infinite gradients pass, so that the optimizer after it
    skips that update: put the optimizer in ``SkipNonFinite``.

    - float32 params of a net in ``cast(net, torch.float16)``: ``chain(LossScale(), SkipNonFinite(AdamW(lr)))``.
    - float16 params: ``MasterWeights`` keeps float32 copies, ``MasterWeights(chain(LossScale(), SkipNonFinite(AdamW(lr))))``.

    In a loop of your own, multiply gy by ``opt.rates(state)["loss_scale"]`` before ``net.grads``.

    Args:
        init_scale: s at first.
        growth_factor: a.
        backoff_factor: b.
        growth_interval: n.

    State:
        ``step``, the number of updates made; ``scale`` s and ``growth_tracker``, the updates since s changed, float64 numbers.

    Raises:
        ValueError: For an ``init_scale`` of 0, a ``growth_factor`` of at most 1, a ``backoff_factor`` outside 0 < b < 1, and
            a ``growth_interval`` below 1; from ``update`` as ``ScaleByAdam``.

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
        """Return the factor s for the loss, or its gradient, before the next update: for a loop of your own."""
        found: Tensor = state["scale"]
        return found

    def rates(self, state: State) -> dict[str, Any]:
        return {**super().rates(state), "loss_scale": self.scale(state)}

    def all_finite(self, gs: Sequence[Tensor]) -> Tensor:
        """Tell whether all elements are finite, as a 0-d tensor."""
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
