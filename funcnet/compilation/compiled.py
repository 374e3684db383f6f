"""Compilation: a pure function of tensors becomes one graph, and its later calls go straight to the graph's kernels.

Dynamo traces the function at its first call, and Inductor compiles what was traced. At each further call Dynamo would ask again
whether all that it saw still holds, down to each field of each layer: 30 µs of the 83 that a step of the 2-25-25-25-2 net
takes. The package's own values are frozen, so of them it is enough that the arguments are as they were. From the first call
is written down which leaf of the arguments is which input of the graph, and which of its outputs is which leaf of the result;
where another call brings leaves of the same structure, shapes, strides and dtypes, that is all there is to do.
"""

import itertools
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from funcnet import flattening, tree
from funcnet.compilation.codec import TreeCodec
from funcnet.errors import value_error
from funcnet.kernels import linear as products
from funcnet.kernels.tracing import is_eager, tensor_guard, tracing_for_inductor
from funcnet.tree import Tree
from funcnet.value import Value

Kernel = Callable[..., Sequence[Any]]

_NUMBERS = itertools.count()
_SMALL = 8192


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
        if named or not isinstance(self._step, Value) or not is_eager():
            with tracing_for_inductor():
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
            with tracing_for_inductor():
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
        kernel = _kernel(graph, examples)

        def noticed(*inputs: Any) -> Sequence[Any]:
            outputs = kernel(*inputs)
            self._calls.append((kernel, inputs, outputs))
            return outputs

        return noticed


def _kernel(graph: Any, examples: list[Any]) -> Kernel:
    """Compile a graph, for one thread where every tensor in it is small.

    On two cores a step of the 2-25-25-25-2 net takes 73 µs so, and 95 with two threads, of which each waits for the other after
    every loop; scanned 52 and 71. With tensors of 8192 elements both take as long, with 65536 one thread takes a third longer.
    """
    small = all(size <= _SMALL for size in _sizes(graph))
    options = {"cpp_wrapper": True, "cpp.threads": 1 if small else -1}
    kernel: Kernel = torch._inductor.compile(graph, examples, options=options)
    return _on_one_thread(kernel) if small and torch.get_num_threads() > 1 else kernel


def _sizes(graph: Any) -> list[int]:
    """List the numbers of elements of all tensors in a graph of Dynamo's."""
    values = [tree.leaves(node.meta.get("example_value")) for node in graph.graph.nodes]
    return [value.numel() for row in values for value in row if isinstance(value, Tensor)]


def _on_one_thread(kernel: Kernel) -> Kernel:
    """Return the kernel that the libraries it calls serve with one thread too; to set that back and forth takes 0.2 µs.

    It is set for the whole process: a product that another of Python's threads begins meanwhile has one thread too.
    """

    def called(*inputs: Any) -> Sequence[Any]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return kernel(*inputs)
        finally:
            torch.set_num_threads(threads)

    return called


