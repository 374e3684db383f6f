"""Fit: a training loop with metrics, callbacks, checkpoints and a history."""

from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from funcnet import random, tree
from funcnet.arguments import require_whole
from funcnet.contract import Layer, Params
from funcnet.errors import describe, value_error
from funcnet.fitting.arguments import LAYER, LOSS, OPTIMIZER, require
from funcnet.fitting.callbacks import Callbacks, Epoch
from funcnet.fitting.data import Rows, Source, is_rows, moved, source_of
from funcnet.fitting.epoch_evaluation import EpochEvaluation
from funcnet.fitting.history import History
from funcnet.fitting.position import Position, call_of, from_tree, require_same_call
from funcnet.fitting.progress import Progress, Shown, require_progress
from funcnet.fitting.result import Fit
from funcnet.fitting.steps import Run, Training, Transform, own_state, states_of
from funcnet.flattening import Tree
from funcnet.kernels.freed_memory import retain_freed_memory
from funcnet.losses.batch_means import LossMean, by_part
from funcnet.losses.loss import Loss
from funcnet.metrics.several import Metrics
from funcnet.optim.base import Optimizer
from funcnet.optim.recording import Recorder, recorded
from funcnet.random.keys import Key, as_key
from funcnet.saving.agreement import conformed, named_entries
from funcnet.saving.checkpoints import Checkpoints
from funcnet.train import train_step


