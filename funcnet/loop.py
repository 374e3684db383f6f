"""Fit: the training loop that most people write, with shuffling by key, metrics, progress, and a history."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet import random, tree
from funcnet.contract import Layer, Params
from funcnet.errors import add_location, describe, is_whole, value_error
from funcnet.flattening import Tree
from funcnet.kernels.freed_memory import retain_freed_memory
from funcnet.losses.batch_means import LossMean, by_part
from funcnet.losses.loss import Loss
from funcnet.metrics.several import Metrics, columns, plain
from funcnet.optim.base import Optimizer
from funcnet.random.keys import Key
from funcnet.train import TrainStep, train_step

History = dict[str, list[Any]]


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
    metrics: Metrics = (),
    drop_last: bool = False,
    progress: bool = True,
    epochs_done: int = 0,
) -> Fit:
    """Train a net, and return ``Fit(params, state, history)``.

    Each epoch takes the rows in a new order. To continue after ``n`` epochs, give the ``params`` and ``state`` they ended with,
    the same key, and ``epochs_done=n``: the result is that of one run, bit for bit. Calls ``kernels.retain_freed_memory``.

    Args:
        net: The net.
        loss: The loss to minimize, with one value; for an ``ensemble`` the history has the mean over its members.
        opt: The optimizer.
        data: (x, target), tensors or trees of tensors with one row per example.
        epochs: Number of epochs to train.
        batch_size: Rows in a batch; the last one may be smaller.
        key: A key or an int seed, which determines the first params, the orders of the rows and the noise.
        params: Params to start from, by default fresh ones; they are copied, and the trained ones require no grad.
        state: Optimizer state to start from, copied too.
        validation: (x, target) to evaluate after each epoch, with ``net.inference()`` and ``opt.eval_params(state, params)``.
        metrics: Metrics, such as ``F1()``, or functions (y, target) → number, such as ``accuracy``, evaluated on the validation
            data or else on ``data``.
        drop_last: Whether to leave out a smaller last batch.
        progress: Whether to show progress on the standard error stream: a bar on a terminal that has tqdm, else some ten lines.
        epochs_done: Number of epochs trained before.

    Returns:
        The params, the state, and the history, lists of ``epoch`` (from 1), ``loss`` (while training), ``seconds`` (of training),
        and with ``validation`` of ``validation_loss``; and of each metric as ``validation_<name>``, or else ``<name>``. A loss
        with several parts, ``losses_of`` or a sum, has each of them too, without its factor: ``loss.<name>``.

    Raises:
        ValueError: For a ``batch_size`` below 1, epochs below 0, no data, different numbers of rows, fewer than ``batch_size``
            with ``drop_last``, arguments of another kind, and metrics with one name or that of a column.
    """
    _require("fit", net=(Layer, "a layer", net), loss=(Loss, "a loss", loss), opt=(Optimizer, "an optimizer", opt))
    _require("fit", drop_last=(bool, "True or False", drop_last), progress=(bool, "True or False", progress))
    rows = _check(data, validation, epochs, batch_size, epochs_done, drop_last)
    batch_size = int(batch_size)  # numpy's numbers are none to torch.split
    columns("fit", metrics, _COLUMNS)
    retain_freed_memory()
    first, order, noise = random.split(key, 3)
    step = train_step(net, by_part(loss), opt.donate())  # of what is copied here, and nobody else has
    params = net.init(first) if params is None else tree.map(_copied, params)
    state = opt.init(params) if state is None else tree.map(_copied, state)
    mean, weigh, history = LossMean(loss), LossMean(loss).weights(data[1]), History()
    for epoch in _shown(range(epochs_done, epochs_done + epochs), history, progress):
        batches = _batches(random.permutation(random.fold_in(order, epoch), rows), batch_size, drop_last)
        began = time.perf_counter()
        params, state, values = _epoch(step, params, state, data, batches, random.fold_in(noise, epoch))
        row = {
            "epoch": epoch + 1,
            **mean.over_batches(values, weigh(batches)),
            "seconds": time.perf_counter() - began,
        }
        if validation or metrics:
            row |= _measured(net, opt.eval_params(state, params), validation, metrics, loss, data)
        for name, number in row.items():
            history.setdefault(name, []).append(number)
    return Fit(params, state, history)


def _measured(net: Layer, params: Params, validation: Any, metrics: Metrics, loss: Loss, data: Any) -> dict[str, Any]:
    if validation:
        return evaluate(net, params, validation, metrics, loss, prefix="validation_")
    return evaluate(net, params, data, metrics)


def _copied(leaf: Any) -> Tensor:
    if not isinstance(leaf, Tensor):
        raise value_error("fit", "params and state must be trees of tensors", describe(leaf))
    return leaf.detach().clone()


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
    """Return ``loss``, its parts as ``loss.<name>``, and the values of ``metrics`` on the rows of ``data = (x, target)``.

    The net is ``net.inference()`` with ``params``. ``batch_size`` changes the results by rounding only: metrics add up, and in
    the mean of a function a batch counts for its ``weight_of(target)``, or for its rows where there is none. A value of several
    numbers, such as a confusion matrix, is a tensor. ``prefix`` comes before each name.

    Raises   ``ValueError`` for a ``batch_size`` below 1, no data, ``x`` and ``target`` with different numbers of rows, arguments
             of another kind, a loss without a reduction, and two metrics of one name, or one named ``loss``.
    """
    _require("evaluate", net=(Layer, "a layer", net))
    wanted = columns("evaluate", metrics, _COLUMNS)
    if loss is not None and (not isinstance(loss, Loss) or loss.reduction == "none"):
        raise value_error("evaluate", "loss must be a loss that has one value", loss)
    _whole("evaluate", "batch_size", 1, batch_size)
    rows = _rows(data, "evaluate")
    judged, mean = net.inference(), None if loss is None else LossMean(loss)
    totals, seen = mean.start() if mean else [], wanted.start()
    with torch.inference_mode():
        for batch in torch.split(torch.arange(rows), int(batch_size)) if wanted.metrics or mean else ():
            x, target = _take(data, batch)
            y = judged(params, x)
            totals = mean.add(totals, y, target) if mean else totals
            seen = wanted.add(seen, y, target)
        found = wanted.value(seen)
    named: dict[str, Any] = mean.value(totals) if mean else {}
    named |= {name: plain(value) for name, value in found.items()}
    return {f"{prefix}{name}": value for name, value in named.items()}


def _batches(order: Tensor, batch_size: int, drop_last: bool) -> Sequence[Tensor]:
    batches = torch.split(order, batch_size)
    return batches[:-1] if drop_last and len(batches[-1]) < batch_size else batches


def _epoch(
    step: TrainStep, params: Params, state: Tree, data: tuple[Tree, Tree], batches: Sequence[Tensor], noise: Key
) -> tuple[Params, Tree, Tensor]:
    """Take a step for each batch, and return the losses; in inference mode, which saves a tenth of a small step."""
    values: list[Tensor] = []
    with torch.inference_mode(), _hint_at_the_last(batches, values):
        for i, batch in enumerate(batches):
            x, target = _take(data, batch)
            rng = random.fold_in(noise, i) if step.net.stochastic else None
            params, state, value = step(params, state, x, target, rng)
            values.append(value)
        losses = torch.stack(values)
    return tree.map(torch.clone, params), tree.map(torch.clone, state), losses  # tensors of inference mode are not for autograd


@contextmanager
def _hint_at_the_last(batches: Sequence[Tensor], done: Sequence[Any]) -> Iterator[None]:
    """Add to an error in a last batch that is smaller than the others how to leave it out."""
    try:
        yield
    except Exception as error:
        if len(done) == len(batches) - 1 and done and len(batches[-1]) < len(batches[0]):
            add_location(error, f"fit, in the last batch, of {len(batches[-1])} rows: drop_last=True leaves it out")
        raise


_COLUMNS = ("epoch", "loss", "seconds")


def _take(data: tuple[Tree, Tree], rows: Tensor) -> tuple[Tree, Tree]:
    x, target = data
    return tree.map(lambda leaf: leaf[rows], x), tree.map(lambda leaf: leaf[rows], target)


def _rows(data: Any, who: str, name: str = "data") -> int:
    """Return the number of rows, on which all tensors of the data must agree."""
    if not isinstance(data, tuple) or len(data) != 2:
        raise value_error(who, f"{name} must be a tuple (x, target)", describe(data))
    odd = [
        leaf for leaf in tree.leaves(data) if not isinstance(leaf, Tensor) or not leaf.dim() or leaf.layout is not torch.strided
    ]
    x, target = data
    odd += [
        part for part in (x, target) if not tree.leaves(part) and (part is x or part is not None)
    ]  # a loss may need no target
    if odd:
        raise value_error(who, f"{name} must hold dense tensors with one row per example", describe(odd[0]))
    counts = {len(leaf) for leaf in tree.leaves(data)}
    if len(counts) != 1 or counts == {0}:
        got = " and ".join(map(str, sorted(counts))) or "none"
        raise value_error(who, "x and target must have the same number of rows, at least 1", got)
    return counts.pop()


def _check(data: Any, validation: Any, epochs: int, batch_size: int, epochs_done: int, drop_last: bool) -> int:
    for name, least, got in (("epochs", 0, epochs), ("batch_size", 1, batch_size), ("epochs_done", 0, epochs_done)):
        _whole("fit", name, least, got)
    if validation is not None:
        _rows(validation, "fit", "validation")
    rows = _rows(data, "fit")
    if drop_last and rows < batch_size:
        raise value_error("fit", f"with drop_last there must be batch_size={batch_size} rows or more", f"{rows} rows")
    return rows


def _require(who: str, **kinds: tuple[type, str, Any]) -> None:
    """Raise ``ValueError`` for the first argument of another kind; each comes as (kind, the kind in words, value)."""
    for name, (kind, word, got) in kinds.items():
        if not isinstance(got, kind):
            raise value_error(who, f"{name} must be {word}", describe(got))


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
    shown = {name: column[-1] for name, column in history.items() if name not in ("epoch", "seconds")}
    return {name: f"{value:.4g}" for name, value in shown.items() if isinstance(value, float)}
