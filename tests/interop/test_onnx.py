"""ONNX files, run with onnxruntime on batches of other sizes."""

import sys

import onnx as onnx_package
import onnxruntime
import pytest
import torch
from cases import CASES

import funcnet as fn
from funcnet import tree
from funcnet.interop import onnx


def drawn(*shape, dtype=torch.float32):
    return fn.random.normal(sum(shape), shape, dtype=dtype)


def run(path, x):
    """Run a file on the leaves of x that the graph reads."""
    session = onnxruntime.InferenceSession(path)
    leaves = tree.leaves(x)
    names = ["x"] if len(leaves) == 1 else [f"x{i}" for i in range(len(leaves))]
    read = {one.name for one in session.get_inputs()}
    found = session.run(None, {name: leaf.numpy() for name, leaf in zip(names, leaves, strict=True) if name in read})
    return [torch.from_numpy(one) for one in found]


def agree(net, params, x, path, within=2e-5):
    """Assert that the file returns the output of ``net.inference()``."""
    want = tree.leaves(net.inference()(params, x))
    for one, other in zip(run(path, x), want, strict=True):
        assert one.dtype is other.dtype
        assert one.shape == other.shape
        assert torch.allclose(one.double(), other.double(), rtol=within, atol=within, equal_nan=True)


def exported(net, x, folder, params=None, **options):
    params = net.init(0) if params is None else params
    onnx.export(net, params, x, folder / "net.onnx", **options)
    return params, str(folder / "net.onnx")


IMAGES = fn.serial(
    stem=fn.Conv2d(3, 4, 3, padding=1),
    norm=fn.BatchNorm2d(4),
    act=fn.SiLU(),
    block=fn.resnet_block(4, 8, stride=2),
    up=fn.Upsample(scale_factor=2),
    pool=fn.MaxPool2d(2),
    flat=fn.Flatten(),
    head=fn.Linear(8 * 16, 5),
)


