"""Initializers by name, and the draws of a layer's params."""

import math
from typing import Any

from torch import Tensor

from funcnet import random
from funcnet.errors import value_error
from funcnet.explanations import fits
from funcnet.initializers.elementary import Initializer, Normal, Ones, Shape, TruncatedNormal, Uniform, Zeros
from funcnet.initializers.scaled import (
    KaimingNormal,
    KaimingUniform,
    LecunNormal,
    LecunUniform,
    Orthogonal,
    XavierNormal,
    XavierUniform,
    fans,
)
from funcnet.random import Key

NAMES: dict[str, Initializer] = {
    "zeros": Zeros(),
    "ones": Ones(),
    "uniform": Uniform(),
    "normal": Normal(),
    "truncated_normal": TruncatedNormal(),
    "xavier_normal": XavierNormal(),
    "xavier_uniform": XavierUniform(),
    "glorot_normal": XavierNormal(),
    "glorot_uniform": XavierUniform(),
    "kaiming_normal": KaimingNormal(),
    "kaiming_uniform": KaimingUniform(),
    "he_normal": KaimingNormal(),
    "he_uniform": KaimingUniform(),
    "lecun_normal": LecunNormal(),
    "lecun_uniform": LecunUniform(),
    "orthogonal": Orthogonal(),
    "torch": KaimingUniform(a=math.sqrt(5)),
}
"""The initializers that a layer takes by name; ``"torch"`` is what ``torch.nn.Linear`` and its convolutions draw."""


def known(value: Any, attribute: Any, got: Any) -> None:
    """Validate a field: what it ``got`` must be an initializer or the name of one.

    It has the form of attrs' validators, called with the ``value`` that the field, ``attribute``, is of.

    Raises   ``ValueError`` for anything else.
    """
    if not isinstance(got, Initializer) and not (isinstance(got, str) and got in NAMES):
        raise value_error(
            type(value).__name__, f"{attribute.name} must be an initializer or one of {', '.join(NAMES)}", repr(got)
        )


def initialize(rng: Key | int, shape: Shape, initializer: str | Initializer) -> Tensor:
    """Draw a tensor of this ``shape`` by an ``initializer`` or the name of one, from the key ``rng``.

    Raises   ``ValueError`` for a tensor that main memory cannot hold.
    """
    if not fits(rng, shape):
        raise value_error("initialize", "a tensor must fit in memory", f"the shape {tuple(shape)}")
    return (NAMES[initializer] if isinstance(initializer, str) else initializer)(rng, shape)


def weight_and_bias(rng: Key | int, shapes: dict[str, Shape], initializer: str | Initializer) -> dict[str, Tensor]:
    """Draw a weight by ``initializer``, from the key ``rng``, and a bias where ``shapes`` has one.

    The bias is zeros, or with ``"torch"`` uniform in ±1/√fan_in as in ``torch.nn``.
    """
    rng = random.as_key(rng)
    draw = NAMES[initializer] if isinstance(initializer, str) else initializer
    bound = 1 / math.sqrt(fans(shapes["weight"])[0]) if initializer == "torch" else 0.0
    first = {"weight": draw, "bias": Uniform(-bound, bound) if bound else Zeros()}
    return {name: first[name](random.fold_in(rng, i), shape) for i, (name, shape) in enumerate(shapes.items())}
