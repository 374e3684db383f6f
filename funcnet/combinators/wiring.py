"""Wiring: the nodes of a graph, sorted so that each follows its inputs, and the checks of a graph's arguments.

A node is (name, layer, inputs). With the name of another node in place of the layer it reuses that node's layer and params.
Dotted names nest the params. Values and their gradients are dicts by name.
"""

from graphlib import CycleError, TopologicalSorter
from typing import Any

from funcnet.combinator import add_gradients
from funcnet.contract import Layer
from funcnet.errors import describe, value_error
from funcnet.naming import require_names

Names = tuple[str, ...]
Node = tuple[str, Layer, Names]
AnyNode = tuple[str, Layer | str, Names]
Values = dict[str, Any]


def names_field(value: Any, attribute: Any, got: Any) -> None:
    """Validate a field that holds a tuple of names."""
    if not isinstance(got, tuple) or not got or not all(isinstance(name, str) for name in got):
        raise value_error("graph", f"{attribute.name} must be a tuple of names", got)


def keys_field(value: Any, attribute: Any, got: Any) -> None:
    """Validate the keys of outputs: one for each output, without repetition."""
    if got is None:
        return
    names_field(value, attribute, got)
    if len(got) != len(value.outputs) or len(set(got)) < len(got):
        rule = f"output_keys must be {len(value.outputs)} different names, one for each output"
        raise value_error("graph", rule, repr(got))


def nodes_field(value: Any, attribute: Any, got: Any) -> None:
    """Validate the nodes of a graph."""
    for node in got if isinstance(got, tuple) and got else (got,):
        if not isinstance(node, tuple) or len(node) != 3 or not isinstance(node[2], tuple):
            raise value_error("graph", "nodes must be a tuple of (name, layer, inputs)", node)
    names, layers = [*value.inputs, *[node[0] for node in got]], layers_of(got)
    for name, layer, ins in got:
        read_node(name, (layer, *ins), names, layers)
    require_apart(layers)


def layers_of(nodes: Any) -> dict[str, Layer]:
    """Return the layers of nodes by name, without nodes that reuse a layer."""
    return {name: layer for name, layer, *_ in nodes if isinstance(layer, Layer)}


def read_node(name: str, given: Any, names: list[str], layers: dict[str, Layer]) -> AnyNode:
    """Read ``(layer, *inputs)``. Inputs must be in ``names``; a name in place of the layer must be a key of ``layers``."""
    if not isinstance(given, tuple) or not given or not isinstance(given[0], (Layer, str)):
        raise value_error("graph", f"node {name!r} must be a tuple (layer, *inputs)", describe(given))
    if isinstance(given[0], str) and given[0] not in layers:
        raise value_error("graph", f"node {name!r} must use the layer of one of {', '.join(layers)}", repr(given[0]))
    for one in given[1:]:
        if one not in names:
            raise value_error("graph", f"the inputs of node {name!r} must be among {', '.join(names)}", repr(one))
    return name, given[0], given[1:]


def require_node_names(names: list[str]) -> None:
    """Raise ``ValueError`` for repeated names, and for names that cannot be components of a path."""
    require_names("graph", [part for name in names for part in _components(name)], numbers=True)
    if len(set(names)) < len(names):
        raise value_error("graph", "names must be unique", ", ".join(names))


def _components(name: Any) -> list[Any]:
    return name.split(".") if isinstance(name, str) and not name.isdigit() else [name]


def require_apart(layers: dict[str, Layer]) -> None:
    """Raise ``ValueError`` if the params of one node would be inside those of another."""
    for name in layers:
        outer = next((one for one in layers if name.startswith(one + ".")), None)
        if outer is not None:
            raise value_error("graph", "no node's name may be a prefix of another's path", f"{outer!r} and {name!r}")


