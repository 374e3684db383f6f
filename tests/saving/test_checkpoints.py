"""Checkpoints: which files are kept, which one is loaded, and which arguments are refused."""

import math
import pickle
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import funcnet as fn
from funcnet import Checkpoints
from funcnet.saving import background


def tree_of(step: int) -> fn.tree.Tree:
    """Return a tree that contains its step."""
    return {"weight": torch.full((3,), float(step)), "step": step}


def filled(folder: Path, *steps: int, keep: int | None = None) -> Checkpoints:
    """Return a folder with a checkpoint of each step."""
    checkpoints = Checkpoints(folder, keep)
    for step in steps:
        checkpoints.save(step, tree_of(step), {"step": step})
    return checkpoints


def file_of(checkpoints: Checkpoints, step: int) -> Path:
    return checkpoints.folder / f"step-{step:09d}.fn"


def damage(checkpoints: Checkpoints, step: int, position: int = -8) -> None:
    """Flip a bit of a file, by default in the last tensor."""
    path = file_of(checkpoints, step)
    content = bytearray(path.read_bytes())
    content[position] ^= 4
    path.write_bytes(content)


# which files stay


@pytest.mark.parametrize(("keep", "left"), [(1, [7]), (3, [2, 5, 7]), (4, [0, 2, 5, 7]), (9, [0, 2, 5, 7]), (None, [0, 2, 5, 7])])
def test_the_newest_stay(tmp_path, keep, left):
    """``keep`` sets their number; the first save creates the folder."""
    checkpoints = filled(tmp_path / "new" / "folder", 0, 2, 5, 7, keep=keep)
    assert checkpoints.steps() == left
    assert sorted(path.name for path in checkpoints.folder.glob("*.fn")) == [f"step-00000000{step}.fn" for step in left]


@given(st.lists(st.integers(0, 12), min_size=1, max_size=12), st.integers(1, 4))
@settings(max_examples=20)
def test_a_save_deletes_only_older_steps(tmp_path_factory, steps, keep):
    """In any order of steps, the saved one and the newest before it are kept, and no later one is deleted."""
    checkpoints, left = Checkpoints(tmp_path_factory.mktemp("folder"), keep), set()
    for step in steps:
        checkpoints.save(step, step)
        older = sorted(one for one in left if one < step)
        left = {step, *[one for one in left if one > step], *older[len(older) - min(keep - 1, len(older)) :]}
        assert checkpoints.steps() == sorted(left)
        assert checkpoints.load(step) == step


def test_going_back_behind_a_damaged_file_loses_no_good_one(tmp_path):
    """With keep=1 too, the next saved step, older than the damaged one, is what loads afterwards."""
    checkpoints = filled(tmp_path, 8, 10).replace(keep=1)
    damage(checkpoints, 10)
    checkpoints.save(9, tree_of(9))
    assert checkpoints.steps() == [9, 10]
    with pytest.warns(UserWarning, match="step-000000010"):
        assert checkpoints.load()["step"] == 9


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path):
    """The new tree may have another structure."""
    checkpoints = filled(tmp_path, 3)
    checkpoints.save(3, (1, 2), "again")
    assert (checkpoints.load(), checkpoints.load_metadata(), checkpoints.steps()) == ((1, 2), "again", [3])


def test_other_files_are_ignored_and_kept(tmp_path):
    """Examples are similar names, a folder named like a step, and temporary files of other programs."""
    names = ["step-12.fn", "step-0000000012.fn.bak", "notes.txt", ".notes.tmp", "step-000000001.txt", "xstep-000000001.fn"]
    for name in names:
        (tmp_path / name).write_text("other")
    (tmp_path / "step-000000000.fn").mkdir()
    checkpoints = filled(tmp_path, 5, 6, keep=1)
    assert checkpoints.steps() == [6]
    assert {path.name for path in tmp_path.iterdir()} == {*names, "step-000000000.fn", "step-000000006.fn", ".lock"}


