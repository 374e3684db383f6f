"""Modes: one layer for training and another for evaluation, with the same params."""

from typing import Any, Self

from attrs import field

from funcnet.combinator import Children, Combinator, errors_at, layers_only
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.value import frozen
from funcnet.wrapper import Wrapper, infer_unchanged


@frozen
class ByMode(Wrapper):
    """A layer that ``inference`` replaces with another; made by ``by_mode``.

        training      y = f(p, x)      gp, gx = f.vjp(gy)
        evaluation    y = e(p, x)      gp, gx = e.vjp(gy)

    Args:
        layer: The layer f for training.
        evaluation: The layer e for evaluation.

    Params:
        The layer's params, which ``evaluation`` takes too.

    Cache:
        The layer's cache.
    """

    label = "by_mode"
    computes = False
    following = ("evaluation",)

    layer: Layer = field(validator=layers_only)
    evaluation: Layer = field(validator=layers_only)

    def with_children(self, children: Children) -> Self:
        return self.replace(layer=children[""], evaluation=_with_layers_of(self.evaluation, self.layer, children[""]))

    def inference(self) -> Layer:
        return self.evaluation.inference()

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        with errors_at(self, ""):
            return self.layer.apply(params, x, rng)

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        with errors_at(self, ""):
            return self.layer(params, x, rng)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        with errors_at(self, ""):
            return self.layer.vjp(params, cache, gy)

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        with errors_at(self, ""):
            return self.layer.grads(params, cache, gy)

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        with errors_at(self, ""):
            return self.layer.input_grad(params, cache, gy)

    infer = infer_unchanged

    def __repr__(self) -> str:
        return f"by_mode({self.layer!r}, {self.evaluation!r})"


def _with_layers_of(evaluation: Any, old: Any, new: Any) -> Layer:
    """Return the layer for evaluation, with layers that it shares with ``old`` replaced by layers of ``new``."""
    if evaluation == old:
        return new  # type: ignore[no-any-return]
    if not all(isinstance(one, Combinator) for one in (evaluation, old, new)):
        return evaluation  # type: ignore[no-any-return]
    children, before, after = evaluation.children(), old.children(), new.children()
    moved = {
        name: _with_layers_of(child, before[name], after[name]) if name in before and name in after else child
        for name, child in children.items()
    }
    return evaluation if moved == children else evaluation.with_children(moved)  # type: ignore[no-any-return]


def by_mode(layer: Layer, evaluation: Layer) -> ByMode:
    """Use one layer in training and another in evaluation, with the same params.

        training      y = f(p, x)      gp, gx = f.vjp(gy)
        evaluation    y = e(p, x)      gp, gx = e.vjp(gy)

    The outputs may differ in structure, for example in a net with auxiliary outputs in training only. ``map_layers`` and
    ``replace`` see the layer for training. They also change the layer for evaluation where it has an equal layer at the same
    path.

    Args:
        layer: The layer f for training.
        evaluation: The layer e that ``inference`` returns; it takes the same params.

    Params:
        The layer's params, which ``evaluation`` takes too.

    Cache:
        The layer's cache.

    >>> import torch
    >>> from funcnet.layers.shape.reshaping import Identity
    >>> from funcnet.layers.activation.elementary import Square
    >>> net = by_mode(Square(), Identity())
    >>> net({}, torch.tensor(3.0)), net.inference()({}, torch.tensor(3.0))
    (tensor(9.), tensor(3.))
    """
    return ByMode(layer, evaluation)
