"""Broken combinators: correct ones, ``Pair`` and ``Halved``, with one change each."""

from typing import Any

import torch

import funcnet as fn
from funcnet import tree
from funcnet.combinator import child_key
from funcnet.combinators.sequential import Serial
from funcnet.wrapper import Wrapper


@fn.frozen
class Pair(fn.Combinator):
    """Two layers, one after the other; correct."""

    a: fn.Layer
    b: fn.Layer

    def children(self) -> dict[str, fn.Layer]:
        return {"a": self.a, "b": self.b}

    def with_children(self, children: dict[str, fn.Layer]) -> Any:
        return self.replace(a=children["a"], b=children["b"])

    def apply(self, params: Any, x: Any, rng: Any = None) -> Any:
        return self.apply_with(params, x, child_key(self.a, rng, 0), child_key(self.b, rng, 1))

    def apply_with(self, params: Any, x: Any, one: Any, other: Any) -> Any:
        """Apply the layers with these keys."""
        x, first = self.a.apply(params["a"], x, one)
        y, second = self.b.apply(params["b"], x, other)
        return y, (first, second)

    def predict_with(self, params: Any, x: Any, one: Any, other: Any) -> Any:
        """Call the layers with these keys."""
        return self.b(params["b"], self.a(params["a"], x, one), other)

    def vjp(self, params: Any, cache: Any, gy: Any) -> Any:
        gb, gy = self.b.vjp(params["b"], cache[1], gy)
        ga, gy = self.a.vjp(params["a"], cache[0], gy)
        return {"a": ga, "b": gb}, gy


# Claims


@fn.frozen
class StochasticAsTheFirst(Pair):
    stochastic = property(lambda self: self.a.stochastic)


@fn.frozen
class BatchDependentAsTheFirst(Pair):
    batch_dependent = property(lambda self: self.a.batch_dependent)


@fn.frozen
class StatsAsTheFirst(Pair):
    has_running_stats = property(lambda self: self.a.has_running_stats)


# Keys


@fn.frozen
class KeyIfTheFirstNeedsOne(Pair):
    def apply(self, params: Any, x: Any, rng: Any = None) -> Any:
        return self.apply_with(params, x, child_key(self.a, rng, 0), child_key(self.a, rng, 1))


@fn.frozen
class KeyOfTheWhole(Pair):
    def apply(self, params: Any, x: Any, rng: Any = None) -> Any:
        return self.apply_with(params, x, child_key(self.a, rng, 0), rng)


@fn.frozen
class ConstantKeys(Pair):
    def apply(self, params: Any, x: Any, rng: Any = None) -> Any:
        return super().apply(params, x, fn.key(0))


@fn.frozen
class InitOfTheWhole(Pair):
    def init(self, rng: Any) -> Any:
        return {"a": self.a.init(fn.fold_in(rng, 0)), "b": self.b.init(rng)}


@fn.frozen
class ConstantInit(Pair):
    def init(self, rng: Any) -> Any:
        return {"a": self.a.init(7), "b": self.b.init(8)}


@fn.frozen
class PredictionWithoutKeys(Pair):
    def __call__(self, params: Any, x: Any, rng: Any = None) -> Any:
        return self.predict_with(params, x, None, None)


@fn.frozen
class PredictionWithOneKey(Pair):
    def __call__(self, params: Any, x: Any, rng: Any = None) -> Any:
        return self.predict_with(params, x, rng, rng)


@fn.frozen
class PredictionKeyIfTheFirstNeedsOne(Pair):
    def __call__(self, params: Any, x: Any, rng: Any = None) -> Any:
        return self.predict_with(params, x, child_key(self.a, rng, 0), child_key(self.a, rng, 1))


# Running statistics


@fn.frozen
class StatsDropped(Pair):
    """The second layer's statistics are computed but not returned."""

    def update_stats(self, params: Any, cache: Any) -> Any:
        self.b.update_stats(params["b"], cache[1])
        return {"a": self.a.update_stats(params["a"], cache[0]), "b": params["b"]}


@fn.frozen
class StatsOfOtherParams(Pair):
    def update_stats(self, params: Any, cache: Any) -> Any:
        return {"a": self.a.update_stats(params["b"], cache[0]), "b": self.b.update_stats(params["a"], cache[1])}


@fn.frozen
class StatsOfOtherCaches(Pair):
    def update_stats(self, params: Any, cache: Any) -> Any:
        return {"a": self.a.update_stats(params["a"], cache[1]), "b": self.b.update_stats(params["b"], cache[0])}


@fn.frozen
class StatsSwapped(Pair):
    def update_stats(self, params: Any, cache: Any) -> Any:
        moved = super().update_stats(params, cache)
        return {"a": moved["b"], "b": moved["a"]}


@fn.frozen
class WeightsDecay(Pair):
    """``update_stats`` also shrinks the weights."""

    def update_stats(self, params: Any, cache: Any) -> Any:
        return tree.map(lambda leaf: leaf * 0.99, super().update_stats(params, cache))


