"""Custom layers made from functions; for a class with fields and errors, subclass ``Layer`` instead.

layer             y, cache = apply(params, x)      gparams, gx = vjp(params, cache, gy)
elementwise       y = f(x), by element             gx = gy ⊙ f′(x)
shape_dependent   y = g(x), g = make(x's shape)    gx = g's
"""

from collections.abc import Callable
from typing import Any

from attrs import field
from torch import Tensor

from funcnet import tree
from funcnet.checks import check_gy, require_dense_floating, require_key
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.errors import describe, flag, function, value_error
from funcnet.random.keys import Key
from funcnet.signatures import name_of
from funcnet.value import frozen


def _no_params(rng: Key | int) -> Params:
    return {}


@frozen
class FunctionLayer(Layer):
    """The layer whose verbs are three functions; made by ``layer``.

    Params   what ``init`` makes; without it none.
    Cache    what ``apply`` gives beside y.
    Raises   what the functions raise.
    """

    label = "layer"

    apply_function: Callable[..., tuple[Any, Cache]] = field(validator=function)
    vjp_function: Callable[[Params, Cache, Any], tuple[Params, Any]] = field(validator=function)
    init_function: Callable[[Key | int], Params] = field(validator=function)
    stochastic: bool = field(validator=flag)
    batch_dependent: bool = field(validator=flag)

    def init(self, rng: Key | int) -> Params:
        return self.init_function(rng)

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        return self.apply_function(params, x, require_key(self, rng)) if self.stochastic else self.apply_function(params, x)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        return self.vjp_function(params, cache, gy)

    def __repr__(self) -> str:
        words = [f"apply={name_of(self.apply_function)}", f"vjp={name_of(self.vjp_function)}"]
        words += [f"init={name_of(self.init_function)}"] * (self.init_function is not _no_params)
        words += ["stochastic=True"] * self.stochastic + ["batch_dependent=True"] * self.batch_dependent
        return f"layer({', '.join(words)})"


def layer(
    *,
    apply: Callable[..., tuple[Any, Cache]],
    vjp: Callable[[Params, Cache, Any], tuple[Params, Any]],
    init: Callable[[Key | int], Params] = _no_params,
    stochastic: bool = False,
    batch_dependent: bool = False,
) -> Layer:
    """Make a layer from functions: ``apply(params, x)``, ``vjp(params, cache, gy)`` and, where it has params, ``init(rng)``.

    Functions at the top level of a module pickle, compare and show by name. With ``stochastic`` apply is called as
    ``apply(params, x, rng)``; ``batch_dependent`` says that a row of y depends on other rows of x. Try the
    result with ``funcnet.testing.check_laws``.

    Params   what ``init`` makes; without it none.
    Raises   ``ValueError`` for what is no function, and options that are not True or False; and what the functions raise.
    """
    return FunctionLayer(apply, vjp, init, stochastic, batch_dependent)


@frozen
class ElementwiseFunction(Layer):
    """One function of every element, with its derivative: y = f(x), gx = gy ⊙ f′(x); made by ``elementwise``.

    Params   none.
    Cache    ``x``.
    Raises   ``ValueError`` when ``x`` is not a floating tensor.
    """

    label = "elementwise"

    f: Callable[[Tensor], Tensor] = field(validator=function)
    df: Callable[[Tensor], Tensor] = field(validator=function)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        return self.f(require_dense_floating(self, params, x)), x

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        return params, check_gy(self, gy, cache.shape, cache) * self.df(cache)

    def __repr__(self) -> str:
        return f"elementwise({name_of(self.f)}, {name_of(self.df)})"


def elementwise(f: Callable[[Tensor], Tensor], df: Callable[[Tensor], Tensor]) -> Layer:
    """Make the layer that applies f to every element, from f and its derivative df: ``elementwise(torch.sin, torch.cos)``.

    Params   none.
    Raises   ``ValueError`` for what is no function, and when ``x`` is not a floating tensor.
    """
    return ElementwiseFunction(f, df)


@frozen
class ShapeDependent(Layer):
    """The layer that a function makes from the shape of x, not made yet; by ``shape_dependent``.

    Params   none; it has no verbs before ``infer_sizes`` has put the layer into its place.
    Cache    none.
    Raises   ``ValueError`` for every verb, and when the function does not make a layer.
    """

    label = "shape_dependent"

    make: Callable[[Any], Layer] = field(validator=function)

    def init(self, rng: Key | int) -> Params:
        raise self._not_made()

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        raise self._not_made()

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        raise self._not_made()

    def __repr__(self) -> str:
        return f"shape_dependent({name_of(self.make)})"

    def infer(self, x: Any) -> tuple[Layer, Any]:
        layer: Any = self.make(tree.map(lambda leaf: leaf.shape, x))
        if not isinstance(layer, Layer):
            raise value_error(self, "the function must make a layer", describe(layer))
        return layer.infer(x)

    def _not_made(self) -> Exception:
        return value_error(self, "the layer must be made first, by fn.infer_sizes(net, x)", "no shape")


def shape_dependent(make: Callable[[Any], Layer]) -> ShapeDependent:
    """Put a layer here that ``make`` makes from the shape of its input, when ``infer_sizes`` comes by; it may itself infer sizes.

    ``make`` takes a ``torch.Size``, or where x is a tree of tensors, that tree of them. One at the top level of a module pickles,
    compares and shows by name: ``def bottleneck(shape): return Linear(shape[-1], shape[-1] // 4)``.
    """
    return ShapeDependent(make)
