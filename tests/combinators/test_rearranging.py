"""Channels last: compared with the layer on permuted tensors; copies, properties of the layer, and errors."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from twins import draw

import funcnet as fn
from funcnet import tree

LAYERS = {
    "Conv1d": (fn.Conv1d(3, 4, 2, stride=2), (2, 3, 7)),
    "Conv2d": (fn.Conv2d(3, 4, 3, padding=1), (2, 3, 6, 5)),
    "ConvTranspose3d": (fn.ConvTranspose3d(3, 2, 2), (2, 3, 2, 3, 2)),
    "BatchNorm2d": (fn.BatchNorm2d(3), (2, 3, 4, 5)),
    "GroupNorm": (fn.GroupNorm(1, 3), (2, 3, 4, 5)),
    "MaxPool2d": (fn.MaxPool2d(2), (2, 3, 5, 4)),
    "MaxPool2d, large": (fn.MaxPool2d(2), (4, 64, 16, 16)),
    "AvgPool3d": (fn.AvgPool3d(2), (2, 3, 4, 4, 2)),
    "AdaptiveAvgPool2d": (fn.AdaptiveAvgPool2d((2, 3)), (2, 3, 5, 7)),
    "GlobalMaxPool": (fn.GlobalMaxPool(), (2, 3, 4, 5)),
    "net": (fn.serial(fn.Conv2d(3, 4, 2), fn.residual(fn.serial(fn.ReLU(), fn.BatchNorm2d(4))), fn.MaxPool2d(2)), (2, 3, 5, 6)),
}


def last(x):
    return x.movedim(1, -1).contiguous()


@pytest.mark.parametrize("name", LAYERS)
def test_it_is_the_layer_between_two_permutations(name):
    """y, the gradients, gx and the statistics agree; the params are the layer's own."""
    layer, shape = LAYERS[name]
    turned, x = fn.channels_last(layer), draw(shape)
    params = tree.cast(turned.init(3), torch.float64)
    assert tree.equal(turned.init(3), layer.init(3))
    (want, of), (y, cache) = layer.apply(params, x), turned.apply(params, last(x))
    gy = draw(want.shape, 1)
    gparams, gx = layer.vjp(params, of, gy)
    torch.testing.assert_close(y, last(want))
    torch.testing.assert_close(turned(params, last(x)), last(want))
    torch.testing.assert_close(turned.vjp(params, cache, last(gy)), (gparams, last(gx)))
    torch.testing.assert_close(turned.update_stats(params, cache), layer.update_stats(params, of))


@pytest.mark.parametrize("layer", [fn.Conv2d(3, 4, 3), fn.MaxPool2d(2), fn.AvgPool2d(2), fn.BatchNorm2d(3)], ids=repr)
def test_nothing_is_copied_into_another_order(layer):
    """The layer gets a view of x, and y and gx are contiguous in the order of their axes."""
    seen = []

    class Watched(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            ordered = any(isinstance(one, torch.Tensor) and one.dim() > 1 for one in args)  # running statistics have no order
            seen.extend([func._schema.name] * ordered)
            return func(*args, **(kwargs or {}))

    turned, x = fn.channels_last(layer), draw((2, 6, 6, 3)).float()
    params = turned.init(0)
    with Watched():
        y, cache = turned.apply(params, x)
        gx = turned.input_grad(params, cache, y)
    assert seen
    assert not {"aten::clone", "aten::copy_", "aten::contiguous", "aten::_to_copy"} & set(seen)
    assert y.is_contiguous()
    assert gx.is_contiguous()


def test_without_a_batch_the_channels_go_first():
    """``dim`` says where the layer has them."""
    layer, x = fn.Conv2d(3, 4, 3), draw((5, 6, 3)).float()
    params = layer.init(0)
    y = fn.channels_last(layer, 0)(params, x)
    torch.testing.assert_close(y, layer(params, x.permute(2, 0, 1)).permute(1, 2, 0))
    assert repr(fn.channels_last(layer, 0)) == f"channels_last({layer!r}, 0)"


def test_a_net_is_passed_on_as_it_is():
    """``stochastic``, ``batch_dependent``, sizes, inference and draws are the same as the net's."""
    net = fn.channels_last(fn.serial(fn.Conv2d(None, 2, 1), fn.BatchNorm2d(None), fn.Dropout(0.5)))
    sized = fn.infer_sizes(net, torch.ones(2, 4, 5, 3))
    assert sized == fn.channels_last(fn.serial(fn.Conv2d(3, 2, 1), fn.BatchNorm2d(2), fn.Dropout(0.5)))
    assert net.stochastic
    assert net.batch_dependent
    assert net.has_running_stats
    assert sized.inference() == fn.channels_last(sized.layer.inference())
    params, x = sized.init(0), draw((2, 4, 5, 3)).float()
    torch.testing.assert_close(sized(params, x, 7), last(sized.layer(params, x.movedim(-1, 1), 7)))
    assert not fn.channels_last(fn.Tanh()).stochastic


MESSAGES = {
    "channels_last: dim must be a whole number of at least 0, got -1": lambda: fn.channels_last(fn.Tanh(), -1),
    "channels_last: layer must be a layer (a value with init, apply and vjp)": lambda: fn.channels_last(torch.tanh),
    "channels_last(Tanh()): x must have an axis 1, got a tensor of shape (3,) and dtype": lambda: fn.channels_last(fn.Tanh())({}, torch.ones(3)),
    "channels_last(Tanh()): x must have an axis 1, got 'abc'": lambda: fn.channels_last(fn.Tanh())({}, "abc"),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_wrong_use_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)


def test_an_error_of_the_layer_says_that_x_came_to_it_turned():
    """A note says so, since the shape in the message is not the caller's."""
    layer = fn.channels_last(fn.Conv2d(5, 1, 1))
    with pytest.raises(ValueError, match=r"got x of shape \(2, 4, 3, 3\)") as caught:
        layer(layer.init(0), torch.ones(2, 3, 3, 4))
    assert caught.value.__notes__ == ["  in channels_last, which moves the last axis of x to axis 1"]
