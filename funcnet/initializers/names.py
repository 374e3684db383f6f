"""Initializers by name, and the draws of a layer's params."""

import math
from typing import Any

from torch import Tensor

from funcnet import random
from funcnet.errors import describe, value_error
from funcnet.explanations import fits
from funcnet.initializers.elementary import Fans, Initializer, Normal, Ones, Shape, TruncatedNormal, Uniform, Zeros
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
from funcnet.initializers.structured import DeltaOrthogonal, Dirac, Eye
from funcnet.random.keys import Key, count_of

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
    "eye": Eye(),
    "dirac": Dirac(),
    "delta_orthogonal": DeltaOrthogonal(),
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
    draw = _named("initialize", initializer)
    _require_memory(rng, shape)
    return draw(rng, shape)


def _named(who: str, initializer: str | Initializer) -> Initializer:
    """Return an initializer, which may be given by its name."""
    found = NAMES.get(initializer) if isinstance(initializer, str) else initializer
    if not isinstance(found, Initializer):
        raise value_error(who, f"the initializer must be one or a name of one, {', '.join(NAMES)}", repr(initializer))
    return found


def _require_memory(rng: Key | int, shape: Shape) -> None:
    count_of(shape, "initialize")
    if not fits(rng, shape):
        raise value_error("initialize", "a tensor must fit in memory", f"the shape {tuple(shape)}")


def weight_and_bias(
    rng: Key | int, shapes: dict[str, Shape], initializer: str | Initializer, fans_of_weight: Fans | None = None
) -> dict[str, Tensor]:
    """Draw a weight by ``initializer``, from the key ``rng``, and a bias where ``shapes`` has one.

    ``fans_of_weight`` are those of a weight that has not the axes (out, in, *kernel). The bias is zeros. With ``"torch"`` the
    weight is scaled by its shape only, and the bias uniform in ±1/√fan_in, as in ``torch.nn``.

    Raises   ``ValueError`` for shapes without one of the weight, and for a tensor that main memory cannot hold.
    """
    rng = random.as_key(rng)
    if not isinstance(shapes, dict) or "weight" not in shapes:
        raise value_error("weight_and_bias", "shapes must be a dict with that of the weight", describe(shapes))
    draw, shape = _named("weight_and_bias", initializer), shapes["weight"]
    key = random.fold_in(rng, 0)
    _require_memory(key, shape)
    fans_of_weight = None if initializer == "torch" else fans_of_weight
    drawn = {"weight": draw(key, shape) if fans_of_weight is None else draw.for_fans(key, shape, fans_of_weight)}
    if "bias" in shapes:
        bound = 1 / math.sqrt(fans(shape)[0]) if initializer == "torch" else 0.0
        bias = Uniform(-bound, bound) if bound else Zeros()
        drawn["bias"] = bias(random.fold_in(rng, 1), shapes["bias"])
    return drawn
