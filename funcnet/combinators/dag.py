"""Graph: a directed acyclic graph of layers by names; a value used twice gets the sum of its gradients.

v_n = f_n(v_a, v_b, ...)              for each node n with the inputs a, b, ..., after these
g_o = gy                              at the output o; then backward, each node after all that use it:
g_a, g_b, ... += f_n's vjp(g_n)       at its inputs
"""

from collections.abc import Callable
from graphlib import CycleError, TopologicalSorter
from typing import Any, Self

from attrs import field

from funcnet.combinator import Children, Combinator, absent, add_gradients, child_key, errors_at, has_params
from funcnet.contract import Cache, Layer, Params, Rng
from funcnet.errors import describe, value_error
from funcnet.naming import listed, named_arguments, require_names
from funcnet.value import frozen

Names = tuple[str, ...]
Node = tuple[str, Layer, Names]
Values = dict[str, Any]


def _pick(values: Values, names: Names) -> Any:
    """Return the value of one name, or the tuple of several names' values."""
    return values[names[0]] if len(names) == 1 else tuple([values[name] for name in names])


def _collect(gvalues: Values, names: Names, g: Any) -> None:
    """Add a gradient, or of several names one each, to what has come from elsewhere: the transpose of ``_pick``."""
    for name, part in zip(names, (g,) if len(names) == 1 else g, strict=True):
        gvalues[name] = add_gradients("graph", gvalues[name], part) if name in gvalues else part


def _names(value: Any, attribute: Any, got: Any) -> None:
    if not isinstance(got, tuple) or not got or not all(isinstance(name, str) for name in got):
        raise value_error("graph", f"{attribute.name} must be a tuple of names", got)


def _keys(value: Any, attribute: Any, got: Any) -> None:
    if got is None:
        return
    _names(value, attribute, got)
    if len(got) != len(value.outputs) or len(set(got)) < len(got):
        rule = f"output_keys must be a name for each of {len(value.outputs)} outputs, no two alike"
        raise value_error("graph", rule, repr(got))


def _nodes(value: Any, attribute: Any, got: Any) -> None:
    for node in got if isinstance(got, tuple) and got else (got,):
        if not isinstance(node, tuple) or len(node) != 3 or not isinstance(node[2], tuple):
            raise value_error("graph", "nodes must be a tuple of (name, layer, inputs)", node)
    for name, layer, ins in got:
        _node(name, (layer, *ins), [*value.inputs, *[node[0] for node in got]])


