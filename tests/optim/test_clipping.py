"""Gradient transforms that clip: compared with torch.nn.utils, and the contract in funcnet/optim/base.py."""

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import funcnet as fn
from funcnet import tree
from funcnet.flattening import Tree
from funcnet.optim.base import GradientTransform
from funcnet.optim.clipping import ClipByGlobalNorm, ClipByValue
from funcnet.random import key, normal


def grads(dtype: torch.dtype = torch.float64) -> Tree:
    drawn = [normal(key(i), shape, dtype=torch.float64).to(dtype) for i, shape in enumerate([(5, 7), (5,), ()])]
    return ({"weight": drawn[0], "bias": drawn[1], "running_mean": None}, {}, drawn[2])


def clipped(transform: GradientTransform, gradients: Tree) -> Tree:
    return transform.update(gradients, transform.init(gradients), gradients)[0]


def by_torch(clip: Callable[[list[Tensor]], Any], gradients: Tree) -> list[Tensor]:
    """Clip with torch.nn.utils, which writes to the gradients of parameters."""
    params = [torch.nn.Parameter(torch.zeros_like(leaf)) for leaf in tree.leaves(gradients)]
    for p, g in zip(params, tree.leaves(gradients), strict=True):
        p.grad = g.clone()
    clip(params)
    return [p.grad for p in params]


ALL = [ClipByGlobalNorm(0.5), ClipByGlobalNorm(1e6), ClipByValue(0.7)]
each_transform = pytest.mark.parametrize("transform", ALL, ids=repr)


@pytest.mark.parametrize("max_norm", [1e-3, 0.5, 5.0, 1e6])
def test_clipping_by_norm_is_that_of_torch(max_norm: float) -> None:
    """The factor matches torch.nn.utils.clip_grad_norm_, including the 10⁻⁶ in its denominator."""
    expected = by_torch(lambda params: torch.nn.utils.clip_grad_norm_(params, max_norm), grads())
    torch.testing.assert_close(tree.leaves(clipped(ClipByGlobalNorm(max_norm), grads())), expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("clip_value", [1e-3, 0.5, 1e6])
def test_clipping_by_value_is_that_of_torch(clip_value: float) -> None:
    """Elements are limited as by torch.nn.utils.clip_grad_value_."""
    expected = by_torch(lambda params: torch.nn.utils.clip_grad_value_(params, clip_value), grads())
    torch.testing.assert_close(tree.leaves(clipped(ClipByValue(clip_value), grads())), expected, rtol=0, atol=0)


def test_the_norm_afterwards_is_max_norm() -> None:
    """Larger gradients get the norm max_norm, to the 10⁻⁶ of the formula."""
    assert float(tree.norm(clipped(ClipByGlobalNorm(0.5), grads()))) == pytest.approx(0.5, rel=1e-5)


def test_short_gradients_keep_every_bit() -> None:
    """A norm below max_norm changes nothing."""
    assert tree.equal(tree.leaves(clipped(ClipByGlobalNorm(1e6), grads())), tree.leaves(grads()))


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 1e30), (torch.float16, 3e4), (torch.bfloat16, 1e30)])
def test_large_gradients_do_not_overflow(dtype: torch.dtype, size: float) -> None:
    """Gradients whose squares overflow their dtype are clipped to max_norm."""
    got = clipped(ClipByGlobalNorm(1.0), {"w": torch.full((4,), size, dtype=dtype)})
    torch.testing.assert_close(got, {"w": torch.full((4,), 0.5, dtype=dtype)})


def test_small_gradients_do_not_vanish() -> None:
    """Gradients whose squares underflow float32 count in the norm."""
    got = clipped(ClipByGlobalNorm(1e-26), {"w": torch.full((4,), 1e-25)})
    assert 0 < float(got["w"][0]) < 1e-25