def fit(
    net: Layer,
    loss: Loss,
    opt: Optimizer,
    data: Any,
    *,
    epochs: int,
    batch_size: int | None = None,
    key: Key | int,
    params: Params | None = None,
    state: Tree = None,
    validation: Any = None,
    metrics: Metrics = (),
    drop_last: bool = False,
    transform: Transform | None = None,
    accumulate: int = 1,
    in_backward: bool = False,
    norms: bool = False,
    callbacks: Any = (),
    checkpoints: Checkpoints | Path | str | None = None,
    progress: Shown = True,
    epochs_done: int = 0,
) -> Fit:
    """Train a net, and return ``Fit(params, state, history)``: ``opt`` minimizes ``loss`` for ``epochs`` epochs.

        y, cache      = net.apply(params, x, key)                   for each batch (x, target)
        value, gy     = loss.value_and_grad(y, target)
        params, state = opt.update(net.grads(params, cache, gy), state, params)

    The key determines everything random. Each epoch visits the rows in a new order. For a DataLoader, its dataset and a
    transform, the global generators of torch, Python and numpy are seeded for the epoch and restored afterwards; a loader with a
    ``generator`` uses that instead. If a sampler or dataset has ``set_epoch``, it is called with the epoch, from 0.

    With ``checkpoints``, an interrupted run continues when ``fit`` is called again with the same arguments, even within an epoch.
    It ends with the same params, bit for bit, as an uninterrupted run on the same kind of machine, with the same number of
    threads and in the same mode. Earlier batches of the epoch are fetched again if that can consume random numbers. Workers of a
    DataLoader with ``persistent_workers=True`` have random states that no checkpoint contains. To continue without
    ``checkpoints``, pass the ``params`` and ``state`` after ``n`` epochs, the same key, and ``epochs_done=n``.

    Training stops with an error at the first non-finite loss or params, and saves no checkpoint of them. It continues if ``opt``
    skips such steps, as ``SkipNonFinite`` does. ``fit`` calls ``kernels.retain_freed_memory``.

    Args:
        net: The net.
        loss: The loss to minimize, with a single value; for an ``ensemble`` the history has the mean over its members.
        opt: The optimizer. ``Averaged(opt, EMA())`` also averages params.
        data: (x, target), tensors or numpy arrays or trees of them with one row per example; or an iterable of batches
            (x, target), such as a ``DataLoader``; or a function of the epoch, from 0, that returns such an iterable. With
            ``transform``, a batch can be any tree of tensors, such as a dict.
        epochs: Total number of epochs, including those in ``checkpoints``.
        batch_size: Number of rows in a batch of (x, target); the last batch may be smaller. An iterable defines its own batches.
        key: A key or an int seed.
        params: Params to start from, by default ``net.init`` on the device of ``data``. Batches of an iterable are moved to the
            device of the params. The given params are not written to; the returned params require no grad.
        state: Optimizer state to start from, by default ``opt.init(params)``.
        validation: Data to evaluate after each epoch, in any form of ``data``, with ``net.inference()`` and
            ``opt.eval_params(state, params)``. ``transform`` is not applied to it.
        metrics: Metrics, such as ``F1()``, and functions (y, target) → number, such as ``accuracy``. They are measured on the
            validation data, or else on ``data``.
        drop_last: Whether to leave out a smaller last batch of rows.
        transform: A function (batch, key) → (x, target), such as an augmentation. Its random numbers should depend only on the
            key, which is new for each step.
        accumulate: Number of micro-batches into which each batch is split to save memory; the gradient is the same as for the
            whole batch.
        in_backward: Whether to update each layer in the backward pass as soon as its gradient is known, as in ``train_step``.
        norms: Whether to add the columns ``grad_norm`` and ``update_norm`` to the history: the norms of the gradient and of the
            change of params, averaged over the steps.
        callbacks: Functions of an ``Epoch``, called after each epoch, which return ``None`` or ``stop``; and ``Callback`` values,
            such as ``EarlyStopping(patience=3)``.
        checkpoints: A folder or ``Checkpoints`` for saving after each epoch and every ``Checkpoints.every`` steps.
        progress: ``True`` for a bar if standard error is a terminal and tqdm is installed, else about ten lines there;
            ``"bar"``, ``"lines"``, or ``False``; or a function of a line of text, such as ``logging.info``, called after each
            epoch.
        epochs_done: Number of epochs that were trained before, without ``checkpoints``; ``epochs`` more follow.

    Returns:
        The params, the state and the history. The history has the columns ``epoch`` (from 1), ``loss`` (the mean over the
        training steps), ``seconds`` (of training), and ``loss.<name>`` for each part of a composite loss, unscaled; with
        ``validation`` also ``validation_loss``. A metric is in ``validation_<name>``, or in ``<name>`` without validation data.
        To evaluate params that ``opt`` averages, use ``opt.eval_params(fit.state, fit.params)``. With ``EarlyStopping``, the
        params already come from the best evaluation; the state comes from the last epoch.

    Raises:
        ValueError: If ``batch_size`` is below 1, ``epochs`` is below 0, data is empty or has different numbers of rows, there are
            fewer rows than ``batch_size`` with ``drop_last``, an argument has another type, a metric has the name of another one
            or of a column, or the checkpoints belong to another net, key, number of rows or batch size.
        FloatingPointError: If the loss or the params become non-finite, with the step and the first bad leaf.
        OSError: If a checkpoint cannot be written.

    >>> from funcnet.layers.linear.linear import Linear
    >>> from funcnet.losses.regression import MSE
    >>> from funcnet.optim.sgd import SGD
    >>> x = random.normal(1, (64, 3))
    >>> params, state, history = fit(
    ...     Linear(3, 1), MSE(), SGD(lr=0.1), (x, x.sum(1, keepdim=True)), epochs=20, batch_size=16, key=0, progress=False
    ... )
    >>> history["loss"][-1] < 1e-3
    True
    """
    require("fit", net=(Layer, LAYER, net), loss=(Loss, LOSS, loss), opt=(Optimizer, OPTIMIZER, opt))
    require("fit", drop_last=(bool, "True or False", drop_last), norms=(bool, "True or False", norms))
    _require_options(transform, progress, epochs=epochs, epochs_done=epochs_done)
    source = _source(data, batch_size, drop_last, transform)
    used = recorded(opt) if norms else opt
    evaluation = EpochEvaluation.of(net, loss, used, source, validation, metrics, transform)
    kept, heard = _checkpoints(checkpoints, epochs_done), Callbacks(callbacks)
    retain_freed_memory()
    first, order, noise = random.split(_with_value(key), 3)
    pure = train_step(net, by_part(loss), used, accumulate=accumulate)
    donated = train_step(net, by_part(loss), used.donate(), in_backward=in_backward, accumulate=accumulate)  # writes to copies
    step = pure if heard.of_steps else donated
    start = _start(used, net.init(first) if params is None else params, state, source if params is None else None)
    mean, generators = LossMean(loss), evaluation.generators(source)
    start = start._replace(epoch=epochs_done, memory=heard.init(start.params), generators=states_of(generators))
    call = call_of(net, loss, opt, accumulate, norms=norms, key=int(as_key(key)), **source.described())
    weigh = cache(lambda: mean.weights(source.data[1])) if isinstance(source, Rows) and transform is None else None
    training = Training(step, pure, mean, source, transform, order, noise, heard, kept, call, generators, weigh)
    with kept.locked() if kept else nullcontext():
        run = Run(training, _resume(kept, call, start, heard) if kept else start)
        del start  # so that its params do not stay in memory
        at = _train(run, evaluation, epochs_done + epochs, progress)
    return Fit(heard.params(at.memory, at.params), own_state(used, at.state), at.history)


def _train(run: Run, evaluation: EpochEvaluation, epochs: int, progress: Shown) -> Position:
    """Train up to a number of epochs, or until a callback stops."""
    training, at = run.training, run.at._replace(params=None, state=None)
    left = range(at.epoch, at.epoch + bool(at.step) if at.stopped else max(epochs, at.epoch))
    for source in (training.source, evaluation.source):
        if source.once and len(left) > 1:
            rule = "an iterator of batches lasts for one epoch; pass a function of the epoch that returns a new one"
            raise value_error("fit", rule, f"{describe(source.data)} for {len(left)} epochs")
    with Progress.of(progress, left, training.source.steps, at.step) as shown:
        if at.steps:
            shown.message(_greeting(at, epochs))
        while run.at.step if run.at.stopped else run.at.epoch < epochs:  # an epoch that was stopped midway still gets its row
            run.epoch(shown.step)
            run.at = _close_epoch(training, evaluation, run.at)
            shown.epoch(run.at.history)
            training.save(run.at)
    return run.at


