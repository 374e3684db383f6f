"""The loss of a net and its gradient as one function: the first three lines of a step.

y, cache  = net.apply(params, x)
value, gy = loss.value_and_grad(y, target)
grads     = net.grads(params, cache, gy)
"""

from typing import Any

from attrs import field
from torch import Tensor

from funcnet.contract import Cache, Layer, Params
from funcnet.errors import instances, value_error
from funcnet.losses.loss import Loss
from funcnet.random.keys import Key
from funcnet.value import Value, frozen

is_layer = instances(Layer, "a layer")


def has_one_value(value: Any, attribute: Any, got: Any) -> None:
    """Validate a field with a loss that has one value."""
    instances(Loss, "a loss")(value, attribute, got)
    if got.reduction == "none":
        raise value_error(got, 'to train, the loss must have one value: reduction "mean", "sum" or "batch"', "reduction 'none'")


@frozen
class ValueAndGrads(Value):
    """The loss of a net and its gradient, as one function; made by ``value_and_grads``."""

    label = "value_and_grads"

    net: Layer = field(validator=is_layer)
    loss: Loss = field(validator=has_one_value)

    def __call__(self, params: Params, x: Any, target: Any, rng: Key | int | None = None) -> tuple[Tensor, Params, Cache]:
        return self.scaled(params, x, target, rng, None)

    def scaled(self, params: Params, x: Any, target: Any, rng: Any, scale: Tensor | None) -> tuple[Tensor, Params, Cache]:
        """Return the value, the gradient of ``scale`` times it where a scale is given, and the cache."""
        y, cache = self.net.apply(params, x, rng)
        value, gy = self.loss.value_and_grad(y, target) if scale is None else scaled_gradient(self.loss, y, target, scale)
        return value, self.net.grads(params, cache, gy), cache

    def update_stats(self, params: Params, cache: Cache) -> Params:
        """Return params with the batch statistics of a cache folded into the running ones."""
        return self.net.update_stats(params, cache)

    def __repr__(self) -> str:
        return f"value_and_grads({self.net!r}, {self.loss!r})"


def scaled_gradient(loss: Loss, y: Any, target: Any, scale: Tensor) -> tuple[Tensor, Any]:
    """Return the loss, and the gradient of ``scale`` times the loss, which is rounded to half precision once."""
    try:
        value, kept = loss.forward(y, target)
        return value, loss.backward(kept, scale.float())
    except Exception:
        loss.value_and_grad(y, target)  # raises an error with an explanation
        raise


def value_and_grads(net: Layer, loss: Loss) -> ValueAndGrads:
    """Make the function ``(params, x, target, rng=None) -> (value, grads, cache)``.

    ``value`` is the loss of the net's output, and ``grads`` its gradient by the params. ``net.update_stats(params, cache)`` takes
    batch statistics from the net's ``cache``. A stochastic net needs the key ``rng``; others ignore it.

    Args:
        net: The net.
        loss: A loss with one value.

    Raises:
        ValueError: For a loss with ``reduction="none"``, which has many values, and for a ``net`` or ``loss`` of another type.

    >>> import torch
    >>> from funcnet.layers.linear.linear import Linear
    >>> from funcnet.losses.regression import MSE
    >>> net = Linear(2, 1, initializer="zeros")
    >>> value, grads, cache = value_and_grads(net, MSE())(net.init(0), torch.ones(5, 2), torch.ones(5, 1))
    >>> value, grads["bias"]
    (tensor(1.), tensor([-2.]))
    """
    return ValueAndGrads(net, loss)
