"""Resizings and shuffles."""

import funcnet as fn
from cases.making import case, normal

CASES = {
    "Upsample": case(fn.Upsample(scale_factor=2), normal(2, 3, 4)),
    "Upsample of images": case(fn.Upsample((5, 3)), normal(2, 2, 2, 3)),
    "Upsample of volumes": case(fn.Upsample(scale_factor=(2, 1.5, 0.5)), normal(2, 1, 2, 2, 3)),
    "Upsample nearest-exact": case(fn.Upsample(scale_factor=1.7, mode="nearest-exact"), normal(2, 2, 3, 2)),
    "Upsample linear": case(fn.Upsample(5, mode="linear", align_corners=True), normal(2, 3, 3)),
    "Upsample bilinear": case(fn.Upsample(scale_factor=(1.5, 2.0), mode="bilinear"), normal(2, 2, 3, 2)),
    "Upsample bilinear, recomputed": case(fn.Upsample(None, 1.6, "bilinear", False, True), normal(2, 1, 3, 2)),
    "Upsample bicubic": case(fn.Upsample((4, 5), mode="bicubic"), normal(2, 1, 3, 2)),
    "Upsample bicubic to less": case(fn.Upsample((2, 3), mode="bicubic", align_corners=True), normal(1, 2, 4, 4)),
    "Upsample trilinear": case(fn.Upsample((3, 2, 4), mode="trilinear", align_corners=False), normal(2, 1, 2, 2, 3)),
    "UpsamplingNearest2d": case(fn.UpsamplingNearest2d(scale_factor=2), normal(2, 2, 3, 2)),
    "UpsamplingBilinear2d": case(fn.UpsamplingBilinear2d((4, 5)), normal(2, 2, 3, 2)),
    "UpsamplingBilinear2d by a factor": case(fn.UpsamplingBilinear2d(None, 1.5), normal(2, 1, 3, 3)),
    "PixelShuffle": case(fn.PixelShuffle(2), normal(2, 8, 3, 2)),
    "PixelShuffle by 1": case(fn.PixelShuffle(1), normal(2, 3, 2, 2)),
    "PixelUnshuffle": case(fn.PixelUnshuffle(2), normal(2, 3, 4, 2)),
    "ChannelShuffle": case(fn.ChannelShuffle(2), normal(2, 6, 2)),
    "ChannelShuffle of images": case(fn.ChannelShuffle(3), normal(2, 6, 2, 3)),
}