def test_a_convolutional_net(tmp_path):
    """It has batch norm with running statistics, a residual block, resizing and pooling; params keep their paths."""
    params, path = exported(IMAGES, drawn(1, 3, 8, 8), tmp_path)
    for rows in (1, 3, 7):
        agree(IMAGES, params, drawn(rows, 3, 8, 8), path)
    graph = onnx_package.load(path).graph
    used = {path for path in tree.names(params) if "num_batches" not in path}
    assert used <= {one.name for one in graph.initializer}
    assert [one.name for one in (*graph.input, *graph.output)] == ["x", "y"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_integers_masks_and_attention(tmp_path):
    """Words are integers and masks are bools, in a named pair of inputs."""
    body = fn.transformer_encoder_block(8, 2, hidden=8)
    net = fn.serial(fn.parallel(fn.Embedding(9, 8), fn.Identity()), body)
    word = lambda rows: (fn.random.randint(1, (rows, 5), 0, 9), fn.random.randint(2, (rows, 1, 5, 5), 0, 4) > 0)
    params, path = exported(net, word(2), tmp_path, input_names=("x0", "x1"), output_names="features")
    for rows in (1, 3, 7):
        agree(net, params, word(rows), path)
    assert [one.name for one in onnx_package.load(path).graph.output] == ["features"]


def test_a_recurrent_net_in_float64(tmp_path):
    """The outputs are the sequence and both states of an LSTM, with the batch first."""
    net = fn.LSTM(3, 4, batch_first=True)
    params, path = exported(net, drawn(2, 5, 3, dtype=torch.float64), tmp_path, tree.cast(net.init(0), torch.float64))
    for rows in (1, 3, 7):
        agree(net, params, drawn(rows, 5, 3, dtype=torch.float64), path, 1e-10)


def test_half_precision(tmp_path):
    """The net is in float16, for which onnxruntime's CPU provider has the operators."""
    net = fn.mlp([3, 8, 2], fn.ReLU())
    params, path = exported(net, drawn(2, 3, dtype=torch.float16), tmp_path, tree.cast(net.init(0), torch.float16))
    agree(net, params, drawn(7, 3, dtype=torch.float16), path, 2e-3)


ACTIVATIONS = [fn.GELU(), fn.CELU(-1.5), fn.CELU(2.0), fn.ELU(0.5), fn.SELU(), fn.LogSigmoid(), fn.Squareplus(), fn.Softplus()]


def test_activations_that_torch_translates_otherwise(tmp_path):
    """Far from 0 and at 0: CELU scales its input, log sigmoid must not be -inf, and √(x² + b) must not overflow."""
    net = fn.branch(*ACTIVATIONS)
    params, path = exported(net, drawn(2, 5), tmp_path)
    for x in (10 * drawn(3, 5), torch.tensor([[0.0, -0.0, 200.0, -200.0, -1e-3]]), torch.full((4, 5), -1e30)):
        agree(net, params, x, path)


def test_grouped_causal_attention(tmp_path):
    """Queries share keys; torch's translation would multiply tensors of incompatible shapes."""
    net = fn.MultiHeadAttention(8, 4, num_kv_heads=2, is_causal=True)
    params, path = exported(net, drawn(2, 5, 8), tmp_path)
    agree(net, params, drawn(3, 5, 8), path)


def test_what_cannot_be_exported_is_refused_in_words(tmp_path, monkeypatch):
    """The error has the rule, torch's reason, or the missing package."""
    net = fn.Linear(3, 3)
    params, path = net.init(0), tmp_path / "net.onnx"
    turned = fn.orthogonal(net, "weight")
    for call, words in [
        (lambda: onnx.export(3, params, torch.ones(2, 3), path), "net must be a layer"),
        (lambda: onnx.export(net, params, torch.ones(2, 4), path), "the last axis of x must be in_features=3"),
        (lambda: onnx.export(net, params, torch.tensor(1.0), path), "the first axis of x must be the batch"),
        (lambda: onnx.export(net, params, 3, path), "x must be a dense tensor"),
        (lambda: onnx.export(net, params, torch.ones(2, 3), tmp_path / "none" / "net.onnx"), "the folder of path must exist"),
        (lambda: onnx.export(net, params, torch.ones(2, 3), tmp_path), "path must name a file"),
        (
            lambda: onnx.export(net, params, torch.ones(2, 3), path, input_names=("a", "b")),
            "there must be 1 different names of x",
        ),
        (lambda: onnx.export(net, params, torch.ones(2, 3), path, input_names=3), "names of x must be a string, or a tuple or"),
        (lambda: onnx.export(net, params, torch.ones(2, 3), path, output_names=("weight",)), "'weight' twice"),
        (lambda: onnx.export(net, params, torch.ones(2, 3), path, opset_version=True), "opset_version must be a whole number"),
        (lambda: onnx.export(turned, turned.init(0), torch.ones(2, 3), path), "matrix_exp"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"funcnet\[onnx\]"):
        onnx.export(net, params, torch.ones(2, 3), path)


def test_what_passes_through_unchanged(tmp_path):
    """An output can be an input, and an axis of several elements is not squeezed."""
    rows = torch.arange(6.0).view(2, 3)
    pair = fn.parallel(fn.Identity(), fn.Squeeze(1))
    for net, x in ((fn.Identity(), rows), (pair, (rows, rows[:, :1])), (fn.Flatten(1, 1), rows), (fn.Squeeze(-1), rows)):
        onnx.export(net, net.init(0), x, tmp_path / "net.onnx")
        agree(net, net.init(0), x, str(tmp_path / "net.onnx"), 0.0)


@pytest.mark.long
def test_the_catalogue(tmp_path):
    """Nearly every net without noise can be exported, and its file is correct."""
    refused, written = [], 0
    for name, case in CASES.items():
        layer, x = case.layer.inference(), case.x
        open_batch = case.batched and tree.leaves(x) and all([leaf.dim() for leaf in tree.leaves(x)])  # noqa: C419
        if layer.stochastic or not open_batch or "as_layer" in repr(layer):
            continue
        x = tree.map(lambda leaf: torch.cat([leaf, leaf]), x)
        try:
            onnx.export(layer, case.params, x, tmp_path / "net.onnx")
        except ValueError as error:
            refused.append(f"{name}: {error}")
        else:
            agree(layer, case.params, tree.map(lambda leaf: torch.cat([leaf, leaf]), x), str(tmp_path / "net.onnx"), 1e-4)
            written += 1
    assert len(refused) < written / 10, refused
