"""torch.nn modules and inputs for the tests of converters: every class, with each relevant option."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from twins import draw


class Sample(NamedTuple):
    """A function that returns a module, its input, how to call it if it has several inputs, and torch's rounding error."""

    make: Callable[[], nn.Module]
    x: Any
    call: Callable[[nn.Module, Any], Any] = lambda module, x: module(x)
    rounding: float = 0.0


def _several(module: nn.Module, x: Any) -> Any:
    return module(*x)


def _bag_with_weights(module: nn.Module, x: Any) -> Tensor:
    return module(x[0], None, x[1]) if len(x) == 2 else module(*x)


def _pair(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    return tuple([draw(shape, i) for i, shape in enumerate(shapes)])


ROWS, SEQUENCE, IMAGE, VOLUME = draw((5, 4)), draw((2, 4, 9)), draw((2, 4, 8, 7)), draw((2, 4, 6, 5, 7))
IDS = torch.tensor([[1, 0, 4], [5, 1, 2]])
_LAST = torch.tensor([[[3, 7, 8]]])


LINEAR = {
    "Identity": Sample(nn.Identity, ROWS),
    "Linear": Sample(lambda: nn.Linear(4, 3), ROWS),
    "Linear, one row": Sample(lambda: nn.Linear(4, 3, bias=False), ROWS[0]),
    "NonDynamicallyQuantizableLinear": Sample(lambda: nn.modules.linear.NonDynamicallyQuantizableLinear(4, 3), SEQUENCE.mT),
    "Bilinear": Sample(lambda: nn.Bilinear(4, 3, 2), _pair((5, 4), (5, 3)), _several),
    "Bilinear, no bias": Sample(lambda: nn.Bilinear(4, 3, 2, bias=False), _pair((2, 5, 4), (2, 5, 3)), _several),
    "AdaptiveLogSoftmaxWithLoss": Sample(
        lambda: nn.AdaptiveLogSoftmaxWithLoss(8, 20, [4, 10], 2.0), (draw((4, 8)), torch.tensor([1, 5, 15, 19])), _several
    ),
    "AdaptiveLogSoftmaxWithLoss, one row": Sample(
        lambda: nn.AdaptiveLogSoftmaxWithLoss(8, 20, [4], head_bias=True), (draw((8,)), torch.tensor(7)), _several
    ),
}

CONV = {
    "Conv1d": Sample(lambda: nn.Conv1d(4, 6, 3, 2, 1, 2, 2, padding_mode="replicate"), SEQUENCE),
    "Conv1d, same": Sample(lambda: nn.Conv1d(4, 6, 4, padding="same", bias=False), SEQUENCE[0]),
    "Conv1d, same around": Sample(lambda: nn.Conv1d(4, 6, 4, padding="same", padding_mode="circular", dilation=2), SEQUENCE),
    "Conv2d": Sample(lambda: nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 0), (1, 2), 2, padding_mode="reflect"), IMAGE),
    "Conv2d, valid": Sample(lambda: nn.Conv2d(4, 6, 3, padding="valid", padding_mode="circular"), IMAGE[0]),
    "Conv2d, depthwise": Sample(lambda: nn.Conv2d(4, 8, 3, padding=1, groups=4), IMAGE),
    "Conv3d": Sample(lambda: nn.Conv3d(4, 2, (3, 2, 1), padding=(1, 0, 2), padding_mode="circular"), VOLUME),
    "Conv3d, no batch": Sample(lambda: nn.Conv3d(4, 2, 3, padding="same", groups=2), VOLUME[0]),
    "ConvTranspose1d": Sample(lambda: nn.ConvTranspose1d(4, 6, 3, 2, 1, 1, 2, False, 2), SEQUENCE),
    "ConvTranspose2d": Sample(lambda: nn.ConvTranspose2d(4, 6, (3, 2), (2, 3), (1, 0), (0, 2), 2), IMAGE),
    "ConvTranspose2d, no batch": Sample(lambda: nn.ConvTranspose2d(4, 6, 2, 2), IMAGE[0]),
    "ConvTranspose3d": Sample(lambda: nn.ConvTranspose3d(4, 2, 2, 2, output_padding=1), VOLUME),
    "Unfold": Sample(lambda: nn.Unfold((3, 2), 1, (1, 0), 2), IMAGE),
    "Fold": Sample(lambda: nn.Fold((6, 5), (3, 2), stride=(1, 1)), draw((2, 12, 16))),
    "Fold, no batch": Sample(lambda: nn.Fold(5, 2, dilation=2, padding=1, stride=2), draw((8, 9))),
}

