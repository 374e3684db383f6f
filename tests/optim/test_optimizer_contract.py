"""The contract of optimizers, which every one of them keeps."""

import copy
import io
import pickle
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from optimizer_cases import OPTIMIZERS
from torch import Tensor
from training import each_optimizer, each_separate_optimizer, leaves, run

import funcnet as fn
from funcnet import tree
from funcnet.flattening import Tree
from funcnet.optim import columns
from funcnet.optim.adam import Adam, AdamW
from funcnet.optim.averaged import followers
from funcnet.optim.base import Optimizer, State
from funcnet.optim.chaining import donate
from funcnet.optim.schedules.interpolation import LinearSchedule
from funcnet.optim.sgd import SGD
from funcnet.random import key, normal
from funcnet.value import frozen


def channels_last(x: Tensor) -> Tensor:
    """Return a copy whose second of four axes is the last in memory."""
    return x.clone(memory_format=torch.channels_last)


LAYOUTS: list[Callable[[Tensor], Tensor]] = [
    lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
    lambda x: torch.stack([x, x], -1)[..., 0],
    lambda x: torch.cat([x.new_zeros(3), x.flatten()])[3:].view(x.shape),
    torch.clone,
    channels_last,
]

# Contract


@each_optimizer
def test_update_writes_to_no_argument(optimizer: Optimizer) -> None:
    """Params, gradients and state keep their values and version counters."""
    params, grads = leaves(0), leaves(1)
    _, state = run(optimizer, params, steps=2)
    arguments = (params, grads, state)
    copies, versions = copy.deepcopy(arguments), tree.map(lambda leaf: leaf._version, arguments)
    optimizer.update(grads, state, params)
    assert tree.equal(arguments, copies)
    assert tree.map(lambda leaf: leaf._version, arguments) == versions


@each_optimizer
def test_donating_changes_no_bit(optimizer: Optimizer) -> None:
    """Params and state of the donated optimizer equal the pure one's, bit for bit."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        assert tree.equal(run(donate(optimizer), leaves(0, dtype)), run(optimizer, leaves(0, dtype))), dtype


@each_optimizer
def test_donating_reuses_the_memory(optimizer: Optimizer) -> None:
    """The new params and state use the memory of the old ones."""
    params, state = run(optimizer, leaves(0), steps=1)
    places = tree.map(Tensor.data_ptr, (params, state))
    assert tree.map(Tensor.data_ptr, donate(optimizer).update(leaves(1), state, params)) == places


@each_optimizer
def test_donating_leaves_the_gradients(optimizer: Optimizer) -> None:
    """The gradients are not donated."""
    params, state = run(optimizer, leaves(0), steps=1)
    grads = leaves(1)
    donate(optimizer).update(grads, state, params)
    assert tree.equal(grads, leaves(1))


def test_an_optimizer_without_a_donated_form_donates_itself() -> None:
    """``donate`` returns a user-defined optimizer unchanged."""

    @frozen
    class Still(Optimizer):
        def init(self, params: Tree) -> State:
            return {}

        def update(self, grads: Tree, state: State, params: Tree) -> tuple[Tree, State]:
            return params, state

    still = Still()
    assert donate(still) is still


@each_optimizer
def test_state_is_complete_at_init(optimizer: Optimizer) -> None:
    """No update changes the structure, shapes or dtypes of the state."""
    params = leaves(0, torch.float32)
    before, (_, after) = optimizer.init(params), run(optimizer, params, steps=2)
    assert tree.structure(after) == tree.structure(before)
    assert tree.map(lambda x: (x.shape, x.dtype), after) == tree.map(lambda x: (x.shape, x.dtype), before)


def test_the_moments_have_the_names_of_torch() -> None:
    """The moments have the names that torch.optim's state uses."""
    _, state = run(AdamW(amsgrad=True), leaves(0), steps=1)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))], amsgrad=True)
    optimizer.param_groups[0]["params"][0].grad = torch.ones(2)
    optimizer.step()
    assert set(state) == set(*map(set, optimizer.state.values()))


@pytest.mark.parametrize(
    ("optimizer", "names"),
    [
        (SGD(), ["step"]),
        (SGD(momentum=0.9), ["step", "momentum_buffer"]),
        (SGD(momentum=LinearSchedule(0.0, 0.9, 5)), ["step", "momentum_buffer"]),
        (Adam(), ["step", "exp_avg", "exp_avg_sq"]),
        (AdamW(amsgrad=True), ["step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"]),
    ],
    ids=repr,
)
def test_the_state_holds_what_the_formula_needs(optimizer: Optimizer, names: list[str]) -> None:
    """The state is a dict of the step and the moments in use, no others."""
    assert list(optimizer.init(leaves(0))) == names


