"""Layer by layer: an optimizer's step for each layer within the backward pass, after which the layer's gradient is released.

    gpᵢ, gᵢ₋₁ = fᵢ's vjp(pᵢ, cᵢ, gᵢ)      pᵢ, sᵢ ← opt's update(gpᵢ, sᵢ, pᵢ)      for i = n, ..., 1

The backward pass of the net is run with a stand-in for each layer, which returns its new params and state in the place of the
gradient. Combinators that pass gradients on pass these on. The layers of other combinators are updated together.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any, NamedTuple, TypeGuard

from torch import Tensor

from funcnet import tree
from funcnet.combinator import Combinator, absent, errors_at, has_params
from funcnet.combinators.depth import Repeat, Way
from funcnet.combinators.mixed_precision import MixedPrecision, with_dtypes_of
from funcnet.combinators.stacking import entry
from funcnet.contract import Cache, Layer, Params, Rng
from funcnet.errors import value_error
from funcnet.flattening import Tree, flatten_together, rebuild
from funcnet.kernels.optim_steps import fills_steps
from funcnet.kernels.tracing import is_eager
from funcnet.optim.base import GradientTransform, Optimizer, State
from funcnet.stand_ins import StandIn, stand_in_for
from funcnet.value import frozen, parts
from funcnet.wrapper import Wrapper


class Part(NamedTuple):
    """What a layer has in the place of its params: these, those from which the optimizer steps, and its part of the state."""

    params: Params
    start: Params
    state: State


class Updated(NamedTuple):
    """What a layer gives in the place of its gradient: new params, and its part of the new state."""

    params: Params
    state: State


class Updating(StandIn):
    """A layer that makes the optimizer's step as soon as it has its gradient."""

    opt: Optimizer

    @property
    def invertible(self) -> bool:
        return self.original.invertible

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        return self.original.apply(_params(params), x, rng)

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        return self.original(_params(params), x, rng)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Params, Any]:
        gparams, gx = self.original.vjp(_params(params), cache, gy)
        return self.updated(params, gparams), gx

    def grads(self, params: Params, cache: Cache, gy: Any) -> Params:
        return self.updated(params, self.original.grads(_params(params), cache, gy))

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        return self.original.input_grad(_params(params), cache, gy)

    def inverse(self, params: Params, y: Any, rng: Rng = None) -> Any:
        return self.original.inverse(_params(params), y, rng)

    def restore(self, params: Params, y: Any, rng: Rng = None) -> tuple[Any, Cache]:
        return self.original.restore(_params(params), y, rng)

    def updated(self, part: Params, gparams: Params) -> Params:
        """Return the new params and state; of a layer without params what came as their gradient."""
        if type(part) is not Part:
            return gparams
        return Updated(*self.opt.update(with_dtypes_of(gparams, part.start), part.state, part.start))


class UpdatingCopies(Updating):
    """A ``repeat`` that updates one copy after the other, for optimizers that act on elements.

    In eager mode, where each copy of each leaf fills whole steps of a kernel; elsewhere all copies are updated at the end.
    """

    layer: Layer

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Params, Any]:
        return self._back(params, cache, gy) if self._is_parted(params) else super().vjp(params, cache, gy)

    def grads(self, params: Params, cache: Cache, gy: Any) -> Params:
        return self._back(params, cache, gy, first=0)[0] if self._is_parted(params) else super().grads(params, cache, gy)

    def _is_parted(self, part: Params) -> bool:
        if type(part) is not Part or not is_eager():
            return False
        return all([fills_steps(leaf[0].numel()) for leaf in tree.leaves(part.start) if leaf.is_floating_point()])  # noqa: C419

    def _back(self, part: Part, cache: Cache, gy: Any, first: int = -1) -> tuple[Updated, Any]:
        """Go back to the input, or to the params of copy ``first``."""
        repeat: Any = self.original
        stacks, way = Stacks(self.opt, part), Way(repeat, part.params, cache)
        for i in reversed(range(repeat.n)):
            p, c = way.at(i)
            with errors_at(repeat, i):
                gy = self._copy_back(stacks, i, p, c, gy, only_params=i == first)
        return stacks.updated(), gy

    def _copy_back(self, stacks: "Stacks", i: int, params: Params, cache: Cache, gy: Any, *, only_params: bool) -> Any:
        """Go back through one copy and update it; its gradient is released on return."""
        layer: Layer = self.layer
        gparams, gx = (layer.grads(params, cache, gy), None) if only_params else layer.vjp(params, cache, gy)
        stacks.update(i, gparams)
        return gx


@frozen
class UpdatingCast(MixedPrecision):
    """A ``cast`` whose layers are updated one by one: they compute in its dtype, and the optimizer steps in that of params."""

    passes_gradients_on = True

    def vjp(self, params: Params, cache: Any, gy: Any) -> tuple[Params, Any]:
        gparams, gx = self.layer.vjp(self._cast(params), cache[0], self._inside(gy, cache[2]))
        return gparams, with_dtypes_of(gx, cache[1])

    def grads(self, params: Params, cache: Any, gy: Any) -> Params:
        return self.layer.grads(self._cast(params), cache[0], self._inside(gy, cache[2]))

    def _cast(self, values: Tree) -> Tree:
        if type(values) is Part:
            return values._replace(params=super()._cast(values.params))
        if type(values) in (tuple, dict):
            return rebuild(values, iter([self._cast(one) for one in (values.values() if type(values) is dict else values)]))
        return super()._cast(values)


