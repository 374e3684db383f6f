"""Converters of modules, functions and methods, in tables that the files of this package fill."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from funcnet.contract import Layer, Params

F = TypeVar("F", bound=Callable[..., Any])
Converted = tuple[Layer, Params]
Convert = Callable[[nn.Module, str], Converted]
"""Function that converts an inner module; its name becomes part of the path in errors."""

LAYERS: dict[type, Callable[[Any, Convert], Converted]] = {}
"""For each class of modules: ``(module, convert) -> (layer, params)``, with funcnet's conventions for x and y."""

LAYERS_BY_NAME: dict[str, Callable[[Any, Convert], Converted]] = {}
"""The same for classes of optional packages, by dotted name."""

CALLS: dict[type, Callable[..., Any]] = {}
"""For modules whose arguments or results differ from those of the layer: ``(module, layer, params, *args, **kwargs) -> Node``."""

FUNCTIONS: dict[Any, Callable[..., Any]] = {}
"""For each function, and for each method by name: a function with the same arguments that returns a ``Node`` or a value."""


def layer(*classes: type) -> Callable[[F], F]:
    """Register ``(module) -> (layer, params)``."""

    def register(convert: F) -> F:
        LAYERS.update(dict.fromkeys(classes, lambda module, _: convert(module)))
        return convert

    return register


def layer_named(name: str) -> Callable[[F], F]:
    """Register ``(module) -> (layer, params)`` for a class by its dotted name."""

    def register(convert: F) -> F:
        LAYERS_BY_NAME[name] = lambda module, _: convert(module)
        return convert

    return register


def container(*classes: type) -> Callable[[F], F]:
    """Register ``(module, convert) -> (layer, params)``, which converts inner modules with ``convert(child, name)``."""

    def register(convert: F) -> F:
        LAYERS.update(dict.fromkeys(classes, convert))
        return convert

    return register


def call(*classes: type) -> Callable[[F], F]:
    """Register the function for calls of modules in traced code: ``(module, layer, params, *args, **kwargs) -> Node``."""

    def register(convert: F) -> F:
        CALLS.update(dict.fromkeys(classes, convert))
        return convert

    return register


def function(*targets: Any) -> Callable[[F], F]:
    """Register a function with torch's arguments, for functions and for names of methods."""

    def register(convert: F) -> F:
        FUNCTIONS.update(dict.fromkeys(targets, convert))
        return convert

    return register
