"""Lifted layers: torch.nn modules as layers, differentiated with autograd and ``torch.func`` instead of derivatives by hand.

y      = module(x), with params as its parameters and buffers
gp, gx = gyᵀ ∂y/∂(params, x)

In eager mode the cache has autograd's graph of the forward pass. A step takes 1.0 to 1.2 times as long as plain autograd, 1.9
times in a net of 1500 parameters, and up to 1.4 times the memory, because a cache stays usable after the backward pass.
``torch.func.vjp``, which computes y again, takes 1.4 to 2.8 times as long; it is used in compiled code and transforms, which have
no graphs.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import tree
from funcnet.checks import check_gy, require_key
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.errors import describe, value_error
from funcnet.fitting.global_randomness import seeded
from funcnet.flattening import flatten_together, unflatten
from funcnet.interop.torch_nn.lifting.attention_formulas import without_fused_attention
from funcnet.interop.torch_nn.lifting.drawing_again import Leaf, redrawn
from funcnet.interop.torch_nn.lifting.generators import all_seeded
from funcnet.interop.torch_nn.lifting.keyed_draws import KeyedDraws
from funcnet.interop.torch_nn.lifting.recorded_graphs import Graph, gradients, is_usable, may_record, normal, recording
from funcnet.interop.torch_nn.lifting.skeletons import Skeleton
from funcnet.kernels.tracing import is_compiling, is_eager
from funcnet.random.keys import Key, as_key
from funcnet.value import Value, frozen


@frozen
class Traits(Value):
    """The behavior of a module in one mode, determined with an example.

    Args:
        draws: Whether it calls torch's random functions.
        draws_in_kernels: Whether it uses global generators in another way: in a kernel, like ``RReLU``, or with Python.
        draws_hidden: Whether it uses random functions that a compiler does not report, such as ``torch.randn_like``.
        stores: Names of the attributes that it sets on modules.
        changes: Names of the attributes (lists and dicts) that it writes to.
        fused: Whether it calls attention or recurrence kernels that some transforms do not support.
        moves: Whether it changes its buffers.
        writes_to_x: Whether it writes to its input.
        batch_dependent: Whether a row of its output depends on other rows.
        floating: Whether each leaf of its output is floating; ``None`` for an absent leaf.
    """

    draws: bool = False
    draws_in_kernels: bool = False
    draws_hidden: bool = False
    stores: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    fused: bool = False
    moves: bool = False
    writes_to_x: bool = False
    batch_dependent: bool = False
    floating: tuple[bool | None, ...] = ()


@frozen
class Lifted(Layer):
    """A torch.nn module as a layer; created with ``lift``.

        y      = module(x), or module(*x) for a tuple x
        gp, gx = gyᵀ ∂y/∂(params, x)

    Shape:
        Those of the module; x can have any tensors, and floating ones have gradients.

    Params:
        The parameters and buffers of the module, nested by name; tied ones appear once, under their first name. The gradient is
        ``None`` for buffers and for parameters that do not require grad.

    Cache:
        x, the key, the buffers after the call if it changes them, and in eager mode autograd's graph of the call.
    """

    label = "lift"

    skeleton: Skeleton
    leaves: tuple[Leaf, ...]
    ties: tuple[tuple[str, str], ...]
    traits: Traits
    in_evaluation: Traits
    evaluation: Skeleton = field(repr=False)

    @property
    def stochastic(self) -> bool:
        return self.traits.draws or self.traits.draws_in_kernels

    @property
    def batch_dependent(self) -> bool:
        return self.traits.batch_dependent

    @property
    def has_running_stats(self) -> bool:
        return self.traits.moves

    @property
    def non_trainable(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the leaves without a gradient."""
        return tuple([leaf.name for leaf in self.leaves if not leaf.trains])

    @property
    def undecayed(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the scales of norms and of buffers."""
        return tuple(leaf.name for leaf in self.leaves if leaf.is_scale or leaf.is_buffer)

    @property
    def trainable(self) -> bool:
        return any([leaf.trains for leaf in self.leaves])  # noqa: C419 (compiled code has no generators)

    def init(self, rng: Key | int) -> Params:
        """Initialize parameters with the modules' ``reset_parameters``; others are sampled with their old mean and deviation.

        Buffers that no module resets, such as tables, keep their old values.
        """
        key = as_key(rng)
        if key.is_meta:
            named = {leaf.name: torch.empty(leaf.shape, dtype=leaf.dtype, device="meta") for leaf in self.leaves}
        else:
            with seeded(key):
                named = {name: x.to(key.device) for name, x in redrawn(self.skeleton, self.leaves, self.ties, key).items()}
        return tree.from_names(named) if named else {}

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        key = as_key(require_key(self, rng)) if self.stochastic else None
        named = self._tensors(params)
        if may_record((*named.values(), *tree.leaves(x))):
            return self._recorded(named, x, key)
        y, moved = self._forward(named, x, key, is_eager())
        return y, (x, key, moved, None)

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        key = as_key(require_key(self, rng)) if self.stochastic else None
        return self._forward(self._tensors(params), x, key, is_eager())[0]

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        gparams, gx = self._pulled_back(params, cache, gy)
        return gparams, gx

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        made: Params = self._pulled_back(params, cache, gy, of_x=False)[0]
        return made

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        return self._pulled_back(params, cache, gy, of_params=False)[1]

    def update_stats(self, params: Params, cache: Cache) -> Params:
        moved = cache[2]
        return tree.map_with_path(lambda path, leaf: moved.get(path, leaf), params) if moved else params  # noqa: PLW0108

    def inference(self) -> Layer:
        if self.skeleton == self.evaluation:
            return self
        return self.replace(skeleton=self.evaluation, traits=self.in_evaluation)

    def __repr__(self) -> str:
        return f"lift({self.skeleton!r})"

    def _tensors(self, params: Params) -> dict[str, Tensor]:
        """Return the leaves of params by name; a tensor with several names appears once."""
        named = tree.names(params)
        if named.keys() != {leaf.name for leaf in self.leaves}:
            missing = [leaf.name for leaf in self.leaves if leaf.name not in named]
            extra = sorted(named.keys() - {leaf.name for leaf in self.leaves})
            raise value_error(self, "params must be those that lift returned", f"missing {missing} and unknown {extra}")
        for leaf in self.leaves:
            if tuple(named[leaf.name].shape) != leaf.shape:
                raise value_error(self, f"{leaf.name} must have the shape {leaf.shape}", describe(named[leaf.name]))
        return named

    def _forward(self, named: dict[str, Tensor], x: Any, key: Key | None, plain: bool) -> tuple[Any, dict[str, Tensor] | None]:
        """Return y, and copies of the buffers after the call if it changes them."""
        copied = self.skeleton.is_training or self.traits.moves
        held = {leaf.name: named[leaf.name].clone() if copied and leaf.is_buffer else named[leaf.name] for leaf in self.leaves}
        held |= {name: held[first] for name, first in self.ties}
        x = tree.map(torch.clone, x) if self.traits.writes_to_x else x
        writes_out = self.traits.fused and not plain
        if key is not None and (self.traits.draws_hidden or self.traits.draws_in_kernels) and is_compiling():
            rule = "compiled code must draw with functions such as torch.randn and dropout, not randn_like or inside kernels"
            raise ValueError(f"{self!r}: {rule}, got a module with such draws")  # the compiler cannot trace value_error
        draws = nullcontext() if key is None and not writes_out else KeyedDraws(key, writes_out=not plain)
        is_seeded = key is not None and self.traits.draws_in_kernels
        chance = all_seeded(as_key(key), (*named.values(), *tree.leaves(x))) if is_seeded else nullcontext()  # type: ignore[arg-type]
        with draws, chance, without_fused_attention() if writes_out else nullcontext():
            arguments = x if isinstance(x, tuple) else (x,)
            y, after = self.skeleton.call(held, arguments, self.traits.stores, self.traits.changes)
        return y, {leaf.name: after[leaf.name] for leaf in self.leaves if leaf.is_buffer} if self.traits.moves else None

    def _recorded(self, named: dict[str, Tensor], x: Any, key: Key | None) -> tuple[Any, Cache]:
        """Return y and a cache with autograd's graph."""
        with recording():
            trained = {leaf.name: normal(named[leaf.name]).requires_grad_() for leaf in self.leaves if leaf.trains}
            held = {name: normal(leaf) for name, leaf in named.items() if name not in trained}
            given = tree.map(lambda one: normal(one).requires_grad_(one.is_floating_point()), x)
            y, moved = self._forward({**held, **trained}, given, key, True)
        graph = Graph(self._floating(y), trained, tuple([one for one in tree.leaves(given) if one.requires_grad]))
        return tree.map(torch.detach, y), (x, key, moved and tree.map(torch.detach, moved), graph)

    def _pulled_back(self, params: Params, cache: Cache, gy: Any, *, of_params: bool = True, of_x: bool = True) -> Any:
        """Return the gradients of params and of x, with ``None`` leaves for those not requested."""
        x, key, _, graph = cache
        named, xs, gys = self._tensors(params), flatten_together(x)[0], flatten_together(gy)[0]
        if not is_usable(graph, gys) and may_record((*named.values(), *tree.leaves((xs, gys)))):
            graph = self._recorded(named, x, key)[1][3]  # record again, for a copied cache, with the same kernels
        if is_usable(graph, gys):
            return self._packed(params, x, *gradients(graph, self._gys(gy, graph.ys), of_params, of_x), of_x)
        plain = is_eager()  # otherwise this derivative is itself differentiated, mapped or traced
        trained = {leaf.name: named[leaf.name] for leaf in self.leaves if leaf.trains and of_params}
        floats = [one for one in xs if of_x and one is not None and one.is_floating_point()]

        def forward(trained: dict[str, Tensor], floats: list[Tensor]) -> tuple[Tensor, ...]:
            given = unflatten(x, iter(_merged(xs, floats))) if of_x else x
            return self._floating(self._forward({**named, **trained}, given, key, plain)[0])

        found, gxs = self._differentiated(forward, trained, floats, gy) if trained or floats else ({}, [])
        return self._packed(params, x, found, gxs, of_x)

    def _packed(self, params: Params, x: Any, found: dict[str, Tensor], gxs: list[Tensor], of_x: bool) -> tuple[Params, Any]:
        """Return the gradients in the trees of params and x."""
        rest = iter(gxs)
        gx = tree.map(lambda one: next(rest) if of_x and one.is_floating_point() else None, x)
        return tree.map_with_path(lambda path, leaf: found.get(path), params), gx

    def _differentiated(self, forward: Any, trained: dict[str, Tensor], floats: list[Tensor], gy: Any) -> Any:
        y, back, *_ = torch.func.vjp(forward, trained, floats)
        return back(self._gys(gy, y))

    def _floating(self, y: Any) -> tuple[Tensor, ...]:
        """Return the floating leaves of an output."""
        leaves = flatten_together(y)[0]
        return tuple([one for one, is_floating in zip(leaves, self.traits.floating, strict=True) if is_floating])

    def _gys(self, gy: Any, ys: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the gradients of the floating leaves of y, with zeros for absent ones."""
        leaves = flatten_together(gy)[0]
        if len(leaves) != len(self.traits.floating):
            raise value_error(self, f"gy must be like y, of {len(self.traits.floating)} leaves", describe(gy))
        given = [one for one, is_floating in zip(leaves, self.traits.floating, strict=True) if is_floating]
        return tuple(
            [torch.zeros_like(y) if g is None else check_gy(self, g, y.shape, y) for g, y in zip(given, ys, strict=True)]
        )


def _merged(xs: list[Any], floats: list[Tensor]) -> Iterator[Any]:
    """Replace the floating leaves of xs."""
    rest = iter(floats)
    return iter([next(rest) if one is not None and one.is_floating_point() else one for one in xs])
