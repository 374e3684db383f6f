"""Gradient rules: the identity or a layer, with a backward rule other than the derivative.

    scale_gradient(c)         y = x       gx = c gy
    reverse_gradient(c)       y = x       gx = -c gy
    clip_gradient(bound)      y = x       gx = max(-bound, min(gy, bound)), elementwise
    straight_through(layer)   y = f(x)    gx = gy, and gp from f.grads(gy)

x is a tensor (...), or a tree of tensors. These layers are surrogates: ``surrogate`` is ``True`` for them and for every net that
contains one. ``torch.func`` ignores the rules: it returns the derivative of ``apply``.
"""

from abc import abstractmethod
from typing import Any

from attrs import field
from torch import Tensor

from funcnet.checks import check_gys
from funcnet.combinator import errors_at, has_params, layers_only
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.errors import adds_location, describe, is_number, number, value_error
from funcnet.flattening import flatten_together, unflatten
from funcnet.layers.shape.reshaping import Identity
from funcnet.value import frozen
from funcnet.wrapper import Wrapper


class GradientRule(Identity):
    """The identity with an elementwise backward rule, which a subclass defines in ``backward``."""

    __slots__ = ()

    surrogate = True

    @abstractmethod
    def backward(self, gy: Tensor) -> Tensor:
        """Return gx for one tensor of x.

        Args:
            gy: Gradient of the same tensor of y.
        """

    def vjp(self, params: Params, cache: Any, gy: Any) -> tuple[Grads, Any]:
        gy = check_gys(self, gy, cache)
        if type(gy) is Tensor:
            return params, self.backward(gy)
        return params, unflatten(cache, map(self._back, flatten_together(gy)[0]))

    def _back(self, gy: Any) -> Any:
        return self.backward(gy) if isinstance(gy, Tensor) else gy


@frozen
class ScaleGradient(GradientRule):
    """The identity with the gradient multiplied by ``c``; made by ``scale_gradient`` and ``reverse_gradient``.

        y = x      gx = c gy

    Args:
        c: The factor.

    Cache:
        ``x``, not copied.
    """

    label = "scale_gradient"

    c: float = field(validator=number())

    def backward(self, gy: Tensor) -> Tensor:
        return gy * self.c

    def declared_vjp(self, params: Params, x: Any, gy: Any, rng: Rng = None) -> tuple[Grads, Any]:
        return params, _by_leaf(lambda g: self.c * g, x, gy)

    def __repr__(self) -> str:
        return f"scale_gradient({self.c!r})"


@frozen
class ClipGradient(GradientRule):
    """The identity with the gradient clamped to [-``bound``, ``bound``], elementwise; made by ``clip_gradient``.

        y = x      gx = max(-bound, min(gy, bound))

    Args:
        bound: Largest absolute value of an element of gx.

    Cache:
        ``x``, not copied.
    """

    label = "clip_gradient"

    bound: float = field(validator=number(above=0.0))

    def backward(self, gy: Tensor) -> Tensor:
        return gy.clamp(-self.bound, self.bound)

    def declared_vjp(self, params: Params, x: Any, gy: Any, rng: Rng = None) -> tuple[Grads, Any]:
        return params, _by_leaf(lambda g: g.where(g.abs() <= self.bound, self.bound * g.sign()), x, gy)

    def __repr__(self) -> str:
        return f"clip_gradient({self.bound!r})"


def _by_leaf(rule: Any, x: Any, gy: Any) -> Any:
    pairs = zip(*flatten_together(x, gy), strict=True)
    return unflatten(x, iter([rule(g) if isinstance(g, Tensor) else None for _, g in pairs]))


