"""The converters of torch.nn's layers: importing this module enters those of every family in the table."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from funcnet.interop.torch_nn.importing import (
    activation,
    conv,
    distances,
    embedding,
    linear,
    noise,
    norm,
    parametrized,
    pooling,
    refused,
    shape,
)
from funcnet.interop.torch_nn.importing.registry import CALLS, LAYERS, Convert, Converted

FAMILIES = (activation, conv, distances, embedding, linear, noise, norm, pooling, refused, shape)
"""The modules with converters, which fill the tables of ``registry``."""


def converter_of(module: nn.Module) -> Callable[[Any, Convert], Converted] | None:
    """Return the converter of a module; ``None`` if its class has none, whether or not a tensor of it is parametrized."""
    if parametrized.plain_class(module) not in LAYERS:
        return None
    return parametrized.parametrized if parametrize.is_parametrized(module) else LAYERS[type(module)]


def call_of(module: nn.Module) -> Callable[..., Any] | None:
    """Return how traced code calls a module; ``None`` if it takes one tensor and returns one."""
    return CALLS.get(parametrized.plain_class(module))
