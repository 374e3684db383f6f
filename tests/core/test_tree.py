"""Trees: structure, names and disagreements, for every nesting of dicts, tuples, lists and named tuples."""

import operator
from collections import OrderedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sample_trees import ONE, Pair, any_tree, reordered, sample, trees

from funcnet import flattening, tree
from funcnet.codec import TreeCodec
from funcnet.flattening import differences

SAMPLE_NAMES = ["layers.0.weight", "layers.2.0", "layers.2.1", "state.mean", "state.square"]


number_tree = trees(st.integers(-9, 9) | st.none())


# map, leaves, structure


def test_map_keeps_the_kind_of_every_node():
    """Dicts, tuples, lists and named tuples come back with the same type."""
    mapped = tree.map(lambda leaf: leaf, sample())
    assert tree.structure(mapped) == tree.structure(sample())
    assert type(mapped["layers"]) is tuple
    assert type(mapped["layers"][2]) is list
    assert type(mapped["state"]) is Pair


def test_map_applies_f_to_every_leaf_and_keeps_the_absent_ones():
    """A ``None`` leaf stays ``None``, and ``f`` never sees it."""
    assert tree.map(lambda leaf: leaf + 1, {"a": 1, "b": None, "c": (2, [3])}) == {"a": 2, "b": None, "c": (3, [4])}


def test_map_of_several_trees_meets_the_leaves_of_one_place():
    """Dicts are matched by key, whatever their order, and the result is ordered like the first."""
    mapped = tree.map(lambda a, b, c: (a - b) * c, {"x": 9, "y": 5}, {"y": 1, "x": 2}, {"x": 10, "y": 100})
    assert mapped == {"x": 70, "y": 400}
    assert list(mapped) == ["x", "y"]


@pytest.mark.parametrize("absent", [({"x": None}, {"x": 1}), ({"x": 1}, {"x": None})])
def test_map_passes_over_a_place_where_one_tree_has_no_leaf(absent):
    """If one of the trees has ``None``, the result has ``None``."""
    assert tree.map(lambda a, b: a + b, *absent) == {"x": None}


@pytest.mark.parametrize("leaf", [3, None])
def test_a_leaf_alone_is_a_tree(leaf):
    """A single leaf, present or absent, is a tree for every function."""
    assert tree.map(lambda x: x, leaf) == leaf
    assert tree.leaves(leaf) == [leaf] * (leaf is not None)
    assert tree.structure(leaf) == "*"


@pytest.mark.parametrize("empty", [{}, (), [], {"a": {}, "b": ((), [])}])
def test_empty_nodes_are_trees(empty):
    """A tree may have no leaves."""
    assert tree.map(lambda leaf: 1 / 0, empty) == empty
    assert tree.leaves(empty) == []
    assert tree.names(empty) == {}


def test_leaves_are_listed_in_order_without_the_absent():
    """Dicts are listed in the order of their keys, without ``None``."""
    assert tree.leaves({"b": 1, "a": (2, None, [3]), "c": Pair(None, 4)}) == [1, 2, 3, 4]


def test_structure_has_a_star_for_every_leaf():
    """Absent leaves have one too: the structure is the tree with all leaves replaced."""
    assert tree.structure({"a": 1, "b": (None, {}, [2])}) == {"a": "*", "b": ("*", {}, ["*"])}


@given(any_tree)
def test_structure_does_not_depend_on_the_order_of_keys(value):
    """Two trees that differ only in the order of their keys match."""
    assert tree.structure(value) == tree.structure(reordered(value))


@given(number_tree)
def test_map_of_the_identity_is_the_identity(value):
    """Nothing is lost or moved."""
    assert tree.map(lambda leaf: leaf, value) == value


@given(number_tree)
def test_map_matches_reordered_dicts_by_key(value):
    """A tree and its copy with reversed keys have equal leaves at each place."""
    assert tree.map(lambda a, b: a - b, value, reordered(value)) == tree.map(lambda leaf: 0, value)


@given(number_tree)
def test_fill_is_the_way_back_from_columns(value):
    """A tree that is flattened and rebuilt is equal."""
    assert flattening.unflatten(value, iter(flattening.flatten_together(value)[0])) == value


def test_columns_are_side_by_side_in_the_order_of_the_first():
    """Absent leaves are kept, so all columns have the same length."""
    assert flattening.flatten_together({"a": 1, "b": (None, 2)}, {"b": (3, None), "a": 4}) == [[1, None, 2], [4, 3, None]]


@given(number_tree)
def test_three_trees_are_flattened_like_each_by_itself(value):
    """Other code flattens three trees together than one tree; the second has reversed keys, the third has gaps."""
    one = tree.map(torch.tensor, value)
    two, three = reordered(one), tree.map(lambda leaf: None if leaf.item() % 2 else leaf, one)
    for found, other in zip(flattening.flatten_together(one, two, three), (one, two, three), strict=True):
        assert all(map(operator.is_, found, flattening.flatten_together(one, other)[1]))
        assert len(found) == len(flattening.flatten_together(one)[0])


