"""Helpers of all five reports: options, runs that can be resumed, tables and figures.

A report is a module with ``NAME``, ``experiments(options) -> list of Experiment``, the numbers printed in the report, and
``write(paper)``, which makes its tables and figures from the results. ``report`` runs its command line.
"""

import argparse
import functools
import hashlib
import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt
from matplotlib.patches import Circle
from tqdm import tqdm

from examples.reports.experiment import FRAMEWORKS, Experiment, first_epoch_gap, perform

COLOURS = {"funcnet": "tab:red", "torch.nn": "tab:blue"}


def parser(module: str, doc: str | None, epochs: str, runs: int | None) -> argparse.ArgumentParser:
    """Return the options of every report; ``module`` follows ``python -m``, and ``doc`` is that module's docstring."""
    description = (doc or "").split("\n\n", maxsplit=1)[0].replace("``", "")
    new = argparse.ArgumentParser(f"python -m {module}", description=description)
    new.add_argument("--epochs", type=int, help=f"epochs of every experiment, instead of the report's {epochs}")
    repeated = "repetitions of every experiment, each with its own data and weights"
    new.add_argument("--runs", type=int, default=runs, help=f"{repeated} ({runs or 'as many as each report has'})")
    new.add_argument("--seed", type=int, default=0, help="seed of the first repetition; each repetition increments it (0)")
    new.add_argument("--out", type=Path, default=Path("out"), help="folder for tables, figures and finished runs (out)")
    new.add_argument("--quick", action="store_true", help="two epochs and one repetition of everything, to try it out")
    new.add_argument("--device", default="cpu", help="torch device for training (cpu)")
    return new


