"""Nets within autograd: functions of tensors whose backward pass is the VJP of a net.

    y, cache = net.apply(p, x)      gp, gx = net.vjp(p, cache, gy)

The leaves of p and x go through ``torch.autograd.Function`` in one row. The first derivative needs the cache only. The second one
computes the net again, since the cache depends on p and x:

    (gy, p, x) ↦ net.vjp(p, cache of net.apply(p, x), gy)      differentiated with ``torch.func.vjp``

Forward mode needs no other formula: vjp is linear in gy, and J v is the derivative of ⟨vjp(gy), v⟩ with respect to gy.
"""

from collections.abc import Sequence
from typing import Any

import torch
from attrs import define, field
from torch import Tensor
from torch.autograd import Function

from funcnet.contract import Layer, Params, Rng
from funcnet.flattening import NODES, Tree, flatten_like, flatten_together, unflatten
from funcnet.interop.torch_nn.precision import autocast_off, in_autocast_dtype
from funcnet.kernels.private_names import is_forward_mode, set_layouts_of_gradients
from funcnet.kernels.tracing import is_autocast, is_compiling, is_untransformed
from funcnet.random.keys import as_key
from funcnet.value import Value, frozen
from funcnet.walking import require_layer

Row = Sequence[Any]
"""The leaves of trees, one after the other."""


class Skeleton:
    """The structure of a tree and the leaves that are no tensors: ``read`` lists the leaves of such a tree, ``write`` builds one."""

    __slots__ = ("leaves", "tree")

    def __init__(self, tree: Tree) -> None:
        self.leaves = [None if isinstance(leaf, Tensor) else leaf for leaf in flatten_together(tree)[0]]
        self.tree = unflatten(tree, iter(self.leaves))

    def read(self, tree: Tree) -> list[Any]:
        """List the leaves; ``LookupError`` for a tree of another structure."""
        return flatten_like(self.tree, tree)

    def write(self, leaves: Row) -> Tree:
        """Build a tree; ``None`` in the place of a leaf that is no tensor is that leaf."""
        full = [own if leaf is None else leaf for own, leaf in zip(self.leaves, leaves, strict=True)]
        return unflatten(self.tree, iter(full))


class OneTensor:
    """The structure of a single tensor, as most x and y are."""

    __slots__ = ()

    def read(self, tree: Tree) -> list[Any]:
        """List the tensor; ``LookupError`` for a tree of several."""
        if isinstance(tree, NODES):
            raise LookupError
        return [tree]

    def write(self, leaves: Row) -> Tree:
        """Return the tensor."""
        return leaves[0]


ONE_TENSOR = OneTensor()


def skeleton(tree: Tree) -> Any:
    """Return the structure of a tree."""
    return ONE_TENSOR if isinstance(tree, Tensor) else Skeleton(tree)


@define(eq=False)
class Plan:
    """A net, and how its arguments lie in a row: the leaves of params, those of x, and the key.

    Args:
        net: The net.
        params: The structure of params.
        x: The structure of x.
        count: How many leaves params have.
        stats: The places of the leaves that ``update_stats`` may move.
    """

    net: Layer
    params: Any
    x: Any
    count: int
    stats: tuple[int, ...] = ()

    def with_net(self, net: Layer) -> "Plan":
        """Return the plan of another net, with the same arguments."""
        return Plan(net, self.params, self.x, self.count, self.stats)

    def arguments(self, row: Row) -> tuple[Params, Any, Rng]:
        """Return params, x and the key."""
        return self.params.write(row[: self.count]), self.x.write(row[self.count : -1]), row[-1]

    def forward(self, row: Row) -> tuple["Result", list[Any], list[Any], list[Any]]:
        """Apply the net; return the structure of its results, and the leaves of y, of moved statistics, and of the cache."""
        params, x, rng = self.arguments(row)
        y, cache = self.net.apply(params, x, rng)
        moved = self.params.read(self.net.update_stats(params, cache)) if self.stats else row
        places = [i for i in self.stats if moved[i] is not row[i]]
        structures = skeleton(y), Skeleton(cache)
        ys, kept = structures[0].read(y), structures[1].read(cache)
        return Result(*structures, places, _kinds(ys), len(ys)), ys, [moved[i] for i in places], _tensors(kept)

    def gradients(self, result: "Result", row: Row, kept: Row, gys: Row, needs: Sequence[bool]) -> list[Any]:
        """Return the gradients of the leaves in the row: ``None`` for those that need none, or have none."""
        params, x, _ = self.arguments(row)
        return self.backward(params, x, result.cache.write(kept), result.gy(gys), needs)

    def backward(self, params: Params, x: Any, cache: Any, gy: Any, needs: Sequence[bool]) -> list[Any]:
        """Call the method that computes what is needed, and no more."""
        gparams, gx = None, None
        if not any(needs[self.count :]):
            gparams = self.net.grads(params, cache, gy)
        elif not any(needs[: self.count]):
            gx = self.net.input_grad(params, cache, gy)
        else:
            gparams, gx = self.net.vjp(params, cache, gy)
        found = [None] * self.count if gparams is None else self.params.read(gparams)
        found += [None] * (len(needs) - 1 - self.count) if gx is None else self.x.read(gx)
        return [g if need else None for g, need in zip([*found, None], needs, strict=True)]


