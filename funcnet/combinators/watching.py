"""Watching: layers that observe values and gradients, and change nothing."""

from collections.abc import Callable
from typing import Any, NoReturn

from attrs import field
from torch import Tensor

from funcnet import tree
from funcnet.combinator import errors_at, layers_only
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.errors import value_error
from funcnet.flattening import flatten_together
from funcnet.kernels.tracing import is_eager
from funcnet.signatures import name_of
from funcnet.stand_ins import StandIn, stand_in_for, with_stand_ins
from funcnet.value import frozen
from funcnet.walking import children_of
from funcnet.wrapper import Wrapper


def _function_or_none(value: Any, attribute: Any, got: Any) -> None:
    if got is not None and not callable(got):
        raise value_error("tap", f"{attribute.name} must be a function, or None", repr(got))


@frozen
class Tap(Wrapper):
    """A layer that passes its output and the gradient of it to functions; made by ``tap``.

        y = f(x)      gp, gx = f.vjp(gy)      on_apply(y), on_vjp(gy)

    Args:
        layer: The layer f.
        on_apply: A function of y, or ``None``.
        on_vjp: A function of gy, or ``None``.

    Params:
        The layer's params.

    Cache:
        The layer's cache.
    """

    label = "tap"
    passes_gradients_on = True

    layer: Layer = field(validator=layers_only)
    on_apply: Callable[[Any], Any] | None = field(default=None, validator=_function_or_none)
    on_vjp: Callable[[Any], Any] | None = field(default=None, validator=_function_or_none)

    @property
    def invertible(self) -> bool:
        return self.layer.invertible

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        with errors_at(self, ""):
            y, cache = self.layer.apply(params, x, rng)
        _call(self.on_apply, y)
        return y, cache

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        with errors_at(self, ""):
            y = self.layer(params, x, rng)
        _call(self.on_apply, y)
        return y

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        _call(self.on_vjp, gy)
        with errors_at(self, ""):
            return self.layer.vjp(params, cache, gy)

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        _call(self.on_vjp, gy)
        with errors_at(self, ""):
            return self.layer.grads(params, cache, gy)

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        _call(self.on_vjp, gy)
        with errors_at(self, ""):
            return self.layer.input_grad(params, cache, gy)

    def inverse(self, params: Params, y: Any, rng: Rng = None) -> Any:
        with errors_at(self, ""):
            return self.layer.inverse(params, y, rng)

    def restore(self, params: Params, y: Any, rng: Rng = None) -> tuple[Any, Cache]:
        with errors_at(self, ""):
            return self.layer.restore(params, y, rng)

    def __repr__(self) -> str:
        functions = {"on_apply": self.on_apply, "on_vjp": self.on_vjp}
        return f"tap({', '.join([repr(self.layer), *[f'{key}={name_of(f)}' for key, f in functions.items() if f is not None]])})"


def _call(f: Callable[[Any], Any] | None, values: Any) -> None:
    """Call the function, if any; not on the meta device, where sizes are inferred and tensors hold no numbers."""
    if f is not None and not any([isinstance(leaf, Tensor) and leaf.is_meta for leaf in flatten_together(values)[0]]):  # noqa: C419
        f(values)


def tap(layer: Layer, on_apply: Callable[[Any], Any] | None = None, on_vjp: Callable[[Any], Any] | None = None) -> Tap:
    """Call ``on_apply(y)`` in the forward pass and ``on_vjp(gy)`` in the backward pass, to log or to plot.

        y = f(x)      gp, gx = f.vjp(gy)

    ``serial(Linear(2, 9), tap(Tanh(), print), Linear(9, 2))`` prints activations. Return values of the functions are ignored.
    Compiled code calls them while it is traced, so they must be traceable. They are not called on the meta device, where
    ``infer_sizes`` and ``summary`` run a net.

    Args:
        layer: The layer f.
        on_apply: Called in ``apply`` and ``__call__``. A function at the top level of a module pickles, and prints by name.
        on_vjp: Called once in each of ``vjp``, ``grads`` and ``input_grad``.

    Params:
        The layer's params.

    Cache:
        The layer's cache.

    Raises:
        ValueError: If ``on_apply`` or ``on_vjp`` is neither callable nor ``None``.

    >>> import torch
    >>> from funcnet.layers.activation.sigmoids import Tanh
    >>> tap(Tanh(), print)({}, torch.zeros(2))
    tensor([0., 0.])
    tensor([0., 0.])
    """
    return Tap(layer, on_apply, on_vjp)


