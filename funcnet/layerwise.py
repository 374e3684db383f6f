"""Layerwise updates: the optimizer updates each layer during the backward pass, and the layer's gradient is then released.

    gpᵢ, gᵢ₋₁ = fᵢ.vjp(pᵢ, cᵢ, gᵢ)      pᵢ, sᵢ ← opt.update(gpᵢ, sᵢ, pᵢ)      for i = n, ..., 1

The backward pass of the net runs with a stand-in for each layer, which returns its new params and state instead of the gradient.
Combinators that pass gradients on pass on these results as well. The layers of other combinators are updated together.
"""

from copy import deepcopy
from typing import Any, NamedTuple

from torch import Tensor

from funcnet import tree
from funcnet.combinator import absent, errors_at, has_params
from funcnet.combinators.depth import Repeat, ReversedCopies
from funcnet.combinators.mixed_precision import MixedPrecision, with_dtypes_of
from funcnet.combinators.stacking import entry
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.errors import value_error
from funcnet.flattening import Tree, flatten_together, rebuild
from funcnet.kernels.optim_steps import fills_steps
from funcnet.kernels.tracing import is_eager
from funcnet.optim.averaged import followers
from funcnet.optim.base import GradientTransform, Optimizer, State
from funcnet.places import OpenCast, Places, is_open
from funcnet.stand_ins import StandIn, stand_in_for
from funcnet.value import frozen, parts


class Part(NamedTuple):
    """Passed to a layer in place of its params: the params, those that the optimizer updates, and its part of the state."""

    params: Params
    start: Params
    state: State


class Updated(NamedTuple):
    """Returned by a layer in place of its gradient: its new params, and its part of the new state."""

    params: Params
    state: State


class Updating(StandIn):
    """A stand-in for a layer that runs the optimizer as soon as it has the layer's gradient."""

    opt: Optimizer
    rounds: bool
    """Whether gradients can differ in dtype from the params that the optimizer updates."""

    @property
    def invertible(self) -> bool:
        return self.original.invertible

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        return self.original.apply(_params(params), x, rng)

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        return self.original(_params(params), x, rng)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        gparams, gx = self.original.vjp(_params(params), cache, gy)
        return self.updated(params, gparams), gx

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        return self.updated(params, self.original.grads(_params(params), cache, gy))

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        return self.original.input_grad(_params(params), cache, gy)

    def inverse(self, params: Params, y: Any, rng: Rng = None) -> Any:
        return self.original.inverse(_params(params), y, rng)

    def restore(self, params: Params, y: Any, rng: Rng = None) -> tuple[Any, Cache]:
        return self.original.restore(_params(params), y, rng)

    def updated(self, part: Params, gparams: Grads) -> Grads:
        """Return the new params and state; for a layer without params, its gradient unchanged."""
        if type(part) is not Part:
            return gparams
        gparams = with_dtypes_of(gparams, part.start) if self.rounds else gparams
        return Updated(*self.opt.update(gparams, part.state, part.start))


class UpdatingCopies(Updating):
    """A ``repeat`` that updates one copy after the other, for optimizers that act on elements.

    It does so in eager mode, if each copy of each leaf fills whole steps of a kernel; otherwise all copies are updated at the
    end.
    """

    layer: Layer

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        return self._run_backward(params, cache, gy) if self._can_update_copies(params) else super().vjp(params, cache, gy)

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        return (
            self._run_backward(params, cache, gy, first=0)[0]
            if self._can_update_copies(params)
            else super().grads(params, cache, gy)
        )

    def _can_update_copies(self, part: Params) -> bool:
        if type(part) is not Part or not is_eager():
            return False
        return all([fills_steps(leaf[0].numel()) for leaf in tree.leaves(part.start) if leaf.is_floating_point()])  # noqa: C419

    def _run_backward(self, part: Any, cache: Cache, gy: Any, first: int = -1) -> tuple[Updated, Any]:
        """Run the backward pass to the input, or only to the params of copy ``first``."""
        repeat: Any = self.original
        stacks, copies = Stacks(self.opt, part), ReversedCopies(repeat, part.params, cache)
        for i in reversed(range(repeat.n)):
            p, c = copies.at(i)
            with errors_at(repeat, i):
                gy = self._run_copy_backward(stacks, i, p, c, gy, only_params=i == first)
        return stacks.updated(), gy

    def _run_copy_backward(self, stacks: "Stacks", i: int, params: Params, cache: Cache, gy: Any, *, only_params: bool) -> Any:
        """Run the backward pass of one copy and update it; its gradient is released on return."""
        layer: Layer = self.layer
        gparams, gx = (layer.grads(params, cache, gy), None) if only_params else layer.vjp(params, cache, gy)
        stacks.update(i, gparams)
        return gx


@frozen
class UpdatingCast(OpenCast):
    """A ``cast`` whose layers are updated one by one: they compute in its dtype, and the optimizer in that of the params."""

    def _cast(self, values: Tree) -> Tree:
        if type(values) is Part:
            return values._replace(params=super()._cast(values.params))
        if type(values) in (tuple, dict):
            return rebuild(values, iter([self._cast(one) for one in (values.values() if type(values) is dict else values)]))
        return super()._cast(values)


