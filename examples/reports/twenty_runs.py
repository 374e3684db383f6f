"""Report 004, a module beside torch.nn: 2-25-25-25-2, 200 epochs, batches of 100, rate 0.1, twenty runs of each.

It compares its module with torch.nn for CrossEntropy (Table 1) and MSE (Table 2), without and with a momentum of 0.2. The only
difference is time: its own module takes up to twice as long.

Interpretations, where the report leaves something open:

- The activations are not named. They are ReLU here, as in the code to which the report refers [3].
- The report does not say that the points are standardized, as in that code: the unit square is mapped to [-√3, √3]², so that
  coordinates have mean 0 and variance 1. On the unit square itself the losses are about twice the printed ones.
- The training losses are five to ten times the test losses. They are sums over the last epoch's ten batches of mean losses, while
  a test loss is a single mean. Training also minimizes means. The table of readings shows the alternatives.
- The rows "torch.nn" start from torch.nn's default initial weights, the rows "ours" from Xavier's with zero biases.

funcnet and torch.nn run both kinds of rows from the same weights on the same batches. Then funcnet trains twenty nets at once.

    python -m examples.reports.twenty_runs --out out
"""

import argparse
import functools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator
from torch import Tensor

import funcnet as fn
from examples.reports import parts
from examples.reports.experiment import FRAMEWORKS, POINTS, TRAININGS, Experiment, data, measures, orders
from examples.reports.paper import COLOURS, Paper, band, legend, mean, ratio, report

NAME = "twenty_runs"
EPOCHS, RUNS, RATE, MOMENTUM, BATCH = 200, 20, 0.1, 0.2, 100
MEASURES = ("train loss", "test loss", "train accuracy", "test accuracy")
LOSSES = {"CrossEntropy": (fn.CrossEntropy, "labels"), "MSE": (fn.MSE, "one-hot")}
WEIGHTS = {"ours": "xavier_normal", "torch.nn": "torch"}
PRINTED = {
    ("CrossEntropy", "ours", 0.0): ((0.3578, 0.11), (0.06505, 0.05), (98.35, 1.24), (97.61, 1.37)),
    ("CrossEntropy", "torch.nn", 0.0): ((0.3717, 0.09), (0.05693, 0.03), (98.47, 1.2), (97.65, 1.28)),
    ("CrossEntropy", "ours", MOMENTUM): ((0.3221, 0.10), (0.05463, 0.02), (98.34, 0.99), (97.66, 0.94)),
    ("CrossEntropy", "torch.nn", MOMENTUM): ((0.359, 0.14), (0.0537, 0.023), (98.46, 0.86), (97.74, 0.88)),
    ("MSE", "ours", 0.0): ((0.2308, 0.08), (0.02694, 0.01), (98.6, 0.51), (97.63, 0.77)),
    ("MSE", "torch.nn", 0.0): ((0.2098, 0.07), (0.02619, 0.01), (98.41, 0.72), (97.66, 1.24)),
    ("MSE", "ours", MOMENTUM): ((0.1987, 0.09), (0.02319, 0.01), (98.71, 0.59), (97.95, 0.74)),
    ("MSE", "torch.nn", MOMENTUM): ((0.1631, 0.05), (0.02085, 0.01), (98.25, 0.80), (97.46, 0.95)),
}
READINGS = {"mean": "standard", "mean, unit square": "unit", "batch": "standard", "sum": "standard"}
TAKEN = "mean"
TOGETHER, SINGLES = 20, 3


