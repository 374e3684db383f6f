"""Arrangements, parts and paddings compared with torch in float64, and their errors."""

import pickle

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from twins import assert_twins, draw, twin_of

import funcnet as fn

sizes = st.lists(st.integers(1, 4), min_size=1, max_size=4)
seeds = st.integers(0, 99)


class Function(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)


@twin_of("Unflatten")
@given(st.lists(st.integers(1, 3), min_size=1, max_size=3), sizes, st.integers(0, 3), st.integers(-1, 2), seeds)
@settings(max_examples=30)
def test_unflatten_agrees_with_its_twin(parts, shape, dim, left, seed):
    """Any axis becomes any sizes, one of them -1 or none."""
    dim = dim % len(shape)
    shape[dim] = torch.Size(parts).numel()
    asked = tuple(-1 if i == left else n for i, n in enumerate(parts))
    assert_twins(fn.Unflatten(dim, asked), nn.Unflatten(dim, asked), draw(shape, seed))
    assert_twins(fn.Unflatten(dim - len(shape), asked), nn.Unflatten(dim, asked), draw(shape, seed))


@twin_of("Flatten", "Identity")
@given(st.lists(st.integers(0, 3), min_size=1, max_size=5), st.integers(0, 4), st.integers(0, 4), seeds)
@settings(max_examples=40)
def test_flatten_and_identity_agree_with_their_twins(shape, start, count, seed):
    """Flatten goes from any axis to any later one, counted from either end; Identity changes nothing."""
    n, x = len(shape), draw(shape, seed)
    first = start % n
    last = min(first + count, n - 1)
    assert_twins(fn.Flatten(first, last), nn.Flatten(first, last), x)
    assert_twins(fn.Flatten(first, last - n), nn.Flatten(first, last), x)
    assert_twins(fn.Identity(), nn.Identity(), x)


@given(sizes, st.randoms(use_true_random=False), st.data())
@settings(max_examples=30)
def test_reordered_axes_agree_with_torch(shape, random, data):
    """Permute, Transpose, Squeeze and Unsqueeze give torch's values and gradients for axes counted from either end."""
    n, x = len(shape), draw(shape)
    order = tuple(random.sample(range(n), n))
    signed = tuple(d - n if data.draw(st.booleans()) else d for d in order)
    a, b = order[0], order[-1] - n
    assert_twins(fn.Permute(signed), Function(lambda x: x.permute(order)), x)
    assert_twins(fn.Transpose(a, b), Function(lambda x: x.transpose(a, b)), x)
    assert_twins(fn.Squeeze(a), Function(lambda x: x.squeeze(a)), x)
    assert_twins(fn.Unsqueeze(b), Function(lambda x: x.unsqueeze(b)), x)
    assert_twins(fn.Unsqueeze(a), Function(lambda x: x.unsqueeze(a)), x)


def test_reshape_keeps_the_batch_axes():
    """A batch without rows works too, for which -1 cannot be computed."""
    assert fn.Reshape((2, -1))({}, torch.ones(0, 6)).shape == (0, 2, 3)
    assert fn.Reshape((-1,))({}, torch.ones(4)).shape == (4, 1)
    assert fn.Reshape((-1, 2), 0)({}, torch.ones(2, 3)).shape == (3, 2)
    assert fn.Reshape((6,), 2)({}, torch.ones(1, 2, 3, 2)).shape == (1, 2, 6)
    assert_twins(fn.Reshape((3, 2)), Function(lambda x: x.reshape(4, 3, 2)), draw((4, 6)))


ends = st.none() | st.integers(-5, 5)
parts = st.integers(-2, 1) | st.builds(slice, ends, ends, st.none() | st.integers(1, 3)) | st.none()


@given(st.lists(parts, max_size=3), st.booleans(), seeds)
@settings(max_examples=40)
def test_index_agrees_with_torch(index, dots, seed):
    """Ints, slices, new axes and an ellipsis agree, with the gradient 0 elsewhere; the layer is a value."""
    index = (*index[:1], *[...] * dots, *index[1:])
    layer, x = fn.Index[index], draw((2, 3, 4), seed)
    assert_twins(layer, Function(lambda x: x[index]), x)
    assert layer == fn.Index(index) == eval(repr(layer), {"Index": fn.Index}) == pickle.loads(pickle.dumps(layer))
    assert hash(layer) == hash(fn.Index(index))


