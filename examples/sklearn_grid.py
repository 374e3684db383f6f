"""Grid search: scikit-learn chooses the learning rates of four nets for the digits by cross-validation.

``Classifier`` is an estimator, and optimizers are values whose fields are parameters: ``classifier__optimizer__lr``. A fifth of
the digits is set aside for a single test at the end: of the best model with each net, and of scikit-learn's MLP and support
vector machine.

    python -m examples.sklearn_grid --epochs 30 --seed 0 --out out
"""

import time
from argparse import Namespace
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import SVC

import funcnet as fn
from examples import common
from funcnet.interop.sklearn import Classifier

RATES = [1e-3, 3e-3, 1e-2]
NETS = {
    "linear": fn.Linear(None, 10),
    "perceptron": fn.mlp([None, 100, 10]),
    "with dropout": fn.mlp([None, 100, 100, 10], dropout=0.2),
    "convolution": fn.serial(
        fn.Unflatten(-1, (1, 8, 8)),
        *[fn.Conv2d(None, 16, 3, bias=False), fn.BatchNorm2d(None), fn.ReLU()],
        *[fn.Flatten(), fn.Dropout(0.3), fn.Linear(None, 10)],
    ),
}


def searched(net: fn.Layer, data: Any, options: Namespace) -> Any:
    """Return the search over learning rates for one net, fitted with threefold cross-validation."""
    classifier = Classifier(net, epochs=options.epochs, key=options.seed, dtype="float32")
    search = GridSearchCV(make_pipeline(MinMaxScaler(), classifier), {"classifier__optimizer__lr": RATES}, cv=3)
    return search.fit(*data)


def row(name: str, model: Any, chosen: Any, validated: float | None, test: Any, began: float) -> Any:
    """Print and return a row of the table: the choice, the accuracies in percent, and the seconds since it began."""
    found = {"name": name, "chosen": chosen, "validated": validated, "test": 100 * model.score(*test)}
    shown = f"{validated:9.1f} %" if validated else " " * 11
    print(f"{name:14} {chosen:8} {shown} {found['test']:9.1f} % {time.perf_counter() - began:8.1f} s")
    return found


def picture(scores: Any, rows: Any) -> Figure:
    """Draw the cross-validated accuracy of each net by learning rate, and the test accuracies."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for name, of_rates in scores.items():
        left.plot(RATES, [100 * score for score in of_rates], marker="o", label=name)
    left.set(xscale="log", xlabel="learning rate", ylabel="accuracy in %", title="cross-validation")
    left.legend()
    right.barh([one["name"] for one in rows], [one["test"] for one in rows], color=["C0"] * len(scores) + ["C7"] * 2)
    right.set(title="test digits", xlabel="accuracy in %", xlim=(min(90, min(one["test"] for one in rows) - 1), 100))
    right.invert_yaxis()
    return figure


def main(given: list[str] | None = None) -> None:
    """Search for each net, print the table, and save the picture."""
    options = common.arguments(__doc__, given, resumable=False, epochs=30)
    x, y = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.2, random_state=options.seed, stratify=y)
    print(f"{'':14} {'lr':8} {'validation':>11} {'test':>11} {'time':>10}")
    rows, scores = [], {}
    for name, net in NETS.items():
        began = time.perf_counter()
        search = searched(net, (x, y), options)
        scores[name] = search.cv_results_["mean_test_score"]
        chosen = search.best_params_["classifier__optimizer__lr"]
        rows.append(row(name, search, f"{chosen:g}", 100 * search.best_score_, (x_test, y_test), began))
    for name, model in {"sklearn MLP": MLPClassifier(random_state=options.seed, max_iter=1000), "sklearn SVC": SVC()}.items():
        began = time.perf_counter()
        rows.append(row(name, make_pipeline(MinMaxScaler(), model).fit(x, y), "", None, (x_test, y_test), began))
    common.save(picture(scores, rows), options, "sklearn_grid")


if __name__ == "__main__":
    main()
