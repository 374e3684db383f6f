"""Pooling compared with torch.nn's, ties and layouts, and the errors it raises."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twins import assert_twins, draw, twin_of

import funcnet as fn
from funcnet.kernels import pooling as kernels
from funcnet.kernels.choices import forced


def twins_of(name):
    """Return our layers and torch's by name and number of axes."""
    return {n: (getattr(fn, f"{name}{n}d"), getattr(nn, f"{name}{n}d")) for n in (1, 2, 3)}


MAX, AVG, LP = twins_of("MaxPool"), twins_of("AvgPool"), twins_of("LPPool")


def each(value, axes):
    return value if isinstance(value, tuple) else (value,) * axes


@st.composite
def windows(pick, axes, *, dilated):
    """Draw a kernel, stride, padding and dilation, each one number or one for each axis, and a shape that fits."""
    one_or_each = lambda low, high: pick(st.one_of(st.integers(low, high), st.tuples(*[st.integers(low, high)] * axes)))
    kernel, stride = one_or_each(1, 3), (pick(st.booleans()) and one_or_each(1, 3)) or None
    most = min(each(kernel, axes)) // 2
    options = {"stride": stride, "padding": one_or_each(0, most), "ceil_mode": pick(st.booleans())}
    options |= {"dilation": one_or_each(1, 2)} if dilated else {}
    reaches = [d * (k - 1) + 1 for k, d in zip(each(kernel, axes), each(options.get("dilation", 1), axes), strict=True)]
    batch = pick(st.sampled_from([(), (1,), (2,)]))
    return kernel, options, (*batch, pick(st.integers(1, 3)), *[pick(st.integers(reach, reach + 3)) for reach in reaches])


