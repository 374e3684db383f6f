"""Misfits: explain by path why an update failed. The trees are compared first, then their leaves, then the written memory."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from funcnet import flattening, tree
from funcnet.errors import add_location, describe, value_error
from funcnet.flattening import Tree
from funcnet.kernels.aliasing import is_writable, overlapping
from funcnet.kernels.tracing import is_eager
from funcnet.optim.columns import is_count, is_dense, moment_like

Named = dict[str, dict[str, Any]]
"""The leaves of trees by the name of the tree and the path."""

Like = Callable[[str, Tensor], Tensor]


def explained(
    who: Any,
    error: Exception,
    params: Tree,
    others: dict[str, Any],
    donated: bool,
    concerns: Callable[[Any], bool] | None = None,
    like: Like | None = None,
) -> Exception:
    """Return an explanation of why an update failed with ``error``, or ``error`` itself if the arguments are valid.

    Args:
        who: The optimizer.
        error: The error that was raised.
        params: The params.
        others: ``grads`` and the state: ``step``, if there is one, and trees of float32 or wider tensors.
        donated: Whether the update writes to params and state.
        concerns: A function that selects the leaves of params that the update reads; by default all with a gradient.
        like: A function of the name of a moment and a param that returns the initial moment; by default zeros like the param.
    """
    step, trees = others.get("step"), {name: one for name, one in others.items() if name != "step"}
    try:
        flattening.flatten_together(params, *trees.values())
    except ValueError as misfit:
        add_location(misfit, f"{who}, update: params against {', '.join(trees)}")
        return misfit
    leaves, named = tree.names(params), {name: tree.names(one) for name, one in trees.items()}
    if concerns is not None:
        named["grads"] = {path: g for path, g in named["grads"].items() if concerns(leaves.get(path))}
    found = _leaf(who, leaves, named, like or (lambda name, p: moment_like(p)))
    if found is None and "step" in others and not is_count(step):
        found = value_error(who, "state must have a 0-d int64 tensor as step", _kind(step))
    if (
        found is None
        and isinstance(step, Tensor)
        and not step.is_cpu
        and any(leaf.device != step.device for leaf in leaves.values())
    ):
        found = value_error(who, "step must be on the CPU, or on the device of params", _kind(step))
    if found is None and isinstance(error, (OverflowError, RuntimeError)) and "overflow" in str(error):
        found = value_error(who, "hyperparameters must be numbers that the dtype of params can hold", str(error))
    if found is None and donated and is_eager():
        steps = {"step": {"": step}} if "step" in others else {}
        found = _unwritable(who, {"params": leaves, **named}, steps)
    return found or error


def require_dense(who: Any, grads: Tree) -> None:
    """Raise ``ValueError`` for a gradient that is not a dense floating tensor of at least 16 bits, with its path."""
    for path, g in tree.names(grads).items():
        if not is_dense(g):
            raise value_error(who, f"grads must have a dense floating tensor of at least 16 bits at {path!r}", g)


def _leaf(who: Any, params: dict[str, Any], others: Named, first: Like) -> Exception | None:
    """Return an error for the first leaf with a gradient where a tensor does not fit its parameter."""
    for path, g in others["grads"].items():
        p = params.get(path)
        if p is None or not is_dense(p):
            return value_error(who, f"grads must be None at {path!r}, where params is {describe(p)}", g)
        for name, other in others.items():
            like = p if name == "grads" else first(name, p.detach())
            if not isinstance(other.get(path), Tensor) or _kind(other[path]) != _kind(like):
                rule = "match params" if like.shape == p.shape else "be as init returns it"
                rule = f"{name} at {path!r} must {rule}, {_kind(like)}"
                return value_error(who, rule, _kind(other.get(path)))
    return None


def _unwritable(who: Any, named: Named, steps: Named) -> Exception | None:
    """Return an error for tensors that a donated update cannot write to; their kinds have already been checked."""
    grads = named.pop("grads")
    written = {f"{name} at {path!r}": leaves[path] for path in grads for name, leaves in named.items()}
    written |= {name: leaf for name, leaves in steps.items() for leaf in leaves.values()}
    for name, leaf in written.items():
        if not is_writable(leaf):
            rule = f"a donated optimizer writes to {name}: it must not be an inference tensor, a negated view or lazy zeros"
            return value_error(who, rule, leaf)
    names = [*written]
    shared = [names[i] for i in sorted(overlapping([*written.values()]))]
    rule = "a donated optimizer writes to params and state, in which no two elements may share memory"
    return value_error(who, rule, "shared memory in " + " and ".join(shared[:2])) if shared else None


def _kind(leaf: Any) -> str:
    return describe(leaf) + (f" on {leaf.device}" if isinstance(leaf, Tensor) and not leaf.is_cpu else "")
