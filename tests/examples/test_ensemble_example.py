"""The ensemble, run small: its spread shows the gap in the data, its loss has the right gradient, and it saves the picture."""

import re

import torch

import funcnet as fn
from examples import ensemble


def test_the_spread_shows_the_gap(tmp_path, capsys):
    """After 300 steps the nets disagree ten times as much in the gap, and cover more points than one net."""
    ensemble.main(["--epochs", "300", "--seed", "1", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    rows = dict(re.findall(r"^(left of the gap|in the gap|right of the gap|beyond) +(\S.*)$", out, re.MULTILINE))
    left, gap, right = ([float(n) for n in rows[name].split()] for name in ("left of the gap", "in the gap", "right of the gap"))
    assert gap[2] > 10 * left[2]
    assert gap[2] > 2 * right[2]
    assert gap[0] > gap[1]
    assert min(left[0], right[0]) > 0.8
    assert right[3] > 3 * left[3]
    assert (tmp_path / "ensemble.png").read_bytes().startswith(b"\x89PNG")


def test_a_net_predicts_a_mean_and_a_variance():
    """The second output of its last Linear is the logarithm of the variance; the loss of the pair matches torch's."""
    x, t = fn.random.normal(0, (5, 1)), fn.random.normal(1, (5, 1))
    params = ensemble.net.init(0)
    y, (mean, var) = ensemble.net[:-2](params[:-2], x), ensemble.net(params, x)
    torch.testing.assert_close((mean, var), (y[:, :1], y[:, 1:].exp()))
    torch.testing.assert_close(ensemble.loss((mean, var), t), torch.nn.functional.gaussian_nll_loss(mean, t, var))


def test_members_train_like_separate_nets():
    """One step of three nets at once changes each net like a separate step."""
    x, t = fn.random.normal(0, (7, 1)), fn.random.normal(1, (7, 1))
    nets, opt = fn.ensemble(ensemble.net, 3), fn.SGD(lr=0.1)
    params = nets.init(0)
    moved = fn.train_step(nets, fn.ensemble(ensemble.loss, 3), opt)(params, opt.init(params), x, t)[0]
    for i in range(3):
        own = fn.tree.map(lambda leaf, i=i: leaf[i], params)
        want = fn.train_step(ensemble.net, ensemble.loss, opt)(own, opt.init(own), x, t)[0]
        torch.testing.assert_close(fn.tree.map(lambda leaf, i=i: leaf[i], moved), want)
