"""The page of results: a table for each workload and number of threads, the goals, and a chart for each number of threads."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from examples.benchmarks.goals import LEAST_SHARE, NOISE, Goal, goals_of
from examples.benchmarks.workloads import WORKLOADS

FAMILIES = {
    "funcnet eager": "tab:red",
    "funcnet compiled": "firebrick",
    "funcnet scan": "lightcoral",
    "torch.nn eager": "tab:blue",
    "torch.nn compiled": "lightskyblue",
    "JAX jit": "tab:green",
    "JAX scan": "lightgreen",
    "thinc": "tab:grey",
}

Result = dict[str, Any]
"""For one workload and number of threads: ``workload``, ``threads``, ``cores``, ``rows``, ``flops``, ``gemm``."""


def best(result: Result, name: str) -> dict[str, Any] | None:
    """Return the row with this label, or the fastest row of this family; ``None`` if there is none.

    "funcnet eager, pure" is the row labelled "funcnet eager", without the donated one of its family.
    """
    rows = [row for row in result["rows"] if name in (row["label"], row["family"], f"{row['label']}, pure")]
    return min(rows, key=lambda row: row["median"], default=None)


def quotient(result: Result, name: str, other: str, key: str = "median") -> float | None:
    """Return the quotient of a number of two rows or families; ``None`` if one is missing."""
    one, two = best(result, name), best(result, other)
    if one is None or two is None or one.get(key) is None or two.get(key) is None:
        return None
    return float(one[key] / two[key])


def share(result: Result, row: dict[str, Any]) -> float | None:
    """Return the FLOPs of a step in this time as a fraction of the machine's best product."""
    if not result["flops"] or not result.get("gemm"):
        return None
    return float(result["flops"] / (row["median"] * 1e3) / max(result["gemm"].values()))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns and numbers to the right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    texts = [
        "| " + " | ".join([line[0].ljust(widths[0]), *[c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)]]) + " |"
        for line in lines
    ]
    rule = "|" + "|".join(["-" * (widths[0] + 2), *["-" * (w + 1) + ":" for w in widths[1:]]]) + "|"
    return "\n".join([texts[0], rule, *texts[1:]])


def cell(value: float | None, digits: int = 2) -> str:
    """Return a number as a cell, or a dash for ``None``."""
    return "—" if value is None else f"{value:.{digits}f}"


def micro(value: float) -> str:
    """Return µs with at least four digits, so that quotients can be checked."""
    return f"{value:.{max(0, 3 - len(str(int(value))) + 1)}f}"


def section(result: Result) -> str:
    """Return the table of one workload: a row for each contender, with * at the best one of a family of several."""
    bests = [best(result, family) for family in dict.fromkeys(row["family"] for row in result["rows"])]
    bases = [best(result, "funcnet eager"), best(result, "torch.nn eager")]
    rows = []
    for row in result["rows"]:
        star = " *" * (any(row == one for one in bests) and sum(row["family"] == other["family"] for other in result["rows"]) > 1)
        times = [micro(row[key]) for key in ("low", "median", "high")]
        quotients = [cell(row["median"] / base["median"], 3) if base else "—" for base in bases]
        rest = [cell(share(result, row)), cell(row.get("memory"), 1), cell(compiling(row), 1)]
        rest += [str(row["parameters"]), cell(row["loss"], 4)]
        rows.append([row["label"] + star, *times, *quotients, *rest])
    header = ["µs a step", "quartile", "median", "quartile", "÷ funcnet eager", "÷ torch.nn eager", "of GEMM peak", "peak MB"]
    header.append("compile s")
    return "\n\n".join([title(result), table([*header, "parameters", "loss after 10"], rows)])


def compiling(row: dict[str, Any]) -> float | None:
    """Return the seconds of a first call that compiled; ``None`` if nothing is compiled."""
    return row.get("first") if row["family"].split()[-1] in ("compiled", "scan", "jit") else None


def title(result: Result) -> str:
    """Return the heading of a workload, with its FLOPs."""
    workload = WORKLOADS[result["workload"]]
    return f"### {workload.name}, {threads_of(result)}\n\n{workload.about}. {result['flops'] / 1e6:.1f} MFLOP a step."


def threads_of(result: Result) -> str:
    """Return the number of threads, and of cores if there are fewer."""
    threads, cores = result["threads"], result["cores"]
    said = f"{threads} thread{'s' * (threads > 1)}"
    return said if cores == threads else f"{said} on {cores} core{'s' * (cores > 1)}"


