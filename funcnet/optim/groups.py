"""``by_path``: a separate optimizer for each group of params. ``freeze_params``: no steps for some of them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from attrs import field
from torch import Tensor

from funcnet import flattening
from funcnet.contract import Grads, Params
from funcnet.errors import add_location, adds_location, describe, value_error
from funcnet.flattening import Tree
from funcnet.kernels.tracing import is_eager
from funcnet.optim.base import Optimizer, State
from funcnet.optim.columns import GUARDS, GuardCache, Write, is_dense
from funcnet.optim.evaluating import inner_optimizer
from funcnet.optim.misfits import explained
from funcnet.paths import matches, named_leaves
from funcnet.value import frozen, parts

Chooser = str | Callable[[str, Tensor], Any]
"""A pattern for the dotted path of a leaf, or a function of the path and the leaf."""

Groups = tuple[tuple[Chooser, Optimizer | None], ...]


def is_matrix(path: str, leaf: Tensor) -> bool:
    """Return whether a leaf is a matrix, with two axes; for ``by_path``.

    The bias vectors of layers stacked by ``repeat`` or ``ensemble`` have two axes too: select them by pattern.

    Args:
        path: The dotted path of the leaf; ignored.
        leaf: A tensor of params.

    Raises:
        ValueError: If ``leaf`` is not a tensor.

    >>> import torch
    >>> is_matrix("0.weight", torch.ones(3, 2)), is_matrix("0.bias", torch.ones(3))
    (True, False)
    """
    if not isinstance(leaf, Tensor):
        raise value_error("is_matrix", "leaf must be a tensor", describe(leaf))
    return leaf.dim() == 2


def _groups(value: Any, attribute: Any, got: Any) -> None:
    is_pairs = isinstance(got, tuple) and got and all([isinstance(one, tuple) and len(one) == 2 for one in got])  # noqa: C419
    if not is_pairs:
        raise value_error("by_path", "groups must be a dict of optimizers by pattern or function", got)
    for chooser, opt in got:
        if not isinstance(chooser, str) and not callable(chooser):
            raise value_error("by_path", "a group must be chosen with a pattern, or with a function of path and leaf", chooser)
        if opt is not None and not isinstance(opt, Optimizer):
            raise value_error("by_path", f"the group {_label(chooser)!r} must have an optimizer, or None to freeze it", opt)
        if opt is not None:
            inner_optimizer(value, attribute, opt)


def _label(chooser: Chooser) -> str:
    return chooser if isinstance(chooser, str) else getattr(chooser, "__name__", repr(chooser))


def _selects(chooser: Chooser, path: str, leaf: Any) -> bool:
    return matches(path, chooser) if isinstance(chooser, str) else bool(chooser(path, leaf))


class GroupCache(GuardCache):
    """A ``GuardCache`` that also stores the group of each leaf, by structure and shapes of params."""

    __slots__ = ("numbers",)

    numbers: dict[Any, list[int | None]]

    def __init__(self) -> None:
        super().__init__()
        self.numbers = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return GroupCache, ()


@frozen
class ByPath(Optimizer):
    """An optimizer for each group of params; made by ``by_path``.

    Args:
        groups: Pairs of a pattern or a function, and an optimizer or ``None``.
    """

    label = "by_path"

    groups: Groups = field(validator=_groups)
    _donated: bool = field(init=False, eq=False)
    _guards: GroupCache = field(init=False, eq=False, factory=GroupCache)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_donated", any([getattr(one, "donated", False) for one in parts(self.groups)]))  # noqa: C419

    @property
    def acts_on(self) -> str:
        return "tree"  # paths differ in a part of params

    def init(self, params: Params) -> State:
        leaves, chosen = flattening.flatten_together(params)[0], self.chosen(params)
        self._require_frozen(params)
        own = [flattening.unflatten(params, iter(_own(leaves, chosen, i))) for i in range(len(self.groups))]
        return tuple([{} if opt is None else self._init(i, opt, own[i]) for i, (_, opt) in enumerate(self.groups)])

    def _require_frozen(self, params: Params) -> None:
        """Raise if a pattern that freezes params begins with a name and matches nothing: a typo would leave them trained."""
        paths = [path for path, leaf in named_leaves("", params) if leaf is not None]
        for chooser, opt in self.groups if paths else ():
            named = opt is None and isinstance(chooser, str) and chooser[:1] not in ("*", "?", "[")
            if named and not any([matches(path, str(chooser)) for path in paths]):  # noqa: C419
                rule = f"the pattern {chooser!r} of frozen params must match a path in params"
                raise value_error(self, rule, f"the paths {', '.join(map(repr, paths[:6]))}{', ...' * (len(paths) > 6)}")

    def _init(self, i: int, opt: Optimizer, part: Params) -> State:
        with self._errors_at(i):
            return opt.init(part)

    def update(self, grads: Grads, state: Any, params: Params) -> tuple[Params, State]:
        self._require_state(state)
        (ps, gs), write, chosen = self._check_leaves(grads, state, params)
        new, after = ps, list(state)
        for i, opt in self._optimizers():
            with self._errors_at(i):
                stepped, after[i] = opt.update(write(_own(gs, chosen, i)), state[i], write(_own(ps, chosen, i)))
            found = self._guards.flatten((stepped,))[0][0]
            new = [x if j == i else p for x, p, j in zip(found, new, chosen, strict=True)]
        return write(new), tuple(after)

    def eval_params(self, state: State, params: Params) -> Params:
        self._require_state(state)
        leaves, chosen = flattening.flatten_together(params)[0], self.chosen(params)
        new = leaves
        for i, opt in self._optimizers():
            with self._errors_at(i):
                part = opt.eval_params(state[i], flattening.unflatten(params, iter(_own(leaves, chosen, i))))
            found = flattening.flatten_together(part)[0]
            new = [x if j == i else p for x, p, j in zip(found, new, chosen, strict=True)]
        made: Params = flattening.unflatten(params, iter(new))
        return made

    def _check_leaves(self, grads: Tree, state: State, params: Params) -> tuple[list[list[Any]], Write, list[int | None]]:
        """Return the leaves of params and gradients, and the group of each. If donated, all checks precede the first write."""
        try:
            columns, write = self._guards.flatten((params, grads))
            rows = [row for row in zip(*columns, strict=True) if row[1] is not None]
            present = [[*column] for column in zip(*rows, strict=True)]
            known = self._guards.find(present) if present else None
            if present and (known is None or (self._donated and not known.is_apart(present))):
                self._guards.check(present, None, self._donated)
        except Exception as error:
            raise explained(self, error, params, {"grads": grads}, self._donated) from None
        chosen = self._cached_groups(params, columns[0], write)
        if self._donated and is_eager():
            self._require_parts(state, columns[0], write, chosen)
        return columns, write, chosen

    def _require_parts(self, state: State, leaves: list[Any], write: Write, chosen: list[int | None]) -> None:
        for i, opt in self._optimizers():
            with self._errors_at(i):
                opt.require_fit(state[i], write(_own(leaves, chosen, i)))
                opt.rates(state[i])

    def _cached_groups(self, params: Params, leaves: list[Any], write: Any) -> list[int | None]:
        """Return the group of each leaf, from the cache if the structure is known: patterns take 2 µs per leaf."""
        if not any([write == codec.write for codec, _ in self._guards.codecs]):  # noqa: C419
            return self.chosen(params)
        key = (write, *[(x.shape, x.dtype) if isinstance(x, Tensor) else None for x in leaves])
        if key not in self._guards.numbers:
            known = dict([*self._guards.numbers.items()][1 - GUARDS :])
            self._guards.numbers = {**known, key: self.chosen(params)}
        return self._guards.numbers[key]

    def chosen(self, params: Params) -> list[int | None]:
        """Return the index of the first group that selects each leaf; ``None`` for leaves that no optimizer steps."""
        return [self._group(path, leaf) if is_dense(leaf) else None for path, leaf in named_leaves("", params)]

    def _group(self, path: str, leaf: Tensor) -> int:
        for i, (chooser, _) in enumerate(self.groups):
            if _selects(chooser, path, leaf):
                return i
        rule = 'every floating leaf of params must belong to a group; add a last group "*", with None to freeze the others'
        raise value_error(self, rule, f"none for {path!r}")

    def require_fit(self, state: State, params: Params) -> None:
        self._require_state(state)
        if self._donated and is_eager():
            (leaves,), write = self._guards.flatten((params,))
            self._require_parts(state, leaves, write, self._cached_groups(params, leaves, write))

    def rates(self, state: State) -> dict[str, Any]:
        """Return the rates of all groups, prefixed with the pattern or the name of the function: ``"*.bias.lr"``."""
        self._require_state(state)
        rates = [(_label(self.groups[i][0]), opt.rates(state[i])) for i, opt in self._optimizers()]
        return {f"{label}.{name}": one for label, own in rates for name, one in own.items()}

    def map_state(self, f: Callable[..., Tree], state: Any, *others: Any) -> State:
        self._require_state(state)
        rows = zip(self.groups, state, *others, strict=True)
        return tuple([{} if opt is None else opt.map_state(f, *own) for (_, opt), *own in rows])

    def donate(self) -> "ByPath":
        return self.replace(groups=tuple([(one, opt and opt.donate()) for one, opt in self.groups]))

    def _optimizers(self) -> Iterator[tuple[int, Optimizer]]:
        return ((i, opt) for i, (_, opt) in enumerate(self.groups) if opt is not None)

    def _require_state(self, state: State) -> None:
        if not isinstance(state, tuple) or len(state) != len(self.groups):
            raise value_error(self, f"state must be a tuple of {len(self.groups)}, one for each group", state)

    @contextmanager
    def _errors_at(self, i: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            add_location(error, f"by_path, group {_label(self.groups[i][0])!r}")
            raise

    def __repr__(self) -> str:
        words = [f"{one!r}: {opt!r}" if isinstance(one, str) else f"{_label(one)}: {opt!r}" for one, opt in self.groups]
        return f"by_path({{{', '.join(words)}}})"


def _own(leaves: list[Any], chosen: list[int | None], i: int) -> list[Any]:
    """Return the leaves of one group, with ``None`` in place of all others."""
    return [x if j == i else None for x, j in zip(leaves, chosen, strict=True)]


def by_path(groups: Mapping[Chooser, Optimizer | None]) -> ByPath:
    """Combine optimizers, each for a group of params.

        p ← the step of the optimizer of the first group that selects p

    A leaf belongs to the first group whose pattern or function selects it. Patterns match its dotted path, like ``"encoder.*"``
    or ``"*.bias"``: ``*`` is any text, ``?`` any character and ``[ab]`` one of several. Functions like ``is_matrix`` receive the
    path and the leaf, and can test its shape and dtype. ``None`` in place of an optimizer freezes a group.

    A chain inside a group clips by the norm of that group; ``chain(clip, by_path(...))`` clips by the norm of all gradients.

    Args:
        groups: The optimizers by pattern or function; the order matters. Each optimizer counts the same updates.

    State:
        A tuple with the state of each group's optimizer for its leaves, ``{}`` for ``None``: ``"0.exp_avg.0.weight"``.

    Raises:
        ValueError: If ``groups`` is not such a dict; from ``init`` if a floating leaf belongs to no group, or if the pattern of a
            frozen group begins with a name and matches no path.

    References:
        ``optax.partition``, and the param groups of ``torch.optim.Optimizer``.

    >>> import torch
    >>> from funcnet.optim.adam import AdamW
    >>> from funcnet.optim.muon import Muon
    >>> opt = by_path({is_matrix: Muon(lr=0.02), "*": AdamW(lr=3e-4)})
    >>> opt.rates(opt.init({"weight": torch.ones(2, 2), "bias": torch.ones(2)}))["*.lr"]
    0.0003
    """
    if not isinstance(groups, Mapping):
        raise value_error("by_path", "groups must be a dict of optimizers by pattern or function", groups)
    return ByPath(tuple(groups.items()))


@adds_location("freeze_params")
def freeze_params(optimizer: Optimizer, *patterns: Chooser) -> ByPath:
    """Make an optimizer that freezes the params selected by patterns or functions.

        p ← p if one of the ``patterns`` selects p, else the step of ``optimizer``

    Gradients are still computed: wrap the layer in ``freeze`` to save that work.

    Args:
        optimizer: The optimizer of the other params.
        patterns: Patterns for dotted paths, or functions of path and leaf, as in ``by_path``.

    State:
        The state of ``by_path``; the last entry is the state of ``optimizer``.

    Raises:
        ValueError: If a pattern is neither a string nor a function; from ``init`` if it begins with a name and matches no path.

    References:
        ``optax.freeze``.

    >>> from funcnet.optim.sgd import SGD
    >>> freeze_params(SGD(0.1), "encoder.*")
    by_path({'encoder.*': None, '*': SGD(lr=0.1)})
    """
    for pattern in patterns:
        if not isinstance(pattern, str) and not callable(pattern):
            raise value_error("freeze_params", "patterns must be strings, or functions of path and leaf", describe(pattern))
    return by_path({**dict.fromkeys(patterns), "*": optimizer})
