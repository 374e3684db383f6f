"""Nets within autograd: functions of tensors whose backward pass is the VJP of a net.

    y, cache = net.apply(p, x)      gp, gx = net.vjp(p, cache, gy)

The leaves of p and x are passed to ``torch.autograd.Function`` in one row. The first derivative needs only the cache. Higher
derivatives compute the net again, because the cache depends on p and x:

    (gy, p, x) ↦ net.vjp(p, cache of net.apply(p, x), gy)      differentiated with ``torch.func``
    ẏ = the derivative of ⟨ṗ, gp⟩ + ⟨ẋ, gx⟩ with respect to gy       forward mode: vjp is linear in gy
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor
from torch.autograd import Function

from funcnet.contract import Layer, Params, Rng
from funcnet.errors import value_error
from funcnet.interop.torch_nn.autograd.plans import Plan, Result, is_inline
from funcnet.interop.torch_nn.autograd.precision import autocast_off, casts_of, in_autocast_dtype
from funcnet.interop.torch_nn.autograd.rows import Row, Skeleton, cut, detached, placed, to_row
from funcnet.interop.torch_nn.autograd.second_order import Gradients, Task, vjp_of, within_a_transform
from funcnet.kernels.private_names import is_batched_by_autograd, is_forward_mode, set_layouts_of_gradients
from funcnet.kernels.tracing import forward_levels, is_autocast, is_compiling, is_untransformed
from funcnet.random.keys import as_key
from funcnet.value import Value, frozen
from funcnet.walking import require_layer


def _writable(y: Any, inputs: Row) -> Any:
    """Return y such that autograd permits in-place writes to it, or rejects them if y shares memory with an input."""
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
        inputs = detached(row)
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
    """A net as one operation within transforms of ``torch.func``, which require the cache to be among the results."""

    generate_vmap_rule = True

    @staticmethod
    def forward(plan: Plan, *row: Any) -> Any:
        """Apply the net."""
        inputs = detached(row)
        result, ys, moved, kept = plan.forward(inputs)
        given = {id(leaf) for leaf in inputs if leaf is not None}  # torch saves no argument that is returned unchanged
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
        ctx.save_for_forward(*saved)  # the same tensors: the vmap rule stores one list of axes for both

    @staticmethod
    def backward(ctx: Any, *gys: Any) -> Any:
        """Call the VJP of the net."""
        return _back(ctx, gys, ctx.saved_tensors[ctx.result.count :])

    @staticmethod
    def jvp(ctx: Any, _: Any, *tangents: Any) -> Any:
        """Transpose the VJP, which is linear in gy, with a new cache."""
        plan, result, needs = ctx.plan, ctx.result, [tangent is not None for tangent in tangents]
        ys, row, kept = cut(ctx.saved_tensors, result.count, len(needs))
        chosen = [i for i, y in enumerate(ys) if y is not None and y.is_floating_point()]
        params, x, rng = plan.arguments(row)
        cache = plan.net.apply(params, x, rng)[1]

        def vjp(*gys: Tensor) -> Any:
            gy = result.gy(placed([None for _ in ys], chosen, gys))
            return {i: g for i, g in enumerate(plan.backward(params, x, cache, gy, needs)) if g is not None}

        found, pull = vjp_of(vjp, *[torch.zeros_like(ys[i]) for i in chosen])
        moved = pull({i: tangents[i] for i in found})
        return None, *placed([None for _ in ys], chosen, moved), *[None for _ in (*result.places, *kept)]


def _back(ctx: Any, gys: Row, saved: Row) -> Any:
    """Return the gradients of a function's arguments from its saved row and cache."""
    plan, result, needs = ctx.plan, ctx.result, ctx.needs_input_grad[1:]
    gys = gys[1 : 1 + result.count]
    if all([g is None for g in gys]):  # noqa: C419 (compiled code has no generators)
        return (None,) * (1 + len(needs))
    if is_autocast():
        with autocast_off(saved):
            return None, *_gradients(plan, result, needs, gys, saved)
    return None, *_gradients(plan, result, needs, gys, saved)


