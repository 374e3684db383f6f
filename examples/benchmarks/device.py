"""funcnet on a GPU: laws, random bits, and train steps beside torch.nn; writes one JSON file and one page.

    python -m examples.benchmarks.device --out FOLDER --device cuda --minutes 8

Each section has a share of the time, and both files are updated after each section, so that there is always a page. The page also
mentions contenders that took too long, failures and Ctrl-C. With ``--device cpu`` the same code runs without CUDA graphs and
TF32.
"""

import argparse
import datetime
import json
import platform
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from examples.benchmarks import device_checks, device_steps
from examples.benchmarks.command import duration, folder, new_parser, positive, run_command, some_of
from examples.benchmarks.device_time import Budget
from examples.benchmarks.workloads import WORKLOADS
from examples.reports.__main__ import processor

STEPS = 0.65
"""The steps' share of the time; laws have the rest."""

Found = dict[str, Any]


def device_of(text: str) -> torch.device:
    """Read the CPU or an existing CUDA device."""
    try:
        device = torch.device(text)
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"must be cpu, cuda or cuda:<number>, got {text}") from None
    if device.type not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"must be cpu, cuda or cuda:<number>, got {text}")
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise argparse.ArgumentTypeError(
            f"must be one of the {count} CUDA devices that torch finds, got {text}; cpu always works"
        )
    return device


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    new = new_parser("device", __doc__)
    names = tuple(WORKLOADS)
    new.add_argument("--out", type=folder, default="out/device", help="folder for DEVICE.md and device.json")
    new.add_argument(
        "--device", type=device_of, default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda or cuda:<number>"
    )
    new.add_argument("--minutes", type=duration, default=8.0, help="time limit in minutes")
    new.add_argument(
        "--workloads", type=some_of("workload", names), default=list(names), help=f"of {', '.join(names)}; all by default"
    )
    new.add_argument("--rounds", type=positive, default=12, help="number of turns of each contender")
    new.add_argument("--turn", type=duration, default=0.03, help="approximate seconds per turn")
    new.add_argument("--cases", type=positive, help="number of cases of the catalogue to try; all by default, as time permits")
    return new.parse_args(arguments)


def facts(device: torch.device, arguments: Sequence[str]) -> Found:
    """Return the versions and the machine."""
    known: Found = {
        "command": shlex.join(["python", "-m", "examples.benchmarks.device", *arguments]),
        "device": processor(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    if device.type == "cuda":
        one = torch.cuda.get_device_properties(device)
        gpu = f"{one.name}, {one.total_memory / 2**30:.0f} GiB, {one.multi_processor_count} multiprocessors"
        known |= {"device": gpu, "processor": processor(), "CUDA": torch.version.cuda, "capability": f"{one.major}.{one.minor}"}
    return known


def run(options: argparse.Namespace, found: Found, save: Callable[[], None]) -> None:
    """Run all sections, each in its share of the time."""
    whole = Budget(60 * options.minutes)
    with_notes(found, "keys", lambda: found.update(keys=device_checks.key_faults(options.device)))
    save()
    steps = Budget(STEPS * whole.left)
    for i, name in enumerate(options.workloads):
        share = Budget(steps.left / (len(options.workloads) - i))
        with_notes(found, name, partial(_add_steps, found, name, share, options))
        save()
    with_notes(found, "laws", lambda: found.update(laws=device_checks.laws(options.device, whole, options.cases)))
    save()


def _add_steps(found: Found, name: str, share: Budget, options: argparse.Namespace) -> None:
    found["steps"].append(_steps(name, share, options))


def _steps(name: str, share: Budget, options: argparse.Namespace) -> Found:
    return device_steps.measured(WORKLOADS[name], options.device, share, options.rounds, options.turn)


def with_notes(found: Found, name: str, section: Callable[[], Any]) -> None:
    """Run a section; an error or Ctrl-C ends it with a note, and Ctrl-C is raised again."""
    try:
        section()
    except KeyboardInterrupt:
        found["notes"].append(f"{name}: stopped by Ctrl-C; what follows was not measured")
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        found["notes"].append(
            f"{name}: {type(error).__name__}: {str(error)[:400]} (line {last.lineno} of {Path(last.filename).name})"
        )


def page(found: Found) -> Iterator[str]:
    """Yield the lines of the page."""
    known = found["facts"]
    yield f"# funcnet on {known['device']}"
    yield ""
    yield f"    {known['command']}"
    yield ""
    yield "- " + ", ".join(f"{name} {value}" for name, value in known.items() if name not in ("command", "device"))
    if "CUDA" not in known:
        yield "- This is not a GPU: CUDA graphs and TF32 are left out."
    yield '- `graphs` replays CUDA graphs (`fn.compile`; `mode="reduce-overhead"`), `launched` compiles without them.'
    yield "- bfloat16 is `fn.cast` and `torch.autocast`. Float32 does not use TF32, in convolutions either."
    yield from [f"- {note}" for note in found["notes"]]
    for result in found["steps"]:
        yield from _table(result)
    yield from _keys(found.get("keys"))
    yield from _laws(found.get("laws"))


def _table(result: Found) -> Iterator[str]:
    yield from ("", f"## {result['workload']}", "", WORKLOADS[result["workload"]].about, "")
    theirs = [row["median"] for row in result["rows"] if row["family"] == "torch.nn"]
    eager = [row["median"] for row in result["rows"] if row["label"].startswith("torch.nn eager") and row["family"] == "torch.nn"]
    yield "| contender | µs a step | quartiles | ÷ best eager torch.nn | ÷ best torch.nn in float32 | peak MB | loss after 10 |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for row in result["rows"]:
        shares = [f"{row['median'] / min(times):.2f}" if times else "-" for times in (eager, theirs)]
        loss = "-" if row["loss"] is None else f"{row['loss']:.4f}"
        quartiles = f"{row['low']:.0f}-{row['high']:.0f}"
        yield f"| {row['label']} | {row['median']:.0f} | {quartiles} | {shares[0]} | {shares[1]} | {row['memory']:.1f} | {loss} |"
    yield from ["", *[f"- {note}" for note in result["notes"]]]


def _keys(faults: list[Found] | None) -> Iterator[str]:
    yield from ("", "## Random bits", "")
    if faults is None:
        yield "Not tried."
        return
    draws = ", ".join(device_checks.DRAWS)
    yield f"{'All' if not faults else 'Not all'} draws have the same bits as in main memory: {draws}."
    yield from ["", *[f"- {one['draw']}, seed {one['seed']}: {one['fault']}" for one in faults]]


def _laws(found: Found | None) -> Iterator[str]:
    yield from ("", "## Laws", "")
    if found is None:
        yield "Not tried."
        return
    tried = " and ".join(f"{count} in {kind}" for kind, count in found["tried"].items())
    yield f"Of {found['cases']} cases, tried {tried or 'none'}; {len(found['failures'])} laws failed."
    yield from ["", *[f"- {note}" for note in found["notes"]]]
    yield from [f"- {one['case']}, {one['dtype']}, {one['law']}: {one['message']}" for one in found["failures"]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and check, and update the page and the file as results come."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = options_of(arguments)
    if options.device.type == "cpu":
        torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    found: Found = {"facts": facts(options.device, arguments), "steps": [], "notes": []}

    def save() -> None:
        (options.out / "device.json").write_text(json.dumps(found, indent=1, default=str) + "\n")
        (options.out / "DEVICE.md").write_text("\n".join(page(found)) + "\n")

    with suppress(KeyboardInterrupt):
        run(options, found, save)
    save()
    print((options.out / "DEVICE.md").read_text())


if __name__ == "__main__":
    run_command(main)
