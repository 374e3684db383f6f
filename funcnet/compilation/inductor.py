"""Dynamo and Inductor: a function is traced with its own code object and compiled to a kernel, and its first call is recorded.

Dynamo compiles at most 8 kinds of calls for one code object, so every traced function gets its own code object. Dynamo is not
thread safe: while one thread traces, a call of a traced function in another thread fails. A lock prevents that.
"""

import builtins
import itertools
import logging
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from types import FunctionType
from typing import Any

import torch

from funcnet.compilation.cuda_graphs import Kernel, is_on_gpu, kernel_on_gpu
from funcnet.compilation.options import are_small, known, needs_checks, product_options, sends, step_options
from funcnet.kernels.threads import with_one_thread

_NUMBERS = itertools.count()
_OWN_LOCK = threading.RLock()


@cache
def compile_lock() -> Any:
    """Return the lock under which Dynamo compiles, one per process; a lock of this module if this build of torch has none.

    Dynamo is imported here, at the first call, since that takes 0.8 s, as long as ``import torch``.
    """
    try:
        from torch._dynamo.convert_frame import compile_lock as lock
    except ImportError:
        return _OWN_LOCK
    return lock


def kernel_of(graph: Any, examples: list[Any]) -> Kernel:
    """Compile a graph with Inductor, for one thread if every tensor in it is small, and in two parts if it is long.

    With two threads, one would wait for the other at the end of each loop: a step of the 2-25-25-25-2 net takes 95 µs with two
    threads, 58 with loops for one thread, and 52 if its matrix products use one thread too. With tensors of 8192 elements one and
    two threads take the same time; with 65536, one thread takes a third longer.

    The compile time of GCC with ``-O3`` grows faster than the length of the function that calls the kernels: train steps of 10,
    20 and 40 residual blocks take 5, 13 and 53 s of processor time, kernels included, and 2, 4 and 7 s in two parts. Small graphs
    stay in one part, which compiles as fast: in two parts the step of the benchmark pychrot takes 1 % longer.

    Convolutions use the memory order that eager mode's kernels choose. With ``layout_optimization``, Inductor would convert every
    image to channels_last: without it, the step of a LeNet takes 0.97 times as long, that of a residual net 0.98 (AMD EPYC).
    """
    values = [node.meta.get("example_value") for node in graph.graph.nodes]
    if is_on_gpu(values):
        compile_with = partial(_compiled_for_gpu, graph, examples)
        return compile_with({}) if sends(graph) else kernel_on_gpu(compile_with, _inputs(graph, examples))
    checks = {} if needs_checks(graph, values) else {"size_asserts": False}
    options = {**step_options(values, examples), **known({"layout_optimization": False, **checks})}
    if sends(graph):  # calls from C++ do not support collectives
        options = {name: value for name, value in options.items() if name != "cpp_wrapper"}
    kernel = _compiled(graph, examples, options)
    return with_one_thread(kernel) if are_small(values) and torch.get_num_threads() > 1 else kernel


def _compiled(graph: Any, examples: list[Any], options: dict[str, Any]) -> Kernel:
    """Compile a graph with loops for small products, or without them if Inductor or the C++ compiler rejects them.

    In the latter case warn, since the library's products can differ from the loops in the last bits.
    """
    loops = known(product_options())
    try:
        kernel: Kernel = torch._inductor.compile(graph, examples, options={**options, **loops} or None)
    except Exception as error:
        if not loops or isinstance(error, _restarts()):
            raise
        kernel = torch._inductor.compile(graph, examples, options=options or None)
        reason = str(error).strip().partition("\n")[0]
        warnings.warn(f"compile: the loops for small products failed and are not used: {reason}", RuntimeWarning, stacklevel=2)
    return kernel


@cache
def _restarts() -> tuple[type[Exception], ...]:
    """Return the errors that Inductor raises to make Dynamo trace again, for example when numbers become tensors.

    Catching them would disable the loops for no reason.
    """
    try:
        from torch._dynamo.exc import RestartAnalysis
    except ImportError:
        return ()
    return (RestartAnalysis,)


