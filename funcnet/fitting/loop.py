"""Fit: the training loop that most people write, with shuffling by key, metrics, progress, and a history."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from funcnet import random, tree
from funcnet.contract import Layer, Params
from funcnet.errors import add_location, describe, value_error
from funcnet.fitting.data import COLUMNS, require, require_whole, rows_of_data, take
from funcnet.fitting.evaluation import evaluate
from funcnet.fitting.history import History
from funcnet.fitting.progress import Progress, Shown, require_progress
from funcnet.fitting.result import Fit
from funcnet.flattening import Tree
from funcnet.kernels.freed_memory import retain_freed_memory
from funcnet.losses.batch_means import LossMean, by_part
from funcnet.losses.loss import Loss
from funcnet.metrics.several import Metrics, columns
from funcnet.optim.base import Optimizer
from funcnet.random.keys import Key
from funcnet.train import TrainStep, train_step


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
    progress: Shown = True,
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
        progress: Whether to show progress on the standard error stream: a bar on a terminal if tqdm is installed, else some ten
            lines. ``"bar"`` or ``"lines"`` for one of them, or a function of a line of text, such as ``logging.info``, which is
            called after each epoch.
        epochs_done: Number of epochs trained before.

    Returns:
        The params, the state, and the history, lists of ``epoch`` (from 1), ``loss`` (while training), ``seconds`` (of training),
        and with ``validation`` of ``validation_loss``; and of each metric as ``validation_<name>``, or else ``<name>``. A loss
        with several parts, ``losses_of`` or a sum, has each of them too, without its factor: ``loss.<name>``.

    Raises:
        ValueError: For a ``batch_size`` below 1, epochs below 0, no data, different numbers of rows, fewer than ``batch_size``
            with ``drop_last``, arguments of another kind, and metrics with one name or that of a column.
    """
    require("fit", net=(Layer, "a layer", net), loss=(Loss, "a loss", loss), opt=(Optimizer, "an optimizer", opt))
    require("fit", drop_last=(bool, "True or False", drop_last))
    require_progress(progress)
    rows = _check(data, validation, epochs, batch_size, epochs_done, drop_last)
    batch_size = int(batch_size)  # numpy's numbers are none to torch.split
    columns("fit", metrics, COLUMNS)
    retain_freed_memory()
    first, order, noise = random.split(key, 3)
    step = train_step(net, by_part(loss), opt.donate())  # of what is copied here, and nobody else has
    params = net.init(first) if params is None else tree.map(_copied, params)
    state = opt.init(params) if state is None else tree.map(_copied, state)
    mean, weigh, history = LossMean(loss), LossMean(loss).weights(data[1]), History()
    steps = rows // batch_size if drop_last else -(-rows // batch_size)
    with Progress.of(progress, range(epochs_done, epochs_done + epochs), steps) as shown:
        for epoch in range(epochs_done, epochs_done + epochs):
            batches = _batches(random.permutation(random.fold_in(order, epoch), rows), batch_size, drop_last)
            began = time.perf_counter()
            params, state, values = _epoch(step, params, state, data, batches, random.fold_in(noise, epoch), shown)
            losses, seconds = mean.over_batches(values, weigh(batches)), time.perf_counter() - began
            measured = _measured(net, opt.eval_params(state, params), validation, metrics, loss, data)
            history.append({"epoch": epoch + 1, **losses, "seconds": seconds, **measured})
            shown.epoch(history)
    return Fit(params, state, history)


def _measured(net: Layer, params: Params, validation: Any, metrics: Metrics, loss: Loss, data: Any) -> dict[str, Any]:
    if validation:
        return evaluate(net, params, validation, metrics, loss, prefix="validation_")
    return evaluate(net, params, data, metrics) if metrics else {}


def _copied(leaf: Any) -> Tensor:
    if not isinstance(leaf, Tensor):
        raise value_error("fit", "params and state must be trees of tensors", describe(leaf))
    return leaf.detach().clone()


def _batches(order: Tensor, batch_size: int, drop_last: bool) -> Sequence[Tensor]:
    batches = torch.split(order, batch_size)
    return batches[:-1] if drop_last and len(batches[-1]) < batch_size else batches


def _epoch(
    step: TrainStep, params: Params, state: Tree, data: tuple[Tree, Tree], batches: Sequence[Tensor], noise: Key, shown: Progress
) -> tuple[Params, Tree, Tensor]:
    """Take a step for each batch, and return the losses; in inference mode, which saves a tenth of a small step."""
    values: list[Tensor] = []
    with torch.inference_mode(), _hint_at_the_last(batches, values):
        for i, batch in enumerate(batches):
            x, target = take(data, batch)
            rng = random.fold_in(noise, i) if step.net.stochastic else None
            params, state, value = step(params, state, x, target, rng)
            values.append(value)
            shown.step()
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


def _check(data: Any, validation: Any, epochs: int, batch_size: int, epochs_done: int, drop_last: bool) -> int:
    for name, least, got in (("epochs", 0, epochs), ("batch_size", 1, batch_size), ("epochs_done", 0, epochs_done)):
        require_whole("fit", name, least, got)
    if validation is not None:
        rows_of_data(validation, "fit", "validation")
    rows = rows_of_data(data, "fit")
    if drop_last and rows < batch_size:
        raise value_error("fit", f"with drop_last there must be batch_size={batch_size} rows or more", f"{rows} rows")
    return rows
