"""Saving in the background: one thread writes the files, in the order of the calls."""

import os
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import attrs
import torch

from funcnet.errors import value_error
from funcnet.flattening import Tree
from funcnet.saving.atomic import require_path
from funcnet.saving.files import PathLike, write_whole
from funcnet.saving.structure import Encoded, encoded
from funcnet.saving.tensors import checksum, in_memory


def save_in_background(path: PathLike, tree: Tree, metadata: Any = None) -> Future[None]:
    """Save a tree as ``save`` does, in another thread: training continues while the file is written.

    The file contains the values at the time of the call. Dense tensors on the CPU are not copied, because params are never
    written to; other tensors are copied at the call. Code that works in place, such as a donated optimizer, could change a tensor
    before it is written. Checksums computed at the call (0.06 s for 400 MB) detect this, and no file is written. In this case,
    pass a copy: ``tree.map(torch.clone, params)``.

    One thread writes all files, in the order of the calls. The interpreter waits for it at exit.

    Args:
        path: The file, as in ``save``.
        tree: The tree, as in ``save``; it stays in memory until it is written.
        metadata: The metadata, as in ``save``.

    Returns:
        A future. Its ``result()`` waits until the file is on the disk, and raises the errors of ``save``. A failure also gives a
        ``RuntimeWarning``, for programs that never ask for the result.

    Raises:
        ValueError: Immediately, if ``save`` rejects a value; from ``result()``, if a tensor was written to.
        ImportError: From ``result()``, for a ``.safetensors`` file if the library is not installed.

    >>> import tempfile, torch
    >>> folder = tempfile.TemporaryDirectory()
    >>> save_in_background(f"{folder.name}/net.fn", {"weight": torch.ones(2)}).result()
    >>> folder.cleanup()
    """
    where = require_path("save_in_background", path).absolute()
    what = encoded("save_in_background", tree, metadata)
    with torch.inference_mode(False):
        tensors = [in_memory(x, form) for x, form in zip(what.tensors, what.forms, strict=True)]
    what = attrs.evolve(what, tensors=tensors)
    return _writer().submit(_write, where, what, [*map(checksum, tensors)])


@lru_cache
def _writer() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="funcnet-save")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_writer.cache_clear)  # a forked process does not have its parent's threads


def _write(path: Path, what: Encoded, checksums: list[int]) -> None:
    try:
        write_whole("save_in_background", path, what, lambda: _require_unchanged(what, checksums))
    except Exception as error:
        try:
            warnings.warn(f"save_in_background: {str(path)!r} was not saved: {error}", RuntimeWarning, stacklevel=1)
        finally:
            raise error  # also where warnings are errors


# Checksums instead of tensor versions: neither torch's fused Adam, which a donated Adam calls, nor numpy increments the version
# when it writes. Checksums of 400 MB take 0.06 s on one core; a copy takes 0.15 s and another 400 MB.
def _require_unchanged(what: Encoded, checksums: list[int]) -> None:
    for path, x, before in zip(what.paths, what.tensors, checksums, strict=True):
        if checksum(x) != before:
            rule = "tensors must not be written to until the file is written, as a donated optimizer does"
            raise value_error("save_in_background", rule, f"a change at {path!r}")