def test_the_step_counts_the_updates() -> None:
    """The step is a 0-d int64 tensor with the number of updates."""
    _, state = run(Adam(), leaves(0), steps=3)
    assert torch.equal(state["step"], torch.tensor(3))


@each_optimizer
def test_the_state_is_read_and_written_by_name(optimizer: Optimizer) -> None:
    """Every leaf can be read and replaced by its path, and the next update uses the new value."""
    params, state = run(optimizer, leaves(0), steps=2)
    for path, leaf in tree.names(state).items():
        written = tree.replace(state, path, leaf + 1)
        assert torch.equal(tree.at(written, path), leaf + 1)
        assert tree.structure(written) == tree.structure(state)
    step = next(path for path in tree.names(state) if path.endswith("step"))
    _, after = optimizer.update(leaves(1), tree.replace(state, step, torch.tensor(10)), params)
    assert tree.at(after, step) == 11


@each_optimizer
def test_dtypes_are_kept(optimizer: Optimizer) -> None:
    """Params keep their dtype, including 0-d leaves."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        params, _ = run(optimizer, leaves(0, dtype), steps=2)
        assert tree.map(lambda x: x.dtype, params) == tree.map(lambda _, dtype=dtype: dtype, params)


@each_optimizer
def test_low_precision_comes_close_to_float64(optimizer: Optimizer) -> None:
    """Three steps from the same numbers differ from those in float64 by rounding."""
    for dtype, tolerance in {torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}.items():
        start = tree.cast(leaves(0, dtype), torch.float64)
        exact, rounded = [run(optimizer, tree.cast(start, kind), steps=3)[0] for kind in (torch.float64, dtype)]
        fn.testing.assert_close(tree.cast(rounded, torch.float64), exact, rtol=tolerance, atol=tolerance)


@each_separate_optimizer
def test_dtypes_may_be_mixed(optimizer: Optimizer) -> None:
    """A tree of several dtypes is updated as its parts are by themselves."""
    parts = [{"p": leaves(i, dtype)} for i, dtype in enumerate([torch.float32, torch.float64, torch.bfloat16])]
    grads = [{"p": leaves(9 + i, dtype)} for i, dtype in enumerate([torch.float32, torch.float64, torch.bfloat16])]
    alone = [optimizer.update(g, optimizer.init(p), p)[0] for g, p in zip(grads, parts, strict=True)]
    together, _ = optimizer.update(tuple(grads), optimizer.init(tuple(parts)), tuple(parts))
    assert tree.equal(together, tuple(alone))


@each_optimizer
def test_a_leaf_without_gradient_is_left_untouched(optimizer: Optimizer) -> None:
    """If the gradient is None, the parameter and all its moments are the same tensors as before; averages follow params."""
    params, state = run(optimizer, leaves(0), steps=2)
    grads = tree.replace(leaves(1), "0.weight", None)
    after = optimizer.update(grads, state, params)
    before = {
        path: leaf for path, leaf in tree.names((params, state)).items() if followers(optimizer).isdisjoint(path.split("."))
    }
    same = [path for path, leaf in before.items() if leaf is tree.names(after)[path]]
    whole = tree.names(optimizer.update(leaves(1), state, params))
    constant = [path for path in before if torch.equal(whole[path], before[path])]  # no update changes these
    assert {*same} - {*constant} == {path for path in before if path.endswith("0.weight")} - {*constant}
    assert {path for path in constant if path.endswith("0.weight")} <= {*same}


@each_separate_optimizer
def test_the_other_leaves_step_as_ever(optimizer: Optimizer) -> None:
    """A missing gradient changes nothing for the parameters that have one."""
    whole, _ = run(optimizer, leaves(0), steps=1)
    partial, _ = optimizer.update(tree.replace(leaves(100), "0.weight", None), optimizer.init(leaves(0)), leaves(0))
    assert tree.equal(tree.replace(partial, "0.weight", None), tree.replace(whole, "0.weight", None))


@each_optimizer
def test_without_any_gradient_only_the_counts_move(optimizer: Optimizer) -> None:
    """If all gradients are None, params and moments stay; the step, other counts and averages of params continue."""
    params, state = run(optimizer, leaves(0), steps=2)
    after, moved = optimizer.update(tree.map(lambda _: None, params), state, params)
    changed = [path for path, leaf in tree.names(moved).items() if not torch.equal(leaf, tree.names(state)[path])]
    assert tree.equal(after, params)
    counts = {"step", *getattr(optimizer, "numbers", {}), *getattr(getattr(optimizer, "optimizer", optimizer), "scalars", {})}
    own = [path for path in changed if followers(optimizer).isdisjoint(path.split("."))]
    assert {"step"} <= {path.rpartition(".")[2] for path in own} <= counts


@each_optimizer
def test_a_counter_among_the_params_survives(optimizer: Optimizer) -> None:
    """An integer leaf has no moments, and with the gradient None it stays the same tensor."""
    count = torch.tensor(7)
    params = {"net": leaves(0), "num_batches_tracked": count}
    state = optimizer.init(params)
    after, _ = optimizer.update({"net": leaves(1), "num_batches_tracked": None}, state, params)
    assert after["num_batches_tracked"] is count
    assert not [path for path in tree.names(state) if path.endswith("num_batches_tracked")]


@each_optimizer
def test_a_tree_without_tensors_comes_back(optimizer: Optimizer) -> None:
    """A net without params has a state and takes steps."""
    for params in ({}, (), ({}, ()), {"weight": None}, None):
        after, _ = optimizer.update(params, optimizer.init(params), params)
        assert after == params


@each_optimizer
def test_a_tensor_alone_is_a_tree(optimizer: Optimizer) -> None:
    """Params may be a single tensor, which gets the same update as in a dict."""
    p, g = normal(key(0), (3,)), normal(key(1), (3,))
    alone, _ = optimizer.update(g, optimizer.init(p), p)
    within, _ = optimizer.update({"p": g}, optimizer.init({"p": p}), {"p": p})
    assert torch.equal(alone, within["p"])


@each_optimizer
def test_layout_changes_no_bit(optimizer: Optimizer) -> None:
    """Transposed and expanded gradients give the results of contiguous ones."""
    p = {"a": normal(key(0), (33, 17)), "b": normal(key(1), (33, 17))}
    transposed, expanded = normal(key(2), (17, 33)).t(), normal(key(3), (1, 17)).expand(33, 17)
    grads, dense = {"a": transposed, "b": expanded}, {"a": transposed.contiguous(), "b": expanded.contiguous()}
    state = optimizer.init(p)
    assert tree.equal(optimizer.update(grads, state, p), optimizer.update(dense, state, p))


SIZES = {
    torch.float32: [(3, 5, 7, 2), (8, 4, 3, 3), (6, 8), (33, 17), (129,)],
    torch.float64: [(8, 4, 3, 3), (33, 17), (129,)],
    torch.bfloat16: [(33, 17), (129,)],
    torch.float16: [(6, 8)],
}
"""Sizes that fill no whole register, and some that do, which kernels may process in the layout that they have."""


def assert_layouts_change_nothing(used: Optimizer, plain: Optimizer, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Take three steps with params, moments and gradients in every layout, and compare them bit for bit with contiguous ones."""
    draw = lambda seed: {"p": normal(key(seed), shape, dtype=torch.float64).to(dtype)}
    grads, laid = [draw(i) for i in (1, 2, 3)], [layout for layout in LAYOUTS if len(shape) == 4 or layout is not channels_last]
    expected, state = draw(0), plain.init(draw(0))
    runs = [
        ({"p": one(draw(0)["p"])}, tree.map(lambda x, one=one: one(x) if x.shape == shape else x, used.init(draw(0))))
        for one in laid
    ]
    for g in grads:
        expected, state = plain.update(g, state, expected)
        for i, other in enumerate(reversed(laid)):
            runs[i] = used.update({"p": other(g["p"])}, runs[i][1], runs[i][0])
    assert all(tree.equal(one, (expected, state)) for one in runs), (shape, dtype)