POOLING = {
    "AvgPool1d": Sample(lambda: nn.AvgPool1d(3, 2, 1, True, False), SEQUENCE),
    "AvgPool2d": Sample(lambda: nn.AvgPool2d((3, 2), padding=(1, 0), ceil_mode=True, divisor_override=5), IMAGE),
    "AvgPool2d, no batch": Sample(lambda: nn.AvgPool2d(2), IMAGE[0]),
    "AvgPool3d": Sample(lambda: nn.AvgPool3d(2, 1, 1, count_include_pad=False), VOLUME),
    "MaxPool1d": Sample(lambda: nn.MaxPool1d(3, 2, 1, 2, ceil_mode=True), SEQUENCE),
    "MaxPool1d, indices": Sample(lambda: nn.MaxPool1d(2, return_indices=True), SEQUENCE[0]),
    "MaxPool2d": Sample(lambda: nn.MaxPool2d((3, 2), (2, 1), (1, 0)), IMAGE),
    "MaxPool2d, indices": Sample(lambda: nn.MaxPool2d([2, 3], return_indices=True, ceil_mode=True), IMAGE),
    "MaxPool3d": Sample(lambda: nn.MaxPool3d(2, dilation=2), VOLUME),
    "LPPool1d": Sample(lambda: nn.LPPool1d(2, 3, 2, True), SEQUENCE),
    "LPPool2d": Sample(lambda: nn.LPPool2d(4, (3, 2)), IMAGE),
    "LPPool3d": Sample(lambda: nn.LPPool3d(2.0, 2, 1), VOLUME),
    "FractionalMaxPool2d": Sample(lambda: nn.FractionalMaxPool2d(2, output_size=(4, 3)), draw((2, 4, 8, 6))),
    "FractionalMaxPool2d, ratio": Sample(
        lambda: nn.FractionalMaxPool2d(2, output_ratio=0.5, return_indices=True), draw((4, 8, 8))
    ),
    "FractionalMaxPool3d": Sample(lambda: nn.FractionalMaxPool3d(2, output_size=3), draw((2, 4, 6, 6, 6))),
    "AdaptiveAvgPool1d": Sample(lambda: nn.AdaptiveAvgPool1d(4), SEQUENCE),
    "AdaptiveAvgPool2d": Sample(lambda: nn.AdaptiveAvgPool2d((None, 3)), IMAGE),
    "AdaptiveAvgPool3d": Sample(lambda: nn.AdaptiveAvgPool3d([2, None, 3]), VOLUME),
    "AdaptiveMaxPool1d": Sample(lambda: nn.AdaptiveMaxPool1d(4, return_indices=True), SEQUENCE),
    "AdaptiveMaxPool2d": Sample(lambda: nn.AdaptiveMaxPool2d((1, 1)), IMAGE[0]),
    "AdaptiveMaxPool3d": Sample(lambda: nn.AdaptiveMaxPool3d((2, None, 3)), VOLUME),
    "MaxUnpool1d": Sample(lambda: nn.MaxUnpool1d(3), (draw((1, 1, 3)), _LAST), _several),
    "MaxUnpool2d": Sample(lambda: nn.MaxUnpool2d((1, 3), (1, 3)), (draw((1, 1, 3)), _LAST[0][None]), _several),
    "MaxUnpool3d": Sample(lambda: nn.MaxUnpool3d(3, 2, 1), (draw((1, 1, 1, 1, 3)), torch.tensor([[[[[0, 2, 4]]]]])), _several),
}

NORM = {
    "BatchNorm1d": Sample(lambda: nn.BatchNorm1d(4), ROWS),
    "BatchNorm1d, sequences": Sample(lambda: nn.BatchNorm1d(4, 1e-3, 0.3, affine=False), SEQUENCE),
    "BatchNorm1d, no bias": Sample(lambda: nn.BatchNorm1d(4, bias=False), ROWS),
    "BatchNorm2d": Sample(lambda: nn.BatchNorm2d(4, momentum=None), IMAGE),
    "BatchNorm2d, no statistics": Sample(lambda: nn.BatchNorm2d(4, track_running_stats=False), IMAGE),
    "BatchNorm3d": Sample(lambda: nn.BatchNorm3d(4, momentum=0.0), VOLUME),
    "InstanceNorm1d": Sample(lambda: nn.InstanceNorm1d(4), SEQUENCE),
    "InstanceNorm1d, statistics": Sample(lambda: nn.InstanceNorm1d(4, 1e-3, 0.3, True, True), SEQUENCE),
    "InstanceNorm2d": Sample(lambda: nn.InstanceNorm2d(4, affine=True), IMAGE[0]),
    "InstanceNorm2d, statistics": Sample(lambda: nn.InstanceNorm2d(4, momentum=None, track_running_stats=True), IMAGE),
    "InstanceNorm3d": Sample(lambda: nn.InstanceNorm3d(4, affine=True, bias=False), VOLUME),
    "LayerNorm": Sample(lambda: nn.LayerNorm(4), ROWS),
    "LayerNorm, two axes": Sample(lambda: nn.LayerNorm([4, 9], 1e-3, bias=False), SEQUENCE),
    "LayerNorm, no weight": Sample(lambda: nn.LayerNorm(4, elementwise_affine=False), ROWS[0]),
    "RMSNorm": Sample(lambda: nn.RMSNorm(4), ROWS),
    "RMSNorm, two axes": Sample(lambda: nn.RMSNorm((4, 9), 1e-3, False), SEQUENCE),
    "GroupNorm": Sample(lambda: nn.GroupNorm(2, 4), IMAGE),
    "GroupNorm, no weight": Sample(lambda: nn.GroupNorm(4, 4, 1e-3, affine=False), ROWS.repeat(1, 1)),
    "LocalResponseNorm": Sample(lambda: nn.LocalResponseNorm(2, 0.5, 0.6, 2.0), SEQUENCE),
}

