"""Estimators: scikit-learn's own checks, and the claims of the docstrings, compared with ``fit`` and with repeated rows."""

import copy
import pickle
import re

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_digits, load_iris, make_multilabel_classification, make_regression
from sklearn.ensemble import BaggingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.estimator_checks import check_estimator

import funcnet as fn
from funcnet.interop.sklearn import Classifier, Regressor

X, Y = load_iris(return_X_y=True)
X = scale(X)
NAMES = np.array(["setosa", "versicolor", "virginica"])[Y]
TWO = Y != 2
PIXELS, DIGITS = load_digits(return_X_y=True)
PIXELS, DIGITS = (PIXELS / 16).astype(np.float32)[:500], DIGITS[:500]
INPUTS, TARGETS = make_regression(120, 5, n_targets=2, random_state=0)
TARGETS /= TARGETS.std(0)
LABELED, LABELS = make_multilabel_classification(120, random_state=0)
FAST = fn.Adam(0.01)
NET = fn.serial(fn.Linear(None, 20), fn.ReLU(), fn.Linear(None, 3))


def equal(one, other):
    """Return whether two fitted estimators have equal params, bit for bit."""
    return fn.tree.equal(one.params_, other.params_)


def errors_of(cases):
    """Return the failures in a list of (message, call): calls that raise no ``ValueError`` with the message."""
    problems = []
    for words, call in cases:
        try:
            call()
            problems.append(f"{words}: nothing raised")
        except ValueError as error:
            problems += [f"{words}: {error}"] * (re.search(words, str(error)) is None)
    return problems


@pytest.mark.parametrize("estimator", [Classifier(), Regressor()])
def test_the_checks_of_scikit_learn_pass(estimator):
    """All pass with the defaults; array APIs other than numpy's are checked only if the environment enables them."""
    found = check_estimator(estimator, on_skip=None, on_fail=None)
    assert {one["check_name"] for one in found if one["status"] != "passed"} <= {"check_array_api_input"}
    assert [one["check_name"] for one in found if one["status"] == "failed" or one["expected_to_fail"]] == []
    assert len(found) >= 60


# beside fit


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_params_are_those_of_fit(dtype):
    """With the same key they agree bit for bit; float64 starts from the same initial params."""
    classifier = Classifier(NET, epochs=3, key=7).fit(X.astype(dtype), Y)
    net = fn.infer_sizes(NET, (2, 4))
    kind = torch.float32 if dtype is np.float32 else torch.float64
    data = torch.tensor(X, dtype=kind), torch.tensor(Y)
    params = fn.tree.cast(net.init(fn.split(fn.key(7), 3)[0]), kind)
    given = None if dtype is np.float32 else params
    fit = fn.fit(net, fn.CrossEntropy(), fn.Adam(), data, epochs=3, batch_size=64, key=7, params=given, progress=False)
    assert classifier.net_ == net
    assert fn.tree.equal(classifier.params_, fit.params)
    assert classifier.loss_curve_ == fit.history["loss"]
    assert classifier.n_iter_ == 3


def test_calls_of_partial_fit_are_epochs_of_fit():
    """They agree bit for bit, also after pickling; the history continues."""
    for make, x, y, how in ((Classifier, X, NAMES, {"classes": NAMES}), (Regressor, INPUTS, TARGETS, {})):
        whole = make(epochs=3, optimizer=FAST).fit(x, y)
        parts = make(optimizer=FAST).partial_fit(x, y, **how)
        parts = pickle.loads(pickle.dumps(parts)).partial_fit(x, y).partial_fit(x, y)
        assert equal(whole, parts)
        assert parts.history_["epoch"] == [1, 2, 3]
        assert parts.loss_curve_ == whole.loss_curve_


def test_a_warm_start_goes_on():
    """Two fits of two epochs equal one of four; without a warm start the second one starts again."""
    whole = Classifier(epochs=4).fit(X, Y)
    warm, cold = Classifier(epochs=2, warm_start=True), Classifier(epochs=2)
    assert equal(whole, warm.fit(X, Y).fit(X, Y))
    assert warm.n_iter_ == 4
    assert equal(cold.fit(X, Y), clone(cold).fit(X, Y).fit(X, Y))


