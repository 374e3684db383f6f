"""Checkpoints of several workers: folders that any number of workers can load, based on ``torch.distributed.checkpoint``.

    name/tree.fn           the tree without its tensors, the metadata, and the bytes and checksums of the other files
    name/.metadata         torch's: the locations of the pieces of each tensor
    name/__0_0.distcp ...  torch's: the pieces that each worker has written

The keys of torch's files are the paths of the leaves, so torch's tools can read them too.
"""

from pathlib import Path
from typing import Any

from funcnet.distributed.agreement import require_agreement
from funcnet.distributed.checkpointing.folders import (
    TREE,
    Sums,
    begin,
    beside,
    existing,
    finish,
    give_up,
    require_folder,
    require_sizes,
    require_sums,
    sums_of,
)
from funcnet.distributed.checkpointing.stored_trees import StoredTree, Targets, merged, seen, stored_tree, without_marks
from funcnet.distributed.checkpointing.torch_checkpoints import read, read_metadata, write
from funcnet.distributed.failures import explaining_failures
from funcnet.distributed.pieces import pieces_of, with_pieces
from funcnet.distributed.together import shared, succeed, workers_here
from funcnet.distributed.workers import Workers, gather_objects
from funcnet.errors import value_error
from funcnet.flattening import Tree
from funcnet.saving import files
from funcnet.saving.agreement import agreeing, kinds, mapped, named_entries
from funcnet.saving.structure import as_json, decode, from_json
from funcnet.saving.tensors import Damaged, Stored, parsed

_VERSION = 1


def save(path: files.PathLike, tree: Tree, metadata: Any = None, group: Any = None) -> None:
    """Save a tree of all workers in one folder; after a crash, ``path`` has the complete old checkpoint or the complete new one.

    All workers call it together with the same tree. Plain tensors must have the same bits everywhere; each is written once, by
    one of the workers. Each worker writes its own pieces of DTensors (``shard``) and of the state of a sharded optimizer. Without
    a process group, a single process writes everything.

    The files are written to a folder next to ``path``, flushed, and their checksums are recorded. Then rank 0 renames the folder.
    If one worker fails, all of them raise its error, and the old checkpoint stays.

    Args:
        path: The folder, in an existing folder visible to all workers. It replaces an existing checkpoint, but no other folder.
        tree: Dicts, tuples, named tuples and lists of tensors, numbers, strings and ``None``, as in ``fn.save``.
        metadata: A tree without tensors, which ``load_metadata`` returns.
        group: The process group; by default all processes.

    Raises:
        ValueError: On every worker, if a leaf or node cannot be saved, or trees differ between workers, with the path.
        OSError: On every worker, with the rank, if the parent folder is missing, the folder cannot be written or has files other
            than a checkpoint's, or the disk is full.

    >>> import tempfile, torch
    >>> folder = tempfile.TemporaryDirectory()
    >>> save(f"{folder.name}/net", ({"weight": torch.ones(2)}, None), {"epoch": 3})
    >>> load(f"{folder.name}/net"), load_metadata(f"{folder.name}/net")
    (({'weight': tensor([1., 1.])}, None), {'epoch': 3})
    >>> folder.cleanup()
    """
    workers = workers_here("save", group)
    with explaining_failures(workers, "save"):
        where, made = succeed(workers, "save", lambda: (require_folder("save", path), _stored(tree, metadata)))
        forms = _agreed(workers, tree, made)
        token = shared(workers, "save", lambda: begin(where) if workers.rank == 0 else None)[0]
        try:
            _write(workers, where, token, made, forms, metadata)
        except BaseException:
            if workers.rank == 0:
                give_up(where, token)
            raise


def _stored(tree: Tree, metadata: Any) -> StoredTree:
    return stored_tree("save", without_marks(tree), metadata)


def _agreed(workers: Workers, tree: Tree, made: StoredTree) -> list[Any]:
    """Return the forms of the tensors; these, and the rest of the tree, must be the same on all workers."""
    if workers.size == 1:
        return merged([made.forms()])
    require_agreement(workers, "save", tree=without_marks(tree))
    gathered = gather_objects(workers, (made.text, made.forms()))
    other = next((rank for rank, one in enumerate(gathered) if one[0] != gathered[0][0]), None)
    if other is not None:
        rule = "tree and metadata must be the same on all workers"
        raise value_error("save", rule, f"different ones on rank {other} than on rank 0")
    return merged([forms for _, forms in gathered])


def _write(workers: Workers, where: Path, token: str, made: StoredTree, forms: list[Any], metadata: Any) -> None:
    """Write the files of the folder, and rename it when all workers are done."""
    folder = beside(where, token)
    succeed(workers, "save", folder.stat)  # else torch would create the folder on a worker with another disk
    write(
        "save", folder, {key: x for key, x, form in zip(made.keys, made.tensors, forms, strict=True) if 0 not in form[1]}, workers
    )
    sums = shared(workers, "save", lambda: sums_of(folder, f"__{workers.rank}_*"))

    def end() -> None:
        found = {name: one for sums_here in (*sums, sums_of(folder, ".metadata")) for name, one in sums_here.items()}
        require_sizes(folder, found)
        about = as_json([_VERSION, made.tree, made.keys, forms, found])
        files.save(folder / TREE, about, metadata)
        finish(where, token)

    succeed(workers, "save", lambda: end() if workers.rank == 0 else None)


