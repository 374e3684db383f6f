"""Muon, Adafactor, Prodigy and SOAP compared with torch.optim or the algorithm of the paper."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import funcnet as fn
from funcnet import tree

MATRICES = {"wide": (5, 7), "tall": (9, 4)}
SHAPES = {**MATRICES, "vector": (5,), "stack": (2, 3, 4)}
Params = dict[str, Tensor]


def draw(seed: int, shapes: dict[str, tuple[int, ...]]) -> Params:
    """Draw a tensor of each shape in float64."""
    return {
        name: fn.random.normal(fn.fold_in(seed, i), shape, dtype=torch.float64) for i, (name, shape) in enumerate(shapes.items())
    }


def gradient(step: int, params: Params) -> Params:
    """Return the noisy gradient of half the squares, which depends on params, so that errors grow."""
    noise = draw(1000 + step, {name: tuple(p.shape) for name, p in params.items()})
    return {name: noise[name] + p for name, p in params.items()}


def ours(opt: fn.Optimizer, params: Params, steps: int = 100) -> Params:
    """Take steps with one of our optimizers."""
    state = opt.init(params)
    for step in range(steps):
        params, state = opt.update(gradient(step, params), state, params)
    return params


def theirs(make: Callable[..., Any], params: Params, steps: int = 100) -> Params:
    """Take steps with an optimizer of torch."""
    leaves = {name: torch.nn.Parameter(p.clone()) for name, p in params.items()}
    opt = make(list(leaves.values()))
    for step in range(steps):
        for name, g in gradient(step, {name: p.detach() for name, p in leaves.items()}).items():
            leaves[name].grad = g
        opt.step()
    return {name: p.detach() for name, p in leaves.items()}


def grid(**options: list[Any]) -> list[dict[str, Any]]:
    """List all combinations of options."""
    return [dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())]


def test_muon_is_torchs() -> None:
    """A hundred steps agree for every two of its options, in float64, with Newton-Schulz in bfloat16 as in torch."""
    options = [
        {"lr": 0.02, "weight_decay": 0.0, "momentum": 0.5, "nesterov": True, "adjust_lr_fn": None},
        {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.95, "nesterov": True, "adjust_lr_fn": None},
        {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.5, "nesterov": False, "adjust_lr_fn": "match_rms_adamw"},
        {"lr": 0.02, "weight_decay": 0.0, "momentum": 0.95, "nesterov": False, "adjust_lr_fn": None},
        {"lr": 0.02, "weight_decay": 0.0, "momentum": 0.95, "nesterov": True, "adjust_lr_fn": "match_rms_adamw"},
    ]
    options += [{"ns_steps": 2, "ns_coefficients": (2.0, -1.5, 0.5)}, {"eps": 1.0}, {"adjust_lr_fn": "original"}]
    for some in options:
        start = draw(0, MATRICES)
        got, want = ours(fn.Muon(**some), start), theirs(lambda leaves, some=some: torch.optim.Muon(leaves, **some), start)
        fn.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_adafactor_is_torchs() -> None:
    """A hundred steps agree over a grid of its options, for matrices, stacks of them and vectors."""
    options = grid(lr=[0.2], beta2_decay=[-0.8, -0.5], weight_decay=[0.0, 0.1], maximize=[False, True])
    options += [{"eps": (1e-3, 0.1)}, {"d": 2.0}, {"eps": (None, 0.0)}]
    for some in options:
        start = draw(0, SHAPES)
        got, want = (
            ours(fn.Adafactor(**some), start),
            theirs(lambda leaves, some=some: torch.optim.Adafactor(leaves, **some), start),
        )
        fn.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)


def prodigy(params: Params, steps: int, lr: float, decay: float, safeguard: bool, beta3: float) -> Params:
    """Take the steps of the paper's algorithm, with the bias corrections of its code."""
    beta1, beta2, eps, d0 = 0.9, 0.999, 1e-8, 1e-3
    d, numerator, first = d0, torch.zeros(()).double(), params
    m, v, s = ({name: torch.zeros_like(p) for name, p in params.items()} for _ in range(3))
    for step in range(steps):
        g = gradient(step, params)
        a = lr * d * (1 - beta2 ** (step + 1)) ** 0.5 / (1 - beta1 ** (step + 1))
        inner = sum((g[name] * (first[name] - p)).sum() for name, p in params.items())
        m = {name: beta1 * m[name] + (1 - beta1) * d * g[name] for name in m}
        v = {name: beta2 * v[name] + (1 - beta2) * (d * g[name]) ** 2 for name in v}
        s = {name: beta3 * s[name] + (d if safeguard else a) * d * g[name] / d0 for name in s}
        numerator = beta3 * numerator + d / d0 * a * inner
        d = max(d, (numerator / sum(one.abs().sum() for one in s.values())).item())
        params = {name: p - a * decay * p - a * m[name] / (v[name].sqrt() + d * eps) for name, p in params.items()}
    return params