@frozen
class Graph(Combinator):
    """A directed acyclic graph of layers; made by ``graph``. ``net["node"]`` is a node's layer.

    Params   a dict by node.
    Cache    a dict by node.
    Raises   ``ValueError`` for no nodes, a name given twice, an unknown name, a cycle, a node or input that leads to no output,
             for ``params`` that are not a dict by node, and for an ``x`` or ``gy`` that is not a tuple of one entry each, where
             there are several inputs or outputs; a layer's own error gets a note where it happened.
    """

    label = "graph"
    passes_gradients_on = True

    inputs: Names = field(validator=_names)
    nodes: tuple[Node, ...] = field(validator=_nodes)
    outputs: Names = field(validator=_names)
    output_keys: Names | None = field(default=None, validator=_keys)
    _order: tuple[tuple[int, Node], ...] = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_order", _sorted(self))

    def location(self, name: Any) -> str:
        return f"graph, node {name!r}"

    def children(self) -> Children:
        return {name: layer for name, layer, _ in self.nodes}

    def with_children(self, children: Children) -> Self:
        return self.replace(nodes=tuple([(name, children[name], ins) for name, _, ins in self.nodes]))

    def wires(self) -> list[tuple[str | None, str | None]]:
        source = dict.fromkeys(self.inputs) | {name: name for name in self.children()}
        inner: list[tuple[str | None, str | None]] = [(source[one], name) for name, _, ins in self.nodes for one in ins]
        return inner + [(source[one], None) for one in self.outputs]

    def pack(self, entries: Any) -> dict[str, Any]:
        return dict(zip(self.children(), entries, strict=True))

    def entries(self, params: Params) -> Any:
        return [*self._by_name(params).values()]

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        values: Values = self._start(params, x)
        caches: dict[str, Cache] = {}
        for i, (name, layer, ins) in self._order:
            with errors_at(self, name):
                values[name], caches[name] = layer.apply(params[name], _pick(values, ins), child_key(layer, rng, i))
        return self._output(values), self._ordered(caches)

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        values = self._start(params, x)
        for i, (name, layer, ins) in self._order:
            with errors_at(self, name):
                values[name] = layer(params[name], _pick(values, ins), child_key(layer, rng, i))
        return self._output(values)

    def evaluate(self, params: Params, x: Any, call: Callable[[str, Layer, Params, Any], Any]) -> Any:
        """Return the output where each node gives ``call(name, layer, params, entry)`` in place of what its layer gives."""
        values = self._start(params, x)
        for _, (name, layer, ins) in self._order:
            with errors_at(self, name):
                values[name] = call(name, layer, params[name], _pick(values, ins))
        return self._output(values)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Params, Any]:
        gvalues, gparams = self._start_back(gy), {}
        for _, (name, layer, ins) in reversed(self._order):
            with errors_at(self, name):
                gparams[name], gx = layer.vjp(params[name], cache[name], gvalues.pop(name))
            _collect(gvalues, ins, gx)
        return self._ordered(gparams), _pick(gvalues, self.inputs)

    def grads(self, params: Params, cache: Cache, gy: Any) -> Params:
        """Go back only where a parameter lies on the way: no gradient is computed for what needs none."""
        gvalues, wanted = self._start_back(gy), self._depend_on_params(params)
        gparams = {name: p and absent(p) for name, p in params.items()}
        for _, (name, layer, ins) in [node for node in reversed(self._order) if node[1][0] in wanted]:
            arguments = params[name], cache[name], gvalues.pop(name)
            with errors_at(self, name):
                if wanted.isdisjoint(ins):
                    gparams[name] = layer.grads(*arguments)
                    continue
                gparams[name], gx = layer.vjp(*arguments)
            _collect(gvalues, ins, gx)
        return self._ordered(gparams)

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        gvalues = self._start_back(gy)
        for _, (name, layer, ins) in reversed(self._order):
            with errors_at(self, name):
                gx = layer.input_grad(params[name], cache[name], gvalues.pop(name))
            _collect(gvalues, ins, gx)
        return _pick(gvalues, self.inputs)

    def __repr__(self) -> str:
        words = [*map(repr, self.inputs)]
        words += named_arguments({name: f"({', '.join([repr(layer), *map(repr, ins)])})" for name, layer, ins in self.nodes})
        names: Any = self.outputs[0] if len(self.outputs) == 1 else self.outputs
        names = names if self.output_keys is None else dict(zip(self.output_keys, self.outputs, strict=True))
        return f"graph({', '.join(words)}, output={names!r})"

    def _by_name(self, params: Params) -> dict[str, Any]:
        names = self.children()
        if not isinstance(params, dict) or params.keys() != names.keys():
            raise value_error("graph", f"params must be a dict with the keys {listed(names)}", describe(params))
        return {name: params[name] for name in names}

    def _ordered(self, by_name: dict[str, Any]) -> dict[str, Any]:
        """Put entries in the order in which the nodes were given."""
        return {name: by_name[name] for name, _, _ in self.nodes}

    def _start(self, params: Params, x: Any) -> Values:
        self._by_name(params)
        return dict(zip(self.inputs, _one_each("x", self.inputs, x), strict=True))

    def _output(self, values: Values) -> Any:
        if self.output_keys is None:
            return _pick(values, self.outputs)
        return {key: values[name] for key, name in zip(self.output_keys, self.outputs, strict=True)}

    def _start_back(self, gy: Any) -> Values:
        gvalues: Values = {}
        if self.output_keys is None:
            _one_each("gy", self.outputs, gy)
            _collect(gvalues, self.outputs, gy)
            return gvalues
        if not isinstance(gy, dict) or gy.keys() != {*self.output_keys}:
            raise value_error("graph", f"gy must be a dict with the keys {', '.join(map(repr, self.output_keys))}", describe(gy))
        for key, name in zip(self.output_keys, self.outputs, strict=True):
            _collect(gvalues, (name,), gy[key])
        return gvalues

    def _depend_on_params(self, params: Params) -> set[str]:
        """Return the nodes that have parameters or come after one that has."""
        found: set[str] = set()
        for _, (name, layer, ins) in self._order:
            if not found.isdisjoint(ins) or (has_params(params[name]) and layer.trainable):
                found.add(name)
        return found


