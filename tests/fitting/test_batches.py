"""Batches: every kind of data for fit, evaluate and predict, compared with the same rows as tensors; and refused data."""

from collections import namedtuple

import numpy
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import funcnet as fn

NET = fn.serial(fn.Linear(3, 4), fn.BatchNorm1d(4), fn.Tanh(), fn.Linear(4, 2))
X, TARGET = fn.random.normal(1, (40, 3)), fn.random.normal(2, (40, 2))
QUIET = {"epochs": 2, "key": 0, "progress": False}
ROWS = [*torch.arange(40).split(8)]
PAIRS = [(X[rows], TARGET[rows]) for rows in ROWS]
Pair = namedtuple("Pair", "x target")


def fit(data, net=NET, **options):
    """Return a training with SGD and momentum."""
    return fn.fit(net, fn.MSE(), fn.SGD(0.1, momentum=0.9), data, **{**QUIET, **options})


class Again:
    """An iterable without a length that counts how often it is iterated."""

    def __iter__(self):
        return iter(PAIRS)


STREAMS = {
    "a list of tuples": PAIRS,
    "a list of lists": [[*pair] for pair in PAIRS],
    "named tuples": [Pair(*pair) for pair in PAIRS],
    "an iterable without a length": Again(),
    "a loader": DataLoader(TensorDataset(X, TARGET), 8),
    "a loader with workers": DataLoader(TensorDataset(X, TARGET), 8, num_workers=2),
    "a function of the epoch": lambda epoch: (pair for pair in PAIRS),
    "numpy arrays": [(x.numpy(), target.numpy()) for x, target in PAIRS],
    "read-only arrays": [(numpy.frombuffer(x.numpy().tobytes(), "f4").reshape(x.shape), target) for x, target in PAIRS],
}


@pytest.mark.parametrize("name", STREAMS)
def test_batches_of_every_kind_train_alike(name):
    """Params, losses, validation and metrics match a plain list, bit for bit."""
    want = fit(PAIRS, validation=PAIRS, metrics=[fn.R2()])
    found = fit(STREAMS[name], validation=STREAMS[name], metrics=[fn.R2()])
    assert fn.tree.equal(found[:2], want[:2])
    assert {**found.history, "seconds": []} == {**want.history, "seconds": []}
    assert fn.evaluate(NET, want.params, STREAMS[name] if not callable(STREAMS[name]) else PAIRS, [fn.R2()], fn.MSE()) == {
        name.removeprefix("validation_"): column[-1] for name, column in want.history.items() if name.startswith("validation_")
    }


def test_the_loop_is_four_lines():
    """fit's computation on batches equals these four lines."""
    params = NET.init(fn.split(0, 3)[0])
    opt = fn.SGD(0.1, momentum=0.9)
    state, step = opt.init(params), fn.train_step(NET, fn.MSE(), opt)
    for _ in range(2):
        for x, target in PAIRS:
            params, state, _ = step(params, state, x, target)
    assert fn.tree.equal((params, state), fit(PAIRS)[:2])


def test_tensors_arrays_and_trees_are_rows():
    """Dicts and tuples of tensors or arrays are visited in an order determined by the key."""
    want = fit((X, TARGET), batch_size=8)
    assert fn.tree.equal(fit((X.numpy(), TARGET.numpy()), batch_size=8)[:2], want[:2])
    net = fn.serial(fn.Select("a"), NET)
    found = fit(({"a": X, "b": numpy.zeros(40)}, TARGET), net, batch_size=8, params=({}, NET.init(fn.split(0, 3)[0])))
    assert fn.tree.equal(found.params[1], want.params)


