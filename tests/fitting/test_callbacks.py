"""Callbacks: their arguments, their memory, and stopping a training."""

import functools
import math
import pickle

import pytest
import torch

import funcnet as fn

NET = fn.serial(fn.Linear(3, 4), fn.Tanh(), fn.Linear(4, 2))
X, TARGET = fn.random.normal(1, (40, 3)), fn.random.normal(2, (40, 2))
OPT = fn.Adam(0.05)
fit = functools.partial(fn.fit, NET, fn.MSE(), OPT, (X, TARGET), batch_size=8, key=0, progress=False)


def test_a_callback_sees_each_epoch():
    """The callback gets number, params, state and history, which are never written to later."""
    seen, copies = [], []

    def remember(epoch):
        seen.append(epoch)
        copies.append(fn.tree.map(torch.clone, (epoch.params, epoch.state)))

    done = fit(epochs=3, callbacks=[remember])
    assert [epoch.number for epoch in seen] == [1, 2, 3]
    assert [epoch.steps for epoch in seen] == [5, 10, 15]
    assert [len(epoch.history["loss"]) for epoch in seen] == [1, 2, 3]
    assert all(fn.tree.equal((one.params, one.state), copy) for one, copy in zip(seen, copies, strict=True))
    assert fn.tree.equal((seen[-1].params, seen[-1].state), done[:2])
    assert not any(leaf.is_inference() for leaf in fn.tree.leaves(seen[0].params))
    assert fn.tree.equal(done[:2], fit(epochs=3)[:2])


def test_the_evaluated_params_are_those_of_the_optimizer():
    """These are the averaged params if the optimizer has any."""
    seen, opt = [], fn.Averaged(fn.SGD(0.1), fn.EMA(0.9))
    fn.fit(NET, fn.MSE(), opt, (X, TARGET), epochs=1, batch_size=8, key=0, callbacks=[seen.append], progress=False)
    assert fn.tree.equal(seen[0].eval_params, opt.eval_params(seen[0].state, seen[0].params))
    assert not fn.tree.equal(seen[0].eval_params, seen[0].params)


def test_a_callback_cannot_write_to_the_history():
    """The callback gets a copy, which it may sort, shorten or extend."""
    want, seen = fit(epochs=3).history, []

    def writing(epoch):
        seen.append(epoch.history)
        epoch.history["loss"].append(3.0)
        del epoch.history["epoch"]

    assert fit(epochs=3, callbacks=[writing]).history["loss"] == want["loss"]
    assert [len(history["loss"]) for history in seen] == [2, 3, 4]


def test_stop_ends_the_training_after_the_epoch():
    """All callbacks are called before it ends."""
    called = []
    stopping = lambda epoch: fn.stop if epoch.number == 2 else None
    done = fit(epochs=9, callbacks=[stopping, lambda epoch: called.append(epoch.number)])
    assert done.history["epoch"] == called == [1, 2]
    assert pickle.loads(pickle.dumps(fn.stop)) is fn.stop
    assert repr(fn.stop) == "fn.stop"


def test_a_training_that_was_stopped_stays_stopped(tmp_path):
    """The same call returns the same result, even with more epochs."""
    early = fn.EarlyStopping(2, monitor="loss", mode="max")
    first = fit(epochs=9, callbacks=[early], checkpoints=tmp_path)
    assert first.history["epoch"] == [1, 2, 3]
    again = fit(epochs=9, callbacks=[early], checkpoints=tmp_path)
    assert fn.tree.equal(again[:2], first[:2])
    assert again.history == first.history


def validated(*losses):
    """Return what early stopping receives for a history with the given losses, epoch by epoch."""
    for i in range(len(losses)):
        history = fn.History({"validation_loss": [*losses[: i + 1]], "loss": [0.0] * (i + 1)})
        params = {"w": torch.tensor([float(i)])}
        yield fn.Epoch(i + 1, params, (), history, params, i + 1)


STOPPED = {
    "after two without improvement": (fn.EarlyStopping(2), [3.0, 2.0, 2.0, 2.5, 1.0], 4, 1),
    "waits anew after each improvement": (fn.EarlyStopping(2), [3.0, 4.0, 2.0, 3.0, 1.0], None, 4),
    "a smaller improvement does not count": (fn.EarlyStopping(2, min_delta=0.5), [3.0, 2.6, 2.7, 0.0], 3, 0),
    "a larger value is better": (fn.EarlyStopping(1, mode="max"), [1.0, 2.0, 1.5], 3, 1),
    "NaN is no improvement": (fn.EarlyStopping(2), [math.nan, 2.0, math.nan, math.nan], 4, 1),
    "another column": (fn.EarlyStopping(1, monitor="loss"), [3.0, 2.0], 2, 0),
}