@each_optimizer
def test_equal_values_give_equal_bits_whatever_their_strides(optimizer: Optimizer) -> None:
    """Pure and donated steps are tried, in each precision."""
    for dtype, sizes in SIZES.items():
        for shape in sizes:
            for used in (optimizer, donate(optimizer)):
                assert_layouts_change_nothing(used, optimizer, shape, dtype)


@each_optimizer
def test_a_broadcast_gradient_gives_the_bits_of_a_plain_one(optimizer: Optimizer) -> None:
    """The gradient is one number for all elements, as a sum returns it; the param may be one too."""
    for dtype in (torch.float64, torch.float32):
        p = normal(key(0), (2, 3), dtype=torch.float64).to(dtype)
        spread = {"p": normal(key(1), (), dtype=torch.float64).to(dtype).expand(2, 3)}
        for params, grads in (({"p": p}, spread), (spread, {"p": p})):
            given = (grads, optimizer.init(params), params)
            assert tree.equal(optimizer.update(*given), optimizer.update(*tree.map(torch.clone, given)))


@each_optimizer
def test_strides_are_kept(optimizer: Optimizer) -> None:
    """Params in channels_last and their moments keep the memory format."""
    p = {"p": channels_last(normal(key(0), (3, 5, 7, 2)))}
    after, state = optimizer.update(p, optimizer.init(p), p)
    assert {x.stride() for x in tree.leaves((after, state)) if x.shape == p["p"].shape} == {p["p"].stride()}


