"""lr_range: its rates, its suggestion on a quadratic, unchanged arguments, and refused arguments."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

import funcnet as fn
from funcnet import RateRange, lr_range, tree

X = fn.random.normal(1, (64, 3))
TARGET = X.sum(1, keepdim=True) + 0.1 * fn.random.normal(2, (64, 1))
BATCHES = [(X[i : i + 16], TARGET[i : i + 16]) for i in range(0, 64, 16)]
NET = fn.Linear(3, 1)
PARAMS = NET.init(0)


def step_of(opt: Any = fn.SGD(), net: Any = NET) -> Any:  # noqa: B008 (it is frozen)
    return fn.train_step(net, fn.MSE(), opt)


def found(opt: Any = fn.SGD(), **options: Any) -> RateRange:  # noqa: B008
    return lr_range(step_of(opt), PARAMS, opt.init(PARAMS), BATCHES, **{"low": 1e-4, **options})


def test_the_losses_are_those_of_steps_with_these_rates() -> None:
    """Steps by hand, with another optimizer each time, give the same losses; the batches are repeated."""
    result = found(fn.Adam(), high=1.0, steps=12)
    opt, params = fn.Adam(), PARAMS
    state, losses = opt.init(params), []
    for i in range(12):
        lr = 1e-4 * 1e4 ** (i / 11)
        params, state, value = step_of(opt.replace(lr=lr))(params, state, *BATCHES[i % 4])
        losses.append(value.item())
    assert result.losses == tuple(losses)
    assert result.rates == pytest.approx([1e-4 * 1e4 ** (i / 11) for i in range(12)])
    assert not result.diverged


def test_the_running_average_is_that_of_the_losses() -> None:
    """The average is corrected for its first terms, like Adam's moments."""
    result, average = found(high=0.1, steps=9, smoothing=0.7), 0.0
    for i, loss in enumerate(result.losses):
        average = 0.7 * average + 0.3 * loss
        assert result.smoothed[i] == pytest.approx(average / (1 - 0.7 ** (i + 1)))
    assert found(high=0.1, steps=9, smoothing=0.0).smoothed == result.losses


def test_rates_may_grow_in_a_line() -> None:
    """With ``mode="linear"`` rates grow from low to high in equal steps."""
    assert found(high=1e-3, steps=10, mode="linear").rates == pytest.approx([1e-4 * i for i in range(1, 11)])


def test_a_quadratic_diverges_above_its_largest_rate() -> None:
    """MSE with one output has the curvature 2 E[x xᵀ]: rates above 2 over its largest eigenvalue diverge."""
    largest = 2 / torch.linalg.eigvalsh(2 * X.T @ X / 64).max().item()
    result = found(high=100.0, steps=200)
    assert result.diverged
    assert len(result.rates) == len(result.losses) == len(result.smoothed) < 200
    assert largest < result.rates[-1] < 10 * largest
    assert largest / 100 < result.suggestion < largest


def test_the_test_ends_when_the_loss_is_not_finite() -> None:
    """The test also ends without a threshold; the last loss shows the reason."""
    result = found(high=1e30, steps=300, early_stop_threshold=None)
    assert result.diverged
    assert not math.isfinite(result.losses[-1])
    assert all(map(math.isfinite, result.losses[:-1]))
    assert result.suggestion in result.rates
    assert not found(high=10.0, steps=30, early_stop_threshold=None).diverged


@pytest.mark.parametrize("opt", [fn.SGD(momentum=0.9), fn.SGD(momentum=0.9).donate(), fn.chain(fn.ClipByGlobalNorm(1.0), fn.Adam()).donate()], ids=repr)  # fmt: skip
def test_nothing_that_is_given_changes(opt: Any) -> None:
    """Params, state and batches do not change, donated or not, and a second run gives the same result, bit for bit."""
    given = tree.map(torch.clone, (PARAMS, opt.init(PARAMS), BATCHES))
    before = tree.map(torch.clone, given)
    step, options = step_of(opt), {"low": 1e-3, "steps": 20}
    first = lr_range(step, *given, **options)
    assert tree.equal(given, before)
    assert first == lr_range(step, *given, **options)
    assert step == step_of(opt)


def test_the_state_goes_on_from_what_is_given() -> None:
    """Rates start from low, whatever the optimizer's count."""
    opt, params = fn.SGD(momentum=0.9), PARAMS
    state = opt.init(params)
    for batch in BATCHES:
        params, state, _ = step_of(opt)(params, state, *batch)
    result = lr_range(step_of(opt), params, state, BATCHES, low=1e-4, steps=8)
    assert result.rates[0] == 1e-4
    assert result.losses[0] == step_of(opt)(params, state, *BATCHES[0])[2].item()


