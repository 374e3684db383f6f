"""Atomic files: whatever goes wrong, either the old file exists or the new one, and no other."""

import errno
import os
import resource
import signal
import stat
import threading
from pathlib import Path

import pytest
import torch
from saved_trees import in_a_fork, same

import funcnet as fn
from funcnet.saving import atomic, file_format, safetensors_format

OLD, NEW = {"w": torch.zeros(3)}, {"w": torch.ones(5)}


@pytest.fixture(params=["a.fn", "a.safetensors"])
def path(request, tmp_path):
    """Return the path of a file that has the old tree."""
    fn.save(tmp_path / request.param, OLD)
    return tmp_path / request.param


def untouched(path: Path) -> bool:
    """Return whether the old file exists, and no other."""
    return [*path.parent.iterdir()] == [path] and same(fn.load(path), OLD)


class Stop(BaseException):
    pass


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt, Stop, RuntimeError])
@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_an_exception_leaves_the_old_file(path, monkeypatch, kind, where):
    """Ctrl-C and a full disk may occur after writing or before the rename; an error names the saved path."""
    error = kind(errno.ENOSPC, "No space left on device")

    def fail(*args):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync") if where == "fsync" else (Path, "replace")), fail)
        with pytest.raises(kind) as caught:
            fn.save(path, NEW)
    assert caught.value is error
    assert getattr(error, "__notes__", []) == [f"  in save({str(path)!r}, ...)"] * isinstance(error, Exception)
    assert untouched(path)


def test_an_exception_amid_writing_leaves_the_old_file(path, monkeypatch):
    """The exception occurs when some of the tensors are written."""
    module = file_format if path.suffix == ".fn" else safetensors_format
    count = iter(range(10))

    def fail(x, form):
        if next(count) == 2:
            raise KeyboardInterrupt
        return x

    monkeypatch.setattr(module, "in_memory", fail)
    with pytest.raises(KeyboardInterrupt):
        fn.save(path, [torch.randn(1000) for _ in range(4)])
    assert untouched(path)


def errors_with_a_limit(path: Path) -> list[tuple[int, list[str]]]:
    """Save a large tree with a limit on file sizes, and return the errors."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    errors = []
    for save in (fn.save, lambda *args: fn.save_in_background(*args).result()):
        try:
            save(path, torch.ones(1_000_000))
        except OSError as error:
            errors.append((error.errno, error.__notes__))
    return errors


def test_a_full_disk_leaves_the_old_file(path):
    """Here file sizes are limited: the system's error is raised, by a background save too."""
    names = ("save", "save_in_background")
    assert in_a_fork(errors_with_a_limit, path) == [(errno.EFBIG, [f"  in {name}({str(path)!r}, ...)"]) for name in names]
    assert untouched(path)


def test_a_folder_that_takes_no_files_is_an_error_of_the_system(tmp_path):
    """Examples are a parent that is a file, and kernel folders in which not even root may create one."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "a.fn", Path("/proc/a.fn")):
        with pytest.raises(OSError, match=r"a\.fn|/proc") as caught:
            fn.save(path, NEW)
        assert caught.value.__notes__ == [f"  in save({str(path)!r}, ...)"]


@pytest.mark.parametrize("name", ["a.fn", "a.safetensors"])
def test_permissions_are_those_of_any_file(tmp_path, name):
    """A new file follows umask, a replaced one keeps its permissions."""
    path = tmp_path / name
    before = os.umask(0o027)
    try:
        fn.save(path, OLD)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    for mode in (0o604, 0o400):
        path.chmod(mode)
        fn.save(path, NEW)
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_link_stays_a_link(tmp_path):
    """The file it points to is replaced, in its own folder."""
    (tmp_path / "real").mkdir()
    fn.save(tmp_path / "real" / "a.fn", OLD)
    (tmp_path / "link.fn").symlink_to(tmp_path / "real" / "a.fn")
    fn.save(tmp_path / "link.fn", NEW)
    assert (tmp_path / "link.fn").is_symlink()
    assert same(fn.load(tmp_path / "real" / "a.fn"), NEW)


def test_relative_paths_and_long_names_are_files_too(tmp_path, monkeypatch):
    """A name may be as long as the system allows."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "é" * 127, "n" * 255):
        fn.save(name, NEW)
        assert same(fn.load(name), NEW)


def test_the_file_is_on_the_disk_before_it_gets_its_name(path, monkeypatch):
    """The file is flushed, then renamed, then the folder is flushed; the temporary name has a dot and is in the same folder."""
    done, sync, replace = [], os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: (done.append(os.fstat(number)), sync(number)))
    monkeypatch.setattr(Path, "replace", lambda one, other: (done.append(one), replace(one, other)))
    fn.save(path, NEW)
    written, temporary, folder = done
    assert (written.st_ino, folder.st_ino) == (path.stat().st_ino, path.parent.stat().st_ino)
    assert temporary.parent == path.parent
    assert temporary.name.startswith(".")
    assert temporary.suffix == ".tmp"


def test_writers_side_by_side_leave_one_whole_file(path):
    """The last to finish wins; nothing of the others remains, and a reader never sees a partial file."""
    trees = [{"w": torch.full((20_000,), float(i))} for i in range(4)]
    threads = [threading.Thread(target=lambda tree=tree: [fn.save(path, tree) for _ in range(5)]) for tree in trees]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert len(fn.load(path)["w"].unique()) == 1
    assert [*path.parent.iterdir()] == [path]


def test_systems_that_cannot_open_folders_are_spared(tmp_path, monkeypatch):
    """Systems without ``os.O_DIRECTORY`` are supported."""
    monkeypatch.delattr(os, "O_DIRECTORY")
    atomic.sync_folder(tmp_path / "nowhere")
    fn.save(tmp_path / "a.fn", NEW)
    assert same(fn.load(tmp_path / "a.fn"), NEW)
