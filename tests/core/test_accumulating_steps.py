"""train_step with ``accumulate``: the gradient of the whole batch from micro-batches, with every kind of optimizer and loss."""

import pickle
import weakref
from typing import Any

import pytest
import torch

import funcnet as fn
from funcnet import tree
from funcnet.losses.batch_means import by_part

X = fn.random.normal(1, (14, 3), dtype=torch.float64)
LABELS = torch.tensor([0, 1, -100, 2, 2, -100, 0, 1, 1, 2, -100, -100, 0, 1])
NET = fn.serial(fn.Linear(3, 8), fn.Tanh(), fn.Linear(8, 3))
NOISY = fn.serial(fn.Linear(3, 8), fn.BatchNorm1d(8), fn.Dropout(0.5), fn.Linear(8, 3))
LOSS = fn.CrossEntropy((0.5, 1.0, 3.0))
SUMMED = LOSS + 0.5 * fn.CrossEntropy(reduction="sum")
OPT = fn.SGD(0.1, momentum=0.9)


def start(net: fn.Layer = NET, opt: fn.Optimizer = OPT) -> tuple[Any, Any]:
    """Return params in float64 and the first state."""
    params = tree.cast(net.init(0), torch.float64)
    return params, opt.init(params)


@pytest.mark.parametrize("loss", [LOSS, SUMMED], ids=["one part", "two parts"])
def test_a_step_is_that_of_the_whole_batch(loss: fn.Loss) -> None:
    """Results agree up to rounding, for any spread of ignored labels and class weights, and a smaller last micro-batch."""
    want = fn.train_step(NET, loss, OPT)(*start(), X, LABELS)
    for k in (2, 3, 5, 14, 100):
        got = fn.train_step(NET, loss, OPT, accumulate=k)(*start(), X, LABELS)
        fn.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


CACHES: list[weakref.ref[torch.Tensor]] = []
LEFT: list[int] = []


@fn.frozen
class Counting(fn.Exp):
    """A layer that counts how many of its caches are alive when it is applied again."""

    def apply(self, params: Any, x: torch.Tensor, rng: Any = None) -> tuple[Any, Any]:
        """Count, and remember the new cache weakly."""
        LEFT.append(sum(one() is not None for one in CACHES))
        y, cache = super().apply(params, x, rng)
        CACHES.append(weakref.ref(cache))
        return y, cache


@pytest.mark.parametrize("loss", [LOSS, SUMMED], ids=["one part", "two parts"])
def test_there_is_one_micro_batch_at_a_time(loss: fn.Loss) -> None:
    """The cache of the previous micro-batch is released first; otherwise a step in parts would take twice the memory."""
    net = fn.serial(fn.Linear(3, 8), Counting(), fn.Linear(8, 3))
    CACHES.clear()
    LEFT.clear()
    fn.train_step(net, loss, OPT, accumulate=4)(*start(net), X, LABELS)
    assert LEFT == [0] * 4


def test_a_rule_that_clips_gradients_sees_those_of_the_whole_batch() -> None:
    """A micro-batch of 2 rows has 7 times the gradient that these rows have in a batch of 14."""
    net = fn.serial(fn.Linear(3, 8), fn.clip_gradient(0.004), fn.Tanh(), fn.Linear(8, 3))
    want = fn.train_step(net, LOSS, OPT)(*start(net), X, LABELS)
    for k in (2, 7, 14):
        got = fn.train_step(net, LOSS, OPT, accumulate=k)(*start(net), X, LABELS)
        fn.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)
    free = fn.replace(net, "1", fn.Identity())
    assert not tree.allclose(want[0], fn.train_step(free, LOSS, OPT)(*start(free), X, LABELS)[0], rtol=1e-4, atol=1e-6)


def test_a_step_is_accumulate_and_update() -> None:
    """Results agree bit for bit, with a key for each micro-batch and the statistics of the last one."""
    params, state = start(NOISY)
    value, grads, cache = fn.accumulate(NOISY, LOSS, 3)(params, X, LABELS, fn.key(5))
    want = (*OPT.update(grads, state, NOISY.update_stats(params, cache)), value)
    assert tree.equal(fn.train_step(NOISY, LOSS, OPT, accumulate=3)(params, state, X, LABELS, fn.key(5)), want)


