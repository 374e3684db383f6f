"""Divergence: find the first non-finite number of a training run, and the layer that produced it."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from funcnet import tree
from funcnet.combinators.watching import checked
from funcnet.contract import Params
from funcnet.flattening import Tree
from funcnet.kernels.optim import are_finite
from funcnet.optim.base import Optimizer
from funcnet.optim.skipping import SkipNonFinite
from funcnet.optim.transforms.loss_scale import LossScale
from funcnet.train import TrainStep
from funcnet.value import parts


def skips_steps(opt: Optimizer) -> bool:
    """Return whether an optimizer skips non-finite steps, so that training can continue."""
    return any(isinstance(part, (SkipNonFinite, LossScale)) for part in parts(opt, given=True))


def stays_finite(params: Params, start: Params) -> bool:
    """Return whether params are finite, except for infinities that they started with, for example in a mask."""
    return are_finite([leaf for leaf in tree.leaves(params) if isinstance(leaf, Tensor)]) or not first_bad(params, start)


def first_bad(found: Tree, start: Tree = None) -> str:
    """Return the path and index of the first NaN or infinity, or ``""``; infinities that are also in ``start`` do not count."""
    before = {} if start is None else tree.names(start)
    for path, leaf in tree.names(found).items():
        bad = _bad(leaf, before.get(path))
        if bad is not None and bad.any():
            index = tuple(bad.nonzero()[0].tolist())
            return f"{path!r}, which has {leaf[index].item()} at {index}" if index else f"{path!r}, which is {leaf.item()}"
    return ""


def _bad(leaf: Any, before: Any) -> Tensor | None:
    if not isinstance(leaf, Tensor) or not (leaf.is_floating_point() or leaf.is_complex()):
        return None
    bad = ~leaf.isfinite()
    return bad if before is None else bad & (leaf != before)


def diverged(what: str, when: str, bad: str) -> FloatingPointError:
    """Return the error that ends training."""
    return FloatingPointError(f"fit: the loss and params must stay finite, got {what} in {when}; first bad leaf: {bad}")


Cause = tuple[str, int | None, Exception | None]
"""The description of the first bad leaf, the step that produced it (from 0), and the error of the first layer at fault."""


def cause(step: TrainStep, start: tuple[Params, Tree], batches: Iterable[tuple[Any, Any, Any]], last: Params) -> Cause:
    """Repeat steps from ``start`` until the loss or the params are not finite, and return the first bad leaf.

    ``batches`` yields (x, target, key) for each step up to the failing one. ``last`` are the params after it; they are examined
    if the batches cannot be fetched again.
    """
    try:
        return _repeat(step, *start, batches) or (_describe(last, start[0]), None, None)
    except Exception:
        return _describe(last, start[0]), None, None


def _describe(params: Params, start: Params) -> str:
    return first_bad({"params": params}, {"params": start}) or "none, only the loss"


def _repeat(step: TrainStep, start: Params, state: Tree, batches: Iterable[tuple[Any, Any, Any]]) -> Cause | None:
    params, strict = start, not skips_steps(step.opt)
    for i, (x, target, rng) in enumerate(batches):
        after, state, value = step(params, state, x, target, rng)
        if not stays_finite(after, start) or (strict and tree.size(x) and not value.isfinite().all()):
            found = first_bad({"x": x, "target": target})
            return (found, i, None) if found else (_describe(after, start), i, _layer_at_fault(step, params, x, target, rng))
        params = after
    return None


def _layer_at_fault(step: TrainStep, params: Params, x: Any, target: Any, rng: Any) -> Exception | None:
    """Return the error of the first layer with a non-finite output or gradient."""
    watched = checked(step.net)
    try:
        with torch.no_grad():
            y, cache = watched.apply(params, x, rng)
            watched.grads(params, cache, step.loss.value_and_grad(y, target)[1])
    except FloatingPointError as error:
        return error
    return None


def add_layer(error: Exception, found: Exception | None) -> None:
    """Add a note that names the first layer with a non-finite output or gradient."""
    if found is not None:
        error.add_note(f"  {found}")
