"""Laws: the eleven promises of ``funcnet.contract``, each a function that raises ``AssertionError`` when a layer breaks it.

Every law is called as ``law(layer, x, params=None, rng=0)``. Params are fresh unless given; a stochastic layer gets ``rng`` in
``apply``. Laws 1, 3 to 8, and 11 also take ``dtype``, float64 by default: a layer may take other kernels. Law 8 also takes
``compiled=False``, which leaves compiling out. The message begins with the law's number and name, then comes the fault, and the
layer last: ``"law 6, strides: ...; in Linear(...)"``. An error that the layer itself raises breaks the law too.
"""

import functools
import inspect
import pickle
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcnet import random, tree
from funcnet.contract import Layer, Params
from funcnet.errors import describe, value_error
from funcnet.random.keys import Key
from funcnet.testing.blame import Judge, judged_down
from funcnet.testing.comparison import (
    DTYPES,
    check_equal,
    check_kept,
    check_mirrored,
    everything,
    named,
    noise_like,
    prepared,
    require,
    require_dtypes,
    run,
    shown,
)
from funcnet.testing.differences import check_vjp
from funcnet.testing.precision import check_precision, moves_of
from funcnet.testing.purity import check_own_memory, check_pure
from funcnet.testing.reach import check_reach
from funcnet.testing.rows import check_rows
from funcnet.testing.second_order import check_second_order
from funcnet.testing.transforms import check_compiled, check_meta, check_vmap
from funcnet.value import Value, parts
from funcnet.walking import map_layers

Law = Callable[..., None]

LAWS: dict[str, Law] = {}
"""The laws by name, in the order of their numbers; all are called alike."""

_F64 = torch.float64
_FIRST = ("structure", "pure")  # what breaks these makes nonsense of the numbers that the others compare
_LOWER = (*_FIRST, "transpose", "rows", "strides", "halves", "transforms", "second order")  # the laws that need no float64


def _law(number: int, name: str) -> Callable[[Law], Law]:
    """Enter a law into ``LAWS``, and let what it raises begin with its name."""

    def register(body: Law) -> Law:
        signature = inspect.signature(body)

        @functools.wraps(body)
        def law(*arguments: Any, **named: Any) -> None:
            given = signature.bind(*arguments, **named).arguments
            dtype = given.get("dtype", _F64)
            _require_layer(body.__name__, given["layer"])
            given["layer"] = layer = given["layer"] if name == "value" else _precise(given["layer"], dtype)
            title = f"law {number}, {name}" + f" in {dtype}".replace("torch.", "") * (dtype is not _F64)
            try:
                body(**given)
            except AssertionError as error:
                raise AssertionError(f"{title}: {error}") from error
            except Exception as error:
                said = str(error).partition("\n\n")[0]  # the compiler goes on for a page; the cause has all of it
                raise AssertionError(f"{title}: {type(error).__name__}: {said}; in {shown(layer)}") from error

        LAWS[name] = law
        return law

    return register


def _require_layer(who: str, layer: Any) -> None:
    if not isinstance(layer, Layer):
        raise value_error(who, "layer must be a layer (a value with init, apply and vjp)", describe(layer))


def _precise(layer: Layer, dtype: torch.dtype) -> Layer:
    """Let every layer within compute no less precisely than in the dtype at hand; a net without ``cast`` is not rewritten."""
    casts = [one for one in parts(layer) if isinstance(one, Layer) and type(one).in_precision is not Layer.in_precision]
    return map_layers(lambda one: one.in_precision(dtype), layer) if casts else layer


