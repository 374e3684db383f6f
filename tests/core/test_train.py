"""Training: the pure step compared with its four lines and with torch.nn, compiled and resumed, and the loop ``fit``."""

import gc
import io
import pickle
import weakref

import pytest
import torch
from torch import nn

import funcnet as fn
from funcnet.compilation.scanned import ScanSteps
from funcnet.gradients import _joined
from funcnet.plans import Unchecked

NET = fn.serial(fn.Linear(2, 8), fn.BatchNorm1d(8), fn.Tanh(), fn.Linear(8, 2))
X = fn.random.uniform(1, (64, 2), dtype=torch.float64)
LABELS = (X.sum(1) > 1).long()
LOSS = fn.CrossEntropy()
OPT = fn.SGD(lr=0.1, momentum=0.9)
NOISY = fn.serial(fn.Linear(2, 8), fn.Dropout(0.5), fn.Linear(8, 2))


def start(net=NET, opt=OPT):
    params = fn.tree.cast(net.init(0), torch.float64)
    return params, opt.init(params)


def test_value_and_grads_are_the_first_three_lines():
    """Value, gradient of params and cache match apply, value_and_grad and grads."""
    params, _ = start()
    value, grads, cache = fn.value_and_grads(NET, LOSS)(params, X, LABELS)
    y, want = NET.apply(params, X)
    loss, gy = LOSS.value_and_grad(y, LABELS)
    assert torch.equal(value, loss)
    assert fn.tree.equal(grads, NET.vjp(params, want, gy)[0])
    assert fn.tree.equal(cache, want)


Y = []


@fn.frozen
class Remembering(fn.MSE):
    """A loss that remembers y weakly."""

    def value_and_grad(self, y, target):
        Y[:] = [weakref.ref(y)]
        return super().value_and_grad(y, target)


@fn.frozen
class Looking(fn.Identity):
    """A layer that checks in its backward pass whether the net's output is still alive."""

    def grads(self, params, cache, gy):
        gc.collect()
        Y.append(Y[0]() is None)
        return super().grads(params, cache, gy)

    def vjp(self, params, cache, gy):
        gc.collect()
        Y.append(Y[0]() is None)
        return super().vjp(params, cache, gy)


def test_the_output_of_a_net_does_not_live_through_the_backward_pass():
    """Logits are often the largest tensor of a step, and only the loss needs them."""
    net = fn.serial(fn.Linear(2, 3), Looking(), fn.Linear(3, 8))
    of_the_batch, params = fn.value_and_grads(net, Remembering()), net.init(0)
    for _ in range(3):
        of_the_batch(params, X.float(), torch.zeros(64, 8))
        assert Y[1:] == [True]


def test_the_output_does_not_live_through_the_backward_pass_of_a_plan():
    """The unchecked verbs of a plan do not keep it alive either."""
    refs = []

    def apply(params, x):
        y = x + 1
        refs.append(weakref.ref(y))
        return y, None

    run = _joined(Unchecked(apply, None, lambda params, cache, gy: refs[0]() is None), lambda y, target: (y.sum(), y * target))
    assert run(None, X, X)[1] is True


