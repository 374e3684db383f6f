"""The verdict on a call with one bad argument: whether its result or error is acceptable."""

import re
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch
from calling import Call
from torch import Tensor

import funcnet as fn
from funcnet import tree
from funcnet.errors import describe, made_by, maker_of
from funcnet.value import Value

PACKAGE = str(Path(fn.__file__).parent)
SENTENCE = re.compile(r"^(?P<who>.+?): (?P<rule>.+)(, got |; there are |; .+ holds )(?P<what>.+)", re.DOTALL)
SIGNATURE = re.compile(r"unexpected keyword argument|missing \d+ required|takes \d+ positional|multiple values for")
WIDTH = 150
AS_IN_TORCH = {
    *[("LocalResponseNorm", name) for name in ("alpha", "beta", "k")],
    *[("CrossMapLRN2d", name) for name in ("alpha", "beta", "k")],
    *[(f"LPPool{n}d", "norm_type") for n in (1, 2, 3)],
    *[(f"Pow.{verb}", "x") for verb in ("apply", "__call__")],
    ("Normalize", "p"),
    *[(f"{name}.__call__", "target") for name in ("AUROC", "AveragePrecision")],
}
"""Arguments for which NaN is a valid result.

These are roots of negative numbers, as in torch, a norm of degree 1e-6, whose root overflows, and labels of a single class, which
have no ranking.
"""
WITH_PATHS = ("save", "save_in_background", "load", "load_metadata", "Checkpoints", "fit", "TensorBoard", "export")
"""Functions with paths, which only the system can check."""
LARGE = 1e3
TINY = 1e-30


def judge(call: Call, argument: str, bad: Any) -> str:
    """Return the fault of a call in which one argument is ``bad``, or ``""``."""
    try:
        got = call(**{argument: bad})
    except Exception as error:
        return _judge_error(call, bad, error)
    return _judge_result(call, argument, bad, got)


def _judge_error(call: Call, bad: Any, error: Exception) -> str:
    words = str(error)
    told = f"{type(error).__name__}: {words[:WIDTH]}"
    if _is_meant(call, error):
        return ""
    if not isinstance(error, (ValueError, TypeError)):
        return "bare " + told
    if isinstance(error, TypeError) and SIGNATURE.search(words) and "()" in words:
        return ""  # Python's own error for arguments that do not match a signature
    found = SENTENCE.match(words)
    if not found:
        return "no sentence " + told
    said = " ".join([found["who"], *getattr(error, "__notes__", ())])
    return "" if any(name in said for name in _names(call, bad)) else "of someone else " + told


def _is_meant(call: Call, error: Exception) -> bool:
    """Return whether an error is documented, or can be raised only by a kernel or the system."""
    if "/torch/nn/modules/linear.py" in place(error):
        return True  # a module instead of a function is called with its arguments
    if isinstance(error, AssertionError):
        return call.name.startswith(("check_", "law_", "assert_"))  # the verdict of a checker
    if isinstance(error, OSError):
        return call.name in WITH_PATHS
    return "can't allocate memory" in str(error) or isinstance(
        error, (MemoryError, FloatingPointError)
    )  # the last of ``checked``


def _names(call: Call, bad: Any) -> list[str]:
    """Return the names that an error can use: the callable, and the values in its arguments."""
    return [
        "rng",
        call.name,
        *call.names,
        *{
            name
            for value in _values((call.arguments, bad, call.f, getattr(call.f, "__self__", None)))
            for name in (maker_of(value), made_by(type(value)), type(value).__name__)
        },
    ]


def _values(given: Any) -> list[Any]:
    if isinstance(given, Value):
        return [
            given,
            *[one for field in getattr(type(given), "__attrs_attrs__", ()) for one in _values(getattr(given, field.name))],
        ]
    parts = given.values() if isinstance(given, dict) else given if isinstance(given, (tuple, list)) else ()
    return [one for part in parts for one in _values(part)]


def _judge_result(call: Call, argument: str, bad: Any, got: Any) -> str:
    right = call.arguments[argument]
    if _says_the_same(bad, right) and not _alike(got, call()):
        return "other result of the same argument"
    if argument == "total" and call.name.endswith(".value") and _is_without_rows(bad):
        return ""  # its value is NaN, 0 / 0
    if (call.name, argument) not in AS_IN_TORCH and _is_moderate(bad) and not _is_finite(got) and _is_finite(call()):
        return "NaN"
    return ""


def _is_without_rows(total: Any) -> bool:
    return any(not bool(leaf.any()) for leaf in tree.leaves(total) if isinstance(leaf, Tensor) and not leaf.is_meta)


def _says_the_same(bad: Any, right: Any) -> bool:
    """Return whether an argument is equivalent to the valid one."""
    if isinstance(bad, Tensor) and isinstance(right, Tensor):
        return _same(bad, right)
    return isinstance(bad, np.generic) and type(right) in (int, float) and bool(bad == right)


def _same(a: Tensor, b: Tensor) -> bool:
    return (
        a.shape == b.shape
        and a.dtype == b.dtype
        and a.device == b.device
        and a.layout == b.layout
        and (a.is_meta or torch.equal(a, b))
    )


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and torch.allclose(a, b, equal_nan=True)
    return type(a) is type(b)


def _is_finite(value: Any) -> bool:
    return not any(bool(leaf.isnan().any()) for leaf in tree.leaves(value) if _has_numbers(leaf))


def _is_moderate(value: Any) -> bool:
    """Return whether an argument has numbers, all small enough that nothing overflows."""
    for leaf in tree.leaves(value):
        if isinstance(leaf, (int, float)) and leaf and not TINY < abs(leaf) < LARGE:
            return False
        if isinstance(leaf, Tensor) and (leaf.numel() == 0 or (_has_numbers(leaf) and not bool((leaf.abs() < LARGE).all()))):
            return False
    return True


def _has_numbers(leaf: Any) -> bool:
    return (
        isinstance(leaf, Tensor)
        and not leaf.is_meta
        and leaf.layout is torch.strided
        and leaf.dtype in (torch.float32, torch.float64)
    )


def written(call: Call, argument: str, bad: Any) -> str:
    """Return a call as text on one line."""
    try:
        return f"{call.name}({argument}={describe(bad)[:80]})".replace("\n", " ")
    except Exception:
        return f"{call.name}({argument}=a {type(bad).__name__})"


def place(error: BaseException) -> str:
    """Return the location where an error was raised."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{last.filename}:{last.lineno}"
