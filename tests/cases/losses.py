"""Losses as layers, and nets that end in one."""

from typing import Any

import torch

import funcnet as fn
from cases.making import KINKS, LARGE, Case, between, case, normal

REDUCTIONS = ("mean", "sum", "batch", "none")
LABELS, CLASSES = torch.tensor([0, 2, 1, 2]), torch.tensor([[0, 1, 2], [2, 2, 0]])
WEIGHT = (0.5, 2.0, 1.5)


def loss(criterion: fn.Loss, y: Any, target: Any) -> Case:
    return case(criterion.as_layer(), (y, target))


REGRESSION = {
    f"{kind.__name__} {reduction}": loss(kind(reduction), normal(4, 3), normal(4, 3))
    for kind in (fn.MSE, fn.L1, fn.L2)
    for reduction in REDUCTIONS
} | {
    "MSE of vectors": loss(fn.MSE(), normal(4), normal(4)),
    "MSE of numbers": loss(fn.MSE("batch"), normal(), normal()),
    "MSE on 3 axes": loss(fn.MSE("batch"), normal(2, 3, 4), normal(2, 3, 4)),
    "MSE of integers": loss(fn.MSE(), normal(4, 3), torch.arange(12).reshape(4, 3)),
    "L1 on its kink": loss(fn.L1(), KINKS, torch.zeros(2, 5)),
    "L2 of booleans": loss(fn.L2("none"), normal(4), LABELS > 1),
    "L2 of one row": loss(fn.L2(), normal(1, 3), normal(1, 3)),
}