def owed(results: Sequence[Result], maker: str, before: Sequence[Result] = ()) -> str:
    """Return the table of goals, with the results of this round and the last; a goal needs both sides of its quotient."""
    old = {(result["workload"], result["threads"]): result for result in before}
    rows = []
    for result in results:
        name, threads = result["workload"], threads_of(result)
        known = old.get((name, result["threads"]), {"rows": []})
        rows += [[name, threads, *row] for goal in goals_of(name, maker) for row in _judged(goal, result, known)]
        least = LEAST_SHARE.get(name, {}).get(maker)
        fastest = best(result, "funcnet eager")
        if least and fastest:
            found = share(result, fastest) or 0.0
            rows.append(
                [name, threads, "share of GEMM peak", cell(found, 3), "—", f"≥ {least:g}", "yes" if found >= least else "no"]
            )
    return table(["workload", "threads", "what", "measured", "before", "goal", "reached"], rows)


def _judged(goal: Goal, result: Result, known: Result) -> list[list[str]]:
    """Return the row of a goal, or no row if a side is missing; the limit can be the last result."""
    found, earlier = (quotient(one, goal.ours, goal.theirs, goal.key) for one in (result, known))
    if found is None:
        return []
    limit = earlier and earlier * NOISE if goal.limit is None else goal.limit
    said = "as before" if goal.limit is None else f"≤ {goal.limit:g}"
    reached = "—" if limit is None else "yes" if found <= limit else "no"
    return [[goal.words, cell(found, 3), cell(earlier, 3), said, reached]]


EXPLANATION = """\
Quartiles and medians are over the rounds, in µs per step, even if a call scans ten steps. In a family of contenders, * marks the
best one, which represents the family in comparisons. FLOPs count products and convolutions of torch.nn's net; the share is
relative to the best product of 1024×1024 on the same number of threads. Peak MB is the peak of the resident memory during steps,
in a process for each contender, above the level before the training was made: params, state, batch, gradients, temporary memory,
and the code of kernels loaded meanwhile. Compile s are the seconds to the first result; only the code that a framework compiles
once per process was compiled before. The loss after ten steps is only comparable within a framework, as each draws its own
initial weights. The column "before" has the figures of the previous round, from `results/before.json`, measured on the machine of
its pages; "as before" allows 3 % of noise. "Pure" is funcnet's step without `donate`."""


def page(head: str, results: Sequence[Result], goals: str, notes: Sequence[str], charts: Sequence[str]) -> str:
    """Return the whole page, with the table of goals."""
    parts = [head, EXPLANATION, "## Goals", goals, *[f"![Times a step]({chart})" for chart in charts]]
    parts += ["## All contenders", *map(section, results)]
    parts += ["## Notes", "\n".join(f"- {note}" for note in dict.fromkeys(notes))] if notes else []
    return "\n\n".join(parts) + "\n"


def chart(results: Sequence[Result], path: Path) -> None:
    """Draw the best of each family by workload, as a multiple of torch.nn eager's time: faster is to the left."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        figsize=(11, 1.6 + 0.16 * sum(len(_bars(result)) + 2 for result in results)), layout="constrained"
    )
    places, y = [], 0.0
    for result in results:
        bars = _bars(result)
        places.append(y + (len(bars) - 1) / 2)
        for i, (family, ratio) in enumerate(bars):
            axes.barh(y + i, ratio - 1, 0.9, left=1, color=FAMILIES[family])
            side: dict[str, Any] = {"ha": "right", "xytext": (-3, 0)} if ratio < 1 else {"ha": "left", "xytext": (3, 0)}
            axes.annotate(f"{ratio:.2f}", (ratio, y + i), textcoords="offset points", va="center", fontsize=8, **side)
        y += len(bars) + 2
    axes.set_yticks(places, [result["workload"] for result in results])
    _finish(figure, axes, results)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _bars(result: Result) -> list[tuple[str, float]]:
    """Return the bars of a workload: each family except torch.nn eager, which is the line at 1, with its multiple."""
    ratios = [(family, quotient(result, family, "torch.nn eager")) for family in FAMILIES if family != "torch.nn eager"]
    return [(family, ratio) for family, ratio in ratios if ratio is not None]


def _finish(figure: Any, axes: Any, results: Sequence[Result]) -> None:
    """Add the line at 1, a scale of plain numbers, and the legend."""
    from matplotlib import lines, patches

    ratios = [1.0, *[ratio for result in results for _, ratio in _bars(result)]]
    low, high = 0.8 * min(ratios), 1.3 * max(ratios)
    ticks = [tick for tick in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if low < tick < high]
    axes.set(xscale="log", xlim=(low, high))
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.invert_yaxis()
    axes.axvline(1, color=FAMILIES["torch.nn eager"], lw=2)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("time of a step, as a multiple of torch.nn eager's; the best of each family, logarithmic")
    figure.suptitle(f"A step of training, {threads_of(results[0])}")
    shown = {family for result in results for family, _ in _bars(result)}
    handles: list[Any] = [patches.Patch(color=colour, label=name) for name, colour in FAMILIES.items() if name in shown]
    handles.append(lines.Line2D([], [], color=FAMILIES["torch.nn eager"], lw=2, label="torch.nn eager"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
