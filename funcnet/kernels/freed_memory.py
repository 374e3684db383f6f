"""Freed memory: kept in the process for the next tensors instead of returned to the system."""

import ctypes
import os
import sys

import torch

from funcnet.kernels.private_names import constant

_TRIM, _MMAP, _MAPPED = -1, -3, -4  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_MMAP_MAX of glibc's malloc.h
_KEPT = 512 << 20
_MOST = (32 << 20) - 8192
_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


@constant  # a traced ``init`` of an optimizer really calls it
def retain_freed_memory(large_blocks: bool = False) -> None:
    """Have the C library keep up to 512 MB of freed memory for the next tensors, for the whole process.

    A training step frees its caches and gradients at its end. glibc returns memory at the end of its heap to the system, from
    which it comes back page by page, at about 0.5 to 2 µs for a page of 4 KB: a bare loop of steps of the benchmark's LeNet has
    560 to 2100 page faults per step, of its residual net 6600, and none once the pages are kept (AMD EPYC). The peak of resident
    memory stays the same: 44 and 111 MB by default, 46 and 113 kept; it no longer falls by a third between steps.

    If only 64 MB are kept, a step of a ResNet-18 of width 64 on 16 images still loses 6500 pages, since 45 MB of gradients are
    freed together with the caches; with 512 MB it loses 50.

    Nothing changes with other C libraries, or if glibc's thresholds are set in the environment. ``fit``, ``train_step`` and the
    ``init`` of optimizers call this function, since every training loop calls one of them. To opt out, set
    ``MALLOC_TRIM_THRESHOLD_``, ``MALLOC_MMAP_THRESHOLD_`` or ``GLIBC_TUNABLES`` in the environment.

    Args:
        large_blocks: Whether to keep blocks above 32 MB too, which glibc otherwise maps one by one and always returns. With
            blocks of 41 MB a step takes 269 ms instead of 417, and the process 350 MB at its peak instead of 243, since free
            blocks that are too small for the next one stay.
    """
    if any([name in os.environ for name in _VARIABLES]):  # noqa: C419 (as elsewhere)
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None and mallopt(_TRIM, _KEPT) and mallopt(_MMAP, 32 << 20):
        if large_blocks:
            mallopt(_MAPPED, 0)
        return
    torch.empty(_MOST, dtype=torch.uint8)  # glibc raises both thresholds itself when such a block is freed
