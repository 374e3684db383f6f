"""``load`` with ``like``, ``partial``, ``rename`` and ``device``: one error for all differences."""

import re
from collections import OrderedDict

import pytest
import torch
from saved_trees import Point, same

import funcnet as fn
from funcnet.paths import matches, renamed

W, B = torch.arange(6.0).reshape(2, 3), torch.ones(2)


@pytest.fixture
def path(tmp_path):
    """Return the path of a file with a small tree."""
    fn.save(tmp_path / "a.fn", {"net": ({"weight": W, "bias": B}, {}), "step": 3, "rate": None})
    return tmp_path / "a.fn"


def test_everything_that_does_not_fit_is_in_one_error(path):
    """The error lists paths that are missing, extra, of another shape, dtype or type, and nodes of another kind."""
    like = {
        "net": [{"weight": W.T, "bias": B.double(), "scale": B}, {}],
        "step": 3.0,
        "state": (),
        "more": {"x": 1},
    }
    with pytest.raises(ValueError, match=r"^load: '.*a\.fn' must hold the leaves of like, got 8 differences:\n") as caught:
        fn.load(path, like)
    assert str(caught.value).splitlines()[1:] == [
        "  different 'net.0.weight': a tensor of shape (2, 3) and dtype torch.float32 instead of a tensor of shape (3, 2) and dtype torch.float32",
        "  different 'net.0.bias': a tensor of shape (2,) and dtype torch.float32 instead of a tensor of shape (2,) and dtype torch.float64",
        "  missing 'net.0.scale': a tensor of shape (2,) and dtype torch.float32",
        "  different 'step': the int 3 instead of the float 3.0",
        "  missing 'state': a tuple without entries",
        "  missing 'more.x': the int 1",
        "  extra 'rate': None",
        "  different 'net': a tuple instead of a list",
    ]


@pytest.mark.parametrize(
    ("saved", "like", "words"),
    [
        (1, 1.0, "different '': the int 1 instead of the float 1.0"),
        (True, 1, "different '': the bool True instead of the int 1"),
        ([W], [None], "different '0': a tensor of shape (2, 3) and dtype torch.float32 instead of None"),
        ("a", W, "different '': the str 'a' instead of a tensor of shape (2, 3) and dtype torch.float32"),
        ({}, (), "different '': a dict without entries instead of a tuple without entries"),
        ({}, {"a": 1}, "missing 'a': the int 1\n  extra '': a dict without entries"),
        ((1, 2), torch.Size([1, 2]), "different '': a tuple instead of a torch.Size"),
        ((1, 2), Point(1, 2), "different '': a tuple instead of a named tuple of the fields x, y"),
    ],
)
def test_the_kind_of_everything_must_fit(tmp_path, saved, like, words):
    """Each difference is described."""
    fn.save(tmp_path / "a.fn", saved)
    with pytest.raises(ValueError, match=f"differences?:\n  {re.escape(words)}$"):
        fn.load(tmp_path / "a.fn", like)


def test_a_long_list_of_differences_is_cut(tmp_path):
    """20 are listed, and the others are counted."""
    fn.save(tmp_path / "a.fn", [torch.ones(1)] * 50)
    with pytest.raises(ValueError, match="got 50 differences") as caught:
        fn.load(tmp_path / "a.fn", [torch.ones(2)] * 50)
    lines = str(caught.value).splitlines()
    assert (len(lines), lines[-1]) == (22, "  and 30 more")


def test_like_gives_order_classes_and_keys(tmp_path):
    """The leaves are the file's; an int and a string with the same path are the same key."""
    fn.save(tmp_path / "a.fn", {"b": 1, "a": Point(W, 2), "0": True})
    like = OrderedDict([("a", Point(torch.empty(2, 3, device="meta"), 0)), (0, False), ("b", 0)])
    loaded = fn.load(tmp_path / "a.fn", like)
    assert same(loaded, OrderedDict([("a", Point(W, 2)), (0, True), ("b", 1)]))
    assert type(loaded["a"]) is Point


