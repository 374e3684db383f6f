"""Fit: the training loop that most people write, with shuffling by key, metrics, progress, and a history."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet import random, tree
from funcnet.contract import Layer, Params
from funcnet.errors import describe, is_whole, value_error
from funcnet.kernels.freed_memory import retain_freed_memory
from funcnet.losses.loss import Loss
from funcnet.optim.base import Optimizer
from funcnet.random import Key
from funcnet.train import TrainStep, train_step
from funcnet.tree import Tree

Metric = Callable[[Any, Any], Any]
History = dict[str, list[float]]


class Fit(NamedTuple):
    """What ``fit`` returns: the trained params, the optimizer's state, and a list per column of the history."""

    params: Params
    state: Tree
    history: History


def fit(
    net: Layer,
    loss: Loss,
    opt: Optimizer,
    data: tuple[Tree, Tree],
    *,
    epochs: int,
    batch_size: int,
    key: Key | int,
    params: Params = None,
    state: Tree = None,
    validation: tuple[Tree, Tree] | None = None,
    metrics: Sequence[Metric] = (),
    progress: bool = True,
    epochs_done: int = 0,
) -> Fit:
    """Train ``net`` on ``data = (x, target)``, tensors with one row per example, and return ``Fit(params, state, history)``.

    ``loss`` is what ``opt`` makes smaller, for so many ``epochs``.

    Each epoch takes the rows in a new order, in batches of ``batch_size``; the last one may be smaller. ``key`` decides the
    first params (unless ``params`` are given), the orders and the noise. To go on after ``n`` epochs, give the ``params`` and
    ``state`` they ended with, the same key, and ``epochs_done=n``: the result is that of one run, bit for bit.

    The history has the columns ``epoch`` (from 1), ``loss`` (its mean over the rows, as seen while training), ``seconds`` (of
    training alone), and ``validation_loss`` where there is ``validation`` data. ``metrics`` are functions (y, target) -> number,
    evaluated after each epoch with ``net.inference()``: on the validation data as ``validation_<name>``, else on the training
    data as ``<name>``. With ``progress`` there is a bar on a terminal that has tqdm, and some ten lines elsewhere, on the
    standard error stream.

    Given ``params`` and ``state`` are copied and stay as they are. Params that require grad, as those of a module do, are taken
    without their graph, and the trained ones require none.

    The process keeps the memory that tensors give back, up to 64 MB of it: ``funcnet.kernels.retain_freed_memory``.

    Raises   ``ValueError`` for a ``batch_size`` below 1, ``epochs`` or ``epochs_done`` below 0, no data, and ``x`` and ``target``
             with different numbers of rows.
    """
    rows = _check(data, epochs, batch_size, epochs_done)
    retain_freed_memory()
    first, order, noise = random.split(key, 3)
    step = train_step(net, loss, opt.donate())  # of what is copied here, and nobody else has
    params = net.init(first) if params is None else tree.map(_copied, params)
    state = opt.init(params) if state is None else tree.map(_copied, state)
    history: History = {}
    for epoch in _shown(range(epochs_done, epochs_done + epochs), history, progress):
        batches = torch.split(random.permutation(random.fold_in(order, epoch), rows), batch_size)
        began = time.perf_counter()
        params, state, value = _epoch(step, params, state, data, batches, random.fold_in(noise, epoch))
        row = {"epoch": epoch + 1, "loss": value, "seconds": time.perf_counter() - began}
        row |= evaluate(net, params, validation, metrics, loss, prefix="validation_") if validation else {}
        row |= {} if validation else evaluate(net, params, data, metrics)
        for name, number in row.items():
            history.setdefault(name, []).append(number)
    return Fit(params, state, history)


def _copied(leaf: Tensor) -> Tensor:
    return leaf.detach().clone()


