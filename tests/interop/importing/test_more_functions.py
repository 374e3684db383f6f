"""Neural-network functions in traced code: each is converted and compared with torch and its autograd in float64."""

# ruff: noqa: PLW0108 (functions are traced through lambdas, whose arguments are counted)

import operator
from typing import Any

import pytest
import torch
from traced_functions import check, converted, numbers

from funcnet.interop.torch_nn.importing import values

F = torch.nn.functional

A, B, ROW = numbers(2, 3, 4), numbers(2, 3, 4, seed=1), numbers(4)
POSITIVE = B.abs() + 0.5
IMAGE, KERNEL, BIAS = numbers(2, 4, 5, 6), numbers(6, 2, 3, 3), numbers(6)
SIGNAL = numbers(2, 4, 7)
PLACES = torch.tensor([2, 0, 2])

ACTIVATIONS = [
    F.relu, F.relu6, F.selu, F.silu, F.mish, F.hardswish, F.sigmoid, F.logsigmoid, F.tanh, F.tanhshrink,
    F.softsign, F.gelu, F.elu, F.celu, F.leaky_relu, F.softplus, F.hardtanh, F.hardshrink, F.softshrink, F.glu, F.rrelu,
    torch.abs, torch.exp, torch.expm1, torch.square, torch.sin, torch.cos, torch.erf, torch.sign, torch.floor, torch.ceil,
    torch.round, torch.relu, torch.sigmoid, torch.tanh,
]  # fmt: skip
OF_POSITIVE = [torch.log, torch.log1p, torch.log2, torch.log10, torch.sqrt, torch.rsqrt, torch.reciprocal]
METHODS = ["relu", "sigmoid", "tanh", "exp", "abs", "square", "sin", "cos", "erf", "floor", "relu_", "neg"]
WITH_OPTIONS = [
    lambda a: F.gelu(a, approximate="tanh"),
    lambda a: F.relu(a, inplace=True),
    lambda a: F.elu(a, 0.5),
    lambda a: F.leaky_relu(a, 0.2),
    lambda a: F.hardtanh(a, -0.5, 0.7),
    lambda a: F.threshold(a, 0.1, 0.2),
    lambda a: F.softplus(a, beta=2),
    lambda a: F.softmax(a, dim=-1),
    lambda a: a.softmax(1),
    lambda a: torch.softmax(a, dim=1, dtype=torch.float64),
    lambda a: F.log_softmax(a, 1),
    lambda a: F.softmin(a, dim=2),
    lambda a: a.clamp(-0.5, 0.5),
    lambda a: a.clamp(min=0.1),
    lambda a: torch.clamp_max(a, 0.3),
    lambda a, b: torch.clamp(a, min=b),
    lambda a: F.dropout(a, 0.5, training=False),
    lambda a: F.normalize(a, dim=-1),
    lambda a: F.normalize(a, p=1.0, dim=1),
    lambda a, b: F.cosine_similarity(a, b, dim=2),
]
REDUCTIONS = [
    lambda a: a.mean(),
    lambda a: a.mean(1),
    lambda a: a.mean((1, 2), keepdim=True),
    lambda a: a.mean([1, 2]),
    lambda a: torch.mean(a, dim=-1),
    lambda a: a.sum(dim=1),
    lambda a: a.sum(0, True),
    lambda a: torch.sum(a, (0, 1)),
    lambda a: a.amax(1),
    lambda a: torch.amin(a, dim=(1, 2), keepdim=True),
    lambda a: a.max(),
    lambda a: a.max(1)[0],
    lambda a: torch.max(a, dim=2, keepdim=True)[0],
    lambda a: a.min(dim=1)[0],
    lambda a, b: torch.max(a, b),
    lambda a, b: torch.minimum(a, b),
    lambda a: a.var(1),
    lambda a: a.var(dim=(1, 2), unbiased=False),
    lambda a: a.std(-1, keepdim=True),
    lambda a: torch.std(a, dim=1, correction=0),
    lambda a: a.prod(1),
    lambda a: a.norm(dim=-1),
    lambda a: torch.norm(a, p=1, dim=1, keepdim=True),
    lambda a: torch.linalg.vector_norm(a, dim=(1, 2)),
    lambda a: a.logsumexp(1),
    lambda a: torch.logsumexp(a, dim=-1, keepdim=True),
    lambda a: a.cumsum(1),
    lambda a: a.topk(2, dim=1)[0],
    lambda a: torch.topk(a, 2)[0],
]
ORDERS = [
    lambda a: torch.roll(a, (1, -1), (1, 2)),
    lambda a: a.roll(1, 1),
    lambda a: torch.flip(a, [1]),
    lambda a: a.flip(0, 2),
    lambda a: a.movedim(1, -1),
    lambda a: a.repeat(1, 2, 3),
    lambda a: a.repeat(a.size(0), 1, 1, 1),
    lambda a: a.repeat_interleave(2, dim=1),
    lambda a: torch.repeat_interleave(a, 3, 2),
    lambda a: a.unfold(2, 2, 1),
]
CHOICES = [
    lambda a, b: torch.where(a > b, a, b),
    lambda a: torch.where(a > 0, a, 0.0),
    lambda a: a.masked_fill(a < 0, 2.0),
    lambda a, b: a.masked_fill((a > 0) & ~(b > 0), -1.0),
    lambda a: (a > 0).to(torch.float64) * a,
    lambda a: (a > 0).type_as(a) * a,
    lambda a: a.float().double(),
    lambda a: a.contiguous().clone() + a.detach(),
    lambda a: a.argmax(1),
    lambda a, b: (a >= b).all(),
    lambda a: a + torch.zeros_like(a) + torch.ones_like(a),
    lambda a: a + a.new_zeros(a.size(0), 1, 4),
    lambda a: a + torch.ones(3, 4, dtype=torch.float64),
    lambda a: a + torch.arange(a.size(2), dtype=torch.float64),
    lambda a: a + torch.full((a.shape[1], 1), 0.5, dtype=torch.float64),
    lambda a: a * torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64),
]
OF_IMAGES = [
    lambda a: F.max_pool2d(a, 2),
    lambda a: F.max_pool2d(a, kernel_size=3, stride=2, padding=1),
    lambda a: F.avg_pool2d(a, kernel_size=3, stride=1, padding=1),
    lambda a: F.avg_pool2d(a, 2, ceil_mode=True, count_include_pad=False),
    lambda a: F.adaptive_avg_pool2d(a, (1, 1)),
    lambda a: F.adaptive_avg_pool2d(a, 2),
    lambda a: F.adaptive_avg_pool2d(a, (a.size(2) // 2, 3)),
    lambda a: F.adaptive_max_pool2d(a, 2),
    lambda a: F.interpolate(a, scale_factor=2),
    lambda a: F.grid_sample(a, a[:, :2].permute(0, 2, 3, 1) * 0.4, "bicubic", align_corners=True),
    lambda a: F.grid_sample(a, a[:, :2].movedim(1, -1) * 0.6, padding_mode="border", align_corners=False),
    lambda a: F.interpolate(a, size=(7, 9), mode="bilinear", align_corners=False),
    lambda a: F.interpolate(a[:, :, ::2], size=a.shape[2:], mode="bilinear", align_corners=True),
    lambda a: F.interpolate(a[:, :, ::2], size=(a.shape[2], a.shape[3])),
    lambda a: F.pad(a, (1, 2)),
    lambda a: F.pad(a, [1, 0, -1, 2], value=1.5),
    lambda a: F.pad(a, (0, a.size(3) % 4, 0, 8 - a.size(2))),
    lambda a: F.pad(a, (1, 2, 1, 0), mode="reflect"),
    lambda a: F.pad(a, (1, 2, 1, 0), mode="replicate"),
    lambda a: F.pad(a, (1, 2, 1, 0), mode="circular"),
    lambda a: F.pixel_shuffle(a, 2),
    lambda a: F.unfold(a, 3, padding=1),
    lambda a: F.local_response_norm(a, 3),
    lambda a: a[:, 0].unsqueeze(1) * 0.5 + a[:, 1:2] * 2 - 0.3,
    lambda a: F.group_norm(a, 2),
    lambda a: F.instance_norm(a),
]
WEIGHTED = [
    (lambda a, b, c: F.conv2d(a, b, c, stride=2, padding=1, groups=2), IMAGE, KERNEL, BIAS),
    (lambda a, b: F.conv2d(a, b, padding="same", groups=2), IMAGE, KERNEL),
    (lambda a, b: F.conv1d(a, b, None, 1, (1,)), SIGNAL, numbers(3, 4, 3)),
    (lambda a, b: F.conv_transpose2d(a, b, stride=2, output_padding=1), IMAGE, numbers(4, 3, 3, 3)),
    (lambda a, b, c: F.linear(a, b, c), A, numbers(5, 4), numbers(5)),
    (lambda a, b: F.linear(a, b), A, numbers(5, 4)),
    (lambda a, b, c: F.layer_norm(a, (4,), b, c), A, ROW, numbers(4, seed=3)),
    (lambda a: F.layer_norm(a, [3, 4]), A),
    (lambda a, b: F.rms_norm(a, (4,), b), A, ROW),
    (lambda a, b, c: F.group_norm(a, 2, b, c), IMAGE, ROW, numbers(4, seed=3)),
    (lambda a, b, c: F.batch_norm(a, b.detach(), (c * c + 1).detach(), weight=b, bias=c), IMAGE, ROW, numbers(4, seed=3)),
    (lambda a, b: F.prelu(a, b), IMAGE, ROW),
    (lambda a, b: F.embedding(a, b), PLACES, numbers(5, 3)),
    (lambda a, b, c: F.bilinear(a, b, c), A, B, numbers(2, 4, 4)),
    (lambda a, b: torch.einsum("nqd,nkd->nqk", a, b), A, B),
    (lambda a, b: torch.einsum("nqd, kd -> nqk", [a, b]), A, numbers(5, 4)),
    (lambda a, b: a[:, b], A, PLACES),
    (lambda a, b: a.index_select(1, b), A, PLACES),
    (lambda a, b: torch.gather(a, 1, b), A, torch.tensor([[[0, 1, 2, 0]], [[1, 1, 0, 2]]])),
    (lambda a, b: F.scaled_dot_product_attention(a, b, b), A, B),
    (lambda a, b, c: F.scaled_dot_product_attention(a, b, b, attn_mask=c), A, B, torch.tensor([[True, False, True]] * 3)),
    (lambda a, b: F.scaled_dot_product_attention(a, b, b, is_causal=True), A, B),
]


def _of_one(function: Any) -> Any:
    return lambda a: function(a)


def test_activations_are_converted() -> None:
    """These are functions of torch and torch.nn.functional, and methods."""
    for function in ACTIVATIONS:
        check(_of_one(function), A)
    for function in OF_POSITIVE:
        check(_of_one(function), POSITIVE)
    for name in METHODS:
        check(_of_one(operator.methodcaller(name)), A)
    check(lambda a: F.hardsigmoid(a), A, tolerance=1e-7)  # torch rounds 1/6 to float32


@pytest.mark.parametrize("table", [WITH_OPTIONS, REDUCTIONS, ORDERS, CHOICES], ids=["options", "reductions", "orders", "choices"])
def test_functions_of_one_or_two_tensors_are_converted(table: list[Any]) -> None:
    """Output, dtype and the gradients of all inputs agree."""
    for function in table:
        check(function, A, B)


def test_functions_of_images_are_converted() -> None:
    """These are pooling, resizing, padding, and norms without weights."""
    for function in OF_IMAGES:
        check(function, IMAGE)


def test_functions_with_weights_among_their_tensors_are_converted() -> None:
    """These are convolutions, linear maps, norms, embeddings and attention."""
    for function, *tensors in WEIGHTED:
        check(function, *tensors)


def test_dropout_depends_on_training() -> None:
    """It is a layer in training, and removed in evaluation."""
    assert repr(converted(lambda a: F.dropout(a, 0.3, training=True)).layer) == "Dropout(p=0.3)"
    assert converted(lambda a: F.dropout2d(a, 0.3, training=False)) == values.Ref("a")


REFUSED = {
    "out= is": lambda a: torch.add(a, 1, out=a),
    "squeeze without dim": lambda a: a.squeeze(),
    "a softmax needs dim": lambda a: F.softmax(a),
    "antialias": lambda a: F.interpolate(a, size=3, antialias=True),
    "would not be updated": lambda a, b: F.batch_norm(a, b, b, training=True),
    "rounding_mode": lambda a: torch.div(a, 2, rounding_mode="floor"),
    "step above 0": lambda a: a[:, ::-1],
    "values of a tensor": lambda a: a * a.mean().item(),
    "max_norm": lambda a, b: F.embedding(a, b, max_norm=1.0),
    "einsum": lambda a, b: torch.einsum("ii,ij->j", a, b),
    "known when": lambda a: a.repeat_interleave(a.size(0), 1),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_has_no_layer_is_refused_with_the_reason(words: str) -> None:
    """The error has the reason without a path, which the caller adds."""
    with pytest.raises(values.UnsupportedError) as caught:
        converted(REFUSED[words])
    assert words in str(caught.value)
