"""Checks of layers' arguments, which cost a successful call no measurable time.

Kernels reject most invalid arguments, and ``explanations`` then finds the reason. The functions ``require_...`` and ``check_...``
reject arguments that kernels would accept. The functions ``..._complaint`` return the rule that x breaks, or ``None``;
``first_complaint`` combines several of them.
"""

from typing import Any, TypeVar

import torch
from torch import Tensor, strided

from funcnet import tree
from funcnet.errors import describe, value_error
from funcnet.flattening import flatten_together, unflatten

_L = TypeVar("_L")


class Misfit(Exception):  # noqa: N818 (it never leaves a layer)
    """Raised if arguments do not fit and no kernel would notice; the layer's guard turns it into a ``ValueError``."""


def first_complaint(*rules: str | None) -> str | None:
    """Return the first of several rules that is broken, or ``None``."""
    return next((rule for rule in rules if rule), None)


def floating_complaint(x: Any) -> str | None:
    """Complain about anything but a floating tensor."""
    right = isinstance(x, Tensor) and x.is_floating_point() and not x.is_nested
    return None if right else f"x must be a floating tensor, not {_describe_kind(x)}"


def _describe_kind(x: Any) -> str:
    return ("a nested one" if x.is_nested else str(x.dtype)) if isinstance(x, Tensor) else type(x).__name__


def sizes_complaint(layer: Any, x: Any) -> str | None:
    """Complain about an x that is not a floating tensor, or whose axes do not have the sizes in ``inferred_sizes``."""
    if floating_complaint(x):
        return floating_complaint(x)
    return first_complaint(*[_size_complaint(x, i, name, getattr(layer, name)) for name, i in layer.inferred_sizes.items()])


def _size_complaint(x: Tensor, i: Any, name: str, size: Any) -> str | None:
    if isinstance(i, tuple):
        return several_sizes_complaint(x, i, name, size)
    right = -x.dim() <= i < x.dim() and x.shape[i] == size
    return None if right else f"{_axis_in_words(i)} of x must be {name}={size}"


def _axis_in_words(i: int) -> str:
    return f"axis {i}" if i >= 0 else ("the last axis", *[f"the last axis but {n}" for n in ("one", "two", "three")])[-1 - i]


def require_params(layer: Any, params: Any) -> None:
    """Raise ``Misfit`` unless params have the shapes in ``param_shapes``, for kernels that would accept other shapes."""
    shapes = layer.param_shapes()
    if len(params) != len(shapes) or any([params[name].shape != shape for name, shape in shapes.items()]):  # noqa: C419
        raise Misfit


def missing_sizes(layer: Any) -> list[str]:
    """Return the names of the sizes that are still ``None``."""
    return [name for name in layer.inferred_sizes if getattr(layer, name) is None]


def require_sizes(layer: _L) -> _L:
    """Return the layer; raise ``ValueError`` if one of its sizes is ``None``."""
    if missing_sizes(layer):
        raise unsized(layer)
    return layer


def unsized(layer: Any) -> ValueError:
    """Make the error for a layer with a size of ``None``."""
    return value_error(layer, f"{' and '.join(missing_sizes(layer))} must be inferred first, with fn.infer_sizes(net, x)", "None")


def size_in(layer: Any, x: Any, name: str) -> int | tuple[int, ...]:
    """Return the size, or sizes, of x along the axes that ``inferred_sizes`` lists for the field ``name``."""
    axes, shape = layer.inferred_sizes[name], next((tuple(leaf.shape) for leaf in tree.leaves(x)), ())
    for i in axes if isinstance(axes, tuple) else (axes,):
        if not -len(shape) <= i < len(shape):
            raise value_error(layer, f"x must have an axis {i}, to infer {name} from", came(x))
    return tuple([shape[i] for i in axes]) if isinstance(axes, tuple) else shape[axes]


def params_error(layer: Any, params: Any) -> ValueError:
    """Make the error for params of another layer."""
    shapes = layer.param_shapes() or {}
    rule = "params must be a dict of " + _list_shapes(shapes) if shapes else "params must be an empty dict"
    return value_error(layer, rule, _list_shapes(shapes_of(params)) or describe(params))


def shapes_of(params: Any) -> dict[str, Any] | None:
    """Return the shapes of a dict's leaves by dotted name; ``None`` for anything but a dict. Empty dicts add nothing."""
    if not isinstance(params, dict):
        return None
    shapes: dict[str, Any] = {}
    for name, leaf in params.items():
        below = shapes_of(leaf)
        inner: dict[str, Any] = {"": describe(leaf)} if below is None else below
        here = {name: tuple(leaf.shape)} if isinstance(leaf, Tensor) and not leaf.is_nested else {}  # a nested one has no shape
        shapes |= here or {f"{name}.{at}".strip("."): one for at, one in inner.items()}
    return shapes


