"""Pooling of windows and of segments of rows."""

import torch

import funcnet as fn
from cases.making import between, case, loose, normal

TIED = (2 * normal(2, 2, 4, 5)).round()
LARGE = normal(2, 128, 9, 8)  # large enough for tiles
LAST = {"memory_format": torch.channels_last}

MAX = {
    "MaxPool1d": case(fn.MaxPool1d(2), normal(2, 2, 5)),
    "MaxPool1d all options": case(fn.MaxPool1d((4,), 3, (2,), 2, ceil_mode=True), normal(2, 2, 9)),
    "MaxPool1d with indices": case(fn.MaxPool1d(3, 1, return_indices=True), normal(2, 2, 5)),
    "MaxPool1d without batch": loose(fn.MaxPool1d(2, padding=1), normal(2, 5)),
    "MaxPool2d": case(fn.MaxPool2d(2), normal(2, 2, 5, 4)),
    "MaxPool2d all options": case(
        fn.MaxPool2d((3, 2), (2, 1), (1, 0), (1, 2), return_indices=True, ceil_mode=True), normal(2, 2, 4, 6)
    ),
    "MaxPool2d of equals": case(fn.MaxPool2d(2), TIED),
    "MaxPool2d channels last": case(fn.MaxPool2d(2, padding=1), normal(2, 3, 4, 4).to(**LAST)),
    "MaxPool2d tiles": case(fn.MaxPool2d(2), LARGE),
    "MaxPool2d tiles without batch": loose(fn.MaxPool2d((1, 3)), normal(100, 12, 17)),
    "MaxPool3d": case(fn.MaxPool3d(2), normal(2, 2, 2, 5, 4)),
    "MaxPool3d all options": case(fn.MaxPool3d((2, 1, 3), (1, 2, 1), (1, 0, 1), (1, 1, 2), True, True), normal(1, 2, 3, 2, 5)),
    "MaxPool3d without batch": loose(fn.MaxPool3d((1, 2, 2), 1), normal(2, 2, 2, 3)),
}

AVERAGE = {
    "AvgPool1d": case(fn.AvgPool1d(2), normal(2, 2, 5)),
    "AvgPool1d all options": case(fn.AvgPool1d(3, 2, 1, True, False, 4), normal(2, 2, 6)),
    "AvgPool1d without batch": loose(fn.AvgPool1d((4,), 1, 2), normal(2, 5)),
    "AvgPool2d": case(fn.AvgPool2d(2), normal(2, 2, 5, 4)),
    "AvgPool2d all options": case(fn.AvgPool2d((3, 2), (2, 1), (1, 0), ceil_mode=True), normal(2, 2, 4, 6)),
    "AvgPool2d without the padding": case(fn.AvgPool2d(3, 2, 1, count_include_pad=False), normal(2, 2, 5, 4).to(**LAST)),
    "AvgPool2d tiles": case(fn.AvgPool2d((2, 3)), LARGE),
    "AvgPool3d": case(fn.AvgPool3d((2, 1, 3), 1, (1, 0, 1), count_include_pad=False), normal(2, 2, 2, 3, 3)),
    "AvgPool3d over 5": loose(fn.AvgPool3d(2, (1, 2, 2), divisor_override=5), normal(2, 2, 3, 2)),
    "SumPool1d": case(fn.SumPool1d(3, 1, 1), normal(2, 2, 5)),
    "SumPool2d": case(fn.SumPool2d((2, 3), (1, 2), (1, 0), ceil_mode=True), normal(2, 2, 3, 6)),
    "SumPool3d": loose(fn.SumPool3d(2), normal(2, 3, 2, 4)),
}

NORM = {
    "LPPool1d": case(fn.LPPool1d(2, 2), normal(2, 2, 5)),
    "LPPool1d of p 3": case(fn.LPPool1d(3.0, 3, 1, True), between(0.5, 2.0, 2, 2, 5)),
    "LPPool2d of p 1": case(fn.LPPool2d(1, (2, 3), (1, 2)), between(0.5, 2.0, 2, 2, 3, 5)),
    "LPPool2d of p 2.5": loose(fn.LPPool2d(2.5, 2, 1, True), between(0.5, 2.0, 2, 3, 3)),
    "LPPool3d": case(fn.LPPool3d(2.0, 2, (2, 1, 1), True), normal(2, 1, 3, 2, 3)),
}

