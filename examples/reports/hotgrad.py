"""Report 002, Hotgrad: layers made of operations, a 2-25-25-25-2 net that ends in Tanh, and other classifiers.

Its net, trained with targets of ±1 and the mean squared error, classified about 98 % of the test points correctly, slightly
more than any of its baselines. It built Linear from MatMul and Add, and its last paragraph asks for a backward pass that skips
gradients that are not needed.

Interpretations, where the report contains errors or leaves something open:

- The root in the disk's radius covers 2π: 1/√(2π), half the area of the square.
- The step is p - η ∇L, not p + η ∇L.
- The report does not specify the activation of the hidden layers (here ReLU), the initial weights (Xavier), the rate (0.02), the
  batch size (100), the epochs (500), and whether the inputs are centered: here the square is mapped to [-1, 1]² for every model.
  These settings were chosen on other draws of the points.
- Its comparison figure is missing from the text. The baselines are scikit-learn's, with their defaults.

    python -m examples.reports.hotgrad --out out
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib import pyplot as plt
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures
from sklearn.svm import SVC
from tqdm import tqdm

import funcnet as fn
from examples.reports import operations
from examples.reports.experiment import FRAMEWORKS, Experiment, data, first_params
from examples.reports.operations import VERBS, as_operations, linear_of_operations
from examples.reports.paper import Paper, decision_map, legend, mean, points, ratio, report

NAME, EXPERIMENT = "hotgrad", "2-25-25-25-2"
EPOCHS, RUNS, RATE, BATCH = 500, 10, 0.02, 100
SIZES = [(2, 25), (25, 25), (25, 25), (25, 2)]
PRINTED = "about 98"
OPERATIONS, FEATURES = "funcnet, Linear of operations, fn.fit", "logistic regression, degree 2"
BASELINES: dict[str, Callable[[int], Any]] = {
    "k-nearest neighbours": lambda seed: KNeighborsClassifier(),
    "random forest": lambda seed: RandomForestClassifier(random_state=seed),
    "logistic regression": lambda seed: LogisticRegression(),
    FEATURES: lambda seed: make_pipeline(PolynomialFeatures(2), LogisticRegression()),
    "linear SVM": lambda seed: SVC(kernel="linear"),
    "RBF SVM": lambda seed: SVC(),
}


def network(linear: Callable[[int, int], fn.Layer]) -> fn.Layer:
    """Return the report's net, with either kind of Linear."""
    hidden = [layer for size in SIZES[:-1] for layer in (linear(*size), fn.ReLU())]
    return fn.serial(*hidden, linear(*SIZES[-1]), fn.Tanh())


LOSS, OPT = fn.MSE(), fn.SGD(lr=RATE)


def experiments(options: argparse.Namespace) -> list[Experiment]:
    """Return the only net of the report."""
    epochs = options.epochs or EPOCHS
    return [Experiment(EXPERIMENT, network(fn.Linear), LOSS, OPT, epochs, BATCH, "signs", "centred")]


Scores = dict[str, float]


def fitted(experiment: Experiment, seed: int) -> Scores:
    """Train the net of operations with ``fn.fit`` from the initial weights of the others."""
    net = network(linear_of_operations)
    train, test = data(experiment, seed)
    done = fn.fit(
        net,
        LOSS,
        OPT,
        (train.x, train.targets),
        epochs=experiment.epochs,
        batch_size=BATCH,
        key=seed,
        params=as_operations(first_params(experiment, seed)),
        progress=False,
    )
    scores = {part: float(fn.accuracy(net(done.params, d.x), d.labels)) for part, d in (("train", train), ("test", test))}
    return scores | {"seconds": sum(done.history["seconds"])}


def baseline(experiment: Experiment, name: str, seed: int) -> Scores:
    """Fit one of scikit-learn's classifiers to the same points."""
    (x, labels), (test_x, test_labels) = ((d.x.numpy(), d.labels.numpy()) for d in data(experiment, seed))
    model = BASELINES[name](seed)
    began = time.perf_counter()
    model.fit(x, labels)
    seconds = time.perf_counter() - began
    return {"train": float(model.score(x, labels)), "test": float(model.score(test_x, test_labels)), "seconds": seconds}


def all_scores(paper: Paper) -> dict[str, list[Scores]]:
    """Return the scores of every model, one for each repetition that has finished."""
    (experiment,) = experiments(paper.options)

    def of_run(result: Any) -> Scores:
        return {part: result["final"][f"{part} accuracy"] for part in ("train", "test")} | {"seconds": result["seconds"]}

    scores: dict[str, list[Scores]] = {f: paper.of(EXPERIMENT, f, of_run) for f in FRAMEWORKS}
    makers: dict[str, Callable[[int], Scores]] = {OPERATIONS: lambda seed: fitted(experiment, seed)}
    makers |= {name: functools.partial(baseline, experiment, name) for name in BASELINES}
    for name, make in tqdm(makers.items(), desc="other models", unit="model"):
        what = [(f"{name} {experiment!r} {seed}", seed) for seed in paper.seeds()]
        found = [paper.once(words, functools.partial(make, seed)) for words, seed in what]
        scores[name] = [one for one in found if one]
    return scores


