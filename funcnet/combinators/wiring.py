"""Wiring: the nodes of a graph, in an order in which each follows its inputs, and what a graph refuses.

A node is (name, layer, inputs), or (name, name of another node, inputs): it then applies that node's layer with the same params.
A name with dots puts the params of its layer into nested dicts. Values and their gradients are dicts by name.
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
    """Validate the keys of outputs, one for each output."""
    if got is None:
        return
    names_field(value, attribute, got)
    if len(got) != len(value.outputs) or len(set(got)) < len(got):
        rule = f"output_keys must be a name for each of {len(value.outputs)} outputs, no two alike"
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
    """Return the layers of nodes by name, without the nodes that use another one's layer."""
    return {name: layer for name, layer, *_ in nodes if isinstance(layer, Layer)}


def read_node(name: str, given: Any, names: list[str], layers: dict[str, Layer]) -> AnyNode:
    """Read ``(layer, *inputs)``, where every input must be known, and a name in the layer's place be that of a layer."""
    if not isinstance(given, tuple) or not given or not isinstance(given[0], (Layer, str)):
        raise value_error("graph", f"node {name!r} must be a tuple (layer, *inputs)", describe(given))
    if isinstance(given[0], str) and given[0] not in layers:
        raise value_error("graph", f"node {name!r} must use the layer of one of {', '.join(layers)}", repr(given[0]))
    for one in given[1:]:
        if one not in names:
            raise value_error("graph", f"the inputs of node {name!r} must be among {', '.join(names)}", repr(one))
    return name, given[0], given[1:]


def require_node_names(names: list[str]) -> None:
    """Raise ``ValueError`` for names that are given twice, or whose parts between dots make no components of a path."""
    require_names("graph", [part for name in names for part in _components(name)], numbers=True)
    if len(set(names)) < len(names):
        raise value_error("graph", "each name must be given once", ", ".join(names))


def _components(name: Any) -> list[Any]:
    return name.split(".") if isinstance(name, str) and not name.isdigit() else [name]


def require_apart(layers: dict[str, Layer]) -> None:
    """Raise ``ValueError`` where the params of one node would lie within those of another."""
    for name in layers:
        outer = next((one for one in layers if name.startswith(one + ".")), None)
        if outer is not None:
            raise value_error("graph", "no node may have a name within another node's", f"{outer!r} and {name!r}")


def in_order(nodes: tuple[AnyNode, ...], outputs: Names) -> tuple[AnyNode, ...]:
    """Put the nodes that lead to an output in an order in which every node follows its inputs."""
    by_name = {node[0]: node for node in nodes}
    try:
        order = [*TopologicalSorter({name: ins for name, _, ins in nodes}).static_order()]
    except CycleError as error:
        raise value_error("graph", "the nodes must have no cycle", " -> ".join(error.args[1])) from None
    leading = leading_to(outputs, [by_name[name] for name in order if name in by_name])
    return tuple([by_name[name] for name in order if name in by_name and name in leading])


def leading_to(outputs: Names, order: list[AnyNode]) -> set[str]:
    """Return the names from which a path leads to an output."""
    leading = set(outputs)
    for name, _, ins in reversed(order):
        leading.update(ins if name in leading else ())
    return leading


def numbered(nodes: tuple[AnyNode, ...]) -> dict[str, int]:
    """Return the number of each node, from which its key is made: child i has i, and those that use its layer come after."""
    layers = [name for name, layer, _ in nodes if isinstance(layer, Layer)]
    return {name: i for i, name in enumerate([*layers, *[name for name, layer, _ in nodes if isinstance(layer, str)]])}


def nested(by_name: dict[str, Any]) -> dict[str, Any]:
    """Put the entries of dotted names into nested dicts."""
    tree: dict[str, Any] = {}
    for name, entry in by_name.items():
        *path, last = name.split(".")
        inner = tree
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = entry
    return tree


def places(tree: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Write nested dicts as nested tuples of pairs, which a value may hold."""
    return tuple([(key, places(inner) if isinstance(inner, dict) else inner) for key, inner in tree.items()])


def fill_flat(found: dict[str, Any], tree: Any, like: tuple[tuple[str, Any], ...]) -> None:
    """Put the entries of nested dicts into ``found`` by their dotted names, the inverse of ``nested``; ``like`` are their places.

    Raises   ``LookupError`` for other keys.
    """
    if not isinstance(tree, dict) or len(tree) != len(like):
        raise LookupError
    for key, name in like:
        if isinstance(name, tuple):
            fill_flat(found, tree[key], name)
        else:
            found[name] = tree[key]


def pick(values: Values, names: Names) -> Any:
    """Return the value of one name, or the tuple of several names' values."""
    return values[names[0]] if len(names) == 1 else tuple([values[name] for name in names])


def collect(gvalues: Values, names: Names, g: Any) -> None:
    """Add a gradient, or of several names one each, to what has come from elsewhere: the transpose of ``pick``."""
    if len(names) == 1 and names[0] not in gvalues:
        gvalues[names[0]] = g
        return
    for name, part in zip(names, (g,) if len(names) == 1 else g, strict=True):
        gvalues[name] = add_gradients("graph", gvalues[name], part) if gvalues.get(name) is not None else part


def one_each(what: str, names: Names, values: Any) -> tuple[Any, ...]:
    """Return one value for each name: a tuple where there are several names."""
    if len(names) == 1:
        return (values,)
    if not isinstance(values, tuple) or len(values) != len(names):
        raise value_error(
            "graph", f"{what} must be a tuple of {len(names)}, one entry each for {', '.join(names)}", describe(values)
        )
    return values
