"""The contract of optimizers and of gradient transforms, and the driver that the optimizers share.

    init(params) -> state                              complete before the first step
    update(grads, state, params) -> (params, state)    an optimizer: one step
    update(grads, state, params) -> (grads, state)     a gradient transform, which stands before an optimizer in a chain

1.  Pure. The same arguments give the same bits, and no argument is written to, unless it was given up by ``donate``.
2.  State is a tree of tensors whose structure, shapes and dtypes no update changes. So it is saved, compared and compiled
    like params, and a run that goes on from a saved state is the run that was never interrupted, bit for bit.
3.  A leaf whose gradient is ``None`` stays as it is, and so does all that state holds for it. For a leaf of params that is not
    floating, such as a counter, state holds ``None``. The step counts updates, not the gradients of a leaf: where its first one
    comes at update 6, it is corrected for as at step 6, and not as at step 1, which torch.optim counts for each leaf.
4.  Shapes, dtypes, devices and structure of params are kept.
5.  A rate is a number or a schedule: a function of the number of updates made before, so 0 at the first. In eager mode it is
    called with an int, in compiled code and under ``vmap`` with a 0-d tensor.
6.  All of it works under ``torch.compile(fullgraph=True)``, ``torch.func.vmap`` and on the meta device.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from operator import is_
from typing import Any, Self

import torch
from attrs import field
from torch import Tensor, strided

from funcnet import flattening, tree
from funcnet.codec import TreeCodec
from funcnet.contract import Params
from funcnet.errors import Validator, add_location, describe, flag, is_number, number, value_error
from funcnet.kernels import optim as kernels
from funcnet.kernels.tracing import any_nested, is_eager, tensor_guard
from funcnet.tree import Tree
from funcnet.value import Value, frozen

State = Any
"""A tree of tensors."""

Rate = float | Callable[[Any], Any]
"""A number, or a schedule: a function of the step, an int or a 0-d tensor."""

Columns = Sequence[Sequence[Tensor]]
"""Lists of the tensors that belong to the same leaves of params."""


class GradientTransform(Value, ABC):
    """A frozen value with ``init`` and ``update``, that makes other gradients of gradients; subclass it with ``@frozen``."""

    __slots__ = ()

    def init(self, params: Params) -> State:
        """Make the state before the first step; ``{}`` for a transform without any."""
        return {}

    @abstractmethod
    def update(self, grads: Tree, state: State, params: Params) -> tuple[Tree, State]:
        """Return the gradients for the next in the chain, and the state."""


class Optimizer(Value, ABC):
    """A frozen value with ``init`` and ``update``, that makes one step; subclass it with ``@frozen``."""

    __slots__ = ()

    @abstractmethod
    def init(self, params: Params) -> State:
        """Make the state before the first step."""

    @abstractmethod
    def update(self, grads: Tree, state: State, params: Params) -> tuple[Params, State]:
        """Return the params and the state after a step."""

    def donate(self) -> "Optimizer":
        """Return the optimizer that may write to the ``params`` and ``state`` it gets; itself where it has no such form."""
        return self


def rate(at_least: float = 0.0) -> Validator:
    """Make a validator for a number with a lower bound, or a schedule."""
    judge = number(at_least)

    def validate(value: Any, attribute: Any, got: Any) -> None:
        if not callable(got):
            judge(value, attribute, got)

    return validate


def fixed(*rates: Rate) -> Sequence[Any] | None:
    """Return rates that are all numbers; ``None`` where one is a schedule."""
    return None if any(callable(one) for one in rates) else rates


def at(step: Tensor, *rates: Rate) -> Sequence[Any]:
    """Return each rate's value at a step: a number, or a 0-d tensor from a schedule in compiled code."""
    now = kernels.read(step)
    return [kernels.materialize_scalar(one(now)) if callable(one) else one for one in rates]


