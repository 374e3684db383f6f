"""Evaluation: the loss and metrics of a net on data, and its predictions."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from funcnet import tree
from funcnet.arguments import require_whole
from funcnet.contract import Layer, Params
from funcnet.errors import describe, value_error
from funcnet.fitting.arguments import COLUMNS, LAYER, require
from funcnet.fitting.data import Source, Stream, as_pair, as_tensors, device_of, moved, source_of
from funcnet.flattening import Tree, flatten_together, unflatten
from funcnet.losses.batch_means import LossMean
from funcnet.losses.loss import Loss
from funcnet.metrics.several import Metrics, columns, plain


def evaluate(
    net: Layer,
    params: Params,
    data: Any,
    metrics: Metrics = (),
    loss: Loss | None = None,
    *,
    prefix: str = "",
    batch_size: int = 1000,
) -> dict[str, Any]:
    """Evaluate a net on data: the loss, its parts, and metrics.

        value = Σ wᵢ valueᵢ / Σ wᵢ      over the batches i, wᵢ = loss.weight_of(targetᵢ)

    The net is evaluated as ``net.inference()``. A loss with ``reduction="sum"`` is summed instead. Metrics add up over batches; a
    plain function is averaged with the weights ``weight_of(target)`` if it has this method, or else with the numbers of rows. The
    results therefore depend on ``batch_size`` only through rounding.

    Args:
        net: The net.
        params: Its params. Averaged params are ``opt.eval_params(state, params)`` of an optimizer, or ``ema.params(state)`` of
            an ``EMA``; ``refresh_stats`` computes their batch statistics. Batches are moved to the device of the params.
        data: (x, target), tensors or numpy arrays or trees of them with one row per example; or an iterable of batches
            (x, target), such as a ``DataLoader``; or a function of the epoch (0 here) that returns such an iterable.
        metrics: Metrics, such as ``F1()``, or functions (y, target) → number, such as ``accuracy``.
        loss: A loss with a single value, or ``None`` to compute only metrics.
        prefix: Text to put before each name, such as ``"test_"``.
        batch_size: Number of rows computed at once; an iterable defines its own batches.

    Returns:
        A dict by name: ``loss``, ``loss.<name>`` for each part of a composite loss, and the metrics. Values are numbers, or
        tensors for metrics with several numbers, such as a confusion matrix.

    Raises:
        ValueError: If ``batch_size`` is below 1, data is empty, ``x`` and ``target`` have different numbers of rows, an argument
            has another type, the loss has no reduction, two metrics have the same name, or one is named ``loss``.

    >>> import torch
    >>> from funcnet.layers.linear.linear import Linear
    >>> from funcnet.losses.regression import MSE
    >>> net, x = Linear(2, 1, initializer="zeros"), torch.ones(5, 2)
    >>> evaluate(net, net.init(0), (x, torch.ones(5, 1)), loss=MSE())
    {'loss': 1.0}
    """
    require("evaluate", net=(Layer, LAYER, net))
    wanted = columns("evaluate", metrics, COLUMNS)
    if loss is not None and (not isinstance(loss, Loss) or loss.reduction == "none"):
        raise value_error("evaluate", "loss must be a loss that has one value", loss)
    require_whole("evaluate", "batch_size", 1, batch_size)
    source = source_of(data, "evaluate", "data", batch_size)
    return measured(net.inference(), params, source, wanted, None if loss is None else LossMean(loss), prefix)


def measured(
    net: Layer, params: Params, source: Source, wanted: Any, mean: LossMean | None, prefix: str = "", epoch: int = 0
) -> dict[str, Any]:
    """Return the loss and metrics on the batches of an epoch; ``net`` must be the result of ``inference()``."""
    if device_of(params).type == "meta":
        raise value_error("evaluate", "params must have values", "params on the meta device")
    totals, seen, batches = mean.start() if mean else [], wanted.start(), 0
    with torch.inference_mode():
        for x, target in _pairs(source, params, epoch) if wanted.metrics or mean else ():
            y, batches = net(params, x), batches + 1
            totals = mean.add(totals, y, target) if mean else totals
            seen = wanted.add(seen, y, target)
        if not batches and (wanted.metrics or mean):
            who, name = (source.who, source.name) if isinstance(source, Stream) else ("evaluate", "data")
            raise value_error(who, f"{name} must have at least one batch", "none")
        found = wanted.value(seen)
    named: dict[str, Any] = mean.value(totals) if mean else {}
    named |= {name: plain(value) for name, value in found.items()}
    return {f"{prefix}{name}": value for name, value in named.items()}


def _pairs(source: Source, params: Params, epoch: int) -> Iterator[tuple[Any, Any]]:
    device = device_of(params)
    for batch in source.batches(epoch):
        x, target = as_pair(batch, source.who, f"a batch of {source.name}")
        yield (x, target) if device.type == "cpu" else (moved(x, device, "evaluate"), moved(target, device, "evaluate"))


def predict(net: Layer, params: Params, x: Any, batch_size: int = 1000) -> Any:
    """Compute the output of ``net.inference()`` for all rows of x, in batches.

        y = [f(x₁); f(x₂); ...]        joined along the first axis

    Args:
        net: The net.
        params: Its params, or ``opt.eval_params(state, params)`` if the optimizer averages them. Batches are moved to their
            device.
        x: A tensor or numpy array, or a tuple or dict of them, with one row per example; or an iterable of batches of x.
        batch_size: Number of rows computed at once; an iterable defines its own batches.

    Returns:
        The output for all rows: a tensor, or a tree of tensors if the net returns one.

    Raises:
        ValueError: If ``batch_size`` is below 1, tensors have different numbers of rows, an argument has another type, or the
            output does not have one row for each row of x.

    >>> import torch
    >>> from funcnet.layers.linear.linear import Linear
    >>> net = Linear(2, 3)
    >>> predict(net, net.init(0), torch.ones(5, 2), batch_size=2).shape
    torch.Size([5, 3])
    """
    require("predict", net=(Layer, LAYER, net))
    require_whole("predict", "batch_size", 1, batch_size)
    source = source_of(x, "predict", "x", batch_size, pairs=False)
    final, device, found = net.inference(), device_of(params), []
    with torch.inference_mode():
        for batch in source.batches():
            x = moved(as_tensors(batch), device, "predict")
            found.append(_require_rows(net, final(params, x), x))
    if not found:
        raise value_error("predict", "x must have at least one batch", "none")
    return _concatenate(found)  # outside inference mode, so that autograd accepts the result


def _require_rows(net: Layer, y: Tree, x: Tree) -> Tree:
    """Return y; raise ``ValueError`` unless it has one row for each row of x."""
    rows = {len(leaf) if leaf.dim() else -1 for leaf in tree.leaves(x) if isinstance(leaf, Tensor)}
    for leaf in tree.leaves(y):
        if not leaf.dim() or {len(leaf)} != rows:
            raise value_error("predict", f"y of {net!r} must have one row for each row of x", describe(leaf))
    return y


def _concatenate(batches: list[Tree]) -> Tree:
    rows = zip(*[flatten_together(one)[0] for one in batches], strict=True)
    return unflatten(batches[0], iter([None if row[0] is None else torch.cat(row) for row in rows]))
