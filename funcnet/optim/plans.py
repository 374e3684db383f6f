"""Plans: generated code for updates of params with a known structure, whose tensors match tensors that were checked before.

The general update lists the leaves of each tree, joins the lists, compares all tensors with the guards, and builds new trees. For
an SGD step of eight tensors this takes 11 µs, in addition to 9 µs for the kernels. A plan takes 5 µs and consists of two
functions. For ``({"weight": p_0_0, "bias": p_0_1}, ())`` and SGD without momentum they are

    if type(state) is not dict or len(state) != 1: raise LookupError
    p, g, step, = params, grads, state["step"],
    if type(p) is not tuple or len(p) != 2: raise LookupError
    p_0, p_1, = p
    ...
    if step.is_nested or p_0_0.is_nested or ...: raise LookupError
    if not check(step, p_0_0, p_0_1, g_0_0, g_0_1, ): raise LookupError
    return Rows(([p_0_0, p_0_1, ], [g_0_0, g_0_1, ], )), (), step

    (p_0_0, p_0_1, ), = columns
    return ({"weight": p_0_0, "bias": p_0_1, }, (), ), {"step": step, }

Leaves without a gradient, like running statistics, do not change: they are passed from the old trees to the new trees.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor

from funcnet.codec import PLAIN, function_of, is_node, order_check, put_together, take_apart
from funcnet.flattening import Tree
from funcnet.kernels.optim_rows import RowsStep
from funcnet.kernels.optim_steps import Rows
from funcnet.kernels.tracing import is_eager
from funcnet.optim.columns import GUARDS, CheckedColumns


class Plan:
    """Generated functions for updates of params with the same structure, and gradients for the same leaves.

    ``read(grads, state, params)`` returns the columns of the leaves with a gradient, the other leaves, and the step. It raises an
    error if anything has changed. ``write(columns, others, step)`` returns the new params and state. ``run(columns, step)`` makes
    the whole step of the columns; if it is ``None``, the optimizer's ``step`` makes it.
    """

    __slots__ = ("half", "read", "run", "write")

    read: Callable[[Tree, Tree, Tree], tuple[Any, tuple[Any, ...], Tensor]]
    write: Callable[[Sequence[Sequence[Tensor]], tuple[Any, ...], Tensor], tuple[Tree, Tree]]

    def __init__(
        self,
        params: Tree,
        absent: Sequence[bool],
        moments: Sequence[str],
        known: CheckedColumns,
        donated: bool,
        run: RowsStep | None,
    ) -> None:
        """Generate the code; raise ``LookupError`` for a structure that is not supported.

        Args:
            params: Params with this structure.
            absent: Whether each leaf has no gradient.
            moments: The names of the moments.
            known: The record of the columns of the leaves with a gradient.
            donated: Whether to check that the addresses are known to share no memory.
            run: A function for the step of columns in rows.
        """
        code = _Code(params, absent, moments)
        self.half, self.run = known.half, run if known.in_rows and not known.half else None
        self.read, self.write = code.reading(known, donated), code.writing()


class PlanCache:
    """The plans of an optimizer. Copies and pickles are empty. Contents are replaced, never modified: threads can share them."""

    __slots__ = ("plans", "seen")

    plans: tuple[Plan, ...]
    seen: tuple[CheckedColumns, ...]

    def __init__(self) -> None:
        self.plans, self.seen = (), ()

    def __reduce__(self) -> tuple[Any, ...]:
        return PlanCache, ()

    def find(self, grads: Tree, state: Tree, params: Tree) -> tuple[Plan, Any] | None:
        """Return the plan for an update and the result of its ``read``; ``None`` without a plan, and always in compiled code."""
        # Dynamo must not see the plans: it would retrace whenever they change.
        for plan in self.plans if is_eager() else ():
            try:
                return plan, plan.read(grads, state, params)
            except Exception:  # the general update then accepts or rejects these trees
                continue
        return None

    def wants(self, known: CheckedColumns) -> bool:
        """Return whether a plan pays off: when columns are seen a second time. Its code takes 1 ms for eight tensors.

        If the structure keeps changing, only the first few plans are kept.
        """
        if known in self.seen:
            return len(self.plans) < GUARDS
        self.seen = (known, *self.seen[: GUARDS - 1])
        return False

    def learn(self, *arguments: Any) -> None:
        """Add a plan with the arguments of ``Plan``, if its code can be generated."""
        try:
            self.plans = (Plan(*arguments), *self.plans)
        except LookupError:
            return


class _Code:
    """The lines of code that unpack the trees of an update, and the names of their leaves."""

    def __init__(self, params: Tree, absent: Sequence[bool], moments: Sequence[str]) -> None:
        self.params, self.absent, self.moments = params, absent, moments
        self.trees = ["p", "g", *[f"m{i}" for i in range(len(moments))]]
        self.lines: list[str] = []
        self.scope: dict[str, Any] = {"PLAIN": PLAIN, "is_node": is_node, "Rows": Rows, "KEYS": []}
        dicts: list[str] = []  # the new trees keep the key order of params
        self.leaves = [
            take_apart(params, name, self.lines, self.scope, None if i else dicts) for i, name in enumerate(self.trees)
        ]
        if dicts:
            self.lines.append(order_check(dicts))
        self.columns = [self._select(names, absent=False) for names in self.leaves]
        self.others = [name for names in self._held(self.leaves) for name in self._select(names, absent=True)]

    def _select(self, names: Sequence[str], absent: bool) -> list[str]:
        return [name for name, one in zip(names, self.absent, strict=True) if one is absent]

    def _held(self, rows: Sequence[Any]) -> Sequence[Any]:
        """Return the rows of params and moments."""
        return [rows[0], *rows[2:]]

    def reading(self, known: CheckedColumns, donated: bool) -> Callable[..., Any]:
        scope = {**self.scope, "check": known.guard, "known": known}
        entries = "".join(f"state[{name!r}], " for name in ("step", *self.moments))
        lines = [
            f"if type(state) is not dict or len(state) != {1 + len(self.moments)}: raise LookupError",
            f"p, g, step, {_row(self.trees[2:])}= params, grads, {entries}",
            *self.lines,
            f"others = ({_row(self.others)})",
            *self._checks([name for column in self.columns for name in column]),
        ]
        if donated:
            written, grads = [x for column in self._held(self.columns) for x in column], self.columns[1]
            lines.append(f"written = known.places.get(({_row(f'{x}.data_ptr()' for x in written)}))")
            apart = f"written.isdisjoint(({_row(f'{g}.data_ptr()' for g in grads)}))"
            lines.append(f"if written is None or not {apart}: raise LookupError")
        columns = f"({_row(f'[{_row(column)}]' for column in self.columns)})"
        lines.append(f"return {f'Rows({columns})' if known.in_rows else columns}, others, step")
        return function_of("grads, state, params", lines, scope)

    def _checks(self, tensors: Sequence[str]) -> Iterator[str]:
        """Yield the checks of all leaves. Guards crash the process on nested tensors: see ``any_nested``."""
        if self.others:
            wrong = " or ".join(f"{name} is not None" for name in self._select(self.leaves[1], absent=True))
            yield f"if {wrong}: raise LookupError"
            yield "if not PLAIN.issuperset(map(type, others)) and any(map(is_node, others)): raise LookupError"
        yield f"if {' or '.join(f'{name}.is_nested' for name in ('step', *tensors))}: raise LookupError"
        yield f"if not check(step, {_row(tensors)}): raise LookupError"

    def writing(self) -> Callable[..., Any]:
        scope, held = dict(self.scope), self._held(self.leaves)
        params, *moments = [put_together(self.params, iter(names), scope) for names in held]
        entries = "".join(f"{name!r}: {tree}, " for name, tree in zip(("step", *self.moments), ("step", *moments), strict=True))
        lines = [f"{_row(f'({_row(column)})' for column in self._held(self.columns))}= columns"]
        if self.others:
            lines.append(f"{_row(self.others)}= others")
        return function_of("columns, others, step", [*lines, f"return {params}, {{{entries}}}"], scope)


def _row(words: Iterable[str]) -> str:
    return "".join(f"{word}, " for word in words)
