"""Divergence: a training with non-finite numbers stops with an error that names the step, the leaf and the layer."""

import math

import pytest
import torch

import funcnet as fn
from funcnet.kernels.optim import are_finite

NET = fn.serial(fn.Linear(3, 4), fn.Tanh(), fn.Linear(4, 2))
X, TARGET = fn.random.normal(1, (40, 3)), fn.random.normal(2, (40, 2))
QUIET = {"epochs": 4, "batch_size": 8, "key": 0, "progress": False}


def fitted(x=X, target=TARGET, opt=None, net=NET, **options):
    """Return a training with an error, or the result."""
    return fn.fit(net, fn.MSE(), opt or fn.SGD(0.1), (x, target), **{**QUIET, **options})


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["x", "target"])
def test_a_number_in_the_data_is_found(where, value):
    """The error has its path in the batch and its index; a function of the epoch is called again."""
    x, target = X.clone(), TARGET.clone()
    (x if where == "x" else target)[30, 1] = value
    batches = [(x[rows], target[rows]) for rows in torch.arange(40).split(8)]
    for data in (batches, lambda epoch: iter(batches)):
        with pytest.raises(FloatingPointError, match="at step 4") as caught:
            fn.fit(NET, fn.MSE(), fn.Adam(), data, epochs=2, key=0, progress=False)
        assert f"of epoch 1; first bad leaf: '{where}', which has {value} at (6, 1), at step 4" in str(caught.value)


def test_a_dict_in_the_data_is_found_by_its_name():
    """The order of rows, determined by a key, does not matter."""
    x = {"a": X, "b": X.clone().index_fill(0, torch.tensor([17]), math.nan)}
    net = fn.serial(fn.Select("b"), NET)
    with pytest.raises(FloatingPointError, match=r"first bad leaf: 'x\.b', which has nan at \(\d, 0\), at step \d"):
        fn.fit(net, fn.MSE(), fn.Adam(), (x, TARGET), **QUIET)


def blown(path):
    """Return an optimizer that makes one leaf infinite at its third step, and updates the others normally."""
    huge = fn.SGD(fn.PiecewiseConstantSchedule([0.1, 1e38], [2]))
    return fn.by_path({path: huge, "*": fn.SGD(0.1)})


def test_a_diverging_run_names_the_first_leaf_and_its_step():
    """The reported step is the one after which the leaf is not finite, before the one with a non-finite loss."""
    with pytest.raises(FloatingPointError, match="got a loss of") as caught:
        fitted(target=TARGET * 1e3, opt=blown("2.weight"))
    assert "first bad leaf: 'params.2.weight', which has" in str(caught.value)
    assert "at (0, 0), at step 3" in str(caught.value)


def test_the_layer_that_overflows_is_named():
    """The note names the first layer with a non-finite output."""
    params = fn.tree.scale(NET.init(0), 1e38)
    with pytest.raises(FloatingPointError) as caught:
        fitted(X * 10, params=params)
    where = "layer '0', Linear(in_features=3, out_features=4), has a NaN or an infinity"
    assert caught.value.__notes__ == [f"  checked: forward, the output of {where}", "  in fit, epoch 1, step 1"]


def test_an_optimizer_that_skips_steps_goes_on():
    """The params stay finite, and the loss of the epoch shows the skipped steps."""
    x = X.clone()
    x[3] = math.nan
    done = fitted(x, opt=fn.SkipNonFinite(fn.SGD(0.1)))
    assert fn.tree.all_finite(done.params)
    assert all(map(math.isnan, done.history["loss"]))
    with pytest.raises(FloatingPointError):
        fitted(x, opt=fn.SkipNonFinite(fn.SGD(0.1), max_consecutive=0))


def test_batches_that_come_once_are_not_requested_again():
    """The path is in the final params."""
    batches = ((X[rows] * (math.nan if rows[0] == 16 else 1), TARGET[rows]) for rows in torch.arange(40).split(8))
    with pytest.raises(FloatingPointError, match=r"step 3 of epoch 1; first bad leaf: 'params\.0\.weight'"):
        fn.fit(NET, fn.MSE(), fn.SGD(0.1), batches, epochs=1, key=0, progress=False)


def test_the_last_good_checkpoint_stays(tmp_path):
    """Non-finite params are never saved, whether or not a loss shows them."""
    x = X.clone()
    x[3] = math.nan
    kept = fn.Checkpoints(tmp_path, every=1)
    batches = [(x[rows], TARGET[rows]) for rows in torch.arange(40).roll(8).split(8)]
    with pytest.raises(FloatingPointError):
        fn.fit(NET, fn.MSE(), fn.SGD(0.1), batches, epochs=2, key=0, progress=False, checkpoints=kept)
    assert kept.latest() == 1
    assert fn.tree.all_finite(kept.load()["params"])