def _compiled_for_gpu(graph: Any, examples: list[Any], options: dict[str, Any]) -> Kernel:
    """Compile a graph for a GPU, without ``cpp_wrapper``, which takes long to compile there and excludes CUDA graphs."""
    with compile_lock():
        kernel: Kernel = torch._inductor.compile(graph, examples, options=known(options) or None)
    return kernel


def _inputs(graph: Any, examples: list[Any]) -> list[Any]:
    """Return a graph's inputs as traced; the version of a tensor shows whether it was written to."""
    places = [node for node in graph.graph.nodes if node.op == "placeholder"]
    return [node.meta.get("example_value", one) for node, one in zip(places, examples, strict=True)]


class _Records(threading.local):
    """The list to which the calling thread records kernel calls; ``None`` outside of ``recording``."""

    calls: list[tuple[Kernel, Sequence[Any], Sequence[Any]]] | None = None


_RECORDS = _Records()


@contextmanager
def recording() -> Iterator[list[tuple[Kernel, Sequence[Any], Sequence[Any]]]]:
    """Record the kernel calls of this thread: each with its inputs and outputs."""
    before, _RECORDS.calls = _RECORDS.calls, []
    try:
        yield _RECORDS.calls
    finally:
        _RECORDS.calls = before


class _Withheld(threading.local):
    """The list to which log records of the calling thread go; ``None`` outside of ``withheld_log``."""

    records: list[logging.LogRecord] | None = None


_WITHHELD = _Withheld()
_FAKE_TENSORS = logging.getLogger("torch._subclasses.fake_tensor")


def _passes(record: logging.LogRecord) -> bool:
    """Filter log records: append those of a thread that withholds them to its list."""
    if _WITHHELD.records is None:
        return True
    _WITHHELD.records.append(record)
    return False


@contextmanager
def withheld_log(records: list[logging.LogRecord]) -> Iterator[None]:
    """Withhold the 20 lines that Dynamo logs about a failing operation; log them at the end if the call succeeds.

    If the call fails, the error of eager mode may be clearer. The filter stays on the logger and does not affect other threads.
    """
    _FAKE_TENSORS.addFilter(_passes)
    before, _WITHHELD.records = _WITHHELD.records, records
    try:
        yield
    finally:
        _WITHHELD.records = before
    pass_on(records)


def pass_on(records: list[logging.LogRecord]) -> None:
    """Log the withheld records."""
    for record in records:
        _FAKE_TENSORS.handle(record)


def _recorded(graph: Any, examples: list[Any]) -> Kernel:
    """Compile a graph to a kernel that records its calls. This is the only backend: Dynamo keeps every backend forever."""
    kernel = kernel_of(graph, examples)

    def called(*inputs: Any) -> Sequence[Any]:
        outputs = kernel(*inputs)
        if _RECORDS.calls is not None:
            _RECORDS.calls.append((kernel, inputs, outputs))
        return outputs

    return called


def traced(step: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that Dynamo traces, with its own code object and globals.

    Dynamo writes compiled code into the globals, and keeps them as long as the layers that it guards. The globals are therefore
    emptied when the function is released; guards remain, but hold no tensors.
    """

    def called(*arguments: Any, **named: Any) -> Any:
        return step(*arguments, **named)

    code, scope = called.__code__.replace(co_name=f"step_{next(_NUMBERS)}"), {"__name__": __name__, "__builtins__": builtins}
    function = FunctionType(code, scope, closure=called.__closure__)
    compiled = torch.compile(function, fullgraph=True, dynamic=False, backend=_backend())
    weakref.finalize(compiled, _empty, scope)
    return compiled


def _empty(scope: dict[str, Any]) -> None:
    """Set all names to ``None``; Dynamo itself deletes the names that it wrote."""
    scope.update(dict.fromkeys(scope))


@cache
def _backend() -> Any:
    """Return the backend; if torch lacks ``torch._inductor.compile``, its default, with which Dynamo makes every call."""
    try:
        from torch._inductor import compile as _  # noqa: F401
    except ImportError:
        return "inductor"
    return _recorded
