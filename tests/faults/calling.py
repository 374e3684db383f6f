"""A call of a public callable, by name, with right arguments, each of which can be replaced."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Call(NamedTuple):
    """A call that works.

    ``names`` are words that an error may begin with, beside ``name`` and what the values in the arguments are called; ``tells`` says
    whether one within a net must say where, as a note.
    """

    name: str
    f: Callable[..., Any]
    arguments: dict[str, Any]
    names: tuple[str, ...] = ()

    def __call__(self, **change: Any) -> Any:
        """Call with one argument or more replaced."""
        arguments = {**self.arguments, **change}
        return self.f(*arguments.pop("*", ()), **arguments.pop("**", {}), **arguments)