def test_an_index_can_be_one_part():
    """x[0] equals x[0,]."""
    assert fn.Index(0) == fn.Index[0] == fn.Index((0,))
    assert fn.Index[:1] != fn.Index[:2]
    assert fn.Index[:1] != fn.Index[0]


@given(sizes, st.integers(-4, 3), st.integers(1, 5), seeds)
@settings(max_examples=30)
def test_split_and_chunk_agree_with_torch(shape, dim, count, seed):
    """Any axis is split, into parts of one size, a smaller last one, or given sizes."""
    dim = dim % len(shape)
    first, x = shape[dim] // 2, draw(shape, seed)
    both = (first, shape[dim] - first)
    assert_twins(fn.Split(count, dim), Function(lambda x: x.split(count, dim)), x)
    assert_twins(fn.Split(both, dim), Function(lambda x: x.split(both, dim)), x)
    assert_twins(fn.Chunk(count, dim), Function(lambda x: x.chunk(count, dim)), x)


def test_split_is_the_reverse_of_concat():
    """One after the other gives x again."""
    x = draw((4, 6))
    assert torch.equal(fn.serial(fn.Split((2, 1, 3)), fn.Concat())(({}, {}), x), x)


def test_one_hot_agrees_with_torch_and_has_no_gradient():
    """The values match torch's in float32; a number out of range has only zeros; the gradient is None."""
    x = torch.tensor([[0, 2], [1, 1]])
    y, cache = fn.OneHot(4).apply({}, x)
    assert torch.equal(y, nn.functional.one_hot(x, 4).float())
    assert fn.OneHot(4).vjp({}, cache, y) == ({}, None)
    assert not fn.OneHot(2)({}, torch.tensor([2, -1])).any()
    assert fn.OneHot(2, torch.bfloat16)({}, x.to(torch.uint8)).dtype is torch.bfloat16


PADS = [f"{kind}Pad{n}d" for kind in ("Zero", "Constant", "Reflection", "Replication", "Circular") for n in (1, 2, 3)]


@twin_of("{name}")
@pytest.mark.parametrize("name", PADS)
@given(data=st.data())
@settings(max_examples=20)
def test_a_padding_agrees_with_its_twin(name, data):
    """All sizes that torch accepts agree, including one number for all; with a batch, without one, and with an empty batch."""
    n = int(name[-2])
    shape = data.draw(st.lists(st.integers(1, 4), min_size=n, max_size=n))
    most = [size - name.startswith("Reflection") for size in reversed(shape)]
    pads = tuple(data.draw(st.integers(-2, limit)) for limit in most for _ in range(2))
    columns = [*zip(reversed(shape), pads[::2], pads[1::2], strict=True)]
    assume(all(size + low + high > 0 for size, low, high in columns))
    if min(pads) < 0 and not name.startswith(("Zero", "Constant")):  # torch removes elements after these, and some must remain
        left = [size + min(low, 0) + min(high, 0) for size, low, high in columns]
        assume(all(n > 0 for n in left))
        assume(not name.startswith("Circular") or all(max(c[1:]) <= n for c, n in zip(columns, left, strict=True)))
    value = (data.draw(st.floats(-2, 2)),) if name.startswith("Constant") else ()
    outer = data.draw(st.sampled_from([(2, 3), (3,), (1, 1), (0, 2)]))
    for padding in (pads, min(pads)) if min(pads) >= 0 else (pads,):
        assert_twins(getattr(fn, name)(padding, *value), getattr(nn, name)(padding, *value), draw((*outer, *shape)))


