"""The siamese net, run small: it classifies pairs of digits better than chance, even new digits, and saves its picture."""

import re

import torch

import funcnet as fn
from examples import common, siamese


def test_it_learns_pairs(tmp_path, capsys):
    """After four epochs most pairs of known digits are right, and far more than half of new ones."""
    siamese.main(["--epochs", "4", "--seed", "3", "--out", str(tmp_path)])
    seen, new = (float(share) for share in re.findall(r"^pairs of .* (\S+) right$", capsys.readouterr().out, re.MULTILINE))
    assert seen > 0.9
    assert new > 0.6
    assert (tmp_path / "siamese.png").read_bytes().startswith(b"\x89PNG")


def test_half_of_the_pairs_are_of_one_digit():
    """The target marks them, and held-out digits are not among them."""
    train, _ = common.digits(0)
    images, labels = siamese.only(train, torch.tensor([2, 5, 6]))
    assert set(labels.tolist()) == {2, 5, 6}
    (one, other), target = siamese.pairs(labels.view(-1, 1, 1, 1).float().expand_as(images), labels, 1, 200)
    assert torch.equal((one == other).all(dim=(1, 2, 3)), target > 0.5)
    assert (len(target), int(target.sum())) == (200, 100)


def test_both_images_share_the_encoder():
    """There is one set of params, and the answer does not change if the images are exchanged."""
    params = siamese.net.init(0)
    assert fn.tree.structure(params[0][0]) == fn.tree.structure(siamese.encoder.init(0))
    one, other = fn.random.uniform(0, (2, 5, 1, 8, 8))
    net = siamese.net.inference()
    torch.testing.assert_close(net(params, (one, other)), net(params, (other, one)))
