"""Threads: MKL's number of threads for the calling thread only, which no other thread and no later call sees."""

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch


@cache
def mkl_threads() -> Callable[[int], int] | None:
    """Return MKL's function that sets the number of threads for the calling thread.

    The function returns the previous number, or 0 if the thread had none. ``None`` if this build of torch has no MKL or does not
    export the function.
    """
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        function = ctypes.PyDLL(str(library)).MKL_Set_Num_Threads_Local
    except (OSError, AttributeError):
        return None
    function.argtypes, function.restype = [ctypes.c_int], ctypes.c_int
    return function


def with_one_mkl_thread(kernel: Callable[..., Sequence[Any]]) -> Callable[..., Sequence[Any]]:
    """Return the kernel with its matrix products on the calling thread; the kernel itself where MKL cannot be told.

    A product of 100×25 with 25×25 takes 2.9 µs on one thread and 3.4 on two, more where others use the second core. To set the
    number and set it back takes 0.4 µs. ``torch.set_num_threads`` would change it for the process.
    """
    set_threads = mkl_threads()
    if set_threads is None:
        return kernel

    def called(*inputs: Any) -> Sequence[Any]:
        before = set_threads(1)
        try:
            return kernel(*inputs)
        finally:
            set_threads(before)

    return called
