"""Programs: recorded calls, from the leaves of the arguments to the kernel's inputs, and from its outputs to the result.

Dynamo checks its guards at each call, down to each field of each layer, which takes 30 of the 83 µs of a step of the 2-25-25-25-2
net. The package's own values are immutable, so a program only checks that the arguments are of the same kind.
"""

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from torch import Tensor, strided

from funcnet import flattening, tree
from funcnet.codec import TreeCodec
from funcnet.compilation.cuda_graphs import Kernel
from funcnet.compilation.inductor import compile_lock, traced
from funcnet.compilation.kinds import CONSTANTS, Kind
from funcnet.errors import value_error
from funcnet.flattening import Tree
from funcnet.kernels.aliasing import overlapping
from funcnet.kernels.tracing import tracing_for_inductor


class Program:
    """The kernel of one kind of call, and the mapping from arguments to its inputs and from its outputs to the result.

    ``held`` are tensors and numbers that belong to the function itself. ``inputs`` and ``results`` are positions in the
    concatenation of the arguments' leaves, ``held``, the kernel's outputs, and the arguments.
    """

    used = 0

    def __init__(self, kernel: Kernel, like: Tree, out: Tree, held: list[Any], inputs: list[int], results: list[int]) -> None:
        self.leaves = Kind(like).leaves
        self._kernel, self._held, self._write = kernel, held, TreeCodec(out).write
        self._inputs, self._results = _taking(inputs), _taking(results)

    def again(self, arguments: tuple[Any, ...], named: dict[str, Any], error: Exception) -> Any:
        """Raise the error of a call that failed although eager mode does not."""
        raise error

    def run(self, arguments: tuple[Any, ...], named: dict[str, Any], leaves: list[Any]) -> Any:
        """Make the call. An entry of the result that is an argument, such as donated params, is returned as the same tree."""
        found = [*leaves, *self._held]
        found += self._kernel(*self._inputs(found))
        found += arguments
        return self._write(self._results(found))