def _gradients(plan: Plan, result: Result, needs: tuple[bool, ...], gys: Row, saved: Row) -> Any:
    if is_compiling():
        dense = [None if g is None else g.contiguous() for g in gys]  # Dynamo does not know the strides of gradients
        return Task(plan, result, needs).gradients((*dense, *saved))
    if torch.is_grad_enabled():
        return Gradients.apply(Task(plan, result, needs), *gys, *saved)  # type: ignore[no-untyped-call]
    if any([g is not None and is_batched_by_autograd(g) for g in gys]):  # noqa: C419
        return within_a_transform(Task(plan, result, needs).gradients, (*gys, *saved))
    saved = detached(saved)
    return plan.gradients(result, saved[: len(needs)], saved[len(needs) :], gys, needs)


def applied(plan: Plan, row: Row) -> tuple[Any, dict[int, Tensor]]:
    """Return y as a function of the row for autograd, and the updated statistics by place."""
    return in_autocast_dtype(_applied, plan, row) if is_autocast() else _applied(plan, row)


def _applied(plan: Plan, row: Row) -> tuple[Any, dict[int, Tensor]]:
    if not is_compiling() and (not is_untransformed() or is_forward_mode()):
        if forward_levels() > 1:
            return _differentiated_by_torch(plan, row)
        return _results(Transformed.apply(plan, *row))  # type: ignore[no-untyped-call]
    if torch.is_grad_enabled() and any(map(_wants_gradient, row)):
        if plan.is_inline and is_compiling():
            return _computed(plan, row)
        return _results(Recorded.apply(plan, *row))  # type: ignore[no-untyped-call]
    return _computed(plan, detached(row))


def _results(found: Any) -> tuple[Any, dict[int, Tensor]]:
    result, *leaves = found
    y = result.y.write(leaves[: result.count])
    return y, {place: leaves[result.count + i] for i, place in enumerate(result.places)}


def _differentiated_by_torch(plan: Plan, row: Row) -> tuple[Any, dict[int, Tensor]]:
    """Compute the net with torch's derivatives, for nested forward modes.

    Torch (2.13.0) disables the outer mode while it calls the ``jvp`` of a function in the inner one; the outer derivative would
    silently be 0.
    """
    if plan.net.surrogate:
        raise value_error(plan.net, "a surrogate has no second derivative in forward mode; use reverse mode within", "jvp of jvp")
    return _computed(plan, row)


def _wants_gradient(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.requires_grad


def _computed(plan: Plan, row: Row) -> tuple[Any, dict[int, Tensor]]:
    """Return the result of ``applied`` if no gradient is needed; the cache is not kept."""
    if not plan.stats:
        params, x, rng = plan.arguments(row)
        return plan.net(params, x, rng), {}
    result, ys, moved, _ = plan.forward(row)
    return result.y.write(ys), dict(zip(result.places, moved, strict=True))


@frozen
class Differentiable(Value):
    """A net as a function of tensors that autograd differentiates; created with ``differentiable``."""

    label = "differentiable"

    net: Layer = field()

    _casts: dict[torch.dtype, Layer] = field(init=False, eq=False)
    _is_inline: bool = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_casts", casts_of(self.net))
        object.__setattr__(self, "_is_inline", is_inline(self.net))

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        structure, (shape, entries) = Skeleton(params), to_row(x)
        leaves = structure.read(params)
        row = [*leaves, *entries, None if rng is None else as_key(rng)]
        return applied(Plan(self.net, structure, shape, len(leaves), (), None, self._casts, self._is_inline), row)[0]

    def __repr__(self) -> str:
        return f"differentiable({self.net!r})"


def differentiable(net: Layer) -> Differentiable:
    """Return the function ``(params, x, rng=None) -> y`` that autograd differentiates with the net's VJP.

        y = net(params, x, rng)      gradients: gp, gx = net.vjp(params, cache, gy)

    Use it to differentiate without a module: in a function for ``torch.func.grad`` or ``vmap``, or in a loss that is
    differentiated with ``torch.autograd.grad``. It is pure: unlike the module of ``as_module``, it does not update running
    statistics; use ``net.update_stats``. ``torch.autocast`` has the same effect as in ``as_module``.

    Args:
        net: The net. Use ``differentiable(net.inference())`` for evaluation.

    Returns:
        The function; several inputs are passed as a tree x, as for the net.

    Raises:
        ValueError: If ``net`` is not a layer.

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
