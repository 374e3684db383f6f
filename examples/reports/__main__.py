"""Run all five reports, and write one page with all their tables and figures: ``RESULTS.md`` in the folder --out.

The page in the repository, examples/reports/results/RESULTS.md, was made by the command at its head. Finished runs are kept in
--out, so that a stopped call can be continued; after Ctrl-C the page has the results so far.

    python -m examples.reports --out out
    python -m examples.reports --only hotgrad twenty_runs --quick
"""

import argparse
import datetime
import importlib
import importlib.metadata
import platform
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from examples.reports.paper import parser

NAMES = ("pychrot", "ten_folds", "hotgrad", "eighteen_networks", "twenty_runs")


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line: the options of every report, and which reports to run."""
    new = parser("examples.reports", __doc__, "own number", runs=None)
    which = f"the reports to run, of {', '.join(NAMES)} (all)"
    new.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME", help=which)
    return new.parse_args(arguments)


def passed_on(options: argparse.Namespace) -> list[str]:
    """Return the arguments for a single report, without options that are not given."""
    given = {flag: getattr(options, flag) for flag in ("epochs", "runs", "seed", "out", "device")}
    words = [word for flag, value in given.items() if value is not None for word in (f"--{flag}", str(value))]
    return [*words, *["--quick"] * options.quick]


class Interrupts:
    """Records whether Ctrl-C was pressed; during a report it ends only the runs of that report."""

    def __init__(self) -> None:
        """Start to listen."""
        self.pressed = False
        self.before = signal.signal(signal.SIGINT, self.press)

    def press(self, number: int, frame: Any) -> None:
        """Record the interrupt, and handle it as usual."""
        self.pressed = True
        raise KeyboardInterrupt

    def stop_listening(self) -> None:
        """Restore the old handler."""
        signal.signal(signal.SIGINT, self.before)


def run(names: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """Run reports until Ctrl-C, and return the names of those that have a page."""
    interrupts, done = Interrupts(), []
    try:
        for name in names:
            importlib.import_module(f"examples.reports.{name}").main(arguments)
            done.append(name)
            if interrupts.pressed:
                break
    except KeyboardInterrupt:
        print(f"\nstopped; the page has {len(done)} of {len(names)} reports")
    finally:
        interrupts.stop_listening()
    return done


def processor() -> str:
    """Return the name of the processor, if the system reports it."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def version() -> str:
    """Return funcnet's version, or a description if the source tree is not installed."""
    try:
        return importlib.metadata.version("funcnet")
    except importlib.metadata.PackageNotFoundError:
        return "of this source tree"


def head(arguments: Sequence[str], options: argparse.Namespace) -> str:
    """Return the head of the page: command, versions, machine and date."""
    threads = torch.get_num_threads()
    lines = [
        "# The five reports, rerun",
        "",
        f"    {shlex.join(['python', '-m', 'examples.reports', *arguments])}",
        "",
        f"- Python {platform.python_version()}, torch {torch.__version__}, funcnet {version()}",
        f"- {processor()}, {threads} thread{'s' * (threads > 1)}, device {options.device}",
        f"- {datetime.datetime.now(datetime.UTC).date().isoformat()}",
        "",
        "The columns funcnet and torch.nn were measured by this command, or by a call that it continues; the column report has",
        "the printed figures. Both frameworks start from the same weights and see the same batches in the same order.",
    ]
    return "\n".join(lines)


def gathered(folder: Path, names: Sequence[str]) -> list[str]:
    """Return the reports' pages, with their headings one level down."""
    return [re.sub(r"^#", "##", (folder / f"{name}.md").read_text(), flags=re.MULTILINE).strip() for name in names]


def main(arguments: Sequence[str] | None = None) -> Path:
    """Run the reports and write the page."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = options_of(arguments)
    done = run(options.only, passed_on(options))
    options.out.mkdir(parents=True, exist_ok=True)
    page: Path = options.out / "RESULTS.md"
    page.write_text("\n\n".join([head(arguments, options), *gathered(options.out, done)]) + "\n")
    print(f"\n{page}")
    return page


if __name__ == "__main__":
    main()
