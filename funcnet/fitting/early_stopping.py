"""Early stopping: a callback that ends training when a column of the history no longer improves."""

import math

from attrs import field

from funcnet.contract import Params
from funcnet.errors import describe, flag, number, one_of, value_error, whole
from funcnet.fitting.callbacks import Callback, Epoch, Verdict, stop
from funcnet.fitting.history import History
from funcnet.flattening import Tree
from funcnet.value import frozen


@frozen
class EarlyStopping(Callback):
    """Stop training when a column of the history has not improved for some epochs, and keep the best params.

        improved = value < best - min_delta      mode="min"
        improved = value > best + min_delta      mode="max"

    Use it as ``fit(..., callbacks=[EarlyStopping(patience=5)])``. NaN is never an improvement. ``fit`` then returns the params
    that were evaluated, ``Epoch.eval_params``.

    Args:
        patience: Number of epochs in a row without improvement after which training stops.
        monitor: Name of the column, such as ``"validation_accuracy"``; ``None`` for ``validation_loss``, or for ``loss`` without
            validation data.
        mode: ``"min"`` if smaller is better, ``"max"`` if larger is.
        min_delta: Smallest change that counts as an improvement, exclusive, in units of the column.
        restore_best: Whether ``fit`` returns the params of the best epoch, even if no callback stopped training.

    State:
        The best value, its epoch and params, and the number of epochs since.

    Raises:
        ValueError: If an argument has another type; from ``fit``, if the history lacks the column or its values are not numbers.

    References:
        Prechelt 1998, "Early stopping: but when?".

    >>> import torch
    >>> from funcnet.fitting.history import History
    >>> early, w = EarlyStopping(patience=2), {"w": torch.zeros(1)}
    >>> memory, history = early.init(w), History()
    >>> for i, loss in enumerate([0.5, 0.3, 0.4, 0.4]):
    ...     history.setdefault("loss", []).append(loss)
    ...     memory, verdict = early.update(memory, Epoch(i + 1, {"w": w["w"] + i}, (), history, {"w": w["w"] + i}, i))
    >>> verdict, early.params(memory, w)
    (fn.stop, {'w': tensor([1.])})
    """

    patience: int = field(validator=whole(1))
    monitor: str | None = None
    mode: str = field(default="min", validator=one_of("min", "max"))
    min_delta: float = field(default=0.0, validator=number(at_least=0))
    restore_best: bool = field(default=True, validator=flag)

    def __attrs_post_init__(self) -> None:
        if self.monitor is not None and not isinstance(self.monitor, str):
            raise value_error("EarlyStopping", "monitor must be the name of a column, or None", describe(self.monitor))

    def init(self, params: Params) -> Tree:
        return {"best": math.nan, "epoch": 0, "waited": 0, "params": None}

    def update(self, memory: Tree, epoch: Epoch) -> tuple[Tree, Verdict]:
        value = self._value(epoch.history)
        if self._is_better(value, memory["best"]):
            kept = epoch.eval_params if self.restore_best else None
            return {"best": value, "epoch": epoch.number, "waited": 0, "params": kept}, None
        waited = memory["waited"] + 1
        return {**memory, "waited": waited}, stop if waited >= self.patience else None

    def params(self, memory: Tree, params: Params) -> Params:
        return params if memory["params"] is None else memory["params"]

    def _value(self, history: History) -> float:
        name = self.monitor or ("validation_loss" if "validation_loss" in history else "loss")
        if name not in history:
            raise value_error(self, f"monitor must be a column of the history: {', '.join(history)}", repr(name))
        if not isinstance(history[name][-1], (int, float)):
            raise value_error(self, f"column {name!r} must hold numbers", describe(history[name][-1]))
        return float(history[name][-1])

    def _is_better(self, value: float, best: float) -> bool:
        if math.isnan(value) or math.isnan(best):
            return not math.isnan(value)
        return value < best - self.min_delta if self.mode == "min" else value > best + self.min_delta
