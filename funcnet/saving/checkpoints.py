"""Checkpoints: a folder with one file per saved step, where only the newest files are kept."""

import atexit
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field

from funcnet.errors import flag, is_whole, size_or_none, value_error
from funcnet.flattening import Tree
from funcnet.saving.atomic import as_folder, valid_folder
from funcnet.saving.background import save_in_background
from funcnet.saving.files import load, load_metadata, save
from funcnet.saving.folder_lock import FolderLock, all_locks, lock_of
from funcnet.value import Value, frozen

_NAME = re.compile(r"step-(\d{9,})\.fn")
_TEMPORARY = ".step-*.fn.*.tmp"


@frozen
class Checkpoints(Value):
    """A folder of checkpoints with one file per saved step; the newest files are kept, older ones deleted.

    Each file is written completely or not at all, with checksums, as in ``funcnet.save``. ``load`` without a step reads the
    newest file; if it is damaged, it warns and reads the previous one. ``fit(..., checkpoints=...)`` saves and resumes here.

    One process writes at a time. A save locks the folder, with ``flock`` on its file ``.lock``, and waits while another process
    saves. The system releases the lock when the process dies, and the next save removes the temporary file of a killed process.
    File systems without ``flock`` are not locked. Other files in the folder are ignored and kept.

    Args:
        folder: The folder; the first save creates it, with its parents.
        keep: Number of files to keep: the file just saved and the newest files of earlier steps. Files of later steps are never
            deleted: a run that resumes from before a damaged file keeps the good ones. ``None`` keeps all files.
        every: Number of steps between the saves of ``fit`` within an epoch; ``None`` to save only after each epoch.
        background: Whether ``save`` returns while a thread writes, as in ``save_in_background``. The next call, ``wait`` and the
            exit of the interpreter wait for the thread and raise its error.

    Raises:
        ValueError: If ``folder`` is empty or not a path, or if ``keep`` or ``every`` is below 1.

    >>> import tempfile, torch
    >>> folder = tempfile.TemporaryDirectory()
    >>> checkpoints = Checkpoints(folder.name, keep=2)
    >>> for step in range(4):
    ...     checkpoints.save(step, {"weight": torch.full((2,), float(step))}, {"loss": 1 / (step + 1)})
    >>> checkpoints.steps(), checkpoints.load(), checkpoints.load_metadata(2)
    ([2, 3], {'weight': tensor([3., 3.])}, {'loss': 0.3333333333333333})
    >>> folder.cleanup()
    """

    folder: Path = field(converter=as_folder, validator=valid_folder)
    keep: int | None = field(default=3, validator=size_or_none)
    every: int | None = field(default=None, kw_only=True, validator=size_or_none)
    background: bool = field(default=False, kw_only=True, validator=flag)

    if TYPE_CHECKING:  # a type checker would refuse a folder of type ``str``

        def __init__(
            self, folder: Path | str, keep: int | None = 3, *, every: int | None = None, background: bool = False
        ) -> None: ...

    def save(self, step: int, tree: Tree, metadata: Any = None) -> None:
        """Save a tree as the checkpoint of a step, then delete the files beyond ``keep``.

        Args:
            step: Number of the step, at least 0; a checkpoint of the same step is replaced.
            tree: The tree, as in ``funcnet.save``.
            metadata: A tree without tensors, which ``load_metadata`` returns, as in ``funcnet.save``.

        Raises:
            ValueError: If ``step`` is negative, ``funcnet.save`` rejects the tree or metadata, or another process is training
                with the folder.
            OSError: If the file cannot be written; no file is deleted then.
        """
        step, lock = self._number(step), lock_of(self.folder)
        with lock.writing:
            self.wait()
            self.folder.mkdir(parents=True, exist_ok=True)
            with lock.saving(repr(self)) as is_first:
                if is_first:
                    _remove_leftovers(lock)
                if self.background:
                    future = save_in_background(self._file(step), tree, metadata)
                    lock.acquire(repr(self))  # a second time, for the thread
                    here = self.replace(folder=self.folder.absolute())  # the working directory may change
                    lock.pending = _Pending(future, lambda: here._prune(step), lock)
                else:
                    save(self._file(step), tree, metadata)
                    self._prune(step)

    def load(
        self,
        step: int | None = None,
        like: Tree = None,
        *,
        rename: Any = None,
        partial: bool = False,
        device: Any = None,
    ) -> Tree:
        """Load the tree of a step, by default from the newest undamaged file; warn about each newer, damaged file.

        Args:
            step: The step to load, or ``None`` for the newest.
            like: A tree with the expected structure, shapes and dtypes, as in ``funcnet.load``.
            rename: New names for paths of the file, as in ``funcnet.load``.
            partial: Whether the file and ``like`` may each have paths that the other lacks, as in ``funcnet.load``.
            device: Device of the tensors, as in ``funcnet.load``.

        Raises:
            FileNotFoundError: If there is no checkpoint, or none of this step.
            ValueError: If the file of the step is damaged, every file is damaged, or the tree differs from ``like``.
        """
        return self._read(step, lambda path: load(path, like, rename=rename, partial=partial, device=device))

    def load_metadata(self, step: int | None = None) -> Any:
        """Load the metadata saved with a step, by default from the file that ``load`` reads.

        Args:
            step: The step, or ``None`` for the newest.

        Raises:
            FileNotFoundError: If there is no checkpoint, or none of this step.
            ValueError: If the file of the step is damaged, or every file is.
        """
        return self._read(step, _load_whole_metadata if step is None else load_metadata)

    def steps(self) -> list[int]:
        """Return the saved steps in ascending order, without reading their files."""
        self.wait()
        return self._steps()

    def latest(self) -> int | None:
        """Return the newest step with an undamaged file header, or ``None``; tensors are not read."""
        steps: list[int] | None = None
        while steps != (steps := self.steps()):  # another process can have saved a newer file and deleted these
            for step in reversed(steps):
                if _damage(load_metadata, self._file(step)) is None:
                    return step
        return None

    def wait(self) -> None:
        """Wait for a background save, and raise its error if it failed."""
        _wait_for(lock_of(self.folder))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock for a whole run, as ``fit`` does: ``with checkpoints.locked(): ...``.

        Raises:
            ValueError: If another process, or another run of this process, holds the lock; ``locked`` does not wait.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = lock_of(self.folder)
        with lock.training(repr(self)) as is_first:
            if is_first:
                _remove_leftovers(lock)
            try:
                yield
            finally:
                self.wait()

    def _number(self, step: Any) -> int:
        if not is_whole(step) or step < 0:
            raise value_error(self, "step must be a whole number of at least 0", step)
        return int(step)

    def _file(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}.fn"

    def _steps(self) -> list[int]:
        try:
            names = [_NAME.fullmatch(path.name) for path in self.folder.iterdir()]
        except FileNotFoundError:
            return []
        return sorted({step for step in [int(name[1]) for name in names if name] if self._file(step).is_file()})

    def _read(self, step: int | None, read: Callable[[Path], Any]) -> Any:
        if step is None:
            return self._read_newest(read)
        number, steps = self._number(step), self.steps()
        if number not in steps:
            raise FileNotFoundError(f"{self!r}: step must be one of {_listed(steps)}, got {number}")
        return read(self._file(number))

    def _read_newest(self, read: Callable[[Path], Any]) -> Any:
        """Read the newest undamaged file, and warn about damaged ones."""
        damaged: dict[Path, Exception] = {}
        steps = self.steps()
        while steps:
            path = self._file(steps.pop())
            try:
                return read(path)
            except FileNotFoundError:  # deleted when another process saved newer ones
                steps = [one for one in self._steps() if self._file(one) not in damaged]
            except (ValueError, OSError) as error:
                damage = _damage(load, path)
                if damage is None:
                    raise  # the file is undamaged, but its tree differs from the expected one
                damaged[path] = damage
                warnings.warn(f"{self!r}: {path} is damaged and skipped: {error}", UserWarning, stacklevel=4)
        if not damaged:
            raise FileNotFoundError(f"{self!r}: folder must have a checkpoint to load, got none")
        raise value_error(self, "folder must have an undamaged checkpoint", f"{len(damaged)} damaged: {_reasons(damaged)}")

    def _prune(self, step: int) -> None:
        """Delete the earlier files beyond ``keep`` after a step was saved; warn if one cannot be deleted."""
        if self.keep is None:
            return
        older = [one for one in self._steps() if one < step]
        for one in older[: max(0, len(older) - self.keep + 1)]:
            try:
                self._file(one).unlink(missing_ok=True)
            except OSError as error:
                warnings.warn(f"{self!r}: {self._file(one)} could not be deleted: {error}", UserWarning, stacklevel=2)

    def __repr__(self) -> str:
        words = [repr(str(self.folder)), f"keep={self.keep}"]
        words += [f"every={self.every}"] * (self.every is not None) + ["background=True"] * self.background
        return f"Checkpoints({', '.join(words)})"