BINARY = (
    {f"BCE {reduction}": loss(fn.BCE(reduction), between(0.1, 0.9, 4, 3), between(0.1, 0.9, 4, 3)) for reduction in REDUCTIONS}
    | {
        f"BCEWithLogits {reduction}": loss(fn.BCEWithLogits(reduction), normal(4, 3), between(0.1, 0.9, 4, 3))
        for reduction in REDUCTIONS
    }
    | {
        "BCE of integers": loss(fn.BCE(), between(0.1, 0.9, 4), LABELS // 2),
        "BCE of booleans": loss(fn.BCE("none"), between(0.1, 0.9, 4, 1), LABELS[:, None] > 1),
        "BCEWithLogits of integers": loss(fn.BCEWithLogits(), normal(4), LABELS // 2),
        "BCEWithLogits of large numbers": loss(fn.BCEWithLogits("sum"), LARGE, between(0.1, 0.9, 3, 4)),
        "BCEWithLogits at 0": loss(fn.BCEWithLogits("sum"), torch.zeros(2, 3), between(0.1, 0.9, 2, 3)),
        "BCEWithLogits weighted": loss(fn.BCEWithLogits(pos_weight=3.0), normal(4, 3), between(0.1, 0.9, 4, 3)),
        "BCEWithLogits weighted by column": loss(fn.BCEWithLogits("none", WEIGHT), normal(4, 3), between(0.1, 0.9, 4, 3)),
    }
)

ENTROPY = (
    {f"CrossEntropy {reduction}": loss(fn.CrossEntropy(reduction=reduction), normal(4, 3), LABELS) for reduction in REDUCTIONS}
    | {
        f"CrossEntropy of probabilities, {reduction}": loss(
            fn.CrossEntropy(reduction=reduction), normal(4, 3), between(0.1, 0.9, 4, 3)
        )
        for reduction in REDUCTIONS
    }
    | {
        f"CrossEntropy with all options, {reduction}": loss(fn.CrossEntropy(WEIGHT, 1, reduction, 0.2), normal(4, 3), LABELS)
        for reduction in REDUCTIONS
    }
    | {
        "CrossEntropy weighted": loss(fn.CrossEntropy(WEIGHT), normal(4, 3), LABELS),
        "CrossEntropy weighted by 0": loss(fn.CrossEntropy((0.0, 1.0, 2.0)), normal(4, 3), LABELS),
        "CrossEntropy, all ignored": loss(fn.CrossEntropy(ignore_index=2), normal(2, 3), torch.tensor([2, 2])),
        "CrossEntropy smoothed": loss(fn.CrossEntropy(label_smoothing=0.3), normal(4, 3), LABELS),
        "CrossEntropy of one row": loss(fn.CrossEntropy(), normal(1, 3), LABELS[:1]),
        "CrossEntropy without batch": loss(fn.CrossEntropy(), normal(3), LABELS[1]),
        "CrossEntropy on 3 axes": loss(fn.CrossEntropy(WEIGHT, reduction="batch"), normal(2, 3, 3), CLASSES),
        "CrossEntropy of large numbers": loss(fn.CrossEntropy(reduction="sum"), LARGE, torch.tensor([0, 1, 3])),
        "CrossEntropy of probabilities, all options": loss(
            fn.CrossEntropy(WEIGHT, label_smoothing=0.2), normal(2, 3, 2), between(0.1, 0.9, 2, 3, 2)
        ),
    }
)

DIVERGENCE = {
    f"GaussianKL {reduction}": loss(fn.GaussianKL(reduction), (normal(4, 3), normal(4, 3)), (normal(4, 3), normal(4, 3)))
    for reduction in REDUCTIONS
} | {
    "GaussianKL from the standard normal": loss(fn.GaussianKL("batch"), (normal(4, 3), normal(4, 3)), None),
    "GaussianKL of numbers": loss(fn.GaussianKL(), (normal(4), normal(4)), (normal(4), normal(4))),
}

TRAINING = {
    "net with loss": case(
        fn.serial(
            fn.parallel(fn.serial(fn.Linear(3, 5), fn.Tanh(), fn.Linear(5, 3)), fn.Identity()), fn.CrossEntropy().as_layer()
        ),
        (normal(4, 3), LABELS),
    ),
    "graph with two losses": case(
        fn.graph(
            "x",
            "t",
            h=(fn.Linear(3, 2), "x"),
            one=(fn.MSE().as_layer(), "h", "t"),
            two=(fn.L2("batch").as_layer(), "h", "t"),
            value=(fn.Add(), "one", "two"),
        ),
        (normal(4, 3), normal(4, 2)),
    ),
}

VOCABULARY = {
    f"LinearCrossEntropy {reduction}": loss(fn.LinearCrossEntropy(reduction=reduction), (normal(4, 2), normal(3, 2)), LABELS)
    for reduction in REDUCTIONS
} | {
    "LinearCrossEntropy with all options": loss(
        fn.LinearCrossEntropy(WEIGHT, 1, "mean", 0.2, 0.1), (normal(2, 3, 2), normal(3, 2), normal(3)), CLASSES
    ),
    "LinearCrossEntropy of one row": loss(fn.LinearCrossEntropy(), (normal(2), normal(3, 2), normal(3)), LABELS[1]),
    "net with a deferred product": case(
        fn.serial(
            fn.parallel(fn.serial(fn.Linear(3, 5), fn.Tanh(), fn.DeferredLinear(5, 3)), fn.Identity()),
            fn.LinearCrossEntropy(label_smoothing=0.1).as_layer(),
        ),
        (normal(4, 3), LABELS),
    ),
}

# 4 labels at most in 6 steps; none, one, and equal neighbours
SEQUENCES = torch.tensor([[1, 2, 2, 1], [2, 0, 0, 0], [1, 1, 0, 0]]), torch.tensor([6, 4, 5]), torch.tensor([4, 0, 2])

ALIGNMENT = {f"CTC {reduction}": loss(fn.CTC(0, reduction), normal(6, 3, 3), SEQUENCES) for reduction in REDUCTIONS} | {
    "CTC of one sequence": loss(fn.CTC(2), normal(5, 3), (torch.tensor([1, 0, 0]), torch.tensor(5), torch.tensor(3))),
    "CTC of labels that do not fit": loss(
        fn.CTC(0, "none", True), normal(3, 2, 3), (torch.tensor([[1, 1], [1, 2]]), torch.tensor([2, 3]), torch.tensor([2, 2]))
    ),
}

CASES = {**REGRESSION, **BINARY, **ENTROPY, **DIVERGENCE, **TRAINING, **VOCABULARY, **ALIGNMENT}
