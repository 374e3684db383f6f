"""Trees: params, gradients, caches and optimizer states are dicts and tuples of tensors, nested as one likes.

A node is a dict, a tuple (a named one too) or a list; all else is a leaf. A leaf has a path, its keys and positions joined
by dots: ``"0.weight"``. A ``None`` leaf is an absent tensor, and every function passes over it: ``leaves``, ``names`` and the
sums skip it, ``map`` keeps it. Functions of two trees match dicts by key, whatever their order, and raise
``ValueError`` with the first path where the trees disagree.
"""

import functools
from builtins import map as _each
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from funcnet import flattening
from funcnet.errors import describe as _described
from funcnet.errors import explains, value_error
from funcnet.flattening import differences, flatten_together, unflatten
from funcnet.paths import child_at, grown_from, keys_along, named_leaves, replaced
from funcnet.precision import in_single
from funcnet.statistics import Description, statistics_of

Tree = flattening.Tree

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _of_tensors(trees: int = 1, other: str = "") -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Let a function of so many ``trees`` of tensors explain its errors; ``other`` is the rule for its other arguments."""

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @functools.wraps(function)
        def checked(*arguments: _P.args, **named: _P.kwargs) -> _R:
            try:
                return function(*arguments, **named)
            except Exception as error:
                if explains(error) or not isinstance(error, (TypeError, AttributeError, RuntimeError, ValueError)):
                    raise
                raise _explained(function.__name__, (*arguments, *named.values()), trees, other) from error

        return checked

    return decorate


def _explained(who: str, arguments: tuple[Any, ...], trees: int, other: str) -> ValueError:
    for one in arguments[:trees]:
        for path, leaf in named_leaves("", one):
            if leaf is not None and not isinstance(leaf, Tensor):
                return value_error(who, f"every leaf must be a tensor, at {path!r} too", _described(leaf))
    came = " and ".join(_each(_described, arguments[trees:] or arguments))
    return value_error(who, other or "the tensors of the trees must fit each other", came)


def _require_function(who: str, f: Any) -> None:
    if not callable(f):
        raise value_error(who, f"{'predicate' if who == 'partition' else 'f'} must be a function", _described(f))


def map(f: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:  # noqa: A001 (the field's word for it)
    """Apply ``f`` to every leaf of a tree, with those of ``rest`` at its place; a place where one is absent stays ``None``.

    >>> map(lambda a, b: a + b, {"w": 1, "b": None}, {"b": None, "w": 2})
    {'w': 3, 'b': None}
    """
    _require_function("map", f)
    rows = zip(*flatten_together(tree, *rest), strict=True)
    return unflatten(tree, iter([None if any(leaf is None for leaf in row) else f(*row) for row in rows]))


def leaves(tree: Tree) -> list[Any]:
    """List the leaves of a tree that are there, in order."""
    return [leaf for leaf in flatten_together(tree)[0] if leaf is not None]


def structure(tree: Tree) -> Tree:
    """Return the tree with ``"*"`` for every leaf, absent or not: two trees fit each other when their structures are equal."""
    return unflatten(tree, iter(["*"] * len(flatten_together(tree)[0])))


def names(tree: Tree) -> dict[str, Any]:
    """Map each leaf's dotted path to the leaf; the path of a tree that is one leaf is ``""``.

    >>> names(({"weight": 1, "bias": 2}, {}, {"weight": 3}))
    {'0.weight': 1, '0.bias': 2, '2.weight': 3}

    Raises   ``ValueError`` for two leaves with the same path, as from the keys ``1`` and ``"1"``.
    """
    pairs = [(path, leaf) for path, leaf in named_leaves("", tree) if leaf is not None]
    named = dict(pairs)
    if len(named) < len(pairs):
        raise value_error("names", "the paths of the leaves must be unique", ", ".join(path for path, _ in pairs))
    return named


def _along(f: Callable[[str, Any], Any], tree: Tree) -> Tree:
    """Map with the path; absent leaves stay."""
    return unflatten(tree, iter([None if leaf is None else f(path, leaf) for path, leaf in named_leaves("", tree)]))


def from_names(named: dict[str, Any], like: Tree = None) -> Tree:
    """Build the tree with these named leaves: the way back from ``names``, and from a ``state_dict``.

    With ``like``, the structure (and so every absent leaf and empty node) is that of ``like``. A name at which a leaf is absent
    from it is taken where it holds what another name holds, as both names of tied weights do, and left out. Without ``like``,
    a node whose keys are all numbers becomes a tuple, with ``{}`` in its gaps, and any other a dict.

    Raises   ``ValueError`` naming the paths that are missing and those that are too many, or two of which one goes on where
             the other has its leaf.
    """
    if not isinstance(named, dict) or not all(isinstance(name, str) for name in named):
        raise value_error("from_names", "named must be a dict of leaves by their names", _described(named))
    if like is None:
        return grown_from("", named)
    wanted = names(like)
    missing, extra = wanted.keys() - named.keys(), named.keys() - wanted.keys()
    if extra and not missing:
        kept, absent = [named[path] for path in wanted], {path for path, leaf in named_leaves("", like) if leaf is None}
        extra = {path for path in extra if path not in absent or not any(_same(named[path], one) for one in kept)}
    if missing or extra:
        raise value_error(
            "from_names", "the names must be those of like", f"missing {sorted(missing)} and unknown {sorted(extra)}"
        )
    return _along(lambda path, _: named[path], like)


@_of_tensors(2)
def dot(a: Tree, b: Tree) -> Tensor:
    """Sum the products of corresponding elements of a and b, as a 0-d tensor; of half precision the sum is float32."""
    terms = leaves(map(lambda x, y: (in_single(x) * in_single(y)).sum(), a, b))
    return sum(terms[1:], terms[0]) if terms else torch.zeros(())


@_of_tensors(2)
def add(a: Tree, b: Tree) -> Tree:
    """Add two trees, a and b; where a leaf is absent from one, the other's stands."""
    one, other = flatten_together(a, b)
    return unflatten(a, iter([y if x is None else x if y is None else x + y for x, y in zip(one, other, strict=True)]))