@fn.frozen
class Scaled(Pair):
    """y = s f(x), with its own leaf s; correct."""

    def init(self, rng: Any) -> Any:
        return {**super().init(rng), "s": torch.ones(())}

    def apply(self, params: Any, x: Any, rng: Any = None) -> Any:
        y, cache = super().apply(params, x, rng)
        return y * params["s"], (*cache, y)

    def vjp(self, params: Any, cache: Any, gy: Any) -> Any:
        gparams, gx = super().vjp(params, cache, gy * params["s"])
        return {**gparams, "s": (gy * cache[2]).sum()}, gx


@fn.frozen
class OwnLeafLost(Scaled):
    def update_stats(self, params: Any, cache: Any) -> Any:
        return {name: leaf for name, leaf in super().update_stats(params, cache).items() if name != "s"}


@fn.frozen
class OwnLeafReset(Scaled):
    def update_stats(self, params: Any, cache: Any) -> Any:
        return {**super().update_stats(params, cache), "s": torch.full_like(params["s"], 0.5)}


@fn.frozen
class OwnLeafReshaped(Scaled):
    def update_stats(self, params: Any, cache: Any) -> Any:
        return {**super().update_stats(params, cache), "s": params["s"].reshape(1)}


# Places


@fn.frozen
class ChildrenSwapped(Pair):
    def with_children(self, children: dict[str, fn.Layer]) -> Any:
        return self.replace(a=children["b"], b=children["a"])


@fn.frozen
class SettledSwapped(Pair):
    def inference(self) -> Any:
        return self.replace(a=self.b.inference(), b=self.a.inference())


@fn.frozen
class SettledTwice(Pair):
    def inference(self) -> Any:
        return self.replace(a=self.a.inference(), b=self.a.inference())


@fn.frozen
class OtherNames(Pair):
    """Its children are x and y, its params a and b."""

    def children(self) -> dict[str, fn.Layer]:
        return {"x": self.a, "y": self.b}

    def with_children(self, children: dict[str, fn.Layer]) -> Any:
        return self.replace(a=children["x"], b=children["y"])

    def init(self, rng: Any) -> Any:
        return {"a": self.a.init(fn.fold_in(rng, 0)), "b": self.b.init(fn.fold_in(rng, 1))}

    def update_stats(self, params: Any, cache: Any) -> Any:
        return {"a": self.a.update_stats(params["a"], cache[0]), "b": self.b.update_stats(params["b"], cache[1])}


@fn.frozen
class NamesSwapped(OtherNames):
    """Its child b has the params a."""

    def children(self) -> dict[str, fn.Layer]:
        return {"b": self.a, "a": self.b}

    def with_children(self, children: dict[str, fn.Layer]) -> Any:
        return self.replace(a=children["b"], b=children["a"])


@fn.frozen
class SerialSwapped(Pair):
    """Its inference form is a serial of the second layer and the first."""

    def inference(self) -> Any:
        return Serial((self.b.inference(), self.a.inference()), ("b", "a"))


# Wrappers


@fn.frozen
class Halved(Wrapper):
    """A correct wrapper: y = f(x) / 2."""

    layer: fn.Layer

    def apply(self, params: Any, x: Any, rng: Any = None) -> Any:
        y, cache = self.layer.apply(params, x, rng)
        return y / 2, cache

    def vjp(self, params: Any, cache: Any, gy: Any) -> Any:
        return self.layer.vjp(params, cache, gy / 2)


@fn.frozen
class PredictionKeyless(Halved):
    def __call__(self, params: Any, x: Any, rng: Any = None) -> Any:
        return self.layer(params, x) / 2


@fn.frozen
class CacheWithin(Halved):
    """A wrapper that keeps more than the layer's cache, and does not say where the layer's is."""

    def apply(self, params: Any, x: Any, rng: Any = None) -> Any:
        y, cache = super().apply(params, x, rng)
        return y, (cache, ())

    def vjp(self, params: Any, cache: Any, gy: Any) -> Any:
        return super().vjp(params, cache[0], gy)


# Layers in other values


@fn.frozen
class Box(fn.Value):
    """A value that holds a layer."""

    layer: fn.Layer


@fn.frozen
class Boxed(fn.Layer):
    """A plain layer whose inner layer is in another value."""

    box: Box

    stochastic = property(lambda self: self.box.layer.stochastic)
    batch_dependent = property(lambda self: self.box.layer.batch_dependent)
    has_running_stats = property(lambda self: self.box.layer.has_running_stats)

    def init(self, rng: Any) -> Any:
        return self.box.layer.init(rng)

    def apply(self, params: Any, x: Any, rng: Any = None) -> Any:
        return self.box.layer.apply(params, x, rng)

    def vjp(self, params: Any, cache: Any, gy: Any) -> Any:
        return self.box.layer.vjp(params, cache, gy)

    def update_stats(self, params: Any, cache: Any) -> Any:
        return self.box.layer.update_stats(params, cache)


@fn.frozen
class BoxedAndSettled(Boxed):
    def inference(self) -> Any:
        return self.replace(box=Box(self.box.layer.inference()))
