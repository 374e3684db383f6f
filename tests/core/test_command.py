"""``python -m funcnet``: versions, choices, and the laws of a sample of layers, with an exit status that scripts can read."""

import platform
import subprocess
import sys

import pytest
import torch

import funcnet as fn
from funcnet import __main__ as command
from funcnet.kernels.choices import CHOICES
from funcnet.kernels.processor import this_processor

SOFTMAX = {"Softmax": (fn.Softmax(), (2, 3))}


@pytest.fixture
def small_sample(monkeypatch: pytest.MonkeyPatch):
    """Replace the sample by one layer."""
    monkeypatch.setattr(command, "SAMPLE", dict(SOFTMAX))


def test_the_command_prints_versions_and_every_choice():
    """The output has the versions, the processor, and a line for each choice with the option in use."""
    done = subprocess.run([sys.executable, "-m", "funcnet", "--no-check"], capture_output=True, text=True, check=True)
    versions, processor, *rest = done.stdout.splitlines()
    assert versions.startswith(f"funcnet {fn.__version__}, torch {torch.__version__}, Python {platform.python_version()}, ")
    assert versions.endswith((" threads", " 1 thread"))
    assert eval(processor, {"Processor": fn.kernels.Processor}) == this_processor()
    _, head, *rows, empty, names = rest[torch.cuda.device_count() :]
    assert empty == ""
    assert names == command.names()
    assert head.split() == ["choice", "here", "options"]
    assert [row.split("  ")[0] for row in rows] == sorted(CHOICES)
    assert all(CHOICES[name].describe(CHOICES[name].automatic) in row for name, row in zip(sorted(CHOICES), rows, strict=True))


def test_missing_private_names_are_listed(monkeypatch: pytest.MonkeyPatch):
    """Their replacements are listed too; if no name is missing, only the number is printed."""
    monkeypatch.setattr(command, "FOUND", {"_a": True, "_b": True})
    assert command.names() == "private names of torch: all 2 found"
    monkeypatch.setattr(command, "FOUND", {"_a": False, "_c": False, "_b": True})
    assert command.names() == "private names of torch: 1 of 3 found; plain code replaces _a, _c"


def test_laws_that_hold(small_sample, capsys: pytest.CaptureFixture[str]):
    """The command prints a line for each layer, and exits with status 0."""
    assert command.main([]) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == ["laws of 1 layers", "Softmax             hold", "All laws hold."]


def test_a_law_that_is_broken(small_sample, capsys: pytest.CaptureFixture[str]):
    """The command prints the number and name of the law, or the error that is raised instead, and exits with status 1."""
    wrong = fn.layer(apply=lambda params, x: (2 * x, None), vjp=lambda params, cache, gy: (params, gy))
    raising = fn.layer(apply=lambda params, x: 1 / 0, vjp=lambda params, cache, gy: (params, gy))
    command.SAMPLE.update({"wrong": (wrong, (2, 3)), "raising": (raising, (2, 3))})
    assert command.main([]) == 1
    _, broken, raised, last = capsys.readouterr().out.splitlines()[-4:]
    assert broken.startswith("wrong               law ")
    assert "transpose" in broken
    assert raised.startswith("raising             ")
    assert "ZeroDivisionError" in raised
    assert last == "2 of 3 layers break a law"


@pytest.mark.parametrize("name", command.SAMPLE)
def test_layers_of_the_sample_take_their_inputs(name: str):
    """A layer that refuses its input would count as one that breaks a law."""
    layer, shape = command.SAMPLE[name]
    y, _ = layer.apply(layer.init(0), fn.random.normal(0, shape), 0)
    assert all(leaf.isfinite().all() for leaf in fn.tree.leaves(y))


def test_unknown_arguments_are_refused(capsys: pytest.CaptureFixture[str]):
    """The error names the command."""
    with pytest.raises(SystemExit):
        command.main(["--chekc"])
    assert "python -m funcnet: error: unrecognized arguments: --chekc" in capsys.readouterr().err
