"""Threads: the first kernel that a new Python thread runs does not change the thread's numbers of threads."""

from threading import Thread
from typing import Any

import pytest
import torch

from funcnet.kernels import threads


@pytest.mark.parametrize("wrap", [threads.with_one_openmp_thread, threads.with_one_thread])
def test_the_first_call_in_a_new_thread_leaves_torchs_numbers(wrap: Any) -> None:
    """MKL still follows ``torch.set_num_threads`` there, and does not revert to a number of the process."""
    found: list[int] = []

    def run() -> None:
        wrap(lambda: found.append(torch.get_num_threads()))()
        found.append(torch.get_num_threads())
        mkl = threads.mkl_threads()
        if mkl is not None:
            found.append(mkl(0))

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        thread = Thread(target=run)
        thread.start()
        thread.join()
    finally:
        torch.set_num_threads(before)
    assert found == [1 if threads.openmp_threads() else 3, 3, *[3] * (threads.mkl_threads() is not None)]
