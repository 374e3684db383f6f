"""The laws themselves: each rejects the layers that break it, which are these sound ones with one thing made wrong."""

import itertools
import time
from typing import Any

import pytest
import torch
from attrs import field
from torch import Tensor

import funcnet as fn
from funcnet import tree
from funcnet.testing import LAWS, check_laws


@fn.frozen
class Affine(fn.Layer):
    """y = x wᵀ + b on rows, sound."""

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
    """y = max(0, x), sound."""

    def apply(self, params: Any, x: Tensor) -> Any:
        return x.relu(), x

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return params, torch.where(cache > 0, gy, 0.0)


@fn.frozen
class Sum(fn.Layer):
    """y = a + b with broadcasting, sound."""

    def apply(self, params: Any, x: tuple[Tensor, Tensor]) -> Any:
        return x[0] + x[1], (x[0].shape, x[1].shape)

    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        return params, (gy.sum_to_size(cache[0]), gy.sum_to_size(cache[1]))


@fn.frozen
class Chain(fn.Layer):
    """Three affine maps, one after the other, sound."""

    layers: tuple[fn.Layer, ...] = (Affine(), Rectifier(), Affine())

    def init(self, rng: Any) -> Any:
        return tuple(layer.init(key) for layer, key in zip(self.layers, fn.split(rng, 3), strict=True))

    def apply(self, params: Any, x: Tensor) -> Any:
        caches = []
        for layer, p in zip(self.layers, params, strict=True):
            x, cache = layer.apply(p, x)
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
    """y = x ⊙ u with random u, sound."""

    stochastic = True

    def apply(self, params: Any, x: Tensor, rng: Any) -> Any:
        u = fn.random.uniform(rng, tuple(x.shape), dtype=x.dtype)
        return x * u, u

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return params, gy * cache


@fn.frozen
class Lookup(fn.Layer):
    """y = rows of a table by number, sound."""

    def init(self, rng: Any) -> Any:
        return {"table": fn.random.normal(rng, (5, 2))}

    def apply(self, params: Any, x: Tensor) -> Any:
        return params["table"][x], x

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"table": torch.zeros_like(params["table"]).index_add(0, cache, gy)}, None


@fn.frozen
class Counted(fn.Layer):
    """y = s x, with a counter of batches among the params, sound."""

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
    """y = x - the batch's mean, sound."""

    batch_dependent = True

    def apply(self, params: Any, x: Tensor) -> Any:
        return x - x.mean(0), ()

    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        return params, gy - gy.mean(0)


@fn.frozen
class HalfTrained(Affine):
    """y = x wᵀ + b on rows, where w stays as it is and the layer says so: sound."""

    non_trainable = ("w",)

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": None, "b": gy.sum(0)}, gy @ params["w"]


class NoBiasGradient(HalfTrained):
    """What is said not to be trained is not all that has no gradient."""

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": None, "b": None}, gy @ params["w"]


class MeanForSum(Affine):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": gy.T @ cache, "b": gy.mean(0)}, gy @ params["w"]


class WrongScale(Affine):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": gy.T @ cache, "b": gy.sum(0)}, gy @ params["w"] * (1 + 1e-4)


class WeightNotTransposed(Affine):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": gy.T @ cache, "b": gy.sum(0)}, gy @ params["w"].T


class WeightGradientTransposed(Affine):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": cache.T @ gy, "b": gy.sum(0)}, gy @ params["w"]


class OtherSideOfKink(Rectifier):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return params, torch.where(cache < 0, gy, 0.0)


class LeakOnlyBackward(Rectifier):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return params, torch.where(cache > 0, gy, 1e-4 * gy)


class Unreversed(Chain):
    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        gparams = []
        for layer, p, c in zip(self.layers, params, cache, strict=True):
            gp, gy = layer.vjp(p, c, gy)
            gparams.append(gp)
        return tuple(gparams), gy


