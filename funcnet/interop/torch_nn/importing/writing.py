"""Writes in a recorded forward: a read after a write to a tensor becomes a read of the write's result.

    y = relu_(x)                 y = relu_(x)
    z = x + y          is        z = y + y

funcnet's functions do not write to their arguments, so the graph itself must encode the order of writes and reads. A write to a
tensor with an alias that is read later cannot be expressed this way, and is refused.
"""

import inspect
import operator
from collections.abc import Callable
from typing import Any

from attrs import define
from attrs import field as attribute
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from funcnet.interop.torch_nn.importing.values import UnsupportedError

AUGMENTED = {
    one: getattr(operator, f"i{one.strip('_')}") for one in ("add", "sub", "mul", "truediv", "pow", "and_", "or_", "xor")
}
"""The functions for augmented assignments such as ``x += y``, by the name of the function for ``x + y``."""

WITHOUT_GRADIENT = "without gradient"
"""The key in ``node.meta`` of nodes computed under ``torch.no_grad``."""

_VIEWS = {
    *("view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "ravel", "contiguous", "detach", "to", "type_as"),
    *("transpose", "swapaxes", "swapdims", "permute", "movedim", "moveaxis", "t", "T", "mT", "H", "mH", "adjoint"),
    *("squeeze", "unsqueeze", "expand", "expand_as", "broadcast_to", "narrow", "select", "diagonal", "unfold", "as_strided"),
    *("chunk", "split", "tensor_split", "unbind", "getitem", "__getitem__", "data", "real", "float", "double", "half"),
    *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"),
}
"""Functions, methods and attributes whose result can be x itself or share its memory."""

_ALIASING = (
    *(nn.Identity, nn.Flatten, nn.Unflatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
    nn.FeatureAlphaDropout,
)


@define(eq=False)
class Writes:
    """The writes of a recorded forward.

    Args:
        module: The module.
        is_writer: Whether an inner module is known to write to its input.
    """

    module: nn.Module
    is_writer: Callable[[nn.Module], bool]
    _origins: dict[fx.Node, fx.Node] = attribute(factory=dict)
    _tensors: dict[fx.Node, fx.Node] = attribute(factory=dict)

    def follow(self, graph: fx.Graph) -> bool:
        """Redirect reads after a write to its result, and return whether an input of the graph is written to."""
        place = {node: i for i, node in enumerate(graph.nodes)}
        writes_to_input = False
        for node in graph.nodes:
            source = _first_of(node)
            if source is None:
                continue
            if self._is_write(node) or self._calls_writer(node):
                self._redirect(node, source, place)
                writes_to_input |= self._origin(source).op == "placeholder"
            if self._is_write(node) or self._may_alias(node):
                self._origins[node] = self._origin(source)
            if self._is_write(node) or self._is_identity(node):
                self._tensors[node] = self._tensor(source)
        return writes_to_input

    def _redirect(self, write: fx.Node, source: fx.Node, place: dict[fx.Node, int]) -> None:
        """Redirect later readers of a tensor to the result of a write; refuse readers of its aliases."""
        if self._origin(source).op == "get_attr":
            raise UnsupportedError(f"it writes to its tensor {self._origin(source).target}")
        earlier = [one for one in place if place[one] < place[write] and self._origin(one) is self._origin(source)]
        readers = [(one, user) for one in earlier for user in one.users if place[user] > place[write]]
        if readers and write.meta.get(WITHOUT_GRADIENT):
            raise UnsupportedError(f"{_name_of(write)} writes under no_grad to a tensor that is read later")
        for one, user in readers:
            if self._tensor(one) is not self._tensor(source) or not self._is_write(write):
                raise LostWriteError(write)
            user.replace_input_with(one, write)

    def _origin(self, node: fx.Node) -> fx.Node:
        """Return the value whose memory a node can share."""
        return self._origins.get(node, node)

    def _tensor(self, node: fx.Node) -> fx.Node:
        """Return the first node that is the same tensor."""
        return self._tensors.get(node, node)

    def _is_write(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            child = self.module.get_submodule(str(node.target))
            return is_in_place(child)
        if node.op == "call_method":
            return _is_writing_name(str(node.target))
        return node.op == "call_function" and _is_writing_function(node)

    def _calls_writer(self, node: fx.Node) -> bool:
        return node.op == "call_module" and self.is_writer(self.module.get_submodule(str(node.target)))

    def _is_identity(self, node: fx.Node) -> bool:
        return node.op == "call_module" and isinstance(self.module.get_submodule(str(node.target)), nn.Identity)

    def _may_alias(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return isinstance(self.module.get_submodule(str(node.target)), _ALIASING)
        return _name_of(node) in _VIEWS


class LostWriteError(UnsupportedError):
    """A write to a tensor that is read later under another name; ``node`` is the writing call."""

    def __init__(self, node: fx.Node) -> None:
        super().__init__(f"{node.target if node.op == 'call_module' else _name_of(node)} writes to a tensor that is read later")
        self.node = node


def is_in_place(module: nn.Module) -> bool:
    """Return whether a module with a torch.nn forward writes its output to its input."""
    return getattr(module, "inplace", False) is True and type(module).forward.__module__.startswith("torch.nn.")


def writes_first(modules: list[nn.Module], is_writer: Callable[[nn.Module], bool]) -> bool:
    """Return whether modules in series write to the input of the first one."""
    for one in modules:
        if is_writer(one) or is_in_place(one):
            return True
        if not isinstance(one, _ALIASING):
            return False
    return False


def _first_of(node: fx.Node) -> fx.Node | None:
    """Return the first argument of a call, if it is a value of the graph."""
    given = [*node.args, *node.kwargs.values()]
    return given[0] if given and isinstance(given[0], fx.Node) and node.op.startswith("call") else None


def _name_of(node: fx.Node) -> str:
    if node.op == "call_method":
        return str(node.target)
    if node.target is getattr:
        return str(node.args[1])
    return str(getattr(node.target, "__name__", ""))


def _is_writing_function(node: fx.Node) -> bool:
    target: Any = node.target
    if getattr(target, "__module__", "") in ("_operator", "operator", "math", "builtins"):
        return target in AUGMENTED.values()
    return _is_writing_name(_name_of(node)) or _argument(node, "inplace") is True


def _is_writing_name(name: str) -> bool:
    return name.endswith("_") and not name.endswith("__") and name != "requires_grad_"


def _argument(node: fx.Node, name: str) -> Any:
    """Return an argument of a call by name, or ``None`` if the function has no signature."""
    target: Any = node.target
    try:
        return inspect.signature(target).bind(*node.args, **node.kwargs).arguments.get(name)
    except (TypeError, ValueError):
        return node.kwargs.get(name)


class RefusedWrites(TorchFunctionMode):
    """Mode that refuses code that would write to a module's tensors while it is traced.

    Args:
        module: The module, whose parameters, buffers and other tensors are protected.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        held = {**module.state_dict()}
        held |= {name: one for part in module.modules() for name, one in vars(part).items() if issubclass(type(one), Tensor)}
        self._names = {_memory(one): name for name, one in held.items() if isinstance(one, Tensor)}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", "")
        writes = _is_writing_name(name) or name in _WRITING_METHODS
        if writes and args and issubclass(type(args[0]), Tensor) and _memory(args[0]) in self._names:
            raise UnsupportedError(f"it writes to its tensor {self._names[_memory(args[0])]}")
        return function(*args, **(kwargs or {}))


_WRITING_METHODS = {"__setitem__", *[f"__{one.__name__}__" for one in AUGMENTED.values()]}


def _memory(tensor: Tensor) -> int:
    """Return a number that identifies the memory of a tensor, or the tensor itself if it has no memory, as on the meta device."""
    return tensor.untyped_storage().data_ptr() or id(tensor)