@given(any_tree, any_tree)
def test_a_codec_reads_the_trees_of_its_structure_and_no_others(like, other):
    """The codec finds the same leaves as ``flatten_like``, with dict keys in any order, and refuses the same trees."""
    for one in (like, reordered(like), other):
        try:
            want = flattening.flatten_like(like, one)
        except LookupError:
            with pytest.raises(LookupError):
                TreeCodec(like).read(one)
        else:
            assert list(map(id, TreeCodec(like).read(one))) == list(map(id, want))


@given(number_tree)
def test_a_form_writes_the_tree_that_it_read(value):
    """Kinds, keys, their order, empty nodes and absent leaves match the original tree."""
    form = TreeCodec(value)
    written = form.write(form.read(value))
    assert written == value
    assert repr(written) == repr(value)


@pytest.mark.parametrize(
    "like", [{1: 2.0, "1": 3.0, (4, "a"): 5.0, "it's": 6.0}, {"a": {True: (1.0,)}}, OrderedDict(b=1.0), [[]], 7.0, None], ids=repr
)
def test_a_form_has_keys_of_any_kind(like):
    """Keys may be strings with punctuation, numbers or tuples; a tree may also be one leaf."""
    form = TreeCodec(like)
    assert form.write(form.read(like)) == like


def test_a_form_of_a_very_deep_tree_goes_node_by_node():
    """The tree is deeper than an expression can be nested."""
    deep = 1.0
    for _ in range(200):
        deep = {"a": (deep,)}
    assert TreeCodec(deep).write([2.0]) == tree.map(lambda leaf: 2.0, deep)


def test_columns_of_leaves_alone():
    """A tree of one leaf gives columns of one entry."""
    assert flattening.flatten_together(1, None) == [[1], [None]]


def test_an_ordered_dict_agrees_with_a_dict():
    """Both are dicts: a ``state_dict`` is an ``OrderedDict``."""
    assert tree.map(lambda a, b: a + b, {"x": 1}, OrderedDict(x=2)) == {"x": 3}


# disagreements

A_TENSOR = "a tensor of shape (2,) and dtype torch.float32"
DISAGREEMENTS = [
    ({"a": {"b": 1}}, {"a": {"c": 1}}, "a", "a dict with the keys 'b'", "a dict with the keys 'c'"),
    ({"a": 1}, {"a": 1, "b": 2}, "", "a dict with the keys 'a'", "a dict with the keys 'a', 'b'"),
    ({"a": (1, {"w": ONE})}, {"a": (1, {"w": (1, 2)})}, "a.1.w", A_TENSOR, "a tuple of 2"),
    ({"a": (1, {"w": ()})}, {"a": (1, {"w": ONE})}, "a.1.w", "a tuple of 0", A_TENSOR),
    ({"a": (1, {"w": {}})}, {"a": (1, {"w": ONE})}, "a.1.w", "an empty dict", A_TENSOR),
    ({"a": {"w": ONE}}, {"a": {"w": {}}}, "a.w", A_TENSOR, "an empty dict"),
    ({"a": {}}, {"a": ()}, "a", "an empty dict", "a tuple of 0"),
    ([1, 2], (1, 2), "", "a list of 2", "a tuple of 2"),
    ([1, [2]], [1, [2, 3]], "1", "a list of 1", "a list of 2"),
    ({"s": Pair(1, 2)}, {"s": (1, 2)}, "s", "a Pair of 2", "a tuple of 2"),
    ({"s": Pair(1, (2,))}, {"s": Pair(1, None)}, "s.1", "a tuple of 1", "None"),
    ({"a": None}, {"a": {"b": 1}}, "a", "None", "a dict with the keys 'b'"),
    ({"a": {"x": 1}, "b": {"y": 1}}, {"b": {"z": 1}, "a": {"w": 1}}, "a", "a dict with the keys 'x'", "a dict with the keys 'w'"),
    (ONE, {"a": 1}, "", A_TENSOR, "a dict with the keys 'a'"),
    ({"a": 1}, ONE, "", "a dict with the keys 'a'", A_TENSOR),
]


@pytest.mark.parametrize(
    "function", [lambda a, b: tree.map(lambda x, y: x, a, b), tree.add, tree.dot, tree.combine, flattening.flatten_together]
)
@pytest.mark.parametrize(("one", "other", "path", "words", "others"), DISAGREEMENTS)
def test_functions_of_two_trees_name_the_first_path_where_they_disagree(function, one, other, path, words, others):
    """The message has the path and describes the node of each tree at it."""
    with pytest.raises(ValueError, match="agree") as caught:
        function(one, other)
    assert str(caught.value) == f"tree: the trees must agree, and at {path!r} one has {words}, got {others} in the other"


@pytest.mark.parametrize(("one", "other", "path", "words", "others"), DISAGREEMENTS)
def test_of_three_trees_too_the_first_path_where_they_disagree_is_named(one, other, path, words, others):
    """The second or the third tree may be the wrong one."""
    for rest in [(one, other), (other, one)]:
        with pytest.raises(ValueError, match="agree") as caught:
            flattening.flatten_together(one, *rest)
        assert str(caught.value) == f"tree: the trees must agree, and at {path!r} one has {words}, got {others} in the other"


