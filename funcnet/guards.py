"""Guards: each wraps one verb of a layer, so that errors name the wrong argument and its location.

They have the only ``try`` of all layers. A successful call pays for one more function call; the functions in ``explanations`` run
only after a verb has failed.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from funcnet.checks import require_sizes
from funcnet.explanations import (
    explain_backward_error,
    explain_error,
    explain_init_error,
    explain_inverse_error,
    explain_update_error,
    raise_explained,
    require_memory,
)
from funcnet.signatures import Verb, parameters_of, with_key


def _guarded_init(init: Verb) -> Verb:
    @functools.wraps(init)
    def guarded(self: Any, rng: Any) -> Any:
        require_memory(self, rng)
        try:
            return init(self, rng)
        except Exception as error:
            require_sizes(self)
            raise_explained(explain_init_error(self, error), error)

    return _marked(guarded)


def _guarded_apply(apply: Verb) -> Verb:
    positional, others = parameters_of(apply)
    has_options = len(positional) > 4 or any(p.kind != p.VAR_POSITIONAL and p.name != "rng" for p in others)
    apply = with_key(apply)

    @functools.wraps(apply)
    def guarded(self: Any, params: Any, x: Any, rng: Any = None) -> tuple[Any, Any]:
        try:
            return apply(self, params, x, rng)  # type: ignore[no-any-return]
        except Exception as error:
            raise_explained(explain_error(self, params, x, error, apply), error)

    @functools.wraps(apply)
    def with_options(self: Any, params: Any, x: Any, rng: Any = None, **options: Any) -> tuple[Any, Any]:
        try:
            return apply(self, params, x, rng, **options)  # type: ignore[no-any-return]
        except Exception as error:
            raise_explained(explain_error(self, params, x, error, apply), error)

    return _marked(with_options if has_options else guarded)


def _guarded_backward(backward: Verb) -> Verb:
    @functools.wraps(backward)
    def guarded(self: Any, params: Any, cache: Any, gy: Any) -> Any:
        try:
            return backward(self, params, cache, gy)
        except Exception as error:
            raise_explained(explain_backward_error(self, params, gy, error), error)

    return _marked(guarded)


def _guarded_inverse(inverse: Verb) -> Verb:
    inverse = with_key(inverse)

    @functools.wraps(inverse)
    def guarded(self: Any, params: Any, y: Any, rng: Any = None) -> Any:
        try:
            return inverse(self, params, y, rng)
        except Exception as error:
            raise_explained(explain_inverse_error(self, params, y, error), error)

    return _marked(guarded)


def _guarded_update(update_stats: Verb) -> Verb:
    @functools.wraps(update_stats)
    def guarded(self: Any, params: Any, cache: Any) -> Any:
        try:
            return update_stats(self, params, cache)
        except Exception as error:
            raise_explained(explain_update_error(self, params, error), error)

    return _marked(guarded)


def _marked(guarded: Verb) -> Verb:
    guarded.guards = True  # type: ignore[attr-defined]
    return guarded


GUARDS: dict[str, Callable[[Verb], Verb]] = {
    "init": _guarded_init,
    "apply": _guarded_apply,
    "__call__": _guarded_apply,
    "vjp": _guarded_backward,
    "grads": _guarded_backward,
    "input_grad": _guarded_backward,
    "update_stats": _guarded_update,
    "inverse": _guarded_inverse,
    "restore": _guarded_inverse,
}


def verbs(cls: type) -> dict[str, Verb]:
    """Return the verbs of a class by name; raise ``TypeError`` for one that is not an ordinary method."""
    for name in GUARDS:
        kind = type(inspect.getattr_static(cls, name))
        if kind in (staticmethod, classmethod, property):
            rule = f"{name} must be a method, def {name}(self, ...)"
            raise TypeError(f"{cls.__name__}: {rule}, got a {kind.__name__}")
    return {name: getattr(cls, name) for name in GUARDS}
