"""The page: a table for each workload and number of threads, what is owed, and a chart for each number of threads."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

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

OWED = {
    **dict.fromkeys(
        ("disk_mlp", "mlp_adam", "pychrot"),
        (
            ("funcnet eager", "torch.nn eager", 0.5),
            ("funcnet compiled", "JAX jit", 1.0),
            ("funcnet scan", "JAX scan", 1.2),
        ),
    ),
    "ensemble20": (("funcnet eager", "torch.nn eager", 0.5), ("funcnet compiled", "JAX jit", 1.0)),
    "lenet": (("funcnet eager", "torch.nn eager", 0.5),),
    "bigmlp": (("funcnet eager", "torch.nn eager", 0.5), ("funcnet eager", "JAX jit", 1.0)),
    "gpt": (("funcnet eager", "torch.nn eager", 0.6), ("funcnet compiled", "torch.nn eager", 0.5)),
    "lstm": (("funcnet eager", "torch.nn eager", 0.8),),
    "adam": (("funcnet eager, donated", "torch.nn eager, fused", 1.0),),
    "resnet": (("funcnet eager", "torch.nn eager", 0.7),),
}
"""By workload: whose median, the best of its family, divided by whose, may be at most what."""

LEAST_SHARE = {"bigmlp": 0.75}
LEAST_MEMORY = ("lenet", "gpt", "resnet")

Result = dict[str, Any]
"""Of one workload and number of threads: ``workload``, ``threads``, ``cores``, ``rows``, ``flops``, ``gemm``."""


def best(result: Result, name: str) -> dict[str, Any] | None:
    """Return the row with this label, or the one of this family with the least median; ``None`` where there is none."""
    rows = [row for row in result["rows"] if name in (row["label"], row["family"])]
    return min(rows, key=lambda row: row["median"], default=None)


def quotient(result: Result, name: str, other: str, key: str = "median") -> float | None:
    """Divide the number of one row or family by that of another; ``None`` where one is missing."""
    one, two = best(result, name), best(result, other)
    if one is None or two is None or one.get(key) is None or two.get(key) is None:
        return None
    return one[key] / two[key]


def share(result: Result, row: dict[str, Any]) -> float | None:
    """Return the share of the machine's best product that the FLOPs of a step in this time are."""
    if not result["flops"] or not result.get("gemm"):
        return None
    return result["flops"] / (row["median"] * 1e3) / max(result["gemm"].values())


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a Markdown table, its columns aligned, numbers to the right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    texts = [
        "| " + " | ".join([line[0].ljust(widths[0]), *[c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)]]) + " |"
        for line in lines
    ]
    rule = "|" + "|".join(["-" * (widths[0] + 2), *["-" * (w + 1) + ":" for w in widths[1:]]]) + "|"
    return "\n".join([texts[0], rule, *texts[1:]])


def cell(value: float | None, digits: int = 2) -> str:
    """Write a number, or a dash for none."""
    return "—" if value is None else f"{value:.{digits}f}"


def micro(value: float) -> str:
    """Write µs with four digits at least, so that quotients can be checked."""
    return f"{value:.{max(0, 3 - len(str(int(value))) + 1)}f}"


def section(result: Result) -> str:
    """Write the table of one workload: a row for each contender, * at the best of several in a family."""
    bests = [best(result, family) for family in dict.fromkeys(row["family"] for row in result["rows"])]
    bases = [best(result, "funcnet eager"), best(result, "torch.nn eager")]
    rows = []
    for row in result["rows"]:
        star = " *" * (row in bests and sum(row["family"] == other["family"] for other in result["rows"]) > 1)
        times = [micro(row[key]) for key in ("low", "median", "high")]
        quotients = [cell(row["median"] / base["median"], 3) if base else "—" for base in bases]
        rest = [cell(share(result, row)), cell(row.get("memory"), 1), str(row["parameters"]), cell(row["loss"], 4)]
        rows.append([row["label"] + star, *times, *quotients, *rest])
    header = ["µs a step", "quartile", "median", "quartile", "÷ funcnet eager", "÷ torch.nn eager", "of GEMM peak", "peak MB"]
    return "\n\n".join([title(result), table([*header, "parameters", "loss after 10"], rows)])


