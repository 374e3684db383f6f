"""Losses as layers, and nets that end in a loss."""

from typing import Any

import torch

import funcnet as fn
from cases.making import KINKS, LARGE, Case, between, case, loose, normal

REDUCTIONS = ("mean", "sum", "batch", "none")
LABELS, CLASSES = torch.tensor([0, 2, 1, 2]), torch.tensor([[0, 1, 2], [2, 2, 0]])
LABEL = torch.tensor(2)
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
        "CrossEntropy without batch": loss(fn.CrossEntropy(), normal(3), LABEL),
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

WEIGHTS = torch.tensor([0.5, 0.25, 2.0, 1.0])
WEIGHTED = {
    f"weighted MSE {reduction}": loss(fn.weighted(fn.MSE(reduction)), normal(4, 3), (normal(4, 3), between(0.1, 2.0, 4)))
    for reduction in REDUCTIONS
} | {
    "weighted MSE by term": loss(fn.weighted(fn.MSE()), normal(4, 3), (normal(4, 3), between(0.1, 2.0, 4, 3))),
    "weighted L1 by a mask": loss(fn.weighted(fn.L1("batch")), normal(4, 3), (normal(4, 3), WEIGHTS > 0.7)),
    "weighted CrossEntropy with all options": loss(
        fn.weighted(fn.CrossEntropy(WEIGHT, 1, label_smoothing=0.2)), normal(4, 3), (LABELS, WEIGHTS)
    ),
    "weighted CrossEntropy without batch": loss(fn.weighted(fn.CrossEntropy()), normal(3), (LABEL, torch.tensor(2.0))),
    "weighted GaussianKL": loss(fn.weighted(fn.GaussianKL()), (normal(4, 3), normal(4, 3)), (None, between(0.1, 2.0, 4))),
}

SUMS = {
    "sum of losses": loss(fn.MSE() - 0.5 * fn.L2("sum"), normal(4, 3), normal(4, 3)),
    "sum of terms": loss(2 * fn.MSE("none") + fn.L2("none"), normal(4, 3), normal(4, 3)),
    "sum of pairs": loss(
        fn.GaussianKL() + fn.GaussianKL("batch") / 2, (normal(4, 3), normal(4, 3)), (normal(4, 3), normal(4, 3))
    ),
    "product of a loss": loss(-2 * fn.CrossEntropy(), normal(4, 3), LABELS),
    "losses of named outputs": loss(
        fn.losses_of(kind=fn.CrossEntropy(ignore_index=1), size=(0.5, fn.MSE() + fn.L2()), latent=fn.GaussianKL("batch")),
        {"kind": normal(4, 3), "size": normal(4, 2), "latent": (normal(4, 2), normal(4, 2))},
        {"kind": LABELS, "size": normal(4, 2), "latent": None},
    ),
    "losses of named outputs, weighted": loss(
        fn.losses_of(kind=fn.weighted(fn.CrossEntropy()), size=fn.MSE("batch")),
        {"kind": normal(4, 3), "size": normal(4, 2)},
        {"kind": (LABELS, between(0.1, 2.0, 4)), "size": normal(4, 2)},
    ),
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
    "LinearCrossEntropy of one row": loss(fn.LinearCrossEntropy(), (normal(2), normal(3, 2), normal(3)), LABEL),
    "net with a deferred product": case(
        fn.serial(
            fn.parallel(fn.serial(fn.Linear(3, 5), fn.Tanh(), fn.DeferredLinear(5, 3)), fn.Identity()),
            fn.LinearCrossEntropy(label_smoothing=0.1).as_layer(),
        ),
        (normal(4, 3), LABELS),
    ),
}

# at most 4 labels in 6 steps; none, one, and equal neighbors
SEQUENCES = torch.tensor([[1, 2, 2, 1], [2, 0, 0, 0], [1, 1, 0, 0]]), torch.tensor([6, 4, 5]), torch.tensor([4, 0, 2])

