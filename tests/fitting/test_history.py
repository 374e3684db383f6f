"""Histories and the result of ``fit``: columns and rows, tables, plots, copies and comparisons."""

import copy
import math
import pickle
import sys

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import funcnet as fn

NAN = math.nan


def history_of(count):
    """Return a history with columns of every kind; one begins in the second epoch."""
    history = fn.History()
    for i in range(1, count + 1):
        row = {"epoch": i, "loss": 2.0 / i, "loss.size": 1.0 / i, "seconds": 0.5, "validation_loss": 3.0 / i, "hits": i}
        late = {"accuracy": 1 - 1 / i} if i > 1 else {}
        history.append({**row, "confusion_matrix": i * torch.eye(2), **late})
    return history


def test_an_epoch_is_a_row_and_what_is_measured_a_column():
    """A column that begins late is shorter, and its values belong to the last epochs."""
    history = history_of(3)
    assert history["loss"] == [2.0, 1.0, 2.0 / 3]
    assert history["accuracy"] == [0.5, 1 - 1 / 3]
    rows = history.rows()
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert ["accuracy" in row for row in rows] == [False, True, True]
    assert rows[1]["accuracy"] == 0.5
    again = fn.History()
    for row in rows:
        again.append(row)
    assert again == history
    assert fn.History().rows() == []


def test_a_column_that_a_row_lacks_has_none_there():
    """Later values therefore stay aligned with their epochs."""
    history = fn.History({"epoch": [1], "loss": [1.0]})
    history.append({"epoch": 2})
    history.append({"epoch": 3, "loss": 0.5})
    assert history["loss"] == [1.0, None, 0.5]
    assert str(history).splitlines()[2].split() == ["2"]
    assert history.best("loss")["epoch"] == 3


NUMBERS = st.none() | st.integers(-9, 9) | st.floats() | st.just(torch.eye(2))


@given(st.lists(st.dictionaries(st.sampled_from(["loss", "f1", "matrix", "validation_f1"]), NUMBERS), max_size=8))
def test_whatever_rows_are_appended_come_back(rows):
    """Each value is in its row, whatever the beginning and gaps of its column, and the table has a line for each row."""
    history = fn.History()
    for i, row in enumerate(rows):
        history.append({"epoch": i, **row})
    got = history.rows()
    assert [row["epoch"] for row in got] == [*range(len(rows))]
    for name in ("loss", "f1", "matrix", "validation_f1"):
        assert fn.History({name: [row.get(name) for row in got]}) == fn.History({name: [row.get(name) for row in rows]})
    assert pickle.loads(pickle.dumps(history)) == history == fn.History(history)
    assert len(str(history).splitlines()) == 1 + len(rows)


def test_values_are_python_s_numbers_and_tensors_without_gradients():
    """torch and numpy scalars become numbers; a tensor is copied, so a later write does not change it."""
    matrix = torch.ones(2, 2, requires_grad=True)
    history = fn.History()
    history.append(
        {"epoch": numpy.int64(1), "loss": torch.tensor(0.5, requires_grad=True), "f1": numpy.float32(0.25), "m": matrix}
    )
    with torch.no_grad():
        matrix.zero_()
    assert [(type(column[0]), column[0]) for column in [*history.values()][:3]] == [(int, 1), (float, 0.5), (float, 0.25)]
    assert not history["m"][0].requires_grad
    assert history["m"][0].sum() == 4


def test_a_refused_row_changes_nothing():
    """All of its values are checked first."""
    history = history_of(2)
    before = history.copy()
    with pytest.raises(ValueError, match=r"History.append: the values of 'note' must be numbers, tensors or None, got 'warm'"):
        history.append({"epoch": 3, "loss": 1.0, "note": "warm"})
    with pytest.raises(ValueError, match=r"History.append: row must be a dict of values by name, got None"):
        history.append(None)
    with pytest.raises(ValueError, match=r"History.append: row must be"):
        history.append({3: 0.5})
    assert history == before


@pytest.mark.parametrize(("columns", "message"), [
    ([1.0], "columns must be a dict of lists, got a list of 1"),
    ({"loss": 1.0}, "each column must have a name and a list of values, got 'loss': 1.0"),
    ({1: [1.0]}, "each column must have a name and a list of values, got 1: a list of 1"),
    ({"loss": ["low"]}, "the values of 'loss' must be numbers, tensors or None, got 'low'"),
])  # fmt: skip
def test_a_history_is_made_of_lists_of_values(columns, message):
    """The constructor refuses anything else."""
    with pytest.raises(ValueError, match=r".") as caught:
        fn.History(columns)
    assert str(caught.value) == f"History: {message}"


