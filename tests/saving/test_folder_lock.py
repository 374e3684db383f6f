"""The lock of a folder: two writers, killed processes, forks, file systems without locks, and background saves."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
import torch

from funcnet import Checkpoints
from funcnet.saving import checkpoints as module
from funcnet.saving.folder_lock import FolderLock, all_locks, lock_of

LEFT = ".step-000000007.fn.x1y2.tmp"


@contextmanager
def held_elsewhere(folder, word=""):
    """Hold the lock through another open file, as another process would; ``word`` is the text it wrote to the file."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(word)
        file.flush()
        yield file


def is_free(folder):
    """Return whether another process could lock the folder."""
    with (folder / ".lock").open() as file, suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


# two writers


def test_a_second_run_is_refused(tmp_path):
    """The second run may use another path to the folder; saves within the first continue, and the folder is free afterwards."""
    one, other = Checkpoints(tmp_path / "new"), Checkpoints(tmp_path / "new" / ".." / "new", background=True)
    with one.locked():
        assert not is_free(one.folder)
        with pytest.raises(ValueError, match="this process is already training with this folder"), other.locked():
            pass
        one.save(1, 1)
        other.save(2, 2)
        assert other.load() == 2
        assert not is_free(one.folder)
    assert is_free(one.folder)
    with other.locked():
        other.save(3, 3)
    assert is_free(one.folder)
    assert one.steps() == [1, 2, 3]


@pytest.mark.parametrize(
    ("word", "said"), [("4711", r"training with this folder \(pid 4711\)"), ("", "training with this folder or saving in it")]
)
def test_a_run_does_not_wait_for_another_process(tmp_path, word, said):
    """The error has the id of the other process if it is training, and no lock is left."""
    checkpoints = Checkpoints(tmp_path)
    with (
        held_elsewhere(tmp_path, word),
        pytest.raises(ValueError, match=rf"^Checkpoints\(.*only one run at a time.*another process is {said}"),
        checkpoints.locked(),
    ):
        pass
    assert is_free(tmp_path)
    with checkpoints.locked():
        assert (tmp_path / ".lock").read_text() == str(os.getpid())
    assert (tmp_path / ".lock").read_text() == ""


def test_a_save_waits_for_another_save_and_is_refused_by_a_run(tmp_path):
    """A killed trainer has left its id; the process that saves now removes it a moment later."""
    checkpoints = Checkpoints(tmp_path)
    with held_elsewhere(tmp_path, "4711") as file, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(checkpoints.save, 1, "saved")
        file.truncate(0)
        assert not waiting.done()
        fcntl.flock(file, fcntl.LOCK_UN)
        waiting.result()
        assert checkpoints.load() == "saved"
    with held_elsewhere(tmp_path, "4711"), pytest.raises(ValueError, match=r"training with this folder \(pid 4711\)"):
        checkpoints.save(2, "refused")
    assert checkpoints.steps() == [1]


def test_an_interrupted_wait_leaves_no_open_file(tmp_path, monkeypatch):
    """Ctrl-C may interrupt it while another process saves."""

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    checkpoints = Checkpoints(tmp_path)
    with held_elsewhere(tmp_path), pytest.raises(KeyboardInterrupt):
        checkpoints.save(1, 1)
    assert lock_of(tmp_path)._descriptor is None
    checkpoints.save(1, 1)


def test_threads_save_one_after_the_other(tmp_path):
    """In one folder, with and without the background, no save is lost."""
    with ThreadPoolExecutor(4) as pool:
        values = [Checkpoints(tmp_path, None, background=i % 2 == 0) for i in range(16)]
        assert [*pool.map(lambda i: values[i].save(i, i), range(16))] == [None] * 16
    assert Checkpoints(tmp_path).steps() == [*range(16)]
    assert is_free(tmp_path)


# what dead writers leave, and forks


@pytest.mark.parametrize(
    "use", [lambda checkpoints: checkpoints.save(1, 1), lambda checkpoints: checkpoints.locked().__enter__()]
)
def test_temporary_files_of_dead_writers_are_removed(tmp_path, use):
    """A save or a run removes them once it holds the lock; other temporary files stay."""
    for name in (LEFT, ".mine.tmp", "step-000000007.tmp"):
        (tmp_path / name).write_text("half")
    with held_elsewhere(tmp_path, "1"), pytest.raises(ValueError, match="training"):
        use(Checkpoints(tmp_path))
    assert (tmp_path / LEFT).exists()
    use(Checkpoints(tmp_path))
    assert {path.name for path in tmp_path.glob("*.tmp")} == {".mine.tmp", "step-000000007.tmp"}


