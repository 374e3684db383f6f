"""House rules for the source of every file in the package; each check is tested on code that breaks it."""

import ast
import functools
import re
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import funcnet

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUNTIME = {"torch", "attrs", "typing-extensions"}
MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_FUNCTION = 300, 25

FLOORS = {
    5: ["", "__main__", "interop", "distributed"],
    4: [
        *[
            "fitting",
            "saving",
            "range_test",
            "train",
            "gradients",
            "layerwise",
            "places",
            "compilation",
            "summaries",
            "metering",
            "drawing",
        ],
        "transforms",
    ],
    3: ["blocks", "combinators"],
    2: ["layers", "losses", "optim", "metrics", "testing"],
    1: [
        *["contract", "plans", "naming", "probes", "combinator", "wrapper", "stand_ins", "walking", "sizes", "outline"],
        *["initializers", "kernels"],
    ],
    0: [
        *[
            "tree",
            "annotations",
            "paths",
            "precision",
            "flattening",
            "codec",
            "random",
            "errors",
            "indentation",
            "tables",
            "statistics",
            "markup",
            "charts",
        ],
        *["arguments", "checks", "explanations", "guards", "lazy_imports", "signatures", "traits", "value"],
    ],
}
FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names}

AUTOGRAD = ["torch.nn", "torch.autograd", "torch.optim"]
AUTOGRAD += [
    f"torch.func.{name}" for name in ("grad", "grad_and_value", "vjp", "jvp", "jacrev", "jacfwd", "hessian", "linearize")
]
INTERNALS = ["torch.ops", "torch._C"]
MARKS_OF_AUTOGRAD = {"requires_grad", "requires_grad =", "requires_grad=", "requires_grad_", "grad_fn"}


def module_name(path: Path) -> str:
    """Return the module name of a file, such as ``funcnet.layers.linear``; that of an ``__init__.py`` is the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path.read_text() for path in sorted((ROOT / "funcnet").rglob("*.py"))}
TESTS = {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted((ROOT / "tests").rglob("*.py"))}


# the checks: each lists the problems of source text


@functools.cache
def parsed(source: str) -> ast.Module:
    """Parse source text once for all checks."""
    return ast.parse(source)


def wrong_imports(name: str, source: str, modules: set[str]) -> list[str]:
    """List the imports within the package that name neither a module nor a name in the module that defines it."""
    packages = {module.rpartition(".")[0] for module in modules} - {""}
    problems = []
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            problems.append(f"{name}:{node.lineno} imports by a relative path")
        elif isinstance(node, ast.ImportFrom) and node.module in packages:
            through = [alias.name for alias in node.names if f"{node.module}.{alias.name}" not in modules]
            problems += [f"{name}:{node.lineno} imports {what} through the package {node.module}" for what in through]
        elif isinstance(node, ast.ImportFrom) and _inside(node.module or "", "funcnet") and node.module not in modules:
            problems.append(f"{name}:{node.lineno} imports from {node.module}, which is no module")
        elif isinstance(node, ast.Import):
            inner = [alias.name for alias in node.names if _inside(alias.name, "funcnet")]
            problems += [f"{name}:{node.lineno} imports {what} through the package funcnet" for what in inner]
    return problems


def imported(source: str, modules: set[str]) -> set[str]:
    """Return the package's modules that source imports, also inside functions."""
    found = set()
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *[f"{node.module}.{alias.name}" for alias in node.names]}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & modules - {"funcnet"}


def floor(name: str) -> int:
    """Return the floor (level in the order of imports) of a module."""
    return FLOOR_OF[name.partition(".")[2].partition(".")[0]]


def steps_up(name: str, source: str, modules: set[str]) -> list[str]:
    """List the imports from higher floors."""
    higher = [other for other in sorted(imported(source, modules)) if floor(other) > floor(name)]
    return [f"{name}, on floor {floor(name)}, imports {other}, on floor {floor(other)}" for other in higher]


def circles(sources: dict[str, str]) -> list[str]:
    """List a circle of imports, if there is one."""
    try:
        TopologicalSorter({name: imported(source, set(sources)) for name, source in sources.items()}).prepare()
    except CycleError as error:
        return [" imports ".join(reversed(error.args[1]))]
    return []