def test_negative_padding_takes_away_what_was_mirrored_or_before_going_around():
    """The order is torch's."""
    x = torch.arange(5.0)[None]
    assert fn.ReflectionPad1d((-1, 1))({}, x).tolist() == [[1, 2, 3, 4, 3]]
    assert fn.ReflectionPad1d((-3, 4))({}, x).tolist() == [[3, 4, 3, 2, 1, 0]]
    assert fn.ReplicationPad1d((2, -1))({}, x).tolist() == [[0, 0, 0, 1, 2, 3]]
    assert fn.CircularPad1d((-1, 2))({}, x).tolist() == [[1, 2, 3, 4, 1, 2]]


@pytest.mark.parametrize("name", PADS)
def test_a_padding_refuses_a_gradient_of_another_shape(name):
    """The shape may differ only in the channels, beyond which a kernel would read."""
    n = int(name[-2])
    layer = getattr(fn, name)(1, *[2.0] * name.startswith("Constant"))
    y, cache = layer.apply({}, torch.ones(2, 3, *[4] * n))
    with pytest.raises(ValueError, match=r"gy must have the shape of y, \(2, 3, 6.*got gy of shape \(2, 2, 6"):
        layer.vjp({}, cache, y[:, :2])


def back(layer, x, gy):
    return layer.vjp({}, layer.apply({}, x)[1], gy)