def test_equal_keys_give_equal_bits_and_random_state_is_another_name():
    """It can be a seed, a key or a ``RandomState``, or be set by scikit-learn's ensembles for each member."""
    first = Classifier(epochs=2, key=3).fit(X, Y)
    assert equal(first, Classifier(epochs=2, key=fn.key(3)).fit(X, Y))
    assert equal(first, Classifier(epochs=2, random_state=3).fit(X, Y))
    assert not equal(first, Classifier(epochs=2, key=4).fit(X, Y))
    drawn = [Classifier(epochs=1, random_state=np.random.RandomState(0)).fit(X, Y) for _ in range(2)]
    assert equal(*drawn)
    members = BaggingClassifier(Classifier(epochs=1), n_estimators=2, bootstrap=False, random_state=0).fit(X, Y).estimators_
    assert not equal(*members)


def test_predictions_use_averaged_params():
    """The params for predictions are the optimizer's ``eval_params``, while training continues from the others."""
    opt = fn.Averaged(FAST, fn.EMA(0.9))
    averaged, plain = Regressor(optimizer=opt, epochs=4).fit(INPUTS, TARGETS), Regressor(optimizer=FAST, epochs=4)
    plain.fit(INPUTS, TARGETS)
    assert not equal(averaged, plain)
    parts = Regressor(optimizer=opt)
    for _ in range(4):
        parts.partial_fit(INPUTS, TARGETS)
    assert equal(averaged, parts)


# weights


def test_whole_weights_are_repeated_rows():
    """This holds for mean and sum losses, class weights, sums of losses, and one or several targets."""
    weights = np.random.default_rng(0).integers(0, 4, len(X))
    several = [
        *[(Classifier, loss, X, Y) for loss in (None, fn.CrossEntropy(weight=(1.0, 2.0, 3.0)), fn.MultiMargin())],
        (Classifier, fn.CrossEntropy() + 0.5 * fn.MulticlassFocal(), X, Y),
        (Classifier, fn.BCEWithLogits(), X, Y == 1),
        *[(Regressor, loss, X, X[:, :2] ** 2) for loss in (None, fn.Huber() + fn.L1(), fn.MSE("batch"))],
    ]
    for make, loss, x, y in several:
        estimator = make(loss=loss, epochs=10, batch_size=500, optimizer=fn.SGD(0.1))
        weighted = clone(estimator).fit(x, y, sample_weight=weights)
        repeated = clone(estimator).fit(x.repeat(weights, 0), y.repeat(weights, 0))
        assert fn.tree.allclose(weighted.params_, repeated.params_, rtol=1e-9, atol=1e-12), loss
        assert weighted.loss_curve_ == pytest.approx(repeated.loss_curve_, rel=1e-9)
        assert equal(weighted, clone(estimator).fit(x, y, sample_weight=weights * 4.0))


def test_the_weighted_loss_does_not_depend_on_the_batches():
    """With a learning rate of 0 the loss of an epoch is Σ w ℓ / Σ w over all rows, for any batches."""
    weights = np.where(Y == 0, 100.0, 0.01)
    found = [
        Classifier(epochs=1, batch_size=size, optimizer=fn.SGD(0.0)).fit(X, Y, sample_weight=weights).loss_curve_[0]
        for size in (7, 50, 500)
    ]
    one = Classifier(epochs=1, optimizer=fn.SGD(0.0)).fit(X, Y)
    logp = np.log(one.predict_proba(X))[np.arange(len(Y)), Y]
    assert found == pytest.approx([-np.average(logp, weights=weights)] * 3, rel=1e-9)


def test_small_batches_follow_the_gradient_of_all_rows():
    """At a small learning rate, an epoch of small batches equals one step on all rows, although weights differ by 10⁴."""
    weights = np.where(Y == 0, 100.0, 0.01)
    still = Classifier(epochs=1, optimizer=fn.SGD(0.0)).fit(X, Y, weights).params_
    small, whole = (
        Classifier(epochs=1, batch_size=size, optimizer=fn.SGD(rate)).fit(X, Y, weights).params_
        for size, rate in ((10, 1e-7), (150, 15e-7))
    )
    one, other = (fn.tree.ravel(fn.tree.sub(params, still))[0] for params in (small, whole))
    assert (one - other).norm() < 1e-4 * other.norm()


