"""Checks of the arguments of functions, which no field has judged."""

from typing import Any

from funcnet.errors import MOST, is_whole, value_error


def require_whole(who: object, name: str, at_least: int, got: Any, *, at_most: int = MOST) -> None:
    """Raise ``ValueError`` unless an argument is a whole number with a lower bound, and an upper one: below 2³¹ by default."""
    if not is_whole(got) or got < at_least:
        raise value_error(who, f"{name} must be a whole number of at least {at_least}", repr(got))
    if got > at_most:
        raise value_error(who, f"{name} must be " + ("below 2**31" if at_most == MOST else f"at most {at_most}"), repr(got))
