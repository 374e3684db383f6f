"""Progress: lines, bars and functions, with the numbers of the last epoch; and the values of the argument."""

import io
import sys

import numpy
import pytest
import torch

import funcnet as fn
from funcnet.fitting.progress import Progress

NET = fn.Linear(2, 3)
DATA = fn.random.normal(0, (20, 2)), torch.arange(20) % 3


def fit(progress, **options):
    """Train for two epochs of three batches."""
    options = {"epochs": 2, "batch_size": 7, "key": 0, **options}
    return fn.fit(NET, fn.CrossEntropy(), fn.SGD(0.1), DATA, progress=progress, **options)


def run(progress, epochs, steps=None, done=0, taken=None):
    """Go through some epochs as in a training."""
    history = fn.History()
    with Progress.of(progress, epochs, steps, done) as shown:
        for i in epochs:
            for _ in range((steps or 1) - done if taken is None else taken):
                shown.step()
            done = 0
            history.append({"epoch": i + 1, "loss": 0.25, "seconds": 9.0, "hits": 3, "f1": None, "matrix": torch.eye(2)})
            shown.epoch(history)
    return history


def test_a_function_gets_a_line_after_each_epoch(capsys):
    """Nothing is printed, and fit raises errors of the function."""
    lines = []
    history = fit(lines.append, epochs=30, metrics=[fn.accuracy]).history
    assert capsys.readouterr().err == ""
    assert [line.partition(",")[0] for line in lines] == [
        f"epoch {i}/30 loss {loss:.4g} accuracy {share:.4g}"
        for i, loss, share in zip(history["epoch"], history["loss"], history["accuracy"], strict=True)
    ]

    def fail(line):
        raise KeyError(line)

    with pytest.raises(KeyError, match="epoch 1/2 loss"):
        fit(fail)


def test_lines_have_numbers_only_and_count_from_the_first_run(capsys):
    """Tensors and missing values are left out of a line; a run of many epochs writes about ten lines."""
    run("lines", range(3, 5))
    assert capsys.readouterr().err.splitlines() == ["epoch 4/5 loss 0.25 hits 3", "epoch 5/5 loss 0.25 hits 3"]
    run("lines", range(995))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == [*[f"{99 * i}/995" for i in range(1, 11)], "995/995"]


def test_lines_say_how_long_the_others_take(capsys, monkeypatch):
    """The estimate uses the time of finished epochs, and appears if it is more than a few seconds."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    history = fn.History({"epoch": [1], "loss": [0.5]})
    with Progress.of("lines", range(4)) as shown:
        for _ in range(4):
            now[0] += 15.0
            shown.epoch(history)
    assert [line.partition(", ")[2] for line in capsys.readouterr().err.splitlines()] == [
        "45 s left",
        "30 s left",
        "15 s left",
        "",
    ]


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self):
        """Return True."""
        return True


def on(stream, monkeypatch):
    """Replace the standard error stream, and return the stream."""
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_a_bar_moves_with_each_batch_where_their_number_is_known(monkeypatch):
    """The bar starts where a training continues and ends with the last epoch; otherwise it moves with each epoch."""
    terminal = on(Terminal(), monkeypatch)
    run(True, range(3, 5), steps=100, done=60)
    frames = terminal.getvalue().split("\r")
    assert any("epoch 4/5:  72%" in frame and "360/500" in frame for frame in frames)
    assert "epoch 5/5: 100%" in frames[-1]
    assert "500/500" in frames[-1]
    assert "loss=0.25, hits=3]" in frames[-1]
    terminal.truncate(0)
    run(True, range(3, 5))
    assert "5/5" in terminal.getvalue().split("\r")[-1]
    assert "500" not in terminal.getvalue()


def test_a_bar_is_right_at_the_end_of_an_epoch_of_another_length(monkeypatch):
    """An iterable may return more or fewer batches than it announced."""
    terminal = on(Terminal(), monkeypatch)
    for taken in (5, 20):
        terminal.truncate(0)
        run(True, range(2), steps=10, taken=taken)
        assert "epoch 2/2: 100%" in terminal.getvalue().split("\r")[-1]
        assert "20/20" in terminal.getvalue().split("\r")[-1]


def test_an_interrupted_bar_is_closed(monkeypatch):
    """Its last frame stays with the batches taken so far, and the next line starts separately."""
    terminal = on(Terminal(), monkeypatch)

    def interrupt(y, target):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(True, metrics=[interrupt])
    assert "| 3/6 [" in terminal.getvalue().split("\r")[-1]
    assert terminal.getvalue().endswith("\n")


def test_a_message_is_a_separate_line(monkeypatch):
    """The message is above a bar, among lines, or passed to a function; without progress there is none."""
    terminal = on(Terminal(), monkeypatch)
    lines = []
    for progress in (True, "lines", lines.append, False):
        with Progress.of(progress, range(1), 10) as shown:
            shown.message("continues at epoch 1")
            shown.step()
    assert terminal.getvalue().replace("\r", "\n").splitlines().count("continues at epoch 1") == 2
    assert lines == ["continues at epoch 1"]


def test_each_kind_of_progress_can_be_requested(monkeypatch):
    """Lines may be chosen on a terminal, a bar elsewhere; without tqdm, a requested bar is an error, an automatic one lines."""
    terminal = on(Terminal(), monkeypatch)
    fit("lines")
    assert terminal.getvalue().startswith("epoch 1/2 loss ")
    stream = on(io.StringIO(), monkeypatch)
    fit("bar")
    assert "epoch 2/2: 100%" in stream.getvalue()
    terminal = on(Terminal(), monkeypatch)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    fit(True)
    assert terminal.getvalue().startswith("epoch 1/2 loss ")
    with pytest.raises(ImportError, match="fit: tqdm must be installed for progress='bar'; pip install tqdm installs it"):
        fit("bar")


def test_nothing_is_shown_of_no_epochs(monkeypatch):
    """Every kind of progress is tried."""
    terminal = on(Terminal(), monkeypatch)
    lines = []
    for progress in (True, "bar", "lines", lines.append, False):
        run(progress, range(4, 4), steps=10)
    assert terminal.getvalue() == ""
    assert lines == []


@pytest.mark.parametrize("progress", [None, 1, "bars", torch.tensor(True), numpy.ones(2), ["lines"]], ids=repr)
def test_another_progress_is_refused(progress):
    """The error precedes any training."""
    rule = "fit: progress must be True, False, 'bar', 'lines' or a function of a line of text, got "
    with pytest.raises(ValueError, match=rf"^{rule}"):
        fit(progress)
