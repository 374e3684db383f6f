"""Helpers of the benchmark commands: the parser, readers that check arguments before measuring, and Ctrl-C."""

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

STOPPED = "Stopped by Ctrl-C: what follows was not measured."
"""The last line of an incomplete page."""


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Help that shows defaults which are numbers, words or paths."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        said = action.default is None or isinstance(action.default, bool | list)
        return action.help if said else super()._get_help_string(action)


def new_parser(name: str, doc: str | None) -> argparse.ArgumentParser:
    """Return a parser for ``python -m examples.benchmarks.NAME``, with the first paragraph of ``doc`` as help."""
    program = f"python -m examples.benchmarks.{name}".rstrip(".")
    return argparse.ArgumentParser(program, description=(doc or "").split("\n\n")[0], formatter_class=_Help)


class _Flat(argparse.Action):
    """Collect the names from all values; a value may contain several names."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        found = values if values is self.default else [name for names in values for name in names]
        setattr(namespace, self.dest, list(dict.fromkeys(found)))


def add_names(parser: argparse.ArgumentParser, what: str, names: Sequence[str], default: Sequence[str] | None = None) -> None:
    """Add names, separated by spaces or commas, to a command; ``what`` is the word for one of them."""
    by_default = "all by default" if default is None else f"{', '.join(default)} by default"
    default, about = list(names if default is None else default), f"of {', '.join(names)}; {by_default}"
    read = some_of(what, names)
    parser.add_argument(f"{what}s", nargs="*", action=_Flat, type=read, default=default, metavar=what, help=about)


def some_of(what: str, names: Sequence[str]) -> Callable[[str], list[str]]:
    """Return a reader of names separated by commas."""

    def read(text: str) -> list[str]:
        found = [name for name in text.split(",") if name]
        unknown = [name for name in found if name not in names]
        if unknown or not found:
            raise argparse.ArgumentTypeError(f"unknown {what} {(unknown or [text])[0]!r}; choose from {', '.join(names)}")
        return found

    return read


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text}")
    return int(text)


def counts(text: str) -> list[int]:
    """Read whole numbers of at least 1, separated by commas."""
    return [positive(one) for one in text.split(",")]


def duration(text: str) -> float:
    """Read a positive, finite number."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a positive number, got {text}")
    return number


def folder(text: str) -> Path:
    """Read a folder that can be written to; it may be missing, and is not created here."""
    path = Path(text)
    nearest = next(one for one in (path, *path.absolute().parents) if os.path.lexists(one))
    if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        raise argparse.ArgumentTypeError(f"must be a folder that can be written to, got {text}")
    return path


def file(text: str) -> Path:
    """Read a file that can be written to, in a folder that exists."""
    path = Path(text)
    writable = path if path.exists() else path.parent
    if path.is_dir() or not path.parent.is_dir() or not os.access(writable, os.W_OK):
        raise argparse.ArgumentTypeError(f"must be a file that can be written to, in a folder that exists, got {text}")
    return path


def printed(lines: Iterable[str]) -> list[str]:
    """Print lines as they come, and return them; Ctrl-C ends them with a final line."""
    kept: list[str] = []
    try:
        for line in lines:
            print(line, flush=True)
            kept.append(line)
    except KeyboardInterrupt:
        kept += ["", STOPPED]
        print(f"\n{STOPPED}", flush=True)
    return kept


def run_command(main: Callable[[], object]) -> None:
    """Run a command; Ctrl-C ends it with one line instead of a traceback, and with exit status 130."""
    try:
        main()
    except KeyboardInterrupt:
        print("\nStopped by Ctrl-C.", file=sys.stderr)
        raise SystemExit(130) from None
