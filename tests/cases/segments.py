"""Segments of rows, and the smallest of windows."""

import torch

import funcnet as fn
from cases.making import case, loose, normal

LENGTHS = torch.tensor([1, 3, 0, 2])

SEGMENTS = {
    f"SegmentPool {reduction}": loose(fn.SegmentPool(reduction), (normal(7, 3), LENGTHS))
    for reduction in ("sum", "mean", "max", "min", "first", "last")
}

MIN = {
    "MinPool1d with indices": case(fn.MinPool1d(3, 1, 1, return_indices=True), normal(2, 2, 5)),
    "MinPool2d tiles": case(fn.MinPool2d(2), normal(2, 128, 9, 8)),
    "MinPool3d all options": loose(fn.MinPool3d((2, 1, 3), (1, 2, 1), (1, 0, 1), (1, 1, 2), ceil_mode=True), normal(2, 3, 2, 5)),
}

CASES = {
    **SEGMENTS,
    **MIN,
    "SegmentPool of one axis": loose(fn.SegmentPool("max"), (normal(6), LENGTHS.int())),
    "SegmentPool of three axes": loose(fn.SegmentPool(), (normal(6, 2, 3), LENGTHS)),
}
