"""Signatures of the reference: types as the source writes them (``Size``, not ``int | Any``), defaults as values."""

import ast
import inspect
import json
import textwrap
from collections.abc import Callable
from functools import cache
from inspect import Parameter
from typing import Any

import attrs

KINDS_WITH_STAR = {Parameter.VAR_POSITIONAL: "*", Parameter.VAR_KEYWORD: "**"}


def signature_of(value: Any) -> tuple[str, str | None]:
    """Return the arguments of a class or function in parentheses, followed by the return type of a function."""
    parameters = [*inspect.signature(value).parameters.values()]
    if isinstance(value, type):
        return arguments(parameters, types_of_class(value), defaults_of(value)), None
    source = definition(value)
    types = types_of_function(source) if isinstance(source, ast.FunctionDef) else {}
    returned = written(source.returns) if isinstance(source, ast.FunctionDef) and source.returns else None
    shown = [one for one in parameters if one.name not in ("self", "cls") or one is not parameters[0]]
    return arguments(shown, types, {}), returned


def arguments(parameters: list[Parameter], types: dict[str, str], defaults: dict[str, Any]) -> str:
    """Write parameters with their types and defaults, with ``*`` before the first keyword-only one."""
    shown: list[str] = []
    keyword_only = False
    for one in parameters:
        starred = any(text.startswith("*") for text in shown)
        if one.kind is Parameter.KEYWORD_ONLY and not keyword_only and not starred:
            shown.append("*")
        keyword_only = keyword_only or one.kind is Parameter.KEYWORD_ONLY
        shown.append(argument(one, types.get(one.name), defaults.get(one.name, one.default)))
    return f"({', '.join(shown)})"


def argument(parameter: Parameter, kind: str | None, default: Any) -> str:
    """Write one parameter."""
    name = KINDS_WITH_STAR.get(parameter.kind, "") + parameter.name
    typed = f"{name}: {kind}" if kind else name
    if default is Parameter.empty:
        return typed
    return f"{typed} = {shown_default(default)}" if kind else f"{typed}={shown_default(default)}"


def shown_default(value: Any) -> str:
    """Write a default as a caller would pass it: a function by its name, and a value that has no public expression as dots."""
    if inspect.isroutine(value) or isinstance(value, type):
        return "..." if value.__name__[0] in "_<" else value.__name__
    text = json.dumps(value) if isinstance(value, str) else repr(value)
    return "..." if text.startswith("<") or value is attrs.NOTHING else text


@cache
def definition(value: Callable[..., Any]) -> ast.AST | None:
    """Return the definition of a class or function from its source, without its decorators."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(value)))).body
    except (OSError, TypeError, SyntaxError):
        return None
    return body[0] if body else None


def types_of_class(cls: type) -> dict[str, str]:
    """Return the types of a class's fields, or of the arguments of its ``__init__``, as written in the source."""
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        source = definition(one) if one.__module__.startswith("funcnet") else None
        for part in getattr(source, "body", []):
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                found[part.target.id.lstrip("_")] = written(part.annotation)
            elif isinstance(part, ast.FunctionDef) and part.name in ("__init__", "__new__"):
                found |= types_of_function(part)
    return found


def types_of_function(source: ast.FunctionDef) -> dict[str, str]:
    """Return the types of a function's arguments as written in the source."""
    given = source.args
    every = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
    return {one.arg: written(one.annotation) for one in every if one is not None and one.annotation is not None}


def written(annotation: ast.expr) -> str:
    """Return a type as written in the source, without the quotes around forward references."""
    text = ast.unparse(annotation)
    return text if "Literal[" in text else text.replace("'", "")


def defaults_of(cls: type) -> dict[str, Any]:
    """Return the defaults that attrs makes with a factory."""
    fields = attrs.fields(cls) if attrs.has(cls) else ()
    made = {one.alias or one.name: one.default for one in fields if isinstance(one.default, attrs.Factory)}  # type: ignore[arg-type]
    return {name: "..." if default.takes_self else default.factory() for name, default in made.items()}
