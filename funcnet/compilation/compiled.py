"""Compilation: a pure function of tensors becomes one graph for each kind of call, and repeated calls run its kernel directly.

Dynamo traces the first call of a kind, Inductor compiles the trace, and the call is recorded as a ``Program``. If a call is of
the same kind as the last one, a check of 2 µs suffices; otherwise its program is found by key.
"""

import inspect
import itertools
import pickle
import sys
from collections.abc import Callable, Hashable
from functools import update_wrapper
from logging import LogRecord
from types import FunctionType, MethodType
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

import torch
from torch import Tensor

from funcnet import random, tree
from funcnet.compilation.inductor import compile_lock, pass_on, recording, withheld_log
from funcnet.compilation.kinds import key_of
from funcnet.compilation.programs import Program, Traced, copied, require_apart, written
from funcnet.errors import value_error
from funcnet.flattening import Tree
from funcnet.kernels.tracing import is_eager
from funcnet.value import Value, parts

P = ParamSpec("P")
R = TypeVar("R")

KEPT = 64
"""Number of programs that a compiled function keeps; a new one replaces the least recently used."""

_TICKS = itertools.count(1)
_NAMED = type("Named", (), {})()


class Compiled(Generic[P, R]):
    """A function that is compiled for each kind of call; created with ``funcnet.compile``.

    Threads can share it. It is pickled without its programs: by name if it decorates a function, else with the function.

    Args:
        step: The function.
    """

    __wrapped__: Callable[P, R]

    def __init__(self, step: Callable[P, R]) -> None:
        update_wrapper(self, step, updated=())
        self._signature = _signature(step) if isinstance(step, Value) else None
        self._rng = _place("rng", self._signature)
        self._last: Program | Traced | None = None
        self._kept: dict[Hashable, Program | Traced] = {}

    @property
    def programs(self) -> int:
        """Number of programs kept, one for each kind of call; a test can check that it is 1."""
        return len(self._kept)

    def __repr__(self) -> str:
        return getattr(self.__wrapped__, "compiled_repr", f"compile({self.__wrapped__!r})")

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> Callable[..., R]: ...
    def __get__(self, instance: object, owner: type | None = None) -> Callable[..., R]:
        """Bind like the original function: a plain function becomes a method, a ``Value`` does not."""
        binds = instance is not None and isinstance(self.__wrapped__, FunctionType)
        return MethodType(self, instance) if binds else self

    def __reduce__(self) -> str | tuple[Any, ...]:
        name = getattr(self, "__qualname__", None)
        if name is not None and _global(self.__module__, name) is self:  # a decorated function: its name refers to this object
            return str(name)
        step = self.__wrapped__
        try:
            pickle.dumps(step)
        except Exception as error:
            rule = "to pickle, step must pickle, like a train step or a function defined with def in a module"
            raise pickle.PicklingError(str(value_error("compile", rule, repr(step)))) from error
        return compile, (step,)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # like functions, which copies refer to

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the compiled function, without recording gradients."""
        if not torch.is_grad_enabled():
            return self._run(args, kwargs)
        with torch.no_grad():
            return self._run(args, kwargs)

    def _run(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> R:
        if not is_eager():  # within another compiled function or under a transform
            return self.__wrapped__(*arguments, **named)
        if named:
            arguments, named = self._bound(arguments, named)
        if len(arguments) > self._rng and type(arguments[self._rng]) is int:
            arguments = (*arguments[: self._rng], random.key(arguments[self._rng]), *arguments[self._rng + 1 :])
        like = (_NAMED, arguments, named) if named else arguments
        last = self._last
        leaves = None if last is None else last.leaves(like)
        if last is None or leaves is None:
            return self._other(arguments, named, like)
        return self._made(last, leaves, arguments, named)

    def _bound(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Make arguments positional if the signature is known, so that ``step(p, x=x)`` is of the same kind as ``step(p, x)``."""
        if self._signature is None:
            return arguments, named
        try:
            bound = self._signature.bind(*arguments, **named)
        except TypeError:
            self._refuse(arguments, named)
            raise
        if bound.kwargs:
            bound.apply_defaults()
        return bound.args, bound.kwargs

    def _other(self, arguments: tuple[Any, ...], named: dict[str, Any], like: Tree) -> R:
        """Make a call of a different kind than the last one; trace it if it is the first of its kind."""
        log: list[LogRecord] = []
        try:
            key = key_of(like)
            found = self._found(key, like)
            if found is None:
                with compile_lock():
                    found = self._found(key, like)  # another thread may have traced it in the meantime
                    if found is None:
                        with withheld_log(log):
                            result: R = self._first(arguments, named, key, like)
                        return result
        except Exception as error:
            failed = error
        else:
            return self._made(*found, arguments, named)
        try:
            self._refuse(arguments, named)  # outside of the handler, whose error would become this one's context
            _require_dense(like)
            pass_on(log)
            raise failed
        finally:
            del failed  # its traceback refers to this frame

    def _made(self, kept: Program | Traced, leaves: list[Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> R:
        """Make a call of a kind that has already been traced."""
        result: R
        try:
            result = kept.run(arguments, named, leaves)
            return result
        except Exception as error:
            failed = error
        try:
            self._refuse(arguments, named)
            result = kept.again(arguments, named, failed)
            return result
        finally:
            del failed

    def _found(self, key: Hashable, like: Tree) -> tuple[Program | Traced, list[Any]] | None:
        """Return the program of a key and the leaves of the arguments, if they match, and make it the last program."""
        kept = self._kept.get(key)
        leaves = None if kept is None else kept.leaves(like)
        if kept is None or leaves is None:
            return None
        kept.used, self._last = next(_TICKS), kept
        return kept, leaves

    def _first(self, arguments: tuple[Any, ...], named: dict[str, Any], key: Hashable, like: Tree) -> Any:
        """Make the call with Dynamo, and keep its record, or Dynamo's function if it cannot be recorded."""
        entry = Traced(self.__wrapped__, like)
        require_apart(entry, arguments, named)
        with recording() as calls:
            result = entry.first(arguments, named)
        recorded = len(calls) == 1 and not named and isinstance(self.__wrapped__, Value)
        program = written(arguments, result, *calls[0]) if recorded else None
        self._keep(key, program or entry)
        return result

    def _keep(self, key: Hashable, kept: Program | Traced) -> None:
        """Keep a program, and drop the least recently used one if there are too many; called under the lock."""
        while len(self._kept) >= KEPT and key not in self._kept:
            del self._kept[min(self._kept, key=lambda one: self._kept[one].used)]
        kept.used = next(_TICKS)
        self._kept[key] = self._last = kept

    def _refuse(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Call the function in eager mode, on copies, to raise a layer's error instead of Dynamo's, which says less."""
        self.__wrapped__(*tree.map(copied, arguments), **tree.map(copied, named))


def _require_dense(arguments: Tree) -> None:
    """Raise for sparse and nested tensors, which kernels accept and the compiler does not."""
    for leaf in tree.leaves(arguments):
        if isinstance(leaf, Tensor) and (leaf.is_nested or leaf.layout is not torch.strided):
            raise value_error("compile", "compiled code takes dense tensors only", leaf)


def _global(module: str, name: str) -> Any:
    """Return the object with a qualified name in a module, or ``None``."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _signature(step: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(step)
    except (TypeError, ValueError):
        return None


def _place(name: str, signature: inspect.Signature | None) -> int:
    """Return the position of a parameter, or a number beyond all positions."""
    names = [] if signature is None else [*signature.parameters]
    return names.index(name) if name in names else sys.maxsize


def compile(step: Callable[P, R]) -> Compiled[P, R]:  # noqa: A001 (torch's word for it)
    """Compile a pure function of tensors, such as a train step, with ``torch.compile(fullgraph=True)``.

    The compiled function differs from the eager one only by rounding. Each kind of call is compiled once. Calls differ in kind if
    their arguments differ in structure, in the order of a dict's keys, in the shape, dtype or memory order of a tensor, or in a
    constant, or if autocast differs. The programs of the 64 most recently used kinds are kept. Autograd does not record the call.
    Invalid arguments raise the same error as in eager mode.

    A step of this package, or another ``Value``, runs its kernel directly from the second call of a kind on: a step of the
    2-25-25-25-2 net takes 42 µs, and 136 in eager mode (AMD EPYC). An int seed ``rng`` is first converted to a key, so all seeds
    share one program. A plain function can read more than its arguments, so Dynamo checks each call of it, which takes about 30
    µs, and each number among its arguments is a constant of the program.

    The time to compile is proportional to depth: 0.5 to 0.7 s of processor time per residual block of LayerNorm, Linear, GELU and
    Linear. Train steps of a ``serial`` of 10, 20 and 40 blocks took 8, 15 and 28 s on a core of an AMD EPYC, and up to 1.7 times
    as long on a busy one. With ``repeat(block, n)``, which is compiled as a loop, it does not grow: 10 and 100 blocks took 6 s
    each.

    On a CUDA device, a step with less than 64 MiB of inputs is replayed as a CUDA graph from its third call on, which saves
    launching each kernel. Results are copies: they can be kept and passed back in. Donated steps write to their arguments, and
    are launched kernel by kernel, as are all steps in ``with fn.kernels.choices.forced("CUDA graphs", "launched")``. The
    optimizer's counters are in main memory and would be copied at each call. Move the state to the GPU first, with
    ``fn.tree.to(state, "cuda")``, so that the whole step is one graph. Change settings that kernels read, such as
    ``torch.set_float32_matmul_precision("high")`` for TF32, before the first call.

    Threads can share a compiled function: first calls of a kind wait for each other, later calls take no lock. Under
    ``torch.func.vmap`` and within another compiled function, the original function is called.

    Args:
        step: Pure function of trees of tensors and constants.

    Returns:
        A function with the signature of ``step``, and with ``step`` as its ``__wrapped__``. It can be pickled if ``step`` can,
        and by name if it decorates a function of a module. In a class body a decorated function is a method.

    Raises:
        ValueError: If ``step`` is not a function, or has an optimizer that reads the loss during the update, such as ``LBFGS``.
    """
    if not callable(step):
        raise value_error("compile", "step must be a function", step)
    reader = next((part for part in parts(step) if getattr(part, "reads_values", False)), None)
    if reader is not None:
        rule = "a step must not read the loss during the update, as LBFGS does; compile its value_and_grads, and call opt.step"
        raise value_error("compile", rule, repr(reader))
    return Compiled(step)
