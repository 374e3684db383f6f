"""Tracing: record the forward of a module with ``torch.fx``, down to the modules and functions that it calls."""

import builtins
import inspect
import operator
import sys
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import checkpoint

from funcnet.interop.torch_nn.importing.checks_in_code import counts_beside_star, is_unpacked_with_star, passing
from funcnet.interop.torch_nn.importing.registry import FUNCTIONS
from funcnet.interop.torch_nn.importing.values import InlineError, UnsupportedError
from funcnet.interop.torch_nn.importing.writing import AUGMENTED, WITHOUT_GRADIENT, RefusedWrites

_MADE = "_made_while_traced"
"""The attribute with the names of modules created in a forward, which a second tracing reuses for its modules."""

_MAKERS = (torch.zeros, torch.ones, torch.empty, torch.full, torch.eye, torch.arange, torch.randn, torch.rand)

_OF_SHAPES: set[Any] = {"shape", "ndim", "size", "dim", "device", "dtype"}


def is_of_shapes(node: fx.Node) -> bool:
    """Return whether the value of a node is a size or shape, or computed only from sizes and shapes."""
    if node.op == "call_method":
        return node.target in _OF_SHAPES
    if node.op != "call_function" or not node.all_input_nodes:
        return False
    return (
        node.target is _COUNT
        or (node.target is getattr and node.args[1] in _OF_SHAPES)
        or all(map(is_of_shapes, node.all_input_nodes))
    )


class _Proxy(fx.Proxy):
    """A proxy that counts as a tensor for ``isinstance``."""

    def __len__(self) -> int:
        raise TypeError("the number of entries is not known while tracing")  # f(*x) ignores this TypeError

    def __getattr__(self, k: str) -> Any:
        return _Attribute(self, k)


class _Attribute(fx.proxy.Attribute, _Proxy):
    """An attribute of a traced value, such as ``x.shape``, or a method that is called next."""


def _is_instance(value: Any, kind: Any) -> bool:
    """Return whether a value is of a kind, like ``isinstance``; a traced value is a tensor unless it is a size or shape."""
    if issubclass(type(value), _Proxy) and not is_of_shapes(value.node):
        return _PLAIN(value, kind) or issubclass(Tensor, kind)
    return _PLAIN(value, kind)


def _count(value: Any) -> Any:
    """Return the number of entries, like ``len``; for a traced value, a traced number."""
    if issubclass(type(value), _Proxy):
        return value.tracer.create_proxy("call_function", _COUNT, (value,), {}, name="len_")
    return _COUNT(value)


_PLAIN, _COUNT = builtins.isinstance, builtins.len


def _checkpoint(function: Any, *args: Any, use_reentrant: Any = None, context_fn: Any = None, **kwargs: Any) -> Any:
    """Call a function, like ``torch.utils.checkpoint.checkpoint``, whose options do not change values."""
    options = ("determinism_check", "debug", "early_stop", "preserve_rng_state")
    return function(*args, **{name: one for name, one in kwargs.items() if name not in options})


def _refused_function(kind: Any, *args: Any, **kwargs: Any) -> Any:
    """Refuse a custom autograd function that is applied to traced values; apply it to other values."""
    if any(issubclass(type(one), fx.Proxy) for one in (*args, *kwargs.values())):
        raise UnsupportedError(f"{kind.__name__} is a torch.autograd.Function, whose backward is code: use lift(module, example)")
    return _APPLY.__func__(kind, *args, **kwargs)


_APPLY: Any = torch.autograd.Function.__dict__["apply"]


@contextmanager
def _without_autograd(module: nn.Module) -> Iterator[None]:
    """Replace activation checkpoints, under any name, with plain calls, and refuse custom autograd functions."""
    spaces = {id(vars(checkpoint)): vars(checkpoint)}
    for one in module.modules():
        found = getattr(type(one).forward, "__globals__", {})
        spaces[id(found)] = found
    places = [(space, name) for space in spaces.values() for name, one in space.items() if one is _CHECKPOINT]
    for space, name in places:
        space[name] = _checkpoint
    torch.autograd.Function.apply = classmethod(_refused_function)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        torch.autograd.Function.apply = _APPLY  # type: ignore[method-assign]
        for space, name in places:
            space[name] = _CHECKPOINT


