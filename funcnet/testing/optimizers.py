"""The checks of optimizers and gradient transforms: the contract of ``funcnet.optim.base``, for custom ones too."""

from collections.abc import Callable
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from funcnet import random, tree
from funcnet.contract import Params
from funcnet.errors import describe, value_error
from funcnet.flattening import Tree
from funcnet.optim.averaged import followers
from funcnet.optim.base import GradientTransform, Optimizer
from funcnet.random.keys import Key
from funcnet.testing.optimizer_forms import (
    GRADS,
    PARAMS,
    check_apart,
    check_compiled,
    check_half,
    check_late,
    check_meta,
    check_rates,
    check_refused,
    check_state_refused,
    check_strides,
    check_value,
    check_vmap,
)

_STEPS = 3

State = Any


def check_optimizer(opt: Any, params: Params, rng: Key | int = 0, *, compiled: bool = True) -> None:
    """Check the contract of an optimizer, with updates for random gradients.

    - Params and state keep their structure, shapes, dtypes and devices, and state contains only tensors.
    - Equal arguments give equal bits, whatever the strides of the gradients. No argument is written to, and torch's generator is
      not used.
    - A leaf whose gradient is ``None`` does not change, nor does its state, except in trees that follow all params, like the
      average of ``Averaged``. Its first gradient can come late.
    - The optimizer that ``donate`` returns gives the same bits. It writes to params and state, which share no memory.
    - ``vmap`` and compiled code give the same as eager code, and the meta device the same shapes.
    - In half precision, moments are in float32, and a step equals the step in float32, rounded once.
    - Unless ``acts_on`` is ``"tree"``, updating a part of params alone gives the same bits as updating all of them.
    - An ``Optimizer`` is a value, has finite rates, and raises for gradients that do not fit before it writes to anything.

    Args:
        opt: An ``Optimizer``, or any object with its methods ``init`` and ``update``; ``donate`` is optional.
        params: Params to update, a tree of tensors. They are not changed.
        rng: Key or seed for the gradients.
        compiled: Whether to check ``torch.compile`` too, which takes most of the time.

    Raises:
        AssertionError: If the optimizer breaks the contract; the message starts with the rule.
        ValueError: If ``opt`` does not have the methods, or ``params`` is not a tree of tensors.

    >>> from funcnet.optim.sgd import SGD
    >>> check_optimizer(SGD(lr=0.1), {"weight": torch.ones(2, 3)}, compiled=False)
    """
    _require_verbs("check_optimizer", opt, params)
    grads = [_gradients(params, random.fold_in(rng, i)) for i in range(_STEPS)]
    first = tree.map(torch.clone, params)
    state = _first_state(opt, params)
    fail = lambda rule, got: _require(False, opt, rule, got)
    for g in grads:
        check_apart(opt, state, params, fail)
        params, state = _step(opt, g, state, params, first)
    check_apart(opt, state, params, fail)
    for path in tree.names(params):
        _check_absent(opt, grads[0], state, params, path)
    _check_absent(opt, grads[0], state, params, *tree.names(params))
    if hasattr(opt, "donate"):
        _check_donated(opt, grads, first)
    if getattr(opt, "acts_on", "tree") != "tree":
        _check_parts(opt, grads[0], state, params)
    _check_forms(opt, grads, state, params, compiled)


def _require_verbs(who: str, opt: Any, params: Params) -> None:
    if isinstance(opt, type) or not all(callable(getattr(opt, verb, None)) for verb in ("init", "update")):
        raise value_error(who, "the first argument must be a value with init and update", describe(opt))
    odd = [leaf for leaf in tree.leaves(params) if not isinstance(leaf, Tensor) or leaf.is_meta]
    if odd:
        raise value_error(who, "params must be a tree of tensors, not on the meta device", describe(odd[0]))


def _first_state(opt: Any, params: Params) -> State:
    state = opt.init(params)
    _require(tree.equal(state, opt.init(params)), opt, "init must give the same state for the same params")
    others = [path for path, leaf in tree.names(state).items() if not isinstance(leaf, Tensor)]
    _require(not others, opt, "state must be a tree of tensors", f"something else at {others[0]!r}" if others else "")
    return state


