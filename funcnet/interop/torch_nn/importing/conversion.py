"""Helpers of the converters: a module's tensors and options, and the layer built from them.

Most converters map attributes of the module to arguments of the layer: ``same(nn.ELU, ELU, "alpha")``.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import nn

from funcnet import tree
from funcnet.contract import Layer, Params
from funcnet.interop.torch_nn.importing.registry import Converted, layer
from funcnet.interop.torch_nn.importing.values import UnsupportedError

E = TypeVar("E")
L = TypeVar("L", bound=Layer)


def entry_of(module: nn.Module, table: Mapping[Any, E]) -> E:
    """Return the entry of a table for the class of a module, or for its nearest base class."""
    return next(table[one] for one in type(module).__mro__ if one in table)


def tensors(module: nn.Module) -> Params:
    """Return the module's ``state_dict`` as a tree of detached tensors that share its memory."""
    return tree.from_names(dict(module.state_dict())) if module.state_dict() else {}


def compact(option: Any) -> Any:
    """Return an option in its shortest form: (3, 3) becomes 3, and a list becomes a tuple."""
    if not isinstance(option, (list, tuple)):
        return option
    return option[0] if len({*option}) == 1 else tuple(option)


def made(target: type[L], module: nn.Module, **options: Any) -> tuple[L, Params]:
    """Return ``target(**options)`` and the module's tensors; raise ``UnsupportedError`` if the layer does not support them."""
    try:
        converted = target(**options)
    except ValueError as error:
        raise UnsupportedError(str(error)) from error
    params = tensors(module)
    require_shapes(converted, params)
    return converted, params


def require_shapes(converted: Layer, params: Params) -> None:
    """Raise ``UnsupportedError`` unless params have the names and shapes of the layer's."""
    wanted, found = converted.param_shapes() or {}, {name: tuple(leaf.shape) for name, leaf in tree.names(params).items()}
    differ = sorted(name for name in {**wanted, **found} if wanted.get(name) != found.get(name))
    if differ:
        name, who = differ[0], type(converted).__name__
        rule = f"have the shape {wanted[name]}" if name in wanted else "be missing"
        raise UnsupportedError(f"{name} must {rule} for {who}, got {found.get(name, 'none')}")


def same(source: type[nn.Module], target: type[Layer], *names: str, **renamed: str) -> None:
    """Register a converter for a module whose attributes are the layer's arguments.

    Args:
        source: The class of the module.
        target: The class of the layer.
        names: Attributes with the names of arguments.
        renamed: Attributes with other names, by argument.
    """
    arguments = {**dict.fromkeys(names), **renamed}
    pairs = [(ours, theirs or ours) for ours, theirs in arguments.items()]

    @layer(source)
    def convert(module: Any) -> Converted:
        return made(target, module, **{ours: compact(getattr(module, theirs)) for ours, theirs in pairs})


def require_default(module: nn.Module, why: str, **defaults: Any) -> None:
    """Raise ``UnsupportedError`` unless an option that the layer lacks has its default.

    Args:
        module: The module.
        why: The fixed behavior of the layer.
        defaults: The required values of the attributes.
    """
    for name, default in defaults.items():
        got = getattr(module, name)
        if got != default:
            raise UnsupportedError(f"{name}={got!r} has no counterpart: {why}")
