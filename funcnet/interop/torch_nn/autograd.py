"""Nets within autograd: functions of tensors whose backward pass is the VJP of a net.

    y, cache = net.apply(p, x)      gp, gx = net.vjp(p, cache, gy)

The leaves of p and x go through ``torch.autograd.Function`` in one row. The first derivative needs the cache only. Further ones
compute the net again, since the cache depends on p and x:

    (gy, p, x) ↦ net.vjp(p, cache of net.apply(p, x), gy)      differentiated with ``torch.func``
    ẏ = the derivative of ⟨ṗ, gp⟩ + ⟨ẋ, gx⟩ with respect to gy       forward mode: vjp is linear in gy
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from attrs import define, field
from torch import Tensor
from torch.autograd import Function

from funcnet.contract import Layer, Params, Rng
from funcnet.errors import value_error
from funcnet.interop.torch_nn.plans import Plan, Result
from funcnet.interop.torch_nn.precision import autocast_off, in_autocast_dtype
from funcnet.interop.torch_nn.rows import Row, Skeleton, taken_apart
from funcnet.kernels.private_names import is_batched_by_autograd, is_forward_mode, set_layouts_of_gradients
from funcnet.kernels.tracing import forward_levels, is_autocast, is_compiling, is_untransformed
from funcnet.random.keys import as_key
from funcnet.value import Value, frozen
from funcnet.walking import require_layer

_vjp_of: Callable[..., Any] = torch.func.vjp
_jvp_of: Callable[..., Any] = torch.func.jvp


def _detached(row: Row) -> list[Any]:
    """Return the row without requests for gradients: kernels have slower formulas for tensors that someone differentiates."""
    return [leaf.detach() if leaf is not None and (leaf.requires_grad or type(leaf) is not Tensor) else leaf for leaf in row]


def _writable(y: Any, inputs: Row) -> Any:
    """Return y so that autograd permits writes to it, unless it shares memory with an input, and refuses them there."""
    if y is None:
        return None
    if y._is_view():
        return y if any([y._base is leaf for leaf in inputs]) else y.detach()  # noqa: C419
    return y.view_as(y) if any([y is leaf for leaf in inputs]) else y  # noqa: C419


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
        ctx.save_for_backward(*row, *kept)
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
        inputs = _detached(row)
        result, ys, moved, kept = plan.forward(inputs)
        given = {id(leaf) for leaf in inputs if leaf is not None}  # torch saves no argument that is returned as it is
        return (result, *[leaf.detach() if id(leaf) in given else leaf for leaf in (*ys, *moved, *kept)])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Save the cache."""
        plan, *row = inputs
        result, *leaves = output
        ys, others = leaves[: result.count], leaves[result.count :]
        ctx.plan, ctx.result = plan, result
        ctx.mark_non_differentiable(*[leaf for leaf in others if leaf is not None])
        saved = *ys, *row, *others[len(result.places) :]
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

        found, pull = _vjp_of(vjp, *[torch.zeros_like(ys[i]) for i in chosen])
        moved = pull({i: tangents[i] for i in found})
        return None, *_placed([None for _ in ys], chosen, moved), *[None for _ in (*result.places, *kept)]


def _back(ctx: Any, gys: Row, saved: Row) -> Any:
    """Return the gradients of the arguments of a function, from what it saved: its row and the cache."""
    plan, result, needs = ctx.plan, ctx.result, ctx.needs_input_grad[1:]
    gys = gys[1 : 1 + result.count]
    if all([g is None for g in gys]):  # noqa: C419 (compiled code has no generators)
        return (None,) * (1 + len(needs))
    if is_autocast():
        with autocast_off(saved):
            return None, *_gradients(plan, result, needs, gys, saved)
    return None, *_gradients(plan, result, needs, gys, saved)


def _gradients(plan: Plan, result: Result, needs: tuple[bool, ...], gys: Row, saved: Row) -> Any:
    task = Task(plan, result, needs)
    if is_compiling():
        return task.gradients((*gys, *saved))
    if torch.is_grad_enabled():
        return Gradients.apply(task, *gys, *saved)  # type: ignore[no-untyped-call]
    if any([g is not None and is_batched_by_autograd(g) for g in gys]):  # noqa: C419
        return _within_a_transform(task.gradients, (*gys, *saved))
    return task.gradients((*gys, *saved))


