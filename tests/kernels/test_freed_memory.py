"""Freed memory is kept for the next tensors if the C library is glibc."""

import os
import platform
import subprocess
import sys

import pytest
import torch

import funcnet as fn

KEPT = """
import resource, torch
from funcnet.kernels import retain_freed_memory

def faults():
    held = [torch.zeros(4 << 20) for _ in range(16)]  # 256 MB
    del held
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [torch.zeros(4 << 20) for _ in range(16)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults())
retain_freed_memory()
print(faults())
"""

PROGRAM = """
import ctypes, torch
from funcnet.kernels import retain_freed_memory

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd more and so on".split() + ["end"]]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Info

def mapped():
    before = mallinfo().hblkhd
    held = torch.empty(16 << 20, dtype=torch.uint8)
    return mallinfo().hblkhd - before

print(mapped())
retain_freed_memory()
print(mapped())
"""


def test_what_goes_back_is_kept():
    """A tensor of 16 MB is mapped and unmapped separately; with retain_freed_memory it is allocated on the heap."""
    if platform.libc_ver()[0] == "glibc":
        before, after = _numbers(PROGRAM)
        assert before >= 16 << 20
        assert after == 0


def test_a_training_step_retains_it_from_the_start():
    """A training loop frees caches and gradients together, so ``train_step`` calls retain_freed_memory."""
    if platform.libc_ver()[0] == "glibc":
        made = "import funcnet as fn; fn.train_step(fn.Linear(2, 2), fn.MSE(), fn.SGD(0.1))"
        before, after = _numbers(PROGRAM.replace("retain_freed_memory()", made))
        assert before >= 16 << 20
        assert after == 0


OPTIMIZERS = ["fn.SGD(0.1)", "fn.donate(fn.AdamW())", "fn.chain(fn.ClipByGlobalNorm(1.0), fn.Adam())", "fn.LBFGS()"]


@pytest.mark.parametrize("opt", OPTIMIZERS)
def test_a_bare_loop_retains_it_from_the_init_of_its_optimizer(opt):
    """A hand-written loop calls neither ``train_step`` nor ``fit``, but it calls ``init``."""
    if platform.libc_ver()[0] == "glibc":
        made = f"import funcnet as fn; {opt}.init(fn.Linear(2, 2).init(0))"
        before, after = _numbers(PROGRAM.replace("retain_freed_memory()", made))
        assert before >= 16 << 20
        assert after == 0


def test_init_is_traced_whole():
    """Memory is retained during tracing; the program itself contains only tensor operations."""
    params = fn.Linear(2, 2).init(0)
    state = torch.compile(fn.Adam().init, backend="eager", fullgraph=True)(params)
    assert fn.tree.equal(state, fn.Adam().init(params))


def test_blocks_above_32_mb_are_kept_on_request():
    """glibc maps these blocks one by one, whatever the threshold, unless mapping is off."""
    if platform.libc_ver()[0] == "glibc":
        larger = PROGRAM.replace("16 << 20", "48 << 20")
        assert min(_numbers(larger)) >= 48 << 20
        before, after = _numbers(larger.replace("retain_freed_memory()", "retain_freed_memory(large_blocks=True)"))
        assert before >= 48 << 20
        assert after == 0


def test_hundreds_of_megabytes_are_kept():
    """256 MB that are freed and allocated again cause a fault on every page; if retained, on none."""
    if platform.libc_ver()[0] == "glibc":
        before, after = _numbers(KEPT)
        assert before > 10_000
        assert after < before / 10


def test_thresholds_from_the_environment_stay():
    """If the environment sets a threshold, nothing changes: the tensor of 16 MB is still mapped separately."""
    if platform.libc_ver()[0] == "glibc":
        assert min(_numbers(PROGRAM, MALLOC_MMAP_THRESHOLD_="131072")) >= 16 << 20


def _numbers(program, **variables):
    environment = {**os.environ, **variables}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    return [*map(int, ran.stdout.split())]
