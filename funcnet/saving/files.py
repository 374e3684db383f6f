"""Save and load: a tree in one file with checksums."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from funcnet.errors import add_location, describe, value_error
from funcnet.flattening import Tree
from funcnet.saving import file_format, safetensors_format
from funcnet.saving.agreement import agreeing, kinds, mapped, named_entries, nothing
from funcnet.saving.atomic import require_path, written_whole
from funcnet.saving.renaming import Rename, with_new_names
from funcnet.saving.structure import Encoded, encoded
from funcnet.saving.tensors import Damaged, Stored
from funcnet.tree.mapping import from_names

PathLike = str | os.PathLike[str]


def save(path: PathLike, tree: Tree, metadata: Any = None) -> None:
    """Save a tree in one file; after a crash or with a full disk, ``path`` has the old file or the new one, whole.

    The file is written beside ``path`` under another name, flushed to the disk, and renamed. Every byte has a checksum. Dense
    tensors keep their strides, others become contiguous. A tensor at two paths is saved once. Gradients are not saved.

    Args:
        path: The file, in an existing folder; an existing file is replaced, and its permissions stay. If the name ends in
            ``.safetensors``, the file has that format, with one contiguous tensor for each path; other names may have any suffix.
        tree: Dicts (with keys that are ``str``, ``int`` or ``bool``), tuples, named tuples, lists and ``torch.Size`` of dense
            tensors, ``None``, ``bool``, ``int``, ``float``, ``complex`` and ``str``; params and optimizer states are such trees.
            For a net, save ``repr(net)``.
        metadata: A tree without tensors, which ``load_metadata`` returns without reading the tensors of ``tree``.

    Raises:
        ValueError: For other leaves and nodes, with the path; for sparse, quantized and meta tensors; for a path that cannot be
            that of a file.
        OSError: From the system, for a missing folder or a full disk.
        ImportError: For a ``.safetensors`` file without ``pip install 'funcnet[safetensors]'``.

    >>> import tempfile, torch
    >>> folder = tempfile.TemporaryDirectory()
    >>> save(f"{folder.name}/net.fn", ({"weight": torch.ones(2)}, None), {"epoch": 3})
    >>> load(f"{folder.name}/net.fn"), load_metadata(f"{folder.name}/net.fn")
    (({'weight': tensor([1., 1.])}, None), {'epoch': 3})
    >>> folder.cleanup()
    """
    where = require_path("save", path)
    write_whole("save", where, encoded("save", tree, metadata))


def write_whole(who: str, path: Path, what: Encoded, check: Callable[[], None] = lambda: None) -> None:
    """Write a file in one piece unless ``check``, which is called before the file is renamed, raises an error."""
    try:
        with written_whole(who, path) as file:
            format_of(path).write(file, what)
            check()
    except Exception as error:
        add_location(error, f"{who}({str(path)!r}, ...)")
        raise


def format_of(path: Path) -> Any:
    """Return the module of a file's format, by the suffix of its name."""
    return safetensors_format if path.suffix == ".safetensors" else file_format