def check_laws(
    layer: Layer,
    x: Any,
    params: Params | None = None,
    rng: Key | int = 0,
    *,
    batched: bool = True,
    compiled: bool = True,
    dtypes: tuple[torch.dtype, ...] = DTYPES,
) -> None:
    """Try all laws on a layer: structure and purity first, then the others by number, in one dtype after the other.

    Args:
        layer: The layer to try.
        x: An input for it, a tensor or a tree of tensors.
        params: Its params; fresh ones by default.
        rng: Key or seed for fresh params, and for ``apply`` of a stochastic layer.
        batched: Whether the first axis of x is a batch; ``False`` leaves out the law of rows.
        compiled: Whether to try ``torch.compile`` too, in the first dtype; it takes most of the time.
        dtypes: The dtypes to try. Slopes are measured in float64; in a lower dtype law 1 compares y and the gradients with those
            of float64, and ``funcnet.testing.precision`` says how far rounding allows them to be off. Laws 2, 9 and 10 do not
            depend on the dtype and are tried once.

    Raises:
        AssertionError: The layer breaks a law; the message begins with the law's number and name.
        ValueError: ``dtypes`` is no tuple of floating dtypes.

    >>> from funcnet.layers.linear.linear import Linear
    >>> check_laws(Linear(3, 2), torch.ones(4, 3), compiled=False)
    """
    _require_layer("check_laws", layer)
    require_dtypes("check_laws", dtypes)
    for dtype in dtypes:
        names = [*_FIRST, *[name for name in LAWS if name not in _FIRST]] if dtype is dtypes[0] else _LOWER
        for name in [name for name in names if batched or name != "rows"]:
            options: dict[str, Any] = {"dtype": dtype} if name in _LOWER else {}
            options |= {"compiled": compiled and dtype is dtypes[0]} if name == "transforms" else {}
            LAWS[name](layer, x, params, rng, **options)


@_law(1, "transpose")
def law_transpose(layer: Layer, x: Any, params: Params | None = None, rng: Key | int = 0, *, dtype: torch.dtype = _F64) -> None:
    """Require that ``vjp`` is the transpose of the derivative of ``apply``: ``check_vjp``; in a lower dtype, that of float64."""
    if dtype is _F64:
        check_vjp(layer, x, params, rng)
    else:
        judge: Judge = lambda one, p, given, key: check_precision(one, p, given, key, dtype)
        judged_down(judge, layer, *prepared(layer, x, params, rng, dtype), rng)


@_law(2, "linear")
def law_linear(layer: Layer, x: Any, params: Params | None = None, rng: Key | int = 0) -> None:
    """Require vjp(2 g - 3 h) = 2 vjp(g) - 3 vjp(h), and vjp(0) = 0; of a surrogate, such as clipping, only vjp(0) = 0."""
    p, x = prepared(layer, x, params, rng)
    y, cache = run(layer, p, x, rng)
    g, h = (noise_like(y, random.fold_in(rng, seed)) for seed in (1, 2))
    for path, leaf in tree.names(named(layer.vjp(p, cache, tree.zeros_like(g)))).items():
        require(not leaf.any(), layer, f"vjp(0) must be 0, and the gradient of {path} is not")
    if layer.surrogate:
        return
    apart = tree.map(lambda a, b: 2 * a - 3 * b, layer.vjp(p, cache, g), layer.vjp(p, cache, h))
    together = layer.vjp(p, cache, tree.map(lambda a, b: 2 * a - 3 * b, g, h))
    check_equal(layer, "vjp(2 g - 3 h) must be 2 vjp(g) - 3 vjp(h)", named(together), named(apart), scale=g)


@_law(3, "pure")
def law_pure(layer: Layer, x: Any, params: Params | None = None, rng: Key | int = 0, *, dtype: torch.dtype = _F64) -> None:
    """Require the same bits from equal arguments, nothing written to, and no chance without a key: ``check_pure``."""
    check_pure(layer, *prepared(layer, x, params, rng, dtype), rng)


@_law(4, "structure")
def law_structure(
    layer: Layer, x: Any, params: Params | None = None, rng: Key | int = 0, *, dtype: torch.dtype = _F64
) -> None:
    """Require gradients with the shapes, dtypes and devices of params and x, y in their dtype, and ``inference()`` to fit.

    A y in the ``output_dtype`` that a layer, or a layer within it, declares is right too.
    Fresh params must have memory of their own, each element of them.
    """
    check_own_memory(layer, layer.init(rng))
    p, z = prepared(layer, x, params, rng, dtype)
    y, cache = run(layer, p, z, rng)
    dtypes = {leaf.dtype for leaf in tree.leaves((p, z)) if leaf.is_floating_point()}
    dtypes |= {part.output_dtype for part in parts(layer) if dtypes and isinstance(part, Layer) and part.output_dtype}
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
def law_rows(layer: Layer, x: Any, params: Params | None = None, rng: Key | int = 0, *, dtype: torch.dtype = _F64) -> None:
    """Require of a row alone its row of y and gx, of the params' gradients that they add up over rows, and of no rows zeros.

    There are rows where all tensors of x have one first size, and the floating ones a second axis. Single ones are not tried
    with ``batch_dependent``, nor where y has no rows; of a stochastic layer they are those of ``inference()``.
    """
    check_rows(layer, *prepared(layer, x, params, rng, dtype), rng, dtype)


