"""Docstrings: what every public name says of itself, and each demand tried on a docstring that lacks it."""

import ast
import inspect
import re
import sys
import textwrap
import types
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch

import funcnet as fn
from funcnet.initializers.elementary import Initializer
from funcnet.optim.schedules.base import Schedule


class Told(NamedTuple):
    """What is said of a name: by its own docstring, and by its module's, as far as that is about it; and the name itself."""

    own: str
    around: str
    value: Any


# the demands: each tells whether what is said has something


def field(name: str) -> Callable[[Told], bool]:
    """Demand a section of this name, with something in it: indented under ``Name:``, or on a line that begins with the word."""
    return lambda told: entry(told, name) != ""


def entry(told: Told, name: str) -> str:
    """Return the text of a section, its lines joined."""
    found = re.search(rf"^{name}(?:  +|:\n +)(\S.*(?:\n {{4,}}\S.*)*)", told.own, re.MULTILINE)
    return re.sub(r"\s+", " ", found[1]) if found else ""


def raises(told: Told) -> bool:
    """Name an exception, or refer to a public name that does."""
    text = entry(told, "Raises")
    referred = re.search(r"\bas ``(\w+)``", text)
    return re.search(r"\w+(Error|Exception)\b", text) is not None or bool(referred and hasattr(fn, referred[1]))


def source(told: Told) -> bool:
    """Cite a paper by its year, name what it is of another library, or say that it is elementary."""
    libraries = r"``(torch|jax|flax|thinc|optax|np|sklearn)\.\w|thinc's|neural-tangents'|Haiku's"
    cited = entry(told, "References") + entry(told, "Source")
    return re.search(rf"[A-Z]\w+.* (19|20)\d\d|{libraries}|elementary", cited) is not None


_AXES = r"\.\.\.|[NTCLS]|\*\w+|in\d?|out|channels|features|length|rows|heads|hidden|bags|segments|classes|\w+_(size|features|dim)"
_EQUALS = r"[ᵢₜ₁]?(?:\[[^\]\n]*\])?(?:\([^)\n]*\))?(?:, [^=\n:]{1,25})? *(?:\+?=|:) "  # an index, arguments, further names


def shapes(told: Told) -> bool:
    """Give a shape in parentheses: axes with commas between them, one at least with a name that axes have here."""
    found = re.findall(r"(?<!\w)\(([^()]*(?:,[^()]*|\.\.\.))\)", told.own + told.around)
    axes = [[axis.strip() for axis in inner.split(",")] for inner in found]
    return any(all(len(axis.split()) < 6 for axis in one) and any(re.fullmatch(_AXES, axis) for axis in one) for one in axes)


def forward(told: Told) -> bool:
    """Give y, or a state, as an equation."""
    return re.search(rf"(?<![\w(])\(?(y|h'|c'|v_n){_EQUALS}", told.own + told.around) is not None


def backward(told: Told) -> bool:
    """Give the gradient of x, or of what a layer has in its place, or say that there is none."""
    return re.search(rf"(?<!\w)\(?g(x|a|u|q|r|v|p|θ|p_a|_a|z){_EQUALS}|gx is ``None``", told.own + told.around) is not None


def loss(told: Told) -> bool:
    """Give the terms ℓ, and their slope or the gradient of y."""
    return (
        re.search(r"ℓ += ", told.own + told.around) is not None
        and re.search(r"(∂ℓ/∂y|gy) += ", told.own + told.around) is not None
    )


def rule(told: Told) -> bool:
    """Say what becomes of gradients or params, as an assignment."""
    return "←" in told.own + told.around


def drawn(told: Told) -> bool:
    """Say from what it is drawn: bounds, a spread, or what every element is."""
    return re.search(r"±|≤ x|std|variance|x = |QR", told.own) is not None


def measured(told: Told) -> bool:
    """Give the value of a metric as an equation."""
    return re.search(r"(?<!\w)value += ", told.own) is not None


def of_the_step(told: Told) -> bool:
    """Give the value as an equation in the step t, or say which one it is of another schedule."""
    return re.search(r"(?<!\w)t(?!\w)", told.own) is not None and " = " in told.own


def units(told: Told) -> bool:
    """Say what is counted, among the units or the arguments: steps, that is updates; or that a rate may be a schedule."""
    return re.search(r"\b(steps?|updates?|schedules?)\b", entry(told, "Units") + entry(told, "Args")) is not None


