"""Law 11: what breaks it, how it treats kinks and ``vmap``, and second derivatives of a net by other means."""

from typing import Any

import pytest
import torch
from broken_derivatives import (
    ConstantDerivative,
    DetachedCache,
    DetachedHalf,
    DetachedOutput,
    DetachedWeight,
    Gated,
    KernelInSingle,
    KernelWithoutDerivative,
    NoForwardMode,
    OtherSlopeAtKink,
    WrittenInPlace,
)
from cases import CASES
from sound_layers import Affine, Rectifier
from torch import Tensor

import funcnet as fn
from funcnet import tree
from funcnet.combinators.batching import Mapped
from funcnet.layers.activation.base import Activation
from funcnet.testing import LAWS, check_laws

ROWS = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.3, 0.0], [-0.4, 0.9, 1.1], [0.2, -0.6, 0.8]])
LAW = LAWS["second order"]

BROKEN: list[tuple[fn.Layer, fn.Layer, str]] = [
    (OtherSlopeAtKink(), Rectifier(), "torch.func.vjp of apply must give the gradients of vjp"),
    (DetachedOutput(), Gated(), "torch.func.vjp of apply must give the gradients of vjp"),
    (DetachedWeight(), Affine(), "must agree with central differences"),
    (DetachedCache(), Gated(), "must agree with central differences"),
    (DetachedHalf(), Affine(), "must agree with central differences"),
    (ConstantDerivative(), Gated(), "must agree with central differences"),
    (KernelWithoutDerivative(), Gated(), "derivative for aten::silu_backward is not implemented"),
    (WrittenInPlace(), Gated(), "modified by an inplace operation"),
    (NoForwardMode(), Affine(), "forward AD"),
]


@pytest.mark.parametrize(("broken", "sound", "fault"), BROKEN, ids=[type(broken).__name__ for broken, _, _ in BROKEN])
def test_the_law_rejects_the_broken_layer_and_not_the_sound_one(broken: fn.Layer, sound: fn.Layer, fault: str) -> None:
    """The other laws cannot distinguish the two."""
    LAW(sound, ROWS)
    for name, law in LAWS.items():
        if name not in ("second order", "transforms", "value"):
            law(broken, ROWS)
    with pytest.raises(AssertionError, match=rf"(?s)^law 11, second order: .*{fault}"):
        LAW(broken, ROWS)


def test_the_law_rejects_in_float32_what_is_broken_only_there() -> None:
    """A layer may use another kernel in each dtype."""
    LAW(KernelInSingle(), ROWS)
    with pytest.raises(AssertionError, match=r"(?s)^law 11, second order in float32: .*aten::silu_backward is not implemented"):
        LAW(KernelInSingle(), ROWS, dtype=torch.float32)


@pytest.mark.parametrize("layer", [Gated(), Affine(), Rectifier()], ids=str)
def test_the_sound_layers_keep_all_laws(layer: fn.Layer) -> None:
    """The models of the broken ones are correct."""
    check_laws(layer, ROWS, compiled=False)


def test_the_law_names_the_leaf_along_which_the_derivative_is_wrong() -> None:
    """The message has both numbers."""
    with pytest.raises(AssertionError, match=r"it gives \S+ along params\.w, and differences \S+"):
        LAW(DetachedWeight(), ROWS)


