"""Freezing: layers whose params get no gradients."""

from typing import Any

from attrs import field

from funcnet.combinator import absent, errors_at, layers_only
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.value import frozen
from funcnet.wrapper import Wrapper, infer_unchanged


@frozen
class Frozen(Wrapper):
    """A layer whose params get no gradients; made by ``freeze``.

        y = f(p, x)      gp = None, leaf by leaf      gx = f.input_grad(p, c, gy)

    Args:
        layer: The layer f.

    Params:
        The layer's params.

    Cache:
        The layer's cache.
    """

    label = "freeze"
    computes = False

    layer: Layer = field(validator=layers_only)

    @property
    def trainable(self) -> bool:
        return False

    @property
    def invertible(self) -> bool:
        return self.layer.invertible

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        with errors_at(self, ""):
            return self.layer.apply(params, x, rng)

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        with errors_at(self, ""):
            return self.layer(params, x, rng)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        return absent(params), self.input_grad(params, cache, gy)

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        return absent(params)

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        with errors_at(self, ""):
            return self.layer.input_grad(params, cache, gy)

    def inverse(self, params: Params, y: Any, rng: Rng = None) -> Any:
        with errors_at(self, ""):
            return self.layer.inverse(params, y, rng)

    def restore(self, params: Params, y: Any, rng: Rng = None) -> tuple[Any, Cache]:
        with errors_at(self, ""):
            return self.layer.restore(params, y, rng)

    infer = infer_unchanged

    def __repr__(self) -> str:
        return f"freeze({self.layer!r})"


def freeze(layer: Layer) -> Frozen:
    """Freeze the params of a layer: their gradients are ``None``, and optimizers leave them unchanged.

        y = f(p, x)      gp = None      gx = f.input_grad(p, c, gy)

    No work is done for the missing gradients, and ``grads`` of a net goes back only to its first layer that is not frozen.
    ``update_stats`` still moves running statistics; ``freeze(layer.inference())`` freezes them too.

    ``opt.init(params)`` creates moments for frozen params too, which stay 0. ``opt.init(tree.partition(params, predicate)[0])``
    creates a state without them.

    Args:
        layer: The layer or net to freeze. Its params and their paths stay the same.

    Params:
        The layer's params.

    Cache:
        The layer's cache.

    >>> import torch
    >>> from funcnet.combinators.sequential import serial
    >>> from funcnet.layers.linear.linear import Linear
    >>> net = serial(freeze(Linear(3, 3)), Linear(3, 1))
    >>> params = net.init(0)
    >>> y, cache = net.apply(params, torch.ones(2, 3))
    >>> net.grads(params, cache, torch.ones_like(y))[0]
    {'weight': None, 'bias': None}
    """
    return Frozen(layer)