def never_imported(sources: dict[str, str]) -> list[str]:
    """Return the modules, except packages, that no other module imports; ``_MODULES`` are imported on first use."""
    used = {one for name, source in sources.items() for one in imported(source, set(sources)) - {name}}
    used |= {f"{name}.{one}" for name, source in sources.items() for one in _on_first_use(source)}
    used |= {name.rpartition(".")[0] for name in sources}
    return sorted(sources.keys() - used)


def _on_first_use(source: str) -> list[str]:
    found = re.search(r"^_MODULES = (\(.+\))$", source, re.M)
    return list(ast.literal_eval(found[1])) if found else []


def strangers(name: str, source: str) -> list[str]:
    """List imports at the top of a module from other packages that are not runtime dependencies."""
    tops = parsed(source).body
    at_top = [node for top in tops for node in ast.walk(top) if not isinstance(top, (ast.FunctionDef, ast.ClassDef))]
    names = [alias.name for node in at_top if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in at_top if isinstance(node, ast.ImportFrom)]
    known = {"funcnet", *[dependency.replace("-", "_") for dependency in RUNTIME], *sys.stdlib_module_names}
    return [f"{name} imports {what} at its top" for what in names if what.partition(".")[0] not in known]


def _inside(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def _dotted(node: ast.AST) -> str:
    """Return the dotted name of nested attributes."""
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _names_used(source: str) -> Iterator[tuple[int, str]]:
    """Yield each dotted name that is imported or used, with its line; ``torch as``, ``x.y =`` and ``argument=`` also count."""
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
            yield from ((node.lineno, f"{alias.name} as") for alias in node.names if alias.asname)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, (ast.Attribute, ast.Name)):
            yield node.lineno, _dotted(node) + " =" * isinstance(node.ctx, ast.Store)
        elif isinstance(node, ast.keyword):
            yield node.value.lineno, f"{node.arg}="


def names_of_autograd(name: str, source: str) -> list[str]:
    """List the uses of autograd, torch.nn and torch.optim, and other names for torch that could hide them.

    Kernels may read ``requires_grad``, so that they work within a user's autograd.
    """
    marks = MARKS_OF_AUTOGRAD - {"requires_grad"} if _inside(name, "funcnet.kernels") else MARKS_OF_AUTOGRAD
    used = [*_names_used(source)]
    bad = [(line, what) for line, what in used if any(_inside(what, module) for module in AUTOGRAD)]
    bad += [(line, what) for line, what in used if what.rpartition(".")[2] in marks or what == "torch as"]
    return [f"{name}:{line} uses {what}" for line, what in bad]


def names_of_internals(name: str, source: str) -> list[str]:
    """List the uses of ``torch.ops`` and ``torch._C``."""
    bad = [(line, what) for line, what in _names_used(source) if any(_inside(what, module) for module in INTERNALS)]
    return [f"{name}:{line} uses {what}" for line, what in bad]


def private_names(name: str, source: str) -> list[str]:
    """List the uses of torch's private names."""
    given = [
        (line, what.replace("_aten.", "torch.ops.aten.").replace("_nn.", "torch._C._nn.")) for line, what in _names_used(source)
    ]
    bad = [(line, what) for line, what in given if re.match(r"torch(\.\w+)*\._[a-zA-Z]", what)]
    return [f"{name}:{line} uses {what}" for line, what in bad]


def loose_zips(name: str, source: str) -> list[str]:
    """List the calls of ``zip`` without ``strict=True``."""
    calls = [node for node in ast.walk(parsed(source)) if isinstance(node, ast.Call) and _dotted(node.func) == "zip"]
    loose = [call for call in calls if "strict=True" not in [ast.unparse(keyword) for keyword in call.keywords]]
    return [f"{name}:{call.lineno} zips without strict=True" for call in loose]


def globals_set(name: str, source: str) -> list[str]:
    """List the ``global`` statements."""
    return [f"{name}:{node.lineno} sets a global" for node in ast.walk(parsed(source)) if isinstance(node, ast.Global)]


