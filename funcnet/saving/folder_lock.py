"""The lock of a folder of checkpoints: one process writes at a time, and the system releases the lock when the process dies.

``flock`` belongs to an open file, so two open files in one process would exclude each other. All writers of a process therefore
share one ``FolderLock``, which keeps the file open while it has a holder.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from funcnet.errors import value_error

try:
    import fcntl
except ImportError:  # on Windows, where folders are not locked
    fcntl = None  # type: ignore[assignment]

_PAUSE = 0.05
"""Seconds between two attempts to get a lock that another process holds for a save."""


class FolderLock:
    """The lock of one folder, held from the first ``acquire`` to the last ``release``.

    Attributes:
        is_exclusive: Whether no other process can be writing; ``False`` on file systems without ``flock``.
        is_training: Whether ``training`` holds the lock, for a whole run.
        writing: A lock for the threads of this process, which save one after another.
        pending: The background save that nobody has waited for, or ``None``.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".lock"
        self.writing = threading.RLock()
        self.forget()

    def forget(self) -> None:
        """Reset to the state of a new or forked process, which holds nothing; the parent keeps the lock."""
        self._counting = threading.Lock()
        self._descriptor: int | None = None
        self._holders = 0
        self.is_exclusive = self.is_training = False
        self.pending: Any = None

    def acquire(self, who: str) -> bool:
        """Acquire the lock for a save, waiting while another process saves; return whether this is the first hold.

        Raises:
            ValueError: If another process holds the lock for a whole run.
        """
        with self._counting:
            if not self._holders:
                self._lock(who, self._wait)
            self._holders += 1
            return self._holders == 1

    def release(self) -> None:
        """Release one hold; the last one unlocks the folder."""
        with self._counting:
            self._holders = max(self._holders - 1, 0)  # a forked process holds nothing, but can leave its parent's ``with``
            if not self._holders:
                self._close()

    @contextmanager
    def saving(self, who: str) -> Iterator[bool]:
        """Hold the lock for a save, as ``acquire`` and ``release`` do; yield whether this is the first hold."""
        is_first = self.acquire(who)
        try:
            yield is_first
        finally:
            self.release()

    @contextmanager
    def training(self, who: str) -> Iterator[bool]:
        """Hold the lock for a whole run, without waiting; yield whether this is the first hold.

        Raises:
            ValueError: If another process, or another run of this process, holds the lock.
        """
        with self._counting:
            if self.is_training:
                raise _busy_error(who, "this process is already training with this folder")
            is_first = not self._holders
            if is_first:
                self._lock(who, self._refuse_to_wait)
            self._holders += 1
            self.is_training = True
            self._write(str(os.getpid()))
        try:
            yield is_first
        finally:
            with self._counting:
                self.is_training = False
                self._write("")
            self.release()

    def close_copy(self) -> None:
        """Close the file that ``fork`` copied, without unlocking it for the parent, and hold nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self.writing = threading.RLock()
        self.forget()

    def _lock(self, who: str, when_busy: Callable[[str], None]) -> None:
        """Open the file and lock it; ``when_busy`` waits for a process that holds the lock, or raises."""
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            while not self._try():
                when_busy(who)
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        if self._descriptor is not None:
            if self.is_exclusive:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # a process forked just now may still have the file open
            os.close(self._descriptor)
        self._descriptor, self.is_exclusive = None, False

    def _try(self) -> bool:
        """Try to lock the open file; return ``True`` with the lock, or if locks are not supported."""
        if fcntl is None or self._descriptor is None:
            return True
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
        self.is_exclusive = True
        self._write("")  # remove the process id of a killed process
        return True

    def _wait(self, who: str) -> None:
        """Wait a moment; raise if the same process is training before and after.

        The file has the id of the training process. If that process was killed, the next holder removes the id.
        """
        before = self._trainer()
        time.sleep(_PAUSE)
        if before and before == self._trainer() and not self._try():
            self._refuse_to_wait(who)

    def _refuse_to_wait(self, who: str) -> None:
        raise _busy_error(who, "another process is training with this folder" + (self._trainer() or " or saving in it"))

    def _trainer(self) -> str:
        """Return the id of the training process as text, or ``""`` if the file has none."""
        with suppress(OSError, ValueError):
            return f" (pid {int(self.path.read_text())})"
        return ""

    def _write(self, word: str) -> None:
        """Write a word to the file; the lock also works without it, for example on a full disk."""
        if self._descriptor is not None and self.is_exclusive:
            with suppress(OSError):
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, word.encode(), 0)


def _busy_error(who: str, by: str) -> ValueError:
    return value_error(who, "only one run at a time can use the folder", f"a second writer: {by}")


_LOCKS: dict[str, FolderLock] = {}


def lock_of(folder: Path) -> FolderLock:
    """Return the lock of a folder, the same for every path to it."""
    real = os.path.realpath(folder)
    return _LOCKS.setdefault(real, FolderLock(Path(real)))


def all_locks() -> list[FolderLock]:
    """Return the locks of all folders that this process has used."""
    return [*_LOCKS.values()]


def _close_copies() -> None:
    for lock in _LOCKS.values():
        lock.close_copy()


if hasattr(os, "register_at_fork"):  # else a DataLoader worker would keep the lock for a while after its trainer was killed
    os.register_at_fork(after_in_child=_close_copies)