def _list_shapes(shapes: dict[str, Any] | None) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in (shapes or {}).items())


def came(x: Any, name: str = "x") -> str:
    """Describe an argument: one tensor, or each of several, by its shape."""
    if isinstance(x, Tensor) and not x.is_nested:
        return f"{name} of shape {tuple(x.shape)}"
    if isinstance(x, tuple) and x and all(isinstance(leaf, Tensor) and not leaf.is_nested for leaf in flatten_together(x)[0]):
        return "shapes " + " and ".join(map(_format_shapes, x))
    return describe(x)


def _format_shapes(x: Any) -> str:
    """Format the shape of a tensor, or those of a tree of tensors."""
    if isinstance(x, Tensor):
        return str(tuple(x.shape))
    return f"({', '.join(map(_format_shapes, x.values() if isinstance(x, dict) else x))})"


def require_no_params(layer: Any, params: Any) -> None:
    """Raise ``ValueError`` unless params are empty, for a layer without params."""
    if params or not isinstance(params, dict):
        raise params_error(layer, params)


def require_tensor(layer: Any, params: Any, x: Any) -> Tensor:
    """Return x, for a layer without params; raise ``ValueError`` if x is not a tensor or params are not empty."""
    require_no_params(layer, params)
    if not isinstance(x, Tensor):
        raise value_error(layer, "x must be a tensor", repr(x) if isinstance(x, str) else x)
    return x


def require_floating(layer: Any, params: Any, x: Any) -> Tensor:
    """Return x, for a layer without params; raise ``ValueError`` if x is not a floating tensor or params are not empty."""
    require_no_params(layer, params)
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise value_error(layer, "x must be a floating tensor", x)
    return x


def require_key(layer: Any, rng: Any) -> Any:
    """Return the key; raise ``ValueError`` for a stochastic layer without one."""
    if rng is None:
        rule = "apply must be given a key, apply(params, x, rng); for evaluation use inference()"
        raise value_error(layer, rule, "no key")
    return rng


def require_axis(layer: Any, x: Tensor, dim: int) -> int:
    """Return ``dim``, which must be an axis of x; a 0-d x has the axes 0 and -1, as in torch."""
    if not -max(x.dim(), 1) <= dim < max(x.dim(), 1):
        raise value_error(layer, f"x must have an axis {dim}", came(x))
    return dim


def check_gy(layer: Any, gy: Tensor, shape: tuple[int, ...], like: Tensor | None = None) -> Tensor:
    """Return gy if it has the shape of y, and the dtype and device of ``like``; kernels would broadcast or promote it.

    The check takes 0.3 µs. An object without a shape or dtype raises here, and the layer's guard explains the error.
    """
    if gy.shape != shape:
        raise value_error(layer, f"gy must have the shape of y, {tuple(shape)}", f"gy of shape {tuple(gy.shape)}")
    if like is not None and (gy.dtype is not like.dtype or gy.is_cpu is not like.is_cpu or gy.layout is not strided):
        rule = f"gy must be a dense tensor with the dtype and device of y, {like.dtype} on {like.device}"
        raise value_error(layer, rule, f"{describe(gy)} on {gy.device}")
    return gy


def check_gys(layer: Any, gy: Any, y: Any) -> Any:
    """Return gy if every leaf of it is like the same leaf of y; ``None`` becomes zeros."""
    if type(y) is Tensor:
        return _check_leaf(layer, gy, y)
    return unflatten(y, iter([_check_leaf(layer, g, one) for one, g in zip(*flatten_together(y, gy), strict=True)]))


def _check_leaf(layer: Any, gy: Any, y: Any) -> Any:
    if not isinstance(y, Tensor) or y.is_nested:
        return gy
    if gy is None:
        return torch.zeros_like(y) if y.is_floating_point() else None
    if not isinstance(gy, Tensor):
        raise value_error(layer, f"gy must be like y, and there y is {describe(y)}", describe(gy))
    return check_gy(layer, gy, y.shape, y)


def kind_of(x: Tensor) -> Tensor:
    """Return an empty tensor with the dtype and device of x, for the cache of a layer that keeps nothing else."""
    return _KINDS[x.dtype] if x.is_cpu and x.dtype in _KINDS else x.new_empty(0)


# Creating an empty tensor takes 1.2 µs, looking one up here 0.15.
_KINDS = {
    dtype: torch.empty(0, dtype=dtype) for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)
}


def require_arguments(layer: Any, params: Any, x: Any) -> None:
    """Raise ``Misfit`` if params have wrong shapes or x breaks a rule, for kernels that would accept them."""
    require_params(layer, params)
    if layer.complaint(x):
        raise Misfit


