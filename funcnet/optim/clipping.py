"""Gradient transforms: clipping, for a ``chain`` before an optimizer.

ClipByGlobalNorm   g ← g · min(1, max_norm / (‖g‖ + 10⁻⁶))    ‖g‖ = √Σ g², over all leaves together
ClipByValue        g ← min(max(g, -clip_value), clip_value)    each element by itself

Infinite gradients are not hidden: an infinite norm makes every finite gradient 0 and every infinite one NaN, as in torch.
``max_norm`` and ``clip_value`` have the unit of the gradients. Neither has a state: it is ``{}``.
"""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from attrs import field
from torch import Tensor

from funcnet import flattening, tree
from funcnet.contract import Params
from funcnet.errors import number, value_error
from funcnet.flattening import Tree
from funcnet.kernels import optim as kernels
from funcnet.optim.base import GradientTransform, State
from funcnet.optim.columns import is_dense
from funcnet.value import frozen


class _Clipping(GradientTransform):
    """A transform without a state, of dense floating gradients; others raise an error with the path."""

    __slots__ = ()

    @abstractmethod
    def clip(self, present: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the clipped gradients, of those that are there."""

    def update(self, grads: Tree, state: State, params: Params) -> tuple[Tree, State]:
        columns = flattening.flatten_together(grads)[0]
        present = [g for g in columns if g is not None]
        try:
            if not all(map(Tensor.is_floating_point, present)):
                raise LookupError
            new = iter(self.clip(present))
        except Exception as error:
            raise self._explained(grads) or error from None
        return flattening.unflatten(grads, iter([None if g is None else next(new) for g in columns])), state

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

    State    ``{}``.
    Raises   ``ValueError`` for a ``max_norm`` that is not a finite number above 0; in ``update`` for gradients that are no dense
             floating tensors on one device.
    Source   Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks", algorithm 1.
    """

    max_norm: float = field(validator=number(above=0.0))

    def clip(self, present: Sequence[Tensor]) -> Sequence[Tensor]:
        factor = kernels.materialize_scalar((self.max_norm / (kernels.norm_of_all(present) + 1e-6)).clamp(max=1.0))
        return kernels.scale_each(present, factor)


@frozen
class ClipByValue(_Clipping):
    """Cut every element of the gradients off at ±``clip_value``; ``torch.nn.utils.clip_grad_value_``.

    State    ``{}``.
    Raises   ``ValueError`` for a ``clip_value`` that is not a finite number above 0; in ``update`` as ``ClipByGlobalNorm``.
    Source   ``torch.nn.utils.clip_grad_value_``'s formula.
    """

    acts_on = "elements"

    clip_value: float = field(validator=number(above=0.0))

    def clip(self, present: Sequence[Tensor]) -> Sequence[Tensor]:
        return [torch.clamp(g, -self.clip_value, self.clip_value) for g in present]
