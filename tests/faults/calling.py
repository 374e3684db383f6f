"""A named call of a public callable with valid arguments, each of which can be replaced."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Call(NamedTuple):
    """A call that works.

    An error can begin with ``name``, one of ``names``, or the name of a value in the arguments. If ``tells`` is true, an error
    within a net must have a note with its location.
    """

    name: str
    f: Callable[..., Any]
    arguments: dict[str, Any]
    names: tuple[str, ...] = ()

    def __call__(self, **change: Any) -> Any:
        """Call with one or more arguments replaced."""
        arguments = {**self.arguments, **change}
        return self.f(*arguments.pop("*", ()), **arguments.pop("**", {}), **arguments)