def test_copies_and_pickles_are_the_history():
    """Each is a history, and appending to a copy does not change the original."""
    history = history_of(3)
    assert isinstance(history, dict)
    for made in (
        history.copy(),
        copy.copy(history),
        copy.deepcopy(history),
        pickle.loads(pickle.dumps(history)),
        fn.History(history),
    ):
        assert type(made) is fn.History
        assert made == history
        made.append({"epoch": 4})
        assert made != history
    assert len(history["epoch"]) == 3


def test_histories_are_compared_by_value():
    """Tensors compare by dtype, shape and values, and NaN equals itself; the other may be a plain dict."""
    history = fn.History({"loss": [NAN, 1.0], "matrix": [torch.tensor([1.0, NAN])]})
    assert history == fn.History({"matrix": [torch.tensor([1.0, float("nan")])], "loss": [float("nan"), 1.0]})
    assert history == {"loss": [float("nan"), 1.0], "matrix": [torch.tensor([1.0, NAN])]}
    for other in (
        {"loss": [NAN, 1.0]},
        {"loss": [NAN, 2.0], "matrix": history["matrix"]},
        {"loss": [NAN], "matrix": history["matrix"]},
        {"loss": history["loss"], "matrix": [torch.tensor([1.0, 2.0])]},
        {"loss": history["loss"], "matrix": [torch.tensor([1.0, NAN], dtype=torch.float64)]},
        {"loss": history["loss"], "matrix": [torch.tensor([1.0])]},
        {"loss": history["loss"], "matrix": [1.0]},
        None,
    ):
        assert history != other
        assert not history == other  # noqa: SIM201 (two separate methods)


def test_the_best_epoch_is_that_of_a_column():
    """The best value is the smallest or largest, the first one in a tie; NaN and None are ignored."""
    history = fn.History({"epoch": [1, 2, 3, 4, 5], "loss": [NAN, 0.5, 0.25, 0.25, NAN], "accuracy": [0.5, NAN, 0.75]})
    assert history.best("loss") == {"epoch": 3, "loss": 0.25, "accuracy": 0.5}
    assert history.best("accuracy", mode="max")["epoch"] == 5
    for call, message in {
        lambda: history.best("f1"): "a column must be one of the history's (epoch, loss, accuracy), got 'f1'",
        lambda: history.best("loss", "least"): "mode must be 'min' or 'max', got 'least'",
        lambda: history.best("loss", [max]): f"mode must be 'min' or 'max', got {[max]}",
        lambda: fn.History({"loss": [NAN, None]}).best("loss"): "the column 'loss' must have a number that is not NaN, got none",
        lambda: fn.History({"m": [torch.eye(2)]}).best("m"): "the column 'm' must have a number that is not NaN, got none",
    }.items():
        with pytest.raises(ValueError, match=r".") as caught:
            call()
        assert str(caught.value) == f"History.best: {message}"


def test_a_history_prints_as_a_table():
    """Tensors are left out, long tables show both ends, wide ones are split, and the repr is one line."""
    lines = str(history_of(3)).splitlines()
    assert lines[0].split() == ["epoch", "loss", "loss.size", "seconds", "validation_loss", "hits", "accuracy"]
    assert lines[3].split() == ["3", "0.6667", "0.3333", "0.5", "1", "3", "0.6667"]
    assert [len(line) for line in lines[2:]] == [len(lines[0])] * 2
    lines = str(history_of(100)).splitlines()
    assert [line.split()[0] for line in lines] == ["epoch", *"12345", "...", "96", "97", "98", "99", "100"]
    wide = fn.History({"epoch": [1], **{f"a_long_name_{i}": [0.5] for i in range(20)}})
    blocks = [block.splitlines() for block in str(wide).split("\n\n")]
    assert all(len(line) <= 120 for block in blocks for line in block)
    assert [block[0].split()[0] for block in blocks] == ["epoch"] * 3
    assert sum(len(block[0].split()) - 1 for block in blocks) == 20
    assert repr(history_of(1)) == (
        "<History of 1 epoch: epoch, loss, loss.size, seconds, validation_loss, hits, confusion_matrix>"
    )
    assert [str(fn.History()), repr(fn.History())] == ["no epochs", "<History of 0 epochs>"]
    assert history_of(2)._repr_html_().count("<tr>") == 3