@frozen
class MomentOptimizer(Optimizer):
    """An optimizer that counts its steps and holds, for each leaf, some moments of the leaf's shape.

    State    ``step``, a 0-d int64 tensor, and a tree like params for each of ``moments``, zeros at first, in float32 for params
             in half precision, whose steps are computed in float32 too and rounded once.
    Raises   ``ValueError`` for a state that is not this optimizer's, and, with the path, for trees and tensors that do not fit.
    """

    donated: bool = field(default=False, kw_only=True, validator=flag)
    # What every step would ask for again.
    _names: tuple[str, ...] = field(init=False, eq=False)
    _fixed: Sequence[Any] | None = field(init=False, eq=False)
    _guards: "_GuardCache" = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_names", self.moments)
        object.__setattr__(self, "_fixed", self.constant_rates())
        object.__setattr__(self, "_guards", _GuardCache())

    @property
    @abstractmethod
    def moments(self) -> tuple[str, ...]:
        """The names of the moments."""

    @abstractmethod
    def rates_at(self, step: Tensor) -> Sequence[Any]:
        """Return the rates for the update that follows ``step`` others."""

    @abstractmethod
    def constant_rates(self) -> Sequence[Any] | None:
        """Return the rates where they are the same at every step, so that no step asks for them; else ``None``."""

    @abstractmethod
    def step(self, columns: Columns, step: Tensor, rates: Sequence[Any]) -> Columns:
        """Return new lists of params and moments from lists of params, gradients and moments.

        Their shapes and dtypes agree; ``step`` counts this update too.
        """

    def donate(self) -> Self:
        return self.replace(donated=True)

    def init(self, params: Params) -> State:
        zeros = lambda leaf: _moment(leaf) if _floating(leaf) else None
        return {"step": torch.zeros((), dtype=torch.int64), **{name: tree.map(zeros, params) for name in self.moments}}

    def update(self, grads: Tree, state: State, params: Params) -> tuple[Params, State]:
        names = self._names
        try:
            if len(state) != 1 + len(names):
                raise LookupError
            columns, write = self._guards.flatten((params, grads, *[state[name] for name in names]))
            step, new = self._new(columns, state["step"])
        except Exception as error:
            raise self._explained(error, grads, state, params) from None
        if self.donated and all(map(is_, new, (columns[0], *columns[2:]))):
            return params, {**state, "step": step}
        params, *moments = [write(column) for column in new]
        state = {"step": step}
        state.update(zip(names, moments, strict=True))
        return params, state

    def _new(self, columns: Columns, step: Tensor) -> tuple[Tensor, Columns]:
        """Return the next step and the new columns of params and moments; the rows without a gradient stay."""
        if not columns[1] or _ABSENT in map(type, columns[1]):
            return self._new_in_part(columns, step)
        fits = self._guards.fit(columns)
        if not fits and not _agree(columns):
            raise LookupError
        rates = self._fixed or self._checked(self.rates_at(step))
        step = self._next(step)
        if not fits and kernels.any_half(columns[0]):  # these no guard is made of
            return step, kernels.in_single(lambda wide: self.step(wide, step, rates), columns, self.donated)
        if not fits:
            self._guards.learn(columns)
        return step, self.step(columns, step, rates)

    def _checked(self, rates: Sequence[Any]) -> Sequence[Any]:
        """Return the rates of schedules, which must be numbers, before anything is written."""
        for one in rates:
            if not (is_number(one) or (isinstance(one, Tensor) and one.dim() == 0 and not one.is_complex())):
                raise value_error(self, "a schedule must return a finite number, or a 0-d tensor", describe(one))
        return rates

    def _next(self, step: Tensor) -> Tensor:
        """Count: only once all fits, so that what was given up is as it was where it does not."""
        return step.add_(1) if self.donated else step + 1

    def _new_in_part(self, columns: Columns, step: Tensor) -> tuple[Tensor, Columns]:
        places = [i for i, g in enumerate(columns[1]) if g is not None]
        old = [columns[0], *columns[2:]]
        if not places:
            return self._next(step), old
        some = [[column[i] for i in places] for column in columns]
        step, parts = self._new(some, step)
        new = zip(old, [some[0], *some[2:]], parts, strict=True)
        return step, [column if part is given else _replaced(column, places, part) for column, given, part in new]

    def _explained(self, error: Exception, grads: Tree, state: State, params: Params) -> Exception:
        """Turn an error into ours: the state first, then the trees, then their leaves; else as it was."""
        names = ("step", *self.moments)
        if not isinstance(state, dict) or {*state} != {*names}:
            return value_error(self, f"state must be a dict of {', '.join(names)}, as init makes it", state)
        others = {"grads": grads, **{name: state[name] for name in self.moments}}
        try:
            flattening.flatten_together(params, *others.values())
        except ValueError as misfit:
            add_location(misfit, f"{self}, update: params against {', '.join(others)}")
            return misfit
        return self._misfit(others, params) or error

    def _misfit(self, others: dict[str, Tree], params: Params) -> Exception | None:
        """Find the first leaf with a gradient where something is not as its parameter is."""
        named, leaves = {name: tree.names(other) for name, other in others.items()}, tree.names(params)
        for path, p in [(path, leaves.get(path)) for path in named["grads"]]:
            if not _floating(p):
                return value_error(
                    self, f"grads must have None at {path!r}, where params has {describe(p)}", named["grads"][path]
                )
            for name, other in named.items():
                like = p if name == "grads" else _moment(p)
                if not isinstance(other.get(path), Tensor) or _kind(other[path]) != _kind(like):
                    rule = f"{name} must have at {path!r} what params has, {_kind(like)}"
                    return value_error(self, rule, _kind(other.get(path)))
        return None


