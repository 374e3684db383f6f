"""Files in the safetensors format, written and read with its library: one contiguous tensor for each path.

The text metadata of the file contains the structure, the metadata of ``save``, strides and checksums as JSON under ``funcnet``,
and the CRC-32 of this text under ``funcnet.crc32``; other programs see the tensors by their paths. A tensor at two paths is
stored at the first.
A file of another library is loaded as a flat dict of its tensors by name, with its text metadata as the metadata.
"""

import os
import re
import zlib
from collections import Counter
from pathlib import Path
from typing import IO, Any

import attrs
from torch import Tensor

from funcnet.errors import value_error
from funcnet.flattening import Tree
from funcnet.saving.structure import Encoded, as_json, decode, from_json
from funcnet.saving.tensors import DTYPES, Damaged, Stored, checksum, copied, in_memory, parsed, stored

VERSION = 1
_KEY, _CHECK = "funcnet", "funcnet.crc32"
_UNSUPPORTED = {"complex32", "complex128", "bits8", "bits16", "bits1x8", "bits2x4", "bits4x2"}
_UNSUPPORTED |= {f"{kind}{bits}" for kind in ("int", "uint") for bits in range(1, 8)}


def _library() -> Any:
    try:
        import safetensors
    except ImportError:
        raise ImportError("a path that ends in .safetensors needs the library: pip install 'funcnet[safetensors]'") from None
    return safetensors


def write(file: IO[bytes], what: Encoded) -> None:
    """Write a file with the library, which opens it by name."""
    library = _library()
    _require_possible(what)
    plain = [attrs.evolve(form, strides=None) for form in what.forms]
    tensors = [in_memory(x, form) for x, form in zip(what.tensors, plain, strict=True)]
    specs = {
        path: library.TensorSpec(dtype=form.dtype, shape=list(form.shape), data_ptr=x.data_ptr(), data_len=form.nbytes)
        for path, form, x in zip(what.paths, plain, tensors, strict=True)
    }
    rows = [[path, *_row(form), checksum(x)] for path, form, x in zip(what.paths, what.forms, tensors, strict=True)]
    text = as_json({"version": VERSION, "tree": what.tree, "metadata": what.metadata, "tensors": rows})
    try:
        library.serialize_file(specs, file.name, {"format": "pt", _KEY: text, _CHECK: _crc(text)})
    except library.SafetensorError as error:
        raise _as_os_error(error) from error


def _as_os_error(error: Exception) -> Exception:
    """Return the ``OSError`` that the library reports, for example for a full disk; other errors are unchanged."""
    number = re.search(r"os error (\d+)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else error


def _row(form: Stored) -> list[Any]:
    return [form.dtype, list(form.shape), form.strides]


def _crc(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def _require_possible(what: Encoded) -> None:
    counts = Counter(what.paths)
    for path, form in zip(what.paths, what.forms, strict=True):
        if form.dtype in _UNSUPPORTED:
            raise value_error("save", "a .safetensors file must hold dtypes of that format", f"torch.{form.dtype} at {path!r}")
        if path == "__metadata__" or counts[path] > 1:
            rule = "the paths of tensors in a .safetensors file must be unique, and not '__metadata__'"
            raise value_error("save", rule, repr(path))


@attrs.frozen(eq=False)
class Header:
    """The header of a file, with its tensors mapped into memory; files of other libraries have no checksums."""

    tree: Tree
    metadata: Tree
    tensors: list[Stored]
    mapped: list[Tensor]
    checksums: list[int | None]
    is_flat: bool = False

    def read(self, number: int) -> Tensor:
        """Copy a tensor into new memory, and verify its checksum."""
        form, source, expected = self.tensors[number], self.mapped[number], self.checksums[number]
        plain = copied(source, attrs.evolve(form, strides=None))
        if expected is not None and checksum(plain) != expected:
            raise Damaged(f"a damaged file: the checksum of tensor {number} differs, {form}")
        return plain if form.strides is None else copied(plain, form)


def opened(file: IO[bytes]) -> Header:
    """Open a file with the library by its name, and again if the file was replaced meanwhile."""
    library, path = _library(), Path(file.name)
    while True:
        with path.open("rb") as first:
            try:
                header, error = _mapped(library, file.name), None
            except Damaged as damage:
                error = damage
            if os.path.samestat(os.fstat(first.fileno()), path.stat()):
                if error:
                    raise error
                return header


def _mapped(library: Any, name: str) -> Header:
    try:
        with library.safe_open(name, framework="pt", device="cpu") as reader:
            mapped, text = {name: reader.get_tensor(name) for name in sorted(reader.keys())}, reader.metadata() or {}
    except (library.SafetensorError, ValueError, KeyError, AttributeError) as error:
        raise Damaged(f"a file that the library cannot read: {error}") from None
    if _KEY in text or _CHECK in text:
        return _own_header(text, mapped)
    forms = {name: stored(x) for name, x in mapped.items()}
    return Header(forms, text or None, [*forms.values()], [*mapped.values()], [None] * len(forms), is_flat=True)


def _own_header(text: dict[str, str], mapped: dict[str, Tensor]) -> Header:
    """Return the header of a file that funcnet wrote; its list of tensors must agree with the tensors."""
    if _crc(text.get(_KEY, "")) != text.get(_CHECK):
        raise Damaged("a damaged header: its checksum differs")
    try:
        said = from_json(text[_KEY])
        if said["version"] != VERSION:
            raise Damaged(f"a file of format version {said['version']}; this funcnet reads version {VERSION}")
        forms = [parsed(dtype, shape, strides) for _, dtype, shape, strides, _ in said["tensors"]]
        paths, sums = [row[0] for row in said["tensors"]], [row[-1] for row in said["tensors"]]
        tree, metadata = decode(said["tree"], forms), decode(said["metadata"], [])
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise Damaged(f"a header that cannot be read: {error}") from None
    if not all(type(one) is int for one in sums):
        raise Damaged("a header that cannot be read: a checksum that is not a number")
    if {*paths} != mapped.keys() or any(not _fits(form, mapped[path]) for form, path in zip(forms, paths, strict=True)):
        raise Damaged("tensors other than those in its header")
    return Header(tree, metadata, forms, [mapped[path] for path in paths], sums)


def _fits(form: Stored, x: Tensor) -> bool:
    return DTYPES.get(form.dtype) is x.dtype and form.shape == tuple(x.shape)