ALIGNMENT = {
    f"CTC {reduction}": case(fn.CTC(0, reduction).as_layer(), (normal(6, 3, 3), SEQUENCES), compiled=reduction == "mean")
    for reduction in REDUCTIONS
} | {
    "CTC of one sequence": case(
        fn.CTC(2).as_layer(), (normal(5, 3), (torch.tensor([1, 0, 0]), torch.tensor(5), torch.tensor(3))), compiled=False
    ),
    "CTC of labels that do not fit": case(
        fn.CTC(0, "none", True).as_layer(),
        (normal(3, 2, 3), (torch.tensor([[1, 1], [1, 2]]), torch.tensor([2, 3]), torch.tensor([2, 2]))),
        compiled=False,
    ),
}

SIGNS = torch.tensor([[1, -1, 1], [-1, -1, 1], [1, 1, -1], [-1, 1, -1]])
LOG_P = torch.tensor([[0.2, 0.3, 0.5], [0.1, 0.8, 0.1], [0.25, 0.25, 0.5], [0.6, 0.3, 0.1]]).log()

ENDS = ("mean", "none")  # an elementwise loss has the reductions of its base class

ROBUST = {
    f"{criterion!r}": loss(criterion, normal(4, 3), normal(4, 3))
    for criterion in (
        *(kind(reduction) for kind in (fn.Huber, fn.SmoothL1, fn.LogCosh) for reduction in ENDS),
        *(fn.Huber("sum", 0.3), fn.SmoothL1("none", 0.5), fn.SmoothL1(beta=0), fn.SmoothL1(beta=1e-12)),
    )
} | {
    "CosineDistance none": loss(fn.CosineDistance(reduction="none"), normal(4, 3), normal(4, 3)),
    "CosineDistance along axis 1": loss(fn.CosineDistance(1, 0.1), normal(4, 3, 2), normal(4, 3, 2)),
    "CosineDistance of vectors": loose(fn.CosineDistance(reduction="batch").as_layer(), (normal(3), normal(3))),
    "Huber on its kinks": loss(fn.Huber(), KINKS, torch.zeros(2, 5)),
    "SmoothL1 on its kinks": loss(fn.SmoothL1("none"), KINKS, torch.zeros(2, 5)),
    "LogCosh of large numbers": loss(fn.LogCosh("sum"), LARGE, torch.zeros(3, 4)),
    "Huber of integers": loss(fn.Huber(), normal(4, 3), torch.arange(12).reshape(4, 3)),
}

LIKELIHOOD = (
    {f"NLL {reduction}": loss(fn.NLL(reduction=reduction), LOG_P, LABELS) for reduction in REDUCTIONS}
    | {f"NLL weighted, {reduction}": loss(fn.NLL(WEIGHT, 1, reduction), LOG_P, LABELS) for reduction in ENDS}
    | {
        f"KLDiv {reduction}{' of logs' * log}": loss(
            fn.KLDiv(reduction, log), LOG_P, between(-3.0, -0.1, 4, 3) if log else between(0.1, 0.9, 4, 3)
        )
        for reduction in ENDS
        for log in (False, True)
    }
    | {
        f"GeneralizedKL {reduction}": loss(fn.GeneralizedKL(reduction), normal(4, 3), between(0.1, 2.0, 4, 3))
        for reduction in ENDS
    }
    | {
        f"{criterion!r}": loss(criterion, between(0.2, 2.0, 4, 3), between(0.1, 3.0, 4, 3))
        for criterion in (
            *(fn.PoissonNLL(reduction=reduction) for reduction in ENDS),
            *(fn.PoissonNLL(False, True, 0.1, reduction) for reduction in ENDS),
        )
    }
    | {
        f"GaussianNLL {reduction}": loss(
            fn.GaussianNLL(reduction=reduction), (normal(4, 3), between(0.2, 2.0, 4, 3)), normal(4, 3)
        )
        for reduction in REDUCTIONS
    }
    | {
        "NLL weighted by 0": loss(fn.NLL((0.0, 1.0, 2.0)), LOG_P, LABELS),
        "NLL, all ignored": loss(fn.NLL(ignore_index=2), LOG_P[:2], torch.tensor([2, 2])),
        "NLL without batch": loss(fn.NLL(), LOG_P[0].clone(), LABEL),
        "NLL on 3 axes": loss(fn.NLL(WEIGHT, reduction="batch"), normal(2, 3, 3), CLASSES),
        "PoissonNLL of counts": loss(fn.PoissonNLL(full=True), normal(4, 3), torch.arange(12).reshape(4, 3)),
        "GaussianNLL of one variance a row": loss(
            fn.GaussianNLL(full=True), (normal(4, 3), between(0.2, 2.0, 4, 1)), normal(4, 3)
        ),
        "GaussianNLL of one variance a column": loss(fn.GaussianNLL(), (normal(4, 3), between(0.2, 2.0, 1, 3)), normal(4, 3)),
        "GaussianNLL of variances without the last axis": loss(
            fn.GaussianNLL(reduction="none"), (normal(4, 3), between(0.2, 2.0, 4)), normal(4, 3)
        ),
    }
)

