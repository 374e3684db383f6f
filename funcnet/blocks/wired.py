"""Wired blocks: named layers, wired as a graph with optional inputs.

    y = the graph's output for the entries of x      gx = the graph's gradients of these entries

A graph has a fixed set of inputs. A block with optional inputs, like masks, has one graph for each number of entries.
"""

from abc import abstractmethod
from typing import Any, Self

import attrs
from attrs import field

from funcnet.combinator import Children, Combinator
from funcnet.combinators.dag import Graph
from funcnet.combinators.wiring import Names, Node
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.errors import describe, value_error
from funcnet.layers.operands.arithmetic import Add
from funcnet.value import frozen

Forms = tuple[Names, ...]
"""The names of the entries of x, for each number of entries, fewest first."""

SUM = Add(broadcast=False)
"""The layer that adds the output of a branch to its input."""


@frozen
class _Wiring(Graph):
    """A graph that names its block in errors."""

    owner: str = ""

    def location(self, name: Any) -> str:
        return f"{self.owner}, layer {name!r}"


@frozen
class Wired(Combinator):
    """Base of blocks that wire the layers in their fields: a subclass defines the fields, ``forms`` and ``nodes``.

    Fields with ``None`` hold no layer. Params are a dict by field name.
    """

    computes = False
    passes_gradients_on = True

    _own: tuple[tuple[str, Layer], ...] = field(init=False, eq=False)
    """The layers by name: finding them takes 10 µs, and every verb needs them."""

    _names: frozenset[str] = field(init=False, eq=False)
    _sums: Names = field(init=False, eq=False)
    _graphs: tuple[_Wiring, ...] = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        kind: Any = type(self)
        values = {one.name: getattr(self, one.name) for one in attrs.fields(kind) if one.init}
        own = {name: value for name, value in values.items() if isinstance(value, Layer)}
        graphs = tuple([self._graph(inputs, list(own)) for inputs in self.forms()])
        sums = tuple([name for name, _, _ in graphs[0].nodes if name not in own])
        found = {"_own": tuple(own.items()), "_names": frozenset(own), "_sums": sums, "_graphs": graphs}
        for name, value in found.items():
            object.__setattr__(self, name, value)

    def _graph(self, inputs: Names, own: list[str]) -> _Wiring:
        """Return the graph for these inputs: first the layers in their order, which gives child i the key i, then the sums."""
        wired = self.nodes(inputs)
        nodes = sorted(wired, key=lambda node: own.index(node[0]) if node[0] in own else len(own))
        return _Wiring(inputs, tuple(nodes), (wired[-1][0],), owner=self.label)

    @abstractmethod
    def forms(self) -> Forms:
        """Return the names of the entries of x, for each number of entries."""

    @abstractmethod
    def nodes(self, inputs: Names) -> list[Node]:
        """Return the nodes of the graph with these inputs, the output's last; nodes without a field are sums."""

    def children(self) -> Children:
        return dict(self._own)

    def with_children(self, children: Children) -> Self:
        return self.replace(**children)

    def wires(self) -> list[tuple[str | None, str | None]]:
        graph = self._graphs[0]
        ins, children = {name: names for name, _, names in graph.nodes}, self.children()

        def sources(name: str) -> list[str | None]:
            """Return the layers that compute a value; for a sum, the layers of its terms."""
            if name in children or name not in ins:
                return [name if name in children else None]
            return [one for term in ins[name] for one in sources(term)]

        wires = [(one, name) for name in children for term in ins[name] for one in sources(term)]
        return [*dict.fromkeys([*wires, *[(one, None) for one in sources(graph.outputs[0])]])]

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        form = self._graph_index(x)
        y, cache = self._graphs[form].apply(self.node_params(params), x, rng)
        return y, {**cache, "form": form}

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        return self._graphs[self._graph_index(x)](self.node_params(params), x, rng)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        gparams, gx = self._graph_of(cache).vjp(self.node_params(params), cache, gy)
        return self._without_sums(gparams), gx

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        return self._without_sums(self._graph_of(cache).grads(self.node_params(params), cache, gy))

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        return self._graph_of(cache).input_grad(self.node_params(params), cache, gy)

    def graph_for(self, x: Any) -> Graph:
        """Return the graph for an x with these entries; its sums are nodes without params."""
        return self._graphs[self._graph_index(x)]

    def _graph_of(self, cache: Cache) -> Any:
        if not isinstance(cache, dict) or "form" not in cache:
            raise value_error(self.label, "cache must be what apply returned", describe(cache))
        return self._graphs[cache["form"]]

    def node_params(self, params: Any) -> Params:
        """Return the params of all nodes; sums have none."""
        if not isinstance(params, dict) or params.keys() != self._names:
            self.entries(params)  # which raises
        return {**params, **{name: {} for name in self._sums}}

    def _without_sums(self, by_node: dict[str, Any]) -> dict[str, Any]:
        return {name: by_node[name] for name, _ in self._own}

    def _graph_index(self, x: Any) -> int:
        """Return the number of the graph for this x."""
        count, forms = len(x) if isinstance(x, tuple) else 1, self._graphs
        form = count - len(forms[0].inputs)
        if not 0 <= form < len(forms) or (count == 1 and isinstance(x, tuple)):
            rule = " or ".join([f"({', '.join(one.inputs)})" if one.inputs[1:] else one.inputs[0] for one in forms])
            raise value_error(self.label, f"x must be {rule}", x)
        return form
