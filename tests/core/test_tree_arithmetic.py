"""Trees: arithmetic, comparison, one vector of all leaves, and replacement of single leaves."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sample_trees import ONE, Pair, any_tree, reordered, sample, tensor, tensors, trees

from funcnet import flattening, tree

float_tree = trees(tensors.map(torch.Tensor.double) | st.none())


# arithmetic


def test_dot_sums_the_products_of_all_leaves():
    """The sum is over every element of every leaf that both trees have."""
    a = {"x": tensor(1, 2), "y": (torch.tensor(3.0), None)}
    b = {"y": (torch.tensor(5.0), tensor(9)), "x": tensor(10, 100)}
    assert tree.dot(a, b).item() == 1 * 10 + 2 * 100 + 3 * 5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dot_of_half_precision_is_summed_in_single(dtype):
    """The squares of 300 overflow float16."""
    a = {"x": torch.full((5001,), 300.0, dtype=dtype)}
    assert tree.dot(a, a) == 5001 * 300.0**2
    assert tree.dot(a, a).dtype is torch.float32


def test_dot_of_nothing_is_zero():
    """Trees without a common leaf are orthogonal."""
    assert tree.dot({"x": None}, {"x": ONE}).item() == 0


@given(float_tree)
def test_dot_with_itself_is_the_square_of_the_norm(value):
    """⟨x, x⟩ = ‖x‖² holds."""
    torch.testing.assert_close(tree.dot(value, value).double(), tree.norm(value) ** 2)


def test_add_sums_leaf_by_leaf():
    """Dicts are added by key."""
    assert tree.equal(
        tree.add({"x": tensor(1), "y": tensor(2)}, {"y": tensor(20), "x": tensor(10)}), {"x": tensor(11), "y": tensor(22)}
    )


def test_add_takes_the_leaf_that_is_there():
    """An absent leaf counts as zero; if both are absent, the sum is absent."""
    one, other = {"x": ONE, "y": None, "z": None}, {"x": None, "y": ONE, "z": None}
    assert tree.equal(tree.add(one, other), {"x": ONE, "y": ONE, "z": None})


def test_scale_multiplies_every_leaf():
    """The factor may be a number or a 0-d tensor."""
    assert tree.equal(tree.scale({"x": tensor(1, 2), "y": None}, 3), {"x": tensor(3, 6), "y": None})
    assert tree.equal(tree.scale((tensor(1, 2),), torch.tensor(0.5)), (tensor(0.5, 1),))


def test_norm_is_euclidean_over_all_leaves():
    """3, 4 and 12 give 13, with an additional absent leaf."""
    assert tree.norm({"a": tensor(3, 4), "b": (None, torch.tensor(12.0))}).item() == 13


@pytest.mark.parametrize("size", [1e30, 1e-30])
def test_norm_neither_overflows_nor_vanishes_in_float32(size):
    """The squares of 1e30 and 1e-30 are outside float32; the norm is not."""
    norm = tree.norm([torch.full((4,), size), torch.full((12,), size)])
    assert norm.item() == pytest.approx(4 * size, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int64, torch.bool])
def test_norm_is_a_float64_scalar_of_leaves_of_any_real_dtype(dtype):
    """Counters and masks count as numbers."""
    norm = tree.norm({"a": torch.ones(4, dtype=dtype)})
    assert (norm.dtype, norm.shape, norm.item()) == (torch.float64, (), 2)


def test_norm_of_nothing_is_zero():
    """The zero is float64 too."""
    assert tree.equal(tree.norm({}), torch.zeros((), dtype=torch.float64))


def test_zeros_like_has_the_shapes_and_dtypes():
    """Absent leaves stay absent."""
    assert tree.equal(
        tree.zeros_like({"a": ONE, "b": tensor(1, dtype=torch.int64), "c": None}),
        {"a": 0 * ONE, "b": tensor(0, dtype=torch.int64), "c": None},
    )


def test_cast_converts_floating_leaves_only():
    """Labels, counters, masks and leaves that are not tensors stay the same objects."""
    value = {"w": ONE, "n": torch.tensor(3), "m": torch.tensor(True), "none": None, "words": "x"}
    cast = tree.cast(value, torch.bfloat16)
    assert cast["w"].dtype is torch.bfloat16
    assert all(cast[key] is value[key] for key in ["n", "m", "none", "words"])


def test_to_moves_every_tensor():
    """Integers are moved too; other leaves stay."""
    moved = tree.to({"w": ONE, "n": torch.tensor(3), "none": None, "words": "x"}, "meta")
    assert [moved["w"].device.type, moved["n"].device.type, moved["none"], moved["words"]] == ["meta", "meta", None, "x"]


def test_size_and_nbytes_count_all_tensors():
    """Elements are counted, and bytes with each dtype's width; a tensor at two places counts twice."""
    value = {"a": torch.zeros(2, 3), "b": (torch.zeros(4, dtype=torch.float64), None), "c": torch.tensor(True), "d": 1.5}
    assert tree.size(value) == 6 + 4 + 1
    assert tree.nbytes(value) == 6 * 4 + 4 * 8 + 1
    assert tree.size([ONE, ONE]) == 4


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_all_finite_finds_one_bad_element(bad):
    """The element may be in any leaf."""
    assert not tree.all_finite({"a": ONE, "b": (tensor(1, bad), None)})


