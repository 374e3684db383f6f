"""Wrong arguments to every verb of every layer: a sample in each run, all with ``--long``; and the harness finds faults."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from broken_doors import BROKEN, Doubled
from cases import Case
from doors import FINE, given, judge, trials

import funcnet as fn

ROOT = Path(__file__).parents[2]
X = fn.random.normal(1, (4, 3))
CLEAN = "0 crash, 0 wrong value, 0 wrong shape, 0 other faults"

DIES = """
from broken_doors import Dying
from cases import CASES, Case
from doors import run, trials
import torch
CASES["dying"] = Case(Dying(), torch.ones(4, 3), {})
print(*sorted({ending for _, ending in run(trials("dying", CASES["dying"]))}), sep=", ")
"""


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process, whose children may crash."""
    paths = f"{ROOT}:{ROOT / 'tests'}:{ROOT / 'tests/testing'}"
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env={"PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(("every", "least"), [(200, 900), pytest.param(1, 100_000, marks=pytest.mark.long)])
def test_every_wrong_argument_is_refused_or_changes_nothing(every: int, least: int) -> None:
    """At least 99 % of the errors name the layer, the rule and what it got."""
    done = _run("tests/testing/doors.py", "--every", str(every))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    summary = done.stdout.splitlines()[-1]
    print(summary)
    assert CLEAN in summary
    assert int(summary.split()[0]) >= least
    assert float(re.findall(r"([\d.]+)% of \d+ errors", summary)[0]) >= 99


def _endings(layer: fn.Layer) -> set[str]:
    case = Case(layer, X, {})
    known = given(case)
    return {judge(case, known, trial).partition(":")[0] for trial in trials("", case)}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("ending", BROKEN)
def test_a_fault_at_a_door_is_found(ending: str) -> None:
    """Each layer has one fault that the correct layer lacks."""
    assert ending in _endings(BROKEN[ending])
    assert _endings(Doubled()) <= set(FINE)


@pytest.mark.long
def test_a_crash_is_a_result() -> None:
    """A layer that ends its process is reported, and the trials after it still run."""
    done = _run("-c", DIES)
    assert done.stdout == "crash, refused, taken\n", done.stderr