@define(eq=False)
class Result:
    """What to know of the results of a net: their structures.

    Args:
        y: The structure of y.
        cache: The structure of the cache.
        places: The places in the row of the statistics that have moved.
        kinds: Shape, dtype and device of each floating leaf of y, of several; ``None`` for others.
        count: How many leaves y has.
    """

    y: Any
    cache: Any
    places: list[int]
    kinds: list[Any]
    count: int

    def gy(self, gys: Row) -> Tree:
        """Build gy, of zeros where a leaf has no gradient."""
        return self.y.write([_zeros(kind) if g is None else g for g, kind in zip(gys, self.kinds, strict=True)])


def _kinds(ys: Row) -> list[Any]:
    if len(ys) == 1:
        return [None]
    return [(y.shape, y.dtype, y.device) if isinstance(y, Tensor) and y.is_floating_point() else None for y in ys]


def _zeros(kind: Any) -> Tensor | None:
    return None if kind is None else torch.zeros(kind[0], dtype=kind[1], device=kind[2])


def _tensors(leaves: Row) -> list[Any]:
    return [leaf if isinstance(leaf, Tensor) else None for leaf in leaves]


def _writable(y: Any, inputs: Row) -> Any:
    """Return y so that autograd permits writes to it, unless it shares memory with an input, and refuses them there."""
    if not isinstance(y, Tensor):
        return y
    if y._is_view():
        return y if any([y._base is leaf for leaf in inputs]) else y.detach()  # noqa: C419
    return y.view_as(y) if any([y is leaf for leaf in inputs]) else y  # noqa: C419


