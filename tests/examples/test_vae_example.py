"""The autoencoder, run small: held-out digits cost far less than the mean digit, and the picture is saved."""

import re

import pytest
import torch

import funcnet as fn
from examples import common, vae


def figures(out):
    """Return the printed figures by name."""
    return {name.strip(): float(number) for name, number in re.findall(r"^([a-z ]+?) +(-?[\d.]+)", out, re.MULTILINE)}


def test_it_encodes_digits(tmp_path, capsys):
    """After eight epochs they cost at most three quarters of the baseline's nats, some of them latent."""
    vae.main(["--epochs", "8", "--out", str(tmp_path)])
    found = figures(capsys.readouterr().out)
    assert found["negative bound"] < 0.75 * found["mean digit"]
    assert found["latent part"] > 5
    assert (tmp_path / "vae.png").read_bytes().startswith(b"\x89PNG")


def test_the_loss_is_the_negative_bound():
    """Its gradient matches the formula for all three outputs; with the constant, it is the negative log likelihood."""
    logits, *moments = (fn.random.normal(0, (3, 1, 8, 8)), fn.random.normal(1, (3, 8)), fn.random.normal(2, (3, 8)))
    y = {"pixels": logits, "latent": tuple(moments)}
    images = fn.random.randint(3, (3, 1, 8, 8), 0, vae.DOTS + 1) / vae.DOTS

    def formula(logits, mean, v):
        likelihood = torch.distributions.Binomial(vae.DOTS, logits=logits).log_prob(images * vae.DOTS).sum()
        return (0.5 * (v.exp() + mean**2 - 1 - v).sum() - likelihood) / 3

    value, gy = vae.loss.value_and_grad(y, vae.target(images))
    torch.testing.assert_close(value - vae.constant(images), formula(logits, *moments))
    torch.testing.assert_close((gy["pixels"], *gy["latent"]), torch.func.grad(formula, (0, 1, 2))(logits, *moments))


def test_the_net_obeys_the_laws():
    """Encoder, draw and decoder are one layer."""
    fn.testing.check_laws(vae.net, fn.random.normal(0, (3, 1, 8, 8)), compiled=False, dtypes=(torch.float64, torch.float32))


def test_a_montage_lays_out_rows():
    """Each digit is in its place, with a margin of one pixel."""
    rows = fn.random.uniform(0, (2, 3, 1, 8, 8))
    image = torch.tensor(common.montage(rows))
    assert image.shape == (20, 30)
    assert torch.equal(image[11:19, 21:29], rows[1, 2, 0])
    assert float(image.sum()) == pytest.approx(float(rows.sum()))
