"""Child processes: forked from one that has imported everything, so that kills are cheap, and read through a pipe."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PATIENCE = 120.0
"""The number of seconds after which a child counts as hanging."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class Ended:
    """The end of a child: its lines, and its exit code, which is minus the signal that killed it."""

    code: int
    lines: tuple[str, ...]

    @property
    def error(self) -> str:
        """Return the exception that ended the work, ``"Type: message"``, or ``""``."""
        return next((line.removeprefix("error ") for line in self.lines if line.startswith("error ")), "")

    def reported(self, word: str) -> list[str]:
        """Return the rest of each line of the child that begins with a word."""
        return [line.removeprefix(f"{word} ") for line in self.lines if line.startswith(f"{word} ")]


class Child:
    """A forked process that works and reports in lines; it leads a process group with the workers that it forks."""

    def __init__(self, work: Callable[[Report], Any]) -> None:
        """Fork, and start the work."""
        self.out, into = os.pipe()
        os.set_blocking(self.out, False)
        self.heard = ""
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        self.code: int | None = None
        if not self.pid:
            _work_and_exit(work, into)
        os.close(into)

    def kill(self, number: int = signal.SIGKILL) -> bool:
        """Send a signal, and return whether the child was still running."""
        if self._ended():
            return False
        os.kill(self.pid, number)
        return True

    def wait(self, until: Callable[[], bool] = lambda: False) -> bool:
        """Wait until the child has ended or a condition holds; return whether it has ended. A hanging child is killed."""
        deadline = time.monotonic() + PATIENCE
        while not self._ended() and not until():
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                raise TimeoutError(f"a child process did nothing for {PATIENCE:.0f} s")
            time.sleep(0.001)
        return self.code is not None

    def ended(self) -> Ended:
        """Wait for the end, and return the child's lines; its workers can outlive it and keep the pipe open."""
        self.wait()
        self.has("")
        os.close(self.out)
        return Ended(self.code or 0, tuple(self.heard.splitlines()))

    def has(self, word: str) -> bool:
        """Read the pipe, and return whether the child has written a word."""
        try:
            self.heard += os.read(self.out, 1 << 20).decode()
        except BlockingIOError:
            return word in self.heard
        return word in self.heard

    def end_group(self) -> None:
        """Kill workers that have outlived the child."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def _ended(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is not None


def _work_and_exit(work: Callable[[Report], Any], into: int) -> None:
    """Do the work in the child, without the parent's group, output and handlers; exit with 1 after an exception."""
    code = 1
    try:
        os.setsid()
        quiet = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(quiet, stream)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        work(lambda line: _write(into, line))
        code = 0
    except BaseException as error:
        words = " ".join(traceback.format_exception_only(error)).replace("\n", " ")
        _write(into, f"error {words}")
    finally:
        os._exit(code)


def _write(into: int, line: str) -> None:
    os.write(into, f"{line}\n".encode())


def run(work: Callable[[Report], Any]) -> Ended:
    """Do some work in a child, and wait for its end."""
    child = Child(work)
    try:
        return child.ended()
    finally:
        child.end_group()
