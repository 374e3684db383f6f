"""Threads: run a small kernel only on the calling thread, without affecting other Python threads.

A kernel of a few microseconds is slower on two threads than on one, since they wait for each other. MKL and OpenMP store the
number of threads per calling thread; setting and restoring both takes 0.9 µs. ``torch.set_num_threads`` would change them for the
whole process.
"""

import ctypes
from collections.abc import Callable, Iterable
from functools import cache, wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from funcnet.kernels.choices import NEVER, choice
from funcnet.kernels.private_names import constant
from funcnet.kernels.tracing import is_compiling

_P = ParamSpec("_P")
_R = TypeVar("_R")
Setter = Callable[[int], int]
"""Function that sets the number of threads for the calling thread, and returns a number that restores the previous one."""

PRODUCTS = choice("threads of small products", {"one": NEVER, "all": 0}, lambda cpu: 1 << 17, "multiplications")
"""Number of multiplications from which the products of a linear map use all threads.

µs of gyᵀ x and gy w for x (rows, in) and w (out, in), in a loop that calls nothing else (AMD EPYC, Zen 4, two cores). In a
training step the second thread sleeps in between, and takes longer. x wᵀ + b takes 0.3 µs less to 0.6 more on one thread.

    rows, in, out        two threads   one
    10, 20, 20           7.5           5.0
    100, 25, 25          10.6          9.7
    32, 64, 64           11.6          10.5
    100, 50, 50          15.2          18.1
    64, 128, 64          21.3          27.0
"""

BATCH_NORMS = choice("threads of small batch norms", {"one": NEVER, "all": 0}, lambda cpu: 1 << 15, "elements of a matrix")
"""Number of elements of a matrix from which the kernels of batch norm use all threads.

µs of the forward and the backward kernel for x (rows, channels), where threads divide the rows (AMD EPYC, Zen 4, two cores):

    rows, channels       two threads     one
    10, 20               18.1   13.0     5.5    6.9
    100, 100             26.7   26.5     10.7   12.8
    4096, 4              160    89       97     82
    300, 100             36.1   58.5     19.9   25.1

For images, threads divide the channels, and two are faster from 8 thousand elements on.
"""

_get_num_threads: Callable[[], int] = torch.get_num_threads


@cache
def mkl_threads() -> Setter | None:
    """Return MKL's setter, which returns 0 for a thread that has no number set; ``None`` if torch is built without MKL."""
    return _exported("MKL_Set_Num_Threads_Local", ctypes.c_int)


@cache
def openmp_threads() -> Setter | None:
    """Return OpenMP's setter; ``None`` if torch is built without OpenMP."""
    set_threads = _exported("omp_set_num_threads", None)
    if set_threads is None:
        return None

    def set_and_return(count: int) -> int:
        before = _get_num_threads()
        set_threads(count)
        return before

    return set_and_return


def _exported(name: str, result: type | None) -> Setter | None:
    """Return a function with one integer argument that torch's library, or a library linked to it, exports."""
    try:
        function = getattr(ctypes.PyDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")), name)
    except (OSError, AttributeError):
        return None
    function.argtypes, function.restype = [ctypes.c_int], result
    setter: Setter = function
    return setter


def with_one_mkl_thread(kernel: Callable[_P, _R]) -> Callable[_P, _R]:
    """Return the kernel with its matrix products on the calling thread; the kernel itself if there is no setter for MKL."""
    return _with_one(mkl_threads(), kernel)


def with_one_openmp_thread(kernel: Callable[_P, _R]) -> Callable[_P, _R]:
    """Return the kernel with its parallel loops on the calling thread; the kernel itself if there is no setter for OpenMP."""
    return _with_one(openmp_threads(), kernel)


def with_one_thread(kernel: Callable[_P, _R]) -> Callable[_P, _R]:
    """Return the kernel with everything on the calling thread, as far as there are setters.

    OpenMP's number is set first: reading the previous one makes torch initialize both numbers of a new thread. If MKL's came
    first, it would be restored to "not set", and that thread would ignore ``torch.set_num_threads`` from then on.
    """
    return with_one_openmp_thread(with_one_mkl_thread(kernel))


def _with_one(set_threads: Setter | None, kernel: Callable[_P, _R]) -> Callable[_P, _R]:
    if set_threads is None:
        return kernel

    @wraps(kernel)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        before = set_threads(1)
        try:
            return kernel(*args, **kwargs)
        finally:
            set_threads(before)

    return called


@constant
def are_several() -> bool:
    """Return whether kernels that the calling thread runs in eager mode may use several threads; takes 0.08 µs if not."""
    return _get_num_threads() > 1 and not is_compiling()


def is_one_thread_enough(multiplications: int) -> bool:
    """Return whether several threads are available and a product is small enough for one."""
    return are_several() and multiplications < PRODUCTS.value


def are_small(tensors: Iterable[Tensor]) -> bool:
    """Return whether the products and batch norms of all matrices among these tensors are small enough for one thread.

    A product of square matrices of n elements each takes n √n multiplications.
    """
    most = max([x.numel() for x in tensors], default=0)
    return most**3 < PRODUCTS.value**2 and most < BATCH_NORMS.value
