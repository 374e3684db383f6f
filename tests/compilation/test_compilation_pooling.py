"""Compiled pooling: values and gradients equal those of eager mode, even if the last window extends beyond the end."""

import pytest
import torch

import funcnet as fn
from funcnet.kernels import forced

pytestmark = pytest.mark.compiled

SHAPES = {1: (2, 3, 6), 2: (2, 3, 6, 5), 3: (1, 2, 6, 5, 4)}


@fn.frozen
class Vjps(fn.Value):
    """Computes y and gx of several layers in one program."""

    layers: tuple

    def __call__(self, x, gys):
        out = []
        for layer, gy in zip(self.layers, gys, strict=True):
            y, cache = layer.apply({}, x)
            out.append((y, layer.vjp({}, cache, gy)[1]))
        return out


def layers_of(axes, dtype):
    """Return mean, sum, power and max pools with their options; only a few with three axes, which take 10 s each."""
    avg, total, power, largest = (getattr(fn, f"{name}Pool{axes}d") for name in ("Avg", "Sum", "LP", "Max"))
    if axes == 3:
        options = {"kernel_size": 2, "ceil_mode": True}
        yield from (avg(**options, padding=1), power(2.0, **options)) if dtype is torch.float32 else (avg(**options),)
        return
    for k, stride in ((2, None), (3, 2))[: 4 - axes]:
        options = {"kernel_size": k, "stride": stride, "ceil_mode": True}
        yield avg(**options)
        yield avg(**options, padding=1)
        yield power(2.0, **options)
    yield avg(3, padding=1, ceil_mode=True, count_include_pad=False)
    yield avg(3, padding=1, ceil_mode=True, divisor_override=3)
    yield avg(3, stride=2, padding=1)
    yield total(3, padding=1, ceil_mode=True)
    yield largest(2, dilation=2, padding=1, ceil_mode=True)


@pytest.mark.parametrize(("axes", "dtype"), [(1, torch.float32), (2, torch.float32), (3, torch.float32), (3, torch.bfloat16)])
def test_compiled_pools_are_those_of_eager_mode(axes, dtype):
    """With ``ceil_mode``, Inductor's own gradient of a mean divides by too much if the last window extends beyond the end."""
    layers = tuple(layers_of(axes, dtype))
    x = (fn.random.uniform(1, SHAPES[axes]) + 0.1).to(dtype)
    ys = [layer({}, x) for layer in layers]
    gys = [fn.random.uniform(i, tuple(y.shape)).to(dtype) for i, y in enumerate(ys)]
    rtol, atol = (1e-5, 1e-5) if dtype is torch.float32 else (0.03, 0.03)
    step = Vjps(layers)
    for got, want, layer in zip(fn.compile(step)(x, gys), step(x, gys), layers, strict=True):
        torch.testing.assert_close(got, want, rtol=rtol, atol=atol, msg=lambda text, layer=layer: f"{layer!r}: {text}")


def test_counts_serve_torch_compile_and_vmap_too():
    """The formula works with every tracer and under vmap."""
    layer, x, gy = fn.AvgPool2d(2, ceil_mode=True), torch.zeros(4, 2, 3, 5, 5), fn.random.uniform(1, (4, 2, 3, 3, 3))

    def gx(x, gy):
        return layer.vjp({}, layer.apply({}, x)[1], gy)[1]

    want = torch.stack([gx(one, g) for one, g in zip(x, gy, strict=True)])
    for f in (torch.compile(gx, fullgraph=True), fn.compile(gx)):
        torch.testing.assert_close(f(x[0], gy[0]), want[0])
    torch.testing.assert_close(fn.compile(torch.func.vmap(gx))(x, gy), want)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_operators_of_maxima_give_what_eager_mode_does(order):
    """Forward and backward agree for overlapping windows, rows outside windows, and images in channels_last."""
    first = fn.Conv2d(2, 4, 3)
    pools = [fn.MaxPool2d(2), fn.MaxPool2d(3, stride=2, padding=1), fn.serial(first, fn.MaxPool2d(2), fn.MaxPool2d((1, 2)))]
    step = Trained(tuple(pools))
    x = fn.random.normal(1, (2, 2, 7, 9)).contiguous(memory_format=order)
    params = [one.init(0) for one in pools]
    gys = [torch.ones_like(one(p, x)) for one, p in zip(pools, params, strict=True)]
    with forced("compiled max pooling", "kernel"), forced("order of images", "channels_last"):
        for got, want in zip(fn.compile(step)(params, x, gys), step(params, x, gys), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
            assert got[0].stride() == want[0].stride()
    assert got[0].stride(1) == 1  # for the last net


@fn.frozen
class Trained(fn.Value):
    """Computes y and gx of several layers with params in one program."""

    layers: tuple

    def __call__(self, params, x, gys):
        out = []
        for layer, p, gy in zip(self.layers, params, gys, strict=True):
            y, cache = layer.apply(p, x)
            out.append((y, *layer.vjp(p, cache, gy)))
        return out
