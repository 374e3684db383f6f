"""The contract: a layer is a frozen value with three pure functions, and what each of them promises.

    init(rng) -> params                        fresh parameters
    apply(params, x) -> (y, cache)             forward
    vjp(params, cache, gy) -> (gparams, gx)    backward: gy in, the gradients of params and of x out

Params, gradients and caches are trees (``funcnet.tree``); x and y are tensors, or tuples of them. The laws, which
``funcnet.testing.check_laws`` tries on any layer:

1.  Transpose. ``vjp`` is the exact transpose of the derivative J of ``apply``: ⟨gy, J v⟩ = ⟨vjp(gy), v⟩ for all v.
2.  Linear. ``vjp`` is linear in ``gy``, so ``vjp(0) = 0``.
3.  Pure. The same arguments give the same bits; no argument is written to; no other state is read.
4.  Structure. ``gparams`` mirrors ``params`` and ``gx`` mirrors ``x``, leaf by leaf, in shape, dtype and device; a leaf that is
    not trained (a running statistic, a label) has ``None``; of those on which y depends the layer says so, by ``non_trainable``.
5.  Rows. A row alone gives what it gives in a batch, unless ``batch_dependent``; an empty batch works.
6.  Strides. Non-contiguous and expanded ``x`` and ``gy`` give the same numbers.
7.  Halves. ``grads`` and ``input_grad`` are the halves of ``vjp``, and ``layer(params, x)`` the first half of ``apply``.
8.  Transforms. All of it works unchanged under ``torch.func.vmap``, ``torch.compile(fullgraph=True)`` and on the meta device.
9.  Value. ``eval(repr(layer)) == layer``, equal layers hash alike, and a layer pickles.

A size that describes x may be ``None`` at first, in the fields that ``inferred_sizes`` names: such a layer has neither ``init`` nor
``apply`` before ``infer_sizes(net, x)`` has rewritten the net with the sizes that x has there.

Layers, losses, optimizers, schedules and initializers are all values: frozen, and made of numbers, strings, tuples, functions
and other values; never of tensors. Two equal values are interchangeable, but they are not the same weights.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, TypeVar, overload

import attrs
import torch
from attrs import field
from torch import Tensor
from typing_extensions import dataclass_transform

from funcnet import random, tree
from funcnet.errors import describe, value_error
from funcnet.random import Key
from funcnet.tree import Tree

Params = Any
"""A tree of tensors: a dict by name for a layer, a tuple or dict of children's params for a combinator."""

Cache = Any
"""A tree with just what ``vjp`` needs; it may alias inputs and outputs, and copies neither."""

Shape = tuple[int, ...]
"""A shape, or one whole number for each axis."""

Size = int | Any
"""A size, or ``None`` where a layer has it in ``inferred_sizes``; with ``Any``, so that none who reads one must ask which it is."""

_T = TypeVar("_T")
_L = TypeVar("_L", bound="Layer")


@overload
def frozen(cls: type[_T]) -> type[_T]: ...
@overload
def frozen(*, eq: bool = True) -> Callable[[type[_T]], type[_T]]: ...
@dataclass_transform(frozen_default=True, field_specifiers=(field, attrs.field))
def frozen(cls: type[_T] | None = None, *, eq: bool = True) -> Any:
    """Make ``cls`` a class of frozen values, by ``attrs.frozen``, which compare by their fields and keep the ``repr`` inherited.

    With ``eq=False``, for values that hold what does not compare, each is equal to itself alone.
    """
    return attrs.frozen(cls, repr=False, eq=eq)


class Value:
    """A frozen value, whose ``repr`` is the call that makes it, with the arguments that are not defaults."""

    __slots__ = ()

    def __repr__(self) -> str:
        shown = [(f.name, getattr(self, f.name), f.default) for f in getattr(type(self), "__attrs_attrs__", ()) if f.init]
        words = [
            f"{name.lstrip('_')}={value!r}"
            for name, value, default in shown
            if value != default or type(value) is not type(default)
        ]
        return f"{type(self).__name__}({', '.join(words)})"

    def replace(self, **changes: Any) -> Self:
        """Return the value with other fields: ``SGD(lr=0.1).replace(lr=0.2)``."""
        return attrs.evolve(self, **changes)  # type: ignore[misc]  # every subclass is made by frozen


