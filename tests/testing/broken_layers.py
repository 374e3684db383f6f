"""Broken layers: correct ones with one change each, in the order of the laws."""

import itertools
import time
from typing import Any

import torch
from attrs import field
from sound_layers import Affine, Centred, Chain, Counted, HalfTrained, Lookup, Noise, Rectifier, Sum
from torch import Tensor

import funcnet as fn


@fn.frozen
class NoBiasGradient(HalfTrained):
    """The parameters declared untrained are not all that lack a gradient."""

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": None, "b": None}, gy @ params["w"]


@fn.frozen
class MeanForSum(Affine):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": gy.T @ cache, "b": gy.mean(0)}, gy @ params["w"]


@fn.frozen
class WrongScale(Affine):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": gy.T @ cache, "b": gy.sum(0)}, gy @ params["w"] * (1 + 1e-4)


@fn.frozen
class WeightNotTransposed(Affine):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": gy.T @ cache, "b": gy.sum(0)}, gy @ params["w"].T


@fn.frozen
class WeightGradientTransposed(Affine):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": cache.T @ gy, "b": gy.sum(0)}, gy @ params["w"]


@fn.frozen
class OtherSideOfKink(Rectifier):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return params, torch.where(cache < 0, gy, 0.0)


@fn.frozen
class LeakOnlyBackward(Rectifier):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return params, torch.where(cache > 0, gy, 1e-4 * gy)


@fn.frozen
class Unreversed(Chain):
    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        gparams = []
        for layer, p, c in zip(self.layers, params, cache, strict=True):
            gp, gy = layer.vjp(p, c, gy)
            gparams.append(gp)
        return tuple(gparams), gy


@fn.frozen
class OtherOrderOfParams(Chain):
    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        gparams, gx = super().vjp(params, cache, gy)
        return gparams[::-1], gx


@fn.frozen
class OneOfTwoUses(Sum):
    """The repeated operand gets the gradient of its first copy only."""

    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        return params, (gy, gy[: cache[1][0]])


@fn.frozen
class NoWeightGradient(Affine):
    """The weight has no gradient, and the layer does not declare it untrained."""

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": None, "b": gy.sum(0)}, gy @ params["w"]


@fn.frozen
class NoGradientOfTheSecond(Sum):
    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        return params, (gy.sum_to_size(cache[0]), None)


@fn.frozen
class GyIgnored(Affine):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": torch.ones_like(gy).T @ cache, "b": gy.sum(0)}, gy @ params["w"]


@fn.frozen
class GySquared(Rectifier):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return params, torch.where(cache > 0, gy.abs() * gy, 0.0)


@fn.frozen
class ClippedGradient(Affine):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": gy.T @ cache, "b": gy.sum(0)}, (gy @ params["w"]).clamp(-0.5, 0.5)


@fn.frozen
class ZeroOverZero(Rectifier):
    """The gradient is normalized and scaled back: linear except at 0."""

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return params, torch.where(cache > 0, gy / gy.norm() * gy.norm(), 0.0)


@fn.frozen
class WrittenCache(Rectifier):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return params, gy.clone() * cache.gt_(0)


@fn.frozen
class WrittenGy(Rectifier):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return params, gy.masked_fill_(cache <= 0, 0.0)


@fn.frozen
class WrittenBehindItsBack(Rectifier):
    """Writes through ``data``, which the version counter does not see."""

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        gx = torch.where(cache > 0, gy, 0.0)
        gy.data.zero_()
        return params, gx


@fn.frozen
class WrittenInput(Rectifier):
    def apply(self, params: Any, x: Tensor) -> Any:
        y = x.relu_()
        return y, y


@fn.frozen
class WrittenBackToTheSame(Affine):
    """The weight is scaled and scaled back: the numbers are the same, but were changed for a moment."""

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        params["w"].mul_(2.0)
        gx = gy @ params["w"] / 2
        params["w"].div_(2.0)
        return {"w": gy.T @ cache, "b": gy.sum(0)}, gx


@fn.frozen
class WrittenParams(Counted):
    def update_stats(self, params: Any, cache: Tensor) -> Any:
        params["seen"].add_(1)
        return params


@fn.frozen
class PoppedCache(Chain):
    """The cache is a list that backward empties."""

    def apply(self, params: Any, x: Tensor) -> Any:
        y, cache = super().apply(params, x)
        return y, list(cache)

    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        last = [cache.pop() for _ in self.layers]
        return super().vjp(params, tuple(reversed(last)), gy)


_LATEST: dict[str, Tensor] = {}


@fn.frozen
class StaleCache(Affine):
    """The backward pass uses values stored by the latest forward pass, not the cache."""

    def apply(self, params: Any, x: Tensor) -> Any:
        _LATEST["x"] = x
        return super().apply(params, x)

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return super().vjp(params, _LATEST["x"], gy)


@fn.frozen
class ChanceWithoutKey(Rectifier):
    def apply(self, params: Any, x: Tensor) -> Any:
        x = x * torch.rand_like(x)
        return x.relu(), x


_CALLS = itertools.count(1)


@fn.frozen
class OtherEachTime(Rectifier):
    def apply(self, params: Any, x: Tensor) -> Any:
        x = x * next(_CALLS)
        return x.relu(), x