def _listed(steps: list[int]) -> str:
    return f"the saved steps, {', '.join(map(str, steps))}" if steps else "the saved steps, none so far"


def _reasons(damaged: dict[Path, Exception]) -> str:
    return "; ".join(f"{path.name}: {error}" for path, error in damaged.items())


def _damage(read: Callable[[Path], Any], path: Path) -> Exception | None:
    """Return the error of reading a file, or ``None``."""
    try:
        read(path)
    except (ValueError, OSError) as error:
        return error
    return None


def _load_whole_metadata(path: Path) -> Any:
    load(path)
    return load_metadata(path)


def _remove_leftovers(lock: FolderLock) -> None:
    """Remove the temporary files of killed processes; the lock ensures that no other process is writing."""
    if lock.is_exclusive:
        for path in lock.path.parent.glob(_TEMPORARY):
            with suppress(OSError):
                path.unlink()


class _Pending:
    """A background save. When it is done, older files are deleted and the lock is released."""

    def __init__(self, future: Future[None], prune: Callable[[], None], lock: FolderLock) -> None:
        self.future, self.prune, self.lock = future, prune, lock
        self.finishing, self.is_finished = threading.Lock(), False
        future.add_done_callback(self.finish)

    def finish(self, future: Future[None]) -> None:
        """Delete and release once: the thread that waits for the save can be ahead of the thread that saved."""
        with self.finishing:
            if self.is_finished:
                return
            self.is_finished = True
            try:
                if future.exception() is None:
                    self.prune()
            finally:
                self.lock.release()


def _wait_for(lock: FolderLock) -> None:
    with lock.writing:
        pending: _Pending | None = lock.pending
        if pending is None:
            return
        wait([pending.future])
        pending.finish(pending.future)
        lock.pending = None
        pending.future.result()


@atexit.register
def _wait_for_all() -> None:
    for lock in all_locks():
        _wait_for(lock)
