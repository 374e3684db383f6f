"""Atomic files: at every moment the disk contains either the complete old file or the complete new one."""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from funcnet.errors import describe, value_error


def require_path(who: str, path: Any) -> Path:
    """Return the ``Path`` of a non-empty ``str`` or ``os.PathLike``."""
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    if not isinstance(text, str) or not text or "\0" in text or text.endswith(("/", os.sep)):
        raise value_error(who, "path must be a str or os.PathLike that names a file", describe(path))
    return Path(text)


def require_new_file(who: str, path: Any) -> Path:
    """Return the ``Path`` of a file in an existing folder: a check before the content is computed."""
    found = require_path(who, path)
    if not found.parent.is_dir():
        raise value_error(who, "the folder of path must exist", repr(os.fspath(path)))
    if found.is_dir():
        raise value_error(who, "path must name a file", f"the folder {os.fspath(path)!r}")
    return found


def as_folder(given: Any) -> Any:
    """Convert a string or path to a ``Path``; return other values unchanged."""
    return Path(given) if isinstance(given, (str, os.PathLike)) and isinstance(os.fspath(given), str) and given != "" else given


def valid_folder(value: Any, attribute: Any, got: Any) -> None:
    """Validate the field ``folder``: a non-empty path."""
    if not isinstance(got, Path):
        raise value_error("Checkpoints", "folder must be a path, a non-empty str or Path", got)


@contextmanager
def written_whole(who: str, path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file next to ``path``, which replaces the file at the end; an exception removes it.

    The file keeps the permissions of the file that it replaces; otherwise it has the default permissions. If ``path`` is a link,
    its target is replaced.
    """
    path = _resolve(path)
    mode = _mode(who, path)
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.tmp")
    try:
        with _create(who, temporary) as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode) if mode is None else mode
            yield file
        with temporary.open("rb+") as file:  # opened again, because a library may have replaced the file
            temporary.chmod(mode)
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def _resolve(path: Path) -> Path:
    try:
        return path.resolve()
    except RuntimeError:  # Python 3.12 and earlier raise it for circular links; later versions do not
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from None


def _mode(who: str, path: Path) -> int | None:
    """Return the permissions of the file to be replaced, or ``None`` without a file."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        raise value_error(who, "path must name a file", f"{str(path)!r}, a {'folder' if stat.S_ISDIR(mode) else 'device'}")
    return stat.S_IMODE(mode)


def _create(who: str, temporary: Path) -> IO[bytes]:
    """Create a file with default permissions."""
    try:
        return temporary.open("xb")
    except FileNotFoundError:
        folder = str(temporary.parent)
        raise FileNotFoundError(errno.ENOENT, f"{who}: the folder of path must exist", folder) from None


def sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to the disk, on systems that can open folders."""
    if hasattr(os, "O_DIRECTORY"):
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