def test_without_locks_everything_goes_on(tmp_path, monkeypatch):
    """The file system or the operating system may lack them; files of a writer that may be alive stay."""
    (tmp_path / LEFT).write_text("half")

    def refuse(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    for change in (
        lambda: monkeypatch.setattr(fcntl, "flock", refuse),
        lambda: monkeypatch.setattr("funcnet.saving.folder_lock.fcntl", None),
    ):
        change()
        with Checkpoints(tmp_path).locked():
            Checkpoints(tmp_path).save(1, 1)
        assert Checkpoints(tmp_path).load() == 1
        assert (tmp_path / LEFT).exists()


def test_a_forked_process_does_not_keep_the_lock(tmp_path):
    """A DataLoader worker may live for seconds after its trainer was killed; the trainer keeps the lock."""
    checkpoints = Checkpoints(tmp_path)
    with checkpoints.locked():
        descriptor = lock_of(tmp_path)._descriptor
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns where there are threads
            child = os.fork()
        if not child:
            os._exit(_state_in_a_child(tmp_path, descriptor))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert not is_free(tmp_path)
    assert is_free(tmp_path)


def _state_in_a_child(folder, descriptor):
    """Return 0 if the child has no open lock file, and can neither take nor release the lock."""
    try:
        os.fstat(descriptor)
    except OSError:
        lock = lock_of(folder)
        lock.release()
        with suppress(ValueError):
            lock.acquire("child")
            return 2
        return 0 if all(one._descriptor is None for one in all_locks()) else 3
    return 1


# the background


@pytest.fixture
def gate(monkeypatch):
    """Make background saves wait for an event, and fail if its ``error`` is set."""
    gate, pool = threading.Event(), ThreadPoolExecutor(1)
    gate.error = None

    def write(path, tree, metadata):
        assert gate.wait(60)
        if gate.error:
            raise gate.error
        module.save(path, tree, metadata)

    monkeypatch.setattr(module, "save_in_background", lambda path, tree, metadata=None: pool.submit(write, path, tree, metadata))
    yield gate
    gate.set()
    pool.shutdown()


@pytest.mark.parametrize("use", ["wait", "latest", "steps", "load", "load_metadata"])
def test_the_next_call_waits_for_the_background(tmp_path, gate, use):
    """When it returns, older files are deleted and the lock is free; another value for the folder waits too."""
    checkpoints = Checkpoints(tmp_path, 1, background=True)
    Checkpoints(tmp_path).save(1, 1)
    checkpoints.save(2, 2)
    assert [path.name for path in tmp_path.glob("*.fn")] == ["step-000000001.fn"]
    assert not is_free(tmp_path)
    threading.Timer(0.05, gate.set).start()
    getattr(Checkpoints(tmp_path), use)()
    assert [path.name for path in tmp_path.glob("*.fn")] == ["step-000000002.fn"]
    assert is_free(tmp_path)


def test_an_error_of_the_background_is_raised_once_and_costs_no_older_file(tmp_path, gate):
    """The next call raises it, even a save."""
    checkpoints = Checkpoints(tmp_path, 1, background=True)
    Checkpoints(tmp_path).save(1, 1)
    gate.error = OSError(errno.ENOSPC, "No space left on device")
    gate.set()
    for call in (checkpoints.wait, checkpoints.steps, lambda: checkpoints.save(3, 3)):
        checkpoints.save(2, 2)
        with pytest.raises(OSError, match="No space left"):
            call()
        assert is_free(tmp_path)
        assert checkpoints.steps() == [1]


def test_the_end_of_a_run_waits_and_raises(tmp_path, gate):
    """Otherwise the run would end without its last checkpoint."""
    checkpoints = Checkpoints(tmp_path, background=True)
    gate.error = OSError(errno.ENOSPC, "No space left on device")
    threading.Timer(0.05, gate.set).start()
    with pytest.raises(OSError, match="No space left"), checkpoints.locked():
        checkpoints.save(1, 1)
    assert is_free(tmp_path)


def test_a_tree_that_is_refused_frees_the_lock(tmp_path):
    """The error may occur at the call, or in the thread."""
    checkpoints = Checkpoints(tmp_path, background=True)
    with pytest.raises((ValueError, TypeError), match="leaf"):
        checkpoints.save(1, {"leaf": object()}) or checkpoints.wait()
    assert is_free(tmp_path)
    assert checkpoints.steps() == []


SCRIPT = """
import sys, torch, funcnet as fn
from pathlib import Path
folder = Path(sys.argv[1])
fn.Checkpoints(folder / "good", background=True).save(1, torch.ones(1000))
bad = fn.Checkpoints(folder / "bad", background=True)
bad.save(1, torch.ones(1000))
bad.wait()
(folder / "bad" / "step-000000002.fn").mkdir()
bad.save(2, torch.ones(1000))
"""


def test_the_end_of_the_interpreter_waits_and_reports_the_error(tmp_path):
    """The program runs in a separate process, which does not wait itself."""
    ended = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "step-000000002.fn" in ended.stderr
    assert torch.equal(Checkpoints(tmp_path / "good").load(), torch.ones(1000))
    assert Checkpoints(tmp_path / "bad").steps() == [1]


def test_a_lock_that_holds_nothing_may_be_given_back(tmp_path):
    """An example is a forked process that leaves the ``with`` of its parent."""
    lock = FolderLock(tmp_path)
    lock.release()
    assert lock.acquire("test")
    lock.release()
    assert is_free(tmp_path)