def _within_a_transform(function: Any, tensors: Row) -> Any:
    """Return ``function(tensors)``, computed within a transform that does nothing.

    Where ``autograd.grad`` has a batch of gys at once, kernels cannot look at numbers, as in ``vmap``, but nothing tells them so.
    """
    count: int = len(tensors)
    places: list[int] = []

    def given(_: Tensor) -> Any:
        nonlocal count
        found = function(tensors)
        count, places[:] = len(found), [i for i, g in enumerate(found) if g is not None]
        return tuple([found[i] for i in places])

    found, _ = _vjp_of(given, torch.zeros(()))
    return _placed([None] * count, places, found)


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
            _, pull = _vjp_of(ctx.task.whole(saved, chosen), *[saved[i] for i in chosen])
            found = pull(tuple([ggs[i] for i in ctx.given]))
        return None, *_placed([None for _ in saved], chosen, found), *ctx.rest

    @staticmethod
    def jvp(ctx: Any, _: Any, *tangents: Any) -> Any:
        """Differentiate the VJP, with a new cache."""
        saved = ctx.saved_tensors
        chosen = [i for i in range(len(saved)) if tangents[i] is not None]
        given = tuple([saved[i] for i in chosen]), tuple([tangents[i] for i in chosen])
        _, moved = _jvp_of(ctx.task.whole(saved, chosen), *given)
        return tuple(_placed([None for _ in ctx.task.needs], ctx.given, moved))


def _placed(row: Row, places: Sequence[int], leaves: Row) -> list[Any]:
    """Return the row with other leaves at some places."""
    found = dict(zip(places, leaves, strict=True))
    return [found.get(i, leaf) for i, leaf in enumerate(row)]


def _cut(tensors: Row, first: int, second: int) -> tuple[Row, Row, Row]:
    """Cut a row in three, of which two have these lengths."""
    return tensors[:first], tensors[first : first + second], tensors[first + second :]


def applied(plan: Plan, row: Row) -> tuple[Any, dict[int, Tensor]]:
    """Return y, as a function of the row for autograd, and the statistics that moved, by their places."""
    return in_autocast_dtype(_applied, plan, row) if is_autocast() else _applied(plan, row)


def _applied(plan: Plan, row: Row) -> tuple[Any, dict[int, Tensor]]:
    if not is_compiling() and (not is_untransformed() or is_forward_mode()):
        if forward_levels() > 1:
            return _differentiated_by_torch(plan, row)
        return _results(Transformed.apply(plan, *row))  # type: ignore[no-untyped-call]
    if torch.is_grad_enabled() and any(map(_wants_gradient, row)):
        return _results(Recorded.apply(plan, *row))  # type: ignore[no-untyped-call]
    return _computed(plan, _detached(row))


def _results(found: Any) -> tuple[Any, dict[int, Tensor]]:
    result, *leaves = found
    y = result.y.write(leaves[: result.count])
    return y, {place: leaves[result.count + i] for i, place in enumerate(result.places)}


def _differentiated_by_torch(plan: Plan, row: Row) -> tuple[Any, dict[int, Tensor]]:
    """Compute the net with torch's derivatives, where one forward mode is within another.

    The outer one is off while torch (2.13.0) calls the ``jvp`` of a function in the inner one, and would silently give 0.
    """
    if plan.net.surrogate:
        raise value_error(plan.net, "a surrogate has no second derivative in forward mode; use reverse mode within", "jvp of jvp")
    return _computed(plan, row)


def _wants_gradient(leaf: Any) -> bool:
    return leaf is not None and leaf.requires_grad


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
        structure, (shape, entries) = Skeleton(params), taken_apart(x)
        leaves = structure.read(params)
        row = [*leaves, *entries, None if rng is None else as_key(rng)]
        return applied(Plan(self.net, structure, shape, len(leaves)), row)[0]

    def __repr__(self) -> str:
        return f"differentiable({self.net!r})"


def differentiable(net: Layer) -> Differentiable:
    """Make the function ``(params, x, rng=None) -> y`` that autograd differentiates with the net's VJP.

        y = net(params, x, rng)      gradients: gp, gx = net.vjp(params, cache, gy)

    It serves where tensors ask for gradients and no module is wanted: in a function for ``torch.func.grad`` or ``vmap``, or in a
    loss that someone differentiates with ``torch.autograd.grad``. It is pure: running statistics do not move, which
    ``net.update_stats`` and ``as_module`` do. ``torch.autocast`` has the effect that ``as_module`` describes.

    Args:
        net: The net. ``differentiable(net.inference())`` is for evaluation.

    Raises:
        ValueError: ``net`` is no layer.

    >>> from funcnet.layers.linear.linear import Linear
    >>> layer = Linear(3, 1, bias=False, initializer="ones")
    >>> x = torch.ones(2, 3).requires_grad_()
    >>> y = differentiable(layer)(layer.init(0), x)
    >>> torch.autograd.grad(y.square().sum(), x)[0]
    tensor([[6., 6., 6.],
            [6., 6., 6.]])
    """
    require_layer("differentiable", net)
    return Differentiable(net)
