"""AttentionPool compared with its formula by autograd, its masks, and the errors it raises."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twins import assert_twins, draw

import funcnet as fn


class Pool(nn.Module):
    """The formula, with a mask of valid rows."""

    def __init__(self, size):
        super().__init__()
        self.query = nn.Parameter(draw((size,), 11))

    def forward(self, x):
        rows, seen = x if isinstance(x, tuple) else (x, torch.ones(x.shape[:-1], dtype=torch.bool))
        seen = seen if seen.dtype is torch.bool else torch.arange(rows.shape[-2]) < seen.unsqueeze(-1)
        p = (rows @ self.query).masked_fill(~seen, -torch.inf).softmax(-1)
        return (p.unsqueeze(-1) * rows).sum(-2)


@given(
    st.sampled_from([(), (3,), (2, 3)]),
    st.integers(1, 5),
    st.integers(1, 4),
    st.sampled_from(["", "mask", "lengths"]),
    st.integers(0, 99),
)
@settings(max_examples=60)
def test_it_is_the_weighted_mean_of_the_rows(lead, length, size, kind, seed):
    """Value and gradients are the formula's, for any axes before the last two, with a mask, lengths or neither."""
    x = draw((*lead, length, size), seed)
    mask = (draw((length,), seed + 1) > 0).index_fill(0, torch.tensor(0), value=True)
    lengths = torch.randint(1, length + 1, lead, generator=torch.Generator().manual_seed(seed))
    assert_twins(fn.AttentionPool(size), Pool(size), {"": x, "mask": (x, mask), "lengths": (x, lengths)}[kind])


def test_at_first_it_is_the_mean():
    """The initial query is zeros; the mean is over the valid rows."""
    layer, x = fn.AttentionPool(3), draw((2, 4, 3)).float()
    params = layer.init(0)
    torch.testing.assert_close(layer(params, x), x.mean(1))
    torch.testing.assert_close(layer(params, (x, torch.tensor([1, 4]))), torch.stack((x[0, 0], x[1].mean(0))))


def test_a_sequence_without_rows_gives_zero():
    """The mask, the length or the size can make it empty; it has no gradient."""
    layer, x = fn.AttentionPool(3, initializer="ones"), draw((2, 4, 3)).float()
    params = layer.init(0)
    y, cache = layer.apply(params, (x, torch.tensor([0, 2])))
    gx = layer.vjp(params, cache, torch.ones_like(y))[1][0]
    assert not y[0].any()
    assert not gx[0].any()
    assert gx[1].any()
    assert torch.equal(layer(params, x[:, :0]), torch.zeros(2, 3))


@pytest.mark.parametrize("counts", [torch.tensor([2, 3]), torch.tensor([[True, True, False], [True, True, True]])])
def test_rows_that_do_not_count_are_left_out(counts):
    """NaN in them changes neither y nor a gradient."""
    layer, params, x = fn.AttentionPool(4), {"query": draw((4,), 2)}, draw((2, 3, 4))
    hidden = x.clone()
    hidden[0, 2] = torch.nan
    results = []
    for rows in (x, hidden):
        y, cache = layer.apply(params, (rows, counts))
        results.append((y, layer.vjp(params, cache, draw((2, 4), 1))))
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-15)


def test_its_size_is_inferred():
    """``in_features`` is the size of the last axis of x, even if x comes with lengths."""
    assert fn.infer_sizes(fn.AttentionPool(None), torch.ones(2, 4, 3)) == fn.AttentionPool(3)
    assert fn.infer_sizes(fn.AttentionPool(None), (torch.ones(2, 4, 3), torch.tensor([1, 2]))) == fn.AttentionPool(3)


X, POOL = torch.ones(2, 4, 3), fn.AttentionPool(3)
P = POOL.init(0)
MESSAGES = {
    "AttentionPool: in_features must be a whole number of at least 1, got 0": lambda: fn.AttentionPool(0),
    "AttentionPool(in_features=3): x must have the axes (..., L, in_features=3), got x of shape (2, 3, 4)": lambda: POOL(P, X.mT),
    "AttentionPool(in_features=3): x must have the axes (..., L, in_features=3), got x of shape (3,)": lambda: POOL(P, X[0, 0]),
    "params must be a dict of query (3,), got query (4,)": lambda: POOL({"query": torch.ones(4)}, X),
    "x must be a tensor, (x, mask) or (x, lengths), got shapes (2, 4, 3) and (2, 4, 3) and (2, 4, 3)": lambda: POOL(P, (X, X, X)),
    "x must be a floating tensor, not torch.int64, got x of shape (2, 4, 3)": lambda: POOL(P, X.long()),
    "x must come with a bool mask that broadcasts to (2, 4), or with integer lengths of shape (2,), got shapes (2, 4, 3) and (2, 4)": lambda: POOL(P, (X, X[..., 0])),
    "x must come with a bool mask that broadcasts to (2, 4), or with integer lengths of shape (2,), got shapes (2, 4, 3) and (3,)": lambda: POOL(P, (X, X[0, :3, 0].bool())),
    "or with integer lengths of shape (2,), got shapes (2, 4, 3) and (4,)": lambda: POOL(P, (X, torch.ones(4).long())),
    "x must have the dtype of the params, torch.float32, got torch.float64": lambda: POOL(P, X.double()),
    "AttentionPool(in_features=3): gy must have the shape of y, (2, 3), got gy of shape (3,)": lambda: POOL.vjp(P, POOL.apply(P, X)[1], X[0, 0]),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