def test_a_step_is_torch_s_step_statistics_included():
    """Ten steps give the weights and running statistics of torch.nn, autograd and torch.optim."""
    params, state = start()
    twin = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2)).double()
    twin.load_state_dict(fn.tree.names(params))
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    step = fn.train_step(NET, LOSS, OPT)
    for _ in range(10):
        optimizer.zero_grad()
        want = nn.functional.cross_entropy(twin(X), LABELS)
        want.backward()
        optimizer.step()
        params, state, value = step(params, state, X, LABELS)
        torch.testing.assert_close(value, want.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(fn.tree.names(params), dict(twin.state_dict()), rtol=1e-10, atol=1e-12)


def test_a_step_writes_to_nothing():
    """The old params and state keep their values and versions, so a step can be undone."""
    params, state = start()
    before = fn.tree.map(torch.clone, (params, state))
    versions = [leaf._version for leaf in fn.tree.leaves((params, state))]
    fn.train_step(NET, LOSS, OPT)(params, state, X, LABELS)
    assert fn.tree.equal((params, state), before)
    assert [leaf._version for leaf in fn.tree.leaves((params, state))] == versions


def test_a_step_is_a_value():
    """A step compares, prints as the call that makes it, and pickles."""
    step = fn.train_step(NET, LOSS, OPT)
    assert step == fn.train_step(NET, LOSS, OPT)
    assert step != fn.train_step(NET, LOSS, OPT.replace(lr=0.2))
    assert pickle.loads(pickle.dumps(step)) == step
    assert "lr=0.1" in repr(step)


@pytest.mark.compiled
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_step_is_the_step(backend):
    """The whole step is one graph: equal bit for bit with aot_eager, and up to rounding with inductor."""
    step = fn.train_step(NET, LOSS, OPT)
    params, state = start()
    want = step(params, state, X, LABELS)
    got = torch.compile(step, fullgraph=True, dynamic=False, backend=backend)(params, state, X, LABELS)
    tolerance = {"aot_eager": 0, "inductor": 1e-12}[backend]
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.compiled
@pytest.mark.parametrize("opt", [fn.SGD(lr=0.1), fn.SGD(lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True)], ids=repr)
def test_a_weight_gradient_that_is_added_to_compiles(opt):
    """Inductor would leave out the learning rate if it fused the product into a sum."""
    net = fn.Linear(2, 3)
    step = fn.train_step(net, fn.CrossEntropy(), opt)
    params = fn.tree.cast(net.init(0), torch.float64)
    state = opt.init(params)
    compiled = torch.compile(step, fullgraph=True, dynamic=False)
    ours = theirs = (params, state)
    for _ in range(2):
        *ours, _ = step(*ours, X, LABELS)
        *theirs, _ = compiled(*theirs, X, LABELS)
    torch.testing.assert_close(tuple(theirs), tuple(ours), rtol=1e-12, atol=1e-12)


@pytest.mark.compiled
def test_compile_takes_the_step_and_its_key():
    """fn.compile gives the same numbers as the eager step, dropout and schedule included."""
    step = fn.train_step(NOISY, LOSS, fn.Adam(lr=fn.CosineSchedule(1e-2, 10)))
    fast = fn.compile(step)
    params, state = start(NOISY, step.opt)
    ours = theirs = (params, state)
    for i in range(3):
        *ours, _ = step(*ours, X, LABELS, fn.fold_in(0, i))
        *theirs, _ = fast(*theirs, X, LABELS, fn.fold_in(0, i))
    torch.testing.assert_close(tuple(theirs), tuple(ours), rtol=1e-9, atol=1e-12)


def stacked(count):
    """Return the given number of batches along a first axis, all different."""
    return torch.stack([X + i for i in range(count)]), torch.stack([LABELS.roll(i) for i in range(count)])


@pytest.mark.compiled
def test_steps_in_one_compiled_call_are_the_steps_one_by_one():
    """Params, state and losses agree; step number i uses the key fold_in(rng, i)."""
    step = fn.train_step(NOISY, LOSS, fn.Adam(lr=fn.CosineSchedule(1e-2, 10)))
    xs, labels = stacked(3)
    params, state = start(NOISY, step.opt)
    got = fn.scan_steps(step, 3)(params, state, xs, labels, 7)
    values = []
    for i in range(3):
        params, state, value = step(params, state, xs[i], labels[i], fn.fold_in(7, i))
        values.append(value)
    torch.testing.assert_close(got, (params, state, torch.stack(values)), rtol=1e-9, atol=1e-12)


def test_scanned_steps_are_refused_where_the_batches_are_not_k():
    """Too many batches along the first axis, no batches, and k = 0 are tried."""
    scan = ScanSteps(fn.train_step(NET, LOSS, OPT), 2)
    xs, labels = stacked(3)
    with pytest.raises(ValueError, match="the first axis of xs must be k=2, got lengths 3"):
        scan(*start(), xs, labels)
    with pytest.raises(ValueError, match="the first axis of targets must be k=2, got lengths 3"):
        scan(*start(), xs[:2], labels)
    with pytest.raises(ValueError, match="k must be a whole number of at least 1"):
        fn.scan_steps(scan.step, 0)


def test_a_stochastic_step_needs_a_key_and_repeats_with_it():
    """Dropout refuses a missing key, and the same key gives the same step."""
    step = fn.train_step(NOISY, LOSS, OPT)
    params, state = start(NOISY)
    with pytest.raises(ValueError, match=r"Dropout\(\): apply must be given a key") as caught:
        step(params, state, X, LABELS)
    assert caught.value.__notes__ == ["  in serial, layer 1"]
    assert fn.tree.equal(step(params, state, X, LABELS, 5), step(params, state, X, LABELS, fn.key(5)))


def test_a_loss_without_one_value_cannot_train():
    """reduction="none" is refused when the step is made."""
    with pytest.raises(ValueError, match=r"to train, the loss must have one value: reduction .*, got reduction 'none'"):
        fn.train_step(NET, fn.CrossEntropy(reduction="none"), OPT)


ARGUMENTS = {"epochs": 4, "batch_size": 24, "key": 3, "progress": False}


def test_fit_is_the_loop_written_out():
    """The same keys, orders and steps by hand give the same params, state and losses."""
    params, state, history = fn.fit(NET, LOSS, OPT, (X.float(), LABELS), **ARGUMENTS)
    first, order, _ = fn.split(fn.key(3), 3)
    p = NET.init(first)
    s = OPT.init(p)
    step = fn.train_step(NET, LOSS, OPT)
    for epoch in range(4):
        total = 0.0
        for rows in fn.random.permutation(fn.fold_in(order, epoch), 64).split(24):
            p, s, value = step(p, s, X.float()[rows], LABELS[rows])
            total += float(value) * len(rows)
        assert history["loss"][epoch] == pytest.approx(total / 64, rel=1e-6)
    assert fn.tree.equal((params, state), (p, s))
    assert history["epoch"] == [1, 2, 3, 4]


@pytest.mark.parametrize("net", [NET, NOISY], ids=["batch norm", "dropout"])
def test_fit_goes_on_bit_for_bit_from_a_saved_state(net):
    """Two epochs, saved and loaded, and two more equal four epochs in one run, including orders and noise."""
    whole = fn.fit(net, LOSS, OPT, (X.float(), LABELS), **ARGUMENTS)
    half = fn.fit(net, LOSS, OPT, (X.float(), LABELS), **{**ARGUMENTS, "epochs": 2})
    file = io.BytesIO()
    torch.save((half.params, half.state), file)
    file.seek(0)
    params, state = torch.load(file)
    rest = fn.fit(net, LOSS, OPT, (X.float(), LABELS), **{**ARGUMENTS, "epochs": 2}, params=params, state=state, epochs_done=2)
    assert fn.tree.equal(rest[:2], whole[:2])
    assert half.history["loss"] + rest.history["loss"] == whole.history["loss"]


def test_fit_learns_and_reports_validation_and_metrics():
    """The loss falls, and the history has the documented columns."""
    data = (X.float(), LABELS)
    fitted = fn.fit(NET, LOSS, OPT, data, epochs=30, batch_size=16, key=0, validation=data, metrics=[fn.accuracy], progress=False)
    assert set(fitted.history) == {"epoch", "loss", "seconds", "validation_loss", "validation_accuracy"}
    assert fitted.history["loss"][-1] < 0.5 * fitted.history["loss"][0]
    assert fitted.history["validation_accuracy"][-1] > 0.9
    scores = fn.evaluate(NET, fitted.params, data, [fn.accuracy], LOSS, batch_size=10)
    assert scores["accuracy"] == pytest.approx(fitted.history["validation_accuracy"][-1])
    assert scores["loss"] == pytest.approx(fitted.history["validation_loss"][-1], rel=1e-5)


def test_what_fit_returns_is_for_autograd_too():
    """The tensors are not inference tensors, so a user may differentiate through them."""
    params, _, _ = fn.fit(NET, LOSS, OPT, (X.float(), LABELS), **ARGUMENTS)
    x = X.float().requires_grad_()
    NET(params, x).sum().backward()
    assert x.grad is not None


def test_fit_takes_the_parameters_of_a_module_without_their_graph():
    """Training gives the params of detached copies, which do not require grad; the module's parameters do not change."""
    net, module = (
        fn.serial(fn.Linear(2, 8), fn.Tanh(), fn.Linear(8, 2)),
        nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)),
    )
    named = dict(module.double().named_parameters())
    params, before = fn.tree.from_names(named, net.init(0)), {name: leaf.detach().clone() for name, leaf in named.items()}
    data = (X, LABELS)

    def fitted(params):
        return fn.fit(net, LOSS, OPT, data, epochs=2, batch_size=20, key=0, params=params, progress=False).params

    got = fitted(params)
    assert not any(leaf.requires_grad for leaf in fn.tree.leaves((got, fitted(got))))
    assert fn.tree.equal(got, fitted(fn.tree.map(torch.Tensor.detach, params)))
    assert fn.tree.equal(fn.tree.map(torch.Tensor.detach, params), fn.tree.from_names(before, net.init(0)))


