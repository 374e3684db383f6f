"""Saving in the background: the file has the values at the time of the call, whatever training does meanwhile."""

import threading
import warnings
from concurrent.futures import Future

import pytest
import torch
from saved_trees import in_a_fork, same, sample

import funcnet as fn
from funcnet.saving import background


@pytest.fixture
def held():
    """Block the writing thread until the event is set."""
    gate = threading.Event()
    background._writer().submit(gate.wait, 60)
    yield gate
    gate.set()


@pytest.fixture(params=["a.fn", "a.safetensors"])
def path(request, tmp_path):
    """Return a path for each format."""
    return tmp_path / request.param


def test_it_saves_what_save_saves(path):
    """The bytes are the same, and the future has no value."""
    future = fn.save_in_background(path, sample(), {"epoch": 3})
    assert isinstance(future, Future)
    assert future.result() is None
    data = path.read_bytes()
    fn.save(path, sample(), {"epoch": 3})
    assert (len(data), fn.load_metadata(path)) == (path.stat().st_size, {"epoch": 3})
    assert same(fn.load(path), sample())


def test_training_goes_on_while_the_file_is_written(path, held):
    """The file has the params and state at the call, although there are new ones, and dicts and lists have changed."""
    net, loss, opt = fn.mlp([4, 8, 1]), fn.MSE(), fn.Adam(0.1)
    step, params = fn.train_step(net, loss, opt), net.init(0)
    state, x, t = opt.init(params), fn.random.normal(1, (16, 4)), fn.random.normal(2, (16, 1))
    tree = {"params": params, "state": state, "history": [1.0]}
    expected = fn.tree.map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, tree)
    future = fn.save_in_background(path, tree)
    for _ in range(3):
        params, state, value = step(params, state, x, t)
        tree["history"].append(float(value))
    tree["params"] = params
    assert not future.done()
    held.set()
    future.result()
    assert same(fn.load(path), expected)


IN_PLACE = {
    "a donated optimizer": lambda w: fn.donate(fn.Adam(0.1)).update({"w": w}, fn.Adam(0.1).init({"w": w}), {"w": w}),
    "torch": lambda w: w.add_(1),
    "a view": lambda w: w[:1].zero_(),
    "numpy": lambda w: w.numpy().fill(3),
    "in inference mode": torch.inference_mode()(lambda w: w.mul_(2)),
}


@pytest.mark.parametrize("write", IN_PLACE.values(), ids=IN_PLACE)
def test_a_tensor_that_was_written_to_fails_the_save(path, held, write):
    """The error has its path, whatever wrote to it; the old file stays. Not all writes change a tensor's version."""
    fn.save(path, 1)
    w = torch.ones(3, 2)
    future = fn.save_in_background(path, {"a": torch.zeros(2), "w": w})
    write(w)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        held.set()
        with pytest.raises(
            ValueError, match=r"^save_in_background: tensors must not be written to .*, got a change at 'w'"
        ) as caught:
            future.result()
    assert caught.value.__notes__ == [f"  in save_in_background({str(path)!r}, ...)"]
    assert fn.load(path) == 1
    assert [*path.parent.iterdir()] == [path]


def test_what_is_not_dense_is_copied_at_the_call(tmp_path, held):
    """A later change does not affect the file."""
    w = torch.ones(4, 4)
    future = fn.save_in_background(tmp_path / "a.fn", w[:, ::2])
    w.zero_()
    held.set()
    future.result()
    assert torch.equal(fn.load(tmp_path / "a.fn"), torch.ones(4, 2))


def test_inference_tensors_are_saved_too(path):
    """Inference tensors have no version, but checksums work."""
    with torch.inference_mode():
        w = torch.randn(3)
        fn.save_in_background(path, w).result()
    assert same(fn.load(path), w)


def test_wrong_arguments_are_refused_at_the_call(tmp_path):
    """The error names the function."""
    for tree, metadata in (({1}, None), (0, torch.ones(1))):
        with pytest.raises(ValueError, match=r"^save_in_background: "):
            fn.save_in_background(tmp_path / "a.fn", tree, metadata)


def test_a_failure_is_an_error_of_result_and_a_warning(tmp_path, held):
    """The result may never be requested."""
    future = fn.save_in_background(tmp_path / "nowhere" / "a.fn", 0)
    with pytest.warns(RuntimeWarning, match=r"^save_in_background: '.*a\.fn' was not saved: .*the folder of path must exist"):
        error = (held.set(), future.exception())[1]
    assert isinstance(error, FileNotFoundError)


def test_a_warning_that_is_an_error_hides_no_failure(tmp_path):
    """With ``python -W error`` the result still has the original failure."""
    with pytest.raises(FileNotFoundError):
        fn.save_in_background(tmp_path / "nowhere" / "a.fn", 0).result()


def test_files_are_written_in_the_order_of_the_calls(tmp_path, held, monkeypatch):
    """The last one therefore remains; a relative path is resolved at the call."""
    monkeypatch.chdir(tmp_path)
    futures = [fn.save_in_background("a.fn", i) for i in range(5)]
    monkeypatch.chdir("/")
    held.set()
    assert [future.result() for future in futures] == [None] * 5
    assert fn.load(tmp_path / "a.fn") == 4


def save_and_leave(path):
    """Start a save without waiting."""
    for i in range(3):
        fn.save_in_background(path, torch.full((100_000,), float(i)))


def test_the_interpreter_waits_at_its_exit(path):
    """The interpreter waits for unwritten files; a forked process has its own thread for them."""
    fn.save_in_background(path, 1).result()
    in_a_fork(save_and_leave, path)
    assert torch.equal(fn.load(path), torch.full((100_000,), 2.0))
