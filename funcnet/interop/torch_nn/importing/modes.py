"""Training and evaluation: a module whose forward asks ``self.training`` is traced in both modes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from funcnet.combinators.modes import by_mode
from funcnet.contract import Layer
from funcnet.interop.torch_nn.importing.building import Builder, Imported
from funcnet.layers.shape.reshaping import Identity


@contextmanager
def _mode(module: nn.Module, *, training: bool) -> Iterator[None]:
    flags = {one: one.training for one in module.modules()}
    for one in flags:
        one.training = training
    try:
        yield
    finally:
        for one, flag in flags.items():
            one.training = flag


def in_both_modes(module: nn.Module, build: Callable[[], Builder]) -> Imported:
    """Return the net of a module, which differs from mode to mode where the nodes that ``build`` makes differ."""
    with _mode(module, training=True):
        training = build()
    with _mode(module, training=False):
        evaluation = build()
    if _seen(training) == _seen(evaluation):
        return training.finish()
    _complete(training, evaluation)
    net = training.graph()
    return Imported(by_mode(net, evaluation.graph()), training.packed(net), training.parts(), training.numbers())


def _seen(builder: Builder) -> Any:
    """Return what is computed in evaluation: layers that do nothing then are left out."""
    through: dict[str, str] = {}
    nodes: dict[str, Any] = {}
    for name, (layer, given) in builder.nodes.items():
        inputs = tuple([through.get(one, one) for one in given])
        seen = layer.inference() if isinstance(layer, Layer) else layer
        if seen == Identity() and len(inputs) == 1:
            through[name] = inputs[0]
        else:
            nodes[name] = seen, inputs
    return nodes, builder.output_names(through)


def _complete(training: Builder, evaluation: Builder) -> None:
    """Let both have the nodes of both, in one order, so that both take the same params: what one lacks, it does not evaluate."""
    names = [*dict.fromkeys([*training.nodes, *evaluation.nodes])]
    for builder, other in ((training, evaluation), (evaluation, training)):
        for name in [name for name in names if name not in builder.nodes and isinstance(other.nodes[name][0], Layer)]:
            builder.hold(name, other.nodes[name][0], other.params[name])  # type: ignore[arg-type]
        builder.nodes = {name: builder.nodes[name] for name in names if name in builder.nodes}
