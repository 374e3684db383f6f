"""Layers whose backward rule is not the derivative, and layers that observe values and gradients."""

from typing import Any

import funcnet as fn
from cases.making import case, loose, normal


def look(value: Any) -> None:
    """Read an output or a gradient without changing it."""


def guided(vjp: Any, x: Any, y: Any, gy: Any) -> Any:
    """Pass only positive gradients to a ReLU."""
    return vjp(gy.relu())


def halved(vjp: Any, x: Any, y: Any, gy: Any) -> Any:
    """Halve the gradient of x, and leave the gradients of params unchanged."""
    gp, gx = vjp(gy)
    return gp, gx / 2


def scaled(vjp: Any, x: Any, y: Any, gy: Any) -> Any:
    """Multiply both gradients of y, a pair, by 3."""
    return vjp(tuple([3 * g for g in gy]))


TRUNK = fn.serial(fn.Linear(3, 4), fn.Tanh())

CLIPPED_STEPS = fn.reversible(fn.serial(fn.Linear(2, 2), fn.clip_gradient(0.2)), fn.serial(fn.clip_gradient(0.1), fn.Tanh()))

CASES = {
    "scale_gradient": case(fn.scale_gradient(0.3), normal(4, 3)),
    "scale_gradient to 0 of a pair": case(fn.scale_gradient(0.0), (normal(4, 3), normal(4, 2, 2))),
    "reverse_gradient": case(fn.reverse_gradient(), normal(4, 3)),
    "reverse_gradient in a branch": case(
        fn.serial(TRUNK, fn.branch(fn.Linear(4, 2), fn.serial(fn.reverse_gradient(0.5), fn.Linear(4, 1)))), normal(4, 3)
    ),
    "clip_gradient": case(fn.clip_gradient(0.5), normal(4, 3)),
    "clip_gradient within a net, twice": case(
        fn.serial(fn.clip_gradient(0.2), TRUNK, fn.residual(fn.serial(fn.Linear(4, 4), fn.clip_gradient(0.1)))), normal(4, 3)
    ),
    "clip_gradient in a scan": loose(
        fn.scan(fn.serial(fn.GRUCell(3, 2), fn.clip_gradient(0.3)), output_is_carry=True), (normal(4, 2, 3), normal(2, 2))
    ),
    "straight_through": case(fn.straight_through(fn.Sign()), normal(4, 3)),
    "straight_through of a layer with params": case(fn.straight_through(fn.serial(fn.Linear(3, 3), fn.Sigmoid())), normal(4, 3)),
    "tap": case(fn.tap(fn.serial(fn.BatchNorm1d(3), fn.Dropout(0.3), fn.Linear(3, 2)), look, look), normal(5, 3)),
    "tap of a pair, forward only": case(fn.tap(fn.parallel(fn.Tanh(), fn.Linear(3, 2)), look), (normal(4, 2), normal(4, 3))),
    "checked": case(fn.checked(fn.serial(fn.BatchNorm1d(3), fn.Dropout(0.3), fn.Linear(3, 2))), normal(5, 3)),
    "checked in a scan": loose(fn.scan(fn.checked(fn.GRUCell(3, 2)), output_is_carry=True), (normal(4, 2, 3), normal(2, 2))),
    "profiled": case(fn.profiled(fn.serial(fn.BatchNorm1d(3), fn.Dropout(0.3), fn.Linear(3, 2)), "net"), normal(5, 3)),
    "straight_through with dropout and norm": case(
        fn.serial(fn.Linear(3, 3), fn.straight_through(fn.serial(fn.BatchNorm1d(3), fn.Dropout(0.3))), fn.Tanh()), normal(5, 3)
    ),
    "with_vjp": case(fn.with_vjp(fn.ReLU(), guided), normal(4, 3)),
    "with_vjp of a layer with params": case(
        fn.with_vjp(fn.parallel(fn.Tanh(), fn.Linear(3, 2)), scaled), (normal(4, 2), normal(4, 3))
    ),
    "with_vjp within a net": case(
        fn.serial(fn.Linear(3, 4), fn.with_vjp(fn.ReLU(), guided), fn.with_vjp(fn.Linear(4, 2), halved)), normal(4, 3)
    ),
    "with_vjp with dropout and norm": case(
        fn.serial(fn.with_vjp(fn.serial(fn.BatchNorm1d(3), fn.Dropout(0.3), fn.Linear(3, 2)), halved), fn.Tanh()), normal(5, 3)
    ),
    "clip_gradient in a remat, twice": case(
        fn.serial(fn.remat(fn.serial(*[fn.serial(fn.Linear(3, 3), fn.clip_gradient(0.2), fn.Tanh())] * 2), segments=2)),
        normal(4, 3),
    ),
    "clip_gradient in a run of reversible": case(fn.serial(*[CLIPPED_STEPS] * 2), (normal(4, 2), normal(4, 2))),
    "clip_gradient in a scan with checkpoints": loose(
        fn.scan(fn.serial(fn.GRUCell(3, 2), fn.clip_gradient(0.3)), output_is_carry=True, checkpoint_every=2),
        (normal(3, 2, 3), normal(2, 2)),
    ),
}
