"""Places: where the layers of a net are in a tree like params, if the backward pass can update them one by one."""

from collections.abc import Iterator
from typing import Any, TypeGuard

from funcnet.combinator import Combinator
from funcnet.combinators.mixed_precision import MixedPrecision, with_dtypes_of
from funcnet.contract import Grads, Layer, Params
from funcnet.flattening import Tree
from funcnet.stand_ins import StandIn
from funcnet.value import frozen
from funcnet.wrapper import Wrapper


def is_open(layer: Layer) -> TypeGuard[Combinator]:
    """Return whether a layer is a combinator that passes on the gradients of the layers inside, one for each."""
    if not isinstance(layer, Combinator) or isinstance(layer, StandIn):
        return False
    return layer.passes_gradients_on and layer.calls_each_child_once


class Places:
    """The places in a tree like params of the layers that are updated, or left unchanged, one by one."""

    def __init__(self, net: Any) -> None:
        self.net, self.is_wrapper = net, isinstance(net, Wrapper)
        self.inside = [Places(child) for child in net.children().values()] if is_open(net) else []
        self.is_leaf = not is_open(net)
        self.layers: list[Layer] = [net] if self.is_leaf else [one for child in self.inside for one in child.layers]

    def entries(self, values: Tree) -> list[Tree]:
        """List the entries of a tree like params, one for each layer."""
        if self.is_leaf:
            return [values]
        own = [values] if self.is_wrapper else self.net.entries(values)
        found: list[Tree] = []
        for child, one in zip(self.inside, own, strict=True):
            if child.is_leaf:
                found.append(one)
            else:
                found += child.entries(one)
        return found

    def whole(self, entries: Iterator[Tree]) -> Tree:
        """Make a tree like params from the entries; the inverse of ``entries``."""
        if self.is_leaf:
            return next(entries)
        own = [next(entries) if child.is_leaf else child.whole(entries) for child in self.inside]
        return own[0] if self.is_wrapper else self.net.pack(own)


@frozen
class OpenCast(MixedPrecision):
    """A ``cast`` that passes on the results of its layers in place of gradients, in any dtype."""

    passes_gradients_on = True

    def vjp(self, params: Params, cache: Any, gy: Any) -> tuple[Grads, Any]:
        gparams, gx = self.layer.vjp(self._cast(params), cache[0], self._inside(gy, cache[2]))
        return gparams, with_dtypes_of(gx, cache[1])

    def grads(self, params: Params, cache: Any, gy: Any) -> Grads:
        return self.layer.grads(self._cast(params), cache[0], self._inside(gy, cache[2]))