def test_a_step_that_updates_layer_by_layer_gives_the_same() -> None:
    """Such a step has one gradient in memory at a time."""
    layerwise = fn.train_step(NET, fn.MSE(), fn.Adam(), in_backward=True)
    assert lr_range(layerwise, PARAMS, fn.Adam().init(PARAMS), BATCHES, low=1e-4, steps=9) == found(fn.Adam(), steps=9)


def test_batches_may_come_from_a_loader() -> None:
    """The loader returns lists, and starts again."""
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, TARGET), batch_size=16)
    opt = fn.SGD()
    assert lr_range(step_of(), PARAMS, opt.init(PARAMS), loader, low=1e-4, steps=9) == found(steps=9)


def test_a_stochastic_net_gets_keys() -> None:
    """Each step has another key, and the next run repeats them; a missing key is an error."""
    net = fn.serial(fn.Linear(3, 8), fn.Dropout(0.5), fn.Linear(8, 1))
    params, opt = net.init(0), fn.SGD()
    run = lambda **key: lr_range(step_of(opt, net), params, opt.init(params), BATCHES[:1], low=1e-9, high=1e-8, steps=4, **key)
    assert len(set(run(rng=0).losses)) == 4
    assert run(rng=0) == run(rng=fn.key(0)) != run(rng=1)
    with pytest.raises(ValueError, match="must be given a key"):
        run()


def test_a_function_gets_the_rate_as_a_tensor() -> None:
    """A custom step of plain descent gives the losses of SGD."""

    def step(params, state, x, target, lr):
        y, cache = NET.apply(params, x)
        value, gy = fn.MSE().value_and_grad(y, target)
        return tree.update(lambda p, g: p - lr.to(p) * g, params, NET.grads(params, cache, gy)), state, value

    result = lr_range(step, PARAMS, {}, BATCHES, low=1e-4, high=0.1, steps=20)
    assert result.losses == pytest.approx(found(high=0.1, steps=20).losses, rel=1e-5)


def test_an_ensemble_has_the_mean_of_its_losses() -> None:
    """All members have one rate."""
    net = fn.ensemble(NET, 3)
    params, opt = net.init(0), fn.SGD()
    step = fn.train_step(net, fn.ensemble(fn.MSE(), 3), opt)
    result = lr_range(step, params, opt.init(params), BATCHES, low=1e-4, steps=5)
    assert result.losses[0] == pytest.approx(step(params, opt.init(params), *BATCHES[0])[2].mean().item())


@pytest.mark.compiled
def test_a_compiled_step_is_compiled_once_for_all_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """The losses match the eager step's; the given compiled step itself is not compiled."""
    opt = fn.Adam()
    made = []
    kind = fn.compilation.compiled.Compiled
    monkeypatch.setattr(kind, "_keep", lambda self, *one, keep=kind._keep: (made.append(one), keep(self, *one)))
    compiled = fn.compile(step_of(opt))
    with torch._dynamo.config.patch(error_on_recompile=True):
        result = lr_range(compiled, PARAMS, opt.init(PARAMS), BATCHES, low=1e-4, high=1.0, steps=12)
    assert len(made) == 1
    assert compiled.programs == 0
    assert result.losses == pytest.approx(found(fn.Adam(), high=1.0, steps=12).losses, rel=1e-4)


# the result


def result_of(*losses: float) -> RateRange:
    return RateRange(tuple([10.0**i for i in range(len(losses))]), losses, losses, False)


@pytest.mark.parametrize(
    ("losses", "suggestion"),
    [
        ((5.0, 5.0, 4.0, 1.0, 0.5, 9.0), 100.0),
        ((5.0, 4.9, 4.0, 3.9, 3.8, 9.0, 0.0), 1e5),
        ((1.0, 2.0, 3.0, 4.0), None),
        ((1.0,), None),
        ((), None),
        ((5.0, 5.0, 4.0, 1.0, math.nan), 100.0),
    ],
)
def test_the_suggestion_is_where_the_loss_falls_fastest(losses: tuple[float, ...], suggestion: float | None) -> None:
    """The slope is taken by central differences before the minimum; there is no suggestion if the loss never falls."""
    assert result_of(*losses).suggestion == suggestion


def test_the_result_prints_as_a_table() -> None:
    """The table has about ten rows, and the reason for the end in words."""
    lines = str(found(high=100.0, steps=200)).splitlines()
    assert lines[0].split() == ["lr", "loss", "smoothed"]
    assert 10 <= len(lines) - 2 <= 12
    assert "the loss diverged: suggestion 0." in lines[-1]
    assert repr(result_of(1.0)).endswith("1 steps, the loss did not diverge: no suggestion")


