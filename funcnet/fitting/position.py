"""The position in a training run: everything that changes from step to step, as one tree for checkpoints."""

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet.contract import Layer
from funcnet.errors import value_error
from funcnet.fitting.history import History
from funcnet.flattening import Tree
from funcnet.losses.loss import Loss
from funcnet.optim.base import Optimizer

_MAY_CHANGE = ("loss", "opt", "accumulate")
"""Arguments of ``fit`` that may differ from those in the checkpoint."""


class Position(NamedTuple):
    """The position in a training run.

    Args:
        epoch: Number of epochs done.
        step: Number of steps done in the next epoch.
        steps: Total number of steps done.
        params: The params.
        state: The optimizer's state, with recorded norms.
        memory: The memories of the callbacks.
        history: The history.
        losses: The losses of the steps done in this epoch.
        weights: The weight of each batch in each part of the loss; empty if it is computed from the rows.
        seconds: Time spent in this epoch.
        stopped: Whether a callback has ended training.
        generators: States of a DataLoader's generators at the start of the epoch.
    """

    epoch: int
    step: int
    steps: int
    params: Any
    state: Tree
    memory: dict[str, Tree]
    history: History
    losses: tuple[Tensor, ...] = ()
    weights: tuple[list[float], ...] = ()
    seconds: float = 0.0
    stopped: bool = False
    generators: tuple[Tensor, ...] = ()


def as_tree(at: Position, call: dict[str, Any]) -> dict[str, Any]:
    """Convert a position and the arguments of ``fit`` to a tree of tensors, numbers and strings."""
    losses = torch.stack(at.losses) if at.losses else None
    weights = torch.tensor(at.weights, dtype=torch.float64) if at.weights else None
    return {**at._asdict(), "history": dict(at.history), "losses": losses, "weights": weights, "call": call}


def from_tree(saved: Any) -> Position:
    """Return the position in a tree made by ``as_tree``."""
    if not isinstance(saved, dict) or saved.keys() != {*Position._fields, "call"}:
        raise value_error("fit", "checkpoints must come from an earlier fit; use another folder", "a checkpoint of another tree")
    losses = () if saved["losses"] is None else tuple(saved["losses"].unbind())
    weights = () if saved["weights"] is None else tuple(saved["weights"].tolist())
    found = {**saved, "history": History(saved["history"]), "losses": losses, "weights": weights}
    del found["call"]
    return Position(**found)


def call_of(net: Layer, loss: Loss, opt: Optimizer, accumulate: int, **options: Any) -> dict[str, Any]:
    """Describe the arguments of ``fit`` in numbers and strings, to recognize a checkpoint of another call."""
    return {"net": repr(net), "loss": repr(loss), "opt": repr(opt), "accumulate": accumulate, **options}


def require_same_call(saved: dict[str, Any], call: dict[str, Any], where: Any) -> None:
    """Raise for another net, key or batch size; warn about another loss or optimizer, which may be intended."""
    changed = {name: (saved.get(name), call.get(name)) for name in {**saved, **call} if saved.get(name) != call.get(name)}
    for name, (before, value) in changed.items():
        if name not in _MAY_CHANGE:
            got = f"{value}; use another folder for another run"
            raise value_error(f"fit, checkpoint in {where}", f"{name} must be {before}", got)
    for name, (before, value) in changed.items():
        warnings.warn(f"fit: {name} was {before} in the checkpoint in {where}, and is {value} from now on", stacklevel=4)