def _check_forms(opt: Any, grads: list[Tree], state: State, params: Params, compiled: bool, like: int = PARAMS) -> None:
    fail = lambda rule, got: _require(False, opt, rule, got)
    arguments = (grads[0], state, params)
    check_strides(opt, arguments, fail)
    check_late(opt, grads, params, fail, like)
    if tree.leaves(params):
        check_vmap(opt, arguments, fail, like)
        check_meta(opt, arguments, fail, like)
        check_half(opt, grads[0], params, fail, like)
    if compiled:
        check_compiled(opt, grads, state, params, fail, like)
    if isinstance(opt, (Optimizer, GradientTransform)):
        check_value(opt, fail)
        check_rates(opt, state, fail)
        (check_refused if like == PARAMS else check_state_refused)(opt, arguments, fail)


def check_transform(transform: Any, params: Params, rng: Key | int = 0, *, compiled: bool = True) -> None:
    """Check the contract of a gradient transform, with updates for random gradients.

    - Gradients and state keep their structure, shapes, dtypes and devices, and state contains only tensors.
    - Equal arguments give equal bits, whatever the strides of the gradients. No argument is written to, and torch's generator is
      not used.
    - A gradient of ``None`` stays ``None``, and its state does not change. The first gradient can come late.
    - ``vmap`` and compiled code give the same as eager code, and the meta device the same shapes.
    - In half precision, moments are in float32, and the new gradients equal those in float32, rounded once.
    - Unless ``acts_on`` is ``"tree"``, updating a part of params alone gives the same bits as updating all of them.
    - A ``GradientTransform`` is a value, has finite rates, and raises for a state of another kind and for complex gradients.

    Args:
        transform: A ``GradientTransform``, or any object with its methods ``init`` and ``update``.
        params: Params, a tree of tensors.
        rng: Key or seed for the gradients.
        compiled: Whether to check ``torch.compile`` too, which takes most of the time.

    Raises:
        AssertionError: If the transform breaks the contract; the message starts with the rule.
        ValueError: If ``transform`` does not have the methods, or ``params`` is not a tree of tensors.

    >>> from funcnet.optim.clipping import ClipByGlobalNorm
    >>> check_transform(ClipByGlobalNorm(1.0), {"weight": torch.ones(2, 3)}, compiled=False)
    """
    _require_verbs("check_transform", transform, params)
    steps = [_gradients(params, random.fold_in(rng, i)) for i in range(_STEPS)]
    state = _first_state(transform, params)
    for grads in steps:
        _, state = _step(transform, grads, state, params, grads, "grads")
    for path in tree.names(params):
        _check_none(transform, steps[0], state, params, path)
    if getattr(transform, "acts_on", "tree") != "tree":
        _check_parts(transform, steps[0], state, params)
    _check_forms(transform, steps, state, params, compiled, GRADS)


def _check_none(transform: Any, grads: Tree, state: State, params: Params, path: str) -> None:
    """Require that a gradient of ``None`` stays ``None``, and that its state does not change."""
    absent = tree.map_with_path(lambda one, g: None if one == path else g, grads)
    new, after = transform.update(absent, state, params)
    _require(path not in tree.names(new), transform, "a gradient that is None must stay None", f"but {path!r} has one")
    _check_kept(transform, "grads", new, absent)
    owners = tree.names(params)
    rule = "the state of a leaf whose gradient is None must not change"
    _compare(transform, rule, after, state, lambda one: _owner(one, owners) == path)


def _require(condition: bool, opt: Any, rule: str, got: str = "") -> None:
    if not condition:
        raise AssertionError(f"{rule}{f', {got}' if got else ''}: {opt!r}")


def _gradients(params: Params, rng: Key | int) -> Tree:
    """Sample a gradient for each floating leaf; other leaves get ``None``."""
    keys = {path: random.fold_in(rng, i) for i, path in enumerate(tree.names(params))}
    draw = lambda path, leaf: random.normal(keys[path], tuple(leaf.shape)).to(leaf) if leaf.is_floating_point() else None
    return tree.map_with_path(draw, params)


