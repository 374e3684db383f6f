"""Memory that tensors give back: kept for those to come, where the C library is glibc."""

import platform
import subprocess
import sys

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
    """A tensor of 16 MB is mapped separately and unmapped when freed; with retain_freed_memory it comes from the heap."""
    if platform.libc_ver()[0] == "glibc":
        ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
        before, after = map(int, ran.stdout.split())
        assert before >= 16 << 20
        assert after == 0