class Layer(Value, ABC):
    """A frozen value with ``init``, ``apply`` and ``vjp``; subclass it with ``@funcnet.frozen`` to make a layer of your own."""

    __slots__ = ()

    non_trainable: ClassVar[tuple[str, ...]] = ()
    """Names in params under which the gradients are ``None`` although y depends on them, as on the running statistics."""

    @property
    def stochastic(self) -> bool:
        """Whether ``apply`` takes a key as third argument; it then refuses to run without one."""
        return False

    @property
    def batch_dependent(self) -> bool:
        """Whether a row of the output depends on other rows of the batch, as with batch statistics."""
        return False

    @property
    def has_running_stats(self) -> bool:
        """Whether ``update_stats`` may change anything, so that a step of training calls it."""
        return type(self).update_stats is not Layer.update_stats

    @property
    def inferred_sizes(self) -> Mapping[str, int | tuple[int, ...]]:
        """Which fields may be ``None``, to be inferred: for each the axis of x, or the axes, that it is the size of.

        Of several tensors the first is meant.
        """
        return {}

    def init(self, rng: Key | int) -> Params:
        """Make fresh parameters from a key or an int seed; ``{}`` for a layer without any."""
        return {}

    @abstractmethod
    def apply(self, params: Params, x: Any) -> tuple[Any, Cache]:
        """Return the output, and what ``vjp`` will need."""

    @abstractmethod
    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Params, Any]:
        """Return the gradients of the parameters and of the input, from that of the output."""

    def __call__(self, params: Params, x: Any, rng: Key | int | None = None) -> Any:
        """Return the output alone, for prediction."""
        arguments: Any = (params, x) if rng is None else (params, x, rng)
        return self.apply(*arguments)[0]

    def grads(self, params: Params, cache: Cache, gy: Any) -> Params:
        """Return the parameters' half of ``vjp``; a layer overrides it where the other half can be saved."""
        return self.vjp(params, cache, gy)[0]

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        """Return the input's half of ``vjp``; a layer overrides it where the other half can be saved."""
        return self.vjp(params, cache, gy)[1]

    def update_stats(self, params: Params, cache: Cache) -> Params:
        """Return params with the batch statistics in ``cache`` folded into the running ones, and all other leaves as they are."""
        return params

    def inference(self) -> "Layer":
        """Return the layer for evaluation, which fits the same params."""
        return self

    def infer(self, x: Any) -> tuple["Layer", Any]:
        """Return the layer with all sizes known, and its output, where x is on the meta device: of one shape, without numbers.

        A combinator sends x through its layers by their own ``infer``.
        """
        found = self._inferred(x)
        layer = self.replace(**found) if found else self
        return layer, output(layer, x)

    def _inferred(self, x: Any) -> dict[str, Any]:
        """Return the sizes that are ``None`` as x has them."""
        return {name: _length(self, x, name) for name in missing_sizes(self)}

    def param_shapes(self) -> dict[str, tuple[int, ...]] | None:
        """Return the names and shapes that ``params`` must have, for explaining an error; ``None`` where no rule is known."""
        return {}

    def complaint(self, x: Any) -> str | None:
        """Return the rule that ``x`` breaks, for explaining an error; ``None`` where it breaks none."""
        return None


def explain_error(layer: Layer, params: Params, x: Any, error: Exception) -> Exception:
    """Turn a kernel's error into ours: sizes to be inferred, params that do not fit, the rule x breaks, dtypes; else as it was.

    Called on the failing path only, so that the checks cost a working step nothing.
    """
    if missing_sizes(layer):
        return _unsized(layer)
    shapes = layer.param_shapes()
    if shapes is not None and _shapes_of(params) != shapes:
        return params_error(layer, params)
    rule = layer.complaint(x)
    if rule:
        return value_error(layer, rule, _brief(x))
    want, got = _dtypes(params), _dtypes(x)
    if want and got and want != got:
        return value_error(layer, f"x must have the dtype of the params, {_listed(want)}", _listed(got))
    return error


def missing_sizes(layer: Layer) -> list[str]:
    """Return the names of the sizes that are ``None``."""
    return [name for name in layer.inferred_sizes if getattr(layer, name) is None]


def require_sizes(layer: _L) -> _L:
    """Return the layer as it is; one with a size that is ``None`` refuses."""
    if missing_sizes(layer):
        raise _unsized(layer)
    return layer


def _unsized(layer: Layer) -> Exception:
    return value_error(layer, f"{' and '.join(missing_sizes(layer))} must be inferred first, by fn.infer_sizes(net, x)", "None")