ACTIVATION = {
    "CELU": Sample(lambda: nn.CELU(0.5), ROWS),
    "ELU": Sample(lambda: nn.ELU(0.5), ROWS),
    "GELU": Sample(nn.GELU, ROWS),
    "GELU, tanh": Sample(lambda: nn.GELU("tanh"), ROWS),
    "GLU": Sample(lambda: nn.GLU(1), SEQUENCE),
    "Hardshrink": Sample(lambda: nn.Hardshrink(0.3), ROWS),
    "Hardsigmoid": Sample(nn.Hardsigmoid, ROWS, rounding=2.0**-24),  # its gradient multiplies by 1/6 in float32, even in float64
    "Hardswish": Sample(nn.Hardswish, ROWS),
    "Hardtanh": Sample(lambda: nn.Hardtanh(-0.5, 0.7), ROWS),
    "LeakyReLU": Sample(lambda: nn.LeakyReLU(0.3), ROWS),
    "LogSigmoid": Sample(nn.LogSigmoid, ROWS),
    "LogSoftmax": Sample(lambda: nn.LogSoftmax(0), ROWS),
    "LogSoftmax, no axis": Sample(nn.LogSoftmax, SEQUENCE),
    "Mish": Sample(nn.Mish, ROWS),
    "PReLU": Sample(nn.PReLU, ROWS),
    "PReLU, channels": Sample(lambda: nn.PReLU(4, 0.1), IMAGE),
    "RReLU": Sample(lambda: nn.RReLU(0.25, 0.25), ROWS),
    "ReLU": Sample(lambda: nn.ReLU(inplace=True), ROWS),
    "ReLU6": Sample(nn.ReLU6, 5 * ROWS),
    "SELU": Sample(nn.SELU, ROWS),
    "SiLU": Sample(nn.SiLU, ROWS),
    "Sigmoid": Sample(nn.Sigmoid, ROWS),
    "Softmax": Sample(lambda: nn.Softmax(-1), SEQUENCE),
    "Softmax, no axis": Sample(nn.Softmax, IMAGE),
    "Softmax2d": Sample(nn.Softmax2d, IMAGE),
    "Softmin": Sample(lambda: nn.Softmin(1), SEQUENCE),
    "Softmin, no axis": Sample(nn.Softmin, ROWS[0]),
    "Softplus": Sample(lambda: nn.Softplus(2.0, 1.0), ROWS),
    "Softshrink": Sample(lambda: nn.Softshrink(0.3), ROWS),
    "Softsign": Sample(nn.Softsign, ROWS),
    "Tanh": Sample(nn.Tanh, ROWS),
    "Tanhshrink": Sample(nn.Tanhshrink, ROWS),
    "Threshold": Sample(lambda: nn.Threshold(0.1, -3.0), ROWS),
}

