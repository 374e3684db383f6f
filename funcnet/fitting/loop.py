"""Fit: the training loop that most people write, with metrics, callbacks, checkpoints and a history."""

from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet import random, tree
from funcnet.contract import Layer, Params
from funcnet.errors import describe, value_error
from funcnet.fitting.arguments import COLUMNS, require, require_whole
from funcnet.fitting.callbacks import Callbacks, Epoch
from funcnet.fitting.data import Rows, Source, is_rows, moved, source_of
from funcnet.fitting.evaluation import measured
from funcnet.fitting.position import Position, call_of, from_tree, require_same_call
from funcnet.fitting.progress import Progress, Shown, require_progress
from funcnet.fitting.result import Fit
from funcnet.fitting.steps import Training, Transform, own_state, states_of
from funcnet.flattening import Tree
from funcnet.kernels.freed_memory import retain_freed_memory
from funcnet.losses.batch_means import LossMean, by_part
from funcnet.losses.loss import Loss
from funcnet.metrics.several import Metrics, SeveralMetrics, columns
from funcnet.optim.base import Optimizer
from funcnet.optim.recording import Recorder, recorded
from funcnet.random.keys import Key, as_key
from funcnet.saving.agreement import conformed
from funcnet.saving.checkpoints import Checkpoints
from funcnet.train import train_step

_JUDGED_AT_ONCE = 1000


