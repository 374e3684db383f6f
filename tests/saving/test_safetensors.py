"""Files in the safetensors format: its library reads our files, and we read files of other programs."""

import json
import sys

import pytest
import torch
from hypothesis import given, settings
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from saved_trees import ORDINARY, same, sample, tensor, tensors, trees, words

import funcnet as fn
from funcnet.saving.safetensors_format import _UNSUPPORTED
from funcnet.saving.tensors import DTYPES

HELD = [name for name in ORDINARY if name not in _UNSUPPORTED]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Return the path of a file that every example replaces."""
    return tmp_path_factory.mktemp("saving") / "tree.safetensors"


@settings(max_examples=60)
@given(trees(tensors(HELD) | words), trees(words))
def test_every_tree_comes_back_as_it_was(path, tree, metadata):
    """The format restores the same trees as ours, unless two paths are the same."""
    try:
        fn.tree.names(tree)
    except ValueError:
        return
    fn.save(path, tree, metadata)
    assert same(fn.load(path), tree)
    assert same(fn.load_metadata(path), metadata)


def test_strides_and_shared_tensors_come_back(path):
    """The tensors in the file are contiguous, each stored once."""
    w = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    fn.save(path, {"a": w, "b": [w, w.flatten(2)[0].t()]})
    loaded = fn.load(path)
    assert loaded["a"] is loaded["b"][0]
    assert loaded["a"].stride() == w.stride()
    assert [*load_file(path)] == ["a", "b.1"]


def test_the_library_reads_what_is_saved(path):
    """The library sees tensors by their paths, and the text that other programs look for."""
    fn.save(path, sample())
    read = load_file(path)
    named = {name: x for name, x in fn.tree.names(sample()).items() if isinstance(x, torch.Tensor)}
    assert {*read} == {*named} - {"net.2.0"}
    assert all(same(read[name], named[name]) for name in read)
    with safe_open(path, "pt") as file:
        assert file.metadata()["format"] == "pt"
        assert json.loads(file.metadata()["funcnet"])["version"] == 1


def test_files_of_others_load(path):
    """Such files load as a flat dict, or into a tree, even with other names; their text is the metadata."""
    named = {"layers.0.weight": torch.randn(3, 2), "layers.0.bias": torch.zeros(3), "head": torch.ones(2, dtype=torch.bfloat16)}
    save_file(named, path, {"by": "another"})
    assert same(fn.load(path), dict(sorted(named.items())))
    assert fn.load_metadata(path) == {"by": "another"}
    like = {"net": ({"weight": torch.empty(3, 2), "bias": torch.empty(3)}, {}, None), "head": named["head"]}
    loaded = fn.load(path, like, rename={"layers.*": "net.*"})
    assert same(
        loaded, {"net": ({"weight": named["layers.0.weight"], "bias": named["layers.0.bias"]}, {}, None), "head": named["head"]}
    )
    save_file(torch.nn.Sequential(torch.nn.Linear(2, 3)).state_dict(), path)
    assert [*fn.tree.names(fn.load(path, fn.serial(fn.Linear(2, 3)).init(0)))] == ["0.weight", "0.bias"]
    save_file({}, path)
    assert (fn.load(path), fn.load_metadata(path)) == ({}, None)


def test_dtypes_that_the_format_lacks_are_refused(path):
    """The error has the path; all other dtypes are saved."""
    for name in DTYPES:
        x = tensor("uint8", (4, DTYPES[name].itemsize), 0).view(DTYPES[name])
        if name in _UNSUPPORTED:
            with pytest.raises(ValueError, match=rf"must hold dtypes of that format, got torch\.{name} at 'a\.0'"):
                fn.save(path, {"a": [x]})
        else:
            fn.save(path, x)
            assert same(fn.load(path), x)


def test_paths_that_are_no_names_of_tensors_are_refused(path):
    """Two tensors with the same path, and the name reserved by the format, are refused."""
    for tree, name in (({1: torch.ones(1), "1": torch.zeros(1)}, "1"), ({"__metadata__": torch.ones(1)}, "__metadata__")):
        with pytest.raises(
            ValueError, match=rf"^save: the paths of tensors in a \.safetensors file must be unique, .*, got '{name}'"
        ):
            fn.save(path, tree)


@pytest.mark.parametrize("call", [lambda path: fn.save(path, 0), fn.load, fn.load_metadata])
def test_without_the_library_a_sentence_says_what_to_install(path, monkeypatch, call):
    """The error is an ``ImportError``."""
    fn.save(path, 0)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"ends in \.safetensors needs the library: pip install 'funcnet\[safetensors\]'"):
        call(path)


def forged(path, changes):
    """Write a file with the given metadata of our format, and a valid checksum."""
    from funcnet.saving.safetensors_format import _crc

    said = {"version": 1, "tree": ["tensor", 0], "metadata": None, "tensors": [["a", "float32", [2], None, 0]], **changes}
    text = json.dumps(said)
    save_file({"a": torch.ones(2)}, path, {"funcnet": text, "funcnet.crc32": _crc(text)})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 2}, "a file of format version 2; this funcnet reads version 1"),
        ({"tensors": [["b", "float32", [2], None, 0]]}, "tensors other than those in its header"),
        ({"tensors": [["a", "float32", [1, 2], None, 0]]}, "tensors other than"),
        ({"tensors": [["a", "int32", [2], None, 0]]}, "tensors other than"),
        ({"tensors": []}, "a node of the tree that is"),
        ({"tensors": [["a", "float32", [2], [3], 0]]}, "with strides"),
        ({"tensors": [["a", "os.system", [2], None, 0]]}, "dtype 'os.system', which torch lacks"),
        ({"tensors": 3}, "a header that cannot be read"),
        ({"tree": ["pickle", 0]}, "a node of the tree that is"),
        ({"metadata": ["tensor", 0]}, "a node of the tree that is"),
        ({}, "the checksum of tensor 0 differs"),
        ({"tensors": [["a", "float32", [2], None, None]]}, "a header that cannot be read"),
    ],
)
def test_text_that_was_never_saved_is_refused(path, changes, words):
    """The text is refused although its checksum is valid."""
    forged(path, changes)
    with pytest.raises(ValueError, match=f"^load: '.*' must be a whole file .*, got .*{words}"):
        fn.load(path)