def test_a_file_that_cannot_be_deleted_costs_a_warning(tmp_path, monkeypatch):
    """The save itself succeeds."""

    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "denied", str(self))

    checkpoints = filled(tmp_path, 1).replace(keep=1)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.warns(UserWarning, match=r"step-000000001\.fn could not be deleted: .*denied"):
        checkpoints.save(2, tree_of(2))
    assert checkpoints.steps() == [1, 2]


def test_a_failed_save_keeps_the_older_files(tmp_path):
    """A tree that cannot be saved deletes nothing, and leaves no file."""
    checkpoints = filled(tmp_path, 1).replace(keep=1)
    with pytest.raises((ValueError, TypeError), match=r"\bb\b"):
        checkpoints.save(2, {"a": torch.ones(2), "b": object()})
    assert {path.name for path in tmp_path.iterdir()} == {"step-000000001.fn", ".lock"}


# which one is loaded


def test_the_newest_is_loaded_by_default(tmp_path):
    """Its metadata is loaded too; other steps are loaded by number, which may be numpy's."""
    checkpoints = filled(tmp_path, 4, 9)
    assert checkpoints.latest() == 9
    assert fn.tree.equal(checkpoints.load()["weight"], tree_of(9)["weight"])
    assert checkpoints.load(np.int64(4), like=tree_of(0))["step"] == 4
    assert (checkpoints.load_metadata(), checkpoints.load_metadata(4)) == ({"step": 9}, {"step": 4})


def test_options_of_load_are_handed_on(tmp_path):
    """The options are new names, partial trees and devices."""
    checkpoints = filled(tmp_path, 1)
    like = {"new": {"weight": torch.zeros(3)}, "other": torch.ones(1)}
    loaded = checkpoints.load(like=like, rename={"weight": "new.weight"}, partial=True, device="cpu")
    assert fn.tree.equal(loaded, {"new": {"weight": torch.ones(3)}, "other": torch.ones(1)})


@pytest.mark.parametrize("content", [b"", b"text", b"cut"])
def test_a_damaged_newest_file_falls_back_with_a_warning(tmp_path, content):
    """Each damaged file gives one, with its name and the reason; its metadata is skipped too."""
    checkpoints = filled(tmp_path, 1, 2, 3)
    whole = file_of(checkpoints, 3).read_bytes()
    file_of(checkpoints, 3).write_bytes(whole[:-30] if content == b"cut" else content)
    damage(checkpoints, 2)
    with pytest.warns(UserWarning, match="is damaged and skipped") as warned:
        assert checkpoints.load(like=tree_of(0))["step"] == 1
    assert [one for one in (2, 3) if f"step-00000000{one}" in str(warned[0].message)] == [3]
    assert len(warned) == 2
    assert warned[0].filename == __file__
    with pytest.warns(UserWarning, match="skipped"):
        assert checkpoints.load_metadata() == {"step": 1}


def test_latest_reads_headers_only(tmp_path):
    """A damaged header is skipped; damage in a tensor is found by ``load``."""
    checkpoints = filled(tmp_path, 1, 2, 3)
    damage(checkpoints, 3, 60)
    damage(checkpoints, 2)
    assert checkpoints.latest() == 2
    damage(checkpoints, 2, 60)
    damage(checkpoints, 1, 60)
    assert checkpoints.latest() is None


def test_all_damaged_is_an_error_that_lists_them(tmp_path):
    """Each is listed with its reason."""
    checkpoints = filled(tmp_path, 1, 2)
    damage(checkpoints, 1)
    file_of(checkpoints, 2).write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="skipped"),
        pytest.raises(
            ValueError,
            match=r"must have an undamaged checkpoint, got 2 damaged: step-000000002.fn: .*empty.*step-000000001.fn: .*checksum",
        ),
    ):
        checkpoints.load()


