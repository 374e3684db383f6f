"""Probes: stand-ins for layers, which infer sizes from their inputs."""

from typing import Any, Self

from funcnet.contract import Cache, Grads, Layer, Params, Rng


class Probe(Layer):
    """A stand-in for a layer during size inference: it infers the layer's sizes from its input."""

    def __new__(cls, layer: Layer) -> Self:
        return object.__new__(cls)  # not a value: it changes

    def __init__(self, layer: Layer) -> None:
        self.layer = layer

    @property
    def stochastic(self) -> bool:
        return self.layer.stochastic

    @property
    def batch_dependent(self) -> bool:
        return self.layer.batch_dependent

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        self.layer, y = self.layer.infer(x)
        return y, ()

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        return params, gy

    def __repr__(self) -> str:
        return repr(self.layer)