def _floating(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def _moment(p: Any) -> Tensor:
    """Return a first moment of a parameter."""
    return torch.zeros_like(p, dtype=kernels.wide(p.dtype))


def _kind(leaf: Any) -> str:
    return describe(leaf) + (f" on {leaf.device}" if isinstance(leaf, Tensor) and not leaf.is_cpu else "")


Write = Callable[[Sequence[Any]], Tree]


class _GuardCache:
    """The structures and the shapes of the params that an optimizer met last, as codecs and guards; it pickles and copies empty.

    The tuples are never written to, only exchanged, so threads may share an optimizer.
    """

    __slots__ = ("codecs", "guards")

    codecs: tuple[TreeCodec, ...]
    guards: tuple[tuple[Any, ...], ...]

    def __init__(self) -> None:
        self.codecs, self.guards = (), ()

    def __reduce__(self) -> tuple[Any, ...]:
        return _GuardCache, ()

    def flatten(self, trees: tuple[Tree, ...]) -> tuple[list[list[Any]], Write]:
        """Return the leaves of trees that agree, and the function that makes a tree of leaves.

        Three trees of eight leaves take 1.5 µs with the code that a codec writes, and 2.7 node by node; to make two, 0.6 and 2.0.
        """
        is_known = is_eager()
        for codec in self.codecs if is_known else ():
            try:
                return [codec.read(tree) for tree in trees], codec.write
            except LookupError:
                continue
        columns = flattening.flatten_together(*trees)
        if is_known and len(self.codecs) < _GUARDS:
            self.codecs = (*self.codecs, TreeCodec(trees[0]))
        return columns, lambda column: flattening.unflatten(trees[0], iter(column))

    def fit(self, columns: Columns) -> bool:
        """Tell that columns are like some that agreed before, each like its own; ``False`` if that takes a closer look."""
        first, others = columns[0], columns[1:]
        if not first or type(first[0]) is not Tensor or not is_eager() or first[0].is_nested or any_nested(others[0]):
            return False
        kind = len(columns), len(first)
        for known, alike, *guards in self.guards:
            if known == kind and alike(*first) and all([one(*column) for one, column in zip(guards, others, strict=True)]):  # noqa: C419
                return True
        return False

    def learn(self, columns: Columns) -> None:
        """Make guards of columns that agree; one serves all columns that are like each other."""
        if not columns[0] or type(columns[0][0]) is not Tensor or not is_eager():
            return
        guards: list[Callable[..., bool]] = []
        for column in columns:
            guards.append(next((one for one in guards if one(*column)), None) or tensor_guard([*column]))
        self.guards = (((len(columns), len(columns[0])), *guards), *self.guards[: _GUARDS - 1])


_ABSENT = type(None)

# Two nets, or groups of params, that take turns find their guards; a search through 8 that do not fit takes 1.5 µs.
_GUARDS = 8


def _agree(columns: Columns) -> bool:
    """Tell that in every row shapes, dtypes and devices agree, where kernels would broadcast or promote.

    Steps in ``torch.inference_mode`` come here, whose gradients are of another kind than params: for eight leaves it takes 4 µs.
    """
    for p, g, *moments in zip(*columns, strict=True):
        shape, dtype = p.shape, p.dtype
        if g.shape != shape or g.dtype is not dtype or g.is_cpu is not p.is_cpu or g.layout is not strided:
            return False
        if dtype in kernels.HALF:
            dtype = torch.float32
        for moment in moments:
            if moment.shape != shape or moment.dtype is not dtype:
                return False
    return True


def _replaced(column: Sequence[Tensor], places: list[int], new: Sequence[Tensor]) -> list[Tensor]:
    column = list(column)
    for i, x in zip(places, new, strict=True):
        column[i] = x
    return column
