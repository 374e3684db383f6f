"""The decorator of laws: it formats their errors, and sets the dtype in which a layer computes."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch

from funcnet.contract import Layer
from funcnet.errors import describe, value_error
from funcnet.testing.comparison import shown
from funcnet.value import parts
from funcnet.walking import map_layers

Law = Callable[..., None]

FLOAT64 = torch.float64


def law(number: int, name: str) -> Callable[[Law], Law]:
    """Turn a function into a law: its errors start with the number and name of the law."""

    def register(body: Law) -> Law:
        signature = inspect.signature(body)

        @functools.wraps(body)
        def law(*arguments: Any, **named: Any) -> None:
            given = signature.bind(*arguments, **named).arguments
            dtype = given.get("dtype", FLOAT64)
            require_layer(body.__name__, given["layer"])
            given["layer"] = layer = given["layer"] if name == "value" else _precise(given["layer"], dtype)
            title = f"law {number}, {name}" + f" in {dtype}".replace("torch.", "") * (dtype is not FLOAT64)
            try:
                body(**given)
            except AssertionError as error:
                raise AssertionError(f"{title}: {error}") from error
            except Exception as error:
                said = str(error).partition("\n\n")[0]  # errors of the compiler are a page long; the cause keeps all of it
                raise AssertionError(f"{title}: {type(error).__name__}: {said}; in {shown(layer)}") from error

        return law

    return register


def require_layer(who: str, layer: Any) -> None:
    """Raise ``ValueError`` unless ``layer`` is a layer."""
    if not isinstance(layer, Layer):
        raise value_error(who, "layer must be a layer (a value with init, apply and vjp)", describe(layer))


def _precise(layer: Layer, dtype: torch.dtype) -> Layer:
    """Return the layer, with every ``cast`` in it raised to at least the precision of ``dtype``."""
    casts = [one for one in parts(layer) if isinstance(one, Layer) and type(one).in_precision is not Layer.in_precision]
    return map_layers(lambda one: one.in_precision(dtype), layer) if casts else layer