def test_the_result_draws_itself() -> None:
    """Losses, average and suggestion are drawn over a logarithmic axis, in a new figure or in given axes."""
    result = found(high=100.0, steps=200)
    ax = result.plot()
    assert ax.get_xscale() == "log"
    assert [len(line.get_xdata()) for line in ax.lines] == [len(result.rates), len(result.rates), 1]
    other = plt.subplots()[1]
    assert result_of(1.0, 2.0).plot(other) is other
    plt.close("all")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 0.0}, "lr_range: low and high must be finite numbers, 0 < low < high, got low=0.0, high=10.0"),
        ({"high": 1e-5}, "lr_range: low and high must be finite numbers, 0 < low < high, got low=0.0001, high=1e-05"),
        ({"steps": 1}, "lr_range: steps must be a whole number of at least 2, got 1"),
        ({"mode": "square"}, "lr_range: mode must be 'exponential' or 'linear', got 'square'"),
        ({"smoothing": 1.0}, "lr_range: smoothing must be a number of at least 0 and below 1, got 1.0"),
        ({"early_stop_threshold": 1.0}, "lr_range: early_stop_threshold must be a number above 1, or None, got 1.0"),
    ],
)
def test_a_wrong_option_is_refused_with_its_message(options: dict[str, Any], message: str) -> None:
    """The error names the function, the rule and the argument."""
    with pytest.raises(ValueError, match=r".") as caught:
        found(**options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("step", "batches", "message"),
    [
        (3, BATCHES, "lr_range: step must be a train step, or a function, got 3"),
        (step_of(), 3, "lr_range: batches must be a list of pairs (x, target), or an iterable of them, got 3"),
        (step_of(), [], "lr_range: batches must have steps=100 batches, or be a list, over which iteration can start again, got 0 batches"),
        (step_of(), iter(BATCHES), "lr_range: batches must have steps=100 batches, or be a list, over which iteration can start again, got 4 batches"),
        (step_of(), [X], "lr_range: each batch must be a pair (x, target), got a tensor of shape (64, 3) and dtype torch.float32"),
    ],
)  # fmt: skip
def test_a_step_or_batch_of_another_kind_is_refused_with_its_message(step: Any, batches: Any, message: str) -> None:
    """An iterator, which ends, is not a list."""
    with pytest.raises(ValueError, match=r".") as caught:
        lr_range(step, PARAMS, fn.SGD().init(PARAMS), batches)
    assert str(caught.value) == message


def test_an_optimizer_without_a_rate_is_refused() -> None:
    """With several rates, a function must say which rate it sets."""

    @fn.frozen
    class Still(fn.Optimizer):
        def init(self, params):
            return {}

        def update(self, grads, state, params):
            return params, state

    with pytest.raises(ValueError, match=r"^lr_range: the optimizer must have one field lr; for several, .*got 0 in Still\(\)"):
        lr_range(step_of(Still()), PARAMS, {}, BATCHES)


def test_params_that_are_no_tensors_are_refused() -> None:
    """The error is the same as in ``fit``."""
    with pytest.raises(ValueError, match=r"^lr_range: params and state must be trees of tensors, got 3"):
        lr_range(step_of(), {"w": 3}, {}, BATCHES)


def test_numbers_of_numpy_and_values_that_are_floats_will_do() -> None:
    """Rates are Python floats, and a custom step may return one as its value."""
    result = lr_range(lambda params, state, x, target, lr: (params, state, 1.0), PARAMS, {}, BATCHES, steps=np.int64(3))
    assert result.losses == (1.0, 1.0, 1.0)
    assert {*map(type, result.rates)} == {float}


WRAPPED = {
    "Lookahead": fn.Lookahead(fn.SGD(), 100),
    "Averaged": fn.Averaged(fn.SGD(), fn.EMA()),
    "MultiSteps": fn.MultiSteps(fn.SGD(), 1),
    "SkipNonFinite": fn.chain(fn.ClipByGlobalNorm(1e9), fn.SkipNonFinite(fn.SGD())),
    "LossScale": fn.chain(fn.LossScale(), fn.SkipNonFinite(fn.SGD())),
    "SAM": fn.SAM(fn.SGD(), rho=0.0),
}


@pytest.mark.parametrize("opt", WRAPPED.values(), ids=WRAPPED)
def test_an_optimizer_may_be_wrapped(opt: Any) -> None:
    """The wrappers change no step of SGD; donated or not, the inner optimizer has the rate."""
    want = found(fn.SGD(), high=0.1, steps=5).losses
    for form in (opt, opt.donate()):
        assert found(form, high=0.1, steps=5).losses == pytest.approx(want)
