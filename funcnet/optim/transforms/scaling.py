"""Gradient transforms that multiply each element by a number, or replace it with its sign or momentum.

A transform in a ``chain`` keeps the sign of the gradient: the optimizer at the end subtracts. ``SGD(lr)`` makes the step p ← p -
η g, and turns blocks like these into an optimizer. AdamW, for example, is

    chain(ScaleByAdam(), AddDecayedWeights(0.01), SGD(lr=1e-3))

``ScaleByLearningRate`` is a rate inside a chain, before ``SGD(lr=1.0)``.
"""

from typing import Any

import attrs
from torch import Tensor

from funcnet.errors import flag, number
from funcnet.optim.formulas import sign
from funcnet.optim.moments import MomentTransform
from funcnet.optim.rates import Rate, rate_field
from funcnet.value import frozen


@frozen
class ScaleBy(MomentTransform):
    """Multiply gradients by a number: ``optax.scale``; not to be confused with the layer ``Scale``.

        g ← c g

    Args:
        factor: c, positive or negative.

    State:
        step: Number of updates made.

    Raises:
        ValueError: If ``factor`` is not a finite number.

    References:
        ``optax.scale``.

    >>> import torch
    >>> transform = ScaleBy(2.0)
    >>> transform.update({"w": torch.ones(2)}, transform.init({}), {})[0]
    {'w': tensor([2., 2.])}
    """

    acts_on = "elements"
    moments = ()

    factor: float = attrs.field(validator=number())

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"factor": self.factor}

    def formula(self, _: Tensor, g: Tensor, *, factor: Any) -> tuple[Tensor]:
        return (g * factor,)


@frozen
class ScaleBySchedule(MomentTransform):
    """Multiply gradients by a schedule: ``optax.scale_by_schedule``.

        g ← s(t) g

    Before an optimizer like ``SGD``, whose step is proportional to the gradient, it multiplies the learning rate: this separates
    the base rate from the shape of the schedule.

    Args:
        schedule: s, a function of the number of updates made before; or a number or a 0-d tensor.

    State:
        step: t, the number of updates made.

    Raises:
        ValueError: If ``schedule`` is none of these; from ``update`` if it returns a negative number.

    References:
        ``optax.scale_by_schedule``.

    >>> from funcnet.optim.chaining import chain
    >>> from funcnet.optim.sgd import SGD
    >>> opt = chain(ScaleBySchedule(lambda t: 1 / (1 + t)), SGD(lr=0.1))
    >>> opt.rates(opt.init({}))["scale"]
    1.0
    """

    acts_on = "elements"
    moments = ()

    schedule: Rate = rate_field()

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"scale": self.schedule}

    def formula(self, _: Tensor, g: Tensor, *, scale: Any) -> tuple[Tensor]:
        return (g * scale,)


@frozen
class ScaleByLearningRate(MomentTransform):
    """Multiply gradients by a learning rate, inside a chain that ends with ``SGD(lr=1.0)``: ``optax.scale_by_learning_rate``.

        g ← η g

    Unlike in optax, it keeps the sign, since the optimizer at the end subtracts.

    Args:
        lr: η, a number, a schedule of the number of updates made, or a 0-d tensor.

    State:
        step: Number of updates made.

    Raises:
        ValueError: If ``lr`` is negative or not finite.

    References:
        ``optax.scale_by_learning_rate``.

    >>> import torch
    >>> transform = ScaleByLearningRate(0.1)
    >>> transform.update({"w": torch.ones(2)}, transform.init({}), {})[0]
    {'w': tensor([0.1000, 0.1000])}
    """

    acts_on = "elements"
    moments = ()

    lr: Rate = rate_field()

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"lr": self.lr}

    def formula(self, _: Tensor, g: Tensor, *, lr: Any) -> tuple[Tensor]:
        return (g * lr,)


@frozen
class ScaleBySign(MomentTransform):
    """Replace gradients with their signs: ``optax.scale_by_sign``.

        g ← sign(g)

    State:
        step: Number of updates made.

    References:
        Bernstein, Wang, Azizzadenesheli & Anandkumar 2018, "signSGD", algorithm 1.

    >>> import torch
    >>> transform = ScaleBySign()
    >>> transform.update({"w": torch.tensor([3.0, -0.1])}, transform.init({}), {})[0]
    {'w': tensor([ 1., -1.])}
    """

    acts_on = "elements"
    moments = ()

    def formula(self, _: Tensor, g: Tensor) -> tuple[Tensor]:
        return (sign(g),)


@frozen
class Trace(MomentTransform):
    """Accumulate gradients into a momentum: ``optax.trace``.

        b ← g + μ b
        g ← b,      nesterov: g ← g + μ b

    ``chain(Trace(0.9), SGD(lr))`` is ``SGD(lr, momentum=0.9)``.

    Args:
        decay: μ, the decay rate of b: a number, a schedule of the number of updates made, or a 0-d tensor.
        nesterov: Whether to look ahead along the momentum.

    State:
        step: Number of updates made.
        momentum_buffer: b, like params.

    Raises:
        ValueError: If ``decay`` is negative or not finite.

    References:
        Sutskever, Martens, Dahl & Hinton 2013, "On the importance of initialization and momentum in deep learning".

    >>> Trace(0.9).init({"w": None})["momentum_buffer"]
    {'w': None}
    """

    acts_on = "elements"
    moments = ("momentum_buffer",)

    decay: Rate = rate_field(0.9)
    nesterov: bool = attrs.field(default=False, validator=flag)

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"decay": self.decay}

    def formula(self, _: Tensor, g: Tensor, b: Tensor, *, decay: Any) -> tuple[Tensor, Tensor]:
        b = g + decay * b
        return (g + decay * b if self.nesterov else b), b