ADAPTIVE = {
    "AdaptiveAvgPool1d": case(fn.AdaptiveAvgPool1d(3), normal(2, 2, 7)),
    "AdaptiveAvgPool1d longer than x": loose(fn.AdaptiveAvgPool1d((5,)), normal(2, 3)),
    "AdaptiveAvgPool2d": case(fn.AdaptiveAvgPool2d((2, None)), normal(2, 2, 5, 3)),
    "AdaptiveAvgPool2d channels last": case(fn.AdaptiveAvgPool2d(1), normal(2, 3, 4, 4).to(**LAST)),
    "AdaptiveAvgPool3d": case(fn.AdaptiveAvgPool3d((2, 1, 3)), normal(2, 2, 3, 2, 4)),
    "AdaptiveMaxPool1d": case(fn.AdaptiveMaxPool1d(3, True), normal(2, 2, 7)),
    "AdaptiveMaxPool2d": case(fn.AdaptiveMaxPool2d((2, None)), normal(2, 2, 5, 3)),
    "AdaptiveMaxPool2d without batch": loose(fn.AdaptiveMaxPool2d(2, return_indices=True), normal(2, 4, 3)),
    "AdaptiveMaxPool3d": case(fn.AdaptiveMaxPool3d((2, 1, 3)), normal(2, 2, 3, 2, 4)),
    "GlobalAvgPool": case(fn.GlobalAvgPool(), normal(2, 3, 4, 2)),
    "GlobalAvgPool kept": case(fn.GlobalAvgPool(keepdim=True), normal(2, 3, 4)),
    "GlobalMaxPool": case(fn.GlobalMaxPool(), normal(2, 3, 2, 1, 3)),
    "GlobalMaxPool kept": case(fn.GlobalMaxPool(True), normal(2, 3, 4, 2).to(**LAST)),
    "GlobalSumPool": case(fn.GlobalSumPool(), normal(2, 3, 4)),
    "GlobalSumPool kept": case(fn.GlobalSumPool(True), normal(2, 3, 4, 2)),
}


def pair(pool: fn.Layer, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the largest elements, minus 1 so that 0 has no special role, and their indices."""
    y, indices = pool({}, x)
    return y - 1, indices


UNPOOL = {
    "MaxUnpool1d": case(fn.MaxUnpool1d(2), pair(fn.MaxPool1d(2, return_indices=True), normal(2, 2, 6))),
    "MaxUnpool1d overlapping": case(fn.MaxUnpool1d(3, 1, 1), pair(fn.MaxPool1d(3, 1, 1, return_indices=True), normal(2, 2, 6))),
    "MaxUnpool2d": case(fn.MaxUnpool2d((2, 1), 2, (1, 0)), pair(fn.MaxPool2d((2, 1), 2, (1, 0), 1, True), normal(2, 2, 4, 5))),
    "MaxUnpool2d of a size": case(
        fn.MaxUnpool2d(2, output_size=(5, 7)), pair(fn.MaxPool2d(2, return_indices=True), normal(2, 2, 5, 7))
    ),
    "MaxUnpool2d of another's lengths": case(
        fn.MaxUnpool2d(2), (*pair(fn.MaxPool2d(2, return_indices=True), normal(2, 2, 5, 7)), normal(2, 1, 5, 7))
    ),
    "MaxUnpool3d": loose(fn.MaxUnpool3d((2, 1, 2)), pair(fn.MaxPool3d((2, 1, 2), return_indices=True), normal(2, 2, 3, 4))),
}

FRACTIONAL = {
    "FractionalMaxPool2d": case(fn.FractionalMaxPool2d(2, 3), normal(2, 2, 5, 6)),
    "FractionalMaxPool2d all options": case(fn.FractionalMaxPool2d((1, 2), None, (0.5, 0.7), True), normal(2, 3, 4, 6)),
    "FractionalMaxPool2d of a sample": loose(fn.FractionalMaxPool2d(2, (3, 1), sample=0.3), normal(2, 6, 4)),
    "FractionalMaxPool3d": case(fn.FractionalMaxPool3d((2, 1, 2), 2), normal(2, 2, 4, 3, 5)),
    "FractionalMaxPool3d inference": case(fn.FractionalMaxPool3d(2, output_ratio=0.5).inference(), normal(2, 1, 4, 5, 4)),
}

MIN = {
    "MinPool1d with indices": case(fn.MinPool1d(3, 1, 1, return_indices=True), normal(2, 2, 5)),
    "MinPool2d tiles": case(fn.MinPool2d(2), normal(2, 128, 9, 8)),
    "MinPool3d all options": loose(fn.MinPool3d((2, 1, 3), (1, 2, 1), (1, 0, 1), (1, 1, 2), ceil_mode=True), normal(2, 3, 2, 5)),
}

LENGTHS = torch.tensor([1, 3, 0, 2])

SEGMENTS = {
    f"SegmentPool {reduction}": loose(fn.SegmentPool(reduction), (normal(7, 3), LENGTHS))
    for reduction in ("sum", "mean", "max", "min", "first", "last")
} | {
    "SegmentPool of one axis": loose(fn.SegmentPool("max"), (normal(6), LENGTHS.int())),
    "SegmentPool of three axes": loose(fn.SegmentPool(), (normal(6, 2, 3), LENGTHS)),
}

CASES = {**MAX, **MIN, **AVERAGE, **NORM, **ADAPTIVE, **UNPOOL, **FRACTIONAL, **SEGMENTS}
