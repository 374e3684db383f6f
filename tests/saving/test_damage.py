"""Damaged and hostile files: each gives an error that names the file, and never a wrong tree."""

import pickle
import re
import struct
import zlib

import pytest
import torch
from saved_trees import same, sample

import funcnet as fn

MAGIC = b"\x89FNT\r\n\x1a\n"


def refused(path, data: bytes, words: str = ""):
    """Write bytes to a file, which must be refused with the given message."""
    path.write_bytes(data)
    rule = f"^load: {re.escape(repr(str(path)))} must be a whole file that fn.save has written, got .*{words}"
    with pytest.raises(ValueError, match=rule):
        fn.load(path)


def saved(path) -> bytes:
    """Return the bytes of a small file."""
    fn.save(path, sample(), {"epoch": 1})
    return path.read_bytes()


def forged(header: str, blocks: bytes = b"", *, version: int = 1, length: int | None = None, total: int | None = None) -> bytes:
    """Make a file with a given header and valid checksums."""
    text = header.encode()
    size = 32 + len(text) + len(blocks)
    lengths = struct.pack("<QQ", len(text) if length is None else length, size if total is None else total)
    checksum = zlib.crc32(text, zlib.crc32(lengths, zlib.crc32(struct.pack("<I", version))))
    return MAGIC + struct.pack("<II", version, checksum) + lengths + text + blocks


def of_tensor(form: str, tree: str = '["tensor",0]') -> str:
    """Return the header for one tensor."""
    return f'{{"tree":{tree},"metadata":null,"tensors":[{form}]}}'


@pytest.mark.parametrize("name", ["tree.fn", "tree.safetensors"])
def test_a_file_cut_off_anywhere_is_refused(tmp_path, name):
    """Every length is tried, and one byte too many."""
    data = saved(tmp_path / name)
    assert len(data) < 2500
    for length in range(len(data)):
        refused(tmp_path / name, data[:length])
    refused(tmp_path / name, data + b"\0")


@pytest.mark.parametrize("flip", [1, 64, 255])
def test_a_file_with_a_changed_byte_is_refused(tmp_path, flip):
    """Every position is tried: one bit, another one, all eight; zeros between tensors are covered too."""
    data = saved(tmp_path / "a.fn")
    for i in range(len(data)):
        refused(tmp_path / "a.fn", changed(data, i, flip))


@pytest.mark.parametrize("flip", [1, 64, 255])
def test_a_changed_byte_of_a_safetensors_file_never_makes_another_tree(tmp_path, flip):
    """The file is refused, unless the byte is in text that only other programs read."""
    path = tmp_path / "a.safetensors"
    data = saved(path)
    for_others = range(data.index(b'"format":"pt"') + 1, data.index(b'"format":"pt"') + 12)
    for i in range(len(data)):
        if i in for_others:
            path.write_bytes(changed(data, i, flip))
            assert harmless(path)
        else:
            refused(path, changed(data, i, flip))


def harmless(path) -> bool:
    """Return whether a file loads unchanged, or not at all."""
    try:
        return same(fn.load(path), sample())
    except ValueError:
        return True


def changed(data: bytes, i: int, flip: int) -> bytes:
    """Change a byte."""
    return data[:i] + bytes([data[i] ^ flip]) + data[i + 1 :]


def test_the_small_file_loads(tmp_path):
    """The undamaged and the rebuilt file load, so the other tests refuse only the damage."""
    path = tmp_path / "a.fn"
    saved(path)
    assert same(fn.load(path), sample())
    block = bytes(-(32 + len(of_tensor('["int16",[2],null]'))) % 64) + b"\1\0\2\0"
    path.write_bytes(forged(of_tensor('["int16",[2],null]'), block + struct.pack("<I", zlib.crc32(block))))
    assert same(fn.load(path), torch.tensor([1, 2], dtype=torch.int16))


def test_files_of_other_formats_are_refused_by_name(tmp_path):
    """Examples are a file of torch.save, a pickle, text, and an empty file."""
    path = tmp_path / "a.fn"
    torch.save({"w": torch.ones(2)}, path)
    refused(path, path.read_bytes(), "a zip archive, as torch.save writes")
    refused(path, pickle.dumps([1]), "a pickle")
    refused(path, b"hello, world", "a file that begins with b'hello, w'")
    refused(path, b"", "an empty file")
    refused(path, MAGIC.replace(b"\r\n", b"\n") + saved(path)[8:], "a file that begins with")
    fn.save(tmp_path / "b.safetensors", torch.ones(2))
    refused(path, (tmp_path / "b.safetensors").read_bytes(), "a file that begins with")
    refused(tmp_path / "b.safetensors", saved(path), "a file that the library cannot read")


def test_a_newer_version_says_which_one_is_read(tmp_path):
    """The version is checked first."""
    refused(tmp_path / "a.fn", forged("{}", version=2), "a file of format version 2; this funcnet reads version 1")