def test_prodigy_is_the_papers() -> None:
    """A hundred steps agree, on which its estimate grows, with and without its options."""
    for lr, decay, safeguard, beta3 in [(1.0, 0.0, False, None), (0.5, 0.1, True, None), (1.0, 0.01, False, 0.9)]:
        opt = fn.Prodigy(lr, d0=1e-3, weight_decay=decay, safeguard_warmup=safeguard, beta3=beta3)
        got, want = ours(opt, draw(0, SHAPES)), prodigy(draw(0, SHAPES), 100, lr, decay, safeguard, beta3 or 0.999**0.5)
        fn.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)


def test_prodigy_finds_its_rate() -> None:
    """From an estimate that is far too small it finds the minimum of a bowl, without a learning rate."""
    opt, params = fn.Prodigy(), {"w": torch.full((4,), 3.0)}
    state = opt.init(params)
    for _ in range(400):
        params, state = opt.update(params, state, params)
    assert state["d"] > 0.1
    assert params["w"].abs().max() < 0.1


def test_muon_refuses_what_is_no_matrix() -> None:
    """The message has the path; stacks are accepted on request."""
    params = {"weight": torch.ones(2, 2), "bias": torch.ones(2)}
    with pytest.raises(ValueError, match="params must have a matrix, of two axes, at 'bias'; use by_path for the others"):
        fn.Muon().init(params)
    with pytest.raises(ValueError, match="matrices, or stacks of them, at 'bias'"):
        fn.Muon(stacked=True).init(params)
    with pytest.raises(ValueError, match="at 'kernel'"):
        fn.Muon().init({"kernel": torch.ones(2, 2, 3)})


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_muon_steps_each_matrix_of_a_stack(dtype: torch.dtype) -> None:
    """Steps agree up to rounding, because a batched product rounds differently."""
    stack = draw(0, {"w": (3, 5, 4)})
    opt = fn.Muon(0.1, stacked=True, ns_dtype=dtype)
    together = ours(opt, stack, 1)["w"]
    grads = gradient(0, stack)["w"]
    for i, p in enumerate(stack["w"]):
        alone, _ = opt.update({"w": grads[i]}, opt.init({"w": p}), {"w": p})
        torch.testing.assert_close(together[i], alone["w"], rtol=0, atol=1e-12 if dtype is torch.float64 else 5e-3)