@_law(6, "strides")
def law_strides(layer: Layer, x: Any, params: Params | None = None, rng: Key | int = 0, *, dtype: torch.dtype = _F64) -> None:
    """Require of transposed, strided and expanded x and gy the numbers that contiguous ones give."""
    p, z = prepared(layer, x, params, rng, dtype)
    gy = noise_like(run(layer, p, z, rng)[0], random.fold_in(rng, 1))
    for name, layout in _LAYOUTS.items():
        for part, (a, g) in {"x": (tree.map(layout, z), gy), "gy": (z, tree.map(layout, gy))}.items():
            want = everything(layer, p, tree.map(_contiguous, a), tree.map(_contiguous, g), rng)
            rule = f"{name} {part} must give what a contiguous one gives"
            moves = functools.partial(moves_of, layer, (p, a, g), rng, dtype)
            check_equal(layer, rule, everything(layer, p, a, g, rng), want, scale=(a, g), moves=moves)


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
def law_halves(layer: Layer, x: Any, params: Params | None = None, rng: Key | int = 0, *, dtype: torch.dtype = _F64) -> None:
    """Require ``grads`` and ``input_grad`` to be the halves of ``vjp``, and ``layer(params, x)`` the first half of ``apply``."""
    p, x = prepared(layer, x, params, rng, dtype)
    gy = noise_like(run(layer, p, x, rng)[0], random.fold_in(rng, 1))
    found = everything(layer, p, x, gy, rng)
    for part, whole in {"grads": "params", "input_grad": "x", "layer(params, x)": "y"}.items():
        rule = f"{part} must be the {'output of apply' if whole == 'y' else 'half of vjp'}"
        check_equal(layer, rule, {whole: found[part]}, {whole: found[whole]}, scale=gy)


@_law(8, "transforms")
def law_transforms(
    layer: Layer,
    x: Any,
    params: Params | None = None,
    rng: Key | int = 0,
    *,
    compiled: bool = True,
    dtype: torch.dtype = _F64,
) -> None:
    """Require forward and backward on the meta device, within ``torch.func.vmap``, and within ``torch.compile(fullgraph=True)``.

    Compiling takes far longer than the rest; ``compiled=False`` leaves it out.
    """
    p, x = prepared(layer, x, params, rng, dtype)
    gy = noise_like(run(layer, p, x, rng)[0], random.fold_in(rng, 1))
    work, arguments = functools.partial(everything, layer), (p, x, gy, random.as_key(rng))
    want = work(*arguments)
    check_meta(layer, work, arguments, want)
    check_vmap(layer, work, arguments, want, rng, dtype)
    if compiled:
        check_compiled(layer, work, arguments, want)


@_law(9, "value")
def law_value(layer: Layer, x: Any, params: Params | None = None, rng: Key | int = 0) -> None:
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
        require(type(again) is type(layer) and again == layer, layer, f"{how} must give the layer back, got {again!r}")
        require(hash(again) == hash(layer), layer, f"{how} must give a layer with the same hash")


@_law(10, "reach")
def law_reach(layer: Layer, x: Any, params: Params | None = None, rng: Key | int = 0) -> None:
    """Require that ``inference``, ``update_stats``, keys and ``map_layers`` reach every layer in ``layer``; see ``reach``."""
    check_reach(layer, *prepared(layer, x, params, rng), rng)


@_law(11, "second order")
def law_second_order(
    layer: Layer, x: Any, params: Params | None = None, rng: Key | int = 0, *, dtype: torch.dtype = _F64
) -> None:
    """Require that ``torch.func`` differentiates ``apply`` as ``vjp`` does, and ``vjp`` and its halves once more."""
    check_second_order(layer, *prepared(layer, x, params, rng, dtype), rng, dtype)
