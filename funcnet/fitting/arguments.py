"""Checks of the arguments of ``fit``, ``evaluate`` and ``predict``."""

from typing import Any

from funcnet.errors import describe, value_error

COLUMNS, NORMS = ("epoch", "loss", "seconds"), ("grad_norm", "update_norm")


LAYER, LOSS = "a funcnet layer, such as Linear(2, 3)", "a funcnet loss, such as MSE()"
OPTIMIZER = "a funcnet optimizer, such as Adam(1e-3)"
"""Names of the types in errors; torch has classes of the same names."""


def require(who: str, **kinds: tuple[type, str, Any]) -> None:
    """Raise ``ValueError`` for the first argument of another type; each is given as (type, the type in words, value)."""
    for name, (kind, word, got) in kinds.items():
        if not isinstance(got, kind):
            raise value_error(who, f"{name} must be {word}", describe(got))
