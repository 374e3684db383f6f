"""Sequence modules of torch.nn beside what they are converted to: params, values and gradients, also as code calls them."""

from typing import Any

import torch
from torch import nn
from twins import assert_twins, params_of

import funcnet as fn
from funcnet import tree
from funcnet.interop.torch_nn.importing import attention, recurrent, transformers  # noqa: F401 (they fill the tables)
from funcnet.interop.torch_nn.importing.registry import CALLS, LAYERS
from funcnet.interop.torch_nn.importing.values import Node, Ref, UnsupportedError

FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}

SIMPLE = {
    nn.Linear: lambda m: fn.Linear(m.in_features, m.out_features, m.bias is not None),
    nn.LayerNorm: lambda m: fn.LayerNorm(m.normalized_shape, eps=m.eps, bias=m.bias is not None),
    nn.RMSNorm: lambda m: fn.RMSNorm(m.normalized_shape, eps=m.eps),
    nn.Dropout: lambda m: fn.Dropout(m.p),
    nn.Tanh: lambda m: fn.Tanh(),
    nn.PReLU: lambda m: fn.PReLU(m.num_parameters),
}


def converted(module: nn.Module, name: str = "") -> tuple[fn.Layer, Any]:
    """Convert a module with the tables, and modules of other families in the simplest way."""
    if type(module) in LAYERS:
        return LAYERS[type(module)](module, converted)
    state = {path: leaf.detach() for path, leaf in module.named_parameters()}
    return SIMPLE[type(module)](module), tree.from_names(state) if state else {}


def assert_converts(module: nn.Module, x: Any, **how: Any) -> fn.Layer:
    """Check that a module's params are its own tensors by its names, and that values and gradients are the module's."""
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
    """Check that float32 gives the value to 1e-5."""
    want = tree.map(lambda leaf: leaf.detach(), call(module, x))
    got = layer(tree.cast(params_of(layer, module), torch.float32), tree.cast(x, torch.float32))
    for one, other in zip(tree.leaves(got), tree.leaves(want), strict=True):
        torch.testing.assert_close(one.double(), other, **FLOAT32)


def wired(node: Node, *inputs: str) -> tuple[fn.Layer, Any]:
    """Wire a node and those that lead to it, each once, into a graph of these inputs; return it with its params."""
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
    """Return what the table makes of a call in traced code."""
    layer, params = converted(module)
    return CALLS[type(module)](module, layer, params, *args, **kwargs)


def refs(*names: str) -> list[Ref]:
    """Return inputs by name."""
    return [Ref(name) for name in names]


__all__ = [
    "UnsupportedError",
    "assert_called",
    "assert_converts",
    "called",
    "converted",
    "refs",
    "wired",
]


def assert_called(module: nn.Module, given: dict[str, Any], *, part: Any = lambda y: y, **fixed: Any) -> None:
    """Check that a call with these arguments has the value and the gradients of torch's, in the order in which they come."""
    module = module.double()
    node = called(module, **{name: Ref(name) for name in given}, **fixed)
    net, params = wired(node[0] if isinstance(node, tuple) else node, *given)
    x = tuple(given.values()) if len(given) > 1 else next(iter(given.values()))
    leaves = [leaf.detach().clone().requires_grad_(leaf.is_floating_point()) for leaf in given.values()]
    want = part(module(**dict(zip(given, leaves, strict=True)), **fixed))
    want = want[0] if isinstance(want, tuple) and want[1] is None else want
    y, cache = net.apply(params, x)
    gy = tree.map(lambda leaf: fn.random.normal(5, tuple(leaf.shape), dtype=leaf.dtype), y)
    pairs = list(zip(tree.leaves(y), tree.leaves(want), strict=True))
    for got, one in pairs:
        torch.testing.assert_close(got, one.detach(), rtol=1e-10, atol=1e-10)
    gparams, gx = net.vjp(params, cache, gy)
    weights, floating = dict(module.named_parameters()), [leaf for leaf in leaves if leaf.requires_grad]
    found = torch.autograd.grad(
        [one for _, one in pairs], [*floating, *weights.values()], tree.leaves(gy), allow_unused=True, materialize_grads=True
    )
    own = max(gparams.values(), key=lambda entry: len(tree.names(entry)))
    got = [g for g in (gx if len(given) > 1 else (gx,)) if g is not None] + [tree.names(own)[path] for path in weights]
    assert len(got) == len(found)
    for one, other in zip(got, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
