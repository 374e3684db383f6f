"""Laws: the eleven promises of ``funcnet.contract``, each a function that raises ``AssertionError`` when a layer breaks it.

Every law is called as ``law(layer, x, params=None, rng=0)``. Params are fresh unless given; a stochastic layer gets ``rng`` in
``apply``. Law 8 also takes ``compiled=False``, which leaves compiling out. The message begins with the law's number and name:
``"law 6, strides: Linear(...): ..."``. An error that the layer itself raises breaks the law too.
"""

import functools
import inspect
import pickle
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcnet import flattening, random, tree
from funcnet.contract import Layer, Params
from funcnet.random import Key
from funcnet.testing.comparison import (
    DTYPES,
    Snapshot,
    check_equal,
    check_kept,
    check_mirrored,
    check_same_bits,
    everything,
    named,
    noise_like,
    prepared,
    require,
    require_unchanged,
    run,
)
from funcnet.testing.differences import check_vjp
from funcnet.testing.reach import check_reach
from funcnet.testing.second_order import check_second_order
from funcnet.tree import Tree
from funcnet.value import Value, parts

Law = Callable[..., None]

LAWS: dict[str, Law] = {}
"""The laws by name, in their order; all are called alike."""


def _law(number: int, name: str) -> Callable[[Law], Law]:
    """Enter a law into ``LAWS``, and let what it raises begin with its name."""

    def register(body: Law) -> Law:
        signature = inspect.signature(body)

        @functools.wraps(body)
        def law(*arguments: Any, **named: Any) -> None:
            layer = signature.bind(*arguments, **named).arguments["layer"]
            try:
                body(*arguments, **named)
            except AssertionError as error:
                raise AssertionError(f"law {number}, {name}: {error}") from error
            except Exception as error:
                said = str(error).partition("\n\n")[0]  # the compiler goes on for a page; the cause has all of it
                raise AssertionError(f"law {number}, {name}: {layer}: {type(error).__name__}: {said}") from error

        LAWS[name] = law
        return law

    return register


def check_laws(
    layer: Layer, x: Any, params: Params = None, rng: Key | int = 0, *, batched: bool = True, compiled: bool = True
) -> None:
    """Try all laws on a layer.

    Args:
        layer: The layer to try.
        x: An input for it, a tensor or a tree of tensors.
        params: Its params; fresh ones by default.
        rng: Key or seed for fresh params, and for ``apply`` of a stochastic layer.
        batched: Whether the first axis of x is a batch; ``False`` leaves out the law of rows.
        compiled: Whether to try ``torch.compile`` too, which takes most of the time.

    Raises:
        AssertionError: The layer breaks a law; the message begins with the law's number and name.

    >>> from funcnet.layers.linear.linear import Linear
    >>> check_laws(Linear(3, 2), torch.ones(4, 3), compiled=False)
    """
    options = {"transforms": {"compiled": compiled}}
    for name, law in LAWS.items():
        if batched or name != "rows":
            law(layer, x, params, rng, **options.get(name, {}))


@_law(1, "transpose")
def law_transpose(layer: Layer, x: Any, params: Params = None, rng: Key | int = 0) -> None:
    """Require that ``vjp`` is the transpose of the derivative of ``apply``: ``check_vjp``."""
    check_vjp(layer, x, params, rng)


@_law(2, "linear")
def law_linear(layer: Layer, x: Any, params: Params = None, rng: Key | int = 0) -> None:
    """Require vjp(2 g - 3 h) = 2 vjp(g) - 3 vjp(h), and vjp(0) = 0."""
    p, x = prepared(layer, x, params, rng)
    y, cache = run(layer, p, x, rng)
    g, h = (noise_like(y, random.fold_in(rng, seed)) for seed in (1, 2))
    apart = tree.map(lambda a, b: 2 * a - 3 * b, layer.vjp(p, cache, g), layer.vjp(p, cache, h))
    together = layer.vjp(p, cache, tree.map(lambda a, b: 2 * a - 3 * b, g, h))
    check_equal(layer, "vjp(2 g - 3 h) must be 2 vjp(g) - 3 vjp(h)", named(together), named(apart), scale=g)
    for path, leaf in tree.names(named(layer.vjp(p, cache, tree.zeros_like(g)))).items():
        require(not leaf.any(), layer, f"vjp(0) must be 0, and the gradient of {path} is not")


