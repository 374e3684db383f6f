"""Layer by layer: an optimizer's step for each layer within the backward pass, after which the layer's gradient is released.

    gpᵢ, gᵢ₋₁ = fᵢ's vjp(pᵢ, cᵢ, gᵢ)      pᵢ, sᵢ ← opt's update(gpᵢ, sᵢ, pᵢ)      for i = n, ..., 1

The backward pass of the net is run with a stand-in for each layer, which returns its new params and state in the place of the
gradient. Combinators that pass gradients on pass these on. The layers of other combinators are updated together.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any, NamedTuple

from funcnet.combinator import Combinator, absent, has_params
from funcnet.contract import Cache, Layer, Params, Rng
from funcnet.errors import value_error
from funcnet.optim.base import GradientTransform, Optimizer, State
from funcnet.stand_ins import StandIn, stand_in_for
from funcnet.tree import Tree
from funcnet.value import parts
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
        return Updated(*self.opt.update(gparams, part.state, part.start)) if type(part) is Part else gparams


def _params(params: Params) -> Params:
    return params.params if type(params) is Part else params


def updating(layer: Layer, opt: Optimizer) -> Layer:
    """Return the net with stand-ins that update their params, each with an optimizer that remembers only what it met there."""
    if not layer.trainable:
        return layer
    if _is_open(layer):
        return layer.with_children({name: updating(child, opt) for name, child in layer.children().items()})
    return stand_in_for(layer, Updating, opt=deepcopy(opt))


def _is_open(layer: Layer) -> Any:
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
