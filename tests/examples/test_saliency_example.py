"""Saliency, run small: the net needs the marked pixels, the rules change no output, and the picture is saved."""

import re

import torch

import funcnet as fn
from examples import common, saliency


def test_the_net_needs_what_the_maps_mark(tmp_path, capsys):
    """After three epochs, removing 10 salient pixels costs more accuracy than removing 10 random ones."""
    saliency.main(["--epochs", "3", "--seed", "1", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    rows = {name: float(right) for name, right in re.findall(r"^(\S.*?) +0\.\d+ +(0\.\d+) +0\.\d+$", out, re.MULTILINE)}
    assert float(re.search(r"test accuracy (\S+),", out)[1]) > 0.9
    assert list(rows) == ["|gx|", "x ⊙ gx", "guided", "LRP-ε", "chance"]
    assert max(rows["x ⊙ gx"], rows["guided"], rows["LRP-ε"]) < 0.5 * rows["chance"]
    assert rows["|gx|"] < rows["chance"]
    assert (tmp_path / "saliency.png").read_bytes().startswith(b"\x89PNG")


def test_the_rules_change_only_the_gradient():
    """The nets have the same params and output, and are surrogates."""
    (x, labels), _ = common.digits(0)
    params = saliency.net.init(1)
    want = saliency.plain(params, x[:8])
    found = {name: saliency.gradient(net, params, x[:8], labels[:8]) for name, net in saliency.nets.items()}
    for name in ("guided", "LRP-ε"):
        assert torch.equal(saliency.nets[name](params, x[:8]), want)
        assert saliency.nets[name].surrogate
        assert not torch.allclose(found[name], found["gradient"])


def test_relevance_is_conserved(monkeypatch):
    """The whole score of the class is distributed to the pixels, as ε goes to 0 in a net without biases."""
    monkeypatch.setattr(saliency, "EPS", 1e-12)
    (x, labels), _ = common.digits(0)
    params = fn.tree.cast(saliency.net.init(1), torch.float64)  # biases are zeros at first
    x, labels = x[:8].double(), labels[:8]
    relevance = x * saliency.gradient(saliency.nets["LRP-ε"], params, x, labels)
    scores = saliency.plain(params, x).gather(1, labels[:, None]).flatten()
    torch.testing.assert_close(relevance.flatten(1).sum(1), scores)


def test_the_most_salient_ink_is_removed():
    """Nothing else is removed; pixels without ink do not count."""
    x = torch.tensor([[[[0.0, 1.0], [0.5, 0.2]]]])
    salient = torch.tensor([[[[9.0, 1.0], [3.0, 2.0]]]])
    assert saliency.without(x, salient, 2).flatten().tolist() == [0.0, 1.0, 0.0, 0.0]
