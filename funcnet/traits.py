"""Traits: what a layer declares about itself, as class attributes, properties and hooks, each with a default.

Combinators, optimizers and error messages read them; a layer overrides defaults that are wrong for it.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from funcnet.checks import sizes_complaint
from funcnet.random.keys import Key
from funcnet.value import Value


class Traits(Value):
    """The base of ``Layer``: its class attributes, properties and hooks with their defaults."""

    __slots__ = ()

    non_trainable: ClassVar[tuple[str, ...]] = ()
    """Names of params whose gradient is ``None`` although y depends on them, such as running statistics; dotted if nested."""

    undecayed: ClassVar[tuple[str, ...]] = ()
    """Names of params that weight decay skips by default, such as the scale of a norm. Biases are skipped by their name."""

    ensemble_mode: ClassVar[str] = "vmap"
    """How ``ensemble`` runs its members: ``"vmap"``; ``"loop"`` or ``"loop if large"``, if vmap has only slow kernels; or
    ``"elementwise"``, for a layer without params that treats all elements alike."""

    weight_output_axis: ClassVar[int | None] = None
    """The axis of ``weight`` that belongs to the channels of y, for a layer linear in x; ``None`` for other layers."""

    channelwise_affine: ClassVar[bool] = False
    """Whether each channel of y is that of x, scaled and shifted using its running statistics, ``weight`` and ``bias``."""

    halves_share_work: ClassVar[bool] = False
    """Whether ``grads`` and ``input_grad`` each repeat much of ``vjp``, as in attention: pipelines then call ``vjp``."""

    @property
    def stochastic(self) -> bool:
        """Whether ``apply`` needs a key, and raises without one. Other layers ignore a key."""
        return False

    @property
    def batch_dependent(self) -> bool:
        """Whether a row of the output depends on other rows of the batch, as with batch statistics."""
        return False

    @property
    def output_dtype(self) -> torch.dtype | None:
        """The dtype of a floating y, if the layer changes it, as ``Cast`` does; ``None`` if y has the dtype of params and x."""
        return None

    @property
    def surrogate(self) -> bool:
        """Whether ``vjp`` follows a rule other than the derivative of ``apply``, as in straight-through estimators."""
        return False

    def declared_vjp(self, params: Any, x: Any, gy: Any, rng: Key | int | None = None) -> tuple[Any, Any] | None:
        """Return the gradients that a surrogate declares, as a formula of x: law 1 compares ``vjp`` with them.

        Args:
            params: Parameters, as for ``apply``.
            x: Input.
            gy: Gradient of the output.
            rng: Key, as for ``apply``.

        Returns:
            The pair (gparams, gx); ``None``, the default, to declare no formula: law 1 then takes the result of ``vjp``.
        """
        return None

    @property
    def inferred_sizes(self) -> Mapping[str, int | tuple[int, ...]]:
        """The fields that can be ``None`` until ``infer_sizes``, each with the axis or axes of x that it is the size of.

        If x has several tensors, the first one counts.
        """
        return {}

    def complaint(self, x: Any) -> str | None:
        """Return the rule that x breaks: a hook for error messages, called only after ``apply`` has failed.

        By default x must be a floating tensor whose axes in ``inferred_sizes`` have their sizes.

        Args:
            x: Input that ``apply`` got.

        Returns:
            The rule as text; ``None`` if x breaks none.
        """
        return sizes_complaint(self, x) if self.inferred_sizes else None
