"""MultiSteps: one step with the mean of several gradients."""

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import whole
from funcnet.kernels.optim import plus, wide
from funcnet.optim.columns import Columns
from funcnet.optim.inner import Inner
from funcnet.optim.wrapping import Numbers, OptimizerWrapper, Rows
from funcnet.value import frozen


@frozen
class MultiSteps(OptimizerWrapper):
    """Accumulate k gradients, then make one step with their mean: ``optax.MultiSteps``.

        a ← a + g / k
        every k updates:  p ← the step of ``optimizer`` with the gradient a      a ← 0

    Between steps, params and the state of ``optimizer`` do not change; its schedules count steps. A batch that does not fit in
    memory can be passed in k parts of equal size. An absent gradient adds nothing. A leaf without a gradient in the k-th update
    keeps its sum for the next step.

    Args:
        optimizer: The optimizer that makes the steps.
        k: Number of gradients per step.
        donated: Whether params and state may be overwritten; set by ``donate``.

    State:
        step: Number of gradients so far.
        sum: a, like params.
        optimizer: The state of the optimizer.

    Raises:
        ValueError: If ``k`` is below 1.

    References:
        ``optax.MultiSteps``.

    >>> from funcnet.optim.sgd import SGD
    >>> opt, params = MultiSteps(SGD(lr=0.1), 2), {"w": torch.ones(1)}
    >>> state = opt.init(params)
    >>> for g in (1.0, 3.0):
    ...     params, state = opt.update({"w": torch.full((1,), g)}, state, params)
    >>> params
    {'w': tensor([0.8000])}
    """

    trees = ("sum",)

    k: int = field(validator=whole(1))

    def initial(self, name: str, p: Tensor) -> Tensor:
        return torch.zeros_like(p, dtype=wide(p.dtype))

    def step(self, numbers: Numbers, columns: Columns, inner: Inner) -> tuple[Numbers, Rows]:
        due, more = numbers["step"] % self.k == 0, (plus(a, g, 1 / self.k) for g, a in zip(*columns[1:], strict=True))
        if due is False:
            return numbers, zip(columns[0], more, strict=True)
        sums = list(more)
        ps = inner.update_if(due, lambda: [a.to(g.dtype) for a, g in zip(sums, columns[1], strict=True)])
        if isinstance(due, Tensor):
            return numbers, zip(ps, [torch.where(due.to(a.device), 0.0, a) for a in sums], strict=True)
        return numbers, zip(ps, map(torch.zeros_like, sums), strict=True)
