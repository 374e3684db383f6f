"""Tracing: whether tensors are computed now or traced by a compiler, which determines the kernels that can be used.

``torch.compiler.is_compiling()`` is one flag for the process: while one thread compiles, it is set in all other threads too, even
if they run in eager mode. The functions here return the state of the calling thread. Functions marked ``_dynamo_marked_constant``
are not traced: Dynamo calls them on the thread that traces, and treats the result as a constant.
"""

from _thread import get_ident
from collections.abc import Callable, Sequence
from operator import attrgetter
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from funcnet.kernels.plain import AUTOCAST_DEVICES
from funcnet.kernels.private_names import (
    TensorGuards,
    constant,
    dispatch_modes,
    interpreter,
    interpreters,
    is_any_autocast,
    is_batched,
    is_wrapped,
    tracing_context,
    transform_kinds,
    unwrapped,
)

_is_nested = attrgetter("is_nested")
_at_work: Callable[[], Any] = interpreter
_is_compiling = torch.compiler.is_compiling

is_autocast: Callable[[], bool] = is_any_autocast
"""Return whether autocast is enabled in the calling thread, on any device; takes 0.06 µs."""

# Identifiers of the threads in which Dynamo traces for Inductor.
_for_inductor: set[int] = set()


@constant
def _is_tracing_here() -> bool:
    """Return whether the calling thread compiles or exports, since the flag of the process also affects other threads."""
    return tracing_context() is not None or dispatch_modes() > 0


@constant
def is_for_inductor() -> bool:
    """Return whether Inductor compiles the calling code: a formula that it turns into loops may then be faster than a kernel.

    In eager mode this takes 0.04 µs; a flag in a list takes 0.01, but is shared by all threads. Under autocast this is ``False``:
    autocast casts the operands of kernels, and a formula instead would be computed in full precision.
    """
    return get_ident() in _for_inductor and tracing_context() is not None and not is_autocast()


class tracing_for_inductor:  # noqa: N801 (called as a context by ``with``)
    """Context manager in which the calling thread traces for Inductor. It can be nested; other threads are not affected."""

    def __enter__(self) -> None:
        thread = get_ident()
        self._outermost = thread not in _for_inductor
        _for_inductor.add(thread)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._outermost:
            _for_inductor.discard(get_ident())


def has_symbolic_sizes(x: Tensor) -> bool:
    """Return whether a size of x is symbolic, in an export."""
    return not all([isinstance(n, int) for n in x.shape])  # noqa: C419


def autocast_dtypes() -> tuple[tuple[str, torch.dtype], ...]:
    """Return each device on which autocast is enabled, with the dtype that it casts to."""
    return tuple([(device, torch.get_autocast_dtype(device)) for device in AUTOCAST_DEVICES if torch.is_autocast_enabled(device)])


def is_untransformed() -> bool:
    """Return whether no transform of ``torch.func``, such as ``vmap``, is active."""
    return _at_work() is None


def is_compiling() -> bool:
    """Return whether the calling thread traces or exports."""
    return _is_compiling() and _is_tracing_here()


def is_eager() -> bool:
    """Return whether tensors are computed right away: nothing is compiled, and no transform of ``torch.func`` is active."""
    return not (_is_compiling() and _is_tracing_here()) and _at_work() is None


def may_search(x: Tensor) -> bool:
    """Return ``is_plain`` of one tensor, in 0.15 µs instead of 0.4."""
    plain = type(x) is Tensor and x.is_cpu and not x.requires_grad
    return plain and not (_is_compiling() and _is_tracing_here()) and _at_work() is None


@constant  # Dynamo enters transforms while it traces them
def _by_transform() -> bool:
    """Return whether ``torch.func`` differentiates: ``grad``, ``vjp`` or ``jvp`` is active, in any order with ``vmap``.

    If torch does not expose the transforms' types, any transform counts.
    """
    if interpreters is None or transform_kinds is None:
        return True
    return any([one.key() in (transform_kinds.Grad, transform_kinds.Jvp) for one in interpreters() or ()])  # noqa: C419


def _hides_gradient(x: Tensor | None) -> bool:
    """Return whether autograd tracks a tensor that ``vmap`` has wrapped, which the wrapper does not show."""
    if is_wrapped is None or unwrapped is None:
        return torch.is_grad_enabled()
    while x is not None and not is_compiling() and is_wrapped(x):
        x = unwrapped(x)
        if x.requires_grad and torch.is_grad_enabled():
            return True
    return False


def is_differentiated(*tensors: Tensor | None) -> bool:
    """Return whether computations with these tensors are differentiated.

    Formulas then replace kernels without a derivative. In eager mode this takes 0.2 µs for two tensors.
    """
    for x in tensors:
        if x is not None and x.requires_grad and torch.is_grad_enabled():
            return True
    return _at_work() is not None and (_by_transform() or any([_hides_gradient(x) for x in tensors]))  # noqa: C419


