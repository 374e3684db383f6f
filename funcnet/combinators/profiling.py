"""Profiling: named ranges for a profiler."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from attrs import field
from torch.profiler import record_function

from funcnet.combinator import errors_at, layers_only
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.errors import instances
from funcnet.kernels.tracing import is_eager
from funcnet.value import frozen
from funcnet.wrapper import Wrapper


@frozen
class Profiled(Wrapper):
    """A layer whose verbs are ranges of a profile; made by ``profiled``.

        y = f(x)      gp, gx = f.vjp(gy)      in the ranges name.apply, name.vjp, ...

    Args:
        layer: The layer f.
        name: Prefix of the ranges; ``None`` for the name of the layer's class.

    Params:
        The layer's params.

    Cache:
        The layer's cache.
    """

    label = "profiled"
    passes_gradients_on = True

    layer: Layer = field(validator=layers_only)
    name: str | None = field(default=None, validator=instances((str, type(None)), "a str, or None"))

    @property
    def invertible(self) -> bool:
        return self.layer.invertible

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        with errors_at(self, ""), self._range("apply"):
            return self.layer.apply(params, x, rng)

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        with errors_at(self, ""), self._range("apply"):
            return self.layer(params, x, rng)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        with errors_at(self, ""), self._range("vjp"):
            return self.layer.vjp(params, cache, gy)

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        with errors_at(self, ""), self._range("grads"):
            return self.layer.grads(params, cache, gy)

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        with errors_at(self, ""), self._range("input_grad"):
            return self.layer.input_grad(params, cache, gy)

    def inverse(self, params: Params, y: Any, rng: Rng = None) -> Any:
        with errors_at(self, ""), self._range("inverse"):
            return self.layer.inverse(params, y, rng)

    def restore(self, params: Params, y: Any, rng: Rng = None) -> tuple[Any, Cache]:
        with errors_at(self, ""), self._range("restore"):
            return self.layer.restore(params, y, rng)

    def _range(self, verb: str) -> AbstractContextManager[Any]:
        """Open a range; compiled code has none, since one of its kernels computes several layers."""
        name = type(self.layer).__name__ if self.name is None else self.name
        return record_function(f"{name}.{verb}") if is_eager() else nullcontext()

    def __repr__(self) -> str:
        return f"profiled({self.layer!r}{'' if self.name is None else f', {self.name!r}'})"


def profiled(layer: Layer, name: str | None = None) -> Profiled:
    """Show a layer's verbs as ranges in a profile of ``torch.profiler``: ``name.apply``, ``name.vjp``, ``name.grads``, ...

        y = f(x)      gp, gx = f.vjp(gy)

    One line profiles each layer of a net by its path::

        net = fn.map_layers(lambda path, layer: fn.profiled(layer, path or "net"), net, with_path=True)

    A range costs about 20 µs with or without a profiler, more than a small layer takes. Compiled code has no ranges.

    Args:
        layer: The layer f.
        name: Prefix of the ranges. By default the name of the layer's class.

    Params:
        The layer's params.

    Cache:
        The layer's cache.

    >>> from funcnet.layers.linear.linear import Linear
    >>> profiled(Linear(3, 2), "encoder.0")
    profiled(Linear(in_features=3, out_features=2), 'encoder.0')
    """
    return Profiled(layer, name)
