"""Changes of shape, paddings, resizings, and sampling on grids."""

import torch

import funcnet as fn
from cases.making import between, case, loose, normal

ARRANGEMENT = {
    "Identity": case(fn.Identity(), normal(4, 3)),
    "Identity of a pair": case(fn.Identity(), (normal(4, 3), normal(4, 2, 1))),
    "Flatten": case(fn.Flatten(), normal(2, 3, 4)),
    "Flatten of 2 axes": case(fn.Flatten(), normal(4, 3)),
    "Flatten of 4 axes": case(fn.Flatten(), normal(2, 3, 1, 4)),
    "Flatten all": case(fn.Flatten(0), normal(2, 3, 4)),
    "Flatten the middle": case(fn.Flatten(1, 2), normal(2, 3, 4, 5)),
    "Flatten from the end": case(fn.Flatten(-2, -1), normal(2, 3, 4)),
    "Flatten the first two": case(fn.Flatten(0, 1), normal(2, 3, 4)),
    "Unflatten": case(fn.Unflatten(1, (2, 3)), normal(4, 6)),
    "Unflatten the last": case(fn.Unflatten(-1, (2, -1, 1)), normal(2, 3, 4)),
    "Unflatten the first": loose(fn.Unflatten(0, (2, 2)), normal(4, 3)),
    "Reshape": case(fn.Reshape((2, -1)), normal(4, 6)),
    "Reshape to nothing": case(fn.Reshape(()), normal(4, 1)),
    "Reshape after two axes": case(fn.Reshape((3, 2), 2), normal(2, 3, 6)),
    "Reshape all": loose(fn.Reshape((-1,), 0), normal(4, 3)),
    "Squeeze": case(fn.Squeeze(1), normal(4, 1, 3)),
    "Squeeze nothing": case(fn.Squeeze(-1), normal(4, 3)),
    "Unsqueeze": case(fn.Unsqueeze(1), normal(4, 3)),
    "Unsqueeze the last": case(fn.Unsqueeze(-1), normal(4, 3)),
    "Unsqueeze the first": loose(fn.Unsqueeze(0), normal(4, 3)),
    "Permute": case(fn.Permute((0, 2, 3, 1)), normal(2, 3, 4, 5)),
    "Permute from the end": loose(fn.Permute((-1, 0, 1)), normal(2, 3, 4)),
    "Transpose": case(fn.Transpose(1, -1), normal(2, 3, 4)),
    "rearrange": case(fn.rearrange("n (h w) c -> n c h w", h=2), normal(2, 6, 3)),
    "rearrange, the rest": case(fn.rearrange("n ... a -> n a 1 ..."), normal(2, 3, 1, 2)),
    "rearrange the batch": loose(fn.rearrange("(n m) 1 a -> n (a m)", m=2), normal(4, 1, 3)),
    "Reduce": case(fn.Reduce("n h w c -> n c", "mean"), normal(2, 2, 3, 2)),
    "Reduce a part of an axis": case(fn.Reduce("n (t k) c -> n c t", "max", k=2), normal(2, 6, 2)),
    "Reduce the rest": case(fn.Reduce("n ... c -> n c 1", "sum"), normal(2, 3, 2, 2)),
    "Reduce before the rest": case(fn.Reduce("n a ... -> n ...", "prod"), normal(2, 2, 3, 2)),
    "Reduce nothing": case(fn.Reduce("n a b -> n b a", "sum"), normal(2, 3, 2)),
    "Reduce the batch": loose(fn.Reduce("n a -> a", "min"), normal(4, 3)),
    "Repeat": case(fn.Repeat("n c -> n t c", t=3), normal(4, 2)),
    "Repeat within axes": case(fn.Repeat("n c h w -> n (w b) c (h a)", a=2, b=3), normal(2, 2, 1, 2)),
    "Repeat, the rest": case(fn.Repeat("n ... a -> n a r ...", r=2), normal(2, 3, 1, 2)),
    "Repeat nothing": case(fn.Repeat("n (a b) -> n b 1 a", a=2), normal(4, 6)),
    "Repeat the batch": loose(fn.Repeat("n a -> (r n) a", r=2), normal(3, 2)),
    "ExpandWindow": case(fn.ExpandWindow(), normal(2, 4, 3)),
    "ExpandWindow, longer than x": loose(fn.ExpandWindow(3), normal(2, 1)),
    "Transpose the batch": loose(fn.Transpose(0, 1), normal(4, 3)),
}