def _length(layer: Layer, x: Any, name: str) -> int | tuple[int, ...]:
    """Return the size of the axis, or the axes, that a field stands for."""
    axes, shape = layer.inferred_sizes[name], next((tuple(leaf.shape) for leaf in tree.leaves(x)), ())
    for i in axes if isinstance(axes, tuple) else (axes,):
        if not -len(shape) <= i < len(shape):
            raise value_error(layer, f"x must have an axis {i}, to infer {name} from", _brief(x))
    return tuple([shape[i] for i in axes]) if isinstance(axes, tuple) else shape[axes]


def output(layer: Layer, x: Any) -> Any:
    """Return a layer's output for an x on the meta device, for which nothing is computed."""
    layer, key = layer.inference(), random.key(0).to("meta")  # in evaluation one row is a batch too
    try:
        params = layer.init(key)
    except Exception:
        params = layer.init(0)  # an ``init`` of one's own may read the key
    params = tree.cast(tree.to(params, "meta"), torch.get_default_dtype())
    return layer(params, x, key) if layer.stochastic else layer(params, x)


def params_error(layer: Layer, params: Params) -> Exception:
    """Make the error for params that are not this layer's."""
    shapes = layer.param_shapes() or {}
    rule = "params must be a dict of " + _worded(shapes) if shapes else "params must be an empty dict"
    return value_error(layer, rule, _worded(_shapes_of(params)) if isinstance(params, dict) and params else describe(params))


def _shapes_of(params: Params) -> dict[str, Any] | None:
    """Return the shapes of a dict's leaves by name, dotted where a dict stands in it."""
    if not isinstance(params, dict):
        return None
    shapes: dict[str, Any] = {}
    for name, leaf in params.items():
        inner = _shapes_of(leaf) or {"": describe(leaf)}
        here = {name: tuple(leaf.shape)} if isinstance(leaf, Tensor) else {}
        shapes |= here or {f"{name}.{at}".strip("."): one for at, one in inner.items()}
    return shapes


def _worded(shapes: dict[str, Any] | None) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in (shapes or {}).items())


def _dtypes(values: Tree) -> set[Any]:
    """Return the dtypes of what has an axis; of the floating ones alone, where there are any beside indices or a mask."""
    found = {leaf.dtype for leaf in tree.leaves(values) if isinstance(leaf, Tensor) and leaf.dim() > 0}
    return {dtype for dtype in found if dtype.is_floating_point} or found


def _listed(dtypes: set[Any]) -> str:
    return ", ".join(sorted(map(str, dtypes)))


def _brief(x: Any) -> str:
    return f"x of shape {tuple(x.shape)}" if isinstance(x, Tensor) else describe(x)


def require_no_params(layer: Layer, params: Params) -> None:
    """Refuse params, for a layer that has none."""
    if params:
        raise params_error(layer, params)


def require_tensor(layer: Layer, params: Params, x: Tensor) -> Tensor:
    """Return x, which must be a tensor, as it is, for a layer without params."""
    require_no_params(layer, params)
    if not isinstance(x, Tensor):
        raise value_error(layer, "x must be a tensor", repr(x) if isinstance(x, str) else x)
    return x


def require_floating(layer: Layer, params: Params, x: Tensor) -> Tensor:
    """Return x, which must be a floating tensor, as it is, for a layer without params."""
    if params:
        raise params_error(layer, params)
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise value_error(layer, "x must be a floating tensor", x)
    return x


def require_key(layer: Layer, rng: Key | int | None) -> Key | int:
    """Return the key as it is; without one a stochastic layer refuses to run."""
    if rng is None:
        raise value_error(layer, "apply must be given a key, apply(params, x, rng); for evaluation use inference()", "no key")
    return rng


def require_axis(layer: Layer, x: Tensor, dim: int) -> int:
    """Return ``dim``, which must be an axis of x; of a 0-d x, as in torch, 0 and -1 are."""
    if not -max(x.dim(), 1) <= dim < max(x.dim(), 1):
        raise value_error(layer, f"x must have an axis {dim}", _brief(x))
    return dim


def check_gy(layer: Layer, gy: Tensor, shape: Shape) -> Tensor:
    """Return gy, which must have the shape of y: kernels would broadcast it or read beyond its end."""
    if gy.shape != shape:
        raise value_error(layer, f"gy must have the shape of y, {tuple(shape)}", f"gy of shape {tuple(gy.shape)}")
    return gy
