"""Graphs: layers wired by name; a value that is used twice gets the sum of its gradients."""

from collections.abc import Callable
from typing import Any, Self

from attrs import field
from torch import Tensor

from funcnet.combinator import Children, Combinator, absent, add_gradients, child_key, errors_at, has_params
from funcnet.combinators import wiring
from funcnet.combinators.wiring import AnyNode, Names, Values
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.errors import describe, value_error
from funcnet.naming import listed, named_arguments
from funcnet.value import frozen


@frozen
class Graph(Combinator):
    """A directed acyclic graph of layers; made by ``graph``. ``net["node"]`` is the layer of a node.

    Args:
        inputs: Names of the inputs.
        nodes: Triples (name, layer, names of the inputs). The name of another node in place of the layer reuses that node's
            layer.
        outputs: Names of the values to return.
        output_keys: Keys of y if it is a dict, one for each output; otherwise ``None``.

    Params:
        A dict by node, nested for dotted names. A node that reuses a layer has no entry.

    Cache:
        A dict with the caches of the nodes that lead to the output.

    Raises:
        ValueError: If ``params`` is not a dict by node, or if x or gy is not a tuple with one entry per input or output.
    """

    label = "graph"
    passes_gradients_on = True

    inputs: Names = field(validator=wiring.names_field)
    nodes: tuple[AnyNode, ...] = field(validator=wiring.nodes_field)
    outputs: Names = field(validator=wiring.names_field)
    output_keys: Names | None = field(default=None, validator=wiring.keys_field)
    _order: tuple[tuple[int, str, str, Layer, Names], ...] = field(init=False, eq=False)
    """The evaluated nodes: number, name, name of the node that owns the params, layer, inputs."""

    _layers: tuple[tuple[str, Layer], ...] = field(init=False, eq=False)
    _names: tuple[str, ...] = field(init=False, eq=False)
    _trainable: frozenset[str] = field(init=False, eq=False)  # asking the layers in each step would take 0.3 to 2.4 µs each
    _nested: tuple[tuple[str, Any], ...] | None = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        layers, numbers = wiring.layers_of(self.nodes), wiring.numbered(self.nodes)
        rows = [(name, name if isinstance(f, Layer) else f, ins) for name, f, ins in wiring.in_order(self.nodes, self.outputs)]
        order = tuple([(numbers[name], name, owner, layers[owner], ins) for name, owner, ins in rows])
        has_dots = any("." in name for name in layers)
        places = wiring.places(wiring.nested({name: name for name in layers})) if has_dots else None
        trainable = frozenset([name for name, layer in layers.items() if layer.trainable])
        found = {"_order": order, "_layers": tuple(layers.items()), "_names": tuple(layers), "_nested": places}
        for name, value in {**found, "_trainable": trainable}.items():
            object.__setattr__(self, name, value)

    def location(self, name: Any) -> str:
        return f"graph, node {name!r}"

    @property
    def calls_each_child_once(self) -> bool:
        return len(self._layers) == len(self.nodes)

    def children(self) -> Children:
        return dict(self._layers)

    def with_children(self, children: Children) -> Self:
        return self.replace(nodes=tuple([(name, children.get(name, layer), ins) for name, layer, ins in self.nodes]))

    def wires(self) -> list[tuple[str | None, str | None]]:
        source = dict.fromkeys(self.inputs) | {name: owner for _, name, owner, _, _ in self._order}
        inner: list[tuple[str | None, str | None]] = [(source[one], owner) for _, _, owner, _, ins in self._order for one in ins]
        return inner + [(source[one], None) for one in self.outputs]

    def pack(self, entries: Any) -> dict[str, Any]:
        by_name = dict(zip(self._names, entries, strict=True))
        return by_name if self._nested is None else wiring.nested(by_name)

    def entries(self, params: Params) -> Any:
        return [*self._by_name(params).values()]

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        values, params = self._start(x), self._by_name(params)
        caches: dict[str, Cache] = {}
        for i, name, owner, layer, ins in self._order:
            try:
                key = None if rng is None else child_key(layer, rng, i)
                values[name], caches[name] = layer.apply(params[owner], wiring.pick(values, ins), key)
            except Exception as error:
                self.locate(error, name)
                raise
        return self._output(values), caches

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        values, params = self._start(x), self._by_name(params)
        for i, name, owner, layer, ins in self._order:
            try:
                key = None if rng is None else child_key(layer, rng, i)
                values[name] = layer(params[owner], wiring.pick(values, ins), key)
            except Exception as error:
                self.locate(error, name)
                raise
        return self._output(values)

    def evaluate(self, params: Params, x: Any, call: Callable[[str, Layer, Any, Any], Any]) -> Any:
        """Compute the output with ``call(name, layer, params, entry)`` in place of each layer's own call.

        Args:
            params: The params of the graph.
            x: The input, or a tuple of the inputs.
            call: A function that returns the value of a node.

        Returns:
            y, as the graph returns it.
        """
        values, params = self._start(x), self._by_name(params)
        for _, name, owner, layer, ins in self._order:
            with errors_at(self, name):
                values[name] = call(name, layer, params[owner], wiring.pick(values, ins))
        return self._output(values)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        gvalues, params = self._start_back(gy), self._by_name(params)
        gparams: dict[str, Any] = {}
        for _, name, owner, layer, ins in reversed(self._order):
            g = gvalues.pop(name, None)
            if g is None:  # the value is used only for its shape, or as an integer
                continue
            try:
                gp, gx = layer.vjp(params[owner], cache[name], g)
            except Exception as error:
                self.locate(error, name)
                raise
            gparams[owner] = add_gradients(self.label, gparams[owner], gp) if owner in gparams else gp
            wiring.collect(gvalues, ins, gx)
        return self._packed(params, gparams), self._inputs_of(gvalues)

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        """Go back only through nodes that have trainable params, or depend on such a node."""
        gvalues, params = self._start_back(gy), self._by_name(params)
        gparams: dict[str, Any] = {}
        wanted = self._depend_on_params(params)
        for _, name, owner, layer, ins in [row for row in reversed(self._order) if row[1] in wanted]:
            g = gvalues.pop(name, None)
            if g is None:
                continue
            try:
                if wanted.isdisjoint(ins):
                    gp, gx = layer.grads(params[owner], cache[name], g), None
                else:
                    gp, gx = layer.vjp(params[owner], cache[name], g)
            except Exception as error:
                self.locate(error, name)
                raise
            gparams[owner] = add_gradients(self.label, gparams[owner], gp) if owner in gparams else gp
            if gx is not None:
                wiring.collect(gvalues, ins, gx)
        return self._packed(params, gparams)

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        gvalues, params = self._start_back(gy), self._by_name(params)
        for _, name, owner, layer, ins in reversed(self._order):
            g = gvalues.pop(name, None)
            if g is not None:
                with errors_at(self, name):
                    gx = layer.input_grad(params[owner], cache[name], g)
                wiring.collect(gvalues, ins, gx)
        return self._inputs_of(gvalues)

    def update_stats(self, params: Params, cache: Cache) -> Params:
        moved = {**self._by_name(params)}
        for _, name, owner, layer, _ in self._order:
            with errors_at(self, name):
                moved[owner] = layer.update_stats(moved[owner], cache[name])
        return self.pack(moved.values())

    def __repr__(self) -> str:
        words = [*map(repr, self.inputs)]
        words += named_arguments({name: wiring.written(layer, ins) for name, layer, ins in self.nodes})
        names: Any = self.outputs[0] if len(self.outputs) == 1 else self.outputs
        names = names if self.output_keys is None else dict(zip(self.output_keys, self.outputs, strict=True))
        return f"graph({', '.join(words)}, output={names!r})"

    def _by_name(self, params: Params) -> dict[str, Any]:
        """Return the params of each layer by name, in the order of the layers."""
        if self._nested is not None:
            try:
                found: dict[str, Any] = {}
                wiring.fill_flat(found, params, self._nested)
                return {name: found[name] for name in self._names}
            except LookupError:
                rule = f"params must be nested dicts with the paths {listed(self.children())}"
                raise value_error("graph", rule, describe(params)) from None
        if type(params) is dict and tuple(params) == self._names:
            return params
        if not isinstance(params, dict) or params.keys() != self.children().keys():
            raise value_error("graph", f"params must be a dict with the keys {listed(self.children())}", describe(params))
        return {name: params[name] for name in self._names}

    def _packed(self, params: Any, gparams: dict[str, Any]) -> dict[str, Any]:
        """Pack the gradients of params, with ``None`` leaves for layers that no gradient reached."""
        return self.pack([gparams[name] if name in gparams else _absent(p) for name, p in params.items()])

    def _start(self, x: Any) -> Values:
        return dict(zip(self.inputs, wiring.one_each("x", self.inputs, x), strict=True))

    def _inputs_of(self, gvalues: Values) -> Any:
        """Return the gradients of the inputs, ``None`` for inputs that no gradient reached."""
        return wiring.pick({name: gvalues.get(name) for name in self.inputs}, self.inputs)

    def _output(self, values: Values) -> Any:
        if self.output_keys is None:
            return wiring.pick(values, self.outputs)
        return {key: values[name] for key, name in zip(self.output_keys, self.outputs, strict=True)}

    def _start_back(self, gy: Any) -> Values:
        gvalues: Values = {}
        if self.output_keys is not None:
            if not isinstance(gy, dict) or gy.keys() != {*self.output_keys}:
                rule = f"gy must be a dict with the keys {', '.join(map(repr, self.output_keys))}"
                raise value_error("graph", rule, describe(gy))
            gy = tuple([gy[key] for key in self.output_keys])
            gy = gy[0] if len(gy) == 1 else gy
        wiring.one_each("gy", self.outputs, gy)
        wiring.collect(gvalues, self.outputs, gy)
        if not [g for g in gvalues.values() if g is not None]:
            raise value_error("graph", "gy must have the gradient of at least one output", describe(gy))
        return gvalues

    def _depend_on_params(self, params: Params) -> set[str]:
        """Return the nodes that have trainable params, or depend on such a node."""
        found: set[str] = set()
        for _, name, owner, _, ins in self._order:
            if not found.isdisjoint(ins) or (owner in self._trainable and has_params(params[owner])):
                found.add(name)
        return found