POLY = {
    "PolyCrossEntropy": loss(fn.PolyCrossEntropy(), normal(4, 3), LABELS),
    "PolyCrossEntropy none": loss(fn.PolyCrossEntropy(-0.5, "none"), normal(2, 3, 3), CLASSES),
    "PolyCrossEntropy of probabilities": loss(fn.PolyCrossEntropy(), normal(4, 3), between(0.1, 0.9, 4, 3)),
    "PolyCrossEntropy of probabilities, none": loss(
        fn.PolyCrossEntropy(1.0, "none"), normal(2, 3, 2), between(0.1, 0.9, 2, 3, 2)
    ),
}

YES_OR_NO = (
    {f"SoftMargin {reduction}": loss(fn.SoftMargin(reduction), normal(4, 3), SIGNS) for reduction in ENDS}
    | {f"HingeEmbedding {reduction}": loss(fn.HingeEmbedding(0.3, reduction), normal(4, 3), SIGNS) for reduction in ENDS}
    | {
        f"MultiLabelSoftMargin {reduction}": loss(
            fn.MultiLabelSoftMargin(WEIGHT, reduction), normal(4, 3), between(0.1, 0.9, 4, 3)
        )
        for reduction in REDUCTIONS
    }
    | {
        "SoftMargin of numbers": loss(fn.SoftMargin(), normal(4, 3), normal(4, 3)),
        "HingeEmbedding of floating labels": loss(fn.HingeEmbedding(), normal(4, 3), SIGNS.float()),
        "HingeEmbedding on its kinks": loss(fn.HingeEmbedding(0.0), KINKS, SIGNS[[0, 1, 2, 3, 0]].T[:2].clone()),
        "MultiLabelSoftMargin without batch": loose(fn.MultiLabelSoftMargin().as_layer(), (normal(3), LABELS[:3] > 1)),
        "MultiLabelSoftMargin on 3 axes": loss(
            fn.MultiLabelSoftMargin(reduction="batch"), normal(2, 4, 3), between(0.1, 0.9, 2, 4, 3)
        ),
    }
)

ROW_SIGNS = SIGNS[:, 0].clone()
LISTED = torch.tensor([[0, 1, -1], [2, 2, -1], [-1, 0, 1], [0, 1, 2]])
ROWS = torch.tensor([[1.0, 0.0, 0.0], [0.5, 1.0, -1.0]])

MARGINS = {
    "Hinge": loss(fn.Hinge(), normal(4), ROW_SIGNS),
    "Hinge of factors": loss(fn.Hinge("none", 0.5), normal(4, 3), normal(4, 3)),
    "Hinge on its kink": loss(fn.Hinge("sum"), torch.tensor([1.0, -1.0, 0.0, 2.0]), ROW_SIGNS),
    "Hinge of a number": loss(fn.Hinge("none"), normal(), torch.tensor(1.0)),
    "MarginRanking": loss(fn.MarginRanking(0.5), (normal(4), normal(4)), ROW_SIGNS),
    "MarginRanking of factors": loss(fn.MarginRanking(0.5, "batch"), (normal(4, 3), normal(4, 3)), normal(4, 3)),
    "MultiMargin": loss(fn.MultiMargin(), normal(4, 3), LABELS),
    "MultiMargin of squares": loss(fn.MultiMargin(2, 0.5, WEIGHT, "none"), normal(4, 3), LABELS),
    "MultiMargin of one row": loss(fn.MultiMargin(weight=WEIGHT), normal(3), LABEL),
    "MultiMargin on its kink": loss(fn.MultiMargin(reduction="sum"), ROWS, torch.tensor([0, 0])),
    "MulticlassHinge": loss(fn.MulticlassHinge(), normal(4, 3), LABELS),
    "MulticlassHinge on its kinks": loss(fn.MulticlassHinge(0.0, "none"), torch.zeros(4, 3), LABELS),
    "MultiLabelMargin": loss(fn.MultiLabelMargin(), normal(4, 3), LISTED),
    "MultiLabelMargin of one row": loose(fn.MultiLabelMargin("none").as_layer(), (normal(3), LISTED[0].clone())),
}

