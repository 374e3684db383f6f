"""Checkpoints of fit: their contents, when they are refused, and continuing from them."""

import functools
import signal
import warnings
from typing import NamedTuple

import pytest
import torch

import funcnet as fn

NET = fn.serial(fn.Linear(3, 4), fn.Tanh(), fn.Linear(4, 2))
X, TARGET = fn.random.normal(1, (40, 3)), fn.random.normal(2, (40, 2))
OPT = fn.Adam(0.05)
ARGUMENTS = {
    "net": NET,
    "loss": fn.MSE(),
    "opt": OPT,
    "data": (X, TARGET),
    "epochs": 2,
    "batch_size": 8,
    "key": 0,
    "progress": False,
}


def fit(folder, **changed):
    """Return a training with checkpoints."""
    return fn.fit(**{**ARGUMENTS, "checkpoints": folder, **changed})


def test_epochs_count_those_in_the_checkpoint(tmp_path):
    """After three of five epochs two more follow; the result matches five epochs at once."""
    fit(tmp_path, epochs=3)
    found = fit(str(tmp_path), epochs=5)
    want = fn.fit(**{**ARGUMENTS, "epochs": 5})
    assert fn.tree.equal(found[:2], want[:2])
    assert found.history["epoch"] == [1, 2, 3, 4, 5]
    assert found.history["loss"] == want.history["loss"]
    assert fit(tmp_path, epochs=2).history["epoch"] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("background", [False, True])