def _step(opt: Any, grads: Tree, state: State, params: Params, like: Tree, what: str = "params") -> tuple[Tree, State]:
    """Update twice, the second time with clones; compare the result with ``like``, and the arguments with their copies."""
    arguments = (grads, state, params)
    copies, versions = tree.map(torch.clone, arguments), tree.map(lambda leaf: leaf._version, arguments)
    chance = torch.random.get_rng_state()
    result = opt.update(*arguments)
    _require(torch.equal(chance, torch.random.get_rng_state()), opt, "update must not use torch's global generator")
    _require(isinstance(result, tuple) and len(result) == 2, opt, f"update must return a pair, {what} and state")
    untouched = tree.equal(arguments, copies) and tree.map(lambda leaf: leaf._version, arguments) == versions
    _require(untouched, opt, "update must not write to its arguments, unless they were given up by donate")
    _require(tree.equal(result, opt.update(*copies)), opt, "the same arguments must give the same bits")
    for name, new, old in ((what, result[0], like), ("state", result[1], state)):
        _check_kept(opt, name, new, old)
    return result[0], result[1]


def _check_kept(opt: Any, name: str, new: Tree, old: Tree) -> None:
    """Require that a tree keeps its structure, and the shape, dtype and device of each leaf."""
    found, want = ({path: _kind(leaf) for path, leaf in tree.names(one).items()} for one in (new, old))
    lost = [path for path in want if path not in found]
    hint = "; tree.update(f, params, grads) keeps what has no gradient" if name == "params" else ""
    _require(not lost, opt, f"update must keep the leaves of {name}", f"{', '.join(map(repr, lost))} vanished{hint}")
    _require(tree.structure(new) == tree.structure(old), opt, f"update must keep the structure of {name}")
    for path, kind in want.items():
        rule = f"update must keep shapes, dtypes and devices of {name}"
        _require(found[path] == kind, opt, rule, f"but {path!r} was {kind} and became {found[path]}")


def _kind(leaf: Any) -> str:
    return f"{describe(leaf)} on {leaf.device}" if isinstance(leaf, Tensor) else describe(leaf)


def _check_absent(opt: Any, grads: Tree, state: State, params: Params, *paths: str) -> None:
    """Require that leaves without a gradient do not change, nor their state."""
    absent = tree.map_with_path(lambda path, g: None if path in paths else g, grads)
    new, after = opt.update(absent, state, params)
    rule = "a leaf whose gradient is None must not change"
    _compare(opt, rule, new, params, lambda path: path in paths)
    owners, following = tree.names(params), followers(opt)
    concerns = lambda path: _owner(path, owners) in paths and following.isdisjoint(path.split("."))
    _compare(opt, f"{rule}, nor its state", after, state, concerns)


def _compare(opt: Any, rule: str, new: Tree, old: Tree, concerns: Callable[[str], bool]) -> None:
    found = tree.names(new)
    for path, leaf in tree.names(old).items():
        if concerns(path):
            now = found.get(path)
            right = isinstance(now, Tensor) and now.shape == leaf.shape and torch.equal(now, leaf)
            _require(right, opt, rule, f"but {path!r} {'changed' if path in found else 'vanished'}")


def _owner(path: str, owners: Tree) -> str | None:
    """Return the path of the param that a leaf of the state belongs to: the longest path that is a suffix of ``path``."""
    return max((one for one in owners if path.endswith(f".{one}")), key=len, default=None)


def _check_donated(opt: Any, grads: list[Tree], params: Params) -> None:
    donated, (p, q) = opt.donate(), [tree.map(torch.clone, params) for _ in range(2)]
    state, given = opt.init(p), donated.init(q)
    for g in grads:
        p, state = opt.update(g, state, p)
        q, given = donated.update(tree.map(torch.clone, g), given, q)
    _require(tree.equal((q, given), (p, state)), opt, "the donated optimizer must give the same bits")


def _check_parts(opt: Any, grads: Tree, state: State, params: Params) -> None:
    """Update each entry of params separately, with its part of the state."""
    whole = opt.update(grads, state, params)
    keys = [*params] if isinstance(params, dict) else [*range(len(params))] if isinstance(params, (tuple, list)) else []
    for key in keys:
        part = itemgetter(key)
        found = opt.update(part(grads), opt.map_state(part, state), part(params))
        want = part(whole[0]), opt.map_state(part, whole[1])
        rule = f"with acts_on = {opt.acts_on!r}, a part of params must get the same update alone as in the whole"
        _require(tree.equal(found, want), opt, rule, f"but {key!r} alone gets another")
