"""Converters of random layers: the distribution of the module, and the module itself in evaluation."""

import pytest
import torch
from torch import Tensor, nn

import funcnet as fn
from funcnet.interop.torch_nn.importing.layers import converter_of
from funcnet.interop.torch_nn.importing.values import UnsupportedError

IMAGES = torch.ones(400, 10, 3, 3)

DRAWN: dict[str, tuple[nn.Module, Tensor]] = {
    "AlphaDropout": (nn.AlphaDropout(0.3), IMAGES),
    "Dropout": (nn.Dropout(0.3), IMAGES),
    "Dropout1d": (nn.Dropout1d(0.3), IMAGES[..., 0]),
    "Dropout2d": (nn.Dropout2d(0.3), IMAGES),
    "Dropout3d": (nn.Dropout3d(0.3), IMAGES[..., None]),
    "FeatureAlphaDropout": (nn.FeatureAlphaDropout(0.3), IMAGES),
    "RReLU": (nn.RReLU(0.1, 0.5), -IMAGES),
}


def _converted(module: nn.Module) -> fn.Layer:
    convert = converter_of(module)
    assert convert is not None
    return convert(module, None)[0]


def _moments(y: Tensor) -> Tensor:
    """Return mean and spread of all elements, and the mean spread within channels, which is 0 if whole channels are dropped."""
    channels = y.reshape(4000, -1)
    return torch.stack((y.mean(), y.std(), channels.std(1).mean()))


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn_has_the_modules_distribution(name: str) -> None:
    """Mean, spread and channel-wise draws agree within three standard errors of 4000 draws; y is equal in evaluation."""
    module, x = DRAWN[name]
    layer = _converted(module)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        want = _moments(module.train()(x))
    torch.testing.assert_close(_moments(layer({}, x, 0)), want, atol=0.05, rtol=0.05)
    assert torch.equal(layer.inference()({}, x), module.eval()(x))


def test_a_fractional_pooling_draws_its_windows() -> None:
    """They have torch.nn's distribution; in ``inference()`` they are fixed."""
    module = nn.FractionalMaxPool2d(2, output_size=3)
    layer = _converted(module)
    x = torch.arange(56.0).reshape(1, 1, 7, 8)
    ours = {tuple(layer({}, x, i).flatten().tolist()) for i in range(60)}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = {tuple(module(x).flatten().tolist()) for _ in range(60)}
    assert ours == theirs
    assert len(ours) > 1
    assert not layer.inference().stochastic


class StochasticDepth(nn.Module):
    """A class that is identified only by its name, with the attributes of torchvision's class."""

    def __init__(self, p: float, mode: str) -> None:
        super().__init__()
        self.p, self.mode = p, mode


StochasticDepth.__module__ = "torchvision.ops.stochastic_depth"


def test_a_class_of_a_package_that_need_not_be_installed_is_known_by_its_name() -> None:
    """The example is torchvision's dropout of whole rows; dropping the whole batch has no counterpart."""
    assert _converted(StochasticDepth(0.2, "row")) == fn.DropPath(0.2)
    with pytest.raises(UnsupportedError, match="mode='batch' has no counterpart: rows are dropped one by one"):
        _converted(StochasticDepth(0.2, "batch"))