class OtherOrderOfParams(Chain):
    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        gparams, gx = super().vjp(params, cache, gy)
        return gparams[::-1], gx


class OneOfTwoUses(Sum):
    """The operand that was repeated gets the gradient of its first copy alone."""

    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        return params, (gy, gy[: cache[1][0]])


class NoWeightGradient(Affine):
    """The weight is said not to be trained, and the layer does not say so."""

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": None, "b": gy.sum(0)}, gy @ params["w"]


class NoGradientOfTheSecond(Sum):
    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        return params, (gy.sum_to_size(cache[0]), None)


class GyIgnored(Affine):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": torch.ones_like(gy).T @ cache, "b": gy.sum(0)}, gy @ params["w"]


class GySquared(Rectifier):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return params, torch.where(cache > 0, gy.abs() * gy, 0.0)


class ClippedGradient(Affine):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": gy.T @ cache, "b": gy.sum(0)}, (gy @ params["w"]).clamp(-0.5, 0.5)


class ZeroOverZero(Rectifier):
    """The gradient is normed and scaled back: linear, but for 0."""

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return params, torch.where(cache > 0, gy / gy.norm() * gy.norm(), 0.0)


class WrittenCache(Rectifier):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return params, gy.clone() * cache.gt_(0)


class WrittenGy(Rectifier):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return params, gy.masked_fill_(cache <= 0, 0.0)


class WrittenBehindItsBack(Rectifier):
    """Written through ``data``, which the version counter does not see."""

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        gx = torch.where(cache > 0, gy, 0.0)
        gy.data.zero_()
        return params, gx


class WrittenInput(Rectifier):
    def apply(self, params: Any, x: Tensor) -> Any:
        y = x.relu_()
        return y, y


class WrittenBackToTheSame(Affine):
    """The weight is scaled and scaled back: the same numbers, but for a moment others."""

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        params["w"].mul_(2.0)
        gx = gy @ params["w"] / 2
        params["w"].div_(2.0)
        return {"w": gy.T @ cache, "b": gy.sum(0)}, gx


class WrittenParams(Counted):
    def update_stats(self, params: Any, cache: Tensor) -> Any:
        params["seen"].add_(1)
        return params


class PoppedCache(Chain):
    """The cache is a list that backward empties."""

    def apply(self, params: Any, x: Tensor) -> Any:
        y, cache = super().apply(params, x)
        return y, list(cache)

    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        last = [cache.pop() for _ in self.layers]
        return super().vjp(params, tuple(reversed(last)), gy)


_LATEST: dict[str, Tensor] = {}


class StaleCache(Affine):
    """Backward uses what the latest forward left behind, not the cache."""

    def apply(self, params: Any, x: Tensor) -> Any:
        _LATEST["x"] = x
        return super().apply(params, x)

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return super().vjp(params, _LATEST["x"], gy)


class ChanceWithoutKey(Rectifier):
    def apply(self, params: Any, x: Tensor) -> Any:
        x = x * torch.rand_like(x)
        return x.relu(), x


_CALLS = itertools.count(1)


class OtherEachTime(Rectifier):
    def apply(self, params: Any, x: Tensor) -> Any:
        x = x * next(_CALLS)
        return x.relu(), x


class SeededByItself(Rectifier):
    def apply(self, params: Any, x: Tensor) -> Any:
        torch.manual_seed(0)
        return x.relu(), x


class KeyByDefault(Noise):
    def apply(self, params: Any, x: Tensor, rng: Any = 0) -> Any:
        return super().apply(params, x, rng)


class BiasNotSummed(Affine):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": gy.T @ cache, "b": gy}, gy @ params["w"]


class NotUnbroadcast(Sum):
    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        return params, (gy, gy)


class GradientInFloat32(Affine):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": (gy.T @ cache).float(), "b": gy.sum(0)}, gy @ params["w"]


