"""Interpretation: convert a recorded forward to the nodes of a graph, one by one."""

import math
from collections.abc import Callable
from operator import attrgetter
from types import MethodDescriptorType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from funcnet.combinators.freezing import freeze
from funcnet.interop.torch_nn.importing import shapes
from funcnet.interop.torch_nn.importing.building import Builder
from funcnet.interop.torch_nn.importing.registry import FUNCTIONS
from funcnet.interop.torch_nn.importing.values import Dtype, InlineError, Node, Ref, Unknown, UnsupportedError, settled
from funcnet.layers.shape.sources import ConstantTensor, Parameter

CallModule = Callable[[nn.Module, str, tuple[Any, ...], dict[str, Any]], Any]
"""Function that adds a call of the module at a path, and returns the value."""

_ASSERTIONS = {"_assert", "_assert_is_none"}
"""The names of torch's assertions, which compute nothing."""


def interpret(graph: fx.Graph, module: nn.Module, inputs: dict[str, Ref], builder: Builder, call: CallModule) -> Any:
    """Add the nodes of a recorded forward to a builder, and return the value of its output."""
    values: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
        if node.op == "output":
            return args[0]
        if node.op == "placeholder":
            values[node] = inputs.get(node.target)
        elif node.op == "get_attr":
            values[node] = _kind_only(module, node) or _attribute(module, node.target, builder)
        elif node.op == "call_module":
            values[node] = call(module.get_submodule(node.target), node.target, tuple(args), dict(kwargs))
        else:
            values[node] = builder.bound(_computed(node, tuple(args), dict(kwargs)), node.name)
    raise UnsupportedError("its forward has no output")


def _computed(node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the value of a function or a method: a node, or a value known while tracing."""
    target = node.target
    if getattr(target, "__name__", "") in _ASSERTIONS:
        return None
    if isinstance(target, type) and issubclass(target, tuple) and hasattr(target, "_fields"):
        return target(*args, **kwargs)
    found = shapes.evaluate(target, (*args, *kwargs.values()) if target == "size" else args)
    if found is not shapes.MISSING:
        return found
    unknown = next((one for one in [*args, *kwargs.values()] if isinstance(one, Unknown)), None)
    if unknown is not None:
        raise UnsupportedError(unknown.reason)
    key = args[1] if target is getattr else target
    convert = FUNCTIONS.get(key) or FUNCTIONS.get(_qualified(key)) or _method_of_tensors(key)
    if convert is None:
        raise _without_layer(node, key)
    if target is getattr:
        return _converted(convert, node, key, args[:1], {})
    given = [one for one in [*args, *kwargs.values()] if isinstance(one, Dtype)]
    found = _converted(convert, node, key, *_without_dtypes(args, kwargs))
    return FUNCTIONS["type_as"](found, given[0].of) if given else found


def _without_layer(node: fx.Node, key: Any) -> UnsupportedError:
    """Return the error for a missing layer; for a field of a module's output, request tracing the module inline."""
    error = UnsupportedError(f"there is no layer for {_name_of(node, key)}")
    made = node.args[0] if node.target is getattr else None
    is_field = isinstance(made, fx.Node) and made.op == "call_module" and not hasattr(Tensor, key)
    return InlineError(str(made.target), error) if is_field and isinstance(made, fx.Node) else error


def _without_dtypes(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Remove the dtypes of tensors from the arguments; the result is converted to that dtype afterwards."""
    named = {name: one for name, one in kwargs.items() if not isinstance(one, Dtype)}
    return tuple([one for one in args if not isinstance(one, Dtype)]), named


def _converted(convert: Any, node: fx.Node, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return convert(*args, **kwargs)
    except UnsupportedError as error:
        raise UnsupportedError(f"{_name_of(node, key)}: {error}") from error
    except (TypeError, ValueError, NotImplementedError) as error:
        raise UnsupportedError(f"{_name_of(node, key)} cannot be converted with these arguments: {error}") from error


def _method_of_tensors(target: Any) -> Any:
    """Return the converter of a method recorded as a function, as for a parameter: ``weight.new_zeros(x.size(0))``."""
    is_method = isinstance(target, MethodDescriptorType) and hasattr(Tensor, target.__name__)
    return FUNCTIONS.get(target.__name__) if is_method else None


def _qualified(target: Any) -> str:
    return f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', '')}"


def _name_of(node: fx.Node, key: Any) -> str:
    if node.op == "call_method" or node.target is getattr:
        return f"Tensor.{key}"
    return f"{getattr(key, '__module__', None) or 'torch'}.{getattr(key, '__name__', key)}"


_OF_KIND = ("dtype", "device", "layout", "new_zeros", "new_ones", "new_full", "new_empty", "new_tensor")


def _kind_only(module: nn.Module, node: fx.Node) -> Node | None:
    """Return an empty tensor for a parameter that is used only for its dtype or device, as in ``weight.new_zeros(n)``."""
    asked = [user.args[1] if user.target is getattr else getattr(user.target, "__name__", user.target) for user in node.users]
    if not asked or not all(one in _OF_KIND for one in asked):
        return None
    dtype = attrgetter(str(node.target))(module).dtype
    return Node(ConstantTensor.of(torch.zeros(0, dtype=dtype)), (), numbers=settled(dtype))


def _attribute(module: nn.Module, path: str, builder: Builder) -> Ref:
    """Return a reference to a parameter, a buffer or another tensor, which becomes a node on first use."""
    tensor: Any = module
    for part in path.split("."):
        tensor = getattr(tensor, part)
    if not isinstance(tensor, Tensor):
        raise UnsupportedError(f"its attribute {path} must be a tensor to be used as one, got {type(tensor).__name__}")
    if path in builder.nodes:
        return Ref(path, shape=tuple(tensor.shape), numbers=settled(tensor.dtype))
    if path in module.state_dict():
        return builder.add(parameter_node(tensor), path, exact=True)
    return builder.add(constant_node(tensor, path, Ref(builder.inputs[0])), path.replace(".", "_"))


def parameter_node(tensor: Tensor) -> Node:
    """Return the node of a parameter or a buffer that code uses directly."""
    numbers = tensor.detach().double()
    spread = float(numbers.std(correction=0)) if tensor.is_floating_point() and tensor.numel() else 0.0
    mean = float(numbers.mean()) if tensor.numel() else 0.0
    mean, spread = (mean, spread) if math.isfinite(mean) and math.isfinite(spread) else (0.0, 0.0)  # for a mask of -∞
    is_param = isinstance(tensor, nn.Parameter)
    layer = Parameter(tuple(tensor.shape), mean=mean, std=spread, trainable=is_param and tensor.is_floating_point())
    frozen = layer.trainable and not tensor.requires_grad
    one = freeze(layer) if frozen else layer
    return Node(one, (), tensor.detach(), shape=tuple(tensor.shape), numbers=settled(tensor.dtype))


def constant_node(tensor: Tensor, path: str, beside: Ref) -> Node:
    """Return the node of a tensor outside the state dict, such as a mask; it is moved to the device of another value."""
    if tensor.requires_grad:
        raise UnsupportedError(f"its attribute {path} is a tensor with a gradient that is not an nn.Parameter")
    return Node(ConstantTensor.of(tensor), (beside,), shape=tuple(tensor.shape), numbers=settled(tensor.dtype))
