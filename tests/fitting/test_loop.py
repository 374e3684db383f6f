"""The loop: results that do not depend on batches, names of metrics, last batches, and interruptions."""

import numpy
import pytest
import torch

import funcnet as fn

NET = fn.serial(fn.Linear(2, 8), fn.Tanh(), fn.Linear(8, 3))
X = fn.random.normal(1, (50, 2))
LABELS = (fn.random.uniform(2, (50,)) * 3).long().index_fill(0, torch.arange(0, 20), -100)
PROBABILITIES = torch.softmax(fn.random.normal(3, (50, 3)), -1)
LOSSES = {
    "ignored rows": (fn.CrossEntropy(), LABELS),
    "weights and ignored rows": (fn.CrossEntropy(weight=(0.2, 1.0, 3.0)), LABELS),
    "smoothing": (fn.CrossEntropy(weight=(0.2, 1.0, 3.0), label_smoothing=0.1), LABELS),
    "a sum": (fn.CrossEntropy(reduction="sum"), LABELS),
    "by batch": (fn.CrossEntropy(reduction="batch"), LABELS),
    "probabilities": (fn.CrossEntropy(), PROBABILITIES),
    "all ignored": (fn.CrossEntropy(), torch.full((50,), -100)),
    "elements": (fn.MSE(), PROBABILITIES),
    "a sum of elements": (fn.L1(reduction="sum"), PROBABILITIES),
    "elements by batch": (fn.BCEWithLogits(reduction="batch"), PROBABILITIES),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("batch_size", [1, 7, 16, 50, 1000])
def test_what_evaluate_finds_does_not_depend_on_the_batches(name, batch_size):
    """The result equals the loss of all rows at once."""
    loss, target = LOSSES[name]
    params = NET.init(0)
    found = fn.evaluate(NET, params, (X, target), loss=loss, batch_size=batch_size)
    assert found == {"loss": pytest.approx(float(loss(NET(params, X), target)), rel=1e-5)}


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_in_the_history_is_that_of_all_rows(name):
    """With a rate of 0 the params do not change, so the mean over an epoch is the loss of the first params."""
    loss, target = LOSSES[name]
    params = NET.init(0)
    history = fn.fit(NET, loss, fn.SGD(lr=0.0), (X, target), epochs=2, batch_size=7, key=0, params=params, progress=False).history
    assert history["loss"] == [pytest.approx(float(loss(NET(params, X), target)), rel=1e-5)] * 2


@pytest.mark.parametrize("name", ["weights and ignored rows", "a sum", "elements"])
def test_an_ensemble_is_fitted_too(name):
    """Its losses in training and validation are the means over its members."""
    loss, target = LOSSES[name]
    nets, losses, data = fn.ensemble(NET, 3), fn.ensemble(loss, 3), (X, target)
    params = nets.init(0)
    quiet = {"batch_size": 7, "key": 0, "params": params, "progress": False}
    fitted = fn.fit(nets, losses, fn.SGD(lr=0.0), data, epochs=1, validation=data, **quiet)
    want = pytest.approx(float(losses(nets(params, X), target).mean()), rel=1e-5)
    assert (fitted.history["loss"], fitted.history["validation_loss"]) == ([want], [want])


def test_metrics_leave_out_what_they_ignore_too():
    """Accuracy covers the rows that count, in any batches, even empty ones; a loss may be a metric."""
    params = NET.init(0)
    y = NET(params, X)
    found = fn.evaluate(NET, params, (X, LABELS), [fn.accuracy, fn.CrossEntropy()], batch_size=7)
    assert found["accuracy"] == pytest.approx(float((y.argmax(1) == LABELS)[20:].float().mean()))
    assert found["CrossEntropy()"] == pytest.approx(float(fn.CrossEntropy()(y, LABELS)), rel=1e-5)


def test_a_mean_is_by_rows_where_nothing_is_said():
    """An example is a plain function of y and target."""

    def largest(y, target):
        return target.float().abs().max()

    found = fn.evaluate(NET, NET.init(0), (X[:3], torch.tensor([1, 2, 4])), [largest], batch_size=2)
    assert found == {"largest": pytest.approx((2 * 2 + 4) / 3)}


def test_metrics_add_up_over_the_batches():
    """Batch sizes do not matter for an area under the curve or a matrix, with functions and several metrics at once."""
    params = NET.init(0)
    y = NET(params, X)
    metrics = [fn.AUROC(), fn.accuracy, fn.metrics_of(fn.ConfusionMatrix(), top2=fn.Accuracy(2)), fn.F1(name="f")]
    for batch_size in (7, 50):
        found = fn.evaluate(NET, params, (X, LABELS), metrics, batch_size=batch_size)
        assert [*found] == ["auroc", "accuracy", "confusion_matrix", "top2", "f"]
        assert found["auroc"] == float(fn.AUROC()(y, LABELS))
        assert found["f"] == float(fn.F1()(y, LABELS))
        assert torch.equal(found["confusion_matrix"], fn.ConfusionMatrix()(y, LABELS))
        assert not found["confusion_matrix"].is_inference()


def test_a_function_without_a_target_is_averaged_over_the_rows_of_y():
    """Batches do not matter."""

    def level(y, target):
        return y.mean()

    params = NET.init(0)
    found = [fn.evaluate(NET, params, (X, None), [level], batch_size=size)["level"] for size in (7, 50)]
    assert found == [pytest.approx(float(NET(params, X).mean()), rel=1e-5)] * 2


def test_the_history_has_a_column_for_each_metric(capsys):
    """The name begins with ``validation_`` for validation data; a matrix is not printed."""
    several, options = fn.metrics_of(fn.Recall(), fn.ConfusionMatrix()), {**ARGUMENTS, "progress": True}
    history = fn.fit(NET, fn.CrossEntropy(), fn.SGD(0.1), DATA, metrics=several, **options).history
    assert [len(history[name]) for name in ("recall", "confusion_matrix")] == [2, 2]
    assert history["confusion_matrix"][0].sum() == 30
    printed = capsys.readouterr().err
    assert "recall" in printed
    assert "confusion_matrix" not in printed
    history = fn.fit(
        NET, fn.CrossEntropy(), fn.SGD(0.1), DATA, metrics=[fn.R2()], validation=(X, PROBABILITIES), **{**ARGUMENTS, "epochs": 1}
    ).history
    assert isinstance(history["validation_r2"][0], float)


ARGUMENTS = {"epochs": 2, "batch_size": 7, "key": 0, "progress": False}


def loss(y, target):
    """Return 0; a metric with the name of a column."""
    return 0.0


COLLISIONS = {
    "fit: each metric must have its own name, and none of epoch, loss, seconds, got 'loss'": [loss],
    "none of epoch, loss, seconds, got 'accuracy' twice": [fn.accuracy, fn.accuracy],
    "fit: metrics must be a list of metrics, such as F1(), and functions (y, target) -> number, got a dict with the keys 'f'": {
        "f": loss
    },
    "functions (y, target) -> number, got 'accuracy'": ["accuracy"],
    "functions (y, target) -> number, got the class F1; make a value of it, F1(...)": [fn.Accuracy(), fn.F1],
    "none of epoch, loss, seconds, got 'f1' twice": [fn.F1(), fn.metrics_of(fn.F1())],
}


@pytest.mark.parametrize("message", COLLISIONS)
def test_metrics_need_unique_names(message):
    """No metric overwrites another one or a column of the history."""
    with pytest.raises(ValueError, match=r".") as caught:
        fn.fit(NET, fn.CrossEntropy(), fn.SGD(0.1), (X, LABELS), metrics=COLLISIONS[message], **ARGUMENTS)
    assert message in str(caught.value)
    with pytest.raises(ValueError, match=r"evaluate: (each metric|metrics) must"):
        fn.evaluate(NET, NET.init(0), (X, LABELS), COLLISIONS[message])


DATA = (X, LABELS)
WRONG = {
    "fit: net must be a funcnet layer, such as Linear(2, 3), got None": lambda: fn.fit(None, fn.MSE(), fn.SGD(0.1), DATA, **ARGUMENTS),
    "fit: loss must be a funcnet loss, such as MSE(), got SGD(": lambda: fn.fit(NET, fn.SGD(0.1), fn.SGD(0.1), DATA, **ARGUMENTS),
    "fit: opt must be a funcnet optimizer, such as Adam(1e-3), got None": lambda: fn.fit(NET, fn.MSE(), None, DATA, **ARGUMENTS),
    "fit: data must be a tuple (x, target), an iterable of batches such as a DataLoader, or a function of the epoch that returns one, got None": lambda: fn.fit(NET, fn.MSE(), fn.SGD(0.1), None, **ARGUMENTS),
    "fit: data must hold dense tensors with one row per example, got a numpy array of shape (2,) and dtype <U1": lambda: fn.fit(NET, fn.MSE(), fn.SGD(0.1), (numpy.array(["a", "b"]), LABELS), **ARGUMENTS),
    "fit: data must hold dense tensors with one row per example, got None": lambda: fn.fit(NET, fn.MSE(), fn.SGD(0.1), (None, LABELS), **ARGUMENTS),
    "fit: data must hold dense tensors with one row per example, got a tuple of 0": lambda: fn.fit(NET, fn.MSE(), fn.SGD(0.1), (X, ()), **ARGUMENTS),
    "MSE(): target must be a tensor, got None": lambda: fn.fit(NET, fn.MSE(), fn.SGD(0.1), (X, None), **ARGUMENTS),
    "fit: data must hold dense tensors with one row per example, got a tensor of layout torch.sparse_coo": lambda: fn.fit(NET, fn.MSE(), fn.SGD(0.1), (X.to_sparse(), LABELS), **ARGUMENTS),
    "fit: validation must be a tuple (x, target), an iterable of batches such as a DataLoader, or a function of the epoch that returns one, got a tensor": lambda: fn.fit(NET, fn.MSE(), fn.SGD(0.1), DATA, validation=X, **ARGUMENTS),
    "fit: with drop_last there must be batch_size=51 rows or more, got 50 rows": lambda: fn.fit(NET, fn.MSE(), fn.SGD(0.1), DATA, **{**ARGUMENTS, "batch_size": 51}, drop_last=True),
    "evaluate: net must be a funcnet layer, such as Linear(2, 3), got": lambda: fn.evaluate(fn.MSE(), {}, DATA, loss=fn.MSE()),
    "evaluate: loss must be a loss that has one value, got": lambda: fn.evaluate(NET, NET.init(0), DATA, loss=fn.MSE(reduction="none")),
    "evaluate: data must be a tuple (x, target), an iterable of batches such as a DataLoader, or a function of the epoch that returns one, got None": lambda: fn.evaluate(NET, NET.init(0), None, loss=fn.MSE()),
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG)
def test_arguments_of_another_kind_are_refused(message):
    """The error precedes any training."""
    with pytest.raises(ValueError, match=r".") as caught:
        WRONG[message]()
    assert message in str(caught.value)


NORMED = fn.serial(fn.Linear(2, 8), fn.BatchNorm1d(8), fn.Linear(8, 3))


def test_the_last_batch_may_be_left_out():
    """With drop_last an epoch has only full batches; without it, an error in the last batch suggests it."""
    data, arguments = (X[:29], PROBABILITIES[:29]), {**ARGUMENTS, "batch_size": 7}
    with pytest.raises(ValueError, match="more than one value per channel") as caught:
        fn.fit(NORMED, fn.MSE(), fn.SGD(0.1), data, **arguments)
    assert "  in fit, epoch 1, step 5, in the last batch, of 1 rows: drop_last=True leaves it out" in caught.value.__notes__
    params, _, history = fn.fit(NORMED, fn.MSE(), fn.SGD(0.1), data, drop_last=True, **arguments)
    assert params[1]["num_batches_tracked"] == 2 * 4
    assert len(history["loss"]) == 2


def interrupting(count):
    """Return a metric and a loss that raise KeyboardInterrupt at call number ``count``."""
    calls = []

    def interrupt(y, target):
        calls.append(1)
        if len(calls) == count:
            raise KeyboardInterrupt
        return 0.0

    @fn.frozen
    class Interrupting(type(fn.MSE())):
        """A loss that counts its calls."""

        def loss(self, kept):
            interrupt(None, None)
            return super().loss(kept)

        def total(self, kept, c):
            interrupt(None, None)
            return super().total(kept, c)

    return interrupt, Interrupting()


@pytest.mark.parametrize("count", [1, 2, 5, 11, 13])
@pytest.mark.parametrize("opt", [fn.SGD(0.1, momentum=0.9), fn.Adam(0.1)], ids=repr)
@pytest.mark.parametrize("where", ["metric", "loss"])
def test_an_interrupted_fit_leaves_the_callers_params_and_state(where, opt, count):
    """Bits are unchanged, although the loop writes to its own copies."""
    params = NORMED.init(0)
    state = opt.init(params)
    before = fn.tree.map(torch.clone, (params, state))
    metric, broken = interrupting(count)
    options = {"metrics": [metric]} if where == "metric" else {}
    with pytest.raises(KeyboardInterrupt):
        fn.fit(
            NORMED, broken if where == "loss" else fn.MSE(), opt, (X, PROBABILITIES),
            params=params, state=state, drop_last=True, **{**ARGUMENTS, "epochs": 20}, **options,
        )  # fmt: skip
    assert fn.tree.equal((params, state), before)


def test_a_batch_size_of_numpy_is_a_number():
    """fit and evaluate both accept it."""
    size = numpy.int64(7)
    trained = [fn.fit(NET, fn.CrossEntropy(), fn.SGD(0.1), DATA, **{**ARGUMENTS, "batch_size": one}).params for one in (size, 7)]
    assert fn.tree.equal(*trained)
    assert fn.evaluate(NET, trained[0], DATA, loss=fn.CrossEntropy(), batch_size=size)["loss"] > 0


def test_no_two_trainings_share_a_history():
    """Trainings without an epoch are tried too."""
    arguments = {**ARGUMENTS, "epochs": 0}
    first = fn.fit(NET, fn.CrossEntropy(), fn.SGD(0.1), (X, LABELS), **arguments)
    first.history.append({"mine": 1})
    assert "mine" not in fn.fit(NET, fn.CrossEntropy(), fn.SGD(0.1), (X, LABELS), **arguments).history


def test_a_metric_with_the_name_of_a_norm_is_refused():
    """The name is refused if both would be columns."""

    def grad_norm(y, target):
        return 1.0

    rest = {**ARGUMENTS, "metrics": [grad_norm], "norms": True}
    with pytest.raises(ValueError, match="none of epoch, loss, seconds, grad_norm, update_norm, got 'grad_norm'"):
        fn.fit(NET, fn.CrossEntropy(), fn.SGD(0.1), (X, LABELS), **rest)
    history = fn.fit(NET, fn.CrossEntropy(), fn.SGD(0.1), (X, LABELS), validation=(X, LABELS), **rest).history
    assert history["validation_grad_norm"][0] == 1.0 != history["grad_norm"][0]