class Stacks:
    """Stacked params and state that are updated one copy at a time.

    A donated optimizer updates tensors in place; all other tensors are copied into new stacks.
    """

    def __init__(self, opt: Optimizer, part: Part) -> None:
        self.opt, self.part = opt, part
        self.new: dict[int, Tensor] = {}
        self.last: State = part.state

    def update(self, i: int, gparams: Grads) -> None:
        """Update copy number i."""
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
        """Return the updated stacks, with the step count of the last copy."""
        state = self.opt.map_state(lambda _, stacks: self._updated_stacks(stacks), self.last, self.part.state)
        return Updated(self._updated_stacks(self.part.start), state)

    def _updated_stacks(self, stacks: Tree) -> Tree:
        return tree.map(lambda stack: self.new.get(id(stack), stack), stacks)


def _params(params: Params) -> Params:
    return params.params if type(params) is Part else params


class Updater:
    """The backward pass of a net with an optimizer's step for each layer."""

    def __init__(self, net: Layer, opt: Optimizer) -> None:
        _require_separate(opt)
        self.opt, self.net = opt, updating(net, opt)
        self.places = Places(self.net)
        self.follows = bool(followers(opt))  # then layers that are not trained have averages of running statistics

    def __call__(self, params: Params, start: Params, state: State, cache: Cache, gy: Any) -> Updated:
        """Return the new params and state.

        Args:
            params: The params of the forward pass.
            start: The params that the optimizer updates: those with new running statistics.
            state: The optimizer's state.
            cache: The cache of the forward pass.
            gy: The gradient of the net's output.
        """
        given, after, columns = self._split(params, start, state)
        found = self.places.entries(self.net.grads(self.places.whole(iter(given)), cache, gy))
        done = [i for i, one in enumerate(found) if type(one) is Updated]
        if not done:  # updates are counted even if nothing is trained
            return Updated(*self.opt.update(absent(start), state, start))
        for i in [i for i, one in enumerate(after) if self.follows and i not in done and has_params(one)]:
            own = iter([column[i] for column in columns])
            part = self.opt.map_state(lambda _, own=own: next(own), state)
            found[i], done = Updated(*self.opt.update(absent(after[i]), part, after[i])), [*done, i]
        for i in done:
            after[i] = found[i].params
            for column, one in zip(columns, self._trees(found[i].state), strict=True):
                column[i] = one
        trees = iter([self.places.whole(iter(column)) for column in columns])
        return Updated(self.places.whole(iter(after)), self.opt.map_state(lambda _: next(trees), found[done[0]].state))

    def _split(self, params: Params, start: Params, state: State) -> tuple[list[Any], list[Any], list[list[Any]]]:
        """Return, by layer, what replaces its params, the entries of ``start``, and the entries of each tree in the state.

        Invalid arguments raise the error of a whole update before anything is written.
        """
        self.opt.require_fit(state, start)
        try:
            given, after = self.places.entries(params), self.places.entries(start)
            columns = [self.places.entries(one) for one in self._trees(state)]
            for i, layer in enumerate(self.places.layers):
                if isinstance(layer, Updating) and has_params(given[i]):
                    own = iter([column[i] for column in columns])
                    given[i] = Part(given[i], after[i], self.opt.map_state(lambda _, own=own: next(own), state))
        except Exception:
            self.opt.update(absent(start), state, start)
            raise
        return given, after, columns

    def _trees(self, state: State) -> list[Tree]:
        """List the trees in a state that are like params."""
        found: list[Tree] = []
        self.opt.map_state(found.append, state)
        return found


def updating(layer: Layer, opt: Optimizer, *, rounds: bool = False) -> Layer:
    """Return the net with stand-ins that update their params, each with its own copy of the optimizer's memory."""
    if not layer.trainable:
        return layer
    if is_open(layer):
        return layer.with_children({name: updating(child, opt, rounds=rounds) for name, child in layer.children().items()})
    if type(layer) is MixedPrecision:
        return UpdatingCast(updating(layer.layer, opt, rounds=True), layer.dtype)
    by_copies = isinstance(layer, Repeat) and opt.acts_on == "elements"
    rates = {id(one): one for one in parts(opt) if isinstance(one, Tensor)}  # not copied: users may write new values to them
    return stand_in_for(layer, UpdatingCopies if by_copies else Updating, opt=deepcopy(opt, rates), rounds=rounds)


def _require_separate(opt: Optimizer) -> None:
    """Raise ``ValueError`` for an optimizer that acts on all leaves together, and name the part that does."""
    if opt.acts_on == "tree":
        inner = [one for one in parts(opt) if isinstance(one, (Optimizer, GradientTransform)) and one.acts_on == "tree"]
        rule = 'in_backward=True updates each layer before other gradients are known, so acts_on must be "leaves" or "elements"'
        raise value_error("train_step", rule, f"{inner[-1]!r}, which acts on the whole tree")