@_law(3, "pure")
def law_pure(layer: Layer, x: Any, params: Params = None, rng: Key | int = 0) -> None:
    """Require the same bits from the same arguments, whatever came between, nothing written to, and no chance without a key."""
    p, x = prepared(layer, x, params, rng)
    chance, held = torch.random.get_rng_state(), [Snapshot({"params": p, "x": x})]
    y, cache = run(layer, p, x, rng)
    gy = noise_like(y, random.fold_in(rng, 1))
    held.append(Snapshot({"y": y, "cache": cache, "gy": gy}))
    first = {**named(layer.vjp(p, cache, gy)), "y": y}
    require_unchanged(layer, held)
    again = everything(layer, p, x, gy, rng)
    everything(layer, **_other({"params": p, "x": x, "gy": gy}), rng=rng)
    check_same_bits(layer, "the same arguments must give the same bits", first, again)
    check_same_bits(layer, "the same cache must give the same bits", named(layer.vjp(p, cache, gy)), again)
    require_unchanged(layer, held)
    require(torch.equal(chance, torch.random.get_rng_state()), layer, "torch's global generator may not be used")
    require(not layer.stochastic or _refuses(layer, p, x), layer, "apply must refuse to run without a key")


def _other(values: Tree) -> Tree:
    """Return other values of the same kind: nearer to 0, and so no less within the domain of the layer."""
    return tree.map(lambda leaf: leaf * 0.75 if leaf.is_floating_point() else leaf, values)


def _refuses(layer: Layer, params: Params, x: Any) -> bool:
    try:
        layer.apply(params, x)
    except Exception:
        return True
    return False


@_law(4, "structure")
def law_structure(layer: Layer, x: Any, params: Params = None, rng: Key | int = 0) -> None:
    """Require gradients with the shapes, dtypes and devices of params and x, y in their dtype, and ``inference()`` to fit."""
    for dtype in DTYPES:
        p, z = prepared(layer, x, params, rng, dtype)
        y, cache = run(layer, p, z, rng)
        dtypes = {leaf.dtype for leaf in tree.leaves((p, z)) if leaf.is_floating_point()}
        for path, leaf in tree.names({"y": y}).items():
            kept = leaf.dtype in dtypes or not dtypes or not leaf.is_floating_point()  # integers alone have no dtype to keep
            require(kept, layer, f"{path} must be {dtype}, got {leaf.dtype}")
        gradients = named(layer.vjp(p, cache, noise_like(y, random.fold_in(rng, 1))))
        check_mirrored(layer, named((p, z)), gradients)
        check_kept(layer, "the gradient of", gradients, named((p, z)))
        differentiable = isinstance(z, Tensor) and z.is_floating_point()
        require(not differentiable or "x" in tree.names(gradients), layer, "a floating x must have a gradient, got None")
        check_kept(layer, "inference()'s", {"y": run(layer.inference(), p, z, rng)[0]}, {"y": y})


@_law(5, "rows")
def law_rows(layer: Layer, x: Any, params: Params = None, rng: Key | int = 0) -> None:
    """Require of a row alone its row of y and gx, of the params' gradients that they add up over rows, and of no rows zeros.

    There are rows where all tensors of x have one first size, and the floating ones a second axis. Single ones are not tried
    with ``batch_dependent``, nor where y has no rows; of a stochastic layer they are those of ``inference()``.
    """
    p, x = prepared(layer, x, params, rng)
    sizes = {leaf.shape[0] if leaf.dim() > leaf.is_floating_point() else None for leaf in tree.leaves(x)}
    n = sizes.pop()
    if n is None or sizes:
        return
    y = run(layer, p, x, rng)[0]
    has_rows = all(leaf.dim() > 0 and leaf.shape[0] == n for leaf in tree.leaves(y))
    _check_empty(layer, p, x, y if has_rows else None, rng)
    settled = layer.inference() if layer.stochastic else layer
    if has_rows and not settled.batch_dependent and not settled.stochastic:
        _check_rows(settled, p, x, noise_like(y, random.fold_in(rng, 1)), n)


def _slice(values: Tree, start: int, stop: int) -> Tree:
    return tree.map(lambda leaf: leaf[start:stop], values)


