"""Normalization."""

import torch

import funcnet as fn
from cases.making import case, loose, normal

BATCH = {
    "BatchNorm1d": case(fn.BatchNorm1d(3), normal(4, 3)),
    "BatchNorm1d with length": case(fn.BatchNorm1d(3), normal(2, 3, 5)),
    "BatchNorm1d of one row with length": case(fn.BatchNorm1d(2), normal(1, 2, 5)),
    "BatchNorm1d of one channel": case(fn.BatchNorm1d(1), normal(3, 1)),
    "BatchNorm1d of two rows": case(fn.BatchNorm1d(2), normal(2, 2)),
    "BatchNorm1d not affine": case(fn.BatchNorm1d(3, affine=False), normal(4, 3)),
    "BatchNorm1d without statistics": case(fn.BatchNorm1d(3, track_running_stats=False), normal(4, 3)),
    "BatchNorm1d without anything": case(fn.BatchNorm1d(3, affine=False, track_running_stats=False), normal(4, 3)),
    "BatchNorm1d mean of all batches": case(fn.BatchNorm1d(3, momentum=None), normal(4, 3)),
    "BatchNorm1d large eps": case(fn.BatchNorm1d(3, eps=0.5, momentum=0.3), normal(4, 3)),
    "BatchNorm1d far from 0": case(fn.BatchNorm1d(3), normal(4, 3) + 100),
    "BatchNorm1d inference": case(fn.BatchNorm1d(3).inference(), normal(4, 3)),
    "BatchNorm1d inference with length": case(fn.BatchNorm1d(3, eps=0.1).inference(), normal(2, 3, 5)),
    "BatchNorm1d inference not affine": case(fn.BatchNorm1d(3, affine=False).inference(), normal(4, 3)),
    "BatchNorm1d inference without statistics": case(fn.BatchNorm1d(3, track_running_stats=False).inference(), normal(4, 3)),
    "BatchNorm1d without bias": case(fn.BatchNorm1d(3, bias=False), normal(4, 3)),
    "BatchNorm2d inference without bias": case(fn.BatchNorm2d(2, bias=False).inference(), normal(2, 2, 2, 3)),
    "BatchNorm2d": case(fn.BatchNorm2d(3, eps=0.1), normal(2, 3, 2, 3)),
    "BatchNorm2d of one row, not affine": case(fn.BatchNorm2d(2, affine=False), normal(1, 2, 3, 2)),
    "BatchNorm2d inference": case(fn.BatchNorm2d(3).inference(), normal(2, 3, 2, 3)),
    "BatchNorm3d": case(fn.BatchNorm3d(2, momentum=None), normal(2, 2, 2, 1, 3)),
    "BatchNorm3d inference": case(fn.BatchNorm3d(2).inference(), normal(2, 2, 2, 1, 3)),
}

ROWS = {
    "LayerNorm": case(fn.LayerNorm(3), normal(4, 3)),
    "LayerNorm over two axes": case(fn.LayerNorm((3, 2), eps=0.1), normal(2, 4, 3, 2)),
    "LayerNorm of one vector": loose(fn.LayerNorm(5), normal(5)),
    "LayerNorm of one number": case(fn.LayerNorm(1), normal(3, 1)),
    "LayerNorm without bias": case(fn.LayerNorm(3, bias=False), normal(4, 3)),
    "LayerNorm not affine": case(fn.LayerNorm(3, elementwise_affine=False), normal(2, 4, 3)),
    "LayerNorm far from 0": case(fn.LayerNorm(5), normal(4, 5) + 100),
    "LayerNorm of many": case(fn.LayerNorm(37), normal(19, 37)),
    "LayerNorm of channels": case(fn.LayerNorm(3, dim=1), normal(2, 3, 2, 2)),
    "LayerNorm of channels from the end, without bias": case(fn.LayerNorm(3, bias=False, dim=-2), normal(2, 3, 4)),
    "LayerNorm of rows": loose(fn.LayerNorm(4, dim=0), normal(4, 3)),
    "RMSNorm of channels": case(fn.RMSNorm(3, dim=1), normal(2, 3, 2, 2)),
    "RMSNorm of channels, not affine": case(fn.RMSNorm(3, elementwise_affine=False, dim=1), normal(2, 3, 4)),
    "RMSNorm": case(fn.RMSNorm(3), normal(4, 3)),
    "RMSNorm over two axes": case(fn.RMSNorm((3, 2), eps=0.1), normal(2, 4, 3, 2)),
    "RMSNorm of one vector": loose(fn.RMSNorm(5), normal(5)),
    "RMSNorm of one number": case(fn.RMSNorm(1, eps=0.01), normal(3, 1)),
    "RMSNorm not affine": case(fn.RMSNorm(3, elementwise_affine=False), normal(2, 4, 3)),
    "RMSNorm of many": case(fn.RMSNorm(37), normal(19, 37)),
}