KINKS = torch.cat((torch.arange(-8, 8.25, 0.25), torch.tensor([20.0, -20.0, 40.0, 1 / 6, -1 / 6, 1e4, -1e4])))
OVERFLOWING = ("Exp", "Expm1", "CELU negative")  # their derivatives are infinite at 1e4
OF_POSITIVE = (fn.PowScalar, fn.Sqrt, fn.Rsqrt)  # their derivatives are infinite at 0, and undefined below
ACTIVATIONS = {
    name: case.layer
    for name, case in CASES.items()
    if isinstance(case.layer, Activation) and not isinstance(case.layer, OF_POSITIVE)
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_has_one_slope_at_every_kink(name: str) -> None:
    """Quarters from -8 to 8 include all kinks; large numbers overflow in a square or an exponential."""
    LAW(ACTIVATIONS[name], KINKS[:-2] if name in OVERFLOWING else KINKS)


@pytest.mark.parametrize("layer", [fn.PReLU(), fn.RReLU(), fn.GLU(), fn.SwiGLU(), fn.ReGLU()], ids=str)
def test_a_layer_of_several_numbers_has_one_slope_at_every_kink(layer: fn.Layer) -> None:
    """Slopes may be learned or drawn, and gates are tried too."""
    LAW(layer, KINKS.reshape(4, 18))


PAIR = tuple(torch.cartesian_prod(torch.arange(-3, 3.5, 0.5), torch.arange(-2, 2.5, 0.5)).T.contiguous())


@pytest.mark.parametrize(
    "loss",
    [fn.L1(), fn.BCEWithLogits(), fn.BCEWithLogits(pos_weight=3.0), fn.MSE()],
    ids=str,
)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none", "batch"])
def test_a_loss_has_one_slope_at_every_kink(loss: fn.Loss, reduction: str) -> None:
    """y and the target take multiples of ½; both have their gradients."""
    LAW(loss.replace(reduction=reduction).as_layer(), PAIR)


@pytest.mark.parametrize("loss", [fn.BCEWithLogits(), fn.L1(), fn.MSE()], ids=str)
def test_the_gradient_of_a_loss_by_torch_is_its_own(loss: fn.Loss) -> None:
    """The gradients agree at 0, at the target and at the corner, and have a derivative."""
    y, t = PAIR[0], (PAIR[1] > 0).float()
    gy = loss.value_and_grad(y, t)[1]
    torch.testing.assert_close(torch.func.grad(lambda y: loss(y, t))(y), gy)
    hvp = torch.func.jvp(lambda y: loss.value_and_grad(y, t)[1], (y,), (torch.ones_like(y),))[1]
    assert hvp.shape == y.shape
    assert hvp.isfinite().all()


def test_probabilities_that_are_certain_have_the_gradients_of_the_loss() -> None:
    """Torch's own slope of the target is infinite there."""
    y, t = torch.tensor([0.0, 1.0, 0.3, 1e-30]).double(), torch.tensor([1.0, 0.2, 0.4, 0.5]).double()
    layer = fn.BCE(reduction="none").as_layer()
    value, back = torch.func.vjp(lambda *x: layer({}, x), y, t)
    _, cache = layer.apply({}, (y, t))
    for got, want in zip(back(torch.ones_like(value)), layer.vjp({}, cache, torch.ones_like(value))[1], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_a_window_of_zeros_has_the_slope_of_its_pooling(p: float) -> None:
    """The root of 0 has an infinite slope; with p = 1 there is no root."""
    x = torch.tensor([[[0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0]]])
    LAW(fn.LPPool1d(p, 2), x)
    gx = torch.func.grad(lambda x: fn.LPPool1d(p, 2)({}, x).sum())(x)
    assert torch.equal(gx[0, 1], torch.full((4,), float(p == 1)))


@pytest.mark.parametrize("layer", [fn.Std(1), fn.Std()], ids=str)
def test_equal_elements_have_the_slope_of_their_deviation(layer: fn.Layer) -> None:
    """The slope is 0, in forward mode too."""
    LAW(layer, torch.tensor([[1.0, 1.0, 1.0], [0.5, -0.2, 0.1]]))
    LAW(layer, torch.ones(2, 3))


NORMS = [name for name in CASES if name.startswith(("BatchNorm", "LayerNorm", "GroupNorm", "InstanceNorm", "RMSNorm"))]


@pytest.mark.parametrize("name", NORMS)
def test_norms_are_differentiated_through_vmap(name: str) -> None:
    """``vmap`` decomposes some of torch's backward kernels, whose second derivatives are then wrong without an error."""
    layer, x, params = CASES[name][:3]
    both = tree.map(lambda leaf: torch.stack((leaf, leaf * 0.9)) if leaf.is_floating_point() else torch.stack((leaf, leaf)), x)
    many = tree.map(lambda leaf: torch.stack((leaf, leaf)), layer.init(0) if params is None else params)
    LAW(Mapped(layer, 2, shared=False), both, many)


@pytest.mark.parametrize("name", ["SiLU", "Mish", "GLU", "GroupNorm", "RMSNorm", "SDPA", "LSTM", "Dropout", "MaxPool2d tiles"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autograd_follows_vjp_too(name: str, dtype: torch.dtype) -> None:
    """Without ``torch.func``, tensors that require grad use no kernel without a derivative."""
    layer, x, params = CASES[name][:3]
    params, x, key = tree.cast(layer.init(0) if params is None else params, dtype), tree.cast(x, dtype), fn.key(0)
    leaves = [leaf.requires_grad_() for leaf in tree.leaves(tree.map(torch.clone, (params, x))) if leaf.is_floating_point()]
    given = iter(leaves)
    params, x = tree.map(lambda leaf: next(given) if leaf.is_floating_point() else leaf, (params, x))
    y, cache = layer.apply(params, x, key)
    gy = tree.map(lambda leaf: torch.ones_like(leaf).requires_grad_(), y)
    gradients = layer.vjp(params, cache, gy)
    total = sum(leaf.float().square().sum() for leaf in tree.leaves(gradients))
    found = torch.autograd.grad(total, [*tree.leaves(gy), *leaves], allow_unused=True)
    assert all(g is None or g.isfinite().all() for g in found)
    assert found[0].any()


@pytest.mark.parametrize(
    "layer",
    [fn.serial(fn.Linear(3, 4), fn.LayerNorm(4), fn.SiLU(), fn.Linear(4, 2)), fn.mlp((3, 4, 2), fn.Mish())],
    ids=str,
)
def test_a_hessian_is_that_of_differences_of_the_gradient(layer: fn.Layer) -> None:
    """``torch.func.hessian`` combines forward mode, reverse mode and ``vmap``."""
    params = tree.cast(layer.init(0), torch.float64)
    x, t = ROWS.double(), ROWS[:, :2].double()
    flat = tree.ravel(params)

    def value(flat: Tensor) -> Tensor:
        return fn.MSE()(layer(tree.unravel(flat, params), x), t)

    def gradient(flat: Tensor) -> Tensor:
        p = tree.unravel(flat, params)
        y, cache = layer.apply(p, x)
        return tree.ravel(layer.grads(p, cache, fn.MSE().value_and_grad(y, t)[1]))

    hessian = torch.func.hessian(value)(flat)
    torch.testing.assert_close(torch.func.jacfwd(gradient)(flat), hessian, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(torch.func.jacrev(gradient)(flat), hessian, rtol=1e-9, atol=1e-12)
    for i in range(0, len(flat), 7):
        step = torch.zeros_like(flat).index_fill(0, torch.tensor([i]), 1e-5)
        column = (gradient(flat + step) - gradient(flat - step)) / 2e-5
        torch.testing.assert_close(column, hessian[:, i], rtol=1e-6, atol=1e-8)


def test_a_hessian_vector_product_of_an_mlp_is_double_backward() -> None:
    """The recipe, forward mode over ``grads``, equals autograd over autograd."""
    net, loss = fn.mlp((3, 8, 8, 2), fn.GELU()), fn.CrossEntropy()
    params = tree.cast(net.init(0), torch.float64)
    x, labels = fn.random.normal(1, (5, 3)).double(), torch.tensor([0, 1, 1, 0, 1])
    v = tree.map(lambda leaf: fn.random.normal(2, tuple(leaf.shape)).double(), params)

    def gradient(params: Any) -> Any:
        y, cache = net.apply(params, x)
        return net.grads(params, cache, loss.value_and_grad(y, labels)[1])

    _, hvp = torch.func.jvp(gradient, (params,), (v,))

    leaves = [leaf.clone().requires_grad_() for leaf in tree.leaves(params)]
    given = iter(leaves)
    y = torch.nn.functional.cross_entropy(net(tree.map(lambda _: next(given), params), x), labels)
    grads = torch.autograd.grad(y, leaves, create_graph=True)
    along = sum((g * one).sum() for g, one in zip(grads, tree.leaves(v), strict=True))
    for got, want in zip(tree.leaves(hvp), torch.autograd.grad(along, leaves), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


@pytest.mark.compiled
@pytest.mark.parametrize("name", ["SiLU", "GroupNorm", "RMSNorm", "SDPA", "Dropout", "ConvLocal1d", "LayerNorm"])
def test_compiled_code_differentiates_too(name: str) -> None:
    """``torch.func`` works within ``torch.compile``, as one graph."""
    layer, x, params = CASES[name][:3]
    params, key = layer.init(0) if params is None else params, fn.key(0)

    def total(x: Any) -> Tensor:
        y, cache = layer.apply(params, x, key)
        return sum(leaf.square().sum() for leaf in tree.leaves(layer.vjp(params, cache, y)))

    work = lambda x: tree.leaves(torch.func.grad(total)(x))
    for got, want in zip(torch.compile(work, fullgraph=True, backend="aot_eager")(x), work(x), strict=True):
        torch.testing.assert_close(got, want)


def test_an_error_about_derivatives_is_no_misfit() -> None:
    """Torch's message is unchanged, since params and x do fit each other."""

    @fn.frozen
    class Raw(fn.Layer):
        def apply(self, params: Any, x: Tensor) -> Any:
            return torch.ops.aten._masked_scale.default(x, x > 0, 2.0), x

        def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
            return params, gy

    with pytest.raises(RuntimeError) as caught:
        torch.func.jvp(lambda x: fn.serial(fn.Tanh(), Raw())(({}, {}), x), (ROWS,), (ROWS,))
    assert "must fit each other" not in str(caught.value)
