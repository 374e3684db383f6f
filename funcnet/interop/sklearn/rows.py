"""Rows of an estimator: arrays checked with scikit-learn, weights, and tensors."""

from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import is_classifier, is_regressor
from sklearn.utils.validation import _check_sample_weight, column_or_1d, validate_data

from funcnet.errors import describe, value_error


class Rows(NamedTuple):
    """Arrays with one row per example; ``weight`` can be ``None``."""

    x: Any
    y: Any
    weight: Any

    def take(self, rows: Any) -> "Rows":
        """Return some of the rows, selected with indices or a mask."""
        return Rows(self.x[rows], self.y[rows], None if self.weight is None else self.weight[rows])

    def times(self, weight: Any) -> "Rows":
        """Multiply the weights of the rows, and omit rows whose weight becomes 0."""
        if weight is None:
            return self
        weight = weight if self.weight is None else self.weight * weight
        if not (weight >= 0).all() or not weight.any():
            rule = "the product of a row's weights must be at least 0, and above 0 for some row"
            raise value_error("sample_weight and class_weight", rule, f"weights from {weight.min():g} to {weight.max():g}")
        rows = self._replace(weight=weight)
        return rows if weight.all() else rows.take(weight > 0)

    def of_mean_one(self) -> "Rows":
        """Return the rows with weights whose mean is 1."""
        return self if self.weight is None else self._replace(weight=self.weight / self.weight.mean())


def checked_rows(estimator: Any, x: Any, y: Any, sample_weight: Any, fresh: bool) -> Rows:
    """Return checked x, y and weights, without the rows of weight 0. With ``fresh`` the estimator stores the columns of x."""
    how = {"allow_nd": True, "multi_output": True, "y_numeric": is_regressor(estimator), "dtype": _dtypes(estimator)}
    x, y = validate_data(estimator, x, y, reset=fresh, **how)
    _require_whole_numbers(estimator, x)
    if is_regressor(estimator) and y.dtype.kind not in "biuf":
        raise value_error(type(estimator).__name__, "y must contain numbers", f"an array of dtype {y.dtype}")
    y = y.toarray() if hasattr(y, "toarray") else y  # sparse indicators of several labels
    y = column_or_1d(y, warn=True) if is_classifier(estimator) and y.ndim == 2 and y.shape[1] == 1 else y
    if sample_weight is not None:
        sample_weight = _check_sample_weight(sample_weight, x, dtype=np.float64, ensure_non_negative=True)
    return Rows(x, y, None).times(sample_weight)


def checked_inputs(estimator: Any, x: Any, row_shape: tuple[int, ...]) -> Any:
    """Check x, which must have the columns and row shape seen in ``fit``, and return it."""
    x = validate_data(estimator, x, reset=False, allow_nd=True, dtype=_dtypes(estimator))
    _require_whole_numbers(estimator, x)
    if x.shape[1:] != row_shape:
        who, rule = type(estimator).__name__, f"rows of X must have the shape of those in fit, {row_shape}"
        raise value_error(who, rule, f"{x.shape[1:]}")
    return x


def dtype_of(estimator: Any, x: Any = None) -> torch.dtype | None:
    """Return the estimator's ``dtype`` as a torch dtype; for ``None``, that of x if there is one."""
    given = estimator.dtype
    if given is None or isinstance(given, torch.dtype):
        return _real(estimator, given) if given else None if x is None else getattr(torch, x.dtype.name)
    try:
        found = getattr(torch, given if isinstance(given, str) else np.dtype(given).name, None)
    except (TypeError, ValueError):
        found = None
    if not isinstance(found, torch.dtype):
        rule = "dtype must be a dtype of torch or numpy, or None for that of X"
        raise value_error(type(estimator).__name__, rule, describe(given))
    return _real(estimator, found)


def _real(estimator: Any, dtype: torch.dtype) -> torch.dtype:
    if dtype.is_complex or dtype is torch.bool:
        raise value_error(type(estimator).__name__, "dtype must be real", str(dtype))
    return dtype


def _dtypes(estimator: Any) -> Any:
    """Return the numpy dtypes that are accepted for the estimator's dtype; others are converted to the first."""
    wanted = dtype_of(estimator)
    if wanted is None:
        return np.float64, np.float32
    return np.float64 if wanted is torch.float64 else np.float32 if wanted.is_floating_point else "numeric"


def _require_whole_numbers(estimator: Any, x: Any) -> None:
    """Reject numbers that an integer ``dtype`` would truncate."""
    wanted = dtype_of(estimator)
    if wanted is not None and not wanted.is_floating_point and x.dtype.kind == "f" and (x != np.trunc(x)).any():
        rule = f"X must contain whole numbers for dtype={wanted}"
        raise value_error(type(estimator).__name__, rule, f"{x[x != np.trunc(x)][0]}")
