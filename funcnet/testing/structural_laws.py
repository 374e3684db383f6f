"""Structural laws: 3 pure, 4 structure, 8 transforms, 9 value and 10 reach."""

import functools
import pickle
import sys
from typing import Any

import torch
from torch import Tensor

from funcnet import random, tree
from funcnet.contract import Layer, Params
from funcnet.random.keys import Key
from funcnet.testing.comparison import check_kept, check_mirrored, everything, named, noise_like, prepared, require, run
from funcnet.testing.law_decorator import FLOAT64, law
from funcnet.testing.purity import check_own_memory, check_pure
from funcnet.testing.reach import check_reach
from funcnet.testing.transforms import check_compiled, check_meta, check_vmap
from funcnet.value import Value, parts


@law(3, "pure")
def law_pure(layer: Layer, x: Any, params: Params | None = None, rng: Key | int = 0, *, dtype: torch.dtype = FLOAT64) -> None:
    """Require equal bits from equal arguments, no writes to arguments or caches, and no randomness without a key.

    Args:
        layer: The layer to check.
        x: An input for it, a tensor or a tree of tensors.
        params: Its params. By default fresh ones.
        rng: Key or seed for fresh params, and for ``apply`` of a stochastic layer.
        dtype: Floating dtype of params and x; a layer can use other kernels in another dtype.

    Raises:
        AssertionError: If the layer breaks the law.
    """
    check_pure(layer, *prepared(layer, x, params, rng, dtype), rng)


@law(4, "structure")
def law_structure(
    layer: Layer, x: Any, params: Params | None = None, rng: Key | int = 0, *, dtype: torch.dtype = FLOAT64
) -> None:
    """Require that gradients have the shapes, dtypes and devices of params and x, and that y has their dtype.

    y can also have the ``output_dtype`` that the layer, or an inner layer, declares. ``inference()`` must give a y of the same
    shape and dtype. Each element of fresh params must have separate memory.

    Args:
        layer: The layer to check.
        x: An input for it, a tensor or a tree of tensors.
        params: Its params. By default fresh ones.
        rng: Key or seed for fresh params, and for ``apply`` of a stochastic layer.
        dtype: Floating dtype of params and x; a layer can use other kernels in another dtype.

    Raises:
        AssertionError: If the layer breaks the law.
    """
    check_own_memory(layer, layer.init(rng))
    p, z = prepared(layer, x, params, rng, dtype)
    y, cache = run(layer, p, z, rng)
    dtypes = {leaf.dtype for leaf in tree.leaves((p, z)) if leaf.is_floating_point()}
    dtypes |= {part.output_dtype for part in parts(layer) if dtypes and isinstance(part, Layer) and part.output_dtype}
    for path, leaf in tree.names({"y": y}).items():
        kept = leaf.dtype in dtypes or not dtypes or not leaf.is_floating_point()  # integers have no dtype to keep
        require(kept, layer, f"{path} must be {dtype}, got {leaf.dtype}")
    gradients = named(layer.vjp(p, cache, noise_like(y, random.fold_in(rng, 1))))
    check_mirrored(layer, named((p, z)), gradients)
    check_kept(layer, "the gradient of", gradients, named((p, z)))
    differentiable = isinstance(z, Tensor) and z.is_floating_point()
    require(not differentiable or "x" in tree.names(gradients), layer, "a floating x must have a gradient, got None")
    check_kept(layer, "inference()'s", {"y": run(layer.inference(), p, z, rng)[0]}, {"y": y})


@law(8, "transforms")
def law_transforms(
    layer: Layer,
    x: Any,
    params: Params | None = None,
    rng: Key | int = 0,
    *,
    compiled: bool = True,
    dtype: torch.dtype = FLOAT64,
) -> None:
    """Require that all verbs work on the meta device, in ``torch.func.vmap`` and in ``torch.compile(fullgraph=True)``.

    Args:
        layer: The layer to check.
        x: An input for it, a tensor or a tree of tensors.
        params: Its params. By default fresh ones.
        rng: Key or seed for fresh params, and for ``apply`` of a stochastic layer.
        compiled: Whether to compile, which takes far longer than the rest.
        dtype: Floating dtype of params and x; a layer can use other kernels in another dtype.

    Raises:
        AssertionError: If the layer breaks the law.
    """
    p, x = prepared(layer, x, params, rng, dtype)
    gy = noise_like(run(layer, p, x, rng)[0], random.fold_in(rng, 1))
    work, arguments = functools.partial(everything, layer), (p, x, gy, random.as_key(rng))
    want = work(*arguments)
    check_meta(layer, work, arguments, want)
    check_vmap(layer, work, arguments, want, rng, dtype)
    if compiled:
        check_compiled(layer, work, arguments, want)


@law(9, "value")
def law_value(layer: Layer, x: Any, params: Params | None = None, rng: Key | int = 0) -> None:
    """Require that ``eval(repr(layer))`` and the pickled copy equal the layer, with equal hashes, and that it holds no tensor.

    ``eval`` gets the names of funcnet, and of the classes and functions that the layer contains.

    Args:
        layer: The layer to check.
        x: An input for it, a tensor or a tree of tensors.
        params: Its params. By default fresh ones.
        rng: Key or seed for fresh params, and for ``apply`` of a stochastic layer.

    Raises:
        AssertionError: If the layer breaks the law.
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
        require(type(again) is type(layer) and again == layer, layer, f"{how} must reproduce the layer, got {again!r}")
        require(hash(again) == hash(layer), layer, f"{how} must give a layer with the same hash")


@law(10, "reach")
def law_reach(layer: Layer, x: Any, params: Params | None = None, rng: Key | int = 0) -> None:
    """Require that ``inference``, ``update_stats``, keys and ``map_layers`` reach every layer in ``layer``.

    Spies in place of the inner layers record which calls, keys, params and caches reach them.

    Args:
        layer: The layer to check.
        x: An input for it, a tensor or a tree of tensors.
        params: Its params. By default fresh ones.
        rng: Key or seed for fresh params, and for ``apply`` of a stochastic layer.

    Raises:
        AssertionError: If the layer breaks the law.
    """
    check_reach(layer, *prepared(layer, x, params, rng), rng)
