"""Gradient transforms: clipping, for a ``chain`` before an optimizer.

ClipByGlobalNorm   g ← g · min(1, max_norm / (‖g‖ + 10⁻⁶))    ‖g‖ = √Σ g², over all leaves together
ClipByValue        g ← min(max(g, -clip_value), clip_value)    each element by itself

``max_norm`` and ``clip_value`` have the unit of the gradients. Neither has a state: it is ``{}``.
"""

import torch
from attrs import field

from funcnet import flattening, tree
from funcnet.contract import Params
from funcnet.errors import number
from funcnet.kernels import optim as kernels
from funcnet.optim.base import GradientTransform, State
from funcnet.tree import Tree
from funcnet.value import frozen


@frozen
class ClipByGlobalNorm(GradientTransform):
    """Scale all gradients by one factor, so that their common norm is at most ``max_norm``; ``torch.nn.utils.clip_grad_norm_``.

    The norm is taken in float64, so that no float32 overflows in the squares. A norm of 0 leaves zeros, and a NaN anywhere
    makes every gradient NaN, as the factor is.

    State    ``{}``.
    Raises   ``ValueError`` for a ``max_norm`` that is not a finite number above 0.
    Source   Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks", algorithm 1.
    """

    max_norm: float = field(validator=number(above=0.0))

    def update(self, grads: Tree, state: State, params: Params) -> tuple[Tree, State]:
        columns = flattening.flatten_together(grads)[0]
        present = [g for g in columns if g is not None]
        factor = kernels.materialize_scalar((self.max_norm / (kernels.norm_of_all(present) + 1e-6)).clamp(max=1.0))
        new = iter(kernels.scale_each(present, factor))
        return flattening.unflatten(grads, iter([None if g is None else next(new) for g in columns])), state


@frozen
class ClipByValue(GradientTransform):
    """Cut every element of the gradients off at ±``clip_value``; ``torch.nn.utils.clip_grad_value_``.

    State    ``{}``.
    Raises   ``ValueError`` for a ``clip_value`` that is not a finite number above 0.
    Source   ``torch.nn.utils.clip_grad_value_``'s formula.
    """

    clip_value: float = field(validator=number(above=0.0))

    def update(self, grads: Tree, state: State, params: Params) -> tuple[Tree, State]:
        return tree.map(lambda g: torch.clamp(g, -self.clip_value, self.clip_value), grads), state