class OutputInFloat64(Affine):
    def apply(self, params: Any, x: Tensor) -> Any:
        return super().apply(params, x)[0].double(), x

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return super().vjp(params, cache, gy.to(cache.dtype))


class ForgottenBias(Affine):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": gy.T @ cache}, gy @ params["w"]


class NoInputGradient(Affine):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": gy.T @ cache, "b": gy.sum(0)}, None


class GradientOfNumbers(Lookup):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return super().vjp(params, cache, gy)[0], torch.zeros_like(cache)


class InferenceOfOtherShape(Affine):
    def inference(self) -> fn.Layer:
        return fn.serial()


class RowsCoupled(Centred):
    batch_dependent = False


class CoupledLaterOn(RowsCoupled):
    """Nothing is drawn any more, but the rows are centred together."""


class CoupledLater(Noise):
    """Sound, but for what it is in inference."""

    def inference(self) -> fn.Layer:
        return CoupledLaterOn()


class NoEmptyBatch(Affine):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        share = 1 / len(cache)
        return {"w": gy.T @ cache, "b": gy.sum(0) * share * len(cache)}, gy @ params["w"]


class NaNOfEmptyBatch(Affine):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": gy.T @ cache, "b": gy.mean(0) * len(cache)}, gy @ params["w"]


class ViewOfGy(Rectifier):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return params, torch.where(cache > 0, gy.view(-1).view(cache.shape), 0.0)


class ViewOfX(Rectifier):
    def apply(self, params: Any, x: Tensor) -> Any:
        x = x.view(-1).view(x.shape)
        return x.relu(), x


class StorageRead(Rectifier):
    """The memory of x is taken as it lies, in whatever order."""

    def apply(self, params: Any, x: Tensor) -> Any:
        x = x.as_strided(x.shape, (x.shape[1], 1))
        return x.relu(), x


class OtherHalfOfParams(Affine):
    def grads(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": gy.T @ cache, "b": gy.mean(0)}


class OtherHalfOfInput(Affine):
    def input_grad(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return gy @ params["w"].T


class OtherPrediction(Rectifier):
    def __call__(self, params: Any, x: Tensor, *rng: Any) -> Any:
        return x.abs()


class Item(Rectifier):
    def apply(self, params: Any, x: Tensor) -> Any:
        return x.clamp(min(0.0, x.numel() and x.abs().min().item())), x


class BranchOnValues(Rectifier):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return (params, gy) if bool((cache > 0).all()) else (params, torch.where(cache > 0, gy, 0.0))


class GraphBreak(Rectifier):
    def apply(self, params: Any, x: Tensor) -> Any:
        time.sleep(0)
        return x.relu(), x


class MadeOnTheCPU(Rectifier):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return params, gy * (cache > torch.zeros(cache.shape, dtype=cache.dtype))


class WrittenUnderVmap(Rectifier):
    """A fresh tensor is written to: sound by itself, but ``vmap`` has no batch in it."""

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return params, torch.zeros(gy.shape, dtype=gy.dtype, device=gy.device).copy_(torch.where(cache > 0, gy, 0.0))


class LyingRepr(Affine):
    def __repr__(self) -> str:
        return f"LyingRepr(columns={self.columns})"

    def __hash__(self) -> int:
        return 0


class HashOfTheObject(Affine):
    def __hash__(self) -> int:
        return id(self)


class ReprOfAnother(Rectifier):
    def __repr__(self) -> str:
        return "Rectifier()"


@fn.frozen
class Mutable(fn.Layer):
    """The identity with a list as field, and so without a hash."""

    notes: list[int]

    def apply(self, params: Any, x: Tensor) -> Any:
        return x, ()

    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        return params, gy


class Unpicklable(Rectifier):
    def __reduce__(self) -> Any:
        raise TypeError("cannot pickle this")


@fn.frozen
class HoldsTensor(fn.Layer):
    """The identity, with a tensor that neither ``==`` nor ``repr`` nor ``hash`` sees."""

    scale: Tensor = field(default=torch.ones(()), eq=False, init=False)

    def apply(self, params: Any, x: Tensor) -> Any:
        return x * self.scale, ()

    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        return params, gy * self.scale


ROWS = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.3, -0.7], [-0.4, 0.9, 1.1], [0.2, -0.6, 0.8]])
PAIR = (ROWS, ROWS[:1] * 2)
NUMBERS = torch.tensor([3, 0, 3, 4])
TUPLED = Mutable(notes=())  # type: ignore[arg-type]  # the same value with a tuple, which has a hash

