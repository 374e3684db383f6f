"""The VJP of a net as an operation that autograd can differentiate, for higher derivatives.

    (gy, p, x) ↦ net.vjp(p, cache of net.apply(p, x), gy)

The gradients themselves are computed from the existing cache. Their derivatives need a new cache that depends on p and x, which
``torch.func`` computes.
"""

from collections.abc import Callable
from typing import Any

import torch
from attrs import define
from torch import Tensor
from torch.autograd import Function

from funcnet.interop.torch_nn.autograd.plans import Plan, Result
from funcnet.interop.torch_nn.autograd.precision import autocast_off
from funcnet.interop.torch_nn.autograd.rows import Row, cut, detached, placed
from funcnet.kernels.private_names import is_forward_mode
from funcnet.kernels.tracing import forward_levels

vjp_of: Callable[..., Any] = torch.func.vjp
jvp_of: Callable[..., Any] = torch.func.jvp


@define(eq=False)
class Task:
    """The net, results and required gradients of a VJP."""

    plan: Plan
    result: Result
    needs: tuple[bool, ...]

    def cut(self, tensors: Row) -> tuple[Row, Row, Row]:
        """Split a row into the tensors of gy, of the arguments and of the cache."""
        return cut(tensors, self.result.count, len(self.needs))

    def gradients(self, tensors: Row) -> Any:
        """Call the VJP of the net, with the cache."""
        gys, row, kept = map(detached, self.cut(tensors))
        return tuple(self.plan.gradients(self.result, row, kept, gys, self.needs))

    def whole(self, tensors: Row, chosen: list[int]) -> Any:
        """Return the gradients as a function of the chosen tensors, with a new cache; the other tensors are constants."""

        def vjp(*some: Tensor) -> Any:
            gys, row, _ = self.cut(placed(tensors, chosen, some))
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
            _, pull = vjp_of(ctx.task.whole(saved, chosen), *[saved[i] for i in chosen])
            found = pull(tuple([ggs[i] for i in ctx.given]))
        return None, *placed([None for _ in saved], chosen, found), *ctx.rest

    @staticmethod
    def jvp(ctx: Any, _: Any, *tangents: Any) -> Any:
        """Differentiate the VJP, with a new cache."""
        saved = ctx.saved_tensors
        chosen = [i for i in range(len(saved)) if tangents[i] is not None]
        given = tuple([saved[i] for i in chosen]), tuple([tangents[i] for i in chosen])
        nested = is_forward_mode() and not forward_levels()  # in a ``dual_level``, in which torch cannot nest another
        moved = (_jvp_by_vjps if nested else _jvp)(ctx.task.whole(saved, chosen), *given)
        return tuple(placed([None for _ in ctx.task.needs], ctx.given, moved))


def _jvp(function: Callable[..., Any], arguments: Row, tangents: Row) -> Row:
    return jvp_of(function, tuple(arguments), tuple(tangents))[1]  # type: ignore[no-any-return]


def _jvp_by_vjps(function: Callable[..., Any], arguments: Row, tangents: Row) -> Row:
    """Return the forward derivative of a function of tensors as the transpose of its VJP, which is linear."""
    y, pull = vjp_of(function, *arguments)
    _, push = vjp_of(lambda *gys: pull(gys), *map(torch.zeros_like, y))
    return push(tuple(tangents))  # type: ignore[no-any-return]


def within_a_transform(function: Any, tensors: Row) -> Any:
    """Return ``function(tensors)``, computed within a transform that has no effect.

    When ``autograd.grad`` gets a batch of gys, kernels cannot read values, as in ``vmap``; the transform makes them aware of
    this.
    """
    count: int = len(tensors)
    places: list[int] = []

    def given(_: Tensor) -> Any:
        nonlocal count
        found = function(tensors)
        count, places[:] = len(found), [i for i, g in enumerate(found) if g is not None]
        return tuple([found[i] for i in places])

    found, _ = vjp_of(given, torch.zeros(()))
    return placed([None] * count, places, found)