def in_order(nodes: tuple[AnyNode, ...], outputs: Names) -> tuple[AnyNode, ...]:
    """Sort the nodes that lead to an output, each after its inputs."""
    by_name = {node[0]: node for node in nodes}
    try:
        order = [*TopologicalSorter({name: ins for name, _, ins in nodes}).static_order()]
    except CycleError as error:
        raise value_error("graph", "the nodes must not form a cycle", " -> ".join(error.args[1])) from None
    leading = leading_to(outputs, [by_name[name] for name in order if name in by_name])
    return tuple([by_name[name] for name in order if name in by_name and name in leading])


def leading_to(outputs: Names, order: list[AnyNode]) -> set[str]:
    """Return the names from which a path leads to an output."""
    leading = set(outputs)
    for name, _, ins in reversed(order):
        leading.update(ins if name in leading else ())
    return leading


def require_leading(inputs: Names, nodes: tuple[AnyNode, ...], outputs: Names) -> None:
    """Raise ``ValueError`` if an input, or a node with inputs, does not lead to an output."""
    leading = leading_to(outputs, [*in_order(nodes, tuple([name for name, _, _ in nodes]))])
    idle = [name for name in inputs if name not in leading]
    idle += [name for name, _, ins in nodes if ins and name not in leading]
    if idle:
        raise value_error("graph", "every input and node must lead to the output", f"{', '.join(idle)} that do not")


def numbered(nodes: tuple[AnyNode, ...]) -> dict[str, int]:
    """Return the numbers of nodes for their keys: child i has i, and nodes that reuse a layer come after the children."""
    layers = [name for name, layer, _ in nodes if isinstance(layer, Layer)]
    return {name: i for i, name in enumerate([*layers, *[name for name, layer, _ in nodes if isinstance(layer, str)]])}


def written(layer: Layer | str, ins: Names) -> str:
    """Return the tuple of a node as source code, in the form that ``graph`` takes."""
    return f"({', '.join(map(repr, (layer, *ins)))}{'' if ins else ','})"


def nested(by_name: dict[str, Any]) -> dict[str, Any]:
    """Nest the entries of dotted names in dicts."""
    tree: dict[str, Any] = {}
    for name, entry in by_name.items():
        *path, last = name.split(".")
        inner = tree
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = entry
    return tree


def places(tree: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Convert nested dicts to nested tuples of pairs, which are hashable."""
    return tuple([(key, places(inner) if isinstance(inner, dict) else inner) for key, inner in tree.items()])


def fill_flat(found: dict[str, Any], tree: Any, like: tuple[tuple[str, Any], ...]) -> None:
    """Put the entries of nested dicts into ``found`` by dotted name; the inverse of ``nested``.

    ``like`` is the nesting that ``places`` returns. Other keys raise ``LookupError``.
    """
    if not isinstance(tree, dict) or len(tree) != len(like):
        raise LookupError
    for key, name in like:
        if isinstance(name, tuple):
            fill_flat(found, tree[key], name)
        else:
            found[name] = tree[key]


def pick(values: Values, names: Names) -> Any:
    """Return the value of a single name, or a tuple of the values of several names."""
    return values[names[0]] if len(names) == 1 else tuple([values[name] for name in names])


def collect(gvalues: Values, names: Names, g: Any) -> None:
    """Add the gradient of one name, or of several as a tuple, to the gradients collected so far; the transpose of ``pick``."""
    if len(names) == 1 and names[0] not in gvalues:
        gvalues[names[0]] = g
        return
    for name, part in zip(names, (g,) if len(names) == 1 else g, strict=True):
        gvalues[name] = add_gradients("graph", gvalues[name], part) if gvalues.get(name) is not None else part


def one_each(what: str, names: Names, values: Any) -> tuple[Any, ...]:
    """Return the tuple of values, one for each name."""
    if len(names) == 1:
        return (values,)
    if not isinstance(values, tuple) or len(values) != len(names):
        raise value_error(
            "graph", f"{what} must be a tuple of {len(names)}, one entry each for {', '.join(names)}", describe(values)
        )
    return values