BROKEN: dict[str, list[tuple[fn.Layer, fn.Layer, Any]]] = {
    "transpose": [
        (MeanForSum(), Affine(), ROWS),
        (WrongScale(), Affine(), ROWS),
        (WeightNotTransposed(), Affine(), ROWS),
        (WeightGradientTransposed(), Affine(), ROWS),
        (OtherSideOfKink(), Rectifier(), ROWS),
        (LeakOnlyBackward(), Rectifier(), ROWS),
        (Unreversed(), Chain(), ROWS),
        (OtherOrderOfParams((Affine(), Affine(), Affine())), Chain((Affine(), Affine(), Affine())), ROWS),
        (OneOfTwoUses(), Sum(), PAIR),
        (NoWeightGradient(), Affine(), ROWS),
        (NoBiasGradient(), HalfTrained(), ROWS),
        (NoGradientOfTheSecond(), Sum(), PAIR),
    ],
    "linear": [
        (GyIgnored(), Affine(), ROWS),
        (GySquared(), Rectifier(), ROWS),
        (ClippedGradient(), Affine(), ROWS),
        (ZeroOverZero(), Rectifier(), ROWS),
    ],
    "pure": [
        (WrittenCache(), Rectifier(), ROWS),
        (WrittenGy(), Rectifier(), ROWS),
        (WrittenBehindItsBack(), Rectifier(), ROWS),
        (WrittenInput(), Rectifier(), ROWS),
        (WrittenBackToTheSame(), Affine(), ROWS),
        (WrittenParams(), Counted(), ROWS),
        (PoppedCache(), Chain(), ROWS),
        (StaleCache(), Affine(), ROWS),
        (ChanceWithoutKey(), Rectifier(), ROWS),
        (OtherEachTime(), Rectifier(), ROWS),
        (SeededByItself(), Rectifier(), ROWS),
        (KeyByDefault(), Noise(), ROWS),
    ],
    "structure": [
        (BiasNotSummed(), Affine(), ROWS),
        (NotUnbroadcast(), Sum(), PAIR),
        (GradientInFloat32(), Affine(), ROWS),
        (OutputInFloat64(), Affine(), ROWS),
        (ForgottenBias(), Affine(), ROWS),
        (NoInputGradient(), Affine(), ROWS),
        (GradientOfNumbers(), Lookup(), NUMBERS),
        (InferenceOfOtherShape(rows=2), Affine(rows=2), ROWS),
    ],
    "rows": [
        (RowsCoupled(), Centred(), ROWS),
        (CoupledLater(), Noise(), ROWS),
        (NoEmptyBatch(), Affine(), ROWS),
        (NaNOfEmptyBatch(), Affine(), ROWS),
    ],
    "strides": [(ViewOfGy(), Rectifier(), ROWS), (ViewOfX(), Rectifier(), ROWS), (StorageRead(), Rectifier(), ROWS)],
    "halves": [
        (OtherHalfOfParams(), Affine(), ROWS),
        (OtherHalfOfInput(), Affine(), ROWS),
        (OtherPrediction(), Rectifier(), ROWS),
    ],
    "transforms": [
        (Item(), Rectifier(), ROWS),
        (BranchOnValues(), Rectifier(), ROWS),
        (GraphBreak(), Rectifier(), ROWS),
        (MadeOnTheCPU(), Rectifier(), ROWS),
        (WrittenUnderVmap(), Rectifier(), ROWS),
    ],
    "value": [
        (LyingRepr(rows=2), Affine(rows=2), ROWS),
        (ReprOfAnother(), Rectifier(), ROWS),
        (Mutable([1]), TUPLED, ROWS),
        (Unpicklable(), Rectifier(), ROWS),
        (HoldsTensor(), Rectifier(), ROWS),
        (HashOfTheObject(), Affine(), ROWS),
    ],
}
TRIALS = [
    pytest.param(
        law, broken, sound, x, id=f"{law}: {type(broken).__name__}", marks=[pytest.mark.compiled] * (law == "transforms")
    )
    for law, entries in BROKEN.items()
    for broken, sound, x in entries
]
SOUND = {type(sound).__name__: (sound, x) for entries in BROKEN.values() for _, sound, x in entries}


