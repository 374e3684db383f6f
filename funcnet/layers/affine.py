"""Scales, offsets, and the largest of several linear maps.

Scale    y = w x                        gx = w gy             gw = Σ gy x
Bias     y = x + b                      gx = gy               gb = Σ gy
Maxout   y = max over p of x wₚᵀ + bₚ   gx = Σ gₚ wₚ          gwₚ = gₚᵀ x, gbₚ = Σ gₚ      gₚ = gy where p is the largest, else 0

x (..., *shape), w and b of ``shape``; of Maxout x (..., in), wₚ (out, in), bₚ (out,) and y (..., out). The sums are over the axes
along which w and b are repeated.
"""

from typing import Any

from attrs import field
from torch import Tensor

from funcnet import initializers
from funcnet.errors import flag, is_whole, size, size_or_none, wrong
from funcnet.initializers import Initializer
from funcnet.kernels import arithmetic
from funcnet.kernels import linear as kernels
from funcnet.layer import Layer, Params, Size, explained, fitting, frozen, known, wrong_params
from funcnet.random import Key

Sizes = tuple[int, ...]


def _as_tuple(given: Any) -> Any:
    return (given,) if is_whole(given) else tuple(given) if isinstance(given, (tuple, list)) else given


def _sizes(layer: Any, attribute: Any, got: Any) -> None:
    if got is not None and (not isinstance(got, tuple) or not all(is_whole(one) and one >= 1 for one in got)):
        raise wrong(type(layer).__name__, "shape must be a whole number of at least 1, or a tuple of them", repr(got))


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
        raise wrong_params(layer, params)
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

    shape: Sizes | Any = field(converter=_as_tuple, validator=_sizes)
    initializer: str | Initializer = field(default="ones", validator=initializers.known)

    @property
    def sizes_from_x(self) -> dict[str, int]:
        return {"shape": -1}

    def init(self, rng: Key | int) -> Params:
        return {"weight": initializers.drawn(rng, known(self).shape, self.initializer)}

    def apply(self, params: Params, x: Tensor) -> tuple[Tensor, Tensor]:
        try:
            return x * _leaf(self, params, x, "weight"), x
        except Exception as error:
            raise explained(self, params, x, error) from None

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Params, Tensor]:
        return self.grads(params, cache, gy), self.input_grad(params, cache, gy)

    def grads(self, params: Params, cache: Tensor, gy: Tensor) -> Params:
        return {"weight": arithmetic.unbroadcast(fitting(self, gy, cache) * cache, self.shape)}

    def input_grad(self, params: Params, cache: Tensor, gy: Tensor) -> Tensor:
        gx: Tensor = fitting(self, gy, cache) * params["weight"]
        return gx

    def _shapes(self) -> dict[str, Sizes]:
        return {"weight": self.shape}

    def _fault(self, x: Tensor) -> str | None:
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

    shape: Sizes | Any = field(converter=_as_tuple, validator=_sizes)
    initializer: str | Initializer = field(default="zeros", validator=initializers.known)

    @property
    def sizes_from_x(self) -> dict[str, int]:
        return {"shape": -1}

    def init(self, rng: Key | int) -> Params:
        return {"bias": initializers.drawn(rng, known(self).shape, self.initializer)}

    def apply(self, params: Params, x: Tensor) -> tuple[Tensor, tuple[()]]:
        try:
            return x + _leaf(self, params, x, "bias"), ()
        except Exception as error:
            raise explained(self, params, x, error) from None

    def vjp(self, params: Params, cache: tuple[()], gy: Tensor) -> tuple[Params, Tensor]:
        return {"bias": arithmetic.unbroadcast(gy, self.shape)}, gy

    def input_grad(self, params: Params, cache: tuple[()], gy: Tensor) -> Tensor:
        return gy

    def _shapes(self) -> dict[str, Sizes]:
        return {"bias": self.shape}

    def _fault(self, x: Tensor) -> str | None:
        return _fault(self, x)


@frozen
class Maxout(Layer):
    """The largest of ``pieces`` affine maps of the last axis, output by output; of equal ones the gradient goes to one.

    There are ``out_features`` outputs. ``in_features=None`` is for ``infer_sizes`` to find.

    Params   ``weight`` (out · pieces, in), the pieces of one output below one another, Xavier normal unless ``initializer`` names
             another; ``bias`` (out · pieces,), zeros, absent with ``bias=False``.
    Cache    ``x``, and which piece is the largest.
    Raises   ``ValueError`` for a size below 1, for params that are not this layer's, and an ``x`` with another last axis or
             dtype.
    Source   Goodfellow et al. 2013, section 3.
    """

    in_features: Size = field(validator=size_or_none)
    out_features: int = field(validator=size)
    pieces: int = field(default=2, validator=size)
    bias: bool = field(default=True, validator=flag)
    initializer: str | Initializer = field(default="xavier_normal", validator=initializers.known)

    @property
    def sizes_from_x(self) -> dict[str, int]:
        return {"in_features": -1}

    def init(self, rng: Key | int) -> Params:
        return initializers.weight_and_bias(rng, known(self)._shapes(), self.initializer)

    def apply(self, params: Params, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        try:
            if len(params) != 1 + self.bias or [p.shape for p in params.values()] != [*self._shapes().values()]:
                raise wrong_params(self, params)
            z = kernels.linear(x, params["weight"], params.get("bias"))
            y, piece = z.reshape(*x.shape[:-1], self.out_features, self.pieces).max(-1)
            return y, (x, piece)
        except Exception as error:
            raise explained(self, params, x, error) from None

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor) -> tuple[Params, Tensor]:
        g = self._spread(cache, gy)
        return self._gparams(cache, g), kernels.linear_input_grad(g, params["weight"])

    def grads(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor) -> Params:
        return self._gparams(cache, self._spread(cache, gy))

    def input_grad(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor) -> Tensor:
        return kernels.linear_input_grad(self._spread(cache, gy), params["weight"])

    def _spread(self, cache: tuple[Tensor, Tensor], gy: Tensor) -> Tensor:
        """Give each output's gradient to its largest piece, and the others 0."""
        piece = cache[1]
        zeros = gy.new_zeros(*piece.shape, self.pieces)
        return zeros.scatter(-1, piece.unsqueeze(-1), fitting(self, gy, piece).unsqueeze(-1)).flatten(-2)

    def _gparams(self, cache: tuple[Tensor, Tensor], g: Tensor) -> Params:
        gw, gb = kernels.linear_grads(cache[0], g)
        return {"weight": gw, "bias": gb} if self.bias else {"weight": gw}

    def _shapes(self) -> dict[str, Sizes]:
        rows = self.out_features * self.pieces
        shapes: dict[str, Sizes] = {"weight": (rows, self.in_features)}
        return {**shapes, "bias": (rows,)} if self.bias else shapes

    def _fault(self, x: Tensor) -> str | None:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return "x must be a floating tensor"
        return f"the last axis of x must be in_features={self.in_features}" if x.shape[-1:] != (self.in_features,) else None
