"""Variants of an update that must agree: strides, ``vmap``, meta device, compiled, half precision; and invalid arguments."""

import pickle
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcnet import tree
from funcnet.contract import Params
from funcnet.errors import describe
from funcnet.flattening import Tree
from funcnet.kernels.aliasing import overlapping
from funcnet.precision import HALF
from funcnet.testing.assertions import assert_close
from funcnet.value import Value, parts

GRADS, PARAMS = 0, 2
"""Index of the argument of ``update`` that its first result resembles: for a gradient transform and for an optimizer."""

NAMES = {GRADS: "grads", PARAMS: "params"}

State = Any
Fail = Callable[[str, str], None]
"""A function that raises ``AssertionError`` with a rule, and a description of what was found instead."""

_LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda g: g.mT.contiguous().mT if g.dim() > 1 else g.clone(),
    "strided": lambda g: torch.stack([g, g], -1)[..., 0],
}


def check_strides(opt: Any, arguments: tuple[Tree, State, Params], fail: Fail) -> None:
    """Require that gradients with other strides give the same bits as contiguous gradients."""
    grads, state, params = arguments
    want = opt.update(grads, state, params)
    for name, layout in _LAYOUTS.items():
        if not tree.equal(opt.update(tree.map(layout, grads), state, params), want):
            fail("equal gradients must give equal bits whatever their strides", f"others from {name} ones")


def check_apart(opt: Any, state: State, params: Params, fail: Fail) -> None:
    """Require that no two elements of params and state share memory, since the next update could be donated."""
    names, leaves = zip(*tree.names({"params": params, "state": state}).items(), strict=True) if tree.leaves(state) else ((), ())
    shared = [names[i] for i in sorted(overlapping(leaves))]
    if shared:
        fail("params and state must share no memory, since donate writes to both", f"but {shared[0]!r} does")


def check_vmap(opt: Any, arguments: tuple[Tree, State, Params], fail: Fail, like: int = PARAMS) -> None:
    """Require that ``vmap`` over two members gives the same as each of them alone; ``like`` is ``GRADS`` or ``PARAMS``."""
    members = [arguments, (tree.map(lambda g: g * 0.5, arguments[0]), *arguments[1:])]
    batch = tree.map(lambda *xs: torch.stack(xs), *members)
    axes = tree.map(lambda _: 0, batch)
    got = _try("update must run under vmap", lambda: torch.func.vmap(opt.update, axes, (axes[like], axes[1]))(*batch), fail)
    for i, member in enumerate(members):
        _compare("vmap must agree with a loop over members", tree.map(lambda x, i=i: x[i], got), opt.update(*member), fail)


def check_meta(opt: Any, arguments: tuple[Tree, State, Params], fail: Fail, like: int = PARAMS) -> None:
    """Require the shapes and dtypes of params, or of gradients, and state on the meta device."""
    got = _try("update must run on the meta device", lambda: opt.update(*tree.to(arguments, "meta")), fail)
    want = tree.to((arguments[like], arguments[1]), "meta")
    if tree.map(describe, got) != tree.map(describe, want):
        fail(f"on the meta device update must give the shapes and dtypes of {NAMES[like]} and state", "others")


def check_compiled(opt: Any, steps: list[Tree], state: State, params: Params, fail: Fail, like: int = PARAMS) -> None:
    """Require that compiled code, one graph for all steps, gives the same as eager code."""
    want = got = (params, state)
    torch.compiler.reset()  # earlier graphs would count as recompilations
    try:
        compiled: Any = torch.compile(opt.update, fullgraph=True, backend="aot_eager", dynamic=False)
        settings: Any = torch._dynamo.config
        with settings.patch(error_on_recompile=True):
            for g in steps:
                last = [one[0] if like == PARAMS else params for one in (want, got)]
                want = opt.update(g, want[1], last[0])
                run = lambda g=g, got=got, p=last[1]: compiled(g, got[1], p)
                got = _try("update must compile as one graph, which serves all steps", run, fail)
    finally:
        torch.compiler.reset()
    _compare("compiled code must agree with eager code", got, want, fail)


