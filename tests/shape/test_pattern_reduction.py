"""Reduction and repetition by patterns compared with torch's functions, and the errors they raise."""

import pytest
import torch
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


REDUCED = {
    "n h w c -> n c": ((2, 3, 4, 5), "mean", {}, lambda x: x.mean((1, 2))),
    "n (t k) c -> n c t": ((2, 6, 3), "max", {"k": 2}, lambda x: x.unflatten(1, (3, 2)).amax(2).mT),
    "(n m) c -> n": ((4, 3), "min", {"m": 2}, lambda x: x.reshape(2, 6).amin(1)),
    "n ... -> n 1": ((2, 3, 4), "sum", {}, lambda x: x.sum((1, 2))[:, None]),
    "n ... c -> ... n": ((2, 3, 4, 5), "sum", {}, lambda x: x.sum(-1).movedim(0, -1)),
    "... ->": ((2, 3), "prod", {}, torch.prod),
    "a 1 -> 1 a": ((3, 1), "mean", {}, lambda x: x.T),
    "...->...": ((), "max", {}, lambda x: x),
}  # fmt: skip
REPEATED = {
    "n c -> n t c": ((2, 3), {"t": 4}, lambda x: x[:, None].expand(2, 4, 3)),
    "n c h w -> n c (h a) (w b)": ((2, 1, 2, 3), {"a": 2, "b": 3}, lambda x: x.repeat_interleave(2, 2).repeat_interleave(3, 3)),
    "n c -> (r n) c": ((2, 3), {"r": 2}, lambda x: x.repeat(2, 1)),
    "n ... -> ... n r": ((2, 3, 4), {"r": 2}, lambda x: x.movedim(0, -1)[..., None].expand(3, 4, 2, 2)),
    "-> a": ((), {"a": 3}, lambda x: x.expand(3)),
    "(a b) -> b a": ((6,), {"a": 2}, lambda x: x.reshape(2, 3).T),
}  # fmt: skip


@pytest.mark.parametrize("pattern", REDUCED)
def test_a_reduction_means_what_its_pattern_says(pattern):
    """Value and gradient match torch's reductions."""
    shape, reduction, sizes, f = REDUCED[pattern]
    assert_twins(fn.Reduce(pattern, reduction, **sizes), Function(f), draw(shape))


@pytest.mark.parametrize("pattern", REPEATED)
def test_a_repetition_means_what_its_pattern_says(pattern):
    """Value and gradient match expanded and repeated tensors."""
    shape, sizes, f = REPEATED[pattern]
    assert_twins(fn.Repeat(pattern, **sizes), Function(f), draw(shape))


def test_sizes_are_given_by_name_or_as_pairs():
    """Both make the same layer, whose repr has them by name."""
    layer = fn.Repeat("n c -> n t c", t=3)
    assert layer == fn.Repeat("n c -> n t c", (("t", 3),))
    assert repr(layer) == "Repeat('n c -> n t c', t=3)"
    assert layer.replace(pattern="n c -> t n c") == fn.Repeat("n c -> t n c", t=3)
    assert repr(fn.Reduce("n (t k) -> n t", "max", k=2)) == "Reduce('n (t k) -> n t', 'max', k=2)"


X = torch.ones(2, 6)
MESSAGES = {
    'Reduce: pattern must have two sides, such as "n h w c -> n c", with each name on the right also on the left, only once, got \'a -> b\'': lambda: fn.Reduce("a -> b", "sum"),
    "Reduce: pattern must have two sides": lambda: fn.Reduce(3, "sum"),
    "Reduce: reduction must be one of 'sum', 'mean', 'max', 'min', 'prod', got 'median'": lambda: fn.Reduce("a b -> a", "median"),
    "Reduce: sizes must be whole numbers of at least 1, for names in 'a b -> a', got c=2": lambda: fn.Reduce("a b -> a", "sum", c=2),
    "Reduce('a (b c) -> a b', 'sum', c=4): x must have the axes on the left, each with at most one unknown size, got x of shape (2, 6)": lambda: fn.Reduce("a (b c) -> a b", "sum", c=4)({}, X),
    "Reduce('a b -> a', 'sum'): gy must have the shape of y, (2,), got gy of shape (2, 6)": lambda: fn.Reduce("a b -> a", "sum").vjp({}, fn.Reduce("a b -> a", "sum").apply({}, X)[1], X),
    'Repeat: pattern must have two sides, such as "n c -> n t c", with all names on the left also on the right, only once, got \'a b -> a\'': lambda: fn.Repeat("a b -> a"),
    "Repeat: the new axes must have sizes, such as t=2, got 'a b -> a t b'": lambda: fn.Repeat("a b -> a t b"),
    "Repeat: sizes must be a tuple of pairs, each of a name and a size, got 3": lambda: fn.Repeat("a -> a", 3),
    "Repeat('a -> a t', t=2): x must have the axes on the left": lambda: fn.Repeat("a -> a t", t=2)({}, X),
    "Repeat('a b -> a b t', t=2): gy must have the shape of y, (2, 6, 2), got gy of shape (2, 6)": lambda: fn.Repeat("a b -> a b t", t=2).vjp({}, fn.Repeat("a b -> a b t", t=2).apply({}, X)[1], X),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "layer",
    [fn.Reduce("n (t k) c -> n t c", "max", k=2), fn.Repeat("n ... -> n k ...", k=2), fn.rearrange("n a c -> n c a")],
    ids=repr,
)
def test_the_axes_of_a_shape_are_worked_out_once(layer, monkeypatch):
    """An x with a shape that came before uses the existing plan."""
    planned, shapes = type(layer).planned, []
    monkeypatch.setattr(type(layer), "planned", lambda self, shape: shapes.append(shape) or planned(self, shape))
    for shape in ((2, 14, 3), (2, 16, 3), (2, 14, 3)):
        layer({}, draw(shape))
    assert shapes == [(2, 14, 3), (2, 16, 3)]
