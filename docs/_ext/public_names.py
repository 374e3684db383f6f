"""Public names: the groups of ``funcnet.__all__``, the names that each module offers, and the members worth showing."""

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import funcnet as fn

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("tree", "random", "initializers", "kernels", "testing", "distributed")
"""The modules whose names are public, beside those of funcnet itself; and those of ``interop``."""

TYPES = {
    **dict.fromkeys(["Params", "Grads", "Cache", "Shape", "Rng"], "funcnet.contract"),
    "State": "funcnet.optim.base",
    "Size": "funcnet.annotations",
    "Key": "funcnet.random.keys",
    "Tree": "funcnet.flattening",
    "Rate": "funcnet.optim.rates",
    "Sizes": "funcnet.layers.conv.window",
    "Pad": "funcnet.layers.conv.padding",
}
"""The names of types in signatures, and the module that defines and explains each."""

INHERITED = ("decode", "init_carry", "memory_carry")
"""Methods for users that several layers inherit from a base of their family."""

INTEROP = ("torch_nn", "onnx", "sklearn", "tensorboard")


@cache
def groups() -> dict[str, list[str]]:
    """Return the names of ``funcnet.__all__`` by group; comments in its source name the groups."""
    listed = (ROOT / "funcnet" / "__init__.py").read_text().partition("__all__")[2]
    found = re.split(r"^    # (.+)\n", listed, flags=re.MULTILINE)[1:]
    return {group: re.findall(r'"(\w+)"', names) for group, names in zip(found[::2], found[1::2], strict=True)}


@cache
def explanations() -> dict[str, str]:
    """Return the explanation of each group in the docstring of the package."""
    return dict(re.findall(r"^    (\S.*?)  +(\S.*)$", fn.__doc__ or "", re.MULTILINE))


def slug(group: str) -> str:
    """Return the name of a group's page."""
    return group.replace(" ", "_")


def value_of(name: str) -> Any:
    """Return the object with a full name, such as ``funcnet.tree.map``."""
    home, _, last = name.rpartition(".")
    if not home:
        return fn
    parent = value_of(home)
    return getattr(parent, last) if hasattr(parent, last) else import_module(name)


def names_in(module: str) -> list[str]:
    """Return the full names that a module offers, except those that ``funcnet`` itself exports and documents."""
    value = value_of(module)
    listed = getattr(value, "__all__", None) or [name for name in dir(value) if name[0] != "_"]
    above = {id(getattr(fn, name)) for name in fn.__all__}
    offered = {name: getattr(value, name) for name in sorted(listed)}
    return [f"{module}.{name}" for name, one in offered.items() if id(one) not in above and is_own(one, module)]


def is_own(value: Any, module: str) -> bool:
    """Return whether a module offers a value or only imports it; a package offers everything that it imports from funcnet."""
    if isinstance(value, ModuleType):
        return False
    home = getattr(value, "__module__", "funcnet" if not callable(value) else "")
    return home.startswith("funcnet") if hasattr(value_of(module), "__path__") else home == module


@cache
def documented() -> dict[str, Any]:
    """Return every full name that the reference must have, and its value."""
    above = [f"funcnet.{name}" for name in fn.__all__]
    modules = [f"funcnet.{name}" for name in MODULES] + [f"funcnet.interop.{name}" for name in INTEROP]
    inside = [name for module in modules for name in names_in(module)]
    return {name: value_of(name) for name in [*above, *inside, *modules[len(MODULES) :]]}


def kind(value: Any) -> str:
    """Return the name of the autodoc directive for a value."""
    if isinstance(value, ModuleType):
        return "module"
    if isinstance(value, type):
        return "exception" if issubclass(value, BaseException) else "class"
    return "function" if inspect.isfunction(inspect.unwrap(value)) else "data"


def members(cls: type) -> list[str]:
    """Return the documented methods and properties that a class adds to all of its bases.

    For classes meant to be subclassed, include the methods that private bases add to public ones: hooks to override.
    """
    public = {id(getattr(fn, name)) for name in fn.__all__}
    is_base = cls.__name__ in {*groups()["bases"], *groups()["contract"]}
    bases = [one for one in cls.__mro__[1:] if not is_base or id(one) in public or not one.__module__.startswith("funcnet")]
    known = {name for base in bases for name in dir(base)}.difference(INHERITED)
    own = [one for one in cls.__mro__ if one not in bases or (one.__module__.startswith("funcnet") and id(one) not in public)]
    found = [name for one in reversed(own) for name, value in vars(one).items() if name[0] != "_" and _has_doc(value)]
    return [name for name in dict.fromkeys(found) if name not in known]


def _has_doc(value: Any) -> bool:
    inner = getattr(value, "__func__", value)
    is_method = inspect.isfunction(inner) or isinstance(inner, property) or hasattr(inner, "func")
    return is_method and bool(getattr(inner, "__doc__", None))


def summary(name: str) -> str:
    """Return the first paragraph of the docstring of a name, in one line."""
    return " ".join(docstring(name).partition("\n\n")[0].split())


def docstring(name: str) -> str:
    """Return the docstring of a name; for data, the string after its assignment, or its type's docstring."""
    value = documented().get(name) if name in documented() else value_of(name)
    if kind(value) != "data":
        return inspect.getdoc(value) or ""
    return next(_strings_after(name.rpartition(".")[2]), None) or inspect.getdoc(type(value)) or ""


def _strings_after(name: str) -> Iterator[str]:
    """Yield the strings that follow an assignment to this name at the top of any module of the package."""
    pattern = re.compile(rf"^{name}(: [^=\n]+)? = ", re.MULTILINE)
    sources = [path.read_text() for path in sorted((ROOT / "funcnet").rglob("*.py"))]
    for source in sources:
        if pattern.search(source):
            yield from strings_after(name, source)


def strings_after(name: str, source: str) -> Iterator[str]:
    """Yield the strings that follow an assignment to this name at the top of a module."""
    for one, after in pairwise(ast.parse(source).body):
        targets = one.targets if isinstance(one, ast.Assign) else [getattr(one, "target", None)]
        said = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else None
        if isinstance(said, str) and name in [getattr(target, "id", None) for target in targets]:
            yield inspect.cleandoc(said)


def said_of_type(name: str) -> str:
    """Return the explanation of a type: the string after its assignment, or the docstring of the class that type checkers see."""
    source = Path(inspect.getfile(import_module(TYPES[name]))).read_text()
    classes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef) and node.name == name]
    return next(strings_after(name, source), None) or "".join(ast.get_docstring(one) or "" for one in classes)
