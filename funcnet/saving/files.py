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
from funcnet.saving.agreement import agreeing, empty_entries, kinds, mapped, named_entries
from funcnet.saving.atomic import require_path, written_whole
from funcnet.saving.renaming import Rename, with_new_names
from funcnet.saving.structure import Encoded, encoded
from funcnet.saving.tensors import Damaged, Stored
from funcnet.tree.mapping import from_names

PathLike = str | os.PathLike[str]


def save(path: PathLike, tree: Tree, metadata: Any = None) -> None:
    """Save a tree in one file; after a crash or on a full disk, ``path`` is the complete old file or the complete new one.

    The file is written next to ``path`` under another name, flushed to the disk, and renamed. Every byte is covered by a
    checksum. Dense tensors keep their strides, others become contiguous. A tensor at two paths is saved once. Gradients are not
    saved.

    Args:
        path: The file, in an existing folder. An existing file is replaced and its permissions are kept. A name that ends in
            ``.safetensors`` selects that format, with one contiguous tensor for each path; any other name selects funcnet's
            format.
        tree: Dicts (with ``str``, ``int`` or ``bool`` keys), tuples, named tuples, lists and ``torch.Size`` of dense tensors,
            ``None``, ``bool``, ``int``, ``float``, ``complex`` and ``str``, like params and optimizer states. For a net, save
            ``repr(net)``.
        metadata: A tree without tensors, which ``load_metadata`` returns without reading the tensors of ``tree``.

    Raises:
        ValueError: If the tree has another kind of leaf or node, or a sparse, quantized or meta tensor, with the path; if
            ``path`` cannot be the path of a file.
        OSError: If the folder is missing or the disk is full.
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
    """Write a file and rename it into place unless ``check``, called just before, raises an error."""
    try:
        with written_whole(who, path) as file:
            format_of(path).write(file, what)
            check()
    except Exception as error:
        add_location(error, f"{who}({str(path)!r}, ...)")
        raise


def format_of(path: Path) -> Any:
    """Return the module for a file's format, chosen by the suffix of its name."""
    return safetensors_format if path.suffix == ".safetensors" else file_format


def load(
    path: PathLike,
    like: Tree = None,
    *,
    rename: Rename | None = None,
    partial: bool = False,
    device: torch.device | str | None = None,
) -> Tree:
    """Load a tree saved with ``save``, or a ``.safetensors`` file of another library; nothing in it is executed or imported.

    Args:
        path: The file. A ``.safetensors`` file of another library gives a dict of its tensors by name.
        like: A tree with the expected structure, shapes and dtypes, such as ``net.init(0)``; its tensors can be on the meta
            device. The result has the named tuple classes and the key order of ``like``, and each tensor is on the device of
            its counterpart. Without ``like``, the structure comes from the file, named tuples have new classes, and tensors are
            on the CPU.
        rename: New names for paths of the file: a dict from patterns to new names, such as ``{"old.*": "new.*"}``, where each
            ``*`` of the new name takes the text matched by the same ``*`` of the pattern; or a function from path to path. The
            new name ``None`` drops the path. Paths that match no pattern keep their names. Without ``like``,
            ``tree.from_names`` builds the renamed tree.
        partial: Whether the file is allowed to lack paths of ``like``, which then keep the leaves of ``like``, and to have extra
            paths. Common paths must agree: to give a net another head, drop the old one with ``rename={"head.*": None}``.
        device: Device of all tensors, by default the device of each tensor in ``like``, or the CPU.

    Returns:
        The tree, with each tensor in new memory; a tensor saved at two paths is one tensor again.

    Raises:
        ValueError: If the file is damaged or has another format or version, before anything large is allocated; if paths are
            missing, extra, or have another shape, dtype or type than in ``like``, in one error for all of them.
        OSError: If the file is missing.

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
        nodes = {} if header.is_flat or rename is not None else dict(kinds(tree))  # renamed leaves are compared by path only
        found = {**(empty_entries(like) if header.is_flat else {}), **found}
        found = agreeing(found, nodes, like, str(where), partial=partial)
        return mapped(lambda path, leaf: read(found[path], leaf) if path in found else leaf, like)


class Reader:
    """Read each tensor of a file once, to the given device or to the device of the leaf that it replaces."""

    def __init__(self, header: Any, device: Any) -> None:
        self.header, self.device = header, _require_device(device)
        self.numbers = {id(one): i for i, one in enumerate(header.tensors)}
        self.read: dict[tuple[int, torch.device], Tensor] = {}

    def __call__(self, found: Any, leaf: Any = None) -> Any:
        """Return a value of the file; a tensor is read."""
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
    """Load the metadata of a file saved with ``save``, without reading its tensors.

    Args:
        path: The file.

    Raises:
        ValueError: If the header is damaged, or the file has another format or version.
        OSError: If the file is missing.
    """
    with _opened("load_metadata", require_path("load_metadata", path)) as header:
        return header.metadata


@contextmanager
def _opened(who: str, path: Path) -> Iterator[Any]:
    """Open a regular file for reading; errors name ``who``."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise value_error(who, f"{str(path)!r} must be a file", "a folder" if stat.S_ISDIR(mode) else "a device")
    try:
        with path.open("rb", buffering=0) as file, torch.inference_mode(False):
            yield format_of(path).opened(file)
    except Damaged as error:
        raise value_error(who, f"{str(path)!r} must be a whole file that fn.save has written", str(error)) from None
