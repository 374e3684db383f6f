"""Correct layers, the models of the broken layers, which change one thing each."""

from typing import Any

import torch
from torch import Tensor

import funcnet as fn
from funcnet.combinator import child_key


@fn.frozen
class Affine(fn.Layer):
    """y = x wᵀ + b on rows; correct."""

    columns: int = 3
    rows: int = 3

    def init(self, rng: Any) -> Any:
        one, two = fn.split(rng)
        return {"w": fn.random.normal(one, (self.rows, self.columns)), "b": fn.random.normal(two, (self.rows,))}

    def apply(self, params: Any, x: Tensor) -> Any:
        return x @ params["w"].T + params["b"], x

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": gy.T @ cache, "b": gy.sum(0)}, gy @ params["w"]


@fn.frozen
class Rectifier(fn.Layer):
    """y = max(0, x); correct."""

    def apply(self, params: Any, x: Tensor) -> Any:
        return x.relu(), x

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return params, torch.where(cache > 0, gy, 0.0)


@fn.frozen
class Sum(fn.Layer):
    """y = a + b with broadcasting; correct."""

    def apply(self, params: Any, x: tuple[Tensor, Tensor]) -> Any:
        return x[0] + x[1], (x[0].shape, x[1].shape)

    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        return params, (gy.sum_to_size(cache[0]), gy.sum_to_size(cache[1]))


@fn.frozen
class Chain(fn.Combinator):
    """Three affine maps, one after the other; correct."""

    layers: tuple[fn.Layer, ...] = (Affine(), Rectifier(), Affine())

    def children(self) -> dict[str, fn.Layer]:
        return {str(i): layer for i, layer in enumerate(self.layers)}

    def with_children(self, children: dict[str, fn.Layer]) -> Any:
        return self.replace(layers=tuple(children.values()))

    def apply(self, params: Any, x: Tensor, rng: Any = None) -> Any:
        caches = []
        for i, (layer, p) in enumerate(zip(self.layers, params, strict=True)):
            x, cache = layer.apply(p, x, child_key(layer, rng, i))
            caches.append(cache)
        return x, tuple(caches)

    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        gparams = []
        for layer, p, c in reversed([*zip(self.layers, params, cache, strict=True)]):
            gp, gy = layer.vjp(p, c, gy)
            gparams.append(gp)
        return tuple(reversed(gparams)), gy


@fn.frozen
class Noise(fn.Layer):
    """y = x ⊙ u with random u; correct."""

    stochastic = True

    def apply(self, params: Any, x: Tensor, rng: Any) -> Any:
        u = fn.random.uniform(rng, tuple(x.shape), dtype=x.dtype)
        return x * u, u

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return params, gy * cache


@fn.frozen
class Lookup(fn.Layer):
    """y = rows of a table by number; correct."""

    def init(self, rng: Any) -> Any:
        return {"table": fn.random.normal(rng, (5, 2))}

    def apply(self, params: Any, x: Tensor) -> Any:
        return params["table"][x], x

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"table": torch.zeros_like(params["table"]).index_add(0, cache, gy)}, None


@fn.frozen
class Counted(fn.Layer):
    """y = s x, with a counter of batches among the params; correct."""

    def init(self, rng: Any) -> Any:
        return {"s": fn.random.normal(rng), "seen": torch.zeros(())}

    def apply(self, params: Any, x: Tensor) -> Any:
        return params["s"] * x, x

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"s": (gy * cache).sum(), "seen": None}, params["s"] * gy

    def update_stats(self, params: Any, cache: Tensor) -> Any:
        return {**params, "seen": params["seen"] + 1}


@fn.frozen
class Centred(fn.Layer):
    """y = x - the batch's mean; correct."""

    batch_dependent = True

    def apply(self, params: Any, x: Tensor) -> Any:
        return x - x.mean(0), ()

    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        return params, gy - gy.mean(0)


@fn.frozen
class HalfTrained(Affine):
    """y = x wᵀ + b on rows, where w is not trained and the layer declares it; correct."""

    non_trainable = ("w",)

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": None, "b": gy.sum(0)}, gy @ params["w"]
