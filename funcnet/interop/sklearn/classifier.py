"""A net as a scikit-learn classifier."""

from typing import Any, Self

import numpy as np
from scipy.special import expit, log_expit, log_softmax, logit, softmax  # type: ignore[import-untyped]
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from torch import Tensor, int64

from funcnet.errors import describe, value_error
from funcnet.fitting.early_stopping import EarlyStopping
from funcnet.interop.sklearn.estimator import Estimator, Training
from funcnet.interop.sklearn.row_training import is_binary, is_of_probabilities
from funcnet.interop.sklearn.rows import Rows
from funcnet.losses.binary import BCEWithLogits
from funcnet.losses.classification import CrossEntropy
from funcnet.losses.loss import Loss
from funcnet.optim.base import Optimizer
from funcnet.random.keys import Key


class Classifier(ClassifierMixin, Estimator):  # type: ignore[misc]
    """A net that predicts classes, or several labels for each row.

        p = softmax f(x)        probability of each class, y (N,)
        p = σ(f(x))             probability of each label, y (N, L) of 0 and 1

    float32 arrays are computed in float32 and all others in float64, as in scikit-learn's own estimators. The fields of net, loss
    and optimizer are parameters too, such as ``optimizer__lr``, ``loss__label_smoothing`` or ``net__0__out_features``.

    Args:
        net: A net with one output for each class or label, whose sizes may be ``None``; or a function (n_features, n_outputs) →
            net, such as the class ``Linear`` for logistic regression; or ``None`` for a perceptron with 100 hidden units.
            ``n_features`` is the shape of a row if X has more than two axes.
        loss: The loss, by default ``CrossEntropy()``, or ``BCEWithLogits()`` for several labels. ``BCE``, ``BCEWithLogits`` and
            ``Focal`` classify two classes with one output.
        optimizer: The optimizer, by default ``Adam()``.
        epochs: Number of epochs; ``early_stopping`` and callbacks can stop earlier.
        batch_size: Number of rows in a batch.
        drop_last: Whether to drop the last batch of an epoch if it is smaller; ``BatchNorm1d`` cannot use a single row.
        key: A key or an int seed, which determines everything random: equal keys give equal bits.
        random_state: A seed or ``RandomState`` that replaces ``key``; scikit-learn's ensembles set a different one for each
            member.
        early_stopping: Whether to set rows aside, to stop when their loss has not improved for ``patience`` epochs, and to keep
            the best params; or an ``EarlyStopping``, which can monitor a metric.
        patience: Number of epochs without improvement before ``early_stopping=True`` stops.
        validation_fraction: Fraction of the rows set aside with ``early_stopping``; the class proportions are kept.
        metrics: Metrics for the history, as in ``fit``, measured on the validation rows if there are any, else on all rows. They
            ignore weights.
        callbacks: Callbacks of ``fit``.
        warm_start: Whether ``fit`` continues from the params and the optimizer state of the previous call.
        dtype: dtype of the computation, or ``None`` for that of X. Integer dtypes are for nets that begin with an ``Embedding``;
            params then have torch's default dtype.
        device: Device of params and computation, by default the CPU.
        progress: Progress display, as in ``fit``.
        class_weight: A dict of weights by class, or ``"balanced"`` for weights inversely proportional to the class frequencies;
            they multiply ``sample_weight``.

    Attributes:
        classes_: The classes in the order of the outputs; 0, 1, ..., L - 1 for several labels.
        net_: The net with all sizes.
        params_: The params for predictions.
        history_: The history of ``fit``; ``loss_curve_`` is its loss.
        state_: The optimizer's state.
        n_iter_: Number of epochs done.
        n_features_in_: Number of columns of X.
        feature_names_in_: Names of the columns of X, for a data frame.

    Raises:
        ValueError: If a parameter has the wrong type, the net has the wrong number of outputs, the output rows of a sequence net
            depend on each other, scikit-learn's checks reject the data (for example NaN), or a continued training gets new
            labels.
        TypeError: If X is sparse.
        FloatingPointError: If the loss or the params become non-finite; scaled inputs or a smaller learning rate help.

    >>> from sklearn.datasets import load_iris
    >>> from sklearn.preprocessing import scale
    >>> x, y = load_iris(return_X_y=True)
    >>> classifier = Classifier(epochs=50).fit(scale(x), y)
    >>> classifier.predict_proba(scale(x)[:2]).argmax(1)
    array([0, 0])
    >>> classifier.set_params(optimizer__lr=0.01)
    Classifier(epochs=50, optimizer=Adam(lr=0.01))
    """

    classes_: Any
    _multilabel: bool

    def __init__(
        self,
        net: Any = None,
        loss: Loss | None = None,
        optimizer: Optimizer | None = None,
        *,
        epochs: int = 100,
        batch_size: int = 64,
        drop_last: bool = False,
        key: Key | int = 0,
        random_state: Any = None,
        early_stopping: bool | EarlyStopping = False,
        patience: int = 10,
        validation_fraction: float = 0.1,
        metrics: Any = (),
        callbacks: Any = (),
        warm_start: bool = False,
        dtype: Any = None,
        device: Any = None,
        progress: Any = False,
        class_weight: Any = None,
    ) -> None:
        super().__init__(
            net, loss, optimizer, epochs=epochs, batch_size=batch_size, drop_last=drop_last, key=key, random_state=random_state,
            early_stopping=early_stopping, patience=patience, validation_fraction=validation_fraction, metrics=metrics,
            callbacks=callbacks, warm_start=warm_start, dtype=dtype, device=device, progress=progress,
        )  # fmt: skip
        self.class_weight = class_weight

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train for one more epoch on the given rows; ``n`` calls equal ``fit`` with ``epochs=n``.

        Args:
            X: Inputs (N, n_features).
            y: Labels (N,), or (N, L).
            classes: All classes; required in the first call, except for several labels.
            sample_weight: Weights (N,), which are not normalized.

        Raises:
            ValueError: If ``classes`` is missing in the first call, or as in ``fit``.
        """
        if isinstance(self.class_weight, str):
            rule = "class_weight must be a dict or None, because one call does not see all rows"
            raise value_error("Classifier.partial_fit", rule, repr(self.class_weight))
        if classes is None and not hasattr(self, "_training") and type_of_target(y) != "multilabel-indicator":
            raise value_error("Classifier.partial_fit", "classes must contain all classes in the first call", "None")
        return self._partial_fit(X, y, sample_weight, classes=None if classes is None else _distinct(classes))

    def decision_function(self, X: Any) -> Any:
        """Return the logits (N, n_classes); for two classes, the logit of the second relative to the first, (N,).

        Args:
            X: Inputs (N, n_features).
        """
        y = self._predicted(X).astype(np.float64)
        y = logit(y) if is_of_probabilities(self._training.loss) else y
        if self._multilabel or len(self.classes_) != 2:
            return y
        return y[:, 0] if y.shape[1] == 1 else y[:, 1] - y[:, 0]

    def predict(self, X: Any) -> Any:
        """Return the most probable class of each row, (N,); for several labels, 0 or 1 for each label, (N, L).

        Args:
            X: Inputs (N, n_features).
        """
        logits = self.decision_function(X)
        if self._multilabel:
            return (logits > 0).astype(np.int64)
        return self.classes_[logits.argmax(1) if logits.ndim == 2 else (logits > 0).astype(np.int64)]

    def predict_proba(self, X: Any) -> Any:
        """Return the probabilities (N, n_classes), whose rows sum to 1; for several labels, the probability of each, (N, L).

        Args:
            X: Inputs (N, n_features).
        """
        logits = self.decision_function(X)
        if self._multilabel:
            return expit(logits)
        return softmax(logits, axis=1) if logits.ndim == 2 else np.stack([expit(-logits), expit(logits)], axis=1)

    def predict_log_proba(self, X: Any) -> Any:
        """Return the log-probabilities, which stay finite where probabilities round to 0.

        Args:
            X: Inputs (N, n_features).
        """
        logits = self.decision_function(X)
        if self._multilabel:
            return log_expit(logits)
        return log_softmax(logits, axis=1) if logits.ndim == 2 else np.stack([log_expit(-logits), log_expit(logits)], axis=1)

    def _learned(self, rows: Rows, fresh: bool, classes: Any = None) -> Rows:
        _distinct(rows.y)
        check_classification_targets(rows.y)
        several = rows.y.ndim == 2
        if several and type_of_target(rows.y) != "multilabel-indicator":
            rule = "y must have one label per row, or 0 and 1 for several labels"
            raise value_error("Classifier", rule, f"{type_of_target(rows.y)} y")
        known: Any = classes if classes is not None else None if fresh else self.classes_
        rows = rows.times(self._class_weights(rows, known))
        found = np.arange(rows.y.shape[1]) if several else np.unique(rows.y)
        if not fresh and (several != self._multilabel or not np.array_equal(known, self.classes_)):
            rule = f"continued training must use the same classes, {_listed(self.classes_)}"
            raise value_error("Classifier", rule, _listed(known))
        known = found if known is None or several else known
        if not np.isin(found, known).all():
            rule = f"labels must be among classes, {_listed(known)}"
            raise value_error("Classifier", rule, _listed(found[~np.isin(found, known)]))
        self.classes_, self._multilabel = known, several
        return rows if several else rows._replace(y=np.searchsorted(known, rows.y))

    def _class_weights(self, rows: Rows, known: Any) -> Any:
        """Return the weight of each row by its class."""
        if self.class_weight is None:
            return None
        several = rows.y.ndim == 2
        right = isinstance(self.class_weight, (dict, list) if several else dict)
        if not right and not (isinstance(self.class_weight, str) and self.class_weight == "balanced"):
            one = "a dict of weights by class" + ", a list of them" * several
            raise value_error("Classifier", f"class_weight must be {one}, 'balanced' or None", describe(self.class_weight))
        if several:
            return compute_sample_weight(self.class_weight, rows.y)
        classes = np.unique(rows.y) if known is None else known
        weights = compute_class_weight(self.class_weight, classes=classes, y=rows.y, sample_weight=rows.weight)
        return weights[np.searchsorted(classes, rows.y).clip(max=len(classes) - 1)]

    def _default_loss(self) -> Loss:
        return BCEWithLogits() if self._multilabel else CrossEntropy()

    def _target(self, y: Any, training: Training) -> Tensor:
        if self._multilabel or is_binary(self._loss()):
            return self._tensor(y, training.precision).reshape(len(y), *training.shape_of_y)
        return self._tensor(y, int64)

    def _outputs(self) -> int:
        if self._multilabel or not is_binary(self._loss()):
            return len(self.classes_)
        if len(self.classes_) > 2:
            rule = f"loss={self._loss()!r} needs two classes, or several labels per row; CrossEntropy() supports more classes"
            raise value_error("Classifier", rule, f"{len(self.classes_)} classes")
        return 1

    def _strata(self, y: Any) -> Any:
        return None if self._multilabel else y

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


def _distinct(labels: Any) -> Any:
    """Return the distinct labels, sorted."""
    try:
        return np.unique(labels)
    except TypeError:
        kinds = sorted({type(label).__name__ for label in np.ravel(labels)})
        raise value_error("Classifier", "labels must be of one sortable type", ", ".join(kinds)) from None


def _listed(classes: Any) -> str:
    return ", ".join(map(str, classes[:10])) + ", ..." * (len(classes) > 10)
