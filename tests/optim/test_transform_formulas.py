"""Gradient transforms compared with their formulas, and the optimizers that are built from them."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from training import leaves, run

import funcnet as fn
from funcnet import tree

STEPS = 12


def passed(transform: fn.GradientTransform, params: Any = None) -> list[list[Tensor]]:
    """Return the leaves that a transform returns at each step."""
    params = leaves(0) if params is None else params
    state, found = transform.init(params), []
    for step in range(STEPS):
        grads, state = transform.update(leaves(100 + step), state, params)
        found.append(tree.leaves(grads))
    return found


def plain(start: Callable[[Tensor], Any], rule: Callable[..., tuple[Tensor, Any]]) -> list[list[Tensor]]:
    """Return what ``rule(t, p, g, state) -> (g, state)`` gives for the same gradients, leaf by leaf."""
    params = tree.leaves(leaves(0))
    states, found = [start(p) for p in params], []
    for step in range(STEPS):
        rows = zip(params, tree.leaves(leaves(100 + step)), states, strict=True)
        pairs = [rule(step + 1, *row) for row in rows]
        states = [state for _, state in pairs]
        found.append([g for g, _ in pairs])
    return found


def _zeros(n: int, first: float = 0.0) -> Callable[[Tensor], Any]:
    return lambda p: tuple([torch.full_like(p, first) for _ in range(n)])


def _adam(t: int, p: Tensor, g: Tensor, state: Any) -> Any:
    m, v = 0.8 * state[0] + 0.2 * g, 0.9 * state[1] + 0.1 * g**2
    ahead = 0.8 * m / (1 - 0.8 ** (t + 1)) + 0.2 * g / (1 - 0.8**t)
    return ahead / (torch.sqrt(v / (1 - 0.9**t) + 1e-3) + 1e-2), (m, v)


def _belief(t: int, p: Tensor, g: Tensor, state: Any) -> Any:
    m = 0.8 * state[0] + 0.2 * g
    s = 0.9 * state[1] + 0.1 * (g - m) ** 2 + 1e-3
    return m / (1 - 0.8**t) / (torch.sqrt(s / (1 - 0.9**t)) + 1e-2), (m, s)


def _yogi(t: int, p: Tensor, g: Tensor, state: Any) -> Any:
    m, v = 0.8 * state[0] + 0.2 * g, state[1] - 0.1 * torch.sign(state[1] - g**2) * g**2
    return m / (1 - 0.8**t) / (torch.sqrt(v / (1 - 0.9**t)) + 1e-3), (m, v)


def _lion(t: int, p: Tensor, g: Tensor, state: Any) -> Any:
    return torch.sign(0.8 * state[0] + 0.2 * g), (0.9 * state[0] + 0.1 * g,)


def _rms(t: int, p: Tensor, g: Tensor, state: Any) -> Any:
    n = 0.8 * state[0] + 0.2 * g**2
    return g / torch.sqrt(n + 1e-2), (n,)


def _corrected_rms(t: int, p: Tensor, g: Tensor, state: Any) -> Any:
    n = 0.8 * state[0] + 0.2 * g**2
    return g / (torch.sqrt(n / (1 - 0.8**t)) + 1e-2), (n,)


def _stddev(t: int, p: Tensor, g: Tensor, state: Any) -> Any:
    n, m = 0.8 * state[0] + 0.2 * g**2, 0.8 * state[1] + 0.2 * g
    return g / torch.sqrt(n / (1 - 0.8**t) - (m / (1 - 0.8**t)) ** 2 + 1e-2), (n, m)


def _rss(t: int, p: Tensor, g: Tensor, state: Any) -> Any:
    s = state[0] + g**2
    return g / torch.sqrt(s + 1e-7), (s,)


def _trust(t: int, p: Tensor, g: Tensor, state: Any) -> Any:
    return g * 0.5 * max(p.norm(), 0.1) / (max(g.norm(), 0.1) + 0.01), ()


def _agc(t: int, p: Tensor, g: Tensor, state: Any) -> Any:
    axes = (1,) if p.dim() == 2 else tuple(range(p.dim()))
    of_p, of_g = [(x**2).sum(axes, keepdim=True).sqrt() for x in (p, g)]
    most = 0.1 * of_p.clamp(min=1e-3)
    return torch.where(of_g < most, g, g * most / of_g), ()


def _factored(t: int, p: Tensor, g: Tensor, state: Any) -> Any:
    beta, squares = 1 - t**-0.7, g**2 + 1e-3
    r, c, n = state
    if g.dim() < 2:
        n = beta * n + (1 - beta) * squares
        return g / torch.sqrt(n), (r, c, n)
    r, c = [beta * old + (1 - beta) * squares.mean(axis, keepdim=True) for axis, old in ((1, r), (0, c))]
    return g / torch.sqrt(r * c / r.mean()), (r, c, n)


FORMULAS = {
    "factored": (fn.ScaleByFactoredRMS(True, 0.7, 0, 5, 1e-3), lambda p: (0.0, 0.0, 0.0), _factored),
    "not factored": (fn.ScaleByFactoredRMS(False, 1.0, epsilon=0.0), lambda p: (0.0,), lambda t, p, g, s: (g / torch.sqrt(s[0] * (1 - 1 / t) + g**2 / t), (s[0] * (1 - 1 / t) + g**2 / t,))),
    "trace": (fn.Trace(0.7), _zeros(1), lambda t, p, g, s: (g + 0.7 * s[0], (g + 0.7 * s[0],))),
    "nesterov": (fn.Trace(0.7, nesterov=True), _zeros(1), lambda t, p, g, s: (g + 0.7 * (g + 0.7 * s[0]), (g + 0.7 * s[0],))),
    "sign": (fn.ScaleBySign(), _zeros(0), lambda t, p, g, s: (torch.sign(g), s)),
    "schedule": (fn.ScaleBySchedule(lambda t: 1 / (1 + t)), _zeros(0), lambda t, p, g, s: (g / t, s)),
    "adam": (fn.ScaleByAdam((0.8, 0.9), 1e-2, 1e-3, nesterov=True), _zeros(2), _adam),
    "belief": (fn.ScaleByBelief((0.8, 0.9), 1e-2, 1e-3), _zeros(2), _belief),
    "yogi": (fn.ScaleByYogi((0.8, 0.9)), _zeros(2, 1e-6), _yogi),
    "lion": (fn.ScaleByLion((0.8, 0.9)), _zeros(1), _lion),
    "rms": (fn.ScaleByRMS(0.8, 1e-2, 0.5), _zeros(1, 0.5), _rms),
    "rms corrected": (fn.ScaleByRMS(0.8, 1e-2, eps_in_sqrt=False, bias_correction=True), _zeros(1), _corrected_rms),
    "stddev": (fn.ScaleByStddev(0.8, 1e-2, bias_correction=True), _zeros(2), _stddev),
    "rss": (fn.ScaleByRSS(), _zeros(1, 0.1), _rss),
    "trust ratio": (fn.ScaleByTrustRatio(0.1, 0.5, 0.01), _zeros(0), _trust),
    "block norm": (fn.ScaleByParamBlockNorm(), _zeros(0), lambda t, p, g, s: (g * p.norm().clamp(min=1e-3), s)),
    "block rms": (fn.ScaleByParamBlockRMS(), _zeros(0), lambda t, p, g, s: (g * (p**2).mean().sqrt().clamp(min=1e-3), s)),
    "clip norm": (fn.ClipByNorm(0.5), _zeros(0), lambda t, p, g, s: (g * min(1, 0.5 / (g.norm() + 1e-6)), s)),
    "clip rms": (fn.ClipByBlockRMS(0.5), _zeros(0), lambda t, p, g, s: (g / max(1, (g**2).mean().sqrt() / 0.5), s)),
    "agc": (fn.AdaptiveClip(0.1), _zeros(0), _agc),
    "centralize": (fn.Centralize(), _zeros(0), lambda t, p, g, s: (g - g.mean(1, keepdim=True) if g.dim() == 2 else g, s)),
    "nonnegative": (fn.KeepParamsNonnegative(), _zeros(0), lambda t, p, g, s: (torch.minimum(g, p), s)),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMULAS)
def test_a_transform_follows_its_formula(name: str) -> None:
    """Each of twelve steps agrees, for a matrix, a vector and a number."""
    transform, start, rule = FORMULAS[name]
    torch.testing.assert_close(passed(transform), plain(start, rule), rtol=1e-12, atol=1e-14)


BUILT = {
    "AdamW": (
        fn.chain(fn.ScaleByAdam((0.8, 0.9)), fn.AddDecayedWeights(0.1, mask="*"), fn.SGD(0.02)),
        fn.AdamW(0.02, (0.8, 0.9), weight_decay=0.1),
    ),
    "Adam": (fn.chain(fn.ScaleByAdam(), fn.ScaleByLearningRate(0.02), fn.SGD(1.0)), fn.Adam(0.02)),
    "Adam with L2": (
        fn.chain(fn.AddDecayedWeights(0.1, mask="*"), fn.ScaleByAdam(), fn.SGD(0.02)),
        fn.Adam(0.02, weight_decay=0.1),
    ),
    "AMSGrad": (fn.chain(fn.ScaleByAMSGrad(), fn.SGD(0.02)), fn.Adam(0.02, amsgrad=True)),
    "Lion": (
        fn.chain(fn.ScaleByLion(), fn.AddDecayedWeights(0.1, mask="*"), fn.SGD(0.02)),
        fn.Lion(0.02, weight_decay=0.1),
    ),
    "momentum": (fn.chain(fn.Trace(0.9), fn.SGD(0.02)), fn.SGD(0.02, momentum=0.9)),
    "Nesterov": (fn.chain(fn.Trace(0.9, nesterov=True), fn.SGD(0.02)), fn.SGD(0.02, momentum=0.9, nesterov=True)),
    "ascent": (fn.chain(fn.ScaleBy(-1.0), fn.SGD(0.02)), fn.SGD(0.02, maximize=True)),
    "schedule": (fn.chain(fn.ScaleBySchedule(fn.StepSchedule(1.0, 4)), fn.SGD(0.02)), fn.SGD(fn.StepSchedule(0.02, 4))),
}


@pytest.mark.parametrize("name", BUILT)
def test_blocks_make_known_optimizers(name: str) -> None:
    """Twelve steps of the chain match the optimizer, up to rounding."""
    chain, optimizer = BUILT[name]
    got, want = run(chain, leaves(0))[0], run(optimizer, leaves(0))[0]
    torch.testing.assert_close(tree.leaves(got), tree.leaves(want), rtol=1e-12, atol=1e-13)


def test_update_norms_are_normalized_together() -> None:
    """All gradients get one factor."""
    grads = leaves(1)
    new, _ = fn.NormalizeByUpdateNorm(3.0).update(grads, fn.NormalizeByUpdateNorm().init(grads), grads)
    torch.testing.assert_close(tree.norm(new), torch.tensor(3.0, dtype=torch.float64), rtol=1e-5, atol=0)
    torch.testing.assert_close(tree.leaves(new), tree.leaves(tree.scale(grads, 3.0 / (tree.norm(grads) + 1e-6))))


def test_a_trust_ratio_leaves_zeros_alone() -> None:
    """If a norm is 0, the gradient stays."""
    transform, params = fn.ScaleByTrustRatio(), {"a": torch.zeros(2), "b": torch.ones(2)}
    grads = {"a": torch.ones(2), "b": torch.zeros(2)}
    assert tree.equal(transform.update(grads, transform.init(params), params)[0], grads)


@pytest.mark.parametrize("transform", [fn.ClipByNorm(1.0), fn.ClipByBlockRMS(1.0), fn.AdaptiveClip(1.0)], ids=repr)
def test_clipping_neither_overflows_nor_vanishes(transform: fn.GradientTransform) -> None:
    """Squares of these gradients are infinite, or 0, in float32."""
    params = {"w": torch.ones(2, 2)}
    for size in (1e30, 1e-30):
        grads = {"w": torch.full((2, 2), size)}
        new = transform.update(grads, transform.init(params), params)[0]["w"]
        assert 0 < float(tree.norm(new)) <= 2.001


def test_thresholds_take_schedules() -> None:
    """The clip reads the schedule at each step."""
    transform, g = fn.ClipByNorm(fn.StepSchedule(1.0, 1, 0.5)), {"w": torch.full((4,), 5.0)}
    state = transform.init(g)
    for norm in (1.0, 0.5, 0.25):
        assert float(transform.rates(state)["max_norm"]) == norm
        new, state = transform.update(g, state, g)
        assert float(new["w"].norm()) == pytest.approx(norm, rel=1e-5)


def test_nans_are_zeroed_and_counted_by_leaf() -> None:
    """Infinite gradients stay; the counts are numbers of updates."""
    transform, params = fn.ZeroNaNs(), {"a": torch.ones(2), "b": torch.ones(2)}
    state = transform.init(params)
    for g in ([math.nan, 1.0], [1.0, 1.0], [math.nan, math.nan]):
        new, state = transform.update({"a": torch.tensor(g), "b": torch.tensor([math.inf, 1.0])}, state, params)
    assert tree.equal(new, {"a": torch.zeros(2), "b": torch.tensor([math.inf, 1.0])})
    assert tree.equal(state["nan_count"], {"a": torch.tensor(2.0), "b": torch.tensor(0.0)})


def test_params_stay_nonnegative() -> None:
    """A step that would end below 0 ends at 0."""
    opt, params = fn.chain(fn.ScaleByLearningRate(0.5), fn.KeepParamsNonnegative(), fn.SGD(1.0)), {"w": torch.ones(3)}
    after, _ = opt.update({"w": torch.tensor([4.0, 1.0, -1.0])}, opt.init(params), params)
    assert tree.equal(after, {"w": torch.tensor([0.0, 0.5, 1.5])})


def test_noise_has_the_std_that_fades_and_depends_on_the_key() -> None:
    """σ² = η / (1 + t)^γ; draws differ by step, leaf and seed, and agree for equal states."""
    transform = fn.AddNoise(4.0, gamma=1.0, seed=1)
    zeros = {"a": torch.zeros(40000), "b": torch.zeros(40000)}
    state, seen = transform.init(zeros), []
    for step in range(3):
        state = {**state, "step": torch.tensor(3 * step)}
        new, _ = transform.update(zeros, state, zeros)
        seen += [new["a"], new["b"]]
        for leaf in new.values():
            assert float(leaf.std()) == pytest.approx(2 / math.sqrt(1 + 3 * step), rel=0.02)
            assert abs(float(leaf.mean())) < 0.03
    seen.append(transform.replace(seed=2).update(zeros, transform.replace(seed=2).init(zeros), zeros)[0]["a"])
    unit = torch.stack([one / one.norm() for one in seen])
    torch.testing.assert_close(unit @ unit.T, torch.eye(7), rtol=0, atol=0.03)
    assert tree.equal(transform.update(zeros, state, zeros), transform.update(zeros, state, zeros))


def test_a_missing_gradient_changes_no_other_noise() -> None:
    """The key of a leaf depends on its place only."""
    transform, zeros = fn.AddNoise(1.0), {"a": torch.zeros(3), "b": torch.zeros(3)}
    state = transform.init(zeros)
    whole, _ = transform.update(zeros, state, zeros)
    assert torch.equal(transform.update({"a": None, "b": zeros["b"]}, state, zeros)[0]["b"], whole["b"])


def test_privacy_noise_has_the_std_of_the_mechanism() -> None:
    """The std is σ C / B at every step."""
    transform, zeros = fn.AddPrivacyNoise(3.0, max_norm=0.5, batch_size=10), {"a": torch.zeros(40000)}
    new, state = transform.update(zeros, transform.init(zeros), zeros)
    again, _ = transform.update(zeros, state, zeros)
    for leaf in (new["a"], again["a"]):
        assert float(leaf.std()) == pytest.approx(0.15, rel=0.02)
    assert not torch.equal(new["a"], again["a"])


def test_a_monitor_keeps_what_it_measures() -> None:
    """Monitors come before and after a clip, and a measure may be a tree; the gradients pass unchanged."""
    params = {"w": torch.zeros(4)}
    opt = fn.chain(fn.Monitor(), fn.ClipByGlobalNorm(1.0), fn.Monitor(), fn.Monitor(lambda g: g), fn.SGD(1.0))
    state = opt.init(params)
    assert float(state[0]["measured"]) == 0
    after, state = opt.update({"w": torch.full((4,), 5.0)}, state, params)
    assert float(state[0]["measured"]) == 10
    assert float(state[2]["measured"]) == pytest.approx(1.0)
    assert tree.equal(state[3]["measured"], tree.scale(after, -1.0))
    assert opt.map_state(lambda one: one, state)[3] is state[3]


@pytest.mark.parametrize("kind", [fn.ClipByNorm, fn.ClipByBlockRMS, fn.AdaptiveClip], ids=lambda kind: kind.__name__)
def test_a_limit_is_above_zero(kind: Any) -> None:
    """A limit of 0 would train nothing."""
    for limit in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match=rf"{kind.__name__}: \w+ must be a finite number above 0"):
            kind(limit)