def _wants_gradient(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.requires_grad


def _detached(row: Row) -> list[Any]:
    """Return the row without requests for gradients: kernels have slower formulas for tensors that someone differentiates."""
    return [leaf.detach() if isinstance(leaf, Tensor) and (leaf.requires_grad or type(leaf) is not Tensor) else leaf for leaf in row]


class Recorded(Function):
    """A net as one operation of autograd, in eager and in compiled code."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, *row: Any) -> Any:
        """Apply the net and save the cache."""
        inputs = _detached(row)
        result, ys, moved, kept = plan.forward(inputs)
        if not is_compiling():
            ys = [_writable(y, inputs) for y in ys]
        ctx.plan, ctx.result = plan, result
        ctx.save_for_backward(*_tensors(row), *kept)
        ctx.mark_non_differentiable(*moved)
        ctx.set_materialize_grads(False)
        return (result, *ys, *moved)

    @staticmethod
    def backward(ctx: Any, *gys: Any) -> Any:
        """Call the VJP of the net."""
        if not is_compiling():
            return _back(ctx, gys, ctx.saved_tensors)
        set_layouts_of_gradients(known=True)
        found = _back(ctx, gys, ctx.saved_tensors)
        set_layouts_of_gradients(known=False)
        return found


class Transformed(Function):
    """A net as one operation within the transforms of ``torch.func``, which want the cache among the results."""

    generate_vmap_rule = True

    @staticmethod
    def forward(plan: Plan, *row: Any) -> Any:
        """Apply the net."""
        row = _detached(row)
        result, ys, moved, kept = plan.forward(row)
        given = {id(leaf) for leaf in row if isinstance(leaf, Tensor)}  # torch saves no argument that is returned as it is
        return (result, *[leaf.detach() if id(leaf) in given else leaf for leaf in (*ys, *moved, *kept)])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Save the cache."""
        plan, *row = inputs
        result, *leaves = output
        others = leaves[result.count :]
        ctx.plan, ctx.result = plan, result
        ctx.mark_non_differentiable(*[leaf for leaf in others if leaf is not None])
        saved = *_tensors(leaves[: result.count]), *_tensors(row), *others[len(result.places) :]
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)  # the same ones: the rule for vmap remembers one list of axes for both

    @staticmethod
    def backward(ctx: Any, *gys: Any) -> Any:
        """Call the VJP of the net."""
        return _back(ctx, gys, ctx.saved_tensors[ctx.result.count :])

    @staticmethod
    def jvp(ctx: Any, _: Any, *tangents: Any) -> Any:
        """Transpose the VJP, which is linear in gy, with a new cache."""
        plan, result, needs = ctx.plan, ctx.result, [tangent is not None for tangent in tangents]
        ys, row, kept = _cut(ctx.saved_tensors, result.count, len(needs))
        chosen = [i for i, y in enumerate(ys) if y is not None and y.is_floating_point()]
        params, x, rng = plan.arguments(row)
        cache = plan.net.apply(params, x, rng)[1]

        def vjp(*gys: Tensor) -> Any:
            gy = result.gy(_placed([None for _ in ys], chosen, gys))
            return {i: g for i, g in enumerate(plan.backward(params, x, cache, gy, needs)) if g is not None}

        found, pull = torch.func.vjp(vjp, *[torch.zeros_like(ys[i]) for i in chosen])
        moved = pull({i: tangents[i] for i in found})
        return None, *_placed([None for _ in ys], chosen, moved), *[None for _ in (*result.places, *kept)]


def _back(ctx: Any, gys: Row, saved: Row) -> Any:
    """Return the gradients of the arguments of a function whose context this is."""
    plan, result, needs = ctx.plan, ctx.result, ctx.needs_input_grad[1:]
    gys = gys[1 : 1 + result.count]
    if all([g is None for g in gys]):  # noqa: C419 (compiled code has no generators)
        return (None,) * (1 + len(needs))
    with autocast_off(saved):
        if torch.is_grad_enabled() and not is_compiling():
            return None, *Gradients.apply(Task(plan, result, needs), *gys, *saved)
        saved = _detached(saved)
        return None, *plan.gradients(result, saved[: len(needs)], saved[len(needs) :], gys, needs)


@define(eq=False)
class Task:
    """Which gradients are wanted of what."""

    plan: Plan
    result: Result
    needs: tuple[bool, ...]

    def cut(self, tensors: Row) -> tuple[Row, Row, Row]:
        """Cut a row in those of gy, of the arguments and of the cache."""
        return _cut(tensors, self.result.count, len(self.needs))

    def gradients(self, tensors: Row) -> Any:
        """Call the VJP of the net, with the cache."""
        gys, row, kept = map(_detached, self.cut(tensors))
        return tuple(self.plan.gradients(self.result, row, kept, gys, self.needs))

    def whole(self, tensors: Row, chosen: list[int]) -> Any:
        """Return the gradients as a function of the tensors at some places, with a new cache; the others are constants."""

        def vjp(*some: Tensor) -> Any:
            gys, row, _ = self.cut(_placed(tensors, chosen, some))
            params, x, rng = self.plan.arguments(row)
            cache = self.plan.net.apply(params, x, rng)[1]
            found = self.plan.backward(params, x, cache, self.result.gy(gys), self.needs)
            return tuple([g for g in found if g is not None])

        return vjp


