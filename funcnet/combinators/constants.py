"""Constants: further inputs that every layer in a series sees, such as a mask or the output of an encoder.

    keep_constants          (y, c₁, ...) = (f(x, c₁, ...), c₁, ...)       gx from f, gcᵢ = gcᵢ from f + gradient of the output cᵢ
    serial_with_constants   xᵢ = fᵢ(xᵢ₋₁, c₁, ...), y = xₙ                gx = g₀, gc = Σ over the layers, last to first

If x is not a tuple, there are no constants.
"""

from itertools import pairwise
from typing import Any, Self

from attrs import field

from funcnet.combinator import Children, Combinator, add_gradients, errors_at, layers_only, tuple_of_layers
from funcnet.combinators.sequential import Serial
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.errors import value_error
from funcnet.value import frozen
from funcnet.wrapper import Wrapper


@frozen
class _Kept(Wrapper):
    """A layer that appends the constants, all entries of its input after the first, to its output; adds no notes to errors."""

    label = "keep_constants"
    computes = False

    layer: Layer = field(validator=layers_only)

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        y, cache = self.layer.apply(params, x, rng)
        return _append_constants(y, x), cache

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        return _append_constants(self.layer(params, x, rng), x)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        gparams, gx = self.layer.vjp(params, cache, _first(gy))
        return gparams, self._add_later_grads(gx, gy)

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        return self.layer.grads(params, cache, _first(gy))

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        return self._add_later_grads(self.layer.input_grad(params, cache, _first(gy)), gy)

    def _add_later_grads(self, gx: Any, gy: Any) -> Any:
        """Add the gradients of the constants from later layers to those from this one."""
        if not isinstance(gx, tuple) and not isinstance(gy, tuple):
            return gx
        if not isinstance(gx, tuple) or not isinstance(gy, tuple) or len(gx) != len(gy):
            rule = "gy must be a tuple with as many entries as x if x is a tuple, and no tuple otherwise"
            raise value_error("keep_constants", rule, gy)
        pairs = zip(gx[1:], gy[1:], strict=True)
        return (gx[0], *[add_gradients("keep_constants", one, later) for one, later in pairs])

    def infer(self, x: Any) -> tuple[Self, Any]:
        layer, y = self.layer.infer(x)
        return self.replace(layer=layer), _append_constants(y, x)


@frozen
class KeepConstants(_Kept):
    """A layer that appends the constants, all entries of its input after the first, to its output; made by ``keep_constants``.

        (y, c₁, ...) = (f(x, c₁, ...), c₁, ...)      gcᵢ = gcᵢ from f + gradient of the output cᵢ

    Args:
        layer: The layer f.

    Params:
        The layer's params.

    Cache:
        The layer's cache.

    Raises:
        ValueError: If x is a tuple and gy is not one of the same length.
    """

    passes_gradients_on = True

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        with errors_at(self, ""):
            return super().apply(params, x, rng)

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        with errors_at(self, ""):
            return super().__call__(params, x, rng)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        with errors_at(self, ""):
            return super().vjp(params, cache, gy)

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        with errors_at(self, ""):
            return super().grads(params, cache, gy)

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        with errors_at(self, ""):
            return super().input_grad(params, cache, gy)

    def infer(self, x: Any) -> tuple[Self, Any]:
        with errors_at(self, ""):
            return super().infer(x)

    def __repr__(self) -> str:
        return f"keep_constants({self.layer!r})"


def _append_constants(y: Any, x: Any) -> Any:
    return (y, *x[1:]) if isinstance(x, tuple) else y


def _first(gy: Any) -> Any:
    return gy[0] if isinstance(gy, tuple) else gy


def keep_constants(layer: Layer) -> KeepConstants:
    """Apply a layer to the tuple (x, c₁, c₂, ...), and append the constants c₁, c₂, ... to its output.

        (y, c₁, ...) = (f(x, c₁, ...), c₁, ...)
        gx from f.vjp(gy)      gcᵢ = gcᵢ from f.vjp(gy) + gradient of the output cᵢ

    Layers in series then all see the same constants, such as a mask: ``serial(repeat(keep_constants(f), n), Select(0))``. If x is
    not a tuple, there are no constants, and y is the layer's output.

    Args:
        layer: The layer f. Its params and their paths stay the same.

    Params:
        The layer's params.

    Cache:
        The layer's cache.

    Raises:
        ValueError: If x is a tuple and gy is not one of the same length.

    >>> import torch
    >>> from funcnet.layers.operands.arithmetic import Add
    >>> keep_constants(Add())({}, (torch.zeros(2), torch.ones(2)))
    (tensor([1., 1.]), tensor([1., 1.]))
    """
    return KeepConstants(layer)


@frozen
class _Series(Serial):
    """The layers in series; all except the last append the constants to their outputs."""

    label = "serial_with_constants"


@frozen
class SerialWithConstants(Combinator):
    """Layers in series that all see the same constants; made by ``serial_with_constants``.

        xᵢ = fᵢ(xᵢ₋₁, c₁, ...),  y = xₙ      gx = g₀,  gc = Σ over the layers

    Args:
        layers: The layers f₁, ..., fₙ.

    Params:
        A tuple with one entry per layer.

    Cache:
        A tuple with one entry per layer.

    Raises:
        ValueError: If there are no layers.
    """

    label = "serial_with_constants"
    computes = False
    passes_gradients_on = True

    layers: tuple[Layer, ...] = field(validator=tuple_of_layers)
    _series: _Series = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        if not self.layers:
            raise value_error(self.label, "there must be at least one layer", "none")
        *layers, last = self.layers
        object.__setattr__(self, "_series", _Series((*map(_Kept, layers), last)))

    def children(self) -> Children:
        return {str(i): layer for i, layer in enumerate(self.layers)}

    def with_children(self, children: Children) -> Self:
        return self.replace(layers=tuple(children.values()))

    def wires(self) -> list[tuple[str | None, str | None]]:
        return [*pairwise([None, *self.children(), None])]

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        return self._series.apply(params, x, rng)

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        return self._series(params, x, rng)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        return self._series.vjp(params, cache, gy)

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        return self._series.grads(params, cache, gy)

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        return self._series.input_grad(params, cache, gy)

    def __repr__(self) -> str:
        return f"serial_with_constants({', '.join(map(repr, self.layers))})"


def serial_with_constants(*layers: Layer) -> SerialWithConstants:
    """Compose layers in series, each with the previous output and the same constants c₁, c₂, ... as input.

        xᵢ = fᵢ(xᵢ₋₁, c₁, ...),  y = xₙ
        gx = g₀,  gcⱼ = Σᵢ gradient of cⱼ from fᵢ

    x is a tuple (x₀, c₁, c₂, ...), and y the output of the last layer. If x is not a tuple, the layers run as in ``serial``.

    Args:
        layers: The layers, at least one.

    Params:
        A tuple with one entry per layer.

    Cache:
        A tuple with one entry per layer.

    Raises:
        ValueError: If there are no layers.

    >>> import torch
    >>> from funcnet.layers.operands.arithmetic import Add
    >>> serial_with_constants(Add(), Add(), Add())(({}, {}, {}), (torch.zeros(2), torch.ones(2)))
    tensor([3., 3.])
    """
    return SerialWithConstants(layers)
