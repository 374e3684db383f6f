"""Plans: how a net that is applied repeatedly skips checks that its arguments passed before.

In a small layer, checks take as long as the computation: 4 of 9 µs in a ``Linear(25, 25)`` on 100 rows. A value can therefore
keep a description of earlier arguments: their structure and, as a guard in C, the type, dtype, device, shape and strides of all
their tensors. Arguments that match it have passed all checks before, so the layers' ``unchecked`` verbs compute from them, with
the same kernels and the same bits. If these fail, the checked verbs run instead and explain the error.

A plan is made for plain tensors in main memory, in eager mode, and without autocast, gradients or transforms.
"""

from collections.abc import Callable
from operator import itemgetter
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, strided

from funcnet.codec import TreeCodec
from funcnet.flattening import flatten_together
from funcnet.kernels import choices
from funcnet.kernels.threads import are_several, are_small, with_one_thread
from funcnet.kernels.tracing import any_nested, is_autocast, is_eager, is_plain_data, tensor_guard

KEPT = 4
"""Number of plans that one value keeps: for the shapes of training batches, of the last batch, and of evaluation."""

VERBS = ("__call__", "apply", "vjp", "grads", "input_grad")
"""The verbs that ``unchecked`` replaces."""

_R = TypeVar("_R")
_get_num_threads: Callable[[], int] = torch.get_num_threads


class Unchecked(NamedTuple):
    """Verbs of a layer for arguments that need no checks."""

    apply: Callable[[Any, Any], tuple[Any, Any]]
    vjp: Callable[[Any, Any, Any], tuple[Any, Any]]
    grads: Callable[[Any, Any, Any], Any]


class Plan(Generic[_R]):
    """The function to run for arguments like earlier ones, if kernel choices and the number of threads are still the same.

    The guard checks each tensor once. In a cache, most tensors occur twice, as the output of one layer and the input of the next;
    the same two places must then hold the same tensor again.
    """

    __slots__ = ("again", "check", "choices", "distinct", "first", "read", "run", "threads")

    def __init__(self, arguments: Any, tensors: list[Tensor], run: _R) -> None:
        self.read, self.run = TreeCodec(arguments).read, run
        self.choices, self.threads = choices.state(), _get_num_threads()
        places: dict[int, int] = {}
        firsts = [places.setdefault(id(x), i) for i, x in enumerate(tensors)]
        twice = [(i, first) for i, first in enumerate(firsts) if i != first]
        self.again, self.first = (tuple(column) for column in (zip(*twice, strict=True) if twice else ((), ())))
        self.distinct = itemgetter(*places.values()) if twice and len(places) > 1 else None
        self.check = tensor_guard([tensors[i] for i in places.values()] if self.distinct else tensors)

    def fits(self, arguments: Any) -> bool:
        """Return whether arguments are like those of the plan; an error about structure or leaves means no."""
        tensors: Any = self.read(arguments)
        if self.distinct is not None:
            for i, first in zip(self.again, self.first, strict=True):
                if tensors[i] is not tensors[first]:
                    return False
            tensors = self.distinct(tensors)
        same = self.choices == choices.state() and self.threads == _get_num_threads()
        return same and not any_nested(tensors) and self.check(*tensors)


class Plans(Generic[_R]):
    """The plans of one verb of a value; they pickle empty. ``copy.copy`` shares them, and ``copy.deepcopy`` makes empty ones.

    Plans are only replaced, never written to, so threads may share the value.
    """

    __slots__ = ("known", "missed")

    known: tuple[Plan[_R], ...]
    missed: int

    def __init__(self) -> None:
        self.known, self.missed = (), 0

    def __reduce__(self) -> tuple[Any, ...]:
        return Plans, ()

    def find(self, arguments: Any) -> _R | None:
        """Return the function for arguments like these; ``None`` without a plan. It takes 1.9 µs for ten tensors."""
        if not is_eager():  # hide plans from Dynamo: it would trace again whenever they change
            return None
        for plan in self.known:
            try:
                if plan.fits(arguments):
                    return plan.run
            except (LookupError, TypeError, AttributeError):
                continue
        return None

    def is_due(self) -> bool:
        """Return whether to make a plan after a call without one: after the 2nd, 4th, 8th ... of them.

        A plan takes a millisecond to make, and some arguments cannot have one. ``torch.jit.trace`` compares two calls, which
        would differ if a plan were made in the first.
        """
        if not is_eager() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            return False
        self.missed += 1
        return self.missed > 1 and self.missed & (self.missed - 1) == 0

    def learn(self, arguments: Any, make: Callable[[], _R | None], results: Any) -> None:
        """Keep the result of ``make`` as the function for arguments like these, unless they need a check in each call.

        If all kernels for these arguments and results use one thread, the number of threads is set once around all of them; the
        bits are the same.

        An error means no plan: a verb may have accepted an argument that it does not read, such as a weight that is not a tensor
        in ``grads``.
        """
        try:
            tensors = flatten_together(arguments)[0]
            if is_autocast() or not all(map(_is_plain, tensors)):
                return
            is_alone = are_several() and are_small(
                [x for x in flatten_together((arguments, results))[0] if isinstance(x, Tensor)]
            )
            run = with_one_thread(make)() if is_alone else make()
            if run is not None:
                self.known = (Plan(arguments, tensors, _on_one_thread(run) if is_alone else run), *self.known[: KEPT - 1])
        except Exception:
            return


def _on_one_thread(run: Any) -> Any:
    """Return a function, or verbs, that run only on the calling thread."""
    return Unchecked(*[with_one_thread(verb) for verb in run]) if isinstance(run, Unchecked) else with_one_thread(run)


def _is_plain(x: Any) -> bool:
    """Return whether a leaf is a dense tensor in main memory, without a gradient or half precision."""
    if not isinstance(x, Tensor) or not is_plain_data(x) or x.is_nested or x.layout is not strided:
        return False
    return x.numel() > 0 and x.dtype in (torch.float32, torch.float64, torch.int64)


def has_own(kind: type, hook: str, *verbs: str) -> bool:
    """Return whether the hook of a class belongs to its own verbs: no class derived from the one with the hook overrides them."""
    source = next(one for one in kind.__mro__ if hook in vars(one))
    return all([_without_guards(kind, verb) is _without_guards(source, verb) for verb in verbs])  # noqa: C419


def _without_guards(kind: type, verb: str) -> Any:
    """Return a verb without the guards around it."""
    f: Any = getattr(kind, verb, None)
    while hasattr(f, "__wrapped__"):
        f = f.__wrapped__
    return f
