"""A net as a scikit-learn regressor."""

from typing import Any, Self

from sklearn.base import RegressorMixin
from torch import Tensor

from funcnet.errors import value_error
from funcnet.interop.sklearn.estimator import Estimator, Training
from funcnet.interop.sklearn.rows import Rows
from funcnet.losses.loss import Loss
from funcnet.losses.regression import MSE


class Regressor(RegressorMixin, Estimator):  # type: ignore[misc]
    """A net that predicts one or several numbers for each row.

        y = f(x)      f minimizes the mean of loss(f(xᵢ), tᵢ)

    Scale targets that are far from the range 0 to 1, for example with ``TransformedTargetRegressor``, since an untrained net has
    small outputs. float32 arrays are computed in float32 and all others in float64. The fields of net, loss and optimizer are
    parameters too, such as ``optimizer__lr``.

    Args:
        net: A net with one output for each target, whose sizes may be ``None``; or a function (n_features, n_outputs) → net; or
            ``None`` for a perceptron with 100 hidden units.
        loss: The loss, by default ``MSE()``.
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
        validation_fraction: Fraction of the rows set aside with ``early_stopping``.
        metrics: Metrics for the history, as in ``fit``, measured on the validation rows if there are any, else on all rows. They
            ignore weights.
        callbacks: Callbacks of ``fit``.
        warm_start: Whether ``fit`` continues from the params and the optimizer state of the previous call.
        dtype: dtype of the computation, or ``None`` for that of X. Integer dtypes are for nets that begin with an ``Embedding``;
            params then have torch's default dtype.
        device: Device of params and computation, by default the CPU.
        progress: Progress display, as in ``fit``.

    Attributes:
        net_: The net with all sizes.
        params_: The params for predictions.
        history_: The history of ``fit``; ``loss_curve_`` is its loss.
        state_: The optimizer's state.
        n_iter_: Number of epochs done.
        n_features_in_: Number of columns of X.
        feature_names_in_: Names of the columns of X, for a data frame.

    Raises:
        ValueError: If a parameter has the wrong type, the net has the wrong number of outputs, the output rows of a sequence net
            depend on each other, or scikit-learn's checks reject the data (for example NaN).
        TypeError: If X is sparse.
        FloatingPointError: If the loss or the params become non-finite; scaled inputs or a smaller learning rate help.

    >>> from sklearn.datasets import make_regression
    >>> x, y = make_regression(200, 5, n_targets=2, random_state=0)
    >>> y = y / y.std(0)
    >>> regressor = Regressor(epochs=50).fit(x, y)
    >>> regressor.predict(x[:3]).shape, regressor.score(x, y) > 0.95
    ((3, 2), True)
    """

    _target_shape: tuple[int, ...]

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one more epoch on the given rows; ``n`` calls equal ``fit`` with ``epochs=n``.

        Args:
            X: Inputs (N, n_features).
            y: Targets (N,), or (N, n_outputs).
            sample_weight: Weights (N,), which are not normalized.
        """
        return self._partial_fit(X, y, sample_weight)

    def predict(self, X: Any) -> Any:
        """Return the predictions (N,), or (N, n_outputs) if y had that shape.

        Args:
            X: Inputs (N, n_features).
        """
        y = self._predicted(X)
        return y if self._target_shape else y[:, 0]

    def _learned(self, rows: Rows, fresh: bool, classes: Any = None) -> Rows:
        shape = rows.y.shape[1:]
        if not fresh and shape != self._target_shape:
            rule = f"y must have the same shape as before, (N, {', '.join(map(str, self._target_shape))})"
            raise value_error("Regressor", rule, f"{rows.y.shape}")
        self._target_shape = shape
        return rows

    def _default_loss(self) -> Loss:
        return MSE()

    def _target(self, y: Any, training: Training) -> Tensor:
        return self._tensor(y, training.precision).reshape(len(y), *training.shape_of_y)

    def _outputs(self) -> int:
        return self._target_shape[0] if self._target_shape else 1

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
