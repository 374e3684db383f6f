"""Gradient transforms: the contract in funcnet/optim/base.py, for all of them."""

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from optimizer_cases import TRANSFORMS, one_of_each
from training import leaves

import funcnet as fn
from funcnet import tree
from funcnet.flattening import Tree

each_transform = pytest.mark.parametrize("transform", TRANSFORMS, ids=repr)


def run(transform: fn.GradientTransform, steps: int = 3) -> Any:
    """Pass the gradients of some steps through a transform."""
    params, found = leaves(0), []
    state = transform.init(params)
    for step in range(steps):
        grads, state = transform.update(leaves(100 + step), state, params)
        found.append(grads)
    return found, state


def kinds(values: Tree) -> Tree:
    """Return shape, dtype and device of each leaf."""
    return tree.map(lambda x: (x.shape, x.dtype), values)


@each_transform
def test_the_judge_of_transforms_agrees(transform: fn.GradientTransform) -> None:
    """Params have running statistics, are in half precision, or are empty."""
    normed = fn.serial(fn.Linear(3, 4), fn.BatchNorm1d(4), fn.Tanh(), fn.Linear(4, 2)).init(0)
    empty = {"none": torch.ones(0, 3), "scale": torch.ones(()), "weight": torch.ones(2, 3)}
    for params in (normed, tree.cast(fn.Linear(3, 2).init(0), torch.bfloat16), torch.ones(3), {}, empty):
        fn.testing.check_transform(transform, params, compiled=False)