@pytest.mark.parametrize(("law", "broken", "sound", "x"), TRIALS)
def test_the_law_rejects_the_broken_layer_and_not_the_sound_one(law: str, broken: fn.Layer, sound: fn.Layer, x: Any) -> None:
    """What tells the two apart is one thing, and the law for that thing says so."""
    LAWS[law](sound, tree.map(torch.clone, x))
    with pytest.raises(AssertionError, match=rf"^law \d, {law}: {type(broken).__name__}|^law \d, {law}: Rectifier\(\)"):
        LAWS[law](broken, tree.map(torch.clone, x))


@pytest.mark.compiled
def test_compiling_is_what_finds_a_graph_break() -> None:
    """Without it the layer passes law 8, and all laws."""
    for check in (LAWS["transforms"], check_laws):
        check(GraphBreak(), ROWS, compiled=False)
        with pytest.raises(AssertionError, match=r"^law 8, transforms: GraphBreak"):
            check(GraphBreak(), ROWS)


def test_the_other_parts_of_law_8_need_no_compiling() -> None:
    """The meta device and ``vmap`` are tried in any case."""
    for broken in (Item(), BranchOnValues(), MadeOnTheCPU(), WrittenUnderVmap()):
        with pytest.raises(AssertionError, match=r"^law 8, transforms: "):
            LAWS["transforms"](broken, ROWS.clone(), compiled=False)


def test_an_unknown_argument_is_no_broken_law() -> None:
    """It raises the ``TypeError`` of any function."""
    with pytest.raises(TypeError, match="compiled"):
        LAWS["linear"](Affine(), ROWS, compiled=False)


@pytest.mark.compiled
@pytest.mark.parametrize(("layer", "x"), SOUND.values(), ids=SOUND)
def test_the_sound_layers_keep_all_laws(layer: fn.Layer, x: Any) -> None:
    """The models for the broken layers are broken in nothing."""
    check_laws(layer, x)


def test_the_law_of_transpose_says_which_gradient_is_not_there() -> None:
    """The message gives the path."""
    with pytest.raises(AssertionError, match=r"y depends on x\.1, so its gradient must not be None"):
        LAWS["transpose"](NoGradientOfTheSecond(), PAIR)


def test_every_law_has_something_to_reject() -> None:
    """No law passes whatever it is given."""
    assert list(BROKEN) == list(LAWS)


@pytest.mark.parametrize(
    ("broken", "path"),
    [
        (WrittenCache(), "x"),
        (WrittenGy(), "gy"),
        (WrittenBehindItsBack(), "gy"),
        (WrittenInput(), "x"),
        (WrittenParams(), "params.seen"),
    ],
)
def test_the_law_of_purity_says_what_was_written_to(broken: fn.Layer, path: str) -> None:
    """The message gives the path, the cache's being that of the argument that it is."""
    with pytest.raises(AssertionError, match=f"nothing may be written to, and {path} was"):
        LAWS["pure"](broken, ROWS.clone())