@pytest.mark.parametrize("size", [1e200, 8e307, 1e-200, 1e-300])
@pytest.mark.parametrize("mapped", [False, True])
def test_squares_of_float64_neither_overflow_nor_vanish(size: float, mapped: bool) -> None:
    """Gradients of any size are clipped to max_norm, in eager mode and under ``vmap``."""
    transform = ClipByGlobalNorm(0.5 * size)
    clip = lambda g: transform.update({"w": g, "b": g[:0]}, {}, {})[0]["w"]
    g = torch.full((4,), size, dtype=torch.float64)
    got = torch.func.vmap(clip)(g[None])[0] if mapped else clip(g)
    want = 0.25 * size if size > 1 else size * min(1.0, 0.5 * size / (2 * size + 1e-6))  # 10⁻⁶ is above a small norm
    torch.testing.assert_close(got, torch.full_like(g, want), rtol=1e-14, atol=0)


def test_an_infinite_gradient_is_not_hidden() -> None:
    """An infinite element becomes NaN and finite ones 0, as in torch.nn.utils."""
    gradients = {"w": torch.tensor([1.0, math.inf]), "b": torch.ones(2)}
    expected = by_torch(lambda params: torch.nn.utils.clip_grad_norm_(params, 1.0), gradients)
    torch.testing.assert_close(tree.leaves(clipped(ClipByGlobalNorm(1.0), gradients)), expected, equal_nan=True)
    assert tree.equal(clipped(ClipByValue(2.0), gradients), {"w": torch.tensor([1.0, 2.0]), "b": torch.ones(2)})


@each_transform
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_equal_gradients_are_clipped_to_equal_bits_whatever_their_strides(transform: GradientTransform, dtype: Any) -> None:
    """The sum of squares adds the elements in logical order."""
    g = normal(key(0), (33, 17), dtype=torch.float64).to(dtype)
    for laid in (g.t().contiguous().t(), torch.stack([g, g], -1)[..., 1]):
        assert tree.equal(clipped(transform, {"w": laid}), clipped(transform, {"w": g}))


NO_GRADIENTS: dict[str, Callable[[], Any]] = {
    "complex": lambda: torch.ones(3, dtype=torch.complex64),
    "integer": lambda: torch.ones(3, dtype=torch.int64),
    "bool": lambda: torch.ones(3, dtype=torch.bool),
    "sparse": lambda: torch.ones(3).to_sparse(),
    "sparse rows": lambda: torch.ones(3, 3).to_sparse_csr(),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(3)]),
    "number": lambda: 1.0,
    "word": lambda: "a",
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors", "ignore:Sparse CSR tensor support")
@each_transform
@pytest.mark.parametrize("kind", NO_GRADIENTS)
def test_what_is_no_gradient_is_refused(transform: GradientTransform, kind: str) -> None:
    """The message has the path and what it got."""
    with pytest.raises(ValueError, match="grads must have a dense floating tensor of at least 16 bits at 'b', got "):
        clipped(transform, {"a": torch.ones(2), "b": NO_GRADIENTS[kind]()})


def test_gradients_on_two_devices_have_no_norm() -> None:
    """The message names both devices."""
    with pytest.raises(ValueError, match="grads must be on one device, cpu, got meta at 'b'"):
        clipped(ClipByGlobalNorm(1.0), {"a": torch.ones(2), "b": torch.ones(2, device="meta")})


@each_transform
def test_zero_gradients_stay_zero(transform: GradientTransform) -> None:
    """A norm of 0 gives no NaN."""
    assert tree.equal(clipped(transform, {"w": torch.zeros(3)}), {"w": torch.zeros(3)})


@each_transform
def test_a_nan_is_passed_on(transform: GradientTransform) -> None:
    """A NaN among the gradients is not hidden."""
    assert math.isnan(float(clipped(transform, {"w": torch.tensor([1.0, math.nan])})["w"][1]))


@each_transform
def test_absent_gradients_stay_absent(transform: GradientTransform) -> None:
    """None leaves and empty nodes stay in their places."""
    got = clipped(transform, grads())
    assert tree.structure(got) == tree.structure(grads())
    assert got[0]["running_mean"] is None


@each_transform
@pytest.mark.parametrize("gradients", [{}, ({}, ()), {"w": None}, None], ids=repr)
def test_a_tree_without_tensors_comes_back(transform: GradientTransform, gradients: Tree) -> None:
    """Without gradients there is nothing to clip."""
    assert clipped(transform, gradients) == gradients


