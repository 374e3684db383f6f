"""The loss of a net and its gradient as one function: the first three lines of a training step."""

from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import field
from torch import Tensor

from funcnet.contract import Cache, Grads, Layer, Params
from funcnet.errors import instances, value_error
from funcnet.losses.loss import HOOKS, Loss
from funcnet.plans import VERBS, Plans, Unchecked, has_own
from funcnet.random.keys import Key
from funcnet.value import Value, frozen

_Run = Callable[[Params, Any, Any], tuple[Tensor, Params, Cache]]

is_layer = instances(Layer, "a layer")


def has_one_value(value: Any, attribute: Any, got: Any) -> None:
    """Validate a field that holds a loss with one value."""
    instances(Loss, "a loss")(value, attribute, got)
    if got.reduction == "none":
        raise value_error(got, 'to train, the loss must have one value: reduction "mean", "sum" or "batch"', "reduction 'none'")


@frozen
class ValueAndGrads(Value):
    """The loss of a net and its gradient, as one function; created by ``value_and_grads``.

        y, cache  = net.apply(params, x)
        value, gy = loss.value_and_grad(y, target)
        grads     = net.grads(params, cache, gy)

    Args:
        net: The net.
        loss: A loss with one value.
    """

    label = "value_and_grads"

    net: Layer = field(validator=is_layer)
    loss: Loss = field(validator=has_one_value)

    _plans: Plans[_Run] = field(init=False, eq=False, factory=Plans)

    def __call__(self, params: Params, x: Any, target: Any, rng: Key | int | None = None) -> tuple[Tensor, Grads, Cache]:
        return self.scaled(params, x, target, rng, None)

    def scaled(self, params: Params, x: Any, target: Any, rng: Any, scale: Tensor | None) -> tuple[Tensor, Grads, Cache]:
        """Return the value, the gradient of ``scale`` times the value (of the value without a scale), and the cache.

        Args:
            params: The params of the net.
            x: The input.
            target: The target of the loss.
            rng: The key of a stochastic net.
            scale: A factor of the gradient, or ``None``.
        """
        known = self._plans.find((params, x, target)) if scale is None else None
        if known is not None:
            try:
                return known(params, x, target)
            except Exception:
                known = None  # run again with checks, which explain the error
        y, cache = self.net.apply(params, x, rng)
        value, gy = self.loss.value_and_grad(y, target) if scale is None else scaled_gradient(self.loss, y, target, scale)
        if scale is None and self._plans.is_due():
            self._plans.learn((params, x, target), partial(self._unchecked, params, cache, y, target), (y, cache))
        del y  # large logits must not live through the backward pass
        return value, self.net.grads(params, cache, gy), cache

    def _unchecked(self, params: Params, cache: Cache, y: Any, target: Any) -> _Run | None:
        """Return the function without checks for arguments like these; ``None`` if the net or the loss has no such form."""
        net = self.net.unchecked(params, cache) if has_own(type(self.net), "unchecked", *VERBS) else None
        loss = self.loss.unchecked(y, target) if has_own(type(self.loss), "unchecked", "value_and_grad", *HOOKS) else None
        return None if net is None or loss is None else _joined(net, loss)

    def update_stats(self, params: Params, cache: Cache) -> Params:
        """Fold the batch statistics of a cache into the running statistics of params.

        Args:
            params: The params of the net.
            cache: The cache of the net.
        """
        return self.net.update_stats(params, cache)

    def __repr__(self) -> str:
        return f"value_and_grads({self.net!r}, {self.loss!r})"


def _joined(net: Unchecked, loss: Callable[[Any, Any], tuple[Tensor, Any]]) -> _Run:
    """Join the verbs of a net with the value and gradient of a loss."""
    apply, _, grads = net

    def value_and_grads(params: Params, x: Any, target: Any) -> tuple[Tensor, Params, Cache]:
        y, cache = apply(params, x)
        value, gy = loss(y, target)
        del y  # as in ``scaled``
        return value, grads(params, cache, gy), cache

    return value_and_grads


def scaled_gradient(loss: Loss, y: Any, target: Any, scale: Tensor) -> tuple[Tensor, Any]:
    """Return the loss and the gradient of ``scale`` times the loss, rounded to half precision only once."""
    try:
        value, kept = loss.forward(y, target)
        return value, loss.backward(kept, scale.float())
    except Exception:
        loss.value_and_grad(y, target)  # raises an error with an explanation
        raise


def value_and_grads(net: Layer, loss: Loss) -> ValueAndGrads:
    """Make the function ``(params, x, target, rng=None) -> (value, grads, cache)``.

        y, cache  = net.apply(params, x)
        value, gy = loss.value_and_grad(y, target)
        grads     = net.grads(params, cache, gy)

    ``net.update_stats(params, cache)`` takes batch statistics from the net's ``cache``. A stochastic net needs the key ``rng``;
    others ignore it.

    Args:
        net: The net.
        loss: A loss with one value.

    Raises:
        ValueError: If ``net`` is not a layer, ``loss`` not a loss, or the loss has ``reduction="none"`` and thus many values.

    >>> import torch
    >>> from funcnet.layers.linear.linear import Linear
    >>> from funcnet.losses.regression import MSE
    >>> net = Linear(2, 1, initializer="zeros")
    >>> value, grads, cache = value_and_grads(net, MSE())(net.init(0), torch.ones(5, 2), torch.ones(5, 1))
    >>> value, grads["bias"]
    (tensor(1.), tensor([-2.]))
    """
    return ValueAndGrads(net, loss)