def _with_its_own_code(step: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function under a code object that no other shares: Dynamo compiles for no more than 8 kinds of calls of one.

    Callable values would all be called from one function of Dynamo's, and the ninth of them refused.
    """

    def called(*arguments: Any, **named: Any) -> Any:
        return step(*arguments, **named)

    called.__code__ = called.__code__.replace(co_name=f"step_{next(_NUMBERS)}")
    return called


class _Program:
    """What is done for arguments of one kind: from their leaves to the inputs, from the outputs to the result's leaves.

    ``found`` are the leaves and what the function itself holds; of these, the outputs and the arguments in a row, ``inputs`` and
    ``results`` are places.
    """

    def __init__(self, kernel: Kernel, like: Tree, out: Tree, found: list[Any], inputs: list[int], results: list[int]) -> None:
        leaves = flattening.flatten_together(like)[0]
        self._kernel, self._others, self._read, self._write = (
            kernel,
            found[len(leaves) :],
            TreeCodec(like).read,
            TreeCodec(out).write,
        )
        self._inputs, self._results = _taking(inputs), _taking(results)
        self._alike, self._rest, self._state = tensor_guard(_tensors(leaves)), _rest(leaves), _state()

    def leaves(self, arguments: Tree) -> list[Any] | None:
        """Return the leaves of arguments that are of this kind; of others ``None``."""
        try:
            leaves = self._read(arguments)
        except LookupError:
            return None
        if self._rest:
            same = _rest(leaves) == self._rest and self._alike(*[x for x in leaves if type(x) is Tensor])
        else:
            same = self._alike(*leaves)
        return leaves if same and _state() == self._state else None

    def run(self, arguments: tuple[Any, ...], leaves: list[Any]) -> Any:
        """Make the call; an entry of the result that is an argument, as where params were given up, is that argument's tree."""
        found = [*leaves, *self._others]
        found += self._kernel(*self._inputs(found))
        found += arguments
        return self._write(self._results(found))


def _written(arguments: Tree, result: Tree, kernel: Kernel, inputs: Sequence[Any], outputs: Sequence[Any]) -> _Program | None:
    """Write a call down; ``None`` where not all of it lies in main memory, or not all can be told apart."""
    leaves, results = flattening.flatten_together(arguments)[0], flattening.flatten_together(result)[0]
    places = {id(leaf): i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)}
    if len(places) < len(_tensors(leaves)) or not all(map(_plain, (*leaves, *inputs, *results))):
        return None
    known = {*places, *map(id, outputs)}
    others = [x for x in (*inputs, *results) if id(x) not in known]  # what the function itself holds, and what is no tensor
    found = [*leaves, *others]
    for i, x in enumerate([*found, *outputs]):
        places.setdefault(id(x), i)
    entries, same = (result, _same(arguments, result)) if type(result) is tuple else ((result,), [None])
    end = len(found) + len(outputs)  # from where on the arguments stand
    rows = [
        [places[id(x)] for x in flattening.flatten_together(one)[0]] if j is None else [end + j]
        for one, j in zip(entries, same, strict=True)
    ]
    out = tuple([one if j is None else None for one, j in zip(entries, same, strict=True)])
    at = [places[id(x)] for x in inputs], [place for row in rows for place in row]
    return _Program(kernel, arguments, out if type(result) is tuple else out[0], found, *at)


def _same(arguments: tuple[Any, ...], entries: tuple[Any, ...]) -> list[int | None]:
    """Return for each entry of a result which of the arguments it is, leaf by leaf."""
    given = [(tree.structure(one), [*map(id, flattening.flatten_together(one)[0])]) for one in arguments]
    made = [(tree.structure(one), [*map(id, flattening.flatten_together(one)[0])]) for one in entries]
    return [given.index(one) if one in given and one[1] else None for one in made]


def _taking(places: list[int]) -> Callable[[list[Any]], Sequence[Any]]:
    """Return the function that takes what stands at these places."""
    return itemgetter(*places) if len(places) > 1 else lambda found: [found[i] for i in places]


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


def compile(step: Callable[..., Any]) -> Callable[..., Any]:  # noqa: A001 (torch's word for it)
    """Compile a pure function of tensors, such as a train step, as one graph, with ``torch.compile(fullgraph=True)``.

    The compiled function differs from the eager one by rounding; it is compiled at its first call, and again for a batch of
    another size. No gradient is recorded inside. The code that calls the kernels is C++ too (Inductor's ``cpp_wrapper``), which
    takes a tenth off a small step; Inductor's own small products need constant weights. Where the function is a value of this
    package, as a train step is, Dynamo makes the first call alone, and a step of the 2-25-25-25-2 net takes 51 µs, about half of
    what it takes by way of Dynamo: see ``funcnet.compilation``. What has no tensor of more than 8192 elements is compiled for one
    thread, however many there are. A call that is refused is refused by the sentence of eager mode.

    Raises   ``ValueError`` for a ``step`` that is no function.
    """
    if not callable(step):
        raise value_error("compile", "step must be a function", step)
    return Compiled(step)