def test_class_weights_are_weights_of_rows():
    """They can be a dict or ``"balanced"``, are multiplied with row weights, and a weight of 0 excludes a class."""
    fewer, y = X[30:], NAMES[30:]
    for given in ({"setosa": 5.0, "virginica": 0.5, "versicolor": 1.0}, "balanced"):
        by_class = Classifier(epochs=3, class_weight=given).fit(fewer, y)
        by_row = Classifier(epochs=3).fit(fewer, y, compute_sample_weight(given, y))
        assert fn.tree.allclose(by_class.params_, by_row.params_)
    both = Classifier(epochs=3, class_weight={"setosa": 2.0}).fit(X, NAMES, np.where(Y == 0, 1.5, 1.0))
    assert fn.tree.allclose(both.params_, Classifier(epochs=3).fit(X, NAMES, np.where(Y == 0, 3.0, 1.0)).params_)
    without = Classifier(epochs=3, class_weight={"setosa": 0.0, "virginica": 1.0, "versicolor": 1.0}).fit(X, NAMES)
    assert without.classes_.tolist() == ["versicolor", "virginica"]
    times = np.arange(len(fewer)) % 3 + 1
    balanced = Classifier(epochs=3, batch_size=500, class_weight="balanced", optimizer=fn.SGD(0.1))
    repeated = clone(balanced).fit(fewer.repeat(times, 0), y.repeat(times))
    assert fn.tree.allclose(balanced.fit(fewer, y, times).params_, repeated.params_, rtol=1e-9, atol=1e-12)
    several = Classifier(epochs=3, class_weight="balanced").fit(LABELED, LABELS)
    assert equal(several, Classifier(epochs=3).fit(LABELED, LABELS, compute_sample_weight("balanced", LABELS)))


def test_metrics_do_not_see_weights():
    """At a learning rate of 0 their values equal those without weights."""
    how = {"epochs": 1, "optimizer": fn.SGD(0.0), "metrics": [fn.accuracy, fn.F1()]}
    plain, weighted = Classifier(**how).fit(X, Y), Classifier(**how).fit(X, Y, np.arange(len(Y)) + 1.0)
    for name in ("accuracy", "f1"):
        assert weighted.history_[name] == plain.history_[name]


# outputs


def test_probabilities_belong_to_the_predictions():
    """This covers two classes with one or two outputs, three classes, probabilities as outputs, and one class."""
    one, three = fn.Linear(None, 1), fn.Linear(None, 3)
    cases = {
        "two outputs": (Classifier(), X[TWO], NAMES[TWO]),
        "one output": (Classifier(one, fn.BCEWithLogits()), X[TWO], NAMES[TWO]),
        "focal": (Classifier(one, fn.Focal()), X[TWO], NAMES[TWO]),
        "probability": (Classifier(fn.serial(one, fn.Sigmoid()), fn.BCE()), X[TWO], NAMES[TWO]),
        "no axis": (Classifier(fn.serial(one, fn.Squeeze(1)), fn.BCEWithLogits()), X[TWO], NAMES[TWO]),
        "three": (Classifier(), X, NAMES),
        "log-probabilities": (Classifier(fn.serial(three, fn.LogSoftmax(1)), fn.NLL()), X, NAMES),
        "one class": (Classifier(), X[:50], NAMES[:50]),
        "one class, one output": (Classifier(loss=fn.BCEWithLogits()), X[:50], NAMES[:50]),
    }
    for name, (estimator, x, y) in cases.items():
        fitted = estimator.set_params(epochs=60, optimizer=fn.Adam(0.02)).fit(x, y)
        p, said = fitted.predict_proba(x), fitted.predict(x)
        assert p.shape == (len(x), len(fitted.classes_)), name
        assert np.abs(p.sum(1) - 1).max() < 1e-15 * len(p), name
        assert (fitted.classes_[p.argmax(1)] == said).all(), name
        assert np.allclose(np.exp(fitted.predict_log_proba(x)), p), name
        assert fitted.decision_function(x).shape == ((len(x),) if len(fitted.classes_) == 2 else (len(x), len(fitted.classes_)))
        assert fitted.score(x, y) > 0.9, name