def _one_each(what: str, names: Names, values: Any) -> tuple[Any, ...]:
    if len(names) == 1:
        return (values,)
    if not isinstance(values, tuple) or len(values) != len(names):
        raise value_error(
            "graph", f"{what} must be a tuple of {len(names)}, one entry each for {', '.join(names)}", describe(values)
        )
    return values


def _sorted(net: Graph) -> tuple[tuple[int, Node], ...]:
    """Put the nodes, each with its number, in an order in which every node follows its inputs."""
    numbered = {node[0]: (i, node) for i, node in enumerate(net.nodes)}
    try:
        order = [*TopologicalSorter({name: ins for name, _, ins in net.nodes}).static_order()]
    except CycleError as error:
        raise value_error("graph", "the nodes must have no cycle", " -> ".join(error.args[1])) from None
    return tuple(numbered[name] for name in order if name in numbered)


def _idle(net: Graph) -> list[str]:
    """Return the names from which no path leads to an output."""
    leading = set(net.outputs)
    for _, (name, _, ins) in reversed(_sorted(net)):
        leading.update(ins if name in leading else ())
    return [name for name in (*net.inputs, *net.children()) if name not in leading]


def _checked(net: Graph) -> Graph:
    """Return a net whose names are all valid, unchanged."""
    if _idle(net):
        raise value_error("graph", "every input and node must lead to the output", f"{', '.join(_idle(net))} that do not")
    return net


def _node(name: str, given: Any, names: list[str]) -> Node:
    """Read ``(layer, *inputs)``, where every input must be known."""
    if not isinstance(given, tuple) or len(given) < 2 or not isinstance(given[0], Layer):
        raise value_error("graph", f"node {name!r} must be a tuple (layer, *inputs)", describe(given))
    for one in given[1:]:
        if one not in names:
            raise value_error("graph", f"the inputs of node {name!r} must be among {', '.join(names)}", repr(one))
    return name, given[0], given[1:]


def graph(*inputs: str, output: str | Names | dict[str, str] | None = None, **nodes: tuple[Any, ...]) -> Graph:
    """Wire layers by name into a directed acyclic graph.

    Args:
        inputs: Names of the inputs; with several, x is a tuple in this order.
        output: The name whose value is y, or a tuple of names, or a dict of names: y is then a dict with these keys, as
            ``losses_of`` takes it. By default the last node.
        nodes: ``name=(layer, *inputs)``, where each input is the name of an input or of another node, in any order. A layer with
            several inputs gets them as a tuple.

    >>> import torch
    >>> from funcnet.layers.linear.linear import Linear
    >>> from funcnet.layers.operands.arithmetic import Add
    >>> net = graph("x", h=(Linear(3, 3), "x"), y=(Add(), "h", "x"))
    >>> net(net.init(0), torch.ones(2, 3)).shape
    torch.Size([2, 3])

    Raises:
        ValueError: For unknown and repeated names, a cycle, and a node or an input that leads to no output.
    """
    if not inputs or not nodes:
        raise value_error(
            "graph", "there must be at least one input and one node", f"{len(inputs)} inputs and {len(nodes)} nodes"
        )
    names = [*inputs, *nodes]
    require_names("graph", names)
    if len(set(names)) < len(names):
        raise value_error("graph", "each name must be given once", ", ".join(names))
    keys, output = (tuple(output), tuple(output.values())) if isinstance(output, dict) and output else (None, output)
    outputs: Any = (names[-1],) if output is None or output == () else output if isinstance(output, tuple) else (output,)
    for one in outputs:
        if one not in names:
            raise value_error("graph", f"the output must be among {', '.join(names)}", repr(one))
    return _checked(Graph(inputs, tuple(_node(name, given, names) for name, given in nodes.items()), outputs, keys))