def evaluate(
    net: Layer,
    params: Params,
    data: tuple[Tree, Tree],
    metrics: Sequence[Metric] = (),
    loss: Loss | None = None,
    *,
    prefix: str = "",
    batch_size: int = 1000,
) -> dict[str, float]:
    """Return the means over the rows of ``data = (x, target)`` of ``loss`` and ``metrics``, by name, for ``net.inference()``.

    The rows go through ``net`` with these ``params`` in batches of ``batch_size``. A name begins with ``prefix``.

    Raises   ``ValueError`` for a ``batch_size`` below 1, no data, and ``x`` and ``target`` with different numbers of rows.
    """
    wanted: dict[str, Metric] = {f"{prefix}loss": loss} if loss else {}
    wanted |= {f"{prefix}{getattr(metric, '__name__', str(metric))}": metric for metric in metrics}
    if not wanted:
        return {}
    _whole("evaluate", "batch_size", 1, batch_size)
    judged, rows = net.inference(), _rows(data)
    sums = dict.fromkeys(wanted, 0.0)
    with torch.inference_mode():
        for batch in torch.split(torch.arange(rows), batch_size):
            x, target = _take(data, batch)
            y = judged(params, x)
            for name, metric in wanted.items():
                sums[name] += float(metric(y, target)) * len(batch) / rows
    return sums


def _epoch(
    step: TrainStep, params: Params, state: Tree, data: tuple[Tree, Tree], batches: Sequence[Tensor], noise: Key
) -> tuple[Params, Tree, float]:
    """Take a step for each batch, and return the mean loss; in inference mode, which saves a tenth of a small step."""
    values = []
    with torch.inference_mode():
        for i, batch in enumerate(batches):
            x, target = _take(data, batch)
            rng = random.fold_in(noise, i) if step.net.stochastic else None
            params, state, value = step(params, state, x, target, rng)
            values.append(value * len(batch))
    rows = sum(len(batch) for batch in batches)
    # Tensors made in inference mode are not for autograd: what leaves here is a copy that is for anything.
    return tree.map(torch.clone, params), tree.map(torch.clone, state), float(torch.stack(values).sum()) / rows


def _take(data: tuple[Tree, Tree], rows: Tensor) -> tuple[Tree, Tree]:
    x, target = data
    return tree.map(lambda leaf: leaf[rows], x), tree.map(lambda leaf: leaf[rows], target)


def _rows(data: tuple[Tree, Tree]) -> int:
    """Return the number of rows, on which all tensors of the data must agree."""
    if not isinstance(data, tuple) or len(data) != 2:
        raise value_error("fit", "data must be a pair (x, target)", describe(data))
    counts = {len(leaf) for leaf in tree.leaves(data)}
    if len(counts) != 1 or counts == {0}:
        got = " and ".join(map(str, sorted(counts))) or "none"
        raise value_error("fit", "x and target must have the same number of rows, at least 1", got)
    return counts.pop()


def _check(data: tuple[Tree, Tree], epochs: int, batch_size: int, epochs_done: int) -> int:
    for name, least, got in (("epochs", 0, epochs), ("batch_size", 1, batch_size), ("epochs_done", 0, epochs_done)):
        _whole("fit", name, least, got)
    return _rows(data)


def _whole(who: str, name: str, least: int, got: int) -> None:
    if not is_whole(got) or got < least:
        raise value_error(who, f"{name} must be a whole number of at least {least}", repr(got))


def _shown(epochs: range, history: History, progress: bool) -> Iterable[int]:
    """Go through the epochs and show the history as it grows."""
    if not progress:
        return epochs
    bar = _bar(epochs) if sys.stderr.isatty() else None
    return _lines(epochs, history) if bar is None else _with_bar(bar, history)


def _bar(epochs: range) -> Any:
    try:
        from tqdm import tqdm  # type: ignore[import-untyped]
    except ImportError:
        return None
    return tqdm(epochs, unit="epoch")


def _with_bar(bar: Any, history: History) -> Iterator[int]:
    for epoch in bar:
        yield epoch
        bar.set_postfix(_last(history))


def _lines(epochs: range, history: History) -> Iterator[int]:
    stride = max(1, len(epochs) // 10)
    for epoch in epochs:
        yield epoch
        if (epoch - epochs.start) % stride == stride - 1 or epoch == epochs.stop - 1:
            words = " ".join(f"{name} {text}" for name, text in _last(history).items())
            print(f"epoch {epoch + 1}/{epochs.stop} {words}", file=sys.stderr)


def _last(history: History) -> dict[str, str]:
    return {name: f"{column[-1]:.4g}" for name, column in history.items() if name not in ("epoch", "seconds")}
