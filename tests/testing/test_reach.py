"""Law 10 on combinators that do not reach the layers they hold."""

from typing import Any

import pytest
import torch
from broken_combinators import (
    BatchDependentAsTheFirst,
    Box,
    Boxed,
    BoxedAndSettled,
    CacheWithin,
    ChildrenSwapped,
    ConstantInit,
    ConstantKeys,
    Halved,
    InitOfTheWhole,
    KeyIfTheFirstNeedsOne,
    KeyOfTheWhole,
    NamesSwapped,
    OtherNames,
    OwnLeafLost,
    OwnLeafReset,
    OwnLeafReshaped,
    Pair,
    PredictionKeyIfTheFirstNeedsOne,
    PredictionKeyless,
    PredictionWithOneKey,
    PredictionWithoutKeys,
    Scaled,
    SerialSwapped,
    SettledSwapped,
    SettledTwice,
    StatsAsTheFirst,
    StatsDropped,
    StatsOfOtherCaches,
    StatsOfOtherParams,
    StatsSwapped,
    StochasticAsTheFirst,
    WeightsDecay,
)

import funcnet as fn
from funcnet.combinator import child_key
from funcnet.combinators.branching import Branching
from funcnet.combinators.sequential import Serial
from funcnet.testing import law_reach

X = fn.random.normal(0, (4, 3))
NORMED = fn.BatchNorm1d(3)


@fn.frozen
class Unsettled(Halved):
    """A wrapper whose ``inference`` returns the wrapper itself."""

    def inference(self) -> fn.Layer:
        return self


@fn.frozen
class Still(Halved):
    """A wrapper whose ``update_stats`` does nothing."""

    def update_stats(self, params: Any, cache: Any) -> Any:
        return params


@fn.frozen
class Keyless(Halved):
    """A wrapper that does not pass on the key."""

    def apply(self, params: Any, x: Any, rng: Any = None) -> Any:
        return Halved.apply(self, params, x)


@fn.frozen
class OneKey(Serial):
    """A stack that passes its own key to all layers."""

    def apply(self, params: Any, x: Any, rng: Any = None) -> Any:
        caches = []
        for layer, p in zip(self.layers, params, strict=True):
            x, cache = layer.apply(p, x, rng)
            caches.append(cache)
        return x, tuple(caches)


@fn.frozen
class TwinKeys(Branching):
    """Branches whose first two get the same key in ``init``."""

    def init(self, rng: Any) -> Any:
        return tuple([layer.init(fn.fold_in(rng, max(i, 1))) for i, layer in enumerate(self)])


@fn.frozen
class Quiet(Halved):
    """A wrapper that declares that it needs no key."""

    stochastic = False


@fn.frozen
class Plain(fn.Layer):
    """A wrapper on ``Layer`` only, which does not declare the layer in its field."""

    inner: fn.Layer

    def init(self, rng: Any) -> Any:
        return self.inner.init(rng)

    def apply(self, params: Any, x: Any, rng: Any = None) -> Any:
        return self.inner.apply(params, x, rng)

    def vjp(self, params: Any, cache: Any, gy: Any) -> Any:
        return self.inner.vjp(params, cache, gy)


@fn.frozen
class Declaring(Plain):
    """The same, with the layer declared."""

    stochastic = property(lambda self: self.inner.stochastic)
    batch_dependent = property(lambda self: self.inner.batch_dependent)
    has_running_stats = property(lambda self: self.inner.has_running_stats)


@fn.frozen
class Updating(Declaring):
    """The same, which passes on ``update_stats`` too."""

    def update_stats(self, params: Any, cache: Any) -> Any:
        return self.inner.update_stats(params, cache)


@fn.frozen
class Settling(Updating):
    """The same, which passes on ``inference`` too."""

    def inference(self) -> fn.Layer:
        return self.replace(inner=self.inner.inference())


@fn.frozen
class Forgetful(Serial):
    """A wrapper that keeps its last layer instead of a replacement."""

    def with_children(self, children):
        kept = {**children, [*children][-1]: self.layers[-1]}
        return super().with_children(kept)


@fn.frozen
class Greedy(fn.Layer):
    """A layer that declares no key but changes with one."""

    def apply(self, params: Any, x: Any, rng: Any = None) -> Any:
        return (x if rng is None else x + 1), ()

    def vjp(self, params: Any, cache: Any, gy: Any) -> Any:
        return params, gy


DROPPED = (fn.Dropout(0.5), fn.Dropout(0.5))

BROKEN = {
    "inference must reach every layer, but does not reach its layer": Unsettled(NORMED),
    "update_stats must reach every layer, but does not reach its layer": Still(NORMED),
    "apply must pass a key to every stochastic layer, but '' gets none": Keyless(NORMED),
    "apply must give every layer a key, fold_in\\(rng, i\\), but '0' and '1' have the same": OneKey(DROPPED),
    "init must give every layer a key, fold_in\\(rng, i\\), but '0' and '1' have the same": TwinKeys(
        (NORMED, NORMED), fn.Add(), True
    ),
    "stochastic must be True if a layer within has it": Quiet(NORMED),
    "stochastic must be True if a layer within has it: override stochastic, or subclass funcnet.Wrapper": Plain(NORMED),
    "update_stats must reach every layer, but does not reach 'inner': override update_stats, or subclass": Declaring(NORMED),
    "inference must reach every layer, but does not reach 'inner': override inference, or subclass": Updating(NORMED),
    "map_layers must reach every layer in a field, but do not reach 'inner': subclass funcnet.Wrapper": Settling(NORMED),
    "with_children must keep every layer that it is given, but loses '1'": Forgetful((NORMED, NORMED)),
    "a layer that needs no key must ignore one": Greedy(),
    "inference must reach every layer, but does not reach 'box': override inference, or subclass": Boxed(Box(NORMED)),
    "map_layers must reach every layer in a field, but do not reach 'box': subclass": BoxedAndSettled(Box(NORMED)),
    "__call__ must give every layer the key that apply gives it, but does not for its layer": PredictionKeyless(NORMED),
    "update_stats must give its layer the cache that its apply returned, but gives .*: override inner_cache": CacheWithin(NORMED),
}

