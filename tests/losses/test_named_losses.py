"""Losses of named outputs: compared with each loss by itself, wherever a loss is used; and the errors."""

import pickle

import pytest
import torch
from drawn import normal

import funcnet as fn
from funcnet.losses.named import NamedLosses
from funcnet.testing import check_loss

LABELS = torch.tensor([0, 2, 1, -100, 2, 0, 1])
Y = {"kind": normal(1, 7, 3), "size": normal(2, 7, 2), "latent": (normal(3, 7, 2), normal(4, 7, 2))}
TARGET = {"kind": LABELS, "size": normal(5, 7, 2), "latent": None}
LOSS = fn.losses_of(kind=fn.CrossEntropy(), size=(0.5, fn.MSE() + fn.L1("sum")), latent=(-0.1, fn.GaussianKL("batch")))
NET = fn.graph(
    "x",
    h=(fn.Linear(4, 5) >> fn.Tanh(), "x"),
    kind=(fn.Linear(5, 3), "h"),
    size=(fn.Linear(5, 2), "h"),
    moments=(fn.branch(fn.Linear(5, 2), fn.Linear(5, 2)), "h"),
    output={"kind": "kind", "size": "size", "latent": "moments"},
)
X = normal(6, 7, 4)
PARAMS = fn.tree.cast(NET.init(0), torch.float64)


def test_it_is_the_sum_of_the_losses():
    """The value is the sum, and each output has its own gradient."""
    value, gy = LOSS.value_and_grad(Y, TARGET)
    each = {name: loss.value_and_grad(Y[name], TARGET[name]) for name, _, loss in LOSS.terms}
    torch.testing.assert_close(value, sum([f * each[name][0] for name, f, _ in LOSS.terms]))
    torch.testing.assert_close(gy, {name: fn.tree.scale(each[name][1], f) for name, f, _ in LOSS.terms})
    torch.testing.assert_close(LOSS(Y, TARGET), value)


def test_it_passes_check_loss():
    """``check_loss`` also tests it as a layer, with gradients of the targets that have one."""
    check_loss(LOSS, Y, TARGET, compiled=False, dtypes=(torch.float64, torch.float16))
    weighed = fn.losses_of(a=fn.weighted(fn.CrossEntropy(ignore_index=0)), b=(2, fn.MSE()))
    target = {"a": (LABELS.clamp_min(0), normal(7, 7).abs()), "b": normal(8, 7, 2)}
    check_loss(weighed, {"a": Y["kind"], "b": Y["size"]}, target, compiled=False, dtypes=(torch.float64,))


@pytest.mark.compiled
def test_it_compiles_as_one_graph():
    """The graph includes the net, with dicts of outputs, targets and gradients; aot_eager gives the same bits."""
    step = fn.value_and_grads(NET, LOSS)
    found = torch.compile(step, fullgraph=True, backend="aot_eager")(PARAMS, X, TARGET)
    torch.testing.assert_close(found[:2], step(PARAMS, X, TARGET)[:2], rtol=0, atol=0)


def test_parts_are_named_by_output():
    """A sum within adds the names of its terms; a target that is ``None`` has the rows of the others."""
    parts = LOSS.parts(Y, TARGET)
    assert {name: float(weight) for name, (_, weight) in parts.items()} == {"kind": 6, "size.MSE": 14, "size.L1": 7, "latent": 7}
    torch.testing.assert_close(parts["size.MSE"][0], fn.MSE()(Y["size"], TARGET["size"]))
    torch.testing.assert_close(parts["latent"][0], fn.GaussianKL("batch")(Y["latent"], None))


def test_it_is_a_value():
    """Its repr is the call that makes it, and it pickles."""
    assert eval(repr(LOSS), vars(fn)) == LOSS == pickle.loads(pickle.dumps(LOSS))
    assert repr(fn.losses_of(a=fn.MSE(), b=(2, fn.L1()))) == "losses_of(a=MSE(), b=(2, L1()))"
    odd = fn.losses_of(**{"a b": fn.MSE()})
    assert eval(repr(odd), vars(fn)) == odd
    assert eval(repr(2 * LOSS - LOSS), vars(fn)) == 2 * LOSS - LOSS


def test_the_history_has_every_part():
    """Training and validation show parts without their factors; with a rate of 0 they match the losses of all rows."""
    columns = {"loss": LOSS(NET(PARAMS, X), TARGET)}
    columns |= {f"loss.{name}": value for name, (value, _) in LOSS.parts(NET(PARAMS, X), TARGET).items()}
    result = fn.fit(
        NET, LOSS, fn.SGD(0.0), (X, TARGET), epochs=1, batch_size=3, key=0, params=PARAMS, validation=(X, TARGET), progress=False
    )
    expected = {**columns, **{f"validation_{name}": value for name, value in columns.items()}}
    found = {name: torch.tensor(column[0], dtype=torch.float64) for name, column in result.history.items()}
    assert found.keys() == {"epoch", "seconds", *expected}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_training_is_that_of_the_step():
    """Recording the parts changes no bit of the params."""
    result = fn.fit(NET, LOSS, fn.SGD(0.1), (X, TARGET), epochs=2, batch_size=7, key=0, params=PARAMS, progress=False)
    step, params = fn.train_step(NET, LOSS, fn.SGD(0.1)), PARAMS
    state, order = step.opt.init(params), fn.random.split(0, 3)[1]
    for epoch in range(2):
        rows = fn.random.permutation(fn.random.fold_in(order, epoch), 7)
        params, state, _ = step(params, state, X[rows], fn.tree.map(lambda leaf, rows=rows: leaf[rows], TARGET))
    assert fn.tree.equal(result.params, params)


