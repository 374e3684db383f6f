"""Convolutions compared with torch.nn's, features that torch.nn lacks, and the errors they raise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twins import assert_twins, draw, twin_of

import funcnet as fn
from funcnet.kernels import conv as kernels

CONVOLUTIONS = {1: (fn.Conv1d, nn.Conv1d), 2: (fn.Conv2d, nn.Conv2d), 3: (fn.Conv3d, nn.Conv3d)}
quiet = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")


def per_axis(pick, axes, numbers):
    """Draw one number for all axes, or one for each."""
    return pick(st.one_of(numbers, st.tuples(*[numbers] * axes)))


def each(value, axes):
    return value if isinstance(value, tuple) else (value,) * axes


@st.composite
def convolutions(pick, axes):
    """Draw all arguments of a convolution, and the shape of an input that fits."""
    mode = pick(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    kernel, dilation = per_axis(pick, axes, st.integers(1, 3)), per_axis(pick, axes, st.integers(1, 2))
    padding = pick(st.sampled_from(["same", "valid"])) if pick(st.booleans()) else per_axis(pick, axes, st.integers(0, 2))
    stride = 1 if padding == "same" else per_axis(pick, axes, st.integers(1, 3))
    groups = pick(st.integers(1, 2))
    channels = groups * pick(st.integers(1, 2)), groups * pick(st.integers(1, 2))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "padding_mode": mode}
    reaches = [d * (k - 1) + 1 for k, d in zip(each(kernel, axes), each(dilation, axes), strict=True)]
    lengths = [pick(st.integers(max(reach, 3), reach + 3)) for reach in reaches]
    batch = pick(st.sampled_from([(), (1,), (2,)]))
    return (*channels, kernel), {**options, "bias": pick(st.booleans())}, (*batch, channels[0], *lengths)


@twin_of("Conv{axes}d")
@quiet
@pytest.mark.parametrize("axes", CONVOLUTIONS)
@given(st.data())
@settings(max_examples=30, deadline=None)
def test_a_convolution_is_torch_s(axes, data):
    """Values and gradients agree for all arguments, one for all axes or one for each, with and without a batch."""
    sizes, options, shape = data.draw(convolutions(axes))
    kind, twin = CONVOLUTIONS[axes]
    assert_twins(kind(*sizes, **options), twin(*sizes, **options), draw(shape))


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("shape", [(3, 2, 5, 6), (1, 2, 5, 6), (3, 1, 5, 6)], ids=str)
def test_channels_last_gives_the_same_numbers(shape, mode):
    """y keeps the memory format."""
    layer = fn.Conv2d(shape[1], 4, 3, padding=2, padding_mode=mode)
    params, x = fn.tree.cast(layer.init(0), torch.float64), draw(shape)
    last = x.to(memory_format=torch.channels_last)
    (y, cache), (y_last, cache_last) = layer.apply(params, x), layer.apply(params, last)
    gy = draw(y.shape, 1)
    got = layer.vjp(params, cache_last, gy.to(memory_format=torch.channels_last))
    torch.testing.assert_close((y_last, got), (y, layer.vjp(params, cache, gy)))
    assert shape[1] == 1 or y_last.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("mode", ["zeros", "replicate"])
def test_a_causal_convolution_does_not_look_ahead(mode, stride):
    """The gradient of y[t] is 0 after position stride · t of x, but not at it; L elements give ⌈L / stride⌉ outputs."""
    layer = fn.Conv1d(1, 1, 3, stride=stride, padding="causal", dilation=2, padding_mode=mode)
    params, x = {"weight": torch.ones(1, 1, 3), "bias": torch.zeros(1)}, torch.ones(1, 1, 8)
    y, cache = layer.apply(params, x)
    assert y.shape == (1, 1, -(-8 // stride))
    for t in range(y.shape[2]):
        gx = layer.input_grad(params, cache, torch.eye(y.shape[2])[t].reshape(y.shape))[0, 0]
        assert gx[stride * t] > 0
        assert not gx[stride * t + 1 :].any()


def test_each_axis_may_have_another_padding():
    """A tuple of numbers, pairs and words gives the results of zeros padded by hand."""
    layer = fn.Conv3d(1, 2, 3, padding=("causal", "same", (0, 3)))
    plain = layer.replace(padding=0)
    params, x = layer.init(0), draw((2, 1, 3, 4, 5)).float()
    torch.testing.assert_close(layer(params, x), plain(params, nn.functional.pad(x, (0, 3, 1, 1, 2, 0))))
    assert layer({**params}, x).shape == (2, 2, 3, 4, 6)


def test_lists_become_tuples():
    """The layer therefore has a hash, and lists and tuples make equal layers."""
    assert fn.Conv2d(1, 1, [2, 3], padding=[[0, 1], 1]) == fn.Conv2d(1, 1, (2, 3), padding=((0, 1), 1))
    assert hash(fn.Conv2d(1, 1, [2, 3])) == hash(fn.Conv2d(1, 1, (2, 3)))


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("axes", CONVOLUTIONS)
def test_an_empty_batch_has_empty_results(axes, mode):
    """The gradients of params are zeros, in every mode."""
    layer = CONVOLUTIONS[axes][0](2, 3, 2, padding=1, padding_mode=mode)
    params, x = layer.init(0), torch.zeros(0, 2, *(4,) * axes)
    y, cache = layer.apply(params, x)
    gparams, gx = layer.vjp(params, cache, y)
    assert y.shape == (0, 3, *(5,) * axes)
    assert gx.shape == x.shape
    assert not any(leaf.any() for leaf in gparams.values())


@pytest.mark.parametrize("axes", CONVOLUTIONS)
def test_first_weights_are_drawn_within_torch_s_bounds(axes):
    """With initializer="torch" they are within ±1 / √fan_in, including the bias, and fill most of that range."""
    layer = CONVOLUTIONS[axes][0](4, 32, 3, initializer="torch", groups=2)
    bound = (2 * 3**axes) ** -0.5
    for leaf in layer.init(0).values():
        assert 0.8 * bound < float(leaf.abs().max()) <= bound


@pytest.mark.parametrize(("half", "mask"), [("grads", [False, True, True]), ("input_grad", [True, False, False])])
def test_each_half_asks_the_kernel_for_no_more(monkeypatch, half, mask):
    """A first layer needs only grads, and skips the gradient of x, which is more than half of the work."""
    asked, kernel = [], kernels.convolution_backward
    monkeypatch.setattr(kernels, "convolution_backward", lambda *inputs: asked.append(inputs[-1]) or kernel(*inputs))
    layer, x = fn.Conv2d(1, 2, 3), torch.ones(1, 1, 4, 4)
    params = layer.init(0)
    y, cache = layer.apply(params, x)
    getattr(layer, half)(params, cache, y)
    assert asked == [mask]


def called(layer, *shape, gy=None):
    """Call a layer on zeros, and its vjp on a gy of another shape."""
    params = layer.init(0)
    cache = layer.apply(params, torch.zeros(shape))[1]
    layer.vjp(params, cache, torch.zeros(gy))


MESSAGES = {
    "Conv2d: kernel_size must be a whole number of at least 1, or a tuple of 2 of them, one for each axis, got (1, 2, 3)": lambda: fn.Conv2d(1, 1, (1, 2, 3)),
    "Conv3d: stride must be a whole number of at least 1, or a tuple of 3 of them, one for each axis, got (1, 0, 1)": lambda: fn.Conv3d(1, 1, 1, (1, 0, 1)),
    "Conv2d: dilation must be a whole number of at least 1, got True": lambda: fn.Conv2d(1, 1, 1, dilation=True),
    'Conv2d: padding must be a whole number of at least 0, "same", "valid" or "causal" (in a tuple also a pair (before, after)), or a tuple of 2 of them, one for each axis, got (1, -1)': lambda: fn.Conv2d(1, 1, 1, padding=(1, -1)),
    "Conv1d: padding_mode must be one of 'zeros', 'reflect', 'replicate', 'circular', got 'mirror'": lambda: fn.Conv1d(1, 1, 1, padding_mode="mirror"),
    'Conv2d: padding="same" must have stride 1, got stride=(1, 2)': lambda: fn.Conv2d(1, 1, 1, (1, 2), "same"),
    "which do not look ahead, got padding_mode='reflect'": lambda: fn.Conv1d(1, 1, 2, padding="causal", padding_mode="reflect"),
    "Conv3d: groups must divide in_channels and out_channels, got groups=2, in_channels=3, out_channels=4": lambda: fn.Conv3d(3, 4, 1, groups=2),
    "x must have the axes (N, channels, height, width) or (channels, height, width), got x of shape (2, 3)": lambda: called(fn.Conv2d(2, 1, 1), 2, 3),
    "the last axis but two of x must be in_channels=2, got x of shape (2, 3, 4, 4)": lambda: called(fn.Conv2d(2, 1, 1), 2, 3, 4, 4),
    "the last axis but three of x must be in_channels=2, got x of shape (3, 4, 4, 4)": lambda: called(fn.Conv3d(2, 1, 1), 3, 4, 4, 4),
    "x must be at least (3, 3) long for these windows and padding, got x of shape (1, 2, 9, 2)": lambda: called(fn.Conv2d(2, 1, (2, 3), padding=(0, 1), dilation=2), 1, 2, 9, 2),
    "padding_mode='reflect'): x must be at least (4,) long for these windows and padding, got x of shape (1, 2, 3)": lambda: called(fn.Conv1d(2, 1, 1, padding=3, padding_mode="reflect"), 1, 2, 3),
    "padding_mode='circular'): x must be at least (4,) long for these windows and padding, got x of shape (1, 2, 3)": lambda: called(fn.Conv1d(2, 1, 1, padding=4, padding_mode="circular"), 1, 2, 3),
    "gy must have the shape of y, (2, 1, 3), got gy of shape (1, 1, 3)": lambda: called(fn.Conv1d(2, 1, 2), 2, 2, 4, gy=(1, 1, 3)),
    "gy must have the shape of y, (1, 2, 2), got gy of shape (1, 2, 3)": lambda: called(fn.Conv2d(2, 1, 2), 2, 3, 3, gy=(1, 2, 3)),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_what_does_not_fit_is_refused_with_its_message(message):
    """Options, x and gy are tried; the message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)


