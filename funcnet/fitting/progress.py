"""Progress of a training: a bar on a terminal, else lines."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from funcnet.fitting.history import History


def shown(epochs: range, history: History, progress: bool) -> Iterable[int]:
    """Go through the epochs and show the history as it grows."""
    if not progress:
        return epochs
    bar = _bar(epochs) if sys.stderr.isatty() else None
    return _lines(epochs, history) if bar is None else _with_bar(bar, history)


def _bar(epochs: range) -> Any:
    try:
        from tqdm import tqdm  # type: ignore[import-untyped]
    except ImportError:
        return None
    return tqdm(epochs, unit="epoch")


def _with_bar(bar: Any, history: History) -> Iterator[int]:
    for epoch in bar:
        yield epoch
        bar.set_postfix(_last(history))


def _lines(epochs: range, history: History) -> Iterator[int]:
    stride = max(1, len(epochs) // 10)
    for epoch in epochs:
        yield epoch
        if (epoch - epochs.start) % stride == stride - 1 or epoch == epochs.stop - 1:
            words = " ".join(f"{name} {text}" for name, text in _last(history).items())
            print(f"epoch {epoch + 1}/{epochs.stop} {words}", file=sys.stderr)


def _last(history: History) -> dict[str, str]:
    shown = {name: column[-1] for name, column in history.items() if name not in ("epoch", "seconds")}
    return {name: f"{value:.4g}" for name, value in shown.items() if isinstance(value, float)}
