"""Initializers by name, and the initial params of layers."""

import math
from typing import Any

from torch import Tensor

from funcnet import random
from funcnet.errors import describe, value_error
from funcnet.explanations import fits
from funcnet.initializers.elementary import Fans, Initializer, Normal, Ones, Shape, TruncatedNormal, Uniform, Zeros
from funcnet.initializers.gains import fans
from funcnet.initializers.scaled import (
    KaimingNormal,
    KaimingUniform,
    LecunNormal,
    LecunUniform,
    Orthogonal,
    XavierNormal,
    XavierUniform,
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
"""The initializers that layers accept by name; ``"torch"`` draws as ``torch.nn.Linear`` and torch's convolutions do."""


def known(value: Any, attribute: Any, got: Any) -> None:
    """Validate a field that must hold an initializer or the name of one, for ``field(validator=known)``.

    Args:
        value: The object with the field.
        attribute: The field.
        got: The value of the field.

    Raises:
        ValueError: If ``got`` is neither an initializer nor a key of ``NAMES``.
    """
    if not isinstance(got, Initializer) and not (isinstance(got, str) and got in NAMES):
        raise value_error(
            type(value).__name__, f"{attribute.name} must be an initializer or one of {', '.join(NAMES)}", repr(got)
        )


def initialize(rng: Key | int, shape: Shape, initializer: str | Initializer) -> Tensor:
    """Draw a tensor with an initializer or the name of one.

    Args:
        rng: A key or an int seed.
        shape: The shape of the tensor.
        initializer: An initializer, or a key of ``NAMES``.

    Returns:
        A tensor of this shape, in torch's default dtype.

    Raises:
        ValueError: If the name is unknown, or main memory cannot hold the tensor.

    >>> initialize(0, (2, 2), "eye")
    tensor([[1., 0.],
            [0., 1.]])
    """
    draw = _look_up("initialize", initializer)
    _require_memory(rng, shape)
    return draw(rng, shape)


def _look_up(who: str, initializer: str | Initializer) -> Initializer:
    """Return an initializer, which can be given by name."""
    found = NAMES.get(initializer) if isinstance(initializer, str) else initializer
    if not isinstance(found, Initializer):
        raise value_error(who, f"initializer must be an initializer or one of {', '.join(NAMES)}", repr(initializer))
    return found


def _require_memory(rng: Key | int, shape: Shape) -> None:
    count_of(shape, "initialize")
    if not fits(rng, shape):
        raise value_error("initialize", "a tensor must fit in memory", f"the shape {tuple(shape)}")


def weight_and_bias(
    rng: Key | int, shapes: dict[str, Shape], initializer: str | Initializer, fans_of_weight: Fans | None = None
) -> dict[str, Tensor]:
    """Draw the weight and, if ``shapes`` has one, the bias of a layer.

        weight from ``initializer``        bias = 0, or uniform in ±1 / √fan_in with ``"torch"``, as in ``torch.nn``

    Args:
        rng: A key or an int seed.
        shapes: The shapes of ``weight`` and, optionally, ``bias`` by name.
        initializer: An initializer, or a key of ``NAMES``.
        fans_of_weight: The fans of a weight whose axes are not (out, in, *kernel); ignored with ``"torch"``, as in ``torch.nn``.

    Returns:
        A dict with the tensors ``weight`` and ``bias``.

    Raises:
        ValueError: If ``shapes`` has no weight, or main memory cannot hold the tensors.

    >>> weight_and_bias(0, {"weight": (1, 2), "bias": (1,)}, "ones")
    {'weight': tensor([[1., 1.]]), 'bias': tensor([0.])}
    """
    rng = random.as_key(rng)
    if not isinstance(shapes, dict) or "weight" not in shapes:
        raise value_error("weight_and_bias", "shapes must be a dict with the shape of the weight", describe(shapes))
    draw, shape = _look_up("weight_and_bias", initializer), shapes["weight"]
    key = random.fold_in(rng, 0)
    _require_memory(key, shape)
    fans_of_weight = None if initializer == "torch" else fans_of_weight
    drawn = {"weight": draw(key, shape) if fans_of_weight is None else draw.for_fans(key, shape, fans_of_weight)}
    if "bias" in shapes:
        bound = 1 / math.sqrt(fans(shape)[0]) if initializer == "torch" else 0.0
        bias = Uniform(-bound, bound) if bound else Zeros()
        drawn["bias"] = bias(random.fold_in(rng, 1), shapes["bias"])
    return drawn
