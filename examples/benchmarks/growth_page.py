"""The page of ``growth``: exponents, the largest ratios, points and plots."""

import datetime
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from examples.benchmarks.growth_exponents import LEAST, TOLERANCE, Comparison, compare, exponent
from examples.benchmarks.growth_jobs import LARGEST, LONGEST
from examples.benchmarks.growth_nets import AXES, SKIPPED
from examples.benchmarks.growth_plots import draw
from examples.benchmarks.report import cell, table

PAIRS = (
    ("funcnet donated", "torch.nn eager"),
    ("funcnet donated", "JAX donated"),
    ("funcnet eager", "torch.nn eager"),
    ("funcnet eager", "JAX jit"),
    ("funcnet compiled", "JAX jit"),
)
UNITS = {"time": "µs a step", "memory": "peak MB"}

EXPLANATION = f"""\
**What an exponent is.** The cost of a step is about a + b nᵖ: a is what any step costs, such as Python, a runtime's threads or a
library's buffers. The slope of the whole line in a log-log plot depends on a: whoever has less overhead has a steeper line, even
at less cost everywhere. So the exponent here is p at the upper end of the range. The three largest sizes that both contenders
have grow by the same factor r, and the increments of the cost between them by rᵖ, whatever a is.

**What is compared.** A donated step may overwrite its params, as torch.nn's step always does; a pure step leaves the old params
as they were and needs memory for the new ones. So donated steps are compared with torch.nn and with JAX's donated step, and pure
ones with JAX's pure step. The rows of a pure step beside torch.nn show what purity costs.

**Noise.** All is measured twice: times in two processes, memory in two passes of a process. "Noise" is the larger difference
between the two exponents of one contender. The verdict is "above" if our exponent is more than {TOLERANCE:g} above theirs in
whichever runs are compared; {TOLERANCE:g} is 7 % more cost for four times the size. Tables and plots have the lower of two runs.

**Ratios** are our cost divided by theirs: the largest at any size, which no exponent can hide, and that at the largest size. Of
memory, sizes at which both take less than {LEAST["memory"]:g} MB do not count: there the allocator's habits decide. A line ends
before a step that is expected to take more than {LONGEST:g} s, or {LARGEST / 1000:g} GB."""


def head(command: str) -> str:
    """Return the head of the page: command, versions, machine, date."""
    import torch

    from examples.reports.__main__ import processor

    try:
        import jax

        peer = f", JAX {jax.__version__}"
    except ImportError:
        peer = ""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}{peer}"
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    return f"# How cost grows\n\n`{command}`,\n{versions}, {processor()}, one thread, float32, {date}."


def _row(axis: str, what: str, found: dict[str, Any], ours: str, theirs: str) -> list[str] | None:
    one = compare(found, what, ours, theirs)
    if one is None:
        return None
    exponents = [exponent(found[what][name], one.sizes) for name in (ours, theirs)]
    span = f"{one.sizes[0]}-{one.sizes[-1]}" if len(one.sizes) == 3 else "—"
    return [axis, what, ours, theirs, span, *map(cell, exponents), cell(one.noise), one.verdict, *_ratios(one)]


def _ratios(one: Comparison) -> list[str]:
    """Return the largest ratio and the last one, each with its size."""
    if one.worst is None:
        return ["—", "—"]
    last = [*one.ratios][-1]
    return [f"{one.ratios[n]:.2f} at {n}" for n in (one.worst, last)]


def exponents(results: dict[str, Any]) -> str:
    """Return the table of exponents, with a row for each axis, quantity and pair of contenders."""
    rows = [_row(axis, what, found, *pair) for axis, found in results.items() for what in UNITS for pair in PAIRS]
    names = ["axis", "what", "ours", "theirs", "sizes", "exponent of ours", "of theirs", "noise", "verdict", "largest ratio"]
    return table([*names, "ratio at the end"], [row for row in rows if row])


def count(results: dict[str, Any]) -> str:
    """Return how many exponents are above, and which."""
    every = [(axis, what, pair) for axis in results for what in UNITS for pair in PAIRS]
    judged = [(*one, compare(results[one[0]], one[1], *one[2])) for one in every]
    known = [one for one in judged if one[3] is not None and one[3].verdict != "—"]
    above = [
        f"{what} by {axis} ({pair[0]} beside {pair[1]})" for axis, what, pair, one in known if one and one.verdict == "above"
    ]
    return f"{len(above)} of {len(known)} exponents are above theirs{': ' * bool(above)}{'; '.join(above)}."


def _points(what: str, lines: dict[str, Any], sizes: tuple[int, ...]) -> str:
    digits = {"time": 0, "memory": 1}[what]
    rows = [[name, *[cell(points.get(str(n)), digits) for n in sizes]] for name, points in lines.items()]
    return table([UNITS[what], *map(str, sizes)], rows)


def sections(results: dict[str, Any]) -> Iterator[str]:
    """Yield the plot and the points of each axis."""
    for axis, found in results.items():
        one = AXES[axis]
        yield f"## {axis}\n\n{one.about}.\n\n![{axis}]({axis}.png)"
        yield from (_points(what, found[what], one.sizes) for what in UNITS)


def write(folder: Path, kept: dict[str, Any]) -> str:
    """Draw the plots, write the page, and return it."""
    results = kept["results"]
    for axis, found in results.items():
        draw(axis, found, folder / f"{axis}.png")
    notes = kept["notes"] + [f"{axis}: {name} is not measured: {why}" for (name, axis), why in SKIPPED.items() if axis in results]
    parts = [kept["head"], EXPLANATION, "## Exponents", count(results), exponents(results), *sections(results)]
    parts += ["## Notes", "\n".join(f"- {note}" for note in notes)] if notes else []
    text = "\n\n".join(parts) + "\n"
    (folder / "GROWTH.md").write_text(text)
    return text
