"""Progress of training: a bar on a terminal, lines elsewhere, or a function called with each line."""

import sys
import time
from collections.abc import Callable
from typing import Any

from funcnet.errors import describe, value_error
from funcnet.fitting.history import History

Write = Callable[[str], object]
Shown = bool | str | Write
"""The type of ``fit``'s argument ``progress``."""

_LINES = 10
_SHORTEST = 10.0
"""Remaining seconds below which lines do not mention the time."""


class Progress:
    """Show the progress of training; this base class shows nothing.

    ::

        with Progress.of(True, range(3, 5), steps=100) as shown:
            shown.message("continues at epoch 4")
            ...
                shown.step()          after each batch: 0.05 µs, with a bar 0.5 µs
            shown.epoch(history)      after each epoch
    """

    @staticmethod
    def of(progress: Shown, epochs: range, steps: int | None = None, done: int = 0, who: str = "fit") -> "Progress":
        """Return the progress display for a range of epochs.

        Args:
            progress: ``True`` for a bar if standard error is a terminal and tqdm is installed, else about ten lines;
                ``"bar"`` or ``"lines"``; a function of a line of text, called after each epoch; or ``False``.
            epochs: The epochs to come, counted from 0.
            steps: Number of batches in an epoch if known; a bar then advances with each batch.
            done: Number of batches already done in the first epoch.
            who: The name of the function in errors.

        Raises:
            ValueError: If ``progress`` has another value.
            ImportError: If ``progress`` is ``"bar"`` and tqdm is not installed.
        """
        require_progress(progress, who)
        if progress is False:
            return Progress()
        if callable(progress) or not epochs:  # without epochs there can still be a message, which needs no bar
            return _Lines(epochs, progress if callable(progress) else _print, 1)
        bar = _tqdm() if progress == "bar" or (progress is True and sys.stderr.isatty()) else None
        if bar is None and progress == "bar":
            raise ImportError(f"{who}: tqdm must be installed for progress='bar'; pip install tqdm installs it")
        return _Lines(epochs, _print, max(1, len(epochs) // _LINES)) if bar is None else _Bar(bar, epochs, steps, done)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def step(self) -> None:
        """Count a batch."""

    def epoch(self, history: History) -> None:
        """Count an epoch, and show its row of the history."""

    def message(self, text: str) -> None:
        """Show a line of text."""

    def close(self) -> None:
        """End the display; an interrupted bar stays at its position."""


def require_progress(progress: object, who: str = "fit") -> None:
    """Raise ``ValueError`` for an invalid ``progress``."""
    is_word = isinstance(progress, str) and progress in ("bar", "lines")
    if not is_word and not isinstance(progress, bool) and not callable(progress):
        rule = "progress must be True, False, 'bar', 'lines' or a function of a line of text"
        raise value_error(who, rule, repr(progress) if isinstance(progress, str) else describe(progress))


def _tqdm() -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm


class _Lines(Progress):
    """Write a line after every ``stride`` epochs, and after the last."""

    def __init__(self, epochs: range, write: Write, stride: int) -> None:
        self.epochs, self.write, self.stride = epochs, write, stride
        self.done, self.began = 0, time.monotonic()

    def epoch(self, history: History) -> None:
        self.done += 1
        if self.done % self.stride == 0 or self.done == len(self.epochs):
            words = " ".join(f"{name} {text}" for name, text in _last(history).items())
            self.write(f"epoch {self.epochs.start + self.done}/{self.epochs.stop} {words}{self._left()}")

    def _left(self) -> str:
        each = (time.monotonic() - self.began) / self.done
        return time_left(each * (len(self.epochs) - self.done))

    def message(self, text: str) -> None:
        self.write(text)


def time_left(seconds: float) -> str:
    """Format the time left if it is 10 s or more.

    >>> [time_left(seconds) for seconds in (5.0, 42.0, 600.0, 9000.0)]
    ['', ', 42 s left', ', 10 min left', ', 2.5 h left']
    """
    if seconds < _SHORTEST:
        return ""
    for unit, length in (("s", 1), ("min", 60)):
        if seconds < 90 * length:
            return f", {seconds / length:.0f} {unit} left"
    return f", {seconds / 3600:.1f} h left"


def _print(text: str) -> None:
    print(text, file=sys.stderr)


class _Bar(Progress):
    """Advance a tqdm bar with each batch if their number is known, else with each epoch."""

    def __init__(self, tqdm: Any, epochs: range, steps: int | None, done: int) -> None:
        self.epochs, self.steps, self.now = epochs, steps, epochs.start
        first, total = (epochs.start, epochs.stop) if steps is None else (epochs.start * steps + done, epochs.stop * steps)
        unit = "epoch" if steps is None else "step"
        self.bar = tqdm(initial=first, total=total, unit=unit, desc=self._title(), file=sys.stderr, dynamic_ncols=True)

    def _title(self) -> str | None:
        return None if self.steps is None else f"epoch {min(self.now + 1, self.epochs.stop)}/{self.epochs.stop}"

    def step(self) -> None:
        if self.steps is not None:
            self.bar.update()

    def epoch(self, history: History) -> None:
        self.now += 1
        self.bar.set_postfix(_last(history), refresh=False)  # tqdm draws ten times a second, and at the end
        self.bar.set_description_str(self._title(), refresh=False)
        self.bar.update(self.now * (self.steps or 1) - self.bar.n)

    def message(self, text: str) -> None:
        self.bar.write(text, file=sys.stderr)

    def close(self) -> None:
        self.bar.close()


def _last(history: History) -> dict[str, str]:
    """Format the numeric columns of the last epoch, without its number and time."""
    last = {name: column[-1] for name, column in history.items() if column and name not in ("epoch", "seconds")}
    return {name: f"{value:.4g}" for name, value in last.items() if isinstance(value, (int, float))}