def _absent(p: Params) -> Params:
    return absent(p) if isinstance(p, Tensor) or p else p


def graph(*inputs: str, output: str | Names | dict[str, str] | None = None, **nodes: tuple[Any, ...]) -> Graph:
    """Wire layers by name into a directed acyclic graph.

        v_n = f_n(v_a, v_b, ...)          for each node n with the inputs a, b, ...
        g_a, g_b, ... += f_n.vjp(g_n)     backward, each node after all that use it; g = gy at the output, gx = g at the inputs

    Args:
        inputs: Names of the inputs. With several, x is a tuple in this order.
        output: The name of the value to return as y; a tuple of names, for a tuple y; or a dict of names, for a dict y with the
            same keys, as ``losses_of`` takes it. By default the last node.
        nodes: ``name=(layer, *inputs)``, where each input is the name of an input or of another node, in any order. A layer with
            several inputs gets them as a tuple. The name of another node in place of the layer reuses that node's layer, with the
            same params. A layer without inputs, such as ``Parameter``, gets ``()``; if nothing uses its output, its params are
            kept but it is not evaluated. A dotted name gives nested params: ``**{"blocks.0": ...}``.

    Params:
        A dict by node, without nodes that reuse a layer.

    Raises:
        ValueError: For unknown and repeated names, a cycle, and a node or input that does not lead to the output.

    >>> import torch
    >>> from funcnet.layers.linear.linear import Linear
    >>> from funcnet.layers.operands.arithmetic import Add
    >>> net = graph("x", h=(Linear(3, 3), "x"), y=(Add(), "h", "x"))
    >>> net(net.init(0), torch.ones(2, 3)).shape
    torch.Size([2, 3])
    >>> siamese = graph("a", "b", f=(Linear(3, 3), "a"), g=("f", "b"), y=(Add(), "f", "g"))
    >>> list(siamese.init(0))
    ['f', 'y']
    """
    if not inputs or not nodes:
        raise value_error(
            "graph", "there must be at least one input and one node", f"{len(inputs)} inputs and {len(nodes)} nodes"
        )
    names = [*inputs, *nodes]
    wiring.require_node_names(names)
    keys, output = (tuple(output), tuple(output.values())) if isinstance(output, dict) and output else (None, output)
    outputs: Any = (names[-1],) if output is None or output == () else output if isinstance(output, tuple) else (output,)
    for one in outputs:
        if one not in names:
            raise value_error("graph", f"the output must be among {', '.join(names)}", repr(one))
    layers = wiring.layers_of([(name, given[0]) for name, given in nodes.items() if isinstance(given, tuple) and given])
    read = tuple(wiring.read_node(name, one, names, layers) for name, one in nodes.items())
    net = Graph(inputs, read, outputs, keys)
    wiring.require_leading(inputs, read, outputs)
    return net
