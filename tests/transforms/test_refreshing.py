"""refresh_stats: compared with torch.optim.swa_utils.update_bn; everything else stays unchanged."""

import pytest
import torch

import funcnet as fn
from funcnet import tree

BATCHES = [fn.random.normal(i, (n, 3)) + i for i, n in enumerate((8, 8, 5))]


def test_statistics_are_those_of_torch() -> None:
    """The result is the mean over batches of their statistics, in each norm of a net."""
    net = fn.serial(fn.Linear(3, 4), fn.BatchNorm1d(4), fn.Tanh(), fn.Linear(4, 4), fn.BatchNorm1d(4))
    params = net.init(0)
    params = net.update_stats(params, net.apply(params, BATCHES[2])[1])
    module = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Tanh(), torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4)
    )
    module.load_state_dict(tree.names(params))
    torch.optim.swa_utils.update_bn(BATCHES, module)
    found = tree.names(fn.refresh_stats(net, params, BATCHES))
    torch.testing.assert_close(found, dict(module.state_dict()), rtol=1e-5, atol=1e-6)


def test_copies_and_members_have_their_own_statistics() -> None:
    """Each entry of a stack matches a net by itself."""
    layer = fn.serial(fn.Linear(3, 3), fn.BatchNorm1d(3))
    net = fn.ensemble(layer, 2)
    params = net.init(0)
    found = fn.refresh_stats(net, params, BATCHES)
    for i in range(2):
        alone = fn.refresh_stats(layer, tree.map(lambda leaf, i=i: leaf[i], params), BATCHES)
        torch.testing.assert_close(tree.leaves(tree.map(lambda leaf, i=i: leaf[i], found)), tree.leaves(alone))


def test_a_momentum_weighs_the_last_batches_more() -> None:
    """The average starts from initial statistics, as in training."""
    net = fn.BatchNorm1d(3, momentum=0.3)
    want = net.init(0)
    for x in BATCHES:
        want = net.update_stats(want, net.apply(want, x)[1])
    start = tree.map(lambda p: p + 1, net.init(0))
    found = fn.refresh_stats(net.replace(momentum=None), {**start, "weight": want["weight"], "bias": want["bias"]}, BATCHES, 0.3)
    torch.testing.assert_close(found, want)


def test_all_else_stays() -> None:
    """Trained params, nets without norms, frozen norms and the arguments stay; a stochastic net gets keys."""
    net = fn.serial(fn.freeze(fn.BatchNorm1d(3)), fn.Dropout(0.5), fn.BatchNorm1d(3))
    params = tree.map(lambda p: p + 2, net.init(0))
    before = tree.map(torch.clone, params)
    found = fn.refresh_stats(net, params, BATCHES, rng=1)
    assert tree.equal(params, before)
    moved = {path for path, one in tree.names(found).items() if not torch.equal(one, tree.names(before)[path])}
    frozen = set() if not net[0].has_running_stats else {f"0.{n}" for n in ("running_mean", "running_var", "num_batches_tracked")}
    assert moved - frozen == {"2.running_mean", "2.running_var", "2.num_batches_tracked"}
    assert tree.equal(found, fn.refresh_stats(net, params, BATCHES, rng=1))
    assert fn.refresh_stats(fn.Linear(3, 3), params, []) is params


def test_bad_arguments_are_refused() -> None:
    """No batches, a momentum out of range, and a value that is no layer are refused."""
    net = fn.BatchNorm1d(3)
    with pytest.raises(ValueError, match="refresh_stats: batches must hold the x of at least one batch, got none"):
        fn.refresh_stats(net, net.init(0), [])
    with pytest.raises(ValueError, match="refresh_stats: momentum must be"):
        fn.refresh_stats(net, net.init(0), BATCHES, momentum=2.0)
    with pytest.raises(ValueError, match="refresh_stats: a layer is required"):
        fn.refresh_stats(fn.MSE(), {}, BATCHES)


def test_statistics_hold_no_graph() -> None:
    """Params that require grad are returned themselves."""
    net = fn.serial(fn.Linear(3, 3), fn.BatchNorm1d(3))
    params = tree.map(lambda p: p.clone().requires_grad_(p.is_floating_point()), net.init(0))
    found = fn.refresh_stats(net, params, BATCHES)
    assert not found[1]["running_mean"].requires_grad
    assert found[0]["weight"] is params[0]["weight"]


@pytest.mark.parametrize("batches", [BATCHES[0], 3, None], ids=["tensor", "number", "none"])
def test_batches_must_be_several(batches: object) -> None:
    """The rows of a tensor would otherwise be taken for batches."""
    net = fn.BatchNorm1d(3)
    with pytest.raises(
        ValueError, match=r"^refresh_stats: batches must be a list of batches, or an iterable of them, such as x\.split"
    ):
        fn.refresh_stats(net, net.init(0), batches)
