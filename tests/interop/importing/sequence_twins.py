"""Compare torch.nn's sequence modules with their conversions: params, values and gradients, also for calls in code."""

from typing import Any

import torch
from torch import nn
from twins import CLOSE, assert_twins, draw, params_of

import funcnet as fn
from funcnet import tree
from funcnet.interop.torch_nn.importing.layers import call_of, converter_of
from funcnet.interop.torch_nn.importing.values import Node, Ref

FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}


def converted(module: nn.Module, name: str = "") -> tuple[fn.Layer, Any]:
    """Convert a torch.nn module with the tables of converters, without copies."""
    return converter_of(module)(module, converted)


def assert_converts(module: nn.Module, x: Any, **how: Any) -> fn.Layer:
    """Check that params are the module's own tensors by name, and that values and gradients agree."""
    layer, params = converted(module.double())
    state = module.state_dict()
    assert {path: leaf.data_ptr() for path, leaf in tree.names(params).items()} == {
        path: leaf.data_ptr() for path, leaf in state.items()
    }
    assert not any(leaf.requires_grad for leaf in tree.leaves(params))
    assert tree.equal(params, params_of(layer, module))
    assert_twins(layer, module, x, **how)
    assert_in_single(layer, module, x, how.get("call") or (lambda m, x: m(x)))
    return layer


def assert_in_single(layer: fn.Layer, module: nn.Module, x: Any, call: Any) -> None:
    """Check that float32 values agree to 1e-5."""
    want = tree.map(lambda leaf: leaf.detach(), call(module, x))
    got = layer(tree.cast(params_of(layer, module), torch.float32), tree.cast(x, torch.float32))
    for one, other in zip(tree.leaves(got), tree.leaves(want), strict=True):
        torch.testing.assert_close(one.double(), other, **FLOAT32)


def wired(node: Node, *inputs: str) -> tuple[fn.Layer, Any]:
    """Wire a node and its ancestors, each once, into a graph with the given inputs; return it with its params."""
    names: dict[int, str] = {}
    nodes: dict[str, Any] = {}
    params: dict[str, Any] = {}

    def name_of(value: Any) -> str:
        if isinstance(value, Ref):
            return value.name
        if id(value) not in names:
            ins = [name_of(one) for one in value.inputs]
            name = names[id(value)] = f"n{len(names)}"
            nodes[name], params[name] = (value.layer, *ins), value.params
        return names[id(value)]

    return fn.graph(*inputs, output=name_of(node), **nodes), params


def called(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Return the table's result for a call in traced code."""
    layer, params = converted(module)
    return call_of(module)(module, layer, params, *args, **kwargs)


def refs(*names: str) -> list[Ref]:
    """Return inputs by name."""
    return [Ref(name) for name in names]


def assert_called(
    module: nn.Module,
    x: dict[str, Any],
    arrange: Any = dict,
    *,
    rewrite: Any = lambda node: node,
    constants: tuple[str, ...] = (),
) -> None:
    """Check that a call has torch's value and gradients.

    ``arrange(**x)`` returns keyword arguments from the inputs x, which are tensors for the module and names for the net.
    ``rewrite`` is applied to the table's result for the call. The gradients of ``constants`` are not compared.
    """
    module = module.double()
    node = rewrite(called(module, **arrange(**{name: Ref(name) for name in x})))
    net, params = wired(node, *x)
    varied = [name for name, leaf in x.items() if leaf.is_floating_point() and name not in constants]
    leaves = {name: leaf.detach().clone().requires_grad_(name in varied) for name, leaf in x.items()}
    want = tree.leaves(tuple([one for one in as_tuple(module(**arrange(**leaves))) if one is not None]))
    y, cache = net.apply(params, tuple(x.values()) if len(x) > 1 else next(iter(x.values())))
    gy = tree.map(lambda leaf: draw(leaf.shape, 5), y)
    gparams, gx = net.vjp(params, cache, gy)
    weights, inputs = dict(module.named_parameters()), [leaves[name] for name in varied]
    grads = torch.autograd.grad(want, [*inputs, *weights.values()], tree.leaves(gy), allow_unused=True, materialize_grads=True)
    own = {path: g for entry in gparams.values() for path, g in tree.names(entry).items()}
    gxs = dict(zip(x, gx if len(x) > 1 else (gx,), strict=True))
    got = [*tree.leaves(y), *[gxs[name] for name in varied], *[own[path] for path in weights]]
    for one, other in zip(got, [*want, *grads], strict=True):
        torch.testing.assert_close(one, other.detach(), **CLOSE)


def as_tuple(y: Any) -> tuple[Any, ...]:
    """Return a module's output as a tuple."""
    return y if isinstance(y, tuple) else (y,)