X = torch.ones(2, 3)
MESSAGES = {
    "Flatten(): x must have the axes 1 to -1, got x of shape (3,)": lambda: fn.Flatten()({}, X[0]),
    "Unflatten(dim=1, unflattened_size=(2, 2)): 3 elements must fill the shape (2, 2), got x of shape (2, 3)": lambda: fn.Unflatten(1, (2, 2))({}, X),
    "Unflatten(dim=1, unflattened_size=(2, -1)): 3 elements must fill the shape (2, -1), got x of shape (2, 3)": lambda: fn.Unflatten(1, (2, -1))({}, X),
    "Unflatten(dim=2, unflattened_size=(3,)): x must have an axis 2, got x of shape (2, 3)": lambda: fn.Unflatten(2, (3,))({}, X),
    "Unflatten: unflattened_size must be a tuple of whole numbers below 2**31, of which one may be -1, got (-1, -1)": lambda: fn.Unflatten(1, (-1, -1)),
    "Reshape: shape must be a tuple of whole numbers below 2**31, of which one may be -1, got [2]": lambda: fn.Reshape([2]),
    "Reshape(shape=(2,), batch_dims=3): x must have batch_dims=3 axes or more, got x of shape (2, 3)": lambda: fn.Reshape((2,), 3)({}, X),
    "Permute: dims must be a tuple that names each axis once, got (0, 0)": lambda: fn.Permute((0, 0)),
    "Permute(dims=(0, 2, 1)): x must have 3 axes, got x of shape (2, 3)": lambda: fn.Permute((0, 2, 1))({}, X),
    "Transpose(dim0=0, dim1=2): x must have the axes 0 and 2, got x of shape (2, 3)": lambda: fn.Transpose(0, 2)({}, X),
    "Unsqueeze(dim=4): x must have room for an axis 4, got x of shape (2, 3)": lambda: fn.Unsqueeze(4)({}, X),
    "Squeeze(dim=2): x must have an axis 2, got x of shape (2, 3)": lambda: fn.Squeeze(2)({}, X),
    "Index: index must be of ints, slices with steps above 0, ... and None, got slice(None, None, -1)": lambda: fn.Index[::-1],
    "Index: index must be of ints, slices with steps above 0, ... and None, got [0, 1]": lambda: fn.Index([0, 1]),
    "Index: index must be of ints, slices with steps above 0, ... and None, got True": lambda: fn.Index(True),
    "Index(index=(5,)): x must have these elements": lambda: fn.Index(5)({}, X),
    "Index(index=(0, 0, 0)): x must have these elements": lambda: fn.Index[0, 0, 0]({}, X),
    "Split: split_size must be a whole number of at least 1, or a tuple of sizes, got 0": lambda: fn.Split(0),
    "Split(split_size=(2, 2)): split_size must add up to the axis -1 of x, got x of shape (2, 3)": lambda: fn.Split((2, 2))({}, X),
    "Split(split_size=2): gy must be a tuple of 2 parts, like y, got a tuple of 1": lambda: back(fn.Split(2), X, (X[:, :2],)),
    "Split(split_size=2): gy must have the shape of y, (2, 1), got gy of shape (2, 3)": lambda: back(fn.Split(2), X, (X[:, :2], X)),
    "Chunk: chunks must be a whole number of at least 1, got 0": lambda: fn.Chunk(0),
    "OneHot: num_classes must be a whole number of at least 1, got 0": lambda: fn.OneHot(0),
    "OneHot: dtype must be a floating dtype, got torch.int64": lambda: fn.OneHot(2, torch.int64),
    "OneHot(num_classes=2): x must be a tensor of integers, got a tensor of shape (2, 3) and dtype torch.float32": lambda: fn.OneHot(2)({}, X),
    "ZeroPad1d: padding must be a whole number, or a tuple of 2 of them, the last axis first, got (1,)": lambda: fn.ZeroPad1d((1,)),
    "ReflectionPad2d: padding must be a whole number, or a tuple of 4 of them, the last axis first, got 1.5": lambda: fn.ReflectionPad2d(1.5),
    "ReflectionPad1d(padding=-2): the padding must be less than the size of each axis, and must not remove all of it, got x of shape (2, 3)": lambda: fn.ReflectionPad1d(-2)({}, X),
    "CircularPad1d(padding=(-2, 2)): the padding must be at most the remaining size of each axis, got x of shape (2, 3)": lambda: fn.CircularPad1d((-2, 2))({}, X),
    "ReflectionPad1d(padding=3): the padding must be less than the size of each axis, and must not remove all of it, got x of shape (2, 3)": lambda: fn.ReflectionPad1d(3)({}, X),
    "ReflectionPad2d(padding=1): x must have 3 or 4 axes, got x of shape (2, 3)": lambda: fn.ReflectionPad2d(1)({}, X),
    "CircularPad1d(padding=4): the padding must be at most the remaining size of each axis, got x of shape (2, 3)": lambda: fn.CircularPad1d(4)({}, X),
    "ReplicationPad1d(padding=1): x must not be empty, and the padding must not remove a whole axis, got x of shape (2, 0)": lambda: fn.ReplicationPad1d(1)({}, X[:, :0]),
    "ZeroPad1d(padding=-2): the padding must not remove a whole axis, got x of shape (2, 3)": lambda: fn.ZeroPad1d(-2)({}, X),
    "ZeroPad3d(padding=1): x must have 3 or more axes, got x of shape (2, 3)": lambda: fn.ZeroPad3d(1)({}, X),
    "ConstantPad1d: value must be a finite number, got nan": lambda: fn.ConstantPad1d(1, float("nan")),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert str(caught.value).startswith(message)


ON_A_TENSOR = [
    *[
        fn.Flatten(),
        fn.Unflatten(1, (2, 2)),
        fn.Reshape((2, 2)),
        fn.Squeeze(1),
        fn.Unsqueeze(1),
        fn.Permute((1, 0)),
        fn.Transpose(0, 1),
    ],
    *[fn.Index[:, 0], fn.Split(2), fn.Chunk(2), fn.GlobalAvgPool(), fn.GlobalSumPool(), fn.GlobalMaxPool()],
]


@pytest.mark.parametrize("x", ["x", None, 1.0, (torch.ones(2, 4),)], ids=repr)
@pytest.mark.parametrize("layer", ON_A_TENSOR, ids=repr)
def test_what_is_no_tensor_is_refused(layer, x):
    """The layer raises its own message, not an AttributeError."""
    with pytest.raises(ValueError, match=r": x must be a (floating )?tensor, got"):
        layer.apply({}, x)


def test_a_number_has_no_axis_to_part():
    """Split refuses it too."""
    for layer in (fn.Chunk(1), fn.Split(1)):
        with pytest.raises(ValueError, match=r"axis -1.*, got x of shape \(\)"):
            layer.apply({}, torch.tensor(1.0))