def test_a_step_in_the_backward_pass_is_the_plain_step():
    """The results agree bit for bit."""
    plain, early = (fn.train_step(NET, LOSS, fn.Adam(0.1), in_backward=flag) for flag in (False, True))
    state = plain.opt.init(PARAMS)
    assert fn.tree.equal(early(PARAMS, state, X, TARGET), plain(PARAMS, state, X, TARGET))


def test_a_net_with_named_outputs_is_shown_as_others_are():
    """The net has a table and a drawing, and its sizes are inferred."""
    assert "moments" in str(fn.summary(NET, X))
    assert "moments" in fn.draw(NET).dot
    net = fn.graph("x", a=(fn.Linear(None, 3), "x"), b=(fn.Linear(None, 2), "x"), output={"one": "a", "two": "b"})
    assert fn.infer_sizes(net, X)["b"].in_features == 4
    assert fn.output_shape(NET, X) == {"kind": (7, 3), "size": (7, 2), "latent": ((7, 2), (7, 2))}


def test_each_row_has_its_gradient():
    """The gradient matches a batch of one row."""
    values, grads = fn.per_example_grads(NET, LOSS)(PARAMS, X, TARGET)
    for i in range(7):
        row = fn.tree.map(lambda leaf, i=i: leaf[i : i + 1], (X, TARGET))
        value, g, _ = fn.value_and_grads(NET, LOSS)(PARAMS, *row)
        torch.testing.assert_close((values[i], fn.tree.map(lambda leaf, i=i: leaf[i], grads)), (value, g))


def test_members_of_an_ensemble_have_each_their_loss():
    """Value and gradients are per member, and the history has means over members, part by part."""
    nets, losses = fn.ensemble(NET, 2), fn.ensemble(LOSS, 2)
    params = fn.tree.cast(nets.init(0), torch.float64)
    values, grads, _ = fn.value_and_grads(nets, losses)(params, X, TARGET)
    for i in range(2):
        member = fn.tree.map(lambda leaf, i=i: leaf[i], params)
        value, g, _ = fn.value_and_grads(NET, LOSS)(member, X, TARGET)
        torch.testing.assert_close((values[i], fn.tree.map(lambda leaf, i=i: leaf[i], grads)), (value, g))
    found = fn.accumulate(nets, losses, 3)(params, X, TARGET)[:2]
    torch.testing.assert_close(found, (values, grads))
    columns = fn.fit(nets, losses, fn.SGD(0.0), (X, TARGET), epochs=1, batch_size=3, key=0, params=params, progress=False).history
    kinds = fn.losses_of(kind=fn.CrossEntropy()).parts({"kind": nets(params, X)["kind"][0]}, {"kind": LABELS})
    other = fn.losses_of(kind=fn.CrossEntropy()).parts({"kind": nets(params, X)["kind"][1]}, {"kind": LABELS})
    assert columns["loss"][0] == pytest.approx(values.mean().item())
    assert columns["loss.kind"][0] == pytest.approx((kinds["kind"][0] + other["kind"][0]).item() / 2)


REFUSED = {
    "losses_of: there must be at least one loss, got none": fn.losses_of,
    "losses_of: the terms must be losses, or pairs of a finite factor and a loss, got ('a', 1.0, 3)": lambda: fn.losses_of(a=3),
    "losses_of: the terms must be losses, or pairs of a finite factor and a loss, got ('a', 1, 2, MSE())": lambda: fn.losses_of(a=(1, 2, fn.MSE())),
    "losses_of: the terms must be losses, or pairs of a finite factor and a loss, got ('a', nan, MSE())": lambda: fn.losses_of(a=(float("nan"), fn.MSE())),
    "losses_of: the terms must be losses, or pairs of a finite factor and a loss, got 1": lambda: NamedLosses(1),
    "losses_of: each loss must return one value: reduction \"mean\", \"sum\" or \"batch\", got reduction 'none'": lambda: fn.losses_of(a=fn.MSE("none")),
    "losses_of: a name must be a non-empty str without a dot, and not a number, got 'a.b'": lambda: fn.losses_of(**{"a.b": fn.MSE()}),
    "losses_of(a=MSE()): y must be a dict with the keys 'a', got a tensor of shape (7, 4) and dtype torch.float64": lambda: fn.losses_of(a=fn.MSE())(X, X),
    "losses_of(a=MSE()): y must be a dict with the keys 'a', got a dict with the keys 'a', 'b'": lambda: fn.losses_of(a=fn.MSE())({"a": X, "b": X}, {"a": X}),
    "losses_of(a=MSE()): target must be a dict with the keys 'a', got a dict with the keys 'b'": lambda: fn.losses_of(a=fn.MSE())({"a": X}, {"b": X}),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the loss, the rule, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        REFUSED[message]()
    assert message in str(caught.value)


def test_an_error_says_in_which_output():
    """A note names the output, as in a net."""
    with pytest.raises(ValueError, match="MSE") as caught:
        fn.losses_of(a=fn.MSE(), b=fn.MSE())({"a": X, "b": X}, {"a": X, "b": X[0]})
    assert caught.value.__notes__ == ["  in losses_of, 'b'"]
