"""Kept checkpoints: a folder with one distributed checkpoint per saved step, of which the newest are kept."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field

from funcnet.distributed.checkpointing.checkpoints import load, load_metadata, save
from funcnet.distributed.checkpointing.folders import delete, remove
from funcnet.distributed.together import DamagedError, shared, succeed, workers_here
from funcnet.distributed.workers import Workers
from funcnet.errors import is_whole, size_or_none, value_error
from funcnet.flattening import Tree
from funcnet.saving.atomic import as_folder, valid_folder
from funcnet.value import Value, frozen

_NAME = re.compile(r"step-(\d{9,})|\.step-(\d{9,})\.old")


@frozen
class Checkpoints(Value):
    """A folder of checkpoints of several workers, one per saved step; the newest are kept, older ones deleted.

    All workers call the methods together and get the same results: rank 0 reads the folder. Each checkpoint is written
    completely or not at all, by ``distributed.save``. ``load`` without a step reads the newest one; if it is damaged, ``load``
    warns on rank 0 and reads the one before. Any number of workers can continue from a checkpoint. One job writes at a time.

    Args:
        folder: The folder, visible to all workers; the first save creates it, with its parents.
        keep: Number of checkpoints to keep: the one just saved and the newest of earlier steps, as in ``fn.Checkpoints``.
            ``None`` keeps all.
        group: The process group; by default all processes.

    Raises:
        ValueError: If ``folder`` is empty or not a path, or ``keep`` is below 1.

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
    group: Any = field(default=None, kw_only=True, repr=False)

    if TYPE_CHECKING:  # a type checker would refuse a folder of type ``str``

        def __init__(self, folder: Path | str, keep: int | None = 3, *, group: Any = None) -> None: ...

    def save(self, step: int, tree: Tree, metadata: Any = None) -> None:
        """Save a tree as the checkpoint of a step, then delete the checkpoints beyond ``keep``.

        Args:
            step: Number of the step, at least 0; a checkpoint of the same step is replaced.
            tree: The tree, as in ``distributed.save``.
            metadata: A tree without tensors, which ``load_metadata`` returns.

        Raises:
            ValueError: If ``step`` is negative, or ``distributed.save`` rejects the tree or metadata.
            OSError: If a worker cannot write, with its rank; nothing is deleted then.
        """
        workers = self._workers()
        number = succeed(workers, repr(self), lambda: self._number(step))
        self._on_first(workers, self._prepare)
        save(self._path(number), tree, metadata, self.group)
        self._on_first(workers, lambda: self._prune(number))

    def load(self, step: int | None = None, like: Tree = None) -> Tree:
        """Load the tree of a step, by default the newest undamaged one; damaged newer checkpoints raise a ``UserWarning``.

        Args:
            step: The step to load, or ``None`` for the newest.
            like: A tree with the expected structure, shapes and dtypes, as in ``distributed.load``.

        Raises:
            FileNotFoundError: If there is no checkpoint, or none for this step.
            ValueError: If the checkpoint of the step, or every checkpoint, is damaged, or the tree differs from ``like``.
        """
        return self._read(step, lambda path: load(path, like, self.group))

    def load_metadata(self, step: int | None = None) -> Any:
        """Load the metadata saved with a step, by default with the newest.

        Args:
            step: The step, or ``None`` for the newest.

        Raises:
            FileNotFoundError: If there is no checkpoint, or none for this step.
            ValueError: If the checkpoint of the step is damaged, or every one is.
        """
        workers = self._workers()
        return self._read(step, lambda path: self._on_first(workers, lambda: load_metadata(path)))

    def steps(self) -> list[int]:
        """Return the saved steps in ascending order, as rank 0 sees them, without reading their files."""
        return list(self._on_first(self._workers(), self._steps))

    def latest(self) -> int | None:
        """Return the newest step with an undamaged ``tree.fn``, or ``None``; tensors are not read."""

        def newest() -> int | None:
            return next((step for step in reversed(self._steps()) if _is_readable(self._path(step))), None)

        found: int | None = self._on_first(self._workers(), newest)
        return found

    def _read(self, step: int | None, read: Callable[[Path], Any]) -> Any:
        steps = self.steps()
        if step is None:
            return self._read_newest(steps, read)
        number = self._number(step)
        if number not in steps:
            listed = ", ".join(map(str, steps)) or "none so far"
            raise FileNotFoundError(f"{self!r}: step must be one of the saved steps, {listed}, got {number}")
        return read(self._path(number))

    def _read_newest(self, steps: list[int], read: Callable[[Path], Any]) -> Any:
        """Read the newest undamaged checkpoint; errors are the same on all workers, so all try the same one next."""
        damaged: list[str] = []
        for step in reversed(steps):
            try:
                return read(self._path(step))
            except (DamagedError, OSError) as error:
                damaged.append(f"step {step}: {error}")
                if self._workers().rank == 0:
                    words = f"{self!r}: {self._path(step)} is damaged and skipped: {error}"
                    warnings.warn(words, UserWarning, stacklevel=4)
        if not damaged:
            raise FileNotFoundError(f"{self!r}: folder must have a checkpoint to load, got none")
        raise value_error(self, "folder must have an undamaged checkpoint", f"{len(damaged)} damaged: {'; '.join(damaged)}")

    def _workers(self) -> Workers:
        return workers_here(repr(self), self.group)

    def _on_first(self, workers: Workers, what: Callable[[], Any]) -> Any:
        """Call a function on rank 0, and return its result on all workers."""
        return shared(workers, repr(self), lambda: what() if workers.rank == 0 else None)[0]

    def _number(self, step: Any) -> int:
        if not is_whole(step) or step < 0:
            raise value_error(self, "step must be a whole number of at least 0", step)
        return int(step)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}"

    def _steps(self) -> list[int]:
        try:
            names = [_NAME.fullmatch(path.name) for path in self.folder.iterdir() if path.is_dir()]
        except FileNotFoundError:
            return []
        return sorted({int(name[1] or name[2]) for name in names if name})

    def _prepare(self) -> None:
        """Create the folder, and remove leftovers of killed saves."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(".step-*.tmp"):
            remove(left)

    def _prune(self, step: int) -> None:
        if self.keep is None:
            return
        older = [one for one in self._steps() if one < step]
        for one in older[: max(0, len(older) - self.keep + 1)]:
            try:
                delete(self._path(one))
            except OSError as error:
                warnings.warn(f"{self!r}: {self._path(one)} could not be deleted: {error}", UserWarning, stacklevel=2)

    def __repr__(self) -> str:
        return f"Checkpoints({str(self.folder)!r}, keep={self.keep})"


def _is_readable(path: Path) -> bool:
    try:
        load_metadata(path)
    except (ValueError, OSError):
        return False
    return True