_CHECKPOINT = checkpoint.checkpoint


@contextmanager
def _passing_for_tensors() -> Iterator[None]:
    """Make Python code treat traced values as tensors, by replacing functions in all modules as ``fx`` does.

    If a proxy reported ``Tensor`` as its class, kernels would treat it as one too and read invalid memory:
    ``torch.arange(x.max())`` ended the process.
    """
    builtins.isinstance, builtins.len = _is_instance, _count
    try:
        yield
    finally:
        builtins.isinstance, builtins.len = _PLAIN, _COUNT


def _augmented(plain: str) -> Callable[[Any, Any], Any]:
    """Return a method for operators such as ``x += y``, which writes to a tensor but returns a new size for a size."""

    def method(self: Any, other: Any) -> Any:
        target = getattr(operator, plain) if is_of_shapes(self.node) else AUGMENTED[plain]
        return self.tracer.create_proxy("call_function", target, (self, other), {}, name=plain)

    return method


for _plain in AUGMENTED:
    setattr(_Proxy, f"__i{_plain.strip('_')}__", _augmented(_plain))


class Tracer(fx.Tracer):
    """A tracer that records calls of modules, except modules that take or return anything but tensors.

    Args:
        opaque: Whether a module is converted by its class, whatever its arguments are.
        inlined: Paths of modules whose forward is recorded inline.
        flat: Whether all modules that are not opaque are inlined; the code then sees the tuples and dicts that they return.
    """

    def __init__(self, opaque: Callable[[nn.Module], bool], inlined: Collection[str], *, flat: bool = False) -> None:
        super().__init__(autowrap_functions=_wrapped_functions())
        self._autowrap_search.extend((torch, nn.utils.rnn))
        self._opaque, self._inlined, self._flat = opaque, inlined, flat
        self._made: dict[nn.Module, str] = {}
        self._opened: set[str] = set()

    def with_buffers(self) -> "Tracer":
        """Return a tracer that treats buffers as traced values like parameters, so that code can slice them to a traced size."""
        tracer = Tracer(self._opaque, self._inlined, flat=self._flat)
        tracer.proxy_buffer_attributes = True
        return tracer

    def flattened(self) -> "Tracer":
        """Return a tracer that stops only at opaque modules."""
        return Tracer(self._opaque, self._inlined, flat=True)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def create_proxy(self, kind: str, target: Any, *arguments: Any, **keywords: Any) -> Any:
        """Record a call; its result is detached under ``torch.no_grad``."""
        proxy = super().create_proxy(kind, target, *arguments, **keywords)
        if torch.is_grad_enabled() or not kind.startswith("call_") or is_of_shapes(proxy.node):
            return proxy
        proxy.node.meta[WITHOUT_GRADIENT] = True
        return super().create_proxy("call_function", torch.detach, (proxy,), {})

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """Return the parts of ``chunk``, whose number is in the code; in ``*shape`` one entry represents the shape."""
        node = obj.node
        parts: Any = obj
        frame = sys._getframe(2)  # the frame of the traced code, above Proxy.__iter__
        if is_of_shapes(node) and is_unpacked_with_star(frame):
            return iter([obj])
        if is_of_shapes(node) and (ends := counts_beside_star(frame)):
            first, last = ends
            middle = parts[first : -last or None]
            return iter([*[parts[i] for i in range(first)], middle, *[parts[i - last] for i in range(last)]])
        called = node.op.startswith("call") and (node.target == "chunk" or node.target is torch.chunk)
        count = (*node.args[1:2], *[node.kwargs[key] for key in ("chunks",) if key in node.kwargs]) if called else ()
        if _COUNT(count) == 1 and type(count[0]) is int:
            return iter([parts[i] for i in range(count[0])])
        return super().iter(obj)

    def path_of_module(self, mod: nn.Module) -> str:
        """Return the path of a module; a module without params that the code creates is added to the root."""
        try:
            return self._made.get(mod) or super().path_of_module(mod)
        except NameError:
            if mod.state_dict() or not self._opaque(mod):
                raise
        base, number = type(mod).__name__.lower(), _COUNT(self._made)
        names = (f"{base}_{i}" for i in range(number, number + 1000))
        name = next(one for one in names if one in self.root.__dict__.get(_MADE, ()) or not hasattr(self.root, one))
        self.root._modules[name] = mod
        self.root.__dict__.setdefault(_MADE, set()).add(name)
        self._made[mod] = name
        return name

    def create_arg(self, a: Any) -> Any:
        return a.node if issubclass(type(a), fx.Proxy) else super().create_arg(a)

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Return the truth value of a proxy in a check: the value that makes the check pass."""
        frame = sys._getframe(2)  # the frame of the traced code, above Proxy.__bool__
        found = passing(frame)
        return super().to_bool(obj) if found is None else found

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            path = self.path_of_module(m)
        except NameError:  # for example self.layers[:2], whose modules have paths
            return forward(*args, **kwargs)
        given = [*args, *kwargs.values()]
        is_plain = all(issubclass(type(one), fx.Proxy) and not is_of_shapes(one.node) for one in given)
        if path not in self._inlined and (self._opaque(m) or (is_plain and not self._flat)):
            return self.create_proxy("call_module", path, args, kwargs)
        self._opened.add(path)
        return forward(*args, **kwargs)

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        """Record a forward; a module is a node in all of its calls or inlined in all of its calls."""
        graph = super().trace(root, concrete_args)
        both = sorted(self._opened & {str(node.target) for node in graph.nodes if node.op == "call_module"})
        if both:
            raise InlineError(both[0], UnsupportedError("it is called with tensors only, and with other arguments too"))
        return graph


def _wrapped_functions() -> tuple[Callable[..., Any], ...]:
    """Return the functions that are recorded as calls although torch would not dispatch them to a traced value.

    These are functions outside torch, and functions that create tensors, for which a size argument triggers no dispatch.
    """
    return (*[one for one in FUNCTIONS if inspect.isfunction(one)], *_MAKERS)


def required_inputs(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the arguments of ``forward`` without a default.

    Raises:
        UnsupportedError: If there are none, or ``*args``, an unknown number.
    """
    parameters = inspect.signature(module.forward).parameters.values()
    if any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in parameters):
        raise UnsupportedError("its forward takes *args, so the number of its inputs is unknown")
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
    names = tuple([one.name for one in parameters if one.default is inspect.Parameter.empty and one.kind in kinds])
    if not names:
        raise UnsupportedError("its forward has no argument without a default")
    return names


