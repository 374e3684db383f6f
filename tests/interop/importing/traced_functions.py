"""Evaluate traced code node by node, forward and backward, with the converted layers."""

from typing import Any

import torch
from torch import Tensor, fx

import funcnet as fn
import funcnet.interop.torch_nn.importing.layers
from funcnet.interop.torch_nn.importing import values
from funcnet.interop.torch_nn.importing.functions.creating import constant_node
from funcnet.interop.torch_nn.importing.registry import FUNCTIONS


class Module(torch.nn.Module):
    """A module whose forward is a function of tensors, with tensors as parameters."""

    def __init__(self, function: Any, **parameters: Tensor) -> None:
        super().__init__()
        self.function = function
        for name, value in parameters.items():
            self.register_parameter(name, torch.nn.Parameter(value))

    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Any:
        """Pass up to three tensors to the function."""
        given = (a, b, c)[: self.function.__code__.co_argcount]
        return self.function(*given)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Draw normal numbers in float64."""
    return fn.random.normal(fn.fold_in(seed, repr(shape)), shape, dtype=torch.float64)


def converted(function: Any) -> Any:
    """Trace a function and return its output's value: nodes, references, or a tuple."""
    traced = fx.symbolic_trace(Module(function))
    known: dict[fx.Node, Any] = {}
    for node in traced.graph.nodes:
        arguments = fx.map_arg((node.args, node.kwargs), known.__getitem__)
        if node.op == "output":
            return arguments[0][0]
        constants = {"placeholder": values.Ref, "get_attr": lambda name: constant_node(getattr(traced, name))}
        known[node] = constants[node.op](node.target) if node.op in constants else _called(node, *arguments)
    raise AssertionError("a graph has an output")


def _called(node: fx.Node, args: Any, kwargs: Any) -> Any:
    """Return the value of a call: functions of shapes are evaluated, others converted."""
    if node.target is getattr and args[1] == "shape":
        return values.Shape(args[0])
    if node.target == "size":
        return values.Size(args[0], args[1]) if len(args) > 1 else values.Shape(args[0])
    if isinstance(args[0] if args else None, values.Shape):
        of, at = args[0].of, args[1]
        return values.Shape(of, at.start, at.stop) if isinstance(at, slice) else values.Size(of, at)
    return FUNCTIONS[node.target](*args, **kwargs)


def evaluate(value: Any, given: dict[str, Tensor], kept: dict[int, Any], order: list[Any]) -> Any:
    """Return a value for given inputs; each node is applied once, and its cache is kept."""
    if isinstance(value, values.Ref):
        return given[value.name]
    if isinstance(value, (tuple, list)):
        return tuple([evaluate(one, given, kept, order) for one in value])
    if not isinstance(value, values.Node):
        return value
    if id(value) not in kept:
        ins = tuple([evaluate(one, given, kept, order) for one in value.inputs])
        kept[id(value)] = value.layer.apply(value.params, ins[0] if len(ins) == 1 else ins, fn.key(0))
        order.append(value)
    return kept[id(value)][0]


def gradients(value: Any, gy: Any, given: dict[str, Tensor], kept: dict[int, Any], order: list[Any]) -> dict[str, Any]:
    """Return the gradients of the inputs."""
    found: dict[Any, Any] = {}
    _collect(found, value, gy)
    for node in reversed(order):
        g = found.get(id(node))
        if g is None:
            continue
        gx = node.layer.vjp(node.params, kept[id(node)][1], g)[1]
        for one, part in zip(node.inputs, (gx,) if len(node.inputs) == 1 else gx, strict=True):
            _collect(found, one, part)
    return {name: found.get(name) for name in given}


def _collect(found: dict[Any, Any], value: Any, g: Any) -> None:
    if isinstance(value, (tuple, list)):
        for one, part in zip(value, g, strict=True):
            _collect(found, one, part)
    elif g is not None and isinstance(value, (values.Ref, values.Node)):
        at = value.name if isinstance(value, values.Ref) else id(value)
        found[at] = g if found.get(at) is None else _sum(found[at], g)


def _sum(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return a if b is None else b
    return tuple(map(_sum, a, b)) if isinstance(a, tuple) else a + b


def check(function: Any, *tensors: Tensor, tolerance: float = 1e-10) -> None:
    """Compare a function with its conversion: the output, its dtype, and the gradients of all floating inputs."""
    given = dict(zip("abc"[: function.__code__.co_argcount], tensors, strict=False))
    kept: dict[int, Any] = {}
    order: list[Any] = []
    value = converted(function)
    got = evaluate(value, given, kept, order)
    leaves = {name: x.clone().requires_grad_(x.is_floating_point()) for name, x in given.items()}
    want = function(*[leaf.clone() for leaf in leaves.values()])
    ours, theirs = fn.tree.leaves(_tree(got)), fn.tree.leaves(_tree(want))
    for one, other in zip(ours, theirs, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        torch.testing.assert_close(one, other.detach(), rtol=tolerance, atol=tolerance)
    gys = [fn.random.normal(i, tuple(y.shape), dtype=y.dtype) if y.grad_fn is not None else None for i, y in enumerate(theirs)]
    if any(gy is not None for gy in gys):
        asked = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
        heads = [(y, gy) for y, gy in zip(theirs, gys, strict=True) if gy is not None]
        wanted = torch.autograd.grad([y for y, _ in heads], list(asked.values()), [gy for _, gy in heads], allow_unused=True)
        gy = _like(got, iter(gys))
        found = gradients(value, gy, given, kept, order)
        for name, g in zip(asked, wanted, strict=True):
            mine = torch.zeros_like(asked[name]) if found[name] is None else found[name]
            torch.testing.assert_close(mine, torch.zeros_like(mine) if g is None else g, rtol=tolerance, atol=tolerance)


def _tree(value: Any) -> Any:
    return tuple(map(_tree, value)) if isinstance(value, (tuple, list)) else value


def _like(got: Any, gys: Any) -> Any:
    return tuple([_like(one, gys) for one in got]) if isinstance(got, (tuple, list)) else next(gys)
