"""Blame: find the first layer in a failing net that also fails alone, with the params, x and key that it received in the net."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from torch import Tensor

from funcnet import random, tree
from funcnet.contract import Layer, Params
from funcnet.kernels.tracing import is_mapped
from funcnet.random.keys import Key
from funcnet.testing.comparison import LawError, run, shown
from funcnet.testing.spies import CLAIMS, Call, Claims, Log, inner_layers, with_spies

Check = Callable[[Layer, Params, Any, Key | int], Any]
"""A function of a layer, params, x and a key that raises ``LawError``."""

_CALLS = 4  # how many calls of one layer are checked, for example of a cell in a scan


class _Wrong(NamedTuple):
    path: str
    layer: Layer
    error: LawError


def check_with_blame(check: Check, layer: Layer, params: Params, x: Any, rng: Key | int) -> Any:
    """Return the result of a check of a layer; for a net, the error names the first inner layer that fails the check too."""
    try:
        return check(layer, params, x, rng)
    except LawError as error:
        wrong = _first_wrong(check, layer, params, x, rng)
        if wrong is None:
            raise
        where = repr(wrong.path) if wrong.path else "the inner one"
        rule = f"{error.rule}; the first wrong layer is {where}, {shown(wrong.layer)}: {wrong.error.rule}"
        raise LawError(rule, layer) from error


def _first_wrong(check: Check, layer: Layer, params: Params, x: Any, rng: Key | int) -> _Wrong | None:
    """Return the first wrong layer inside, in the order of ``apply``; ``None`` if only the whole is wrong."""
    for name, child, call in _calls(layer, params, x, rng):
        key = 0 if call.key is None or isinstance(call.key, str) else call.key
        try:
            check(child, call.params, call.given, key)
        except LawError as error:
            deeper = _first_wrong(check, child, call.params, call.given, key)
            if deeper is None:
                return _Wrong(name, child, error)
            return deeper._replace(path=".".join(filter(None, (name, deeper.path))))
    return None


def _calls(layer: Layer, params: Params, x: Any, rng: Key | int) -> Iterator[tuple[str, Layer, Call]]:
    """Yield the name, layer and arguments of each call of an inner layer, except within ``vmap``, which hides numbers."""
    children, log = inner_layers(layer), Log()
    claims = {name: Claims([claim for claim in CLAIMS if getattr(child, claim)]) for name, child in children.items()}
    with suppress(Exception):  # a net that rejects spies, or fails with them, is blamed as a whole
        run(with_spies(layer, log, claims)[0], params, x, rng)
    seen: dict[str, int] = {}
    for call in log.take("apply", "__call__"):
        seen[call.name] = seen.get(call.name, 0) + 1
        if seen[call.name] <= _CALLS and not _is_hidden(call):
            yield call.name, children[call.name], call


def _is_hidden(call: Call) -> bool:
    leaves = [leaf for leaf in tree.leaves((call.params, call.given)) if isinstance(leaf, Tensor)]
    keys = [] if call.key is None or isinstance(call.key, (str, int)) else [random.as_key(call.key)]
    return any(is_mapped(leaf) for leaf in [*leaves, *keys])
