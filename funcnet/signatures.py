"""Signatures: how a user's ``apply`` is called, whatever its parameters, and how a user's function is printed."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch

Verb = Callable[..., Any]


def with_key(apply: Verb) -> Verb:
    """Make an ``apply`` without ``rng``, or with a keyword-only ``rng``, callable like any other."""
    positional, others = parameters_of(apply)
    if len(positional) > 3 or any(p.kind == p.VAR_POSITIONAL for p in others):
        return apply
    by_name = any(p.kind == p.VAR_KEYWORD or p.name == "rng" for p in others)

    @functools.wraps(apply)
    def keyless(self: Any, params: Any, x: Any, rng: Any = None, **options: Any) -> Any:
        return apply(self, params, x, **options)

    @functools.wraps(apply)
    def named(self: Any, params: Any, x: Any, rng: Any = None, **options: Any) -> Any:
        return apply(self, params, x, rng=rng, **options)

    return named if by_name else keyless


def parameters_of(verb: Verb) -> tuple[list[inspect.Parameter], list[inspect.Parameter]]:
    """Return the positional parameters, self included, and the others."""
    parameters = inspect.signature(verb, follow_wrapped=False).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return positional, [p for p in parameters if p not in positional]


def accepts_one_argument(f: Callable[..., Any]) -> bool:
    """Return whether a function can be called with one argument: yes if its signature is unknown, no for a class or module."""
    if callable(getattr(f, "named_parameters", None)):  # a module of torch takes tensors
        return False
    try:
        inspect.signature(f).bind(None)
    except TypeError:
        return False
    except ValueError:
        return not isinstance(f, type)
    return not isinstance(f, type)


def name_of(f: Callable[..., Any]) -> str:
    """Name a function so that it can be found again: ``torch.sin`` for one of torch, else its qualified name in its module."""
    name = getattr(f, "__name__", "")
    return f"torch.{name}" if getattr(torch, name, None) is f else getattr(f, "__qualname__", repr(f))