def reduction(told: Told) -> bool:
    """Say how the terms become one number."""
    return "reduction" in told.own and '"mean"' in told.around + sys.modules[fn.Loss.__module__].__doc__


def arguments(told: Told) -> bool:
    """Name every argument, but those of a class that are a namesake's in torch.nn, or of a class that is named instead."""
    name, named = told.value.__name__, re.findall(r"``(?:torch\.nn\.)?(\w+)", told.own)
    elsewhere = [taken(getattr(torch.nn, other, None)) for other in (*named, name, f"{name}Loss")]
    elsewhere += [taken(getattr(fn, other, None)) for other in named if other != name]
    own = taken(told.value) - set().union(*elsewhere) if isinstance(told.value, type) else taken(told.value)
    return all(re.search(rf"\b{argument}\b", told.own + told.around) for argument in own)


def taken(value: Any) -> set[str]:
    """Return the names of the arguments of a class or a function; none of what there is not."""
    return {name for name in inspect.signature(value).parameters if not name.startswith("_")} if callable(value) else set()


def raises_if_it_does(told: Told) -> bool:
    """Name the exception, where the function itself has a ``raise``."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(told.value)))
    return raises(told) or not any(isinstance(node, ast.Raise) for node in ast.walk(tree))


def methods(told: Told) -> bool:
    """Have a docstring for every public method, which its subclasses do not repeat."""
    own = [value for name, value in vars(told.value).items() if name[0] != "_" and callable(value)]
    return all(inspect.getdoc(method) for method in own)


def sentence(told: Told) -> bool:
    """Begin with a paragraph that ends as a sentence."""
    return told.own.split("\n\n")[0].rstrip().endswith((".", ":"))


Demands = dict[str, Callable[[Told], bool]]
_EQUATIONS: Demands = {"shapes": shapes, "forward": forward, "backward": backward}
KINDS: dict[str, Demands] = {
    "layer": {**_EQUATIONS, "Params": field("Params"), "Cache": field("Cache"), "Raises": raises, "Source": source, "arguments": arguments},
    "combinator": {"forward": forward, "backward": backward, "Params": field("Params"), "Raises": raises, "arguments": arguments},
    "block": {"forward": forward, "shapes": shapes, "Raises": raises, "arguments": arguments},
    "loss": {"formula": loss, "shapes": shapes, "reduction": reduction, "Cache": field("Cache"), "Raises": raises, "Source": source, "arguments": arguments},
    "optimizer": {"formula": rule, "State": field("State"), "Units": units, "Raises": raises, "Source": source, "arguments": arguments},
    "transform": {"formula": rule, "State": field("State"), "Raises": raises, "Source": source, "arguments": arguments},
    "schedule": {"formula": of_the_step, "Units": units, "Raises": raises, "Source": source, "arguments": arguments},
    "initializer": {"formula": drawn, "shapes": shapes, "Raises": raises, "Source": source, "arguments": arguments},
    "metric": {"formula": measured, "shapes": shapes, "Source": source, "arguments": arguments},
    "function": {"arguments": arguments, "Raises": raises_if_it_does},
    "contract": {"methods": methods},
    "module": {},
    "constant": {},
}  # fmt: skip
"""For each kind of public name what it must say, beside a first sentence."""

_CLASSES = {
    "layer": fn.Layer,
    "loss": fn.Loss,
    "optimizer": fn.Optimizer,
    "transform": fn.GradientTransform,
    "schedule": Schedule,
    "initializer": Initializer,
    "metric": fn.Metric,
}
_BASES = {
    fn.Value,
    fn.Activation,
    fn.Combinator,
    fn.Wrapper,
    fn.Rearranging,
    fn.Parametrization,
    fn.ElementwiseLoss,
    fn.MomentOptimizer,
    fn.MomentTransform,
    fn.FormulaSchedule,
    fn.Callback,
}
_CONTRACTS = {*_CLASSES.values(), *_BASES, fn.Fit, fn.History}


def kind_of(value: Any) -> str:
    """Return which kind of public name a value is."""
    if isinstance(value, types.ModuleType):
        return "module"
    if not callable(value):
        return "constant"
    if value in _CONTRACTS:
        return "contract"
    made = value if isinstance(value, type) else made_by(value)
    kind = next((kind for kind, base in _CLASSES.items() if made and issubclass(made, base)), "function")
    if kind == "layer" and not isinstance(value, type):
        of_layers = value.__module__.startswith(("funcnet.combinators", "funcnet.layers.custom"))
        return "combinator" if of_layers else "block" if value.__module__.startswith("funcnet.blocks") else "function"
    return kind


def made_by(function: Callable[..., Any]) -> type | None:
    """Return the class whose value a function makes, of several the first; ``None`` where it makes none of ours."""
    result = typing.get_type_hints(function).get("return")
    made = (typing.get_args(result) or (result,))[0] if isinstance(result, types.UnionType) else result
    ours = isinstance(made, type) and issubclass(made, tuple(_CLASSES.values())) and made not in {fn.Optimizer}
    return made if ours else None


def public() -> dict[str, Any]:
    """Return every public name and its value: what funcnet exports, and what the modules among that define."""
    found = {name: getattr(fn, name) for name in fn.__all__}
    for name, module in [(name, value) for name, value in found.items() if isinstance(value, types.ModuleType)]:
        inner = {f"{name}.{key}": value for key, value in vars(module).items() if key[0] != "_" and callable(value)}
        ours = {key: value for key, value in inner.items() if getattr(value, "__module__", "").startswith(module.__name__)}
        found |= {key: value for key, value in ours.items() if value not in found.values()}
    return found


PUBLIC = public()


def stem(name: str) -> str:
    """Return a layer's name as its family's formulas have it."""
    return re.sub(r"^Running|\dd$", "", name)


def told(value: Any) -> Told:
    """Collect what is said of a public name.

    A module speaks of a layer that it names, and of all it has where it has but one. Of what a function makes speaks the class
    too, unless it is public itself.
    """
    own, module = inspect.getdoc(value) or "", inspect.getmodule(value)
    made = made_by(value) if callable(value) and not isinstance(value, type) else None
    if made is not None and not inspect.isabstract(made):
        own += "\n\n" + (inspect.getdoc(made) or "")
    around = (inspect.getdoc(module) or "") if module and module is not value else ""
    family = {stem(other.__name__) for other in PUBLIC.values() if isinstance(other, type) and inspect.getmodule(other) is module}
    speaks = not isinstance(value, type) or len(family) < 2 or re.search(rf"\b{stem(value.__name__)}(\dd)?\b", around)
    return Told(own, around if speaks else "", value)


def missing(kind: str, said: Told) -> list[str]:
    """Return what a name of this kind should say and does not."""
    return [name for name, says in {"sentence": sentence, **KINDS[kind]}.items() if not says(said)]


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_says_what_its_kind_must(name: str) -> None:
    """Formula, shapes, units, errors and source, each where its kind has it."""
    assert missing(kind_of(PUBLIC[name]), told(PUBLIC[name])) == []


def test_every_kind_is_among_the_public_names() -> None:
    """So that no demand is made of nothing; and every submodule that is exported has its functions judged."""
    assert {kind_of(value) for value in PUBLIC.values()} == KINDS.keys()
    assert {"Linear", "serial", "mlp", "MSE", "SGD", "random.normal", "tree.map", "testing.check_vjp"} <= PUBLIC.keys()
    assert {kind_of(fn.WarmupCosineSchedule), kind_of(fn.chain), kind_of(fn.ensemble), kind_of(fn.Zeros)} == {
        *("schedule", "optimizer", "combinator", "initializer"),
    }


# the judge on names of which it knows what they lack


def draw(count: int, spread: float) -> None:
    """Take ``count`` and ``spread``."""
    if spread < 0:
        raise ValueError(count)


class Drawn:
    """Something made of two numbers."""

    def __init__(self, count: int, spread: float) -> None: ...


class Contract:
    """Something with a method."""

    def verb(self) -> None:
        """Do something."""


class Wordless:
    def verb(self) -> None: ...


_LAYER = """Product with ``count`` numbers, of this ``spread``, for each feature.

