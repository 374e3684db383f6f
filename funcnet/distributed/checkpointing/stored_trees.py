"""Stored trees: the contents of a distributed checkpoint, and the tensors that it is read into.

Every tensor leaf is a plain tensor, which all workers hold, a DTensor, or a ``Part``. Torch's distributed checkpoint writes it
under a key, its path. The rest of a tree is JSON, as in the files of ``fn.save``.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import torch
from torch import Size, Tensor
from torch.distributed.tensor import DTensor

from funcnet.distributed.pieces import Piece, Pieces, pieces_of
from funcnet.flattening import NODES, Tree, rebuild
from funcnet.paths import items
from funcnet.saving.agreement import mapped
from funcnet.saving.structure import Encoder, Json, as_json
from funcnet.saving.tensors import DTYPES, Stored, empty, stored, tensor_complaint


@attrs.frozen(eq=False, repr=False)
class Part:
    """This worker's rows of a leaf, starting at row ``first``; the tensor is ``None`` if it has no rows."""

    rows: Tensor | None
    shape: Size
    first: int

    def __repr__(self) -> str:
        return f"pieces of a tensor of shape {tuple(self.shape)}"


def without_marks(tree: Tree) -> Tree:
    """Replace every ``Pieces`` in a tree with its tree of ``Part`` leaves, without marks."""
    return _unmarked(tree, iter(pieces_of(tree)))


def _unmarked(tree: Tree, leaves: Iterator[Piece]) -> Tree:
    if isinstance(tree, Pieces):
        return mapped(lambda path, leaf: _part(next(leaves)), tree.tree)
    if isinstance(tree, NODES):
        return rebuild(tree, iter([_unmarked(child, leaves) for _, child in items(tree)]))
    return _part(next(leaves))


def _part(one: Piece) -> Any:
    return one.leaf if one.shape is None else Part(one.leaf, one.shape, one.first)


class PartEncoder(Encoder):
    """Encodes a tree as JSON and collects its tensors, DTensors and parts."""

    def encode(self, tree: Tree, path: str = "") -> Json:
        return self.tensor(tree, path) if isinstance(tree, Part) else super().encode(tree, path)

    def tensor(self, x: Any, path: str) -> Json:
        """Return the number of a leaf; a plain tensor that occurs again gets the same number."""
        if type(x) is Tensor or not isinstance(x, (DTensor, Part)):
            return super().tensor(x, path)
        own = x.to_local() if isinstance(x, DTensor) else x.rows
        complaint = None if own is None else tensor_complaint(own)
        if isinstance(x, DTensor) and any(one.is_partial() for one in x.placements):
            complaint = "a DTensor with partial sums, which redistribute() adds up"
        if complaint:
            raise self.error(path, "every tensor must be dense and in memory", complaint)
        number = self._numbers.setdefault(id(x), len(self.tensors))
        if number == len(self.tensors):
            self.tensors.append(x)
            self.paths.append(path)
        return ["tensor", number]


@attrs.frozen(eq=False)
class StoredTree:
    """A tree without its tensors, and the tensors by key."""

    tree: Json
    metadata: Json
    keys: list[str]
    tensors: list[Any]

    @property
    def text(self) -> str:
        """Return the text that must be the same on all workers."""
        return as_json([self.tree, self.metadata, self.keys])

    def forms(self) -> list[list[Any]]:
        """Return the dtype, shape and strides of each tensor; the dtype is missing if this worker has no part of it."""
        return [_form(x) for x in self.tensors]


def stored_tree(who: str, tree: Tree, metadata: Any) -> StoredTree:
    """Encode a tree; raise a ``ValueError`` in the name of ``who`` for values that could not be decoded."""
    encoder, words = PartEncoder(who), Encoder(who, tensors=False)
    form, metadata_form = encoder.encode(tree), words.encode(metadata, "metadata")
    return StoredTree(form, metadata_form, _keys(encoder.paths), [_written(x) for x in encoder.tensors])


def _keys(paths: Sequence[str]) -> list[str]:
    """Return a key for each path: the path, followed by dashes if another path is spelled the same."""
    found: dict[str, None] = {}
    for path in paths:
        key = path or "tensor"
        while key in found:
            key += "-"
        found[key] = None
    return [*found]


def _written(x: Any) -> Any:
    return x.detach().resolve_conj().resolve_neg() if type(x) is Tensor else x


def _form(x: Any) -> list[Any]:
    if isinstance(x, Part):
        return [None if x.rows is None else _dtype_name(x.rows), [*x.shape], None]
    if isinstance(x, DTensor):
        return [_dtype_name(x), [*x.shape], None]
    form = stored(x)
    return [form.dtype, [*form.shape], None if form.strides is None else [*form.strides]]


def _dtype_name(x: Tensor) -> str:
    return next(name for name, dtype in DTYPES.items() if dtype is x.dtype)


def merged(forms: Sequence[list[list[Any]]]) -> list[list[Any]]:
    """Return the forms of rank 0; the dtypes of tensors that it has no part of are those of other ranks."""
    first, *others = forms
    return [
        [next((one[0] for one in (form, *same) if one[0]), "float32"), *form[1:]]
        for form, *same in zip(first, *others, strict=True)
    ]


class Targets:
    """The tensors that a tree is read into: one for each leaf of ``like``, but only one for leaves that were the same tensor."""

    def __init__(self, forms: Sequence[Stored], keys: Sequence[str]) -> None:
        self._numbers = {id(form): i for i, form in enumerate(forms)}
        self._forms, self._keys = forms, keys
        self._whole: dict[tuple[int, torch.device], Tensor] = {}
        self.rounds: list[dict[str, Any]] = []

    def leaf(self, form: Stored, like: Any = None) -> Any:
        """Return the tensor to read into, for a leaf like the given one."""
        number = self._numbers[id(form)]
        if isinstance(like, Part):
            rows = None if like.rows is None else torch.empty_like(like.rows)
            self._add(number, Part(rows, like.shape, like.first))
            return rows
        if isinstance(like, DTensor):
            made = torch.empty_like(like)
            self._add(number, made)
            return made
        device = like.device if isinstance(like, Tensor) and not like.is_meta else torch.device("cpu")
        if (number, device) not in self._whole:
            self._whole[number, device] = empty(form).to(device)
            self._add(number, self._whole[number, device])
        return self._whole[number, device]

    def _add(self, number: int, target: Any) -> None:
        """Add a target to a round; a tensor for leaves that are divided in different ways is read in several rounds."""
        if 0 in self._forms[number].shape:
            return  # torch's checkpoints have no pieces of an empty tensor
        key = self._keys[number]
        i = next((i for i, one in enumerate(self.rounds) if key not in one), len(self.rounds))
        if i == len(self.rounds):
            self.rounds.append({})
        self.rounds[i][key] = target


def seen(like: Any, form: Any) -> Any:
    """Return a leaf of ``like`` for comparison; a part is replaced with a whole tensor without values."""
    if not isinstance(like, Part):
        return like
    dtype = like.rows.dtype if like.rows is not None else DTYPES[form.dtype] if isinstance(form, Stored) else torch.float32
    return torch.empty(like.shape, dtype=dtype, device="meta")