@each_transform
def test_structure_dtypes_and_shapes_are_kept(transform: fn.GradientTransform) -> None:
    """Gradients and state keep them in each precision; absent gradients stay absent."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        params, grads = leaves(0, dtype), tree.replace(leaves(1, dtype), "0.weight", None)
        state = transform.init(params)
        new, after = transform.update(grads, state, params)
        assert kinds(new) == kinds(grads)
        assert new[0]["weight"] is None
        assert kinds(after) == kinds(state)


@each_transform
def test_equal_arguments_give_equal_bits_and_stay_as_they_are(transform: fn.GradientTransform) -> None:
    """Nothing is written in place, and an update depends on nothing else."""
    params, grads = leaves(0, torch.float32), leaves(1, torch.float32)
    arguments = (grads, transform.init(params), params)
    before = copy.deepcopy(arguments)
    first = transform.update(*arguments)
    assert tree.equal(arguments, before)
    assert {leaf._version for leaf in tree.leaves(arguments)} == {0}
    assert tree.equal(transform.update(*before), first)


@each_transform
def test_what_comes_out_has_no_graph(transform: fn.GradientTransform) -> None:
    """Gradients may have a graph; a graph in the state would grow with every step."""
    params, state = leaves(0), transform.init(leaves(0))
    for graphs in (False, True, True):
        ps, gs = [tree.map(lambda x, graphs=graphs: x.clone().requires_grad_(graphs) * 1, one) for one in (params, leaves(1))]
        for p in (ps, gs):
            new, state = transform.update(gs, state, p)
            assert not [path for path, leaf in tree.names((new, state)).items() if leaf.requires_grad]


@each_transform
def test_layout_changes_no_bit(transform: fn.GradientTransform) -> None:
    """Transposed params and gradients give the results of contiguous ones."""
    p, g = (fn.random.normal(i, (33, 17)) for i in (0, 1))
    state = transform.init({"w": p})
    want = transform.update({"w": g}, state, {"w": p})
    turned = transform.update({"w": g.t().contiguous().t()}, state, {"w": p.t().contiguous().t()})
    assert tree.equal(turned, want)


@each_transform
def test_half_precision_is_rounded_once(transform: fn.GradientTransform) -> None:
    """A bfloat16 gradient gives the float32 result, rounded."""
    params, grads = leaves(0, torch.bfloat16), leaves(1, torch.bfloat16)
    narrow = transform.update(grads, transform.init(params), params)[0]
    wide = tree.cast((params, grads), torch.float32)
    exact = transform.update(wide[1], transform.init(wide[0]), wide[0])[0]
    assert tree.equal(narrow, tree.cast(exact, torch.bfloat16))


@each_transform
def test_a_tree_without_tensors_comes_back(transform: fn.GradientTransform) -> None:
    """Trees may be empty, and all gradients may be absent."""
    for params in ({}, (), ({}, ()), {"w": None}):
        assert transform.update(params, transform.init(params), params)[0] == params


@each_transform
def test_a_nan_is_passed_on(transform: fn.GradientTransform) -> None:
    """Only the transform made for it removes a NaN from the gradients."""
    params = {"w": torch.ones(2)}
    new, _ = transform.update({"w": torch.tensor([1.0, math.nan])}, transform.init(params), params)
    assert isinstance(transform, fn.ZeroNaNs) or math.isnan(float(new["w"][1]))


@each_transform
def test_zero_gradients_make_no_nan(transform: fn.GradientTransform) -> None:
    """Params may be zeros too."""
    params = {"w": torch.zeros(3)}
    new, _ = transform.update(params, transform.init(params), params)
    assert tree.all_finite(new)


@each_transform
def test_meta_tensors_are_transformed(transform: fn.GradientTransform) -> None:
    """On the meta device a transform gives shapes and dtypes."""
    params, grads = tree.to((leaves(0), leaves(1)), "meta")
    new, after = transform.update(grads, transform.init(params), params)
    assert {leaf.device.type for leaf in tree.leaves(new)} <= {"meta"}
    assert kinds(after) == kinds(transform.init(params))


@each_transform
def test_updates_work_under_vmap(transform: fn.GradientTransform) -> None:
    """``update`` mapped over members, each with its own state, equals a loop over the members."""
    members = [leaves(i) for i in range(3)]
    states = [transform.update(leaves(5), transform.init(p), p)[1] for p in members]
    alone = [transform.update(leaves(9 + i), s, p) for i, (s, p) in enumerate(zip(states, members, strict=True))]
    trees = ([leaves(9 + i) for i in range(3)], states, members)
    stacked = [tree.map(lambda *xs: torch.stack(xs), *one) for one in trees]
    out = tree.map(lambda _: 0, alone[0])
    found = torch.func.vmap(transform.update, tree.map(lambda _: 0, tuple(stacked)), out)(*stacked)
    expected = tree.map(lambda *xs: torch.stack(xs), *alone)
    torch.testing.assert_close(tree.leaves(found), tree.leaves(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.compiled
@pytest.mark.parametrize("transform", one_of_each(TRANSFORMS), ids=repr)
def test_updates_compile_whole(transform: fn.GradientTransform) -> None:
    """One graph serves all steps, and agrees to rounding."""
    fn.testing.check_transform(transform, {"weight": leaves(0)[0]["weight"]})


@each_transform
def test_transforms_are_values(transform: fn.GradientTransform) -> None:
    """Transforms compare, hash, pickle and copy; one that was used equals a new one."""
    again = pickle.loads(pickle.dumps(transform))
    assert again.replace() == transform or isinstance(transform, (fn.ScaleBySchedule, fn.Monitor))
    run(transform, steps=1)
    assert copy.deepcopy(transform) == transform
    assert hash(copy.copy(transform)) == hash(transform)


@each_transform
def test_a_part_is_updated_as_in_the_whole(transform: fn.GradientTransform) -> None:
    """Transforms that act on the whole tree, by ``acts_on``, are the exception."""
    params, grads = {"a": leaves(0), "b": leaves(1)}, {"a": leaves(2), "b": leaves(3)}
    state = transform.init(params)
    new, after = transform.update(grads, state, params)
    if transform.acts_on == "tree":
        with pytest.raises(ValueError, match=r"in_backward|clipped_grads"):
            fn.train_step(fn.Linear(2, 2), fn.MSE(), fn.chain(transform, fn.SGD()), in_backward=True)
        return
    part = transform.update(grads["b"], transform.map_state(lambda one: one["b"], state), params["b"])
    assert tree.equal(part, (new["b"], transform.map_state(lambda one: one["b"], after)))


def _misfits() -> dict[str, Any]:
    """Wrong gradients, by kind."""
    return {
        "complex": torch.ones(2, dtype=torch.complex64),
        "integer": torch.ones(2, dtype=torch.int64),
        "sparse": torch.ones(2).to_sparse(),
        "shape": torch.ones(3),
        "dtype": torch.ones(2, dtype=torch.float64),
        "number": 1.0,
    }


NEEDS_NO_PARAMS = {"shape", "dtype"}


@each_transform
def test_misfits_are_refused_with_their_path(transform: fn.GradientTransform) -> None:
    """Transforms that read gradients refuse wrong ones, and gradients that do not fit params or state."""
    params = {"a": torch.ones(2), "b": torch.ones(2)}
    state = transform.init(params)
    looks = getattr(transform, "reads_params", False) or [*getattr(transform, "moments", ())] not in ([], ["nan_count"])
    for kind, g in _misfits().items():
        if isinstance(transform, fn.Monitor) or (kind in NEEDS_NO_PARAMS and not looks):
            continue
        whole = transform.replace(mask="*") if isinstance(transform, fn.AddDecayedWeights) else transform
        with pytest.raises(ValueError, match=rf"^{type(transform).__name__}\(.* at 'b'"):
            whole.update({"a": torch.ones(2), "b": g}, state, params)


@each_transform
def test_a_state_of_another_transform_is_refused(transform: fn.GradientTransform) -> None:
    """The message says what it must be."""
    params = {"w": torch.ones(2)}
    for other in ({"steps": 1}, {"step": torch.tensor(0), "more": {}}, None, ()):
        with pytest.raises(ValueError, match=r"state must be (a dict of step|\{\}).*, as init returns it, got "):
            transform.update(params, other, params)


def test_a_step_counts_without_gradients_too() -> None:
    """Optimizers count it too."""
    transform = fn.ScaleByAdam()
    state = transform.init({"w": torch.ones(2)})
    assert int(transform.update({"w": None}, state, {"w": torch.ones(2)})[1]["step"]) == 1