def panels(figure):
    """Return the title of each panel of a plot, and the labels of its lines."""
    return {axes.get_title(): [line.get_label() for line in axes.get_lines()] for axes in figure.axes}


@pytest.mark.parametrize("count", [1, 2, 40])
def test_a_picture_has_a_panel_for_each_thing_measured(count):
    """Validation data are drawn with training data, epochs are whole numbers, and matrices have no panel."""
    history = history_of(count)
    history |= {"grad_norm": [10.0**-i for i in range(count)], "lr": [0.1] * count, "validation_accuracy": [0.5] * count}
    figure = history.plot()
    figure.draw_without_rendering()
    accuracy = {"accuracy": ["training", "validation"]} if count > 1 else {"validation accuracy": ["validation"]}
    assert panels(figure) == {
        "loss": ["training", "validation"], "hits": ["training"], **accuracy, "parts of the loss": ["size"], "norms": ["grad norm"],
        "learning rate": ["lr"], "seconds per epoch": ["training"],
    }  # fmt: skip
    scales = {axes.get_title(): axes.get_yscale() for axes in figure.axes}
    assert scales["norms"] == ("log" if count > 2 else "linear")
    assert scales["learning rate"] == scales["seconds per epoch"] == "linear"
    for axes in figure.axes:
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert ticks
        assert all(tick == int(tick) for tick in ticks)
        assert (axes.get_legend() is None) == (len(axes.get_lines()) == 1)
        for line in axes.get_lines():
            assert [*line.get_xdata()] == history["epoch"]


def test_a_picture_has_gaps_where_nothing_finite_was_measured():
    """A value without neighbors has a marker; an empty panel says so; a late column ends at the last epoch."""
    losses = [1.0, NAN, 0.5, None, *[0.25] * 30, math.inf]
    figure = fn.History({"epoch": [*range(1, 36)], "loss": losses, "f1": [0.5, 0.75], "r2": [NAN] * 35}).plot()
    figure.draw_without_rendering()
    loss, f1, r2 = figure.axes
    drawn = loss.get_lines()[0]
    assert [math.isnan(y) for y in drawn.get_ydata()] == [False, True, False, True, *[False] * 30, True]
    assert drawn.get_markevery() == [0, 2]
    assert [x for x, y in zip(*f1.get_lines()[0].get_data(), strict=True) if not math.isnan(y)] == [34, 35]
    assert [text.get_text() for text in r2.texts] == ["no finite values"]


def test_a_picture_shows_names_as_they_are():
    """A name with ``$`` is no formula, and one that begins with ``_`` is in the legend too."""
    figure = fn.History({"loss.$a$": [1.0, 2.0], "loss._b": [1.0, 2.0], "$c_$": [1.0, 2.0]}).plot()
    figure.draw_without_rendering()
    assert [text.get_text() for axes in figure.axes if axes.get_legend() for text in axes.get_legend().get_texts()] == [
        r"\$a\$",
        " _b",
    ]


def test_a_picture_of_chosen_columns_has_these_only():
    """Missing columns and an empty list are refused."""
    history = history_of(3)
    assert panels(history.plot(["loss"])) == {"loss": ["training"]}
    for columns, message in {
        ("f2",): "a column must be one of the history's (epoch, loss",
        ("confusion_matrix",): "the columns must hold numbers, got 'confusion_matrix', which holds tensors",
        (): "columns must be a list of names, at least one, got a tuple of 0",
        "loss": "columns must be a list of names, at least one, got 'loss'",
    }.items():
        with pytest.raises(ValueError, match=r".") as caught:
            history.plot(columns)
        assert message in str(caught.value)
    with pytest.raises(ValueError, match="columns must be a list of names, at least one, got a list of 0"):
        fn.History().plot()


def test_a_picture_may_be_part_of_another():
    """Its panels are in the given subfigure, and nothing else is."""
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    left, right = figure.subfigures(1, 2)
    assert history_of(3).plot(["loss", "accuracy"], left) is left
    figure.draw_without_rendering()
    assert [len(part.axes) for part in (left, right)] == [2, 0]
    with pytest.raises(ValueError, match=r"History.plot: figure must be a matplotlib figure or subfigure, got 3"):
        history_of(3).plot(["loss"], 3)


