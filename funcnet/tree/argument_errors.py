"""Error messages of the functions on trees for invalid arguments."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from torch import Tensor

from funcnet.errors import describe as described
from funcnet.errors import explains, value_error
from funcnet.paths import named_leaves

_P = ParamSpec("_P")
_R = TypeVar("_R")


def explain_tensor_errors(trees: int = 1, other: str = "") -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Make a function explain its errors. Its first ``trees`` arguments are trees; ``other`` is the rule for the rest."""

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @functools.wraps(function)
        def checked(*arguments: _P.args, **named: _P.kwargs) -> _R:
            try:
                return function(*arguments, **named)
            except Exception as error:
                if explains(error) or not isinstance(error, (TypeError, AttributeError, RuntimeError, ValueError, OverflowError)):
                    raise
                raise _explain(function.__name__, (*arguments, *named.values()), trees, other) from error

        return checked

    return decorate


def _explain(who: str, arguments: tuple[Any, ...], trees: int, other: str) -> ValueError:
    for one in arguments[:trees]:
        for path, leaf in named_leaves("", one):
            if leaf is not None and not isinstance(leaf, Tensor):
                return value_error(who, "every leaf must be a tensor", described(leaf) + f" at {path!r}" * bool(path))
            if hasattr(leaf, "device_mesh"):
                rule = "every leaf must be a plain tensor; funcnet.distributed.unshard(tree) gathers sharded ones"
                return value_error(who, rule, described(leaf) + f" at {path!r}" * bool(path))
    came = " and ".join(map(described, arguments[trees:] or arguments))
    return value_error(who, other or "the tensors of the trees must fit each other", came)


def require_function(who: str, f: Any) -> None:
    """Raise ``ValueError`` unless ``f`` is a function; ``who`` is the function that asks."""
    if not callable(f):
        raise value_error(who, f"{'predicate' if who == 'partition' else 'f'} must be a function", described(f))