@pytest.mark.parametrize("good", [{}, {"a": None}, {"a": ONE, "n": torch.tensor(3)}, torch.full((2,), 3e38)])
def test_all_finite_is_a_bool_tensor_that_is_true_of_the_rest(good):
    """Integers and empty trees are finite."""
    assert torch.equal(tree.all_finite(good), torch.tensor(True))


# equal

UNEQUAL = {
    "value": (tensor(1, 2), tensor(1, 3)),
    "dtype": (tensor(1), tensor(1, dtype=torch.float64)),
    "shape": (torch.ones(2, 1), torch.ones(1, 2)),
    "broadcast": (torch.ones(1), torch.ones(2)),
    "NaN": (tensor(float("nan")), tensor(float("nan"))),
    "absent": (ONE, None),
    "device": (ONE, ONE.to("meta")),
    "key": ({"a": ONE}, {"b": ONE}),
    "more": ({"a": ONE}, {"a": ONE, "b": None}),
    "kind": ((ONE,), [ONE]),
    "named": (Pair(ONE, ONE), (ONE, ONE)),
    "named the other way": ((ONE, ONE), Pair(ONE, ONE)),
    "node": ({"a": ONE}, {"a": (ONE,)}),
    "empty": ({"a": {}}, {"a": ()}),
    "leaf and node": (ONE, {}),
    "bool and int": (True, 1),
    "words": ("a", "b"),
}


@pytest.mark.parametrize(("one", "other"), UNEQUAL.values(), ids=UNEQUAL)
def test_equal_tells_apart(one, other):
    """The trees differ in one respect each."""
    assert tree.equal(one, other) is False


def test_equal_tells_a_nan_from_itself():
    """NaN is unequal to NaN as in arithmetic, even in the same tensor."""
    nan = tensor(float("nan"))
    assert tree.equal(nan, nan) is False


@given(trees(tensors | st.none() | st.integers() | st.text()))
def test_equal_ignores_the_order_of_keys(value):
    """A tree equals its copy with reversed keys."""
    copy = tree.map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, reordered(value))
    assert tree.equal(value, copy) is True


# ravel


def test_ravel_joins_the_leaves_in_order():
    """Leaves are flattened row by row and joined; absent leaves are skipped."""
    value = {"b": torch.arange(4.0).reshape(2, 2).t(), "a": (None, torch.tensor(9.0))}
    assert torch.equal(tree.ravel(value), tensor(0, 2, 1, 3, 9))


def test_ravel_promotes_to_the_common_dtype():
    """float32 and float64 give float64."""
    assert tree.ravel([ONE, ONE.double()]).dtype is torch.float64


@pytest.mark.parametrize("empty", [{}, {"a": None}, [torch.zeros(0, 3)]])
def test_ravel_of_nothing_is_an_empty_vector(empty):
    """The empty vector can be unraveled too."""
    assert tree.ravel(empty).shape == (0,)
    assert tree.equal(tree.unravel(tree.ravel(empty), empty), empty)


