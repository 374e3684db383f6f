"""Convolutions."""

import torch

import funcnet as fn
from cases.making import case, loose, normal

CONV1D = {
    "Conv1d": case(fn.Conv1d(2, 3, 3), normal(2, 2, 7)),
    "Conv1d without bias": case(fn.Conv1d(2, 3, 3, bias=False), normal(2, 2, 7)),
    "Conv1d kernel 1": case(fn.Conv1d(3, 2, 1), normal(2, 3, 4)),
    "Conv1d as long as x": case(fn.Conv1d(2, 3, 5), normal(2, 2, 5)),
    "Conv1d of one channel and row": case(fn.Conv1d(1, 1, 2), normal(1, 1, 4)),
    "Conv1d stride that leaves a rest": case(fn.Conv1d(2, 3, 3, stride=2), normal(2, 2, 8)),
    "Conv1d stride beyond the kernel": case(fn.Conv1d(2, 2, 2, stride=3), normal(2, 2, 9)),
    "Conv1d padding": case(fn.Conv1d(2, 3, 3, padding=1), normal(2, 2, 5)),
    "Conv1d padding beyond the kernel": case(fn.Conv1d(2, 2, 2, padding=3), normal(2, 2, 3)),
    "Conv1d dilation": case(fn.Conv1d(2, 3, 3, dilation=2), normal(2, 2, 7)),
    "Conv1d groups": case(fn.Conv1d(4, 6, 3, groups=2), normal(2, 4, 5)),
    "Conv1d depthwise": case(fn.Conv1d(3, 3, 2, groups=3, bias=False), normal(2, 3, 5)),
    "Conv1d depthwise with multiplier": case(fn.Conv1d(2, 4, 2, groups=2), normal(3, 2, 5)),
    "Conv1d all options": case(fn.Conv1d(4, 2, 3, stride=2, padding=2, dilation=2, groups=2), normal(2, 4, 8)),
    "Conv1d valid": case(fn.Conv1d(2, 3, 3, stride=2, padding="valid"), normal(2, 2, 6)),
    "Conv1d same, odd kernel": case(fn.Conv1d(2, 3, 3, padding="same"), normal(2, 2, 5)),
    "Conv1d same, even kernel": case(fn.Conv1d(2, 3, 4, padding="same"), normal(2, 2, 5)),
    "Conv1d same, uneven by dilation": case(fn.Conv1d(2, 2, 2, padding="same", dilation=3, groups=2), normal(2, 2, 5)),
    "Conv1d same, kernel longer than x": case(fn.Conv1d(1, 2, 4, padding="same"), normal(2, 1, 2)),
    "Conv1d without batch": loose(fn.Conv1d(2, 3, 3, padding=1), normal(2, 5)),
    "Conv1d same, without batch": loose(fn.Conv1d(2, 3, 2, padding="same"), normal(2, 4)),
    "Conv1d as torch draws it": case(fn.Conv1d(2, 3, 3, initializer="torch"), normal(2, 2, 5)),
    "Conv1d causal": case(fn.Conv1d(2, 3, 3, padding="causal"), normal(2, 2, 5)),
    "Conv1d causal, stride": case(fn.Conv1d(2, 2, 2, stride=2, padding="causal", dilation=3), normal(2, 2, 6)),
    "Conv1d causal, replicate": loose(fn.Conv1d(2, 2, 3, padding=("causal",), padding_mode="replicate"), normal(2, 4)),
    "Conv1d ends": case(fn.Conv1d(2, 2, 3, padding=((1, 3),), stride=(2,)), normal(2, 2, 4)),
    "Conv1d reflect": case(fn.Conv1d(2, 2, 3, padding=3, padding_mode="reflect", bias=False), normal(2, 2, 4)),
    "Conv1d same, circular": case(fn.Conv1d(2, 2, 4, padding="same", padding_mode="circular"), normal(2, 2, 3)),
    "Conv1d of many": case(fn.Conv1d(5, 7, 3), normal(3, 5, 11)),
}

CONV2D = {
    "Conv2d": case(fn.Conv2d(2, 3, 3), normal(2, 2, 4, 5)),
    "Conv2d all options": case(
        fn.Conv2d(4, 2, (3, 2), stride=(2, 1), padding=(2, 1), dilation=(2, 3), groups=2, bias=False), normal(2, 4, 6, 5)
    ),
    "Conv2d channels last": case(fn.Conv2d(3, 4, 3, padding=1), normal(2, 3, 4, 5).to(memory_format=torch.channels_last)),
    "Conv2d depthwise": case(fn.Conv2d(3, 6, (2, 3), groups=3, padding="same"), normal(2, 3, 3, 4)),
    "Conv2d circular": case(fn.Conv2d(2, 3, 3, padding=(2, 1), padding_mode="circular", stride=2), normal(2, 2, 3, 4)),
    "Conv2d reflect": case(fn.Conv2d(1, 2, 3, padding=(1, 2), padding_mode="reflect"), normal(2, 1, 3, 4)),
    "Conv2d replicate": case(fn.Conv2d(1, 2, 3, padding=((0, 3), 1), padding_mode="replicate"), normal(2, 1, 3, 1)),
    "Conv2d causal along the first": case(fn.Conv2d(1, 2, 3, padding=("causal", "same")), normal(2, 1, 3, 4)),
    "Conv2d without batch": loose(fn.Conv2d(2, 3, 2, padding="same"), normal(2, 3, 4)),
}

