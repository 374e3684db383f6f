"""Commands of the benchmarks: their help, arguments that are refused before measuring, and Ctrl-C."""

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from examples.benchmarks import command
from examples.benchmarks.kernels import rows

FOLDER = Path(command.__file__).parent
COMMANDS = sorted(
    str(path.relative_to(FOLDER).with_suffix("")).replace("/", ".").removesuffix(".__main__").replace("__main__", "")
    for path in FOLDER.rglob("*.py")
    if "run_command(main)" in path.read_text()
)


def main_of(name: str):
    """Return the function of a command, by its name below ``examples.benchmarks``."""
    module = f"examples.benchmarks.{name}".rstrip(".")
    is_package = not name or (FOLDER / name).is_dir()
    return importlib.import_module(f"{module}.__main__" if is_package else module).main


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_the_command(name: str, capsys: pytest.CaptureFixture[str]):
    """The help begins with the typed command, describes it, and measures nothing; no default is a list or None."""
    with pytest.raises(SystemExit) as ended:
        main_of(name)(["--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert said.startswith(f"usage: python -m examples.benchmarks{'.' * bool(name)}{name} [-h]")
    assert "default: [" not in said
    assert "None" not in said


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        ("", "--turn 0", "argument --turn: must be a positive number, got 0"),
        ("", "--threads 1,0", "argument --threads: must be a whole number of at least 1, got 0"),
        ("", "--peers ,", "argument --peers: unknown peer ','; choose from nn, nn-compile, jax, thinc"),
        ("", "disk_mlp --out /dev/null/x", "argument --out: must be a folder that can be written to, got /dev/null/x"),
        ("", "--json /missing/x", "must be a file that can be written to, in a folder that exists, got /missing/x"),
        ("kernels", "--turn -1", "argument --turn: must be a positive number, got -1"),
        ("kernels", "--family foo", "argument --family: unknown family 'foo'; choose from conv, pool"),
        ("kernels", "--out /dev/null", "argument --out: must be a folder that can be written to, got /dev/null"),
        ("half_precision", "disk_mpl", "argument workload: unknown workload 'disk_mpl'; choose from disk_mlp"),
        ("half_precision", "--page /", "argument --page: must be a file that can be written to"),
        ("compile_time", "--size 0", "argument --size: must be a whole number of at least 1, got 0"),
        ("budget", "lenet", "argument net: unknown net 'lenet'; choose from disk_mlp, mlp_adam, pychrot"),
        ("budget", "--rounds 0", "argument --rounds: must be a whole number of at least 1, got 0"),
        ("distributed", "disk_mpl", "argument workload: unknown workload 'disk_mpl'"),
        ("faults", "lstm,foo", "argument workload: unknown workload 'foo'"),
        ("optimizers", "--threads 0", "argument --threads: must be a whole number of at least 1, got 0"),
        ("steps", "--steps ²", "argument --steps: must be a whole number of at least 1, got ²"),
    ],
)
def test_wrong_arguments_are_refused(name: str, arguments: str, problem: str, capsys: pytest.CaptureFixture[str]):
    """The error has the rule and the value."""
    with pytest.raises(SystemExit) as ended:
        main_of(name)(arguments.split())
    assert ended.value.code == 2
    assert problem in capsys.readouterr().err


def test_a_folder_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The folder may exist, or would have to be created in one without permission."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    for path in (tmp_path, tmp_path / "new" / "one"):
        with pytest.raises(command.argparse.ArgumentTypeError, match="must be a folder that can be written to"):
            command.folder(str(path))
    with pytest.raises(command.argparse.ArgumentTypeError, match="must be a file that can be written to"):
        command.file(str(tmp_path / "page.md"))


def test_names_come_with_commas_or_spaces():
    """Each counts once, and without any the default is kept."""
    parser = command.new_parser("x", __doc__)
    command.add_names(parser, "net", ("a", "b", "c"), ("a", "b"))
    given = [[], ["c"], ["a,c", "b", "c"]]
    assert [parser.parse_args(one).nets for one in given] == [["a", "b"], ["c"], ["a", "c", "b"]]


def test_ctrl_c_ends_a_table_with_a_line(capsys: pytest.CaptureFixture[str]):
    """The lines before it are kept, including those of the interrupted family."""

    def stopped():
        raise KeyboardInterrupt

    one = rows.Row("one", lambda: {"funcnet": lambda: None})
    lines = command.printed(rows.table([one, rows.Row("two", stopped), one], rounds=1, turn=1e-4))
    assert [line.split("|")[1].strip() for line in lines[:3]] == ["µs a call", "---", "one"]
    assert lines[3:] == ["", command.STOPPED]
    assert capsys.readouterr().out.rstrip().endswith(command.STOPPED)
    assert command.printed(rows.table([rows.Row("two", stopped)], rounds=1, turn=1e-4)) == ["", command.STOPPED]


def test_ctrl_c_ends_a_command_without_a_traceback():
    """An interrupted process prints one line, and exits with the status for SIGINT."""
    code = (
        "import signal, time; from examples.benchmarks.command import run_command; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "  # a shell's background jobs ignore SIGINT
        "run_command(lambda: [print(1, flush=True), time.sleep(60)])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "1\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=300)[1].strip() == "Stopped by Ctrl-C."
    assert process.returncode == 130