def test_a_transform_makes_pairs_of_any_batch():
    """Batches may be dicts or only x; each step has its own key, and the same key repeats it."""
    keys = []

    def two_views(x, key):
        keys.append(int(key))
        return x + fn.random.normal(key, x.shape), x @ torch.ones(3, 2)

    done = [fit(X, batch_size=8, transform=two_views) for _ in range(2)]
    assert fn.tree.equal(done[0][:2], done[1][:2])
    assert len({*keys}) == 10
    assert keys[:10] == keys[10:]
    rows = {"image": X, "label": TARGET}
    want = fit((X, TARGET), batch_size=8)
    split = lambda batch, key: (batch["image"], batch["label"])
    assert fn.tree.equal(fit(rows, batch_size=8, transform=split)[:2], want[:2])
    loader = DataLoader([{"image": x, "label": t} for x, t in zip(X, TARGET, strict=True)], 8)
    assert fn.tree.equal(fit(loader, transform=split)[:2], fit(PAIRS)[:2])


def test_a_generator_serves_one_epoch():
    """For several epochs a function is required."""
    assert fn.tree.equal(fit(iter(PAIRS), epochs=1)[:2], fit(PAIRS, epochs=1)[:2])
    with pytest.raises(ValueError, match="an iterator of batches lasts for one epoch; pass a function of the epoch"):
        fit(iter(PAIRS))


