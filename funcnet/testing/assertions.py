"""Assertions about trees for users' tests: they report which leaf differs, and by how much."""

from typing import Any

import torch
from torch import Tensor

from funcnet.errors import describe, is_number, value_error
from funcnet.flattening import Tree, flatten_together
from funcnet.paths import named_leaves


def assert_close(got: Tree, want: Tree, *, rtol: float | None = None, atol: float | None = None, equal_nan: bool = False) -> None:
    """Assert that two trees have the same structure, and leaves of the same shape, dtype and device that are close.

        |got - want| ≤ atol + rtol |want|, elementwise

    Leaves other than tensors must be equal. A ``None`` must be ``None`` in both.

    Args:
        got: The tree to check.
        want: The expected tree.
        rtol: Relative tolerance, given together with ``atol``; by default as in ``torch.testing.assert_close`` for the dtype.
        atol: Absolute tolerance.
        equal_nan: Whether NaN equals NaN.

    Raises:
        AssertionError: With the path of the first leaf that differs, and torch's description of the difference.
        ValueError: If only one of ``rtol`` and ``atol`` is given.

    >>> assert_close({"w": torch.ones(2)}, {"w": torch.ones(2) + 1e-7})
    >>> try:
    ...     assert_close({"w": torch.ones(2)}, {"w": torch.ones(3)})
    ... except AssertionError as error:
    ...     print(str(error).splitlines()[0])
    assert_close: the trees differ at 'w'
    """
    given = [one for one in (rtol, atol) if one is not None]
    if len(given) == 1 or not all(is_number(one) and one >= 0 for one in given):
        raise value_error(
            "assert_close",
            "rtol and atol must be two numbers of at least 0, or both None",
            f"{describe(rtol)} and {describe(atol)}",
        )
    if not isinstance(equal_nan, bool):
        raise value_error("assert_close", "equal_nan must be True or False", describe(equal_nan))
    options = {
        "rtol": None if rtol is None else float(rtol),
        "atol": None if atol is None else float(atol),
        "equal_nan": equal_nan,
    }
    try:
        pairs = zip(*flatten_together(want, got), strict=True)
    except ValueError as error:
        raise AssertionError(f"assert_close: {error}") from None
    for (path, _), (theirs, ours) in zip(named_leaves("", want), pairs, strict=True):
        _assert_leaf(path, ours, theirs, options)


def _assert_leaf(path: str, got: Any, want: Any, options: dict[str, Any]) -> None:
    where = f"assert_close: the trees differ at {path!r}"
    if isinstance(got, Tensor) and isinstance(want, Tensor):
        torch.testing.assert_close(got, want, **options, msg=lambda text: f"{where}\n{text}")
    elif type(got) is not type(want) or got != want:
        raise AssertionError(f"{where}\ngot {describe(got)}, want {describe(want)}")
