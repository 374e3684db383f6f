"""Results are identical bit for bit from run to run, since no choice between kernels depends on a timing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("digests.py")


def lines(kind: str, **environment: str) -> list[str]:
    """Return what a fresh process prints."""
    command = [sys.executable, str(SCRIPT), kind]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=1800, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def test_eager_training_repeats_in_fresh_processes():
    """Three nets use the kernels of large sizes; the order of sets and dicts of strings differs between the processes."""
    first = lines("eager", PYTHONHASHSEED="1")
    assert len(first) == 3
    assert len(set(first)) == 3
    assert lines("eager", PYTHONHASHSEED="2") == first


@pytest.mark.compiled
def test_compiled_training_repeats_in_fresh_processes():
    """Each process makes its program anew, without Inductor's caches; equal C++ gives the same library."""
    first, second = (lines("compiled", TORCHINDUCTOR_FORCE_DISABLE_CACHES="1", PYTHONHASHSEED=seed) for seed in "12")
    assert len(first) == 1
    assert first == second
