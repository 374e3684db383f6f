"""The examples, run small: their output and pictures are checked."""

import importlib
import math
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments):
    """Run a script from the root as a user would, and return its output."""
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_here(monkeypatch, capsys, script, *arguments):
    """Run a script as a program in this process, without importing torch again, and return its output."""
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    runpy.run_path(str(ROOT / script), run_name="__main__")
    return capsys.readouterr().out


def test_the_quickstart_trains_both_nets_alike(tmp_path):
    """After two epochs both rows have the same scores and losses, the float64 gap is rounding, and the picture is saved."""
    out = run("examples/quickstart.py", "--epochs", "2", "--seed", "1", "--out", str(tmp_path))
    rows = {
        name: re.search(rf"^{re.escape(name)} +([\d.]+) +([\d.]+) +([\d.]+)", out, re.MULTILINE).groups()
        for name in ("funcnet", "torch.nn")
    }
    ours, theirs = ([float(number) for number in rows[name]] for name in ("funcnet", "torch.nn"))
    assert ours == pytest.approx(theirs, abs=2e-3)
    assert float(re.search(r"in float64: (\S+)", out).group(1)) < 1e-10
    assert (tmp_path / "quickstart.png").read_bytes().startswith(b"\x89PNG")


def test_the_benchmark_of_steps_prints_every_contender(monkeypatch, capsys):
    """One short round gives a row for each, with its fraction of torch.nn's time."""
    out = run_here(monkeypatch, capsys, "examples/benchmarks/steps.py", "--rounds", "1", "--steps", "3")
    for name in ("funcnet SGD", "funcnet SGD, donated", "funcnet Adam", "torch.nn SGD, fused", "torch.nn Adam, default"):
        assert re.search(rf"^{re.escape(name)} +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+$", out, re.MULTILINE)


def test_the_digits_are_learned(tmp_path, monkeypatch, capsys):
    """After two epochs the loss is below the loss of label frequencies, most test digits are right, and the picture is saved."""
    out = run_here(monkeypatch, capsys, "examples/digits.py", "--epochs", "2", "--out", str(tmp_path))
    assert float(re.search(r"training loss +\S+ -> (\S+)", out).group(1)) < math.log(10) / 2
    assert float(re.search(r"test accuracy +(\S+)", out).group(1)) > 0.9
    assert (tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")


def test_the_characters_are_learned(tmp_path, monkeypatch, capsys):
    """After forty steps on part of the text the held-out loss is below the unigram model's; sample and picture are saved."""
    characters = importlib.import_module("examples.characters")
    monkeypatch.setattr(characters, "text", characters.text[:60_000])
    monkeypatch.setattr(characters, "BATCH", 16)
    characters.main(["--steps", "40", "--sample", "20", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    losses = {
        name: float(re.search(rf"^{name} +held out +(\S+)", out, re.MULTILINE).group(1)) for name in ("transformer", "unigram")
    }
    assert losses["transformer"] < losses["unigram"]
    assert len((tmp_path / "characters.txt").read_text()) == len("The ") + 20 + 1
    assert (tmp_path / "characters.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("script", "option"), [("quickstart", "epochs"), ("digits", "epochs"), ("characters", "steps"), ("translation", "steps")]
)
def test_the_examples_have_help_and_refuse_to_do_nothing(script, option, capsys):
    """--help names the options, and 0 of them is a usage error."""
    main = importlib.import_module(f"examples.{script}").main
    for arguments, code in ((["--help"], 0), ([f"--{option}", "0"], 2)):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == code
    out, error = capsys.readouterr()
    assert f"--{option}" in out
    assert "--seed" in out
    assert f"--{option} must be at least 1, got 0" in error
