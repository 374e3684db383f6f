"""Versions of torch that the tests were run with, and a warning at import if torch is newer."""

import re
import warnings

import torch

TRIED_TORCH = ("2.13.0", "2.14.1")
"""Releases of torch that the tests were run with, oldest first; README has a table of the results by version of Python."""


def minor_version(version: str) -> tuple[int, int]:
    """Return the first two numbers of a version: ``(2, 13)`` for ``"2.13.0+cpu"``."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def warn_if_newer(version: str) -> None:
    """Warn if torch is newer than the newest tested release; a version without numbers counts as old.

    Args:
        version: The version of torch.
    """
    if minor_version(version) > minor_version(TRIED_TORCH[-1]):
        tried = f"torch {TRIED_TORCH[0]} to {TRIED_TORCH[-1]}"
        warnings.warn(f"funcnet was tested with {tried}, and this is torch {version}, which is newer", stacklevel=2)


warn_if_newer(torch.__version__)
