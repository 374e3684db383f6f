"""Converters of modules with weight norm, spectral norm and orthogonal weights: paths, outputs and gradients agree."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from twins import draw

from funcnet import tree
from funcnet.interop.torch_nn.importing.layers import call_of, converter_of
from funcnet.interop.torch_nn.importing.values import UnsupportedError

ROWS, IMAGES = draw((5, 4)), draw((2, 4, 5, 5))


def _linear() -> nn.Module:
    return nn.Linear(4, 3)


PARAMETRIZED: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "weight_norm": (lambda: parametrizations.weight_norm(_linear()), ROWS),
    "weight_norm of all": (lambda: parametrizations.weight_norm(_linear(), dim=None), ROWS),
    "weight_norm, another axis": (lambda: parametrizations.weight_norm(nn.Conv2d(4, 3, 2), dim=1), IMAGES),
    "weight_norm of the bias too": (
        lambda: parametrizations.weight_norm(parametrizations.weight_norm(_linear()), "bias"),
        ROWS,
    ),
    "spectral_norm": (lambda: parametrizations.spectral_norm(_linear(), n_power_iterations=3), ROWS),
    "spectral_norm, transposed": (lambda: parametrizations.spectral_norm(nn.ConvTranspose2d(4, 3, 2)), IMAGES),
    "orthogonal": (lambda: parametrizations.orthogonal(_linear()), ROWS),
    "orthogonal, cayley": (lambda: parametrizations.orthogonal(nn.Linear(4, 4), orthogonal_map="cayley"), ROWS),
    "orthogonal, matrix_exp": (
        lambda: parametrizations.orthogonal(nn.Linear(4, 6), orthogonal_map="matrix_exp", use_trivialization=False),
        ROWS,
    ),
}


def _made(name: str) -> tuple[nn.Module, Tensor]:
    make, x = PARAMETRIZED[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().double().eval(), x


@pytest.mark.parametrize("name", PARAMETRIZED)
def test_a_parametrized_layer_is_its_module(name: str) -> None:
    """Paths, y and all gradients agree in evaluation, which does not change spectral norm's vectors."""
    module, x = _made(name)
    before = {key: leaf.clone() for key, leaf in module.state_dict().items()}
    convert = converter_of(module)
    assert convert is not None
    layer, params = convert(module, None)
    assert [*tree.names(params)] == [*before]
    params = tree.map(torch.clone, params)
    x = x.clone().requires_grad_()
    y = module(x)
    gy = draw(y.shape, 3)
    want = torch.autograd.grad(y, [x, *module.parameters()], gy)
    got, cache = layer.inference().apply(params, x.detach())
    gparams, gx = layer.inference().vjp(params, cache, gy)
    torch.testing.assert_close(got, y.detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gx, want[0], rtol=1e-10, atol=1e-10)
    for (key, _), leaf in zip(module.named_parameters(), want[1:], strict=True):
        torch.testing.assert_close(tree.names(gparams)[key], leaf, rtol=1e-10, atol=1e-10)
    assert tree.equal(before, dict(module.state_dict()))


def test_a_parametrized_module_in_training_is_left_as_it_was() -> None:
    """Reading its weight would change the vectors of spectral norm."""
    module = parametrizations.spectral_norm(_linear()).train()
    before = {key: leaf.clone() for key, leaf in module.state_dict().items()}
    convert = converter_of(module)
    assert convert is not None
    convert(module, None)
    assert tree.equal(before, dict(module.state_dict()))


def test_a_step_in_training_moves_the_vectors_to_those_of_the_module() -> None:
    """The module updates them before computing y, the layer afterwards, from the same weight."""
    module, x = _made("spectral_norm")
    convert = converter_of(module)
    assert convert is not None
    layer, params = convert(module, None)
    params = tree.map(torch.clone, params)
    module.train()(x)
    moved = layer.update_stats(params, layer.apply(params, x)[1])
    for name, leaf in module.state_dict().items():
        torch.testing.assert_close(tree.names(moved)[name], leaf, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(layer(moved, x), module.eval()(x), rtol=1e-10, atol=1e-10)


class _Twice(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return 2 * w


def _custom() -> nn.Module:
    module = _linear()
    parametrize.register_parametrization(module, "weight", _Twice())
    return module


REFUSED = {
    "weight must be parametrized with weight_norm, spectral_norm or orthogonal, got _Twice": _custom,
    "weight must be parametrized with weight_norm, spectral_norm or orthogonal, got _WeightNorm, _SpectralNorm": (
        lambda: parametrizations.spectral_norm(parametrizations.weight_norm(_linear()))
    ),
    "bias must have two axes at least for spectral_norm": lambda: parametrizations.spectral_norm(_linear(), "bias"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_other_parametrizations_are_refused(reason: str) -> None:
    """The error has the names of the classes."""
    module = REFUSED[reason]()
    convert = converter_of(module)
    assert convert is not None
    with pytest.raises(UnsupportedError, match=reason):
        convert(module, None)


def test_what_has_no_converter_has_none_when_it_is_parametrized() -> None:
    """A parametrized module is known by its original class."""

    class Custom(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 3))

    assert converter_of(Custom()) is None
    assert converter_of(parametrizations.weight_norm(Custom())) is None
    assert call_of(parametrizations.weight_norm(nn.Bilinear(2, 3, 4))) is call_of(nn.Bilinear(2, 3, 4))