def _check_empty(layer: Layer, p: Params, x: Any, y: Any, rng: Key | int) -> None:
    """Try no rows; ``y``, where it has rows, says what its other axes are."""
    empty = _slice(x, 0, 0)
    nothing = run(layer, p, empty, rng)[0]
    results = everything(layer, p, empty, noise_like(nothing, rng), rng)
    check_mirrored(layer, named((p, empty)), named((results["params"], results["x"])))
    if y is not None:
        check_kept(layer, "of an empty batch,", {"y": nothing}, {"y": _slice(y, 0, 0)})
    for path, leaf in tree.names({"params": results["params"], "grads": results["grads"]}).items():
        require(not leaf.any(), layer, f"the gradients of params must be 0 for an empty batch, and {path} is not")


def _check_rows(layer: Layer, p: Params, x: Any, gy: Any, n: int) -> None:
    y, cache = layer.apply(p, x)
    whole = {**named(layer.vjp(p, cache, gy)), "y": y}
    total = tree.zeros_like(whole["params"])
    for i in range(n):
        y, cache = layer.apply(p, _slice(x, i, i + 1))
        gparams, gx = layer.vjp(p, cache, _slice(gy, i, i + 1))
        total = tree.add(total, gparams)
        row = _slice({"y": whole["y"], "x": whole["x"]}, i, i + 1)
        check_equal(layer, f"row {i} alone must give what it gives in the batch", {"y": y, "x": gx}, row, scale=(x, gy))
    check_equal(layer, "params' gradients must add up over rows", total, whole["params"], scale=(x, gy))


@_law(6, "strides")
def law_strides(layer: Layer, x: Any, params: Params = None, rng: Key | int = 0) -> None:
    """Require of transposed, strided and expanded x and gy the numbers that contiguous ones give."""
    for dtype in DTYPES:
        p, z = prepared(layer, x, params, rng, dtype)
        gy = noise_like(run(layer, p, z, rng)[0], random.fold_in(rng, 1))
        for name, layout in _LAYOUTS.items():
            for part, (a, g) in {"x": (tree.map(layout, z), gy), "gy": (z, tree.map(layout, gy))}.items():
                want = everything(layer, p, tree.map(_contiguous, a), tree.map(_contiguous, g), rng)
                rule = f"{name} {part} in {dtype} must give what a contiguous one gives"
                check_equal(layer, rule, everything(layer, p, a, g, rng), want, scale=(a, g))


def _contiguous(leaf: Tensor) -> Tensor:
    return leaf.clone(memory_format=torch.contiguous_format)


def _transposed(leaf: Tensor) -> Tensor:
    order = tuple(reversed(range(leaf.dim())))
    return leaf.permute(order).contiguous().permute(order)


_LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": _transposed,
    "strided": lambda leaf: torch.stack((leaf, (leaf + 1).to(leaf.dtype)), -1)[..., 0],
    "expanded": lambda leaf: leaf[:1].expand(leaf.shape) if leaf.dim() else leaf,
    "constant": lambda leaf: leaf.reshape(-1)[:1].reshape((1,) * leaf.dim()).expand(leaf.shape),
}


@_law(7, "halves")
def law_halves(layer: Layer, x: Any, params: Params = None, rng: Key | int = 0) -> None:
    """Require ``grads`` and ``input_grad`` to be the halves of ``vjp``, and ``layer(params, x)`` the first half of ``apply``."""
    p, x = prepared(layer, x, params, rng)
    gy = noise_like(run(layer, p, x, rng)[0], random.fold_in(rng, 1))
    found = everything(layer, p, x, gy, rng)
    for part, whole in {"grads": "params", "input_grad": "x", "layer(params, x)": "y"}.items():
        rule = f"{part} must be the {'output of apply' if whole == 'y' else 'half of vjp'}"
        check_equal(layer, rule, {whole: found[part]}, {whole: found[whole]}, scale=gy)


@_law(8, "transforms")
def law_transforms(layer: Layer, x: Any, params: Params = None, rng: Key | int = 0, *, compiled: bool = True) -> None:
    """Require forward and backward on the meta device, within ``torch.func.vmap``, and within ``torch.compile(fullgraph=True)``.

    Compiling takes far longer than the rest; ``compiled=False`` leaves it out.
    """
    p, x = prepared(layer, x, params, rng)
    gy = noise_like(run(layer, p, x, rng)[0], random.fold_in(rng, 1))
    work, arguments = functools.partial(everything, layer), (p, x, gy, random.as_key(rng))
    want = work(*arguments)
    _check_meta(layer, work, arguments, want)
    _check_vmap(layer, work, arguments, want, rng)
    if compiled:
        _check_compiled(layer, work, arguments, want)