@_of_tensors(1, "factor must be a number, or a tensor that fits the leaves")
def scale(tree: Tree, factor: float | Tensor) -> Tree:
    """Multiply every leaf of a tree by the number ``factor``."""
    return map(lambda leaf: leaf * factor, tree)


@_of_tensors()
def norm(tree: Tree) -> Tensor:
    """Return the norm of all leaves of a tree together, √Σ x², in float64, so that no float32 overflows in the squares."""
    wide = [leaf if leaf.is_floating_point() else leaf.double() for leaf in leaves(tree)]
    parts = [torch.linalg.vector_norm(leaf, dtype=torch.float64) for leaf in wide]
    return torch.linalg.vector_norm(torch.stack(parts)) if parts else torch.zeros((), dtype=torch.float64)


@_of_tensors()
def zeros_like(tree: Tree) -> Tree:
    """Return a tree of zeros with the shapes, dtypes and devices of ``tree``."""
    return map(torch.zeros_like, tree)


@_of_tensors(1, "dtype must be a torch.dtype")
def cast(tree: Tree, dtype: torch.dtype) -> Tree:
    """Convert the floating leaves of a tree to ``dtype``; integers (labels, counters) stay."""
    return map(lambda leaf: leaf.to(dtype) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf, tree)


@_of_tensors(1, "device must be a torch.device, or the name of one")
def to(tree: Tree, device: torch.device | str) -> Tree:
    """Move every tensor of a tree to a ``device``."""
    return map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, tree)


def _tensors(tree: Tree) -> list[Tensor]:
    return [leaf for leaf in leaves(tree) if isinstance(leaf, Tensor)]


def size(tree: Tree) -> int:
    """Count the elements of all tensors in a tree."""
    return sum(leaf.numel() for leaf in _tensors(tree))


def nbytes(tree: Tree) -> int:
    """Count the bytes of all tensors in a tree; one that stands in several places counts in each."""
    return sum(leaf.numel() * leaf.element_size() for leaf in _tensors(tree))


def all_finite(tree: Tree) -> Tensor:
    """Tell, as a 0-d bool tensor, whether no leaf of a tree holds a NaN or an infinity."""
    parts = [torch.isfinite(leaf).all() for leaf in _tensors(tree)]
    return torch.stack(parts).all() if parts else torch.tensor(True)


def equal(a: Tree, b: Tree) -> bool:
    """Tell whether two trees, a and b, have the same structure, absent leaves, dtypes, shapes and values; NaN equals nothing."""
    return not any(True for _ in differences("", a, b)) and all(_each(_same, *flatten_together(a, b)))


def _same(x: Any, y: Any) -> bool:
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return x.dtype == y.dtype and x.device == y.device and torch.equal(x, y)
    return type(x) is type(y) and bool(x == y)


@_of_tensors()
def ravel(tree: Tree) -> Tensor:
    """Join all leaves of a tree, in order, into one vector; leaves of several dtypes are promoted to their common one."""
    parts = [leaf.reshape(-1) for leaf in leaves(tree)]
    return torch.cat(parts) if parts else torch.zeros(0)