@pytest.mark.parametrize("half", ["vjp", "grads", "input_grad"])
@pytest.mark.parametrize(
    "change", [lambda w: w.to("meta"), lambda w: w[..., :2], lambda w: w.double(), lambda w: w[None], lambda w: None]
)
@pytest.mark.parametrize(
    "layer", [fn.Conv1d(2, 3, 3), fn.MaskedConv(fn.Conv1d(2, 3, 3), "A"), fn.ConvTranspose1d(2, 3, 3)], ids=str
)
def test_every_method_backward_refuses_another_weight(layer, change, half):
    """The kernel would read out of bounds, or return a gradient of another shape."""
    params = layer.init(0)
    y, cache = layer.apply(params, torch.zeros(2, 2, 8))
    with pytest.raises(ValueError, match=r"(params|weight) .*must be .*, got "):
        getattr(layer, half)({**params, "weight": change(params["weight"])}, cache, y)


def test_a_large_image_of_few_channels_goes_in_the_order_channels_last():
    """Its results are in channels last too; values and gradients match torch.nn's, and match those of a few images at a time."""
    layer, twin, x = (
        fn.Conv2d(3, 32, 3, stride=2, padding=1),
        nn.Conv2d(3, 32, 3, stride=2, padding=1),
        draw((9, 3, 64, 64)).float(),
    )
    params = fn.tree.from_names(dict(twin.state_dict()), like=layer.init(0))
    y, cache = layer.apply(params, x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    gy = draw(tuple(y.shape)).float()
    x.requires_grad_()
    want = torch.autograd.grad(twin(x), [x, *twin.parameters()], gy)
    gparams, gx = layer.vjp(params, cache, gy)
    torch.testing.assert_close((gx, gparams["weight"], gparams["bias"]), want, rtol=1e-4, atol=1e-4)
    few = layer(params, x[:1].detach())
    assert few.is_contiguous()
    torch.testing.assert_close(y[:1], few, rtol=1e-5, atol=1e-5)


def test_a_small_image_beside_a_large_weight_is_copied_instead_of_the_weight():
    """y and both gradients have the memory order of the weight; values and gradients are torch.nn's."""
    layer, twin = fn.Conv2d(384, 384, 3, padding=1), nn.Conv2d(384, 384, 3, padding=1)
    x = draw((2, 384, 4, 4)).float().contiguous(memory_format=torch.channels_last)
    params = fn.tree.from_names(dict(twin.state_dict()), like=layer.init(0))
    y, cache = layer.apply(params, x)
    gy = draw(tuple(y.shape)).float().contiguous(memory_format=torch.channels_last)
    gparams, gx = layer.vjp(params, cache, gy)
    assert all(found.is_contiguous() for found in (y, cache, gx, gparams["weight"]))
    want = torch.autograd.grad(twin(x.requires_grad_()), [x, *twin.parameters()], gy)
    torch.testing.assert_close((gx, gparams["weight"], gparams["bias"]), want, rtol=1e-4, atol=1e-3)


def test_an_image_that_is_large_beside_its_weight_keeps_its_order():
    """Copying x would cost more than copying the weight."""
    layer = fn.Conv2d(384, 384, 3, padding=1)
    x = torch.zeros(1, 384, 32, 32).contiguous(memory_format=torch.channels_last)
    assert layer(layer.init(0), x).is_contiguous(memory_format=torch.channels_last)
