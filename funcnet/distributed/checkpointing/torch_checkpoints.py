"""Torch's distributed checkpoints with parts of tensors, and an unpickler that loads only torch's own classes."""

import io
import pickle
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from enum import EnumType
from pathlib import Path
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from funcnet.distributed.checkpointing.stored_trees import Part
from funcnet.distributed.together import raise_failures
from funcnet.distributed.workers import Workers
from funcnet.saving.tensors import DTYPES, Damaged

_METADATA = "torch.distributed.checkpoint.metadata"
_CLASSES = {
    *[(_METADATA, name) for name in ("Metadata", "MetadataIndex", "TensorStorageMetadata")],
    *[(_METADATA, name) for name in ("ChunkStorageMetadata", "TensorProperties", "StorageMeta", "_MEM_FORMAT_ENCODING")],
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
    *[("pathlib", name) for name in ("PosixPath", "WindowsPath", "Path")],
    *[("pathlib._local", name) for name in ("PosixPath", "WindowsPath", "Path")],
    *[("torch", name) for name in DTYPES],
}
"""The only names allowed in the pickle ``.metadata``: none of them runs code or makes torch unpickle other data."""


def _member(kind: Any, name: str) -> Any:
    """Return a member of an enumeration, which Python before 3.11.4 pickles as an attribute."""
    if not isinstance(kind, EnumType) or name not in kind.__members__:
        raise Damaged(f"a file .metadata that asks {kind!r} for {name}")
    return kind[name]


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):
            return _member
        if (module, name) not in _CLASSES:
            raise Damaged(f"a file .metadata that names {module}.{name}")
        return super().find_class(module, name)


def read_metadata(folder: Path, names: Collection[str]) -> Metadata:
    """Read the metadata of the named files; raise ``Damaged`` for a pickle that torch does not write."""
    try:
        found = _Unpickler(io.BytesIO((folder / ".metadata").read_bytes())).load()
    except Exception as error:  # a damaged pickle may raise any error
        raise Damaged(f"a file .metadata that cannot be read: {error}") from None
    if not isinstance(found, Metadata) or not {one.relative_path for one in found.storage_data.values()} <= {*names}:
        raise Damaged("a file .metadata of other files")
    return found


class _Reader(FileSystemReader):
    """Reads a folder whose file ``.metadata`` is already loaded."""

    def __init__(self, folder: Path, metadata: Metadata) -> None:
        super().__init__(folder)
        self.metadata = metadata

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        self.metadata.storage_meta.load_id = self.load_id  # type: ignore[union-attr]  # a folder's metadata has it
        return self.metadata


class _Rows:
    """A ``Part`` as torch's planner expects it."""

    def __init__(self, part: Part) -> None:
        self.part = part

    def size(self) -> Size:
        return self.part.shape

    def __create_chunk_list__(self) -> list[ChunkStorageMetadata]:
        rows, shape = self.part.rows, self.part.shape
        if rows is None or not rows.numel():
            return []
        offsets = [self.part.first, *[0] * len(shape)][: len(shape)]  # a 0-d tensor has none
        return [ChunkStorageMetadata(offsets=Size(offsets), sizes=rows.shape)]

    def __create_write_items__(self, key: str, value: Any) -> list[WriteItem]:
        properties = TensorProperties() if self.part.rows is None else TensorProperties.create_from_tensor(self.part.rows)
        return [
            WriteItem(
                index=MetadataIndex(key, chunk.offsets),
                type=WriteItemType.SHARD,
                tensor_data=TensorWriteData(chunk=chunk, properties=properties, size=self.part.shape),
            )
            for chunk in self.__create_chunk_list__()
        ]


class _SavePlanner(DefaultSavePlanner):
    def lookup_object(self, index: MetadataIndex) -> Any:
        found = self.state_dict[index.fqn]
        return found.part.rows if isinstance(found, _Rows) else super().lookup_object(index)


class _LoadPlanner(DefaultLoadPlanner):
    def set_up_planner(self, state_dict: dict[str, Any], metadata: Metadata | None = None, is_coordinator: bool = False) -> None:
        self.original_state_dict = self.state_dict = state_dict
        self.metadata, self.is_coordinator = metadata, is_coordinator

    def lookup_tensor(self, index: MetadataIndex) -> Tensor:
        found = self.state_dict[index.fqn]
        return found.part.rows if isinstance(found, _Rows) else super().lookup_tensor(index)  # type: ignore[return-value]


def write(who: str, folder: Path, tensors: dict[str, Any], workers: Workers) -> None:
    """Write and flush tensors by key: each worker writes its own pieces, and some of the tensors that all workers hold."""
    writer = FileSystemWriter(folder, sync_files=True)
    planner = _SavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    with _arguments(who, workers) as here:
        save(_planned(tensors), storage_writer=writer, planner=planner, **here)


def read(who: str, folder: Path, metadata: Metadata, targets: dict[str, Any], workers: Workers) -> None:
    """Read tensors by key into the given ones; ``metadata`` is the folder's."""
    planner = _LoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    with _arguments(who, workers) as here, torch.inference_mode(False):
        load(_planned(targets), storage_reader=_Reader(folder, metadata), planner=planner, **here)


def _planned(tensors: dict[str, Any]) -> dict[str, Any]:
    return {key: _Rows(x) if isinstance(x, Part) else x for key, x in tensors.items()}


@contextmanager
def _arguments(who: str, workers: Workers) -> Iterator[dict[str, Any]]:
    """Yield torch's arguments for the workers; raise the errors that torch gathers from them in the name of ``who``."""
    alone = not torch.distributed.is_initialized()
    try:
        with warnings.catch_warnings():  # torch warns about a process without a group, which is intended
            warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
            yield {"no_dist": True} if alone else {"process_group": workers.group}
    except CheckpointException as error:
        raise_failures(who, error.failures, workers.size)
