"""Modules for nets: containers that call the modules of their layers like the net, and layers that autograd differentiates.

Each module accepts x like its layer; the entries of a tuple can be passed as separate arguments or as one tuple.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from funcnet.blocks.wired import Wired
from funcnet.combinators.branching import Branching
from funcnet.combinators.dag import Graph
from funcnet.contract import Layer

SEVERAL = (
    *(nn.Bilinear, nn.PairwiseDistance, nn.RNNBase, nn.RNNCellBase, nn.EmbeddingBag),
    *(nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d),
)
"""torch.nn modules that take several inputs as separate arguments."""

_UNPOOLING: dict[type, int] = {nn.MaxUnpool1d: 1, nn.MaxUnpool2d: 2, nn.MaxUnpool3d: 3}
_TRANSPOSED: dict[type, int] = {nn.ConvTranspose1d: 1, nn.ConvTranspose2d: 2, nn.ConvTranspose3d: 3}
SIZED = _UNPOOLING | _TRANSPOSED
"""The number of axes of modules that can be called with the sizes of y; the layer needs a tensor with these sizes instead."""


def call(module: nn.Module, x: Any) -> Any:
    """Call a module with x, or with the entries of x if it takes several inputs."""
    if type(x) is not tuple:
        return module(x)
    axes = SIZED.get(type(module))
    if axes is not None and len(x) == (3 if type(module) in _UNPOOLING else 2):
        *inputs, like = x
        return module(*inputs, output_size=like.shape[-axes:])
    return module(*x) if isinstance(module, SEVERAL) else module(x)


def entry(xs: tuple[Any, ...]) -> Any:
    """Return x from the arguments of ``forward``."""
    return xs[0] if len(xs) == 1 else xs


def accepts_one_argument(module: nn.Module) -> bool:
    """Return whether a module is defined by torch.nn and takes one input."""
    return type(module).__module__.startswith("torch.nn.") and not isinstance(module, SEVERAL)


def place(root: nn.Module, path: str, child: nn.Module | Tensor) -> None:
    """Register a module, a parameter or a buffer at a dotted path; names of ``nn.Module``'s attributes are allowed."""
    *holders, last = path.split(".")
    for name in holders:
        root = root._modules.setdefault(name, nn.Module())  # type: ignore[assignment]
    kind = nn.Parameter if isinstance(child, nn.Parameter) else Tensor if isinstance(child, Tensor) else nn.Module
    {nn.Module: root._modules, nn.Parameter: root._parameters, Tensor: root._buffers}[kind][last] = child  # type: ignore[index]


def module_at(root: nn.Module, path: str) -> Any:
    """Return the module at a dotted path."""
    for name in path.split(".") if path else ():
        root = root._modules[name]  # type: ignore[assignment]
    return root


def held_at(root: nn.Module, path: str) -> Any:
    """Return the module, parameter or buffer at a dotted path."""
    holder, _, name = path.rpartition(".")
    owner = module_at(root, holder) if holder else root
    if name in owner._modules:
        return owner._modules[name]
    return owner._parameters[name] if name in owner._parameters else owner._buffers[name]


class Chain(nn.Sequential):
    """``nn.Sequential`` that takes several inputs, and passes the entries of a tuple to modules with several inputs."""

    def forward(self, *xs: Any) -> Any:
        """Return the output of the last module."""
        x = entry(xs)
        for module in self._modules.values():
            x = call(module, x)
        return x


class ChainWithConstants(Chain):
    """Modules in series that all receive the same constants after x: the module of ``serial_with_constants``."""

    def forward(self, *xs: Any) -> Any:
        """Return the output of the last module."""
        x, *constants = xs if len(xs) > 1 else xs[0] if isinstance(xs[0], tuple) else xs
        for module in self._modules.values():
            x = call(module, (x, *constants) if constants else x)
        return x


class Container(nn.Module):
    """A module for each layer of a net, under the net's names; the net defines how they are wired."""

    def __init__(self, net: Any, held: Mapping[str, nn.Module | Tensor]) -> None:
        super().__init__()
        self.net = net
        self.paths = frozenset(held)
        for path, one in held.items():
            place(self, path, one)