GROUPS = {
    "GroupNorm": case(fn.GroupNorm(2, 4), normal(3, 4, 5)),
    "GroupNorm without space": case(fn.GroupNorm(2, 6, eps=0.1), normal(3, 6)),
    "GroupNorm of images, not affine": case(fn.GroupNorm(1, 3, affine=False), normal(2, 3, 2, 3)),
    "GroupNorm of channels last": case(fn.GroupNorm(2, 4), normal(2, 4, 3, 2).to(memory_format=torch.channels_last)),
    "GroupNorm of many axes": case(fn.GroupNorm(3, 3), normal(2, 3, 2, 1, 2, 2)),
    "GroupNorm without bias": case(fn.GroupNorm(2, 4, bias=False), normal(3, 4, 5)),
    "InstanceNorm2d without bias": case(fn.InstanceNorm2d(3, affine=True, bias=False), normal(2, 3, 2, 3)),
    "InstanceNorm1d": case(fn.InstanceNorm1d(3), normal(2, 3, 4)),
    "InstanceNorm1d without batch": loose(fn.InstanceNorm1d(3, affine=True), normal(3, 4)),
    "InstanceNorm2d affine": case(fn.InstanceNorm2d(3, eps=0.1, affine=True), normal(2, 3, 2, 3)),
    "InstanceNorm2d tracked": case(fn.InstanceNorm2d(2, affine=True, track_running_stats=True), normal(3, 2, 2, 2)),
    "InstanceNorm3d": case(fn.InstanceNorm3d(2, affine=True), normal(2, 2, 2, 1, 3)),
    "InstanceNorm1d inference": case(fn.InstanceNorm1d(3, track_running_stats=True).inference(), normal(2, 3, 4)),
    "InstanceNorm2d, mean of all batches": case(
        fn.InstanceNorm2d(2, momentum=None, affine=True, track_running_stats=True), normal(3, 2, 2, 2)
    ),
    "InstanceNorm2d inference without batch": loose(
        fn.InstanceNorm2d(2, affine=True, track_running_stats=True).inference(), normal(2, 2, 3)
    ),
    "InstanceNorm3d inference": case(fn.InstanceNorm3d(2, track_running_stats=True).inference(), normal(2, 2, 2, 1, 3)),
}

LOCAL = {
    "LocalResponseNorm": case(fn.LocalResponseNorm(2, alpha=0.5), normal(2, 4, 3)),
    "LocalResponseNorm of more than there are": case(fn.LocalResponseNorm(5, 1.0, 2.0, 0.7), normal(2, 3, 2, 2)),
    "LocalResponseNorm of one channel": case(fn.LocalResponseNorm(1, alpha=0.3, beta=-0.5), normal(2, 1, 2, 1, 3)),
    "CrossMapLRN2d": case(fn.CrossMapLRN2d(3, alpha=0.5, k=2), normal(2, 5, 2, 3)),
}

SCALINGS = {
    "Normalize": case(fn.Normalize(), normal(4, 3)),
    "Normalize by degree 1": case(fn.Normalize(1.0, -1), normal(2, 3, 4)),
    "Normalize by degree 3": case(fn.Normalize(3.0), normal(2, 3, 2)),
    "Normalize by the largest": case(fn.Normalize(float("inf")), normal(4, 3)),
    "Normalize short ones": case(fn.Normalize(eps=5.0), normal(4, 3)),
    "Normalize rows": loose(fn.Normalize(dim=0), normal(4, 3)),
    "Standardize": case(fn.Standardize(), normal(4, 3)),
    "Standardize two axes": case(fn.Standardize((1, -1), 0.1), normal(2, 3, 4)),
    "Standardize rows": loose(fn.Standardize(0), normal(4, 3)),
}

CASES = {**BATCH, **ROWS, **GROUPS, **LOCAL, **SCALINGS}
