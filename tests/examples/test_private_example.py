"""Private training, run small: it learns, gradients are clipped separately, and its ε agrees with the literature."""

import math
import re

import pytest
import torch

import funcnet as fn
from examples import common, private


def test_it_learns_in_private(tmp_path, capsys):
    """After six epochs it is far better than chance at any noise, and less noise costs more privacy."""
    private.main(["--epochs", "6", "--seed", "1", "--out", str(tmp_path)])
    rows = re.findall(r"^ +([\d.]+) +(inf|[\d.]+) +([\d.]+)$", capsys.readouterr().out, re.MULTILINE)
    spent, right = [float(row[1]) for row in rows], [float(row[2]) for row in rows]
    assert len(rows) == 4
    assert spent == sorted(spent, reverse=True)
    assert spent[0] == math.inf
    assert min(right) > 0.6
    assert right[0] > 0.8
    assert (tmp_path / "private.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("steps", "sigma", "q", "delta", "want"), [(10_000, 4.0, 0.01, 1e-5, 1.26), (3515, 1.3, 256 / 60_000, 1e-5, 1.19)]
)
def test_epsilon_is_that_of_the_literature(steps, sigma, q, delta, want):
    """The values are from Abadi et al. 2016, section 3.1, and the first result in the tutorial of TF Privacy."""
    assert private.epsilon(steps, sigma, q, delta) == pytest.approx(want, abs=0.005)


@pytest.mark.parametrize(("order", "sigma", "q"), [(2, 1.0, 0.1), (5, 2.0, 0.25), (16, 4.0, 0.5)])
def test_the_moment_is_the_integral(order, sigma, q):
    """A = E ((1 - q) + q exp((2z - 1) / 2σ²))^α for a normal z with std σ, by the trapezoidal rule."""
    z = torch.linspace(-30 * sigma, 40 * sigma, 200_001, dtype=torch.float64)
    density = torch.exp(-(z**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
    ratio = (1 - q) + q * torch.exp((2 * z - 1) / (2 * sigma**2))
    want = torch.trapezoid(density * ratio**order, z).log()
    assert private.log_moment(order, sigma, q) == pytest.approx(float(want), rel=1e-8)


def test_without_sampling_the_moment_is_that_of_the_gaussian():
    """ln A = α (α - 1) / 2σ² at q = 1, the limit for growing q."""
    assert private.log_moment(8, 3.0, 1 - 1e-12) == pytest.approx(8 * 7 / (2 * 9.0))


def test_each_gradient_is_clipped():
    """Their sum over the batch size equals that from ``per_example_grads``."""
    (images, labels), _ = common.digits(0)
    x, target, params = images[:20], labels[:20], private.net.init(0)
    _, got = private.method(0.0, 5.0, fn.key(1))[0](params, x, target)
    _, single = fn.per_example_grads(private.net, private.loss)(params, x, target)
    norms = torch.stack([g.flatten(1).square().sum(1) for g in fn.tree.leaves(single)]).sum(0).sqrt()
    assert norms.max() > private.CLIP
    weights = (private.CLIP / norms).clamp_max(1.0)
    torch.testing.assert_close(got, fn.tree.map(lambda g: torch.tensordot(weights, g, 1) / 5.0, single))


def test_the_noise_has_its_size():
    """Its std is σC over the batch size in all params, relative to the step without noise."""
    params = private.net.init(0)
    opts = [private.method(sigma, 2.0, fn.key(1))[1] for sigma in (4.0, 0.0)]
    noisy, clean = [opt.update(params, opt.init(params), params)[0] for opt in opts]
    noise = (fn.tree.ravel(clean) - fn.tree.ravel(noisy)) / private.LR
    assert float(noise.std()) == pytest.approx(4.0 * private.CLIP / 2.0, rel=0.05)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.1)
