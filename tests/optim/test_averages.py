"""Averages of params: compared with torch.optim.swa_utils and their formulas, and what states and params keep."""

import pytest
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from training import leaves

import funcnet as fn
from funcnet import tree

ALL = [fn.EMA(0.8), fn.EMA(0.8, debias=True), fn.EMA(0.99, warmup=True), fn.EMA(fn.LinearSchedule(0.5, 0.9, 4)), fn.SWA(2, 3)]
each_average = pytest.mark.parametrize("average", ALL, ids=repr)


def averaged(average: fn.EMA | fn.SWA, steps: int = 8, dtype: torch.dtype = torch.float64, first: int = 0) -> list[fn.tree.Tree]:
    """Return the averaged params after each step from some params to others."""
    state, found = average.init(leaves(first, dtype)), []
    for step in range(1, steps + 1):
        state = average.update(state, leaves(first + step, dtype))
        found.append(average.params(state))
    return found


class Held(torch.nn.Module):
    """A module whose params are ``leaves``."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.held = torch.nn.ParameterList([torch.nn.Parameter(p.clone()) for p in tree.leaves(leaves(seed))])

    def load(self, seed: int) -> None:
        """Set other values."""
        with torch.no_grad():
            for p, new in zip(self.held, tree.leaves(leaves(seed)), strict=True):
                p.copy_(new)


def by_torch(start: int = 0, every: int = 1, **how: object) -> list[list[Tensor]]:
    """Average with ``AveragedModel``; its first update copies the model, as ours does in ``init`` or at the first that counts."""
    module, found = Held(0), []
    model = AveragedModel(module, **how)
    if how:
        model.update_parameters(module)
    for step in range(1, 9):
        module.load(step)
        if step - 1 >= start and (step - 1 - start) % every == 0:
            model.update_parameters(module)
        found.append([p.detach().clone() for p in model.module.held])
    return found


def test_ema_is_that_of_torch() -> None:
    """The averages agree at each of eight steps."""
    want = by_torch(multi_avg_fn=get_ema_multi_avg_fn(0.8))
    torch.testing.assert_close([tree.leaves(one) for one in averaged(fn.EMA(0.8))], want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("start", "every"), [(0, 1), (2, 3), (4, 1)])
def test_swa_is_that_of_torch(start: int, every: int) -> None:
    """The averages agree from the first update that counts; before it our average is the last params."""
    got = [tree.leaves(one) for one in averaged(fn.SWA(start, every))]
    want = by_torch(start, every)
    torch.testing.assert_close(got[start:], want[start:], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(got[:start], [tree.leaves(leaves(i)) for i in range(1, start + 1)], rtol=0, atol=0)


def test_a_debiased_average_is_the_weighted_mean_of_what_came() -> None:
    """The decay may change; the params of ``init`` do not count."""
    rising = [0.5 + 0.05 * t for t in range(8)]
    for average, decays in ((fn.EMA(0.8, debias=True), [0.8] * 8), (fn.EMA(lambda t: 0.5 + 0.05 * t, debias=True), rising)):
        total, share = torch.zeros(5, 7, dtype=torch.float64), 0.0
        for step, (decay, got) in enumerate(zip(decays, averaged(average), strict=True), 1):
            total, share = decay * total + (1 - decay) * leaves(step)[0]["weight"], decay * share + 1 - decay
            torch.testing.assert_close(got[0]["weight"], total / share, rtol=1e-12, atol=1e-14)


def test_warmup_forgets_the_first_params() -> None:
    """The decay is (1 + t) / (10 + t) while this is smaller."""
    want, got = leaves(0)[0]["bias"], averaged(fn.EMA(0.3, warmup=True))
    for t in range(8):
        decay = min(0.3, (1 + t) / (10 + t))
        want = decay * want + (1 - decay) * leaves(t + 1)[0]["bias"]
        torch.testing.assert_close(got[t][0]["bias"], want, rtol=1e-12, atol=1e-14)


@each_average
def test_half_precision_is_averaged_in_float32(average: fn.EMA | fn.SWA) -> None:
    """``params`` has the dtypes of params, and is the float32 average rounded."""
    halves = averaged(average, dtype=torch.bfloat16)[-1]
    state = average.init(tree.cast(leaves(0, torch.bfloat16), torch.float32))
    for step in range(1, 9):
        state = average.update(state, tree.cast(leaves(step, torch.bfloat16), torch.float32))
    assert tree.equal(halves, tree.cast(average.params(state), torch.bfloat16))


@each_average
def test_states_are_pure_and_keep_their_kind(average: fn.EMA | fn.SWA) -> None:
    """States share no memory with params, which may be donated; integers have their last value, and None stays."""
    params = {"w": torch.ones(3), "n": torch.tensor(1), "none": None}
    state = average.init(params)
    kept = tree.map(torch.clone, state)
    after = average.update(state, {"w": torch.zeros(3), "n": torch.tensor(5), "none": None})
    assert tree.equal(state, kept)
    assert int(average.params(after)["n"]) == 5
    assert tree.map(lambda x: (x.shape, x.dtype), after) == tree.map(lambda x: (x.shape, x.dtype), state)
    memory = {leaf.untyped_storage().data_ptr() for leaf in tree.leaves(state) if leaf.numel()}
    assert memory.isdisjoint({leaf.untyped_storage().data_ptr() for leaf in tree.leaves(params)})


@each_average
def test_averages_work_under_vmap_and_on_meta(average: fn.EMA | fn.SWA) -> None:
    """``vmap`` gives the results of a loop over members, and the meta device the shapes."""

    def whole(first: fn.tree.Tree, second: fn.tree.Tree) -> fn.tree.Tree:
        return average.params(average.update(average.update(average.init(first), first), second))

    members = [(leaves(i), leaves(9 + i)) for i in range(3)]
    stacked = tree.map(lambda *xs: torch.stack(xs), *members)
    want = tree.map(lambda *xs: torch.stack(xs), *[whole(*one) for one in members])
    torch.testing.assert_close(tree.leaves(torch.func.vmap(whole)(*stacked)), tree.leaves(want), rtol=1e-12, atol=1e-14)
    meta = whole(*tree.to(members[0], "meta"))
    assert {leaf.device.type for leaf in tree.leaves(meta)} == {"meta"}


@pytest.mark.compiled
@pytest.mark.parametrize("average", [fn.EMA(fn.LinearSchedule(0.5, 0.9, 4), debias=True, warmup=True), fn.SWA(2, 3)], ids=repr)
def test_averages_compile_whole(average: fn.EMA | fn.SWA) -> None:
    """One graph serves all steps."""
    torch._dynamo.reset()
    update = torch.compile(average.update, fullgraph=True, backend="aot_eager")
    state = average.init(leaves(0))
    with torch._dynamo.config.patch(error_on_recompile=True):
        for step in range(1, 9):
            state = update(state, leaves(step))
    torch.testing.assert_close(tree.leaves(average.params(state)), tree.leaves(averaged(average)[-1]), rtol=1e-12, atol=1e-13)


@each_average
def test_misfits_are_refused(average: fn.EMA | fn.SWA) -> None:
    """A state of another kind, and params of another structure, shape or dtype, are refused with the path."""
    state = average.init({"a": torch.ones(2), "b": None, "w": torch.ones(2, 3)})
    with pytest.raises(ValueError, match="state must be a dict of average, "):
        average.update({"step": 1}, {})
    with pytest.raises(ValueError, match=r"params at 'w' must match the state, .*\(2, 3\).*, got .*\(3,\)"):
        average.update(state, {"a": torch.ones(2), "b": None, "w": torch.ones(3)})
    with pytest.raises(ValueError, match=r"at 'w' .*float32, got .*float64"):
        average.update(state, {"a": torch.ones(2), "b": None, "w": torch.ones(2, 3, dtype=torch.float64)})
    with pytest.raises(ValueError, match="'w'"):
        average.update(state, {"a": torch.ones(2), "b": None})


def test_a_debiased_average_of_nothing_is_refused() -> None:
    """The result would be 0 / 0."""
    average = fn.EMA(debias=True)
    with pytest.raises(ValueError, match="with debias, update must be called before params"):
        average.params(average.init({"w": torch.ones(2)}))


@each_average
def test_params_without_floating_leaves_have_an_average(average: fn.EMA | fn.SWA) -> None:
    """A net may have no such leaves, or only counters; a leaf that is not a tensor is refused."""
    for first, last in (({}, {}), ({"n": torch.tensor(1)}, {"n": torch.tensor(5)}), (None, None)):
        state = average.update(average.init(first), last)
        assert tree.equal(average.params(state), last)
    with pytest.raises(ValueError, match=r"params must have a tensor at 'a\.b', got 3"):
        average.init({"a": {"b": 3}})


@each_average
def test_states_of_members_can_be_stacked(average: fn.EMA | fn.SWA) -> None:
    """``update`` is mapped over them as over params."""
    members = [(average.init(leaves(i)), leaves(9 + i)) for i in range(3)]
    want = [average.params(average.update(*one)) for one in members]
    stacked = tree.map(lambda *xs: torch.stack(xs), *members)
    got = torch.func.vmap(lambda state, params: average.params(average.update(state, params)))(*stacked)
    whole = tree.map(lambda *xs: torch.stack(xs), *want)
    torch.testing.assert_close(tree.leaves(got), tree.leaves(whole), rtol=1e-12, atol=1e-14)