class Traced:
    """A function whose calls Dynamo makes, because it can read more than its arguments or cannot be recorded."""

    used = 0

    def __init__(self, step: Callable[..., Any], like: Tree) -> None:
        self.leaves = Kind(like).leaves
        self._step, self._traced = step, traced(step)

    def first(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Trace the function with Dynamo and make the call, under the lock."""
        with compile_lock(), tracing_for_inductor():
            return self._traced(*arguments, **named)

    def run(self, arguments: tuple[Any, ...], named: dict[str, Any], leaves: list[Any]) -> Any:
        """Make the call with Dynamo, without the lock."""
        with tracing_for_inductor():
            return self._traced(*arguments, **named)

    def again(self, arguments: tuple[Any, ...], named: dict[str, Any], error: Exception) -> Any:
        """Repeat a call that failed although eager mode does not: first under the lock, then as a first call.

        A call fails while another thread traces, and after 8 traces for different values that the function reads besides its
        arguments.
        """
        with compile_lock():
            try:
                return self.first(arguments, named)
            except Exception:
                self._traced = traced(self._step)
                return self.first(arguments, named)


def written(arguments: Tree, result: Tree, kernel: Kernel, inputs: Sequence[Any], outputs: Sequence[Any]) -> Program | None:
    """Return the program of a call; ``None`` if tensors are on another device, or the origin of a tensor is ambiguous.

    Two arguments can be the same tensor. A result or an input can be an attribute of an argument, such as ``x.T`` or ``x.grad``,
    which Dynamo reads again at each call.
    """
    leaves, results = flattening.flatten_together(arguments)[0], flattening.flatten_together(result)[0]
    places = {id(leaf): i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)}
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if len(places) < len(tensors) or not all(map(_is_plain, (*leaves, *inputs, *results))):
        return None
    known = {*places, *map(id, outputs)}
    held = [x for x in inputs if id(x) not in known]
    grads = {id(x.grad) for x in tensors if x.is_leaf and x.grad is not None}
    known |= {*map(id, held)}
    made = [x for x in results if id(x) not in known]
    if any([id(x) in grads for x in held]) or any([isinstance(x, Tensor) for x in made]):  # noqa: C419
        return None
    held += made
    for i, x in enumerate([*leaves, *held, *outputs]):
        places.setdefault(id(x), i)
    out, rows = _rows(arguments, result, places, len(leaves) + len(held) + len(outputs))
    return Program(kernel, arguments, out, held, [places[id(x)] for x in inputs], [place for row in rows for place in row])


def _rows(arguments: tuple[Any, ...], result: Tree, places: dict[int, int], end: int) -> tuple[Tree, list[list[int]]]:
    """Return the result, with ``None`` for entries that are arguments, and its leaves' positions; arguments start at ``end``."""
    entries = result if type(result) is tuple else (result,)
    same = _same(arguments, result) if type(result) is tuple else [None]
    rows = [
        [places[id(x)] for x in flattening.flatten_together(one)[0]] if j is None else [end + j]
        for one, j in zip(entries, same, strict=True)
    ]
    return tuple([one if j is None else None for one, j in zip(result, same, strict=True)]) if entries is result else result, rows


def _same(arguments: tuple[Any, ...], entries: tuple[Any, ...]) -> list[int | None]:
    """Return, for each entry of a result, the index of the argument that it equals leaf by leaf, or ``None``."""
    given = [(tree.structure(one), [*map(id, flattening.flatten_together(one)[0])]) for one in arguments]
    made = [(tree.structure(one), [*map(id, flattening.flatten_together(one)[0])]) for one in entries]
    return [given.index(one) if one in given and one[1] else None for one in made]


def _taking(places: list[int]) -> Callable[[list[Any]], Sequence[Any]]:
    """Return a function that selects the entries at these positions."""
    return itemgetter(*places) if len(places) > 1 else lambda found: [found[i] for i in places]


def copied(leaf: Any) -> Any:
    """Return a copy of a tensor; other leaves are returned unchanged."""
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


def require_apart(entry: Traced, arguments: Tree, named: dict[str, Any]) -> None:
    """Raise ``ValueError`` if a function writes to arguments that share memory, as a donated step of tied params would.

    Compiled code reads all inputs before it writes, eager code reads between writes. Only first calls are checked. If arguments
    share memory, the function is called on copies to see whether it writes to them.
    """
    leaves = [leaf for leaf in flattening.flatten_together((arguments, named))[0] if isinstance(leaf, Tensor)]
    shared = overlapping(leaves) if all(map(_is_dense, leaves)) else set()
    if len({*map(id, leaves)}) < len(leaves) or not shared:
        return  # Dynamo itself handles a tensor that occurs twice
    copies = {i: leaves[i].clone() for i in shared}
    given = {id(leaves[i]): copy for i, copy in copies.items()}
    instead = lambda leaf: given[id(leaf)] if id(leaf) in given else copied(leaf)
    versions = {i: copy._version for i, copy in copies.items() if not copy.is_inference()}
    entry.first(tree.map(instead, arguments), tree.map(instead, named))
    if any([copies[i]._version != version for i, version in versions.items()]):  # noqa: C419
        rule = "a step that writes to its arguments, as a donated one does, must get params and state that share no memory"
        came = ", ".join([str(tuple(leaves[i].shape)) for i in sorted(shared)])
        raise value_error("compile", rule, f"shared memory in tensors of shape {came}")


def _is_dense(leaf: Tensor) -> bool:
    return type(leaf) is Tensor and leaf.is_cpu and leaf.layout is strided and not leaf.is_nested


def _is_plain(leaf: Any) -> bool:
    """Return whether a leaf is a tensor in main memory or on a GPU, a constant, or ``None``."""
    return (leaf.is_cpu or leaf.is_cuda) if type(leaf) is Tensor else type(leaf) in CONSTANTS
