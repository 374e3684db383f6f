"""Every converted layer with ``from_torch``: by itself, and called by a traced module."""

from typing import Any

import pytest
import torch
from layer_modules import SAMPLES, Sample
from torch import Tensor, nn

import funcnet as fn
from funcnet import tree
from funcnet.interop.torch_nn import from_torch


class Calling(nn.Module):
    """A module that calls another one with one input."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, a: Tensor) -> Any:
        return self.inner(a)


class CallingWithTwo(Calling):
    """A module that calls another one with two inputs."""

    def forward(self, a: Tensor, b: Tensor) -> Any:
        return self.inner(a, b)


class CallingWithWeights(Calling):
    """A module that calls another one with integers and weights, like an embedding bag."""

    def forward(self, a: Tensor, b: Tensor) -> Any:
        return self.inner(a, per_sample_weights=b)


class CallingWithThree(Calling):
    """A module that calls another one with three inputs."""

    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Any:
        return self.inner(a, b, c)


def _calling(name: str, sample: Sample, module: nn.Module) -> nn.Module:
    if name == "EmbeddingBag, weights":
        return CallingWithWeights(module)
    count = len(sample.x) if isinstance(sample.x, tuple) else 1
    return {1: Calling, 2: CallingWithTwo, 3: CallingWithThree}[count](module)


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.filterwarnings("ignore:Implicit dimension choice", "ignore:Using padding='same' with even kernel lengths")
def test_a_layer_is_its_module_in_a_net_too(name: str) -> None:
    """Outputs and keys of the state dict agree, by itself and in a traced module."""
    sample = SAMPLES[name]
    module = sample.make().double()
    if getattr(module, "padding_idx", None) is not None:
        with torch.no_grad():
            module.weight[module.padding_idx] = 0
    calling = _calling(name, sample, module)
    nets = [from_torch(one) for one in (module, calling)]
    want = sample.call(module, tree.map(torch.clone, sample.x))
    want = tuple(want) if isinstance(want, tuple) else want
    for (net, params), one in zip(nets, (module, calling), strict=True):
        torch.testing.assert_close(net(params, sample.x, fn.key(0)), want)
        assert [*tree.names(params)] == [*one.state_dict()]


def _derived(kind: type[nn.Module]) -> type[nn.Module]:
    """Derive a class that only adds a name."""
    return type(f"Custom{kind.__name__}", (kind,), {})


def test_a_class_that_keeps_the_forward_is_converted_like_its_base() -> None:
    """Every layer is converted in the same way from a class that only adds a name."""
    for name, sample in SAMPLES.items():
        module = sample.make()
        if getattr(module, "padding_idx", None) is not None:
            with torch.no_grad():
                module.weight[module.padding_idx] = 0
        net = from_torch(module)[0]
        module.__class__ = _derived(type(module))
        assert from_torch(module)[0] == net, name


def test_a_class_that_keeps_the_forward_may_be_parametrized() -> None:
    """Its params have the paths of the parametrization."""
    module = nn.utils.parametrizations.weight_norm(_derived(nn.Conv1d)(2, 3, 2))
    net, params = from_torch(module)
    assert net == fn.weight_norm(fn.Conv1d(2, 3, 2))
    assert [*tree.names(params)] == [*module.state_dict()]


class Decoder(nn.Module):
    """A convolution and a pooling, inverted to the sizes before them."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(2, 3, 3, 2), nn.ConvTranspose2d(3, 2, 3, 2)
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.down(x)
        y, indices = self.pool(h)
        y = self.unpool(y, indices, output_size=h.size())
        return self.up(y, output_size=x.shape[-2:])


def test_a_decoder_restores_sizes_that_are_known_when_it_is_called() -> None:
    """One net handles images of several sizes: outputs and gradients equal the module's."""
    module = Decoder().double()
    net, params = from_torch(module)
    for size in ((10, 13), (9, 12)):
        x = fn.random.normal(0, (2, 2, *size), dtype=torch.float64)
        given = x.clone().requires_grad_()
        want = module(given)
        y, cache = net.apply(params, x)
        gy = fn.random.normal(1, tuple(y.shape), dtype=torch.float64)
        torch.testing.assert_close(y, want.detach())
        wanted = torch.autograd.grad(want, [given, *module.parameters()], gy)
        gparams, gx = net.vjp(params, cache, gy)
        torch.testing.assert_close(gx, wanted[0])
        torch.testing.assert_close(list(tree.names(gparams).values()), list(wanted[1:]))


def test_a_refusal_names_the_class_and_the_path() -> None:
    """They precede the reason."""
    with pytest.raises(
        ValueError, match=r"from_torch: CrossMapLRN2d at .1\.0. cannot be converted: torch\.nn\.CrossMapLRN2d deviates"
    ):
        from_torch(nn.Sequential(nn.ReLU(), nn.Sequential(nn.CrossMapLRN2d(3))))