class _Opened:
    """The file ``tree.fn`` of a checkpoint."""

    def __init__(self, where: Path) -> None:
        self.folder = existing(where)
        if not self.folder.is_dir():
            raise FileNotFoundError(2, "load: path must be a folder written by distributed.save", str(where))
        self.text = _read_tree(self.folder / TREE, files.load)
        try:
            version, tree, self.keys, forms, sums = from_json(self.text)
            self.forms: list[Stored] = [parsed(*form) for form in forms]
            self.tree = decode(tree, self.forms)
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise Damaged(f"a tree that cannot be read: {error}") from None
        if version != _VERSION:
            raise Damaged(f"a checkpoint of version {version}; this funcnet reads version {_VERSION}")
        self.sums: Sums = {name: (size, checksum) for name, (size, checksum) in sums.items()}

    def check(self, workers: Workers) -> Any:
        """Return torch's metadata; raise ``Damaged`` for changed files. Each worker checks some of them."""
        require_sizes(self.folder, self.sums)
        names = [*self.sums][workers.rank :: workers.size]
        require_sums(self.folder, {name: self.sums[name] for name in names})
        return read_metadata(self.folder, self.sums)


def _read_tree(path: Path, read_file: Any) -> Any:
    try:
        return read_file(path)
    except FileNotFoundError:
        raise Damaged(f"no file {path.name}") from None
    except ValueError as error:
        raise Damaged(str(error)) from None


def load(path: files.PathLike, like: Tree = None, group: Any = None) -> Tree:
    """Load a tree that ``distributed.save`` wrote with any number of workers; all workers call it together.

    Checksums are compared before anything is read. Loading an untrusted checkpoint executes no code: only the classes of torch's
    checkpoints are unpickled from the file ``.metadata``.

    Args:
        path: The folder.
        like: A tree with the expected structure, shapes and dtypes, on each worker. Its leaves determine how much of each tensor
            a worker loads: all of it for a plain tensor, pieces for a DTensor or the state of a sharded optimizer, however the
            tensor was saved. Without it, every worker loads the whole tree to the CPU.
        group: The process group; by default all processes.

    Returns:
        The tree, with each tensor in new memory.

    Raises:
        ValueError: On every worker, if the checkpoint is damaged, or if paths are missing, extra, or have another shape, dtype or
            type than in ``like``, in one error for all of them.
        OSError: On every worker, with the rank, if the folder is missing or cannot be read.
    """
    workers = workers_here("load", group)
    with explaining_failures(workers, "load"):
        who = f"load({str(path)!r})"
        found = succeed(workers, who, lambda: _Opened(require_folder("load", path)))
        same = [one == found.text for one in ([found.text] if workers.size == 1 else gather_objects(workers, found.text))]
        if not all(same):
            raise value_error(who, "all workers must see the same checkpoint", f"a different one on rank {same.index(False)}")
        metadata = succeed(workers, who, lambda: found.check(workers))
        targets = Targets(found.forms, found.keys)
        tree = succeed(workers, who, lambda: _tree_to_fill(found, like, targets, str(path)))
        for i in range(max(shared(workers, who, lambda: len(targets.rounds)))):
            read(who, found.folder, metadata, targets.rounds[i] if i < len(targets.rounds) else {}, workers)
        return tree


def _tree_to_fill(found: _Opened, like: Tree, targets: Targets, where: str) -> Tree:
    """Return the tree with tensors to read into."""

    def take(form: Any, leaf: Any = None) -> Any:
        return targets.leaf(form, leaf) if isinstance(form, Stored) else form

    if like is None:
        return mapped(lambda path, form: take(form), found.tree)
    bare, forms = without_marks(like), named_entries("load", found.tree)
    wanted = mapped(lambda path, leaf: seen(leaf, forms.get(path)), bare)
    agreeing(forms, dict(kinds(found.tree)), wanted, where, partial=False)
    leaves = [leaf for _, leaf in _leaves(bare)]
    return with_pieces(like, [take(forms[one.path], leaf) for one, leaf in zip(pieces_of(like), leaves, strict=True)])


def _leaves(tree: Tree) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    mapped(lambda path, leaf: found.append((path, leaf)), tree)
    return found


def load_metadata(path: files.PathLike) -> Any:
    """Load the metadata of a checkpoint, without its tensors; a single worker can call it.

    Args:
        path: The folder written by ``distributed.save``.

    Raises:
        ValueError: If the file is damaged.
        OSError: If the folder is missing.
    """
    return files.load_metadata(existing(require_folder("load_metadata", path)) / TREE)