def test_one_micro_batch_is_the_plain_step() -> None:
    """Results agree bit for bit, with the same key."""
    plain, one = fn.train_step(NOISY, LOSS, OPT), fn.train_step(NOISY, LOSS, OPT, accumulate=1)
    assert plain == one
    assert repr(plain) == repr(one)
    assert tree.equal(plain(*start(NOISY), X, LABELS, 7), one(*start(NOISY), X, LABELS, 7))


@pytest.mark.parametrize("loss", [LOSS, SUMMED], ids=["one part", "two parts"])
def test_a_loss_scale_multiplies_each_gradient_once(loss: fn.Loss) -> None:
    """A power of two is divided out again without rounding."""
    opt = fn.chain(fn.LossScale(2.0**12), OPT)
    got = fn.train_step(NET, loss, opt, accumulate=3)(*start(opt=opt), X, LABELS)
    want = fn.train_step(NET, loss, OPT, accumulate=3)(*start(), X, LABELS)
    assert tree.equal((got[0], got[2]), (want[0], want[2]))


def test_gradients_that_vanish_in_float16_are_found_in_micro_batches() -> None:
    """Each gradient is scaled before it is rounded to float16."""
    net = fn.serial(fn.Linear(3, 1, bias=False), fn.freeze(fn.Linear(1, 1, bias=False)))
    params = ({"weight": torch.zeros(1, 3)}, {"weight": torch.full((1, 1), 3e-4)})
    params, x = tree.cast(params, torch.float16), fn.random.normal(1, (256, 3)).half()
    target = net(tree.replace(params, "0.weight", torch.ones(1, 3).half()), x)
    for loss in (fn.MSE(), fn.MSE() + 0.0 * fn.L1()):
        moved = []
        for opt in (fn.MasterWeights(fn.SGD(1e6)), fn.MasterWeights(fn.chain(fn.LossScale(), fn.SGD(1e6)))):
            after = fn.train_step(net, loss, opt, accumulate=2)(params, opt.init(params), x, target)[0]
            moved.append(not tree.equal(after, params))
        assert moved == [False, True]


def test_an_optimizer_that_evaluates_gets_the_gradient_of_all_micro_batches() -> None:
    """``SAM`` evaluates both of its params with one key; statistics come from the first evaluation."""
    opt = fn.SAM(OPT, 0.2)
    params, state = start(NOISY, opt)
    evaluate = fn.accumulate(NOISY, LOSS, 3)
    value, grads, cache = evaluate(params, X, LABELS, 3)
    _, grads, _ = evaluate(opt.climb(grads, params), X, LABELS, 3)
    after, state_after = opt.update(grads, state, params)
    got = fn.train_step(NOISY, LOSS, opt, accumulate=3)(params, state, X, LABELS, 3)
    assert tree.equal(got, (NOISY.update_stats(after, cache), state_after, value))