def table_of_accuracies(paper: Paper, scores: dict[str, list[Scores]]) -> None:
    """Compare the net in both frameworks with the report, and all models with each other."""
    column = {key: [[one[key] for one in scores[f]] for f in FRAMEWORKS] for key in ("train", "test", "seconds")}
    cells = {key: [mean(c, 2, 100 if key != "seconds" else 1) for c in pair] for key, pair in column.items()}
    rows = [["train accuracy, %", "", *cells["train"], ""], ["test accuracy, %", PRINTED, *cells["test"], ""]]
    rows.append(["seconds", "", *cells["seconds"], f"{ratio(*column['seconds'])} times"])
    paper.table("The net, 2-25-25-25-2 ending in Tanh", ["measure", "report", *FRAMEWORKS, "torch.nn / funcnet"], rows)
    rows = [
        [name, *[mean([one[part] for one in ones], 2, 100) for part in ("train", "test")], mean([one["seconds"] for one in ones])]
        for name, ones in scores.items()
    ]
    paper.table("Comparison of the models", ["model", "train accuracy, %", "test accuracy, %", "seconds"], rows)
    middles = {name: 100 * statistics.mean(one["test"] for one in ones) for name, ones in scores.items() if ones}
    if middles.keys() >= {"funcnet", *BASELINES}:
        best = max([name for name in BASELINES if name != FEATURES], key=lambda name: middles[name])
        ahead, behind = (middles["funcnet"] - middles[name] for name in (best, FEATURES))
        paper.say(
            f"funcnet's mean test accuracy minus the best baseline's on the coordinates only, {best}: {ahead:+.2f} points; "
            f"minus the accuracy of {FEATURES}, for which the disk is linear: {behind:+.2f} points."
        )


def figure(paper: Paper, scores: dict[str, list[Scores]]) -> None:
    """Draw the training points, funcnet's map, and the accuracies as bars."""
    (experiment,) = experiments(paper.options)
    train, _ = data(experiment, paper.options.seed)
    drawing, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4.2), layout="constrained", width_ratios=(1, 1, 1.5))
    points(left, train, "training points", centred=True)
    for grid in paper.of(EXPERIMENT, "funcnet", lambda run: run["map"])[:1]:
        shades = decision_map(middle, grid, "funcnet's decision map", centred=True)
        drawing.colorbar(shades, ax=middle, label="output 1 minus output 0", shrink=0.85)
    finished = {name: ones for name, ones in scores.items() if ones}
    for offset, part, colour in ((-0.2, "train", "tab:gray"), (0.2, "test", "tab:red")):
        columns = [[100 * one[part] for one in ones] for ones in finished.values()]
        deviations = [statistics.stdev(c) if len(c) > 1 else 0.0 for c in columns]
        spread = deviations if any(deviations) else None
        places = [i + offset for i in range(len(columns))]
        bars = right.barh(places, list(map(statistics.mean, columns)), 0.38, xerr=spread, color=colour, label=part, capsize=2)
        right.bar_label(bars, fmt="%.1f", padding=5, fontsize=8)
    right.set(title="accuracy, %", yticks=range(len(finished)), yticklabels=list(finished), xlim=(0, 112))
    right.invert_yaxis()
    legend(right, "line", loc="upper center", bbox_to_anchor=(0.5, -0.07), ncols=2, frameon=False)
    paper.figure("figure.png", "The points, funcnet's map, and the accuracy of every model, mean and deviation", drawing)


def write(paper: Paper) -> None:
    """Make the page."""
    paper.say((__doc__ or "").rpartition("\n\n")[0].replace("Report", "# Report", 1))
    scores = all_scores(paper)
    table_of_accuracies(paper, scores)
    paper.gaps(experiments(paper.options))
    figure(paper, scores)
    train, _ = data(experiments(paper.options)[0], paper.options.seed)
    paper.say(operations.same_numbers(network, LOSS, OPT, (train.x, train.targets), BATCH))
    paper.table(
        "Gradients that are sums", ["gradient of Σ y", "by vjp", "by central differences"], operations.sums_of_gradients()
    )
    header = ["node", *[f"asked by the graph's `{verb}`" for verb in VERBS]]
    paper.table("No gradients where none are needed", header, operations.only_what_is_needed())
    paper.say("**Error messages**\n\n```\n" + "\n".join(operations.errors(network(fn.Linear))) + "\n```")


def main(arguments: Sequence[str] | None = None) -> Any:
    """Run the report."""
    return report(NAME, __doc__, f"(none is given, {EPOCHS} are taken)", RUNS, experiments, write, arguments)


if __name__ == "__main__":
    main()