class Gradients(Function):
    """The VJP of a net as an operation of autograd, for second derivatives."""

    generate_vmap_rule = True

    @staticmethod
    def forward(task: Task, *tensors: Any) -> Any:
        """Call the VJP of the net, with the cache."""
        return task.gradients(tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Save all but the cache."""
        ctx.task, *tensors = inputs
        gys, row, kept = ctx.task.cut(tensors)
        ctx.save_for_backward(*gys, *row)
        ctx.save_for_forward(*gys, *row)
        ctx.given, ctx.rest = [i for i, g in enumerate(output) if g is not None], [None for _ in kept]

    @staticmethod
    def backward(ctx: Any, *ggs: Any) -> Any:
        """Differentiate the VJP, with a new cache."""
        saved = ctx.saved_tensors
        chosen = [i for i in range(len(saved)) if ctx.needs_input_grad[1 + i]]
        with autocast_off(saved):
            _, pull = torch.func.vjp(ctx.task.whole(saved, chosen), *[saved[i] for i in chosen])
            found = pull(tuple([ggs[i] for i in ctx.given]))
        return None, *_placed([None for _ in saved], chosen, found), *ctx.rest

    @staticmethod
    def jvp(ctx: Any, _: Any, *tangents: Any) -> Any:
        """Differentiate the VJP, with a new cache."""
        saved = ctx.saved_tensors
        chosen = [i for i in range(len(saved)) if tangents[i] is not None]
        given = tuple([saved[i] for i in chosen]), tuple([tangents[i] for i in chosen])
        _, moved = torch.func.jvp(ctx.task.whole(saved, chosen), *given)
        return tuple(_placed([None for _ in ctx.task.needs], ctx.given, moved))


def _placed(row: Row, places: Sequence[int], leaves: Row) -> list[Any]:
    """Return the row with other leaves at some places."""
    found = dict(zip(places, leaves, strict=True))
    return [found.get(i, leaf) for i, leaf in enumerate(row)]


def _cut(tensors: Row, *counts: int) -> tuple[Row, Row, Row]:
    """Cut a row in three."""
    first, second = counts
    return tensors[:first], tensors[first : first + second], tensors[first + second :]


def applied(plan: Plan, row: Row) -> tuple[Any, dict[int, Tensor]]:
    """Return y, as a function of the row for autograd, and the statistics that moved, by their places."""
    if is_autocast():
        return in_autocast_dtype(_applied, plan, row)
    return _applied(plan, row)


def _applied(plan: Plan, row: Row) -> tuple[Any, dict[int, Tensor]]:
    function: Any = Recorded if is_compiling() or (is_untransformed() and not is_forward_mode()) else Transformed
    if function is Recorded and not (torch.is_grad_enabled() and any(map(_wants_gradient, row))):
        return _computed(plan, _detached(row))
    result, *leaves = function.apply(plan, *row)
    moved = leaves[result.count : result.count + len(result.places)]
    return result.y.write(leaves[: result.count]), dict(zip(result.places, moved, strict=True))


def _computed(plan: Plan, row: Row) -> tuple[Any, dict[int, Tensor]]:
    """Return what ``applied`` does where no one needs a gradient: nothing of the cache is kept."""
    if not plan.stats:
        params, x, rng = plan.arguments(row)
        return plan.net(params, x, rng), {}
    result, ys, moved, _ = plan.forward(row)
    return result.y.write(ys), dict(zip(result.places, moved, strict=True))


@frozen
class Differentiable(Value):
    """A net as a function of tensors that autograd differentiates; made by ``differentiable``."""

    label = "differentiable"

    net: Layer = field()

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        structures = skeleton(params), skeleton(x)
        leaves = structures[0].read(params)
        row = [*leaves, *structures[1].read(x), None if rng is None else as_key(rng)]
        return applied(Plan(self.net, *structures, len(leaves)), row)[0]

    def __repr__(self) -> str:
        return f"differentiable({self.net!r})"


def differentiable(net: Layer) -> Differentiable:
    """Make the function ``(params, x, rng=None) -> y`` that autograd differentiates with the net's VJP."""
    require_layer("differentiable", net)
    return Differentiable(net)
