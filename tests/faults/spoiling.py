"""Replacements for a valid argument, drawn with hypothesis: foreign values, and wrong values of the right kind."""

import decimal
import fractions
import numbers
import os
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

import funcnet as fn
from funcnet.errors import MOST
from funcnet.value import Value

Strategy = st.SearchStrategy[Any]


class Unhashable:
    """An object without a hash."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return False

    def __repr__(self) -> str:
        return "Unhashable()"


def plain(*arguments: Any, **named: Any) -> None:
    """Return None, whatever the arguments."""


NUMBERS: list[Any] = [
    -1, 0, 1, 2, 7, -3, 0.0, -0.5, 0.5, 1.5, 1e-300, 1e300, -1e300, 10**30, -(10**30), 10**400, 2**31, 2**63, 2**64,
    float("nan"), float("inf"), float("-inf"), True, False, 1j, np.int64(2), np.float32(0.5), np.float64("nan"), np.bool_(True),
    fractions.Fraction(1, 2), decimal.Decimal("0.5"), "1", b"1", torch.tensor(2), torch.tensor(0.5), torch.tensor(float("nan")),
    torch.tensor(0.5, device="meta"), torch.tensor(True), torch.tensor([0.5]),
]  # fmt: skip

WORDS: list[Any] = [
    "",
    "a",
    "mean",
    "MEAN",
    "weight",
    "0",
    "0.weight",
    ".",
    "..",
    "*",
    "a->b",
    "ä\n",
    "x" * 400,
    b"mean",
    "same",
    "%s{}",
]

STRANGERS: list[Any] = [
    None, True, 0, -1, 3, 0.5, float("nan"), 1j, "a", "", b"a", object(), Unhashable(), ..., slice(2), range(3), {1}, frozenset(),
    (), (1,), (2, 3), ("a", "b"), (None,), [], [1, 2], [[]], {}, {"a": 1}, {0: 1}, {None: None}, torch, plain, iter(()),
    np.int64(2), np.float32(0.5), np.ones(2), np.ones((2, 3)), np.array(["a"]), torch.float32, torch.device("cpu"), "cpu", "meta",
    torch.tensor(3), torch.tensor(0.5), torch.ones(2), torch.ones(2, 3), torch.ones(0), torch.ones(2, dtype=torch.complex64),
    torch.ones(2, 3, device="meta"), torch.ones(2, 3).to_sparse(), torch.zeros(2, dtype=torch.bool), torch.nn.Linear(2, 3),
    {"weight": torch.ones(3, 2), "bias": torch.ones(3)}, (torch.ones(2, 3), torch.ones(2, 3)), fn.key(0), ValueError("a"),
]  # fmt: skip

VALUES: list[Any] = [
    fn.Linear(2, 3), fn.Linear(None, 3), fn.Tanh(), fn.Dropout(0.5), fn.serial(fn.Linear(2, 3), fn.Tanh()), fn.serial(), fn.Linear,
    fn.BatchNorm1d(2), fn.LSTM(2, 3), fn.Embedding(4, 2), fn.ensemble(fn.Linear(2, 3), 2), fn.MSE(), fn.MSE("none"), fn.CrossEntropy(),
    fn.MSE() + fn.L1(), fn.ensemble(fn.MSE(), 2), fn.CTC(), fn.SGD(0.1), fn.Adam(), fn.LBFGS(), fn.ClipByGlobalNorm(1.0), fn.LossScale(),
    fn.chain(fn.ClipByValue(1.0), fn.SGD(0.1)), fn.CosineSchedule(0.1, 10), fn.ReduceOnPlateau(), fn.Zeros(), fn.EMA(), fn.Accuracy(),
    (fn.Tanh(), fn.Tanh()), [fn.Tanh()], torch.nn.Linear(2, 3),
]  # fmt: skip

DTYPES = [
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.complex64,
    torch.float8_e4m3fn,
]


LONG_RUNS = {("fit", "epochs"), ("lr_range", "steps"), ("check_schedule", "steps")}
MOST_RUN = 10


def in_place_of(name: str, argument: str, value: Any) -> Strategy:
    """Draw a replacement for an argument; for a cache, which only the layer creates, only foreign values."""
    if isinstance(value, bytes):
        return files(value)
    if (name, argument) in LONG_RUNS:  # numbers between these are valid but slow
        return spoilt(value).filter(lambda n: not isinstance(n, numbers.Real) or n < MOST_RUN or n > MOST)
    if argument in ("path", "folder", "log_dir"):  # never write outside the temporary folder
        return spoilt(value).filter(lambda path: not isinstance(path, (str, bytes)) or _stays_here(path))
    if argument == "cache":
        return st.sampled_from(STRANGERS)
    return _with_a_part_spoilt(value) if argument in ("*", "**") and value else spoilt(value)


def _stays_here(path: str | bytes) -> bool:
    """Return whether a path is below the current folder."""
    parts = os.fsdecode(path).split("/") if path else []
    return ".." not in parts and (not parts or parts[0] != "")


def spoilt(value: Any) -> Strategy:
    """Draw a replacement for a value: twice as often of its kind as foreign."""
    mine = _of_kind(value)
    return st.sampled_from(STRANGERS) if mine is None else mine | mine | st.sampled_from(STRANGERS)


def _of_kind(value: Any) -> Strategy | None:
    if isinstance(value, Tensor):
        return tensors(value)
    if isinstance(value, (bool, int, float)):
        return st.sampled_from(NUMBERS) | st.integers(-5, 9) | st.integers(2**40, 2**70) | st.floats()
    if isinstance(value, str):
        return st.sampled_from(WORDS) | st.text(max_size=5)
    if isinstance(value, (dict, tuple, list)):
        return trees(value)
    return st.sampled_from(VALUES) if isinstance(value, Value) or callable(value) or value is None else None


def files(content: bytes) -> Strategy:
    """Draw the bytes of a file that is truncated, has one bit flipped, or is of another kind."""
    places = st.integers(0, len(content) - 1)
    flipped = st.builds(lambda i, bit: content[:i] + bytes([content[i] ^ 1 << bit]) + content[i + 1 :], places, st.integers(0, 7))
    others = [b"", b"PK\x03\x04", b"{}", b"\x80\x04.", content + b"\0", content * 2, bytes(len(content))]
    return places.map(lambda i: content[:i]) | flipped | st.sampled_from(others) | st.binary(max_size=64)


def tensors(x: Tensor) -> Strategy:
    """Draw a tensor that differs from a valid one in its shape, dtype, device, layout or numbers."""
    if x.layout is not torch.strided or x.is_meta:
        return st.sampled_from([x, None])
    return st.sampled_from([*_of_another_form(x), *_of_other_numbers(x)])


def _of_another_form(x: Tensor) -> list[Any]:
    ways: list[Any] = [x[None], x[..., None], x.to("meta"), x.tolist(), x.numpy(force=True) if x.dtype not in _NO_NUMPY else None]
    ways += [x.to(dtype) for dtype in DTYPES if dtype is not x.dtype]
    for i in range(x.dim()):
        ways += [torch.cat((x, x), i), x.narrow(i, 0, 0).clone(), x.narrow(i, 0, min(1, x.shape[i])).clone()]
    return ways + ([x[0].clone(), x.transpose(0, -1), x.to_sparse()] if x.dim() and x.shape[0] else [])


def _of_other_numbers(x: Tensor) -> list[Any]:
    if x.is_floating_point():
        return [x.clone().requires_grad_(), *[torch.full_like(x, number) for number in (1.0, float("nan"), float("inf"), -1e30)]]
    return [torch.full_like(x, number) for number in ((0, 1, -1, -(2**62)) if x.dtype is torch.int64 else (0, 1))]


_NO_NUMPY = (torch.bfloat16, torch.float8_e4m3fn)


def trees(value: Any) -> Strategy:
    """Draw a tree with other nodes, or with one wrong part."""
    ways: list[Any] = [None, [*value], (*value,), dict(enumerate(_parts(value))), (value,), {"a": value}, [value, value]]
    if isinstance(value, dict):
        ways += [{**value, "more": torch.ones(2)}, tuple(value.values()), {str(k).upper(): v for k, v in value.items()}]
        ways += [{k: v for k, v in value.items() if k != key} for key in value]
    elif value:
        ways += [
            type(value)(value[:-1]) if type(value) in (tuple, list) else value[:-1],
            (*value, value[-1]),
            value[::-1],
            value[0],
        ]
    whole = st.sampled_from(ways)
    return whole | _with_a_part_spoilt(value) if value else whole


def _parts(value: Any) -> list[Any]:
    return [*value.values()] if isinstance(value, dict) else [*value]


@st.composite
def _with_a_part_spoilt(draw: st.DrawFn, value: Any) -> Any:
    keys = [*value] if isinstance(value, dict) else [*range(len(value))]
    key = draw(st.sampled_from(keys))
    part = draw(spoilt(value[key]))
    if isinstance(value, dict):
        return {**value, key: part}
    parts = [part if i == key else one for i, one in enumerate(value)]
    return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
