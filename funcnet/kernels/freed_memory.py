"""Freed memory: kept in the process for the next tensors instead of returned to the system."""

import ctypes
import os
import sys

import torch

_TRIM, _MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
_KEPT = 512 << 20
_MOST = (32 << 20) - 8192
_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def retain_freed_memory() -> None:
    """Have the C library keep up to 512 MB of freed memory for the next tensors, for the whole process.

    A training step frees all that it kept at its end. glibc returns memory at the end of its heap to the system, from which it
    comes back page by page, at some 0.5 to 2 µs for a page of 4 KB: in a loop of steps of the benchmark's LeNet 750 to 870 pages
    a step, of its residual net 3000 to 7000. With the pages kept, a step takes 9.1 ms instead of 11.2, and 80 instead of 95.

    Where 64 MB are kept, a step of a ResNet-18 of width 64 on 16 images still loses 6500 pages, since 45 MB of gradients are
    freed together with the caches; with 512 MB it loses 50. Blocks above 32 MB are always returned.

    Other C libraries, and a glibc whose thresholds are set in the environment, stay as they are. ``fit`` and
    ``train_step`` call this; a loop of ``apply`` and ``vjp`` may.
    """
    if any([name in os.environ for name in _VARIABLES]):  # noqa: C419 (as elsewhere)
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None and mallopt(_TRIM, _KEPT) and mallopt(_MMAP, 32 << 20):
        return
    torch.empty(_MOST, dtype=torch.uint8)  # on freeing such a block, glibc raises both thresholds by itself
