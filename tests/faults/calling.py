"""A call of a public callable, by name, with right arguments, each of which can be replaced."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Call(NamedTuple):
    """A call that works.

    An error may begin with ``name``, one of ``names``, or the name of a value in the arguments; ``tells`` says whether an error
    within a net must have a note that says where.
    """

    name: str
    f: Callable[..., Any]
    arguments: dict[str, Any]
    names: tuple[str, ...] = ()

    def __call__(self, **change: Any) -> Any:
        """Call with one argument or more replaced."""
        arguments = {**self.arguments, **change}
        return self.f(*arguments.pop("*", ()), **arguments.pop("**", {}), **arguments)
