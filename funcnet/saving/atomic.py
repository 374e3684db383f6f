"""Files that are written in one piece: at every moment the old one is there, or the new one, whole and on the disk."""

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
    """Return a path, which must be a ``str`` or an ``os.PathLike`` of one, and not empty."""
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    if not isinstance(text, str) or not text or "\0" in text or text.endswith(("/", os.sep)):
        raise value_error(who, "path must be a str or os.PathLike that names a file", describe(path))
    return Path(text)


@contextmanager
def written_whole(who: str, path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside ``path``; at the end it takes the place of the file there, or is removed by an exception.

    The file has the permissions of the one that it replaces, or those of a new file. Where ``path`` is a link, the file to which
    it leads is replaced.
    """
    path = _resolved(path)
    mode = _mode(who, path)
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.tmp")
    try:
        with _create(who, temporary) as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode) if mode is None else mode
            yield file
        with temporary.open("rb+") as file:  # another one, if a library has put its own in the place
            temporary.chmod(mode)
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except RuntimeError:  # Python 3.12 and earlier raise it for links in a circle, and later ones nothing
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from None


def _mode(who: str, path: Path) -> int | None:
    """Return the permissions of the file to be replaced; ``None`` where there is none."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        raise value_error(who, "path must name a file", f"{str(path)!r}, a {'folder' if stat.S_ISDIR(mode) else 'device'}")
    return stat.S_IMODE(mode)


def _create(who: str, temporary: Path) -> IO[bytes]:
    """Create a file, with the permissions of any new one."""
    try:
        return temporary.open("xb")
    except FileNotFoundError:
        folder = str(temporary.parent)
        raise FileNotFoundError(errno.ENOENT, f"{who}: the folder of path must exist", folder) from None


def _sync_folder(folder: Path) -> None:
    """Put the new name of a file on the disk, where the system can open folders."""
    if hasattr(os, "O_DIRECTORY"):
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
