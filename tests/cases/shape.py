"""Changes of shape."""

import torch

import funcnet as fn
from cases.making import case, loose, normal

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

CASES = {**ARRANGEMENT, **INDEXING}