def fit(
    net: Layer,
    loss: Loss,
    opt: Optimizer,
    data: Any,
    *,
    epochs: int,
    batch_size: int | None = None,
    key: Key | int,
    params: Params = None,
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
    """Train a net, and return ``Fit(params, state, history)``.

    Each epoch takes the rows in a new order, determined by the key. A DataLoader and its dataset draw from torch's, Python's and
    numpy's global generators, which are seeded with the key for the epoch and restored afterwards; a loader with a ``generator``
    draws from that one. A sampler's or dataset's ``set_epoch`` is called with the epoch, from 0.

    With ``checkpoints`` the training goes on where the newest one is, also within an epoch, and ends with the same params, bit
    for bit, as one that was never interrupted: in one mode, on one kind of machine, with one number of threads. Batches done
    before in that epoch are made again where they may have drawn random numbers. Workers of a DataLoader that persist from
    epoch to epoch keep random numbers of their own, which no checkpoint holds. Without ``checkpoints``, continue after ``n``
    epochs with the ``params`` and ``state`` they ended with, the same key, and ``epochs_done=n``.

    The training stops with an error at the first loss that is not finite, unless ``opt`` skips such steps, and at params that are
    not finite. No checkpoint of such params is saved. Calls ``kernels.retain_freed_memory``.

    Args:
        net: The net.
        loss: The loss to minimize, with one value; for an ``ensemble`` the history has the mean over its members.
        opt: The optimizer. Averages of params are part of one: ``Averaged(opt, EMA())``.
        data: (x, target), tensors or numpy arrays or trees of them with one row per example; or an iterable of such batches, as a
            ``DataLoader`` is; or a function that returns an iterable of batches for an epoch, from 0. With ``transform`` a batch
            may be any tree of tensors.
        epochs: Number of epochs to train; with ``checkpoints`` those that they hold count.
        batch_size: Rows in a batch; the last one may be smaller. An iterable has its own batches.
        key: A key or an int seed, which determines the first params, the orders of the rows and the noise.
        params: Params to start from, by default fresh ones on the device of the data. Batches of an iterable are moved to their
            device. They are not written to, and the trained ones require no grad.
        state: Optimizer state to start from.
        validation: Data to evaluate after each epoch, (x, target) or batches, with ``net.inference()`` and
            ``opt.eval_params(state, params)``.
        metrics: Metrics, such as ``F1()``, or functions (y, target) → number, such as ``accuracy``, evaluated on the validation
            data or else on ``data``.
        drop_last: Whether to leave out a smaller last batch.
        transform: Function (batch, key) → (x, target) that makes what the net gets, for example an augmentation. A function of
            the key alone repeats; the key is that of the step.
        accumulate: Number of micro-batches that the gradient of each batch is computed from, which takes less memory.
        in_backward: Whether to update each layer as soon as its gradient is known, as ``train_step`` does.
        norms: Whether the history has the mean norms over an epoch's steps: ``grad_norm`` of the gradient, ``update_norm`` of the
            change of params.
        callbacks: Functions of an ``Epoch``, called after each epoch, that return ``None`` or ``stop``; and ``Callback`` values,
            such as ``EarlyStopping(patience=3)``.
        checkpoints: A folder, or ``Checkpoints``: where to save after each epoch, and every ``Checkpoints.every`` steps.
        progress: Whether to show progress on the standard error stream: a bar on a terminal if tqdm is installed, else some ten
            lines. ``"bar"`` or ``"lines"`` for one of them, or a function of a line of text, such as ``logging.info``, which is
            called after each epoch.
        epochs_done: Number of epochs trained before, without ``checkpoints``.

    Returns:
        The params, the state, and the history, lists of ``epoch`` (from 1), ``loss`` (while training), ``seconds`` (of training),
        and with ``validation`` of ``validation_loss``; and of each metric as ``validation_<name>``, or else ``<name>``. A loss
        with several parts, ``losses_of`` or a sum, has each of them too, without its factor: ``loss.<name>``. With
        ``EarlyStopping`` the params are the best ones, and the state is the last one.

    Raises:
        ValueError: For a ``batch_size`` below 1, epochs below 0, no data, different numbers of rows, fewer than ``batch_size``
            with ``drop_last``, arguments of another kind, metrics with one name or that of a column, and checkpoints of another
            net, key, number of rows or size of batches.
        FloatingPointError: For a loss or params that are not finite, with the step and the first leaf that is not.
        OSError: Where a checkpoint cannot be written.
    """
    require("fit", net=(Layer, "a layer", net), loss=(Loss, "a loss", loss), opt=(Optimizer, "an optimizer", opt))
    require("fit", drop_last=(bool, "True or False", drop_last), norms=(bool, "True or False", norms))
    _require_transform(transform)
    require_progress(progress)
    for name, least, got in (("epochs", 0, epochs), ("epochs_done", 0, epochs_done)):
        require_whole("fit", name, least, got)
    source = _source(data, batch_size, drop_last, transform)
    used = recorded(opt) if norms else opt
    judge = _Judge.of(net, loss, used, source, validation, metrics, transform)
    kept, heard = _checkpoints(checkpoints, epochs_done), Callbacks(callbacks)
    retain_freed_memory()
    if isinstance(key, Tensor) and key.is_meta:
        raise value_error("fit", "key must hold a number", "a key on the meta device")
    first, order, noise = random.split(key, 3)
    pure = train_step(net, by_part(loss), used, accumulate=accumulate)
    donated = train_step(net, by_part(loss), used.donate(), in_backward=in_backward, accumulate=accumulate)  # writes to copies
    step = pure if heard.of_steps else donated
    start = _start(used, net.init(first) if params is None else params, state, source if params is None else None)
    start = start._replace(epoch=epochs_done, memory=heard.init(start.params), generators=states_of(source))
    call = call_of(net, loss, opt, accumulate, norms=norms, key=int(as_key(key)), **source.described())
    mean = LossMean(loss)
    weigh = cache(lambda: mean.weights(source.data[1])) if isinstance(source, Rows) and transform is None else None
    training = Training(step, pure, mean, source, transform, order, noise, heard, kept, call, weigh)
    with kept.locked() if kept else nullcontext():
        at = _resumed(kept, call, start, heard) if kept else start
        at = _trained(training, judge, at, epochs_done + epochs, progress)
    return Fit(heard.params(at.memory, at.params), own_state(used, at.state), at.history)


def _trained(training: Training, judge: "_Judge", at: Position, epochs: int, progress: Shown) -> Position:
    """Train up to a number of epochs, or until a callback stops."""
    left = range(at.epoch, at.epoch + bool(at.step) if at.stopped else max(epochs, at.epoch))
    if training.source.once and len(left) > 1:
        rule = "batches that can be had only once are for one epoch; give a function of the epoch that makes them"
        raise value_error("fit", rule, f"{describe(training.source.data)} for {len(left)} epochs")
    with Progress.of(progress, left, training.source.steps, at.step) as shown:
        if at.steps:
            shown.message(f"fit continues at epoch {at.epoch + 1}, step {at.step + 1}")
        while at.step if at.stopped else at.epoch < epochs:  # what stopped within an epoch ends it
            at = _closed(training, judge, training.epoch(at, shown.step))
            shown.epoch(at.history)
            training.save(at)
    return at


def _closed(training: Training, judge: "_Judge", at: Position) -> Position:
    """Return the position after an epoch whose steps are made: with its row in the history, and the callbacks called."""
    if not at.losses:
        raise value_error("fit", "data must have at least one batch in each epoch", f"none in epoch {at.epoch + 1}")
    params = judge.opt.eval_params(at.state, at.params)
    row = {"epoch": at.epoch + 1, **training.mean.over_batches(torch.stack(at.losses), training.weights(at))}
    norms, state = judge.opt.read(at.state) if isinstance(judge.opt, Recorder) else ({}, at.state)
    with training.randomness(at.epoch, "validation") if judge.measures else nullcontext():
        row |= {**norms, "seconds": at.seconds, **judge.row(params, at.epoch)}
    history = at.history.copy()
    history.append(row)
    epoch = Epoch(at.epoch + 1, at.params, own_state(judge.opt, state), history, params, at.steps)
    memory, stopped = training.callbacks.update(at.memory, epoch)
    return Position(
        at.epoch + 1, 0, at.steps, at.params, state, memory,
        history=history, stopped=stopped or at.stopped, generators=states_of(training.source),
    )  # fmt: skip


class _Judge(NamedTuple):
    """What is measured after each epoch, and on which data."""

    opt: Optimizer
    net: Layer
    source: Source
    metrics: SeveralMetrics
    mean: LossMean | None
    prefix: str

    @classmethod
    def of(
        cls, net: Layer, loss: Loss, opt: Optimizer, source: Source, validation: Any, metrics: Metrics, transform: Any
    ) -> "_Judge":
        wanted = columns("fit", metrics, COLUMNS)
        if validation is not None:
            judged = source_of(validation, "fit", "validation", _JUDGED_AT_ONCE)
            return cls(opt, net.inference(), judged, wanted, LossMean(loss), "validation_")
        if wanted.metrics and (transform is not None or source.once):
            raise value_error("fit", "metrics need validation data where data has a transform or batches that come once", "none")
        judged = source_of(source.data, "fit", "data", _JUDGED_AT_ONCE) if transform is None else source
        return cls(opt, net.inference(), judged, wanted, None, "")

    @property
    def measures(self) -> bool:
        """Whether there is something to measure."""
        return self.mean is not None or bool(self.metrics.metrics)

    def row(self, params: Params, epoch: int) -> dict[str, Any]:
        """Return the columns of an epoch."""
        return measured(self.net, params, self.source, self.metrics, self.mean, self.prefix, epoch)


def _require_transform(transform: Any) -> None:
    if transform is not None and not callable(transform):
        raise value_error("fit", "transform must be a function (batch, key) -> (x, target), or None", describe(transform))


def _source(data: Any, batch_size: Any, drop_last: bool, transform: Any) -> Source:
    """Return the source of batches; the size of a batch is required of tensors only."""
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
        raise value_error("fit", "epochs_done is for a training without checkpoints, which count their epochs", epochs_done)
    return kept


def _start(opt: Optimizer, params: Params, state: Tree, data: Source | None) -> Position:
    """Return the position before the first step; new params go to the device of ``data``."""
    params = tree.map(_detached, params)
    if data is not None and data.device is not None:
        params = moved(params, data.device)
    if state is None:
        return Position(0, 0, 0, params, opt.init(params), {})
    state = tree.map(_detached, state)
    state = opt.wrap(state) if isinstance(opt, Recorder) else state
    return Position(0, 0, 0, params, state, {})


def _detached(leaf: Any) -> Tensor:
    if not isinstance(leaf, Tensor):
        raise value_error("fit", "params and state must be trees of tensors", describe(leaf))
    return leaf.detach()


def _resumed(kept: Checkpoints, call: dict[str, Any], start: Position, heard: Callbacks) -> Position:
    """Return the position of the newest checkpoint; ``start`` where there is none."""
    if not kept.steps():
        return start
    saved = kept.load()
    at = from_tree(saved)
    require_same_call(saved["call"], call, kept.folder)
    where = str(kept.folder)
    params = conformed("fit, params of the checkpoint", at.params, start.params, where)
    state = conformed("fit, state of the checkpoint", at.state, start.state, where)
    return at._replace(params=params, state=state, memory=heard.resumed(at.memory, start.params))
