"""Round trips: every saved tree is loaded unchanged, bit for bit."""

import math
from collections import OrderedDict, namedtuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from saved_trees import NARROW, ORDINARY, Point, bits, same, sample, tensor, tensors, trees, words

import funcnet as fn
from funcnet.saving.tensors import DTYPES, is_dense

DRAWN = trees(tensors(ORDINARY) | words)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Return the path of a file that every example replaces."""
    return tmp_path_factory.mktemp("saving") / "tree.fn"


@settings(max_examples=80)
@given(DRAWN, trees(words))
def test_every_tree_comes_back_as_it_was(path, tree, metadata):
    """Metadata and kinds of nodes are restored too."""
    fn.save(path, tree, metadata)
    assert same(fn.load(path), tree)
    assert same(fn.load_metadata(path), metadata)


@settings(max_examples=40)
@given(tensors(ORDINARY))
def test_dense_tensors_keep_their_strides(path, x):
    """Others become contiguous."""
    fn.save(path, x)
    kept = is_dense(x.shape, x.stride())
    assert fn.load(path).stride() == (x.stride() if kept else torch.empty(x.shape).stride())


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), max_size=4))
def test_what_is_dense_is_what_torch_calls_dense(axes):
    """``torch.empty_like`` keeps the strides of exactly these tensors."""
    shape, strides = [n for n, _ in axes], [stride for _, stride in axes]
    x = torch.empty(600).as_strided(shape, strides)
    filled = {sum(i * s for i, s in zip(index, strides, strict=True)) for index in torch.ones(shape).nonzero().tolist()}
    assert is_dense(shape, strides) == (x.numel() > 0 and filled == set(range(x.numel())))


def test_every_dtype_and_layout_of_memory_comes_back(path):
    """Some dtypes can be neither copied nor compared in torch."""
    made = {name: tensor(name, (3, 4), 0) for name in DTYPES if name != "complex32"}
    made["complex32"] = tensor("int32", (3, 4), 0).view(torch.complex32)
    tree = {name: (x, x.t(), x[0, 1], x[:0]) + (() if name in NARROW else (x[:, ::2],)) for name, x in made.items()}
    fn.save(path, tree)
    assert same(fn.load(path), tree)


def test_narrow_tensors_with_gaps_are_copied(path):
    """Such tensors are copied as bytes, because torch cannot copy them."""
    x = tensor("int4", (4, 6), 1)
    fn.save(path, x[:, ::2])
    assert bits(fn.load(path)) == bits(x.view(torch.uint8)[:, ::2])


def test_channels_last_and_strides_of_axes_of_size_1_come_back(path):
    """Kernels are chosen by them."""
    images = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    odd = torch.arange(4.0).as_strided((1, 4, 1), (77, 1, 9))
    fn.save(path, (images, odd))
    assert [x.stride() for x in fn.load(path)] == [images.stride(), (77, 1, 9)]


def test_conjugated_negated_and_lazy_tensors_are_saved_by_their_values(path):
    """Their memory holds other values."""
    z = torch.randn(3, dtype=torch.complex64)
    tree = (z.conj(), z.conj().imag, torch._efficientzerotensor((2,)), z)
    fn.save(path, tree)
    loaded = fn.load(path)
    assert all(torch.equal(x, y) for x, y in zip(loaded, tree, strict=True))
    assert not any(x.is_conj() or x.is_neg() for x in loaded)


def test_a_tensor_at_two_paths_is_one_again(path):
    """The tensor is written once; another view of the same memory is another tensor."""
    w = torch.randn(100, 100)
    fn.save(path, {"a": w, "b": [w.detach(), w.t(), w[:50]]})
    loaded = fn.load(path)
    assert loaded["a"] is loaded["b"][0]
    assert path.stat().st_size < 3 * w.nbytes
    assert len({x.data_ptr() for x in (loaded["a"], *loaded["b"][1:])}) == 3
    again = fn.load(path, like=loaded)
    assert again["a"] is again["b"][0]


def test_tensors_that_require_gradients_come_back_without(path):
    """Parameters are included; saving does not change them."""
    w = torch.nn.Parameter(torch.ones(2))
    fn.save(path, [w, w * 2])
    assert [type(x) for x in fn.load(path)] == [torch.Tensor] * 2
    assert not any(x.requires_grad for x in fn.load(path))
    assert w.requires_grad


@pytest.mark.parametrize("name", ["tree.fn", "tree.safetensors"])
def test_inference_mode_makes_no_difference(tmp_path, name):
    """Loaded tensors are normal ones with separate memory, and inference tensors can be saved."""
    with torch.inference_mode():
        w = torch.randn(3, 2)
        fn.save(tmp_path / name, {"w": w, "t": w.t(), "sliced": w[:, :1]})
        loaded = fn.load(tmp_path / name, like={"w": w, "t": w.t(), "sliced": w[:, :1]})
    assert same(loaded, {"w": w, "t": w.t(), "sliced": w[:, :1]})
    for x in loaded.values():
        assert not x.is_inference()
        assert x.untyped_storage().nbytes() == x.nbytes
        x.add_(1)
    assert torch.equal(fn.load(tmp_path / name)["w"], w)


def test_a_tree_keeps_classes_keys_and_words(path):
    """The result is written out, because a comparison may miss a difference."""
    tree = {"b": (1, [2**80, -0.0, 1e-320, math.inf], None, {}, (), []), 1: OrderedDict(z=torch.Size([2])), False: 'é\n"'}
    fn.save(path, tree)
    assert repr(fn.load(path)) == repr(tree)
    assert type(fn.load(path)[1]["z"]) is torch.Size


def test_named_tuples_get_the_class_of_like(path):
    """Without it, they get a class with the same name and fields, the same one at every load."""
    fn.save(path, {"p": Point(1, torch.ones(2)), "odd": namedtuple("Odd", ["class", "x"], rename=True)(1, 2)})
    one, other = fn.load(path), fn.load(path)
    assert type(one["p"]) is type(other["p"]) is not Point
    assert (type(one["p"]).__name__, one["p"].x, one["odd"]._fields) == ("Point", 1, ("_0", "x"))
    like = {"p": Point(0, torch.zeros(2)), "odd": one["odd"]}
    assert type(fn.load(path, like)["p"]) is Point


def test_equal_trees_make_equal_files(tmp_path):
    """A file has no time, name or address in it."""
    fn.save(tmp_path / "a", sample(), {"epoch": 3})
    fn.save(tmp_path / "b", sample(), {"epoch": 3})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_training_goes_on_from_a_file_as_if_nothing_had_been(path):
    """Params and optimizer state agree bit for bit."""
    net, loss, opt = fn.serial(fn.Linear(4, 8), fn.BatchNorm1d(8), fn.Tanh(), fn.Linear(8, 1)), fn.MSE(), fn.AdamW(1e-2)
    step, params = fn.train_step(net, loss, opt), net.init(0)
    x, t = fn.random.normal(1, (16, 4)), fn.random.normal(2, (16, 1))
    state = opt.init(params)
    params, state, _ = step(params, state, x, t)
    fn.save(path, (params, state))
    again = fn.load(path, like=(params, state))
    one, other = step(params, state, x, t), step(*again, x, t)
    assert same(one, other)
