"""All reports together: one page, the options passed on, and Ctrl-C."""

import importlib
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

reports = importlib.import_module("examples.reports.__main__")

Calls = list[tuple[str, list[str]]]


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Calls:
    """Replace five reports with fakes that record their calls and write a page with a figure."""
    calls: Calls = []

    def fake(name: str) -> Callable[[Sequence[str]], None]:
        def main(arguments: Sequence[str]) -> None:
            calls.append((name, list(arguments)))
            (tmp_path / name).mkdir(parents=True)
            (tmp_path / name / "figure.png").write_bytes(b"")
            (tmp_path / f"{name}.md").write_text(f"# Report {name}\n\nText # 1.\n\n![a figure]({name}/figure.png)\n")

        return main

    for name in reports.NAMES:
        monkeypatch.setitem(sys.modules, f"examples.reports.{name}", SimpleNamespace(main=fake(name)))
    return calls


@pytest.mark.parametrize("name", reports.NAMES)
def test_every_report_has_a_main(name: str) -> None:
    """The five modules exist."""
    assert callable(importlib.import_module(f"examples.reports.{name}").main)


def test_the_page_holds_every_report(fakes: Calls, tmp_path: Path) -> None:
    """The page contains all reports in order, one heading level down, and its links work from its own path."""
    page = reports.main(["--out", str(tmp_path)])
    text = page.read_text()
    assert re.findall(r"^#+ .*$", text, re.MULTILINE)[1:] == [f"## Report {name}" for name in reports.NAMES]
    assert [name for name, _ in fakes] == list(reports.NAMES)
    links = re.findall(r"\]\((.+?)\)", text)
    assert len(links) == len(reports.NAMES)
    assert all((page.parent / link).exists() for link in links)


def test_the_head_says_how_the_page_was_made(fakes: Calls, tmp_path: Path) -> None:
    """The head has the exact command, versions, processor, threads and date."""
    text = reports.main(["--out", str(tmp_path), "--only", "hotgrad", "--runs", "3"]).read_text()
    assert f"    python -m examples.reports --out {tmp_path} --only hotgrad --runs 3\n" in text
    assert re.search(r"Python 3\.\d+\.\d+, torch \d+\.\d+\.\d+\S*, funcnet \S+", text)
    assert re.search(rf"- {re.escape(reports.processor())}, \d+ threads?, device cpu\n- \d{{4}}-\d\d-\d\d\n", text)


def test_options_are_passed_on(fakes: Calls, tmp_path: Path) -> None:
    """Each report gets the given options, and keeps its own numbers of runs and epochs otherwise."""
    reports.main(["--only", "ten_folds", "pychrot", "--out", str(tmp_path), "--quick", "--epochs", "4"])
    reports.main(["--only", "hotgrad", "--out", str(tmp_path), "--runs", "2", "--seed", "5", "--device", "meta"])
    first = ["--epochs", "4", "--seed", "0", "--out", str(tmp_path), "--device", "cpu", "--quick"]
    assert fakes == [
        ("ten_folds", first),
        ("pychrot", first),
        ("hotgrad", ["--runs", "2", "--seed", "5", "--out", str(tmp_path), "--device", "meta"]),
    ]


def test_an_unknown_report_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The error lists the known ones."""
    with pytest.raises(SystemExit):
        reports.main(["--only", "hotgard"])
    assert "hotgrad" in capsys.readouterr().err


def interrupted_inside(arguments: Sequence[str]) -> None:
    """Act like a report: treat Ctrl-C as the end of its runs, and write its page."""
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        Path(arguments[arguments.index("--out") + 1], "ten_folds.md").write_text("# What has finished\n")


def interrupted_outside(arguments: Sequence[str]) -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("stop", "kept"),
    [(interrupted_inside, ["## Report pychrot", "## What has finished"]), (interrupted_outside, ["## Report pychrot"])],
    ids=["in its runs", "elsewhere"],
)
def test_ctrl_c_leaves_the_page_of_what_there_is(
    stop: Callable[[Sequence[str]], None], kept: list[str], fakes: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No further report starts, the page is written, and the handler of Ctrl-C is restored."""
    monkeypatch.setitem(sys.modules, "examples.reports.ten_folds", SimpleNamespace(main=stop))
    before = signal.getsignal(signal.SIGINT)
    text = reports.main(["--out", str(tmp_path)]).read_text()
    assert re.findall(r"^## .*$", text, re.MULTILINE) == kept
    assert [name for name, _ in fakes] == ["pychrot"]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("name", ["", *(f".{name}" for name in reports.NAMES)])
def test_help_begins_with_the_command(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The help has ``python -m`` and the module's name, without markup."""
    monkeypatch.setenv("COLUMNS", "120")
    module = importlib.import_module(f"examples.reports{name or '.__main__'}")
    with pytest.raises(SystemExit):
        module.main(["--help"])
    said = capsys.readouterr().out
    assert said.startswith(f"usage: python -m examples.reports{name} [-h]")
    assert "``" not in said
