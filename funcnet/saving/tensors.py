"""Tensors as bytes: which tensors can be saved, and buffers of their memory.

A dense tensor keeps its strides, because the last bits of results can depend on them; others become contiguous. Buffers are
``ctypes`` views of the memory, because numpy is not a dependency.
"""

import ctypes
import math
import zlib
from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from funcnet.errors import describe

_NAMES = (
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "bfloat16", "float32", "float64", "complex32", "complex64", "complex128"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2"),
    *[f"{kind}{bits}" for kind in ("int", "uint") for bits in range(1, 8)],
    *("bits8", "bits16", "bits1x8", "bits2x4", "bits4x2"),
)
DTYPES = {name: getattr(torch, name) for name in _NAMES if hasattr(torch, name)}
"""Every dtype whose bytes determine its values, by name; quantized tensors also need their scale."""

_NAME_OF = {dtype: name for name, dtype in DTYPES.items()}
_MOST = 2**63


class Damaged(Exception):  # noqa: N818 (it never leaves the package)
    """Raised for file contents that ``save`` would not write; the message describes them."""


@attrs.frozen(eq=False)
class Stored:
    """A tensor in a file: its dtype by name, its shape, and its strides if it is not contiguous."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None

    @property
    def nbytes(self) -> int:
        """Return the size of the elements in bytes."""
        return math.prod(self.shape) * int(DTYPES[self.dtype].itemsize)

    def __str__(self) -> str:
        return f"a tensor of shape {self.shape} and dtype torch.{self.dtype}"


def tensor_complaint(x: Tensor) -> str | None:
    """Describe a tensor that cannot be saved, or return ``None`` for a plain dense one."""
    if x.is_nested or x.layout is not torch.strided or x.is_quantized or x.dtype not in _NAME_OF:
        return describe(x)
    if x.is_meta:
        return f"{describe(x)} on the meta device, which has no values"
    if type(x) is not Tensor and type(x.detach()) is not Tensor:
        return f"a {type(x).__name__}, a subclass of Tensor"
    try:
        x.data_ptr()
    except RuntimeError:
        return f"{describe(x)} without memory, as within torch.func.vmap"
    return None


def identity(x: Tensor) -> object:
    """Return a key that is equal for two tensors that read the same memory in the same way."""
    start = x.data_ptr() or id(x)  # empty tensors and lazy zeros have no memory
    return start, x.dtype, x.device, tuple(x.shape), x.stride(), x.is_conj(), x.is_neg()


def stored(x: Tensor) -> Stored:
    """Return the description of a tensor in a file; strides are kept if it is dense."""
    shape, strides = tuple(x.shape), x.stride()
    kept = strides if is_dense(shape, strides) and strides != contiguous_strides(shape) else None
    return Stored(_NAME_OF[x.dtype], shape, kept)


def parsed(dtype: Any, shape: Any, strides: Any) -> Stored:
    """Return the tensor described in a header; raise ``Damaged`` or ``TypeError`` for an impossible one."""
    if type(dtype) is not str or dtype not in DTYPES:
        raise Damaged(f"a tensor of dtype {str(dtype)[:80]!r}, which torch lacks")
    sizes = [shape] if strides is None else [shape, strides]
    right = all(type(numbers) is list and all(type(n) is int and 0 <= n < _MOST for n in numbers) for numbers in sizes)
    if not right or math.prod([max(n, 1) for n in shape]) * DTYPES[dtype].itemsize >= _MOST:
        raise Damaged(f"a tensor of shape {str(shape)[:80]}")
    if strides is not None and (len(strides) != len(shape) or not is_dense(shape, strides)):
        raise Damaged(f"a tensor of shape {str(shape)[:80]} with strides {str(strides)[:80]}")
    return Stored(dtype, tuple(shape), None if strides is None else tuple(strides))


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a new tensor."""
    return tuple(math.prod([max(n, 1) for n in shape[i + 1 :]]) for i in range(len(shape)))


def is_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Return whether the elements fill their memory without gaps and overlaps; axes of size 1 can have any stride."""
    length = 1
    for stride, n in sorted([(stride, n) for stride, n in zip(strides, shape, strict=True) if n != 1]):
        if stride != length:
            return False
        length *= n
    return 0 not in shape and all(0 <= stride < _MOST for stride in strides)


def in_memory(x: Tensor, form: Stored) -> Tensor:
    """Return x on the CPU in the memory layout of ``form``; a copy only if x has another layout."""
    strides = form.strides or contiguous_strides(form.shape)
    if x.is_cpu and x.stride() == strides and not (x.is_conj() or x.is_neg() or x._is_zerotensor()):
        return x
    return copied(x, form)


def copied(x: Tensor, form: Stored) -> Tensor:
    """Copy the values of a tensor into new memory in the layout of ``form``; one-byte elements are copied as bytes.

    Otherwise torch could not copy dtypes such as int4, and would copy every nonzero byte of a bool as 1.
    """
    y = empty(form)
    with torch.no_grad():
        if y.itemsize == 1:
            y.view(torch.uint8).copy_(x.view(torch.uint8))
        else:
            y.copy_(x)
    return y


def buffer(x: Tensor) -> memoryview:
    """View the memory of a dense tensor on the CPU as bytes; x must outlive the view."""
    size = x.numel() * x.itemsize
    return memoryview((ctypes.c_char * size).from_address(x.data_ptr())).cast("B") if size else memoryview(b"")


def checksum(x: Tensor) -> int:
    """Return the CRC-32 of the memory of a dense tensor on the CPU."""
    return zlib.crc32(buffer(x))


def empty(form: Stored) -> Tensor:
    """Allocate a tensor with the layout of ``form``."""
    dtype, strides = DTYPES[form.dtype], form.strides or contiguous_strides(form.shape)
    if dtype is torch.complex32:  # torch warns about every new tensor of this dtype
        return torch.empty_strided(form.shape, strides, dtype=torch.int32, device="cpu").view(dtype)
    return torch.empty_strided(form.shape, strides, dtype=dtype, device="cpu")