def test_logarithms_of_probabilities_are_finite():
    """This holds even if the probabilities round to 0 and 1."""
    fitted = Classifier(epochs=20, optimizer=fn.SGD(1.0)).fit(X[TWO], Y[TWO])
    far = X[TWO] * 1e6
    assert (fitted.predict_proba(far) == 0).any()
    assert np.isfinite(fitted.predict_log_proba(far)).all()
    several = Classifier(epochs=20).fit(LABELED, LABELS)
    assert np.isfinite(several.predict_log_proba(LABELED * 1e6)).all()


def test_several_labels_a_row():
    """Labels are dense or sparse indicators; early stopping and partial_fit work."""
    fitted = Classifier(epochs=60, optimizer=FAST).fit(LABELED, LABELS)
    assert (fitted.predict(LABELED) == LABELS).mean() > 0.95
    assert (fitted.predict(LABELED) == (fitted.predict_proba(LABELED) > 0.5)).all()
    assert equal(fitted, clone(fitted).fit(LABELED, sparse.csr_array(LABELS)))
    assert Classifier(epochs=60, early_stopping=True, patience=2).fit(LABELED, LABELS).n_iter_ <= 60
    assert Classifier().partial_fit(LABELED, LABELS).predict(LABELED).shape == LABELS.shape


def test_a_regressor_predicts_in_the_shape_of_the_targets():
    """They can be (N,), (N, 1) or (N, 2), for nets with or without an output axis, in the dtype of X, or scaled."""
    bare = fn.serial(fn.Linear(None, 1), fn.Squeeze(1))
    for y, net in ((TARGETS[:, 0], None), (TARGETS[:, :1], None), (TARGETS, None), (TARGETS[:, 0], bare)):
        fitted = Regressor(net, epochs=60, optimizer=fn.Adam(0.05)).fit(INPUTS, y)
        assert fitted.predict(INPUTS).shape == y.shape
        assert fitted.score(INPUTS, y) > 0.95
    assert Regressor(epochs=1).fit(INPUTS.astype(np.float32), TARGETS).predict(INPUTS).dtype == np.float32
    inner = Regressor(epochs=60, optimizer=fn.Adam(0.05))
    assert (
        TransformedTargetRegressor(inner, transformer=StandardScaler())
        .fit(INPUTS, 1e4 + 100 * TARGETS)
        .score(INPUTS, 1e4 + 100 * TARGETS)
        > 0.95
    )


# scikit-learn's tools


def test_a_grid_search_over_epochs_rates_and_nets():
    """It runs in a pipeline; two workers give the scores of one, and every combination differs."""
    grid = {
        "classifier__epochs": [2, 20],
        "classifier__optimizer__lr": [1e-3, 3e-2],
        "classifier__net": [fn.Linear, NET, fn.mlp([4, 10, 3])],
    }
    searches = [GridSearchCV(make_pipeline(StandardScaler(), Classifier()), grid, cv=2, n_jobs=jobs) for jobs in (1, 2)]
    with joblib.parallel_config("threading"):
        for search in searches:
            search.fit(X, NAMES)
    scores, others = (search.cv_results_["mean_test_score"] for search in searches)
    assert (scores == others).all()
    assert searches[0].best_params_ == searches[1].best_params_
    assert searches[0].best_score_ > 0.9
    assert len({*scores.tolist()}) > 4


def test_fields_of_values_are_parameters():
    """They belong to an optimizer, the default optimizer, an inner layer, or a loss; given values do not change."""
    classifier = Classifier(NET, fn.CrossEntropy(), epochs=1)
    deep = classifier.get_params()
    assert (deep["optimizer__lr"], deep["net__0__out_features"], deep["loss__label_smoothing"]) == (1e-3, 20, 0.0)
    assert "optimizer__lr" not in classifier.get_params(deep=False)
    other = clone(classifier).set_params(optimizer__lr=0.1, net__0__out_features=9, net__1=fn.Tanh(), loss__label_smoothing=0.1)
    assert other.net == fn.serial(fn.Linear(None, 9), fn.Tanh(), fn.Linear(None, 3))
    assert (other.optimizer, other.loss) == (fn.Adam(0.1), fn.CrossEntropy(label_smoothing=0.1))
    assert (classifier.net, classifier.optimizer, classifier.loss) == (NET, None, fn.CrossEntropy())
    assert other.fit(X, Y).net_[0].out_features == 9
    assert other.set_params(net=NET, net__0__out_features=8).net[0].out_features == 8
    attention = fn.MultiHeadAttention(8, 2)
    assert Classifier(attention).set_params(net__embed_dim=9, net__num_heads=3).net.num_heads == 3
    assert "label_smoothing=0.1" in repr(other)
    assert "label_smoothing" in other._repr_html_()