def load(
    path: PathLike,
    like: Tree = None,
    *,
    rename: Rename | None = None,
    partial: bool = False,
    device: torch.device | str | None = None,
) -> Tree:
    """Load a tree that ``save`` wrote, or a ``.safetensors`` file of another library; nothing in it is executed or imported.

    Args:
        path: The file. A ``.safetensors`` file of another library is a dict of its tensors by name.
        like: A tree with the expected structure, shapes and dtypes, such as ``net.init(0)``; its tensors may be on the meta
            device. The result has its classes of named tuples, its order of keys, and each tensor on the device of the one in
            ``like``. Without it, the structure is that of the file, named tuples have new classes, and tensors are on the CPU.
        rename: New names for paths of the file: a dict from patterns to new names, as ``{"old.*": "new.*"}``, where each ``*``
            of the new name is what the same ``*`` of the pattern matched; or a function from path to path. ``None`` as a new
            name leaves the path out. Paths that match no pattern keep their names. Without ``like``, ``tree.from_names``
            builds the renamed tree.
        partial: Whether the file may lack paths of ``like``, whose leaves are then those of ``like``, and may have others. Paths
            in both must agree: to give a net another head, leave the old one out with ``rename={"head.*": None}``.
        device: Device of all tensors.

    Returns:
        The tree, with each tensor in new memory; a tensor that was saved at two paths is one tensor again.

    Raises:
        ValueError: For a file that is damaged or of another format or version, before anything large is allocated; and one error
            for all paths that are missing, extra, or of another shape, dtype or type than in ``like``.
        OSError: From the system, for a missing file.

    >>> import tempfile, torch
    >>> folder = tempfile.TemporaryDirectory()
    >>> save(f"{folder.name}/net.fn", {"old": {"weight": torch.ones(2), "bias": torch.zeros(1)}})
    >>> load(f"{folder.name}/net.fn", {"new": {"weight": torch.empty(2)}}, rename={"old.*": "new.*"}, partial=True)
    {'new': {'weight': tensor([1., 1.])}}
    >>> folder.cleanup()
    """
    where = require_path("load", path)
    if partial and like is None:
        raise value_error("load", "partial must be False without a tree like", partial)
    with _opened("load", where) as header:
        read, tree = Reader(header, device), header.tree
        if like is None and rename is None:
            return mapped(lambda path, leaf: read(leaf), tree)
        found = with_new_names(named_entries("load", tree), rename)
        if like is None:
            return from_names({path: read(leaf) for path, leaf in found.items()})
        nodes = {} if header.is_flat or rename is not None else dict(kinds(tree))  # paths only, whatever they were within
        found = {**(nothing(like) if header.is_flat else {}), **found}
        found = agreeing(found, nodes, like, str(where), partial=partial)
        return mapped(lambda path, leaf: read(found[path], leaf) if path in found else leaf, like)


class Reader:
    """Reads each tensor of a file once, to the given device or that of the leaf that it replaces."""

    def __init__(self, header: Any, device: Any) -> None:
        self.header, self.device = header, _require_device(device)
        self.numbers = {id(one): i for i, one in enumerate(header.tensors)}
        self.read: dict[tuple[int, torch.device], Tensor] = {}

    def __call__(self, found: Any, leaf: Any = None) -> Any:
        """Return a value of the file, with a tensor read."""
        if not isinstance(found, Stored):
            return found
        number, device = self.numbers[id(found)], self.device or _device(leaf)
        if (number, device) not in self.read:
            self.read[number, device] = self.header.read(number).to(device)
        return self.read[number, device]


def _require_device(device: Any) -> torch.device | None:
    try:
        return None if device is None else torch.device(device)
    except (RuntimeError, TypeError):
        raise value_error("load", "device must be a torch.device or the name of one", describe(device)) from None


def _device(leaf: Any) -> torch.device:
    return leaf.device if isinstance(leaf, Tensor) and not leaf.is_meta else torch.device("cpu")


def load_metadata(path: PathLike) -> Any:
    """Load the metadata of a file that ``save`` wrote, without reading its tensors.

    Args:
        path: The file.

    Raises:
        ValueError: For a file with a damaged header, or of another format or version.
        OSError: From the system, for a missing file.
    """
    with _opened("load_metadata", require_path("load_metadata", path)) as header:
        return header.metadata


@contextmanager
def _opened(who: str, path: Path) -> Iterator[Any]:
    """Open a regular file to read it; errors in it are raised in the name of ``who``."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise value_error(who, f"{str(path)!r} must be a file", "a folder" if stat.S_ISDIR(mode) else "a device")
    try:
        with path.open("rb", buffering=0) as file, torch.inference_mode(False):
            yield format_of(path).opened(file)
    except Damaged as error:
        raise value_error(who, f"{str(path)!r} must be a whole file that fn.save has written", str(error)) from None
