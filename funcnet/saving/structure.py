"""The structure of a tree as JSON: nodes, leaves other than tensors, and numbers for the tensors.

``None``, bools, strings, finite floats and 64-bit ints are plain JSON values. Everything else is a list that begins with its
kind::

    ["tensor", 3]    ["int", "0x..."]    ["float", "7ff8000000000000"]    ["complex", float, float]
    ["tuple", [tree, ...]]    ["list", [tree, ...]]    ["size", [int, ...]]
    ["dict", [[key, tree], ...]]    ["ordered", [[key, tree], ...]]    ["named", "Point", ["x", "y"], [tree, ...]]

No kind refers to a class to import: a named tuple is loaded as a new class with the same name and fields.
"""

import json
import math
import struct
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import attrs
from torch import Size, Tensor

from funcnet.errors import describe, value_error
from funcnet.flattening import Tree, join
from funcnet.saving.tensors import Damaged, Stored, identity, stored, tensor_complaint

Json = Any
MOST_NESTED = 100
"""The deepest nesting that can be saved, several times below Python's recursion limit."""

_KEYS = (str, int, bool)
_LEAVES = "every leaf must be a tensor, None, a bool, int, float, complex or str"
_NODES = "every node must be a dict, OrderedDict, tuple, named tuple, list or torch.Size"


