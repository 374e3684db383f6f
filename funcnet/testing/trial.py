"""Trial: the calls of a layer with spies in place of its inner layers, and the rules that their log must obey.

The spies claim to need a key, to depend on the batch and to have running statistics, first all of them, then one at a time. This
detects a combinator that asks only its first layer.
"""

import inspect
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from torch import Tensor

from funcnet import random, tree
from funcnet.combinator import Combinator
from funcnet.contract import Layer, Params
from funcnet.errors import describe
from funcnet.random.keys import Key
from funcnet.testing.comparison import require, run
from funcnet.testing.spies import CLAIMS, HIDDEN_KEY, NO_KEY_NEEDED, Call, Claims, Log, Spy, cache_tag, inner_layers, with_spies
from funcnet.value import parts
from funcnet.wrapper import Wrapper

_BASES = "or subclass funcnet.Wrapper (one layer, in the field layer) or funcnet.Combinator, which do it"
_CLAIMS_TO_TRY = [Claims(CLAIMS), *[Claims(CLAIMS) - {one} for one in CLAIMS[:2]], Claims(CLAIMS[2:])]
_RUNS = ("apply", "__call__")


class Trial:
    """The verbs of a layer with spies in it, and the checks of their log."""

    def __init__(self, layer: Layer, params: Params, x: Any, rng: Key) -> None:
        self.layer, self.params, self.x, self.rng = layer, params, x, rng
        self.other = random.fold_in(rng, 1_000_003)
        self.log = Log()
        self.claims: dict[str, Claims] = {}
        self.alone: dict[str, Layer] = {}
        for name in inner_layers(layer):
            self.claims[name], self.alone[name] = self._with_one_claiming(name)
        self.spied, self.spies = with_spies(layer, self.log, self.claims)
        self.require = partial(_require, layer)

    def _with_one_claiming(self, name: str) -> tuple[Claims, Layer]:
        """Return the claims that the net accepts from the layer ``name``, and the net in which only this layer makes claims."""
        for claims in _CLAIMS_TO_TRY:
            with suppress(ValueError):
                return claims, with_spies(self.layer, self.log, {name: claims})[0]
        return Claims(), self.layer

    def check(self) -> None:
        """Check the verbs in turn."""
        self._check_places()
        self._check_claim("stochastic", self.spies)
        self._check_claim("has_running_stats", self.spies)
        self._check_init()
        cache, ran = self._check_apply()
        self._check_claim("batch_dependent", {call.name for call in ran if self._sees_x(call)})
        self._check_keys_one_at_a_time(ran)
        self._check_update_stats(cache, ran)
        self._check_inference(ran)

    def check_surrogate(self) -> None:
        """Require that a layer with a surrogate inside is a surrogate. This is last, since every ``Combinator`` passes it."""
        self._check_claim("surrogate", self.spies)

    def _check_places(self) -> None:
        if not isinstance(self.spied, Combinator):
            return
        children = self.spied.children()
        lost = [name for name in self.spies if not isinstance(children.get(name), Spy)]
        self.require(not lost, f"with_children must keep every layer that it is given, but loses {quoted(lost)}")
        moved = [name for name, spy in self.spies.items() if children[name] is not spy]
        self.require(not moved, f"with_children must put every layer at its name, but children() has another at {quoted(moved)}")

    def _check_claim(self, claim: str, names: Any) -> None:
        """Require that the layer has the property if only one inner layer has it."""
        for name in [name for name in names if claim in self.claims[name]]:
            only = f", even if only {quoted([name])} does" if len(self.spies) > 1 else ""
            rule = f"{claim} must be True if a layer within has it{only}: override {claim}, {_BASES}"
            self.require(bool(getattr(self.alone[name], claim)), rule)

    def _check_init(self) -> None:
        params = self.spied.init(self.rng)
        calls = self.log.take("init")
        self._check_keys("init", calls, self.rng)
        self.spied.init(self.other)
        self._check_keys_follow("init", calls, self.log.take("init"))
        if isinstance(self.layer, Combinator) and not isinstance(self.layer, Wrapper):
            self._check_paths(params, calls)

    def _check_paths(self, params: Params, calls: list[Call]) -> None:
        """Require that the names of children are the paths of their params; leaves computed from others are ignored."""
        named = tree.names(params)
        paths: dict[int, list[str]] = {}
        for path, leaf in named.items():
            paths.setdefault(id(leaf), []).append(path)
        rule = "the names of children() must be the paths of their params in the result of init"
        for call in [call for call in calls if tree.leaves(call.result)]:
            names = self._names(call)
            missing = [name for name in names if not any(_is_under(path, name) for path in named)]
            self.require(not missing, f"{rule}, but there is nothing at {quoted(missing)}")
            found = [path for leaf in tree.leaves(call.result) for path in paths.get(id(leaf), [])]
            astray = [path for path in found if not any(_is_under(path, name) for name in names)]
            self.require(not astray, f"{rule}, but those of {quoted(names)} are at {quoted(astray)}")

    def _names(self, call: Call) -> list[str]:
        """Return the names of the spy of a call."""
        return [name for name, spy in self.spies.items() if spy is self.spies[call.name]]

    def _check_apply(self) -> tuple[Any, list[Call]]:
        """Return the cache, and the calls of the inner layers."""
        cache = run(self.spied, self.params, self.x, self.rng)[1]
        calls = self.log.take(*_RUNS)
        self._check_keys("apply", calls, self.rng)
        return cache, calls

    def _check_call(self, spied: Layer, applied: list[Call]) -> None:
        """Require that ``layer(params, x, rng)`` gives the same keys as ``apply``."""
        if not overrides(spied, "__call__"):
            return
        spied(self.params, self.x, self.other)
        got, want = _keys_by_name(self.log.take(*_RUNS)), _keys_by_name(applied)
        strayed = [name for name in got if name in want and got[name] != want[name]]
        rule = f"__call__ must give every layer the key that apply gives it, but does not for {quoted(strayed)}"
        self.require(not strayed, f"{rule}: use child_key in both, or leave __call__ out")

    def _check_keys_one_at_a_time(self, ran: list[Call]) -> None:
        """Run once for each inner layer that can be stochastic, where only this layer is, with another key."""
        ran_once = dict.fromkeys([call.name for call in ran])
        for name in [name for name in ran_once if "stochastic" in self.claims[name]]:
            spied = self.alone[name]
            run(spied, self.params, self.x, self.other)
            calls = [call for call in self.log.take(*_RUNS) if call.name == name]
            self._check_keys("apply", calls, self.other)
            self._check_keys_follow("apply", ran, calls)
            self._check_call(spied, calls)

    def _check_keys(self, verb: str, calls: list[Call], rng: Key) -> None:
        """Require that no key of a method is missing, that no two keys are equal, and that none is the key of the whole."""
        seen: dict[int, str] = {}
        for name, key in [(call.name, call.key) for call in calls if not isinstance(call.key, str)]:
            self.require(key is not None, f"{verb} must pass a key to every stochastic layer, but {name!r} gets none")
            number = int(random.as_key(key))
            rule = f"{verb} must give every layer a key, fold_in(rng, i), but {seen.get(number)!r} and {name!r} have the same"
            self.require(number not in seen, rule)
            seen[number] = name
        if isinstance(self.layer, Combinator) and not isinstance(self.layer, Wrapper):  # a wrapper passes its key on
            rule = f"{verb} must give every layer a key, fold_in(rng, i), but {seen.get(int(rng))!r} has rng itself"
            self.require(int(rng) not in seen, rule)

    def _check_keys_follow(self, verb: str, calls: list[Call], others: list[Call]) -> None:
        """Require that another rng gives other keys."""
        one, other = _keys_by_name(calls), _keys_by_name(others)
        fixed = [name for name in one if {*one[name]} & {*other.get(name, [])} - {HIDDEN_KEY}]
        rule = f"{verb} must derive the key of every layer from rng, fold_in(rng, i), but does not for {quoted(fixed)}"
        self.require(not fixed, rule)

    def _sees_x(self, call: Call) -> bool:
        """Return whether a layer receives more than leaves of params, which have no batch axis."""
        leaves = tree.leaves(self.params)
        return not all(any(one is leaf for leaf in leaves) for one in tree.leaves(call.given))

    def _check_update_stats(self, cache: Any, ran: list[Call]) -> None:
        moved = self.spied.update_stats(self.params, cache)
        calls = self.log.take("update_stats")
        deaf = sorted(self._with_stats(ran) - {call.name for call in calls})
        rule = f"update_stats must reach every layer, but does not reach {quoted(deaf)}: override update_stats, {_BASES}"
        self.require(not deaf, rule)
        for call in calls:
            self._check_arguments(call, ran)
        self._check_moved(moved, calls)

    def _with_stats(self, ran: list[Call]) -> set[str]:
        """Return the layers that can have running statistics: layers that ran and, in a combinator of several, have params."""
        alone = not isinstance(self.layer, Combinator) or isinstance(self.layer, Wrapper)
        return {call.name for call in ran if alone or tree.leaves(call.params)}

    def _check_arguments(self, call: Call, ran: list[Call]) -> None:
        """Require that ``update_stats`` of a layer gets its cache, and no params that only another layer got in ``apply``."""
        whose = [name for name in self.spies if isinstance(call.given, dict) and cache_tag(name) in call.given]
        got = f"that of {quoted(whose)}" if whose else describe(call.given)
        rule = f"update_stats must give {quoted([call.name])} the cache that its apply returned, but gives {got}"
        how = "override inner_cache" if isinstance(self.layer, Wrapper) else "begin the cache with the layers' caches, in order"
        self.require(whose == [call.name], f"{rule}: {how}, or override update_stats")
        own = {id(leaf) for one in ran if one.name == call.name for leaf in tree.leaves(one.params)}
        for one in ran:
            foreign = {id(leaf) for leaf in tree.leaves(one.params)} - own
            rule = f"update_stats must give {quoted([call.name])} its own params, but gives those of {quoted([one.name])}"
            self.require(foreign.isdisjoint(map(id, tree.leaves(call.params))), rule)

    def _check_moved(self, moved: Params, calls: list[Call]) -> None:
        """Require that the result contains what each layer returned, at the paths of the leaves that the layer received."""
        want, returned = tree.names(self.params), dict[str, str]()
        for call in calls:
            after = tree.names(call.result)
            for path, leaf in tree.names(call.params).items():
                for place in [_join(name, path) for name in self._names(call)]:
                    if want.get(place) is leaf:
                        want[place], returned[place] = after[path], call.name
        got = tree.names(moved)
        lost = [place for place in returned if got.get(place) is not want[place]]
        rule = "update_stats must return the params that the layers' update_stats return, each at its layer's place"
        self.require(not lost, f"{rule}, but does not at {quoted(lost)}")

    def _check_inference(self, ran: list[Call]) -> None:
        settled = self.spied.inference()
        rule = f"inference must reach every layer, but does not reach {{}}: override inference, {_BASES}"
        left = {part.spy_name for part in parts(settled) if isinstance(part, Spy) and not part.spy_settled}
        self.require(not left, rule.format(quoted(sorted(left))))
        self._check_settled_places(settled)
        run(settled, self.params, self.x, self.rng)
        calls = self.log.take(*_RUNS)
        left = {call.name for call in calls if not call.settled}
        self.require(not left, rule.format(quoted(sorted(left))))
        now = [call.name for call in calls]
        order = [call.name for call in ran if call.name in now]
        rule = f"inference must leave every layer in its place, but {quoted(order)} then run in the order {quoted(now)}"
        self.require(now * max(1, len(order) // max(1, len(now))) == order, rule)  # an ensemble may run members one by one

    def _check_settled_places(self, settled: Layer) -> None:
        """Require that every spy is at its name, if the layer for inference has layers with the same names."""
        children = inner_layers(settled)
        names = {name: child.spy_name for name, child in children.items() if isinstance(child, Spy)}
        moved = [
            name
            for name, spy in self.spies.items()
            if children.keys() == self.spies.keys() and spy.spy_name != names.get(name, spy.spy_name)
        ]
        rule = f"inference must leave every layer in its place, but has another at {quoted(moved)}"
        self.require(not moved, rule)


def _require(layer: Layer, holds: bool | Tensor, rule: str) -> None:
    require(holds, layer, rule)


def _keys_by_name(calls: list[Call]) -> dict[str, list[Any]]:
    """Return the keys that each layer received, in order, as numbers, ``None`` or words."""
    found: dict[str, list[Any]] = {}
    for name, key in [(call.name, call.key) for call in calls]:
        number = key if key is None or isinstance(key, str) else int(random.as_key(key))
        found.setdefault(name, []).extend([] if number == NO_KEY_NEEDED else [number])
    return found


def _is_under(path: str, name: str) -> bool:
    """Return whether a leaf is under a name in params; ``""`` means all of params."""
    return not name or path == name or path.startswith(f"{name}.")


def _join(name: str, path: str) -> str:
    return ".".join(filter(None, (name, path)))


def overrides(layer: Layer, verb: str) -> bool:
    """Return whether a layer defines a verb, or inherits it from a class other than ``Layer``."""
    return inspect.unwrap(getattr(type(layer), verb)) is not inspect.unwrap(getattr(Layer, verb))


def quoted(names: Iterable[str]) -> str:
    """Format the names of inner layers for errors; the layer of a wrapper has no name."""
    return ", ".join([f"{name!r}" if name else "its layer" for name in names])
