"""Converters of layers, in a table that the files of this package fill, and their helpers."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import attrs
import torch
from torch import Tensor, nn

from funcnet.checks import require_sizes
from funcnet.contract import Layer, Params
from funcnet.errors import describe, value_error

F = TypeVar("F", bound=Callable[..., Any])
Convert = Callable[[Layer, Params], nn.Module]
"""Convert an inner layer, given its params."""

MODULES: dict[type, Callable[[Any, Params, Convert], nn.Module | None]] = {}
"""For each class of layers: ``(layer, params, convert) -> module``, or ``None`` if no torch.nn module computes the same."""

_UNUSED_BY_APPLY = ("initializer", "init")


def native(*classes: type) -> Callable[[F], F]:
    """Register ``(layer, params) -> module``, which can return ``None``."""

    def register(convert: F) -> F:
        MODULES.update(dict.fromkeys(classes, lambda layer, params, _: convert(layer, params)))
        return convert

    return register


def container(*classes: type) -> Callable[[F], F]:
    """Register ``(layer, params, convert) -> module``, which converts inner layers with ``convert(child, params)``."""

    def register(convert: F) -> F:
        MODULES.update(dict.fromkeys(classes, convert))
        return convert

    return register


def same_names(layers: Iterable[type]) -> None:
    """Register layers whose namesakes in torch.nn have the same arguments, params and values."""
    for one in layers:
        native(one)(_by_name(getattr(nn, one.__name__)))


def _by_name(kind: Any) -> Callable[[Layer, Params], nn.Module | None]:
    return lambda layer, params: namesake(kind, layer, params)


def namesake(kind: Any, layer: Any, params: Params, /, **more: Any) -> Any:
    """Return a module with the layer's fields as arguments, or ``None`` if the module lacks an option.

    Args:
        kind: The class of the module.
        layer: The layer.
        params: Its params, which are copied.
        more: Other arguments of the module.
    """
    taken = inspect.signature(kind).parameters
    fields = [one for one in attrs.fields(type(layer)) if one.init and one.alias not in _UNUSED_BY_APPLY]
    lacking = [one for one in fields if one.alias not in taken and "kwargs" not in taken]
    if any(getattr(layer, one.name) != one.default for one in lacking):
        return None
    arguments = {one.alias: getattr(layer, one.name) for one in fields if one not in lacking}
    return filled(kind, layer, params, **arguments, **more)


def filled(kind: Any, layer: Layer, params: Params, **arguments: Any) -> Any:
    """Return a module with copies of the params, without initializing weights."""
    require_sizes(layer)
    with torch.device("meta"):
        module = kind(**arguments)
    return fill(module, layer, params)


def fill(module: Any, layer: Layer, params: Any) -> Any:
    """Set copies of the params on a module by name, as parameters or buffers like its own."""
    require_params(layer, module, params)
    for name, leaf in params.items():
        copied = leaf.detach().clone()
        setattr(module, name, nn.Parameter(copied) if name in module._parameters else copied)
    return module


def require_params(layer: Layer, module: nn.Module, params: Any) -> None:
    """Raise ``ValueError`` unless params have the names and shapes of the module's parameters and buffers."""
    shapes = {name: tuple(leaf.shape) for name, leaf in module.state_dict().items()}
    given = {name: _shape(leaf) for name, leaf in params.items()} if isinstance(params, dict) else None
    if given != shapes or given is None:
        wanted = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        rule = f"params must be a dict of {wanted}" if shapes else "params must be an empty dict"
        raise value_error(layer, rule, describe(params) if given is None else given)
    for name, leaf in params.items():
        if name in module._parameters and not leaf.is_floating_point():
            raise value_error(layer, f"{name} must be a floating tensor", leaf)


def _shape(leaf: Any) -> Any:
    return tuple(leaf.shape) if isinstance(leaf, Tensor) else describe(leaf)