@frozen
class Checked(Wrapper):
    """A layer that raises at the first NaN or infinity; made by ``checked``.

        y = f(x)      gp, gx = f.vjp(gy)

    Args:
        layer: The layer f.

    Params:
        The layer's params.

    Cache:
        The layer's cache, and x and the key, which locate the error.

    Raises:
        FloatingPointError: At the first NaN or infinity, with its path within the layer and its direction.
    """

    label = "checked"

    layer: Layer = field(validator=layers_only)

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        with errors_at(self, ""):
            y, cache = self.layer.apply(params, x, rng)
        if not _is_finite((y, cache)):
            self._find_forward(params, x, rng, y)
        return y, (cache, x, rng)

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        with errors_at(self, ""):
            y = self.layer(params, x, rng)
        if not _is_finite(y):
            self._find_forward(params, x, rng, y)
        return y

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        with errors_at(self, ""):
            found = self.layer.vjp(params, cache[0], gy)
        return self._require_finite(params, cache, gy, found)  # type: ignore[no-any-return]

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        with errors_at(self, ""):
            found = self.layer.grads(params, cache[0], gy)
        made: Params = self._require_finite(params, cache, gy, found)
        return made

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        with errors_at(self, ""):
            found = self.layer.input_grad(params, cache[0], gy)
        return self._require_finite(params, cache, gy, found)

    def inner_cache(self, cache: Cache) -> Cache:
        return cache[0]

    def _require_finite(self, params: Params, cache: Cache, gy: Any, found: Any) -> Any:
        if not _is_finite((gy, found)):
            if not _is_finite(gy):
                _raise(self.layer, "", "the gradient of the output", "backward")
            self._find_backward(params, cache, gy)
        return found

    def _find_forward(self, params: Params, x: Any, rng: Rng, y: Any) -> None:
        """Raise at the first layer with an output that is not finite. A cache can hold valid infinities, as with masks."""
        _watch(self.layer).apply(params, x, rng)
        if not _is_finite(y):
            _raise(self.layer, "", "the output", "forward")

    def _find_backward(self, params: Params, cache: Cache, gy: Any) -> NoReturn:
        watched = _watch(self.layer)
        watched.vjp(params, watched.apply(params, *cache[1:])[1], gy)
        _raise(self.layer, "", "a gradient", "backward")

    def __repr__(self) -> str:
        return f"checked({self.layer!r})"


def checked(layer: Layer) -> Checked:
    """Raise ``FloatingPointError`` at the first NaN or infinity in a net.

        y = f(x)      gp, gx = f.vjp(gy)

    It checks y, the cache and the gradients, which takes one pass over each. If it finds a NaN or an infinity, it runs the net
    once more, layer by layer, to locate it. In compiled code, under ``torch.func`` and on the meta device nothing is checked,
    since the numbers cannot be read.

    Args:
        layer: The layer or net f.

    Params:
        The layer's params.

    Cache:
        The layer's cache, and x and the key, which locate the error.

    Raises:
        FloatingPointError: At the first NaN or infinity, with its path within the net and its direction, forward or backward.

    >>> import torch
    >>> from funcnet.combinators.sequential import serial
    >>> from funcnet.layers.activation.elementary import Exp, Square
    >>> try:
    ...     checked(serial(Square(), Exp())).apply(({}, {}), torch.tensor([20.0]))
    ... except FloatingPointError as error:
    ...     print(error)
    checked: forward, the output of layer '1', Exp(), has a NaN or an infinity
    """
    return Checked(layer)


class _Watched(StandIn):
    """A stand-in for a layer that raises when its output or one of its gradients is not finite."""

    path: str

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        y, cache = self.original.apply(params, x, rng)
        if not _is_finite(y):
            _raise(self.original, self.path, "the output", "forward")
        return y, cache

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        found = self.original.vjp(params, cache, gy)
        if not _is_finite(found):
            _raise(self.original, self.path, "a gradient", "backward")
        return found

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        return self.vjp(params, cache, gy)[0]

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        return self.vjp(params, cache, gy)[1]


def _watch(layer: Layer, path: str = "") -> Layer:
    """Return the net with every layer replaced by a watched one, inner layers first."""
    inside = {name: _watch(child, ".".join(filter(None, (path, name)))) for name, child in children_of(layer).items()}
    return stand_in_for(with_stand_ins(layer, inside), _Watched, path=path)


def _raise(layer: Layer, path: str, what: str, direction: str) -> NoReturn:
    where = f"layer {path!r}, {layer!r}," if path else f"{layer!r}"
    raise FloatingPointError(f"checked: {direction}, {what} of {where} has a NaN or an infinity")


def _is_finite(values: Any) -> bool:
    """Return whether all floating numbers are finite; ``True`` if they cannot be read."""
    leaves = [leaf for leaf in flatten_together(values)[0] if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    return not is_eager() or bool(tree.all_finite([leaf for leaf in leaves if not leaf.is_meta]))
