"""Optimizers that torch.optim lacks: 100 steps against their papers' algorithms for one tensor in float64.

Each algorithm is a generator: it gets gradients by ``send``, and yields params.
"""

import itertools
from collections.abc import Callable, Generator, Sequence
from typing import Any

import pytest
import torch
from test_steps_of_torch import GRADS, PARAMS, assert_close, with_ours
from torch import Tensor

import funcnet as fn
from funcnet import tree

Steps = Generator[Tensor, Tensor, None]


def adam_moments(m: Tensor, v: Tensor, g: Tensor, betas: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Return both running means of Adam."""
    return betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2


def ratio(p: Tensor, u: Tensor, eps: float = 0.0) -> float:
    """Return ‖p‖ / (‖u‖ + ε), or 1 where a norm is 0."""
    size, step = (p**2).sum().item() ** 0.5, (u**2).sum().item() ** 0.5
    return size / (step + eps) if size and step else 1.0


def lion(p: Tensor, lr: float, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0) -> Steps:
    m = torch.zeros_like(p)
    while True:
        g = yield p
        c = betas[0] * m + (1 - betas[0]) * g
        p = p - lr * (c.sign() + weight_decay * p)
        m = betas[1] * m + (1 - betas[1]) * g


def lamb(
    p: Tensor, lr: float, betas: Any = (0.9, 0.999), eps: float = 1e-6, weight_decay: float = 0.0, eps_root: float = 0.0
) -> Steps:
    m, v, t = torch.zeros_like(p), torch.zeros_like(p), 0
    while True:
        g = yield p
        t += 1
        m, v = adam_moments(m, v, g, betas)
        r = (m / (1 - betas[0] ** t)) / ((v / (1 - betas[1] ** t) + eps_root) ** 0.5 + eps) + weight_decay * p
        p = p - lr * ratio(p, r) * r


def lars(
    p: Tensor,
    lr: float,
    weight_decay: float = 0.0,
    trust_coefficient: float = 1e-3,
    eps: float = 0.0,
    momentum: float = 0.9,
    nesterov: bool = False,
) -> Steps:
    b = torch.zeros_like(p)
    while True:
        g = (yield p) + weight_decay * p
        local = trust_coefficient * ratio(p, g, eps) if ratio(p, g) != 1.0 else 1.0
        b = momentum * b + lr * local * g
        p = p - (momentum * b + lr * local * g if nesterov else b)


def adabelief(
    p: Tensor,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-16,
    eps_root: float = 1e-16,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> Steps:
    m, s, t, (b1, b2) = torch.zeros_like(p), torch.zeros_like(p), 0, betas
    while True:
        g = yield p
        t += 1
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * (g - m) ** 2 + eps_root
        mean = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t) if nesterov else m / (1 - b1**t)
        p = p - lr * weight_decay * p - lr * mean / ((s / (1 - b2**t)) ** 0.5 + eps)


def yogi(p: Tensor, lr: float, betas: Any = (0.9, 0.999), eps: float = 1e-3, initial_accumulator_value: float = 1e-6) -> Steps:
    m, t = torch.full_like(p, initial_accumulator_value), 0
    v = m.clone()
    while True:
        g = yield p
        t += 1
        m = betas[0] * m + (1 - betas[0]) * g
        v = v - (1 - betas[1]) * torch.sign(v - g**2) * g**2
        p = p - lr * (m / (1 - betas[0] ** t)) / ((v / (1 - betas[1] ** t)) ** 0.5 + eps)


def adan(
    p: Tensor, lr: float, betas: Any = (0.98, 0.92, 0.99), eps: float = 1e-8, eps_root: float = 1e-8, weight_decay: float = 0.0
) -> Steps:
    m, v, n, before, t, (b1, b2, b3) = torch.zeros_like(p), torch.zeros_like(p), torch.zeros_like(p), None, 0, betas
    while True:
        g = yield p
        t += 1
        d = torch.zeros_like(g) if before is None else g - before
        m, v, before = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * d, g
        n = b3 * n + (1 - b3) * (g + (1 - b2) * d) ** 2
        u = m / (1 - b1**t) + (1 - b2) * v / (1 - b2**t)
        p = p - lr * (u / ((n / (1 - b3**t) + eps_root) ** 0.5 + eps) + weight_decay * p)


def adopt(
    p: Tensor,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.9999),
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    use_clipping: bool = True,
) -> Steps:
    g = yield p
    m, v, t, (b1, b2), p = torch.zeros_like(p), g**2, 1, betas, p - lr * weight_decay * p
    while True:
        g = yield p
        u = g / (v**0.5).clip(min=eps)
        u = u.clip(-(t**0.25), t**0.25) if use_clipping else u
        m, v, t = b1 * m + (1 - b1) * u, b2 * v + (1 - b2) * g**2, t + 1
        p = p - lr * ((b1 * m + (1 - b1) * u if nesterov else m) + weight_decay * p)


def sign_sgd(p: Tensor, lr: float, momentum: float = 0.0, weight_decay: float = 0.0) -> Steps:
    m = torch.zeros_like(p)
    while True:
        m = momentum * m + (1 - momentum) * (yield p)
        p = p - lr * (torch.sign(m) + weight_decay * p)


def ademamix(
    p: Tensor,
    lr: float,
    betas: Any = (0.9, 0.999, 0.9999),
    alpha: float = 5.0,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    eps_root: float = 0.0,
) -> Steps:
    fast, slow, v, t, (b1, b2, b3) = torch.zeros_like(p), torch.zeros_like(p), torch.zeros_like(p), 0, betas
    while True:
        g = yield p
        t += 1
        fast, slow, v = b1 * fast + (1 - b1) * g, b3 * slow + (1 - b3) * g, b2 * v + (1 - b2) * g**2
        u = (fast / (1 - b1**t) + alpha * slow) / ((v / (1 - b2**t) + eps_root) ** 0.5 + eps)
        p = p - lr * (u + weight_decay * p)


def novograd(
    p: Tensor, lr: float, betas: Any = (0.9, 0.25), eps: float = 1e-6, weight_decay: float = 0.0, eps_root: float = 0.0
) -> Steps:
    m, n = torch.zeros_like(p), None
    while True:
        g = yield p
        square = (g**2).sum()
        n = square if n is None else betas[1] * n + (1 - betas[1]) * square
        m = betas[0] * m + g / ((n + eps_root) ** 0.5 + eps) + weight_decay * p
        p = p - lr * m


def sm3(p: Tensor, lr: float, momentum: float = 0.9, eps: float = 1e-8) -> Steps:
    m, bounds = torch.zeros_like(p), {axis: torch.zeros(n, dtype=p.dtype) for axis, n in enumerate(p.shape or (1,))}
    while True:
        g = yield p
        s = torch.zeros_like(p)
        for place in itertools.product(*map(range, p.shape)):
            s[place] = g[place] ** 2 + min(c[place[axis] if place else 0] for axis, c in bounds.items())
        for axis, c in bounds.items():
            for i in range(len(c)):
                row = s.select(axis, i) if s.dim() else s
                c[i] = row.max() if row.numel() else 0.0
        m = momentum * m + (1 - momentum) * torch.where(s > 0, g / (s + eps) ** 0.5, 0.0)
        p = p - lr * m


PAPERS: dict[str, tuple[Callable[..., Steps], dict[str, Any]]] = {
    "Lion": (lion, {"betas": (0.0, 0.5), "weight_decay": 0.1}),
    "LAMB": (lamb, {"betas": (0.0, 0.5), "eps": 1e-2, "weight_decay": 0.1, "eps_root": 1e-3}),
    "LARS": (lars, {"weight_decay": 0.1, "trust_coefficient": 0.1, "eps": 0.1, "momentum": 0.0, "nesterov": True}),
    "AdaBelief": (adabelief, {"betas": (0.0, 0.5), "eps": 1e-3, "eps_root": 1e-3, "weight_decay": 0.1, "nesterov": True}),
    "Yogi": (yogi, {"betas": (0.0, 0.5), "eps": 1e-2, "initial_accumulator_value": 0.1}),
    "Adan": (adan, {"betas": (0.0, 0.5, 0.9), "eps": 1e-3, "eps_root": 1e-3, "weight_decay": 0.1}),
    "ADOPT": (adopt, {"betas": (0.0, 0.5), "eps": 1e-2, "weight_decay": 0.1, "nesterov": True, "use_clipping": False}),
    "SignSGD": (sign_sgd, {"momentum": 0.9, "weight_decay": 0.1}),
    "AdEMAMix": (ademamix, {"betas": (0.0, 0.5, 0.9), "alpha": 0.0, "eps": 1e-3, "weight_decay": 0.1, "eps_root": 1e-3}),
    "SM3": (sm3, {"momentum": 0.0, "eps": 1e-2}),
    "NovoGrad": (novograd, {"betas": (0.0, 0.5), "eps": 1e-2, "weight_decay": 0.1, "eps_root": 1e-3}),
}


def with_others(others: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the sets of options: none, each by itself, all but each one, and all."""
    alone = [{name: one} for name, one in others.items()]
    return [{}, *alone, *[{name: others[name] for name in others if name != left} for left in others], others]


@pytest.mark.parametrize("name", PAPERS)
def test_options_take_the_steps_of_the_paper(name: str) -> None:
    """Each tensor agrees after 100 steps, with defaults, with other options one by one, and together."""
    written, others = PAPERS[name]
    for how in with_others(others):
        found, _ = with_ours(getattr(fn, name)(lr=0.02, **how))
        wanted = [stepped(written(p, 0.02, **how), [grads[path] for grads in GRADS]) for path, p in PARAMS.items()]
        assert_close(tree.leaves(found), wanted, how)


def stepped(run: Steps, grads: Sequence[Tensor]) -> Tensor:
    """Return the last params of a run with given gradients."""
    next(run)
    for g in grads:
        p = run.send(g)
    return p


@pytest.mark.parametrize("name", PAPERS)
def test_maximizing_descends_along_the_opposite_gradient(name: str) -> None:
    """All bits agree, with all other options."""
    optimizer = getattr(fn, name)(lr=0.02, **PAPERS[name][1])
    up, _ = with_ours(optimizer.replace(maximize=True), [tree.map(torch.neg, grads) for grads in GRADS[:5]])
    assert tree.equal(up, with_ours(optimizer, GRADS[:5])[0])


@pytest.mark.parametrize("name", PAPERS)
def test_every_option_is_compared(name: str) -> None:
    """Every field except the rate and the sign has a value other than its default."""
    fields = {one.name: one.default for one in getattr(fn, name).__attrs_attrs__ if one.init}
    assert fields.keys() - {"lr", "maximize", "donated"} == PAPERS[name][1].keys()
    assert all(fields[option] != other for option, other in PAPERS[name][1].items())