def check_half(opt: Any, grads: Tree, params: Params, fail: Fail, like: int = PARAMS) -> None:
    """Require that a step in half precision equals the step in float32, rounded once, with moments in float32."""
    for dtype in HALF:
        p, g = tree.cast(params, dtype), tree.cast(grads, dtype)
        state = opt.init(p)
        halves = [path for path, leaf in tree.names(state).items() if isinstance(leaf, Tensor) and leaf.dtype in HALF]
        if halves:
            fail(f"state must be in float32 for params in {dtype}", f"{dtype} at {halves[0]!r}")
        got = opt.update(g, state, p)[0]
        single = tree.cast((g, p), torch.float32)
        want = opt.update(single[0], opt.init(single[1]), single[1])[0]
        for path, one in tree.names(want).items():
            p32 = _at(single[0 if like == GRADS else 1], path)
            room = 2 * torch.finfo(dtype).eps * (p32.abs() + (one - p32).abs()) + 1e-7
            if one.is_floating_point() and not ((_at(got, path).float() - one).abs() <= room).all():
                fail(f"a step in {dtype} must equal the step in float32, rounded", f"another at {path!r}")


def check_late(opt: Any, steps: list[Tree], params: Params, fail: Fail, like: int = PARAMS) -> None:
    """Require finite params, or gradients, if the first gradient of each leaf comes late."""
    for path in tree.names(params):
        p, state = params, opt.init(params)
        for i, g in enumerate(steps):
            given = g if i == len(steps) - 1 else _with(g, path, None)
            new, state = opt.update(given, state, p)
            p = new if like == PARAMS else p
        if not tree.all_finite(new):
            rule = f"{NAMES[like]} must stay finite if the first gradient of a leaf comes late"
            fail(rule, f"NaN or infinity after the gradient of {path!r}")


def check_refused(opt: Any, arguments: tuple[Tree, State, Params], fail: Fail) -> None:
    """Require that an invalid gradient raises an error before anything is written."""
    grads, state, params = arguments
    for path, g in tree.names(grads).items():
        for kind, other in {
            "shape": torch.stack([g, g]),
            "dtype": g.double() if g.dtype is not torch.float64 else g.float(),
        }.items():
            for form in (opt, opt.donate()):
                _refuse(
                    form, f"a gradient of another {kind} at {path!r}", (tree.replace(grads, path, other), state, params), fail
                )


def check_state_refused(opt: Any, arguments: tuple[Tree, State, Params], fail: Fail) -> None:
    """Require that a state of another kind and a complex gradient raise errors."""
    grads, state, params = arguments
    _refuse(opt, "a state of another kind", (grads, {"other": torch.zeros(())}, params), fail)
    for path, g in tree.names(grads).items():
        _refuse(opt, f"a complex gradient at {path!r}", (_with(grads, path, g.to(torch.complex64)), state, params), fail)


def _refuse(opt: Any, what: str, arguments: tuple[Tree, State, Params], fail: Fail) -> None:
    given = tree.map(torch.clone, arguments)
    try:
        opt.update(*given)
    except (ValueError, TypeError):
        if not tree.equal(given, arguments):
            fail("an update that raises must not have written to its arguments", f"params or state written to after {what}")
        return
    fail("invalid arguments must raise an error", what)


def check_value(opt: Value, fail: Fail) -> None:
    """Require that ``eval(repr(opt))`` and the pickled copy equal the optimizer, with equal hashes."""
    names = {**vars(sys.modules["funcnet"]), "torch": torch, **{type(part).__name__: type(part) for part in parts(opt)}}
    for how, again in {"eval(repr)": eval(repr(opt), names), "pickle": pickle.loads(pickle.dumps(opt))}.items():
        if again != opt or hash(again) != hash(opt):
            fail(f"{how} must reproduce the optimizer", repr(again))


def check_rates(opt: Any, state: State, fail: Fail) -> None:
    """Require finite rates by name; the rates of several optimizers are in nested dicts."""
    rates = opt.rates(state)
    if not isinstance(rates, dict):
        fail("rates must be a dict", describe(rates))
    for name, one in tree.names(rates).items():
        if not torch.isfinite(torch.as_tensor(one)).all():
            fail("rates must be finite numbers", f"{name} = {one}")


def _with(values: Tree, path: str, leaf: Any) -> Tree:
    """Return the tree with another leaf at a path; if the tree is a single leaf, the path is empty."""
    return tree.replace(values, path, leaf) if path else leaf


def _at(values: Tree, path: str) -> Any:
    return tree.names(values)[path]


def _try(rule: str, run: Callable[[], Any], fail: Fail) -> Any:
    try:
        return run()
    except Exception as error:
        fail(rule, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")


def _compare(rule: str, got: Tree, want: Tree, fail: Fail) -> None:
    try:
        rough = any([leaf.dtype in HALF for leaf in tree.leaves(want)])  # noqa: C419
        assert_close(got, want, rtol=2e-2 if rough else 1e-5, atol=1e-3 if rough else 1e-7)
    except AssertionError as error:
        fail(rule, str(error).splitlines()[0])
