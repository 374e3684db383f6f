"""Layers of masks: the visible keys, gradients of floating masks, and refused arguments."""

import pytest
import torch

import funcnet as fn

HIDDEN = torch.tensor([[False, True, False], [False, False, True]])
INF = torch.inf


def test_visible_masks_of_each_form():
    """Bool masks are inverted, floating ones are not; the axes broadcast to (N, heads, L, S)."""
    padding, attention = fn.VisibleMask("padding"), fn.VisibleMask("attention", 2)
    assert torch.equal(padding({}, HIDDEN), ~HIDDEN[:, None, None])
    assert torch.equal(padding({}, HIDDEN[0]), ~HIDDEN[None, None, 0])
    assert torch.equal(padding({}, HIDDEN.float()), HIDDEN.float()[:, None, None])
    assert torch.equal(attention({}, HIDDEN), ~HIDDEN)
    heads = torch.stack([HIDDEN, ~HIDDEN, HIDDEN, HIDDEN])
    assert torch.equal(attention({}, heads)[0, 1], HIDDEN)
    assert attention({}, heads).shape == (2, 2, 2, 3)


def test_two_masks_as_one():
    """Where a bool mask hides a key, the floating mask is not added and has no gradient, in either order."""
    seen, added = ~HIDDEN, torch.tensor([1.0, 2.0, 3.0])
    for x in ((seen, added), (added, seen)):
        y, cache = fn.JointMask().apply({}, x)
        assert y.tolist() == [[1.0, -INF, 3.0], [1.0, 2.0, -INF]]
        gx = fn.JointMask().vjp({}, cache, torch.tensor([[1.0, 10.0, 100.0], [1000.0, 10000.0, 100000.0]]))[1]
        got = {one.dtype: g for one, g in zip(x, gx, strict=True)}
        assert got[torch.bool] is None
        assert got[torch.float32].tolist() == [1001.0, 10000.0, 100.0]


def test_no_gradient_is_zeros():
    """A floating mask whose output is not used has zeros as its gradient."""
    x = torch.ones(2, 3)
    cache = fn.VisibleMask("padding").apply({}, x)[1]
    assert torch.equal(fn.VisibleMask("padding").input_grad({}, cache, None), torch.zeros(2, 3))
    cache = fn.JointMask().apply({}, (x, x))[1]
    assert [g.tolist() for g in fn.JointMask().input_grad({}, cache, None)] == [torch.zeros(2, 3).tolist()] * 2


def test_a_full_mask_hides_nothing():
    """Attention gives the same results with a full mask as without a mask."""
    layer, x = fn.MultiHeadAttention(4, 2), fn.random.normal(1, (2, 3, 4))
    full, params = fn.FullMask()({}, HIDDEN), layer.init(0)
    torch.testing.assert_close(layer(params, (x, full)), layer(params, x))


X = torch.ones(2, 3)

REFUSALS = {
    "VisibleMask(): x must be a bool or floating tensor, got": (fn.VisibleMask(), X.long()),
    "VisibleMask(): x must have the axes (N, S) or (S,), got x of shape (1, 2, 3)": (fn.VisibleMask(), X[None]),
    "VisibleMask(kind='attention', num_heads=2): x must have the axes (L, S) or (N * 2, L, S), got x of shape (3, 2, 3)": (
        fn.VisibleMask("attention", 2),
        X.expand(3, 2, 3),
    ),
    "x must have the axes (L, S) or (N * heads, L, S), or broadcast to (N, heads, L, S), got x of shape (3,)": (
        fn.VisibleMask("attention", hidden=False),
        X[0],
    ),
    "JointMask(): x must be a pair of bool or floating tensors, got": (fn.JointMask(), X),
    "JointMask(): the masks must broadcast together, got shapes (2, 3) and (2,)": (fn.JointMask(), (X, X[:, 0])),
    "JointMask(): floating masks must have the same dtype, not torch.float32 and torch.float64, got": (
        fn.JointMask(),
        (X, X.double()),
    ),
    "FullMask(): x must be a bool or floating tensor, got": (fn.FullMask(), None),
}


@pytest.mark.parametrize("message", REFUSALS)
def test_refusals(message):
    """Masks of wrong kinds, axes and dtypes are refused."""
    layer, x = REFUSALS[message]
    with pytest.raises(ValueError, match=r"x must|masks must") as raised:
        layer({}, x)
    assert message in str(raised.value)


@pytest.mark.parametrize("arguments", [{"kind": "both"}, {"num_heads": 0}, {"hidden": 1}])
def test_options_are_checked(arguments):
    """An unknown kind, zero heads, and a number for a flag are refused."""
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be"):
        fn.VisibleMask(**arguments)