def test_a_fitted_estimator_is_copied_and_saved(tmp_path):
    """Pickle, joblib and copy predict the same; a clone is not fitted."""
    fitted = Classifier(NET, epochs=2, metrics=[fn.accuracy]).fit(X, NAMES)
    joblib.dump(fitted, tmp_path / "classifier")
    for other in (
        pickle.loads(pickle.dumps(fitted)),
        joblib.load(tmp_path / "classifier"),
        copy.deepcopy(fitted),
        copy.copy(fitted),
    ):
        assert (other.predict_proba(X) == fitted.predict_proba(X)).all()
        assert other.history_ == fitted.history_
    with pytest.raises(NotFittedError):
        clone(fitted).predict(X)


def test_data_frames_keep_their_columns():
    """Reordered, missing and additional columns are refused by name; y can be a categorical series."""
    frame, y = pd.DataFrame(X, columns=[*"abcd"]), pd.Series(NAMES, dtype="category")
    fitted = Classifier(epochs=30, optimizer=FAST).fit(frame, y)
    assert fitted.feature_names_in_.tolist() == [*"abcd"]
    assert fitted.score(frame, y) > 0.9
    assert fitted.predict(frame[:1]).tolist() == ["setosa"]
    assert not errors_of(
        [
            ("must be in the same order", lambda: fitted.predict(frame[[*"bacd"]])),
            ("missing:\n- d", lambda: fitted.predict(frame[[*"abc"]])),
            ("unseen at fit time:\n- e", lambda: fitted.predict(frame.assign(e=0.0))),
            ("missing:\n- a", lambda: fitted.partial_fit(frame[[*"bcd"]], y)),
        ]
    )


def test_calibration_and_cross_validation():
    """Meta-estimators clone it, weight rows, and request probabilities."""
    classifier = Classifier(epochs=30, optimizer=FAST)
    assert CalibratedClassifierCV(classifier, cv=2).fit(X, NAMES, sample_weight=np.ones(len(X))).score(X, NAMES) > 0.9
    assert cross_val_score(classifier, X, NAMES, cv=3, scoring="roc_auc_ovr").min() > 0.95
    assert cross_val_score(Regressor(epochs=60, optimizer=fn.Adam(0.05)), INPUTS, TARGETS, cv=2).min() > 0.9


# nets


def test_early_stopping_keeps_the_best_params():
    """Rows are set aside with the class proportions; an ``EarlyStopping`` can monitor a metric."""
    net = fn.serial(fn.Linear(None, 10))
    how = {"epochs": 60, "optimizer": fn.Adam(0.3), "validation_fraction": 0.2, "metrics": [fn.ConfusionMatrix(num_classes=10)]}
    fitted = Classifier(net, early_stopping=True, patience=3, **how).fit(PIXELS, DIGITS)
    losses = fitted.history_["validation_loss"]
    assert fitted.n_iter_ == len(losses) == int(np.argmin(losses)) + 4 < 60
    assert fitted.history_["validation_confusion_matrix"][0].sum() == 100
    rows, all_rows = fitted.history_["validation_confusion_matrix"][0].sum(1).numpy(), np.bincount(DIGITS)
    assert np.abs(rows - all_rows / 5).max() < 1
    shorter = Classifier(net, early_stopping=True, patience=3, **how | {"epochs": int(np.argmin(losses)) + 1}).fit(PIXELS, DIGITS)
    assert equal(fitted, shorter)
    monitor = fn.EarlyStopping(2, "validation_accuracy", "max")
    accuracies = Classifier(net, early_stopping=monitor, **how | {"metrics": [fn.accuracy]}).fit(PIXELS, DIGITS).history_
    assert accuracies["validation_accuracy"][-1] <= max(accuracies["validation_accuracy"][:-2])