def experiment(
    loss: str, who: str = "ours", momentum: float = 0.0, reading: str = TAKEN, epochs: int = EPOCHS, runs: str = ""
) -> Experiment:
    """Return the experiment of a row, or another interpretation of it."""
    layers = [fn.Linear(2, 25, initializer=WEIGHTS[who]), fn.ReLU()]
    layers += [fn.Linear(25, 25, initializer=WEIGHTS[who]), fn.ReLU()] * 2
    net = fn.serial(*layers, fn.Linear(25, 2, initializer=WEIGHTS[who]))
    make, target = LOSSES[loss]
    judge, opt = make(reduction=reading.partition(",")[0]), fn.SGD(lr=RATE, momentum=momentum)
    return Experiment(name(loss, who, momentum, reading), net, judge, opt, epochs, BATCH, target, READINGS[reading])


def name(loss: str, who: str, momentum: float, reading: str = TAKEN) -> str:
    """Return the name of an experiment."""
    return ", ".join([loss, who, *["momentum"] * bool(momentum), *[reading] * (reading != TAKEN)])


def experiments(options: argparse.Namespace) -> list[Experiment]:
    """Return the rows of both tables, and other interpretations of their first rows."""
    epochs = options.epochs or EPOCHS
    rows = [experiment(*row, epochs=epochs) for row in PRINTED]
    return rows + [
        experiment(loss, reading=reading, epochs=epochs) for loss in LOSSES for reading in READINGS if reading != TAKEN
    ]