CONV3D = {
    "Conv3d": case(fn.Conv3d(2, 3, 2), normal(2, 2, 3, 2, 4)),
    "Conv3d all options": case(
        fn.Conv3d(4, 2, (3, 1, 2), (2, 1, 1), (2, 0, 1), (1, 1, 2), groups=2, bias=False), normal(1, 4, 3, 2, 3)
    ),
    "Conv3d reflect": case(fn.Conv3d(1, 2, 2, padding=(1, 0, 1), padding_mode="reflect"), normal(2, 1, 2, 2, 3)),
    "Conv3d without batch, same": loose(fn.Conv3d(1, 2, (2, 3, 1), padding="same"), normal(1, 2, 3, 2)),
}

TRANSPOSED = {
    "ConvTranspose1d": case(fn.ConvTranspose1d(2, 3, 3), normal(2, 2, 4)),
    "ConvTranspose1d all options": case(fn.ConvTranspose1d(4, 2, 3, 3, (2,), 2, 2, False, 2), normal(2, 4, 3)),
    "ConvTranspose1d of another's length": case(fn.ConvTranspose1d(2, 3, 3, 2, 1), (normal(2, 2, 4), normal(2, 1, 8))),
    "ConvTranspose1d without batch": loose(fn.ConvTranspose1d(2, 3, 2, 2), normal(2, 4)),
    "ConvTranspose2d": case(fn.ConvTranspose2d(2, 3, (2, 3)), normal(2, 2, 3, 2)),
    "ConvTranspose2d all options": case(
        fn.ConvTranspose2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0), output_padding=(1, 0), groups=2, dilation=(1, 2)),
        normal(2, 2, 3, 2),
    ),
    "ConvTranspose2d channels last": case(
        fn.ConvTranspose2d(3, 2, 2, 2, bias=False, initializer="torch"), normal(2, 3, 3, 4).to(memory_format=torch.channels_last)
    ),
    "ConvTranspose3d": case(fn.ConvTranspose3d(2, 2, 2, (1, 2, 1), (0, 1, 1), groups=2), normal(2, 2, 3, 2, 2)),
    "ConvTranspose3d without batch": loose(fn.ConvTranspose3d(1, 2, (1, 2, 2)), normal(1, 2, 2, 1)),
}

FOLDING = {
    "Unfold": case(fn.Unfold(2), normal(2, 2, 3, 4)),
    "Unfold all options": case(fn.Unfold((3, 2), (1, 2), (2, 1), (2, 3)), normal(2, 2, 4, 5)),
    "Unfold without batch": loose(fn.Unfold((1, 2)), normal(2, 3, 4)),
    "Fold": case(fn.Fold((3, 4), 2), normal(2, 8, 6)),
    "Fold all options": case(fn.Fold((4, 5), (3, 2), (1, 2), (2, 1), (2, 3)), normal(2, 6, 6)),
    "Fold without batch": loose(fn.Fold(2, (1, 2)), normal(4, 2)),
}

LOCAL = {
    "ConvLocal1d": case(fn.ConvLocal1d(2, 3, 3, 5), normal(2, 2, 5)),
    "ConvLocal1d all options": case(fn.ConvLocal1d(2, 1, 2, 6, 2, ((3, 0),), 2, bias=False), normal(2, 2, 6)),
    "ConvLocal2d": case(fn.ConvLocal2d(2, 3, (2, 1), (3, 2), padding=(1, 0)), normal(2, 2, 3, 2)),
    "ConvLocal2d without batch": loose(fn.ConvLocal2d(1, 2, 2, 3, padding="same", initializer="torch"), normal(1, 3, 3)),
    "ConvLocal3d": case(fn.ConvLocal3d(1, 2, (2, 1, 2), 2, padding=("causal", 0, 0)), normal(2, 1, 2, 2, 2)),
    "MaskedConv A": case(fn.MaskedConv(fn.Conv2d(1, 2, 3, padding="same"), "A"), normal(2, 1, 3, 4)),
    "MaskedConv B": case(fn.MaskedConv(fn.Conv1d(2, 2, 2, bias=False), "B"), normal(2, 2, 4)),
}

CASES = {**CONV1D, **CONV2D, **CONV3D, **TRANSPOSED, **FOLDING, **LOCAL}
