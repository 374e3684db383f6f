"""Sums of losses: arithmetic, values and gradients compared with the terms', and errors."""

import pickle

import pytest
import torch
from drawn import normal, shares
from hypothesis import given
from hypothesis import strategies as st

import funcnet as fn
from funcnet.losses.sums import LossSum

Y, T = normal(1, 4, 3), normal(2, 4, 3)
LABELS = torch.tensor([0, 2, -100, 1])
FACTORS = st.one_of(st.integers(-3, 3), st.floats(-3, 3, allow_subnormal=False))
TERMS = st.lists(st.tuples(FACTORS, st.sampled_from([fn.MSE(), fn.L1("sum"), fn.L2("batch")])), min_size=1, max_size=4)


@given(TERMS)
def test_a_sum_is_the_sum_of_its_terms(terms):
    """The value, the gradient of y, and (through the layer) the gradient of the target are sums."""
    loss = sum([factor * one for factor, one in terms])
    layer = loss.as_layer()
    value, cache = layer.apply({}, (Y, T))
    got = (value, *layer.vjp({}, cache, torch.tensor(0.7, dtype=Y.dtype))[1])
    pairs = [(f, one.as_layer(), one.as_layer().apply({}, (Y, T))) for f, one in terms]
    want = sum([f * v for f, _, (v, _) in pairs])
    gs = [one.vjp({}, kept, torch.tensor(0.7 * f, dtype=Y.dtype))[1] for f, one, (_, kept) in pairs]
    torch.testing.assert_close(got, (want, sum([gy for gy, _ in gs]), sum([gt for _, gt in gs])))
    torch.testing.assert_close(loss.value_and_grad(Y, T)[0], want)
    torch.testing.assert_close(loss(Y, T), want)


@given(TERMS)
def test_a_sum_prints_as_the_sum_that_makes_it(terms):
    """The repr of the sum and of its layer evaluates to an equal one; pickle and hash agree too."""
    loss = sum([factor * one for factor, one in terms])
    assert eval(repr(loss), vars(fn)) == loss == pickle.loads(pickle.dumps(loss))
    assert eval(repr(loss.as_layer()), vars(fn)) == loss.as_layer()
    assert hash(eval(repr(loss), vars(fn))) == hash(loss)


def test_arithmetic_is_written_as_usual():
    """Nested sums are flattened, and a loss times 1 is the loss."""
    a, b = fn.MSE(), fn.L1()
    assert repr(a + 0.1 * b) == "MSE() + 0.1 * L1()"
    assert repr(2 * (a - 3 * b) - a / 4) == "2 * MSE() - 6 * L1() - 0.25 * MSE()"
    assert repr(-a) == "-MSE()"
    assert 1 * a == a * 1.0 == -1 * -a == sum([a]) == a
    assert (a + b) + a == a + (b + a) == sum([a, b, a]) == LossSum(((1, a), (1, b), (1, a)))
    assert a - b == a + -1 * b
    assert 2 * a * 3 == 6 * a
    assert {a + b: 1}[a + b] == 1


def test_reductions_are_those_of_the_terms():
    """Unreduced terms add up to terms, and means and sums may be mixed."""
    terms = fn.MSE("none") + 0.5 * fn.L1("none")
    value, gy = terms.value_and_grad(Y, T)
    torch.testing.assert_close(value, (Y - T) ** 2 + 0.5 * (Y - T).abs())
    torch.testing.assert_close(gy, 2 * (Y - T) + 0.5 * (Y - T).sign())
    assert [one.reduction for one in (terms, fn.MSE() + fn.L1(), fn.MSE() + fn.L1("sum"))] == ["none", "mean", "mixed"]
    assert (2 * fn.CrossEntropy()).term_weights(LABELS).tolist() == [1, 1, 0, 1]
    assert terms.with_reduction("sum") == fn.MSE("sum") + 0.5 * fn.L1("sum")


def test_the_gradient_of_the_value_may_be_a_number_or_a_tensor():
    """``None`` means ones."""
    loss = fn.BCEWithLogits() - 0.5 * fn.MSE()
    y, t = Y, shares(3, 4, 3)
    _, cache = loss.forward(y, t)
    torch.testing.assert_close(loss.backward(cache, 3.0), 3 * loss.backward(cache))
    torch.testing.assert_close(loss.backward(cache, torch.tensor(3.0, dtype=y.dtype)), 3 * loss.backward(cache))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(dtype):
    """Value and gradients match float32's, rounded."""
    loss, y, t = fn.MSE() + 0.3 * fn.L2() - 0.1 * fn.L1(), Y.to(dtype), T.to(dtype)
    single = loss.value_and_grad(y.float(), t.float())
    assert all(map(torch.equal, loss.value_and_grad(y, t), [one.to(dtype) for one in single]))


