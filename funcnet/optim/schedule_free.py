"""ScheduleFree: an average of the steps in place of a schedule."""

from typing import Any, ClassVar

import torch
from attrs import field
from torch import Tensor

from funcnet import flattening
from funcnet.contract import Params
from funcnet.errors import number
from funcnet.kernels.optim import narrowed, plus
from funcnet.optim.base import State
from funcnet.optim.columns import Columns
from funcnet.optim.formulas import larger
from funcnet.optim.inner import Inner
from funcnet.optim.wrapping import Numbers, OptimizerWrapper, Rows
from funcnet.value import frozen


@frozen
class ScheduleFree(OptimizerWrapper):
    """Average the steps of an optimizer without momentum, which makes a schedule unnecessary: ``optax.contrib.schedule_free``.

        x = (y - (1 - β) z) / β                     y params, where gradients are computed; x average, for evaluation
        z ← z + the step of ``optimizer`` from y
        w = (largest η so far)^r      W ← W + w
        x ← x + w / W (z - x)
        y ← β x + (1 - β) z

    Disable the momentum of the optimizer, for example with ``Adam(betas=(0.0, 0.999))``: β replaces it. Evaluate and save x,
    which ``opt.eval_params(state, params)`` returns. η is the optimizer's rate ``lr``, or 1 if it has none.

    Args:
        optimizer: The optimizer that makes the steps; its learning rate is a constant, or a warm-up to a constant.
        b1: β, the share of the average in the params.
        weight_lr_power: r, how strongly a higher rate increases the weight of a step in the average.
        donated: Whether params and state may be overwritten; set by ``donate``.

    State:
        step: Number of updates made.
        weight_sum: W, a 0-d float64 tensor.
        max_lr: The largest η so far, a 0-d float64 tensor.
        z: z, like params.
        optimizer: The state of the optimizer.

    Raises:
        ValueError: If an argument is outside its bounds.

    References:
        Defazio et al. 2024, "The road less scheduled", equations 3 to 5.

    >>> from funcnet.optim.sgd import SGD
    >>> opt, params = ScheduleFree(SGD(lr=0.1)), {"w": torch.ones(1)}
    >>> params, state = opt.update({"w": torch.ones(1)}, opt.init(params), params)
    >>> opt.eval_params(state, params)
    {'w': tensor([0.9000])}
    """

    numbers: ClassVar[dict[str, torch.dtype]] = {"step": torch.int64, "weight_sum": torch.float64, "max_lr": torch.float64}
    trees = ("z",)

    b1: float = field(default=0.9, validator=number(above=0.0, at_most=1.0))
    weight_lr_power: float = field(default=2.0, validator=number(0.0))

    def step(self, numbers: Numbers, columns: Columns, inner: Inner) -> tuple[Numbers, Rows]:
        most = larger(numbers["max_lr"], inner.rate("lr"))
        weight = most**self.weight_lr_power
        total = numbers["weight_sum"] + weight
        share = weight / total if not isinstance(total, Tensor) and total else _quotient(weight, total)
        ys = [y.to(z.dtype) for y, z in zip(columns[0], columns[2], strict=True)]
        start = [y.clone() for y in ys] if self.donated else ys  # a donated optimizer overwrites its params
        steps = inner.update([g.to(y.dtype) for g, y in zip(columns[1], ys, strict=True)], start)
        rows = (self._move(*row, share) for row in zip(ys, steps, columns[2], strict=True))
        return {"step": numbers["step"], "weight_sum": total, "max_lr": most}, rows

    def _move(self, y: Tensor, stepped: Tensor, z: Tensor, share: Any) -> tuple[Tensor, Tensor]:
        """Return the new y and z of a leaf."""
        part = plus(y, z, self.b1 - 1)  # β x
        z = z + (stepped - y)
        return plus(part * narrowed(1 - share, z), z, 1 - self.b1 * (1 - share)), z

    def _average(self, y: Tensor, z: Tensor) -> Tensor:
        return plus(y, z, self.b1 - 1) / self.b1

    def eval_params(self, state: State, params: Params) -> Params:
        """Return the average x in the dtypes of ``params``, with the leaves of ``params`` that the optimizer does not step.

        Args:
            state: The state of the optimizer.
            params: The params in training.
        """
        self._require_state(state)
        rows = zip(*flattening.flatten_together(params, state["z"]), strict=True)
        found = [y if z is None else self._average(y.to(z.dtype), z).to(y.dtype) for y, z in rows]
        made: Params = flattening.unflatten(params, iter(found))
        return made


def _quotient(weight: Any, total: Any) -> Any:
    """Return weight / total, or 0 if all weights were 0."""
    if not isinstance(total, Tensor):
        return 0.0
    return torch.where(total > 0, weight / torch.where(total > 0, total, 1.0), 0.0)