def test_validation_that_comes_once_serves_one_epoch():
    """An error in it names the data and the epoch."""
    one, other = (fit(PAIRS, epochs=1, validation=data).history["validation_loss"] for data in (iter(PAIRS), PAIRS))
    assert one == other
    with pytest.raises(ValueError, match="an iterator of batches lasts for one epoch"):
        fit(PAIRS, validation=iter(PAIRS))
    for data, message in (
        ([(X[:, :2], TARGET)], "in_features=3"),
        ([], "fit: validation must have at least one batch, got none"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            fit(PAIRS, validation=data)
        assert caught.value.__notes__[-1] == "  in fit, validation after epoch 1"


def test_a_batch_without_rows_is_no_divergence():
    """Its loss is a mean over no rows, which the history leaves out."""
    net, pairs = NET[0], [(x, x @ torch.ones(3, 4)) for x, _ in PAIRS]
    opt = {"opt": fn.SGD(0.1)}
    done, want = (
        fn.fit(net, fn.MSE(), data=data, **opt, **QUIET) for data in ([(X[:0], X[:0] @ torch.ones(3, 4)), *pairs], pairs)
    )
    assert fn.tree.equal(done.params, want.params)
    assert done.history["loss"] == want.history["loss"]


def test_the_order_of_a_loader_is_that_of_the_key():
    """The state of the global generator does not matter, and fit leaves it unchanged."""
    loader = DataLoader(TensorDataset(X, TARGET), 8, shuffle=True)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = fit(loader)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert fn.tree.equal(fit(loader)[:2], one[:2])
    assert not fn.tree.allclose(fit(loader, key=1).params, one.params)


def test_a_sampler_gets_the_epoch():
    """Epochs count from 0, as samplers for several processes expect."""
    epochs = []

    class Sampler:
        """An order of all rows."""

        def set_epoch(self, epoch):
            epochs.append(epoch)

        def __iter__(self):
            return iter(range(40))

        def __len__(self):
            return 40

    fit(DataLoader(TensorDataset(X, TARGET), 8, sampler=Sampler()), epochs=3)
    assert epochs == [0, 1, 2]


def test_a_batch_counts_for_its_rows():
    """The loss in the history is the mean over rows, although batches differ in size."""
    batches = [(X[:3], TARGET[:3]), (X[3:30], TARGET[3:30]), (X[30:], TARGET[30:])]
    net, params = NET[3], NET.init(0)[3]
    hidden = [(NET[0](NET.init(0)[0], x), target) for x, target in batches]
    done = fn.fit(net, fn.MSE(), fn.SGD(0.0), hidden, params=params, **QUIET)
    y = torch.cat([net(params, x) for x, _ in hidden])
    assert done.history["loss"][0] == pytest.approx(float(fn.MSE()(y, TARGET)), rel=1e-5)


def test_accumulating_is_one_large_batch():
    """Params agree up to rounding, for a net that treats rows separately."""
    net = fn.serial(fn.Linear(3, 4), fn.Tanh(), fn.Linear(4, 2))
    large, small = (
        fit((X.double(), TARGET.double()), net, batch_size=16, params=fn.tree.cast(net.init(0), torch.float64), accumulate=k)
        for k in (1, 3)
    )
    assert fn.tree.allclose(large.params, small.params, rtol=1e-12)


def test_what_is_predicted_is_joined():
    """Rows, arrays and batches give one tensor or several; they are normal tensors that support autograd."""
    params = NET.init(0)
    want = NET.inference()(params, X)
    for x in (X, X.numpy(), [x for x, _ in PAIRS], (x for x, _ in PAIRS)):
        assert torch.allclose(fn.predict(NET, params, x, 7), want, atol=1e-6)
    assert torch.equal(fn.predict(NET, params, X), want)
    both = fn.branch(NET, fn.Identity())
    y = fn.predict(both, both.init(0), X, batch_size=7)
    assert [leaf.shape for leaf in fn.tree.leaves(y)] == [(40, 2), (40, 3)]
    assert not fn.predict(NET, params, X).is_inference()


def test_params_with_a_graph_are_taken_without_it():
    """Training does not change them, and no result requires grad."""
    params = fn.tree.map(lambda leaf: leaf.requires_grad_() if leaf.is_floating_point() else leaf, NET.init(0))
    done = fit(PAIRS, params=params)
    assert not any(leaf.requires_grad for leaf in fn.tree.leaves(done[:2]))
    assert all(leaf.grad is None for leaf in fn.tree.leaves(params))
    assert fn.tree.equal(params, NET.init(0))


def test_params_on_another_device_than_the_batches_are_explained():
    """The error has the line of code that moves them."""
    with pytest.raises(ValueError, match=r"pass params=tree.to\(net.init\(key\), 'meta'\), got params on the CPU"):
        fit([(X.to("meta"), TARGET.to("meta"))])


REFUSED = {
    "fit: data must be batches; DataLoader(dataset, batch_size=...) makes them": {"data": TensorDataset(X, TARGET)},
    "fit: a batch must be a pair (x, target); transform=lambda batch, key: (x, target) makes one, got a tensor": {"data": [X]},
    "fit: a batch of validation must be a pair (x, target); a function of the epoch can make them: lambda epoch: ": {"data": PAIRS, "validation": [{"x": X, "y": TARGET}]},
    "fit: the result of transform must be a pair (x, target)": {"data": PAIRS, "transform": lambda batch, key: batch[0]},
    "fit: data, a function of the epoch, must return an iterable of batches, got 3": {"data": lambda epoch: 3},
    "fit: data must have at least one batch in each epoch, got none in epoch 1": {"data": []},
    "fit: drop_last is for tensors; a DataLoader has its own drop_last": {"data": PAIRS, "drop_last": True},
    "fit: batch_size must be a whole number of at least 1, got None": {"data": (X, TARGET)},
    "fit: transform must be a function (batch, key) -> (x, target), or None, got 3": {"data": PAIRS, "transform": 3},
    "fit: metrics need validation data if data has a transform or is an iterator": {"data": iter(PAIRS), "metrics": [fn.R2()]},
    "fit: all of data must have the same number of rows, at least 1, got 39 and 40": {"data": {"a": X, "b": X[1:]}, "batch_size": 8, "transform": lambda batch, key: (batch["a"], None)},
    "fit: epochs_done must be 0 with checkpoints": {"data": PAIRS, "checkpoints": "folder", "epochs_done": 2},
    "fit: checkpoints must be a folder, fn.Checkpoints(folder), or None, got 3": {"data": PAIRS, "checkpoints": 3},
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_wrong_data_is_refused(message):
    """The error describes the data."""
    with pytest.raises(ValueError, match=r".") as caught:
        fit(**REFUSED[message])
    assert message in str(caught.value)


def test_an_error_in_a_batch_says_where():
    """The note names the epoch and the step."""
    with pytest.raises(ValueError, match="the last axis of x must be in_features=3") as caught:
        fit([PAIRS[0], PAIRS[1], (X[:, :2], TARGET)])
    assert caught.value.__notes__[-1] == "  in fit, epoch 1, step 3"


def test_arrays_that_torch_does_not_read_are_copied():
    """Examples are arrays in another byte order, with negative strides, and read-only ones."""
    want = fit((X, TARGET), batch_size=8)
    for x in (X.numpy().astype(">f4"), X.flip(0).numpy()[::-1], numpy.frombuffer(X.numpy().tobytes(), "f4").reshape(X.shape)):
        assert fn.tree.equal(fit((x, TARGET), batch_size=8)[:2], want[:2])
        assert torch.equal(fn.predict(NET, want.params, x), fn.predict(NET, want.params, X))


ARRAYS = {
    "longer floats": numpy.ones((5, 3), "g"),
    "text": numpy.full((5, 3), "a"),
    "objects": numpy.full((5, 3), None),
    "dates": numpy.zeros((5, 3), "M8[s]"),
    "a mask": numpy.ma.masked_array(numpy.ones((5, 3), "f4"), mask=numpy.eye(5, 3)),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_are_no_tensors_are_refused(name):
    """Arrays are refused as a whole, not row by row; for masked arrays the loss would count masked elements."""
    for call in (
        lambda x: fn.predict(NET, NET.init(0), x),
        lambda x: fn.evaluate(NET, NET.init(0), (x, TARGET[:5]), loss=fn.MSE()),
        lambda x: fit((x, TARGET[:5]), batch_size=2),
    ):
        with pytest.raises(
            ValueError, match=r"(x|data) must hold dense tensors with one row per example, got a numpy \w+ of shape"
        ):
            call(ARRAYS[name])


def test_data_without_rows_or_values_are_refused():
    """The error names empty data, and meta tensors, for which a loss has no value."""
    params = NET.init(0)
    with pytest.raises(ValueError, match="predict: x must have at least 1 row, got 0"):
        fn.predict(NET, params, X[:0])
    with pytest.raises(ValueError, match="fit: x and target must have at least 1 row, got 0"):
        fit((X[:0], TARGET[:0]), batch_size=8)
    with pytest.raises(ValueError, match="predict: x must be tensors with one row per example, an iterable of batches"):
        fn.predict(NET, params, 3)
    for call in (
        lambda: fit((X.to("meta"), TARGET.to("meta")), batch_size=8),
        lambda: fn.evaluate(NET, fn.tree.to(params, "meta"), (X, TARGET), loss=fn.MSE()),
    ):
        with pytest.raises(ValueError, match="params must have values, got params on the meta device"):
            call()


def test_a_batch_may_be_larger_than_the_data():
    """The size may be as large as is allowed."""
    assert fn.tree.equal(fit((X, TARGET), batch_size=2**31 - 1)[:2], fit((X, TARGET), batch_size=40)[:2])


def test_an_epoch_that_is_resumed_needs_its_first_batches_again(tmp_path):
    """Otherwise steps would be skipped silently."""

    def batches(count):
        return lambda epoch: (pair for pair in PAIRS[:count])

    @fn.frozen
    class Stopping(fn.Callback):
        def on_step(self, step):
            if step.number == 4:
                raise KeyboardInterrupt

    kept = fn.Checkpoints(tmp_path, every=1)
    with pytest.raises(KeyboardInterrupt):
        fit(batches(5), checkpoints=kept, callbacks=[Stopping()])
    with pytest.raises(ValueError, match="data must repeat the 3 batches of this epoch that were done before, got 2"):
        fit(batches(2), checkpoints=kept)


def test_an_error_in_a_function_of_the_user_shows_its_call():
    """Examples are a transform without a key, and a function without the epoch."""
    for options, call in (
        ({"data": PAIRS, "transform": lambda batch: batch}, "transform(batch, key)"),
        ({"data": lambda: PAIRS}, "data(0), a function of the epoch"),
    ):
        with pytest.raises(TypeError, match="argument") as caught:
            fit(**options)
        assert caught.value.__notes__ == [f"  in {call}", "  in fit, epoch 1, step 1"]