def test_line_searches_see_the_loss_of_all_micro_batches() -> None:
    """``LBFGS`` ends at the same params as with the whole batch."""
    opt = fn.LBFGS(line_search_fn="strong_wolfe", max_iter=5)
    want = fn.train_step(NET, LOSS, opt)(*start(opt=opt), X, LABELS)
    got = fn.train_step(NET, LOSS, opt, accumulate=4)(*start(opt=opt), X, LABELS)
    fn.testing.assert_close((got[0], got[2]), (want[0], want[2]), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("k", [1, 3])
def test_the_parts_of_a_loss_have_separate_values(k: int) -> None:
    """Each part has its own mean, without its factor, even with a loss scale; ``fit`` records these means."""
    y = NET(start()[0], X)
    want = torch.stack([value for value, _ in SUMMED.parts(y, LABELS).values()])
    for opt in (OPT, fn.chain(fn.LossScale(), OPT)):
        got = fn.train_step(NET, by_part(SUMMED), opt, accumulate=k)(*start(opt=opt), X, LABELS)
        torch.testing.assert_close(got[2], want, rtol=1e-10, atol=1e-12)
        whole = fn.train_step(NET, SUMMED, OPT)(*start(), X, LABELS)
        fn.testing.assert_close(got[0], whole[0], rtol=1e-10, atol=1e-12)


def test_fit_takes_a_sum_of_losses_with_a_loss_scale() -> None:
    """The factor is one number for all parts."""
    scaled = fn.chain(fn.LossScale(), fn.SGD(0.1))
    found = [
        fn.fit(NET, fn.MSE() + 0.5 * fn.L1(), opt, (X.float(), X.float()), epochs=2, batch_size=5, key=0, progress=False)
        for opt in (scaled, fn.SGD(0.1))
    ]
    assert tree.equal(found[0].params, found[1].params)
    assert found[0].history["loss.L1"] == found[1].history["loss.L1"]


def test_named_data_is_cut_by_rows() -> None:
    """x and target may be trees."""
    net, loss = fn.graph("x", a=(NET, "x"), b=(NET, "x"), output={"a": "a", "b": "b"}), fn.losses_of(a=LOSS, b=(0.5, fn.MSE()))
    target = {"a": LABELS, "b": X}
    want = fn.train_step(net, loss, OPT)(*start(net), X, target)
    fn.testing.assert_close(fn.train_step(net, loss, OPT, accumulate=4)(*start(net), X, target), want, rtol=1e-10, atol=1e-12)


def test_members_of_an_ensemble_have_a_value_each() -> None:
    """Each part of the loss has a value per member too, even with a loss scale."""
    net, loss, opt = fn.ensemble(NET, 2), fn.ensemble(SUMMED, 2), fn.chain(fn.LossScale(), OPT)
    for one in (loss, by_part(loss)):
        want = fn.train_step(net, one, OPT)(*start(net), X, LABELS)
        got = fn.train_step(net, one, opt, accumulate=4)(*start(net, opt), X, LABELS)
        fn.testing.assert_close((got[0], got[2]), (want[0], want[2]), rtol=1e-10, atol=1e-12)


def test_it_is_a_value() -> None:
    """A step prints, compares, hashes and pickles with its number of micro-batches."""
    step = fn.train_step(NET, LOSS, OPT, accumulate=4)
    assert repr(step).endswith(", accumulate=4)")
    for again in (eval(repr(step), vars(fn)), pickle.loads(pickle.dumps(step)), step.replace(opt=OPT)):
        assert again == step
        assert hash(again) == hash(step)
        assert tree.equal(again(*start(), X, LABELS), step(*start(), X, LABELS))
    assert step != step.replace(accumulate=3)
    assert tree.equal(step.replace(accumulate=1)(*start(), X, LABELS), fn.train_step(NET, LOSS, OPT)(*start(), X, LABELS))


@pytest.mark.parametrize("k", [0, -1, 2.0, True, None])
def test_a_number_of_micro_batches_is_whole(k: Any) -> None:
    """The number must be at least 1."""
    with pytest.raises(ValueError, match="train_step: accumulate must be a whole number of at least 1"):
        fn.train_step(NET, LOSS, OPT, accumulate=k)


def test_updates_in_the_backward_pass_are_refused() -> None:
    """Such updates would need the whole gradient of each layer at once."""
    with pytest.raises(ValueError, match=r"in_backward=True updates layers .* over several, got accumulate=2"):
        fn.train_step(NET, LOSS, OPT, in_backward=True, accumulate=2)


def test_rows_that_do_not_fit_are_refused() -> None:
    """The error names the rows."""
    with pytest.raises(ValueError, match=r"accumulate\(.*x and target must be dense, and must have the same number of rows"):
        fn.train_step(NET, LOSS, OPT, accumulate=2)(*start(), X, LABELS[:5])
    with pytest.raises(
        ValueError, match=r"must be dense, and must have the same number of rows, got a tensor of layout torch\.sparse_coo"
    ):
        fn.train_step(NET, LOSS, OPT, accumulate=2)(*start(), X.to_sparse(), LABELS)


@pytest.mark.compiled
def test_an_accumulating_step_compiles_whole() -> None:
    """The step is a single graph, with a loss scale and dropout."""
    opt = fn.chain(fn.LossScale(), OPT)
    step = fn.train_step(NOISY, SUMMED, opt, accumulate=2)
    want = step(*start(NOISY, opt), X, LABELS, fn.key(2))
    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    fn.testing.assert_close(compiled(*start(NOISY, opt), X, LABELS, fn.key(2)), want, rtol=1e-9, atol=1e-12)