@given(any_tree)
def test_unravel_is_the_way_back_from_ravel(value):
    """Shapes, dtypes, kinds and absent leaves are restored."""
    assert tree.equal(tree.unravel(tree.ravel(value), value), value)


@pytest.mark.parametrize("shape", [(6,), (8,), (7, 1), ()])
def test_unravel_refuses_a_vector_of_another_size(shape):
    """The error has the expected size and the shape of the vector."""
    with pytest.raises(ValueError, match="unravel") as caught:
        tree.unravel(torch.zeros(shape), sample())
    assert str(caught.value) == (
        f"unravel: the vector must have the 7 elements of like, got a tensor of shape {shape} and dtype torch.float32"
    )


# replace, partition, combine


def test_replace_changes_one_leaf_and_shares_the_rest():
    """The original tree does not change."""
    value = sample()
    changed = tree.replace(value, "layers.2.1", "new")
    assert changed["layers"][2][1] == "new"
    assert torch.equal(value["layers"][2][1], torch.tensor(5.0))
    assert changed["layers"][0]["weight"] is value["layers"][0]["weight"]
    assert type(changed["state"]) is Pair


def test_replace_fills_an_absent_leaf():
    """Its place has a path too."""
    assert tree.replace({"a": None}, "a", 1) == {"a": 1}


def test_replace_of_a_leaf_alone():
    """Its path is empty."""
    assert tree.replace(1, "", 2) == 2


@pytest.mark.parametrize("path", ["c", "a.b", "a.0", "b.2", "b.x"])
@pytest.mark.parametrize("who", ["at", "replace"])
def test_a_path_that_does_not_exist_is_a_lookup_error_that_names_those_that_do(who, path):
    """Both functions that take a path raise it."""
    with pytest.raises(LookupError) as caught:
        getattr(tree, who)({"a": 1, "b": (2, 3)}, path, *([0] if who == "replace" else []))
    assert caught.value.args == (f"{who}: nothing at {path!r}; there are a, b.0, b.1",)


def test_at_returns_leaves_and_subtrees():
    """The path of the whole tree is empty, and numeric keys are read as they are written."""
    value = {"a": ({"b": 1, 3: 2},), "c": None}
    assert tree.at(value, "a.0") == {"b": 1, 3: 2}
    assert (tree.at(value, "a.0.b"), tree.at(value, "a.0.3"), tree.at(value, "c"), tree.at(value, "")) == (1, 2, None, value)


def test_replace_changes_subtrees():
    """The new subtrees may have any structure."""
    value = {"a": ({"b": 1},), "c": 2}
    assert tree.replace(value, "a.0", (5, 6)) == {"a": ((5, 6),), "c": 2}
    assert tree.replace(value, "a", None) == {"a": None, "c": 2}
    assert tree.replace(value, "", 3) == 3


def test_update_leaves_what_has_no_gradient():
    """A hand-written optimizer keeps running statistics, which ``map`` would lose."""
    params, grads = (
        {"w": torch.tensor(2.0), "mean": torch.tensor(7.0), "gone": None},
        {"w": torch.tensor(1.0), "mean": None, "gone": None},
    )
    moved = tree.update(lambda p, g: p - 0.5 * g, params, grads)
    assert (moved["w"], moved["mean"], moved["gone"]) == (1.5, 7.0, None)
    with pytest.raises(ValueError, match="the trees must agree, and at 'w'"):
        tree.update(torch.add, params, {**grads, "w": (1,)})


def test_map_with_path_gives_the_path_too():
    """Absent leaves are skipped."""
    assert tree.map_with_path(lambda path, leaf: f"{path}={leaf}", ({"a": 1, "b": None}, 2)) == ({"a": "0.a=1", "b": None}, "1=2")


def test_partition_parts_by_the_path():
    """Both parts have the structure of the whole, with ``None`` for leaves in the other part."""
    chosen, rest = tree.partition({"a": 1, "b": (2, None)}, lambda path: path.startswith("b"))
    assert chosen == {"a": None, "b": (2, None)}
    assert rest == {"a": 1, "b": (None, None)}


