"""Docstrings: every public name satisfies the rules, and each rule is tested on a docstring that breaks it."""

import types
from typing import Any

import pytest
from house import docstring_rules as rules

import funcnet as fn

PUBLIC = rules.public()


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_says_what_its_kind_must(name: str) -> None:
    """Formula, arguments, shapes, params, cache and errors, as its kind requires."""
    assert rules.problems_of(PUBLIC[name]) == []


def test_every_kind_is_among_the_public_names() -> None:
    """Every rule applies to some name, and the functions of every public module are checked."""
    assert {rules.kind_of(value) for value in PUBLIC.values()} == rules.RULES.keys()
    assert {"Linear", "serial", "mlp", "MSE", "SGD", "random.normal", "tree.map", "testing.check_vjp"} <= PUBLIC.keys()
    kinds = [rules.kind_of(one) for one in (fn.WarmupCosineSchedule, fn.chain, fn.ensemble, fn.Zeros)]
    assert kinds == ["schedule", "optimizer", "combinator", "initializer"]


class Sound(fn.Layer):
    """A layer to document, with params."""

    def __init__(self, size: int, rate: float = 0.1) -> None: ...

    def init(self, rng: Any) -> Any: ...

    def extra(self) -> None:
        """Do something."""


def draw(size: int, rate: float = 0.1) -> None:
    """Raise an error."""
    raise ValueError(size, rate)


BODY = {
    "layer": "    y  = w x\n    gx = gy w\n",
    "combinator": "    y = f(x)\n",
    "block": "    y = f(x)\n",
    "loss": "    ℓ  = (y - t)²\n    gy = 2 (y - t)\n",
    "optimizer": "    p ← p - lr g\n",
    "transform": "    g ← g / 2\n",
    "schedule": "    value = 1 / t\n",
    "metric": "    value = a / b\n",
}
"""The formula of each kind that requires one."""

ARGS = """Args:
    size: How many.
    rate: How fast. Default: ``0.1``.
"""
TAIL = """Shape:
    x (..., in) → y (..., out)

Params:
    weight: (out, in), zeros.

Cache:
    ``x``, not copied.

State:
    ``step``, the number of updates.

Raises:
    ValueError: If the size is negative.

References:
    Somebody 2014, section 3.

>>> 1 + 1
2
"""


def sound(kind: str) -> str:
    """Return a docstring for a kind that breaks no rule."""
    return f"Multiply by a number.\n\n{BODY.get(kind, '')}\nIt is fast.\n\n{ARGS}\n{TAIL}"


def value_of(kind: str) -> Any:
    """Return the value that a docstring of this kind documents."""
    return draw if kind in ("combinator", "block", "function") else Sound


@pytest.mark.parametrize("kind", rules.RULES)
def test_a_sound_docstring_breaks_no_rule(kind: str) -> None:
    """A complete docstring of each kind has no problems."""
    assert rules.problems(kind, sound(kind), value_of(kind)) == []


CHANGES = {
    "two lines of summary": ("number.\n\n", "number.\nIt is given.\n\n", "the summary must be one line"),
    "no period": ("Multiply by a number.", "Multiply by a number", "ends with a period"),
    "an unknown section": ("References:", "Source:", "unknown section Source"),
    "sections in another order": ("Raises:", "Yields:", None),
    "the order": (
        "Shape:\n    x (..., in) → y (..., out)\n\nParams:",
        "Params:\n    weight: (out, in), zeros.\n\nShape:",
        "order",
    ),
    "an empty section": ("    ``x``, not copied.\n", "", "section Cache is empty"),
    "the old style": ("It is fast.", "Raises   ``ValueError`` for a negative size.", "Raises must be a section"),
    "an argument without an entry": ("    size: How many.\n", "", "no entry for size"),
    "an entry for no argument": ("    size:", "    width: How wide.\n    size:", "width, which is no parameter"),
    "arguments in another order": (ARGS, "Args:\n    rate: How fast.\n    size: How many.\n", "in the order"),
    "another default": ("``0.1``", "``0.2``", "rate is 0.2 by default, and it is 0.1"),
    "no shape": ("Shape:\n    x (..., in) → y (..., out)\n\n", "", "section Shape is missing"),
    "no params": ("Params:\n    weight: (out, in), zeros.\n\n", "", "section Params is missing"),
    "no cache": ("Cache:\n    ``x``, not copied.\n\n", "", "section Cache is missing"),
    "no forward formula": ("    y  = w x\n", "", "no indented line with y"),
    "no backward formula": ("    gx = gy w\n", "", "no indented line with gx"),
    "a formula that is not indented": ("    y  = w x\n", "y = w x\n", "no indented line with y"),
}
"""For each change of a layer's docstring: the replaced text, the new text, and words of the problem, or ``None``."""


@pytest.mark.parametrize("change", CHANGES)
def test_a_rule_finds_what_breaks_it(change: str) -> None:
    """There is one problem, which describes the change."""
    old, new, want = CHANGES[change]
    changed = sound("layer").replace(old, new)
    assert changed != sound("layer")
    found = rules.problems("layer", changed, Sound)
    assert [want in one for one in found] == [True] if want else found == []


@pytest.mark.parametrize(
    ("kind", "lacks", "want"),
    [
        ("loss", "    ℓ  = (y - t)²\n", "no indented line with ℓ"),
        ("loss", "    gy = 2 (y - t)\n", "no indented line with gy"),
        ("optimizer", "←", "no indented line with ←"),
        ("transform", "State:\n    ``step``, the number of updates.\n\n", "section State is missing"),
        ("schedule", " / t", "no indented line with an equation in t"),
        ("metric", "    value = a / b\n", "no indented line with value"),
        ("combinator", "Raises:\n    ValueError: If the size is negative.\n\n", "section Raises is missing"),
        ("block", "    y = f(x)\n", "no indented line with y"),
        ("function", "    size: How many.\n", "no entry for size"),
    ],
)
def test_a_rule_of_a_kind_finds_what_is_missing(kind: str, lacks: str, want: str) -> None:
    """The part is removed from a complete docstring."""
    found = rules.problems(kind, sound(kind).replace(lacks, ""), value_of(kind))
    assert [want in one for one in found] == [True]


def test_a_method_without_a_docstring_is_found() -> None:
    """This holds if no base class documents it either."""
    bare = type("Bare", (Sound,), {"verb": types.FunctionType((lambda self: None).__code__, {}), "apply": lambda self: None})
    assert rules.problems("class", "Do nothing.", bare) == ["verb has no docstring"]


def test_a_class_must_have_its_own_docstring() -> None:
    """An inherited docstring does not count."""
    assert rules.problems_of(type("Heir", (fn.Tanh,), {})) == ["no docstring of its own"]
