"""Memory: what becomes of that which tensors give back."""

import torch

_MOST = (32 << 20) - 8192


def retain_freed_memory() -> None:
    """Have the C library keep what tensors give back, up to 64 MB, for the tensors to come, for the whole process.

    A step of training gives all that it kept back at its end. glibc hands memory at the end of its heap back to the system, from
    which it comes again page by page, by some 0.5 to 2 µs a page of 4 KB: in a loop of steps of the benchmark's LeNet 750 to 870
    pages a step, of its residual net 3000 to 7000. It takes 9.1 ms for 11.2, and 80 for 95, when it keeps the pages.

    It keeps twice as much as the largest block, of at most 32 MB, that ever went back to the system by itself (``man mallopt``,
    M_TRIM_THRESHOLD and M_MMAP_THRESHOLD, "dynamic"). So one such block is asked for here and given back, without being touched.
    Other C libraries, and a glibc that was told its thresholds by the environment, stay as they are. ``fit`` calls this; a loop
    of one's own may.
    """
    torch.empty(_MOST, dtype=torch.uint8)