@each_transform
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dtypes_are_kept(transform: GradientTransform, dtype: torch.dtype) -> None:
    """Gradients keep their dtype, including 0-d ones."""
    assert {leaf.dtype for leaf in tree.leaves(clipped(transform, grads(dtype)))} == {dtype}


@each_transform
def test_the_gradients_are_not_written_to(transform: GradientTransform) -> None:
    """The gradients keep their values and version counters."""
    gradients = grads()
    before = copy.deepcopy(gradients)
    clipped(transform, gradients)
    assert tree.equal(gradients, before)
    assert [leaf._version for leaf in tree.leaves(gradients)] == [0, 0, 0]


@pytest.mark.compiled
@each_transform
def test_transforms_compile_whole(transform: GradientTransform) -> None:
    """Compiled in one graph, a transform gives the eager numbers to rounding."""
    torch._dynamo.reset()
    compiled = torch.compile(transform.update, fullgraph=True, backend="aot_eager")
    got, _ = compiled(grads(), {}, grads())
    torch.testing.assert_close(tree.leaves(got), tree.leaves(clipped(transform, grads())), rtol=1e-14, atol=0)


@each_transform
def test_transforms_work_under_vmap(transform: GradientTransform) -> None:
    """Mapped over members, each is clipped by its own norm."""
    members = [{"w": normal(key(i), (3, 4)) * 10**i, "b": normal(key(9 + i), (3,))} for i in range(3)]
    stacked = tree.map(lambda *xs: torch.stack(xs), *members)
    expected = tree.map(lambda *xs: torch.stack(xs), *[clipped(transform, member) for member in members])
    torch.testing.assert_close(torch.func.vmap(lambda g: clipped(transform, g))(stacked), expected)


@each_transform
def test_meta_tensors_are_clipped(transform: GradientTransform) -> None:
    """On the meta device a transform gives the shapes and dtypes of the gradients."""
    meta = tree.to(grads(), "meta")
    assert tree.map(lambda x: (x.shape, x.dtype, x.device), clipped(transform, meta)) == tree.map(
        lambda x: (x.shape, x.dtype, x.device), meta
    )


@each_transform
def test_transforms_are_values(transform: GradientTransform) -> None:
    """The repr evaluates to an equal value, equal values have equal hashes, and pickle keeps them."""
    again = eval(repr(transform))
    assert again == transform == pickle.loads(pickle.dumps(transform))
    assert hash(again) == hash(transform)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClipByGlobalNorm(0.0), "ClipByGlobalNorm: max_norm must be a finite number above 0.0, got 0.0"),
        (lambda: ClipByGlobalNorm(math.nan), "ClipByGlobalNorm: max_norm must be a finite number above 0.0, got nan"),
        (lambda: ClipByValue(-1.0), "ClipByValue: clip_value must be a finite number above 0.0, got -1.0"),
    ],
)
def test_a_wrong_argument_is_refused_with_its_message(make: Callable[[], Any], message: str) -> None:
    """The message names the value, the field and the rule, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        make()
    assert str(caught.value) == message


@pytest.mark.parametrize("kind", [ClipByGlobalNorm, ClipByValue])
def test_limits_are_schedules_or_tensors_too(kind: type) -> None:
    """A schedule counts the updates in the state; a tensor may be mapped over."""
    transform, g = kind(fn.StepSchedule(1.0, 1, 0.5)), {"w": torch.tensor([5.0, 0.0])}
    state = transform.init(g)
    for limit in (1.0, 0.5, 0.25):
        assert [*transform.rates(state).values()] == [limit]
        new, state = transform.update(g, state, g)
        assert float(new["w"][0]) == pytest.approx(limit, rel=1e-5)
    assert int(state["step"]) == 3
    swept = torch.func.vmap(lambda limit: clipped(kind(limit), g)["w"][0])(torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(swept, torch.tensor([1.0, 2.0]), rtol=1e-5, atol=0)
    with pytest.raises(ValueError, match="state must be a dict of step"):
        transform.update(g, {}, g)
    with pytest.raises(ValueError, match="a schedule must return a finite number"):
        kind(lambda t: -1.0).update(g, transform.init(g), g)
