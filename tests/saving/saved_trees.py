"""Trees to save, drawn with every kind of node, leaf, dtype and stride; and the comparison of two trees bit for bit."""

import multiprocessing
import struct
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import torch
from hypothesis import strategies as st

from funcnet.saving.tensors import DTYPES

NARROW = {f"{kind}{bits}" for kind in ("int", "uint") for bits in range(1, 8)}
"""The dtypes that torch can hold, but neither copy nor compare."""

ORDINARY = [name for name in DTYPES if name not in NARROW and name != "complex32"]


def in_a_fork(function: Callable[..., object], *args: object) -> object:
    """Return the result of a function in a forked process, which then exits normally; this avoids importing torch again."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, from Python 3.12 on
        child = context.Process(target=lambda: sender.send(function(*args)))
        child.start()
    sender.close()  # if the child dies, ``recv`` raises an error instead of waiting
    assert receiver.poll(600)
    found = receiver.recv()
    child.join(600)
    assert child.exitcode == 0
    return found


class Point(NamedTuple):
    x: object
    y: object


def tensor(dtype: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Make a tensor of random bytes, or of 0 and 1 for bools."""
    size = torch.Size(shape).numel() * DTYPES[dtype].itemsize
    data = torch.randint(0, 2 if dtype == "bool" else 256, (size,), generator=torch.Generator().manual_seed(seed))
    return data.to(torch.uint8).view(DTYPES[dtype]).reshape(shape)


def views(x: torch.Tensor) -> st.SearchStrategy[torch.Tensor]:
    """Draw a view of a tensor: permuted, with gaps, expanded, conjugated, or itself."""
    orders = st.permutations(range(x.dim())).map(x.permute)
    gaps = st.just(x[..., ::2] if x.dim() else x)
    return st.just(x) | orders | gaps | st.just(x.expand(2, *x.shape)) | st.just(x.conj() if x.is_complex() else x)


def tensors(dtypes: list[str]) -> st.SearchStrategy[torch.Tensor]:
    shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)
    return st.builds(tensor, st.sampled_from(dtypes), shapes, st.integers(0, 99)).flatmap(views)


text = st.text(max_size=4)
words = st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | text | st.integers(2**63, 2**200)
keys = text | st.integers(-3, 300) | st.booleans()


def trees(leaves: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.recursive(
        leaves,
        lambda inner: (
            st.dictionaries(keys, inner, max_size=3)
            | st.dictionaries(keys, inner, max_size=3).map(OrderedDict)
            | st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
            | st.builds(Point, inner, inner)
            | st.lists(st.integers(0, 9), max_size=3).map(torch.Size)
        ),
        max_leaves=8,
    )


def bits(x: torch.Tensor) -> list[int]:
    """Return the bytes of a tensor's elements in order."""
    x = x.detach().resolve_conj().resolve_neg()
    x = x.view({1: torch.uint8, 4: torch.int32}.get(x.itemsize, x.dtype))  # torch has no copy of int4, and warns of complex32
    return x.contiguous().reshape(-1).view(torch.uint8).tolist()


def same(one: object, other: object) -> bool:
    """Return whether two trees are the same: classes (named tuples by name and fields), keys in order, words and tensors by bits."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and (one.dtype, one.shape, bits(one)) == (other.dtype, other.shape, bits(other))
    if isinstance(one, dict):
        alike = [*map(repr, one)] == [*map(repr, other)] and type(one) is type(other)
        return alike and all(same(a, b) for a, b in zip(one.values(), other.values(), strict=True))
    if isinstance(one, (tuple, list)):
        alike = (type(one).__name__, len(one), getattr(one, "_fields", 0)) == (
            type(other).__name__,
            len(other),
            getattr(other, "_fields", 0),
        )
        return alike and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, complex):
        return isinstance(other, complex) and same((one.real, one.imag), (other.real, other.imag))
    return type(one) is type(other) and (struct.pack("d", one) == struct.pack("d", other) if type(one) is float else one == other)


def sample() -> dict[object, object]:
    """Return a small tree with many kinds of content; its file has about 1 KB."""
    w = torch.arange(6.0).reshape(2, 3)
    return {
        "net": ({"weight": w, "bias": None}, {}, [w, w.t().to(torch.bfloat16)]),
        3: Point(torch.tensor(7), torch.empty(0, 2)),
        "o": OrderedDict(lr=0.1, steps=2**70, nan=float("nan"), z=1 - 2j, size=torch.Size([2, 3]), on=True, name="é"),
    }
