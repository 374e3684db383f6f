"""Report 003, eighteen networks: 2-25-25-25-1, batches of 5, three activations, two losses and three kinds of steps.

Tables 1 to 3 have training and test accuracy of {Tanh, ReLU, LeakyReLU} × {MSE, BCE} × {SGD with momentum for 300 epochs, Adam
for 150, None for 300}. Figures 2 to 4 show the outputs of the six nets with each activation.

Interpretations, where the report contains errors or leaves something open:

- The last activation is Sigmoid, the fourth activation that the report lists: BCE needs probabilities, and the labels are 0 and
  1.
- BCE is printed with prediction and label exchanged and without a mean, and its gradient with respect to the logits; torch.nn's
  BCE is meant. The gradients of both losses are printed as sums over the batch, one number for all rows; a gradient for each row
  is meant.
- SGD is printed as a step along the gradient, which would not use the velocity v ← m v + (1 - m) g: it steps along v.
- Adam's second moment is printed as an average of gᵗ, and its corrections with 1 - β²: g² and 1 - βᵗ are meant.
- "None" is a plain step down the gradient.
- Neither rates nor momentum are given. RATES are the powers of 10 with which all eighteen nets train well; the momentum m is 0.9,
  and Adam's β are torch.optim's defaults. With the rates in the code published by one of the authors (0.001 for SGD and None,
  0.01 for Adam), Tanh with MSE learns too slowly, and Tanh with Adam is unstable: that code sums gradients, while the report
  means averages.
- As in that code, the points are standardized: the unit square is mapped to [-√3, √3]², so that coordinates have variance 1.

    python -m examples.reports.eighteen_networks --out out
"""

import argparse
from collections.abc import Sequence
from typing import Any

import attrs
from matplotlib import pyplot as plt

import funcnet as fn
from examples.reports import parts
from examples.reports.experiment import FRAMEWORKS, Experiment, data
from examples.reports.paper import Paper, decision_map, mean, points, ratio, report

NAME = "eighteen_networks"
BATCH, RUNS = 5, 1
RATES = {"SGD": 0.01, "Adam": 0.001, "None": 0.01}
ACTIVATIONS = {"Tanh": fn.Tanh(), "ReLU": fn.ReLU(), "LeakyReLU": fn.LeakyReLU(0.01)}
LOSSES = {"MSE": fn.MSE(), "BCE": fn.BCE()}
STEPS = {
    "SGD": (fn.SGD(lr=RATES["SGD"], momentum=0.9, averaged=True), 300),
    "Adam": (fn.Adam(lr=RATES["Adam"]), 150),
    "None": (fn.SGD(lr=RATES["None"]), 300),
}
ROWS = [(loss, steps) for loss in LOSSES for steps in STEPS]
PRINTED = {
    "Tanh": ((98.6, 94.0), (97.8, 93.1), (98.5, 94.8), (98.1, 93.2), (95.9, 92.4), (98.5, 94.7)),
    "ReLU": ((97.8, 94.3), (98.6, 94.2), (97.4, 94.1), (97.2, 93.8), (98.1, 94.0), (97.8, 93.1)),
    "LeakyReLU": ((98.5, 94.8), (97.6, 94.7), (97.9, 93.8), (97.7, 93.6), (98.3, 94.3), (97.2, 92.5)),
}


def experiment(activation: str, loss: str, steps: str, epochs: int | None = None) -> Experiment:
    """Return one of the eighteen experiments."""
    a, (opt, usual) = ACTIVATIONS[activation], STEPS[steps]
    net = fn.serial(fn.Linear(2, 25), a, fn.Linear(25, 25), a, fn.Linear(25, 25), a, fn.Linear(25, 1), fn.Sigmoid())
    return Experiment(f"{activation}, {loss}, {steps}", net, LOSSES[loss], opt, epochs or usual, BATCH, "bit", "standard")


def experiments(options: argparse.Namespace) -> list[Experiment]:
    """Return all eighteen experiments."""
    return [experiment(activation, *row, options.epochs) for activation in ACTIVATIONS for row in ROWS]


def percent(paper: Paper, name: str, framework: str, part: str) -> str:
    """Return an accuracy in % as a cell."""
    return mean(paper.final(name, framework, f"{part} accuracy"), 1, 100)