def masked(x):
    """Return params of a net with a mask of infinities, which no gradient changes, and the net."""
    net = fn.serial(Masked(), NET)
    return net, ({"mask": torch.tensor([0.0, 0.0, -math.inf])}, NET.init(0))


@fn.frozen
class Masked(fn.Layer):
    """Add exp(mask) to x."""

    trainable = False

    def init(self, rng):
        return {"mask": torch.zeros(3)}

    def apply(self, params, x, rng=None):
        return x + params["mask"].exp(), None

    def vjp(self, params, cache, gy):
        return {"mask": None}, gy


def test_params_may_be_infinite_from_the_start():
    """A mask may be infinite; other infinite params, and NaN in a mask, are refused."""
    net, params = masked(X)
    done = fitted(net=net, params=params)
    assert fn.tree.equal(done.params[0], params[0])
    with pytest.raises(FloatingPointError, match=r"got a loss of .*'params\.1\.2\.weight', which has"):
        fitted(net=net, params=params, target=TARGET * 1e3, opt=blown("1.2.weight"))
    with pytest.raises(FloatingPointError, match=r"'params\.0\.mask', which has nan at \(0,\)"):
        fitted(net=net, params=({"mask": torch.tensor([math.nan, 0.0, 0.0])}, params[1]))


def test_infinities_in_the_data_that_do_no_harm_are_not_blamed():
    """A mask in x has many of them; the reported step and leaf are the bad ones."""
    net = fn.serial(fn.Select("x"), NET)
    x = {"mask": torch.full((40, 3), -math.inf), "x": X}
    with pytest.raises(FloatingPointError, match=r"at step 4") as caught:
        fn.fit(net, fn.MSE(), fn.SGD(fn.PiecewiseConstantSchedule([0.1, 1e38], [3])), (x, TARGET * 1e3), **QUIET)
    assert "at step 4" in str(caught.value)


def test_data_that_cannot_be_had_again_do_not_hide_the_divergence():
    """If they raise an error the second time, the error has the remaining facts."""
    asked = []

    def batches(epoch):
        asked.append(epoch)
        assert len(asked) < 2
        return [(X * math.nan, TARGET)]

    with pytest.raises(FloatingPointError, match=r"step 1 of epoch 1; first bad leaf: 'params\.0\.weight'"):
        fn.fit(NET, fn.MSE(), fn.SGD(0.1), batches, epochs=1, key=0, progress=False)


def test_large_losses_of_members_are_no_divergence():
    """Training continues although the sum of the losses overflows float16."""
    net, x = fn.ensemble(fn.Linear(1, 1, bias=False), 4), torch.ones(8, 1, dtype=torch.float16)
    params = fn.tree.map(lambda leaf: torch.full_like(leaf, 200.0, dtype=torch.float16), net.init(0))
    done = fn.fit(net, fn.ensemble(fn.MSE(), 4), fn.SGD(0.0), (x, 0 * x), params=params, **QUIET)
    assert done.history["loss"] == [40000.0] * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64], ids=str)
def test_every_number_that_is_not_finite_is_seen(dtype):
    """The number may be anywhere in a tensor of any length, even after others."""
    whole = [torch.arange(4), torch.empty(0, dtype=dtype), torch.zeros((), dtype=dtype)]
    for length in (1, 7, 64, 1001):
        x = torch.linspace(-9, 9, length).to(dtype)
        assert are_finite([*whole, x])
        for value in (math.nan, math.inf, -math.inf):
            for i in {0, length // 2, length - 1}:
                bad = x.clone()
                bad[i] = value
                assert not are_finite([*whole, bad, x])


def test_params_that_no_loss_shows_are_not_saved(tmp_path):
    """An infinite x saturates tanh: the loss of the step is finite, but the params after it are not."""
    x = X.clone()
    x[30, 1] = math.inf
    kept = fn.Checkpoints(tmp_path, every=1)
    batches = [(x[rows], TARGET[rows]) for rows in torch.arange(40).split(8)]
    with pytest.raises(FloatingPointError, match="got params with a NaN or an infinity in step 4"):
        fn.fit(NET, fn.MSE(), fn.SGD(0.1), batches, epochs=2, key=0, progress=False, checkpoints=kept)
    assert kept.latest() == 3
    assert fn.tree.all_finite(kept.load()["params"])