def test_a_third_tree_that_disagrees_is_found_too():
    """Each further tree is compared with the first."""
    with pytest.raises(ValueError, match="at 'a' one has 1, got a tuple of 0 in the other"):
        tree.map(lambda *leaves: 0, {"a": 1}, {"a": 2}, {"a": ()})


@given(any_tree, any_tree)
def test_two_trees_either_fit_or_disagree_with_its_message(one, other):
    """A pair of trees raises no other error, and exactly those with the same structure and kinds match."""
    fits = not [*differences("", one, other)]
    try:
        flattening.flatten_together(one, other)
    except ValueError as error:
        message = str(error)
    else:
        message = "fits"
    assert (message == "fits") is fits
    assert message.startswith("fits" if fits else "tree: the trees must agree, and at ")


# names


def test_names_are_dotted_paths_to_the_leaves_that_are_there():
    """Keys and positions are joined by dots; absent leaves and empty nodes are left out; named tuples use numbers."""
    assert list(tree.names(sample())) == ["layers.0.weight", "layers.2.0", "layers.2.1", "state.0"]


def test_names_of_a_leaf_alone():
    """Its path is empty; an absent leaf has none."""
    assert tree.names(3) == {"": 3}
    assert tree.names(None) == {}


def test_names_refuses_two_leaves_of_one_path():
    """A key with a dot may make two paths equal; neither leaf is dropped silently."""
    with pytest.raises(ValueError, match=r"names: the paths of the leaves must be unique, got a\.b, a\.b"):
        tree.names({"a.b": 1, "a": {"b": 2}})


@given(any_tree.filter(lambda value: value is not None))
def test_names_and_from_names_with_like_are_a_round_trip(value):
    """With the structure given, every tree is restored, including kinds, absent leaves and empty nodes."""
    assert tree.equal(tree.from_names(tree.names(value), like=value), value)


plain_tree = st.recursive(
    st.integers(),
    lambda inner: st.dictionaries(st.text("abxyz", min_size=1), inner, min_size=1) | st.lists(inner, min_size=1).map(tuple),
    max_leaves=8,
)


@given(plain_tree)
def test_names_and_from_names_alone_are_a_round_trip_of_dicts_and_tuples(value):
    """Without ``like``, trees of dicts with string keys and of tuples, none empty, are restored."""
    assert tree.from_names(tree.names(value)) == value


def test_from_names_puts_empty_dicts_into_the_gaps():
    """Position 1 of the ``Sequential`` has no parameters."""
    assert tree.from_names({"0.weight": 1, "2.weight": 3}) == ({"weight": 1}, {}, {"weight": 3})


def test_from_names_orders_a_tuple_by_number():
    """Position 10 follows 2, and the order of the names does not matter."""
    assert tree.from_names({"10": "k", **{str(i): i for i in range(9, -1, -1)}}) == (*range(10), "k")


@pytest.mark.parametrize("names", [{"0": 1, "a": 2}, {"01": 1, "1": 2}, {"²": 1}, {"-1": 1}])
def test_from_names_makes_a_dict_where_not_all_keys_are_positions(names):
    """Positions have no leading zeros; any other key makes the node a dict, and no leaf is lost."""
    assert tree.from_names(names) == names


def test_from_names_of_nothing_is_an_empty_dict():
    """An empty dict is the params of a net without parameters."""
    assert tree.from_names({}) == {}


def test_from_names_takes_a_state_dict():
    """The names of a ``torch.nn.Sequential`` make the params of a series."""
    state = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1, bias=False)).state_dict()
    params = tree.from_names(state)
    assert tree.structure(params) == ({"weight": "*", "bias": "*"}, {}, {"weight": "*"})
    assert params[2]["weight"] is state["2.weight"]


def test_from_names_takes_any_order_with_like():
    """The names are looked up, not zipped."""
    assert tree.from_names({"b": 1, "a": 2}, like={"a": 0, "b": 0}) == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"c": 1, "b": 2, "e": 3}, "missing ['a', 'd'] and unknown ['c', 'e']"),
        ({"a": 1, "b": 2}, "missing ['d'] and unknown []"),
        ({"a": 1, "b": 2, "d": 3, "a.b": 4}, "missing [] and unknown ['a.b']"),
    ],
)
def test_from_names_says_what_is_missing_and_what_is_unknown(names, words):
    """The error has both lists, sorted."""
    with pytest.raises(ValueError, match="from_names") as caught:
        tree.from_names(names, like={"d": 0, "a": 0, "b": 0})
    assert str(caught.value) == f"from_names: the names must be the same as in like, got {words}"


def test_from_names_refuses_a_path_that_goes_on_from_a_leaf():
    """A leaf cannot be a node too."""
    with pytest.raises(ValueError, match=r"from_names: no path may continue below a leaf, got 'x\.a' and also 'b\.c' below it"):
        tree.from_names({"x.a": 1, "x.a.b.c": 2})
