"""Report 001, a mini framework over ten folds: 1000 points of [-1, 1]², 20 epochs, rate 0.1, batches of 100.

Its custom framework (Xavier normal weights, zero biases) reached a test error of 4.88 %, PyTorch (uniform weights) 16.59 %. It
offers two reasons: gradients summed sample by sample instead of averaged, and the initial weights. A 2 × 2 design tries both.

Interpretations, where the report contains errors or leaves something open:

- A disk of radius 2/√π would cover the whole square, and the classes are said to be balanced: the radius is √(2/π).
- "Four linear layers of size 25, followed by an output layer of size 2" is 2-25-25-25-25-2, five linear layers. Four linear
  layers, including the output, are 2-25-25-25-2, the net of reports 002 and 004. Both are run. Ten repetitions scatter widely;
  with more repetitions (``--runs 100``) the second net comes closer to the printed figures in both rows.
- Gradients summed over the 100 samples of a batch, at rate 0.1, diverge; this is run too. The report probably means the sum over
  the two outputs of a sample, averaged over the batch (reduction "batch"), which has twice the gradient of the mean over samples
  and outputs (reduction "mean", PyTorch's). Table III uses the mean in both models, which then differ in their initial weights.
- Taken literally, "updated at each sample" is a step for each sample, with the rate divided by the batch size. This is run too,
  on the net as printed.

    python -m examples.reports.ten_folds --out out
"""

import argparse
import math
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

import funcnet as fn
from examples.reports.experiment import FRAMEWORKS, Experiment, data, first_params, grid_map
from examples.reports.paper import Paper, band, decision_map, legend, mean, points, ratio, report

NAME = "ten_folds"
EPOCHS, RUNS, RATE, BATCH = 20, 10, 0.1, 100
PRINTED = {
    ("Custom framework", "train"): (4.33, 1.83),
    ("Custom framework", "test"): (4.88, 2.23),
    ("PyTorch", "train"): (10.17, 8.88),
    ("PyTorch", "test"): (16.59, 14.13),
}
WEIGHTS = {"Custom framework": "xavier_normal", "PyTorch": "torch"}
COLOURS = {"Custom framework": ("tab:red", "darkred"), "PyTorch": ("tab:blue", "darkblue")}
NETS = {"2-25-25-25-25-2": 4, "2-25-25-25-2": 3}
AS_PRINTED, FOUR_IN_ALL = NETS
MEANT = {AS_PRINTED: "the net as printed", FOUR_IN_ALL: "four linear layers in all"}
READINGS = [(net, reduction) for net in NETS for reduction in ("mean", "batch")]


def network(hidden: int, initializer: str) -> fn.Layer:
    """Return a net with hidden layers of 25, ReLU, and two outputs."""
    widths = [2, *[25] * hidden]
    body = [fn.Linear(n, 25, initializer=initializer) for n in widths[:-1]]
    return fn.serial(*[layer for linear in body for layer in (linear, fn.ReLU())], fn.Linear(25, 2, initializer=initializer))


def name(net: str, reduction: str, model: str) -> str:
    """Return the name of an experiment."""
    return f"{net}, {reduction}, {model}"


def experiments(options: argparse.Namespace) -> list[Experiment]:
    """Return each interpretation with both kinds of initial weights, the literal sum, and steps for single samples."""
    epochs = options.epochs or EPOCHS

    def one(net: str, reduction: str, model: str, rate: float, batch: int) -> Experiment:
        layers, loss = network(NETS[net], WEIGHTS[model]), fn.MSE("sum" if reduction == "each sample" else reduction)
        return Experiment(name(net, reduction, model), layers, loss, fn.SGD(lr=rate), epochs, batch, "one-hot", "centred")

    readings = [*READINGS, *[(net, "sum") for net in NETS]]
    whole = [one(*reading, model, RATE, BATCH) for reading in readings for model in WEIGHTS]
    return [*whole, one(AS_PRINTED, "each sample", "Custom framework", RATE / BATCH, 1)]


def errors(paper: Paper, experiment: str, framework: str, part: str) -> list[float]:
    """Return the error rate of each finished run in percent."""
    return [100 * (1 - accuracy) for accuracy in paper.final(experiment, framework, f"{part} accuracy")]


def seconds(paper: Paper, experiment: str) -> list[str]:
    """Return both frameworks' seconds and their ratio as cells."""
    ours, theirs = (paper.seconds(experiment, framework) for framework in FRAMEWORKS)
    return [mean(ours), mean(theirs), ratio(ours, theirs)]


SECONDS = ["funcnet s", "torch.nn s", "torch.nn / funcnet"]


def table_three(paper: Paper, net: str) -> None:
    """Add the report's Table III for one of the nets, with the mean of both models."""
    rows = []
    for (model, part), (middle, deviation) in PRINTED.items():
        experiment = name(net, "mean", model)
        cells = [mean(errors(paper, experiment, framework, part), 2) for framework in FRAMEWORKS]
        rows.append([f"{model}, {part}", f"{middle} ± {deviation}", *cells, *seconds(paper, experiment)])
    paper.table(f"Table III, error rate in %, {MEANT[net]}: {net}", ["model", "report", *FRAMEWORKS, *SECONDS], rows)