def test_a_save_within_an_epoch_is_of_that_step(tmp_path, background):
    """The file is consistent, although donated steps keep writing while a thread saves."""
    kept = fn.Checkpoints(tmp_path, keep=None, every=1, background=background)
    fit(kept)
    assert kept.steps() == [*range(1, 11)]
    params, state = NET.init(fn.split(0, 3)[0]), None
    step, state = fn.train_step(NET, fn.MSE(), OPT), OPT.init(params)
    order = fn.split(0, 3)[1]
    for i in range(10):
        rows = fn.random.permutation(fn.random.fold_in(order, i // 5), 40).split(8)[i % 5]
        params, state, _ = step(params, state, X[rows], TARGET[rows])
        saved = kept.load(i + 1)
        assert fn.tree.equal((saved["params"], saved["state"]), (params, state))
        assert kept.load_metadata(i + 1)["step"] == (i + 1) % 5


OTHERS = {
    "net must be": {"net": fn.serial(fn.Linear(3, 5), fn.Tanh(), fn.Linear(5, 2))},
    "key must be 0, got 1; use another folder for another run": {"key": 1},
    "batch_size must be 8, got 10": {"batch_size": 10},
    "rows must be 40, got 30": {"data": (X[:30], TARGET[:30])},
    "drop_last must be False, got True": {"drop_last": True},
    "norms must be False, got True": {"norms": True},
    "fit, state of the checkpoint: .* must hold the leaves of like, got .* differences": {"opt": fn.SGD(0.1, momentum=0.9)},
    "rows must be 40, got None": {"data": [(X, TARGET)]},
}


@pytest.mark.parametrize("message", OTHERS)
def test_the_checkpoint_of_another_training_is_refused(message, tmp_path):
    """The error names the difference, before anything is trained or saved."""
    fit(tmp_path)
    before = [path.read_bytes() for path in sorted(tmp_path.glob("*.fn"))]
    with pytest.raises(ValueError, match=message), warnings.catch_warnings(action="ignore"):
        fit(tmp_path, **OTHERS[message])
    assert [path.read_bytes() for path in sorted(tmp_path.glob("*.fn"))] == before


def test_another_rate_or_loss_is_a_warning(tmp_path):
    """The change may be intended."""
    fit(tmp_path)
    with pytest.warns(
        UserWarning, match=r"fit: opt was Adam\(lr=0.05\) in the checkpoint in .*, and is Adam\(lr=0.01\) from now on"
    ):
        fit(tmp_path, opt=fn.Adam(0.01), epochs=3)
    with pytest.warns(UserWarning, match="loss was MSE"):
        fit(tmp_path, loss=fn.L1(), opt=fn.Adam(0.01), epochs=4)


def test_something_else_in_the_folder_is_refused(tmp_path):
    """The tree was not saved by fit."""
    fn.Checkpoints(tmp_path).save(3, NET.init(0))
    with pytest.raises(ValueError, match="fit: checkpoints must come from an earlier fit"):
        fit(tmp_path)


def test_a_damaged_checkpoint_falls_back(tmp_path):
    """The previous one is loaded with a warning, and the training ends at the same params."""
    want = fn.fit(**{**ARGUMENTS, "epochs": 3})
    fit(fn.Checkpoints(tmp_path, every=2))
    newest = max(tmp_path.glob("*.fn"))
    newest.write_bytes(newest.read_bytes()[:-9])
    with pytest.warns(UserWarning, match="damaged"):
        found = fit(fn.Checkpoints(tmp_path, every=2), epochs=3)
    assert fn.tree.equal(found[:2], want[:2])


def test_two_trainings_in_one_folder_are_refused(tmp_path):
    """The second one is refused, in the same process too."""

    def nested(epoch):
        fit(tmp_path)

    with pytest.raises(ValueError, match="Checkpoints"):
        fit(tmp_path, callbacks=[nested])
    assert fn.Checkpoints(tmp_path).latest() is None


class Velocity(NamedTuple):
    """The state of an optimizer as a named tuple."""

    count: torch.Tensor


@fn.frozen
class Counting(fn.Optimizer):
    """Descend by a fixed rate, and count."""

    def init(self, params):
        return Velocity(torch.zeros((), dtype=torch.int64))

    def update(self, grads, state, params):
        return fn.tree.map(lambda p, g: p - 0.01 * g, params, grads), Velocity(state.count + 1)


def test_a_state_of_named_tuples_comes_back_as_it_was(tmp_path):
    """The state has the optimizer's class, which the file does not contain."""
    fit(tmp_path, opt=Counting())
    state = fit(tmp_path, opt=Counting(), epochs=3).state
    assert type(state) is Velocity
    assert state.count == 15


@pytest.fixture
def ctrl_c():
    """Python's own handler of Ctrl-C, which a shell's background jobs ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_leaves_params_and_checkpoint_whole(tmp_path, ctrl_c):
    """After Ctrl-C during a step the arguments are unchanged, and the last checkpoint loads."""
    params = NET.init(0)
    before = fn.tree.map(torch.clone, params)

    def batches(epoch):
        for i in range(5):
            if epoch == 1 and i == 3:
                signal.raise_signal(signal.SIGINT)
            yield X[i * 8 : i * 8 + 8], TARGET[i * 8 : i * 8 + 8]

    kept = fn.Checkpoints(tmp_path, every=1)
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(kept, data=batches, params=params)
    assert "  in fit, epoch 2, step 4" in caught.value.__notes__
    assert fn.tree.equal(params, before)
    assert kept.latest() == 8
    assert kept.load()["step"] == 3


def test_another_training_is_refused_before_anything_is_warned_of(tmp_path):
    """The optimizer may change, but not the key; a warning would be an error here."""
    fit(tmp_path, epochs=1)
    with pytest.raises(ValueError, match="key must be"):
        fit(tmp_path, opt=fn.SGD(0.3), key=99)


def test_callbacks_that_come_and_go_are_reported(tmp_path):
    """A missing one with a memory gives a warning; a new one starts."""
    early = functools.partial(fn.EarlyStopping, monitor="loss")
    fit(tmp_path, callbacks=[early(9)])
    with pytest.warns(
        UserWarning, match=r"memory of EarlyStopping\(patience=9, monitor='loss'\), which is not among the callbacks"
    ):
        fit(tmp_path, callbacks=[early(8)], epochs=3)
    found = fit(tmp_path, callbacks=[early(8)], epochs=3)
    assert fn.tree.equal(found.params, fn.fit(**{**ARGUMENTS, "epochs": 3}).params)


def test_a_callback_may_change_the_folder_of_the_process(tmp_path, monkeypatch):
    """All checkpoints stay in the folder of the first one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    fit("checkpoints", epochs=3, callbacks=[lambda epoch: monkeypatch.chdir(tmp_path / "elsewhere")])
    assert fn.Checkpoints(tmp_path / "checkpoints").steps() == [5, 10, 15]
    assert not any((tmp_path / "elsewhere").iterdir())


@fn.frozen
class Odd(fn.Layer):
    """The identity, whatever its params are."""

    def apply(self, params, x, rng=None):
        return x, None

    def vjp(self, params, cache, gy):
        return fn.tree.map(torch.zeros_like, params), gy


def test_params_with_one_path_for_two_leaves_are_refused_at_the_start(tmp_path):
    """If they were refused only on resuming, the training would be lost."""
    params = (*NET.init(0), {"a": {"b": torch.ones(1)}, "a.b": torch.ones(1)})
    with pytest.raises(ValueError, match=r"fit with checkpoints: the paths of the leaves must be unique, got '3\.a\.b' twice"):
        fit(tmp_path, net=fn.serial(*NET, Odd()), params=params)


def test_a_training_that_does_not_go_on_says_why(tmp_path):
    """Either a callback stopped it, or its epochs are done."""
    lines = []
    fit(tmp_path, epochs=5, callbacks=[lambda epoch: fn.stop if epoch.number == 2 else None])
    fit(tmp_path, epochs=5, progress=lines.append)
    fit(tmp_path / "other", epochs=1)
    fit(tmp_path / "other", epochs=1, progress=lines.append)
    fit(tmp_path / "other", epochs=2, progress=lines.append)
    stopped, done, goes_on = lines[0], lines[1], lines[2]
    assert stopped == "fit does not continue: a callback stopped the training after epoch 2"
    assert done == "fit has nothing left to do after epoch 1"
    assert goes_on == "fit continues at epoch 2, step 1"
