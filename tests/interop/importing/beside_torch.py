"""Compare a converted net with its module: outputs, gradients, running statistics and names, in both modes."""

from typing import Any

import torch
from torch import Tensor, nn

import funcnet as fn
from funcnet.interop.torch_nn import from_torch

TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5}


def flat(value: Any) -> list[Tensor]:
    """List the tensors of an output."""
    if isinstance(value, Tensor):
        return [value]
    return [one for part in (value.values() if isinstance(value, dict) else value) for one in flat(part)]


def require_near(got: Tensor, want: Tensor, what: str) -> None:
    """Require two tensors to be equal up to rounding, relative to the largest element."""
    error = (got - want).abs().max() / want.abs().max().clamp_min(1) if want.numel() else torch.zeros(())
    assert got.shape == want.shape, f"{what}: {tuple(got.shape)} and {tuple(want.shape)}"
    assert error <= TOLERANCES.get(want.dtype, 0), f"{what} differs by {float(error):.1e}"


def moved(module: nn.Module, *xs: Tensor, seed: int = 0) -> tuple[Any, dict[str, Tensor], list[Tensor]]:
    """Return the output of a module, and the gradients of its parameters and inputs for a random gy."""
    module.zero_grad()
    xs = tuple([x.detach().clone().requires_grad_(x.is_floating_point()) for x in xs])
    want = module(*xs)
    gys = [fn.random.normal(fn.key(seed + i), y.shape, dtype=y.dtype) for i, y in enumerate(flat(want))]
    torch.autograd.backward(flat(want), gys)
    grads = {path: p.grad for path, p in module.named_parameters()}
    return want, grads, [x.grad for x in xs]


def compare(module: nn.Module, *xs: Tensor, mode: str, inputs: Any = None) -> tuple[fn.Layer, Any]:
    """Require the net to equal the module in a mode; ``inputs`` are the net's if they differ from the module's."""
    net, params = from_torch(module)
    module.train(mode == "train")
    one = net if mode == "train" else net.inference()
    inputs = inputs if inputs is not None else xs if len(xs) > 1 else xs[0]
    y, cache = one.apply(params, inputs, fn.key(0))
    want, grads, gxs = moved(module, *xs)
    for i, (a, b) in enumerate(zip(flat(y), flat(want), strict=True)):
        require_near(a, b.detach(), f"output {i}")
    gys = iter([fn.random.normal(fn.key(i), leaf.shape, dtype=leaf.dtype) for i, leaf in enumerate(flat(want))])
    gparams, gx = one.vjp(params, cache, fn.tree.map(lambda _: next(gys), y))
    found = dict(fn.tree.names(gparams))
    for path, grad in grads.items():
        assert (path in found) == (grad is not None), f"{path} has a gradient on one side only"
        if grad is not None:
            require_near(found[path], grad, f"the gradient of {path}")
    for i, (a, b) in enumerate(zip(gx if isinstance(gx, tuple) else (gx,), gxs, strict=True)):
        assert a is not None or b is None, f"input {i} has no gradient"
        if a is not None and a.is_floating_point():  # without a gradient, torch's is None and funcnet's is 0
            require_near(a, torch.zeros_like(a) if b is None else b, f"the gradient of input {i}")
    after = dict(fn.tree.names(one.update_stats(params, cache)))
    for path, buffer in module.named_buffers():
        if path in after:
            require_near(after[path].double(), buffer.double(), path)
    return net, params


def agree(make: Any, *xs: Tensor, inputs: Any = None, dtypes: Any = (torch.float64, torch.float32)) -> tuple[fn.Layer, Any]:
    """Require equality in both modes and all dtypes, and params with the keys of the state dict; return the last net."""
    for dtype in dtypes:
        cast = [x.to(dtype) if x.is_floating_point() else x for x in xs]
        ours = None if inputs is None else tuple([x.to(dtype) if x.is_floating_point() else x for x in inputs])
        for mode in ("train", "eval"):
            torch.manual_seed(0)
            module = make().to(dtype)
            net, params = compare(module, *cast, mode=mode, inputs=ours)
            first = {id(tensor): path for path, tensor in reversed(module.state_dict(keep_vars=True).items())}
            assert {*fn.tree.names(params)} == {*first.values()}
    return net, params
