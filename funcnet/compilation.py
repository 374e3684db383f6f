"""Compilation: a pure function of tensors becomes one graph, and its later calls go straight to the graph's kernels.

Dynamo traces the function at its first call, and Inductor compiles what was traced. At each further call Dynamo would ask again
whether all that it saw still holds, down to each field of each layer: 30 µs of the 83 that a step of the 2-25-25-25-2 net
takes. The package's own values are frozen, so of them it is enough that the arguments are as they were. From the first call
is written down which leaf of the arguments is which input of the graph, and which of its outputs is which leaf of the result;
where another call brings leaves of the same structure, shapes, strides and dtypes, that is all there is to do.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from funcnet import tree
from funcnet.kernels import products
from funcnet.kernels.mode import eager, fusing, likeness
from funcnet.layer import Value
from funcnet.tree import Tree

Kernel = Callable[..., Sequence[Any]]

_NUMBERS = itertools.count()


class Compiled:
    """A function, compiled for each kind of arguments that it is called with; made by ``funcnet.compile``."""

    def __init__(self, step: Callable[..., Any]) -> None:
        """Compile nothing yet."""
        self._step = step
        self._calls: list[tuple[Kernel, Sequence[Any], Sequence[Any]]] = []
        self._programs: list[_Program] = []
        self._traced = torch.compile(_with_its_own_code(step), fullgraph=True, dynamic=False, backend=self._compiled)

    def __repr__(self) -> str:
        return f"compile({self._step!r})"

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call the function, without recording any gradient."""
        if not torch.is_grad_enabled():
            return self._run(arguments, named)
        with torch.no_grad():
            return self._run(arguments, named)

    def _run(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if named or not isinstance(self._step, Value) or not eager():
            with fusing():
                return self._traced(*arguments, **named)
        for program in self._programs:
            leaves = program.leaves(arguments)
            if leaves is not None:
                return program.run(arguments, leaves)
        return self._first(arguments)

    def _first(self, arguments: tuple[Any, ...]) -> Any:
        """Let Dynamo make the call, and write down what it did."""
        self._calls.clear()
        try:
            with fusing():
                result = self._traced(*arguments)
        except Exception:
            self._step(*tree.map(_copied, arguments))  # in eager mode the error is the layer's own, which says more
            raise
        program = _written(arguments, result, *self._calls[0]) if len(self._calls) == 1 else None
        self._calls.clear()
        self._programs = [program, *self._programs] if program else self._programs
        return result

    def _compiled(self, graph: Any, examples: list[Any]) -> Kernel:
        """Have Inductor compile a graph of Dynamo's, and notice each call of it."""
        kernel: Kernel = torch._inductor.compile(graph, examples, options={"cpp_wrapper": True})

        def noticed(*inputs: Any) -> Sequence[Any]:
            outputs = kernel(*inputs)
            self._calls.append((kernel, inputs, outputs))
            return outputs

        return noticed


def _with_its_own_code(step: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function under a code object that no other shares: Dynamo compiles for no more than 8 kinds of calls of one.

    Callable values would all be called from one function of Dynamo's, and the ninth of them refused.
    """

    def called(*arguments: Any, **named: Any) -> Any:
        return step(*arguments, **named)

    called.__code__ = called.__code__.replace(co_name=f"step_{next(_NUMBERS)}")
    return called


class _Program:
    """What is done for arguments of one kind: from their leaves to the inputs, from the outputs to the result's leaves."""

    def __init__(self, kernel: Kernel, like: Tree, out: Tree, found: list[Any], inputs: list[int], results: list[int]) -> None:
        leaves = tree.columns(like)[0]
        self._kernel, self._inputs, self._others = kernel, inputs, found[len(leaves) :]
        self._like, self._out = _emptied(like), _emptied(out)
        self._alike, self._count, self._rest = likeness(_tensors(leaves)), len(_tensors(leaves)), _rest(leaves)
        self._state = _state()
        self._same = _same(like, out) if type(out) is tuple else None
        counts = [len(tree.columns(entry)[0]) for entry in out] if self._same is not None else []
        self._results: Any = _parted(results, counts) if counts else results

    def leaves(self, arguments: Tree) -> list[Any] | None:
        """Return the leaves of arguments that are of this kind; of others ``None``."""
        try:
            leaves = tree.leaves_like(self._like, arguments)
        except LookupError:
            return None
        tensors = [x for x in leaves if type(x) is Tensor]
        same = len(tensors) == self._count and self._alike(*tensors) and _state() == self._state
        return leaves if same and (len(tensors) == len(leaves) or _rest(leaves) == self._rest) else None

    def run(self, arguments: tuple[Any, ...], leaves: list[Any]) -> Any:
        """Make the call; an entry of the result that is an argument, as where params were given up, is that argument's tree."""
        found = [*leaves, *self._others]
        found += self._kernel(*[found[i] for i in self._inputs])
        if self._same is None:
            return tree.fill(self._out, iter([found[i] for i in self._results]))
        entries = zip(self._out, self._same, self._results, strict=True)
        return tuple([tree.fill(out, iter([found[i] for i in at])) if j is None else arguments[j] for out, j, at in entries])


def _written(arguments: Tree, result: Tree, kernel: Kernel, inputs: Sequence[Any], outputs: Sequence[Any]) -> _Program | None:
    """Write a call down; ``None`` where not all of it lies in main memory, or not all can be told apart."""
    leaves, results = tree.columns(arguments)[0], tree.columns(result)[0]
    places = {id(leaf): i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)}
    if len(places) < len(_tensors(leaves)) or not all(map(_plain, (*leaves, *inputs, *results))):
        return None
    known = {*places, *map(id, outputs)}
    others = [x for x in (*inputs, *results) if id(x) not in known]  # what the function itself holds, and what is no tensor
    for i, x in enumerate([*leaves, *others, *outputs]):
        places.setdefault(id(x), i)
    at = [[places[id(x)] for x in row] for row in (inputs, results)]
    return _Program(kernel, arguments, result, [*leaves, *others], *at)


def _parted(row: list[int], counts: list[int]) -> list[list[int]]:
    """Cut a row into pieces of these lengths."""
    rest = iter(row)
    return [[next(rest) for _ in range(count)] for count in counts]


def _same(arguments: tuple[Any, ...], entries: tuple[Any, ...]) -> list[int | None]:
    """Return for each entry of a result which of the arguments it is, leaf by leaf."""
    given = [(tree.structure(one), [*map(id, tree.columns(one)[0])]) for one in arguments]
    made = [(tree.structure(one), [*map(id, tree.columns(one)[0])]) for one in entries]
    return [given.index(one) if one in given and one[1] else None for one in made]


def _tensors(leaves: list[Any]) -> list[Tensor]:
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _rest(leaves: list[Any]) -> list[Any]:
    """Return the leaves that are no tensors, each with its type, in which 1 and True differ."""
    return [(type(leaf), leaf) for leaf in leaves if type(leaf) is not Tensor]


def _copied(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


def _plain(leaf: Any) -> bool:
    """Tell that a leaf is a tensor in main memory, or a number or a word, or absent."""
    return leaf.is_cpu if type(leaf) is Tensor else leaf is None or isinstance(leaf, (bool, int, float, str))


def _state() -> tuple[Any, ...]:
    """Return what the kernels depend on besides."""
    return torch.get_num_threads(), torch.get_default_dtype(), products.least()


def _emptied(like: Tree) -> Tree:
    """Return the tree with an empty tensor for every tensor, so that none is kept alive."""
    return tree.map(lambda leaf: torch.empty(0) if isinstance(leaf, Tensor) else leaf, like)
