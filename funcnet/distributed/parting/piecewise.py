"""Optimizers of pieces, which update the worker's piece of each leaf but can need information about whole leaves.

An optimizer that acts on elements works on pieces as on whole leaves. One that needs a norm of all gradients, such as
``ClipByGlobalNorm``, computes it from the pieces of all workers, each counted once. Others, such as ``LAMB``, get the DTensors of
the pieces, and DTensor communicates to compute norms and means of whole leaves.
"""

from collections.abc import Callable
from typing import Any

from attrs import field
from torch import Tensor
from torch.distributed.tensor.experimental import implicit_replication

from funcnet.contract import Grads, Params
from funcnet.distributed.over_workers import over_workers
from funcnet.distributed.sharding.param_shards import local_pieces, of_piece
from funcnet.distributed.sharding.placements import is_divided
from funcnet.distributed.workers import Workers
from funcnet.flattening import Tree, flatten_together, unflatten
from funcnet.optim.base import GradientTransform, Optimizer, State
from funcnet.optim.chaining import Chain
from funcnet.optim.evaluating import EvaluatingOptimizer, ValueAndGrads
from funcnet.optim.transforms.noise import AddNoise, AddPrivacyNoise
from funcnet.value import frozen, parts


class Layout:
    """The layouts of a tree's DTensors on the mesh, to convert between pieces and DTensors."""

    __slots__ = ("specs",)

    def __init__(self, values: Tree) -> None:
        self.specs = [getattr(leaf, "_spec", None) for leaf in flatten_together(values)[0]]

    def __hash__(self) -> int:
        return hash(tuple(self.specs))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and self.specs == other.specs

    def whole(self, pieces: Tree) -> Tree:
        """Return the DTensors of the pieces."""
        pairs = zip(flatten_together(pieces)[0], self.specs, strict=True)
        return unflatten(pieces, iter([leaf if leaf is None or spec is None else of_piece(leaf, spec) for leaf, spec in pairs]))


def _call_on_dtensors(f: Callable[..., Any], *args: Any) -> Any:
    """Call a function on DTensors and on plain tensors that are the same on all workers."""
    with implicit_replication():
        return f(*args)


def for_pieces(one: Any, params: Params, state: Any, workers: Workers) -> Any:
    """Return the optimizer or gradient transform for pieces that is equivalent to ``one`` on the DTensors."""
    if one.acts_on == "elements":
        return one
    found = _with_common_norms(one, params, workers)
    if found is not None:
        return found
    if isinstance(one, Chain):
        own = [for_pieces(part, params, its, workers) for part, its in zip(one._parts, state, strict=True)]
        return Chain(tuple(own[:-1]), own[-1])
    kind: Any = TransformOfPieces if isinstance(one, GradientTransform) else OptimizerOfPieces
    kind = EvaluatingOfPieces if isinstance(one, EvaluatingOptimizer) else kind
    return kind(one, Layout(params), Layout(state))


def _with_common_norms(one: Any, params: Params, workers: Workers) -> Any:
    """Return an optimizer with norms over all workers, or ``None`` if it needs whole leaves or has no rule."""
    inside = [part for part in parts(one, given=True) if isinstance(part, (Optimizer, GradientTransform))]
    draws = any(isinstance(part, (AddNoise, AddPrivacyNoise)) for part in inside)
    if draws or isinstance(one, EvaluatingOptimizer) or any(part.acts_on == "leaves" for part in inside):
        return None
    counted = [workers.rank == 0 or is_divided(leaf) for leaf in flatten_together(params)[0]]
    try:
        return over_workers(one, workers, unflatten(params, iter(counted)))
    except ValueError:
        return None


class _OverDTensors:
    """Mixin that runs an optimizer or gradient transform on the DTensors of pieces; subclasses have these fields."""

    __slots__ = ()

    original: Any
    params: Layout
    state: Layout

    def init(self, params: Params) -> State:
        return local_pieces(_call_on_dtensors(self.original.init, self.params.whole(params)))  # type: ignore[no-any-return]

    def update(self, grads: Grads, state: State, params: Params) -> tuple[Any, State]:
        args = self.params.whole(grads), self.state.whole(state), self.params.whole(params)
        return local_pieces(_call_on_dtensors(self.original.update, *args))  # type: ignore[no-any-return]

    def rates(self, state: State) -> dict[str, Any]:
        return self.original.rates(state)  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return repr(self.original)


@frozen(eq=False)
class TransformOfPieces(_OverDTensors, GradientTransform):
    """A gradient transform for pieces, which transforms their DTensors."""

    original: GradientTransform
    params: Layout = field(repr=False)
    state: Layout = field(repr=False)


@frozen(eq=False)
class OptimizerOfPieces(_OverDTensors, Optimizer):
    """An optimizer for pieces, which updates their DTensors."""

    original: Optimizer
    params: Layout = field(repr=False)
    state: Layout = field(repr=False)


@frozen(eq=False)
class EvaluatingOfPieces(_OverDTensors, EvaluatingOptimizer):
    """An optimizer for pieces that evaluates gradients at other params and updates DTensors."""

    original: EvaluatingOptimizer
    params: Layout = field(repr=False)
    state: Layout = field(repr=False)

    def step(self, value_and_grads: ValueAndGrads, state: State, params: Params) -> tuple[Params, State, Any]:
        def over_dtensors(params: Params) -> tuple[Tensor, Tree]:
            value, grads = value_and_grads(local_pieces(params))
            return value, self.params.whole(grads)

        args = over_dtensors, self.state.whole(state), self.params.whole(params)
        return local_pieces(_call_on_dtensors(self.original.step, *args))  # type: ignore[no-any-return]
