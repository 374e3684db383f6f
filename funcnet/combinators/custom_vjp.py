"""Custom backward rules: a layer with a function of its vjp as backward pass.

    with_vjp(layer, rule)     y = f(p, x)      gp, gx = rule(f.vjp, x, y, gy)

x and y are tensors, or trees of them. The layer is a surrogate, like the layers in ``gradient_rules``.
"""

from collections.abc import Callable
from typing import Any

from attrs import field
from torch import Tensor

from funcnet.checks import check_gys
from funcnet.combinator import errors_at, has_params, layers_only
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.errors import describe, function, value_error
from funcnet.flattening import flatten_together
from funcnet.signatures import name_of
from funcnet.value import frozen
from funcnet.wrapper import Wrapper, infer_unchanged

Vjp = Callable[[Any], tuple[Grads, Any]]
"""A function of gy that returns the gradients of params and of x."""


@frozen
class WithVjp(Wrapper):
    """A layer with a custom backward rule; made by ``with_vjp``.

        y = f(p, x)      gp, gx = rule(f.vjp, x, y, gy)

    Args:
        layer: The layer f.
        rule: The function ``rule(vjp, x, y, gy) -> (gparams, gx)``.

    Params:
        The layer's params.

    Cache:
        The layer's cache, x and y, not copied.

    Raises:
        ValueError: If gy does not have the shape and dtype of y, or the rule does not return a pair whose second entry has the
            shape and dtype of x.
    """

    label = "with_vjp"
    surrogate = True

    layer: Layer = field(validator=layers_only)
    rule: Callable[[Vjp, Any, Any, Any], tuple[Grads, Any]] = field(validator=function)

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        with errors_at(self, ""):
            y, cache = self.layer.apply(params, x, rng)
        return y, (cache, x, y)

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        with errors_at(self, ""):
            return self.layer(params, x, rng)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        if not isinstance(cache, tuple) or len(cache) != 3:
            raise value_error(self, "cache must be what apply returned, a tuple of 3", describe(cache))
        inner, x, y = cache
        gy = check_gys(self, gy, y)
        with errors_at(self, ""):
            found = self.rule(lambda g: self.layer.vjp(params, inner, g), x, y, gy)
        return self._checked(x, found)

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        return self.vjp(params, cache, gy)[0] if has_params(params) else params

    def inner_cache(self, cache: Cache) -> Cache:
        return cache[0]

    def declared_vjp(self, params: Params, x: Any, gy: Any, rng: Rng = None) -> tuple[Grads, Any]:
        y, cache = self.layer.apply(params, x, rng)
        return self.rule(lambda g: self.layer.vjp(params, cache, g), x, y, gy)

    infer = infer_unchanged

    def _checked(self, x: Any, found: Any) -> tuple[Params, Any]:
        """Return the result of the rule, after checking it: other layers would notice a wrong shape late or never."""
        if type(found) is not tuple or len(found) != 2:
            raise value_error(self, "the rule must return a pair, the gradients of params and of x", describe(found))
        gx = found[1]
        if type(gx) is Tensor and type(x) is Tensor and gx.shape == x.shape and gx.dtype is x.dtype:
            return found
        pairs = zip(*flatten_together(x, gx), strict=True)
        if not all([g is None or _kind(g) == _kind(one) for one, g in pairs]):  # noqa: C419
            raise value_error(self, f"the rule must return a gx with the shape and dtype of x, {describe(x)}", describe(gx))
        return found

    def __repr__(self) -> str:
        return f"with_vjp({self.layer!r}, {name_of(self.rule)})"


def _kind(leaf: Any) -> Any:
    return (leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf


def with_vjp(layer: Layer, rule: Callable[[Vjp, Any, Any, Any], tuple[Grads, Any]]) -> WithVjp:
    """Apply a layer unchanged, and compute its gradients with a custom rule.

        y = f(p, x)      gp, gx = rule(f.vjp, x, y, gy)

    With ``map_layers`` one line changes the backward rule of every layer of a kind, and the params stay the same::

        map_layers(lambda layer: with_vjp(layer, guided) if isinstance(layer, ReLU) else layer, net)

    Most rules change gy and then call the layer's own vjp. ``vjp(gy.relu())`` at each ReLU is guided backpropagation;
    ``vjp(gy.clamp(-1, 1))`` clips the gradient. With ``vjp(gy * y / (y + ε sign y))`` at each Linear, x times the gradient of x
    is the relevance of LRP-ε.

    Args:
        layer: The layer f.
        rule: A function ``rule(vjp, x, y, gy) -> (gparams, gx)``; ``vjp(gy)`` is the layer's own. It must return 0 for a gy of 0.
            A function at the top level of a module pickles, compares and prints by name.

    Params:
        The layer's params.

    Cache:
        The layer's cache, x and y, not copied.

    Raises:
        ValueError: If, in the backward pass, the rule does not return a pair whose second entry has the shape and dtype of x.

    References:
        Springenberg et al. 2015, section 3.4 (guided backpropagation); Bach et al. 2015, eq. 58 (LRP-ε).

    >>> import torch
    >>> from funcnet.layers.activation.rectifiers import ReLU
    >>> guided = with_vjp(ReLU(), lambda vjp, x, y, gy: vjp(gy.relu()))
    >>> y, cache = guided.apply({}, torch.tensor([-1.0, 2.0, 3.0]))
    >>> guided.input_grad({}, cache, torch.tensor([1.0, -1.0, 1.0]))
    tensor([0., 0., 1.])
    """
    return WithVjp(layer, rule)
