"""Rearrangement by patterns compared with einops, windows of steps with plain windows, and the errors they raise."""

import pytest
import torch
from functorch.einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twins import assert_twins, draw

import funcnet as fn


class Function(nn.Module):
    """A function without params as a module."""

    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)


PATTERNS = {
    "n c h w -> n h w c": ((2, 3, 4, 5), {}, lambda x: x.permute(0, 2, 3, 1)),
    "n (h w) c -> n c h w": ((2, 6, 3), {"h": 2}, lambda x: x.mT.unflatten(-1, (2, 3))),
    "n c (h a) (w b) -> n (c a b) h w": ((2, 1, 4, 6), {"a": 2, "b": 3}, lambda x: nn.functional.unfold(x, (2, 3), stride=(2, 3)).unflatten(-1, (2, 2))),
    "(n m) c -> n (m c)": ((4, 3), {"n": 2}, lambda x: x.reshape(2, 6)),
    "n ... -> ... n": ((2, 3, 4), {}, lambda x: x.movedim(0, -1)),
    "... a b -> ... (b a)": ((2, 0, 3), {}, lambda x: x.mT.flatten(-2)),
    "a 1 b -> b a 1 1": ((2, 1, 3), {}, lambda x: x[:, 0].T[..., None, None]),
    "a -> a": ((3,), {}, lambda x: x),
    "(a b c) -> c a b": ((12,), {"a": 2, "c": 3}, lambda x: x.reshape(2, 2, 3).movedim(-1, 0)),
    "... -> 1 ...": ((), {}, lambda x: x.unsqueeze(0)),
    "x1 x_2->x_2   x1": ((2, 3), {}, lambda x: x.T),
}  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_means_what_it_says(pattern):
    """Value and gradient match torch's views and permutations."""
    shape, sizes, f = PATTERNS[pattern]
    assert_twins(fn.rearrange(pattern, **sizes), Function(f), draw(shape))


@given(
    st.permutations(["a", "b", "c", "d"]),
    st.permutations(["a", "b", "c", "d"]),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 99),
)
@settings(max_examples=40)
def test_any_split_order_and_joining_is_einops(left, right, cut, join, seed):
    """Four names are tried, some of them joined on either side."""
    sizes = {"a": 2, "b": 3, "c": 1, "d": 2}
    sides = [f"({' '.join(names[:n])}) {' '.join(names[n:])}" for names, n in ((left, cut), (right, join))]
    pattern, joint = " -> ".join(sides), torch.Size([sizes[name] for name in left[:cut]]).numel()
    x = draw((joint, *[sizes[name] for name in left[cut:]]), seed)
    assert_twins(fn.rearrange(pattern, **sizes), Function(lambda x: rearrange(x, pattern, **sizes)), x)


def test_its_repr_is_the_call_that_makes_it():
    """Sizes are named; the order of rows is known to stay if the first axis does."""
    layer = fn.rearrange("n (h w) -> n h w", h=2)
    assert repr(layer) == "rearrange('n (h w) -> n h w', h=2)"
    assert not layer.batch_dependent
    assert fn.rearrange("(n m) -> n m", m=2).batch_dependent


@given(st.sampled_from([(), (2,), (2, 3)]), st.integers(1, 5), st.integers(1, 3), st.integers(0, 6), st.integers(0, 99))
@settings(max_examples=40)
def test_a_step_has_those_around_it(lead, steps, size, w, seed):
    """Value and gradient match windows of the padded sequence, even beyond both ends."""

    def windows(x):
        padded = nn.functional.pad(x, (0, 0, w, w)).unfold(-2, 2 * w + 1, 1)
        return padded.transpose(-1, -2).flatten(-2)

    assert_twins(fn.ExpandWindow(w), Function(windows), draw((*lead, steps, size), seed))


X = torch.ones(2, 6)
MESSAGES = {
    'rearrange: pattern must have two sides, such as "n (h w) c -> n c h w", that name the same axes once each, got \'a b\'': lambda: fn.rearrange("a b"),
    "that name the same axes once each, got 'a b -> a'": lambda: fn.rearrange("a b -> a"),
    "that name the same axes once each, got 'a a -> a a'": lambda: fn.rearrange("a a -> a a"),
    "that name the same axes once each, got 'a (b -> a b'": lambda: fn.rearrange("a (b -> a b"),
    "that name the same axes once each, got '(a ...) -> a ...'": lambda: fn.rearrange("(a ...) -> a ..."),
    "that name the same axes once each, got 3": lambda: fn.rearrange(3),
    "rearrange: sizes must be whole numbers of at least 1, for names in 'a (b c) -> a b c', got d=2": lambda: fn.rearrange("a (b c) -> a b c", d=2),
    "rearrange: sizes must be whole numbers of at least 1, for names in 'a (b c) -> a b c', got b=0": lambda: fn.rearrange("a (b c) -> a b c", b=0),
    "rearrange('a (b c) -> a b c', b=4): x must have the axes on the left, each with at most one unknown size, got x of shape (2, 6)": lambda: fn.rearrange("a (b c) -> a b c", b=4)({}, X),
    "each with at most one unknown size, got x of shape (2, 6)": lambda: fn.rearrange("a (b c) -> a b c")({}, X),
    "x must have the axes on the left, each with at most": lambda: fn.rearrange("a b c -> c b a")({}, X),
    "rearrange('... a b c -> c b a ...'): x must have the axes on the left": lambda: fn.rearrange("... a b c -> c b a ...")({}, X),
    "rearrange('a 1 -> a'): x must have the axes on the left": lambda: fn.rearrange("a 1 -> a")({}, X),
    "rearrange('a b -> b a'): gy must have the shape of y, (6, 2), got gy of shape (2, 6)": lambda: fn.rearrange("a b -> b a").vjp({}, fn.rearrange("a b -> b a").apply({}, X)[1], X),
    "ExpandWindow: window_size must be a whole number of at least 0, got -1": lambda: fn.ExpandWindow(-1),
    "ExpandWindow(): x must have the axes (..., T, E), got x of shape (6,)": lambda: fn.ExpandWindow()({}, X[0]),
    "ExpandWindow(): gy must have the shape of y, (2, 18), got gy of shape (2, 6)": lambda: fn.ExpandWindow().vjp({}, fn.ExpandWindow().apply({}, X)[1], X),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