def table(paper: Paper, number: int, activation: str) -> None:
    """Add one of the report's tables, and the seconds beside it."""
    lines = []
    for row, printed in zip(ROWS, PRINTED[activation], strict=True):
        name = ", ".join([activation, *row])
        cells = [", ".join(row)]
        for part, figure in zip(("train", "test"), printed, strict=True):
            cells += [str(figure), *[percent(paper, name, framework, part) for framework in FRAMEWORKS]]
        ours, theirs = (paper.seconds(name, framework) for framework in FRAMEWORKS)
        lines.append([*cells, mean(ours, 2), mean(theirs, 2), ratio(ours, theirs)])
    header = [f"{part}, {source}" for part in ("train", "test") for source in ("report", *FRAMEWORKS)]
    seconds = [*[f"{framework} s" for framework in FRAMEWORKS], "torch.nn / funcnet"]
    paper.table(f"Table {number}, activation {activation}: accuracy in %", ["criterion, optimizer", *header, *seconds], lines)


def conclusions(paper: Paper) -> None:
    """Compare the report's conclusions with the results: which loss and which steps are best on average."""
    for title, kinds in (("loss", LOSSES), ("steps", STEPS)):
        rows = []
        for kind in kinds:
            chosen = [(a, row, i) for a in ACTIVATIONS for i, row in enumerate(ROWS) if kind in row]
            printed = [PRINTED[a][i][1] for a, _, i in chosen]
            found = [
                [100 * v for a, row, _ in chosen for v in paper.final(", ".join([a, *row]), framework, "test accuracy")]
                for framework in FRAMEWORKS
            ]
            rows.append([kind, mean(printed, 2), *[mean(values, 2) for values in found]])
        paper.table(f"Test accuracy in % by {title}, mean and deviation over the nets", [title, "report", *FRAMEWORKS], rows)


def figure_one(paper: Paper) -> None:
    """Draw the test points with their labels."""
    one = attrs.evolve(experiment("Tanh", "MSE", "SGD"), square="unit")
    _, test = data(one, paper.options.seed)
    figure, axes = plt.subplots(figsize=(4.4, 4.4), layout="constrained")
    points(axes, test, "")
    paper.figure("figure_1.png", "Figure 1: test points with their labels; the dashed line is the border of the disk", figure)


def maps(paper: Paper, number: int, activation: str) -> None:
    """Draw the outputs of the six nets of an activation, funcnet above and torch.nn below."""
    figure, panels = plt.subplots(2, len(ROWS), figsize=(15, 5.6), layout="constrained")
    shades = None
    for framework, line in zip(FRAMEWORKS, panels, strict=True):
        for row, axes in zip(ROWS, line, strict=True):
            name = ", ".join([activation, *row])
            axes.set(title=", ".join(row), xticks=[], yticks=[])
            for grid in paper.of(name, framework, lambda result: result["map"])[:1]:
                said = [[2 * value for value in values] for values in grid]
                test = f"test {percent(paper, name, framework, 'test').partition(' ')[0]} %"
                shades = decision_map(axes, said, f"{', '.join(row)}\n{test}")
                if min(map(min, grid)) < 0 < max(map(max, grid)):
                    axes.contour(grid, [0.0], extent=(0, 1, 0, 1), colors="black", linewidths=1)
        line[0].set_ylabel(framework)
    if shades is not None:
        bar = figure.colorbar(shades, ax=panels, shrink=0.7)
        bar.set_ticks([-1, 0, 1], labels=["-1, outside", "0", "1, inside"])
        bar.set_label("2 × output - 1")
    borders = "the dashed line is the true border, the solid one theirs"
    caption = f"Figure {number}: outputs of the six nets with {activation}; {borders}"
    paper.figure(f"figure_{number}.png", caption, figure)


def write(paper: Paper) -> None:
    """Make the page."""
    paper.say("# Report 003: eighteen networks")
    rates = ", ".join(f"{rate} for {steps}" for steps, rate in RATES.items())
    paper.say(
        f"Sigmoid is the last activation, points are standardized, and the rates, which the report does not give, are {rates}."
    )
    figure_one(paper)
    for number, activation in enumerate(ACTIVATIONS, 1):
        table(paper, number, activation)
        maps(paper, number + 1, activation)
    conclusions(paper)
    parts.owed(paper, experiments(paper.options))
    paper.gaps(experiments(paper.options))


def main(arguments: Sequence[str] | None = None) -> Any:
    """Run the report."""
    return report(NAME, __doc__, "300, or 150 with Adam,", RUNS, experiments, write, arguments)


if __name__ == "__main__":
    main()
