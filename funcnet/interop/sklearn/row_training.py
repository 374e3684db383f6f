"""Training on rows: the steps between scikit-learn's arrays and ``fit``.

The sizes of a net are inferred from the rows, and the loss uses the weights of the rows; metrics ignore the weights.
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.blocks.perceptron import mlp
from funcnet.combinators.sequential import serial
from funcnet.contract import Layer, Params
from funcnet.errors import add_location, describe, instances, value_error
from funcnet.fitting.arguments import COLUMNS, LAYER
from funcnet.layers.shape.reshaping import Flatten
from funcnet.losses.binary import BCE, BCEWithLogits
from funcnet.losses.focal import Focal
from funcnet.losses.loss import Loss
from funcnet.losses.sample_weights import weighted
from funcnet.losses.sums import LossSum
from funcnet.metrics.base import Metric
from funcnet.metrics.several import Metrics, columns
from funcnet.sizes import on_meta
from funcnet.value import frozen

HIDDEN = 100
"""Number of hidden units of the default net, as in scikit-learn's MLPs."""


def sized_net(given: Any, x: Tensor, outputs: int, who: str) -> tuple[Layer, tuple[int, ...]]:
    """Return the net for rows like those of x, with sizes inferred, and the shape of an output row.

    The net is ``given``, the result of the function ``given``, or a perceptron.
    """
    net = _perceptron(x, outputs) if given is None else given if isinstance(given, Layer) else _made(given, x, outputs, who)
    two = torch.empty((2, *x.shape[1:]), dtype=x.dtype, device="meta")  # some layers need two rows for batch statistics
    net, y = net.infer(on_meta(two, None))
    if not isinstance(y, Tensor) or (y.shape != (2, outputs) and not (outputs == 1 and y.shape == (2,))):
        rule = f"the output of net must have the shape (N, {outputs}), with a number for each class or target"
        came = f"({', '.join(map(str, ('N', *y.shape[1:])))})" if isinstance(y, Tensor) else describe(y)
        raise value_error(who, rule, f"{came} from {net!r}")
    return net, tuple(y.shape[1:])


def _made(given: Any, x: Tensor, outputs: int, who: str) -> Layer:
    """Call a function of n_features (or the shape of a row with several axes) and n_outputs, and return the net."""
    if not callable(given) or hasattr(given, "named_parameters"):  # a module of torch.nn
        raise value_error(who, f"net must be {LAYER}, a function (n_features, n_outputs) -> layer, or None", describe(given))
    try:
        net = given(x.shape[1] if x.dim() == 2 else tuple(x.shape[1:]), outputs)
    except Exception as error:
        add_location(error, f"{who}, net(n_features, n_outputs)")
        raise
    if not isinstance(net, Layer):
        raise value_error(who, "net, a function (n_features, n_outputs), must return a layer", describe(net))
    return net


def require_rows_apart(net: Layer, params: Params, x: Tensor, who: str) -> None:
    """Raise ``ValueError`` for a net that treats the rows as the steps of one sequence, such as ``LSTM(8, 32)``."""
    judged = net.inference()
    if x.dim() < 3 or len(x) < 2 or judged.stochastic:
        return
    beside, alone = judged(params, x[:2])[1:], judged(params, x[1:2])
    if (beside - alone).abs().max() > 0.05 * alone.abs().max():  # rounding in bfloat16 is below 0.01
        rule = "a row of the output must depend on one row of X; recurrent layers take rows first with batch_first=True"
        raise value_error(who, rule, f"an output that changes with the other rows from {net!r}")


def _perceptron(x: Tensor, outputs: int) -> Layer:
    net = mlp([x[0].numel(), HIDDEN, outputs])
    return net if x.dim() == 2 else serial(Flatten(), *(net[i] for i in range(3)))


def is_binary(loss: Loss) -> bool:
    """Return whether the targets of a loss are 0 or 1 for each output, instead of class labels."""
    return isinstance(_first(loss), (BCE, BCEWithLogits, Focal))


def is_of_probabilities(loss: Loss) -> bool:
    """Return whether the loss expects probabilities as the net's outputs."""
    return isinstance(_first(loss), BCE)


def _first(loss: Loss) -> Loss:
    return _first(loss.terms[0][1]) if isinstance(loss, LossSum) else loss


def with_row_weights(loss: Loss, y: Tensor, target: Tensor, weight: Tensor) -> Loss:
    """Return the loss with a target (target, weight), weight (N,), whose value has the same scale.

        mean   ℓ = Σ w ℓᵢ / N          instead of Σ w ℓᵢ / Σ w

    The weighted sum over a batch is divided by the number of rows N, not by the sum of weights. The gradients of small batches
    are then unbiased, and a batch without the rare rows of large weight has little effect.

    Args:
        loss: The loss.
        y: An output of the net for one row.
        target: The targets of all rows.
        weight: Their weights.
    """
    if isinstance(loss, LossSum):
        return LossSum(tuple([(factor, with_row_weights(one, y, target, weight)) for factor, one in loss.terms]))
    if loss.reduction != "mean" or not loss.mean_of_terms:
        return weighted(loss)
    terms = loss.with_reduction("none")(y, target[:1]).numel()
    scale = float(weight.sum()) / (terms * float(weighted(loss).weight_of((target, weight))))  # corrects for class weights
    found: Loss = weighted(loss.with_reduction("batch")) * scale
    return found


@frozen
class WithoutWeights(Metric):
    """A metric for targets (target, weight) that ignores the weights."""

    metric: Metric = field(validator=instances(Metric, "a metric"))

    @property
    def column(self) -> str:
        return self.metric.column

    def start(self) -> Any:
        return self.metric.start()

    def total_of(self, y: Any, target: Any) -> Any:
        return self.metric.total_of(y, target[0])

    def merge(self, total: Any, other: Any) -> Any:
        return self.metric.merge(total, other)

    def value(self, total: Any) -> Any:
        return self.metric.value(total)


def without_weights(metrics: Metrics) -> Metrics:
    """Return the metrics for targets with weights."""
    return tuple([WithoutWeights(one) for one in columns("fit", metrics, COLUMNS).metrics])
