"""Reasons: one line of the errors of torch's exporters, which are pages long."""

_LONGEST = 300


def reason_of(error: BaseException) -> str:
    """Return the first line of the root cause of an error, or the first of its violated constraints."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    violated = [line.removeprefix("- ") for line in lines if line.startswith("- ")]
    return next(iter(violated or lines), type(error).__name__)[:_LONGEST]
