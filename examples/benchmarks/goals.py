"""The quotients that a benchmark must reach, by processor, and the results of the last round in ``results/before.json``.

    python -m examples.benchmarks.goals

writes that file from the committed pages before a new round replaces them.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from examples.benchmarks.command import new_parser

RESULTS = Path(__file__).parent / "results"
BEFORE = RESULTS / "before.json"
PAGES = ("two_threads", "")
"""The folders with the pages of a round; if a result is on several pages, the last one counts."""

NOISE = 1.03
"""A result may exceed that of the last round by this factor and still count as equal."""

EAGER, TORCH = "funcnet eager", "torch.nn eager"
PURE, DONATED = "funcnet eager, pure", "funcnet eager, donated"
COMPILED, JIT = "funcnet compiled", "JAX jit"
SMALL = ("disk_mlp", "mlp_adam", "pychrot")
LARGE = {"lenet": 0.75, "resnet": 0.75, "bigmlp": 0.85, "gpt": 0.85, "lstm": 0.9}
JITTED = (*SMALL, "ensemble20", *LARGE, "deep")


@frozen
class Goal:
    """A quotient that must be at most ``limit``: of the median times of two rows, or of the best of two families.

    A ``limit`` of ``None`` is the result of the last round; ``maker`` is the maker of the processors to which the goal applies.
    """

    workload: str
    ours: str
    theirs: str
    limit: float | None
    maker: str | None = None
    key: str = "median"

    @property
    def words(self) -> str:
        """Return a description of the measured quantity."""
        return f"{'time' if self.key == 'median' else 'peak memory'} of {self.ours} ÷ {self.theirs}"


GOALS = (
    *[Goal(name, PURE, TORCH, 0.45) for name in SMALL],
    *[Goal(name, DONATED, TORCH, 0.4) for name in SMALL],
    *[Goal(name, "funcnet scan", "JAX scan", 1.0) for name in SMALL],
    Goal("ensemble20", EAGER, TORCH, 0.5),
    Goal("deep", EAGER, TORCH, 0.8),
    *[Goal(name, EAGER, TORCH, limit, "intel") for name, limit in LARGE.items()],
    *[Goal(name, EAGER, TORCH, None, "amd") for name in LARGE],
    Goal("adam", DONATED, "torch.nn eager, fused", 0.9, "intel"),
    Goal("adam", DONATED, "torch.nn eager, fused", None, "amd"),
    *[Goal(name, COMPILED, JIT, 0.7) for name in JITTED],
    *[Goal(name, EAGER, TORCH, 1.0, key="memory") for name in ("lenet", "gpt", "resnet", "deep")],
)

LEAST_SHARE = {"bigmlp": {"intel": 0.8, "amd": 0.75}}
"""The least share of the machine's best product, by workload and maker."""


def goals_of(workload: str, maker: str) -> Iterator[Goal]:
    """Yield the goals of a workload on processors of a maker."""
    yield from (goal for goal in GOALS if goal.workload == workload and goal.maker in (None, maker))


def before() -> list[dict[str, Any]]:
    """Return the results of the last round: ``workload``, ``threads`` and ``rows`` of label, family, median and memory."""
    found: list[dict[str, Any]] = json.loads(BEFORE.read_text()) if BEFORE.exists() else []
    return found


def read_page(text: str) -> Iterator[dict[str, Any]]:
    """Yield the results on a page of this benchmark."""
    for part in text.split("\n### ")[1:]:
        title, *lines = part.splitlines()
        name, threads = title.split(", ")
        cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines if line.startswith("| ")]
        rows = [_row(row[0].removesuffix(" *"), row[2], row[7]) for row in cells[1:]]
        yield {"workload": name, "threads": int(threads.split()[0]), "rows": rows}


def _row(label: str, median: str, memory: str) -> dict[str, Any]:
    family = label.split(",", maxsplit=1)[0]
    return {"label": label, "family": family, "median": float(median), "memory": None if memory == "—" else float(memory)}


def write_before() -> None:
    """Write ``results/before.json`` from the committed pages."""
    found = {}
    for folder in PAGES:
        for result in read_page((RESULTS / folder / "BENCHMARKS.md").read_text()):
            found[result["workload"], result["threads"]] = result
    BEFORE.write_text("[\n" + ",\n".join(json.dumps(found[key], ensure_ascii=False) for key in sorted(found)) + "\n]\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the file."""
    new_parser("goals", __doc__).parse_args(arguments)
    write_before()


if __name__ == "__main__":
    main()