def trace(module: nn.Module, inputs: tuple[str, ...], constants: dict[str, Any], tracer: Tracer) -> fx.Graph:
    """Record the forward of a module whose arguments ``inputs`` are tensors; the others are constants or defaults.

    Raises:
        UnsupportedError: If the code cannot be recorded, for example because it branches on values.
    """
    parameters = inspect.signature(module.forward).parameters
    defaults = {name: one.default for name, one in parameters.items() if one.default is not inspect.Parameter.empty}
    concrete = {name: value for name, value in {**defaults, **constants}.items() if name not in inputs}
    try:
        return _recorded(module, concrete, tracer)
    except UnsupportedError:
        raise
    except Exception as error:
        for other in (tracer.with_buffers(), tracer.flattened()):
            try:
                return _recorded(module, concrete, other)
            except InlineError:
                raise
            except Exception:
                continue
        raise UnsupportedError(f"its forward cannot be traced: {_first_line(error)}") from error


def _recorded(module: nn.Module, concrete: dict[str, Any], tracer: Tracer) -> fx.Graph:
    with warnings.catch_warnings(), torch.enable_grad(), RefusedWrites(module), _passing_for_tensors(), _without_autograd(module):
        warnings.simplefilter("ignore")
        return tracer.trace(module, concrete)


def _first_line(error: Exception) -> str:
    said = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {said[:200]}"