def test_losses_of_pairs_and_labels_add_up():
    """Gradients may be trees, and integers have none."""
    y, prior = (Y, T), (T, Y)
    value, gy = (fn.GaussianKL() + fn.GaussianKL("sum")).value_and_grad(y, prior)
    want = [one.value_and_grad(y, prior) for one in (fn.GaussianKL(), fn.GaussianKL("sum"))]
    torch.testing.assert_close(value, want[0][0] + want[1][0])
    torch.testing.assert_close(gy, tuple(map(torch.add, want[0][1], want[1][1])))
    labelled = fn.CrossEntropy() + 2 * fn.CrossEntropy(label_smoothing=0.5)
    layer = labelled.as_layer()
    assert layer.vjp({}, layer.apply({}, (Y, LABELS))[1], torch.ones((), dtype=Y.dtype))[1][1] is None


def test_parts_have_names_values_and_weights():
    """Terms of one class are numbered."""
    loss = fn.CrossEntropy() + 2 * fn.CrossEntropy(reduction="sum") + fn.CrossEntropy(reduction="batch")
    parts = loss.parts(Y, LABELS)
    assert [*parts] == ["CrossEntropy", "CrossEntropy_2", "CrossEntropy_3"]
    assert [float(weight) for _, weight in parts.values()] == [3, 4, 4]
    torch.testing.assert_close(parts["CrossEntropy"][0], fn.CrossEntropy()(Y, LABELS))


def test_the_weight_of_a_sum_is_what_its_parts_agree_on():
    """If the parts have different weights, no single weight is right, so there is none."""
    assert (fn.MSE() + fn.L1("batch")).weight_of(T) == 4
    assert (fn.CrossEntropy() + 2 * fn.CrossEntropy(label_smoothing=0.1)).weight_of(LABELS) == 3
    assert (2 * fn.CrossEntropy()).weight_of(LABELS) == 3
    for loss in (fn.CrossEntropy() + fn.CrossEntropy(ignore_index=0, reduction="batch"), fn.MSE() + fn.L1("sum")):
        with pytest.raises(ValueError, match="the parts must agree on the weight of a batch"):
            loss.weight_of(LABELS)


@pytest.mark.compiled
def test_a_compiled_step_is_that_of_eager_mode():
    """A sum of weighted losses is traced as one graph."""
    net, loss = fn.Linear(3, 3), fn.weighted(fn.MSE() + 0.1 * fn.L1("sum"))
    step = fn.train_step(net, loss, fn.SGD(0.1))
    params = net.init(0)
    x, t = fn.random.normal(0, (4, 3)), (fn.random.normal(1, (4, 3)), torch.tensor([1.0, 0.0, 2.0, 0.5]))
    state = step.opt.init(params)
    torch.testing.assert_close(fn.compile(step)(params, state, x, t), step(params, state, x, t))


REFUSED = {
    "MSE(): a loss must be multiplied by a finite number, got nan": lambda: fn.MSE() * float("nan"),
    "MSE(): a loss must be multiplied by a finite number, got 'a'": lambda: "a" * fn.MSE(),
    "MSE(): a loss must be multiplied by a finite number, got True": lambda: True * fn.MSE(),
    "MSE(): a loss must be multiplied by a finite number, got a tensor of shape () and dtype torch.float32": lambda: torch.tensor(2.0) * fn.MSE(),
    "MSE(): a loss must be divided by a finite number other than 0, got 0": lambda: fn.MSE() / 0,
    "MSE(): a loss must be divided by a finite number other than 0, got MSE()": lambda: fn.MSE() / fn.MSE(),
    "LossSum: the losses of a sum must all return one value, or all have reduction \"none\", got reductions 'mean', 'none'": lambda: fn.MSE() + fn.L1("none"),
    "LossSum: terms must be a tuple of pairs, each of a finite factor and a loss, got 3": lambda: LossSum(((1, fn.MSE()), 3)),
    "LossSum: terms must be a tuple of pairs, each of a finite factor and a loss, got a tuple of 0": lambda: LossSum(()),
    "MSE(): target must have the dtype of y, torch.float16, or hold integers or booleans, got torch.float64": lambda: (fn.MSE() + fn.L1())(Y.half(), T),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_bad_sums_are_refused_with_their_message(message):
    """The message names the loss, the rule, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        REFUSED[message]()
    assert message in str(caught.value)


@pytest.mark.parametrize("other", [1, 0.5, "a", None])
def test_only_losses_are_added(other):
    """Python raises its own error for other operands; ``sum`` starts from 0."""
    with pytest.raises(TypeError, match="unsupported operand"):
        fn.MSE() + other
    with pytest.raises(TypeError, match="unsupported operand"):
        fn.MSE() - other
    with pytest.raises(TypeError):
        other + fn.MSE()
