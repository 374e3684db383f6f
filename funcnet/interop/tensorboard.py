"""TensorBoard: a callback of ``fit`` that writes the history, rates and histograms as event files.

    loss/training, loss/validation    the loss after each epoch; likewise metrics and parts of the loss
    norms/grad_norm, seconds          the other columns of the history
    rates/lr                          the rates of the next update, with ``optimizer``
    loss/step                         the loss of every k-th step, with ``every``
    params/0.weight                   a histogram of each leaf, with ``histograms``

The x-axis of all curves is the number of steps.
"""

import os
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import tree
from funcnet.contract import Layer, Params
from funcnet.errors import describe, flag, instances, value_error, whole
from funcnet.fitting.callbacks import Callback, Epoch, Step, Verdict
from funcnet.flattening import Tree
from funcnet.optim.base import Optimizer
from funcnet.value import frozen

_VALIDATION = "validation_"
_APART = {"epoch": "epoch", "seconds": "seconds"}
_EVENTS: dict[str, Any] = {}
"""The open writer of each callback, by its ``repr``; each training has one file, which the next training closes."""

_MOST_OPEN = 16
"""Maximum number of open writers, each with a file and a thread; another one closes the oldest training's writer."""


def _items(given: Any) -> Any:
    """Convert a dict to a tuple of pairs, which is immutable."""
    return tuple(given.items()) if isinstance(given, Mapping) else given


def _folder(given: Any) -> Any:
    return os.fspath(given) if isinstance(given, os.PathLike) else given


def _named(value: Any, attribute: Any, got: Any) -> None:
    if not isinstance(got, str) or not got:  # for an empty name, torch would choose a folder named after the time
        raise value_error("TensorBoard", "log_dir must be the path of a folder", describe(got))


def _every(value: Any, attribute: Any, got: Any) -> None:
    if got is not None:
        whole(1)(value, attribute, got)


def _pairs(value: Any, attribute: Any, got: Any) -> None:
    if not isinstance(got, tuple) or not all(isinstance(one, tuple) and len(one) == 2 for one in got):
        raise value_error("TensorBoard", "hparams must be a dict of values by name", describe(got))