LENGTHS = [{"length": 2**63}, {"length": 10**6}, {"length": 1}, {"total": 2**63}, {"total": 0}, {"length": 0}]
FORMS = {
    "more than there is": '["float32",[1000000000000],null]',
    "2**62": f'["float32",[{2**62}],null]',
    "2**64": f'["float32",[{2**64}],null]',
    "overflow": f'["float32",[{2**40},{2**40}],null]',
    "overflow of none": f'["float32",[0,{2**40},{2**40}],null]',
    "negative": '["float32",[-1],null]',
    "two negative": '["float32",[-1,-1],null]',
    "fraction": '["float32",[1.0],null]',
    "bool": '["float32",[true],null]',
    "word": '["float32","12",null]',
    "no shape": '["float32",null,null]',
    "dtype": '["float7",[],null]',
    "class as dtype": '["os.system",[],null]',
    "list as dtype": '[["float32"],[],null]',
    "quantized": '["qint8",[],null]',
    "short": '["float32",[]]',
    "strides with gaps": '["float32",[2],[2]]',
    "strides that overlap": '["float32",[2,2],[1,1]]',
    "strides of nothing": '["float32",[2],[0]]',
    "negative strides": '["float32",[2],[-1]]',
    "strides of too few": '["float32",[2,2],[1]]',
    "strides of any": '["float32",[1],"1"]',
    "huge strides": f'["float32",[1],[{2**63}]]',
}
TREES = {
    "number": '["tensor",1]',
    "negative number": '["tensor",-1]',
    "fraction": '["tensor",0.0]',
    "bool": '["tensor",true]',
    "kind": '["set",[1]]',
    "pickle": '["pickle","cos"]',
    "nothing": "[]",
    "object": '{"a":1}',
    "many": '["list",[],[]]',
    "children": '["list",3]',
    "children as a word": '["list","ab"]',
    "pairs": '["dict",[1]]',
    "triples": '["dict",[[1,2,3]]]',
    "key of tensor": '["dict",[[["tensor",0],1]]]',
    "key of None": '["dict",[[null,1]]]',
    "key of float": '["dict",[[1.5,1]]]',
    "key twice": '["dict",[["a",1],["a",2]]]',
    "key twice, as a bool": '["dict",[[1,1],[true,2]]]',
    "size": '["size",["a"]]',
    "size of tensor": '["size",[["tensor",0]]]',
    "int": '["int","0xzz"]',
    "float": '["float","7ff8"]',
    "float as a number": '["float",1]',
    "complex": '["complex",1,2]',
    "complex of words": '["complex","a","b"]',
    "fields": '["named","P",["x"],[]]',
    "name": '["named","P;import os",["x"],[1]]',
    "field": '["named","P",["x=print()"],[1]]',
    "field twice": '["named","P",["x","x"],[1,2]]',
    "keyword": '["named","class",["x"],[1]]',
    "fields as a word": '["named","P","xy",[1,2]]',
    "NaN": "NaN",
    "open": "[1",
    "nested": "[" * 100_000 + "]" * 100_000,
    "nested lists": '["list",[' * 20_000 + "]]" * 20_000,
    "digits": "1" * 5000,
}


@pytest.mark.parametrize("lengths", LENGTHS, ids=repr)
def test_wrong_lengths_are_refused(tmp_path, lengths):
    """Lengths of the header and of the file are tried; nothing is allocated for them."""
    refused(tmp_path / "a.fn", forged(of_tensor('["float32",[0],null]'), bytes(100), **lengths))


def test_impossible_tensors_are_refused_before_anything_is_allocated(tmp_path):
    """Checksums are valid, but dtypes, shapes or strides cannot have been saved."""
    for form in FORMS.values():
        refused(tmp_path / "a.fn", forged(of_tensor(form), bytes(200)))


def test_impossible_trees_are_refused(tmp_path):
    """Checksums are valid, but nodes cannot have been saved; no name in a file is imported."""
    form = '["float32",[0],null]'
    for tree in TREES.values():
        text = of_tensor(form, tree)
        gap = bytes(-(32 + len(text)) % 64)
        refused(tmp_path / "a.fn", forged(text, gap + struct.pack("<I", zlib.crc32(gap))))
    for text in ("", "3", "[]", "{}", '{"tree":1}', '{"tree":1,"metadata":1,"tensors":3}', "\x00"):
        refused(tmp_path / "a.fn", forged(text))


def test_metadata_may_hold_no_tensors(tmp_path):
    """Metadata is read without the tensors."""
    text = '{"tree":null,"metadata":["tensor",0],"tensors":[["float32",[0],null]]}'
    refused(tmp_path / "a.fn", forged(text, bytes(-(32 + len(text)) % 64) + bytes(4)))