def test_the_steps_of_muon_are_nearly_orthogonal() -> None:
    """The singular values of a step are close to its length, whatever the gradient's singular values are."""
    p = torch.zeros(6, 6, dtype=torch.float64)
    g = torch.diag(10.0 ** torch.arange(0.0, -3.0, -0.5, dtype=torch.float64))
    opt = fn.Muon(1.0, weight_decay=0.0, ns_dtype=None)
    values = torch.linalg.svdvals(opt.update(g, opt.init(p), p)[0])
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_adafactor_holds_a_row_and_a_column() -> None:
    """The state of a matrix of 300 by 200 has 500 numbers; the state of a vector has its size."""
    state = fn.Adafactor().init({"w": torch.zeros(300, 200), "b": torch.zeros(7)})
    sizes = {path: leaf.numel() for path, leaf in tree.names(state).items() if leaf.numel()}
    assert sizes == {"step": 1, "row_var.w": 300, "col_var.w": 200, "variance.b": 7}


def soap(params: Params, steps: int, lr: float, decay: float, k: int) -> Params:
    """Take the steps of the paper's algorithm, starting from the bases of the params."""
    beta, eps = 0.95, 1e-8
    m, v = ({name: torch.zeros_like(p) for name, p in params.items()} for _ in range(2))
    sides = {(name, axis): n for name, p in params.items() if p.dim() == 2 for axis, n in enumerate(p.shape)}
    covariance = {key: torch.zeros(n, n, dtype=torch.float64) for key, n in sides.items()}
    basis = {key: torch.eye(n, dtype=torch.float64) for key, n in sides.items()}
    turn = lambda name, x: basis[name, 0].T @ x @ basis[name, 1] if x.dim() == 2 else x
    back = lambda name, x: basis[name, 0] @ x @ basis[name, 1].T if x.dim() == 2 else x
    for step in range(1, steps + 1):
        g = gradient(step - 1, params)
        m = {name: beta * m[name] + (1 - beta) * g[name] for name in m}
        v = {name: beta * v[name] + (1 - beta) * turn(name, g[name]) ** 2 for name in v}
        eta = lr * (1 - beta**step) ** 0.5 / (1 - beta**step)
        u = {name: back(name, turn(name, m[name]) / (v[name].sqrt() + eps)) for name in m}
        params = {name: p * (1 - lr * decay) - eta * u[name] for name, p in params.items()}
        for (name, axis), old in covariance.items():
            one = g[name] if axis == 0 else g[name].T
            covariance[name, axis] = beta * old + (1 - beta) * one @ one.T
            if step % k == 0:
                basis[name, axis] = torch.linalg.qr(covariance[name, axis] @ basis[name, axis])[0]
    return params


def test_soap_is_the_papers() -> None:
    """A hundred steps agree while the bases turn; a matrix with one side too long has only the basis of the other side."""
    for decay, k in [(0.0, 10), (0.1, 3)]:
        got, want = (
            ours(fn.SOAP(0.01, weight_decay=decay, precondition_frequency=k), draw(0, SHAPES)),
            soap(draw(0, SHAPES), 100, 0.01, decay, k),
        )
        fn.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    state = fn.SOAP(max_size=5).init(draw(0, MATRICES))
    sizes = {name: tuple(leaf.shape) for name, leaf in tree.names(state).items() if name.startswith("basis") and leaf.numel()}
    assert sizes == {"basis_left.wide": (5, 5), "basis_right.tall": (4, 4)}


def test_soap_finds_the_axes_of_a_correlated_bowl() -> None:
    """The curvatures differ by 10⁴ along rotated axes; it descends further than Adam at the same rate."""
    turn = torch.linalg.qr(draw(3, {"q": (6, 6)})["q"])[0]
    curvature = turn @ torch.diag(10.0 ** torch.linspace(0, -4, 6, dtype=torch.float64)) @ turn.T
    ends = []
    for opt in (fn.SOAP(0.02, weight_decay=0.0, precondition_frequency=5), fn.Adam(0.02, betas=(0.95, 0.95))):
        params = draw(4, {"w": (6, 6)})
        state = opt.init(params)
        for _ in range(300):
            params, state = opt.update({"w": curvature @ params["w"]}, state, params)
        ends.append((params["w"] * (curvature @ params["w"])).sum().item())
    assert ends[0] < ends[1] / 5
