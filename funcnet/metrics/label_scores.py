"""Scores of each label from predictions and targets: Precision, Recall, FBeta, F1 and IoU.

For each label, h is the number of rows where it is predicted and true, p where it is predicted, and t where it is true. The
scores of the labels are then averaged.
"""

from abc import abstractmethod

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import flag, is_number, number, one_of, size_or_none, valid_if, value_error, whole_number
from funcnet.metrics.base import Metric, Total, count
from funcnet.metrics.reading import Columns, classes_of, columns_of, dense, scores
from funcnet.value import frozen

_share_or_none = valid_if(lambda got: is_number(got) and 0 <= got <= 1, "a number from 0 to 1", optional=True)


@frozen
class LabelScore(Metric):
    """Base of scores of each label, computed from the counts h, p and t; subclasses define the fraction."""

    average: str | None = field(default="macro", validator=one_of("macro", "micro", "weighted", "binary", None))
    num_classes: int | None = field(default=None, kw_only=True, validator=size_or_none)
    multilabel: bool = field(default=False, kw_only=True, validator=flag)
    threshold: float = field(default=0.0, kw_only=True, validator=number())
    ignore_index: int = field(default=-100, kw_only=True, validator=whole_number)
    zero_division: float | None = field(default=0.0, kw_only=True, validator=_share_or_none)

    @abstractmethod
    def fraction(self, hits: Tensor, predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        """Return numerator and denominator of the score.

        Args:
            hits: Counts h, float64.
            predicted: Counts p, of the same shape.
            true: Counts t, of the same shape.

        Returns:
            The pair (numerator, denominator).
        """

    def start(self) -> Total:
        return {"hits": count(), "predicted": count(), "true": count()}

    def total_of(self, y: Tensor, target: Tensor) -> Total:
        y, target = dense(self, y, target)
        if y.is_floating_point() and (self.multilabel or y.dim() < 2 or y.shape[1] == 1):
            return _of_columns(columns_of(self, *scores(self, y, target, self.ignore_index), self.ignore_index), self.threshold)
        if self.multilabel:
            raise value_error(self, "with multilabel=True y must be a floating tensor", y)
        predicted, true, counted, classes = classes_of(self, y, target, self.ignore_index, self.threshold, self.num_classes)
        hits, counts = (counted & (predicted == true)).long(), counted.long()
        nothing = torch.zeros(classes, dtype=torch.int64, device=true.device)
        pairs = {"hits": (true, hits), "predicted": (predicted, counts), "true": (true, counts)}
        return {key: nothing.scatter_add(0, at, rows) for key, (at, rows) in pairs.items()}

    def value(self, total: Total) -> Tensor:
        hits, predicted, true = (total[key].double() for key in ("hits", "predicted", "true"))
        if self.average == "micro":
            hits, predicted, true = hits.sum(), predicted.sum(), true.sum()
        above, below = self.fraction(hits, predicted, true)
        instead = torch.nan if self.zero_division is None else self.zero_division
        each = torch.where(below > 0, above / below, instead)
        return self._averaged(each, true)

    def _averaged(self, each: Tensor, true: Tensor) -> Tensor:
        if self.average in ("micro", None):
            return each
        if self.average == "macro":
            return each.nanmean() if self.zero_division is None else each.mean()
        if self.average == "binary":
            return self._of_class_one(each)
        weights = torch.where(each.isnan(), 0.0, true)
        mean = (each.nan_to_num() * weights).sum() / weights.sum()
        instead = torch.nan if self.zero_division is None else self.zero_division
        return torch.where(weights.sum() > 0, mean, instead)

    def _of_class_one(self, each: Tensor) -> Tensor:
        if each.numel() > 2:
            raise value_error(self, 'average="binary" must have two classes', f"{each.numel()}")
        return each.flatten()[-1]


def _of_columns(of: Columns, threshold: float) -> Total:
    predicted, true = (of.y > threshold) & of.counted, of.true & of.counted
    return {"hits": (predicted & true).sum(0), "predicted": predicted.sum(0), "true": true.sum(0)}


@frozen
class Precision(LabelScore):
    """Share of predictions that are correct.

        value = h / p      for each label, then averaged

    h is the number of rows where the label is predicted and true, p where it is predicted, t where it is true. A single column of
    outputs has only the score of class 1.

    Args:
        average: How the scores of the labels become one: ``"macro"``, their mean; ``"weighted"``, their mean weighted by t;
            ``"micro"``, the score computed from Σ h, Σ p and Σ t; ``"binary"``, the score of class 1 of two; ``None``, all
            scores.
        name: Column in the history; by default ``"precision"``.
        num_classes: Number of classes, required only if y contains predicted classes.
        multilabel: Whether each column of y is a separate label, predicted above the threshold.
        threshold: Value above which a column predicts its label: 0 for logits, 0.5 for probabilities.
        ignore_index: Label of rows that are left out.
        zero_division: Score for 0 / 0; ``None`` leaves the label out of averages.

    Shape:
        y (N, classes, ...) and target (N, ...) → value (), or (classes,) with ``average=None``. With ``multilabel``, y and target
        are (N, labels, ...).
        y may be a single column, (N, 1, ...) or (N,), or predicted classes, integers of the shape of target. Target may be
        one-hot rows or probabilities of the shape of y, of which the largest one counts.

    Raises:
        ValueError: If shapes do not fit, if y holds NaN where it counts, or if a label is out of range.

    References:
        ``sklearn.metrics.precision_score`` with all classes in ``labels``.

    >>> Precision(average=None, num_classes=2)(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]))
    tensor([1.0000, 0.6667], dtype=torch.float64)
    """

    def fraction(self, hits: Tensor, predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        return hits, predicted


@frozen
class Recall(LabelScore):
    """Share of true labels that are predicted: sensitivity, the true positive rate.

        value = h / t      for each label, then averaged

    h is the number of rows where the label is predicted and true, p where it is predicted, t where it is true. A single column of
    outputs has only the score of class 1.

    Args:
        average: How the scores of the labels become one: ``"macro"``, their mean; ``"weighted"``, their mean weighted by t;
            ``"micro"``, the score computed from Σ h, Σ p and Σ t; ``"binary"``, the score of class 1 of two; ``None``, all
            scores.
        name: Column in the history; by default ``"recall"``.
        num_classes: Number of classes, required only if y contains predicted classes.
        multilabel: Whether each column of y is a separate label, predicted above the threshold.
        threshold: Value above which a column predicts its label: 0 for logits, 0.5 for probabilities.
        ignore_index: Label of rows that are left out.
        zero_division: Score for 0 / 0; ``None`` leaves the label out of averages.

    Shape:
        y (N, classes, ...) and target (N, ...) → value (), or (classes,) with ``average=None``. With ``multilabel``, y and target
        are (N, labels, ...).
        y may be a single column, (N, 1, ...) or (N,), or predicted classes, integers of the shape of target. Target may be
        one-hot rows or probabilities of the shape of y, of which the largest one counts.

    Raises:
        ValueError: If shapes do not fit, if y holds NaN where it counts, or if a label is out of range.

    References:
        ``sklearn.metrics.recall_score`` with all classes in ``labels``.

    >>> Recall(average=None, num_classes=2)(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]))
    tensor([0.5000, 1.0000], dtype=torch.float64)
    """

    def fraction(self, hits: Tensor, predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        return hits, true


@frozen
class FBeta(LabelScore):
    """Weighted harmonic mean of precision and recall, in which recall has β² times the weight.

        value = (1 + β²) h / (p + β² t)      for each label, then averaged

    h is the number of rows where the label is predicted and true, p where it is predicted, t where it is true.

    Args:
        average: How the scores of the labels become one: ``"macro"``, their mean; ``"weighted"``, their mean weighted by t;
            ``"micro"``, the score computed from Σ h, Σ p and Σ t; ``"binary"``, the score of class 1 of two; ``None``, all
            scores.
        name: Column in the history; by default ``"fbeta"``.
        num_classes: Number of classes, required only if y contains predicted classes.
        multilabel: Whether each column of y is a separate label, predicted above the threshold.
        threshold: Value above which a column predicts its label: 0 for logits, 0.5 for probabilities.
        ignore_index: Label of rows that are left out.
        zero_division: Score for 0 / 0; ``None`` leaves the label out of averages.
        beta: The weight β of recall, above 0.

    Shape:
        y (N, classes, ...) and target (N, ...) → value (), or (classes,) with ``average=None``. With ``multilabel``, y and target
        are (N, labels, ...).
        y may be a single column, (N, 1, ...) or (N,), or predicted classes, integers of the shape of target. Target may be
        one-hot rows or probabilities of the shape of y, of which the largest one counts.

    Raises:
        ValueError: If shapes do not fit, if y holds NaN where it counts, or if a label is out of range.

    References:
        van Rijsbergen 1979, "Information retrieval", chapter 7; ``sklearn.metrics.fbeta_score`` with all classes in ``labels``.

    >>> FBeta(beta=2.0, num_classes=2, average="binary")(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]))
    tensor(0.9091, dtype=torch.float64)
    """

    beta: float = field(default=1.0, kw_only=True, validator=number(above=0.0))

    def fraction(self, hits: Tensor, predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        return (1 + self.beta**2) * hits, predicted + self.beta**2 * true


@frozen
class F1(LabelScore):
    """Harmonic mean of precision and recall, for each label equal to the Dice coefficient.

        value = 2 h / (p + t)      for each label, then averaged

    h is the number of rows where the label is predicted and true, p where it is predicted, t where it is true.

    Args:
        average: How the scores of the labels become one: ``"macro"``, their mean; ``"weighted"``, their mean weighted by t;
            ``"micro"``, the score computed from Σ h, Σ p and Σ t; ``"binary"``, the score of class 1 of two; ``None``, all
            scores.
        name: Column in the history; by default ``"f1"``.
        num_classes: Number of classes, required only if y contains predicted classes.
        multilabel: Whether each column of y is a separate label, predicted above the threshold.
        threshold: Value above which a column predicts its label: 0 for logits, 0.5 for probabilities.
        ignore_index: Label of rows that are left out.
        zero_division: Score for 0 / 0; ``None`` leaves the label out of averages.

    Shape:
        y (N, classes, ...) and target (N, ...) → value (), or (classes,) with ``average=None``. With ``multilabel``, y and target
        are (N, labels, ...).
        y may be a single column, (N, 1, ...) or (N,), or predicted classes, integers of the shape of target. Target may be
        one-hot rows or probabilities of the shape of y, of which the largest one counts.

    Raises:
        ValueError: If shapes do not fit, if y holds NaN where it counts, or if a label is out of range.

    References:
        ``sklearn.metrics.f1_score`` with all classes in ``labels``.

    >>> F1(num_classes=2)(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]))
    tensor(0.7333, dtype=torch.float64)
    """

    def fraction(self, hits: Tensor, predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * hits, predicted + true


@frozen
class IoU(LabelScore):
    """Intersection over union, the Jaccard index; for segmentations, over the pixels of all images together.

        value = h / (p + t - h)      for each label, then averaged

    h is the number of rows where the label is predicted and true, p where it is predicted, t where it is true.

    Args:
        average: How the scores of the labels become one: ``"macro"``, their mean; ``"weighted"``, their mean weighted by t;
            ``"micro"``, the score computed from Σ h, Σ p and Σ t; ``"binary"``, the score of class 1 of two; ``None``, all
            scores.
        name: Column in the history; by default ``"iou"``.
        num_classes: Number of classes, required only if y contains predicted classes.
        multilabel: Whether each column of y is a separate label, predicted above the threshold.
        threshold: Value above which a column predicts its label: 0 for logits, 0.5 for probabilities.
        ignore_index: Label of rows that are left out.
        zero_division: Score for 0 / 0; ``None`` leaves the label out of averages.

    Shape:
        y (N, classes, ...) and target (N, ...) → value (), or (classes,) with ``average=None``. With ``multilabel``, y and target
        are (N, labels, ...).
        y may be a single column, (N, 1, ...) or (N,), or predicted classes, integers of the shape of target. Target may be
        one-hot rows or probabilities of the shape of y, of which the largest one counts.

    Raises:
        ValueError: If shapes do not fit, if y holds NaN where it counts, or if a label is out of range.

    References:
        ``sklearn.metrics.jaccard_score`` with all classes in ``labels``.

    >>> IoU(average=None, num_classes=2)(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]))
    tensor([0.5000, 0.6667], dtype=torch.float64)
    """

    def fraction(self, hits: Tensor, predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        return hits, predicted + true - hits
