"""Try every fault, print the table and write it to docs/faults.md; takes some minutes.

python -m examples.faults
python -m examples.faults --only kills damage --kills 20 --out out/faults.md
"""

import argparse
import importlib
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

import funcnet as fn
from examples.faults import damage, disks, interruptions, kills, workers
from examples.faults.judging import Judge
from examples.faults.table import Row, page
from examples.faults.trainings import EVERY

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
GROUPS = ("kills", "disks", "damage", "writers", "interruptions", "workers")


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    new = argparse.ArgumentParser("examples.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    new.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS), metavar="GROUP", help=", ".join(GROUPS))
    new.add_argument(
        "--kills",
        type=int,
        default=200,
        help="number of kills; other faults are tried a tenth or a twentieth as often (%(default)s)",
    )
    new.add_argument("--seed", type=int, default=0, help="determines where and when faults strike")
    new.add_argument("--folder", type=Path, help="folder for the checkpoints (a temporary folder)")
    new.add_argument("--out", type=Path, default=PAGE, help="file for the page (%(default)s)")
    options = new.parse_args(arguments)
    if options.kills < 1:
        new.error(f"--kills must be at least 1, got {options.kills}")
    return options


def rows_of(group: str, judge: Judge, count: int) -> Iterator[Row]:
    """Try the faults of a group; ``count`` is the number of kills."""
    some, few = max(1, count // 10), max(1, count // 20)
    if group == "kills":
        yield kills.kills(judge, count)
        yield kills.kills_with_workers(judge, some)
        yield kills.kills_in_the_background(judge, some)
    if group == "disks":
        yield disks.file_too_large(judge, some)
        yield disks.full_disk(judge, some)
        yield disks.unwritable_folder(judge, few)
    if group == "damage":
        yield from damage.flips(judge, count)
        yield from damage.cuts(judge, count)
    if group == "writers":
        yield disks.two_trainings(judge, few)
        yield disks.two_savers(judge, few)
    if group == "interruptions":
        yield interruptions.ctrl_c(judge, some)
        yield interruptions.nan_in_the_data(judge, some)
        yield interruptions.divergence(judge, some)
        yield interruptions.dying_worker(judge, some)
        yield interruptions.raising_callback(judge, some)
    if group == "workers":
        yield workers.kills(judge, some)
        yield workers.hangs(judge, few)
        yield workers.other_params(judge, few)
        yield workers.unwritable(judge, few)


def import_all() -> None:
    """Import the modules of the trainings before the first fork; otherwise every child imports them, for a second."""
    for name in ("torch._dynamo", "torch.distributed.checkpoint", "torch.distributed.tensor"):
        importlib.import_module(name)
    for package in (fn, fn.distributed):
        for name in dir(package):
            getattr(package, name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the faults, print the page and write it; return 1 if anything was lost."""
    torch.set_num_threads(1)  # before any operation: a process that has started threads must not fork
    given = sys.argv[1:] if arguments is None else arguments
    options = options_of(given)
    import_all()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        Path(folder).chmod(0o755)  # one fault is tried as another user
        judge, rows = Judge(Path(folder), options.seed), []
        for group in options.only:
            for row in rows_of(group, judge, options.kills):
                rows.append(row)
                print(row, *[f"    lost: {one}" for one in row.lost], sep="\n", flush=True)
    command = shlex.join(["python", "-m", "examples.faults", *given])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(page(rows, command=command, torch=torch.__version__, every=EVERY))
    return int(any(row.lost for row in rows))


if __name__ == "__main__":
    sys.exit(main())
