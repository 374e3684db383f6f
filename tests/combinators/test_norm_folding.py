"""Folding of batch norms: the folded net equals the net in inference, and which norms are removed."""

import pytest
import torch

import funcnet as fn
from funcnet import tree

BN = fn.BatchNorm1d
BLOCK = fn.serial(fn.Linear(3, 4), BN(4), fn.ReLU())


def moved(net):
    """Return params changed from their initial values, including running variances, in float64."""
    leaves = tree.names(net.init(0))
    drawn = {
        path: leaf
        if leaf.dtype == torch.int64
        else leaf.double() + fn.random.uniform(i, tuple(leaf.shape), 0.2, 0.9, torch.float64)
        for i, (path, leaf) in enumerate(leaves.items())
    }
    return tree.from_names(drawn, net.init(0))


NETS = {
    "linear": (BLOCK, fn.serial(fn.Linear(3, 4), fn.ReLU()), (5, 3)),
    "without bias": (fn.serial(fn.Linear(3, 4, bias=False), BN(4)), fn.serial(fn.Linear(3, 4)), (5, 3)),
    "not affine": (fn.serial(fn.Linear(3, 4), BN(4, eps=0.1, affine=False)), fn.serial(fn.Linear(3, 4)), (5, 3)),
    "convolution": (
        fn.serial(fn.Conv1d(4, 6, 3, groups=2, bias=False), BN(6), fn.Tanh()),
        fn.serial(fn.Conv1d(4, 6, 3, groups=2), fn.Tanh()),
        (2, 4, 5),
    ),
    "image": (
        fn.serial(fn.Conv2d(2, 3, 2, padding_mode="circular", padding=1), fn.BatchNorm2d(3)),
        fn.serial(fn.Conv2d(2, 3, 2, padding_mode="circular", padding=1)),
        (2, 2, 3, 4),
    ),
    "transposed": (
        fn.serial(fn.ConvTranspose2d(4, 6, 2, groups=2, stride=2, bias=False), fn.BatchNorm2d(6)),
        fn.serial(fn.ConvTranspose2d(4, 6, 2, groups=2, stride=2)),
        (2, 4, 2, 3),
    ),
    "transposed, of one group": (
        fn.serial(fn.ConvTranspose1d(3, 3, 2), fn.BatchNorm1d(3)),
        fn.serial(fn.ConvTranspose1d(3, 3, 2)),
        (2, 3, 4),
    ),
    "volume": (
        fn.serial(fn.Conv3d(1, 2, 2), fn.BatchNorm3d(2)),
        fn.serial(fn.Conv3d(1, 2, 2)),
        (2, 1, 2, 3, 2),
    ),
    "instance norm": (
        fn.serial(fn.Conv1d(2, 3, 3), fn.InstanceNorm1d(3, affine=True, track_running_stats=True)),
        fn.serial(fn.Conv1d(2, 3, 3)),
        (2, 2, 5),
    ),
    "two norms": (fn.serial(fn.Linear(3, 4), BN(4), BN(4)), fn.serial(fn.Linear(3, 4)), (5, 3)),
    "dropout between": (
        fn.serial(fn.Linear(3, 4), fn.Dropout(), BN(4)),
        fn.serial(fn.Linear(3, 4), fn.Identity()),
        (5, 3),
    ),
    "by name": (
        fn.serial(a=fn.Linear(3, 4), n=BN(4), b=fn.Tanh()),
        fn.serial(a=fn.Linear(3, 4), b=fn.Tanh()),
        (5, 3),
    ),
    "behind a serial": (
        fn.serial(fn.serial(fn.Tanh(), fn.Linear(3, 4)), BN(4)),
        fn.serial(fn.serial(fn.Tanh(), fn.Linear(3, 4))),
        (5, 3),
    ),
    "behind a named serial": (
        fn.serial(fn.serial(t=fn.Tanh(), l=fn.Linear(3, 4)), BN(4)),
        fn.serial(fn.serial(t=fn.Tanh(), l=fn.Linear(3, 4))),
        (5, 3),
    ),
    "residual": (
        fn.residual(BLOCK, fn.serial(fn.Linear(3, 4, bias=False), BN(4))),
        fn.residual(fn.serial(fn.Linear(3, 4), fn.ReLU()), fn.serial(fn.Linear(3, 4))),
        (5, 3),
    ),
    "branch": (
        fn.branch(BLOCK, fn.Identity(), merge=fn.serial(fn.Concat(), fn.Linear(7, 2), BN(2))),
        fn.branch(fn.serial(fn.Linear(3, 4), fn.ReLU()), fn.Identity(), merge=fn.serial(fn.Concat(), fn.Linear(7, 2))),
        (5, 3),
    ),
    "branch without merge": (
        fn.branch(BLOCK, fn.Tanh()),
        fn.branch(fn.serial(fn.Linear(3, 4), fn.ReLU()), fn.Tanh()),
        (5, 3),
    ),
    "graph": (
        fn.graph("x", h=(BLOCK, "x"), y=(fn.Mul(), "h", "h")),
        fn.graph("x", h=(fn.serial(fn.Linear(3, 4), fn.ReLU()), "x"), y=(fn.Mul(), "h", "h")),
        (5, 3),
    ),
    "ensemble": (fn.ensemble(BLOCK, 2), fn.ensemble(fn.serial(fn.Linear(3, 4), fn.ReLU()), 2), (5, 3)),
    "norm first": (fn.serial(BN(3), fn.Linear(3, 4)), fn.serial(BN(3).inference(), fn.Linear(3, 4)), (5, 3)),
    "activation between": (
        fn.serial(fn.Linear(3, 4), fn.Tanh(), BN(4)),
        fn.serial(fn.Linear(3, 4), fn.Tanh(), BN(4).inference()),
        (5, 3),
    ),
    "channels that are no features": (
        fn.serial(fn.Linear(3, 4), BN(2)),
        fn.serial(fn.Linear(3, 4), BN(2).inference()),
        (5, 2, 3),
    ),
    "behind a branch": (
        fn.serial(fn.residual(fn.Linear(3, 3)), BN(3)),
        fn.serial(fn.residual(fn.Linear(3, 3)), BN(3).inference()),
        (5, 3),
    ),
    "no statistics": (
        fn.serial(fn.Linear(3, 4), BN(4, track_running_stats=False)),
        fn.serial(fn.Linear(3, 4), BN(4, track_running_stats=False)),
        (5, 3),
    ),
    "a layer alone": (fn.Linear(3, 4), fn.Linear(3, 4), (5, 3)),
    "nothing": (fn.serial(), fn.serial(), (5, 3)),
}


@pytest.mark.parametrize(("net", "want", "shape"), NETS.values(), ids=NETS)
def test_the_folded_net_is_the_net_in_inference(net, want, shape):
    """Norms that can be folded are removed, and the rest gives the same outputs, with params that fit it."""
    params, x = moved(net), fn.random.normal(9, shape, dtype=torch.float64)
    folded, p = fn.fold_batch_norm(net, params)
    assert folded == want
    assert tree.structure(p) == tree.structure(folded.init(0))
    torch.testing.assert_close(folded(p, x), net.inference()(params, x), rtol=1e-12, atol=1e-12)


def test_folding_leaves_the_params_alone():
    """The new params have the dtype of the old params."""
    params = BLOCK.init(0)
    before = tree.map(torch.clone, params)
    folded = fn.fold_batch_norm(BLOCK, params)[1]
    assert tree.equal(params, before)
    assert {leaf.dtype for leaf in tree.leaves(folded)} == {torch.float32}


def test_params_that_do_not_fit_are_refused():
    """The serial that they do not fit raises the error."""
    with pytest.raises(ValueError, match="serial: params must be a tuple of 3, one entry per layer, got a tuple of 1"):
        fn.fold_batch_norm(BLOCK, ({},))
