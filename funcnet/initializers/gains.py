"""Fans of weights, and gains of nonlinearities.

A weight of shape (out, in, *kernel) has fan_in = in · Π kernel and fan_out = out · Π kernel.
"""

import math

from funcnet.errors import is_number, is_whole_tuple, value_error
from funcnet.initializers.elementary import Shape


def fans(shape: Shape) -> tuple[int, int]:
    """Return the fans of a weight.

        fan_in = in · Π kernel        fan_out = out · Π kernel

    Args:
        shape: The shape (out, in, *kernel).

    Returns:
        The pair (fan_in, fan_out).

    Raises:
        ValueError: If there are fewer than two axes.

    >>> fans((8, 3, 5, 5))
    (75, 200)
    """
    if not is_whole_tuple(shape, 0) or len(shape) < 2:
        raise value_error("fans", "a weight must have at least 2 axes, (out, in, *kernel)", f"shape {shape!r}")
    kernel = math.prod(shape[2:])
    return shape[1] * kernel, shape[0] * kernel


_UNIT = ["linear", *(f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)), "sigmoid"]
GAINS = {**dict.fromkeys(_UNIT, 1.0), "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 0.75}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the gain for weights before a nonlinearity, as ``torch.nn.init.calculate_gain`` does.

        gain = √2 for relu,  √(2 / (1 + a²)) for leaky_relu,  5 / 3 for tanh,  0.75 for selu,  else 1

    Args:
        nonlinearity: ``"relu"``, ``"leaky_relu"``, ``"tanh"``, ``"selu"``, ``"sigmoid"``, ``"linear"`` or the name of a
            convolution.
        param: The negative slope a of leaky_relu, 0.01 by default; ignored for others.

    Returns:
        The gain.

    Raises:
        ValueError: If the nonlinearity is unknown, or ``param`` is not a finite number.

    >>> calculate_gain("tanh")
    1.6666666666666667
    """
    if param is not None and not is_number(param):
        raise value_error("calculate_gain", "param must be a finite number, or None", repr(param))
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else float(param)
        return math.sqrt(2 / (1 + slope * slope))  # slope**2 would raise on overflow
    if nonlinearity not in GAINS:
        raise value_error(
            "calculate_gain", f"nonlinearity must be one of {', '.join([*GAINS, 'leaky_relu'])}", repr(nonlinearity)
        )
    return GAINS[nonlinearity]