BROKEN_PAIRS = {
    StochasticAsTheFirst: "stochastic must be True if a layer within has it, even if only 'b' does: override stochastic",
    BatchDependentAsTheFirst: "batch_dependent must be True if a layer within has it, even if only 'b' does",
    StatsAsTheFirst: "has_running_stats must be True if a layer within has it, even if only 'b' does",
    KeyIfTheFirstNeedsOne: "apply must pass a key to every stochastic layer, but 'b' gets none",
    KeyOfTheWhole: r"apply must give every layer a key, fold_in\(rng, i\), but 'b' has rng itself",
    ConstantKeys: "apply must derive the key of every layer from rng, .*, but does not for 'a'",
    InitOfTheWhole: r"init must give every layer a key, fold_in\(rng, i\), but 'b' has rng itself",
    ConstantInit: "init must derive the key of every layer from rng, .*, but does not for 'a', 'b'",
    PredictionWithoutKeys: "__call__ must give every layer the key that apply gives it, but does not for 'a': use child_key",
    PredictionWithOneKey: "__call__ must give every layer the key that apply gives it, but does not for 'a'",
    PredictionKeyIfTheFirstNeedsOne: "__call__ must give every layer the key that apply gives it, but does not for 'b'",
    StatsDropped: "update_stats must return the params that the layers' .*, but does not at 'b.",
    StatsOfOtherParams: "update_stats must give 'a' its own params, but gives those of 'b'",
    StatsOfOtherCaches: "update_stats must give 'a' the cache that its apply returned, but gives that of 'b'",
    StatsSwapped: "update_stats must return the params that the layers' .*, but does not at 'a.",
    WeightsDecay: "update_stats must return the params that the layers' .*, but does not at 'a.",
    OwnLeafLost: "update_stats must return all of params, with its structure; .*'s'",
    OwnLeafReset: "update_stats (must not change params|may change only running statistics).*, but changes 's'",
    OwnLeafReshaped: r"update_stats must keep shapes and dtypes: s must be of \(\(\)",
    ChildrenSwapped: r"with_children must put every layer at its name, but children\(\) has another at 'a', 'b'",
    SettledSwapped: "inference must leave every layer in its place, but has another at 'a', 'b'",
    SettledTwice: "inference must leave every layer in its place, but has another at 'b'",
    SerialSwapped: "inference must leave every layer in its place, but 'a', 'b' then run in the order 'b', 'a'",
    OtherNames: r"the names of children\(\) must be the paths of their params in the result of init, but there is nothing at 'x'",
    NamesSwapped: r"the names of children\(\) must be the paths of their params in the result of init, but those of 'b' are at 'a.",
}

PAIRS = {
    "plain": (fn.Linear(3, 3), fn.Linear(3, 3)),
    "equal": (NORMED, NORMED),
    "noisy": (fn.serial(fn.Dropout(0.5), fn.Linear(3, 3)), NORMED),
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_layer_that_is_not_reached_is_found_with_a_sentence(message: str) -> None:
    """The layer within may be plain: the spies that replace it have all features."""
    for layer in (
        [BROKEN[message]] if not isinstance(BROKEN[message], Halved) else [BROKEN[message], type(BROKEN[message])(fn.Tanh())]
    ):
        with pytest.raises(AssertionError, match=f"law 10, reach: .*{message}"):
            law_reach(layer, X)


@pytest.mark.parametrize("layers", PAIRS)
@pytest.mark.parametrize("broken", BROKEN_PAIRS)
def test_a_layer_with_another_ones_things_is_found(broken: type, layers: str) -> None:
    """The layers within may be plain, equal, or need a key and statistics."""
    with pytest.raises(AssertionError, match=f"law 10, reach: .*{BROKEN_PAIRS[broken]}"):
        law_reach(broken(*PAIRS[layers]), X)


@pytest.mark.parametrize("layers", PAIRS)
@pytest.mark.parametrize("sound", [Pair, Scaled])
def test_the_sound_ones_pass_every_law(sound: type, layers: str) -> None:
    """Broken ones differ from these in one thing."""
    fn.testing.check_laws(sound(*PAIRS[layers]), X, compiled=False)


@pytest.mark.compiled
@pytest.mark.parametrize("layer", [Halved(NORMED), Halved(fn.Dropout(0.5)), Halved(Halved(fn.serial(NORMED, *DROPPED)))])
def test_a_sound_wrapper_passes_every_law(layer: fn.Layer) -> None:
    """A minimal wrapper has two methods."""
    fn.testing.check_laws(layer, X)


def test_the_keys_of_children_are_folded_in_by_number() -> None:
    """Child number i gets ``fold_in(rng, i)``, and one that needs no key gets none."""
    key = fn.key(3)
    assert torch.equal(child_key(fn.Dropout(), key, 2), fn.fold_in(key, 2))
    assert child_key(fn.Tanh(), key, 2) is None
    assert child_key(fn.Dropout(), None, 2) is None
