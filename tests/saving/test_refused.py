"""Refusals of ``save``: it writes only what ``load`` can restore unchanged."""

import os
import re
from collections import Counter, defaultdict, namedtuple
from enum import IntEnum

import numpy as np
import pytest
import torch

import funcnet as fn


class Color(IntEnum):
    RED = 1


class Sub(torch.Tensor):
    pass


class Short(namedtuple("Short", ["x", "y"])):
    def __new__(cls, *entries):
        return tuple.__new__(cls, entries)


LEAF, NODE, DENSE = (
    "every leaf must be a tensor, None, a bool",
    "every node must be a dict",
    "every tensor must be plain and dense",
)


def refused():
    """Return each kind of refused leaf or node, and the rule."""
    return {
        "set": ({1, 2}, LEAF),
        "object": (object(), LEAF),
        "bytes": (b"a", LEAF),
        "array": (np.ones(3), LEAF),
        "numpy number": (np.float64(1), LEAF),
        "dtype": (torch.float32, LEAF),
        "enum": (Color.RED, LEAF),
        "layer": (fn.Tanh(), LEAF),
        "defaultdict": (defaultdict(int, a=1), NODE),
        "counter": (Counter("ab"), NODE),
        "result": (torch.ones(2, 2).max(0), NODE),
        "float key": ({1.5: 0}, "keys of a dict must be str, int or bool"),
        "None key": ({None: 0}, "keys of a dict must be str, int or bool"),
        "enum key": ({Color.RED: 0}, "keys of a dict must be str, int or bool"),
        "surrogate": ("\ud800", "must be valid Unicode"),
        "surrogate key": ({"\ud800": 1}, "must be valid Unicode"),
        "short": (Short(1), "an entry for each field"),
        "sparse": (torch.eye(2).to_sparse(), DENSE),
        "meta": (torch.empty(2, device="meta"), DENSE),
        "quantized": (torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), DENSE),
        "nested": (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), DENSE),
        "jagged": (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged), DENSE),
        "subclass": (torch.ones(2).as_subclass(Sub), DENSE),
    }


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, of prototypes
@pytest.mark.parametrize("name", ["tree.fn", "tree.safetensors"])
def test_what_would_not_come_back_is_refused_with_its_path(tmp_path, name):
    """The leaf may be at any depth, and no file is created."""
    for value, rule in refused().values():
        with pytest.raises(ValueError, match=rf"^save: .*{rule}"):
            fn.save(tmp_path / name, value)
        with pytest.raises(ValueError, match=rf"^save: .*{rule}.* at 'a\.1.*'$"):
            fn.save(tmp_path / name, {"a": [0, value]})
    assert [*tmp_path.iterdir()] == []


def test_metadata_must_hold_no_tensors(tmp_path):
    """Leaves that no tree may hold are refused too."""
    for metadata, path in (({"x": torch.ones(1)}, "metadata.x"), ([{1}], "metadata.0"), (fn, "metadata")):
        with pytest.raises(ValueError, match=rf"^save: .*, got an? .* at '{path}'$"):
            fn.save(tmp_path / "a.fn", 0, metadata)


def test_a_tree_within_itself_and_a_deep_one_are_refused(tmp_path):
    """Both are refused before Python's recursion limit; 100 nested nodes can be saved."""
    loop = []
    loop.append(loop)
    deep = 0
    for _ in range(100):
        deep = {"a": deep}
    fn.save(tmp_path / "a.fn", deep)
    assert fn.load(tmp_path / "a.fn", like=deep) == deep == fn.load(tmp_path / "a.fn")
    for tree in (loop, (deep,)):
        with pytest.raises(ValueError, match=r"^save: a tree must be nested at most 100 deep, got a deeper one at '[a0.]+'"):
            fn.save(tmp_path / "b.fn", tree)


def test_tensors_of_a_transformation_are_refused(tmp_path):
    """Within vmap they have no memory to save."""
    with pytest.raises(ValueError, match=r"without memory, as within torch\.func\.vmap"):
        torch.func.vmap(lambda x: fn.save(tmp_path / "a.fn", x))(torch.ones(2))


@pytest.mark.parametrize("path", [3, None, b"a.fn", "", "a\0b", "folder/", ["a.fn"]], ids=repr)
def test_a_path_must_name_a_file(path):
    """Each of the functions is tried."""
    rule = "path must be a str or os.PathLike that names a file, got "
    for who, call in {
        "save": lambda: fn.save(path, 0),
        "load": lambda: fn.load(path),
        "load_metadata": lambda: fn.load_metadata(path),
        "save_in_background": lambda: fn.save_in_background(path, 0),
    }.items():
        with pytest.raises(ValueError, match=f"^{who}: {rule}{re.escape(repr(path))}|{who}: {rule}a list of 1"):
            call()


def test_folders_and_devices_are_no_files(tmp_path):
    """A device is neither replaced nor read, which would block forever."""
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path, "a folder"), (tmp_path / "pipe", "a device")):
        with pytest.raises(ValueError, match=f"save: path must name a file, got '.*', {kind}"):
            fn.save(path, 0)
        for load in (fn.load, fn.load_metadata):
            with pytest.raises(ValueError, match=f"load.*'.*' must be a file, got {kind}"):
                load(path)
    assert [one.name for one in tmp_path.iterdir()] == ["pipe"]


def test_missing_files_and_folders_are_errors_of_the_system(tmp_path):
    """The error has the path and the call."""
    with pytest.raises(FileNotFoundError, match=r"the folder of path must exist: '.*nowhere'") as caught:
        fn.save(tmp_path / "nowhere" / "a.fn", 0)
    assert "in save('" in caught.value.__notes__[0]
    for load in (fn.load, fn.load_metadata):
        with pytest.raises(FileNotFoundError, match=r"a\.fn"):
            load(tmp_path / "a.fn")


def test_links_in_a_circle_are_an_error_of_the_system(tmp_path):
    """The system raises it when they are opened."""
    (tmp_path / "a.fn").symlink_to(tmp_path / "b.fn")
    (tmp_path / "b.fn").symlink_to(tmp_path / "a.fn")
    for call in (lambda path: fn.save(path, torch.ones(2)), fn.load):
        with pytest.raises(OSError, match=r"[Tt]oo many levels of symbolic links"):
            call(tmp_path / "a.fn")