@twin_of("MaxPool{axes}d")
@pytest.mark.parametrize("axes", MAX)
@given(st.data(), st.booleans(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_max_pooling_is_torch_s(axes, data, indices, ties):
    """Values, indices and gradients agree for all arguments; of equal elements the first counts."""
    kernel, options, shape = data.draw(windows(axes, dilated=True))
    kind, twin = MAX[axes]
    x = draw(shape).round() if ties else draw(shape)
    assert_twins(kind(kernel, return_indices=indices, **options), twin(kernel, return_indices=indices, **options), x)


@twin_of("AvgPool{axes}d")
@pytest.mark.parametrize("axes", AVG)
@given(st.data(), st.booleans(), st.sampled_from([None, None, 1, 5]))
@settings(max_examples=40, deadline=None)
def test_mean_pooling_is_torch_s(axes, data, count, divisor):
    """Values and gradients agree for all arguments."""
    kernel, options, shape = data.draw(windows(axes, dilated=False))
    options |= {"count_include_pad": count} | ({"divisor_override": divisor} if axes > 1 else {})
    kind, twin = AVG[axes]
    assert_twins(kind(kernel, **options), twin(kernel, **options), draw(shape))


@twin_of("LPPool{axes}d")
@pytest.mark.parametrize("axes", LP)
@given(st.data(), st.sampled_from([1, 2, 2.0, 3, 2.5, 0.5]))
@settings(max_examples=30, deadline=None)
def test_norm_pooling_is_torch_s(axes, data, p):
    """Values and gradients agree, with windows of zeros in x, and negative elements if p is even."""
    kernel, options, shape = data.draw(windows(axes, dilated=False))
    del options["padding"]
    options["stride"] = each(options["stride"], axes) if axes > 1 and options["stride"] else options["stride"]
    x = draw(shape) if p == 2 else draw(shape).abs() + 0.1
    x = x * (draw(shape[-1:], 5) > 0) if p > 1 and p != 2.5 else x
    kind, twin = LP[axes]
    kernel = kernel[0] if axes == 1 and isinstance(kernel, tuple) else kernel
    assert_twins(kind(p, kernel, **options), twin(p, kernel, **options), x)


@pytest.mark.parametrize("axes", MAX)
def test_sum_pooling_is_the_mean_times_the_size_of_the_window(axes):
    """The padding counts as zeros, so torch's mean times the kernel size is the sum."""
    pool, mean = getattr(fn, f"SumPool{axes}d")(3, 2, 1), AVG[axes][0](3, 2, 1)
    x = draw((2, 2, *(6,) * axes))
    (y, cache), (want, of_mean) = pool.apply({}, x), mean.apply({}, x)
    torch.testing.assert_close(y, want * 3**axes)
    torch.testing.assert_close(pool.vjp({}, cache, y)[1], mean.vjp({}, of_mean, y)[1] * 3**axes)


TILES = [((2, 2), (16, 16, 8, 10)), ((2, 2), (16, 16, 9, 11)), ((1, 3), (40, 8, 7, 9)), ((3, 1), (300, 10, 7)), ((2,), (30, 60, 11)), ((2, 1, 2), (8, 16, 5, 6, 7))]  # fmt: skip


@pytest.fixture
def by_slices():
    """Use slices for adjacent windows, however small x is."""
    with forced("max pooling", "slices"), forced("mean pooling", "slices"):
        yield


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("kernel", "shape"), [*TILES, ((3, 2), (3, 9, 8)), ((2, 2, 2), (2, 4, 6, 5))], ids=str)
@pytest.mark.parametrize("kind", ["distinct", "tied", "signed zeros", "unbounded", "strided", "transposed"])
def test_windows_side_by_side_give_what_torch_gives(kernel, shape, kind, dtype, by_slices, monkeypatch):
    """Slices give the same first of equal elements, even with infinities, and the same gradients."""
    axes, x = len(kernel), draw(shape).to(dtype)
    x = {"distinct": x, "tied": x.round(), "signed zeros": x.round() * 0.0, "unbounded": x.where(x < 1, -torch.inf)}.get(kind, x)
    if kind == "strided":
        x = torch.stack((x, x), -1).flatten(-2)[..., 1:].unfold(-1, 1, 2)[..., 0]
    x = x.mT.contiguous().mT if kind == "transposed" else x
    layer = MAX[axes][0](kernel)
    assert kernels.tiles_pay(x, kernel, kernels.MAXIMA.value)
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "_max_pool", {})  # torch's kernel is not called
        y, cache = layer.apply({}, x)
        assert torch.equal(layer({}, x), y)
    leaf = x.clone().requires_grad_()
    gy = draw(y.shape, 1).to(dtype) / (draw(y.shape, 2) > 0)
    want, indices = getattr(nn.functional, f"max_pool{axes}d")(leaf, kernel, return_indices=True)
    assert torch.equal(y, want)
    assert torch.equal(cache[0], indices)
    assert torch.equal(layer.vjp({}, cache, gy)[1], torch.autograd.grad(want, leaf, gy)[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_windows_side_by_side_in_half_precision(dtype, by_slices):
    """The results agree bit for bit with torch, forward and backward."""
    x = draw((8, 16, 12, 12)).to(dtype).requires_grad_()
    want = nn.functional.max_pool2d(x, 2)
    y, cache = fn.MaxPool2d(2).apply({}, x.detach())
    gy = draw(y.shape, 1).to(dtype)
    assert torch.equal(y, want)
    assert torch.equal(fn.MaxPool2d(2).vjp({}, cache, gy)[1], torch.autograd.grad(want, x, gy)[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("share", [0.0001, 0.3, 1.0])
def test_windows_side_by_side_propagate_nan(share, dtype, by_slices):
    """A window with a NaN gives NaN, and its last NaN gets the gradient, as in torch; infinities of both signs are no problem."""
    x = torch.where(fn.random.uniform(1, (2, 64, 17, 16)) < share, torch.nan, draw((2, 64, 17, 16)).round()).to(dtype)
    layer, x = fn.MaxPool2d(2), torch.where(x.abs() > 1, x / 0.0, x).requires_grad_()
    y, cache = layer.apply({}, x.detach())
    want = nn.functional.max_pool2d(x, 2)
    gy = draw(y.shape, 1).to(dtype)
    assert y.isnan().any()
    torch.testing.assert_close(y, want, equal_nan=True, rtol=0, atol=0)
    assert torch.equal(layer.vjp({}, cache, gy)[1], torch.autograd.grad(want, x, gy)[0])


def test_windows_side_by_side_on_a_large_input_refuse_another_gy(by_slices):
    """A gy of another dtype or device is refused, as for a small input."""
    layer, x = fn.MaxPool2d(2), draw((16, 16, 8, 10)).float()
    y, cache = layer.apply({}, x)
    assert kernels.tiles_pay(x, (2, 2), kernels.MAXIMA.value)
    for gy in (y.double(), y.long(), y.to("meta")):
        with pytest.raises(
            ValueError, match=r"gy must be a dense tensor with the dtype and device of y, torch.float32 on cpu, got"
        ):
            layer.vjp({}, cache, gy)


def test_caches_of_eager_code_work_within_vmap_and_the_reverse(by_slices):
    """The cache of a large input has its backward pass within vmap, with one x for several gy."""
    layer, x = fn.MaxPool2d(2), draw((8, 16, 12, 12)).round()
    y, cache = layer.apply({}, x)
    gys = draw((3, *y.shape), 1)
    got = torch.func.vmap(lambda gy: layer.vjp({}, cache, gy)[1])(gys)
    for gy, gx in zip(gys, got, strict=True):
        assert torch.equal(gx, layer.vjp({}, cache, gy)[1])


@pytest.mark.parametrize(("kernel", "shape"), [*TILES, ((3, 3), (16, 16, 10, 9))], ids=str)
@pytest.mark.parametrize("divisor", [None, 5])
def test_means_of_windows_side_by_side_on_a_large_input_are_torch_s(kernel, shape, divisor, by_slices):
    """Other kernels compute them than for a small one; inputs without a batch work too."""
    layer, module = AVG[len(kernel)]
    more = {"divisor_override": divisor} if len(kernel) > 1 else {}
    assert kernels.tiles_pay(draw(shape), kernel, kernels.MEANS.value)
    assert_twins(layer(kernel, **more), module(kernel, **more), draw(shape))
    assert_twins(layer(kernel, **more), module(kernel, **more), draw((4096, *shape[-len(kernel) :])))


LAYERS = [fn.MaxPool2d(2), fn.MaxPool2d(3, 2, 1), fn.AvgPool2d(2), fn.AvgPool2d(3, 1, 1), fn.SumPool2d(2), fn.LPPool2d(2, 2)]


@pytest.mark.parametrize("shape", [(2, 3, 6, 4), (8, 16, 12, 14)], ids=str)
@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_channels_last_gives_the_same_numbers_and_stays(layer, shape):
    """y and gx have the memory format of x, and the numbers of a contiguous one."""
    x = draw(shape)
    last = x.to(memory_format=torch.channels_last)
    (y, cache), (y_last, cache_last) = layer.apply({}, x), layer.apply({}, last)
    gy = draw(y.shape, 1)
    gx = layer.vjp({}, cache_last, gy.to(memory_format=torch.channels_last))[1]
    torch.testing.assert_close((y_last, gx), (y, layer.vjp({}, cache, gy)[1]))
    assert y_last.is_contiguous(memory_format=torch.channels_last)
    assert gx.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", [fn.MaxPool2d, fn.MinPool2d, fn.AvgPool2d])
def test_one_row_of_windows_with_an_odd_stride(kind, by_slices):
    """After a transpose an axis of one row may have an odd stride, so pairs of elements cannot be viewed as one number."""
    x, layer = draw((2, 6, 4)).float().mT, kind((3, 2))
    torch.testing.assert_close(layer({}, x), layer({}, x.contiguous()))
    (y, cache), (same, other) = layer.apply({}, x), layer.apply({}, x.contiguous())
    torch.testing.assert_close((y, layer.vjp({}, cache, y)), (same, layer.vjp({}, other, y)))


@pytest.mark.parametrize("kernel", ["torch", "slices"])
def test_windows_of_minus_infinity_in_channels_last_3d(kernel):
    """The index is in its window; torch's kernel for this memory order gives the first of x."""
    x, layer = torch.full((1, 2, 4, 4, 4), -torch.inf), fn.MaxPool3d(2, return_indices=True)
    with forced("max pooling", kernel):
        indices = layer({}, x.contiguous(memory_format=torch.channels_last_3d))[1]
    assert indices[0, 1].flatten().tolist() == [0, 2, 8, 10, 32, 34, 40, 42]


def test_pooling_in_an_ensemble():
    """Members share the shapes in the cache."""
    net = fn.serial(fn.ensemble(fn.serial(fn.Conv2d(1, 2, 3), fn.MaxPool2d(2), fn.AvgPool2d(2)), 2), fn.Mean(0))
    fn.testing.check_vjp(net, draw((2, 1, 10, 10)))


def called(layer, *shape, gy=None, dtype=torch.float32):
    """Call a layer on zeros, and its vjp on a gy of another shape."""
    cache = layer.apply({}, torch.zeros(shape, dtype=dtype))[1]
    layer.vjp({}, cache, torch.zeros(gy))


MESSAGES = {
    "MaxPool2d: kernel_size must be a whole number of at least 1, or a tuple of 2 of them, one for each axis, got (2,)": lambda: fn.MaxPool2d((2,)),
    "AvgPool1d: stride must be a whole number of at least 1, got 0": lambda: fn.AvgPool1d(2, 0),
    "MaxPool2d: padding must be at most half of kernel_size, got padding=(1, 2), kernel_size=3": lambda: fn.MaxPool2d(3, padding=(1, 2)),
    "SumPool1d: padding must be at most half of kernel_size, got padding=1, kernel_size=1": lambda: fn.SumPool1d(1, padding=1),
    "AvgPool2d: divisor_override must be a whole number of at least 1, got 0": lambda: fn.AvgPool2d(2, divisor_override=0),
    "AvgPool2d: divisor_override must be a whole number of at least 1, got (1, 2)": lambda: fn.AvgPool2d(2, divisor_override=(1, 2)),
    "LPPool1d: norm_type must be a finite number above 0.0, got 0": lambda: fn.LPPool1d(0, 2),
    "x must have the axes (N, channels, height, width) or (channels, height, width), got x of shape (2, 3)": lambda: called(fn.MaxPool2d(2), 2, 3),
    "MaxPool1d(kernel_size=2): x must be a floating tensor, got a tensor of shape (1, 2, 3) and dtype torch.int64": lambda: called(fn.MaxPool1d(2), 1, 2, 3, dtype=torch.int64),
    "x must be at least (1, 3) long for these windows and padding, got x of shape (1, 9, 2)": lambda: called(fn.MaxPool2d(3, padding=1, dilation=(1, 2)), 1, 9, 2),
    "AvgPool1d(kernel_size=4): x must be at least (4,) long for these windows and padding, got x of shape (1, 2, 3)": lambda: called(fn.AvgPool1d(4), 1, 2, 3),
    "LPPool2d(norm_type=2, kernel_size=4): x must be at least (4, 4) long": lambda: called(fn.LPPool2d(2, 4), 1, 2, 3, 4),
    "gy must have the shape of y, (2, 1, 2), got gy of shape (1, 1, 2)": lambda: called(fn.AvgPool1d(2), 2, 1, 4, gy=(1, 1, 2)),
    "gy must have the shape of y, (2, 1, 1, 1, 1), got gy of shape (1, 1, 1, 1, 1)": lambda: called(fn.MaxPool3d(2), 2, 1, 2, 2, 2, gy=(1, 1, 1, 1, 1)),
    "MaxUnpool1d(kernel_size=2): x must be a pair (x, indices), as max pooling with return_indices=True returns it, got": lambda: fn.MaxUnpool1d(2)({}, (torch.zeros(1, 1, 2), torch.zeros(1, 1, 2, dtype=torch.complex64))),
    "MaxUnpool1d(kernel_size=2): params and x must be trees of dense tensors on one device, got": lambda: fn.MaxUnpool1d(2)({}, (torch.zeros(1, 1, 2), torch.zeros(1, 1, 2, dtype=torch.int64, device="meta"))),
    "MaxPool1d(kernel_size=2): params must be an empty dict, got weight 1": lambda: fn.MaxPool1d(2)({"weight": 1}, torch.zeros(1, 1, 2)),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_what_does_not_fit_is_refused_with_its_message(message):
    """Options, x and gy are tried; the message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)


NO_CHANNELS = [
    *[getattr(fn, f"{kind}Pool{n}d")(2) for kind in ("Max", "Min", "Avg", "AdaptiveAvg", "AdaptiveMax") for n in (1, 2, 3)],
    *[getattr(fn, f"LPPool{n}d")(2.0, 2) for n in (1, 2, 3)],
    *[getattr(fn, f"FractionalMaxPool{n}d")(2, output_size=2, sample=0.5) for n in (2, 3)],
    *[getattr(fn, f"{kind}Pad{n}d")(1) for kind in ("Zero", "Circular", "Reflection", "Replication") for n in (1, 2, 3)],
    fn.MaxPool2d(3, 1, 1, return_indices=True, ceil_mode=True),
    fn.Upsample((3, 2), mode="area"),
    fn.ChannelShuffle(2),
]


@pytest.mark.parametrize("layer", NO_CHANNELS, ids=repr)
def test_without_channels_the_result_is_empty(layer):
    """The result and the gradient have the lengths that other channels have; torch refuses most of them."""
    lengths = (5,) * getattr(layer, "axes", 2) if isinstance(getattr(layer, "axes", 2), int) else (5, 5)
    some = layer({}, torch.ones(2, 2, *lengths))
    y, cache = layer.apply({}, torch.ones(2, 0, *lengths))
    y, some, gy = (y[0], some[0], (y[0], None)) if isinstance(y, tuple) else (y, some, y)
    assert y.shape == (2, 0, *some.shape[2:])
    assert layer.vjp({}, cache, gy)[1].shape == (2, 0, *lengths)


@pytest.mark.parametrize("layer", [fn.Unfold(2), fn.LocalResponseNorm(2), fn.CrossMapLRN2d(2)], ids=repr)
def test_what_needs_a_channel_says_so(layer):
    """Its result needs several of them."""
    with pytest.raises(ValueError, match=r"x must have a channel, got x of shape \(2, 0, 4, 4\)"):
        layer({}, torch.ones(2, 0, 4, 4))