@each_optimizer
def test_a_saved_state_continues_bit_for_bit(optimizer: Optimizer) -> None:
    """Six steps, torch.save, torch.load and six more equal twelve steps."""
    whole = run(optimizer, leaves(0))
    file = io.BytesIO()
    torch.save(run(optimizer, leaves(0), steps=6), file)
    file.seek(0)
    params, state = torch.load(file, weights_only=True)
    assert tree.equal(run(optimizer, params, 6, state, first=6), whole)


@pytest.mark.compiled
@each_optimizer
def test_update_compiles_whole(optimizer: Optimizer) -> None:
    """A donated update compiles to one graph for all steps, and gives the eager steps to rounding."""
    torch._dynamo.reset()
    step, (params, state) = (
        torch.compile(donate(optimizer).update, fullgraph=True, backend="aot_eager"),
        run(optimizer, leaves(0), 0),
    )
    with torch._dynamo.config.patch(error_on_recompile=True):
        for i in range(4):
            params, state = step(leaves(100 + i), state, params)
    expected = tree.leaves(run(optimizer, leaves(0), steps=4))
    torch.testing.assert_close(tree.leaves((params, state)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.compiled
@pytest.mark.parametrize("optimizer", OPTIMIZERS[:3], ids=repr)
def test_compiled_sgd_is_bit_equal(optimizer: Optimizer) -> None:
    """Compiled without fusion, SGD with numbers for rates agrees bit for bit with eager mode."""
    torch._dynamo.reset()
    params, grads = leaves(0, torch.float32), leaves(1, torch.float32)
    state = optimizer.init(params)
    compiled = torch.compile(optimizer.update, fullgraph=True, backend="aot_eager")
    assert tree.equal(compiled(grads, state, params), optimizer.update(grads, state, params))


@each_optimizer
def test_update_works_under_vmap(optimizer: Optimizer) -> None:
    """``update`` mapped over params, gradients and states of members equals a loop over the members."""
    members = [leaves(i) for i in range(3)]
    states = [run(optimizer, member, steps=i)[1] for i, member in enumerate(members)]
    alone = [optimizer.update(leaves(9 + i), state, p) for i, (state, p) in enumerate(zip(states, members, strict=True))]
    stacked = [tree.map(lambda *xs: torch.stack(xs), *trees) for trees in ([leaves(9 + i) for i in range(3)], states, members)]
    mapped = tree.map(lambda _: 0, tuple(stacked))  # absent leaves are not mapped
    together = torch.func.vmap(optimizer.update, mapped, (mapped[2], mapped[1]))(*stacked)
    expected = tree.map(lambda *xs: torch.stack(xs), *alone)
    torch.testing.assert_close(tree.leaves(together), tree.leaves(expected), rtol=1e-12, atol=1e-12)


@each_optimizer
def test_meta_tensors_take_steps(optimizer: Optimizer) -> None:
    """On the meta device update gives the shapes and dtypes of params and state."""
    params, grads = tree.to(leaves(0, torch.float32), "meta"), tree.to(leaves(1, torch.float32), "meta")
    state = optimizer.init(params)
    after = optimizer.update(grads, state, params)
    assert tree.map(lambda x: (x.shape, x.dtype), after) == tree.map(lambda x: (x.shape, x.dtype), (params, state))


@each_optimizer
def test_steps_can_be_differentiated(optimizer: Optimizer) -> None:
    """The derivative of two steps by their gradients, by ``torch.func``, equals a central difference."""
    _, state = run(optimizer, leaves(0), steps=2)

    def after(t: Tensor) -> Tensor:
        params, now = leaves(0), state
        for step in (1, 2):
            params, now = optimizer.update(tree.map(lambda g, d: g + t * d, leaves(step), leaves(9)), now, params)
        return tree.ravel(params).sum()

    t = torch.zeros((), dtype=torch.float64)
    difference = (after(t + 1e-6) - after(t - 1e-6)) / 2e-6
    for slope in (torch.func.grad(after)(t), torch.func.jvp(after, (t,), (torch.ones_like(t),))[1]):
        torch.testing.assert_close(slope, difference, rtol=1e-6, atol=1e-8)


def test_nets_that_alternate_do_not_make_guards_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two trees with equally many leaves alternate in one optimizer: results are right, with one guard for each tree."""
    made, guard = [], columns.tensor_guard
    monkeypatch.setattr(columns, "tensor_guard", lambda tensors: made.append(len(tensors)) or guard(tensors))
    optimizer = SGD(0.1, momentum=0.9)
    nets = [leaves(0), tree.map(lambda x: torch.stack([x, 2 * x]), leaves(1))]
    runs = [(params, optimizer.init(params)) for params in nets]
    for step in range(4):
        for i, (params, state) in enumerate(runs):
            runs[i] = optimizer.update(tree.map(lambda x, step=step: x * step, nets[i]), state, params)
    assert made == [10, 10]
    for (params, _), first in zip(runs, nets, strict=True):
        alone, state = first, SGD(0.1, momentum=0.9).init(first)
        for step in range(4):
            alone, state = SGD(0.1, momentum=0.9).update(tree.map(lambda x, step=step: x * step, first), state, alone)
        assert tree.equal(params, alone)


def test_trees_of_other_kinds_than_the_first_are_taken_too() -> None:
    """Keys come in another order, gradients in an ``OrderedDict``, and there are more structures than codecs."""
    optimizer = SGD(0.1, momentum=0.9)
    for n in range(1, 12):
        params = {str(i): torch.full((2,), float(i)) for i in range(n)}
        state = optimizer.init(params)
        grads = OrderedDict(reversed([*tree.map(torch.ones_like, params).items()]))
        moved, state = optimizer.update(grads, state, params)
        again, _ = optimizer.update(tree.map(torch.ones_like, params), state, moved)
        want, want_state = SGD(0.1, momentum=0.9).update(grads, optimizer.init(params), params)
        assert tree.equal(moved, want)
        assert tree.equal(again, SGD(0.1, momentum=0.9).update(grads, want_state, want)[0])
    assert len(optimizer._guards.codecs) == columns.GUARDS


def test_guards_are_bounded_and_no_part_of_the_value() -> None:
    """An optimizer that has taken steps equals a new one, as does its hash, repr, pickle and copy."""
    optimizer, new = SGD(0.1, momentum=0.9), SGD(0.1, momentum=0.9)
    for n in range(1, 20):
        params = {"weight": torch.zeros(n)}
        optimizer.update(params, optimizer.init(params), params)
    assert len(optimizer._guards.guards) == columns.GUARDS
    assert (optimizer, hash(optimizer), repr(optimizer)) == (new, hash(new), repr(new))
    for other in (pickle.loads(pickle.dumps(optimizer)), copy.deepcopy(optimizer), optimizer.replace(lr=0.1)):
        assert other == optimizer
        assert other._guards.guards == ()


EXTREMES = {"zero": 0.0, "subnormal": 1e-42, "tiny": 1e-30, "large": 1e15}


@each_optimizer
def test_extreme_gradients_leave_finite_params(optimizer: Optimizer) -> None:
    """Gradients are zeros, small ones whose squares underflow float32, and large ones; params may be zeros too."""
    for start in (leaves(0, torch.float32), tree.zeros_like(leaves(0, torch.float32))):
        for kind, size in EXTREMES.items():
            params, state = start, optimizer.init(start)
            for _ in range(4):
                params, state = optimizer.update(tree.map(lambda p, g=size: torch.full_like(p, g), start), state, params)
            assert tree.all_finite((params, state)), kind


def finds_nan(optimizer: Optimizer, state: State, params: Tree) -> bool:
    """Return whether a NaN reached the params, or was counted by an optimizer that skips it."""
    return bool(state["skipped"] == 1) if isinstance(optimizer, fn.SkipNonFinite) else bool(params["w"].isnan().all())


@each_optimizer
def test_a_nan_is_not_hidden(optimizer: Optimizer) -> None:
    """A NaN in the third gradient reaches its param, in each precision, pure, donated and mapped."""
    for dtype in (torch.float32, torch.float16):
        ones, spoiled = [{"w": torch.full((2, 3), number, dtype=dtype)} for number in (1.0, torch.nan)]
        for used in (optimizer, donate(optimizer)):
            params, state = tree.map(torch.clone, ones), used.init(ones)
            for g in (ones, ones, spoiled):
                before = tree.map(torch.clone, (state, params))
                params, state = used.update(g, state, params)
            assert finds_nan(optimizer, state, params), (dtype, used)
        given = tree.map(lambda x: x[None], (spoiled, *before))
        axes = tree.map(lambda _: 0, given)
        params, state = torch.func.vmap(optimizer.update, axes, (axes[2], axes[1]))(*given)
        assert finds_nan(optimizer, state, params), dtype
