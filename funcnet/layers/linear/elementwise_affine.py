"""Learned scales and offsets of single elements.

    Scale   y = w x        gx = w gy        gw = Σ gy x
    Bias    y = x + b      gx = gy          gb = Σ gy

x (..., *shape); w and b have ``shape``. The sums run over the axes along which w and b are repeated.
"""

from typing import Any

from attrs import field
from torch import Tensor

from funcnet import initializers
from funcnet.checks import Misfit, check_gy, explain_error, require_sizes
from funcnet.contract import Layer, Params, Rng, Shape
from funcnet.errors import is_whole, value_error
from funcnet.initializers import Initializer
from funcnet.kernels import operands as arithmetic
from funcnet.random import Key
from funcnet.value import frozen


def _as_tuple(given: Any) -> Any:
    return (given,) if is_whole(given) else tuple(given) if isinstance(given, (tuple, list)) else given


def _sizes(layer: Any, attribute: Any, got: Any) -> None:
    if got is not None and (not isinstance(got, tuple) or not all(is_whole(one) and one >= 1 for one in got)):
        raise value_error(type(layer).__name__, "shape must be a whole number of at least 1, or a tuple of them", repr(got))


def _fits(layer: "Scale | Bias", x: Tensor) -> bool:
    """Tell whether the last axes of x are those of ``shape``, of which one of size 1 is repeated."""
    before = x.dim() - len(layer.shape)
    return before >= 0 and [n for n, got in zip(layer.shape, x.shape[before:], strict=True) if n not in (1, got)] == []


def _fault(layer: "Scale | Bias", x: Tensor) -> str | None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        return "x must be a floating tensor"
    return None if _fits(layer, x) else f"the last axes of x must be those of shape={layer.shape}, where 1 is any"


def _leaf(layer: "Scale | Bias", params: Params, x: Tensor, name: str) -> Tensor:
    w: Tensor = params[name]
    if len(params) != 1 or w.shape != layer.shape or w.dtype != x.dtype or not _fits(layer, x):
        raise Misfit
    return w


@frozen
class Scale(Layer):
    """Product with a number for each place of the last axes: ``Scale(3)`` for features, ``Scale((3, 1, 1))`` for channels.

    ``shape=None`` is the last axis, for ``infer_sizes`` to find.

    Params   ``weight``, of ``shape``, ones unless ``initializer`` names another.
    Cache    ``x``.
    Raises   ``ValueError`` for sizes below 1, params that are not this layer's, and an ``x`` with other last axes or another
             dtype.
    Source   elementary.
    """

    shape: Shape | Any = field(converter=_as_tuple, validator=_sizes)
    initializer: str | Initializer = field(default="ones", validator=initializers.known)

    @property
    def inferred_sizes(self) -> dict[str, int]:
        return {"shape": -1}

    def init(self, rng: Key | int) -> Params:
        return {"weight": initializers.initialize(rng, require_sizes(self).shape, self.initializer)}

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        try:
            return x * _leaf(self, params, x, "weight"), x
        except Exception as error:
            raise explain_error(self, params, x, error) from None

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Params, Tensor]:
        return self.grads(params, cache, gy), self.input_grad(params, cache, gy)

    def grads(self, params: Params, cache: Tensor, gy: Tensor) -> Params:
        return {"weight": arithmetic.unbroadcast(check_gy(self, gy, cache.shape) * cache, self.shape)}

    def input_grad(self, params: Params, cache: Tensor, gy: Tensor) -> Tensor:
        gx: Tensor = check_gy(self, gy, cache.shape) * params["weight"]
        return gx

    def param_shapes(self) -> dict[str, Shape]:
        return {"weight": self.shape}

    def complaint(self, x: Tensor) -> str | None:
        return _fault(self, x)


@frozen
class Bias(Layer):
    """Sum with a number for each place of the last axes: ``Bias(3)`` for features, ``Bias((3, 1, 1))`` for channels.

    ``shape=None`` is the last axis, for ``infer_sizes`` to find.

    Params   ``bias``, of ``shape``, zeros unless ``initializer`` names another.
    Cache    ``()``.
    Raises   ``ValueError`` for sizes below 1, params that are not this layer's, and an ``x`` with other last axes or another
             dtype.
    Source   elementary.
    """

    shape: Shape | Any = field(converter=_as_tuple, validator=_sizes)
    initializer: str | Initializer = field(default="zeros", validator=initializers.known)

    @property
    def inferred_sizes(self) -> dict[str, int]:
        return {"shape": -1}

    def init(self, rng: Key | int) -> Params:
        return {"bias": initializers.initialize(rng, require_sizes(self).shape, self.initializer)}

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[()]]:
        try:
            return x + _leaf(self, params, x, "bias"), ()
        except Exception as error:
            raise explain_error(self, params, x, error) from None

    def vjp(self, params: Params, cache: tuple[()], gy: Tensor) -> tuple[Params, Tensor]:
        return {"bias": arithmetic.unbroadcast(gy, self.shape)}, gy

    def input_grad(self, params: Params, cache: tuple[()], gy: Tensor) -> Tensor:
        return gy

    def param_shapes(self) -> dict[str, Shape]:
        return {"bias": self.shape}

    def complaint(self, x: Tensor) -> str | None:
        return _fault(self, x)