INDEXING = {
    "Index": case(fn.Index[:, 1], normal(4, 3)),
    "Index of slices": case(fn.Index[:, 1:, ::2], normal(2, 3, 4)),
    "Index from the end": case(fn.Index[..., -1, None], normal(2, 3, 4)),
    "Index of a row": loose(fn.Index(2), normal(4, 3)),
    "Split": case(fn.Split((2, 1, 3)), normal(4, 6)),
    "Split evenly": case(fn.Split(2, 1), normal(2, 5, 3)),
    "Split rows": loose(fn.Split(1, 0), normal(2, 3)),
    "Chunk": case(fn.Chunk(2), normal(4, 5)),
    "Chunk of channels": case(fn.Chunk(3, 1), normal(2, 3, 2)),
    "OneHot": case(fn.OneHot(3), torch.tensor([0, 2, 1, 2])),
    "OneHot on 2 axes, some out of range": case(fn.OneHot(2, torch.float64), torch.tensor([[0, 1, 2], [-1, 0, 1]])),
}

SELECTING = {
    "Select": case(fn.Select(0), (normal(4, 3), normal(4, 2))),
    "Select from the end": case(fn.Select(-1), (normal(4, 3), torch.tensor([1, 2, 3, 4]), (normal(4, 2), normal(4)))),
    "Select by name": case(fn.Select("b"), {"a": normal(4, 3), "b": normal(4, 2)}),
    "Select in a net": case(fn.serial(fn.LSTM(3, 2, batch_first=True), fn.Select(0), fn.Linear(2, 3)), normal(4, 2, 3)),
    "Cast": case(fn.Cast(torch.float64), normal(4, 3)),
    "Cast of integers": case(fn.Cast(torch.float64), torch.tensor([[0, 255], [7, 1]])),
    "Cast in a net": case(fn.serial(fn.Tanh(), fn.Cast(torch.float64), fn.Sin()), normal(4, 3)),
    "Gather": case(fn.Gather(), (normal(4, 3), torch.tensor([0, 2, 1, 2]))),
    "Gather of channels, int32": case(fn.Gather(1), (normal(2, 3, 2), torch.tensor([[0, 2], [1, 2]]).int())),
    "Gather along the first axis": loose(fn.Gather(0), (normal(4), torch.tensor(2))),
}