EMBEDDINGS = {
    "CosineEmbedding": loss(fn.CosineEmbedding(0.2), (normal(4, 3), normal(4, 3)), ROW_SIGNS),
    "CosineEmbedding of one pair": loss(fn.CosineEmbedding(reduction="none"), (normal(3), normal(3)), torch.tensor(-1.0)),
    "TripletMargin": loss(fn.TripletMargin(), (normal(4, 3), normal(4, 3), normal(4, 3)), None),
    "TripletMargin swapped": loss(
        fn.TripletMargin(2.0, 3.5, 0.0, True, "none"), (normal(4, 3), normal(4, 3), normal(4, 3)), None
    ),
    "TripletMarginWithDistance": loss(
        fn.TripletMarginWithDistance(fn.serial(fn.CosineSimilarity(), fn.Rescale(-1.0)), 0.5, True),
        (normal(4, 3), normal(4, 3), normal(4, 3)),
        None,
    ),
    "TripletMargin of one": loss(fn.TripletMargin(reduction="none"), (normal(3), normal(3), normal(3)), None),
    "InfoNCE": loss(fn.InfoNCE(0.5, reduction="none"), (normal(4, 3), normal(4, 3)), None),
    "InfoNCE both ways": loss(fn.InfoNCE(0.5, True), (normal(4, 3), normal(4, 3)), None),
    "NTXent": loss(fn.NTXent(0.5), normal(4, 3), LABELS),
    "NTXent by rows": loss(fn.NTXent(0.5, "none"), normal(4, 3), LABELS),
}

PIXELS = torch.tensor([[[0, 1], [2, 2]], [[1, 1], [0, 2]], [[2, 0], [1, 0]]])

SEGMENTATION = {
    "Focal": loss(fn.Focal(), normal(4, 3), between(0.1, 0.9, 4, 3)),
    "Focal with all options": loss(fn.Focal(0.25, 0.5, "none"), normal(4, 3), between(0.1, 0.9, 4, 3)),
    "Focal of booleans": loss(fn.Focal(0.25, 1.0, "batch"), normal(4), LABELS > 1),
    "MulticlassFocal": loss(fn.MulticlassFocal(), normal(4, 3), LABELS),
    "MulticlassFocal of pixels": loss(fn.MulticlassFocal(WEIGHT, 0.5, "none"), normal(3, 3, 2, 2), PIXELS),
    "MulticlassFocal of one row": case(fn.MulticlassFocal(WEIGHT).as_layer(), (normal(3), LABEL), compiled=False),
    "Dice": loss(fn.Dice(), normal(3, 2, 2), between(0.1, 0.9, 3, 2, 2)),
    "Dice of probabilities": case(
        fn.Dice(0.0, 0.3, 0.9, logits=False).as_layer(), (between(0.1, 0.9, 3, 4), between(0.1, 0.9, 3, 4)), compiled=False
    ),
    "Dice of classes": loss(fn.Dice(multiclass=True, reduction="none"), normal(3, 3, 2, 2), PIXELS),
    "Dice of weighted classes": case(
        fn.Dice(0.5, multiclass=True, weight=WEIGHT).as_layer(), (normal(3, 3, 2), between(0.1, 0.9, 3, 3, 2)), compiled=False
    ),
    "Dice by sizes in the batch": loss(
        fn.Dice(multiclass=True, weight=WEIGHT, generalized=True, ignore_background=True, reduction="none"),
        normal(3, 3, 2),
        between(0.1, 0.9, 3, 3, 2),
    ),
}

CASES = {
    **REGRESSION,
    **BINARY,
    **ENTROPY,
    **DIVERGENCE,
    **WEIGHTED,
    **SUMS,
    **TRAINING,
    **ROBUST,
    **LIKELIHOOD,
    **YES_OR_NO,
    **POLY,
    **MARGINS,
    **EMBEDDINGS,
    **SEGMENTATION,
    **VOCABULARY,
    **ALIGNMENT,
}
