"""Time limits for the benchmark of a device: budgets, and blocks of code with a limit."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

LEAST = 45.0
"""The seconds that a contender can take even if fewer are left: compilation for a GPU takes half a minute."""

CASE = 30.0
"""The time limit in seconds for a case of the catalogue; the slowest takes less than one."""


class Budget:
    """A budget of time."""

    def __init__(self, seconds: float) -> None:
        """Start now."""
        self.end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """The seconds left."""
        return self.end - time.monotonic()


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise ``TimeoutError`` if the block takes longer.

    The error is raised between two Python instructions, so a kernel that never ends is not interrupted. There is no limit without
    timers, as on Windows, or outside the main thread.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        raise TimeoutError(f"it took more than {seconds:.3g} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