def test_nets_of_images_sequences_and_indices():
    """Examples are a convolution after Unflatten, an LSTM, an embedding of integers, a function, and the default net."""
    steps = PIXELS.reshape(-1, 8, 8)
    conv = fn.serial(
        fn.Unflatten(-1, (1, 8, 8)), fn.Conv2d(None, 8, 3), fn.BatchNorm2d(None), fn.ReLU(), fn.Flatten(), fn.Linear(None, 10)
    )
    lstm = fn.serial(fn.LSTM(8, 32, batch_first=True), fn.Select(0), fn.Index[:, -1], fn.Linear(32, 10))
    cases = {
        "convolution": (Classifier(conv), PIXELS),
        "sequence": (Classifier(lstm), steps),
        "three axes": (Classifier(), steps),
        "maker": (Classifier(lambda features, outputs: fn.mlp([features, 30, outputs])), PIXELS),
        "shape of a row": (
            Classifier(lambda shape, outputs: fn.serial(fn.Flatten(), fn.Linear(shape[0] * shape[1], outputs))),
            steps,
        ),
        "integers": (Classifier(fn.serial(fn.Embedding(17, 4), fn.Flatten(), fn.Linear(None, 10)), dtype="int64"), PIXELS * 16),
    }
    for name, (estimator, x) in cases.items():
        fitted = estimator.set_params(epochs=25, optimizer=fn.Adam(0.02)).fit(x, DIGITS)
        assert fitted.score(x, DIGITS) > 0.9, name
        assert {leaf.dtype for leaf in fn.tree.leaves(fitted.params_) if leaf.is_floating_point()} == {torch.float32}


def test_the_last_batch_may_be_left_out():
    """A batch norm cannot use one row; the error suggests it."""
    net = fn.serial(fn.Linear(None, 10), fn.BatchNorm1d(None), fn.Linear(None, 2))
    rows = slice(36, 101)
    with pytest.raises(ValueError, match="more than one value per channel") as caught:
        Classifier(net).fit(X[rows], Y[rows] == 0)
    assert "drop_last=True leaves it out" in caught.value.__notes__[-1]
    assert Classifier(net, drop_last=True).fit(X[rows], Y[rows] == 0).n_iter_ == 100


def test_a_maker_that_fails_is_named():
    """Its own error is raised too."""
    with pytest.raises(TypeError, match="positional argument") as caught:
        Classifier(lambda features: fn.Linear(features, 3)).fit(X, Y)
    assert caught.value.__notes__ == ["  in Classifier, net(n_features, n_outputs)"]


def test_the_dtype_is_that_of_x_or_the_one_asked_for():
    """Names, numpy's and torch's dtypes are accepted; half precision predicts in float32."""
    for given, x, found in (
        (None, X, torch.float64),
        (None, X.astype(np.float32), torch.float32),
        (None, X.astype(np.float16), torch.float64),
        ("float32", X, torch.float32),
        (np.float64, X.astype(np.float32), torch.float64),
        (np.dtype("float32"), X, torch.float32),
        (torch.bfloat16, X, torch.bfloat16),
    ):
        fitted = Regressor(epochs=1, dtype=given).fit(x, X[:, 0])
        assert {leaf.dtype for leaf in fn.tree.leaves(fitted.params_)} == {found}
        assert fitted.predict(x).dtype == (np.float64 if found is torch.float64 else np.float32)


# refusals


