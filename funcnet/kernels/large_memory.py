"""Large results: memory in huge pages, for tensors of several megabytes that are written once.

The system provides fresh memory page by page, at the first write to each page. A page of 4 KB takes 0.1 to 3 µs, longest on
virtual machines: filling 205 MB of fresh memory took 148 ms, and filling it again 15. In pages of 2 MB the first fill took 24 ms.
"""

import ctypes
import sys
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from funcnet.kernels.choices import NEVER, choice

_HUGE, _PAGE = 2 << 20, 4 << 10
_MADV_HUGEPAGE = 14
PAGES = choice("memory of large results", {"as given": NEVER, "huge pages": 0}, lambda cpu: 2 * _HUGE, "bytes")
"""Number of bytes from which huge pages are requested: a block of this size contains a whole one wherever it starts."""


def empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return uninitialized memory with the dtype and device of ``like``; in huge pages if it is large.

    The request takes 2 µs. It has no effect if the system has no huge pages or always uses them. Linux uses them on request by
    default.
    """
    x = torch.empty(shape, dtype=like.dtype, device=like.device)
    size = x.numel() * x.element_size()
    if size >= PAGES.value and x.is_cpu:
        begin = -(-x.data_ptr() // _PAGE) * _PAGE
        _advise()(begin, max(0, x.data_ptr() + size - begin) // _PAGE * _PAGE, _MADV_HUGEPAGE)
    return x


@cache
def _advise() -> Callable[..., object]:
    """Return the C library's ``madvise``. Without it, or if it fails, memory is in small pages."""
    advise: Callable[..., object] | None = getattr(ctypes.CDLL(None), "madvise", None) if _is_linux() else None
    if advise is None:
        return lambda *arguments: -1
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)  # type: ignore[attr-defined]
    return advise


def _is_linux() -> bool:
    return sys.platform == "linux"