def table_of_readings(paper: Paper) -> None:
    """Compare every interpretation with the printed values, and say which is closest."""
    rows = [["report", *[f"{middle} ± {deviation}" for middle, deviation in PRINTED.values()], ""]]
    distances = {}
    for reading in READINGS:
        for framework in FRAMEWORKS:
            columns = [errors(paper, name(*reading, model), framework, part) for model, part in PRINTED]
            distances[reading, framework] = _distance(columns)
            cells = [*[mean(column, 2) for column in columns], f"{distances[reading, framework]:.2f}"]
            rows.append([f"{', '.join(reading)}, {framework}", *cells])
    paper.table("Error rate in % by reading", ["reading", *[", ".join(key) for key in PRINTED], "distance"], rows)
    (closest, reduction), _ = min(distances, key=lambda key: distances[key])
    paper.say(
        "The distance is the mean of the four differences from the printed means, in points. "
        f"The closest reading is {closest} with the reduction {reduction!r}."
    )


def _distance(columns: Sequence[Sequence[float]]) -> float:
    """Return the mean difference from the printed means; infinite if no run has finished."""
    if not all(columns):
        return math.inf
    return statistics.mean(abs(statistics.mean(c) - m) for c, (m, _) in zip(columns, PRINTED.values(), strict=True))


REASONS = (
    "the initial weights explain the difference",
    "the reduction explains the difference",
    "neither by itself explains the difference",
)


def table_of_factors(paper: Paper, net: str) -> None:
    """Add the 2 × 2 table of reduction and initial weights, and say which explains the difference in test error."""
    rows = []
    for reduction in ("batch", "mean"):
        for model, initializer in WEIGHTS.items():
            experiment = name(net, reduction, model)
            cells = [mean(errors(paper, experiment, f, part), 2) for part in ("train", "test") for f in FRAMEWORKS]
            rows.append([reduction, initializer, *cells, *seconds(paper, experiment)])
    measures = [f"{part}, {framework}" for part in ("train", "test") for framework in FRAMEWORKS]
    paper.table(f"Error rate in %, net {net}, the 2 × 2", ["reduction", "initial weights", *measures, *SECONDS], rows)
    found = [effects(paper, net, seed) for seed in paper.seeds()]
    if any(found):
        paper.say(verdict(net, [one for one in found if one]))


def effects(paper: Paper, net: str, seed: int) -> tuple[float, float, float] | None:
    """Return the changes of a seed's test error by the weights, the reduction and both, in the 2 × 2 table."""
    keys = [(name(net, reduction, model), "funcnet", seed) for reduction in ("batch", "mean") for model in WEIGHTS]
    if not all(key in paper.results for key in keys):
        return None
    a, b, c, d = [100 * (1 - paper.results[key]["final"]["test accuracy"]) for key in keys]
    return (b + d - a - c) / 2, (c + d - a - b) / 2, (a + d - b - c) / 2


def verdict(net: str, found: Sequence[tuple[float, float, float]]) -> str:
    """Return the effects as sentences."""
    weights, reduction, both = zip(*found, strict=True)
    squares = [statistics.mean(effect) ** 2 for effect in (weights, reduction, both)]
    shares = [100 * square / max(sum(squares), 1e-12) for square in squares]
    largest = shares.index(max(shares))
    return (
        f"Main effects on the test error of {net} in funcnet (mean and deviation over the repetitions): uniform initial weights "
        f"instead of Xavier's change it by {mean(weights, 2)} points, the mean instead of the sum over outputs by "
        f"{mean(reduction, 2)}. Of the squared effects, the initial weights make up {shares[0]:.0f} %, "
        f"the reduction {shares[1]:.0f} % and their interaction {shares[2]:.0f} %: {REASONS[largest]}."
    )


def literal_sums(paper: Paper) -> None:
    """Show the results of the literal interpretations."""
    parts = [(net, model, framework) for net in NETS for model in WEIGHTS for framework in FRAMEWORKS]
    losses = [loss for net, model, f in parts for loss in paper.final(name(net, "sum", model), f, "train loss")]
    lost = sum(not math.isfinite(loss) for loss in losses)
    paper.say(
        f"Gradients summed over the {BATCH} samples of a batch, at rate {RATE}: of {len(losses)} runs, with either net, either "
        f"kind of initial weights and either framework, {lost} end with a loss that is not finite. The sum of the "
        f"gradients of single samples equals the gradient of the batch up to {accumulated_gap(paper):.1e} in float64."
    )
    experiment = name(AS_PRINTED, "each sample", "Custom framework")
    cells = [[mean(errors(paper, experiment, framework, part), 2) for framework in FRAMEWORKS] for part in ("train", "test")]
    title = f"Error rate in %, net {AS_PRINTED}, Xavier weights, a step for each sample at rate {RATE} / {BATCH}"
    printed = [f"{PRINTED['Custom framework', part][0]} ± {PRINTED['Custom framework', part][1]}" for part in ("train", "test")]
    rows = [[part, p, *c, *seconds(paper, experiment)] for part, p, c in zip(("train", "test"), printed, cells, strict=True)]
    paper.table(title, ["", "report", *FRAMEWORKS, *SECONDS], rows)


