"""Embeddings compared with torch.nn and autograd in float64; the spread of hashes, and the error messages."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twins import assert_twins, draw, twin_of

import funcnet as fn
from funcnet import tree


def integers(below, shape, seed):
    """Draw integers from 0 to below - 1."""
    return fn.random.bits(seed, tuple(shape)).remainder(below)


SHAPES = st.lists(st.integers(0, 4), max_size=3)
PADDINGS = st.sampled_from([None, 0, -1, 2, -2])


@twin_of("Embedding")
@given(
    st.integers(3, 6),
    st.integers(1, 4),
    SHAPES,
    st.tuples(PADDINGS, st.sampled_from([None, 30.0, 40.0]), st.sampled_from([1.0, 1.5, 2.0, 3.0])),
    st.sampled_from([torch.int32, torch.int64]),
    st.integers(0, 99),
)
@settings(max_examples=40)
def test_embedding_is_torchs(count, dim, shape, options, dtype, seed):
    """Value and gradient agree, with a constant padding row and a bound that no row reaches, for x of any shape, even empty."""
    assert_twins(fn.Embedding(count, dim, *options), nn.Embedding(count, dim, *options), integers(count, shape, seed).to(dtype))


@given(SHAPES, PADDINGS, st.sampled_from([0.5, 1.0, 2.0]), st.sampled_from([1.0, 1.5, 2.0, 3.0]), st.integers(0, 99))
@settings(max_examples=40)
def test_bounded_rows_have_torchs_values_and_their_own_gradient(shape, padding, bound, p, seed):
    """The values are torch.nn.Embedding's, which changes the table itself; the gradient is autograd's through the bound.

    The padding row counts as zeros, whatever the table holds there.
    """
    layer, module = fn.Embedding(5, 3, padding, bound, p), nn.Embedding(5, 3, padding, bound, p).double()
    x, w = integers(5, shape, seed), draw((5, 3), seed)
    y, cache = layer.apply({"weight": w}, x)
    gw = layer.vjp({"weight": w}, cache, draw(y.shape, 3))[0]["weight"]
    with torch.no_grad():
        module.weight.copy_(w if padding is None else w.index_fill(0, torch.tensor(padding % 5), 0.0))
        torch.testing.assert_close(y, module(x), rtol=1e-10, atol=1e-10)
    leaf = w.clone().requires_grad_()
    norms = leaf.norm(p, -1, keepdim=True)
    table = torch.where(norms > bound, leaf * bound / (norms + 1e-7), leaf)
    (want,) = torch.autograd.grad(nn.functional.embedding(x, table), leaf, draw(y.shape, 3))
    want = want if padding is None else want.index_fill(0, torch.tensor(padding % 5), 0.0)
    torch.testing.assert_close(gw, want, rtol=1e-10, atol=1e-10)


@twin_of("EmbeddingBag")
@given(
    st.integers(3, 6),
    st.integers(1, 4),
    st.tuples(st.integers(0, 4), st.integers(1, 5)),
    PADDINGS,
    st.sampled_from(["sum", "mean", "max"]),
    st.integers(0, 99),
)
@settings(max_examples=60)
def test_embedding_bag_is_torchs(count, dim, shape, padding, mode, seed):
    """Value and gradient agree for sum, mean and maximum, including bags of padding only."""
    options = {"mode": mode, "padding_idx": padding}
    assert_twins(fn.EmbeddingBag(count, dim, **options), nn.EmbeddingBag(count, dim, **options), integers(count, shape, seed))


@given(st.tuples(st.integers(1, 4), st.integers(1, 5)), PADDINGS, st.integers(0, 99))
@settings(max_examples=30)
def test_a_weighted_embedding_bag_is_torchs(shape, padding, seed):
    """The gradient of the weights agrees too; it is 0 for weights of padding."""
    options = {"mode": "sum", "padding_idx": padding}
    assert_twins(
        fn.EmbeddingBag(4, 3, **options),
        nn.EmbeddingBag(4, 3, **options),
        (integers(4, shape, seed), draw(shape, seed)),
        call=lambda module, x: module(x[0], per_sample_weights=x[1]),
    )


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=4),
    PADDINGS,
    st.sampled_from(["sum", "mean", "max", "weighted"]),
    st.sampled_from([torch.int32, torch.int64]),
    st.integers(0, 99),
)
@settings(max_examples=80)
def test_an_embedding_bag_by_offsets_is_torchs(sizes, padding, mode, dtype, seed):
    """Value and gradients agree, for bags of different sizes and for empty bags."""
    options = {"mode": "sum" if mode == "weighted" else mode, "padding_idx": padding}
    offsets = torch.tensor([0, *sizes[:-1]]).cumsum(0).to(dtype)
    ids = integers(4, (sum(sizes),), seed).to(dtype)
    x = (ids, offsets, draw(ids.shape, seed)) if mode == "weighted" else (ids, offsets)
    layer, module = fn.EmbeddingBag(4, 3, **options), nn.EmbeddingBag(4, 3, **options)
    assert_twins(layer, module, x, call=lambda module, x: module(*x))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_a_bag_of_nothing_gives_zeros(mode):
    """There may be no integers at all; no gradient comes from such a bag."""
    layer = fn.EmbeddingBag(4, 3, mode=mode)
    y, cache = layer.apply(layer.init(0), torch.zeros(2, 0, dtype=torch.int64))
    assert torch.equal(y, torch.zeros(2, 3))
    assert not layer.grads(layer.init(0), cache, torch.ones(2, 3))["weight"].any()


BAGS = {"bags": torch.tensor([[1, 2], [1, 1]]), "offsets": (torch.tensor([1, 2, 1, 1]), torch.tensor([0, 2]))}


@pytest.mark.parametrize("form", BAGS)
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_the_padding_of_a_bag_is_left_out(mode, form):
    """NaN in its row and an infinite weight of its index have no effect."""
    layer, x = fn.EmbeddingBag(4, 3, mode=mode, padding_idx=1), BAGS[form]
    x = x if isinstance(x, tuple) else (x,)
    if mode == "sum":
        x = (*x, torch.tensor([torch.inf, 2.0, torch.inf, torch.inf]).reshape(x[0].shape))
    x = x if len(x) > 1 else x[0]
    params = fn.tree.map(lambda w: w.index_fill(0, torch.tensor(1), torch.nan), layer.init(0))
    y, cache = layer.apply(params, x)
    gparams, gx = layer.vjp(params, cache, torch.ones(2, 3))
    assert torch.equal(y, torch.stack((params["weight"][2] * (2 if mode == "sum" else 1), torch.zeros(3))))
    assert torch.equal(gparams["weight"].sum(1), torch.tensor([0.0, 0.0, 6.0 if mode == "sum" else 3.0, 0.0]))
    assert fn.tree.all_finite(gx)


@pytest.mark.parametrize("form", BAGS)
def test_the_maximum_of_infinities_is_theirs(form):
    """The maximum of rows of -inf is -inf, and its gradient goes to the first valid row; NaN stays NaN."""
    layer = fn.EmbeddingBag(4, 3, mode="max", padding_idx=1)
    for value in (-torch.inf, torch.nan):
        params = {"weight": torch.full((4, 3), value)}
        y, cache = layer.apply(params, BAGS[form])
        torch.testing.assert_close(y, torch.tensor([[value] * 3, [0.0] * 3]), equal_nan=True, rtol=0, atol=0)
        gw = layer.grads(params, cache, torch.ones(2, 3))["weight"]
        assert torch.equal(gw, torch.tensor([[0.0], [0], [1], [0]]).expand(4, 3))


@pytest.mark.parametrize("padding", [None, 0, -1])
def test_init_is_normal_and_zeros_for_the_padding(padding):
    """torch.nn does the same."""
    w = fn.Embedding(500, 200, padding).init(0)["weight"]
    assert w.std().item() == pytest.approx(1, rel=0.02)
    assert int((w == 0).all(1).sum()) == (padding is not None)
    assert padding is None or not w[padding].any()


def test_the_cache_of_an_embedding_is_x_itself():
    """x is not copied."""
    x = torch.tensor([1, 2])
    assert fn.Embedding(4, 3).apply(fn.Embedding(4, 3).init(0), x)[1] is x


def test_a_hash_embedding_sums_rows_and_spreads_over_them():
    """Each of 4000 integers selects rows, every row about equally often, and no two of them sum the same rows."""
    layer = fn.HashEmbed(100, 2)
    rows = layer.apply(layer.init(0), torch.arange(-2000, 2000) * 7919)[1]
    counts = torch.bincount(rows.flatten(), minlength=100).double()
    assert counts.min() > 110
    assert counts.max() < 210  # 160 on average
    assert len(rows.unique(dim=0)) > 3990


def test_a_hash_does_not_depend_on_its_neighbors():
    """A hash depends only on the seed and the integer, int32 or int64."""
    one, other = fn.HashEmbed(100, 2, seed=1), fn.HashEmbed(100, 2, seed=2)
    params, x = one.init(0), torch.tensor([5, 6, 5])
    y = one(params, x)
    assert torch.equal(y[0], y[2])
    assert torch.equal(one(params, x[:1].int())[0], y[0])
    assert not torch.equal(other(params, x), y)
    assert one.init(0)["weight"].abs().max() <= 0.1


def test_a_hash_embedding_agrees_with_autograd():
    """A row that is selected twice, by one integer or by two, gets both gradients."""
    layer, x, gy = fn.HashEmbed(5, 3), torch.arange(12).reshape(3, 4), draw((3, 4, 3), 1)
    params = tree.cast(layer.init(0), torch.float64)
    y, cache = layer.apply(params, x)
    w = params["weight"].clone().requires_grad_()
    want = w[cache].sum(-2)
    torch.testing.assert_close(y, want.detach())
    torch.testing.assert_close(layer.grads(params, cache, gy)["weight"], torch.autograd.grad(want, w, gy)[0])


IDS = torch.tensor([[0, 3], [1, 2]])
E, B, H = fn.Embedding(4, 3), fn.EmbeddingBag(4, 3), fn.HashEmbed(4, 3)
P = E.init(0)
MESSAGES = {
    "Embedding: max_norm must be a finite number above 0.0, got 0.0": lambda: fn.Embedding(4, 3, max_norm=0.0),
    "Embedding: norm_type must be a finite number at least 1.0, got 0.5": lambda: fn.Embedding(4, 3, max_norm=1.0, norm_type=0.5),
    "Embedding: num_embeddings must be a whole number of at least 1, got 0": lambda: fn.Embedding(0, 3),
    "Embedding: padding_idx must be from -4 to 3, or None, got 4": lambda: fn.Embedding(4, 3, 4),
    "Embedding: padding_idx must be a whole number, got 1.5": lambda: fn.Embedding(4, 3, 1.5),
    "EmbeddingBag: padding_idx must be from -4 to 3, or None, got -5": lambda: fn.EmbeddingBag(4, 3, padding_idx=-5),
    "EmbeddingBag: mode must be one of 'sum', 'mean', 'max', got 'min'": lambda: fn.EmbeddingBag(4, 3, mode="min"),
    "Embedding(num_embeddings=4, embedding_dim=3): x must be from 0 to num_embeddings - 1 = 3, and is from 1 to 4, got x of shape (2, 2)": lambda: E(P, IDS + 1),
    "x must be from 0 to num_embeddings - 1 = 3, and is from -1 to 2": lambda: E(P, IDS - 1),
    "EmbeddingBag(num_embeddings=4, embedding_dim=3): x must be from 0 to num_embeddings - 1 = 3, and is from 1 to 4": lambda: B(P, IDS + 1),
    "x must be an int32 or int64 tensor, not torch.float32, got x of shape (2, 2)": lambda: E(P, IDS.float()),
    "x must be an int32 or int64 tensor, not list, got a list of 2": lambda: E(P, [0, 1]),
    "Embedding(num_embeddings=4, embedding_dim=3): params must be a dict of weight (4, 3), got weight (5, 3)": lambda: E(fn.Embedding(5, 3).init(0), IDS),
    "gy must have the shape of y, (2, 2, 3), got gy of shape (2, 3)": lambda: E.vjp(P, IDS, torch.zeros(2, 3)),
    "HashEmbed(num_embeddings=4, embedding_dim=3): x must be an int32 or int64 tensor, not torch.float32, got x of shape (2, 2)": lambda: H(P, IDS.float()),
    'x must be integers with two axes, (bags, integers of a bag), or with one and offsets; with mode="sum" weights of the shape of the integers may come last, got x of shape (2,)': lambda: B(P, IDS[0]),
    'with mode="sum" weights of the shape of the integers may come last, got shapes (2, 2) and (2, 2)': lambda: B(P, (IDS, IDS.float())),
    "weights of the shape of the integers may come last, got shapes (2, 2) and (2, 2) and (2, 2)": lambda: B(P, (IDS, IDS, IDS)),
    "the offsets must be integers that start at 0, do not decrease and are at most 2, got shapes (2,) and (1,)": lambda: B(P, (IDS[0], torch.tensor([1]))),
    "the offsets must be integers that start at 0, do not decrease and are at most 2, got shapes (2,) and (3,)": lambda: B(P, (IDS[0], torch.tensor([0, 2, 1]))),
    "the offsets must be integers that start at 0, do not decrease and are at most 2, got shapes (2,) and (2,)": lambda: B(P, (IDS[0], torch.tensor([0, 3]))),
    "EmbeddingBag(num_embeddings=4, embedding_dim=3): the offsets must be integers that start at 0, do not decrease and are at most 2, got shapes (2,) and (2,)": lambda: B(P, (IDS[0], torch.zeros(2))),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)


@pytest.mark.parametrize("rows", [5, 30_000])
def test_the_padding_row_is_zeros_whether_the_table_is_copied_or_not(rows):
    """A small table is copied with zeros in its row, for a large one the indices are found; NaN in the row has no effect."""
    layer, x = fn.Embedding(rows, 2, padding_idx=-1), torch.tensor([[1, rows - 1], [rows - 1, 0]])
    table = fn.random.normal(0, (rows, 2)).index_fill(0, torch.tensor([rows - 1]), torch.nan)
    kept = table.clone()
    y = layer({"weight": table}, x)
    assert torch.equal(y, table.nan_to_num(0.0)[x])
    assert torch.equal(table[:-1], kept[:-1])
    assert table[-1].isnan().all()  # the table does not change


@pytest.mark.parametrize("count", [3, 64, 65, 200])
def test_many_offsets_must_rise_as_few_must(count):
    """Up to 64 are compared as a list, more as tensors."""
    layer, ids = fn.EmbeddingBag(4, 3, mode="sum"), torch.arange(count) % 4
    params, offsets = layer.init(0), torch.arange(count)
    assert torch.equal(layer(params, (ids, offsets)), params["weight"][ids])
    offsets[-1] = 0
    with pytest.raises(ValueError, match="do not decrease"):
        layer(params, (ids, offsets))
