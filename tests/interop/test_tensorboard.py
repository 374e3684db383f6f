"""TensorBoard: the events of a training, read back with TensorBoard's own reader."""

import builtins
import functools
import math
import pickle

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import funcnet as fn
from funcnet.interop import tensorboard
from funcnet.interop.tensorboard import TensorBoard

NET = fn.serial(fn.Linear(3, 4), fn.Tanh(), fn.Linear(4, 2))
X, TARGET = fn.random.normal(1, (40, 3)), fn.random.normal(2, (40, 2))
SCHEDULE = fn.CosineSchedule(0.05, 20)
OPT = fn.Adam(SCHEDULE)
fit = functools.partial(fn.fit, NET, fn.MSE(), OPT, (X, TARGET), batch_size=8, key=0, progress=False)


@pytest.fixture
def board(tmp_path):
    """Return a function that creates callbacks for one folder, and close their files at the end."""
    made = []

    def make(**options):
        made.append(TensorBoard(tmp_path / "run", **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def read(board):
    board.close()
    found = EventAccumulator(board.log_dir, size_guidance={"scalars": 0, "histograms": 0, "tensors": 0})
    return found.Reload()


def curve(found, tag):
    return [(event.step, event.value) for event in found.Scalars(tag)]


def test_columns_of_the_history_are_curves(board):
    """These are losses, metrics, norms and times over the number of steps, with the history's numbers in float32."""
    one = board()
    metric = fn.MeanAbsoluteError()
    history = fit(epochs=3, validation=(X, TARGET), metrics=[metric], norms=True, callbacks=[one]).history
    found = read(one)
    tags = {"loss": "loss/training", "validation_loss": "loss/validation", "grad_norm": "norms/grad_norm", "seconds": "seconds"}
    metrics = [name for name in history if name.startswith("validation_") and name != "validation_loss"]
    tags |= {name: f"{name.removeprefix('validation_')}/validation" for name in metrics}
    assert metrics
    for column, tag in tags.items():
        assert [step for step, _ in curve(found, tag)] == [5, 10, 15]
        assert [value for _, value in curve(found, tag)] == pytest.approx(history[column], rel=1e-6)
    assert not found.Tags()["histograms"]


def test_rates_histograms_steps_and_texts(board):
    """On request, the optimizer's rates, the params of each epoch, the loss of every second step, and texts are written."""
    one = board(histograms=True, every=2, optimizer=OPT, net=NET, hparams={"width": 4})
    done = fit(epochs=2, callbacks=[one])
    found = read(one)
    rates = curve(found, "rates/lr")
    assert rates == [(5, pytest.approx(SCHEDULE(5))), (10, pytest.approx(SCHEDULE(10)))]
    assert rates[0] != rates[1]
    assert [step for step, _ in curve(found, "loss/step")] == [2, 4, 6, 8, 10]
    histogram = found.Histograms("params/0.weight")[-1]
    weight = done.params[0]["weight"]
    assert histogram.step == 10
    assert histogram.histogram_value.num == weight.numel()
    assert histogram.histogram_value.sum == pytest.approx(float(weight.sum()), rel=1e-4)
    words = {
        tag: found.Tensors(f"{tag}/text_summary")[0].tensor_proto.string_val[0].decode()
        for tag in ("hparams", "net", "optimizer")
    }
    assert "| width | 4 |" in words["hparams"]
    assert "Linear(in_features=3, out_features=4)" in words["net"]
    assert repr(OPT) in words["optimizer"]


def test_a_resumed_training_writes_nothing_twice(board, tmp_path):
    """This holds even if the interrupted training wrote more after its checkpoint; params equal those without a break."""

    def interrupting(epoch):
        if epoch.number == 3:
            raise KeyboardInterrupt

    options = {"every": 1}
    with pytest.raises(KeyboardInterrupt):
        fit(epochs=4, callbacks=[board(**options), interrupting], checkpoints=tmp_path / "checkpoints")
    board(**options).close()
    one = board(**options)
    done = fit(epochs=4, callbacks=[one], checkpoints=tmp_path / "checkpoints")
    found = read(one)
    assert [step for step, _ in curve(found, "loss/training")] == [5, 10, 15, 20]
    assert [step for step, _ in curve(found, "loss/step")] == [*range(1, 21)]
    assert [value for _, value in curve(found, "loss/training")] == pytest.approx(done.history["loss"], rel=1e-6)
    assert fn.tree.equal(done.params, fit(epochs=4).params)


def test_a_new_training_hides_the_old_one(board):
    """Each has its own file in the same folder."""
    one = board()
    fit(epochs=3, callbacks=[one])
    fit(epochs=1, callbacks=[one])
    assert [step for step, _ in curve(read(one), "loss/training")] == [5]


def test_the_training_is_the_same_with_it(board):
    """Bits agree, and steps are slower only if it sees each of them."""
    assert fn.tree.equal(fit(epochs=2, callbacks=[board(histograms=True)]).params, fit(epochs=2).params)
    assert not board().sees_steps
    assert board(every=3).sees_steps


def test_it_is_a_value(board):
    """It can be compared, hashed and pickled, and stores the written steps in a tree."""
    one = board(hparams={"width": 4})
    assert one == pickle.loads(pickle.dumps(one)) == board(hparams={"width": 4})
    assert hash(one) == hash(board(hparams={"width": 4}))
    assert one != board()
    memory = one.init({})
    epoch = fn.Epoch(1, {}, (), fn.History({"loss": [0.5], "none": [None], "odd": [math.nan], "table": [torch.ones(2)]}), {}, 7)
    assert one.update(memory, epoch) == ({"steps": 7}, None)
    assert sorted(read(one).Tags()["scalars"]) == ["loss/training", "odd/training"]


def test_histograms_of_unusual_leaves(board):
    """bfloat16 and integers have histograms, without non-finite values; an empty leaf has none."""
    one = board(histograms=True)
    params = {
        "a": torch.ones(3, dtype=torch.bfloat16),
        "b": torch.arange(4),
        "c": torch.tensor([1.0, math.inf]),
        "d": torch.ones(0),
    }
    one.update(one.init({}), fn.Epoch(1, params, (), fn.History({"loss": [0.5]}), params, 1))
    found = read(one)
    counts = {tag: found.Histograms(tag)[0].histogram_value.num for tag in found.Tags()["histograms"]}
    assert counts == {"params/a": 3, "params/b": 4, "params/c": 1}


def test_hparams_with_bars_and_lines_stay_in_their_cells(board):
    """Markdown would read them as further cells and rows."""
    one = board(hparams={"a|b": "x\ny", "ü": None})
    fit(epochs=1, callbacks=[one])
    text = read(one).Tensors("hparams/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text.splitlines()[2:] == [r"| a\|b | x y |", "| ü | None |"]


def test_many_trainings_leave_few_files_open(tmp_path):
    """The oldest writer is closed, and its training continues in another file."""
    first = TensorBoard(tmp_path / "first")
    epochs = [fn.Epoch(i + 1, {}, (), fn.History({"loss": [0.5]}), {}, i + 1) for i in range(3)]
    memory = first.init({})
    for epoch in epochs:
        memory = first.update(memory, epoch)[0]
        others = [TensorBoard(tmp_path / f"{epoch.number}-{i}") for i in range(tensorboard._MOST_OPEN)]
        for one in others:
            one.update(one.init({}), epochs[0])
        assert len(tensorboard._EVENTS) == tensorboard._MOST_OPEN
    assert [step for step, _ in curve(read(first), "loss/training")] == [1, 2, 3]
    for one in others:
        one.close()


def test_a_folder_that_cannot_be_made_is_refused_at_the_beginning(tmp_path):
    """The error precedes the first epoch."""
    (tmp_path / "run").write_text("a file")
    seen = []
    with pytest.raises(FileExistsError):
        fit(epochs=1, callbacks=[TensorBoard(tmp_path / "run"), seen.append])
    assert not seen


def test_it_says_what_to_install(board, monkeypatch):
    """The error appears when the training begins."""
    original = builtins.__import__

    def without(name, *arguments, **named):
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return original(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"TensorBoard: tensorboard must be installed; pip install 'funcnet\[tensorboard\]'"):
        fit(epochs=1, callbacks=[board()])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"log_dir": 3}, "log_dir must be the path of a folder, got 3"),
        ({"log_dir": ""}, "log_dir must be the path of a folder, got ''"),
        ({"histograms": 1}, "histograms must be True or False, got 1"),
        ({"every": 0}, "every must be a whole number of at least 1, got 0"),
        ({"optimizer": "Adam"}, "optimizer must be an optimizer or None"),
        ({"net": torch.tanh}, "net must be a layer or None"),
        ({"hparams": [1]}, "hparams must be a dict of values by name"),
    ],
)
def test_arguments_of_another_type_are_refused(options, said):
    """The error has the name."""
    with pytest.raises(ValueError, match=f"TensorBoard: {said}"):
        TensorBoard(**{"log_dir": "runs", **options})