def accumulated_gap(paper: Paper) -> float:
    """Return the difference between the summed gradients of single samples and the gradient of their batch."""
    experiment = custom(paper)
    train, _ = data(experiment, paper.options.seed, torch.float64)
    params = first_params(experiment, paper.options.seed, dtype=torch.float64)
    gradient = fn.value_and_grads(experiment.net, fn.MSE("sum"))
    one_by_one = [gradient(params, train.x[i : i + 1], train.targets[i : i + 1])[1] for i in range(BATCH)]
    total = sum(fn.tree.ravel(grads) for grads in one_by_one)
    return float((total - fn.tree.ravel(gradient(params, train.x[:BATCH], train.targets[:BATCH])[1])).abs().max())


def custom(paper: Paper) -> Experiment:
    """Return the experiment for the report's own framework, with the net as printed."""
    return next(e for e in experiments(paper.options) if e.name == name(AS_PRINTED, "mean", "Custom framework"))


def figure_one(paper: Paper) -> None:
    """Draw the test points, and the output of the net before and after training."""
    experiment, seed = custom(paper), paper.options.seed
    _, test = data(experiment, seed)
    params = first_params(experiment, seed)
    figure, (left, *maps) = plt.subplots(1, 3, figsize=(13, 4.1), layout="constrained")
    points(left, test, "test points", centred=True)
    untrained = grid_map(experiment, lambda x: experiment.net(params, x))
    trained = paper.of(experiment.name, "funcnet", lambda result: result["map"])[:1]
    titles = ["untrained", f"after {experiment.epochs} epochs"]
    shades: Any = None
    for axes, title, grid in zip(maps, titles, [untrained, *trained], strict=False):
        shades = decision_map(axes, grid, title, centred=True)
        if min(map(min, grid)) < 0 < max(map(max, grid)):
            axes.contour(grid, [0.0], extent=(-1, 1, -1, 1), colors="black", linewidths=1.2)
    figure.colorbar(shades, ax=maps, label="output 1 minus output 0", shrink=0.85)
    caption = "Figure 1: test points, and outputs of funcnet's net; the dashed line is the true border, the solid one the net's"
    paper.figure("figure_1.png", caption, figure)


def figure_two(paper: Paper) -> None:
    """Draw mean and deviation of loss and error rates by epoch, for both models, frameworks and nets."""
    figure, rows = plt.subplots(len(NETS), 3, figsize=(13, 7.6), layout="constrained", sharex=True)
    for net, panels in zip(NETS, rows, strict=True):
        _row_of_figure_two(paper, net, panels)
    legend(rows[0][0], fontsize=8)
    for axes in rows[-1]:
        axes.set_xlabel("epoch")
    caption = "Figure 2: mean over the repetitions, and one deviation; funcnet and torch.nn coincide"
    paper.figure("figure_2.png", caption, figure)


def _row_of_figure_two(paper: Paper, net: str, panels: Sequence[Any]) -> None:
    for model, colours in COLOURS.items():
        for framework, style, colour in zip(FRAMEWORKS, ("-", ":"), colours, strict=True):
            curves = _curves(paper, name(net, "mean", model), framework)
            for axes, curve in zip(panels, curves, strict=True):
                band(axes, curve, f"{model}'s weights, in {framework}", colour, style)
    for axes, title in zip(panels, ["training loss", "train error, %", "test error, %"], strict=True):
        axes.set(title=f"{title}, {net}", ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _curves(paper: Paper, experiment: str, framework: str) -> list[list[list[float]]]:
    def error(part: str) -> list[list[float]]:
        runs = paper.curve(experiment, framework, f"{part} accuracy")
        return [[100 * (1 - accuracy) for accuracy in run] for run in runs]

    return [paper.curve(experiment, framework, "loss"), error("train"), error("test")]


def write(paper: Paper) -> None:
    """Make the page."""
    paper.say((__doc__ or "").rpartition("\n\n")[0].replace("Report", "# Report", 1))
    for net in NETS:
        table_three(paper, net)
    table_of_readings(paper)
    for net in NETS:
        table_of_factors(paper, net)
    literal_sums(paper)
    figure_one(paper)
    figure_two(paper)
    paper.gaps(e for e in experiments(paper.options) if ", sum, " not in e.name)


def main(arguments: Sequence[str] | None = None) -> Any:
    """Run the report."""
    return report(NAME, __doc__, str(EPOCHS), RUNS, experiments, write, arguments)


if __name__ == "__main__":
    main()
