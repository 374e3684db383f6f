"""The example of faults: a small run of all of them loses nothing, and the checks detect losses."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import funcnet as fn
from examples.faults.__main__ import GROUPS, PAGE, options_of
from examples.faults.children import Ended
from examples.faults.damage import parts
from examples.faults.judging import difference, losses
from examples.faults.kills import Chain
from examples.faults.table import Row, page, repeated
from examples.faults.trainings import KEEP, digest, leftovers, newest, train

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (.+?) \| (\d+) \| (\d+) \| (\d+) \| .+ \|$", re.MULTILINE)


def rows(text):
    """Return the numbers tried, survived and lost of each fault on a page."""
    return {fault: (int(tried), int(survived), int(lost)) for fault, tried, survived, lost in ROW.findall(text)}


@pytest.fixture(scope="module")
def small_page(tmp_path_factory):
    """Return the page of a run with three kills, in a process without threads of other tests."""
    out = tmp_path_factory.mktemp("faults") / "page.md"
    command = [sys.executable, "-m", "examples.faults", "--kills", "3", "--seed", "2", "--out", str(out)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return out.read_text()


def test_killed_trainings_resume_bit_for_bit(small_page):
    """There are three kills, a training with two data workers, and one with background saves, of up to three kills each."""
    found = rows(small_page)
    assert found["SIGKILL"] == (3, 3, 0)
    assert found["SIGKILL, with 2 data workers"] == found["SIGKILL, with saves in the background"] == (1, 1, 0)


def test_no_fault_loses_a_checkpoint_or_goes_on_silently(small_page):
    """Every fault of the committed page is tried, except those that require root."""
    found = rows(small_page)
    assert all(survived == tried and lost == 0 for tried, survived, lost in found.values())
    untried = {fault for fault, (tried, _, _) in found.items() if not tried}
    assert untried <= {"A full disk", "The checkpoint folder is unwritable for one worker"}
    assert found.keys() == rows(PAGE.read_text()).keys()
    assert len(found) > 25


def test_the_page_in_the_repository_has_no_losses():
    """The page covers 200 kills, 20 trainings with data workers, and all other faults."""
    text = PAGE.read_text()
    assert "`python -m examples.faults`" in text
    assert rows(text)["SIGKILL"] == (200, 200, 0)
    assert rows(text)["SIGKILL, with 2 data workers"] == rows(text)["One of 3 workers is killed"] == (20, 20, 0)
    assert {(survived, lost) for tried, survived, lost in rows(text).values() if tried} == {
        (tried, 0) for tried, _, _ in rows(text).values() if tried
    }


# the checks


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a folder with the checkpoints of a training, and the lines of the training."""
    folder, lines = tmp_path_factory.mktemp("trained"), []
    train(folder, lines.append, epochs=1)
    return folder, Ended(0, tuple(lines))


def test_a_training_reports_its_saves_and_its_digest(trained):
    """Every second step is reported, and the last one of the epoch."""
    folder, ended = trained
    assert ended.reported("saved") == ["2", "4", "6", "8", "9"]
    assert len(fn.Checkpoints(folder).steps()) == KEEP
    assert difference(ended, ended.reported("digest")[0]) == []


def test_the_judge_sees_a_lost_step_a_silent_end_and_leftovers(trained):
    """An unexpected error is detected too."""
    folder, ended = trained
    stopped = Ended(1, (*ended.lines, "error OSError: full"))
    assert losses(folder, stopped, "OSError") == []
    assert losses(folder, ended, "OSError") == ["it ended with 'no error', not with 'OSError'"]
    assert losses(folder, stopped, "ValueError") == ["it ended with 'OSError: full', not with 'ValueError'"]
    assert losses(folder, stopped, "OSError", 12) == ["step 12 was saved, the newest checkpoint is 9"]
    chain = Chain(known=11)
    (folder / ".step-000000010.fn.0123.tmp").touch()
    chain.killed(folder, stopped)
    assert (chain.kills, chain.torn, chain.lost) == (1, 1, ["step 11 was saved, the newest checkpoint is 9"])
    assert losses(folder, stopped, "OSError") == ["it left .step-000000010.fn.0123.tmp"]
    assert leftovers(folder) == [".step-000000010.fn.0123.tmp"]


def test_the_judge_sees_other_bits():
    """One number in params or in the history differs; times do not count."""
    history = {"loss": [1.0], "seconds": [2.0]}
    fit = fn.Fit({"w": torch.ones(2)}, {"step": torch.tensor(1)}, history)
    changed = {"w": torch.ones(2).nextafter(torch.zeros(()))}
    assert digest(fit) == digest(fit._replace(history={**history, "seconds": [3.0]}))
    assert digest(fit) != digest(fit._replace(params=changed))
    assert digest(fit) != digest(fit._replace(history={**history, "loss": [1.5]}))
    assert difference(Ended(0, ("digest a",)), "b") == ["the repeated call gave other bits"]
    assert difference(Ended(1, ("error ValueError: no",)), "b") == ["the repeated call ended with ValueError: no"]


def test_a_damaged_checkpoint_is_an_error_of_the_judge(tmp_path):
    """A kill must not leave one, newest or not."""
    checkpoints = fn.Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, torch.ones(3))
    assert newest(tmp_path) == 2
    (tmp_path / "step-000000001.fn").write_bytes(b"half")
    with pytest.raises(ValueError, match="step-000000001"):
        newest(tmp_path)


def test_the_parts_of_a_file_leave_nothing_out(tmp_path):
    """Every byte of a file with tensors is in one of them."""
    fn.save(tmp_path / "file.fn", (torch.ones(3), torch.ones(40)))
    found = parts(tmp_path / "file.fn")
    assert sorted(at for places in found.values() for at in places) == [*range((tmp_path / "file.fn").stat().st_size)]


def test_a_row_counts_tries_and_losses():
    """The page lists the losses."""
    tries = iter([[], ["a", "b"], []])
    row = repeated("Fault", 3, lambda: next(tries), "something happens")
    assert str(row) == "| Fault | 3 | 2 | 1 | something happens |"
    assert row.lost == ["a; b"]
    facts = {"command": "command", "torch": "2", "every": 2}
    assert page([row], **facts).endswith("## Lost\n\n- Fault: a; b\n")
    assert "## Lost" not in page([Row("Fault", 1, [], "nothing")], **facts)


def test_the_command_reads_its_options(capsys):
    """Groups are given by name, and there is at least one kill."""
    assert options_of(["--only", "kills", "damage"]).only == ["kills", "damage"]
    assert (options_of([]).only, options_of([]).kills) == ([*GROUPS], 200)
    for given in (["--kills", "0"], ["--only", "others"]):
        with pytest.raises(SystemExit):
            options_of(given)
    assert "--kills must be at least 1, got 0" in capsys.readouterr().err
