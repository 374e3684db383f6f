"""Converters of torch.nn's layers: outputs, gradients, statistics and names agree, in training and in evaluation."""

import copy
import warnings
from typing import Any

import pytest
import torch
from layer_modules import SAMPLES, Sample
from torch import Tensor, nn
from twins import draw, varied

import funcnet as fn
from funcnet import tree
from funcnet.interop.torch_nn.importing import refused, registry
from funcnet.interop.torch_nn.importing.activation import ImplicitAxis
from funcnet.interop.torch_nn.importing.layers import converter_of
from funcnet.interop.torch_nn.importing.values import UnsupportedError
from funcnet.testing import check_laws

TOLERANCE = {torch.float64: {"rtol": 1e-10, "atol": 1e-10}, torch.float32: {"rtol": 1e-5, "atol": 1e-5}}


def converted(module: nn.Module) -> tuple[fn.Layer, Any]:
    """Convert a module; its tensors are copied."""
    convert = converter_of(module)
    assert convert is not None
    layer, params = convert(module, None)
    return layer, tree.map(torch.clone, params)


def _is_floating(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def _cast(x: Any, dtype: torch.dtype) -> Any:
    return tree.map(lambda leaf: leaf.to(dtype) if _is_floating(leaf) else leaf, x)


def _made(sample: Sample, dtype: torch.dtype) -> nn.Module:
    """Return a module with weights and statistics other than the initial values, and a padding row of 0."""
    module = varied(sample.make().to(dtype), 7)
    for name, buffer in module.named_buffers():
        if name in ("running_mean", "running_var"):
            buffer.add_(draw(buffer.shape, 5).abs())
    if getattr(module, "padding_idx", None) is not None:
        with torch.no_grad():
            module.weight[module.padding_idx] = 0
    return module


def _of_module(sample: Sample, module: nn.Module, x: Any) -> tuple[Any, Any, dict[str, Tensor], Any]:
    """Return y of a module, gy, and autograd's gradients of the parameters, by name, and of x."""
    x = tree.map(lambda leaf: leaf.clone().requires_grad_() if _is_floating(leaf) else leaf, x)
    inside = tree.map(lambda leaf: leaf * 1 if _is_floating(leaf) else leaf, x)  # copies that ``inplace`` can write to
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a softmax without an axis warns
        y = sample.call(module, inside)
    y = tuple(y) if isinstance(y, tuple) else y
    gy = tree.map(lambda leaf: draw(leaf.shape, 3).to(leaf.dtype) if _is_floating(leaf) else None, y)
    outputs = [leaf for leaf in tree.leaves(y) if _is_floating(leaf)]
    inputs = [*[leaf for leaf in tree.leaves(x) if _is_floating(leaf)], *module.parameters()]
    pairs = zip(outputs, [leaf for leaf in tree.leaves(gy) if leaf is not None], strict=True)
    value = sum(((out * g).sum() for out, g in pairs), torch.zeros(()))
    found = iter(torch.autograd.grad(value, inputs, materialize_grads=True) if inputs else [])
    gx = tree.map(lambda leaf: next(found) if _is_floating(leaf) else None, x)
    named = dict(zip([name for name, _ in module.named_parameters()], found, strict=True))
    return tree.map(lambda leaf: leaf.detach(), y), gy, named, gx


def _assert_close(what: str, got: Any, want: Any, tolerance: dict[str, float]) -> None:
    got, want = tree.names(got), tree.names(want)
    assert got.keys() == want.keys(), what
    for name, leaf in want.items():
        torch.testing.assert_close(got[name], leaf, **tolerance, msg=lambda text, name=name: f"{what} {name}: {text}")


def _compare(sample: Sample, module: nn.Module, layer: fn.Layer, params: Any, x: Any, dtype: torch.dtype) -> Any:
    """Compare y and all gradients; return the cache."""
    y, cache = layer.apply(params, x, fn.key(0))
    tolerance = {**TOLERANCE[dtype], "rtol": max(TOLERANCE[dtype]["rtol"], sample.rounding)}
    want, gy, wanted, wanted_gx = _of_module(sample, module, x)
    gparams, gx = layer.vjp(params, cache, gy)
    _assert_close("y", y, want, tolerance)
    _assert_close("gx", gx, wanted_gx, tolerance)
    _assert_close("gradient", {name: leaf for name, leaf in tree.names(gparams).items() if leaf is not None}, wanted, tolerance)
    return cache


@pytest.mark.parametrize("name", SAMPLES)
def test_a_layer_is_its_module(name: str) -> None:
    """y, all gradients, updated statistics and the names of params agree, in both modes and both precisions."""
    sample = SAMPLES[name]
    for dtype in (torch.float64, torch.float32):
        module, x = _made(sample, dtype), _cast(sample.x, dtype)
        before = copy.deepcopy(module.state_dict())
        layer, params = converted(module.eval())
        assert [*tree.names(params)] == [*before]
        _compare(sample, module, layer.inference(), params, x, dtype)
        cache = _compare(sample, module.train(), layer, params, x, dtype)
        _assert_close("statistics", tree.names(layer.update_stats(params, cache)), dict(module.state_dict()), TOLERANCE[dtype])
        assert tree.equal(params, converted(_loaded(sample, before, dtype))[1]), "params must not be written to"


OF_OTHERS = {
    *("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell", "MultiheadAttention"),
    *("Transformer", "TransformerEncoder", "TransformerEncoderLayer", "TransformerDecoder", "TransformerDecoderLayer"),
    *("Sequential", "ModuleList", "ModuleDict", "ParameterList", "ParameterDict", "Container"),
}
"""Sequences and containers are tested in other files."""

BASES = {"Module", "RNNBase", "RNNCellBase"}


def _classes_of_torch() -> dict[str, type]:
    found = {name: getattr(nn.modules, name) for name in nn.modules.__all__}
    return {name: one for name, one in found.items() if isinstance(one, type) and issubclass(one, nn.Module)}


def test_every_module_of_torch_is_accounted_for() -> None:
    """Each class is converted and in the table above, refused with a reason, or of another family."""
    tried = {type(sample.make()) for sample in SAMPLES.values()}
    answered = {*tried, *refused.LOSSES, *refused.LAZY, nn.CrossMapLRN2d, nn.SyncBatchNorm}
    names = {name for name, one in _classes_of_torch().items() if one not in answered}
    assert names == OF_OTHERS | BASES
    assert answered <= registry.LAYERS.keys()


def _loaded(sample: Sample, state: dict[str, Tensor], dtype: torch.dtype) -> nn.Module:
    module = sample.make().to(dtype)
    module.load_state_dict(state)
    return module


REFUSED: dict[str, Any] = {
    "a loss is not a layer: remove it from the module and use fn.MSE as the loss of (y, target)": nn.MSELoss,
    "LazyLinear has no sizes yet: call the module once with an input": lambda: nn.LazyLinear(3),
    "torch.nn.CrossMapLRN2d deviates from its formula": lambda: nn.CrossMapLRN2d(3),
    "Unflatten: dim must be a whole number, got 'C'": lambda: nn.Unflatten("C", (2, 2)),
    "scale_grad_by_freq=True has no counterpart": lambda: nn.Embedding(4, 3, scale_grad_by_freq=True),
    "sparse=True has no counterpart: gradients are dense; set module.sparse = False": lambda: nn.Embedding(4, 3, sparse=True),
    "max_norm=1.0 has no counterpart: rows are used as they are": lambda: nn.EmbeddingBag(4, 3, max_norm=1.0),
    "include_last_offset=True has no counterpart": lambda: nn.EmbeddingBag(4, 3, include_last_offset=True),
    "the row padding_idx=2 of weight must be 0": lambda: nn.Embedding.from_pretrained(torch.ones(4, 3), padding_idx=2),
    "_random_samples has no counterpart": lambda: nn.FractionalMaxPool2d(2, 3, _random_samples=torch.zeros(1, 1, 2)),
    "BatchNorm2d: eps must be a finite number above 0.0, got 0.0": lambda: nn.BatchNorm2d(4, eps=0.0),
    "weight must have the shape (3, 4) for Linear, got (3, 5)": lambda: _with(nn.Linear(4, 3), weight=torch.ones(3, 5)),
    "more must be missing for Linear, got (2,)": lambda: _with(nn.Linear(4, 3), more=torch.ones(2)),
    "more must be missing for ReLU, got (2,)": lambda: _with(nn.ReLU(), more=torch.ones(2)),
    "track_running_stats=False must say whether there are running statistics": lambda: _untracked(nn.BatchNorm1d(3)),
}
"""Refused modules, by the beginning of the reason."""


def _with(module: nn.Module, **tensors: Tensor) -> nn.Module:
    for name, one in tensors.items():
        setattr(module, name, nn.Parameter(one))
    return module


def _untracked(module: nn.BatchNorm1d) -> nn.BatchNorm1d:
    module.track_running_stats = False
    return module


@pytest.mark.parametrize("reason", REFUSED)
def test_what_has_no_counterpart_is_refused_with_the_reason(reason: str) -> None:
    """It is one short message, without the path, which the caller adds."""
    with pytest.raises(UnsupportedError) as caught:
        converted(REFUSED[reason]())
    assert str(caught.value).startswith(reason)
    assert len(str(caught.value)) < 300


def test_every_loss_names_one_that_there_is() -> None:
    """Each hint names a loss of funcnet."""
    for source, name in refused.LOSSES.items():
        assert issubclass(getattr(fn, name), fn.Loss), source


def test_the_options_are_written_as_people_write_them() -> None:
    """Equal numbers are written once; defaults, and a stride equal to the kernel, are omitted."""
    assert repr(converted(nn.Conv2d(3, 8, (3, 3), padding=1))[0]) == repr(fn.Conv2d(3, 8, 3, padding=1))
    assert converted(nn.MaxPool2d(2))[0] == fn.MaxPool2d(2)
    assert converted(nn.AvgPool1d(2))[0] == fn.AvgPool1d(2)
    assert converted(nn.ZeroPad2d(1))[0] == fn.ZeroPad2d(1)
    assert converted(nn.AdaptiveAvgPool2d((1, 1)))[0] == fn.AdaptiveAvgPool2d(1)
    assert converted(nn.BatchNorm2d(4, affine=False))[0] == fn.BatchNorm2d(4, affine=False)
    assert converted(nn.Softmax(-1))[0] == fn.Softmax()


def test_the_params_are_views_of_the_modules_tensors() -> None:
    """The caller can therefore copy them and find ties; they do not require gradients."""
    module = nn.BatchNorm1d(3)
    convert = converter_of(module)
    assert convert is not None
    named = tree.names(convert(module, None)[1])
    assert all(leaf.data_ptr() == module.state_dict()[name].data_ptr() for name, leaf in named.items())
    assert not any(leaf.requires_grad for leaf in named.values())


def test_an_initialised_lazy_module_is_converted() -> None:
    """It has become the plain class."""
    module = nn.LazyConv2d(4, 3)
    module(torch.ones(1, 2, 5, 5))
    assert converted(module)[0] == fn.Conv2d(2, 4, 3)


def test_a_sync_batch_norm_is_a_batch_norm_of_images() -> None:
    """It has the same statistics; torch.nn's layer trains only on a GPU."""
    module = nn.SyncBatchNorm.convert_sync_batchnorm(nn.BatchNorm2d(4, momentum=0.2))
    layer, params = converted(module.eval())
    assert layer == fn.BatchNorm2d(4, momentum=0.2)
    x = SAMPLES["BatchNorm2d"].x.float()
    torch.testing.assert_close(layer.inference()(params, x), module(x))


def test_tensors_on_the_meta_device_are_converted() -> None:
    """Their padding row is assumed to be 0."""
    layer, params = registry.LAYERS[nn.Embedding](nn.Embedding(4, 3, padding_idx=0, device="meta"), None)
    assert layer == fn.Embedding(4, 3, padding_idx=0)
    assert params["weight"].is_meta


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 4), (2, 3, 2, 2)])
def test_an_implicit_axis_keeps_the_laws(shape: tuple[int, ...]) -> None:
    """The axis depends on the number of axes, all of which are tested."""
    check_laws(ImplicitAxis("Softmin"), draw(shape), batched=False, compiled=False)


@pytest.mark.compiled
def test_an_implicit_axis_compiles() -> None:
    """It compiles to one graph."""
    check_laws(ImplicitAxis("LogSoftmax"), draw((2, 3)), batched=False)