def _greeting(at: Position, epochs: int) -> str:
    """Say where training continues, or why it does not."""
    if at.stopped and not at.step:
        return f"fit does not continue: a callback stopped the training after epoch {at.epoch}"
    if at.epoch >= epochs and not at.step:
        return f"fit has nothing left to do after epoch {at.epoch}"
    return f"fit continues at epoch {at.epoch + 1}, step {at.step + 1}"


def _close_epoch(training: Training, evaluation: EpochEvaluation, at: Position) -> Position:
    """Finish an epoch: add its row to the history, call the callbacks, and return the next position."""
    if not at.losses:
        raise value_error("fit", "data must have at least one batch in each epoch", f"none in epoch {at.epoch + 1}")
    params = evaluation.opt.eval_params(at.state, at.params)
    row = {"epoch": at.epoch + 1, **training.mean.over_batches(torch.stack(at.losses), training.weights(at))}
    norms, state = evaluation.opt.read(at.state) if isinstance(evaluation.opt, Recorder) else ({}, at.state)
    with training.randomness(at.epoch, "validation", isinstance(evaluation.source, Rows) or not evaluation.measures):
        row |= {**norms, "seconds": at.seconds, **evaluation.row(params, at.epoch)}
    history = at.history.copy()
    history.append(row)
    epoch = Epoch(at.epoch + 1, at.params, own_state(evaluation.opt, state), history.copy(), params, at.steps)
    memory, stopped = training.callbacks.update(at.memory, epoch)
    return Position(
        at.epoch + 1, 0, at.steps, at.params, state, memory, history,
        stopped=stopped or at.stopped, generators=states_of(training.generators),
    )  # fmt: skip


def _with_value(key: Any) -> Any:
    if isinstance(key, Tensor) and key.is_meta:
        raise value_error("fit", "key must hold a number", "a key on the meta device")
    return key


def _require_options(transform: Any, progress: Any, **numbers: Any) -> None:
    if transform is not None and not callable(transform):
        raise value_error("fit", "transform must be a function (batch, key) -> (x, target), or None", describe(transform))
    require_progress(progress)
    for name, got in numbers.items():
        require_whole("fit", name, 0, got)


def _source(data: Any, batch_size: Any, drop_last: bool, transform: Any) -> Source:
    """Return the source of batches; only ``Rows`` needs a ``batch_size``."""
    if batch_size is not None or is_rows(data, pairs=transform is None):
        require_whole("fit", "batch_size", 1, batch_size)
    return source_of(data, "fit", "data", batch_size or 1, drop_last=drop_last, pairs=transform is None)


def _checkpoints(given: Any, epochs_done: int) -> Checkpoints | None:
    if given is None or isinstance(given, Checkpoints):
        kept = given
    elif isinstance(given, (str, Path)):
        kept = Checkpoints(Path(given))
    else:
        raise value_error("fit", "checkpoints must be a folder, fn.Checkpoints(folder), or None", describe(given))
    if kept and epochs_done:
        raise value_error("fit", "epochs_done must be 0 with checkpoints, which count epochs themselves", epochs_done)
    return kept and kept.replace(folder=kept.folder.absolute())  # a callback may change the working directory


def _start(opt: Optimizer, params: Params, state: Tree, data: Source | None) -> Position:
    """Return the position before the first step; new params go to the device of ``data``."""
    params = tree.map(_detach, params)
    if data is not None and data.device is not None:
        params = moved(params, data.device)
    if state is None:
        return Position(0, 0, 0, params, opt.init(params), {}, History())
    state = tree.map(_detach, state)
    state = opt.wrap(state) if isinstance(opt, Recorder) else state
    return Position(0, 0, 0, params, state, {}, History())


def _detach(leaf: Any) -> Tensor:
    if not isinstance(leaf, Tensor):
        raise value_error("fit", "params and state must be trees of tensors", describe(leaf))
    return leaf.detach()


def _resume(kept: Checkpoints, call: dict[str, Any], start: Position, heard: Callbacks) -> Position:
    """Return the position of the newest checkpoint, or ``start`` if there is none."""
    named_entries("fit with checkpoints", start.params)  # params are compared by path, so paths must be unique
    if not kept.steps():
        return start
    saved = kept.load()
    at = from_tree(saved)
    require_same_call(saved["call"], call, kept.folder)
    where = str(kept.folder)
    params = conformed("fit, params of the checkpoint", at.params, start.params, where)
    state = conformed("fit, state of the checkpoint", at.state, start.state, where)
    return at._replace(params=params, state=state, memory=heard.resumed(at.memory, start.params))