def title(result: Result) -> str:
    """Write the heading of a workload, with its FLOPs."""
    workload = WORKLOADS[result["workload"]]
    return f"### {workload.name}, {threads_of(result)}\n\n{workload.about}. {result['flops'] / 1e6:.1f} MFLOP a step."


def threads_of(result: Result) -> str:
    """Say how many threads there are, and the cores where these are fewer."""
    threads, cores = result["threads"], result["cores"]
    said = f"{threads} thread{'s' * (threads > 1)}"
    return said if cores == threads else f"{said} on {cores} core{'s' * (cores > 1)}"


def owed(results: Sequence[Result]) -> str:
    """Write what is owed beside what was measured, with a row for each claim whose two sides are there."""
    rows = []
    for result in results:
        name, threads = result["workload"], threads_of(result)
        for one, other, limit in OWED[name]:
            rows += _claim(name, threads, f"time of {one} ÷ {other}", quotient(result, one, other), "≤", limit)
        if name in LEAST_SHARE and best(result, "funcnet eager"):
            found = share(result, best(result, "funcnet eager"))
            rows += _claim(name, threads, "share of GEMM peak", found, "≥", LEAST_SHARE[name])
        if name in LEAST_MEMORY:
            found = quotient(result, "funcnet eager", "torch.nn eager", "memory")
            rows += _claim(name, threads, "peak memory of funcnet eager ÷ torch.nn eager", found, "≤", 1.0)
    return table(["workload", "threads", "what", "measured", "owed", "reached"], rows)


def _claim(name: str, threads: str, what: str, found: float | None, sign: str, limit: float) -> list[list[str]]:
    if found is None:
        return []
    reached = found <= limit if sign == "≤" else found >= limit
    return [[name, threads, what, cell(found, 3), f"{sign} {limit:g}", "yes" if reached else "no"]]


EXPLANATION = """\
The quartiles and the median are those of the rounds, in µs a step; where steps are scanned, ten in a call, too. Of the
contenders of one family, * marks the best, and families are compared by their best. FLOPs are those of products and convolutions,
counted on torch.nn's net, and the share is that of the best product of 1024×1024 on as many threads. Peak MB is the peak of the
resident memory during steps, in a process for each contender, above what was resident before the training was made: params,
state, batch, gradients and what a step needs, and the kernels' code that was loaded meanwhile."""


def page(head: str, results: Sequence[Result], notes: Sequence[str], charts: Sequence[str]) -> str:
    """Write the whole page."""
    parts = [head, EXPLANATION, "## What is owed", owed(results), *[f"![Times a step]({chart})" for chart in charts]]
    parts += ["## All contenders", *map(section, results)]
    parts += ["## Notes", "\n".join(f"- {note}" for note in dict.fromkeys(notes))] if notes else []
    return "\n\n".join(parts) + "\n"


def chart(results: Sequence[Result], path: Path) -> None:
    """Draw the best of each family by workload, as a multiple of torch.nn eager's time."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = [result for result in results if best(result, "torch.nn eager")]
    figure, axes = plt.subplots(figsize=(11, 1.2 + 1.0 * len(shown)), layout="constrained")
    for place, result in enumerate(shown):
        found = [family for family in FAMILIES if best(result, family)]
        for i, family in enumerate(found):
            y = place + 0.84 * ((i + 0.5) / len(found) - 0.5)
            ratio = quotient(result, family, "torch.nn eager")
            axes.barh(y, ratio, 0.84 / len(found), color=FAMILIES[family])
            axes.annotate(f"{ratio:.2f}", (ratio, y), (3, 0), textcoords="offset points", va="center", fontsize=7)
    used = [family for family in FAMILIES if any(best(result, family) for result in shown)]
    handles = [plt.Rectangle((0, 0), 1, 1, color=FAMILIES[family]) for family in used]
    axes.axvline(1, color="black", lw=0.8)
    axes.set(xscale="log", yticks=range(len(shown)), yticklabels=[result["workload"] for result in shown])
    axes.set_xlabel("time of a step ÷ torch.nn eager's, the best of each family (logarithmic; shorter is faster)")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"A step of training, {threads_of(shown[0])}")
    figure.legend(handles, used, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
