"""Types for users: a type checker rejects wrong arguments, line by line, and accepts correct ones.

mypy checks the lines of ``wrong_types.py`` here, and pyright, which needs Node, in ``.ci/check_pyright.py``.
"""

import ast
import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import attrs
import pytest

import funcnet as fn

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "house" / "wrong_types.py"
SHOWN = re.compile(r"wrong_types\.py:(\d+): error: .*\[([a-z-]+)\]$", re.MULTILINE)


def expected(source: str, checker: int) -> set[tuple[int, str]]:
    """Return the lines that must be rejected, with the rule of a checker: 0 for mypy, 1 for pyright."""
    lines = enumerate(source.splitlines(), 1)
    return {(number, line.partition("  # E: ")[2].split()[checker]) for number, line in lines if "  # E: " in line}


@pytest.fixture(scope="module")
def refused() -> set[tuple[int, str]]:
    """Return the lines that mypy rejects; the cache in the folder of the repository serves ``mypy --strict funcnet`` too."""
    command = [sys.executable, "-m", "mypy", "--strict", str(CASES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return {(int(line), rule) for line, rule in SHOWN.findall(done.stdout)}


def test_mypy_refuses_the_wrong_lines_and_no_other(refused: set[tuple[int, str]]) -> None:
    """Each line names the rule; several errors of one rule on a line count as one."""
    assert refused == expected(CASES.read_text(encoding="utf-8"), 0)


def test_the_cases_try_constructors_verbs_steps_and_own_classes() -> None:
    """A line without a mark must pass; each marked line has a rule for each checker."""
    source = CASES.read_text(encoding="utf-8")
    marks = re.findall(r"# E: (.*)", source)
    assert len(marks) >= 30
    assert all(re.fullmatch(r"[a-z-]+ report[A-Za-z]+", mark) for mark in marks)
    assert [part for part in ("fn.Linear(", "net.apply(", "opt.update(", "Doubled(") if f"\n{part}" not in source] == []


CLASSES = {name: one for name in fn.__all__ if isinstance(one := getattr(fn, name), type) and attrs.has(one)}


def order_for_checkers(cls: type) -> list[str]:
    """Return the fields in the order in which a type checker takes them: that of the first class that has each."""
    written = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    inits = [node for node in ast.walk(written) if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    if inits:
        return [one.arg for one in [*inits[0].args.args[1:], *inits[0].args.kwonlyargs]]
    own = [one.name for base in reversed(cls.__mro__) if attrs.has(base) for one in attrs.fields(base) if not one.inherited]
    takes = {one.name for one in attrs.fields(cls) if one.init}
    return [name for name in dict.fromkeys(own) if name in takes]


@pytest.mark.parametrize("name", CLASSES)
def test_a_type_checker_sees_the_order_of_the_arguments(name: str) -> None:
    """A class that repeats inherited fields elsewhere needs an ``__init__`` for type checkers."""
    assert order_for_checkers(CLASSES[name]) == [one.name for one in attrs.fields(CLASSES[name]) if one.init]


@pytest.mark.parametrize("name", [name for name, one in CLASSES.items() if "    if TYPE_CHECKING:" in inspect.getsource(one)])
def test_a_type_checker_sees_the_defaults(name: str) -> None:
    """The ``__init__`` for type checkers repeats the defaults of the fields; ``...`` is a default that a function makes."""
    (init,) = [node for node in ast.walk(ast.parse(inspect.getsource(CLASSES[name]))) if getattr(node, "name", "") == "__init__"]
    arguments = init.args.args[1:][-len(init.args.defaults) :] + init.args.kwonlyargs
    defaults = [None if one is None else ast.literal_eval(one) for one in [*init.args.defaults, *init.args.kw_defaults]]
    fields = attrs.fields_dict(CLASSES[name])
    assert len(arguments) == len(defaults)
    for one, default in zip(arguments, defaults, strict=True):
        assert default is ... or fields[one.arg].default == default, one.arg
