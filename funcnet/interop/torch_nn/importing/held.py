"""Modules and params that a forward does not use: they are kept so that params have all keys of the state dict."""

from collections.abc import Callable

from torch import Tensor, nn

from funcnet.interop.torch_nn.importing.building import Builder
from funcnet.interop.torch_nn.importing.interpretation import parameter_node
from funcnet.interop.torch_nn.importing.registry import Converted
from funcnet.interop.torch_nn.importing.values import UnsupportedError

Convert = Callable[[nn.Module, str], Converted]


def hold_the_rest(module: nn.Module, builder: Builder, convert: Convert) -> None:
    """Add the modules and params that no node has yet; a tensor with two names is added under the first."""
    rest = _missing(module, builder)
    for name, child in module._modules.items():
        own = [path for path in rest if path.startswith(f"{name}.")]
        if child is not None and own and len(own) == len(_first_names(child)):
            _hold_child(child, name, own, rest, builder, convert)
            rest = _missing(module, builder)
    for path, tensor in rest.items():
        _hold_tensor(path, tensor, builder)


def _hold_child(child: nn.Module, name: str, own: list[str], rest: dict[str, Tensor], builder: Builder, convert: Convert) -> None:
    """Add a module as a layer, or tensor by tensor if its code cannot be converted."""
    try:
        builder.hold(name, *convert(child, name))
    except UnsupportedError:
        for path in own:
            _hold_tensor(path, rest[path], builder)


def _hold_tensor(path: str, tensor: Tensor, builder: Builder) -> None:
    node = parameter_node(tensor)
    builder.hold(path, node.layer, node.params)


def _missing(module: nn.Module, builder: Builder) -> dict[str, Tensor]:
    names = [*builder.nodes]
    state = _first_names(module)
    return {path: one for path, one in state.items() if not any(path == name or path.startswith(f"{name}.") for name in names)}


def _first_names(module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of the state dict, each under its first name."""
    found: dict[int, str] = {}
    state = module.state_dict(keep_vars=True)
    for path, tensor in state.items():
        found.setdefault(id(tensor), path)
    return {path: state[path] for path in found.values()}
