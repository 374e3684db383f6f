"""Building: collect the nodes of a traced module into a serial or a graph with its params."""

from typing import Any

from attrs import define
from attrs import field as attribute

from funcnet.combinator import Combinator, has_params
from funcnet.combinators.dag import Graph
from funcnet.combinators.sequential import Serial
from funcnet.contract import Layer, Params
from funcnet.interop.torch_nn.importing.stopped import freeze_unreached
from funcnet.interop.torch_nn.importing.values import Node, Numbers, Parts, Ref, UnsupportedError
from funcnet.layers.shape.reshaping import Identity

Inputs = tuple[str, ...]


def without_absent(output: Any) -> Any:
    """Remove the ``None`` entries of an output, such as a loss without targets; unwrap a single remaining entry."""
    if isinstance(output, dict):
        return {key: one for key, one in output.items() if one is not None}
    if not isinstance(output, (tuple, list)) or None not in [one if one is None else ... for one in output]:
        return output
    present = tuple([one for one in output if one is not None])
    return present[0] if len(present) == 1 else present


@define(frozen=True, eq=False)
class Imported:
    """A layer with its params, and the structure of its output."""

    layer: Layer
    params: Params
    parts: Parts = None
    numbers: Numbers = None


@define(eq=False)
class Builder:
    """The nodes of a graph under construction.

    Args:
        inputs: The names of the graph's inputs.
        taken: Reserved names, those of inner modules and params; a node without a module must not use them.
    """

    inputs: Inputs
    taken: set[str]
    nodes: dict[str, tuple[Layer | str, Inputs]] = attribute(factory=dict)
    params: dict[str, Params] = attribute(factory=dict)
    outputs: Any = None
    modules: dict[int, tuple[str, Layer]] = attribute(factory=dict)
    """The name and the layer of each called module's node, by the module's id."""

    _found: dict[int, tuple[Node, Ref]] = attribute(factory=dict)

    def fresh(self, name: str) -> str:
        """Return an unused name."""
        while name in self.nodes or name in self.taken or name in self.inputs:
            name += "_"
        return name

    def add(self, node: Node | Ref, name: str, *, exact: bool = False) -> Ref:
        """Add a node, after the nodes among its inputs, and return a reference to its value; ``exact`` keeps the name."""
        if isinstance(node, Ref):
            return node
        if id(node) not in self._found:
            name = name if exact else self.fresh(name)
            self.taken.add(name)
            inputs = tuple([self.add(one, f"{name}_input").name for one in node.inputs])
            self.nodes[name], self.params[name] = (node.layer, inputs), node.params
            self._found[id(node)] = (node, Ref(name, node.parts, node.shape, node.numbers))
        return self._found[id(node)][1]

    def bound(self, value: Any, name: str) -> Any:
        """Add the nodes in a value, and return it with references instead of nodes."""
        if isinstance(value, Node):
            return self.add(value, name)
        if type(value) in (tuple, list):
            return tuple([self.bound(one, name) for one in value])
        return value

    def reuse(self, node: Node, owner: str, name: str) -> Ref:
        """Add a node with the layer and the params of another node."""
        name = self.fresh(name)
        self.taken.add(name)
        self.nodes[name] = (owner, tuple([self.add(one, f"{name}_input").name for one in node.inputs]))
        return Ref(name, node.parts, numbers=node.numbers)

    def link(self, node: Node, ref: Ref) -> None:
        """Replace a node with a reference in all nodes added later."""
        self._found[id(node)] = (node, ref)

    def hold(self, name: str, layer: Layer, params: Params) -> None:
        """Add a layer only for its params; it is not evaluated."""
        self.nodes[name], self.params[name] = (layer, ()), params

    def output(self, value: Any) -> Any:
        """Return the value of the output with references instead of nodes: a reference, or a tuple or dict of references."""
        if isinstance(value, (Ref, Node)):
            return self.add(value, "output")
        if isinstance(value, dict) and all(isinstance(key, str) for key in value) and value:
            return {key: self._as_one(one) for key, one in value.items()}
        if isinstance(value, (tuple, list)) and value:
            return tuple([self._as_one(one) for one in value])
        raise UnsupportedError(f"its output must be tensors, got {value!r}")

    def _as_one(self, value: Any) -> Ref:
        """Return a reference to a value; several tensors become a tuple."""
        value = self.output(value)
        if isinstance(value, dict):
            raise UnsupportedError("its output has a dict within another one or a tuple")
        if isinstance(value, tuple):
            return self.add(Node(Identity(), value, parts=tuple([one.parts for one in value])), "output_parts")
        return value  # type: ignore[no-any-return]

    def prune(self) -> None:
        """Remove the nodes that do not affect the output, but keep their params, whose names matter."""
        ends = self._output_names()
        wanted = {*ends}
        for name, (_, inputs) in reversed(self.nodes.items()):
            wanted.update(inputs if name in wanted else ())
        users = {self.nodes[name][0] for name in wanted & self.nodes.keys()}
        for name in [name for name in self.nodes if name not in wanted]:
            layer, _ = self.nodes[name]
            if isinstance(layer, Layer) and (has_params(self.params[name]) or name in users):
                self.nodes[name] = (layer, ())
            else:
                del self.nodes[name]
        freeze_unreached(self.nodes, self.params, ends)

    def _output_names(self) -> set[str]:
        outputs = self.outputs.values() if isinstance(self.outputs, dict) else self.outputs
        return {one.name for one in ([outputs] if isinstance(outputs, Ref) else outputs)}

    def finish(self) -> Imported:
        """Return the net: a serial if the input of each node is the previous node, else a graph."""
        net = self._serial() or self.graph()
        return Imported(net, self.packed(net), self.parts(), self.numbers())

    def packed(self, net: Combinator) -> Params:
        """Return the params of a net built from the nodes."""
        made: Params = net.pack([self.params[name] for name in net.children()])
        return made

    def output_names(self, through: dict[str, str]) -> Any:
        """Return the names in the output, with those in ``through`` replaced."""
        if isinstance(self.outputs, dict):
            return {key: through.get(one.name, one.name) for key, one in self.outputs.items()}
        outputs = (self.outputs,) if isinstance(self.outputs, Ref) else self.outputs
        return tuple([through.get(one.name, one.name) for one in outputs])

    def parts(self) -> Parts:
        """Return the structure of the output."""
        if isinstance(self.outputs, Ref):
            return self.outputs.parts
        if isinstance(self.outputs, dict):
            return {key: one.parts for key, one in self.outputs.items()}
        return tuple([one.parts for one in self.outputs])

    def numbers(self) -> Numbers:
        """Return the kind of numbers in the output; floating for several tensors."""
        return self.outputs.numbers if isinstance(self.outputs, Ref) else None

    def _serial(self) -> Serial | None:
        if len(self.inputs) != 1 or not isinstance(self.outputs, Ref):
            return None
        names = [*self.nodes]
        ends = [self.inputs[0], *names]
        rows = zip(self.nodes.values(), ends[:-1], strict=True)
        if self.outputs.name != ends[-1] or not all(isinstance(f, Layer) and ins == (before,) for (f, ins), before in rows):
            return None
        layers: Any = [f for f, _ in self.nodes.values()]
        if names == [*map(str, range(len(names)))]:
            return Serial(tuple(layers))
        return None if any("." in name or name.isdigit() for name in names) else Serial(tuple(layers), tuple(names))

    def graph(self) -> Graph:
        """Return the nodes as a graph."""
        outputs, keys = self.outputs, None
        if isinstance(outputs, dict):
            outputs, keys = tuple(outputs.values()), tuple(outputs)
        outputs = (outputs,) if isinstance(outputs, Ref) else outputs
        names = tuple([one.name for one in outputs])
        if not self.nodes:
            self.add(Node(Identity(), (Ref(self.inputs[0]),)), "identity")
        return Graph(self.inputs, tuple([(name, f, ins) for name, (f, ins) in self.nodes.items()]), names, keys)