class Paper:
    """The results of a report's experiments, and its page and figures."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        """Prepare the folder ``out``/``name``."""
        self.name, self.options = name, options
        self.folder = options.out / name
        (self.folder / "runs").mkdir(parents=True, exist_ok=True)
        self.page: list[str] = []
        self.results: dict[tuple[str, str, int], dict[str, Any]] = {}
        self.stopped = False

    def seeds(self) -> range:
        """Return the seeds of the repetitions."""
        return range(self.options.seed, self.options.seed + self.options.runs)

    def run(self, experiments: Sequence[Experiment]) -> None:
        """Run the experiments that no earlier call has finished; after Ctrl-C the finished runs are used."""
        torch.set_num_threads(1)  # for networks as small as these, more threads cost more than they save
        jobs = [(e, framework, seed) for e in experiments for seed in self.seeds() for framework in FRAMEWORKS]
        left = [job for job in jobs if not self._load(*job)]
        try:
            with tqdm(total=sum(e.epochs for e, _, _ in left), desc=self.name, unit="epoch", disable=not left) as bar:
                for experiment, framework, seed in left:
                    bar.set_postfix_str(f"{experiment.name}, {framework}, seed {seed}")
                    self._save(experiment, framework, seed, perform(experiment, framework, seed, self.options.device, bar.update))
        except KeyboardInterrupt:
            self.stopped = True
            print(f"\n{self.name}: stopped; the tables contain the {len(self.results)} finished runs")

    def _path(self, experiment: Experiment, framework: str, seed: int) -> Path:
        digest = hashlib.sha256(f"{experiment!r} {framework} {seed} {self.options.device}".encode()).hexdigest()[:16]
        path: Path = self.folder / "runs" / f"{digest}.json"
        return path

    def _load(self, experiment: Experiment, framework: str, seed: int) -> bool:
        path = self._path(experiment, framework, seed)
        if path.exists():
            self.results[experiment.name, framework, seed] = json.loads(path.read_text())
        return path.exists()

    def _save(self, experiment: Experiment, framework: str, seed: int, result: dict[str, Any]) -> None:
        """Keep a result, in memory and in a file."""
        self.results[experiment.name, framework, seed] = result
        _keep(self._path(experiment, framework, seed), result)

    def once(self, what: str, make: Callable[[], Any]) -> Any:
        """Return the result stored under this key, or compute and store it; ``None`` after Ctrl-C."""
        path = self.folder / "runs" / f"{hashlib.sha256(what.encode()).hexdigest()[:16]}.json"
        try:
            if not path.exists() and not self.stopped:
                _keep(path, make())
        except KeyboardInterrupt:
            self.stopped = True
        return json.loads(path.read_text()) if path.exists() else None

    def of(self, name: str, framework: str, pick: Callable[[dict[str, Any]], Any]) -> list[Any]:
        """Return what ``pick`` returns for each finished run of an experiment."""
        found = [self.results.get((name, framework, seed)) for seed in self.seeds()]
        return [pick(result) for result in found if result is not None]

    def final(self, name: str, framework: str, measure: str) -> list[float]:
        """Return the last value of a measure for each finished run."""
        return self.of(name, framework, lambda result: result["final"][measure])

    def seconds(self, name: str, framework: str) -> list[float]:
        """Return the training time of each finished run."""
        return self.of(name, framework, lambda result: result["seconds"])

    def curve(self, name: str, framework: str, measure: str) -> list[list[float]]:
        """Return a measure by epoch for each finished run."""
        return self.of(name, framework, lambda result: result["curves"][measure])

    def say(self, text: str) -> None:
        """Add a paragraph to the page, and print it."""
        self.page.append(text)
        print(f"\n{text}")

    def table(self, title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Add a table to the page, and print it with aligned columns."""
        lines = [list(header), *map(list, rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
        texts = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines]
        rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
        self.say(f"**{title}**\n\n" + "\n".join([texts[0], rule, *texts[1:]]))

    def gaps(self, experiments: Iterable[Experiment]) -> None:
        """Add the largest difference of the two frameworks' weights after an epoch in float64."""
        seed = self.options.seed
        found = [self.once(f"gap {e!r} {seed}", functools.partial(first_epoch_gap, e, seed)) for e in experiments]
        known = [gap for gap in found if gap is not None]
        if known:
            largest = f"{max(known):.1e}"
            self.say(f"Largest difference of a weight between funcnet and torch.nn after the first epoch, in float64: {largest}.")

    def figure(self, file: str, caption: str, figure: Any) -> None:
        """Save a figure beside the page, and show it on the page."""
        figure.savefig(self.folder / file, dpi=110)
        plt.close(figure)
        self.say(f"![{caption}]({self.name}/{file})\n\n*{caption}*")

    def save(self) -> Path:
        """Write the page, ``out``/``name``.md."""
        path: Path = self.options.out / f"{self.name}.md"
        path.write_text("\n\n".join(self.page) + "\n")
        return path


def _keep(path: Path, result: Any) -> None:
    """Write a file under another name, and rename it when it is complete."""
    half = path.with_suffix(".half")
    half.write_text(json.dumps(result))
    half.replace(path)


def mean(values: Sequence[float], digits: int = 3, scale: float = 1.0) -> str:
    """Return "mean ± deviation" as a cell; only the mean for one value or a non-finite one, a dash for none."""
    if not values:
        return "—"
    middle = f"{scale * statistics.fmean(values):.{digits}f}"
    return (
        middle
        if len(values) == 1 or not all(map(math.isfinite, values))
        else f"{middle} ± {scale * statistics.stdev(values):.{digits}f}"
    )


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Return torch.nn's seconds divided by funcnet's."""
    return f"{sum(theirs) / len(theirs) / (sum(ours) / len(ours)):.2f}" if ours and theirs else "—"


def band(axes: Any, curves: Sequence[Sequence[float]], label: str, colour: str, style: str = "-", scale: float = 1.0) -> None:
    """Draw the mean of curves by epoch, and a band of one deviation if there are several."""
    if not curves:
        return
    stack = scale * torch.tensor(curves)
    epochs, middle = range(1, stack.shape[1] + 1), stack.mean(0)
    axes.plot(epochs, middle, style, color=colour, label=label, lw=1.5)
    if len(curves) > 1:
        axes.fill_between(epochs, middle - stack.std(0), middle + stack.std(0), color=colour, alpha=0.18, lw=0)


def legend(axes: Any, spread: str = "band", **options: Any) -> None:
    """Add the legend if a run has finished, and explain the band if there is one."""
    if axes.get_legend_handles_labels()[0]:
        title = f"{spread}: one standard deviation" if axes.collections else None
        axes.legend(title=title, title_fontsize="small", **options)


def decision_map(axes: Any, grid: Sequence[Sequence[float]], title: str, centred: bool = False) -> Any:
    """Draw a net's output over the square, red for inside, and the true disk."""
    low = -1 if centred else 0
    shades = axes.imshow(grid, extent=(low, 1, low, 1), origin="lower", cmap="coolwarm", vmin=-1, vmax=1)
    _frame(axes, title, centred)
    return shades


def points(axes: Any, data: Any, title: str, centred: bool = False) -> None:
    """Draw points in the colors of their labels, red inside, and the true disk."""
    axes.scatter(*data.x.T, c=data.labels, cmap="coolwarm", s=8, linewidths=0)
    _frame(axes, title, centred)


def _frame(axes: Any, title: str, centred: bool) -> None:
    """Draw the border of the disk in the square."""
    low = -1 if centred else 0
    middle, radius = (0, (2 / torch.pi) ** 0.5) if centred else (0.5, (0.5 / torch.pi) ** 0.5)
    axes.add_patch(Circle((middle, middle), radius, fill=False, color="black", lw=1, ls="--"))
    axes.set(title=title, aspect="equal", xlim=(low, 1), ylim=(low, 1), xticks=[low, 1], yticks=[low, 1])


def start(name: str, options: argparse.Namespace) -> Paper:
    """Start a report from its options."""
    mpl.use("Agg")
    if options.quick:
        options.epochs, options.runs = options.epochs or 2, 1
    for flag, value in (("epochs", options.epochs), ("runs", options.runs)):
        if value is not None and value < 1:
            raise SystemExit(f"--{flag} must be at least 1, got {value}")
    return Paper(name, options)


def report(
    name: str,
    doc: str | None,
    epochs: str,
    runs: int | None,
    experiments: Callable[[argparse.Namespace], Sequence[Experiment]],
    write: Callable[[Paper], None],
    arguments: Sequence[str] | None,
) -> Path:
    """Run a report with command-line arguments, and return the path of its page."""
    options = parser(f"examples.reports.{name}", doc, epochs, runs).parse_args(arguments)
    paper = start(name, options)
    paper.run(experiments(options))
    write(paper)
    return paper.save()
