"""Atomic folders: written next to the old one, flushed, and renamed when all workers are done.

    .net.1f3a....tmp/     the new checkpoint while it is written
    net/                  the checkpoint
    .net.old/             the previous checkpoint, while the new one is renamed; read if ``net`` is missing

Only files of checkpoints are ever deleted.
"""

import os
import re
import secrets
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from funcnet.errors import describe, value_error
from funcnet.saving.atomic import sync_folder
from funcnet.saving.tensors import Damaged

Sums = dict[str, tuple[int, int]]
"""Bytes and CRC-32 of files, by name."""

TREE = "tree.fn"
"""The file that ``fn.save`` writes in the folder: the tree without tensors, and the sums of the other files."""

_OURS = re.compile(r"tree\.fn|\.tree\.fn\..*|\.metadata(\..*)?|__\d+_\d+\.distcp(\..*)?")
"""Names of the files in a checkpoint, and of files that are not renamed yet. Nothing else is ever deleted."""

_CHUNK = 1 << 22


def require_folder(who: str, path: Any) -> Path:
    """Return the ``Path`` of a folder, which need not exist."""
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    if not isinstance(text, str) or Path(text).name in ("", "..") or "\0" in text:
        raise value_error(who, "path must be a str or os.PathLike that ends with the name of a folder", describe(path))
    return Path(text)


def beside(path: Path, token: str) -> Path:
    """Return the temporary folder for a path."""
    return path.with_name(f".{path.name}.{token}.tmp")


def begin(path: Path) -> str:
    """Create the temporary folder for a path, remove those of killed saves, and return its token; only rank 0 calls this."""
    if path.is_file():
        raise FileExistsError(17, "path must name a folder, got a file", str(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(2, "path must be in an existing folder", str(path))
    _require_ours(path)
    of_a_save = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}\.tmp")  # ".net.part.1f3a....tmp" belongs to "net.part"
    for left in [one for one in path.parent.iterdir() if of_a_save.fullmatch(one.name)]:
        remove(left)
    token = secrets.token_hex(8)
    beside(path, token).mkdir()
    return token


def finish(path: Path, token: str) -> None:
    """Flush the folder and rename it; the old folder of this name is deleted only afterwards."""
    new, old = beside(path, token), _old(path)
    sync_folder(new)
    if path.is_dir():
        _require_ours(path)
        remove(old)
        path.rename(old)
    new.rename(path)
    sync_folder(path.parent)
    remove(old)


def give_up(path: Path, token: str) -> None:
    """Delete an unfinished folder."""
    remove(beside(path, token))


def existing(path: Path) -> Path:
    """Return the folder to read for a path: the previous one if a save was killed between the two renames."""
    return _old(path) if not path.exists() and _old(path).is_dir() else path


def delete(path: Path) -> None:
    """Delete a checkpoint; it is renamed first, so that no part of it is ever read."""
    with suppress(FileNotFoundError):
        left = beside(path, secrets.token_hex(8))
        path.rename(left)
        remove(left)
    remove(_old(path))


def remove(folder: Path) -> None:
    """Delete the files of a checkpoint, and the folder if it is then empty; links are not followed."""
    with suppress(OSError):
        for file in [] if folder.is_symlink() else [*folder.iterdir()]:
            if _OURS.fullmatch(file.name) and not file.is_dir():
                file.unlink()
        folder.rmdir()


def _require_ours(path: Path) -> None:
    """Raise ``FileExistsError`` for a folder with other files, which would be lost."""
    files = sorted(path.iterdir()) if path.is_dir() else []
    names = [file.name for file in files]
    others = names if names == [TREE] else [one.name for one in files if not _OURS.fullmatch(one.name) or one.is_dir()]
    if others:
        rule = f"path must name a new folder or one with only a checkpoint, got one with {', '.join(map(repr, others[:3]))}"
        raise FileExistsError(17, rule, str(path))


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def sums_of(folder: Path, pattern: str) -> Sums:
    """Return the sums of the files whose names match a pattern."""
    return {path.name: (path.stat().st_size, _checksum(path)) for path in sorted(folder.glob(pattern))}


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


def require_sizes(folder: Path, sums: Sums) -> None:
    """Raise ``Damaged`` for files that are missing or have another size."""
    for name, (size, _) in sums.items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else None
        if found != size:
            raise Damaged(f"{name} {'is missing' if found is None else f'has {found} bytes instead of {size}'}")


def require_sums(folder: Path, sums: Sums) -> None:
    """Raise ``Damaged`` for files with another checksum."""
    for name, (_, checksum) in sums.items():
        if _checksum(folder / name) != checksum:
            raise Damaged(f"the checksum of {name} differs")