def test_partial_keeps_what_the_file_lacks_and_leaves_out_what_like_lacks(path):
    """Common leaves must still match, and there must be at least one."""
    like = {"net": ({"weight": torch.zeros(2, 3), "scale": B},), "new": 1}
    loaded = fn.load(path, like, partial=True)
    assert same(loaded, {"net": ({"weight": W, "scale": B},), "new": 1})
    assert loaded["net"][0]["scale"] is B
    with pytest.raises(
        ValueError,
        match=r"must hold leaves of like \(rename={path: None} leaves out one that differs\), got 1 difference:\n  different 'net\.0\.weight'",
    ):
        fn.load(path, {"net": ({"weight": B},)}, partial=True)
    like = {"net": ({"weight": B, "bias": torch.ones(2)},)}
    assert same(fn.load(path, like, rename={"net.0.weight": None}, partial=True), {"net": ({"weight": B, "bias": B},)})
    with pytest.raises(ValueError, match="must hold leaves of like, got 1 difference:\n  no path in common"):
        fn.load(path, {"other": B}, partial=True)
    with pytest.raises(ValueError, match=r"^load: partial must be False without a tree like, got True"):
        fn.load(path, partial=True)


def test_paths_of_like_must_be_unique(path):
    """The paths are checked as in ``tree.names``."""
    with pytest.raises(ValueError, match=r"^load: the paths of the leaves must be unique, got '1' twice"):
        fn.load(path, {1: B, "1": B})


def test_patterns_rename_paths(path):
    """The text matched by ``*`` goes to the ``*`` of the new name; the first match counts; None drops the path."""
    like = {"body": ({"w": torch.zeros(2, 3), "bias": torch.zeros(2)}, {}), "step": 0}
    rename = {"net.*.weight": "body.*.w", "net.*": "body.*", "rate": None}
    loaded = fn.load(path, like, rename=rename)
    assert same(loaded, {"body": ({"w": W, "bias": B}, {}), "step": 3})
    by_function = lambda path: None if path == "rate" else path.replace("net", "body").replace("weight", "w")
    assert same(fn.load(path, like, rename=by_function), loaded)
    assert same(fn.load(path, rename=by_function), loaded)


@pytest.mark.parametrize(
    ("path", "pattern", "new", "want"),
    [
        ("old.0.weight", "old.*", "new.*", "new.0.weight"),
        ("a.b.c", "*.*", "*-*", "a-b.c"),
        ("a.1.w", "*.[0-9].?", "*.x", "a.x"),
        ("a.x.w", "*.[!0-9].w", "*", "a"),
        ("bias", "*.bias", "*.offset", "offset"),
        ("net.bias", "*.bias", "*.offset", "net.offset"),
        ("a+b", "a+b", "c", "c"),
        ("a\nb", "a*", "*", "\nb"),
        ("bias", "*.weight", "*", None),
        ("a.1.w", "*.[!0-9].w", "*", None),
        ("A", "a", "b", None),
    ],
)
def test_stars_keep_what_they_match(path, pattern, new, want):
    """Patterns match as in ``matches``; ``?`` and ``[]`` match one character, which is not kept."""
    assert renamed(path, pattern, new) == want
    assert matches(path, pattern) == (want is not None)


@pytest.mark.parametrize(
    ("rename", "words"),
    [
        (
            {"old.*": "new.*"},
            r"every pattern of rename must match a path that no earlier pattern matches; the paths are .*net\.0\.weight.*, got 'old\.\*'",
        ),
        ({"net.*": "a.*", "net.0.*": "b.*"}, r"that no earlier pattern matches; .*, got 'net\.0\.\*'"),
        ({"net.0.*": "a"}, r"a new name must have as many \* as its pattern, got 'a' for 'net\.0\.\*'"),
        (
            {"net.0.weight": "net.0.bias"},
            r"give every path its own name, got 'net\.0\.bias' for 'net\.0\.weight' and 'net\.0\.bias'",
        ),
        ({"net": 3}, "rename must be a dict from patterns to new names or None, got 'net': 3"),
        ({3: "net"}, "rename must be a dict from patterns to new names or None, got 3: 'net'"),
        ("net", "rename must be a dict of new names by pattern, or a function of a path, got 'net'"),
        (lambda path: 3, r"rename must return a path or None, got 3 for 'net\.0\.weight'"),
        (lambda path: "a", "give every path its own name, got 'a' for"),
    ],
)
def test_a_rename_that_makes_no_sense_is_refused(path, rename, words):
    """The error has the pattern or the path."""
    with pytest.raises(ValueError, match=f"^load: .*{words}"):
        fn.load(path, rename=rename)


def test_device_is_where_tensors_go(path):
    """The device may be a name or a value; one unknown to torch is refused."""
    for device in ("cpu", torch.device("cpu")):
        assert fn.load(path, device=device)["net"][0]["weight"].device.type == "cpu"
    assert fn.load(path, device="meta")["net"][0]["weight"].is_meta
    for device in ("gpu", 1.5):
        with pytest.raises(ValueError, match=r"^load: device must be a torch\.device or the name of one, got"):
            fn.load(path, device=device)
