"""The diffusion model, run small: it finds most of the noise, saves the picture, and samples correctly with an ideal net."""

import re

import torch

import funcnet as fn
from examples import diffusion


def test_it_finds_the_noise(tmp_path, capsys, monkeypatch):
    """After two epochs the error is less than half the error of the estimate 0; the best linear estimate beats 0 too."""
    monkeypatch.setattr(diffusion, "STEPS", 10)
    diffusion.main(["--epochs", "2", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    zero, linear, net = (
        float(re.search(rf"^{name} +([\d.]+)", out, re.MULTILINE)[1]) for name in ("estimate 0", "best linear", "U-Net")
    )
    assert 0.95 < zero < 1.05
    assert linear < 0.5
    assert net < 0.5 * zero
    assert (tmp_path / "diffusion.png").read_bytes().startswith(b"\x89PNG")


def test_ddim_returns_the_image_that_the_net_has_in_mind(monkeypatch):
    """A net that finds the noise on top of one image draws that image, whatever the initial noise."""
    image = torch.linspace(-1, 1, 64).view(1, 1, 8, 8)

    def knows(params, x):
        noisy, t, _ = x
        alpha, sigma = diffusion.levels(t)
        return (noisy - alpha * image) / sigma

    monkeypatch.setattr(diffusion, "net", knows)
    images = diffusion.drawn(None, torch.arange(3), fn.key(0))
    assert len(images) == diffusion.STEPS + 1
    torch.testing.assert_close(images[-1], image.expand(3, 1, 8, 8), atol=1e-4, rtol=0)


def test_the_linear_estimate_is_the_best_one_for_normal_data():
    """The estimate has the error of the posterior mean, α² λ / (α² λ + σ²) for each variance λ."""
    scales = torch.linspace(0.1, 2.0, 64).view(1, 1, 8, 8)
    x = scales * fn.random.normal(0, (20_000, 1, 8, 8))
    t = torch.full((len(x),), 0.5)
    (alpha, sigma), noise = diffusion.levels(t), fn.random.normal(1, tuple(x.shape))
    error = diffusion.loss(diffusion.linear(x, alpha * x + sigma * noise, t), noise)
    a, s, v = alpha[0], sigma[0], scales**2
    torch.testing.assert_close(error, (a**2 * v / (a**2 * v + s**2)).mean(), rtol=0.02, atol=0)


def test_the_net_is_one_layer():
    """The U-Net's gradients of params, image and time agree with finite differences, and a block obeys all laws."""
    x = fn.random.normal(0, (2, 1, 8, 8)), fn.random.uniform(1, (2,)), torch.tensor([3, 7])
    fn.testing.check_vjp(
        diffusion.net, fn.tree.cast(x[:2], torch.float64) + x[2:], fn.tree.cast(diffusion.net.init(0), torch.float64)
    )
    x = fn.random.normal(0, (2, 4, 3, 3)), fn.random.normal(1, (2, diffusion.WIDTH))
    fn.testing.check_laws(diffusion.block(4, 4), x, compiled=False, dtypes=(torch.float64,))
