"""Rules for the docstrings of public names, by kind of name, and a command that lists the problems.

python tests/house/docstring_rules.py funcnet.layers.linear MSE
"""

import ast
import inspect
import re
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import funcnet as fn
from funcnet.initializers.elementary import Initializer
from funcnet.optim.schedules.base import Schedule

SECTIONS = ("Args", "Attributes", "Shape", "Params", "Cache", "State", "Returns", "Yields", "Raises", "Warns", "References")
"""The sections, in order."""


class Said(NamedTuple):
    """A docstring: the body before its sections, the text of each section, and the documented value."""

    body: str
    sections: dict[str, str]
    value: Any


def read(docstring: str, value: Any) -> Said:
    """Parse a docstring; an example after the sections belongs to the body."""
    body, *rest = re.split(r"^([A-Z]\w+):\n", docstring, flags=re.MULTILINE)
    sections = {}
    for name, text in zip(rest[::2], rest[1::2], strict=True):
        inside = re.match(r"(?: {4}.*\n?|\n)*", text)
        sections[name] = inside[0] if inside else ""
        body += text[len(sections[name]) :]
    return Said(body, sections, value)


# the rules: each yields problems


Rule = Callable[[Said], Iterator[str]]


def has_summary(said: Said) -> Iterator[str]:
    """Require one line that ends with a period, then a blank line."""
    first, *rest = said.body.split("\n")
    if not re.search(r"[.:?]$", first.rstrip()):
        yield f"the summary must be one line that ends with a period: {first!r}"
    if rest and rest[0].strip():
        yield f"the summary must be one line: {rest[0]!r} follows it"


def has_known_sections(said: Said) -> Iterator[str]:
    """Require known sections, in order, with indented text."""
    yield from [f"unknown section {name}" for name in said.sections if name not in SECTIONS]
    known = [name for name in said.sections if name in SECTIONS]
    if known != sorted(known, key=SECTIONS.index):
        yield f"sections must come in the order {[name for name in SECTIONS if name in known]}"
    yield from [f"section {name} is empty, or not indented" for name, text in said.sections.items() if not text.strip()]
    old = re.findall(r"^(Params|Cache|Raises|Source|Units|State|Shapes?) {2,}\S", said.body, re.MULTILINE)
    yield from [f"{name} must be a section with a colon" for name in old]


def entries(text: str) -> dict[str, str]:
    """Return the entries of a section, ``name: text``, by name."""
    found = re.split(r"^ {4}(\*{0,2}\w+): ", text, flags=re.MULTILINE)
    return dict(zip([name.lstrip("*") for name in found[1::2]], found[2::2], strict=True))


def parameters(value: Any) -> dict[str, Any]:
    """Return the public parameters of a class or function with their defaults."""
    taken = inspect.signature(value).parameters if callable(value) else {}
    return {name: one.default for name, one in taken.items() if not name.startswith("_")}


def documents_arguments(said: Said) -> Iterator[str]:
    """Require an entry for each parameter, in order, with the default that the code has."""
    want, found = parameters(said.value), entries(said.sections.get("Args", ""))
    yield from [f"Args has no entry for {name}" for name in want if name not in found]
    yield from [f"Args has an entry for {name}, which is no parameter" for name in found if name not in want]
    if set(want) == set(found) and [*want] != [*found]:
        yield f"Args must be in the order {[*want]}"
    for name in want.keys() & found.keys():
        stated = re.search(r"[Dd]efault: ``(.+?)``", found[name])
        if stated and not is_default(stated[1], want[name]):
            yield f"Args says that {name} is {stated[1]} by default, and it is {want[name]!r}"


def is_default(text: str, default: Any) -> bool:
    """Return whether a text is the repr of a default or a literal equal to it."""
    if text == repr(default):
        return True
    try:
        return bool(ast.literal_eval(text) == default)
    except (ValueError, SyntaxError):
        return False


def has_section(name: str) -> Rule:
    """Return the rule that a section exists."""

    def rule(said: Said) -> Iterator[str]:
        if name not in said.sections:
            yield f"section {name} is missing"

    return rule


def has_params(said: Said) -> Iterator[str]:
    """Require a description of the params of a layer that has any."""
    own = any(getattr(said.value, verb, None) is not getattr(fn.Layer, verb) for verb in ("init", "param_shapes"))
    if own and "Params" not in said.sections:
        yield "section Params is missing"


def formula(what: str, pattern: str) -> Rule:
    """Return the rule that an indented line of the body has a formula."""

    def rule(said: Said) -> Iterator[str]:
        lines = [line for line in said.body.split("\n") if line.startswith("    ")]
        if not any(re.search(pattern, line) for line in lines):
            yield f"no indented line with {what}"

    return rule


_EQUALS = r"[ᵢₜ₁]?(?:\[[^\]\n]*\])?(?:\([^)\n]*\))?(?:, [^=\n:]{1,25})? *(?:\+?=|:) "  # an index, arguments, further names
FORWARD = formula("y = ...", rf"(?<![\w(])\(?(y|h'|c'|v_n){_EQUALS}")
BACKWARD = formula("gx = ...", rf"(?<!\w)\(?g(x|a|u|q|r|v|p|θ|p_a|_a|z){_EQUALS}|gx is ``None``")


