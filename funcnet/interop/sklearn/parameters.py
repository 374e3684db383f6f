"""Parameters that are values: their fields are parameters too, like ``optimizer__lr`` and ``net__0__out_features``."""

from typing import Any, Self

from sklearn.base import BaseEstimator

from funcnet.interop.sklearn.nested_fields import nested, with_fields
from funcnet.optim.adam import Adam
from funcnet.value import Value


class ValueParameters(BaseEstimator):  # type: ignore[misc]
    """An estimator with parameters that are frozen values."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name.

        Args:
            deep: Whether to include the fields of values, such as ``optimizer__lr``.
        """
        found: dict[str, Any] = super().get_params(deep)
        for name, given in [*found.items()] if deep else ():
            value = _in_full(name, given)
            found |= dict(nested(value, name)) if isinstance(value, Value) else {}
        return found

    def set_params(self, **params: Any) -> Self:
        """Set parameters and fields of values: ``set_params(optimizer__lr=0.01, net__0__out_features=64)``.

        A new value with the changed fields replaces the old one; values themselves never change.

        Args:
            params: The new contents by name.

        Raises:
            ValueError: If a parameter or field does not exist, or a value rejects its new content.
        """
        whole = {path: content for path, content in params.items() if not self._is_field(path, params)}
        super().set_params(**whole)
        grouped: dict[str, dict[str, Any]] = {}
        for path in [path for path in params if path not in whole]:
            name, _, rest = path.partition("__")
            grouped.setdefault(name, {})[rest] = params[path]
        for name, changes in grouped.items():
            value = _in_full(name, getattr(self, name))
            setattr(self, name, with_fields(value, changes, f"{type(self).__name__}, {name}"))
        return self

    def _is_field(self, path: str, params: dict[str, Any]) -> bool:
        """Return whether a path leads into a parameter that is not an estimator, whose fields scikit-learn would set itself."""
        name, inner, _ = path.partition("__")
        return bool(inner) and hasattr(self, name) and not hasattr(params.get(name, getattr(self, name)), "set_params")


def _in_full(name: str, given: Any) -> Any:
    """Return a parameter, with the default optimizer for ``None``."""
    return Adam() if name == "optimizer" and given is None else given