def as_json(form: Json) -> str:
    """Return JSON text without optional spaces."""
    return json.dumps(form, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def from_json(text: str | bytes) -> Json:
    """Read JSON; invalid text, and NaN and Infinity, which are not standard, raise ``ValueError`` or ``RecursionError``."""

    def refuse(word: str) -> None:
        raise ValueError(word)

    return json.loads(text, parse_constant=refuse)


class Encoder:
    """Encode trees as JSON, and collect each tensor once in ``tensors``, with its path in ``paths``."""

    def __init__(self, who: str, *, tensors: bool = True) -> None:
        self.who, self.takes_tensors = who, tensors
        self.tensors: list[Tensor] = []
        self.paths: list[str] = []
        self._numbers: dict[object, int] = {}
        self._depth = 0

    def encode(self, tree: Tree, path: str = "") -> Json:
        """Return the JSON of a tree at a path."""
        if tree is None or type(tree) is bool:
            return tree
        encode = _ENCODERS.get(type(tree))
        if encode is not None:
            return encode(self, tree, path)
        if isinstance(tree, Tensor):
            return self.tensor(tree, path)
        if isinstance(tree, tuple) and hasattr(tree, "_fields"):
            return self.named(tree, path)
        raise self.error(path, _NODES if isinstance(tree, (dict, tuple, list)) else _LEAVES, _describe_type(tree))

    def error(self, path: str, rule: str, got: str) -> ValueError:
        """Return the error for an invalid node or leaf at a path."""
        return value_error(self.who, rule, f"{got} at {path!r}" if path else got)

    def tensor(self, x: Tensor, path: str) -> Json:
        """Return the number of a tensor; tensors that share their memory share a number."""
        complaint = tensor_complaint(x) if self.takes_tensors else describe(x)
        if complaint:
            rule = "every tensor must be plain and dense" if self.takes_tensors else "metadata must hold no tensors"
            raise self.error(path, rule, complaint)
        number = self._numbers.setdefault(identity(x), len(self.tensors))
        if number == len(self.tensors):
            self.tensors.append(x)
            self.paths.append(path)
        return ["tensor", number]

    def named(self, tree: Any, path: str) -> Json:
        """Return the JSON of a named tuple whose class can be recreated."""
        name, fields = type(tree).__name__, list(tree._fields)
        if named_class(name, tuple(fields)) is None or len(tree) != len(fields):
            raise self.error(
                path, "a named tuple must have an entry for each field, and names that Python allows", repr(type(tree))
            )
        return ["named", name, fields, self.children(enumerate(tree), path)]

    def children(self, items: Any, path: str) -> Json:
        """Return the JSON of children; their keys extend the path."""
        if self._depth == MOST_NESTED:
            raise self.error(path, f"a tree must be nested at most {MOST_NESTED} deep", "a deeper one")
        self._depth += 1
        forms = [self.encode(child, join(path, key)) for key, child in items]
        self._depth -= 1
        return forms

    def pairs(self, tree: dict[Any, Tree], path: str) -> Json:
        """Return the keys and children of a dict."""
        for key in tree:
            if type(key) not in _KEYS:
                raise self.error(path, "the keys of a dict must be str, int or bool", repr(key))
        keys = [self.encode(key, join(path, key)) for key in tree]
        return [list(pair) for pair in zip(keys, self.children(tree.items(), path), strict=True)]

    def text(self, word: str, path: str) -> Json:
        """Return a string, which must be valid Unicode."""
        try:
            word.encode()
        except UnicodeEncodeError:
            raise self.error(path, "a str must be valid Unicode", repr(word)) from None
        return word


def _describe_type(leaf: Any) -> str:
    kind = type(leaf)
    if kind.__module__ == "numpy" and hasattr(leaf, "shape"):
        return describe(leaf)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _whole(n: int) -> Json:
    return n if -(2**63) <= n < 2**63 else ["int", hex(n)]


def _real(x: float) -> Json:
    return x if math.isfinite(x) else ["float", struct.pack(">d", x).hex()]


_ENCODERS: dict[type, Callable[[Encoder, Any, str], Json]] = {
    int: lambda self, n, path: _whole(n),
    float: lambda self, x, path: _real(x),
    complex: lambda self, z, path: ["complex", _real(z.real), _real(z.imag)],
    str: Encoder.text,
    Tensor: Encoder.tensor,
    dict: lambda self, tree, path: ["dict", self.pairs(tree, path)],
    OrderedDict: lambda self, tree, path: ["ordered", self.pairs(tree, path)],
    tuple: lambda self, tree, path: ["tuple", self.children(enumerate(tree), path)],
    list: lambda self, tree, path: ["list", self.children(enumerate(tree), path)],
    Size: lambda self, tree, path: ["size", [_whole(int(n)) for n in tree]],
}


@lru_cache(maxsize=1024)
def named_class(name: str, fields: tuple[str, ...]) -> Any:
    """Return a named tuple class, the same for the same names, or ``None`` if Python does not allow the names."""
    try:
        made = namedtuple(name, fields, rename=True, module=__name__)  # type: ignore[misc]
    except (ValueError, TypeError):
        return None
    return made if made._fields == fields else None


@attrs.frozen(eq=False)
class Encoded:
    """A tree and its metadata as JSON, and the tensors, each with its first path and its form in the file."""

    tree: Json
    metadata: Json
    tensors: list[Tensor]
    forms: list[Stored]
    paths: list[str]


def encoded(who: str, tree: Tree, metadata: Tree) -> Encoded:
    """Encode a tree and its metadata; raise a ``ValueError`` that names ``who`` for values that cannot be restored."""
    encoder, words = Encoder(who), Encoder(who, tensors=False)
    forms = encoder.encode(tree), words.encode(metadata, "metadata")
    return Encoded(*forms, encoder.tensors, [*map(stored, encoder.tensors)], encoder.paths)


def decode(form: Json, tensors: list[Any]) -> Tree:
    """Build a tree from the JSON of ``Encoder`` and its numbered ``tensors``; other JSON raises ``Damaged``."""
    if form is None or type(form) in (bool, int, float, str):
        return form
    if type(form) is list and form and type(form[0]) is str and (form[0], len(form)) in _DECODERS:
        try:
            return _DECODERS[form[0], len(form)](tensors, *form[1:])
        except (TypeError, ValueError, IndexError, struct.error):
            pass
    raise Damaged(f"a node of the tree that is {str(form)[:80]}")


def _require(right: bool) -> None:
    if not right:
        raise ValueError


def _all(tensors: list[Any], forms: Json) -> Iterator[Tree]:
    _require(type(forms) is list)
    return (decode(form, tensors) for form in forms)


def _pairs(tensors: list[Any], forms: Json) -> list[tuple[Any, Tree]]:
    pairs = [(decode(key, []), decode(child, tensors)) for key, child in forms]
    _require(all(type(key) in _KEYS for key, _ in pairs) and len(dict(pairs)) == len(pairs))
    return pairs


def _tensor(tensors: list[Any], number: Json) -> Any:
    _require(type(number) is int and number >= 0)
    return tensors[number]


def _float(tensors: list[Any], bits: str) -> float:
    (x,) = struct.unpack(">d", bytes.fromhex(bits))
    return float(x)


def _complex(tensors: list[Any], *parts: Json) -> complex:
    real, imag = [decode(part, []) for part in parts]
    _require(type(real) is float and type(imag) is float)
    return complex(real, imag)


def _size(tensors: list[Any], forms: Json) -> Size:
    sizes = [*_all([], forms)]
    _require(all(type(n) is int for n in sizes))
    return Size(sizes)


def _named(tensors: list[Any], name: str, fields: list[str], forms: Json) -> Any:
    _require(type(fields) is list)
    made, children = named_class(name, tuple(fields)), [*_all(tensors, forms)]
    _require(made is not None and len(children) == len(fields))
    return made._make(children)


_DECODERS: dict[tuple[str, int], Callable[..., Tree]] = {
    ("tensor", 2): _tensor,
    ("int", 2): lambda tensors, digits: int(digits, 16),
    ("float", 2): _float,
    ("complex", 3): _complex,
    ("tuple", 2): lambda tensors, forms: tuple(_all(tensors, forms)),
    ("list", 2): lambda tensors, forms: list(_all(tensors, forms)),
    ("size", 2): _size,
    ("dict", 2): lambda tensors, forms: dict(_pairs(tensors, forms)),
    ("ordered", 2): lambda tensors, forms: OrderedDict(_pairs(tensors, forms)),
    ("named", 4): _named,
}
