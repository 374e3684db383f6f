"""A net as a regressor of scikit-learn."""

from typing import Any, Self

from sklearn.base import RegressorMixin
from torch import Tensor

from funcnet.errors import value_error
from funcnet.interop.sklearn.estimator import Estimator, Training
from funcnet.interop.sklearn.rows import Rows
from funcnet.losses.loss import Loss
from funcnet.losses.regression import MSE


class Regressor(RegressorMixin, Estimator):  # type: ignore[misc]
    """A net that predicts numbers, one or several for each row.

        y = f(x)      f minimizes the mean of loss(f(xᵢ), tᵢ)

    Scale the targets, or use ``TransformedTargetRegressor``, where they are far from 0 and 1: fresh params give small numbers.

    Args:
        net: A net with one output for each target; a function (n_features, n_outputs) → net; or ``None`` for a perceptron with
            100 hidden units. Parameters as ``Classifier``'s otherwise.
        loss: The loss, ``MSE()`` by default.
        optimizer: As ``Classifier``'s, and all that follow.

    Raises:
        ValueError: As ``Classifier``.

    >>> from sklearn.datasets import make_regression
    >>> x, y = make_regression(200, 5, n_targets=2, random_state=0)
    >>> y = y / y.std(0)
    >>> regressor = Regressor(epochs=50).fit(x, y)
    >>> regressor.predict(x[:3]).shape, regressor.score(x, y) > 0.95
    ((3, 2), True)
    """

    _target_shape: tuple[int, ...]

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one more epoch, on these rows; weights count as they are. ``n`` calls equal ``fit`` with ``epochs=n``."""
        return self._partial_fit(X, y, sample_weight)

    def predict(self, X: Any) -> Any:
        """Return the predictions (N,), or (N, n_outputs) if y had that shape."""
        y = self._predicted(X)
        return y if self._target_shape else y[:, 0]

    def _learned(self, rows: Rows, fresh: bool, classes: Any = None) -> Rows:
        shape = rows.y.shape[1:]
        if not fresh and shape != self._target_shape:
            rule = f"y must have the shape (N, {', '.join(map(str, self._target_shape))}) of before"
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
