"""Sampling at places, none of them on an edge between two elements."""

import funcnet as fn
from cases.making import between, case, normal

CASES = {
    "GridSample": case(fn.GridSample(), (normal(2, 3, 3, 4), between(-1.2, 1.2, 2, 2, 3, 2))),
    "GridSample of volumes": case(
        fn.GridSample(padding_mode="border", align_corners=True), (normal(2, 1, 2, 3, 2), between(-1.2, 1.2, 2, 2, 1, 2, 3))
    ),
    "GridSample nearest": case(fn.GridSample("nearest", "reflection"), (normal(2, 2, 3, 4), between(-1.2, 1.2, 2, 2, 1, 2))),
    "GridSample bicubic": case(fn.GridSample("bicubic", "reflection"), (normal(2, 1, 3, 4), between(-1.2, 1.2, 2, 1, 2, 2))),
    "AffineGrid": case(fn.AffineGrid((2, 3)), normal(4, 2, 3)),
    "AffineGrid of volumes": case(fn.AffineGrid((2, 1, 3), True), normal(2, 3, 4)),
}
