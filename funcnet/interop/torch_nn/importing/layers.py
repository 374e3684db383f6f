"""The converters of torch.nn's layers: importing this module registers the converters of every family."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from funcnet.interop.torch_nn.importing import (
    activation,
    attention,
    conv,
    distances,
    embedding,
    exported,
    linear,
    noise,
    norm,
    parametrized,
    pooling,
    recurrent,
    refused,
    shape,
    transformers,
)
from funcnet.interop.torch_nn.importing.functions import (
    activations,
    arithmetic,
    choosing,
    creating,
    indexing,
    joining,
    moving,
    of_torchvision,
    passing,
    random,
    reducing,
    shapes,
    with_weights,
)
from funcnet.interop.torch_nn.importing.functions import pooling as pooling_functions
from funcnet.interop.torch_nn.importing.registry import CALLS, LAYERS, LAYERS_BY_NAME, Convert, Converted

FAMILIES = (
    *(activation, attention, conv, distances, embedding, exported, linear, noise),
    *(norm, pooling, recurrent, refused, shape, transformers),
    *(
        activations,
        arithmetic,
        choosing,
        creating,
        indexing,
        joining,
        moving,
        of_torchvision,
        passing,
        pooling_functions,
        random,
        reducing,
    ),
    *(shapes, with_weights),
)
"""The modules with converters, which are imported to fill the tables of ``registry``."""


def class_of(module: nn.Module) -> type[nn.Module] | None:
    """Return the class in the tables whose forward a module uses: its own class, or a base class whose forward it inherits."""
    kind = parametrized.plain_class(module)
    forward = kind.forward
    return next((one for one in kind.__mro__ if one in LAYERS and getattr(one, "forward", None) is forward), None)


def converter_of(module: nn.Module) -> Callable[[Any, Convert], Converted] | None:
    """Return the converter of a module, which can be parametrized, or ``None`` if there is none for its class."""
    kind = class_of(module)
    if kind is None:
        return LAYERS_BY_NAME.get(f"{type(module).__module__}.{type(module).__qualname__}")
    return parametrized.parametrized if parametrize.is_parametrized(module) else LAYERS[kind]


def call_of(module: nn.Module) -> Callable[..., Any] | None:
    """Return the function for calls of a module in traced code, or ``None`` if the module maps one tensor to one."""
    return CALLS.get(class_of(module) or nn.Module)
