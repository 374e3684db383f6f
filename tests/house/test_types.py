"""Types for users: a type checker refuses wrong arguments, line by line, and accepts right ones.

mypy tries the lines of ``wrong_types.py`` here; pyright, which needs Node, in ``.ci/check_pyright.py``.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "house" / "wrong_types.py"
SHOWN = re.compile(r"wrong_types\.py:(\d+): error: .*\[([a-z-]+)\]$", re.MULTILINE)


def expected(source: str, checker: int) -> set[tuple[int, str]]:
    """Return the lines that must be refused, with the rule of a checker: 0 for mypy, 1 for pyright."""
    lines = enumerate(source.splitlines(), 1)
    return {(number, line.partition("  # E: ")[2].split()[checker]) for number, line in lines if "  # E: " in line}


@pytest.fixture(scope="module")
def refused() -> set[tuple[int, str]]:
    """Return the lines that mypy refuses; the cache in the folder of the repository serves ``mypy --strict funcnet`` too."""
    command = [sys.executable, "-m", "mypy", "--strict", str(CASES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return {(int(line), rule) for line, rule in SHOWN.findall(done.stdout)}


def test_mypy_refuses_the_wrong_lines_and_no_other(refused: set[tuple[int, str]]) -> None:
    """The line names the rule; several errors of one rule in a line count as one."""
    assert refused == expected(CASES.read_text(encoding="utf-8"), 0)


def test_the_cases_try_constructors_verbs_steps_and_own_classes() -> None:
    """A line without a mark must pass; each marked line has a rule for each checker."""
    source = CASES.read_text(encoding="utf-8")
    marks = re.findall(r"# E: (.*)", source)
    assert len(marks) >= 30
    assert all(re.fullmatch(r"[a-z-]+ report[A-Za-z]+", mark) for mark in marks)
    assert [part for part in ("fn.Linear(", "net.apply(", "opt.update(", "Doubled(") if f"\n{part}" not in source] == []
