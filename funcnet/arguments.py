"""Checks of the arguments of functions, which no field validates."""

from typing import Any

from funcnet.errors import MOST, is_whole, value_error


def require_whole(who: object, name: str, at_least: int, got: Any, *, at_most: int = MOST) -> None:
    """Raise ``ValueError`` unless an argument is a whole number between two bounds; the upper one is 2³¹ - 1 by default."""
    if not is_whole(got) or got < at_least:
        raise value_error(who, f"{name} must be a whole number of at least {at_least}", repr(got))
    if got > at_most:
        raise value_error(who, f"{name} must be " + ("below 2**31" if at_most == MOST else f"at most {at_most}"), repr(got))