@frozen
class StraightThrough(Wrapper):
    """A layer whose input gets the gradient of its output unchanged; made by ``straight_through``.

        y = f(x)      gx = gy      gp = f.grads(p, c, gy)

    Args:
        layer: The layer f.

    Params:
        The layer's params.

    Cache:
        The layer's cache, and x, not copied.

    Raises:
        ValueError: If y does not have the shape and dtype of x.
    """

    label = "straight_through"
    surrogate = True
    passes_gradients_on = True

    layer: Layer = field(validator=layers_only)

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        with errors_at(self, ""):
            y, cache = self.layer.apply(params, x, rng)
        return self._require_like(x, y), (cache, x)

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        with errors_at(self, ""):
            y = self.layer(params, x, rng)
        return self._require_like(x, y)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        gx = self.input_grad(params, cache, gy)
        return self.grads(params, cache, gx), gx

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        gy = self.input_grad(params, cache, gy)
        if not has_params(params):
            return params
        with errors_at(self, ""):
            return self.layer.grads(params, cache[0], gy)

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        return check_gys(self, gy, cache[1])

    def inner_cache(self, cache: Cache) -> Cache:
        return cache[0]

    def declared_vjp(self, params: Params, x: Any, gy: Any, rng: Rng = None) -> tuple[Grads, Any]:
        return self.layer.vjp(params, self.layer.apply(params, x, rng)[1], gy)[0], gy

    def _require_like(self, x: Any, y: Any) -> Any:
        """Return y, after checking that its leaves have the shapes and dtypes of x, since gy becomes gx."""
        if type(x) is Tensor and type(y) is Tensor and y.shape == x.shape and y.dtype is x.dtype:
            return y
        pairs = [*zip(*flatten_together(x, y), strict=True)]
        if not all([_kind(one) == _kind(other) for one, other in pairs]):  # noqa: C419
            raise value_error("straight_through", f"y must have the shape and dtype of x, {describe(x)}", describe(y))
        return y

    def __repr__(self) -> str:
        return f"straight_through({self.layer!r})"


def _kind(leaf: Any) -> Any:
    return (leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf


def scale_gradient(c: float) -> ScaleGradient:
    """Multiply the gradient by ``c`` in the backward pass; the identity in the forward pass.

        y = x      gx = c gy

    ``serial(trunk, scale_gradient(0.1), head)`` trains the trunk with a tenth of the gradient.

    Args:
        c: The factor; 0 stops the gradient.

    Cache:
        ``x``, not copied.

    >>> import torch
    >>> layer = scale_gradient(0.1)
    >>> y, cache = layer.apply({}, torch.ones(2))
    >>> layer.input_grad({}, cache, torch.tensor([1.0, 2.0]))
    tensor([0.1000, 0.2000])
    """
    return ScaleGradient(c)


@adds_location("reverse_gradient")
def reverse_gradient(c: float = 1.0) -> ScaleGradient:
    """Multiply the gradient by -``c`` in the backward pass, for domain-adversarial training; the identity in the forward pass.

        y = x      gx = -c gy

    The layer is ``scale_gradient(-c)``. ``serial(features, branch(labels, serial(reverse_gradient(), domain)))`` trains features
    that separate labels but not domains.

    Args:
        c: The factor.

    Cache:
        ``x``, not copied.

    Raises:
        ValueError: If c is not a finite number.

    References:
        Ganin et al. 2016.

    >>> reverse_gradient(0.5)
    scale_gradient(-0.5)
    """
    if not is_number(c):
        raise value_error("reverse_gradient", "c must be a finite number", repr(c))
    return ScaleGradient(-c)


def clip_gradient(bound: float) -> ClipGradient:
    """Clamp each element of the gradient to [-``bound``, ``bound``] in the backward pass; the identity in the forward pass.

        y = x      gx = max(-bound, min(gy, bound))

    In a long recurrence it bounds gradients where they arise. To clip the gradients of all params together, use
    ``ClipByGlobalNorm``. The ``vjp`` of this layer is not linear in gy.

    Args:
        bound: Largest absolute value of an element of gx.

    Cache:
        ``x``, not copied.

    >>> import torch
    >>> layer = clip_gradient(1.0)
    >>> y, cache = layer.apply({}, torch.ones(3))
    >>> layer.input_grad({}, cache, torch.tensor([-3.0, 0.5, 2.0]))
    tensor([-1.0000,  0.5000,  1.0000])
    """
    return ClipGradient(bound)


def straight_through(layer: Layer) -> StraightThrough:
    """Apply a layer, and pass the gradient of its output to its input unchanged.

        y = f(x)      gx = gy      gp = f.grads(p, c, gy)

    This trains through layers whose derivative is 0 or undefined: ``straight_through(Sign())`` binarizes x. Params of the layer
    get their own gradients.

    Args:
        layer: The layer f, whose y has the shape and dtype of x.

    Params:
        The layer's params.

    Cache:
        The layer's cache, and x, not copied.

    Raises:
        ValueError: If y does not have the shape and dtype of x.

    References:
        Bengio et al. 2013.

    >>> import torch
    >>> from funcnet.layers.activation.elementary import Sign
    >>> layer = straight_through(Sign())
    >>> y, cache = layer.apply({}, torch.tensor([-0.3, 2.0]))
    >>> y, layer.input_grad({}, cache, torch.tensor([0.5, 0.7]))
    (tensor([-1.,  1.]), tensor([0.5000, 0.7000]))
    """
    return StraightThrough(layer)