def test_fit_writes_lines_where_there_is_no_terminal(capsys):
    """There are about ten lines, including the last epoch, each with the loss and the metrics; none with progress=False."""
    fn.fit(NET, LOSS, OPT, (X.float(), LABELS), epochs=21, batch_size=64, key=0, metrics=[fn.accuracy])
    lines = capsys.readouterr().err.splitlines()
    assert 10 <= len(lines) <= 12
    assert lines[-1].startswith("epoch 21/21 loss ")
    assert "accuracy" in lines[-1]
    fn.fit(NET, LOSS, OPT, (X.float(), LABELS), **ARGUMENTS)
    assert capsys.readouterr().err == ""


def test_fit_shows_a_bar_on_a_terminal(capsys, monkeypatch):
    """With tqdm and a terminal there is a bar with the loss; without tqdm there are lines."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    fn.fit(NET, LOSS, OPT, (X.float(), LABELS), **{**ARGUMENTS, "progress": True})
    shown = capsys.readouterr().err
    assert "4/4" in shown
    assert "loss=" in shown
    monkeypatch.setitem(__import__("sys").modules, "tqdm", None)
    fn.fit(NET, LOSS, OPT, (X.float(), LABELS), **{**ARGUMENTS, "progress": True})
    assert "epoch 4/4 loss" in capsys.readouterr().err


def test_fit_of_no_epochs_returns_what_it_was_given():
    """Nothing is trained, and the params are the initial ones."""
    params, _, history = fn.fit(NET, LOSS, OPT, (X.float(), LABELS), **{**ARGUMENTS, "epochs": 0})
    assert fn.tree.equal(params, NET.init(fn.split(3, 3)[0]))
    assert history == {}


MESSAGES = {
    "fit: epochs must be a whole number of at least 0, got -1": {"epochs": -1},
    "fit: epochs must be a whole number of at least 0, got 1.5": {"epochs": 1.5},
    "fit: batch_size must be a whole number of at least 1, got 0": {"batch_size": 0},
    "fit: epochs_done must be a whole number of at least 0, got -2": {"epochs_done": -2},
    "fit: x and target must have the same number of rows, at least 1, got 63 and 64": {"data": (X, LABELS[1:])},
    "fit: x and target must have at least 1 row, got 0": {"data": (X[:0], LABELS[:0])},
    "that returns one, got a tensor of shape (64, 2)": {"data": X},
    "rng: it must be a key, fn.key(seed), or an int seed, got None": {"key": None},
}


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_arguments_are_refused_with_their_message(message):
    """The error precedes any training."""
    arguments = {"data": (X, LABELS), **ARGUMENTS, **MESSAGES[message]}
    data = arguments.pop("data")
    with pytest.raises(ValueError, match=r".") as caught:
        fn.fit(NET, LOSS, OPT, data, **arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, True])
def test_evaluating_refuses_a_wrong_batch_size(batch_size):
    """The error precedes any computation."""
    with pytest.raises(ValueError, match=rf"evaluate: batch_size must be a whole number of at least 1, got {batch_size!r}"):
        fn.evaluate(NET, NET.init(0), (X, LABELS), loss=LOSS, batch_size=batch_size)


EXCHANGED = {
    "value_and_grads: net must be a layer, got": lambda: fn.value_and_grads(LOSS, NET),
    "value_and_grads: loss must be a loss, got": lambda: fn.value_and_grads(NET, OPT),
    "train_step: loss must be a loss, got": lambda: fn.train_step(NET, OPT, LOSS),
    "train_step: opt must be an optimizer, got": lambda: fn.train_step(NET, LOSS, LOSS),
    "scan_steps: step must be a function, got": lambda: fn.scan_steps(3, 3),
    "scan_steps: k must be a whole number of at least 1, got True": lambda: fn.scan_steps(fn.train_step(NET, LOSS, OPT), True),
}  # fmt: skip


@pytest.mark.parametrize("message", EXCHANGED)
def test_arguments_in_the_wrong_place_are_refused(message):
    """The error appears when the step is made, not during training."""
    with pytest.raises(ValueError, match=r".") as caught:
        EXCHANGED[message]()
    assert message in str(caught.value)


def test_labels_out_of_range_lose_nothing():
    """A failed step leaves params and state unchanged, so training can continue."""
    params, state = start()
    before = fn.tree.map(torch.clone, (params, state))
    with pytest.raises(ValueError, match=r"CrossEntropy\(\): .*7"):
        fn.train_step(NET, LOSS, OPT)(params, state, X, LABELS + 6)
    assert fn.tree.equal((params, state), before)