@given(any_tree, st.integers(0, 2))
def test_combine_is_the_way_back_from_partition(value, salt):
    """Any partition is tried, and both orders."""
    one, other = tree.partition(value, lambda path: (len(path) + salt) % 3 == 0)
    assert tree.equal(tree.combine(one, other), value)
    assert tree.equal(tree.combine(other, one), value)


def test_combine_refuses_two_leaves_at_one_place():
    """The error names the first such path."""
    with pytest.raises(ValueError, match=r"combine: each leaf must be in only one of the trees, got two at 'b\.0'"):
        tree.combine({"a": 1, "b": (2,)}, {"b": (3,), "a": None})


# purity and transforms


@given(float_tree)
def test_nothing_is_written_to(value):
    """No function modifies its argument."""
    copy = tree.map(torch.clone, value)
    tree.add(value, value), tree.scale(value, 2), tree.norm(value), tree.dot(value, value), tree.zeros_like(value)
    tree.ravel(value).add_(1)
    tree.partition(value, bool), tree.cast(value, torch.float32), tree.all_finite(value)
    assert tree.equal(value, copy)


def arithmetic(value):
    """Use every function of tensors once."""
    total = tree.add(value, tree.scale(tree.zeros_like(value), 2.0))
    vector = tree.ravel(tree.cast(total, torch.float64))
    back = tree.unravel(vector * 2, value)
    chosen, rest = tree.partition(back, lambda path: path.endswith("weight"))
    named = tree.from_names(tree.names(tree.combine(rest, chosen)), like=value)
    return named, tree.norm(value), tree.dot(value, named), tree.all_finite(value)


@pytest.mark.compiled
def test_trees_compile_whole():
    """``torch.compile(fullgraph=True)`` traces every function and gives the same bits."""
    compiled = torch.compile(arithmetic, fullgraph=True, backend="aot_eager")
    assert tree.equal(compiled(sample()), arithmetic(sample()))


def test_trees_work_under_vmap():
    """Each row is the same as by itself."""
    rows = [tree.scale(sample(), factor) for factor in (1.0, -2.0, 3.0)]
    stacked = tree.map(lambda *leaves: torch.stack(leaves), *rows)
    mapped = torch.func.vmap(
        lambda *leaves: tree.leaves(arithmetic(flattening.unflatten(stacked, iter(_absent(stacked, leaves)))))
    )(*tree.leaves(stacked))
    alone = zip(*[tree.leaves(arithmetic(row)) for row in rows], strict=True)
    for got, want in zip(mapped, alone, strict=True):
        torch.testing.assert_close(got, torch.stack(want))


def _absent(like, leaves):
    """Put ``None`` back among the leaves."""
    there = iter(leaves)
    return [None if leaf is None else next(there) for leaf in flattening.flatten_together(like)[0]]


def test_trees_work_on_the_meta_device():
    """Meta tensors have shapes without values."""
    value = tree.to(sample(), "meta")
    assert tree.ravel(value).shape == (7,)
    assert tree.norm(value).device.type == "meta"
    assert tree.structure(tree.unravel(tree.ravel(value), value)) == tree.structure(value)


# differences, products, interpolation, bounds and choices


@given(float_tree)
def test_sub_undoes_add(value):
    """(x + x) - x = x, and x - x = 0."""
    assert tree.equal(tree.sub(tree.add(value, value), value), value)
    assert tree.equal(tree.sub(value, value), tree.zeros_like(value))


def test_sub_counts_an_absent_leaf_as_zero():
    """Both leave params without gradients unchanged."""
    assert tree.equal(
        tree.sub({"x": ONE, "y": None, "z": None}, {"x": None, "y": ONE, "z": None}), {"x": ONE, "y": -ONE, "z": None}
    )


def test_mul_multiplies_leaf_by_leaf():
    """A leaf that one tree lacks is absent in the product."""
    assert tree.equal(tree.mul({"x": tensor(2, 3), "y": ONE}, {"y": None, "x": tensor(5, 7)}), {"x": tensor(10, 21), "y": None})