def test_wrong_parameters_are_refused_by_fit():
    """The error has the name; nothing is refused earlier."""
    wrong = {
        "net must be a funcnet layer": {"net": 3},
        r"net must be a funcnet layer.* got Linear\(in": {"net": torch.nn.Linear(4, 3)},
        "net, a function .*, must return a layer, got 3": {"net": lambda features, outputs: 3},
        r"output of net must have the shape \(N, 3\), .* got \(N, 5\) from Linear": {"net": fn.Linear(4, 5)},
        r"output of net must have the shape \(N, 3\), .* got a tuple of 2": {"net": fn.branch(fn.Linear(4, 3), fn.Linear(4, 3))},
        "in_features=7": {"net": fn.Linear(7, 3)},
        "loss must be a funcnet loss": {"loss": torch.nn.CrossEntropyLoss()},
        "needs two classes, or several labels per row": {"loss": fn.BCEWithLogits()},
        "optimizer must be a funcnet optimizer": {"optimizer": "adam"},
        "epochs must be a whole number of at least 1, got 0": {"epochs": 0},
        "batch_size must be a whole number of at least 1": {"batch_size": "auto"},
        "key": {"key": None},
        "random_state must be a whole number, a numpy.random.RandomState or None, got 'seed'": {"random_state": "seed"},
        "early_stopping must be True or False": {"early_stopping": 3},
        "patience must be": {"early_stopping": True, "patience": 0},
        "validation_fraction must be a number between 0 and 1": {"early_stopping": True, "validation_fraction": 1},
        "metrics must be": {"metrics": 3},
        "callbacks must be a list": {"callbacks": 3},
        "drop_last must be True or False": {"drop_last": 1},
        "warm_start must be True or False": {"warm_start": "yes"},
        "dtype must be a dtype of torch or numpy": {"dtype": "float31"},
        "dtype must be a dtype of torch or numpy, or None": {"dtype": torch},
        "dtype must be real": {"dtype": complex},
        "must contain whole numbers for dtype=torch.int64": {"dtype": int},
        "device must be a device of torch": {"device": "nowhere"},
        "weights from -1": {"class_weight": {0: -1, 1: 1, 2: 1}},
        "class_weight must be a dict of weights by class, 'balanced' or None, got 'unbalanced'": {"class_weight": "unbalanced"},
    }
    assert not errors_of([(words, lambda how=how: Classifier(**how).fit(X, Y)) for words, how in wrong.items()])


def test_wrong_data_are_refused():
    """scikit-learn rejects sparse and missing numbers; funcnet rejects labels, shapes and weights, with the reason."""
    fitted, regressor = Classifier(epochs=1).fit(X, NAMES), Regressor(epochs=1).fit(INPUTS, TARGETS)
    sequence = PIXELS.reshape(-1, 8, 8)
    sequences, steps_first = Classifier(epochs=1).fit(sequence, DIGITS), fn.serial(fn.LSTM(8, 10), fn.Select(0), fn.Index[:, -1])
    assert not errors_of(
        [
            ("got multiclass-multioutput y", lambda: Classifier().fit(X, np.stack([Y, Y], 1))),
            (
                "validation_fraction=0.1 must leave rows of each class for training and validation, got 9 rows: ",
                lambda: Classifier(early_stopping=True).fit(X[::17], Y[::17]),
            ),
            ("Regressor: y must contain numbers, got an array of dtype <U10", lambda: Regressor().fit(X, NAMES)),
            (
                "labels must be of one sortable type.*got int, str",
                lambda: Classifier().fit(X, np.array(["a", 1] * 75, dtype=object)),
            ),
            ("labels must be of one sortable type", lambda: Classifier().partial_fit(X, Y, classes=["a", None])),
            ("Unknown label type: continuous", lambda: Classifier().fit(X, X[:, 0])),
            (
                "labels must be among classes, setosa, versicolor, virginica, got rose",
                lambda: fitted.partial_fit(X[:1], ["rose"]),
            ),
            ("must use the same classes, setosa.*got 0, 1, 2", lambda: fitted.partial_fit(X, Y, classes=[0, 1, 2])),
            ("classes must contain all classes in the first call", lambda: Classifier().partial_fit(X, Y)),
            ("one call does not see all rows", lambda: Classifier(class_weight="balanced").partial_fit(X, Y, [0, 1, 2])),
            ("early_stopping must be False", lambda: Regressor(early_stopping=True).partial_fit(INPUTS, TARGETS)),
            (
                r"y must have the same shape as before, \(N, 2\), got \(120,\)",
                lambda: regressor.partial_fit(INPUTS, TARGETS[:, 0]),
            ),
            (
                r"rows of X must have the shape of those in fit, \(8, 8\), got \(8, 7\)",
                lambda: sequences.predict(np.ones((3, 8, 7))),
            ),
            (
                "a row of the output must depend on one row of X; .*batch_first=True",
                lambda: Classifier(steps_first).fit(sequence, DIGITS),
            ),
            ("X has 3 features", lambda: fitted.predict(X[:, :3])),
            ("NaN", lambda: fitted.predict(np.where(X > 1, np.nan, X))),
            ("Negative values in data passed to `sample_weight`", lambda: Classifier().fit(X, Y, -np.ones(len(X)))),
            (
                "above 0 for some row, got weights from 0 to 0",
                lambda: Classifier(class_weight=dict.fromkeys(range(3), 0.0)).fit(X, Y),
            ),
        ]
    )
    with pytest.raises(TypeError, match="Sparse data"):
        Classifier().fit(sparse.csr_array(X), Y)


