"""Large results: memory in huge pages for tensors of megabytes that are written once.

The system provides fresh memory page by page, at the first write to each. A page of 4 KB takes 0.1 to 3 µs, longest on virtual
machines: filling 205 fresh MB took 148 ms, and filling them again 15. In pages of 2 MB the first fill took 24 ms.
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
"""Number of bytes from which huge pages are requested: wherever the memory starts, it then contains one."""


def empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return memory of the dtype and device of ``like``, to be fully written; in huge pages if that is worth it.

    The request takes 2 µs. It has no effect if the system has no huge pages, or always uses them. By default Linux uses them on
    request.
    """
    x = torch.empty(shape, dtype=like.dtype, device=like.device)
    size = x.numel() * x.element_size()
    if size >= PAGES.value and x.is_cpu:
        begin = -(-x.data_ptr() // _PAGE) * _PAGE
        _advise()(begin, max(0, x.data_ptr() + size - begin) // _PAGE * _PAGE, _MADV_HUGEPAGE)
    return x


@cache
def _advise() -> Callable[..., object]:
    """Return the C library's ``madvise``; without it, or if it fails, memory comes in small pages."""
    advise: Callable[..., object] | None = getattr(ctypes.CDLL(None), "madvise", None) if _is_linux() else None
    if advise is None:
        return lambda *arguments: -1
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)  # type: ignore[attr-defined]
    return advise


def _is_linux() -> bool:
    return sys.platform == "linux"
