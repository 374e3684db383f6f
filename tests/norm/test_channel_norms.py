"""LayerNorm and RMSNorm of another axis than the last, compared with the same norm between two permutations."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from twins import draw

import funcnet as fn

X = torch.ones(2, 3, 4, 5)


@pytest.mark.parametrize("norm", [fn.LayerNorm, fn.RMSNorm])
@given(dim=st.sampled_from([-3, -2, 0, 1, 2]), affine=st.booleans(), seed=st.integers(0, 99))
def test_a_norm_of_an_axis_is_the_norm_of_the_last_one_between_permutations(norm, dim, affine, seed):
    """Value and all gradients agree bit for bit."""
    x, size = draw((2, 3, 4), seed), (2, 3, 4)[dim]
    layer, last = norm(size, elementwise_affine=affine, dim=dim), norm(size, elementwise_affine=affine)
    params = fn.tree.map(lambda leaf: leaf.double() + draw(leaf.shape, seed + 1), layer.init(0))
    (y, cache), (want, kept) = layer.apply(params, x), last.apply(params, x.movedim(dim, -1))
    gy = draw(x.shape, seed + 2)
    gparams, gx = last.vjp(params, kept, gy.movedim(dim, -1))
    assert torch.equal(y, want.movedim(-1, dim))
    assert fn.tree.equal(layer.vjp(params, cache, gy), (gparams, gx.movedim(-1, dim)))
    assert fn.infer_sizes(norm(None, elementwise_affine=affine, dim=dim), x) == layer


def test_only_a_norm_of_the_first_axis_mixes_rows():
    """The first axis is then the batch."""
    assert fn.LayerNorm(3, dim=0).batch_dependent
    assert not fn.LayerNorm(3, dim=1).batch_dependent


MESSAGES = {
    "LayerNorm: dim must be -1 for a normalized_shape of several axes, got normalized_shape=(3, 4), dim=1": lambda: fn.LayerNorm((3, 4), dim=1),
    "LayerNorm(normalized_shape=(4,), dim=1): the axes (1,) of x must be normalized_shape=(4,), got x of shape (2, 3, 4, 5)": lambda: fn.LayerNorm(4, dim=1)(fn.LayerNorm(4, dim=1).init(0), X),
    "RMSNorm(normalized_shape=(4,), dim=5): the axes (5,) of x must be normalized_shape=(4,), got x of shape (2, 3, 4, 5)": lambda: fn.RMSNorm(4, dim=5)(fn.RMSNorm(4).init(0), X),
    "RMSNorm(normalized_shape=(3,), dim=1): gy must have the shape of y, (2, 3, 4, 5), got gy of shape (3, 4, 5)": lambda: fn.RMSNorm(3, dim=1).vjp(fn.RMSNorm(3).init(0), fn.RMSNorm(3, dim=1).apply(fn.RMSNorm(3).init(0), X)[1], X[0]),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
