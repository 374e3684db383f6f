"""Divergence: a training with numbers that are not finite stops, and says at which step, in which leaf, and in which layer."""

import math

import pytest
import torch

import funcnet as fn

NET = fn.serial(fn.Linear(3, 4), fn.Tanh(), fn.Linear(4, 2))
X, TARGET = fn.random.normal(1, (40, 3)), fn.random.normal(2, (40, 2))
QUIET = {"epochs": 4, "batch_size": 8, "key": 0, "progress": False}


def fitted(x=X, target=TARGET, opt=None, net=NET, **options):
    """Return a training with an error, or what it returns."""
    return fn.fit(net, fn.MSE(), opt or fn.SGD(0.1), (x, target), **{**QUIET, **options})


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["x", "target"])
def test_a_number_in_the_data_is_found(where, value):
    """By its path in the batch and its index; a function of the epoch is gone through again."""
    x, target = X.clone(), TARGET.clone()
    (x if where == "x" else target)[30, 1] = value
    batches = [(x[rows], target[rows]) for rows in torch.arange(40).split(8)]
    for data in (batches, lambda epoch: iter(batches)):
        with pytest.raises(FloatingPointError, match="at step 4") as caught:
            fn.fit(NET, fn.MSE(), fn.Adam(), data, epochs=2, key=0, progress=False)
        assert f"of epoch 1; first bad leaf: '{where}', which has {value} at (6, 1), at step 4" in str(caught.value)


def test_a_dict_in_the_data_is_found_by_its_name():
    """And in an order by key."""
    x = {"a": X, "b": X.clone().index_fill(0, torch.tensor([17]), math.nan)}
    net = fn.serial(fn.Select("b"), NET)
    with pytest.raises(FloatingPointError, match=r"first bad leaf: 'x\.b', which has nan at \(\d, 0\), at step \d"):
        fn.fit(net, fn.MSE(), fn.Adam(), (x, TARGET), **QUIET)


def blown(path):
    """Return an optimizer that makes one leaf infinite at its third step, and others move as usual."""
    huge = fn.SGD(fn.PiecewiseConstantSchedule([0.1, 1e38], [2]))
    return fn.by_path({path: huge, "*": fn.SGD(0.1)})


def test_a_diverging_run_names_the_first_leaf_and_its_step():
    """The step is that after which the leaf is not finite, before the one whose loss is not."""
    with pytest.raises(FloatingPointError, match="got a loss of") as caught:
        fitted(target=TARGET * 1e3, opt=blown("2.weight"))
    assert "first bad leaf: 'params.2.weight', which has" in str(caught.value)
    assert "at (0, 0), at step 3" in str(caught.value)


def test_the_layer_that_overflows_is_named():
    """By the note of the first layer whose output is not finite."""
    params = fn.tree.scale(NET.init(0), 1e38)
    with pytest.raises(FloatingPointError) as caught:
        fitted(X * 10, params=params)
    where = "layer '0', Linear(in_features=3, out_features=4), has a NaN or an infinity"
    assert caught.value.__notes__ == [f"  checked: forward, the output of {where}", "  in fit, epoch 1, step 1"]


def test_an_optimizer_that_skips_steps_goes_on():
    """The params stay finite, and the loss of the epoch shows it."""
    x = X.clone()
    x[3] = math.nan
    done = fitted(x, opt=fn.SkipNonFinite(fn.SGD(0.1)))
    assert fn.tree.all_finite(done.params)
    assert all(map(math.isnan, done.history["loss"]))
    with pytest.raises(FloatingPointError):
        fitted(x, opt=fn.SkipNonFinite(fn.SGD(0.1), max_consecutive=0))


def test_batches_that_come_once_are_not_asked_for_again():
    """The path is that of the params at the end."""
    batches = ((X[rows] * (math.nan if rows[0] == 16 else 1), TARGET[rows]) for rows in torch.arange(40).split(8))
    with pytest.raises(FloatingPointError, match=r"step 3 of epoch 1; first bad leaf: 'params\.0\.weight'"):
        fn.fit(NET, fn.MSE(), fn.SGD(0.1), batches, epochs=1, key=0, progress=False)


def test_the_last_good_checkpoint_stays(tmp_path):
    """Params that are not finite are never saved, whether a loss shows them or not."""
    x = X.clone()
    x[3] = math.nan
    kept = fn.Checkpoints(tmp_path, every=1)
    batches = [(x[rows], TARGET[rows]) for rows in torch.arange(40).roll(8).split(8)]
    with pytest.raises(FloatingPointError):
        fn.fit(NET, fn.MSE(), fn.SGD(0.1), batches, epochs=2, key=0, progress=False, checkpoints=kept)
    assert kept.latest() == 1
    assert fn.tree.all_finite(kept.load()["params"])
