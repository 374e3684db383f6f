"""Compare a net with its module: outputs and gradients in float64, keys, and running statistics after a step."""

import copy
import pickle
from typing import Any

import torch
from torch import Tensor, nn

import funcnet as fn
from funcnet import flattening, tree
from funcnet.interop.torch_nn import to_torch
from funcnet.interop.torch_nn.exporting.modules import SIZED, call

CLOSE = {"rtol": 1e-10, "atol": 1e-10, "equal_nan": True}


def in_double(values: Any) -> Any:
    """Return a tree with its floating leaves in float64."""
    return tree.map(lambda leaf: leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf, values)


def run(module: nn.Module, x: Any) -> Any:
    """Call a module with x or the entries of a tuple, and torch.nn's own modules with torch's arguments."""
    if type(module) in (nn.Identity, *SIZED) or not isinstance(x, tuple) or len(x) == 1:
        return call(module, x)
    return module(*x)


def assert_same(what: str, got: Any, want: Any, **tolerance: Any) -> None:
    """Check that two trees have the same paths and numbers."""
    got, want = tree.names(got), tree.names(want)
    assert got.keys() == want.keys(), f"{what}: {[*got]} and {[*want]}"
    for path, leaf in want.items():
        torch.testing.assert_close(got[path], leaf, **(CLOSE | tolerance), msg=lambda text, path=path: f"{what} {path}: {text}")


def assert_module_agrees(layer: fn.Layer, params: Any, x: Any, **tolerance: Any) -> nn.Module:
    """Check everything that a module must satisfy, in float64; a stochastic layer is compared in eval mode.

    Tolerances apply to gradients.
    """
    params, x = in_double(params), in_double(x)
    module = to_torch(layer, params)
    assert module.state_dict().keys() == tree.names(params).keys()
    if layer.inference().stochastic:
        _assert_it_draws(layer, module, params, x)
        return module
    net = layer.inference() if layer.stochastic else layer
    module.train(not layer.stochastic)
    _assert_gradients_agree(net, module, params, x, tolerance)
    moved = dict(module.state_dict())
    if net.has_running_stats:
        assert_same("statistics", moved, tree.names(net.update_stats(params, net.apply(params, x)[1])))
    evaluated = layer.inference()(tree.from_names(moved, params), x)
    for one in (module.eval(), *_copies(module)):
        assert_same("evaluation", run(one.eval(), x), evaluated)
    always = to_torch(layer.inference(), params).train()
    assert_same("inference() in train mode", run(always, x), layer.inference()(params, x))
    return module


def _assert_it_draws(layer: fn.Layer, module: nn.Module, params: Any, x: Any) -> None:
    """Check a layer that is random in evaluation too: each call gives different numbers, and a seed repeats them."""
    drawn = []
    for one in (module.train(), module.eval(), *_copies(module)):
        torch.manual_seed(0)
        drawn += [run(one, x), run(one, x)]
    assert all(tree.equal(drawn[i], drawn[i % 2]) for i in range(len(drawn)))
    assert not tree.equal(drawn[0], drawn[1])
    want = layer(params, x, fn.key(0))
    assert tree.map(lambda leaf: (leaf.shape, leaf.dtype), drawn[0]) == tree.map(lambda leaf: (leaf.shape, leaf.dtype), want)


def _copies(module: nn.Module) -> list[nn.Module]:
    copies = [copy.deepcopy(module), pickle.loads(pickle.dumps(module))]
    for one in copies:
        one.load_state_dict(module.state_dict())
    return copies


def _assert_gradients_agree(net: fn.Layer, module: nn.Module, params: Any, x: Any, tolerance: dict[str, Any]) -> None:
    y, cache = net.apply(params, x)
    gy = tree.map(lambda leaf: _draw(leaf) if leaf.is_floating_point() else None, y)
    gparams, gx = net.vjp(params, cache, gy)
    x = tree.map(lambda leaf: leaf.clone().requires_grad_() if _is_floating(leaf) else leaf, x)
    got = run(module, x)
    assert_same("y", tree.map(lambda leaf: leaf.detach(), got), y)
    inputs = [leaf for leaf in flattening.flatten_together(x)[0] if _is_floating(leaf)]
    weights = {path: leaf for path, leaf in module.named_parameters() if leaf.requires_grad}
    grads = _grads(got, gy, [*inputs, *weights.values()])
    want = [g for leaf, g in zip(*flattening.flatten_together(x, gx), strict=True) if _is_floating(leaf)] if inputs else []
    for one, g in zip(grads[: len(inputs)], want, strict=True):
        assert_same("gx", one, torch.zeros_like(one) if g is None else g, **tolerance)
    by_path = dict(zip(weights, grads[len(inputs) :], strict=True))
    want = {path: torch.zeros_like(leaf) for path, leaf in weights.items()} | tree.names(gparams)
    assert_same("gradient of", by_path, want, **tolerance)


def _grads(got: Any, gy: Any, of: list[Tensor]) -> list[Tensor]:
    pairs = zip(tree.leaves(got), flattening.flatten_together(gy)[0], strict=True)
    pairs = [(leaf, g) for leaf, g in pairs if g is not None and leaf.requires_grad]
    if not pairs or not of:
        return [torch.zeros_like(leaf) for leaf in of]
    ys, gs = zip(*pairs, strict=True)
    return [*torch.autograd.grad(ys, of, gs, allow_unused=True, materialize_grads=True)]


def _draw(leaf: Tensor) -> Tensor:
    return fn.random.normal(3, tuple(leaf.shape), dtype=leaf.dtype)


def _is_floating(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()