def test_without_matplotlib_a_picture_says_what_to_install(monkeypatch):
    """Nothing else in a history needs it."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"History.plot: matplotlib must be installed; pip install funcnet\[plot\] installs it"):
        history_of(2).plot()
    assert "0.5" in str(history_of(2))


NET = fn.serial(fn.Linear(2, 3), fn.Dropout(0.5), fn.Linear(3, 3))
X, LABELS = fn.random.normal(0, (20, 2)), torch.arange(20) % 3


def fitted(opt=fn.Adam(0.1)):  # noqa: B008 (a value)
    metrics = (fn.accuracy, fn.ConfusionMatrix())
    return fn.fit(NET, fn.CrossEntropy(), opt, (X, LABELS), epochs=2, batch_size=7, key=0, metrics=metrics, progress=False)


def test_what_fit_returns_is_three_and_prints_as_a_table():
    """Sizes come first, then the history; tensors are not printed."""
    fit = fitted()
    params, state, history = fit
    assert type(history) is fn.History
    lines = str(fit).splitlines()
    assert repr(fit) == str(fit)
    assert lines[0].split() == ["params", f"{fn.tree.size(params)}", f"{fn.tree.nbytes(params)}", "B"]
    assert lines[1].split()[:3] == ["optimizer", "state", f"{fn.tree.size(state)}"]
    assert "\n".join(lines[3:]) == str(history)
    assert "tensor" not in str(fit)
    assert panels(fit.plot(["loss", "accuracy"])) == {"loss": ["training"], "accuracy": ["training"]}
    assert type(pickle.loads(pickle.dumps(fit))) is fn.Fit


@pytest.mark.parametrize(
    "opt", [fn.Adam(0.1), fn.chain(fn.ClipByGlobalNorm(1.0), fn.SGD(0.1, momentum=0.9)), fn.LBFGS()], ids=repr
)
@pytest.mark.parametrize("checked", [False, True])
def test_a_saved_fit_comes_back_bit_for_bit(tmp_path, opt, checked):
    """The file may be checked against a tree, and training continues from it as from the original."""
    fit, path = fitted(opt), tmp_path / "fit.fn"
    fit.history.append({"epoch": 3, "loss": NAN, "confusion_matrix": torch.eye(2, dtype=torch.int32), "f1": math.inf})
    fit.save(path)
    params = NET.init(1)
    got = fn.Fit.load(path, (params, opt.init(params)) if checked else None)
    assert type(got) is fn.Fit
    assert type(got.history) is fn.History
    assert fn.tree.equal(got[:2], fit[:2])
    assert got.history == fit.history
    assert [*got.history] == [*fit.history]
    assert got.history["confusion_matrix"][-1].dtype is torch.int32
    assert fn.load_metadata(path)["history"]["loss"][:2] == fit.history["loss"][:2]
    if checked:
        options = {"epochs": 1, "epochs_done": 2, "batch_size": 7, "key": 0, "progress": False}
        ours, theirs = (
            fn.fit(NET, fn.CrossEntropy(), opt, (X, LABELS), params=one.params, state=one.state, **options) for one in (fit, got)
        )
        assert fn.tree.equal(ours.params, theirs.params)
        assert fn.tree.equal(fn.Fit.load(path, fit).params, fit.params)


def test_a_file_of_another_fit_is_refused(tmp_path):
    """The error names each path of another net, or says that the file holds no fit, or that the tree is no fit."""
    fit, path = fitted(), tmp_path / "fit.fn"
    fit.save(path)
    for net, word in ((fn.Linear(2, 3), "missing"), (fn.serial(fn.Linear(2, 4), fn.Dropout(0.5), fn.Linear(4, 3)), "different")):
        params = net.init(0)
        with pytest.raises(ValueError, match=rf"{word} 'params\.") as caught:
            fn.Fit.load(path, (params, fit.state))
        assert "history" not in str(caught.value)
    with pytest.raises(ValueError, match=r"Fit.load: like must be a Fit or a pair \(params, state\), got a dict with the keys"):
        fn.Fit.load(path, {"params": fit.params})
    fn.save(path, fit.params, {"history": {}})
    with pytest.raises(ValueError, match=r"Fit.load: '.*fit.fn' must be a file that Fit.save has written, got a file of another"):
        fn.Fit.load(path)
