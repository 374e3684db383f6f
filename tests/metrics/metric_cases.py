"""Metrics, each with outputs and targets of 12 rows."""

import torch

import funcnet as fn

N, CLASSES = 12, 3


def draw(seed, *shape):
    """Draw normal numbers."""
    return fn.random.normal(seed, shape, dtype=torch.float64)


def labels(seed, classes, *shape):
    """Draw labels of each class."""
    return fn.random.randint(seed, shape, 0, classes)


def first(y, target):
    """Return the mean of the first column."""
    return y[:, 0].mean()


Y, T = draw(0, N, CLASSES), labels(1, CLASSES, N).index_fill(0, torch.tensor([4]), -100)
IMAGES, PIXELS = draw(2, N, CLASSES, 2, 2), labels(3, CLASSES, N, 2, 2)
Y1, T1 = draw(4, N, 1), labels(5, 2, N)
MANY = labels(6, 2, N, CLASSES).index_fill(0, torch.tensor([7]), -100)
SAID, TRUE = labels(7, CLASSES, N), labels(8, CLASSES, N)
NUMBERS = draw(9, N, CLASSES) + 5

CASES = {
    "accuracy": (fn.Accuracy(), Y, T),
    "accuracy of images": (fn.Accuracy(), IMAGES, PIXELS),
    "accuracy of one-hot rows": (fn.Accuracy(), Y, torch.eye(CLASSES, dtype=torch.int64)[TRUE]),
    "top two": (fn.Accuracy(2), IMAGES, PIXELS),
    "confusion matrix": (fn.ConfusionMatrix(), Y, T),
    "normalized confusion matrix": (fn.ConfusionMatrix(CLASSES, "true"), SAID, TRUE),
    "balanced accuracy": (fn.BalancedAccuracy(), Y, T),
    "kappa": (fn.CohenKappa(weights="quadratic"), Y, T),
    "Matthews": (fn.MatthewsCorrelation(), Y1, T1),
    "precision": (fn.Precision("weighted"), Y, T),
    "recall": (fn.Recall(None, num_classes=CLASSES), SAID, TRUE),
    "binary F1": (fn.F1("binary"), Y1, T1),
    "multilabel FBeta": (fn.FBeta("micro", beta=2.0, multilabel=True), Y, MANY),
    "IoU of images": (fn.IoU(zero_division=None), IMAGES, PIXELS),
    "AUROC": (fn.AUROC(), Y, T),
    "AUROC of vectors": (fn.AUROC(), Y1[:, 0].float(), T1),
    "AUROC between thresholds": (fn.AUROC(5, "micro"), Y, MANY),
    "average precision": (fn.AveragePrecision(None, "weighted"), Y.round(), MANY),
    "average precision between thresholds": (fn.AveragePrecision(5), IMAGES, PIXELS),
    "calibration": (fn.CalibrationError(4), Y, T),
    "binary calibration": (fn.CalibrationError(4, "l2"), Y1, T1),
    "largest calibration error": (fn.CalibrationError(4, "max", from_logits=False), Y.softmax(1), T),
    "MAE": (fn.MeanAbsoluteError(), Y, NUMBERS),
    "MSE": (fn.MeanSquaredError(), Y, NUMBERS),
    "RMSE": (fn.RootMeanSquaredError(), Y.float(), TRUE[:, None].expand_as(Y)),
    "R2": (fn.R2("variance_weighted"), Y, NUMBERS),
    "R2 of vectors": (fn.R2(), Y[:, 0], NUMBERS[:, 0]),
    "explained variance": (fn.ExplainedVariance("raw_values"), Y, NUMBERS),
    "perplexity": (fn.Perplexity(), Y, T),
    "average of a loss": (fn.Average(fn.CrossEntropy()), Y, T),
    "average of a sum": (fn.Average(fn.MSE(reduction="sum"), name="sum"), Y, NUMBERS),
    "average of a function": (fn.Average(first), Y, T),
    "several": (fn.metrics_of(fn.Accuracy(), fn.F1(), top2=fn.Accuracy(2)), Y, T),
}
