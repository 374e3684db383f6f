"""Segments, and the minimum of windows: compared with autograd and ``MaxPool``, empty segments, ties, and the errors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import draw

import funcnet as fn

REDUCTIONS = {
    "sum": lambda rows: rows.sum(0),
    "mean": lambda rows: rows.mean(0),
    "max": lambda rows: rows.max(0).values,
    "min": lambda rows: rows.min(0).values,
    "first": lambda rows: rows[0],
    "last": lambda rows: rows[-1],
}


def looped(reduction, x, lengths):
    parts = x[: sum(lengths)].split(lengths)
    return torch.stack([REDUCTIONS[reduction](part) if len(part) else x.new_zeros(x.shape[1:]) for part in parts])


@pytest.mark.parametrize("reduction", REDUCTIONS)
@settings(max_examples=25)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=5).filter(any), st.integers(0, 2), st.sampled_from([(), (3,), (2, 2)]),
    st.integers(0, 10**6),
)  # fmt: skip
def test_a_segment_is_reduced_as_by_itself(reduction, lengths, more, shape, seed):
    """Values and gradients are autograd's through a loop; empty segments give 0, and rows after the last are ignored."""
    x, gy = draw((sum(lengths) + more, *shape), seed), draw((len(lengths), *shape), seed + 1)
    layer = fn.SegmentPool(reduction)
    y, cache = layer.apply({}, (x, torch.tensor(lengths)))
    x_ = x.clone().requires_grad_()
    want = looped(reduction, x_, lengths)
    torch.testing.assert_close(y, want.detach(), rtol=1e-10, atol=1e-10)
    gx, none = layer.vjp({}, cache, gy)[1]
    assert none is None
    torch.testing.assert_close(gx, torch.autograd.grad(want, x_, gy)[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_no_rows_and_no_segments_are_fine(reduction):
    """Without rows every segment is 0; without segments y is empty, and gx is 0."""
    layer = fn.SegmentPool(reduction)
    y, cache = layer.apply({}, (torch.ones(0, 3), torch.tensor([0, 0])))
    assert torch.equal(y, torch.zeros(2, 3))
    assert layer.vjp({}, cache, y)[1][0].shape == (0, 3)
    y, cache = layer.apply({}, (torch.ones(2, 3), torch.tensor([], dtype=torch.int64)))
    assert y.shape == (0, 3)
    assert torch.equal(layer.vjp({}, cache, y)[1][0], torch.zeros(2, 3))


def test_equals_share_the_gradient():
    """``Max`` does the same; -∞ is a value like others, and rows after the last segment get no gradient."""
    layer, x = fn.SegmentPool("max"), torch.tensor([1.0, 1.0, 0.0, 5.0, -torch.inf, 0.0])
    y, cache = layer.apply({}, (x, torch.tensor([2, 2, 1])))
    assert y.tolist() == [1.0, 5.0, -torch.inf]
    assert layer.vjp({}, cache, torch.tensor([1.0, 2.0, 3.0]))[1][0].tolist() == [0.5, 0.5, 0.0, 2.0, 3.0, 0.0]


@pytest.mark.parametrize("axes", [1, 2, 3])
@settings(max_examples=20)
@given(
    st.integers(1, 3), st.none() | st.integers(1, 3), st.integers(0, 1), st.integers(1, 2), st.booleans(), st.booleans(),
    st.integers(0, 10**6),
)  # fmt: skip
def test_the_smallest_is_the_largest_of_the_negative(axes, kernel, stride, padding, dilation, indices, ceil, seed):
    """Every option of ``MaxPool`` is tried, with autograd through torch's."""
    options = (kernel, stride, min(padding, kernel // 2), dilation, indices, ceil)
    ours, theirs = getattr(fn, f"MinPool{axes}d")(*options), getattr(torch.nn, f"MaxPool{axes}d")(*options)
    x = draw((2, 2, *[6] * axes), seed).requires_grad_()
    want = theirs(-x)
    want = (-want[0], want[1]) if indices else (-want,)
    y, cache = ours.apply({}, x.detach())
    for one, other in zip(y if indices else (y,), want, strict=True):
        assert torch.equal(one, other.detach())
    gy = draw(want[0].shape, seed + 1)
    gx = ours.vjp({}, cache, (gy, None) if indices else gy)[1]
    torch.testing.assert_close(gx, torch.autograd.grad(want[0], x, gy)[0], rtol=1e-10, atol=1e-10)


POOL = fn.SegmentPool("sum")
MESSAGES = {
    "SegmentPool: reduction must be one of 'sum', 'mean', 'max', 'min', 'first', 'last', got 'prod'": lambda: fn.SegmentPool("prod"),
    "x must be a pair (x, lengths) of tensors, got a tensor of shape (2,)": lambda: POOL({}, torch.ones(2)),
    "the rows must be a floating tensor with at least one axis, got a tensor of shape () and": lambda: POOL({}, (torch.tensor(1.0), torch.tensor([1]))),
    "the lengths must be integers with one axis, got a tensor of shape (1,) and dtype torch.float32": lambda: POOL({}, (torch.ones(2), torch.ones(1))),
    "the lengths must be at least 0, and sum to at most 2, the number of rows, got [3, -1]": lambda: POOL({}, (torch.ones(2), torch.tensor([3, -1]))),
    "the lengths must be at least 0, and sum to at most 2, the number of rows, got [1, 2]": lambda: POOL({}, (torch.ones(2), torch.tensor([1, 2]))),
    "SegmentPool(reduction='sum'): params must be an empty dict, got weight 1": lambda: POOL({"weight": 1}, (torch.ones(2), torch.tensor([2]))),
    "gy must have the shape of y, (1,), got gy of shape (2,)": lambda: POOL.vjp({}, POOL.apply({}, (torch.ones(2), torch.tensor([2])))[1], torch.ones(2)),
    "MinPool2d: kernel_size must be a whole number of at least 1, got 0": lambda: fn.MinPool2d(0),
    "MinPool1d(kernel_size=2): x must be a floating tensor, got 3": lambda: fn.MinPool1d(2)({}, 3),
    "MinPool1d(kernel_size=4): x must be at least (4,) long for these windows and padding, got x of shape (1, 2, 3)": lambda: fn.MinPool1d(4)({}, torch.ones(1, 2, 3)),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_wrong_use_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