def _check_meta(layer: Layer, work: Callable[..., Tree], arguments: tuple[Tree, ...], want: Tree) -> None:
    """Require on the meta device the shapes and dtypes of ``want``."""
    check_kept(layer, "on the meta device,", work(*tree.to(arguments, "meta")), tree.to(want, "meta"))


def _check_vmap(layer: Layer, work: Callable[..., Tree], arguments: tuple[Tree, ...], want: Tree, rng: Key | int) -> None:
    """Require of ``vmap`` over these arguments and others what each of them gives without it."""
    others = (*_other(arguments[:3]), random.fold_in(rng, 1))
    batch = tree.map(lambda one, other: torch.stack((one, other)), arguments, others)
    got = torch.func.vmap(lambda *one: tuple(tree.leaves(work(*one))), in_dims=tree.map(lambda _: 0, batch))(*batch)
    for i, one in enumerate((want, work(*others))):
        row = flattening.unflatten(one, iter(_with_gaps(one, [leaf[i] for leaf in got])))
        check_equal(layer, "vmap must give what a loop gives", row, one, scale=arguments[2])


def _check_compiled(layer: Layer, work: Callable[..., Tree], arguments: tuple[Tree, ...], want: Tree) -> None:
    """Require of compiled code, traced as one graph, what eager code gives."""
    try:
        got = torch.compile(work, fullgraph=True, backend="aot_eager", dynamic=False)(*arguments)
    finally:
        torch._dynamo.reset()
    check_equal(layer, "compiled code must give what eager code gives", got, want, scale=arguments[2])


def _with_gaps(like: Tree, leaves: list[Tensor]) -> list[Tensor | None]:
    """Put ``None`` back where ``like`` has it."""
    rest = iter(leaves)
    return [None if leaf is None else next(rest) for leaf in flattening.flatten_together(like)[0]]


@_law(9, "value")
def law_value(layer: Layer, x: Any, params: Params = None, rng: Key | int = 0) -> None:
    """Require ``eval(repr(layer)) == layer``, and the same of its pickle; equal hashes; and no tensor in it.

    The names for ``eval`` are those of funcnet, and of the classes and functions that the layer holds.
    """
    held = list(parts(layer))
    require(not any(isinstance(part, Tensor) for part in held), layer, "a value must not hold a tensor")
    mutable = {type(part).__name__ for part in held if isinstance(part, (list, dict, set, bytearray))}
    require(not mutable, layer, f"a value must not hold a {' or a '.join(sorted(mutable))}, which can change: use a tuple")
    unnamed = [part for part in held if getattr(part, "__name__", "") == "<lambda>"]
    rule = "a layer must not hold a lambda, which has no name to print or pickle: use a function defined with def in a module"
    require(not unnamed, layer, rule)
    names = {**vars(sys.modules["funcnet"]), "torch": torch}
    kinds = [type(part) if isinstance(part, Value) else part for part in held]
    names.update({kind.__name__: kind for kind in kinds if hasattr(kind, "__name__")})
    for how, again in {"eval(repr)": eval(repr(layer), names), "pickle": pickle.loads(pickle.dumps(layer))}.items():
        require(type(again) is type(layer) and again == layer, layer, f"{how} must give the layer back, got {again}")
        require(hash(again) == hash(layer), layer, f"{how} must give a layer with the same hash")


@_law(10, "reach")
def law_reach(layer: Layer, x: Any, params: Params = None, rng: Key | int = 0) -> None:
    """Require that ``inference``, ``update_stats``, keys and ``map_layers`` reach every layer in ``layer``; see ``reach``."""
    check_reach(layer, *prepared(layer, x, params, rng), rng)


@_law(11, "second order")
def law_second_order(layer: Layer, x: Any, params: Params = None, rng: Key | int = 0) -> None:
    """Require that ``torch.func`` differentiates ``apply`` as ``vjp`` does, and ``vjp`` and its halves once more."""
    check_second_order(layer, *prepared(layer, x, params, rng), rng)