def says_raises(said: Said) -> Iterator[str]:
    """Require the exceptions of a function that contains a ``raise``."""
    source = ast.parse(textwrap.dedent(inspect.getsource(said.value)))
    if any(isinstance(node, ast.Raise) for node in ast.walk(source)) and "Raises" not in said.sections:
        yield "section Raises is missing"


def documents_methods(said: Said) -> Iterator[str]:
    """Require a docstring for each public method and property that no base class documents."""
    for name, member in vars(said.value).items():
        if (
            name[0] != "_"
            and isinstance(member, (types.FunctionType, property, classmethod, staticmethod))
            and not inspect.getdoc(member)
        ):
            inherited = [getattr(base, name) for base in said.value.__mro__[1:] if hasattr(base, name)]
            if not any(inspect.getdoc(one) for one in inherited):
                yield f"{name} has no docstring"


ALL: list[Rule] = [has_summary, has_known_sections]
RULES: dict[str, list[Rule]] = {
    "layer": [FORWARD, BACKWARD, documents_arguments, has_section("Shape"), has_params, has_section("Cache"), documents_methods],
    "combinator": [FORWARD, documents_arguments, says_raises],
    "block": [FORWARD, documents_arguments, has_section("Shape"), says_raises],
    "loss": [formula("ℓ = ...", r"ℓ\S* += "), formula("gy = ...", r"(∂ℓ/∂y|gy)\S* += "), documents_arguments, has_section("Shape")],
    "optimizer": [formula("←", "←"), documents_arguments, has_section("State")],
    "transform": [formula("←", "←"), documents_arguments, has_section("State")],
    "schedule": [formula("an equation in t", r"=.*(?<!\w)t(?!\w)|(?<!\w)t(?!\w).*="), documents_arguments],
    "initializer": [documents_arguments],
    "metric": [formula("value = ...", r"(?<!\w)value\S* += "), documents_arguments, has_section("Shape")],
    "function": [documents_arguments, says_raises],
    "class": [documents_methods],
    "contract": [documents_methods],
    "module": [],
    "constant": [],
}  # fmt: skip
"""The rules for each kind of public name, in addition to those for all."""

KINDS = {
    "layer": fn.Layer,
    "loss": fn.Loss,
    "optimizer": fn.Optimizer,
    "transform": fn.GradientTransform,
    "schedule": Schedule,
    "initializer": Initializer,
    "metric": fn.Metric,
}
CONTRACTS = {
    *KINDS.values(),
    *(fn.Value, fn.Activation, fn.Combinator, fn.Wrapper, fn.Rearranging, fn.Parametrization, fn.ElementwiseLoss),
    *(fn.MomentOptimizer, fn.MomentTransform, fn.FormulaSchedule, fn.Callback),
}


def kind_of(value: Any) -> str:
    """Return the kind of a public name's value."""
    if isinstance(value, types.ModuleType):
        return "module"
    if not callable(value):
        return "constant"
    if value in CONTRACTS:
        return "contract"
    made = value if isinstance(value, type) else made_by(value)
    kind = next((kind for kind, base in KINDS.items() if made and issubclass(made, base)), "function")
    if isinstance(value, type):
        return "class" if kind == "function" else kind
    if kind == "layer":
        of_layers = value.__module__.startswith(("funcnet.combinators", "funcnet.layers.custom"))
        return "combinator" if of_layers else "block" if value.__module__.startswith("funcnet.blocks") else "function"
    return kind


def made_by(function: Callable[..., Any]) -> type | None:
    """Return the first funcnet class in the return annotation of a function, or ``None``."""
    result = typing.get_type_hints(function).get("return")
    made = (typing.get_args(result) or (result,))[0] if isinstance(result, types.UnionType) else result
    ours = isinstance(made, type) and issubclass(made, tuple(KINDS.values())) and made not in {fn.Optimizer}
    return made if ours else None


def public() -> dict[str, Any]:
    """Return every public name and its value: exports of funcnet, and public names of the exported modules."""
    found = {name: getattr(fn, name) for name in fn.__all__}
    for name, module in [(name, value) for name, value in found.items() if isinstance(value, types.ModuleType)]:
        inner = {f"{name}.{key}": value for key, value in vars(module).items() if key[0] != "_" and callable(value)}
        ours = {key: value for key, value in inner.items() if getattr(value, "__module__", "").startswith(module.__name__)}
        found |= {key: value for key, value in ours.items() if value not in found.values()}
    return found


def problems(kind: str, docstring: str, value: Any) -> list[str]:
    """Return the problems of a docstring for a value of this kind."""
    said = read(docstring, value)
    return [one for rule in (*ALL, *RULES[kind]) for one in rule(said)]


def problems_of(value: Any) -> list[str]:
    """Return the problems of a public name's docstring."""
    if not callable(value) and not isinstance(value, types.ModuleType):
        return []
    if isinstance(value, type) and "__doc__" in vars(value) and not value.__doc__:
        return ["no docstring of its own"]
    return problems(kind_of(value), inspect.getdoc(value) or "", value)


def main(asked: list[str]) -> int:
    """Print the problems of the given names, or of names in modules with the given prefixes."""
    found = {}
    for name, value in public().items():
        if not asked or name in asked or any(getattr(value, "__module__", "").startswith(one) for one in asked if "." in one):
            found[name] = problems_of(value)
    for name, wrong in found.items():
        print(*[f"{name}: {one}" for one in wrong], sep="\n", end="\n" * bool(wrong))
    print(f"{sum(map(bool, found.values()))} of {len(found)} names have problems")
    return int(any(found.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