def unravel(vector: Tensor, like: Tree) -> Tree:
    """Cut a vector into leaves with the shapes and dtypes of ``like``.

    ``unravel(ravel(t), t)`` equals ``t`` where the vector's dtype holds its values: integers beside float32 up to 2²⁴.

    Raises   ``ValueError`` for a vector that has not as many elements as ``like``.
    """
    if not isinstance(vector, Tensor) or vector.shape != (size(like),):
        raise value_error("unravel", f"the vector must have the {size(like)} elements of like", vector)
    odd = [leaf for leaf in leaves(like) if not isinstance(leaf, Tensor)]
    if odd:
        raise value_error("unravel", "every leaf of like must be a tensor", _described(odd[0]))
    pieces = iter(torch.split(vector, [leaf.numel() for leaf in leaves(like)]))
    return map(lambda leaf: next(pieces).reshape(leaf.shape).to(leaf.dtype), like)


def at(tree: Tree, path: str) -> Tree:
    """Return the leaf or the subtree of ``tree`` at ``path``.

    >>> at(({"weight": 1}, {}), "0")
    {'weight': 1}

    Raises:
        LookupError: For a path that does not exist; it names those that do.
    """
    found = tree
    for key in keys_along("at", path):
        found = child_at(found, key, lambda: _no_such_path("at", tree, path))
    return found


def replace(tree: Tree, path: str, value: Tree) -> Tree:
    """Return ``tree`` with ``value``, a leaf or a subtree, at ``path``.

    >>> replace(({"weight": 1, "bias": 2},), "0.bias", None)
    ({'weight': 1, 'bias': None},)

    Raises:
        LookupError: For a path that does not exist; it names those that do.
    """
    return replaced(tree, keys_along("replace", path), value, lambda: _no_such_path("replace", tree, path))


def _no_such_path(who: str, tree: Tree, path: str) -> LookupError:
    return LookupError(f"{who}: nothing at {path!r}; there are {', '.join(names(tree)) or 'no leaves'}")


def update(f: Callable[[Any, Any], Any], params: Tree, grads: Tree) -> Tree:
    """Return ``f(p, g)`` for every parameter that has a gradient, and the parameter itself for every other.

    ``update(lambda p, g: p - lr * g, params, grads)`` is a step of plain gradient descent: running statistics, whose gradients
    are ``None``, stay as they are.

    Raises:
        ValueError: With the first path where the trees disagree.
    """
    _require_function("update", f)
    rows = zip(*flatten_together(params, grads), strict=True)
    return unflatten(params, iter([p if p is None or g is None else f(p, g) for p, g in rows]))


def map_with_path(f: Callable[[str, Any], Any], tree: Tree) -> Tree:
    """Apply ``f(path, leaf)`` to every leaf of ``tree``; an absent leaf stays ``None``."""
    _require_function("map_with_path", f)
    return _along(f, tree)


def partition(tree: Tree, predicate: Callable[[str], bool]) -> tuple[Tree, Tree]:
    """Part a tree in two of its structure: the leaves whose path fulfils ``predicate``, and the rest; ``None`` elsewhere."""
    _require_function("partition", predicate)
    chosen = _along(lambda path, leaf: leaf if predicate(path) else None, tree)
    rest = _along(lambda path, leaf: None if predicate(path) else leaf, tree)
    return chosen, rest


def combine(a: Tree, b: Tree) -> Tree:
    """Join a and b, what ``partition`` parted.

    Raises   ``ValueError`` with the first path where both trees have a leaf, or where they disagree.
    """
    for (path, x), y in zip(named_leaves("", a), flatten_together(a, b)[1], strict=True):
        if x is not None and y is not None:
            raise value_error("combine", "at each place one tree must have the leaf", f"two at {path!r}")
    return unflatten(a, iter([y if x is None else x for x, y in zip(*flatten_together(a, b), strict=True)]))


@_of_tensors()
def describe(tree: Tree) -> Description:
    """Describe the numbers of each leaf of a tree: mean, standard deviation, least and largest, and how many are NaN or 0.

    The result maps paths to statistics, and prints as a table. The standard deviation is that of ``torch.std``, and 0 of a
    single number. NaNs count in ``nans`` only.

    >>> describe({"w": torch.tensor([0.0, 3.0, 6.0])})["w"].mean
    3.0
    >>> print(describe({"w": torch.tensor([0.0, 3.0, 6.0]), "b": torch.tensor([1.0, torch.nan])}))
    path  shape  mean  std  min  max  NaNs  zeros
    w     (3,)      3    3    0    6     0      1
    b     (2,)      1    0    1    1     1      0

    Raises   ``ValueError`` for a leaf that is no tensor of real numbers, or has no numbers, on the meta device.
    """
    return Description({path: statistics_of(path, leaf) for path, leaf in names(tree).items()})