@fn.frozen
class SeededByItself(Rectifier):
    def apply(self, params: Any, x: Tensor) -> Any:
        torch.manual_seed(0)
        return x.relu(), x


@fn.frozen
class KeyByDefault(Noise):
    def apply(self, params: Any, x: Tensor, rng: Any = None) -> Any:
        return super().apply(params, x, 0 if rng is None else rng)


@fn.frozen
class BiasNotSummed(Affine):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": gy.T @ cache, "b": gy}, gy @ params["w"]


@fn.frozen
class NotUnbroadcast(Sum):
    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        return params, (gy, gy)


@fn.frozen
class GradientInFloat32(Affine):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": (gy.T @ cache).float(), "b": gy.sum(0)}, gy @ params["w"]


@fn.frozen
class OutputInFloat64(Affine):
    def apply(self, params: Any, x: Tensor) -> Any:
        return super().apply(params, x)[0].double(), x

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return super().vjp(params, cache, gy.to(cache.dtype))


@fn.frozen
class ForgottenBias(Affine):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": gy.T @ cache}, gy @ params["w"]


@fn.frozen
class NoInputGradient(Affine):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": gy.T @ cache, "b": gy.sum(0)}, None


@fn.frozen
class GradientOfNumbers(Lookup):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return super().vjp(params, cache, gy)[0], torch.zeros_like(cache)


@fn.frozen
class InferenceOfOtherShape(Affine):
    def inference(self) -> fn.Layer:
        return fn.serial()


@fn.frozen
class RowsCoupled(Centred):
    batch_dependent = False


@fn.frozen
class CoupledLaterOn(RowsCoupled):
    """It draws nothing any more, but centres the rows together."""


@fn.frozen
class CoupledLater(Noise):
    """Correct, except for its inference form."""

    def inference(self) -> fn.Layer:
        return CoupledLaterOn()


@fn.frozen
class NoEmptyBatch(Affine):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        share = 1 / len(cache)
        return {"w": gy.T @ cache, "b": gy.sum(0) * share * len(cache)}, gy @ params["w"]


@fn.frozen
class NaNOfEmptyBatch(Affine):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": gy.T @ cache, "b": gy.mean(0) * len(cache)}, gy @ params["w"]


@fn.frozen
class ViewOfGy(Rectifier):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return params, torch.where(cache > 0, gy.view(-1).view(cache.shape), 0.0)


@fn.frozen
class ViewOfX(Rectifier):
    def apply(self, params: Any, x: Tensor) -> Any:
        x = x.view(-1).view(x.shape)
        return x.relu(), x


@fn.frozen
class StorageRead(Rectifier):
    """The memory of x is read in storage order."""

    def apply(self, params: Any, x: Tensor) -> Any:
        x = x.as_strided(x.shape, (x.shape[1], 1))
        return x.relu(), x


@fn.frozen
class OtherHalfOfParams(Affine):
    def grads(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": gy.T @ cache, "b": gy.mean(0)}


@fn.frozen
class OtherHalfOfInput(Affine):
    def input_grad(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return gy @ params["w"].T


@fn.frozen
class OtherPrediction(Rectifier):
    def __call__(self, params: Any, x: Tensor, *rng: Any) -> Any:
        return x.abs()


@fn.frozen
class Item(Rectifier):
    def apply(self, params: Any, x: Tensor) -> Any:
        return x.clamp(min(0.0, x.numel() and x.abs().min().item())), x


@fn.frozen
class BranchOnValues(Rectifier):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return (params, gy) if bool((cache > 0).all()) else (params, torch.where(cache > 0, gy, 0.0))


@fn.frozen
class GraphBreak(Rectifier):
    def apply(self, params: Any, x: Tensor) -> Any:
        time.sleep(0)
        return x.relu(), x


@fn.frozen
class MadeOnTheCPU(Rectifier):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return params, gy * (cache > torch.zeros(cache.shape, dtype=cache.dtype))


@fn.frozen
class WrittenUnderVmap(Rectifier):
    """It writes to a fresh tensor: right by itself, but under ``vmap`` that tensor has no batch."""

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return params, torch.zeros(gy.shape, dtype=gy.dtype, device=gy.device).copy_(torch.where(cache > 0, gy, 0.0))


@fn.frozen
class LyingRepr(Affine):
    def __repr__(self) -> str:
        return f"LyingRepr(columns={self.columns})"

    def __hash__(self) -> int:
        return 0


@fn.frozen
class HashOfTheObject(Affine):
    def __hash__(self) -> int:
        return id(self)


@fn.frozen
class ReprOfAnother(Rectifier):
    def __repr__(self) -> str:
        return "Rectifier()"


@fn.frozen
class Mutable(fn.Layer):
    """The identity with a list as a field, and so without a hash."""

    notes: list[int]

    def apply(self, params: Any, x: Tensor) -> Any:
        return x, ()

    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        return params, gy


@fn.frozen
class Unpicklable(Rectifier):
    def __reduce__(self) -> Any:
        raise TypeError("cannot pickle this")


@fn.frozen
class HoldsTensor(fn.Layer):
    """The identity, with a tensor that ``==``, ``repr`` and ``hash`` ignore."""

    scale: Tensor = field(default=torch.ones(()), eq=False, init=False)

    def apply(self, params: Any, x: Tensor) -> Any:
        return x * self.scale, ()

    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        return params, gy * self.scale
