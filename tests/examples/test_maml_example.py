"""MAML, run small: one step helps it more than the pretrained net, and the picture is saved."""

import re

import torch

import funcnet as fn
from examples import maml


def test_it_adapts_in_a_step(tmp_path, capsys):
    """After five epochs the error after one step is below the error with the initial weights, and below the pretrained net's."""
    maml.main(["--epochs", "5", "--out", str(tmp_path)])
    rows = re.findall(
        r"^(MAML|pretrained) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)$", capsys.readouterr().out, re.MULTILINE
    )
    errors = {name: [float(number) for number in numbers[1:]] for name, *numbers in rows}
    assert errors["MAML"][1] < 0.75 * errors["MAML"][0]
    assert errors["MAML"][1] < errors["pretrained"][1]
    assert (tmp_path / "maml.png").read_bytes().startswith(b"\x89PNG")


def test_the_outer_gradient_goes_through_the_steps():
    """The gradient includes the curvature of the inner loss: it agrees with float64 differences, unlike a first-order one."""
    params, (x, target) = fn.tree.cast((maml.net.init(0), maml.sines(1, 3, 2 * maml.POINTS)), torch.float64)
    direction = fn.tree.unravel(fn.random.normal(2, (fn.tree.size(params),), dtype=torch.float64), params)
    grads = torch.func.grad(maml.outer_loss)(params, x, target, 2)

    def along(h):
        return maml.outer_loss(fn.tree.add(params, fn.tree.scale(direction, h)), x, target, 2)

    measured = (along(1e-6) - along(-1e-6)) / 2e-6
    torch.testing.assert_close(fn.tree.dot(grads, direction), measured, rtol=1e-4, atol=1e-6)
