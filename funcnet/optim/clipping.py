"""Gradient transforms that clip, for use in a ``chain`` before an optimizer.

    ClipByGlobalNorm   g ← g · min(1, max_norm / (‖g‖ + 10⁻⁶))    ‖g‖ = √Σ g², over all leaves together
    ClipByValue        g ← min(max(g, -clip_value), clip_value)    for each element

Infinite gradients are not hidden: an infinite norm makes every finite gradient 0 and every infinite one NaN, as in torch.
``max_norm`` and ``clip_value`` have the unit of the gradients. They are numbers above 0, schedules, or 0-d tensors.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from funcnet import flattening, tree
from funcnet.contract import Grads, Params
from funcnet.errors import describe, value_error
from funcnet.flattening import Tree
from funcnet.kernels import optim as kernels
from funcnet.kernels.aliasing import without_graph
from funcnet.optim.base import GradientTransform, State
from funcnet.optim.columns import is_count, is_dense
from funcnet.optim.rates import Rate, at, checked, limit_field
from funcnet.value import frozen


class _Clipping(GradientTransform):
    """A transform with a limit. A gradient that is not dense and floating raises an error with its path."""

    __slots__ = ()

    @abstractmethod
    def clip(self, present: Sequence[Tensor], limit: Any) -> Sequence[Tensor]:
        """Return the clipped gradients, for the leaves that have a gradient; the limit is a number or a 0-d tensor."""

    @property
    @abstractmethod
    def limits(self) -> dict[str, Rate]:
        """A dict of the limit and its name."""

    def init(self, params: Params) -> State:
        (limit,) = self.limits.values()
        return {"step": torch.zeros((), dtype=torch.int64)} if callable(limit) else {}

    def rates(self, state: State) -> dict[str, Any]:
        ((name, limit),) = self.limits.items()
        if not callable(limit):
            if state != {}:
                raise value_error(self, "state must be {}, as init returns it", state)
            return {name: limit}
        if not isinstance(state, dict) or state.keys() != {"step"} or not is_count(state["step"]):
            raise value_error(self, "state must be a dict of step, as init returns it", state)
        return {name: checked(self, at(state["step"], limit), state["step"], ())[0]}

    def update(self, grads: Grads, state: State, params: Params) -> tuple[Grads, State]:
        (limit,) = self.rates(state).values()
        columns = flattening.flatten_together(grads)[0]
        present = [g for g in columns if g is not None]
        try:
            if not all(map(Tensor.is_floating_point, present)):
                raise LookupError
            new = iter(self.clip([*map(without_graph, present)], limit))
        except Exception as error:
            raise self._explained(grads) or self._misfit(limit, error) or error from None
        after = {"step": state["step"] + 1} if state else state
        return flattening.unflatten(grads, iter([None if g is None else next(new) for g in columns])), after

    def _misfit(self, limit: Any, error: Exception) -> Exception | None:
        if not isinstance(error, (RuntimeError, OverflowError)):
            return None
        rule = f"{next(iter(self.limits))} must be on the device of grads, and a number that their dtype can hold"
        return value_error(self, rule, describe(limit))

    def _explained(self, grads: Tree) -> Exception | None:
        """Return an error for the first gradient that is not dense and floating, or is on another device than the first."""
        devices = []
        for path, g in tree.names(grads).items():
            if not is_dense(g):
                return value_error(self, f"grads must have a dense floating tensor of at least 16 bits at {path!r}", g)
            devices.append(g.device)
            if g.device != devices[0]:
                return value_error(self, f"grads must be on one device, {devices[0]}", f"{g.device} at {path!r}")
        return None


@frozen
class ClipByGlobalNorm(_Clipping):
    """Scale all gradients by one factor that limits their joint norm: ``torch.nn.utils.clip_grad_norm_``.

        g ← g · min(1, max_norm / (‖g‖ + 10⁻⁶))        ‖g‖ = √Σ g², over all leaves together

    The norm is computed in float64, in which no square of a float32 overflows; float64 gradients are scaled first. Zeros stay
    zeros. A NaN anywhere makes the factor NaN, and with it every gradient.

    Args:
        max_norm: The largest norm, in the unit of g: a number, a schedule of the number of updates made, or a 0-d tensor.

    State:
        step: Number of updates made, with a schedule; otherwise the state is ``{}``.

    Raises:
        ValueError: If ``max_norm`` is not a finite number above 0; from ``update`` if gradients are not dense floating tensors on
            one device, or if a schedule returns anything but a finite, non-negative number.

    References:
        Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks", algorithm 1.

    >>> transform = ClipByGlobalNorm(1.0)
    >>> transform.update({"w": torch.full((4,), 5.0)}, transform.init({}), {})[0]
    {'w': tensor([0.5000, 0.5000, 0.5000, 0.5000])}
    """

    max_norm: Rate = limit_field()

    @property
    def limits(self) -> dict[str, Rate]:
        return {"max_norm": self.max_norm}

    def norm_of_all(self, present: Sequence[Tensor]) -> Tensor:
        """Return the joint norm of the gradients.

        Args:
            present: The gradients.
        """
        return kernels.norm_of_all(present)

    def clip(self, present: Sequence[Tensor], limit: Any) -> Sequence[Tensor]:
        factor = kernels.materialize_scalar((limit / (self.norm_of_all(present) + 1e-6)).clamp(max=1.0))
        return kernels.scale_each(present, factor)


@frozen
class ClipByValue(_Clipping):
    """Clip every element of the gradients to ±``clip_value``: ``torch.nn.utils.clip_grad_value_``.

        g ← min(max(g, -clip_value), clip_value)

    Args:
        clip_value: The largest absolute value, in the unit of g: a number, a schedule of the number of updates made, or a 0-d
            tensor.

    State:
        step: Number of updates made, with a schedule; otherwise the state is ``{}``.

    Raises:
        ValueError: If ``clip_value`` is not a finite number above 0; from ``update`` if gradients are not dense floating tensors
            on one device, or if a schedule returns anything but a finite, non-negative number.

    References:
        ``torch.nn.utils.clip_grad_value_``.

    >>> transform = ClipByValue(1.0)
    >>> transform.update({"w": torch.tensor([3.0, -0.5])}, transform.init({}), {})[0]
    {'w': tensor([ 1.0000, -0.5000])}
    """

    acts_on = "elements"

    clip_value: Rate = limit_field()

    @property
    def limits(self) -> dict[str, Rate]:
        return {"clip_value": self.clip_value}

    def clip(self, present: Sequence[Tensor], limit: Any) -> Sequence[Tensor]:
        if not isinstance(limit, Tensor):
            return [torch.clamp(g, -limit, limit) for g in present]
        limits = [limit.to(device=g.device, dtype=g.dtype) for g in present]
        return [torch.clamp(g, -most, most) for g, most in zip(present, limits, strict=True)]
