"""Training and evaluation: a module whose forward reads ``self.training`` is traced in both modes."""

import copy
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from funcnet.combinators.modes import by_mode
from funcnet.contract import Layer
from funcnet.interop.torch_nn.importing.building import Builder, Imported
from funcnet.layers.shape.reshaping import Identity


def kept_in_evaluation(module: nn.Module) -> set[int]:
    """Return the ids of the inner modules that ``train`` leaves in evaluation mode, such as a frozen batch norm.

    ``train`` is called on a copy of the module and its tensors, because an override can write to weights.
    """
    if all(type(one).train is nn.Module.train for one in module.modules()):
        return set()
    trained = dict(copy.deepcopy(module).train().named_modules())
    return {id(one) for name, one in module.named_modules() if not trained[name].training}


@contextmanager
def _mode(module: nn.Module, *, training: bool, kept: Collection[int]) -> Iterator[None]:
    flags = {one: one.training for one in module.modules()}
    for one in flags:
        one.training = training and id(one) not in kept
    try:
        yield
    finally:
        for one, flag in flags.items():
            one.training = flag


def in_both_modes(module: nn.Module, build: Callable[[], Builder], kept: Collection[int]) -> Imported:
    """Return the net of a module, which depends on the mode if the nodes returned by ``build`` do.

    The modules whose ids are in ``kept`` are in evaluation mode in both cases.
    """
    with _mode(module, training=True, kept=kept):
        training = build()
    with _mode(module, training=False, kept=kept):
        evaluation = build()
    if _seen(training) == _seen(evaluation):
        return training.finish()
    _complete(training, evaluation)
    net = training.graph()
    return Imported(by_mode(net, evaluation.graph()), training.packed(net), training.parts(), training.numbers())


def _seen(builder: Builder) -> Any:
    """Return the computation in evaluation, without layers that then have no effect."""
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
    """Add the missing nodes to both, in the same order, so that both have the same params; added nodes are not evaluated."""
    names = [*dict.fromkeys([*training.nodes, *evaluation.nodes])]
    for builder, other in ((training, evaluation), (evaluation, training)):
        for name in [name for name in names if name not in builder.nodes and isinstance(other.nodes[name][0], Layer)]:
            builder.hold(name, other.nodes[name][0], other.params[name])  # type: ignore[arg-type]
        builder.nodes = {name: builder.nodes[name] for name in names if name in builder.nodes}
