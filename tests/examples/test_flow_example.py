"""The flow, run small: it finds more of the density than a normal distribution, and saves the picture."""

import re

import torch

import funcnet as fn
from examples import flow


def test_it_finds_the_density_of_the_moons(tmp_path, capsys):
    """Six epochs come nearer to the true density than to the baseline, and never below the true one; the flow inverts."""
    flow.main(["--epochs", "6", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    normal, found, true = (float(number) for number in re.findall(r"([\d.]+) nats per point", out))
    assert true < found < (normal + true) / 2
    assert float(re.search(r"inverse +(\S+) off", out)[1]) < 1e-4
    assert (tmp_path / "flow.png").read_bytes().startswith(b"\x89PNG")


def test_the_density_sums_to_one():
    """The flow has initial weights, and the sum is over a fine grid."""
    axis = torch.linspace(-9, 9, 361)
    points = torch.cartesian_prod(axis, axis)
    density = torch.exp(-flow.negative_log_density(flow.net(flow.net.init(3), flow.triple(points))))
    torch.testing.assert_close(density.sum() * (axis[1] - axis[0]) ** 2, torch.tensor(1.0), rtol=1e-3, atol=0)


def test_the_gradient_of_the_loss_is_that_of_its_value():
    """The gradient agrees with torch.func for all three outputs."""
    y = tuple(fn.random.normal(seed, (5, 1)) for seed in (0, 1))
    y = (*y, fn.random.normal(2, (5,)))
    loss = flow.NormalNLL()
    torch.testing.assert_close(loss.value_and_grad(y, None)[1], torch.func.grad(lambda y: loss(y, None))(y))


def test_the_flow_obeys_the_laws():
    """A run of couplings keeps one output, however many there are."""
    x = flow.triple(fn.random.normal(0, (4, 2)))
    fn.testing.check_laws(flow.net[:2], x, compiled=False, dtypes=(torch.float64, torch.float32))
    assert fn.tree.nbytes(flow.net.apply(flow.net.init(0), x)[1]) == fn.tree.nbytes(x)
