"""Custom layers from functions. For a layer with fields and its own error messages, subclass ``Layer`` instead.

    layer              y, cache = apply(params, x)      gparams, gx = vjp(params, cache, gy)
    elementwise        y = f(x), elementwise            gx = gy ⊙ f′(x)
    shape_dependent    y = g(x), g = make(x.shape)      gx as for g

x and y may have any shape, (...).
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
    """Return ``{}``."""
    return {}


@frozen
class FunctionLayer(Layer):
    """A layer whose verbs are given functions; created by ``layer``.

        y, cache    = apply_function(params, x)
        gparams, gx = vjp_function(params, cache, gy)

    Args:
        apply_function: Function (params, x) → (y, cache).
        vjp_function: Function (params, cache, gy) → (gparams, gx).
        init_function: Function rng → params, which initializes the parameters.
        stochastic: Whether ``apply_function`` gets the key as its third argument.
        batch_dependent: Whether a row of y depends on other rows of x.

    Cache:
        The second result of ``apply_function``.
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
    """Make a layer from functions.

        y, cache    = apply(params, x)
        gparams, gx = vjp(params, cache, gy)

    Functions at the top level of a module pickle, compare and print by name. Verify the layer with
    ``funcnet.testing.check_laws``.

    Args:
        apply: Function (params, x) → (y, cache); with ``stochastic``, (params, x, rng) → (y, cache).
        vjp: Function (params, cache, gy) → (gparams, gx).
        init: Function rng → params, which initializes the parameters; by default there are none.
        stochastic: Whether ``apply`` needs a key.
        batch_dependent: Whether a row of y depends on other rows of x.

    Cache:
        The second result of ``apply``.

    Returns:
        The layer.

    Raises:
        ValueError: If one of the first three is not a function, or an option is not a bool. The verbs raise what the functions
            raise.

    >>> import torch
    >>> double = layer(apply=lambda params, x: (2 * x, None), vjp=lambda params, cache, gy: (params, 2 * gy))
    >>> double({}, torch.ones(2))
    tensor([2., 2.])
    """
    return FunctionLayer(apply, vjp, init, stochastic, batch_dependent)


@frozen
class ElementwiseFunction(Layer):
    """One function applied to every element; created by ``elementwise``.

        y  = f(x)
        gx = gy ⊙ f′(x)

    Args:
        f: The function.
        df: Its derivative f′.

    Shape:
        x (...) → y (...)

    Cache:
        ``x``, not copied.
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
    """Make the layer that applies a function to every element.

        y  = f(x)
        gx = gy ⊙ f′(x)

    Functions at the top level of a module pickle, compare and print by name.

    Args:
        f: Elementwise function of a tensor.
        df: Its derivative f′, also a function of x.

    Shape:
        x (...) → y (...)

    Cache:
        ``x``, not copied.

    Returns:
        The layer.

    Raises:
        ValueError: If ``f`` or ``df`` is not a function, or x is not a floating tensor.

    >>> import torch
    >>> elementwise(torch.sin, torch.cos)({}, torch.zeros(2))
    tensor([0., 0.])
    """
    return ElementwiseFunction(f, df)


@frozen
class ShapeDependent(Layer):
    """A placeholder for a layer that a function creates from the shape of x; created by ``shape_dependent``.

        y  = g(x), g = make(x.shape)
        gx is that of g

    It has no verbs and no parameters until ``infer_sizes`` has replaced it with g.

    Args:
        make: Function that returns the layer g; it gets a ``torch.Size``, or a tree of them if x is a tree of tensors.

    Raises:
        ValueError: From every verb; from ``infer_sizes`` if ``make`` does not return a layer.
    """

    label = "shape_dependent"

    make: Callable[[Any], Layer] = field(validator=function)

    def init(self, rng: Key | int) -> Params:
        raise self._placeholder_error()

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        raise self._placeholder_error()

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        raise self._placeholder_error()

    def __repr__(self) -> str:
        return f"shape_dependent({name_of(self.make)})"

    def infer(self, x: Any) -> tuple[Layer, Any]:
        """Create the layer for the shape of x and infer its sizes; return it with its output.

        Args:
            x: Input on the meta device.
        """
        layer: Any = self.make(tree.map(lambda leaf: leaf.shape, x))
        if not isinstance(layer, Layer):
            raise value_error(self, "the function must return a layer", describe(layer))
        return layer.infer(x)

    def _placeholder_error(self) -> Exception:
        return value_error(self, "the layer must be created first, with fn.infer_sizes(net, x)", "no shape")


def shape_dependent(make: Callable[[Any], Layer]) -> ShapeDependent:
    """Make a placeholder for a layer whose fields depend on the shape of its input.

        y  = g(x), g = make(x.shape)
        gx is that of g

    ``infer_sizes`` calls ``make`` and replaces the placeholder with the layer g, whose own sizes can be ``None``. A function at
    the top level of a module pickles, compares and prints by name.

    Args:
        make: Function that returns the layer; it gets a ``torch.Size``, or a tree of them if x is a tree of tensors.

    Returns:
        The placeholder, which has no verbs and no parameters.

    Raises:
        ValueError: If ``make`` is not a function.

    >>> import torch
    >>> from funcnet.layers.linear.linear import Linear
    >>> from funcnet.sizes import infer_sizes
    >>> def bottleneck(shape):
    ...     return Linear(shape[-1], shape[-1] // 4)
    >>> infer_sizes(shape_dependent(bottleneck), torch.ones(8, 16))
    Linear(in_features=16, out_features=4)
    """
    return ShapeDependent(make)