Params   ``weight`` (in,), ones.
Cache    ``x``.
Raises   ``ValueError`` for another size.
Source   Somebody & Another 2014, section 3.
"""
_OPTIMIZER = """Steps down, by ``count`` and ``spread``.

State    ``step``.
Units    ``lr`` is a rate; a schedule counts updates.
Raises   ``ValueError`` for what is wrong.
Source   ``torch.optim.SGD``.
"""
_VALUE = """Drawn with std = 1 / √in, or a loss by its reduction, or at step t rate = 1, or value = 1; by ``count`` and ``spread``.

State    ``{}``.
Cache    ``y``.
Units    in steps.
Raises   ``ValueError`` as ``MSE`` does.
Source   elementary.
"""
_MODULE = "y = w x,    gx = w gy,    ℓ = d²,    gy = 2 d,    p ← p - g,    x (..., in)"
_FUNCTION = """Take ``count`` and ``spread``.

Params   none.
Raises   ``ValueError`` for a spread below 0.
"""
SOUND = {
    "layer": Told(_LAYER, _MODULE, Drawn),
    "combinator": Told(_FUNCTION, _MODULE, draw),
    "block": Told(_FUNCTION, _MODULE, draw),
    "loss": Told(_VALUE, _MODULE, Drawn),
    "optimizer": Told(_OPTIMIZER, _MODULE, Drawn),
    "transform": Told(_VALUE, _MODULE, Drawn),
    "schedule": Told(_VALUE, "", Drawn),
    "initializer": Told(_VALUE, _MODULE, Drawn),
    "metric": Told(_VALUE, _MODULE, Drawn),
    "function": Told(_FUNCTION, "", draw),
    "contract": Told("Something with a method.", "", Contract),
    "module": Told("Something.", "", fn.tree),
    "constant": Told("Something.", "", fn.stop),
}
LACKING = {
    "sentence": [("each feature.", "each feature"), ("std = 1 / √in, or a loss by its reduction, or at step t rate = 1, or value = 1; by ``count`` and ``spread``.", "a std = reduction, rate = t, value = 1"), ("``spread``.", "``spread``"), ("spread``.", "spread``"), ("method.", "method"), ("Something.", "Something")],
    "shapes": [("(in,)", "in"), ("(..., in)", "")],
    "forward": [("y = w x,    ", "")],
    "backward": [("gx = w gy,    ", "")],
    "Params": [("Params   ", "")],
    "Cache": [("Cache    ", "")],
    "State": [("State    ", "")],
    "Units": [("updates", "what happens"), ("schedule", "rule"), ("steps", "seconds")],
    "Raises": [("``ValueError``", "an error"), ("``MSE``", "``Nobody``")],
    "Source": [("Somebody & Another 2014, section 3", "a book"), ("``torch.optim.SGD``", "known"), ("elementary", "somewhere")],
    "reduction": [("reduction", "mean")],
    "arguments": [("spread", "width")],
    "formula": [("ℓ = d²", "d²"), ("←", "is"), ("std = 1 / √in", "a width"), (" rate = 1", " 1"), ("step t", "a step"), ("value = 1", "1")],
}  # fmt: skip
"""For each demand what is taken from the sound docstrings so that it is not fulfilled."""


def without(said: Told, demand: str) -> Told:
    """Take from what is said all that fulfils a demand."""
    own, around, value = said
    for old, new in LACKING.get(demand, ()):
        own, around = own.replace(old, new), around.replace(old, new)
    return Told(own, around, Wordless if demand == "methods" else value)


@pytest.mark.parametrize("kind", KINDS)
def test_the_judge_passes_what_lacks_nothing(kind: str) -> None:
    """For every kind there is a docstring of which nothing is missing."""
    assert missing(kind, SOUND[kind]) == []


@pytest.mark.parametrize(("kind", "demand"), [(kind, demand) for kind in KINDS for demand in ("sentence", *KINDS[kind])])
def test_the_judge_finds_what_is_missing(kind: str, demand: str) -> None:
    """Each demand by itself, taken from a docstring that has everything."""
    assert demand in missing(kind, without(SOUND[kind], demand))


PROSE = {
    "shapes": "A product (cross-correlation, as everywhere), max(0, x), of (before, after).",
    "forward": "It yields what any = says.",
    "backward": "gives: nothing = good",
    "Source": "Source   the year 2014.",
    "Raises": "Raises   an error as ``Somebody`` says.",
}


@pytest.mark.parametrize("demand", PROSE)
def test_the_judge_is_not_content_with_prose(demand: str) -> None:
    """Parentheses are no shape, equals signs no formula, a number no source."""
    assert not KINDS["layer"][demand](Told(PROSE[demand], "", fn.Scale))


def test_a_family_speaks_for_those_alone_that_it_names() -> None:
    """The formulas of a module of several layers are those of the layers named there."""
    assert "GELU" in told(fn.GELU).around
    assert told(fn.Conv2d).around == told(fn.Conv1d).around != ""
    stranger = type("Stranger", (fn.GELU,), {"__module__": fn.GELU.__module__, "__doc__": "Nobody."})
    assert told(stranger).around == ""