class GraphModule(Container):
    """The module of a ``graph``."""

    def forward(self, *xs: Any) -> Any:
        """Return the value of the output, or a tuple or dict of several."""
        return self.evaluated(self.net, entry(xs))

    def evaluated(self, graph: Graph, x: Any) -> Any:
        """Evaluate a graph with modules in place of its layers; a layer without a module has no params."""
        paths: Any = graph.pack(graph.children())  # in place of params
        return graph.evaluate(paths, x, lambda name, layer, path, value: self.value_of(path, layer, value))

    def value_of(self, path: str, layer: Layer, x: Any) -> Any:
        """Return the output of the module at a path, or the parameter there."""
        if path not in self.paths:
            return layer({}, x)
        held = held_at(self, path)
        return held if isinstance(held, Tensor) else call(held, x)

    def extra_repr(self) -> str:
        """Return how the nodes are wired."""
        again = {name: f" = {layer} again" for name, layer, _ in self.net.nodes if isinstance(layer, str)}
        ins = [f"{name}{again.get(name, '')} <- {', '.join(inputs) or 'nothing'}" for name, _, inputs in self.net.nodes]
        return "\n".join([f"inputs: {', '.join(self.net.inputs)}", *ins, f"output: {', '.join(self.net.outputs)}"])


class ModeModule(GraphModule):
    """The module of a ``by_mode`` of two graphs, which share the modules with params.

    Args:
        net: The graph for training.
        held: Its modules and parameters.
        evaluation: The graph for evaluation.
        others: Modules, without params, for layers that differ in evaluation.
    """

    def __init__(self, net: Graph, held: Mapping[str, Any], evaluation: Graph, others: dict[str, nn.Module]) -> None:
        super().__init__(net, held)
        self.evaluation = evaluation
        self.others = {name: module.eval() for name, module in others.items()}

    def forward(self, *xs: Any) -> Any:
        """Return the output of the graph for the current mode."""
        return self.evaluated(self.net if self.training else self.evaluation, entry(xs))

    def value_of(self, path: str, layer: Layer, x: Any) -> Any:
        """Return the output of a module."""
        other = None if self.training else self.others.get(path)
        return super().value_of(path, layer, x) if other is None else call(other, x)


class WiredModule(GraphModule):
    """The module of a transformer block, or of another block whose wiring depends on the number of inputs."""

    net: Wired

    def forward(self, *xs: Any) -> Any:
        """Return the output of the block."""
        x = entry(xs)
        return self.evaluated(self.net.graph_for(x), x)

    def extra_repr(self) -> str:
        """Return the possible inputs."""
        return "\n".join(f"inputs: {', '.join(names)}" for names in self.net.forms())


class BranchModule(Container):
    """The module of a ``branch``, ``parallel`` or ``residual``."""

    net: Branching

    def forward(self, *xs: Any) -> Any:
        """Return the outputs of the modules as a tuple, or pass them to the last module and return its output."""
        x, modules = entry(xs), [*self._modules.values()]
        merge = None if self.net.merge is None else modules.pop()
        inputs = [x] * len(modules) if self.net.one_input else x if isinstance(x, tuple) else xs
        ys = tuple([call(module, one) for module, one in zip(modules, inputs, strict=True)])  # type: ignore[arg-type]
        return ys if merge is None else call(merge, ys)

    def _get_name(self) -> str:
        return self.net.label


class Applied(nn.Module):
    """A layer without params that consists of torch functions, which autograd differentiates.

    Args:
        layer: The layer.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *xs: Any) -> Any:
        """Return the layer's output."""
        return self.layer({}, entry(xs))

    def __repr__(self) -> str:
        return repr(self.layer)


class Detached(Applied):
    """A layer without params whose output has no gradient, even if torch's function has one."""

    def forward(self, *xs: Any) -> Any:
        """Return the layer's output."""
        with torch.no_grad():
            return super().forward(*xs)