@frozen
class TensorBoard(Callback):
    """Write a training for TensorBoard with ``torch.utils.tensorboard``; ``tensorboard --logdir runs`` shows it.

    Use it as ``fit(..., callbacks=[TensorBoard("runs/first")])``. The x-axis of all curves is the number of steps. If a training
    continues from a checkpoint, TensorBoard hides the events that the interrupted training wrote after that checkpoint. A new
    training, such as each call of ``partial_fit``, hides the events of older ones in the same folder; use a separate folder for
    each.

    Args:
        log_dir: The folder of the training.
        histograms: Whether to write a histogram of each leaf of the evaluated params after each epoch.
        every: Number of steps between written losses; ``None`` writes no losses of steps. It slows steps down, as
            ``Callback.on_step`` does.
        optimizer: The optimizer of the training, to write its rates.
        net: The net, written as text.
        hparams: A dict of values by name, written as a table of text.

    State:
        The number of steps written.

    Raises:
        ValueError: If an argument has the wrong type.
        OSError: From ``fit``, if the folder cannot be created.
        ImportError: From ``fit``, without ``pip install 'funcnet[tensorboard]'``.

    >>> TensorBoard("runs/first", histograms=True, hparams={"width": 32})
    TensorBoard(log_dir='runs/first', histograms=True, hparams=(('width', 32),))
    """

    log_dir: str = field(converter=_folder, validator=_named)
    histograms: bool = field(default=False, validator=flag)
    every: int | None = field(default=None, validator=_every)
    optimizer: Optimizer | None = field(default=None, validator=instances((Optimizer, type(None)), "an optimizer or None"))
    net: Layer | None = field(default=None, validator=instances((Layer, type(None)), "a layer or None"))
    hparams: tuple[tuple[str, Any], ...] = field(default=(), converter=_items, validator=_pairs)

    @property
    def sees_steps(self) -> bool:
        return self.every is not None

    def init(self, params: Params) -> Tree:
        """Close the file of an earlier training, and create the folder; the file is opened at the first write.

        Args:
            params: The params before the first step; they are not read.
        """
        del params
        _writer_class()
        self.close()
        Path(self.log_dir).mkdir(parents=True, exist_ok=True)
        return {"steps": 0}

    def update(self, memory: Tree, epoch: Epoch) -> tuple[Tree, Verdict]:
        writer = self._writer(memory["steps"] + 1)
        if not memory["steps"]:
            self._write_texts(writer)
        for name, column in epoch.history.items():
            if isinstance(column[-1], Real):
                writer.add_scalar(_tag(name), float(column[-1]), epoch.steps)
        for name, rate in tree.names(self.optimizer.rates(epoch.state) if self.optimizer else {}).items():
            if not isinstance(rate, Tensor) or rate.numel() == 1:
                writer.add_scalar(f"rates/{name}", float(rate), epoch.steps)
        for name, leaf in tree.names(epoch.eval_params).items() if self.histograms else ():
            _write_histogram(writer, f"params/{name}", leaf, epoch.steps)
        writer.flush()
        return {"steps": epoch.steps}, None

    def on_step(self, step: Step) -> Verdict:
        if self.every and step.number % self.every == 0:
            losses = step.loss.detach().reshape(-1).tolist()
            for i, loss in enumerate(losses):
                self._writer(step.number).add_scalar("loss/step" if len(losses) == 1 else f"loss.{i}/step", loss, step.number)
        return None

    def close(self) -> None:
        """Close the file; the next training with this callback also closes it."""
        writer = _EVENTS.pop(repr(self), None)
        if writer is not None:
            writer.close()

    def _writer(self, first: int) -> Any:
        """Return the open writer, or a new one that hides older events from step ``first`` on."""
        if repr(self) not in _EVENTS:
            for oldest in [*_EVENTS][: 1 - _MOST_OPEN]:
                _EVENTS.pop(oldest).close()
            _EVENTS[repr(self)] = _writer_class()(self.log_dir, purge_step=first)
        return _EVENTS[repr(self)]

    def _write_texts(self, writer: Any) -> None:
        if self.hparams:
            rows = [f"| {_cell(name)} | {_cell(value)} |" for name, value in self.hparams]
            writer.add_text("hparams", "\n".join(["| name | value |", "| --- | --- |", *rows]), 1)
        if self.net is not None:
            writer.add_text("net", "\n".join(f"    {line}" for line in str(self.net).splitlines()), 1)
        if self.optimizer is not None:
            writer.add_text("optimizer", f"    {self.optimizer!r}", 1)


def _cell(content: Any) -> str:
    """Return the content of a Markdown table cell, on one line."""
    return " ".join(str(content).replace("|", "\\|").split())


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        rule = "tensorboard must be installed; pip install 'funcnet[tensorboard]' installs it"
        raise ImportError(f"TensorBoard: {rule}") from error
    return SummaryWriter


def _tag(column: str) -> str:
    """Return the tag of a column; the part before the slash is the group of curves."""
    if column in _APART:
        return _APART[column]
    if column.endswith("_norm"):
        return f"norms/{column}"
    base = column.removeprefix(_VALIDATION)
    return f"{base}/training" if base == column else f"{base}/validation"


def _write_histogram(writer: Any, tag: str, leaf: Tensor, step: int) -> None:
    """Write a histogram of the finite values of a leaf, if there are any."""
    values = leaf.detach().to("cpu", torch.float64 if leaf.dtype is torch.float64 else torch.float32).reshape(-1)
    values = values[values.isfinite()]
    if values.numel():
        writer.add_histogram(tag, values, step)