class Stacks:
    """Stacked params and state that are updated one copy at a time.

    What a donated optimizer writes to is in its place already; all else is copied into new stacks.
    """

    def __init__(self, opt: Optimizer, part: Part) -> None:
        self.opt, self.part = opt, part
        self.new: dict[int, Tensor] = {}
        self.last: State = part.state

    def update(self, i: int, gparams: Params) -> None:
        """Make the step of copy number i."""
        start, state = entry(self.part.start, i), self.opt.map_state(lambda one: entry(one, i), self.part.state)
        params, self.last = self.opt.update(with_dtypes_of(gparams, start), state, start)
        self._put(i, self.part.start, start, params)
        self.opt.map_state(lambda *trees: self._put(i, *trees), self.part.state, state, self.last)

    def _put(self, i: int, stacks: Tree, old: Tree, new: Tree) -> None:
        for stack, before, after in zip(*flatten_together(stacks, old, new), strict=True):
            if after is not before and id(stack) not in self.new:
                self.new[id(stack)] = stack.clone()
            if id(stack) in self.new:
                self.new[id(stack)][i].copy_(after)

    def updated(self) -> Updated:
        """Return the stacks, and the count of the last copy."""
        state = self.opt.map_state(lambda _, stacks: self._found(stacks), self.last, self.part.state)
        return Updated(self._found(self.part.start), state)

    def _found(self, stacks: Tree) -> Tree:
        return tree.map(lambda stack: self.new.get(id(stack), stack), stacks)


def _params(params: Params) -> Params:
    return params.params if type(params) is Part else params


def updating(layer: Layer, opt: Optimizer) -> Layer:
    """Return the net with stand-ins that update their params, each with an optimizer that remembers only what it met there."""
    if not layer.trainable:
        return layer
    if _is_open(layer):
        return layer.with_children({name: updating(child, opt) for name, child in layer.children().items()})
    if type(layer) is MixedPrecision:
        return UpdatingCast(updating(layer.layer, opt), layer.dtype)
    by_copies = isinstance(layer, Repeat) and opt.acts_on == "elements"
    return stand_in_for(layer, UpdatingCopies if by_copies else Updating, opt=deepcopy(opt))


def _is_open(layer: Layer) -> TypeGuard[Combinator]:
    return isinstance(layer, Combinator) and layer.passes_gradients_on and not isinstance(layer, StandIn)


def updated(net: Layer, opt: Optimizer, params: Params, start: Params, state: State, cache: Cache, gy: Any) -> Updated:
    """Go back through a net made by ``updating``, and return the new params and state.

    Args:
        net: The net with stand-ins.
        opt: The optimizer.
        params: The params of the forward pass.
        start: The params from which the optimizer steps: those with new running statistics.
        state: The optimizer's state.
        cache: The cache of the forward pass.
        gy: The gradient of the net's output.
    """
    before = _parted(net, opt, params, start, state)
    given = [part if isinstance(layer, Updating) and has_params(part.params) else part.params for layer, part in before]
    found = _entries(net, net.grads(_whole(net, iter(given)), cache, gy))
    if not any([type(one) is Updated for one in found]):  # noqa: C419 (compiled code has no generators)
        return Updated(*opt.update(absent(start), state, start))  # nothing is trained, but updates are counted
    after = [one if type(one) is Updated else Updated(*part[1:]) for one, (_, part) in zip(found, before, strict=True)]
    counted = [one.state for one in found if type(one) is Updated][0]  # noqa: RUF015
    state = opt.map_state(lambda _, *trees: _whole(net, iter(trees)), counted, *[one.state for one in after])
    return Updated(_whole(net, iter([one.params for one in after])), state)


def _parted(net: Layer, opt: Optimizer, params: Params, start: Params, state: State) -> list[tuple[Layer, Part]]:
    """Part params and state by layers; what does not fit raises what the whole update would, before anything is written."""
    opt.require_fit(state, start)
    try:
        layers = _layers(net)
        columns = [_entries(net, params), _entries(net, start), _states(net, opt, state, len(layers))]
        return [(layer, Part(*own)) for layer, *own in zip(layers, *columns, strict=True)]
    except Exception:
        opt.update(absent(start), state, start)
        raise


def _states(net: Layer, opt: Optimizer, state: State, n: int) -> list[State]:
    """Part the optimizer's state by layers."""
    columns: list[list[Tree]] = []
    opt.map_state(lambda one: columns.append(_entries(net, one)), state)
    rows = [iter([column[i] for column in columns]) for i in range(n)]
    return [opt.map_state(lambda _, row=row: next(row), state) for row in rows]


def _layers(net: Layer) -> list[Layer]:
    """List the layers that are updated, or left as they are, one by one."""
    return [one for child in _inside(net) for one in _layers(child)] if _is_open(net) else [net]


def _inside(net: Any) -> list[Layer]:
    return [*net.children().values()]


def _entries(net: Any, values: Tree) -> list[Tree]:
    """List the entries of a tree like params, one for each of ``_layers``."""
    if not _is_open(net):
        return [values]
    own = [values] if isinstance(net, Wrapper) else net.entries(values)
    return [one for child, entry in zip(_inside(net), own, strict=True) for one in _entries(child, entry)]


def _whole(net: Any, entries: Iterator[Tree]) -> Tree:
    """Make a tree like params of the entries of all layers: the way back from ``_entries``."""
    if not _is_open(net):
        return next(entries)
    own = [_whole(child, entries) for child in _inside(net)]
    return own[0] if isinstance(net, Wrapper) else net.pack(own)


def require_separate(opt: Optimizer) -> None:
    """Raise ``ValueError`` for an optimizer that acts on all leaves together, and say which part of it does."""
    if opt.acts_on == "tree":
        inner = [one for one in parts(opt) if isinstance(one, (Optimizer, GradientTransform)) and one.acts_on == "tree"]
        rule = 'in_backward=True updates each layer before other gradients are known, so acts_on must be "leaves" or "elements"'
        raise value_error("train_step", rule, f"{inner[-1]!r}, which acts on the whole tree")
