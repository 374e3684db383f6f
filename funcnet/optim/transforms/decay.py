"""AddDecayedWeights: weight decay as a gradient transform, for the leaves that a mask selects; ``optim.masks`` explains masks."""

from typing import Any

import attrs
from torch import Tensor

from funcnet import flattening
from funcnet.contract import Grads, Params
from funcnet.errors import add_location
from funcnet.flattening import Tree
from funcnet.kernels.aliasing import without_graph
from funcnet.optim.base import State
from funcnet.optim.columns import is_dense
from funcnet.optim.masks import FlagCache, Mask, comparable, mask_validator
from funcnet.optim.misfits import require_dense
from funcnet.optim.moments import MomentTransform
from funcnet.optim.rates import Rate, rate_field
from funcnet.value import frozen


@frozen
class AddDecayedWeights(MomentTransform):
    """Add weight decay to the gradients: ``optax.add_decayed_weights``.

        g ← g + λ p    for the leaves that the mask selects

    At the start of a chain this is the gradient of a penalty λ ‖p‖² / 2. After the other transforms, before the optimizer's rate
    η, it is the decoupled decay of ``AdamW``: p ← p - η (direction + λ p).

    By default weights decay, and biases and norms do not. Pass the net as the mask to let its layers decide: ``mask=net`` means
    ``decay_mask(net, params)``. Without a net, names and shapes decide: a bias is recognized by its name, and the scale of a norm
    by a bias or running statistics of the same shape next to it. A norm without either, like ``RMSNorm``, cannot be distinguished
    from a weight, and decays.

    Args:
        weight_decay: λ, in the unit of g / p: a number, a schedule of the number of updates made, or a 0-d tensor.
        mask: The leaves that decay: a tree of bools like params, a function (path, leaf) → bool, a pattern of paths or a tuple of
            patterns, a net, or ``None``. ``"*"`` selects all.

    State:
        step: Number of updates made.

    Raises:
        ValueError: If ``weight_decay`` is negative or not finite, or if ``mask`` is of another kind; from ``update`` if the mask
            has another structure than params.

    References:
        Loshchilov & Hutter 2019, "Decoupled weight decay regularization".

    >>> import torch
    >>> transform, params = AddDecayedWeights(0.1), {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
    >>> grads = {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}
    >>> transform.update(grads, transform.init(params), params)[0]
    {'weight': tensor([[0.1000, 0.1000, 0.1000],
            [0.1000, 0.1000, 0.1000]]), 'bias': tensor([0., 0.])}
    """

    moments = ()
    reads_params = True

    weight_decay: Rate = rate_field()
    mask: Mask = attrs.field(default=None, validator=mask_validator, eq=comparable)
    _flags: FlagCache = attrs.field(init=False, eq=False, factory=FlagCache)

    @property
    def acts_on(self) -> str:
        """``"tree"``, since paths refer to the whole tree; ``"elements"`` if all leaves decay."""
        return "elements" if self.mask == "*" else "tree"

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"weight_decay": self.weight_decay}

    def update(self, grads: Grads, state: State, params: Params) -> tuple[Grads, State]:
        given, flags = self._select(grads, params)
        chosen = flattening.unflatten(params, iter([g if flag else None for g, flag in zip(given, flags, strict=True)]))
        if not all([flag or g is None or is_dense(g) for g, flag in zip(given, flags, strict=True)]):  # noqa: C419
            require_dense(self, grads)
        new, state = super().update(chosen, state, params)
        after = zip(given, flags, flattening.flatten_together(new)[0], strict=True)
        return flattening.unflatten(params, iter([y if flag or g is None else without_graph(g) for g, flag, y in after])), state

    def _select(self, grads: Tree, params: Params) -> tuple[list[Any], list[bool]]:
        """Return the leaves of the gradients, and whether the mask selects each of them."""
        try:
            flags = self._flags.flags(self, self.mask, params)
            return flattening.flatten_together(params, grads)[1], flags
        except ValueError as misfit:
            add_location(misfit, f"{self!r}, update: params against grads and mask")
            raise

    def formula(self, p: Tensor, g: Tensor, *, weight_decay: Any) -> tuple[Tensor]:
        return (g + weight_decay * p,)