def test_a_given_step_has_no_fallback(tmp_path):
    """A damaged step is an error, a missing one lists the existing steps, and an empty folder is named."""
    checkpoints = filled(tmp_path / "full", 1, 2)
    damage(checkpoints, 2)
    empty = Checkpoints(tmp_path / "none")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="checksum"):
            checkpoints.load(2)
        for load in (checkpoints.load, checkpoints.load_metadata):
            with pytest.raises(FileNotFoundError, match=r"^Checkpoints\(.*: step must be one of the saved steps, 1, 2, got 7$"):
                load(7)
        for load in (empty.load, empty.load_metadata):
            with pytest.raises(FileNotFoundError, match=r"folder must have a checkpoint to load, got none"):
                load()
        with pytest.raises(FileNotFoundError, match="none so far, got 3"):
            empty.load(3)
    assert (empty.latest(), empty.steps(), empty.folder.exists()) == (None, [], False)


def test_another_tree_than_asked_for_is_no_damage(tmp_path):
    """The previous file would hide it."""
    checkpoints = filled(tmp_path, 1, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="weight"):
            checkpoints.load(like={"weight": torch.ones(4), "step": 0})


@pytest.mark.parametrize("ask", [Checkpoints.load, Checkpoints.latest])
def test_files_that_another_process_deletes_meanwhile_are_no_damage(tmp_path, monkeypatch, ask):
    """The steps are listed again, because there are newer ones."""
    checkpoints, listed = filled(tmp_path, 3), [1, 2]
    read = Checkpoints._steps
    monkeypatch.setattr(Checkpoints, "_steps", lambda self: [listed.pop(0)] if listed else read(self))
    assert ask(checkpoints) in (3, {"weight": pytest.approx(torch.full((3,), 3.0)), "step": 3})


# the value


def test_it_is_a_value(tmp_path):
    """``Checkpoints`` prints as the call that makes it, pickles, compares, and accepts a string or a path."""
    assert repr(Checkpoints("runs/one")) == "Checkpoints('runs/one', keep=3)" == str(Checkpoints(Path("runs/one")))
    value = Checkpoints(tmp_path, None, every=20, background=True)
    assert repr(value) == f"Checkpoints('{tmp_path}', keep=None, every=20, background=True)"
    assert eval(repr(value), vars(fn)) == value == pickle.loads(pickle.dumps(value))
    assert len({value, Checkpoints(str(tmp_path), None, every=20, background=True), value.replace(every=None)}) == 2


@pytest.mark.parametrize("folder", [None, 3, b"folder", "", ("a",), torch.ones(2)])
def test_a_folder_is_a_path(folder):
    """A number, bytes, None or a tensor is refused."""
    with pytest.raises(ValueError, match=r"^Checkpoints: folder must"):
        Checkpoints(folder)


@pytest.mark.parametrize("step", [-1, 1.0, True, "1", math.nan, torch.tensor(1)])
def test_a_step_is_a_whole_number(tmp_path, step):
    """Saving and loading are tried."""
    checkpoints = filled(tmp_path, 1)
    for use in (lambda: checkpoints.save(step, 0), lambda: checkpoints.load(step), lambda: checkpoints.load_metadata(step)):
        with pytest.raises(ValueError, match=r"step must be a whole number of at least 0, got"):
            use()


@pytest.mark.parametrize(("field", "got"), [("keep", 0), ("every", 0), ("keep", 2.0), ("background", 1)])
def test_options_are_judged_when_it_is_made(field, got):
    """The error names the field."""
    with pytest.raises(ValueError, match=rf"^Checkpoints: {field} must be .*, got {got}"):
        Checkpoints("folder", **{field: got})


def test_older_files_are_deleted_where_they_are(tmp_path, monkeypatch):
    """Background saves are tried too, while the process changes its working directory."""
    monkeypatch.chdir(tmp_path)
    checkpoints = fn.Checkpoints("checkpoints", keep=1, background=True)
    checkpoints.save(1, torch.zeros(10))
    checkpoints.wait()
    (tmp_path / "elsewhere").mkdir()
    gate = threading.Event()
    background._writer().submit(gate.wait, 60)
    checkpoints.save(2, torch.zeros(10))
    monkeypatch.chdir(tmp_path / "elsewhere")
    gate.set()
    there = fn.Checkpoints(tmp_path / "checkpoints")
    there.wait()
    assert there.steps() == [2]
