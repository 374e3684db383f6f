"""Gradient transforms: clipping, for a ``chain`` before an optimizer.

ClipByGlobalNorm   g ← g · min(1, max_norm / (‖g‖ + 10⁻⁶))    ‖g‖ = √Σ g², over all leaves together
ClipByValue        g ← min(max(g, -clip_value), clip_value)    each element by itself

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
    """A transform of dense floating gradients, with a limit; others raise an error with the path."""

    __slots__ = ()

    @abstractmethod
    def clip(self, present: Sequence[Tensor], limit: Any) -> Sequence[Tensor]:
        """Return the clipped gradients, of those that are there; the limit is a number or a 0-d tensor."""

    @property
    @abstractmethod
    def limits(self) -> dict[str, Rate]:
        """The limit by its name."""

    def init(self, params: Params) -> State:
        (limit,) = self.limits.values()
        return {"step": torch.zeros((), dtype=torch.int64)} if callable(limit) else {}

    def rates(self, state: State) -> dict[str, Any]:
        ((name, limit),) = self.limits.items()
        if not callable(limit):
            if state != {}:
                raise value_error(self, "state must be {}, as init makes it", state)
            return {name: limit}
        if not isinstance(state, dict) or state.keys() != {"step"} or not is_count(state["step"]):
            raise value_error(self, "state must be a dict of step, as init makes it", state)
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
        """Find the first gradient that is no dense floating tensor, or is on another device than the first one."""
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
    """Scale all gradients by one factor, so that their common norm is at most ``max_norm``; ``torch.nn.utils.clip_grad_norm_``.

    The norm is taken in float64, so that no float32 overflows in the squares; those of float64 are scaled. A norm of 0 leaves
    zeros, and a NaN anywhere makes every gradient NaN, as the factor is.

    Args:
        max_norm: A number, a schedule or a 0-d tensor.

    State:
        ``{}``; with a schedule ``step``, the number of updates made.

    Raises:
        ValueError: For a ``max_norm`` that is not above 0 or not finite; from ``update`` for gradients that are no dense floating
            tensors on one device, and for what a schedule may not return.

    References:
        Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks", algorithm 1.
    """

    max_norm: Rate = limit_field()

    @property
    def limits(self) -> dict[str, Rate]:
        return {"max_norm": self.max_norm}

    def norm_of_all(self, present: Sequence[Tensor]) -> Tensor:
        """Return the common norm of the gradients."""
        return kernels.norm_of_all(present)

    def clip(self, present: Sequence[Tensor], limit: Any) -> Sequence[Tensor]:
        factor = kernels.materialize_scalar((limit / (self.norm_of_all(present) + 1e-6)).clamp(max=1.0))
        return kernels.scale_each(present, factor)


@frozen
class ClipByValue(_Clipping):
    """Cut every element of the gradients off at ±``clip_value``; ``torch.nn.utils.clip_grad_value_``.

    Args:
        clip_value: A number, a schedule or a 0-d tensor.

    State:
        As ``ClipByGlobalNorm``'s.

    Raises:
        ValueError: As ``ClipByGlobalNorm``.

    References:
        ``torch.nn.utils.clip_grad_value_``.
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
