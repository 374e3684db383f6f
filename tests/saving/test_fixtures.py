"""Files of version 1, written when it was new: every later version loads them bit for bit.

``python tests/saving/test_fixtures.py`` wrote them. A new version of the format gets files beside these; these are never written
again.
"""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from saved_trees import Point, bits, same

import funcnet as fn

FOLDER = Path(__file__).parent / "fixtures"
METADATA = {"epoch": 3, "words": ("é", None, True), "loss": 0.1, "rate": float("inf")}
NAMES = (
    *(
        "bool",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "int8",
        "int16",
        "int32",
        "int64",
        "float16",
        "bfloat16",
        "float32",
        "float64",
    ),
    *("complex64", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2"),
)
ONLY_OURS = ("complex128", "complex32", "int4", "uint3", "bits8", "bits16")
LIKE = {"point": Point(torch.zeros(2, dtype=torch.int64), None)}


def numbered(name: str, *shape: int) -> torch.Tensor:
    """Make a tensor of the bytes 0, 1, 0, 1 for bools, otherwise 0, 7, 14, ..."""
    dtype = getattr(torch, name)
    size = torch.Size(shape).numel() * dtype.itemsize
    step, modulus = (1, 2) if name == "bool" else (7, 251)
    data = (torch.arange(size) * step % modulus).to(torch.uint8)
    return (data.view(torch.int32) if name == "complex32" else data).view(dtype).reshape(shape)


def tree(names: tuple[str, ...]) -> dict[object, object]:
    """Return the tree in the files, with many dtypes, strides, a tensor at two paths, and every kind of node and leaf."""
    shared = numbered("float32", 2, 3)
    return {
        "dtypes": {name: numbered(name, 5) for name in names},
        "shared": (shared, [shared]),
        "strides": [
            numbered("float32", 2, 3, 4).permute(2, 0, 1),
            numbered("int16", 2, 2, 2, 2).to(memory_format=torch.channels_last),
        ],
        "shapes": (numbered("float64"), numbered("float32", 0, 3), numbered("int64", 1, 1)),
        "point": Point(numbered("int64", 2), None),
        3: OrderedDict([(True, torch.Size([2, 3])), ("", 2**70), (-1, -(2**63))]),
        "words": [None, False, 1, -0.0, 1e-320, float("-inf"), 1 - 2j, "é\n", {}, (), []],
    }


FILES = {"v1.fn": NAMES + ONLY_OURS, "v1.safetensors": NAMES}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_version_1_loads_bit_for_bit(name):
    """Strides, shared tensors, other leaves and metadata are restored."""
    want, got = tree(FILES[name]), fn.load(FOLDER / name)
    assert same(got, want)
    assert [x.stride() for x in got["strides"]] == [x.stride() for x in want["strides"]] == [(1, 12, 4), (8, 1, 4, 2)]
    assert got["shared"][0] is got["shared"][1][0]
    assert same(fn.load_metadata(FOLDER / name), METADATA)
    assert type(fn.load(FOLDER / name, want)["point"]) is Point


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_version_1_loads_in_part(name):
    """The file may be loaded into a tree with fewer paths, and under other names."""
    loaded = fn.load(FOLDER / name, LIKE, partial=True)
    assert same(loaded, {"point": Point(numbered("int64", 2), None)})
    assert bits(fn.load(FOLDER / name, rename={"dtypes.*": "d.*", "3.*": None})["d"]["uint8"]) == [0, 7, 14, 21, 28]


def test_the_files_are_those_of_today(tmp_path):
    """While version 1 is written, files are equal byte for byte: a file has no time or place in it."""
    fn.save(tmp_path / "v1.fn", tree(FILES["v1.fn"]), METADATA)
    assert (tmp_path / "v1.fn").read_bytes() == (FOLDER / "v1.fn").read_bytes()


if __name__ == "__main__":
    for name, names in FILES.items():
        fn.save(FOLDER / name, tree(names), METADATA)
