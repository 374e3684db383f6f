"""Evaluation: the loss and metrics of a net on data."""

from typing import Any

import torch

from funcnet.contract import Layer, Params
from funcnet.errors import value_error
from funcnet.fitting.data import COLUMNS, require, require_whole, rows_of_data, take
from funcnet.flattening import Tree
from funcnet.losses.batch_means import LossMean
from funcnet.losses.loss import Loss
from funcnet.metrics.several import Metrics, columns, plain


def evaluate(
    net: Layer,
    params: Params,
    data: tuple[Tree, Tree],
    metrics: Metrics = (),
    loss: Loss | None = None,
    *,
    prefix: str = "",
    batch_size: int = 1000,
) -> dict[str, Any]:
    """Evaluate a net on data, and return the loss, its parts as ``loss.<name>``, and the value of each metric, by name.

    The net is ``net.inference()``. The results are those of all rows together, up to rounding, whatever ``batch_size`` is:
    metrics add up, and a batch counts for ``weight_of(target)`` of the loss, or of a function that has it, or else for its rows.

    Args:
        net: The net.
        params: Its params; those that an optimizer or ``EMA`` averages come from ``opt.eval_params(state, params)`` or
            ``ema.params(state)``, with statistics from ``refresh_stats``.
        data: (x, target), tensors or trees of tensors with one row per example.
        metrics: Metrics, such as ``F1()``, or functions (y, target) → number, such as ``accuracy``.
        loss: A loss with one value, or ``None`` for metrics only.
        prefix: What comes before each name.
        batch_size: Rows computed at once.

    Returns:
        A dict of numbers by name; a value of several numbers, such as a confusion matrix, is a tensor.

    Raises:
        ValueError: For a ``batch_size`` below 1, no data, ``x`` and ``target`` with different numbers of rows, arguments of
            another kind, a loss without a reduction, and two metrics of one name, or one named ``loss``.
    """
    require("evaluate", net=(Layer, "a layer", net))
    wanted = columns("evaluate", metrics, COLUMNS)
    if loss is not None and (not isinstance(loss, Loss) or loss.reduction == "none"):
        raise value_error("evaluate", "loss must be a loss that has one value", loss)
    require_whole("evaluate", "batch_size", 1, batch_size)
    rows = rows_of_data(data, "evaluate")
    judged, mean = net.inference(), None if loss is None else LossMean(loss)
    totals, seen = mean.start() if mean else [], wanted.start()
    with torch.inference_mode():
        for batch in torch.split(torch.arange(rows), int(batch_size)) if wanted.metrics or mean else ():
            x, target = take(data, batch)
            y = judged(params, x)
            totals = mean.add(totals, y, target) if mean else totals
            seen = wanted.add(seen, y, target)
        found = wanted.value(seen)
    named: dict[str, Any] = mean.value(totals) if mean else {}
    named |= {name: plain(value) for name, value in found.items()}
    return {f"{prefix}{name}": value for name, value in named.items()}