@constant
def is_transformed_while_tracing() -> bool:
    """Return whether a transform of ``torch.func`` is active in the code that Dynamo traces."""
    return _at_work() is not None


def packed(x: Tensor, like: Tensor | None = None) -> Tensor:
    """Return x in eager mode; while tracing, make it contiguous, or channels_last if ``like``, by default x, is.

    For an x that is not contiguous, the results of some kernels do not have the strides that their meta functions promise (torch
    2.13.0): a view of y that can be traced then fails when the program runs.
    """
    return x.contiguous(memory_format=_order(x if like is None else like)) if is_compiling() else x


def _order(x: Tensor) -> torch.memory_format:
    is_last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if is_last else torch.contiguous_format


def tensor_likeness(x: Tensor) -> tuple[Any, ...]:
    """Return the properties that a guard compares, hashable: sparse and nested tensors have no strides, nested ones no shape."""
    kind = type(x), x.dtype, x.device, x.is_inference()
    if x.layout is torch.strided and not x.is_nested:
        return *kind, x.shape, x.stride()
    return *kind, x.layout, x.is_nested


def plain_guard(tensors: list[Tensor]) -> Callable[..., bool]:
    """Return ``tensor_guard`` in pure Python, which takes 6.7 µs for 11 tensors. Repeated tensors must be repeated again."""
    likenesses, places = [(x.requires_grad, tensor_likeness(x)) for x in tensors], _places(tensors)

    def check(*others: Any) -> bool:
        return (
            all([isinstance(x, Tensor) for x in others])  # noqa: C419
            and [(x.requires_grad, tensor_likeness(x)) for x in others] == likenesses
            and _places(others) == places
        )

    return check


def _places(tensors: Sequence[Any]) -> list[int]:
    """Return a number for each tensor, equal for repetitions of a tensor."""
    numbers: dict[int, int] = {}
    return [numbers.setdefault(id(x), len(numbers)) for x in tensors]


def tensor_guard(tensors: list[Tensor]) -> Callable[..., bool]:
    """Return a function that checks whether other tensors equal these in type, dtype, device, shape and strides.

    Dynamo's guard takes 0.7 µs for 11 tensors. It rejects repeated tensors, and reads strides, which sparse and nested tensors do
    not have: these use ``plain_guard``. A nested tensor makes Dynamo's guard end the process: see ``any_nested``.
    """
    distinct = len(set(_places(tensors))) == len(tensors)
    if TensorGuards is None or not distinct or any([x.layout is not torch.strided or x.is_nested for x in tensors]):  # noqa: C419
        return plain_guard(tensors)
    check: Callable[..., bool] = TensorGuards(*tensors, dynamic_dims_sizes=None, dynamic_dims_strides=None).check
    return check


def any_nested(tensors: Sequence[Tensor]) -> bool:
    """Return whether any of these tensors is nested; takes 0.4 µs for 8 tensors."""
    return any(map(_is_nested, tensors))


def is_mapped(x: Tensor) -> bool:
    """Return whether a transform of ``torch.func`` is active; in compiled code, whether ``vmap`` maps over x."""
    return is_batched(x) if is_compiling() else _at_work() is not None


def is_plain_data(*tensors: Tensor | None) -> bool:
    """Return whether all tensors are in main memory, or will be when compiled code runs, and are not differentiated."""
    for x in tensors:  # noqa: SIM110 (0.45 µs for five, with ``all`` of a list 0.7)
        if x is not None and (type(x) is not Tensor or not x.is_cpu or x.requires_grad):
            return False
    return True


def is_plain(*tensors: Tensor | None) -> bool:
    """Return whether all tensors are plain data in main memory, in eager mode, and are not differentiated."""
    return is_plain_data(*tensors) and is_eager()


def is_plain_for_inductor(*tensors: Tensor | None) -> bool:
    """Return whether Inductor compiles the calling code, for tensors in main memory, not differentiated or mapped over."""
    return is_for_inductor() and is_plain_data(*tensors) and not is_transformed_while_tracing()


def is_meta_data(x: Tensor) -> bool:
    """Return whether x is on the meta device without tracing: metering then counts the kernels of main memory."""
    return x.is_meta and type(x) is Tensor and not x.requires_grad and is_eager()


def can_look_at(x: Tensor) -> bool:
    """Return whether values of x can be read: in eager mode, in main memory."""
    return x.is_cpu and type(x) is Tensor and is_eager()


def forward_levels() -> int:
    """Return the number of active levels of forward mode, ``torch.func.jvp``; 0 if torch does not expose it."""
    if interpreters is None or transform_kinds is None:
        return 0
    return len([one for one in interpreters() or () if one.key() == transform_kinds.Jvp])


def transform_level() -> int:
    """Return the number of active transforms of ``torch.func``; 0 in compiled code, where they are hidden.

    If torch does not expose the count, return 1 for any number of transforms.
    """
    top = None if is_compiling() else _at_work()
    return 0 if top is None else 1 if top is True else top.level()