@pytest.mark.parametrize("name", STOPPED)
def test_early_stopping_waits_and_keeps_the_best(name):
    """Training stops after the expected epoch, and the params of the best one are kept."""
    early, losses, last, best = STOPPED[name]
    memory, found = early.init({"w": torch.zeros(1)}), None
    for epoch in validated(*losses):
        memory, verdict = early.update(memory, epoch)
        if verdict is fn.stop:
            found = epoch.number
            break
    assert found == last
    assert early.params(memory, {"w": torch.tensor([9.0])}) == {"w": torch.tensor([float(best)])}


def test_early_stopping_gives_back_the_best_params():
    """The params come from the best epoch, even if training was not stopped; with ``restore_best=False``, from the last one."""
    seen = []
    options = {"epochs": 6, "validation": (X, -TARGET)}  # the better it fits, the worse this is
    done = fit(callbacks=[fn.EarlyStopping(50), seen.append], **options)
    best = min(range(6), key=lambda i: done.history["validation_loss"][i])
    assert best < 5
    assert fn.tree.equal(done.params, seen[best].params)
    last = fit(callbacks=[fn.EarlyStopping(50, restore_best=False)], **options)
    assert fn.tree.equal(last.params, seen[-1].params)


@fn.frozen
class Watching(fn.Callback):
    """Remember each step, and stop after one."""

    at: int

    def on_step(self, step):
        SEEN.append(step)
        return fn.stop if step.number == self.at else None


SEEN: list[fn.Step] = []


def test_a_callback_may_look_at_steps():
    """A callback may stop within an epoch; the loss of this epoch is the mean over its steps."""
    SEEN.clear()
    done = fit(epochs=4, callbacks=[Watching(7)])
    assert [step.number for step in SEEN] == [1, 2, 3, 4, 5, 6, 7]
    assert [step.epoch for step in SEEN] == [1] * 5 + [2] * 2
    assert fn.tree.equal(done.params, SEEN[-1].params)
    assert done.history["loss"][1] == pytest.approx(float(SEEN[5].loss + SEEN[6].loss) / 2)
    params = SEEN[2].params
    for i in range(3, 7):
        assert not fn.tree.equal(SEEN[i].params, params)
        params = SEEN[i].params
    assert fn.tree.equal(fit(epochs=1).params, SEEN[4].params)


def raising(epoch):
    """Raise an error, like a logger whose server is down."""
    raise OSError("no server")


def test_an_error_of_a_callback_says_which_and_when(tmp_path):
    """The checkpoint of the previous epoch is the last one."""
    with pytest.raises(OSError, match="no server") as caught:
        fit(epochs=3, callbacks=[lambda epoch: raising(epoch) if epoch.number == 2 else None], checkpoints=tmp_path)
    assert "in fit, callback" in caught.value.__notes__[0]
    assert "after epoch 2" in caught.value.__notes__[0]
    assert fn.Checkpoints(tmp_path).latest() == 5


@fn.frozen
class Forgetful(fn.Callback):
    """Forgets to return its memory."""

    answer: object = None

    def update(self, memory, epoch):
        return self.answer


WRONG = {
    "Forgetful(): update must return (memory, None) or (memory, fn.stop), got None": {"callbacks": [Forgetful()]},
    "update must return (memory, None) or (memory, fn.stop), got fn.stop": {"callbacks": [Forgetful(fn.stop)]},
    "it must return None or fn.stop, got True": {"callbacks": [lambda epoch: True]},
    "fit: callbacks must be a list of functions of an Epoch and values such as EarlyStopping(3), got EarlyStopping(patience=2)": {"callbacks": fn.EarlyStopping(2)},
    "a callback must be a function of an Epoch, or a Callback value, got the class EarlyStopping": {"callbacks": [fn.EarlyStopping]},
    "monitor must be a column of the history: epoch, loss, seconds, got 'accuracy'": {"callbacks": [fn.EarlyStopping(2, "accuracy")]},
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG)
def test_wrong_callbacks_are_refused(message):
    """The error describes the callback."""
    with pytest.raises(ValueError, match=r".") as caught:
        fit(epochs=1, **WRONG[message])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "fields", [{"patience": 0}, {"patience": 2.5}, {"mode": "least"}, {"min_delta": -1.0}, {"monitor": 3}, {"restore_best": 1}]
)
def test_wrong_fields_of_early_stopping_are_refused(fields):
    """The constructor raises the error."""
    with pytest.raises(ValueError, match="EarlyStopping"):
        fn.EarlyStopping(**{"patience": 2, **fields})
