"""Wrong arguments at every verb of every layer: a sample in each run, all of them in a long one."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAMILIES = (
    "activation",
    "attention",
    "conv",
    "embedding",
    "linear",
    "noise",
    "norm",
    "operands",
    "pooling",
    "recurrent",
    "shape",
)


@pytest.mark.parametrize("every", [200, pytest.param(1, marks=pytest.mark.long)])
def test_every_wrong_argument_is_refused_or_changes_nothing(every: int) -> None:
    """Runs in a subprocess, whose children may crash."""
    words = [f"layers.{family}" for family in FAMILIES]
    command = [sys.executable, "tests/testing/doors.py", "--every", str(every), *words]
    done = subprocess.run(
        command, cwd=ROOT, env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "refused" in done.stdout