def test_lerp_has_exact_ends():
    """0 gives a and 1 gives b, even if b - a is rounded; the weight may be a number or a 0-d tensor."""
    a, b = {"x": tensor(1e8, 0.1)}, {"x": tensor(1.0, 0.3)}
    assert tree.equal(tree.lerp(a, b, 0.0), a)
    assert tree.equal(tree.lerp(a, b, 1.0), b)
    assert tree.equal(tree.lerp(a, b, torch.tensor(0.25)), tree.lerp(a, b, 0.25))
    assert tree.allclose(tree.lerp(a, b, 0.5), {"x": tensor(5.00000005e7, 0.2)})


def test_clip_clamps_every_element():
    """There may be two bounds or one."""
    value = {"x": tensor(-3, 0, 3), "y": None}
    assert tree.equal(tree.clip(value, -1, 2), {"x": tensor(-1, 0, 2), "y": None})
    assert tree.equal(tree.clip(value, high=2), {"x": tensor(-3, 0, 2), "y": None})
    assert tree.equal(tree.clip(value), value)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (None, 1.0), (0.0, None)])
def test_clip_takes_bounds_as_tensors(low, high):
    """Bounds may differ by element, by entry under vmap, or be combined with a number, unlike in torch.clamp."""
    value, numbers = {"x": tensor(-3.0, 0.5, 5.0)}, {"low": low, "high": high}
    want = tree.clip(value, **numbers)
    bounds = {name: one if one is None else torch.full((3,), one) for name, one in numbers.items()}
    assert tree.equal(tree.clip(value, **bounds), want)
    assert tree.equal(tree.clip(value, **{**numbers, "high": bounds["high"]}), want)
    each = torch.func.vmap(
        lambda low, high: tree.clip(value, low, high), in_dims=(None if low is None else 0, None if high is None else 0)
    )
    assert torch.equal(each(*bounds.values())["x"], torch.stack([want["x"]] * 3))


def test_where_takes_one_condition_for_all_or_a_tree_of_them():
    """An example is a step that is taken only if all gradients are finite."""
    new, old = {"x": tensor(1, 2), "y": (tensor(3),)}, {"x": tensor(10, 20), "y": (tensor(30),)}
    assert tree.equal(tree.where(torch.tensor(True), new, old), new)
    assert tree.equal(tree.where(torch.tensor(False), new, old), old)
    by_element = {"x": torch.tensor([True, False]), "y": (torch.tensor([False]),)}
    assert tree.equal(tree.where(by_element, new, old), {"x": tensor(1, 20), "y": (tensor(30),)})
    assert tree.equal(tree.where(by_element["x"], new["x"], old["x"]), tensor(1, 20))


def test_allclose_distinguishes_near_from_far():
    """Structure, shape and numbers count; different dtypes are compared in their common one; NaN is equal only if allowed."""
    one = {"x": tensor(1.0, torch.nan), "n": 3}
    near = {"x": tensor(1.0 + 1e-6, torch.nan), "n": 3}
    assert tree.allclose(one, near, equal_nan=True)
    assert not tree.allclose(one, near)
    assert not tree.allclose(one, near, rtol=1e-8, equal_nan=True)
    assert not tree.allclose(one, {"x": one["x"]}, equal_nan=True)
    assert not tree.allclose(tensor(1.0), tensor(1.0, 1.0))
    assert tree.allclose(tensor(0.5, 2), tensor(0.5, 2).double())


def test_reduce_folds_the_leaves_in_order():
    """The fold starts from the initial value and skips absent leaves."""
    assert tree.reduce(lambda text, leaf: text + str(leaf), {"a": 1, "b": (2, None, [3])}, "") == "123"


def test_map_with_path_takes_several_trees():
    """If one leaf is absent, the result is absent."""
    one, other = {"a": tensor(1), "b": None}, {"b": tensor(2), "a": tensor(3)}
    assert tree.map_with_path(lambda path, x, y: f"{path}: {x.item():g} {y.item():g}", one, other) == {"a": "a: 1 3", "b": None}