def long_functions(name: str, source: str) -> list[str]:
    """List the functions whose body, without its docstring, is too long."""
    problems = []
    for node in ast.walk(parsed(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            problems += [f"{name}.{node.name} has {lines} lines"] * (lines > MOST_LINES_OF_A_FUNCTION)
    return problems


def long_files(name: str, source: str) -> list[str]:
    """List the file if it is too long; the list of public names can have any length."""
    lines = len(source.splitlines())
    return [f"{name} has {lines} lines"] * (lines > MOST_LINES_OF_A_FILE and name != "funcnet")


def undocumented(name: str, source: str) -> list[str]:
    """List the public classes and functions without a docstring, and the module if it has none but has code."""
    module = parsed(source)
    public = [node for node in module.body if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_"]
    public = [node for node in public if "overload" not in map(_dotted, node.decorator_list)]
    bare = [f"{name}.{node.name}" for node in public if not ast.get_docstring(node)]
    is_code = any(not isinstance(node, (ast.Import, ast.ImportFrom, ast.Assign)) for node in module.body)
    return [f"{what} has no docstring" for what in [*[name] * (is_code and not ast.get_docstring(module)), *bare]]


def wrong_exports(source: str) -> list[str]:
    """List the exports that are not public, listed twice, out of order, or missing from the imports or from ``__all__``."""
    module = ast.parse(source)
    lazy = [node for node in module.body if isinstance(node, ast.If) and ast.unparse(node.test) == "not is_lazy(__name__)"]
    body = lazy[0].body if lazy else module.body  # next to lazy exports are imports that make them lazy, and imports of operators
    imports = [node for node in body if isinstance(node, ast.ImportFrom)]
    names = [alias.name for node in imports for alias in node.names]
    listed = _listed_in_all(module)
    inits = [node for node in {*module.body, *body} - {*lazy} if not _may_stand_in_init(node)]
    problems = [f"line {node.lineno} is no export" for node in inits]
    problems += [f"{name} is listed twice" for name in sorted({name for name in listed if listed.count(name) > 1})]
    problems += [f"{name} is imported twice" for name in sorted({name for name in names if names.count(name) > 1})]
    problems += [f"{name} is not in __all__" for name in sorted({*names} - {*listed})]
    problems += [f"{name} is in __all__ and not imported" for name in sorted({*listed} - {*names})]
    modules = [node.module for node in imports]
    return problems + [f"{other} is after {one}" for one, other in pairwise(modules) if one >= other]


def _listed_in_all(module: ast.Module) -> list[str]:
    for node in module.body:
        if isinstance(node, ast.Assign) and _dotted(node.targets[0]) == "__all__":
            return [*ast.literal_eval(node.value)]
    return []


def _may_stand_in_init(node: ast.AST) -> bool:
    """Accept a docstring, ``__all__``, ``__version__``, and ``from funcnet.module import Name, Other`` for public names.

    A module imported only for its effect is ``from funcnet.folder import module as _module``.
    """
    if isinstance(node, ast.Assign):
        return _dotted(node.targets[0]) in ("__all__", "__version__")
    if not isinstance(node, ast.ImportFrom):
        return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    public = all(alias.asname in (None, f"_{alias.name}") and alias.name[0] not in "_*" for alias in node.names)
    return node.level == 0 and _inside(node.module or "", "funcnet") and public


def undescribed_groups(source: str) -> list[str]:
    """List the groups of ``__all__`` (its comments) that are missing from the docstring, and those only in the docstring."""
    groups = re.findall(r"^    # (.+)$", source[source.index("__all__") :], re.MULTILINE)
    described = re.findall(r"^    (\S.*?)  +\S", ast.get_docstring(ast.parse(source), clean=False) or "", re.MULTILINE)
    return sorted({*groups} ^ {*described})


def shared_names(modules: set[str], functions: set[str]) -> list[str]:
    """List the public functions that share their name with a module."""
    return sorted({module.rpartition(".")[2] for module in modules} & functions)


def skipping(name: str, source: str) -> list[str]:
    """List the tests that are skipped or expected to fail."""
    words = {"skip", "skipif", "xfail", "importorskip", "SkipTest"}
    used = [(line, what) for line, what in _names_used(source) if what.rpartition(".")[2] in words]
    return [f"{name}:{line} uses {what}" for line, what in used]


def claims_missing(name: str, source: str) -> list[str]:
    """List the tests without a docstring, and the names given to two tests."""
    functions = [node for node in parsed(source).body if isinstance(node, ast.FunctionDef) and node.name.startswith("test")]
    names = [node.name for node in functions]
    problems = [f"{name}.{node.name} has no docstring" for node in functions if not ast.get_docstring(node)]
    return problems + [f"{name}.{twice} is defined twice" for twice in sorted({n for n in names if names.count(n) > 1})]


def not_satisfied(requirements: list[str], constraints: str) -> list[str]:
    """List requirements without a pin, pins outside the range of their requirement, and pins without a requirement."""
    pins = dict(line.split("==") for line in constraints.split() if line)
    pinned = {canonicalize_name(name): Version(version) for name, version in pins.items()}
    parsed = [Requirement(text) for text in requirements]
    wanted = {canonicalize_name(requirement.name) for requirement in parsed}
    problems = [f"{name} is not pinned" for name in sorted(wanted - pinned.keys())]
    problems += [f"{name} is pinned for nothing" for name in sorted(pinned.keys() - wanted)]
    for requirement in parsed:
        version = pinned.get(canonicalize_name(requirement.name))
        if version is not None and not requirement.specifier.contains(version):
            problems.append(f"{requirement} excludes {version}")
    return problems


# the package satisfies the checks


def all_problems(check, sources, *arguments):
    """List the problems that a check finds in any source; each problem names its module."""
    return [problem for name, source in sources.items() for problem in check(name, source, *arguments)]


def outside(package):
    """Return the modules of funcnet that are not in a package."""
    return {name: source for name, source in SOURCES.items() if not _inside(name, package)}


def test_every_module_has_a_floor():
    """Every module is listed in ``FLOORS`` above."""
    assert [name for name in SOURCES if name.partition(".")[2].partition(".")[0] not in FLOOR_OF] == []


def test_modules_import_from_lower_floors_or_their_own():
    """Imports go only to lower floors or the same one."""
    assert all_problems(steps_up, SOURCES, set(SOURCES)) == []


def test_modules_import_from_the_concrete_module():
    """No module imports through the package root or a folder's ``__init__.py``."""
    assert all_problems(wrong_imports, SOURCES, set(SOURCES)) == []


def test_no_modules_import_each_other_in_a_circle():
    """The modules of one floor have an order, too."""
    assert circles(SOURCES) == []


def test_every_module_is_imported():
    """A module that was split must not remain next to its parts."""
    assert never_imported(SOURCES) == ["funcnet.__main__"]


def test_modules_import_only_runtime_dependencies_at_their_top():
    """Extras are imported where they are used; only the estimators, which subclass scikit-learn's, import it at the top."""
    assert all_problems(strangers, outside("funcnet.interop.sklearn")) == []
    within = {name: source for name, source in SOURCES.items() if _inside(name, "funcnet.interop.sklearn")}
    allowed = ("sklearn", "numpy", "scipy.special")  # scipy comes with scikit-learn
    found = all_problems(strangers, within)
    assert [one for one in found if not one.split(" imports ")[1].startswith(allowed)] == []
    assert [name for name in SOURCES if name not in within and imported(SOURCES[name], set(within))] == []


def test_there_is_no_autograd_inside():
    """The same holds for torch.nn and torch.optim: only ``interop`` uses them, and law 11 uses ``torch.func``.

    ``kernels.plain`` detects transforms with an autograd function that torch rejects within them, and the constructor of DTensors
    in ``distributed.param_shards`` needs ``requires_grad=False``.
    """
    found = all_problems(names_of_autograd, outside("funcnet.interop"))
    apart = ("funcnet.testing.second_order:", "funcnet.kernels.plain:", "funcnet.distributed.sharding.param_shards:")
    assert [one for one in found if not one.startswith(apart)] == []


def test_torchs_internals_are_named_in_kernels_only():
    """Only kernels use ``torch.ops`` and ``torch._C``."""
    assert all_problems(names_of_internals, outside("funcnet.kernels")) == []


MAY_USE = {
    "funcnet.distributed.sharding.placements": [
        "torch.distributed.tensor.placement_types._StridedShard"
    ],  # exists in all releases with DTensor
    "funcnet.compilation.inductor": [
        "torch._inductor",
        "torch._dynamo.convert_frame",
        "torch._dynamo.exc",
    ],  # imported on demand, each in a ``try``
    "funcnet.compilation.options": ["torch._inductor"],  # ``list_options``, in a ``try``
    "funcnet.interop.exporting": ["torch._inductor"],  # ``aoti_compile_and_package`` is documented
    "funcnet.testing": ["torch._dynamo"],  # ``config`` is documented
}


def test_torchs_private_names_are_looked_up_in_one_place():
    """Each has a plain fallback for releases that lack it; private names appear only in strings."""
    found = all_problems(private_names, SOURCES)
    known = [(name, what) for name, whats in MAY_USE.items() for what in whats]
    uses = {pair: [one for one in found if one.startswith(pair[0]) and pair[1] in one] for pair in known}
    assert sorted({one for ones in uses.values() for one in ones} ^ {*found}) == []
    assert [pair for pair, ones in uses.items() if not ones] == []


@pytest.mark.parametrize("check", [loose_zips, globals_set, long_functions, long_files, undocumented])
def test_source_keeps_to_the_rules(check):
    """Zips are strict, there are no globals, functions and files are short, and public names have docstrings."""
    assert all_problems(check, SOURCES) == []


def test_the_public_names_are_imported_and_listed_by_group():
    """Each name is listed once, also in ``__all__``, and the docstring explains every group in one line."""
    assert wrong_exports(SOURCES["funcnet"]) == []
    assert undescribed_groups(SOURCES["funcnet"]) == []


def test_no_public_function_has_the_name_of_a_module():
    """``from funcnet import layer`` would be ambiguous."""
    functions = {name for name in _listed_in_all(ast.parse(SOURCES["funcnet"])) if f"funcnet.{name}" not in SOURCES}
    assert shared_names(set(SOURCES), functions) == []


def test_the_version_is_that_of_the_package():
    """The version is written once, in the package; the build reads it there."""
    assert funcnet.__version__ == version("funcnet")


@pytest.mark.parametrize("check", [skipping, claims_missing])
def test_tests_keep_to_the_rules(check):
    """No test is skipped, each has a docstring, and no two share a name."""
    assert all_problems(check, TESTS) == []


def test_the_runtime_dependencies_are_three():
    """The dependencies are torch, attrs and typing-extensions."""
    assert {Requirement(text).name for text in PROJECT["project"]["dependencies"]} == RUNTIME


def test_the_pinned_versions_lie_in_the_ranges():
    """Every dependency has a pin within its range, and every pin belongs to a dependency."""
    extras = PROJECT["project"]["optional-dependencies"].values()
    requirements = PROJECT["project"]["dependencies"] + [text for extra in extras for text in extra]
    assert not_satisfied(requirements, (ROOT / "constraints.txt").read_text()) == []


def test_the_package_says_that_it_is_typed():
    """``py.typed`` is next to the root module."""
    assert (ROOT / "funcnet" / "py.typed").is_file()


# the checks find violations

MODULES = {"funcnet", "funcnet.tree", "funcnet.layers", "funcnet.layers.linear", "funcnet.fitting.loop", "funcnet.kernels"}

BITES = {
    "root": (wrong_imports, "from funcnet import Linear", "m:1 imports Linear through the package funcnet"),
    "bare root": (wrong_imports, "import funcnet", "m:1 imports funcnet through the package funcnet"),
    "root by dots": (wrong_imports, "import funcnet.tree as t", "m:1 imports funcnet.tree through the package funcnet"),
    "folder": (wrong_imports, "from funcnet.layers import Linear", "m:1 imports Linear through the package funcnet.layers"),
    "star": (wrong_imports, "from funcnet import *", "m:1 imports * through the package funcnet"),
    "relative": (wrong_imports, "from . import tree", "m:1 imports by a relative path"),
    "relative module": (wrong_imports, "from .layers.linear import Linear", "m:1 imports by a relative path"),
    "no module": (wrong_imports, "from funcnet.trees import add", "m:1 imports from funcnet.trees, which is no module"),
    "inside a function": (
        wrong_imports,
        "def f():\n    from funcnet import Linear",
        "m:2 imports Linear through the package funcnet",
    ),
    "numpy": (strangers, "import numpy as np", "m imports numpy at its top"),
    "numpy in a branch": (
        strangers,
        "try:\n    from numpy import add\nexcept ImportError:\n    pass",
        "m imports numpy at its top",
    ),
    "nn": (names_of_autograd, "import torch\ny = torch.nn.Tanh()", "m:2 uses torch.nn.Tanh"),
    "from torch import nn": (names_of_autograd, "from torch import nn", "m:1 uses torch.nn"),
    "functional": (names_of_autograd, "import torch.nn.functional as F", "m:1 uses torch.nn.functional"),
    "from functional": (names_of_autograd, "from torch.nn.functional import relu", "m:1 uses torch.nn.functional.relu"),
    "autograd": (names_of_autograd, "torch.autograd.grad(y, x)", "m:1 uses torch.autograd.grad"),
    "optim": (names_of_autograd, "from torch.optim import SGD", "m:1 uses torch.optim.SGD"),
    "func.vjp": (names_of_autograd, "torch.func.vjp(f, x)", "m:1 uses torch.func.vjp"),
    "from func": (names_of_autograd, "from torch.func import vmap, grad", "m:1 uses torch.func.grad"),
    "keyword": (names_of_autograd, "torch.zeros(2, requires_grad=True)", "m:1 uses requires_grad="),
    "attribute": (names_of_autograd, "x.requires_grad = True", "m:1 uses x.requires_grad ="),
    "attribute read": (names_of_autograd, "if x.requires_grad: pass", "m:1 uses x.requires_grad"),
    "method": (names_of_autograd, "f(x).requires_grad_()", "m:1 uses .requires_grad_"),
    "grad_fn": (names_of_autograd, "f = y.grad_fn", "m:1 uses y.grad_fn"),
    "torch under another name": (names_of_autograd, "import torch as t", "m:1 uses torch as"),
    "ops": (names_of_internals, "torch.ops.aten.add(x, y)", "m:1 uses torch.ops.aten.add"),
    "_C": (names_of_internals, "from torch._C import _nn", "m:1 uses torch._C._nn"),
    "private": (private_names, "torch._foreach_add(xs, ys)", "m:1 uses torch._foreach_add"),
    "private operator": (private_names, "f = _aten._prelu_kernel", "m:1 uses torch.ops.aten._prelu_kernel"),
    "private module": (private_names, "from torch.utils._pytree import tree_map", "m:1 uses torch.utils._pytree.tree_map"),
    "zip": (loose_zips, "zip(a, b)", "m:1 zips without strict=True"),
    "zip not strict": (loose_zips, "[x for x in zip(a, b, strict=False)]", "m:1 zips without strict=True"),
    "global": (globals_set, "def f():\n    global n\n    n = 1", "m:2 sets a global"),
    "long function": (long_functions, "def f():\n    '''Doc.'''\n" + "    x = 1\n" * 26, "m.f has 26 lines"),
    "long method": (long_functions, "class A:\n    def f(self):\n" + "        x = 1\n" * 26, "m.f has 26 lines"),
    "long expression": (long_functions, "def f():\n    return [\n" + "        1,\n" * 24 + "    ]", "m.f has 26 lines"),
    "long file": (long_files, "x = 1\n" * 301, "m has 301 lines"),
    "function without docstring": (undocumented, "'''Doc.'''\ndef f(): pass", "m.f has no docstring"),
    "class without docstring": (undocumented, "'''Doc.'''\nclass A:\n    def f(self): 'Doc.'", "m.A has no docstring"),
    "module without docstring": (undocumented, "def _f(): pass", "m has no docstring"),
    "skip": (skipping, "@pytest.mark.skip\ndef test_x(): pass", "m:1 uses pytest.mark.skip"),
    "skipif": (skipping, "@pytest.mark.skipif(True, reason='')\ndef test_x(): pass", "m:1 uses pytest.mark.skipif"),
    "xfail": (skipping, "pytest.xfail('later')", "m:1 uses pytest.xfail"),
    "importorskip": (skipping, "from pytest import importorskip", "m:1 uses pytest.importorskip"),
    "test without claim": (claims_missing, "def test_x(): assert True", "m.test_x has no docstring"),
    "test twice": (claims_missing, "def test_x(): 'Claim.'\ndef test_x(): 'Claim.'", "m.test_x is defined twice"),
}


def judged(check, source):
    """Apply a check to source; some checks also need the modules of a small package."""
    return wrong_imports("m", source, MODULES) if check is wrong_imports else check("m", source)


@pytest.mark.parametrize(("check", "source", "problem"), BITES.values(), ids=BITES)
def test_a_check_finds_what_breaks_its_rule(check, source, problem):
    """The problem names the location."""
    assert problem in judged(check, source)


PASSES = {
    "submodule": (wrong_imports, "from funcnet import tree"),
    "submodule of a folder": (wrong_imports, "from funcnet.layers import linear"),
    "concrete": (wrong_imports, "from funcnet.layers.linear import Linear"),
    "others": (wrong_imports, "import math\nfrom torch import Tensor"),
    "dependencies": (strangers, "import math\nimport torch\nfrom attrs import field\nfrom typing_extensions import Self"),
    "extra where it is used": (strangers, "def f():\n    import matplotlib"),
    "vmap": (names_of_autograd, "torch.func.vmap(f)(x)"),
    "names alike": (names_of_autograd, "import torch\nkernels.tanh_backward(y)\nnn = 1\ntorch.nn_ = 2\n'torch.nn.Linear'"),
    "strict zip": (loose_zips, "zip(a, b, strict=True)\nx.zip(a)"),
    "nonlocal": (globals_set, "def f():\n    n = 0\n    def g():\n        nonlocal n"),
    "25 lines": (long_functions, "def f():\n    '''Doc.\n\n    More.\n    '''\n" + "    x = 1\n" * 25),
    "docstring alone": (long_functions, "def f():\n    '''" + "\n" * 40 + "'''"),
    "300 lines": (long_files, "x = 1\n" * 300),
    "documented": (undocumented, "'''Doc.'''\ndef f(): 'Doc.'\ndef _g(): pass\n@overload\ndef g(): ...\nclass A:\n    'Doc.'"),
    "empty": (undocumented, ""),
    "facade": (undocumented, "from funcnet.layers.linear import Linear\n\n__all__ = ['Linear']"),
    "test": (skipping, "def test_x():\n    'skip'\n    assert skipped"),
    "claim": (claims_missing, "def test_x(): 'Claim.'\ndef helper(): pass"),
}


@pytest.mark.parametrize(("check", "source"), PASSES.values(), ids=PASSES)
def test_a_check_passes_what_keeps_its_rule(check, source):
    """Code that barely satisfies a rule passes."""
    assert judged(check, source) == []


@pytest.mark.parametrize(
    ("name", "source", "problem"),
    [
        (
            "funcnet.tree",
            "from funcnet.layers.linear import Linear",
            "funcnet.tree, on floor 0, imports funcnet.layers.linear, on floor 2",
        ),
        (
            "funcnet.kernels",
            "from funcnet.layers import linear",
            "funcnet.kernels, on floor 1, imports funcnet.layers, on floor 2",
        ),
        (
            "funcnet.layers.linear",
            "from funcnet.fitting import loop",
            "funcnet.layers.linear, on floor 2, imports funcnet.fitting.loop, on floor 4",
        ),
        (
            "funcnet.tree",
            "def f():\n    from funcnet import kernels",
            "funcnet.tree, on floor 0, imports funcnet.kernels, on floor 1",
        ),
        (
            "funcnet.kernels",
            "if TYPE_CHECKING:\n    from funcnet.fitting.loop import fit",
            "funcnet.kernels, on floor 1, imports funcnet.fitting.loop, on floor 4",
        ),
    ],
)
def test_a_step_up_is_found(name, source, problem):
    """Imports inside functions and for types count too."""
    assert problem in steps_up(name, source, MODULES)


def test_steps_down_and_aside_pass():
    """Imports from lower floors, and within one floor, pass."""
    assert steps_up("funcnet.fitting.loop", "from funcnet import tree\nfrom funcnet.layers.linear import Linear", MODULES) == []
    assert steps_up("funcnet.layers.linear", "from funcnet.layers import linear\nimport math", MODULES) == []


def test_a_module_that_nothing_imports_is_found():
    """An import of itself does not count, and a package can list modules to import on first use."""
    sources = {
        "funcnet.layers": '"""Layers."""\n_MODULES = ("late",)',
        "funcnet.layers.linear": "from funcnet import layers",
        "funcnet.layers.late": "from funcnet.layers.linear import Linear",
        "funcnet.layers.old": "from funcnet.layers.old import Old",
    }
    assert never_imported(sources) == ["funcnet.layers.old"]


def test_a_circle_is_found():
    """A circle of any length is found."""
    sources = {
        "funcnet.a": "from funcnet.b import x",
        "funcnet.b": "from funcnet import c",
        "funcnet.c": "def f():\n    from funcnet.a import y",
    }
    (circle,) = circles(sources)
    assert {"funcnet.a imports funcnet.b", "funcnet.b imports funcnet.c"} & {circle[:27], circle[12:39], circle[-27:]}
    assert circles({name: source for name, source in sources.items() if name != "funcnet.c"}) == []


GOOD_EXPORTS = """'Doc.'

from funcnet import tree
from funcnet.fitting.loop import Fit, fit

__version__ = "1"
__all__ = ["tree", "fit", "Fit"]
"""
BAD_EXPORTS = {
    "other name": ("from funcnet.fitting.loop import fit as train\n", "line 1 is no export"),
    "private": ("from funcnet.fitting.loop import _fit\n", "line 1 is no export"),
    "star": ("from funcnet.fitting.loop import *\n", "line 1 is no export"),
    "relative": ("from .loop import fit\n", "line 1 is no export"),
    "foreign": ("from torch import Tensor\n", "line 1 is no export"),
    "statement": ("from funcnet.fitting.loop import fit\nx = 1\n", "line 2 is no export"),
    "unlisted": ("from funcnet.fitting.loop import fit\n", "fit is not in __all__"),
    "listed only": ("__all__ = ['fit']\n", "fit is in __all__ and not imported"),
    "listed twice": ("from funcnet.fitting.loop import fit\n__all__ = ['fit', 'fit']\n", "fit is listed twice"),
    "twice": ("from funcnet.fitting.loop import fit\nfrom funcnet.train import fit\n", "fit is imported twice"),
    "order": (
        "from funcnet.tree import add\nfrom funcnet.fitting.loop import fit\n",
        "funcnet.fitting.loop is after funcnet.tree",
    ),
}


@pytest.mark.parametrize(("source", "problem"), BAD_EXPORTS.values(), ids=BAD_EXPORTS)
def test_a_wrong_export_is_found(source, problem):
    """An export must import public names from their module, and be listed once in ``__all__``, in order."""
    assert problem in wrong_exports(source)


@pytest.mark.parametrize("source", ["", GOOD_EXPORTS])
def test_right_exports_pass(source):
    """A docstring before the exports is optional."""
    assert wrong_exports(source) == []


def test_an_undescribed_group_and_a_shared_name_are_found():
    """The check finds a group without a line, a line without a group, and a function named like a module."""
    source = '"""Doc.\n\n    loops  the loop\n    trees  more\n"""\n__all__ = [\n    # loops\n    "fit",\n    # steps\n    "step",\n]\n'
    assert undescribed_groups(source) == ["steps", "trees"]
    assert shared_names({"funcnet.fitting.loop", "funcnet.layers.fit"}, {"fit", "evaluate"}) == ["fit"]


def test_kernels_may_read_requires_grad_but_not_set_it():
    """Kernels may read it to use differentiable formulas, but they never start autograd."""
    assert names_of_autograd("funcnet.kernels", "if x.requires_grad: pass") == []
    assert names_of_autograd("funcnet.kernels", "x.requires_grad = True\nx.requires_grad_()") == [
        "funcnet.kernels:1 uses x.requires_grad =",
        "funcnet.kernels:2 uses x.requires_grad_",
    ]


@pytest.mark.parametrize(
    ("requirements", "constraints", "problem"),
    [
        (["torch>=2.13,<2.14"], "torch==2.14.0", "torch<2.14,>=2.13 excludes 2.14.0"),
        (["torch>=2.13"], "torch==2.12.1\n", "torch>=2.13 excludes 2.12.1"),
        (["torch", "attrs>=26"], "torch==2.13.0", "attrs is not pinned"),
        (["torch"], "torch==2.13.0\nnumpy==2.4.6", "numpy is pinned for nothing"),
    ],
)
def test_a_pin_that_does_not_fit_is_found(requirements, constraints, problem):
    """A pin outside its range, a missing pin, and a pin without a dependency are found."""
    assert problem in not_satisfied(requirements, constraints)


def test_pins_that_fit_pass():
    """Names are normalized as in the package index."""
    assert not_satisfied(["typing_extensions>=4.16", "torch>=2.13,<2.14"], "typing-extensions==4.16.0\ntorch==2.13.0\n") == []