def several_sizes_complaint(x: Tensor, axes: tuple[int, ...], name: str, sizes: tuple[int, ...]) -> str | None:
    """Complain about a tensor whose ``axes`` are missing, repeated or not of ``sizes``; ``name`` is the field with the sizes."""
    found = [i % x.dim() for i in axes if -x.dim() <= i < x.dim()]
    right = len(set(found)) == len(axes) and tuple([x.shape[i] for i in found]) == sizes
    return None if right else f"the axes {axes} of x must be {name}={sizes}"


def pair_complaint(x: Any) -> str | None:
    """Complain about anything but a pair of floating tensors."""
    if not isinstance(x, tuple) or len(x) != 2:
        return "x must be a pair of floating tensors"
    if floating_complaint(x[0]) or floating_complaint(x[1]):
        return f"x must be a pair of floating tensors, not {_describe_kind(x[0])} and {_describe_kind(x[1])}"
    return None


def require_pair(layer: Any, x: Any) -> tuple[Tensor, Tensor]:
    """Return x; raise ``ValueError`` for anything but a pair of floating tensors."""
    rule = pair_complaint(x)
    if rule:
        raise value_error(layer, rule, x)
    return x  # type: ignore[no-any-return]  # a pair breaks no rule


def axis_complaint(x: Tensor, *dims: int) -> str | None:
    """Complain about a tensor that lacks one of the axes ``dims``; a 0-d x has the axes 0 and -1, as in torch."""
    count = max(x.dim(), 1)
    return next((f"x must have an axis {dim}" for dim in dims if not -count <= dim < count), None)


def axes_complaint(layer: Any, x: Any, *forms: str) -> str | None:
    """Complain about an x that is not a floating tensor, or whose axes match none of ``forms``, as ``"N, num_features, ..."``.

    An axis named like a field must have the size in that field; ``...`` matches any number of axes.
    """
    if floating_complaint(x) or any([_has_axes(layer, x.shape, form.split(", ")) for form in forms]):  # noqa: C419
        return floating_complaint(x)
    axes = [
        ", ".join([f"{name}={getattr(layer, name)}" if hasattr(layer, name) else name for name in form.split(", ")])
        for form in forms
    ]
    return "x must have the axes " + " or ".join([f"({form})" for form in axes])


def _has_axes(layer: Any, shape: tuple[int, ...], names: list[str]) -> bool:
    i = names.index("...") if "..." in names else len(names)
    names = [*names[:i], *["..."] * (len(shape) - len(names) + 1), *names[i + 1 :]] if i < len(names) else names
    return len(names) == len(shape) and all([n == getattr(layer, name, n) for n, name in zip(shape, names, strict=True)])  # noqa: C419


def require_dense(layer: Any, x: Tensor) -> Tensor:
    """Return x; raise ``ValueError`` for a sparse or nested tensor, which some kernels would accept."""
    if x.layout is not torch.strided or x.is_nested:
        raise value_error(layer, "x must be a dense tensor", x)
    return x


def check_param(layer: Any, params: Any, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return a param if it has ``shape``, and the dtype and device of ``like``; backward methods call it, like ``check_gy``."""
    leaf: Tensor = params[name]
    if leaf.shape != shape:
        raise params_error(layer, params)
    if leaf.dtype is not like.dtype or leaf.is_cpu is not like.is_cpu or leaf.layout is not torch.strided:
        rule = f"{name} must be a dense tensor with the dtype and device of x, {like.dtype} on {like.device}"
        raise value_error(layer, rule, f"{describe(leaf)} on {leaf.device}")
    return leaf


def require_dense_floating(layer: Any, params: Any, x: Any) -> Tensor:
    """Do as ``require_floating``, and raise ``ValueError`` for a sparse or nested x too, which some kernels would accept."""
    return require_dense(layer, require_floating(layer, params, x))


def require_kind(layer: Any, params: Any, like: Tensor) -> None:
    """Raise unless every tensor of a dict has the dtype, device and layout of ``like``; this takes 0.15 µs per tensor."""
    for name, leaf in params.items():
        if leaf.dtype is not like.dtype or leaf.is_cpu is not like.is_cpu or leaf.layout is not like.layout:
            alike = leaf.is_cpu is like.is_cpu and leaf.layout is like.layout
            if leaf.dtype.is_floating_point and alike and torch.is_autocast_enabled(like.device.type):
                continue  # kernels cast it
            if leaf.dtype.is_floating_point:  # x may be the wrong one; the guard finds out
                raise Misfit
            raise value_error(layer, f"{name} must have the dtype of x, {like.dtype}", leaf)