PADDING = {
    "ZeroPad1d": case(fn.ZeroPad1d(2), normal(2, 3, 4)),
    "ZeroPad1d that takes away": case(fn.ZeroPad1d((1, -2)), normal(2, 3)),
    "ZeroPad2d": case(fn.ZeroPad2d((1, 0, 2, 3)), normal(2, 2, 3, 2)),
    "ZeroPad3d": case(fn.ZeroPad3d(1), normal(2, 1, 2, 1, 3)),
    "ConstantPad1d": case(fn.ConstantPad1d((1, 2), -1.5), normal(2, 3, 4)),
    "ConstantPad1d of a vector": loose(fn.ConstantPad1d(1, 2.0), normal(3)),
    "ConstantPad2d": case(fn.ConstantPad2d((0, 2, -1, 1), 0.5), normal(2, 3, 2, 3)),
    "ConstantPad3d": case(fn.ConstantPad3d((1, 0, 0, 1, 2, 0), 3.0), normal(2, 2, 1, 2)),
    "ReflectionPad1d": case(fn.ReflectionPad1d((3, 1)), normal(2, 3, 4)),
    "ReflectionPad1d that takes away": case(fn.ReflectionPad1d((-1, 2)), normal(2, 3, 4)),
    "ReplicationPad2d that takes away": case(fn.ReplicationPad2d((-1, 2, 1, -1)), normal(2, 3, 4, 3)),
    "CircularPad2d that takes away": case(fn.CircularPad2d((2, -1, -1, 1)), normal(2, 3, 4, 3)),
    "ReflectionPad1d without batch": loose(fn.ReflectionPad1d(1), normal(3, 2)),
    "ReflectionPad2d": case(fn.ReflectionPad2d((1, 2, 0, 1)), normal(2, 2, 2, 3)),
    "ReflectionPad3d": case(fn.ReflectionPad3d((1, 0, 2, 1, 0, 1)), normal(2, 1, 2, 3, 2)),
    "ReplicationPad1d": case(fn.ReplicationPad1d((3, 1)), normal(2, 3, 2)),
    "ReplicationPad2d": case(fn.ReplicationPad2d((1, 2, 0, 3)), normal(2, 2, 1, 3)),
    "ReplicationPad2d without batch": loose(fn.ReplicationPad2d(2), normal(2, 2, 3)),
    "ReplicationPad3d": case(fn.ReplicationPad3d((1, 0, 2, 1, 0, 1)), normal(2, 1, 2, 1, 2)),
    "CircularPad1d": case(fn.CircularPad1d((3, 2)), normal(2, 3, 3)),
    "CircularPad1d without batch": loose(fn.CircularPad1d(2), normal(3, 4)),
    "CircularPad2d": case(fn.CircularPad2d((1, 2, 0, 3)), normal(2, 2, 3, 2)),
    "CircularPad3d": case(fn.CircularPad3d((1, 0, 2, 1, 0, 1)), normal(2, 1, 2, 2, 1)),
}

RESIZING = {
    "Upsample": case(fn.Upsample(scale_factor=2), normal(2, 3, 4)),
    "Upsample of images": case(fn.Upsample((5, 3)), normal(2, 2, 2, 3)),
    "Upsample of volumes": case(fn.Upsample(scale_factor=(2, 1.5, 0.5)), normal(2, 1, 2, 2, 3)),
    "Upsample area": case(fn.Upsample((2, 4), mode="area"), normal(2, 2, 5, 3)),
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

# No point is on an edge between two elements.
GRID_SAMPLING = {
    "GridSample": case(fn.GridSample(), (normal(2, 3, 3, 4), between(-1.2, 1.2, 2, 2, 3, 2))),
    "GridSample of volumes": case(
        fn.GridSample(padding_mode="border", align_corners=True), (normal(2, 1, 2, 3, 2), between(-1.2, 1.2, 2, 2, 1, 2, 3))
    ),
    "GridSample nearest": case(fn.GridSample("nearest", "reflection"), (normal(2, 2, 3, 4), between(-1.2, 1.2, 2, 2, 1, 2))),
    "GridSample bicubic": case(fn.GridSample("bicubic", "reflection"), (normal(2, 1, 3, 4), between(-1.2, 1.2, 2, 1, 2, 2))),
    "AffineGrid": case(fn.AffineGrid((2, 3)), normal(4, 2, 3)),
    "AffineGrid of volumes": case(fn.AffineGrid((2, 1, 3), True), normal(2, 3, 4)),
}

TRIANGLES = {
    "Triu": case(fn.Triu(1), normal(2, 3, 4)),
    "Tril": case(fn.Tril(), normal(2, 4, 3)),
    "Tril of a bool x, below the diagonal": loose(fn.Tril(-1), normal(3, 3) > 0),
}

CASES = {**TRIANGLES, **ARRANGEMENT, **INDEXING, **SELECTING, **PADDING, **RESIZING, **GRID_SAMPLING}
