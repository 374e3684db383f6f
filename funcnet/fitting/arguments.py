"""What ``fit``, ``evaluate`` and ``predict`` require of their arguments."""

from typing import Any

from funcnet.errors import MOST, describe, is_whole, value_error

COLUMNS, NORMS = ("epoch", "loss", "seconds"), ("grad_norm", "update_norm")


LAYER, LOSS = "a funcnet layer, such as Linear(2, 3)", "a funcnet loss, such as MSE()"
OPTIMIZER = "a funcnet optimizer, such as Adam(1e-3)"
"""Kinds in words; torch has classes of the same names."""


def require(who: str, **kinds: tuple[type, str, Any]) -> None:
    """Raise ``ValueError`` for the first argument of another kind; each is given as (kind, the kind in words, value)."""
    for name, (kind, word, got) in kinds.items():
        if not isinstance(got, kind):
            raise value_error(who, f"{name} must be {word}", describe(got))


def require_whole(who: str, name: str, least: int, got: Any) -> None:
    """Raise ``ValueError`` unless the argument is a whole number of at least ``least``."""
    if not is_whole(got) or got < least:
        raise value_error(who, f"{name} must be a whole number of at least {least}", repr(got))
    if got > MOST:
        raise value_error(who, f"{name} must be below 2**31", repr(got))
