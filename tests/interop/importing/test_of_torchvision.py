"""torchvision functions that are not traced into: stochastic depth, and attention in shifted windows."""

import pytest
import torch

import funcnet as fn
from examples.torchvision_models import library
from funcnet.interop.torch_nn import from_torch
from funcnet.interop.torch_nn.importing import values
from funcnet.interop.torch_nn.importing.registry import FUNCTIONS


def _swin(second: bool) -> torch.nn.Module:
    """Return a small Swin Transformer, for images that do not divide into windows and finally are smaller than two."""
    library.models()
    from torchvision.models import swin_transformer as swin

    parts = {"block": swin.SwinTransformerBlockV2, "downsample_layer": swin.PatchMergingV2} if second else {}
    torch.manual_seed(0)
    module = swin.SwinTransformer([4, 4], 8, [2, 2], [2, 4], [4, 4], stochastic_depth_prob=0.0, num_classes=3, **parts)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.double()


@pytest.mark.parametrize("second", [False, True], ids=["swin", "swin v2"])
def test_attention_within_shifted_windows_agrees(second: bool) -> None:
    """Outputs and the gradients of all parameters and of the image agree."""
    module = _swin(second)
    x = fn.random.normal(1, (2, 3, 45, 27), dtype=torch.float64)
    net, params = from_torch(module)
    image = x.clone().requires_grad_()
    want = module(image)
    gy = fn.random.normal(2, tuple(want.shape), dtype=torch.float64)
    y, cache = net.apply(params, x, fn.key(0))
    torch.testing.assert_close(y, want.detach(), rtol=1e-10, atol=1e-10)
    named = dict(module.named_parameters())
    grads = dict(zip([*named, "x"], torch.autograd.grad(want, [*named.values(), image], gy), strict=True))
    gparams, gx = net.vjp(params, cache, gy)
    found = fn.tree.names(gparams)
    torch.testing.assert_close(gx, grads.pop("x"), rtol=1e-9, atol=1e-10)
    for name, g in grads.items():
        torch.testing.assert_close(found[name], g, rtol=1e-9, atol=1e-9)


def test_stochastic_depth_is_drop_path() -> None:
    """It has no effect in evaluation and with probability 0; dropping whole batches is refused."""
    convert, x = FUNCTIONS["torchvision.ops.stochastic_depth.stochastic_depth"], values.Ref("x")
    assert convert(x, 0.5, "row").layer == fn.DropPath(0.5)
    assert convert(x, 0.5, "row", training=False) is convert(x, 0.0, "batch") is x
    with pytest.raises(values.UnsupportedError, match="drops whole batches"):
        convert(x, 0.5, "batch")