def test_wrong_fields_are_refused():
    """A field can be invalid, missing, or of a parameter that is not a value; scikit-learn names the parameters."""
    classifier = Classifier(NET)
    assert not errors_of(
        [
            (
                "Classifier, optimizer: a parameter must be one of .*lr.*, got 'rate'",
                lambda: classifier.set_params(optimizer__rate=1),
            ),
            ("Classifier, net__0: a parameter must be one of in_features", lambda: classifier.set_params(net__0__width=1)),
            ("Classifier, net: only a value has fields, such as '0', got None", lambda: Classifier().set_params(net__0__width=1)),
            ("out_features must be", lambda: classifier.set_params(net__0__out_features=0)),
            ("Invalid parameter 'depth'", lambda: classifier.set_params(depth=1)),
            ("Invalid parameter 'depth'", lambda: classifier.set_params(depth__width=1)),
        ]
    )
    assert classifier.net == NET


def test_a_training_that_fails_leaves_the_params():
    """Non-finite numbers stop it with an error, and the estimator predicts as before."""
    fitted = Regressor(epochs=2).fit(INPUTS, TARGETS)
    before = fitted.predict(INPUTS)
    with pytest.raises(FloatingPointError, match="finite"):
        fitted.set_params(optimizer=fn.SGD(1e6), epochs=50).fit(INPUTS * 100, TARGETS)
    assert (fitted.predict(INPUTS) == before).all()


def test_what_fails_leaves_classes_and_columns():
    """After an error, also in a callback, or an interruption, the fitted attributes are consistent."""

    def fail(epoch):
        raise KeyboardInterrupt

    fitted = Classifier(epochs=1).fit(X, Y)
    before = fitted.predict_proba(X)
    fitted.set_params(callbacks=[fail])
    for inputs, labels in [(X[:, :2], Y), (X, NAMES), (X[TWO], Y[TWO])]:
        with pytest.raises(KeyboardInterrupt):
            fitted.fit(inputs, labels)
        assert list(fitted.classes_) == [0, 1, 2]
        assert (fitted.predict_proba(X) == before).all()
    unfitted = Classifier(callbacks=[fail])
    with pytest.raises(KeyboardInterrupt):
        unfitted.fit(X, Y)
    assert not hasattr(unfitted, "n_features_in_")


def test_parameters_set_after_fit_change_no_prediction():
    """A loss keeps its meaning from training; with ``BCE`` the outputs are probabilities."""
    net = fn.serial(fn.Linear(4, 1), fn.Sigmoid())
    fitted = Classifier(net, fn.BCE(), epochs=2).fit(X, Y == 0)
    before = fitted.predict_proba(X)
    assert (fitted.set_params(loss=fn.BCEWithLogits()).predict_proba(X) == before).all()


def test_a_training_continues_with_what_its_params_depend_on():
    """Another net, dtype, or loss for other outputs is refused; another learning rate or a similar loss is accepted."""
    fitted = Classifier(epochs=1, warm_start=True).fit(X[TWO], Y[TWO])
    again = lambda **changes: lambda: copy.deepcopy(fitted).set_params(**changes).fit(X[TWO], Y[TWO])
    assert not errors_of(
        [
            ("continue with the first net, None, got Linear", again(net=fn.Linear)),
            ("continue with the dtype torch.float64, got torch.float32", again(dtype="float32")),
            (r"continue with a loss for 2 outputs, got BCEWithLogits\(\), for 1", again(loss=fn.BCEWithLogits())),
            ("continue with the first net", lambda: copy.deepcopy(fitted).set_params(net=NET).partial_fit(X[TWO], Y[TWO])),
        ]
    )
    assert again(loss=fn.CrossEntropy(label_smoothing=0.1), optimizer__lr=0.1, dtype="float64")().n_iter_ == 2