SHAPE = {
    "Flatten": Sample(nn.Flatten, IMAGE),
    "Flatten, some": Sample(lambda: nn.Flatten(0, 1), IMAGE),
    "Unflatten": Sample(lambda: nn.Unflatten(1, (2, 2)), SEQUENCE),
    "Unflatten, torch.Size": Sample(lambda: nn.Unflatten(-1, torch.Size([3, -1])), SEQUENCE),
    "ChannelShuffle": Sample(lambda: nn.ChannelShuffle(2), IMAGE),
    "PixelShuffle": Sample(lambda: nn.PixelShuffle(2), IMAGE),
    "PixelUnshuffle": Sample(lambda: nn.PixelUnshuffle(2), IMAGE[..., :6]),
    "CircularPad1d": Sample(lambda: nn.CircularPad1d((2, 1)), SEQUENCE),
    "CircularPad2d": Sample(lambda: nn.CircularPad2d(2), IMAGE),
    "CircularPad3d": Sample(lambda: nn.CircularPad3d((1, 2, 0, 1, 2, 1)), VOLUME),
    "ConstantPad1d": Sample(lambda: nn.ConstantPad1d(2, 1.5), SEQUENCE),
    "ConstantPad2d": Sample(lambda: nn.ConstantPad2d((1, 0, 2, -1), 2), IMAGE),
    "ConstantPad3d": Sample(lambda: nn.ConstantPad3d(1, -0.5), VOLUME),
    "ReflectionPad1d": Sample(lambda: nn.ReflectionPad1d((2, 1)), SEQUENCE[0]),
    "ReflectionPad2d": Sample(lambda: nn.ReflectionPad2d((1, 0, 2, 1)), IMAGE),
    "ReflectionPad3d": Sample(lambda: nn.ReflectionPad3d(1), VOLUME),
    "ReplicationPad1d": Sample(lambda: nn.ReplicationPad1d(3), SEQUENCE),
    "ReplicationPad2d": Sample(lambda: nn.ReplicationPad2d((1, 0, 2, 1)), IMAGE),
    "ReplicationPad3d": Sample(lambda: nn.ReplicationPad3d(1), VOLUME[0]),
    "ZeroPad1d": Sample(lambda: nn.ZeroPad1d((0, 2)), SEQUENCE),
    "ZeroPad2d": Sample(lambda: nn.ZeroPad2d(1), IMAGE),
    "ZeroPad3d": Sample(lambda: nn.ZeroPad3d((1, 0, 2, 1, 0, 3)), VOLUME),
    "Upsample": Sample(lambda: nn.Upsample(scale_factor=2.5), SEQUENCE),
    "Upsample, size": Sample(lambda: nn.Upsample([5, 9], mode="bilinear", align_corners=True), IMAGE),
    "Upsample, bicubic": Sample(lambda: nn.Upsample(scale_factor=(1.7, 2), mode="bicubic", recompute_scale_factor=True), IMAGE),
    "Upsample, trilinear": Sample(lambda: nn.Upsample(7, mode="trilinear"), VOLUME),
    "Upsample, area": Sample(lambda: nn.Upsample(scale_factor=0.5, mode="area"), IMAGE),
    "Upsample, nearest-exact": Sample(lambda: nn.Upsample(scale_factor=1.5, mode="nearest-exact"), IMAGE),
    "UpsamplingNearest2d": Sample(lambda: nn.UpsamplingNearest2d(scale_factor=2), IMAGE),
    "UpsamplingBilinear2d": Sample(lambda: nn.UpsamplingBilinear2d((5, 9)), IMAGE),
}

EMBEDDING = {
    "Embedding": Sample(lambda: nn.Embedding(6, 3), IDS),
    "Embedding, padding": Sample(lambda: nn.Embedding(6, 3, padding_idx=-5), IDS),
    "Embedding, max_norm": Sample(lambda: nn.Embedding(6, 3, max_norm=100.0, norm_type=1.0), IDS[0, 0]),
    "EmbeddingBag": Sample(lambda: nn.EmbeddingBag(6, 3), IDS),
    "EmbeddingBag, max": Sample(lambda: nn.EmbeddingBag(6, 3, mode="max"), (IDS.flatten(), torch.tensor([0, 2, 2])), _several),
    "EmbeddingBag, weights": Sample(
        lambda: nn.EmbeddingBag(6, 3, mode="sum", padding_idx=1), (IDS, draw((2, 3))), _bag_with_weights
    ),
    "EmbeddingBag, offsets and weights": Sample(
        lambda: nn.EmbeddingBag(6, 3, mode="sum"), (IDS.flatten(), torch.tensor([0, 4]), draw((6,))), _bag_with_weights
    ),
}

NOISE = {
    "AlphaDropout": Sample(lambda: nn.AlphaDropout(0.0), ROWS),
    "Dropout": Sample(lambda: nn.Dropout(0.0), ROWS),
    "Dropout, all": Sample(lambda: nn.Dropout(1.0, inplace=True), ROWS),
    "Dropout1d": Sample(lambda: nn.Dropout1d(0.0), SEQUENCE),
    "Dropout2d": Sample(lambda: nn.Dropout2d(0.0), IMAGE),
    "Dropout3d": Sample(lambda: nn.Dropout3d(0.0), VOLUME),
    "FeatureAlphaDropout": Sample(lambda: nn.FeatureAlphaDropout(0.0), IMAGE),
}

DISTANCES = {
    "CosineSimilarity": Sample(lambda: nn.CosineSimilarity(2, 1e-3), _pair((2, 4, 9), (2, 4, 9)), _several),
    "PairwiseDistance": Sample(lambda: nn.PairwiseDistance(3.0, 1e-3, True), _pair((5, 4), (5, 4)), _several),
}

SAMPLES: dict[str, Sample] = LINEAR | CONV | POOLING | NORM | ACTIVATION | SHAPE | EMBEDDING | NOISE | DISTANCES
"""All of them by name."""