def final(paper: Paper, experiment: str, framework: str, measure: str) -> list[float]:
    """Return a measure of each finished run as printed: training losses summed over batches, accuracies in %."""
    if measure == "train loss":
        return [POINTS // BATCH * curve[-1] for curve in paper.curve(experiment, framework, "loss")]
    return [(100 if "accuracy" in measure else 1) * value for value in paper.final(experiment, framework, measure)]


def tables(paper: Paper, number: int, loss: str) -> None:
    """Add one of the report's tables: losses, accuracies, then seconds."""
    rows = {name(*row): printed for row, printed in PRINTED.items() if row[0] == loss}
    for kind, digits in (("loss", 4), ("accuracy", 2)):
        lines = []
        for row, printed in rows.items():
            cells = [row.partition(", ")[2]]
            for measure in (f"train {kind}", f"test {kind}"):
                middle, deviation = printed[MEASURES.index(measure)]
                cells += [f"{middle} ± {deviation}", *[mean(final(paper, row, f, measure), digits) for f in FRAMEWORKS]]
            lines.append(cells)
        header = [f"{part} {kind}, {source}" for part in ("train", "test") for source in ("report", *FRAMEWORKS)]
        paper.table(f"Table {number}, {loss}: {kind}{' in %' * (kind == 'accuracy')}", ["", *header], lines)
    lines = []
    for row in rows:
        ours, theirs = (paper.seconds(row, framework) for framework in FRAMEWORKS)
        lines.append([row.partition(", ")[2], mean(ours), mean(theirs), ratio(ours, theirs)])
    paper.table(f"{loss}: seconds of training a run", ["", *FRAMEWORKS, "torch.nn / funcnet"], lines)


ADDED = {
    "the sum of the last epoch's batches": lambda result: POINTS / BATCH * result["curves"]["loss"][-1],
    "the mean of the last epoch's batches": lambda result: result["curves"]["loss"][-1],
    "the mean over the points afterwards": lambda result: result["final"]["train loss"],
}


def table_of_readings(paper: Paper) -> None:
    """Compare every interpretation with the printed rows "ours" without momentum, and say which is closest."""
    distances: dict[str, list[float]] = {}
    for loss in LOSSES:
        printed = [middle for middle, _ in PRINTED[loss, "ours", 0.0]]
        rows = [["report", "", *[f"{middle} ± {deviation}" for middle, deviation in PRINTED[loss, "ours", 0.0]], ""]]
        for reading in READINGS:
            row = name(loss, "ours", 0.0, reading)
            others = [final(paper, row, "funcnet", measure) for measure in MEASURES[1:]]
            for added, pick in ADDED.items():
                columns = [paper.of(row, "funcnet", pick), *others]
                away = distance(columns, printed)
                distances.setdefault(f"{reading}; {added}", []).append(away)
                cells = [mean(column, 4 if i < 2 else 2) for i, column in enumerate(columns)]
                rows.append([reading, added, *cells, f"{away:.2f}"])
        paper.table(f"Readings, {loss}, funcnet, no momentum", ["reduction", "training loss", *MEASURES, "distance"], rows)
    closest = min(distances, key=lambda key: sum(distances[key]))
    paper.say(
        "The distance is the mean of |ln(found / printed)| over the two losses and the two error rates. "
        f"The closest reading of both tables is: {closest}."
    )


def distance(columns: Sequence[Sequence[float]], printed: Sequence[float]) -> float:
    """Return the mean of |ln(measured / printed)| over the columns' means; accuracies are converted to error rates."""
    if not all(columns):
        return math.inf
    found = [statistics.mean(column) for column in columns]
    if not all(map(math.isfinite, found)):
        return math.inf
    pairs = [
        *zip(found[:2], printed[:2], strict=True),
        *[(100 - a, 100 - b) for a, b in zip(found[2:], printed[2:], strict=True)],
    ]
    return statistics.mean(abs(math.log(max(a, 1e-12) / b)) for a, b in pairs)


def figure_two(paper: Paper) -> None:
    """Draw mean and deviation of loss and accuracy by epoch for MSE with momentum."""
    row = name("MSE", "ours", MOMENTUM)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for framework, style in zip(FRAMEWORKS, ("-", "--"), strict=True):
        losses = paper.curve(row, framework, "loss")
        band(left, losses, framework, COLOURS[framework], style, POINTS / BATCH)
        band(right, paper.curve(row, framework, "train accuracy"), framework, COLOURS[framework], style, 100)
    left.set(title="training loss, summed over the batches", xlabel="epoch", yscale="log")
    right.set(title="training accuracy, %", xlabel="epoch")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        legend(axes)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    caption = "Figure 2: MSE with momentum, mean and one deviation of the runs; the two frameworks coincide"
    paper.figure("figure_2.png", caption, figure)


class Contender:
    """A contender in turns: a name, a function that trains for an epoch on batches, and the seconds so far."""

    def __init__(self, name: str, epoch: Callable[[Any], Any]) -> None:
        """Start with no time."""
        self.name, self.epoch, self.seconds = name, epoch, 0.0

    def turn(self, batches: Any) -> None:
        """Train for an epoch and add the time; reading the values waits until the work is done."""
        began = time.perf_counter()
        torch.stack(self.epoch(batches)).tolist()
        self.seconds += time.perf_counter() - began


def single(framework: str, of: Experiment, params: Any) -> tuple[Callable[[Any], Any], Callable[[], Any]]:
    """Return a function that trains one net for an epoch, and its params."""
    train, _, current = TRAININGS[framework](of, params)
    return train, current


def together(
    of: Experiment, params: Any, arrange: Callable[[Any], Any] | None = None
) -> tuple[Callable[[Any], Any], Callable[[], Any]]:
    """Return the same for all members at once, with a plain or compiled step; it trains copies, like the single nets."""
    opt, params = fn.donate(of.opt), fn.tree.map(torch.clone, params)
    mode = torch.inference_mode if arrange is None else torch.no_grad  # compiled code refuses inference tensors
    step = (arrange or (lambda step: step))(fn.train_step(fn.ensemble(of.net, TOGETHER), fn.ensemble(of.loss, TOGETHER), opt))
    state = opt.init(params)

    def epoch(batches: Any) -> list[Tensor]:
        nonlocal params, state
        values = []
        with mode():
            for batch in batches:
                params, state, value = step(params, state, *batch)
                values.append(value)
        return values

    return epoch, lambda: params


def bare(params: Any, x: Tensor) -> Tensor:
    """Call only the kernels of a step of all members, without the loss; this is the lower limit of a step's time."""
    ws, bs = ([layer[part] for layer in params if layer] for part in ("weight", "bias"))
    hs = [torch.relu(torch.addmm(bs[0].reshape(-1, 1), ws[0].flatten(0, 1), x.t())).view(TOGETHER, -1, len(x))]
    for w, b in zip(ws[1:], bs[1:], strict=True):
        hs.append(torch.relu(torch.baddbmm(b.unsqueeze(2), w, hs[-1])))
    g, grads = hs[-1], []
    for w, h in zip(ws[:0:-1], hs[-2::-1], strict=True):
        grads += [torch.bmm(g, h.mT), g.sum(2)]
        g = torch.ops.aten.threshold_backward(torch.bmm(w.mT, g), h, 0)
    grads += [torch.nn.functional.linear(g.flatten(0, 1), x.t().contiguous()), g.sum(2)]
    moved = [torch.add(grad, grad, alpha=MOMENTUM) for grad in grads]
    return [torch.add(grad, grad, alpha=-RATE) for grad in moved][-1][0, 0]


def compiled(of: Experiment, params: Any, batch: Any) -> tuple[Contender, float] | None:
    """Return the compiled training of the members and the seconds to compile it; ``None`` without a compiler."""
    contender = Contender("ensemble, compiled", together(of, params, fn.compile)[0])
    try:
        contender.turn([batch])
    except Exception as error:
        print(f"the step of all members could not be compiled here: {type(error).__name__}")
        return None
    taken, contender.seconds = contender.seconds, 0.0
    return contender, taken


def timing(options: argparse.Namespace, loss: str) -> dict[str, Any]:
    """Train single nets and all members in turns, and return seconds, test accuracies and compile time."""
    of = experiment(loss, momentum=MOMENTUM, epochs=options.epochs or EPOCHS)
    train, test = data(of, options.seed, device=options.device)
    params = fn.tree.to(fn.ensemble(of.net, TOGETHER).init(fn.fold_in(options.seed, 1)), options.device)
    members = [fn.tree.map(lambda leaf, i=i: leaf[i], params) for i in range(SINGLES)]
    contenders = [Contender(f"one in {f}, run {i}", single(f, of, p)[0]) for f in FRAMEWORKS for i, p in enumerate(members)]
    epoch, current = together(of, params)
    contenders.append(Contender("ensemble", epoch))
    contenders.append(Contender("kernels", lambda batches: [bare(params, x) for x, _ in batches]))
    batch = next(orders(of, options.seed, 1, options.device))[0]
    made = compiled(of, params, (train.x[batch], train.targets[batch])) if options.epochs is None else None
    contenders += [made[0]] if made else []
    for order in orders(of, options.seed, of.epochs, options.device):
        batches = [(train.x[rows], train.targets[rows]) for rows in order]
        for contender in contenders:
            contender.turn(batches)
    accuracies = [measures(of, y, test.labels)["accuracy"] for y in fn.ensemble(of.net, TOGETHER)(current(), test.x)]
    return {"seconds": {one.name: one.seconds for one in contenders}, "accuracies": accuracies, "compiling": made and made[1]}


def agreement(options: argparse.Namespace, loss: str, dtype: torch.dtype) -> float:
    """Return the largest difference of a weight after an epoch between members trained at once and separately."""
    of = experiment(loss, momentum=MOMENTUM)
    train, _ = data(of, options.seed, dtype)
    rng = fn.fold_in(options.seed, 1)
    batches = [(train.x[rows], train.targets[rows]) for rows in next(orders(of, options.seed, 1, "cpu"))]
    epoch, current = together(of, fn.tree.cast(fn.ensemble(of.net, TOGETHER).init(rng), dtype))
    epoch(batches)
    gaps = []
    for i in range(TOGETHER):
        alone, own = single("funcnet", of, fn.tree.cast(of.net.init(fn.fold_in(rng, i)), dtype))
        alone(batches)
        member = fn.tree.map(lambda leaf, i=i: leaf[i], current())
        gaps.append(float((fn.tree.ravel(member) - fn.tree.ravel(own())).abs().max()))
    return max(gaps)


def table_of_members(paper: Paper) -> None:
    """Compare the times and the weights of twenty nets trained at once and of three trained separately."""
    rows, verdicts, options = [], [], paper.options
    for loss in LOSSES:
        what = f"turns of {experiment(loss, momentum=MOMENTUM)!r} {options.epochs} {options.seed} {options.device}"
        found = paper.once(what, functools.partial(timing, options, loss))
        if found is None:
            continue
        taken = found["seconds"]
        three: dict[str, float] = {f: sum(taken[f"one in {f}, run {i}"] for i in range(SINGLES)) for f in FRAMEWORKS}
        kinds = [("20 at once", "ensemble"), ("20 at once, compiled", "ensemble, compiled"), ("20 nets' kernels", "kernels")]
        rows += [[loss, f"three alone, {f}", f"{s:.3f}", *_in_singles(s, three), ""] for f, s in three.items()]
        for words, key in [(words, key) for words, key in kinds if key in taken]:
            compiling = f"{found['compiling']:.1f}" if "compiled" in key else ""
            rows.append([loss, words, f"{taken[key]:.3f}", *_in_singles(taken[key], three), compiling])
        verdicts.append(_verdict(loss, taken, three, found["accuracies"]))
    header = ["loss", "what", "seconds", "in runs of funcnet alone", "in runs of torch.nn alone", "seconds to compile"]
    paper.table(f"{TOGETHER} runs at once: training with momentum, in turns by epochs, on one thread", header, rows)
    gaps = {dtype: max(agreement(options, loss, dtype) for loss in LOSSES) for dtype in (torch.float32, torch.float64)}
    most = " and ".join(f"{gap:.1e} in {str(dtype).removeprefix('torch.')}" for dtype, gap in gaps.items())
    paper.say(
        " ".join(
            [*verdicts, f"After an epoch no weight of a member differs from that of the net trained alone by more than {most}."]
        )
    )


def _in_singles(seconds: float, three: dict[str, float]) -> list[str]:
    return [f"{SINGLES * seconds / three[framework]:.2f}" for framework in FRAMEWORKS]


def _verdict(loss: str, taken: dict[str, float], three: dict[str, float], accuracies: Sequence[float]) -> str:
    """Describe the training time of the members and its lower limit."""
    times = [f"{'less' if taken['ensemble'] < three[f] else 'more'} than three of {f} alone" for f in FRAMEWORKS]
    return (
        f"{loss}: {TOGETHER} runs at once take {times[0]} and {times[1]}. Only their kernels, called in order without a loss, "
        f"take the time of {SINGLES * taken['kernels'] / three['funcnet']:.2f} runs of "
        f"funcnet. The members' test accuracy is {mean(accuracies, 2, 100)} %."
    )


def write(paper: Paper) -> None:
    """Make the page."""
    paper.say("# Report 004: twenty runs against torch.nn")
    paper.say(
        "Read as nets with ReLU on standardized points, losses that are means, and a training loss that is the sum of the "
        'ten batches\' losses of the last epoch. Rows "torch.nn" start from torch.nn\'s initial weights, rows "ours" from '
        "Xavier's; funcnet and torch.nn each run both, from the same weights on the same batches."
    )
    for number, loss in enumerate(LOSSES, 1):
        tables(paper, number, loss)
    table_of_readings(paper)
    figure_two(paper)
    parts.owed(paper, [experiment(*row) for row in PRINTED])
    table_of_members(paper)
    paper.gaps(experiment(*row) for row in PRINTED)


def main(arguments: Sequence[str] | None = None) -> Any:
    """Run the report."""
    return report(NAME, __doc__, str(EPOCHS), RUNS, experiments, write, arguments)


if __name__ == "__main__":
    main()
